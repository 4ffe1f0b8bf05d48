//! Standard attention (FlashAttention, Algorithm 0): `S` and `P` of a head in full, no tile skipped. The baseline that
//! benches hold the tiled method against; it shares its micro-kernel, so what differs is the method.

use super::backward::row_dot;
use super::float::{Float, Stored};
use super::isa::Isa;
use super::kernels;
use super::scores::{Block, Problem, Scores};
use super::tile::{self, Tile};
use ndarray::ArrayViewMut4;
use num_traits::{One, Zero};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_attention::tiling::{coverage, tiles};
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, Gradients, Inputs, Keys, Outputs, Saved,
    tensors,
};
use tilewright_scalar::Real;

/// Side of the square blocks a matrix is stored in, so that its products run from cache as the tiled method's do.
const BLOCK: usize = 64;

/// Standard attention: the score matrix of a head is computed, kept, normalised and then multiplied. Memory
/// O(N·S) a head at work, as many heads as there are threads.
///
/// The forward pass has every feature of the specification. The backward pass returns
/// [`Unsupported`](AttentionError::Unsupported) for paged keys and for `d_bias`.
///
/// ```
/// use ndarray::{Array3, Array4};
/// use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs};
/// use tilewright_cpu::StandardAttention;
///
/// let spec = AttentionSpec::dense(1, 2, 5, 7, 8);
/// let (q, k, v) = (Array4::<f32>::ones(spec.q_shape()), Array4::ones(spec.k_shape()), Array4::ones(spec.v_shape()));
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
/// let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
/// StandardAttention.forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), out)?;
/// assert!(o.iter().all(|o| (o - 1.0).abs() < 1e-6));
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardAttention;

/// A matrix of scores in square blocks, row of blocks after row of blocks.
type Grid<A> = Vec<GridRow<A>>;

/// A row of blocks.
type GridRow<A> = Vec<(Block, Scores<A>)>;

/// One head's result, in the accumulator.
struct HeadForward<A> {
    o: Vec<Tile<A>>,
    lse: Vec<A>,
}

/// One key/value head's gradients: `dQ` of each query head of its group by blocks, `dK` and `dV` by blocks.
struct GroupGradients<A> {
    queries: Vec<Vec<Tile<A>>>,
    keys: Vec<Tile<A>>,
    values: Vec<Tile<A>>,
}

impl<T: Stored> AttentionForward<T> for StandardAttention {
    fn forward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        mut out: Outputs<'_, T>,
    ) -> Result<(), AttentionError> {
        inputs.check(spec)?;
        out.check(spec)?;
        let problem = Problem::new(spec, inputs, Isa::from_environment()?);
        let heads: Vec<_> = (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))).collect();
        let results: Vec<_> = heads.par_iter().map(|&(b, h)| head_forward(&problem, b, h)).collect();
        for ((b, h), head) in heads.into_iter().zip(results) {
            let slot = |i| spec.query_slot(b, i);
            store(&mut out.o, h, slot, &head.o, T::Accum::one());
            for (i, lse) in head.lse.into_iter().enumerate() {
                out.lse[[slot(i).0, h, slot(i).1]] = lse;
            }
        }
        Ok(())
    }
}

impl<T: Stored> AttentionBackward<T> for StandardAttention {
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        mut gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError> {
        inputs.check(spec)?;
        saved.check(spec)?;
        gradients.check(spec, inputs)?;
        if matches!(spec.keys, Keys::Paged { .. }) {
            return Err(AttentionError::Unsupported { what: "paged keys in the standard backward pass" });
        }
        if gradients.d_bias.is_some() {
            return Err(AttentionError::Unsupported { what: "d_bias in the standard backward pass" });
        }
        let problem = Problem::new(spec, inputs, Isa::from_environment()?);
        let groups: Vec<_> = (0..spec.batch).flat_map(|b| (0..spec.kv_heads).map(move |hk| (b, hk))).collect();
        let results: Vec<_> = groups.par_iter().map(|&(b, hk)| group_backward(&problem, saved, b, hk)).collect();
        gradients.d_k.fill(T::from_f64(0.0));
        gradients.d_v.fill(T::from_f64(0.0));
        for ((b, hk), group) in groups.into_iter().zip(results) {
            let (query_slot, key_slot) = (|i| spec.query_slot(b, i), |j| spec.key_slot(b, j));
            for (g, d_q) in group.queries.iter().enumerate() {
                let h = hk * (spec.q_heads / spec.kv_heads) + g;
                store(&mut gradients.d_q, h, query_slot, d_q, problem.scale);
            }
            store(&mut gradients.d_k, hk, key_slot, &group.keys, problem.scale);
            store(&mut gradients.d_v, hk, key_slot, &group.values, T::Accum::one());
        }
        if let (Some(d_sink), Some(sink)) = (&mut gradients.d_sink, inputs.sink) {
            d_sink.fill(T::Accum::zero());
            for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
                d_sink[h] += sink_gradient(spec, saved, b, h, sink[h]);
            }
        }
        Ok(())
    }
}

