//! How far a *correct* kernel's roundings to narrow formats are expected to scatter: standard deviations beside the
//! certain bounds of [`crate::bound`], by the same loop nest.
//!
//! A rounding to a format of unit roundoff `u` is a uniform error of variance `u²x²/3` at most, and two roundings are
//! independent when the data are in general position. Sums of independent errors add in quadrature, which is what
//! makes this tier sharp: for 16-bit kernels a hundred keys blur the certain bound tenfold more than they blur the
//! result. Errors that a row or tile shares are kept together: the error of `D_i` reaches every `dS_ij` of its row with
//! one sign, so `dQ_i` gets `|Σ_j P_ij k_j|` of it and not a sum in quadrature.
//!
//! Only roundings to formats *narrower than the accumulator* are counted here. The accumulator's own are systematic
//! often enough (a constant rounded once multiplies every score) and small enough to be taken at their worst.

use crate::bound::{Units, row_error, score_stages, tile_count};
use crate::reference::{ReferenceGradients, Row, for_each_row, softmax_row};
use crate::tensors::{broadcast_index, row, row_mut};
use crate::{AttentionSpec, Contract, Inputs};
use alloc::vec;
use alloc::vec::Vec;
use libm::sqrt;
use ndarray::{Array3, Array4, ArrayView1, ArrayView3, ArrayView4};
use tilewright_scalar::Element;

fn square(x: f64) -> f64 {
    x * x
}

/// Variances of one row's quantities.
struct RowSpread {
    softmax: Row<f64>,
    /// Three times the variance of each score.
    score: Vec<f64>,
    /// Output row.
    o: Vec<f64>,
    /// Variance of the output row, its last rounding not included.
    o_variance: Vec<f64>,
    /// Variance of LSE.
    lse_variance: f64,
}

impl RowSpread {
    fn new<T: Element>(
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        contract: &Contract,
        units: &Units,
        [b, h, i]: [usize; 3],
    ) -> Option<Self> {
        let softmax = softmax_row::<T, f64>(spec, inputs, b, h, i);
        if softmax.lse == f64::NEG_INFINITY {
            return None;
        }
        let error = row_error(spec, inputs, contract, units, [b, h, i], &softmax);
        let v = |j: usize| {
            let (kb, kj) = spec.key_slot(b, j);
            row(inputs.v, [kb, spec.kv_head(h), kj])
        };
        let mut o = vec![0.0; spec.value_dim];
        for entry in &softmax.entries {
            o.iter_mut().zip(v(entry.j)).for_each(|(o, v)| *o += entry.p * entry.z * v.to_f64());
        }
        let mut o_variance: Vec<f64> =
            o.iter().map(|o| error.tiles as f64 * (square(units.u_oa * o) + square(units.eta_oa)) / 3.0).collect();
        let mut lse_variance = 0.0;
        let floor = square(units.eta_p);
        let score: Vec<f64> = softmax
            .entries
            .iter()
            .map(|entry| score_squares(spec, inputs, units, [b, h, i, entry.j], entry.s))
            .collect();
        for (entry, score) in softmax.entries.iter().zip(&score) {
            let in_sum = if contract.sums_rounded_probabilities { square(units.u_p) } else { 0.0 };
            lse_variance += square(entry.p) * (score + in_sum) / 3.0;
            for (variance, (o, v)) in o_variance.iter_mut().zip(o.iter().zip(v(entry.j))) {
                let zv = entry.z * v.to_f64();
                let distance = square(zv - o);
                // Where ℓ sums the rounded P as well, a rounding moves O along v − o instead of along v.
                let lever = if contract.sums_rounded_probabilities { distance.max(square(zv)) } else { square(zv) };
                let rounded = square(units.u_p) * lever + error.tiles as f64 * square(units.u_oa * zv);
                *variance += (square(entry.p) * (score * distance + rounded) + floor * square(zv)) / 3.0;
            }
        }
        Some(Self { softmax, score, o, o_variance, lse_variance })
    }
}

/// `u_s² Σ x²` over the stages at which a score is rounded.
fn score_squares<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    units: &Units,
    at: [usize; 4],
    s: f64,
) -> f64 {
    if units.u_s == 0.0 {
        return 0.0;
    }
    score_stages(spec, inputs, at, s).iter().map(|x| square(units.u_s * x)).sum()
}

