//! Per-element error bounds, derived from a [`Contract`].
//!
//! For every element of every output there are two figures beside the true value `x`:
//!
//! * [`Limit::worst`]: no implementation that keeps its contract can be further from `x`, whatever the order of its
//!   sums, its tile sizes or the data. An error beyond it is a bug with certainty.
//! * [`Limit::coherent`] and [`Limit::sigma`]: the part of that error which may have one sign throughout (the
//!   accumulator's own roundings, kept at their worst), and the standard deviation of the rest (roundings to formats
//!   narrower than the accumulator, independent of each other where the data are in general position). A kernel stays
//!   within `coherent + 6 sigma` and the final rounding; see [`crate::spread`].
//!
//! The bound is the gauge of the Level-3 BLAS tester (Dongarra et al. 1990) carried through the softmax and its
//! derivative: every sum of products is accompanied by the sum of its absolute values, and every rounding error is a
//! multiple of such a sum. Notation, per row `i` and visible key `j`:
//!
//! ```text
//! u, γ(n) = n u / (1 − n u)     unit roundoff of the accumulator; n roundings in a row
//! u_s, u_P, u_dS, u_o           roundings to narrower formats (0 where the value stays in the accumulator)
//! ε_e, ε_l, ε_t                 relative errors of exp, ln, tanh
//! η                             half the smallest subnormal of a format: the error of a rounding that underflows
//! T                             number of tiles in a row of the score matrix
//! t_ij, π_ij                    relative error of an unnormalised and of a recomputed probability
//! B^X                           the bound on X
//! ```
//!
//! No first-order shortcut is taken where an exponent's error may be large: `e^δ − 1` stands where `δ` usually does,
//! and an average of values is never further from its true value than the values are. So the bounds hold for scores of
//! ±10⁴ too, where they say, rightly, that f32 knows little.

use crate::reference::{ReferenceGradients, Row, for_each_row, softmax_row};
use crate::spread;
use crate::tensors::{broadcast_index, check_incoming, row, row_mut};
use crate::{AttentionError, AttentionSpec, Contract, Inputs};
use alloc::vec;
use alloc::vec::Vec;
use libm::{expm1, fabs};
use ndarray::{Array, Array3, Array4, ArrayView1, ArrayView3, ArrayView4, Dimension};
use tilewright_scalar::format::power_of_two;
use tilewright_scalar::{Element, Format};

/// Room for the products of two errors, which the sums below leave out: 2 % of a bound that is itself first-order.
const SECOND_ORDER: f64 = 1.02;

/// The error allowed to one tensor, element by element, around its true value.
#[derive(Clone, Debug)]
pub struct Limit<D: Dimension> {
    /// Bound on the error of any kernel that keeps the contract.
    pub worst: Array<f64, D>,
    /// The part of the error that may be systematic, without the final rounding.
    pub coherent: Array<f64, D>,
    /// Standard deviation of the rest, without the final rounding.
    pub sigma: Array<f64, D>,
}

/// Limits of the forward pass.
#[derive(Clone, Debug)]
pub struct ForwardLimits {
    /// For `O`.
    pub o: Limit<ndarray::Ix4>,
    /// For LSE.
    pub lse: Limit<ndarray::Ix3>,
}

/// Limits of the backward pass that follows the implementation's own forward pass.
#[derive(Clone, Debug)]
pub struct BackwardLimits {
    /// For `dQ`.
    pub d_q: Limit<ndarray::Ix4>,
    /// For `dK`.
    pub d_k: Limit<ndarray::Ix4>,
    /// For `dV`.
    pub d_v: Limit<ndarray::Ix4>,
    /// For `dBias`, if there is a bias.
    pub d_bias: Option<Limit<ndarray::Ix4>>,
    /// For `dSink`, if there are sinks.
    pub d_sink: Option<Limit<ndarray::Ix1>>,
}

