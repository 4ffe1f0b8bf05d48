//! The backward pass, as passes that each own what they write: `dQ` by query tiles, `dK` and `dV` by key tiles, `dBias`
//! by its own tiles. Each recomputes `P` from LSE; none needs an atomic, and every sum has one order.
//!
//! FlashAttention-2's Algorithm 2 is the loop of [`key_gradients`]; its `dQ`, there accumulated in slow memory, is the
//! loop of [`query_gradients`] here, at the price of computing `S` and `dP` twice.

use super::CpuAttention;
use super::microkernel;
use super::scores::{Block, Problem, Scores};
use super::split::{self, BiasTask, KeyTask, QueryTask};
use super::tile::{Tile, pack_keys, pack_queries};
use ndarray::{Array3, ArrayViewMut2, ArrayViewMut3, Axis};
use num_traits::{One, Zero};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_attention::tiling::{Coverage, coverage, key_range, query_range, tiles};
use tilewright_attention::{AttentionSpec, Gradients, Inputs, Saved, tensors};
use tilewright_scalar::{Accum, Element, Real};

/// The problem, the forward's results, and `D`.
#[derive(Debug)]
struct Context<'a, 'i, 's, T: Element> {
    problem: Problem<'a, 'i, T>,
    saved: &'a Saved<'s, T>,
    /// `D = rowsum(dO ∘ O) − dLSE`: the only workspace that grows with the problem, one number a query row.
    d: &'a Array3<T::Accum>,
    tile_q: usize,
    tile_k: usize,
}

/// Runs the backward pass; everything has been checked.
pub(super) fn run<T: Element>(
    method: &CpuAttention,
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    gradients: Gradients<'_, T>,
) {
    let d = row_dots(spec, saved, method.tile_q);
    let problem = Problem::new(spec, inputs);
    let context = Context { problem, saved, d: &d, tile_q: method.tile_q, tile_k: method.tile_k };
    let tasks = split::query_tasks(spec, method.tile_q);
    let pieces = split::query_pieces(spec, method.tile_q, gradients.d_q);
    tasks.par_iter().zip(pieces).for_each(|(task, d_q)| context.query_gradients(task, d_q));

    let tasks = split::key_tasks(spec, method.tile_k);
    let owners: Vec<_> = tasks.iter().flat_map(|task| (0..spec.kv_heads).map(move |hk| (task, hk))).collect();
    let d_k = split::key_pieces(&tasks, gradients.d_k);
    let d_v = split::key_pieces(&tasks, gradients.d_v);
    owners.into_par_iter().zip(d_k).zip(d_v).for_each(|(((task, hk), d_k), d_v)| {
        context.key_gradients(task, hk, d_k, d_v);
    });

    if let Some(d_bias) = gradients.d_bias {
        let pieces = split::bias_pieces(d_bias, method.tile_q, method.tile_k);
        pieces.into_par_iter().for_each(|(task, d_bias)| context.bias_gradient(&task, d_bias));
    }
    if let Some(mut d_sink) = gradients.d_sink {
        for h in 0..spec.q_heads {
            d_sink[h] = context.sink_gradient(h);
        }
    }
}

/// Line 4: `D = rowsum(dO ∘ O) − dLSE`; `∂LSE_i / ∂S_ij = P_ij` is why `dLSE` can ride along.
fn row_dots<T: Element>(spec: &AttentionSpec, saved: &Saved<'_, T>, tile: usize) -> Array3<T::Accum> {
    let mut d = Array3::from_elem(spec.lse_shape(), T::Accum::zero());
    let tasks = split::query_tasks(spec, tile);
    let pieces = split::query_pieces(spec, tile, d.view_mut().insert_axis(Axis(3)));
    tasks.par_iter().zip(pieces).for_each(|(task, mut d)| {
        for ((h, r, _), d) in d.indexed_iter_mut() {
            *d = row_dot(spec, saved, task.b, task.heads.start + h, task.rows.start + r);
        }
    });
    d
}

