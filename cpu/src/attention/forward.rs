//! The forward pass: FlashAttention-2, Algorithm 1, strip by strip, over keys that were packed once for all their readers.

use super::decode;
use super::factor::Factor;
use super::float::{Float, Stored, ln};
use super::kernels::{self, Left, ROWS, Running, STRIDE, Start};
use super::panels::{Aligned, Panels, Strips};
use super::scores::{Problem, add_scaled};
use super::spare::Spare;
use super::split::{self, QueryTask};
use super::strip::{Columns, Scaling, Strip};
use super::tile::{self, Tile};
use super::{CpuAttention, SplitKv};
use ndarray::{ArrayViewMut3, Axis};
use num_traits::One;
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

/// Bytes of packed keys and values held at a time for each thread, one key/value head's more at most. Few, for they are
/// used again and again: pages that the system has to hand out cost more than writing to them.
const PACKED_BYTES: usize = 2 << 20;

/// One tile of keys of one key/value head, packed for both products.
#[derive(Debug, Default)]
struct KeyTile<F> {
    keys: Range<usize>,
    /// `Kᵀ`.
    k_t: Panels<F>,
    v: Panels<F>,
    /// Whether a masked weight of 0 may meet any of the values.
    finite: bool,
}

/// A task and the pieces of the outputs it owns.
type Job<'t, 'a, T> = (&'t QueryTask, ArrayViewMut3<'a, T>, ArrayViewMut3<'a, <T as Element>::Accum>);

/// Runs the forward pass, whose products multiply `F`; everything has been checked.
pub(super) fn run<T: Stored, F: Factor<Sum = T::Accum>>(
    method: &CpuAttention,
    problem: &Problem<'_, '_, T>,
    out: Outputs<'_, T>,
) {
    let spec = problem.spec;
    let sizes = method.forward_tiles::<F>(spec);
    let tasks = split::query_tasks(spec, sizes.q);
    let o = split::query_pieces(spec, sizes.q, out.o);
    let lse = split::query_pieces(spec, sizes.q, out.lse.insert_axis(Axis(3)));
    let jobs: Vec<Job<'_, '_, T>> = tasks.iter().zip(o).zip(lse).map(|((task, o), lse)| (task, o, lse)).collect();
    let (direct, mut packed): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|(task, ..)| task.direct);
    let spare = Spare::default();
    direct.into_par_iter().for_each(|(task, o, lse)| {
        let splits = key_splits(method, spec, task).into_par_iter();
        let attend = |keys| spare.lend(decode::Worker::default, |worker| worker.attend(problem, task, keys));
        store(merge(splits.map(attend).collect()).as_ref(), task, o, lse);
    });
    let (spare, mut tiles) = (Spare::default(), Vec::new());
    while !packed.is_empty() {
        let (heads, count) = wave(spec, &packed, size_of::<F>() / F::DEPTH);
        let mut jobs: Vec<_> = packed.drain(..count).collect();
        pack(problem, &heads, sizes.k, &mut tiles);
        // Longest first: the last to finish is a short one.
        jobs.sort_by_key(|(task, ..)| std::cmp::Reverse(work(spec, task)));
        jobs.into_iter().par_bridge().for_each(|(task, o, lse)| {
            let head = [task.b, spec.kv_head(task.heads.start)];
            let own = heads.iter().position(|at| *at == head).map_or(&[][..], |at| &tiles[at]);
            match key_splits(method, spec, task) {
                splits if splits.len() == 1 => spare.lend(Worker::<F>::default, |worker| {
                    worker.attend(problem, task, splits[0].clone(), own);
                    store(Some(&worker.online), task, o, lse);
                }),
                splits => {
                    let attend = |keys| {
                        spare.lend(Worker::<F>::default, |worker| {
                            worker.attend(problem, task, keys, own);
                            std::mem::take(&mut worker.online)
                        })
                    };
                    store(merge(splits.into_par_iter().map(attend).collect()).as_ref(), task, o, lse);
                }
            }
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
            if total > PACKED_BYTES * rayon::current_num_threads() && !heads.is_empty() {
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

/// Packs every key tile of some key/value heads, into the memory of what was packed before.
fn pack<T: Stored, F: Factor<Sum = T::Accum>>(
    problem: &Problem<'_, '_, T>,
    heads: &[[usize; 2]],
    tile: usize,
    packed: &mut Vec<Vec<KeyTile<F>>>,
) {
    let (spec, inputs, isa) = (problem.spec, problem.inputs, problem.isa);
    let pack_one = |at: [usize; 2], keys: Range<usize>, packed: &mut KeyTile<F>, scratch: &mut Tile<T::Accum>| {
        packed.k_t.pack_transposed(isa, &tile::keys(spec, inputs.k, at, &keys).matrix(isa, scratch));
        let v = tile::keys(spec, inputs.v, at, &keys).matrix(isa, scratch);
        packed.v.pack(isa, &v);
        (packed.keys, packed.finite) = (keys, v.finite(isa));
    };
    packed.resize_with(heads.len(), Vec::new);
    heads.par_iter().zip(packed).for_each(|(at, packed)| {
        let keys: Vec<_> = tiles(0..spec.kv_len(at[0]), tile).collect();
        packed.resize_with(keys.len(), KeyTile::default);
        let each = keys.into_par_iter().zip(packed);
        each.for_each_init(Tile::default, |scratch, (keys, packed)| pack_one(*at, keys, packed, scratch));
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

/// A task's strips, with the running statistics of each, and what comes of them.
#[derive(Debug, Default)]
pub(super) struct Online<A> {
    pub(super) strips: Vec<Strip>,
    running: Vec<Running<A>>,
    /// Unnormalised output, relative to `m`: `Õ`; in the end `O`.
    pub(super) o: Tile<A>,
    /// Log-sum-exp of the rows, in the end.
    lse: Vec<A>,
    /// Scores times this are exponents of 2.
    exponent: A,
    /// Dropout's factors of a strip.
    z: Aligned<A>,
}

impl<A: Float> Online<A> {
    /// Line 5. A sink is a key of score `sink` and value 0, seen before all others by the first split.
    pub(super) fn start<T: Stored<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        task: &QueryTask,
        keys: &Range<usize>,
        exponent: A,
    ) {
        let spec = problem.spec;
        self.exponent = exponent;
        let lanes: Vec<_> = task.heads.clone().flat_map(|h| task.rows.clone().map(move |i| (h, i))).collect();
        self.strips.clear();
        self.strips.extend(lanes.chunks(ROWS).map(|lanes| Strip::new(task.b, lanes.iter().copied())));
        let first = keys.start == key_range(spec, task.b, task.rows.clone()).start;
        let sink = |h: usize| problem.inputs.sink.filter(|_| first).map_or(A::neg_infinity(), |sink| sink[h]);
        let start = |strip: &Strip| {
            let mut running = Running { m: [A::neg_infinity(); ROWS], l: [A::zero(); ROWS] };
            for (r, &(h, _)) in strip.lanes().iter().enumerate() {
                let m = sink(h) * (A::LOG2_E / exponent);
                // 2^(0 · m) rather than 1: an infinite or NaN sink spoils its rows, as it does in the definition.
                let l = if m == A::neg_infinity() { A::zero() } else { kernels::exp2_scalar(m * A::zero()) };
                (running.m[r], running.l[r]) = (m, l);
            }
            running
        };
        self.running.clear();
        self.running.extend(self.strips.iter().map(start));
        self.o.reset(lanes.len(), spec.value_dim);
    }

    /// Lines 9 and 10: finished scores of strip `at` become weights, and the values of their keys are added. `weigh`
    /// does so for a run, from its weights, to the strip's rows; `value` is one value, for the case that not all are
    /// `finite`.
    pub(super) fn update<T: Stored<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        at: usize,
        columns: &Columns,
        s: &mut [A],
        finite: impl FnOnce() -> bool,
        mut weigh: impl FnMut(&Range<usize>, &[A], &mut [A], Start<A>),
        value: impl Fn(usize, &mut [A]),
    ) {
        let (strip, isa) = (&self.strips[at], problem.isa);
        let rows = strip.lanes().len();
        let factors = kernels::online_softmax(isa, s, columns.width(), rows, self.exponent, &mut self.running[at]);
        problem.dropout_strip(strip, columns, &mut self.z);
        problem.drop_strip(strip, columns, &self.z, s);
        if !columns.partial || finite() {
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

    /// Lines 12 and 13: `O = Õ / ℓ`, `LSE = m + ln ℓ`, `m` as a natural exponent; rows that saw nothing are 0 and −∞.
    pub(super) fn finish(&mut self) {
        self.lse.clear();
        for row in 0..self.o.rows() {
            let (strip, r) = (&self.running[row / ROWS], row % ROWS);
            let (m, l) = (strip.m[r], strip.l[r]);
            let o = self.o.row_mut(row);
            if m == A::neg_infinity() && !Real::is_nan(l) {
                o.fill(A::zero());
                self.lse.push(m);
                continue;
            }
            for o in o {
                *o = *o / l;
            }
            self.lse.push(m * (self.exponent * A::LN_2) + ln(l));
        }
    }
}

/// What a thread needs for a task, kept from one to the next.
#[derive(Debug, Default)]
struct Worker<F: Factor> {
    online: Online<F::Sum>,
    rows: Tile<F::Sum>,
    q: Strips<F>,
    columns: Columns,
    s: Aligned<F::Sum>,
    slope: Aligned<F::Sum>,
    /// Weights as a left factor.
    p: Aligned<F>,
}

impl<F: Factor> Worker<F> {
    /// Algorithm 1, lines 3 to 14, for the rows of a task over one range of keys.
    fn attend<T: Stored<Accum = F::Sum>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        task: &QueryTask,
        keys: Range<usize>,
        packed: &[KeyTile<F>],
    ) {
        let (spec, scaling) = (problem.spec, problem.scaling::<F>());
        self.online.start(problem, task, &keys, scaling.exponent);
        let head = [task.b, task.heads.start];
        let q = tile::queries(spec, problem.inputs.q, head, &task.rows).matrix(problem.isa, &mut self.rows);
        self.q.pack(problem.isa, &q, scaling.queries);
        self.s.resize(ROWS * STRIDE);
        self.slope.resize(ROWS * STRIDE);
        self.p.resize(if F::DEPTH > 1 { ROWS * F::STRIDE } else { 0 });
        for tile in packed {
            let own = tile.keys.start.max(keys.start)..tile.keys.end.min(keys.end);
            if own.is_empty() {
                continue;
            }
            let seen = coverage(spec, task.b, task.heads.start, task.rows.clone(), own.clone());
            if seen != Coverage::Empty {
                self.visit(problem, &scaling, tile, &own, seen == Coverage::Full);
            }
        }
        self.online.finish();
    }

    /// Every strip of a task meets the keys `own` of one tile.
    fn visit<T: Stored<Accum = F::Sum>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        scaling: &Scaling<F::Sum>,
        tile: &KeyTile<F>,
        own: &Range<usize>,
        full: bool,
    ) {
        let (spec, origin, online) = (problem.spec, tile.keys.start, &mut self.online);
        for at in 0..online.strips.len() {
            if full && own.start == origin {
                self.columns.all(own.clone());
            } else {
                self.columns.find(spec, &online.strips[at], own, origin);
            }
            if self.columns.runs.is_empty() {
                continue;
            }
            self.columns.complete(F::DEPTH, &tile.keys);
            let left = Left { data: self.q.strip(at), stride: ROWS };
            for run in &self.columns.runs {
                let right = tile.k_t.right(run.keys.start - origin, run.keys.len(), 0);
                let s = &mut self.s[run.column..];
                F::product_transposed(problem.isa, left, right, spec.head_dim, (s, STRIDE), Start::Zero);
            }
            let strip = &online.strips[at];
            problem.finish_scores(scaling, strip, &self.columns, &mut self.s, &mut self.slope);
            let o_stride = online.o.stride();
            let weigh = |keys: &Range<usize>, p: &[F::Sum], o: &mut [F::Sum], start: Start<F::Sum>| {
                let values = tile.v.right(0, spec.value_dim, keys.start - origin);
                let p = F::weights(problem.isa, p, keys.len(), &mut self.p);
                F::product(problem.isa, p, values, keys.len(), (o, o_stride), start);
            };
            let value = |j: usize, v: &mut [F::Sum]| (0..v.len()).for_each(|c| v[c] = tile.v.at(j - origin, c));
            online.update(problem, at, &self.columns, &mut self.s, || tile.finite, weigh, value);
        }
    }
}

/// Merges the splits in ascending order of keys, row by row.
fn merge<A: Float>(splits: Vec<Online<A>>) -> Option<Online<A>> {
    splits.into_iter().reduce(|mut into, from| {
        for i in 0..into.lse.len() {
            merge_row(into.o.row_mut(i), &mut into.lse[i], from.o.row(i), from.lse[i]);
        }
        into
    })
}

/// Rounds to storage. `lse` has a last axis of length 1.
fn store<T: Stored>(
    rows: Option<&Online<T::Accum>>,
    task: &QueryTask,
    mut o: ArrayViewMut3<'_, T>,
    mut lse: ArrayViewMut3<'_, T::Accum>,
) {
    let Some(rows) = rows else { return };
    for (head, (o, lse)) in o.outer_iter_mut().zip(lse.outer_iter_mut()).enumerate() {
        let first = head * task.rows.len();
        rows.o.store(first, T::Accum::one(), o);
        lse.into_iter().zip(&rows.lse[first..]).for_each(|(to, lse)| *to = *lse);
    }
}