/// Limits for `O` and LSE.
///
/// ```
/// use ndarray::array;
/// use tilewright_attention::{AttentionSpec, Contract, Format, Inputs, bound};
/// let spec = AttentionSpec::dense(1, 1, 1, 2, 1);
/// let (q, k, v) = (array![[[[1f32]]]], array![[[[0f32], [1.0]]]], array![[[[2f32], [4.0]]]]);
/// let limits = bound::forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), &Contract::strict(Format::F32))?;
/// let worst = limits.o.worst[[0, 0, 0, 0]];
/// assert!(worst > 1e-7 && worst < 1e-4);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
///
/// Time and memory as the [reference](crate::reference), about three times over.
///
/// # Errors
/// As [`Inputs::check`].
pub fn forward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
) -> Result<ForwardLimits, AttentionError> {
    inputs.check(spec)?;
    let (o, lse) = worst_forward(spec, inputs, contract);
    let (o_coherent, lse_coherent) = worst_forward(spec, inputs, &widened(contract));
    let (o_sigma, lse_sigma) = spread::forward(spec, inputs, contract);
    Ok(ForwardLimits {
        o: Limit { worst: o, coherent: o_coherent, sigma: o_sigma },
        lse: Limit { worst: lse, coherent: lse_coherent, sigma: lse_sigma },
    })
}

/// Limits for the gradients of `Σ O∘dO + Σ LSE∘dLSE`, where `O` and LSE are the implementation's own.
///
/// # Errors
/// As [`crate::reference::backward`].
pub fn backward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
    contract: &Contract,
) -> Result<BackwardLimits, AttentionError> {
    inputs.check(spec)?;
    check_incoming(spec, d_o, d_lse)?;
    let worst = worst_backward(spec, inputs, d_o, d_lse, contract);
    let coherent = worst_backward(spec, inputs, d_o, d_lse, &widened(contract));
    let sigma = spread::backward(spec, inputs, d_o, d_lse, contract);
    let limit4 = |worst, coherent, sigma| Limit { worst, coherent, sigma };
    Ok(BackwardLimits {
        d_q: limit4(worst.d_q, coherent.d_q, sigma.d_q),
        d_k: limit4(worst.d_k, coherent.d_k, sigma.d_k),
        d_v: limit4(worst.d_v, coherent.d_v, sigma.d_v),
        d_bias: zip3(worst.d_bias, coherent.d_bias, sigma.d_bias),
        d_sink: zip3(worst.d_sink, coherent.d_sink, sigma.d_sink),
    })
}

/// The format `O` and gradients come out in: the storage format, without subnormals if the contract says so.
pub fn stored(contract: &Contract) -> Format {
    Format { subnormals: !contract.flushes_subnormals, ..contract.storage }
}

/// The error of the final rounding of a value near `x`: `u_o |x| + η_o`.
pub fn final_rounding(format: Format, x: f64) -> f64 {
    format.unit_roundoff() * fabs(x) + format.underflow_unit()
}

fn zip3<D: Dimension>(
    worst: Option<Array<f64, D>>,
    coherent: Option<Array<f64, D>>,
    sigma: Option<Array<f64, D>>,
) -> Option<Limit<D>> {
    Some(Limit { worst: worst?, coherent: coherent?, sigma: sigma? })
}

/// The same kernel with every narrower format replaced by the accumulator: what is left is what may be systematic.
fn widened(contract: &Contract) -> Contract {
    let accum = contract.accum;
    Contract {
        // Its range stays: what is flushed stays flushed.
        storage: Format { precision: accum.precision, ..contract.storage },
        scores: accum,
        probabilities: accum,
        score_gradients: accum,
        output_accum: accum,
        gradient_accum: accum,
        lse: accum,
        ..*contract
    }
}

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
    /// Rounding of a stored LSE, where that is narrower than the accumulator.
    pub(crate) u_lse: f64,
    eta: f64,
    exp: f64,
    ln: f64,
    tanh: f64,
    /// How far a stored number may be from what the kernel reads: 0 unless it flushes subnormals.
    pub(crate) flush: f64,
    /// Below this an `exp` may flush to zero.
    exp_floor: f64,
}

impl Units {
    pub(crate) fn new(contract: &Contract) -> Self {
        let accum = contract.accum;
        let narrow = |format: Format| if format.precision < accum.precision { format.unit_roundoff() } else { 0.0 };
        // A narrow exponent underflows early even at full precision, so η counts whenever the format differs.
        let underflow = |format: Format| if format == accum { 0.0 } else { format.underflow_unit() };
        let u = contract.unit_roundoff();
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
            u_lse: narrow(contract.lse),
            eta: accum.underflow_unit(),
            exp: contract.exp_error * u,
            ln: contract.ln_error * u,
            tanh: contract.tanh_error * u,
            flush: if contract.flushes_subnormals { power_of_two(contract.storage.min_exponent) } else { 0.0 },
            exp_floor: power_of_two(accum.min_exponent),
        }
    }

    /// `γ(n) = n u / (1 − n u)`.
    fn gamma(&self, n: usize) -> f64 {
        let n_u = n as f64 * self.u;
        n_u / (1.0 - n_u.min(0.5))
    }
}

