//! The forward pass: FlashAttention-2, Algorithm 1, strip by strip, over keys that were packed once for all their readers.

use super::decode;
use super::float::{Float, Stored, ln};
use super::kernels::{self, Left, ROWS, Running, STRIDE, Start};
use super::panels::{Aligned, Panels, Strips};
use super::scores::{Problem, add_scaled};
use super::split::{self, QueryTask};
use super::strip::{Columns, Scaling, Strip};
use super::tile::{Tile, pack_keys, pack_queries};
use super::{CpuAttention, SplitKv};
use ndarray::{ArrayViewMut3, Axis};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_attention::merge::merge_row;
use tilewright_attention::tiling::{Coverage, coverage, key_range, tiles};
use tilewright_attention::{AttentionSpec, Outputs};
use tilewright_scalar::{Element, Real};

/// Keys to a split under [`SplitKv::Auto`]: enough work to pay for a merge.
pub(super) const AUTO_SPLIT: usize = 1024;

/// Query rows up to which [`SplitKv::Auto`] splits: decoding, speculative decoding included. Longer queries have tiles
/// enough to run in parallel.
const AUTO_ROWS: usize = 16;

/// Bytes of packed keys and values held at a time, one key/value head's more at most.
const PACKED_BYTES: usize = 16 << 20;

/// One tile of keys of one key/value head, packed for both products.
#[derive(Debug)]
pub(super) struct KeyTile<A> {
    pub(super) keys: Range<usize>,
    /// `Kᵀ`.
    pub(super) k_t: Panels<A>,
    pub(super) v: Panels<A>,
    /// Whether a masked weight of 0 may meet any of the values.
    pub(super) finite: bool,
}

/// Normalised output and log-sum-exp of the rows of a task over some of the keys.
#[derive(Debug)]
pub(super) struct Partial<A> {
    pub(super) o: Tile<A>,
    pub(super) lse: Vec<A>,
}

/// A task and the pieces of the outputs it owns.
type Job<'t, 'a, T> = (&'t QueryTask, ArrayViewMut3<'a, T>, ArrayViewMut3<'a, <T as Element>::Accum>);

/// Runs the forward pass; everything has been checked.
pub(super) fn run<T: Stored>(method: &CpuAttention, problem: &Problem<'_, '_, T>, out: Outputs<'_, T>) {
    let spec = problem.spec;
    let sizes = method.forward_tiles::<T::Accum>(spec);
    let tasks = split::query_tasks(spec, sizes.q);
    let o = split::query_pieces(spec, sizes.q, out.o);
    let lse = split::query_pieces(spec, sizes.q, out.lse.insert_axis(Axis(3)));
    let jobs: Vec<Job<'_, '_, T>> = tasks.iter().zip(o).zip(lse).map(|((task, o), lse)| (task, o, lse)).collect();
    let (direct, mut packed): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(task, ..)| task.direct);
    direct.into_par_iter().for_each(|(task, o, lse)| {
        let splits = key_splits(method, spec, task).into_par_iter();
        store(merge(splits.map(|keys| decode::attend(problem, task, keys)).collect()), task, o, lse);
    });
    while !packed.is_empty() {
        let (heads, count) = wave(spec, &packed, size_of::<T::Accum>());
        let mut jobs: Vec<_> = packed.drain(..count).collect();
        let tiles = pack(problem, &heads, sizes.k);
        // Longest first: the last to finish is a short one.
        jobs.sort_by_key(|(task, ..)| std::cmp::Reverse(work(spec, task)));
        jobs.into_iter().par_bridge().for_each(|(task, o, lse)| {
            let head = [task.b, spec.kv_head(task.heads.start)];
            let own = heads.iter().position(|at| *at == head).map_or(&[][..], |at| &tiles[at]);
            let splits = key_splits(method, spec, task).into_par_iter();
            store(merge(splits.map(|keys| attend(problem, task, keys, own)).collect()), task, o, lse);
        });
    }
}

/// Key/value heads whose packed tiles fit the budget together, at least one, and how many jobs are theirs.
fn wave<T: Stored>(spec: &AttentionSpec, jobs: &[Job<'_, '_, T>], bytes: usize) -> (Vec<[usize; 2]>, usize) {
    let (mut heads, mut total): (Vec<[usize; 2]>, usize) = (Vec::new(), 0);
    for (count, (task, ..)) in jobs.iter().enumerate() {
        let head = [task.b, spec.kv_head(task.heads.start)];
        if heads.last() != Some(&head) {
            total += spec.kv_len(task.b) * (spec.head_dim + spec.value_dim) * bytes;
            if total > PACKED_BYTES && !heads.is_empty() {
                return (heads, count);
            }
            heads.push(head);
        }
    }
    (heads, jobs.len())
}

/// Pairs a task may have to look at.
fn work(spec: &AttentionSpec, task: &QueryTask) -> usize {
    key_range(spec, task.b, task.rows.clone()).len() * task.rows.len()
}

