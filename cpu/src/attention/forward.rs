//! The forward pass: FlashAttention-2, Algorithm 1, for one task of query rows; and its split over keys.

use super::microkernel;
use super::scores::{Block, Problem, Scores};
use super::split::{self, QueryTask};
use super::tile::{Tile, pack_keys, pack_queries};
use super::{CpuAttention, SplitKv};
use ndarray::{ArrayViewMut3, Axis};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_attention::merge::merge_row;
use tilewright_attention::tiling::{key_range, tiles};
use tilewright_attention::{AttentionSpec, Inputs, Outputs};
use tilewright_scalar::{Accum, Element};

/// Keys to a split under [`SplitKv::Auto`]: enough work to pay for a merge.
pub(super) const AUTO_SPLIT: usize = 512;

/// Query rows up to which [`SplitKv::Auto`] splits: decoding, speculative decoding included. Longer queries have tiles
/// enough to run in parallel.
const AUTO_ROWS: usize = 16;

/// The running statistics of one head's query tile.
#[derive(Debug)]
struct Online<A> {
    /// Maximum so far, `m`.
    m: Vec<A>,
    /// Sum of exponentials so far, relative to `m`: `ℓ`.
    l: Vec<A>,
    /// Unnormalised output, relative to `m`: `Õ`.
    o: Tile<A>,
}

/// Normalised output and log-sum-exp of one head's query tile over some of the keys.
#[derive(Debug)]
struct Partial<A> {
    o: Tile<A>,
    lse: Vec<A>,
}

/// Runs the forward pass; everything has been checked.
pub(super) fn run<T: Element>(
    method: &CpuAttention,
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    out: Outputs<'_, T>,
) {
    let problem = Problem::new(spec, inputs);
    let tasks = split::query_tasks(spec, method.tile_q);
    let o = split::query_pieces(spec, method.tile_q, out.o);
    let lse = split::query_pieces(spec, method.tile_q, out.lse.insert_axis(Axis(3)));
    tasks.par_iter().zip(o).zip(lse).for_each(|((task, o), lse)| {
        let splits = key_splits(method, spec, task);
        let partials: Vec<_> = splits.into_par_iter().map(|keys| attend(method, &problem, task, keys)).collect();
        store(merge(partials), o, lse);
    });
}

/// The ranges of keys a task is split into, at absolute multiples of the split's length. A function of the sequence's
/// own shape, so neither threads nor neighbours in the batch change any bit.
fn key_splits(method: &CpuAttention, spec: &AttentionSpec, task: &QueryTask) -> Vec<Range<usize>> {
    let keys = key_range(spec, task.b, task.rows.clone());
    let every = match method.split_kv {
        SplitKv::Every(n) => n,
        SplitKv::Auto if spec.q_len(task.b) <= AUTO_ROWS => AUTO_SPLIT,
        SplitKv::Auto | SplitKv::Never => usize::MAX,
    };
    // A task without keys still writes its rows, and the first split carries the sink.
    if keys.is_empty() { vec![keys] } else { tiles(keys, every).collect() }
}

/// Algorithm 1, lines 3 to 14, for every head of the task over one range of keys.
fn attend<T: Element>(
    method: &CpuAttention,
    problem: &Problem<'_, '_, T>,
    task: &QueryTask,
    keys: Range<usize>,
) -> Vec<Partial<T::Accum>> {
    let (spec, inputs) = (problem.spec, problem.inputs);
    let hk = spec.kv_head(task.heads.start);
    let first_split = keys.start == key_range(spec, task.b, task.rows.clone()).start;
    let (mut k, mut k_t, mut v, mut scores) = (Tile::default(), Tile::default(), Tile::default(), Scores::default());
    let mut heads: Vec<_> = task
        .heads
        .clone()
        .map(|h| {
            let mut q = Tile::default();
            pack_queries(&mut q, spec, inputs.q, [task.b, h], &task.rows);
            let sink = inputs.sink.filter(|_| first_split).map(|sink| sink[h]);
            (h, q, Online::new(task.rows.len(), spec.value_dim, sink))
        })
        .collect();
    for keys in tiles(keys, method.tile_k) {
        pack_keys(&mut k, spec, inputs.k, [task.b, hk], &keys);
        pack_keys(&mut v, spec, inputs.v, [task.b, hk], &keys);
        k_t.transpose_of(&k);
        for (h, q, online) in &mut heads {
            let block = Block { b: task.b, h: *h, rows: task.rows.clone(), keys: keys.clone() };
            if problem.scores(&block, q, &k_t, &mut scores) {
                online.update(problem, &block, &mut scores, &v);
            }
        }
    }
    heads.into_iter().map(|(.., online)| online.finish()).collect()
}