/// `⌈n / tile⌉`, one more for a tile cut at the start.
pub(crate) fn tile_count(n: usize, contract: &Contract) -> usize {
    n.div_ceil(contract.tile.max(1)) + 1
}

pub(crate) fn magnitude<T: Element>(x: T) -> f64 {
    fabs(x.to_f64())
}

/// `Σ |x||y|`, the gauge of an inner product.
fn gauge<T: Element>(x: ArrayView1<'_, T>, y: ArrayView1<'_, T>) -> f64 {
    x.iter().zip(y).map(|(x, y)| magnitude(*x) * magnitude(*y)).sum()
}

/// What flushed operands may take from an inner product: `flush Σ (|x| + |y|)`.
fn flushed<T: Element>(units: &Units, x: ArrayView1<'_, T>, y: ArrayView1<'_, T>) -> f64 {
    if units.flush == 0.0 {
        return 0.0;
    }
    units.flush * x.iter().chain(y).map(|x| magnitude(*x) + units.flush).sum::<f64>()
}

/// `E_s`: the error of one score. `γ(d + 4) τ Σ|q||k|` for the product and its scaling (the roundings of `τ` and of a
/// folded `log2 e` among them), shrunk by the softcap's slope, plus the roundings of every later addition.
fn score_error<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    units: &Units,
    [b, h, i, j]: [usize; 4],
    s: f64,
) -> f64 {
    let ((qb, qi), (kb, kj), hk) = (spec.query_slot(b, i), spec.key_slot(b, j), spec.kv_head(h));
    let (q, k, d) = (row(inputs.q, [qb, h, qi]), row(inputs.k, [kb, hk, kj]), spec.head_dim);
    let rounded = units.gamma(d + 4) * gauge(q, k) + d as f64 * units.eta;
    let raw = fabs(spec.scale) * (rounded + flushed(units, q, k));
    let bias = inputs.bias_at(b, h, i, j).map_or(0.0, |bias| bias.to_f64());
    let added = bias + spec.alibi(b, h, i, j);
    let additions = 3.0 * units.u * (fabs(s) + fabs(bias) + 2.0 * fabs(spec.alibi(b, h, i, j)));
    let capped = match spec.softcap {
        None => raw,
        // The steepest the tanh gets within the error: at the point nearest 0.
        Some(cap) => {
            let (before_bias, nearest) = (fabs(s - added), (fabs(s - added) - raw).max(0.0) / cap);
            raw * (1.0 - nearest * nearest).max(0.0) + before_bias * (units.tanh + 4.0 * units.u)
        }
    };
    capped + additions + units.u_s * fabs(s)
}

/// Error figures of one row of the forward pass.
pub(crate) struct RowError {
    /// `E_s`, per visible key.
    pub(crate) score: Vec<f64>,
    /// `t_ij = e^δ − 1`, per visible key.
    weight: Vec<f64>,
    /// `t` of the sink.
    sink: f64,
    /// The running maximum's final value, the sink included.
    pub(crate) m: f64,
    /// `1 / ℓ`.
    pub(crate) inverse_l: f64,
    /// `γ(n + 2T + 2)`: the sums over the row.
    sums: f64,
    /// Tiles in the row.
    pub(crate) tiles: usize,
    /// `B^LSE`.
    pub(crate) lse: f64,
}

