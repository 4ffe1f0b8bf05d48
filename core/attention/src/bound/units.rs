//! The constants of a contract, and the sums of absolute values they multiply.

use crate::{AttentionSpec, Contract};
use libm::{expm1, fabs};
use ndarray::ArrayView1;
use tilewright_scalar::format::power_of_two;
use tilewright_scalar::{Element, Format};

/// Room for the products of two errors, which the sums below leave out: 2 % of a bound that is itself first-order.
pub(super) const SECOND_ORDER: f64 = 1.02;

/// The constants of a contract, as the formulas name them.
#[derive(Clone, Copy)]
pub(crate) struct Units {
    pub(crate) u: f64,
    pub(crate) u_s: f64,
    pub(crate) u_p: f64,
    pub(crate) u_ds: f64,
    pub(crate) u_oa: f64,
    pub(crate) u_ga: f64,
    pub(crate) eta_p: f64,
    pub(crate) eta_ds: f64,
    pub(crate) eta_oa: f64,
    pub(crate) eta_ga: f64,
    /// Where a format narrower than the accumulator overflows, nothing is known of what is kept in it.
    pub(super) max_s: f64,
    pub(super) max_ds: f64,
    pub(super) max_oa: f64,
    pub(super) max_ga: f64,
    pub(super) eta: f64,
    pub(super) exp: f64,
    pub(super) ln: f64,
    pub(super) tanh: f64,
    /// How far a stored number may be from what the kernel reads: 0 unless it flushes subnormals.
    pub(crate) flush: f64,
    /// Below this an `exp` may flush to zero.
    pub(super) exp_floor: f64,
}

impl Units {
    pub(crate) fn new(contract: &Contract) -> Self {
        let accum = contract.accum;
        let narrow = |format: Format| if format.precision < accum.precision { format.unit_roundoff() } else { 0.0 };
        // A narrow exponent underflows early even at full precision, so η counts whenever the format differs. A kernel that
        // flushes what it stores flushes what it rounds on the way as well.
        let underflow = |format: Format| match (format == accum, contract.flushes_subnormals) {
            (true, _) => 0.0,
            (false, false) => format.underflow_unit(),
            (false, true) => power_of_two(format.min_exponent),
        };
        let overflow =
            |format: Format| if format.max_exponent < accum.max_exponent { format.max_finite() } else { f64::INFINITY };
        let u = contract.unit_roundoff();
        // Truncation may lose all of the last place, rounding half of it.
        let eta = accum.underflow_unit() * if contract.truncates { 2.0 } else { 1.0 };
        Self {
            u,
            u_s: narrow(contract.scores),
            u_p: narrow(contract.probabilities),
            u_ds: narrow(contract.score_gradients),
            u_oa: narrow(contract.output_accum),
            u_ga: narrow(contract.gradient_accum),
            eta_p: underflow(contract.probabilities),
            eta_ds: underflow(contract.score_gradients),
            eta_oa: underflow(contract.output_accum),
            eta_ga: underflow(contract.gradient_accum),
            max_s: overflow(contract.scores),
            max_ds: overflow(contract.score_gradients),
            max_oa: overflow(contract.output_accum),
            max_ga: overflow(contract.gradient_accum),
            // A kernel that flushes what it stores flushes products and sums as well.
            eta: if contract.flushes_subnormals { power_of_two(accum.min_exponent) } else { eta },
            exp: contract.exp_error * u,
            ln: contract.ln_error * u,
            tanh: contract.tanh_error * u,
            flush: if contract.flushes_subnormals { power_of_two(contract.storage.min_exponent) } else { 0.0 },
            exp_floor: power_of_two(accum.min_exponent),
        }
    }

    /// `γ(n)`, a little sharper than `n u / (1 − n u)` and good for any `n`.
    pub(super) fn gamma(&self, n: usize) -> f64 {
        repeated(n as f64, self.u)
    }

    /// What `z = 1 / (1 − p)` and the product with it add to an error: two roundings, and the rounding of `p` itself as
    /// `1 − p` magnifies it.
    pub(super) fn dropout(&self, spec: &AttentionSpec) -> f64 {
        spec.dropout.map_or(0.0, |dropout| 2.0 * self.u / (1.0 - dropout.p))
    }
}

/// `e^(n u (1 + u)) − 1`: what `n` factors of `1 ± u`, or their reciprocals, differ from 1 by.
pub(super) fn repeated(n: f64, u: f64) -> f64 {
    expm1(n * u * (1.0 + u))
}

/// `⌈n / tile⌉`, one more for a tile cut at the start.
pub(crate) fn tile_count(n: usize, contract: &Contract) -> usize {
    n.div_ceil(contract.tile.max(1)) + 1
}

pub(super) fn magnitude<T: Element>(x: T) -> f64 {
    fabs(x.to_f64())
}

/// `Σ |x||y|`, the gauge of an inner product.
pub(super) fn gauge<T: Element>(x: ArrayView1<'_, T>, y: ArrayView1<'_, T>) -> f64 {
    x.iter().zip(y).map(|(x, y)| magnitude(*x) * magnitude(*y)).sum()
}

/// What flushed operands may take from an inner product: `flush Σ (|x| + |y|)`.
pub(super) fn flushed<T: Element>(units: &Units, x: ArrayView1<'_, T>, y: ArrayView1<'_, T>) -> f64 {
    if units.flush == 0.0 {
        return 0.0;
    }
    units.flush * x.iter().chain(y).map(|x| magnitude(*x) + units.flush).sum::<f64>()
}
