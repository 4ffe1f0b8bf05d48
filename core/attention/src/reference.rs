//! The textbook formula, forward and backward, to be read beside the paper.
//!
//! Nothing here is tiled, online or clever: one query row at a time, every score of the row at once, the Jacobian of
//! the softmax as calculus gives it. It must not share the mistakes of what it judges. Generic over the working
//! precision [`Real`]: `f64`, or [`DoubleDouble`](tilewright_scalar::DoubleDouble) to judge `f64` kernels.
//!
//! Time O(batch · heads · N · S · (d + dv)); besides its results it holds one row of scores.

use crate::dropout::DropoutMask;
use crate::tensors::{broadcast_index, row, row_mut};
use crate::{AttentionError, AttentionSpec, Inputs};
use alloc::vec::Vec;
use ndarray::{Array1, Array3, Array4, ArrayView1, ArrayView3, ArrayView4};
use tilewright_scalar::{Element, Real};

/// `O` and LSE in the working precision.
#[derive(Clone, Debug)]
pub struct ReferenceForward<A> {
    /// Output, [`AttentionSpec::o_shape`].
    pub o: Array4<A>,
    /// Log-sum-exp, [`AttentionSpec::lse_shape`].
    pub lse: Array3<A>,
}

/// Gradients in the working precision.
#[derive(Clone, Debug)]
pub struct ReferenceGradients<A> {
    /// Gradient with respect to `q`.
    pub d_q: Array4<A>,
    /// Gradient with respect to `k`.
    pub d_k: Array4<A>,
    /// Gradient with respect to `v`.
    pub d_v: Array4<A>,
    /// Gradient with respect to the bias, if there is one.
    pub d_bias: Option<Array4<A>>,
    /// Gradient with respect to the sinks, if there are any.
    pub d_sink: Option<Array1<A>>,
}

/// One visible key of a query's row, in the working precision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<A> {
    /// Key index within its sequence.
    pub(crate) j: usize,
    /// The score: scaled, capped, biased.
    pub(crate) s: A,
    /// `∂s / ∂(scale · q·k)`: 1, or `1 − (s'/c)²` under a softcap.
    pub(crate) slope: A,
    /// `P_ij`.
    pub(crate) p: A,
    /// `Z_ij`: 1 without dropout.
    pub(crate) z: A,
}

/// One query row: its visible keys and its log-sum-exp.
#[derive(Clone, Debug)]
pub(crate) struct Row<A> {
    pub(crate) entries: Vec<Entry<A>>,
    pub(crate) lse: A,
    /// `exp(sink − lse)`: what the sink takes of the probability.
    pub(crate) p_sink: A,
}

/// Forward pass: `S = τ Q Kᵀ` (softcap, bias, mask), `P = softmax(S)`, `O = (Z ∘ P) V` — equations 0 of
/// FlashAttention's §2.2, with dropout as in its Algorithm 2.
///
/// ```
/// use ndarray::array;
/// use tilewright_attention::{AttentionSpec, Inputs, reference};
/// let spec = AttentionSpec::dense(1, 1, 1, 2, 1);
/// let (q, k, v) = (array![[[[1.0]]]], array![[[[0.0], [0.0]]]], array![[[[2.0], [4.0]]]]);
/// let result = reference::forward::<f64, f64>(&spec, &Inputs::new(q.view(), k.view(), v.view()))?;
/// assert_eq!(result.o[[0, 0, 0, 0]], 3.0);
/// assert_eq!(result.lse[[0, 0, 0]], 2f64.ln());
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
///
/// # Errors
/// As [`Inputs::check`].
pub fn forward<T: Element, A: Real>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
) -> Result<ReferenceForward<A>, AttentionError> {
    inputs.check(spec)?;
    let mut o = Array4::from_elem(spec.o_shape(), A::zero());
    let mut lse = Array3::from_elem(spec.lse_shape(), A::neg_infinity());
    for_each_row(spec, |b, h, i| {
        let softmax = softmax_row::<T, A>(spec, inputs, b, h, i);
        let (qb, qi) = spec.query_slot(b, i);
        lse[[qb, h, qi]] = softmax.lse;
        let mut o_row = row_mut(o.view_mut(), [qb, h, qi]);
        for entry in &softmax.entries {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let weight = entry.z * entry.p;
            for (o, v) in o_row.iter_mut().zip(row(inputs.v, [kb, spec.kv_head(h), kj])) {
                *o += weight * load(*v);
            }
        }
    });
    Ok(ReferenceForward { o, lse })
}