/// `δ_ij = E_s + 4u(|s| + |m|) + 2u|s − m| + ε_e + T(ε_e + 2u)` bounds the exponent's error: the subtraction, its
/// folding into base 2, and the rescalings, whose exponents telescope from the maximum that was current when key `j`
/// was met to the last one, a distance no larger than `m − s`.
pub(crate) fn row_error<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
    units: &Units,
    [b, h, i]: [usize; 3],
    softmax: &Row<f64>,
) -> RowError {
    let sink = inputs.sink.map_or(f64::NEG_INFINITY, |sink| sink[h].to_f64());
    let m = softmax.entries.iter().fold(sink, |m, entry| m.max(entry.s));
    let (n, tiles) = (softmax.entries.len(), tile_count(spec.kv_len(b), contract));
    let per_tile = tiles as f64 * (units.exp + 2.0 * units.u);
    let exponent = |s: f64| 4.0 * units.u * (fabs(s) + fabs(m)) + 2.0 * units.u * (m - s) + units.exp + per_tile;
    let score: Vec<f64> =
        softmax.entries.iter().map(|e| score_error(spec, inputs, units, [b, h, i, e.j], e.s)).collect();
    let weight: Vec<f64> =
        softmax.entries.iter().zip(&score).map(|(e, error)| bounded_expm1(error + exponent(e.s))).collect();
    let sink_weight = if sink == f64::NEG_INFINITY { 0.0 } else { bounded_expm1(exponent(sink)) };
    let inverse_l = libm::exp(m - softmax.lse);
    let sums = units.gamma(n + 2 * tiles + 2);
    let mut error = RowError { score, weight, sink: sink_weight, m, inverse_l, sums, tiles, lse: 0.0 };
    error.lse = lse_error(contract, units, softmax, &error);
    error
}

/// An exponent known to nothing better than a factor `e^60` is not known at all; the cap keeps products of such
/// errors with zero weights finite.
fn bounded_expm1(exponent: f64) -> f64 {
    expm1(exponent.min(60.0))
}

/// `B^LSE = ln(1 + Σ P t) + γ(n + 2T + 2) + 3u(|m| + |LSE|) + (ε_l + 4u)(|ln ℓ| + 1) + u_lse |LSE|`, the first term no
/// larger than the largest exponent error. Accurate to the accumulator, however narrow the tensors are.
fn lse_error(contract: &Contract, units: &Units, softmax: &Row<f64>, error: &RowError) -> f64 {
    if softmax.lse == f64::NEG_INFINITY {
        return 0.0;
    }
    let weighted: f64 = softmax.entries.iter().zip(&error.weight).map(|(e, t)| e.p * t).sum();
    let largest = error.weight.iter().fold(error.sink, |largest, t| largest.max(*t));
    // Errors of either sign: −ln(1 − x) exceeds ln(1 + x), and both stay below the largest exponent error.
    let exponents =
        (SECOND_ORDER * (1.0 + largest) * (weighted + softmax.p_sink * error.sink)).min(libm::log1p(largest));
    let rounded = if contract.sums_rounded_probabilities {
        units.u_p + units.eta_p * error.inverse_l * softmax.entries.len() as f64
    } else {
        0.0
    };
    let log_l = fabs(libm::log(error.inverse_l));
    exponents
        + rounded
        + error.sums
        + 3.0 * units.u * (fabs(error.m) + fabs(softmax.lse))
        + (units.ln + 4.0 * units.u) * (log_l + 1.0)
        + final_rounding(contract.lse, softmax.lse)
}