/// Lines 1 to 3 of Algorithm 0.
fn head_forward<T: Stored>(problem: &Problem<'_, '_, T>, b: usize, h: usize) -> HeadForward<T::Accum> {
    let spec = problem.spec;
    let mut grid = score_grid(problem, b, h);
    let mut lse = Vec::with_capacity(spec.q_len(b));
    for (rows, blocks) in tiles(0..spec.q_len(b), BLOCK).zip(&mut grid) {
        lse.extend(softmax(problem.isa, rows.len(), blocks, problem.inputs.sink.map(|sink| sink[h])));
    }
    let values = packed_keys(problem, problem.inputs.v, b, spec.kv_head(h));
    let output = |(rows, blocks): (Range<usize>, &mut GridRow<T::Accum>)| {
        let mut o = Tile::zeros(rows.len(), spec.value_dim);
        for ((at, scores), v) in blocks.iter_mut().zip(&values) {
            problem.drop(at, &mut scores.s);
            scores.mask.product(problem.isa, &mut o, &scores.s, v);
        }
        o
    };
    HeadForward { o: tiles(0..spec.q_len(b), BLOCK).zip(&mut grid).map(output).collect(), lse }
}

/// `S = τ Q Kᵀ`, softcapped, biased and masked: all of it.
fn score_grid<T: Stored>(problem: &Problem<'_, '_, T>, b: usize, h: usize) -> Grid<T::Accum> {
    let (spec, inputs) = (problem.spec, problem.inputs);
    let keys_t: Vec<_> = packed_keys(problem, inputs.k, b, spec.kv_head(h)).iter().map(transposed).collect();
    let row_of_blocks = |rows: Range<usize>| {
        let mut q = Tile::default();
        tile::queries(spec, inputs.q, [b, h], &rows).pack(problem.isa, &mut q);
        let block = |(keys, k_t): (Range<usize>, &Tile<T::Accum>)| {
            let at = Block { b, h, rows: rows.clone(), keys };
            let coverage = coverage(spec, b, h, at.rows.clone(), at.keys.clone());
            let mut scores = Scores::default();
            problem.compute(&at, coverage, &q, k_t, &mut scores);
            (at, scores)
        };
        tiles(0..spec.kv_len(b), BLOCK).zip(&keys_t).map(block).collect()
    };
    tiles(0..spec.q_len(b), BLOCK).map(row_of_blocks).collect()
}

/// `P = softmax(S)` for a row of blocks, in place, and the rows' LSE.
fn softmax<A: Float>(isa: Isa, rows: usize, blocks: &mut [(Block, Scores<A>)], sink: Option<A>) -> Vec<A> {
    let sink = sink.unwrap_or(A::neg_infinity());
    let softmax_row = |i: usize| {
        let m = blocks.iter().fold(sink, |m, (_, scores)| m.maximum(kernels::max_row(isa, scores.s.row(i))));
        let shift = if m == A::neg_infinity() { A::zero() } else { m };
        let mut l = (sink - shift).exp();
        for (_, scores) in &mut *blocks {
            kernels::exp_row(isa, scores.s.row_mut(i), shift);
            l += kernels::sum_row(isa, scores.s.row(i));
        }
        if l == A::zero() {
            return A::neg_infinity();
        }
        for (_, scores) in &mut *blocks {
            for p in scores.s.row_mut(i) {
                *p = *p / l;
            }
        }
        shift + l.ln()
    };
    (0..rows).map(softmax_row).collect()
}