/// Backward pass: gradients of `Σ O∘dO + Σ LSE∘dLSE`.
///
/// ```text
/// dV_j = Σ_i Z_ij P_ij dO_i          dP_ij = Z_ij dO_i·v_j          dS_ij = P_ij (dP_ij − Σ_l P_il dP_il + dLSE_i)
/// dQ_i = τ Σ_j dS_ij k_j             dK_j  = τ Σ_i dS_ij q_i        dBias = Σ dS over broadcast axes
/// dSink_h = Σ_i P_sink (dLSE_i − Σ_l P_il dP_il)
/// ```
/// (FlashAttention, appendix B.2; a softcap multiplies `dS` by `1 − (s'/c)²` on its way to `dQ` and `dK`.)
///
/// # Errors
/// As [`Inputs::check`]; a shape error for `d_o` and `d_lse`.
pub fn backward<T: Element, A: Real>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
) -> Result<ReferenceGradients<A>, AttentionError> {
    inputs.check(spec)?;
    crate::tensors::check_incoming(spec, d_o, d_lse)?;
    let scale = A::from_f64(spec.scale);
    let mut grads = ReferenceGradients::filled(spec, inputs, A::zero());
    for_each_row(spec, |b, h, i| {
        let softmax = softmax_row::<T, A>(spec, inputs, b, h, i);
        let (qb, qi) = spec.query_slot(b, i);
        let hk = spec.kv_head(h);
        let g_row = row(d_o, [qb, h, qi]);
        let mut d_p = Vec::with_capacity(softmax.entries.len());
        let mut mean = A::zero(); // Σ_l P_il dP_il
        for entry in &softmax.entries {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let weight = entry.z * entry.p;
            for (d_v, g) in row_mut(grads.d_v.view_mut(), [kb, hk, kj]).into_iter().zip(g_row) {
                *d_v += weight * load(*g);
            }
            let d_p_ij = entry.z * dot(g_row, row(inputs.v, [kb, hk, kj]));
            mean += entry.p * d_p_ij;
            d_p.push(d_p_ij);
        }
        let d_lse_i = d_lse.map_or(A::zero(), |d_lse| load(d_lse[[qb, h, qi]]));
        let (q_row, mut d_q_row) = (row(inputs.q, [qb, h, qi]), row_mut(grads.d_q.view_mut(), [qb, h, qi]));
        for (entry, d_p) in softmax.entries.iter().zip(d_p) {
            let (kb, kj) = spec.key_slot(b, entry.j);
            let d_s = entry.p * (d_p - mean + d_lse_i);
            if let Some(d_bias) = &mut grads.d_bias {
                let index = broadcast_index(d_bias.dim(), b, h, i, entry.j);
                d_bias[index] += d_s;
            }
            let d_raw = scale * entry.slope * d_s;
            for (d_q, k) in d_q_row.iter_mut().zip(row(inputs.k, [kb, hk, kj])) {
                *d_q += d_raw * load(*k);
            }
            for (d_k, q) in row_mut(grads.d_k.view_mut(), [kb, hk, kj]).into_iter().zip(q_row) {
                *d_k += d_raw * load(*q);
            }
        }
        if let Some(d_sink) = &mut grads.d_sink {
            d_sink[h] += softmax.p_sink * (d_lse_i - mean);
        }
    });
    Ok(grads)
}