/// `B^O`, for one row:
///
/// ```text
/// min( (1 + t_max) Σ_j P_ij t_ij |Z v_jx − o_ix| ,  max_j |Z v_jx − o_ix| )      errors of the weights: centred
///   + (u_P + T u_oa + γ(n + 2T + 2)) Σ_j P_ij Z |v_jx| + (η_P + floor_exp) / ℓ Σ_j Z |v_jx|      of the products
///   + (γ(n + 2T + 2) + 4u) |o_ix| + T η_oa + u_o |o_ix| + η_o                         of ℓ, the division, the last rounding
/// ```
pub(crate) fn output_error<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
    units: &Units,
    [b, h]: [usize; 2],
    softmax: &Row<f64>,
    error: &RowError,
) -> (Vec<f64>, Vec<f64>) {
    let (dim, hk) = (spec.value_dim, spec.kv_head(h));
    let mut o = vec![0.0; dim];
    let mut gauge = vec![0.0; dim]; // Σ P Z |v|
    let mut total = vec![0.0; dim]; // Σ Z |v|
    for entry in &softmax.entries {
        let (kb, kj) = spec.key_slot(b, entry.j);
        for (x, v) in row(inputs.v, [kb, hk, kj]).iter().enumerate() {
            let zv = entry.z * v.to_f64();
            o[x] += entry.p * zv;
            gauge[x] += entry.p * fabs(zv);
            total[x] += fabs(zv);
        }
    }
    let t_max = error.weight.iter().fold(error.sink, |largest, t| largest.max(*t));
    let mut centred: Vec<f64> = o.iter().map(|o| softmax.p_sink * error.sink * fabs(*o)).collect();
    let mut reach: Vec<f64> = o.iter().map(|o| if softmax.p_sink > 0.0 { fabs(*o) } else { 0.0 }).collect();
    for (entry, t) in softmax.entries.iter().zip(&error.weight) {
        let (kb, kj) = spec.key_slot(b, entry.j);
        for (x, v) in row(inputs.v, [kb, hk, kj]).iter().enumerate() {
            let distance = fabs(entry.z * v.to_f64() - o[x]);
            centred[x] += entry.p * t * distance;
            reach[x] = reach[x].max(distance);
        }
    }
    let products = units.u_p + error.tiles as f64 * units.u_oa + error.sums + 2.0 * units.u;
    let floor = (units.eta_p + units.exp_floor) * error.inverse_l;
    let count = (softmax.entries.len() + 2 * error.tiles) as f64;
    let keep: f64 = softmax.entries.iter().map(|entry| entry.p * entry.z).sum();
    let bound = (0..dim)
        .map(|x| {
            ((1.0 + t_max) * centred[x]).min(reach[x])
                + SECOND_ORDER * (products * gauge[x] + floor * total[x] + (error.sums + 4.0 * units.u) * fabs(o[x]))
                + count * units.eta
                + error.tiles as f64 * units.eta_oa
                + units.flush * keep
                + final_rounding(stored(contract), o[x])
        })
        .collect();
    (o, bound)
}

fn worst_forward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
) -> (Array4<f64>, Array3<f64>) {
    let units = Units::new(contract);
    let mut o = Array4::zeros(spec.o_shape());
    let mut lse = Array3::zeros(spec.lse_shape());
    for_each_row(spec, |b, h, i| {
        let softmax = softmax_row::<T, f64>(spec, inputs, b, h, i);
        if softmax.lse == f64::NEG_INFINITY {
            return; // exactly O = 0, LSE = −∞
        }
        let (qb, qi) = spec.query_slot(b, i);
        let error = row_error(spec, inputs, contract, &units, [b, h, i], &softmax);
        let (_, bound) = output_error(spec, inputs, contract, &units, [b, h], &softmax, &error);
        row_mut(o.view_mut(), [qb, h, qi]).assign(&ArrayView1::from(&bound));
        lse[[qb, h, qi]] = error.lse;
    });
    (o, lse)
}

/// One element of a gradient, a sum of products, while its terms come in.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    /// `Σ |terms|`.
    gauge: f64,
    /// `Σ` of the errors that the terms bring along.
    error: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, term: f64, error: f64) {
        self.value += term;
        self.gauge += fabs(term);
        self.error += error;
        self.terms += 1;
    }

    /// The bound on the stored sum: `Σ errors + (γ(n + 4) + T u_ga) Σ|terms| + T η_ga + 3u |x| + u_o |x| + η_o`, where
    /// `T`, the number of times the running sum is rounded, is at most `tiles` and at most the number of terms.
    /// `after` is what the sum may still be multiplied by.
    fn close(self, units: &Units, tiles: usize, after: f64, format: Format) -> f64 {
        if self.terms == 0 {
            return 0.0;
        }
        let tiles = tiles.min(self.terms) as f64;
        let sums = units.gamma(self.terms + 4) + tiles * units.u_ga;
        SECOND_ORDER * (self.error + sums * self.gauge)
            + tiles * units.eta_ga * after.max(1.0)
            + 3.0 * units.u * fabs(self.value)
            + self.terms as f64 * units.eta
            + final_rounding(format, self.value)
    }
}

