//! The forward pass: scores, weights, LSE and `O`, row by row.

use super::units::{SECOND_ORDER, Units, flushed, gauge, repeated, tile_count};
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
    if s == f64::NEG_INFINITY {
        return 0.0; // a bias of −∞, to which nothing can be added wrongly
    }
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
    if units.u_s == 0.0 && units.max_s == f64::INFINITY {
        return capped + additions;
    }
    let stages = score_stages(spec, inputs, [b, h, i, j], s);
    if stages.iter().any(|stage| *stage > units.max_s) {
        return f64::INFINITY;
    }
    capped + additions + units.u_s * stages.iter().sum::<f64>()
}

/// The sizes of what is rounded where scores are narrower than the accumulator: the product, what the softcap makes of
/// it (and what its tanh makes of an error before it, which is no more), the sum with the bias, and that with ALiBi.
pub(crate) fn score_stages<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    [b, h, i, j]: [usize; 4],
    s: f64,
) -> [f64; 4] {
    if s == f64::NEG_INFINITY {
        return [0.0; 4];
    }
    let with_bias = fabs(s - spec.alibi(b, h, i, j));
    let bias = inputs.bias_at(b, h, i, j).map(|bias| bias.to_f64());
    let product = fabs(s - spec.alibi(b, h, i, j) - bias.unwrap_or(0.0));
    [
        product,
        if spec.softcap.is_some() { product } else { 0.0 },
        if bias.is_some() { with_bias } else { 0.0 },
        if spec.alibi.is_some() { fabs(s) } else { 0.0 },
    ]
}

/// Error figures of one row of the forward pass.
pub(crate) struct RowError {
    /// `E_s`, per visible key.
    pub(crate) score: Vec<f64>,
    /// `P t`, per visible key.
    excess: Vec<f64>,
    /// `P t` of the sink.
    sink_excess: f64,
    /// What the errors of the weights may make of `1/ℓ`: a factor of at most this.
    growth: f64,
    /// The largest `δ`.
    exponent: f64,
    /// What the weights of a row may be wrong by all together, where they are not divided by their own sum.
    common: f64,
    /// `1 / ℓ`.
    pub(crate) inverse_l: f64,
    /// `γ(n + 4T + 2)`: the sums over the row; each tile may multiply by the old `ℓ` and divide by the new one.
    pub(super) sums: f64,
    /// Tiles in the row.
    pub(crate) tiles: usize,
    /// `B^LSE`.
    pub(crate) lse: f64,
}

/// The maxima that a row's exponentials may be taken relative to: over everything, and over the keys alone where the
/// sink is added to `ℓ` afterwards, which overflows if it stands out too far.
struct Maxima {
    all: f64,
    other: f64,
    largest: f64,
}

impl Maxima {
    fn new(contract: &Contract, softmax: &Row<f64>, sink: f64) -> Self {
        let keys = softmax.entries.iter().fold(f64::NEG_INFINITY, |m, entry| m.max(entry.s));
        let all = keys.max(sink);
        let overflow = f64::from(contract.accum.max_exponent + 1) * core::f64::consts::LN_2;
        let other = if all - keys < overflow { keys } else { all };
        Self { all, other, largest: fabs(all).max(fabs(other)) }
    }

    fn distance(&self, s: f64) -> f64 {
        (self.all - s).max(fabs(s - self.other))
    }
}

/// `δ_ij = E_s + 4u(|s| + |m|) + 2u|s − m| + ε_e + T(ε_e + ε_l + 2u + u max(|s|, |LSE|))` bounds the exponent's error:
/// the subtraction, its folding into base 2, and the rescalings, whose exponents telescope from the maximum that was
/// current when key `j` was met to the last one, a distance no larger than `m − s`. Instead of a rescaling there may be
/// a merge by LSE, which is rounded each time. With it `P t = P (e^δ − 1)`.
pub(crate) fn row_error<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
    units: &Units,
    [b, h, i]: [usize; 3],
    softmax: &Row<f64>,
) -> RowError {
    let sink = inputs.sink.map_or(f64::NEG_INFINITY, |sink| sink[h].to_f64());
    let m = Maxima::new(contract, softmax, sink);
    let (n, tiles) = (softmax.entries.len(), tile_count(spec.kv_len(b), contract));
    let (u, lse) = (units.u, fabs(softmax.lse));
    let exponent = |s: f64| {
        let merge = units.exp + units.ln + 2.0 * u + u * fabs(s).max(lse);
        4.0 * u * (fabs(s) + m.largest) + 2.0 * u * m.distance(s) + units.exp + tiles as f64 * merge
    };
    let score: Vec<f64> =
        softmax.entries.iter().map(|e| score_error(spec, inputs, units, [b, h, i, e.j], e.s)).collect();
    let mut weights: Vec<(f64, f64, f64)> =
        softmax.entries.iter().zip(&score).map(|(e, error)| (e.p, e.s, error + exponent(e.s))).collect();
    weights.push((softmax.p_sink, sink, exponent(sink)));
    weights.iter_mut().filter(|(_, s, _)| *s == f64::NEG_INFINITY).for_each(|(.., delta)| *delta = 0.0);
    let shrunk: f64 = weights.iter().map(|(p, _, delta)| -p * expm1(-delta)).sum();
    let mut excess: Vec<f64> = weights.iter().map(|(p, s, delta)| excess(*p, s - softmax.lse, *delta)).collect();
    let inverse_l = libm::exp(m.all - softmax.lse);
    let logarithm = (units.ln + 4.0 * u) * (fabs(libm::log(inverse_l)).max(fabs(softmax.lse - m.other)) + 1.0);
    let division = 3.0 * u * (m.largest + lse) + logarithm;
    let mut error = RowError {
        sink_excess: excess.pop().unwrap_or(0.0),
        excess,
        growth: 1.0 / (1.0 - shrunk).max(0.0),
        exponent: weights.iter().fold(0.0, |largest, (.., delta)| largest.max(*delta)),
        common: division + tiles as f64 * (units.exp + 2.0 * u),
        inverse_l,
        sums: units.gamma(n + 4 * tiles + 2),
        tiles,
        lse: 0.0,
        score,
    };
    error.lse = lse_error(contract, units, softmax, &error) + division;
    error
}

