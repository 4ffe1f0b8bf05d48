//! The backward pass: FlashAttention-2, Algorithm 2, five products a pair of tiles and no atomics.
//!
//! A task has a chunk of the keys of one head, whose `dK` and `dV` nobody else adds to, and takes every query tile that
//! sees them past each of its key tiles. `dQ` gathers over the keys: each chunk has a sum of its own, and the sums are
//! added in the order of the chunks, whichever is ready first. So every element has its terms in one order, however many
//! threads there are.

use super::CpuAttention;
use super::bias;
use super::factor::Factor;
use super::float::{Float, Stored};
use super::gather::{Gathering, Pages, Part};
use super::meeting::{KeyGradients, KeySide, Meeting, QuerySide};
use super::scores::Problem;
use super::spare::Spare;
use super::split;
use super::tile::Tile;
use ndarray::{Array3, ArrayViewMut2, ArrayViewMut4};
use num_traits::{One, Zero};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_attention::tiling::{Coverage, Tiles, coverage, query_range, tiles};
use tilewright_attention::{AttentionSpec, Gradients, Saved, tensors};
use tilewright_scalar::Real;

/// Bytes of packed queries and of gathering gradients held at a time for each thread, one key/value head's more at most.
const WAVE_BYTES: usize = 8 << 20;

/// Keys of a chunk, about: so many that adding up the chunks' sums takes little of the time, so few that one head is work
/// for many threads. The threads' number has no part in it, as it would change bits.
const CHUNK: usize = 384;

/// The problem, the forward's results, and `D`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a, 'i, 's, T: Stored> {
    pub(super) problem: Problem<'a, 'i, T>,
    pub(super) saved: &'a Saved<'s, T>,
    pub(super) d: &'a Array3<T::Accum>,
}

/// Runs the backward pass, whose products multiply `F`; everything has been checked.
pub(super) fn run<T: Stored, F: Factor<Sum = T::Accum>>(
    method: &CpuAttention,
    problem: &Problem<'_, '_, T>,
    saved: &Saved<'_, T>,
    gradients: Gradients<'_, T>,
) {
    let Gradients { d_q, mut d_k, mut d_v, d_bias, d_sink } = gradients;
    let spec = problem.spec;
    let d = row_dots(spec, saved);
    let context = Context { problem: *problem, saved, d: &d };
    let sizes = method.backward_tiles::<F>(spec);
    // Keys of no sequence have no gradient.
    clear(&mut d_k);
    clear(&mut d_v);
    let mut pages = Pages::new(spec);
    let mut query_outputs = split::query_tiles(spec, sizes.q, d_q);
    let mut key_outputs = [&mut d_k, &mut d_v].map(|to| split::key_tiles(spec, sizes.k, to.view_mut()));
    let heads: Vec<_> = (0..spec.batch).flat_map(|b| (0..spec.kv_heads).map(move |hk| [b, hk])).collect();
    let (memory, mut rest) = (Memory::<F>::default(), &heads[..]);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(wave::<T::Accum>(spec, rest));
        let mut heads: Vec<_> = now.par_iter().map(|at| Head::new(spec, *at, sizes.k, &memory.tiles)).collect();
        for turn in 0..spec.q_heads / spec.kv_heads {
            meet_queries::<T, F>(&context, sizes, &memory, &mut heads, turn, &mut query_outputs);
        }
        match (&mut pages, &mut key_outputs) {
            (Some(pages), _) => heads.iter().for_each(|head| pages.add(spec, [head.b, head.hk], &head.keys)),
            (None, [d_k, d_v]) => store_keys(problem, &heads, d_k, d_v),
        }
        let used = heads.into_iter().flat_map(|head| head.keys).flat_map(|keys| [keys.d_k, keys.d_v]);
        memory.tiles.give(used);
        rest = later;
    }
    if let Some(pages) = pages {
        pages.store(problem.scale, d_k, d_v);
    }
    if let Some(d_bias) = d_bias {
        let pieces = split::bias_pieces(d_bias, bias::TILE, bias::TILE);
        pieces.into_par_iter().for_each(|(task, d_bias)| context.bias_gradient(&task, d_bias));
    }
    if let Some(mut d_sink) = d_sink {
        for h in 0..spec.q_heads {
            d_sink[h] = context.sink_gradient(h);
        }
    }
}

/// Zeros, by all threads: most of it is memory that nobody has written to yet.
fn clear<T: Stored>(to: &mut ArrayViewMut4<'_, T>) {
    match to.as_slice_mut() {
        Some(to) => to.par_chunks_mut(1 << 16).for_each(|to| to.fill(T::default())),
        None => to.fill(T::default()),
    }
}

/// What is used again from wave to wave.
#[derive(Default)]
struct Memory<F: Factor> {
    /// Sums of any kind.
    tiles: Spare<Tile<F::Sum>>,
    queries: Spare<QuerySide<F>>,
    meetings: Spare<(KeySide<F>, Meeting<F>)>,
}

/// Zeros, in spare memory.
fn zeros<A: Float>(spare: &Spare<Tile<A>>, rows: usize, columns: usize) -> Tile<A> {
    let mut tile = spare.take(Tile::default);
    tile.reset(rows, columns);
    tile
}

