//! The forward pass: scores, weights, LSE and `O`, row by row.

use super::units::{SECOND_ORDER, Units, flushed, gauge, tile_count};
use super::{final_rounding, stored};
use crate::reference::{Row, for_each_row, softmax_row};
use crate::tensors::{row, row_mut};
use crate::{AttentionSpec, Contract, Inputs};
use alloc::vec;
use alloc::vec::Vec;
use libm::{expm1, fabs};
use ndarray::{Array3, Array4, ArrayView1};
use tilewright_scalar::Element;

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
    pub(super) sums: f64,
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
pub(super) fn bounded_expm1(exponent: f64) -> f64 {
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
pub(super) fn output_error<T: Element>(
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

pub(super) fn worst_forward<T: Element>(
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