/// `P (e^δ − 1)`. A weight too small for `f64` still counts where its error is larger than it is small.
pub(super) fn excess(p: f64, log_p: f64, delta: f64) -> f64 {
    if log_p == f64::NEG_INFINITY {
        0.0
    } else if delta < 1.0 {
        p * expm1(delta)
    } else {
        libm::exp(log_p + delta)
    }
}

/// `B^LSE = ln(1 + Σ P t) + γ(n + 4T + 2) + 3u(|m| + |LSE|) + (ε_l + 4u)(|ln ℓ| + 1) + u_lse |LSE|`, the first term no
/// larger than the largest exponent error; the middle two are the caller's. Accurate to the accumulator, however narrow
/// the tensors are.
fn lse_error(contract: &Contract, units: &Units, softmax: &Row<f64>, error: &RowError) -> f64 {
    if softmax.lse == f64::NEG_INFINITY {
        return 0.0;
    }
    // By Jensen's inequality errors of the other sign do no more.
    let exponents = libm::log1p(error.excess.iter().sum::<f64>() + error.sink_excess).min(error.exponent);
    let rounded = if contract.sums_rounded_probabilities {
        units.u_p + units.eta_p * error.inverse_l * softmax.entries.len() as f64
    } else {
        0.0
    };
    SECOND_ORDER * (exponents + rounded + error.sums) + final_rounding(contract.lse, softmax.lse)
}

/// `B^O`, for one row, with `c = 3u(|m| + |LSE|) + (ε_l + 4u)(|ln ℓ| + 1) + T(ε_e + 2u)` for weights that were divided
/// by `e^LSE`, which is not quite their sum:
///
/// ```text
/// min( Σ_j P_ij t_ij |Z v_jx − o_ix| / (1 − Σ_j P_ij (1 − e^−δ)) ,  max_j |Z v_jx − o_ix| )   errors of the weights: centred
///   + (u_P + T u_oa + γ(n + 4T + 2)) Σ_j P_ij Z |v_jx| + (η_P + floor_exp) Σ_j Z |v_jx|       of the products
///   + (γ(n + 4T + 2) + 4u + c) |o_ix| + T η_oa + u_o |o_ix| + η_o                    of ℓ, the division, the last rounding
/// ```
///
/// Where `ℓ` sums the rounded `P`, `u_P` moves `O` along `Z v − o`, and keys of value 0 count as well.
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
    let mut centred: Vec<f64> = o.iter().map(|o| error.sink_excess * fabs(*o)).collect();
    let mut reach: Vec<f64> = o.iter().map(|o| if softmax.p_sink > 0.0 { fabs(*o) } else { 0.0 }).collect();
    let mut around = vec![0.0; dim]; // Σ P |Z v − o|
    for (entry, excess) in softmax.entries.iter().zip(&error.excess) {
        let (kb, kj) = spec.key_slot(b, entry.j);
        for (x, v) in row(inputs.v, [kb, hk, kj]).iter().enumerate() {
            let distance = fabs(entry.z * v.to_f64() - o[x]);
            centred[x] += excess * distance;
            around[x] += entry.p * distance;
            reach[x] = reach[x].max(distance);
        }
    }
    let roundings = repeated(error.tiles as f64, units.u_oa) + error.sums + 2.0 * units.u + units.dropout(spec);
    let (n, floor) = (softmax.entries.len() as f64, units.eta_p + units.exp_floor);
    let keep: f64 = softmax.entries.iter().map(|entry| entry.p * entry.z).sum();
    let bound = (0..dim)
        .map(|x| {
            let (rounded, lost) = if contract.sums_rounded_probabilities {
                (gauge[x].max(around[x]), total[x] + n * fabs(o[x]))
            } else {
                (gauge[x], total[x])
            };
            // `min` takes the number where the other is none.
            let weights = (error.growth * centred[x]).min(reach[x]);
            let products = units.u_p * rounded + roundings * gauge[x] + floor * lost;
            if gauge[x] > units.max_oa * error.inverse_l {
                return f64::INFINITY;
            }
            SECOND_ORDER * (weights + products + (error.sums + 4.0 * units.u + error.common) * fabs(o[x]))
                + (n + 2.0 * error.tiles as f64) * units.eta
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