/// How many key/value heads fit the budget together, at least one.
fn wave<A>(spec: &AttentionSpec, heads: &[[usize; 2]]) -> usize {
    let row = (spec.head_dim + spec.value_dim) * size_of::<A>();
    // Queries are packed twice over, and beside each head's dQ there is a chunk's.
    let bytes = |b: usize| row * (spec.kv_len(b) + 3 * spec.q_len(b));
    let mut total = 0;
    let fits = heads.iter().take_while(|head| {
        total += bytes(head[0]);
        total <= WAVE_BYTES * rayon::current_num_threads()
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

/// A key/value head, and what gathers for its keys, tile by tile, over all query heads of its group.
struct Head<A> {
    b: usize,
    hk: usize,
    keys: Vec<KeyGradients<A>>,
}

impl<A: Float> Head<A> {
    fn new(spec: &AttentionSpec, [b, hk]: [usize; 2], tile: usize, spare: &Spare<Tile<A>>) -> Self {
        let gradients = |keys: Range<usize>| KeyGradients {
            d_k: zeros(spare, keys.len(), spec.head_dim),
            d_v: zeros(spare, keys.len(), spec.value_dim),
            keys,
        };
        Self { b, hk, keys: tiles(0..spec.kv_len(b), tile).map(gradients).collect() }
    }
}

/// The queries of one head, packed, and their gathering gradient.
struct Queries<F: Factor> {
    b: usize,
    h: usize,
    tiles: Vec<QuerySide<F>>,
    d_q: Gathering<F::Sum>,
}

/// Some key/value heads meet the queries of one head of their groups, that of number `turn`.
fn meet_queries<T: Stored, F: Factor<Sum = T::Accum>>(
    context: &Context<'_, '_, '_, T>,
    sizes: Tiles,
    memory: &Memory<F>,
    heads: &mut [Head<T::Accum>],
    turn: usize,
    outputs: &mut [Vec<ArrayViewMut2<'_, T>>],
) {
    let (problem, spec) = (&context.problem, context.problem.spec);
    let load = |head: &Head<T::Accum>| {
        let (b, h) = (head.b, head.hk * (spec.q_heads / spec.kv_heads) + turn);
        let rows: Vec<_> = tiles(0..spec.q_len(b), sizes.q).collect();
        let sums = rows.iter().map(|rows| zeros(&memory.tiles, rows.len(), spec.head_dim)).collect();
        let pack = |rows| {
            let mut tile = memory.queries.take(QuerySide::default);
            memory.tiles.lend(Tile::default, |scratch| tile.load(context, [b, h], rows, scratch));
            tile
        };
        Queries { b, h, tiles: rows.into_par_iter().map(pack).collect(), d_q: Gathering::new(sums) }
    };
    let queries: Vec<Queries<F>> = heads.par_iter().map(load).collect();
    let chunk = (CHUNK / sizes.k).max(1);
    let tasks = heads
        .iter_mut()
        .zip(&queries)
        .flat_map(|(head, queries)| head.keys.chunks_mut(chunk).enumerate().map(move |(at, keys)| (queries, at, keys)));
    // In this order: what a chunk adds to dQ then waits for few others.
    tasks.par_bridge().for_each(|(queries, at, keys)| {
        let part = meet_chunk(problem, sizes.q, memory, queries, keys);
        memory.tiles.give(queries.d_q.add(at, part));
    });
    for Queries { b, h, tiles, d_q } in queries {
        let outputs = std::mem::take(&mut outputs[b * spec.q_heads + h]);
        let sums = d_q.into_sums();
        outputs.into_par_iter().zip(&sums).for_each(|(to, sum)| sum.store(0, problem.scale, to));
        memory.tiles.give(sums);
        memory.queries.give(tiles);
    }
}

/// Every query tile passes each key tile of a chunk. Returns the chunk's part of `dQ`.
fn meet_chunk<T: Stored, F: Factor<Sum = T::Accum>>(
    problem: &Problem<'_, '_, T>,
    tile: usize,
    memory: &Memory<F>,
    queries: &Queries<F>,
    chunk: &mut [KeyGradients<T::Accum>],
) -> Part<T::Accum> {
    let (spec, b, h) = (problem.spec, queries.b, queries.h);
    let seen_by = |keys: Range<usize>| {
        let rows = query_range(spec, b, keys);
        rows.start / tile..rows.end.div_ceil(tile)
    };
    let (start, end) = (chunk.first().map_or(0, |tile| tile.keys.start), chunk.last().map_or(0, |tile| tile.keys.end));
    let all = seen_by(start..end);
    let zeros = |at: usize| zeros(&memory.tiles, queries.tiles[at].rows.len(), spec.head_dim);
    let mut part = Part { first: all.start, tiles: all.map(zeros).collect() };
    let (mut side, mut meeting) = memory.meetings.take(|| (KeySide::default(), Meeting::new(problem)));
    for gradients in chunk {
        let keys = gradients.keys.clone();
        let visible =
            |at: &usize| coverage(spec, b, h, queries.tiles[*at].rows.clone(), keys.clone()) != Coverage::Empty;
        let mut tiles = seen_by(keys.clone()).filter(visible).peekable();
        if tiles.peek().is_some() {
            side.load(problem, [b, spec.kv_head(h)], &keys);
        }
        for at in tiles {
            let d_q = &mut part.tiles[at - part.first];
            meeting.meet(problem, [b, h], &queries.tiles[at], &side, d_q, gradients);
        }
    }
    memory.meetings.give([(side, meeting)]);
    part
}

/// Rounds `dK` and `dV` of some heads to storage.
fn store_keys<T: Stored>(
    problem: &Problem<'_, '_, T>,
    heads: &[Head<T::Accum>],
    d_k: &mut [Vec<ArrayViewMut2<'_, T>>],
    d_v: &mut [Vec<ArrayViewMut2<'_, T>>],
) {
    for head in heads {
        let at = head.b * problem.spec.kv_heads + head.hk;
        let outputs = std::mem::take(&mut d_k[at]).into_par_iter().zip(std::mem::take(&mut d_v[at]));
        outputs.zip(&head.keys).for_each(|((d_k, d_v), keys)| {
            keys.d_k.store(0, problem.scale, d_k);
            keys.d_v.store(0, T::Accum::one(), d_v);
        });
    }
}