impl<A: Accum> Online<A> {
    /// Line 5. A sink is a key of score `sink` and value 0, seen before all others.
    fn new(rows: usize, value_dim: usize, sink: Option<A>) -> Self {
        let sink = sink.unwrap_or(A::neg_infinity());
        // e^(0 · sink) rather than 1: an infinite or NaN sink spoils its rows, as it does in the definition.
        let l = if sink == A::neg_infinity() { A::zero() } else { (sink * A::zero()).exp() };
        Self { m: vec![sink; rows], l: vec![l; rows], o: Tile::zeros(rows, value_dim) }
    }

    /// Lines 9 and 10: one tile of keys.
    fn update<T: Element<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        block: &Block,
        scores: &mut Scores<A>,
        v: &Tile<A>,
    ) {
        let p = &mut scores.s;
        for i in 0..p.rows() {
            let m = microkernel::max_row(p.row(i));
            if m > self.m[i] {
                // e^(m_old − m_new); 0 for the first keys a row sees, when m_old = −∞.
                let rescale = microkernel::exp(self.m[i] - m);
                self.l[i] *= rescale;
                microkernel::scale_row(self.o.row_mut(i), rescale);
                self.m[i] = m;
            }
            // Without a finite score so far there is nothing to subtract, and e^−∞ = 0.
            let shift = if self.m[i] == A::neg_infinity() { A::zero() } else { self.m[i] };
            microkernel::exp_row(p.row_mut(i), shift);
            self.l[i] += microkernel::sum_row(p.row(i));
        }
        problem.drop(block, p);
        scores.mask.product(&mut self.o, &scores.s, v);
    }

    /// Lines 12 and 13: `O = Õ / ℓ`, `LSE = m + ln ℓ`; rows that saw nothing are 0 and −∞.
    fn finish(mut self) -> Partial<A> {
        let mut lse = self.m;
        for (i, l) in self.l.iter().enumerate() {
            if lse[i] == A::neg_infinity() && !l.is_nan() {
                self.o.row_mut(i).fill(A::zero());
                continue;
            }
            for o in self.o.row_mut(i) {
                *o = *o / *l;
            }
            lse[i] += l.ln();
        }
        Partial { o: self.o, lse }
    }
}

/// Merges the splits in ascending order of keys, head by head and row by row.
fn merge<A: Accum>(partials: Vec<Vec<Partial<A>>>) -> Vec<Partial<A>> {
    let mut partials = partials.into_iter();
    let mut merged = partials.next().unwrap_or_default();
    for split in partials {
        for (into, from) in merged.iter_mut().zip(split) {
            for i in 0..into.lse.len() {
                merge_row(into.o.row_mut(i), &mut into.lse[i], from.o.row(i), from.lse[i]);
            }
        }
    }
    merged
}

/// Rounds to storage. `lse` has a last axis of length 1.
fn store<T: Element>(heads: Vec<Partial<T::Accum>>, mut o: ArrayViewMut3<'_, T>, mut lse: ArrayViewMut3<'_, T::Accum>) {
    let outputs = o.outer_iter_mut().zip(lse.outer_iter_mut());
    for (head, (mut o, mut lse)) in heads.into_iter().zip(outputs) {
        for i in 0..head.lse.len() {
            lse[[i, 0]] = head.lse[i];
            for (o, x) in o.index_axis_mut(Axis(0), i).iter_mut().zip(head.o.row(i)) {
                *o = T::from_accum(*x);
            }
        }
    }
}