/// Packs every key tile of some key/value heads.
fn pack<T: Stored>(problem: &Problem<'_, '_, T>, heads: &[[usize; 2]], tile: usize) -> Vec<Vec<KeyTile<T::Accum>>> {
    let pack_one = |at: [usize; 2], keys: Range<usize>, scratch: &mut Tile<T::Accum>| {
        let (spec, inputs, isa) = (problem.spec, problem.inputs, problem.isa);
        let mut packed = KeyTile { keys, k_t: Panels::default(), v: Panels::default(), finite: true };
        pack_keys(isa, scratch, spec, inputs.k, at, &packed.keys);
        packed.k_t.pack_transposed(isa, scratch);
        pack_keys(isa, scratch, spec, inputs.v, at, &packed.keys);
        packed.v.pack(isa, scratch);
        packed.finite = scratch.finite();
        packed
    };
    let of_head = |at: &[usize; 2]| {
        let keys: Vec<_> = tiles(0..problem.spec.kv_len(at[0]), tile).collect();
        keys.into_par_iter().map_init(Tile::default, |scratch, keys| pack_one(*at, keys, scratch)).collect()
    };
    heads.par_iter().map(of_head).collect()
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

/// A task's strips, with the running statistics and the unnormalised output of each.
#[derive(Debug)]
pub(super) struct Online<A> {
    pub(super) strips: Vec<Strip>,
    pub(super) running: Vec<Running<A>>,
    /// Unnormalised output, relative to `m`: `Õ`.
    pub(super) o: Tile<A>,
}

impl<A: Float> Online<A> {
    /// Line 5. A sink is a key of score `sink` and value 0, seen before all others by the first split.
    pub(super) fn new<T: Stored<Accum = A>>(
        problem: &Problem<'_, '_, T>,
        task: &QueryTask,
        keys: &Range<usize>,
    ) -> Self {
        let spec = problem.spec;
        let lanes: Vec<_> = task.heads.clone().flat_map(|h| task.rows.clone().map(move |i| (h, i))).collect();
        let strips: Vec<_> = lanes.chunks(ROWS).map(|lanes| Strip::new(task.b, lanes.iter().copied())).collect();
        let first = keys.start == key_range(spec, task.b, task.rows.clone()).start;
        let sink = |h: usize| problem.inputs.sink.filter(|_| first).map_or(A::neg_infinity(), |sink| sink[h]);
        let start = |strip: &Strip| {
            let mut running = Running { m: [A::neg_infinity(); ROWS], l: [A::zero(); ROWS] };
            for (r, &(h, _)) in strip.lanes().iter().enumerate() {
                let m = sink(h) * A::LOG2_E;
                // 2^(0 · m) rather than 1: an infinite or NaN sink spoils its rows, as it does in the definition.
                let l = if m == A::neg_infinity() { A::zero() } else { kernels::exp2_scalar(m * A::zero()) };
                (running.m[r], running.l[r]) = (m, l);
            }
            running
        };
        let running = strips.iter().map(start).collect();
        Self { strips, running, o: Tile::zeros(lanes.len(), spec.value_dim) }
    }

    /// Lines 9 and 10: finished scores of strip `at` become weights, and the values of their keys are added. `weigh`
    /// does so for a run, from its weights, to the strip's rows; `value` is one value, for the case that not all are
    /// finite.
    pub(super) fn update<T: Stored<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        at: usize,
        columns: &Columns,
        s: &mut [A],
        finite: bool,
        weigh: impl Fn(&Range<usize>, &[A], &mut [A], Start<A>),
        value: impl Fn(usize, &mut [A]),
    ) {
        let (strip, isa) = (&self.strips[at], problem.isa);
        let rows = strip.lanes().len();
        let factors = kernels::online_softmax(isa, s, columns.width(), rows, &mut self.running[at]);
        problem.drop_strip(strip, columns, s);
        if finite || !columns.partial {
            let unscaled = factors.iter().all(|factor| *factor == A::one());
            let mut start = if unscaled { Start::Sum } else { Start::Scaled(factors) };
            for run in &columns.runs {
                weigh(&run.keys, &s[run.column..], self.o.rows_from_mut(at * ROWS), start);
                start = Start::Sum;
            }
            return;
        }
        let mut v = vec![A::zero(); problem.spec.value_dim];
        for (r, &(h, i)) in strip.lanes().iter().enumerate() {
            kernels::scale(isa, self.o.row_mut(at * ROWS + r), factors[r]);
            for run in &columns.runs {
                for j in run.keys.clone().filter(|&j| columns.within(j) && problem.spec.visible(strip.b, h, i, j)) {
                    value(j, &mut v);
                    let weight = s[r * STRIDE + run.column + j - run.keys.start];
                    add_scaled(self.o.row_mut(at * ROWS + r), weight, &v);
                }
            }
        }
    }

    /// Lines 12 and 13: `O = Õ / ℓ`, `LSE = m + ln ℓ`; rows that saw nothing are 0 and −∞.
    pub(super) fn finish(mut self) -> Partial<A> {
        let mut lse = Vec::with_capacity(self.o.rows());
        for row in 0..self.o.rows() {
            let (strip, r) = (&self.running[row / ROWS], row % ROWS);
            let (m, l) = (strip.m[r], strip.l[r]);
            let o = self.o.row_mut(row);
            if m == A::neg_infinity() && !Real::is_nan(l) {
                o.fill(A::zero());
                lse.push(m);
                continue;
            }
            for o in o {
                *o = *o / l;
            }
            lse.push(m * A::LN_2 + ln(l));
        }
        Partial { o: self.o, lse }
    }
}

