//! The backward pass: FlashAttention-2, Algorithm 2, five products a pair of tiles and no atomics.
//!
//! `dK` and `dV` gather in tiles of keys, `dQ` in tiles of queries, and every pair of tiles adds to one of each. In step
//! `s`, key tile `j` meets query tile `j + s`, around the corner: a step's pairs have no tile in common and run in
//! parallel, and every tile gathers its terms in the order of the steps, however many threads there are.

use super::CpuAttention;
use super::bias;
use super::float::{Float, Stored};
use super::meeting::{KeySide, Meeting, QuerySide};
use super::scores::Problem;
use super::split;
use super::tile::Tile;
use ndarray::{Array3, Array4, ArrayViewMut4};
use num_traits::Zero;
use rayon::prelude::*;
use tilewright_attention::tiling::{Coverage, Tiles, coverage, tiles};
use tilewright_attention::{AttentionSpec, Gradients, Keys, Saved, tensors};
use tilewright_scalar::Real;

/// Bytes of packed tiles and gathering gradients held at a time, one key/value head's more at most.
const WAVE_BYTES: usize = 16 << 20;

/// The problem, the forward's results, and `D`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a, 'i, 's, T: Stored> {
    pub(super) problem: Problem<'a, 'i, T>,
    pub(super) saved: &'a Saved<'s, T>,
    pub(super) d: &'a Array3<T::Accum>,
}

/// Runs the backward pass; everything has been checked.
pub(super) fn run<T: Stored>(
    method: &CpuAttention,
    problem: &Problem<'_, '_, T>,
    saved: &Saved<'_, T>,
    gradients: Gradients<'_, T>,
) {
    let spec = problem.spec;
    let d = row_dots(spec, saved);
    let context = Context { problem: *problem, saved, d: &d };
    let mut slow = SlowGradients::new(problem, gradients.d_q, gradients.d_k, gradients.d_v);
    let sizes = method.backward_tiles::<T::Accum>(spec);
    let heads: Vec<_> = (0..spec.batch).flat_map(|b| (0..spec.kv_heads).map(move |hk| [b, hk])).collect();
    let mut rest = &heads[..];
    while !rest.is_empty() {
        let count = wave::<T::Accum>(spec, rest);
        run_wave(&context, &rest[..count], sizes, &mut slow);
        rest = &rest[count..];
    }
    slow.finish();
    if let Some(d_bias) = gradients.d_bias {
        let pieces = split::bias_pieces(d_bias, bias::TILE, bias::TILE);
        pieces.into_par_iter().for_each(|(task, d_bias)| context.bias_gradient(&task, d_bias));
    }
    if let Some(mut d_sink) = gradients.d_sink {
        for h in 0..spec.q_heads {
            d_sink[h] = context.sink_gradient(h);
        }
    }
}

/// How many key/value heads fit the budget together, at least one.
fn wave<A>(spec: &AttentionSpec, heads: &[[usize; 2]]) -> usize {
    let row = (spec.head_dim + spec.value_dim) * size_of::<A>();
    let bytes = |b: usize| row * (5 * spec.kv_len(b) + 5 * spec.q_len(b)) / 2;
    let mut total = 0;
    let fits = heads.iter().take_while(|head| {
        total += bytes(head[0]);
        total <= WAVE_BYTES
    });
    fits.count().max(1)
}

/// Line 4: `D = rowsum(dO ∘ O) − dLSE`; `∂LSE_i / ∂S_ij = P_ij` is why `dLSE` can ride along. One number a query row.
fn row_dots<T: Stored>(spec: &AttentionSpec, saved: &Saved<'_, T>) -> Array3<T::Accum> {
    let mut d = Array3::from_elem(spec.lse_shape(), T::Accum::zero());
    for b in 0..spec.batch {
        let rows: Vec<_> = (0..spec.q_heads).flat_map(|h| (0..spec.q_len(b)).map(move |i| (h, i))).collect();
        let dots: Vec<_> = rows.par_iter().map(|&(h, i)| row_dot(spec, saved, b, h, i)).collect();
        for ((h, i), dot) in rows.into_iter().zip(dots) {
            let (slot, row) = spec.query_slot(b, i);
            d[[slot, h, row]] = dot;
        }
    }
    d
}