/// Lines 1 to 6 of the standard backward pass (Algorithm 3), for every query head that reads key/value head `hk`.
fn group_backward<T: Stored>(
    problem: &Problem<'_, '_, T>,
    saved: &Saved<'_, T>,
    b: usize,
    hk: usize,
) -> GroupGradients<T::Accum> {
    let (spec, inputs) = (problem.spec, problem.inputs);
    let group = spec.q_heads / spec.kv_heads;
    let keys = packed_keys(problem, inputs.k, b, hk);
    let values_t: Vec<_> = packed_keys(problem, inputs.v, b, hk).iter().map(transposed).collect();
    let zeros = |dim| tiles(0..spec.kv_len(b), BLOCK).map(|keys| Tile::zeros(keys.len(), dim)).collect::<Vec<_>>();
    let mut out = GroupGradients { queries: Vec::new(), keys: zeros(spec.head_dim), values: zeros(spec.value_dim) };
    for h in hk * group..(hk + 1) * group {
        let mut grid = score_grid(problem, b, h);
        let mut d_q = Vec::new();
        for (rows, blocks) in tiles(0..spec.q_len(b), BLOCK).zip(&mut grid) {
            let (mut q, mut d_o, mut d_q_tile) =
                (Tile::default(), Tile::default(), Tile::zeros(rows.len(), spec.head_dim));
            tile::queries(spec, inputs.q, [b, h], &rows).pack(problem.isa, &mut q);
            tile::queries(spec, saved.d_o, [b, h], &rows).pack(problem.isa, &mut d_o);
            softmax(problem.isa, rows.len(), blocks, inputs.sink.map(|sink| sink[h]));
            let d: Vec<_> = rows.map(|i| row_dot(spec, saved, b, h, i)).collect();
            for (t, (at, scores)) in blocks.iter_mut().enumerate() {
                let d_s = score_gradient(problem, at, scores, &d_o, &values_t[t], &d);
                problem.drop(at, &mut scores.s);
                scores.mask.product_transposed(problem.isa, &mut out.values[t], &scores.s, &d_o);
                scores.mask.product(problem.isa, &mut d_q_tile, &d_s, &keys[t]);
                scores.mask.product_transposed(problem.isa, &mut out.keys[t], &d_s, &q);
            }
            d_q.push(d_q_tile);
        }
        out.queries.push(d_q);
    }
    out
}

/// `dS = P ∘ (Z∘dP − D)`, through the softcap, where `P` is in `scores`.
fn score_gradient<T: Stored>(
    problem: &Problem<'_, '_, T>,
    at: &Block,
    scores: &Scores<T::Accum>,
    d_o: &Tile<T::Accum>,
    v_t: &Tile<T::Accum>,
    d: &[T::Accum],
) -> Tile<T::Accum> {
    let mut d_s = Tile::zeros(at.rows.len(), at.keys.len());
    d_s.add_product(problem.isa, d_o, v_t);
    problem.drop(at, &mut d_s);
    for r in 0..at.rows.len() {
        for (d_s, p) in d_s.row_mut(r).iter_mut().zip(scores.s.row(r)) {
            *d_s = *p * (*d_s - d[r]);
        }
        if problem.spec.softcap.is_some() {
            for (d_s, slope) in d_s.row_mut(r).iter_mut().zip(scores.slope.row(r)) {
                *d_s = *slope * *d_s;
            }
        }
    }
    scores.mask.select(&mut d_s, T::Accum::zero());
    d_s
}

/// `dSink = −Σ e^(sink − LSE) · D` over the rows of one head of one sequence.
fn sink_gradient<T: Stored>(
    spec: &AttentionSpec,
    saved: &Saved<'_, T>,
    b: usize,
    h: usize,
    sink: T::Accum,
) -> T::Accum {
    let term = |i: usize| {
        let (slot, row) = spec.query_slot(b, i);
        let lse = saved.lse[[slot, h, row]];
        (lse != T::Accum::neg_infinity()).then(|| kernels::exp_scalar(sink - lse) * row_dot(spec, saved, b, h, i))
    };
    (0..spec.q_len(b)).filter_map(term).fold(T::Accum::zero(), |sum, x| sum - x)
}

/// All of a head's key or value rows, in blocks.
fn packed_keys<T: Stored>(
    problem: &Problem<'_, '_, T>,
    tensor: ndarray::ArrayView4<'_, T>,
    b: usize,
    hk: usize,
) -> Vec<Tile<T::Accum>> {
    let pack = |keys: Range<usize>| {
        let mut tile = Tile::default();
        tile::keys(problem.spec, tensor, [b, hk], &keys).pack(problem.isa, &mut tile);
        tile
    };
    tiles(0..problem.spec.kv_len(b), BLOCK).map(pack).collect()
}

fn transposed<A: Float>(tile: &Tile<A>) -> Tile<A> {
    let mut out = Tile::default();
    out.transpose_of(tile);
    out
}

/// Rounds `factor ·` the rows of blocks to storage.
fn store<T: Stored>(
    into: &mut ArrayViewMut4<'_, T>,
    head: usize,
    slot: impl Fn(usize) -> (usize, usize),
    blocks: &[Tile<T::Accum>],
    factor: T::Accum,
) {
    for (i, values) in blocks.iter().flat_map(|block| (0..block.rows()).map(|r| block.row(r))).enumerate() {
        let (slot, row) = slot(i);
        for (x, value) in tensors::row_mut(into.view_mut(), [slot, head, row]).iter_mut().zip(values) {
            *x = T::from_accum(factor * *value);
        }
    }
}