/// Algorithm 1, lines 3 to 14, for the rows of a task over one range of keys.
fn attend<T: Stored>(
    problem: &Problem<'_, '_, T>,
    task: &QueryTask,
    keys: Range<usize>,
    packed: &[KeyTile<T::Accum>],
) -> Partial<T::Accum> {
    let (spec, scaling) = (problem.spec, problem.scaling());
    let mut online = Online::new(problem, task, &keys);
    let mut q = Strips::default();
    let mut rows = Tile::default();
    pack_queries(problem.isa, &mut rows, spec, problem.inputs.q, [task.b, task.heads.start], &task.rows);
    q.pack(&rows, scaling.queries);
    let mut scratch = Scratch::new();
    for tile in packed {
        let own = tile.keys.start.max(keys.start)..tile.keys.end.min(keys.end);
        if own.is_empty() {
            continue;
        }
        let seen = coverage(spec, task.b, task.heads.start, task.rows.clone(), own.clone());
        if seen != Coverage::Empty {
            scratch.visit(problem, &scaling, &mut online, &q, tile, &own, seen == Coverage::Full);
        }
    }
    online.finish()
}

/// What a strip's scores are computed in.
struct Scratch<A> {
    columns: Columns,
    s: Aligned<A>,
    slope: Aligned<A>,
}

impl<A: Float> Scratch<A> {
    fn new() -> Self {
        let zeros = || Aligned::zeros(ROWS * STRIDE);
        Self { columns: Columns::default(), s: zeros(), slope: zeros() }
    }

    /// Every strip of a task meets the keys `own` of one tile.
    fn visit<T: Stored<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        scaling: &Scaling<A>,
        online: &mut Online<A>,
        q: &Strips<A>,
        tile: &KeyTile<A>,
        own: &Range<usize>,
        full: bool,
    ) {
        let (spec, origin) = (problem.spec, tile.keys.start);
        for at in 0..online.strips.len() {
            if full && own.start == origin {
                self.columns.all(own.clone());
            } else {
                self.columns.find(spec, &online.strips[at], own, origin);
            }
            if self.columns.runs.is_empty() {
                continue;
            }
            let left = Left { data: q.strip(at), stride: ROWS };
            for run in &self.columns.runs {
                let right = tile.k_t.right(run.keys.start - origin, run.keys.len(), 0);
                let s = &mut self.s[run.column..];
                kernels::product_transposed(problem.isa, left, right, spec.head_dim, s, STRIDE, Start::Zero);
            }
            let strip = &online.strips[at];
            problem.finish_scores(scaling, strip, &self.columns, &mut self.s, &mut self.slope);
            let o_stride = online.o.stride();
            let weigh = |keys: &Range<usize>, p: &[A], o: &mut [A], start: Start<A>| {
                let values = tile.v.right(0, spec.value_dim, keys.start - origin);
                kernels::product(problem.isa, p, values, keys.len(), o, o_stride, start);
            };
            let value = |j: usize, v: &mut [A]| (0..v.len()).for_each(|c| v[c] = tile.v.at(j - origin, c));
            online.update(problem, at, &self.columns, &mut self.s, tile.finite, weigh, value);
        }
    }
}

/// Merges the splits in ascending order of keys, row by row.
fn merge<A: Float>(partials: Vec<Partial<A>>) -> Option<Partial<A>> {
    partials.into_iter().reduce(|mut into, from| {
        for i in 0..into.lse.len() {
            merge_row(into.o.row_mut(i), &mut into.lse[i], from.o.row(i), from.lse[i]);
        }
        into
    })
}

/// Rounds to storage. `lse` has a last axis of length 1.
fn store<T: Stored>(
    rows: Option<Partial<T::Accum>>,
    task: &QueryTask,
    mut o: ArrayViewMut3<'_, T>,
    mut lse: ArrayViewMut3<'_, T::Accum>,
) {
    let Some(rows) = rows else { return };
    for row in 0..rows.lse.len() {
        let (head, i) = (row / task.rows.len(), row % task.rows.len());
        lse[[head, i, 0]] = rows.lse[row];
        let mut to = o.index_axis_mut(Axis(0), head);
        for (o, x) in to.index_axis_mut(Axis(0), i).iter_mut().zip(rows.o.row(row)) {
            *o = T::from_accum(*x);
        }
    }
}
