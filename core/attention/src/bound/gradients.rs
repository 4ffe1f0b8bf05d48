//! The backward pass: recomputed probabilities, `D`, `dS`, and the sums that are gradients.

use super::rows::{RowError, excess, output_error, row_error};
use super::units::{SECOND_ORDER, Units, flushed, gauge, magnitude, repeated, tile_count};
use super::{final_rounding, stored};
use crate::reference::{ReferenceGradients, Row, for_each_row, softmax_row};
use crate::tensors::{broadcast_index, row, row_mut};
use crate::{AttentionSpec, Contract, Inputs};
use alloc::vec::Vec;
use libm::fabs;
use ndarray::{ArrayView1, ArrayView3, ArrayView4};
use tilewright_scalar::{Element, Format};

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
        let sums = units.gamma(self.terms + 4) + repeated(tiles, units.u_ga);
        let bound = SECOND_ORDER * (self.error + sums * self.gauge)
            + (tiles * units.eta_ga + self.terms as f64 * units.eta) * after.max(1.0)
            + 3.0 * units.u * fabs(self.value)
            + final_rounding(format, self.value);
        // The running sum may be kept before or after that last factor. Where nothing is known of a weight, its product
        // with 0 is not a number.
        let overflows = self.gauge + self.error > units.max_ga * after.min(1.0);
        if overflows || bound.is_nan() { f64::INFINITY } else { bound }
    }
}

/// What one row of the backward pass needs to know of itself. Per pair, with `g = dO_i`, `a = g·v_j`, `e = |Z a − D'|`:
///
/// ```text
/// π    = e^(E_s + 3u(|s| + |LSE|) + B^LSE + ε_e) − 1                                      recomputed P
/// B^dP = Z (γ(dv + 2) Σ|g||v| + dv η)
/// B^D  = Σ_x |g_x| B^O_x + γ(dv + 2) Σ_x |g_x o_x| + dv η + 2u(|D| + |dLSE|)   or, for D = Σ P∘dP, the same sum over keys
/// B^dS = P [(π + u_P) e + (1 + π)(B^dP + B^D + 3u(e + |Z a| + |D'|))] + u_dS (1 + π)(|dS| + P B^D)
///        + (η_P + floor_exp) (e + B^D) + η_dS
/// ```
struct BackwardRow {
    softmax: Row<f64>,
    error: RowError,
    /// Per visible key: `dP`, `B^dP` and `P π`.
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
        let (inner, lost) = (units.gamma(spec.value_dim + 2), spec.value_dim as f64 * units.eta);
        let (dropout, floor) = (units.dropout(spec), units.eta_p + units.exp_floor);
        let (mut d, mut by_keys) = (0.0, 0.0);
        let mut pairs = Vec::with_capacity(softmax.entries.len());
        for (entry, score) in softmax.entries.iter().zip(&error.score) {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let v = row(inputs.v, [kb, spec.kv_head(h), kj]);
            let d_p = entry.z * g.iter().zip(v).map(|(g, v)| g.to_f64() * v.to_f64()).sum::<f64>();
            let d_p_error = entry.z * (gauge(g, v) * inner + flushed(units, g, v) + lost) + dropout * fabs(d_p);
            let p_pi = recomputed(units, &softmax, &error, entry.p, entry.s, *score);
            d += entry.p * d_p;
            by_keys += (p_pi + entry.p * (units.u_p + error.sums) + floor) * fabs(d_p) + (entry.p + p_pi) * d_p_error;
            pairs.push([d_p, d_p_error, p_pi]);
        }
        let by_output: f64 = g
            .iter()
            .zip(o.iter().zip(&o_bound))
            .map(|(g, (o, bound))| magnitude(*g) * (bound + inner * fabs(*o)))
            .sum();
        let d_bound = by_output.max(by_keys) + lost + 2.0 * units.u * (fabs(d) + fabs(d_lse));
        Some(Self { softmax, error, pairs, d: d - d_lse, d_bound })
    }

    /// `dS` of the `n`-th visible key and `B^dS`, without `η_dS`: that strikes whatever is rounded for the GEMM, before
    /// or after the softcap's slope.
    fn score_gradient(&self, units: &Units, n: usize, tau: f64) -> (f64, f64) {
        let (entry, [d_p, d_p_error, p_pi]) = (&self.softmax.entries[n], self.pairs[n]);
        let (e, d_s) = (fabs(d_p - self.d), entry.p * (d_p - self.d));
        let roundings = d_p_error + self.d_bound + 3.0 * units.u * (e + fabs(d_p) + fabs(self.d));
        let bound = (p_pi + entry.p * units.u_p) * e
            + (entry.p + p_pi) * (roundings + units.u_ds * (e + self.d_bound))
            + (units.eta_p + units.exp_floor) * (e + self.d_bound);
        // It may be rounded before or after it is multiplied by τ and the slope; the larger is what overflows.
        let overflows = (fabs(d_s) + bound) * tau.max(1.0) > units.max_ds;
        (d_s, if overflows { f64::INFINITY } else { bound })
    }
}

/// `P π`: the error of `P = exp(s − LSE)` recomputed.
fn recomputed(units: &Units, softmax: &Row<f64>, error: &RowError, p: f64, s: f64, score_error: f64) -> f64 {
    let delta = score_error + 3.0 * units.u * (fabs(s) + fabs(softmax.lse)) + error.lse + units.exp;
    excess(p, s - softmax.lse, delta)
}

/// The error of the softcap's slope `1 − t²`, `t = tanh(s/c)`: `2|t| ε + ε² + 4u` with `ε = E_s / c + ε_t + 4u`.
fn slope_error(spec: &AttentionSpec, units: &Units, slope: f64, score_error: f64) -> f64 {
    spec.softcap.map_or(0.0, |cap| {
        let t = libm::sqrt((1.0 - slope).max(0.0));
        let error = score_error / cap + units.tanh + 4.0 * units.u;
        (2.0 * t + error) * error + 4.0 * units.u
    })
}

/// `B^dQ = τ Σ_j B^dS |k|`, `B^dK = τ Σ_i B^dS |q|`, `B^dV = Σ_i (P Z (π + (1 + π) u_P) + η_P Z) |g|`, `B^dBias = Σ B^dS`,
/// `B^dSink = Σ_i P_sink (π |D'| + B^D)`, each closed by [`Sum::close`].
pub(super) fn worst_backward<T: Element>(
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
            let p_pi = this.pairs[n][2];
            let (d_s, d_s_bound) = this.score_gradient(&units, n, tau);
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
            let rounded = (entry.p + p_pi) * (units.u_p + units.dropout(spec)) + units.eta_p + units.exp_floor;
            let weight_bound = (p_pi + rounded) * entry.z;
            for (sum, g) in row_mut(sums.d_v.view_mut(), [kb, hk, kj]).into_iter().zip(g) {
                sum.add(weight * g.to_f64(), weight_bound * magnitude(*g) + weight * units.flush);
            }
        }
        if let (Some(d_sink), Some(sink)) = (&mut sums.d_sink, inputs.sink) {
            let p = this.softmax.p_sink;
            let error = recomputed(&units, &this.softmax, &this.error, p, sink[h].to_f64(), 0.0) + units.exp_floor;
            d_sink[h].add(-p * this.d, error * fabs(this.d) + (p + error) * this.d_bound);
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