/// What one row of the backward pass needs to know of itself. Per pair, with `g = dO_i`, `a = g·v_j`, `e = |Z a − D'|`:
///
/// ```text
/// π    = e^(E_s + 3u(|s| + |LSE|) + B^LSE) − 1 + ε_e                                      recomputed P
/// B^D  = Σ_x |g_x| B^O_x + γ(dv + 2) Σ_x |g_x o_x| + 2u(|D| + |dLSE|)      or, for D = Σ P∘dP, the same sum over keys
/// B^dS = P [(π + u_P) e + (1 + π)(γ(dv + 2) Z Σ|g||v| + B^D + 3u(e + |Z a| + |D'|))] + u_dS (|dS| + P B^D)
///        + (η_P + floor_exp) (e + B^D) + η_dS
/// ```
struct BackwardRow {
    softmax: Row<f64>,
    error: RowError,
    /// Per visible key: `dP`, `γ(dv + 2) Z Σ|g||v|` and `π`.
    pairs: Vec<[f64; 3]>,
    /// `D' = D − dLSE`.
    d: f64,
    /// `B^D`.
    d_bound: f64,
}

impl BackwardRow {
    fn new<T: Element>(
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        g: ArrayView1<'_, T>,
        d_lse: f64,
        contract: &Contract,
        units: &Units,
        [b, h, i]: [usize; 3],
    ) -> Option<Self> {
        let softmax = softmax_row::<T, f64>(spec, inputs, b, h, i);
        if softmax.lse == f64::NEG_INFINITY {
            return None;
        }
        let error = row_error(spec, inputs, contract, units, [b, h, i], &softmax);
        let (o, o_bound) = output_error(spec, inputs, contract, units, [b, h], &softmax, &error);
        let inner = units.gamma(spec.value_dim + 2);
        let (mut d, mut by_keys) = (0.0, 0.0);
        let mut pairs = Vec::with_capacity(softmax.entries.len());
        for (entry, score) in softmax.entries.iter().zip(&error.score) {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let v = row(inputs.v, [kb, spec.kv_head(h), kj]);
            let d_p = entry.z * g.iter().zip(v).map(|(g, v)| g.to_f64() * v.to_f64()).sum::<f64>();
            let d_p_error = entry.z * (gauge(g, v) * inner + flushed(units, g, v));
            let pi = recomputed(units, &softmax, &error, entry.s, *score);
            d += entry.p * d_p;
            by_keys += entry.p * ((pi + units.u_p + error.sums) * fabs(d_p) + d_p_error);
            pairs.push([d_p, d_p_error, pi]);
        }
        let by_output: f64 = g
            .iter()
            .zip(o.iter().zip(&o_bound))
            .map(|(g, (o, bound))| magnitude(*g) * (bound + inner * fabs(*o)))
            .sum();
        let d_bound = by_output.max(by_keys) + 2.0 * units.u * (fabs(d) + fabs(d_lse));
        Some(Self { softmax, error, pairs, d: d - d_lse, d_bound })
    }

    /// `dS` of the `n`-th visible key and `B^dS`, without `η_dS`: that strikes whatever is rounded for the GEMM, before
    /// or after the softcap's slope.
    fn score_gradient(&self, units: &Units, n: usize) -> (f64, f64) {
        let (entry, [d_p, d_p_error, pi]) = (&self.softmax.entries[n], self.pairs[n]);
        let (e, d_s) = (fabs(d_p - self.d), entry.p * (d_p - self.d));
        let roundings = d_p_error + self.d_bound + 3.0 * units.u * (e + fabs(d_p) + fabs(self.d));
        let bound = entry.p * ((pi + units.u_p) * e + (1.0 + pi) * roundings)
            + units.u_ds * (1.0 + pi) * (fabs(d_s) + entry.p * self.d_bound)
            + (units.eta_p + units.exp_floor) * (e + self.d_bound);
        (d_s, bound)
    }
}

/// `π`: the relative error of `P = exp(s − LSE)` recomputed.
fn recomputed(units: &Units, softmax: &Row<f64>, error: &RowError, s: f64, score_error: f64) -> f64 {
    bounded_expm1(score_error + 3.0 * units.u * (fabs(s) + fabs(softmax.lse)) + error.lse) + units.exp
}

/// The error of the softcap's slope `1 − t²`, `t = tanh(s/c)`: `2|t| (E_s / c + ε_t + 4u) + 4u`.
fn slope_error(spec: &AttentionSpec, units: &Units, slope: f64, score_error: f64) -> f64 {
    spec.softcap.map_or(0.0, |cap| {
        let t = libm::sqrt((1.0 - slope).max(0.0));
        2.0 * t * (score_error / cap + units.tanh + 4.0 * units.u) + 4.0 * units.u
    })
}