/// One row's `D`.
pub(super) fn row_dot<T: Element>(
    spec: &AttentionSpec,
    saved: &Saved<'_, T>,
    b: usize,
    h: usize,
    i: usize,
) -> T::Accum {
    let zero = T::Accum::zero();
    let (slot, row) = spec.query_slot(b, i);
    let (d_o, o) = (tensors::row(saved.d_o, [slot, h, row]), tensors::row(saved.o, [slot, h, row]));
    let mut dot = d_o.iter().zip(o).fold(zero, |sum, (d_o, o)| sum + d_o.to_accum() * o.to_accum());
    // 0 · ∞ and 0 · NaN: the dO of a row that sees no key is not to be observed.
    if dot.is_nan() && coverage(spec, b, h, i..i + 1, 0..spec.kv_len(b)) == Coverage::Empty {
        dot = zero;
    }
    dot - saved.d_lse.map_or(zero, |d_lse| d_lse[[slot, h, row]])
}

/// One head's query tile: `Q`, `dO`, LSE and `D`.
#[derive(Debug, Default)]
struct QuerySide<A> {
    q: Tile<A>,
    d_o: Tile<A>,
    lse: Vec<A>,
    d: Vec<A>,
}

/// One key/value head's key tile: `K`, `Kᵀ`, `Vᵀ`.
#[derive(Debug, Default)]
struct KeySide<A> {
    k: Tile<A>,
    k_t: Tile<A>,
    v: Tile<A>,
    v_t: Tile<A>,
}

/// What meets where a query tile meets a key tile.
#[derive(Debug, Default)]
struct Meeting<A> {
    /// Scores, turned into `P` in place.
    scores: Scores<A>,
    d_s: Tile<A>,
}