/// One row's `D`.
pub(super) fn row_dot<T: Stored>(spec: &AttentionSpec, saved: &Saved<'_, T>, b: usize, h: usize, i: usize) -> T::Accum {
    let zero = T::Accum::zero();
    let (slot, row) = spec.query_slot(b, i);
    let (d_o, o) = (tensors::row(saved.d_o, [slot, h, row]), tensors::row(saved.o, [slot, h, row]));
    let product = |(d_o, o): (&T, &T)| d_o.to_accum() * o.to_accum();
    let mut dot = match (d_o.to_slice(), o.to_slice()) {
        (Some(d_o), Some(o)) => d_o.iter().zip(o).map(product).fold(zero, |sum, x| sum + x),
        _ => d_o.iter().zip(o).map(product).fold(zero, |sum, x| sum + x),
    };
    // 0 · ∞ and 0 · NaN: the dO of a row that sees no key is not to be observed.
    if Real::is_nan(dot) && coverage(spec, b, h, i..i + 1, 0..spec.kv_len(b)) == Coverage::Empty {
        dot = zero;
    }
    dot - saved.d_lse.map_or(zero, |d_lse| d_lse[[slot, h, row]])
}

/// The key tiles of one key/value head and the query tiles of the query head whose turn it is.
struct Head<A> {
    b: usize,
    hk: usize,
    keys: Vec<KeySide<A>>,
    queries: Vec<QuerySide<A>>,
}

impl<A: Float> Head<A> {
    fn steps(&self) -> usize {
        self.keys.len().max(self.queries.len())
    }

    /// The pairs of one step.
    fn pairs(&mut self, step: usize) -> Vec<(&mut KeySide<A>, &mut QuerySide<A>)> {
        let steps = self.steps();
        if step >= steps {
            return Vec::new();
        }
        let mut queries: Vec<_> = self.queries.iter_mut().map(Some).collect();
        queries.resize_with(steps, || None);
        let meets = |(j, keys): (usize, _)| queries[(j + step) % steps].take().map(|queries| (keys, queries));
        self.keys.iter_mut().enumerate().filter_map(meets).collect()
    }
}

/// Some key/value heads, one query head of each at a time.
fn run_wave<T: Stored>(
    context: &Context<'_, '_, '_, T>,
    heads: &[[usize; 2]],
    sizes: Tiles,
    slow: &mut SlowGradients<'_, T>,
) {
    let problem = &context.problem;
    let (spec, group) = (problem.spec, problem.spec.q_heads / problem.spec.kv_heads);
    let pack_keys = |&[b, hk]: &[usize; 2]| {
        let keys: Vec<_> = tiles(0..spec.kv_len(b), sizes.k).collect();
        let keys = keys.into_par_iter().map(|keys| KeySide::pack(problem, [b, hk], keys)).collect();
        Head { b, hk, keys, queries: Vec::new() }
    };
    let mut heads: Vec<Head<T::Accum>> = heads.par_iter().map(pack_keys).collect();
    for g in 0..group {
        heads.par_iter_mut().for_each(|head| {
            let (b, h) = (head.b, head.hk * group + g);
            let rows: Vec<_> = tiles(0..spec.q_len(b), sizes.q).collect();
            head.queries = rows.into_par_iter().map(|rows| QuerySide::pack(context, [b, h], rows)).collect();
        });
        let steps = heads.iter().map(Head::steps).max().unwrap_or(0);
        for step in 0..steps {
            let pairs: Vec<_> = heads
                .iter_mut()
                .flat_map(|head| {
                    let at = [head.b, head.hk * group + g];
                    head.pairs(step).into_iter().map(move |(keys, queries)| (at, keys, queries))
                })
                .filter(|([b, h], keys, queries)| {
                    coverage(spec, *b, *h, queries.rows.clone(), keys.keys.clone()) != Coverage::Empty
                })
                .collect();
            pairs.into_par_iter().with_max_len(1).for_each_init(
                || Meeting::new(problem),
                |meeting, (at, keys, queries)| meeting.meet(problem, at, queries, keys),
            );
        }
        for head in &heads {
            let h = head.hk * group + g;
            head.queries.iter().for_each(|queries| slow.store_queries([head.b, h], queries));
        }
    }
    for head in &heads {
        head.keys.iter().for_each(|keys| slow.store_keys([head.b, head.hk], keys));
    }
}