/// Standard deviations of `O` and LSE.
pub(crate) fn forward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
) -> (Array4<f64>, Array3<f64>) {
    let units = Units::new(contract);
    let mut o = Array4::zeros(spec.o_shape());
    let mut lse = Array3::zeros(spec.lse_shape());
    for_each_row(spec, |b, h, i| {
        let (qb, qi) = spec.query_slot(b, i);
        if let Some(spread) = RowSpread::new(spec, inputs, contract, &units, [b, h, i]) {
            row_mut(o.view_mut(), [qb, h, qi]).assign(&ArrayView1::from(&spread.o_variance).map(|x| sqrt(*x)));
            lse[[qb, h, qi]] = sqrt(spread.lse_variance);
        }
    });
    (o, lse)
}

/// Variance of one gradient element, and what its running sum's roundings need to know.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    squares: f64,
    variance: f64,
    terms: usize,
}

impl Sum {
    fn add(&mut self, term: f64, variance: f64) {
        self.value += term;
        self.squares += square(term);
        self.variance += variance;
        self.terms += 1;
    }

    /// Adds the roundings of the running sum: a random walk that ends at `value` is about as large on its way as its
    /// end and as the root of its squared steps.
    fn close(self, units: &Units, tiles: usize, after: f64) -> f64 {
        let roundings =
            square(units.u_ga) * (square(self.value) + self.squares) + square(units.eta_ga * after.max(1.0));
        sqrt(self.variance + tiles.min(self.terms) as f64 * roundings / 3.0)
    }
}