/// Scores of query `(b, h, i)` against every key it sees, and their softmax.
pub(crate) fn softmax_row<T: Element, A: Real>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    b: usize,
    h: usize,
    i: usize,
) -> Row<A> {
    let dropout = spec.dropout.map(DropoutMask::new);
    let mut entries: Vec<Entry<A>> = (0..spec.kv_len(b))
        .filter(|&j| spec.visible(b, h, i, j))
        .map(|j| {
            let (s, slope) = score(spec, inputs, b, h, i, j);
            let z = A::from_f64(dropout.map_or(1.0, |mask| mask.factor(b, h, i, j)));
            Entry { j, s, slope, p: A::zero(), z }
        })
        .collect();
    let sink = inputs.sink.map_or(A::neg_infinity(), |sink| load(sink[h]));
    let m = entries.iter().fold(sink, |m, entry| m.maximum(entry.s));
    if m == A::neg_infinity() {
        // Nothing to normalise: no key in sight, or every score −∞. O = 0 and LSE = −∞ by convention.
        return Row { entries, lse: m, p_sink: A::zero() };
    }
    let mut l = (sink - m).exp();
    for entry in &entries {
        l += (entry.s - m).exp();
    }
    for entry in &mut entries {
        entry.p = (entry.s - m).exp() / l;
    }
    Row { entries, lse: m + l.ln(), p_sink: (sink - m).exp() / l }
}

/// The score of one pair and its derivative with respect to `scale · q·k`.
fn score<T: Element, A: Real>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    b: usize,
    h: usize,
    i: usize,
    j: usize,
) -> (A, A) {
    let ((qb, qi), (kb, kj), hk) = (spec.query_slot(b, i), spec.key_slot(b, j), spec.kv_head(h));
    let product: A = dot(row(inputs.q, [qb, h, qi]), row(inputs.k, [kb, hk, kj]));
    let (mut s, mut slope) = (A::from_f64(spec.scale) * product, A::one());
    if let Some(cap) = spec.softcap.map(A::from_f64) {
        let t = (s / cap).tanh();
        (s, slope) = (cap * t, A::one() - t * t);
    }
    if let Some(bias) = inputs.bias_at(b, h, i, j) {
        s += load(bias);
    }
    if spec.alibi.is_some() {
        s += A::from_f64(spec.alibi(b, h, i, j));
    }
    (s, slope)
}

/// Inner product in the working precision, left to right.
fn dot<T: Element, A: Real>(x: ArrayView1<'_, T>, y: ArrayView1<'_, T>) -> A {
    x.iter().zip(y).fold(A::zero(), |sum, (x, y)| sum + load::<T, A>(*x) * load(*y))
}

/// Calls `f(b, h, i)` for every query row of every sequence.
pub(crate) fn for_each_row(spec: &AttentionSpec, mut f: impl FnMut(usize, usize, usize)) {
    for b in 0..spec.batch {
        for h in 0..spec.q_heads {
            for i in 0..spec.q_len(b) {
                f(b, h, i);
            }
        }
    }
}

/// An element in the working precision, exactly.
pub(crate) fn load<T: Element, A: Real>(x: T) -> A {
    A::from_f64(x.to_f64())
}

impl<A: Clone> ReferenceGradients<A> {
    /// Gradients of the right shapes, every element `x`.
    pub(crate) fn filled<T: Element>(spec: &AttentionSpec, inputs: &Inputs<'_, T>, x: A) -> Self {
        Self {
            d_q: Array4::from_elem(spec.q_shape(), x.clone()),
            d_k: Array4::from_elem(spec.k_shape(), x.clone()),
            d_v: Array4::from_elem(spec.v_shape(), x.clone()),
            d_bias: inputs.bias.map(|bias| Array4::from_elem(bias.dim(), x.clone())),
            d_sink: inputs.sink.map(|sink| Array1::from_elem(sink.len(), x)),
        }
    }
}