/// Where finished tiles go. Pages may be shared, so what belongs to them is added up before it is rounded.
struct SlowGradients<'a, T: Stored> {
    spec: &'a AttentionSpec,
    d_q: ArrayViewMut4<'a, T>,
    d_k: ArrayViewMut4<'a, T>,
    d_v: ArrayViewMut4<'a, T>,
    scale: T::Accum,
    pages: Option<[Array4<T::Accum>; 2]>,
}

impl<'a, T: Stored> SlowGradients<'a, T> {
    fn new(
        problem: &Problem<'a, '_, T>,
        d_q: ArrayViewMut4<'a, T>,
        mut d_k: ArrayViewMut4<'a, T>,
        mut d_v: ArrayViewMut4<'a, T>,
    ) -> Self {
        let spec = problem.spec;
        // Keys of no sequence have no gradient.
        d_k.fill(T::default());
        d_v.fill(T::default());
        let zeros = |shape| Array4::from_elem(shape, T::Accum::zero());
        let pages = matches!(spec.keys, Keys::Paged { .. }).then(|| [zeros(spec.k_shape()), zeros(spec.v_shape())]);
        Self { spec, d_q, d_k, d_v, scale: problem.scale, pages }
    }

    fn store_queries(&mut self, [b, h]: [usize; 2], tile: &QuerySide<T::Accum>) {
        for (r, i) in tile.rows.clone().enumerate() {
            let (slot, row) = self.spec.query_slot(b, i);
            store_row(self.d_q.view_mut(), [slot, h, row], self.scale, tile.d_q.row(r));
        }
    }

    fn store_keys(&mut self, [b, hk]: [usize; 2], tile: &KeySide<T::Accum>) {
        for (r, j) in tile.keys.clone().enumerate() {
            let (slot, row) = self.spec.key_slot(b, j);
            if let Some([d_k, d_v]) = &mut self.pages {
                add_row(d_k, [slot, hk, row], &tile.d_k, r);
                add_row(d_v, [slot, hk, row], &tile.d_v, r);
                continue;
            }
            store_row(self.d_k.view_mut(), [slot, hk, row], self.scale, tile.d_k.row(r));
            store_row(self.d_v.view_mut(), [slot, hk, row], num_traits::One::one(), tile.d_v.row(r));
        }
    }

    fn finish(mut self) {
        let Some([d_k, d_v]) = self.pages.take() else { return };
        let scale = self.scale;
        self.d_k.zip_mut_with(&d_k, |to, from| *to = T::from_accum(scale * *from));
        self.d_v.zip_mut_with(&d_v, |to, from| *to = T::from_accum(*from));
    }
}

/// Rounds `factor · row` to storage.
fn store_row<T: Stored>(tensor: ArrayViewMut4<'_, T>, at: [usize; 3], factor: T::Accum, row: &[T::Accum]) {
    let mut to = tensors::row_mut(tensor, at);
    match to.as_slice_mut() {
        Some(to) => to.iter_mut().zip(row).for_each(|(to, x)| *to = T::from_accum(factor * *x)),
        None => to.iter_mut().zip(row).for_each(|(to, x)| *to = T::from_accum(factor * *x)),
    }
}

fn add_row<A: Float>(tensor: &mut Array4<A>, at: [usize; 3], tile: &Tile<A>, r: usize) {
    tensors::row_mut(tensor.view_mut(), at).iter_mut().zip(tile.row(r)).for_each(|(to, x)| *to += *x);
}