/// `B^dQ = τ Σ_j B^dS |k|`, `B^dK = τ Σ_i B^dS |q|`, `B^dV = Σ_i (P Z (π(1 + π) + u_P) + η_P Z) |g|`, `B^dBias = Σ B^dS`,
/// `B^dSink = Σ_i P_sink (π |D'| + B^D)`, each closed by [`Sum::close`].
fn worst_backward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
    contract: &Contract,
) -> ReferenceGradients<f64> {
    let units = Units::new(contract);
    let mut sums = ReferenceGradients::filled(spec, inputs, Sum::default());
    let tau = fabs(spec.scale);
    // dS may be rounded before or after it is multiplied by τ.
    let underflow = units.eta_ds * if tau > 0.0 { (1.0 / tau).clamp(1.0, 1e6) } else { 1.0 };
    for_each_row(spec, |b, h, i| {
        let ((qb, qi), hk) = (spec.query_slot(b, i), spec.kv_head(h));
        let (g, q) = (row(d_o, [qb, h, qi]), row(inputs.q, [qb, h, qi]));
        let d_lse = d_lse.map_or(0.0, |d_lse| d_lse[[qb, h, qi]].to_f64());
        let Some(this) = BackwardRow::new(spec, inputs, g, d_lse, contract, &units, [b, h, i]) else { return };
        for (n, entry) in this.softmax.entries.iter().enumerate() {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let pi = this.pairs[n][2];
            let (d_s, d_s_bound) = this.score_gradient(&units, n);
            if let Some(d_bias) = &mut sums.d_bias {
                let at = broadcast_index(d_bias.dim(), b, h, i, entry.j);
                d_bias[at].add(d_s, d_s_bound + underflow);
            }
            let steepness = slope_error(spec, &units, entry.slope, this.error.score[n]);
            let raw = spec.scale * entry.slope * d_s;
            let raw_bound = tau * (entry.slope * d_s_bound + steepness * (fabs(d_s) + d_s_bound) + underflow);
            let k = row(inputs.k, [kb, hk, kj]);
            for (sum, k) in row_mut(sums.d_q.view_mut(), [qb, h, qi]).into_iter().zip(k) {
                sum.add(raw * k.to_f64(), raw_bound * magnitude(*k) + fabs(raw) * units.flush);
            }
            for (sum, q) in row_mut(sums.d_k.view_mut(), [kb, hk, kj]).into_iter().zip(q) {
                sum.add(raw * q.to_f64(), raw_bound * magnitude(*q) + fabs(raw) * units.flush);
            }
            let weight = entry.p * entry.z;
            let weight_bound = weight * (pi * (1.0 + pi) + units.u_p) + (units.eta_p + units.exp_floor) * entry.z;
            for (sum, g) in row_mut(sums.d_v.view_mut(), [kb, hk, kj]).into_iter().zip(g) {
                sum.add(weight * g.to_f64(), weight_bound * magnitude(*g) + weight * units.flush);
            }
        }
        if let (Some(d_sink), Some(sink)) = (&mut sums.d_sink, inputs.sink) {
            let pi = recomputed(&units, &this.softmax, &this.error, sink[h].to_f64(), 0.0);
            let p = this.softmax.p_sink;
            d_sink[h].add(-p * this.d, p * (pi * fabs(this.d) + (1.0 + pi) * this.d_bound));
        }
    });
    let group = spec.q_heads / spec.kv_heads;
    let (q_tiles, k_tiles) = (tile_count(spec.max_q_len(), contract), tile_count(spec.max_kv_len(), contract));
    let storage = stored(contract);
    ReferenceGradients {
        d_q: sums.d_q.map(|sum| sum.close(&units, k_tiles, tau, storage)),
        d_k: sums.d_k.map(|sum| sum.close(&units, spec.batch * group * q_tiles, tau, storage)),
        d_v: sums.d_v.map(|sum| sum.close(&units, spec.batch * group * q_tiles, tau, storage)),
        d_bias: sums.d_bias.map(|sums| sums.map(|sum| sum.close(&units, sum.terms, 1.0, storage))),
        d_sink: sums.d_sink.map(|sums| sums.map(|sum| sum.close(&units, 0, 1.0, T::Accum::FORMAT))),
    }
}