/// Standard deviations of the gradients.
pub(crate) fn backward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
    contract: &Contract,
) -> ReferenceGradients<f64> {
    let units = Units::new(contract);
    let u_o = contract.storage.unit_roundoff() * f64::from(u8::from(contract.storage != contract.accum));
    let mut sums = ReferenceGradients::filled(spec, inputs, Sum::default());
    let tau = libm::fabs(spec.scale);
    let underflow = units.eta_ds * if tau > 0.0 { tau.clamp(1e-6, 1.0).recip() * tau } else { 0.0 };
    for_each_row(spec, |b, h, i| {
        let ((qb, qi), hk) = (spec.query_slot(b, i), spec.kv_head(h));
        let Some(spread) = RowSpread::new(spec, inputs, contract, &units, [b, h, i]) else { return };
        let (g, q) = (row(d_o, [qb, h, qi]), row(inputs.q, [qb, h, qi]));
        let d_p: Vec<f64> = spread
            .softmax
            .entries
            .iter()
            .map(|entry| {
                let (kb, kj) = spec.key_slot(b, entry.j);
                entry.z * g.iter().zip(row(inputs.v, [kb, hk, kj])).map(|(g, v)| g.to_f64() * v.to_f64()).sum::<f64>()
            })
            .collect();
        let d: f64 = spread.softmax.entries.iter().zip(&d_p).map(|(entry, d_p)| entry.p * d_p).sum();
        let d_variance = row_sum_variance(&units, u_o, g, &spread, &d_p, d);
        let d = d - d_lse.map_or(0.0, |d_lse| d_lse[[qb, h, qi]].to_f64());
        let mut shared = vec![[0.0; 2]; spec.head_dim]; // Σ P k and Σ dS k: what the errors of D and LSE multiply
        let mut p_and_d_s = [0.0; 2]; // Σ P and Σ dS
        for ((entry, score), d_p) in spread.softmax.entries.iter().zip(&spread.score).zip(&d_p) {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let (e, d_s) = (d_p - d, entry.p * (d_p - d));
            let own =
                (square(units.u_ds * d_s) + (square(units.u_p) + score) * square(d_s) + square(units.eta_p * e)) / 3.0;
            let common = square(entry.p) * d_variance + square(d_s) * spread.lse_variance;
            if let Some(d_bias) = &mut sums.d_bias {
                // Keys that share an element of the bias share the errors of D and LSE there.
                let at = broadcast_index(d_bias.dim(), b, h, i, entry.j);
                let together = if d_bias.dim().3 == 1 { 0.0 } else { common };
                d_bias[at].add(d_s, own + together + square(units.eta_ds) / 3.0);
                p_and_d_s[0] += entry.p;
                p_and_d_s[1] += d_s;
            }
            let factor = spec.scale * entry.slope;
            let d_q = row_mut(sums.d_q.view_mut(), [qb, h, qi]);
            for (c, (sum, k)) in d_q.into_iter().zip(row(inputs.k, [kb, hk, kj])).enumerate() {
                let lever = factor * k.to_f64();
                sum.add(lever * d_s, square(lever) * own + square(underflow * k.to_f64()) / 3.0);
                shared[c][0] += lever * entry.p;
                shared[c][1] += lever * d_s;
            }
            for (sum, q) in row_mut(sums.d_k.view_mut(), [kb, hk, kj]).into_iter().zip(q) {
                let lever = factor * q.to_f64();
                sum.add(lever * d_s, square(lever) * (own + common) + square(underflow * q.to_f64()) / 3.0);
            }
            let weight = entry.p * entry.z;
            let weight_variance = square(weight) * ((square(units.u_p) + score) / 3.0 + spread.lse_variance)
                + square(units.eta_p * entry.z) / 3.0;
            for (sum, g) in row_mut(sums.d_v.view_mut(), [kb, hk, kj]).into_iter().zip(g) {
                sum.add(weight * g.to_f64(), weight_variance * square(g.to_f64()));
            }
        }
        for (sum, [by_d, by_lse]) in row_mut(sums.d_q.view_mut(), [qb, h, qi]).into_iter().zip(shared) {
            sum.variance += square(by_d) * d_variance + square(by_lse) * spread.lse_variance;
        }
        if let Some(d_bias) = sums.d_bias.as_mut().filter(|d_bias| d_bias.dim().3 == 1) {
            let at = broadcast_index(d_bias.dim(), b, h, i, 0);
            d_bias[at].variance += square(p_and_d_s[0]) * d_variance + square(p_and_d_s[1]) * spread.lse_variance;
        }
        if let Some(d_sink) = &mut sums.d_sink {
            let p = spread.softmax.p_sink;
            d_sink[h].add(-p * d, square(p) * (d_variance + square(d) * spread.lse_variance));
        }
    });
    let group = spec.q_heads / spec.kv_heads;
    let (q_tiles, k_tiles) = (tile_count(spec.max_q_len(), contract), tile_count(spec.max_kv_len(), contract));
    ReferenceGradients {
        d_q: sums.d_q.map(|sum| sum.close(&units, k_tiles, tau)),
        d_k: sums.d_k.map(|sum| sum.close(&units, spec.batch * group * q_tiles, tau)),
        d_v: sums.d_v.map(|sum| sum.close(&units, spec.batch * group * q_tiles, tau)),
        d_bias: sums.d_bias.map(|sums| sums.map(|sum| sum.close(&units, sum.terms, 1.0))),
        d_sink: sums.d_sink.map(|sums| sums.map(|sum| sum.close(&units, 0, 1.0))),
    }
}

/// Variance of `D_i`, whether it comes from the stored `O` or from `Σ P∘dP`: the errors of `O` along `g`, its storage,
/// and the roundings of `P`, which move all of `O_i` together.
fn row_sum_variance<T: Element>(
    units: &Units,
    u_o: f64,
    g: ArrayView1<'_, T>,
    spread: &RowSpread,
    d_p: &[f64],
    d: f64,
) -> f64 {
    let stored: f64 = g
        .iter()
        .zip(spread.o.iter().zip(&spread.o_variance))
        .map(|(g, (o, variance))| square(g.to_f64()) * (variance + square(u_o * o) / 3.0))
        .sum();
    let floor = square(units.eta_p);
    let together: f64 = spread
        .softmax
        .entries
        .iter()
        .zip(spread.score.iter().zip(d_p))
        .map(|(entry, (score, d_p))| {
            let score = score * square(d_p - d);
            (square(entry.p) * (square(units.u_p) * square(*d_p) + score) + floor * square(*d_p)) / 3.0
        })
        .sum();
    stored + together
}