impl<T: Element> Context<'_, '_, '_, T> {
    fn load_queries(&self, side: &mut QuerySide<T::Accum>, b: usize, h: usize, rows: &Range<usize>) {
        let spec = self.problem.spec;
        pack_queries(&mut side.q, spec, self.problem.inputs.q, [b, h], rows);
        pack_queries(&mut side.d_o, spec, self.saved.d_o, [b, h], rows);
        let at = |i: usize| {
            let (slot, row) = spec.query_slot(b, i);
            [slot, h, row]
        };
        side.lse.clear();
        side.lse.extend(rows.clone().map(|i| self.saved.lse[at(i)]));
        side.d.clear();
        side.d.extend(rows.clone().map(|i| self.d[at(i)]));
    }

    fn load_keys(&self, side: &mut KeySide<T::Accum>, b: usize, hk: usize, keys: &Range<usize>) {
        let (spec, inputs) = (self.problem.spec, self.problem.inputs);
        pack_keys(&mut side.k, spec, inputs.k, [b, hk], keys);
        pack_keys(&mut side.v, spec, inputs.v, [b, hk], keys);
        side.k_t.transpose_of(&side.k);
        side.v_t.transpose_of(&side.v);
    }

    /// Lines 11, 13 and 14: `P = e^(S − LSE)`, `dP = Z ∘ dO·Vᵀ`, `dS = P ∘ (dP − D)`; `false` if nothing is visible.
    fn meet(
        &self,
        at: &Block,
        queries: &QuerySide<T::Accum>,
        keys: &KeySide<T::Accum>,
        out: &mut Meeting<T::Accum>,
    ) -> bool {
        if !self.problem.scores(at, &queries.q, &keys.k_t, &mut out.scores) {
            return false;
        }
        let zero = T::Accum::zero();
        let (p, d_s) = (&mut out.scores.s, &mut out.d_s);
        d_s.reset(at.rows.len(), at.keys.len());
        d_s.add_product(&queries.d_o, &keys.v_t);
        self.problem.drop(at, d_s);
        for r in 0..at.rows.len() {
            if queries.lse[r] == T::Accum::neg_infinity() {
                p.row_mut(r).fill(zero);
            } else {
                microkernel::exp_row(p.row_mut(r), queries.lse[r]);
            }
            for (d_s, p) in d_s.row_mut(r).iter_mut().zip(p.row(r)) {
                *d_s = *p * (*d_s - queries.d[r]);
            }
        }
        out.scores.mask.select(p, zero);
        out.scores.mask.select(d_s, zero);
        true
    }

    /// `dS` with respect to `τ·q·k`: through the softcap, if there is one.
    fn through_softcap(&self, meeting: &mut Meeting<T::Accum>) {
        if self.problem.spec.softcap.is_none() {
            return;
        }
        for r in 0..meeting.d_s.rows() {
            for (d_s, slope) in meeting.d_s.row_mut(r).iter_mut().zip(meeting.scores.slope.row(r)) {
                *d_s = *slope * *d_s;
            }
        }
        meeting.scores.mask.select(&mut meeting.d_s, T::Accum::zero());
    }

    /// `dQ = τ · dS·K` for the query rows of a task.
    fn query_gradients(&self, task: &QueryTask, mut d_q: ArrayViewMut3<'_, T>) {
        let spec = self.problem.spec;
        let hk = spec.kv_head(task.heads.start);
        let (mut key_side, mut meeting) = (KeySide::default(), Meeting::default());
        let mut heads: Vec<_> = task
            .heads
            .clone()
            .map(|h| {
                let mut side = QuerySide::default();
                self.load_queries(&mut side, task.b, h, &task.rows);
                (h, side, Tile::zeros(task.rows.len(), spec.head_dim))
            })
            .collect();
        for keys in tiles(key_range(spec, task.b, task.rows.clone()), self.tile_k) {
            self.load_keys(&mut key_side, task.b, hk, &keys);
            for (h, query_side, d_q) in &mut heads {
                let block = Block { b: task.b, h: *h, rows: task.rows.clone(), keys: keys.clone() };
                if self.meet(&block, query_side, &key_side, &mut meeting) {
                    self.through_softcap(&mut meeting);
                    meeting.scores.mask.product(d_q, &meeting.d_s, &key_side.k);
                }
            }
        }
        for ((.., sums), d_q) in heads.iter().zip(d_q.outer_iter_mut()) {
            store(sums, self.problem.scale, d_q);
        }
    }

    /// `dV = Σ (Z∘P)ᵀ·dO` and `dK = τ · Σ dSᵀ·Q` for stored rows of key/value head `hk`: over every sequence that uses
    /// them, every query head of the group and every query tile, in this order.
    fn key_gradients(&self, task: &KeyTask, hk: usize, d_k: ArrayViewMut2<'_, T>, d_v: ArrayViewMut2<'_, T>) {
        let spec = self.problem.spec;
        let group = spec.q_heads / spec.kv_heads;
        let mut d_k_sums = Tile::zeros(task.row_count(), spec.head_dim);
        let mut d_v_sums = Tile::zeros(task.row_count(), spec.value_dim);
        let (mut key_side, mut query_side, mut meeting) =
            (KeySide::default(), QuerySide::default(), Meeting::default());
        for (b, keys) in &task.uses {
            self.load_keys(&mut key_side, *b, hk, keys);
            for h in hk * group..(hk + 1) * group {
                for rows in tiles(query_range(spec, *b, keys.clone()), self.tile_q) {
                    let block = Block { b: *b, h, rows, keys: keys.clone() };
                    self.load_queries(&mut query_side, *b, h, &block.rows);
                    if self.meet(&block, &query_side, &key_side, &mut meeting) {
                        self.problem.drop(&block, &mut meeting.scores.s);
                        meeting.scores.mask.product_transposed(&mut d_v_sums, &meeting.scores.s, &query_side.d_o);
                        self.through_softcap(&mut meeting);
                        meeting.scores.mask.product_transposed(&mut d_k_sums, &meeting.d_s, &query_side.q);
                    }
                }
            }
        }
        store(&d_k_sums, self.problem.scale, d_k);
        store(&d_v_sums, One::one(), d_v);
    }

    /// `dBias = Σ dS` over the sequences, heads, rows and keys that share an element, in this order.
    fn bias_gradient(&self, task: &BiasTask, mut d_bias: ArrayViewMut2<'_, T>) {
        let spec = self.problem.spec;
        let Some(shape) = self.problem.inputs.bias.map(|bias| bias.dim()) else { return };
        // A shared axis stands for everything along it.
        let along = |length: usize, own: Range<usize>, all: usize| if length == 1 { 0..all } else { own };
        let mut sums = Tile::zeros(task.rows.len(), task.columns.len());
        let (mut key_side, mut query_side, mut meeting) =
            (KeySide::default(), QuerySide::default(), Meeting::default());
        for b in along(shape.0, task.b..task.b + 1, spec.batch) {
            let own_rows = task.rows.start..task.rows.end.min(spec.q_len(b));
            for h in along(shape.1, task.h..task.h + 1, spec.q_heads) {
                for rows in tiles(along(shape.2, own_rows.clone(), spec.q_len(b)), self.tile_q) {
                    self.load_queries(&mut query_side, b, h, &rows);
                    let seen = key_range(spec, b, rows.clone());
                    let own = task.columns.start.max(seen.start)..task.columns.end.min(seen.end);
                    for keys in tiles(if shape.3 == 1 { seen } else { own }, self.tile_k) {
                        let block = Block { b, h, rows: rows.clone(), keys };
                        self.load_keys(&mut key_side, b, spec.kv_head(h), &block.keys);
                        if self.meet(&block, &query_side, &key_side, &mut meeting) {
                            let origin = [task.rows.start, task.columns.start];
                            add_broadcast(&mut sums, &meeting.d_s, &block, origin, [shape.2, shape.3]);
                        }
                    }
                }
            }
        }
        for (r, mut row) in d_bias.outer_iter_mut().enumerate() {
            for (d_bias, sum) in row.iter_mut().zip(sums.row(r)) {
                *d_bias = T::from_accum(*sum);
            }
        }
    }

    /// `dSink = −Σ e^(sink − LSE) · D`, over sequences and rows in order.
    fn sink_gradient(&self, h: usize) -> T::Accum {
        let spec = self.problem.spec;
        let mut sum = T::Accum::zero();
        let Some(sink) = self.problem.inputs.sink.map(|sink| sink[h]) else { return sum };
        for b in 0..spec.batch {
            for i in 0..spec.q_len(b) {
                let (slot, row) = spec.query_slot(b, i);
                let lse = self.saved.lse[[slot, h, row]];
                if lse != T::Accum::neg_infinity() {
                    sum -= microkernel::exp(sink - lse) * self.d[[slot, h, row]];
                }
            }
        }
        sum
    }
}

/// Adds a block of `dS` to the elements of `dBias` it falls on; `origin` is where `sums` begins.
fn add_broadcast<A: Accum>(
    sums: &mut Tile<A>,
    d_s: &Tile<A>,
    at: &Block,
    origin: [usize; 2],
    [rows, columns]: [usize; 2],
) {
    for (r, i) in at.rows.clone().enumerate() {
        let into = sums.row_mut(if rows == 1 { 0 } else { i - origin[0] });
        if columns == 1 {
            into[0] += microkernel::sum_row(d_s.row(r));
        } else {
            for (sum, d_s) in into[at.keys.start - origin[1]..].iter_mut().zip(d_s.row(r)) {
                *sum += *d_s;
            }
        }
    }
}

/// Rounds `factor · sums` to storage.
fn store<T: Element>(sums: &Tile<T::Accum>, factor: T::Accum, mut into: ArrayViewMut2<'_, T>) {
    for (r, mut row) in into.outer_iter_mut().enumerate() {
        for (x, sum) in row.iter_mut().zip(sums.row(r)) {
            *x = T::from_accum(factor * *sum);
        }
    }
}
