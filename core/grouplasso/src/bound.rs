//! How far a correct implementation's proximal operator and scores can be from the exact ones.
//!
//! With `u` the unit roundoff of the arithmetic, every sum of `p` terms in any order is within a factor `1 ± (p−1)u` of the
//! sum of magnitudes, to first order, and each product, quotient and square root adds one `u`. What follows only adds up such
//! terms, keeps the second order by a factor [`SLACK`], and uses two facts: soft thresholding is 1-Lipschitz in its argument
//! and in its threshold, and the shrink factor `f = max(0, 1 − tb/N) / (1 + tc)` is continuous, so that on either side of the
//! kink the same bound holds.
//!
//! An implementation must scale norms whose squares would overflow or vanish; what remains of underflow is some units
//! of the least subnormal number.

use crate::penalty::{norm, soft};
use crate::{GroupLassoError, GroupLassoSpec, Penalty, Terms, prox};
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};
use tilewright_scalar::{Element, Format};

/// What second-order terms are allowed, as a factor; the first order stays below a thousandth in every use.
pub const SLACK: f64 = 1.01;

/// Roundings in a threshold: λ, step, weight (a square root) and τ or α in the arithmetic's format, `1 − τ`, and products.
const THRESHOLD: f64 = 8.0;

/// The exact values, and for each how far a correct one can be away.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::{Format, GroupLassoSpec, Loss, bound};
/// let spec = GroupLassoSpec::rows(Loss::LeastSquares, 1.0);
/// let limits = bound::prox(&spec, 0.5, array![[3.0f32, 4.0], [0.1, 0.2]].view(), Format::F32)?;
/// assert!((limits.exact[[0, 0]] - 2.7).abs() < 1e-12 && limits.worst[[0, 0]] < 1e-5);
/// assert_eq!(limits.zero, [false, true]); // the second group must be exactly zero
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProxBound {
    /// The proximal operator in `f64`.
    pub exact: Array2<f64>,
    /// The greatest error of each element.
    pub worst: Array2<f64>,
    /// For each group whether it lies so far below its threshold that nothing but exact zeros is right.
    pub zero: Vec<bool>,
}

/// The bound of [`Prox::prox`](crate::Prox::prox) on `w` as stored, computed in `arithmetic` and rounded to `T`.
///
/// # Errors
/// As [`prox::check`].
pub fn prox<T: Element>(
    spec: &GroupLassoSpec,
    step: f64,
    w: ArrayView2<'_, T>,
    arithmetic: Format,
) -> Result<ProxBound, GroupLassoError> {
    let layout = prox::check(spec, step, w.nrows())?;
    let stored = w.map(|x| x.to_f64());
    let (mut exact, mut worst) = (stored.clone(), Array2::zeros(stored.raw_dim()));
    prox::all(spec, &layout, step, &mut exact.view_mut());
    let mut zero = Vec::with_capacity(layout.groups());
    for group in 0..layout.groups() {
        let (terms, v) = (layout.terms(spec, group), layout.gather(stored.view(), group));
        // The exact values are `f64` themselves, and have an error like anybody's.
        let share = shared(spec) * step * layout.weight(&spec.weights, group);
        let own = Block::new(terms, step, share, &v, Format::F64, Format::F64);
        let theirs = Block::new(terms, step, share, &v, arithmetic, T::FORMAT);
        zero.push(theirs.below > own.error + theirs.error);
        for (place, row) in layout.rows_of(group).enumerate() {
            for k in 0..w.ncols() {
                let at = place * w.ncols() + k;
                worst[[row, k]] = own.worst(&v, at) + theirs.worst(&v, at);
            }
        }
    }
    Ok(ProxBound { exact, worst, zero })
}

/// λ, where a coefficient is a share of it, τ or α or what is left to 1: a rounded share makes what is left wrong by as much.
fn shared(spec: &GroupLassoSpec) -> f64 {
    if spec.penalty == Penalty::GroupLasso { 0.0 } else { spec.lambda }
}

/// One group's error analysis.
struct Block {
    unit: f64,
    storage: Format,
    underflow: f64,
    /// `ta`.
    l1: f64,
    /// `f`, exact, and its error.
    factor: f64,
    factor_error: f64,
    /// `tb − N`, and the error of that comparison.
    below: f64,
    error: f64,
}

impl Block {
    fn new(terms: Terms, step: f64, share: f64, v: &[f64], arithmetic: Format, storage: Format) -> Self {
        let unit = SLACK * arithmetic.unit_roundoff();
        let underflow = arithmetic.underflow_unit().max(storage.underflow_unit());
        let (l1, l2, ridge) = (step * terms.l1, step * terms.l2, step * terms.ridge);
        let shrunk: Vec<f64> = v.iter().map(|x| soft(*x, l1)).collect();
        let n = norm(&shrunk);
        // Entries after soft thresholding: an error of the threshold, and one subtraction.
        let entries: Vec<f64> = shrunk.iter().map(|s| soft_error(*s, l1, unit)).collect();
        let norm_error = norm(&entries) + relative_norm_error(v.len(), unit) * n;
        let threshold_error = THRESHOLD * unit * l2 + unit * share;
        let ridge_error = THRESHOLD * unit * ridge + unit * share;
        let factor = if n > l2 { (n - l2) / n / (1.0 + ridge) } else { 0.0 };
        // d(1 − tb/N) = −d(tb)/N + tb/N · dN/N; subtraction and division, in whichever order, round thrice.
        let kink = if n > 0.0 { threshold_error / n + (l2.min(n) / n) * (norm_error / n) + 3.0 * unit } else { 0.0 };
        let factor_error = kink / (1.0 + ridge) + (ridge_error / (1.0 + ridge) + 2.0 * unit) * factor;
        let error = norm_error + threshold_error + underflow * v.len() as f64;
        Self { unit, storage, underflow, l1, factor, factor_error, below: l2 - n, error }
    }

    fn worst(&self, v: &[f64], at: usize) -> f64 {
        let s = soft(v[at], self.l1);
        let entry = soft_error(s, self.l1, self.unit);
        let error = self.factor_error * (s.abs() + entry) + self.factor * entry;
        let largest = self.factor * s.abs() + error;
        error + (self.unit + self.storage.unit_roundoff()) * largest + 4.0 * self.underflow
    }
}

fn soft_error(s: f64, threshold: f64, unit: f64) -> f64 {
    if threshold == 0.0 { 0.0 } else { THRESHOLD * unit * threshold + unit * s.abs() }
}

/// `p` squares and `p − 1` additions, halved by the square root, which rounds once, and a scale that rounds twice.
fn relative_norm_error(p: usize, unit: f64) -> f64 {
    (0.5 * p as f64 + 3.0) * unit
}

/// How far a correct score of a row of `w` can be from the `f64` one: sums in `arithmetic`, rounded to `result`.
///
/// ```
/// use tilewright_grouplasso::{Format, bound};
/// assert!(bound::score(&[3.0, 4.0], Format::F32, Format::F32) < 2e-6);
/// ```
pub fn score(row: &[f64], arithmetic: Format, result: Format) -> f64 {
    let relative = |format: Format| relative_norm_error(row.len(), SLACK * format.unit_roundoff());
    let n = norm(row);
    let underflow = arithmetic.underflow_unit().max(result.underflow_unit());
    n * (relative(arithmetic) + relative(Format::F64) + SLACK * result.unit_roundoff()) + 2.0 * underflow
}
