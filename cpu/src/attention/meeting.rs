//! Where a query tile meets a key tile in the backward pass: Algorithm 2, lines 11 to 17.

use super::backward::Context;
use super::factor::Factor;
use super::float::{Float, Stored};
use super::isa::Isa;
use super::kernels::{self, Left, ROWS, STRIDE, Start};
use super::panels::{Aligned, Panels, Strips};
use super::scores::Problem;
use super::strip::{Columns, Scaling, Strip};
use super::tile::{self, Tile};
use num_traits::{One, Zero};
use std::ops::Range;
use tilewright_attention::AttentionSpec;
use tilewright_attention::tiling::{Coverage, coverage, query_range, tiles};
use tilewright_scalar::Real;

/// Query rows whose `P` and `dS` are kept at a time: long enough a sum for `dK` and `dV`, few enough for the cache.
const BAND: usize = 16 * ROWS;

/// One key tile, packed for three products.
#[derive(Debug, Default)]
pub(super) struct KeySide<F: Factor> {
    keys: Range<usize>,
    k_t: Panels<F>,
    v_t: Panels<F>,
    k: Panels<F>,
    finite: bool,
    rows: Tile<F::Sum>,
}

impl<F: Factor> KeySide<F> {
    /// Packs another tile, keeping the memory.
    pub(super) fn load<T: Stored<Accum = F::Sum>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        at: [usize; 2],
        keys: &Range<usize>,
    ) {
        let (spec, isa) = (problem.spec, problem.isa);
        self.v_t.pack_transposed(isa, &tile::keys(spec, problem.inputs.v, at, keys).matrix(isa, &mut self.rows));
        let k = tile::keys(spec, problem.inputs.k, at, keys).matrix(isa, &mut self.rows);
        self.k_t.pack_transposed(isa, &k);
        self.k.pack(isa, &k);
        (self.keys, self.finite) = (keys.clone(), k.finite(isa));
    }
}

/// What gathers for the keys of one tile.
#[derive(Debug)]
pub(super) struct KeyGradients<A> {
    pub(super) keys: Range<usize>,
    pub(super) d_k: Tile<A>,
    pub(super) d_v: Tile<A>,
}

/// One query tile of one head, packed for four products.
#[derive(Debug, Default)]
pub(super) struct QuerySide<F: Factor> {
    pub(super) rows: Range<usize>,
    q_strips: Strips<F>,
    d_o_strips: Strips<F>,
    q: Panels<F>,
    d_o: Panels<F>,
    /// Whether a weight of 0 may meet any of `Q` and of `dO`.
    finite: [bool; 2],
    /// LSE in base 2.
    lse: Vec<F::Sum>,
    d: Vec<F::Sum>,
}

impl<F: Factor> QuerySide<F> {
    /// Packs another tile, keeping the memory.
    pub(super) fn load<T: Stored<Accum = F::Sum>>(
        &mut self,
        context: &Context<'_, '_, '_, T>,
        [b, h]: [usize; 2],
        rows: Range<usize>,
        scratch: &mut Tile<F::Sum>,
    ) {
        let problem = &context.problem;
        let (spec, isa) = (problem.spec, problem.isa);
        let matrix = tile::queries(spec, problem.inputs.q, [b, h], &rows).matrix(isa, scratch);
        self.q_strips.pack(isa, &matrix, problem.scaling::<F>().queries);
        self.q.pack(isa, &matrix);
        let q_finite = matrix.finite(isa);
        let matrix = tile::queries(spec, context.saved.d_o, [b, h], &rows).matrix(isa, scratch);
        self.d_o_strips.pack(isa, &matrix, F::Sum::one());
        self.d_o.pack(isa, &matrix);
        self.finite = [q_finite, matrix.finite(isa)];
        let at = |i: usize| {
            let (slot, row) = problem.spec.query_slot(b, i);
            [slot, h, row]
        };
        self.lse.clear();
        self.lse.extend(rows.clone().map(|i| context.saved.lse[at(i)] * F::Sum::LOG2_E));
        self.d.clear();
        self.d.extend(rows.clone().map(|i| context.d[at(i)]));
        self.rows = rows;
    }
}

/// `P` or `dS` of a band of query rows, rows [`STRIDE`] apart; 0 where nothing is visible.
#[derive(Debug)]
struct Weights<F: Factor> {
    /// As they are computed: the band, or if something else is made of them, one strip.
    computed: Aligned<F::Sum>,
    /// What that is.
    stacked: Aligned<F>,
}

impl<F: Factor> Weights<F> {
    fn new() -> Self {
        let (computed, stacked) = if F::DEPTH == 1 { (BAND, 0) } else { (ROWS, BAND / F::DEPTH) };
        Self { computed: Aligned::zeros(computed * STRIDE + ROWS), stacked: Aligned::zeros(stacked * STRIDE + ROWS) }
    }

    /// The strip whose first row is `at` of the band.
    fn strip(&mut self, at: usize) -> &mut [F::Sum] {
        &mut self.computed[if F::DEPTH == 1 { at * STRIDE } else { 0 }..]
    }

    /// The strip at `at` is computed, in `n` columns.
    fn stack(&mut self, isa: Isa, at: usize, n: usize) {
        if F::DEPTH > 1 {
            F::stack(isa, &self.computed, n, &mut self.stacked[at / F::DEPTH * STRIDE..]);
        }
    }

    /// Elements of a left factor, the terms of each in consecutive rows.
    fn band(&self) -> &[F] {
        F::band(&self.computed, &self.stacked)
    }

    /// One weight.
    fn at(&self, row: usize, column: usize) -> F::Sum {
        self.band()[row / F::DEPTH * STRIDE + column].term(row % F::DEPTH)
    }
}

/// What a thread needs for a meeting, reused from pair to pair.
#[derive(Debug)]
pub(super) struct Meeting<F: Factor> {
    scaling: Scaling<F::Sum>,
    columns: Columns,
    p: Weights<F>,
    d_s: Weights<F>,
    /// `dS` of a strip as a left factor.
    room: Aligned<F>,
    slope: Aligned<F::Sum>,
    /// Dropout's factors of a strip.
    z: Aligned<F::Sum>,
    /// Whether something of the band is masked.
    partial: bool,
}

impl<F: Factor> Meeting<F> {
    pub(super) fn new<T: Stored<Accum = F::Sum>>(problem: &Problem<'_, '_, T>) -> Self {
        let room = if F::DEPTH == 1 { 0 } else { ROWS * F::STRIDE };
        Self {
            scaling: problem.scaling::<F>(),
            columns: Columns::default(),
            p: Weights::new(),
            d_s: Weights::new(),
            room: Aligned::zeros(room),
            slope: Aligned::zeros(ROWS * STRIDE + ROWS),
            z: Aligned::default(),
            partial: false,
        }
    }

    /// Adds what the pairs of two tiles owe to `dQ`, `dK` and `dV`, before the scale.
    pub(super) fn meet<T: Stored<Accum = F::Sum>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        [b, h]: [usize; 2],
        queries: &QuerySide<F>,
        keys: &KeySide<F>,
        d_q: &mut Tile<F::Sum>,
        gradients: &mut KeyGradients<F::Sum>,
    ) {
        let count = queries.rows.len();
        for band in (0..count).step_by(BAND).map(|start| start..count.min(start + BAND)) {
            let rows = queries.rows.start + band.start..queries.rows.start + band.end;
            let seen = coverage(problem.spec, b, h, rows.clone(), keys.keys.clone());
            if seen == Coverage::Empty {
                continue;
            }
            self.partial = seen == Coverage::Partial;
            for first in band.clone().step_by(ROWS) {
                let lanes = first..band.end.min(first + ROWS);
                let strip = Strip::new(b, lanes.map(|r| (h, queries.rows.start + r)));
                self.strip(problem, &strip, first, first - band.start, queries, keys, d_q);
            }
            self.gather_keys(problem, [b, h], &band, queries, gradients);
        }
    }

    /// `P = e^(S − LSE)`, `dP = Z ∘ dO·Vᵀ`, `dS = P ∘ (dP − D)` and `dQ += dS·K` for one strip: row `first` of the query
    /// tile, row `at` of the band.
    fn strip<T: Stored<Accum = F::Sum>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        strip: &Strip,
        first: usize,
        at: usize,
        queries: &QuerySide<F>,
        keys: &KeySide<F>,
        d_q: &mut Tile<F::Sum>,
    ) {
        let (spec, isa, origin) = (problem.spec, problem.isa, keys.keys.start);
        let (p, d_s) = (self.p.strip(at), self.d_s.strip(at));
        if self.partial {
            self.columns.find(spec, strip, &keys.keys, origin);
            self.columns.in_place(origin);
            self.columns.complete(F::DEPTH, &keys.keys);
        } else {
            self.columns.all(keys.keys.clone());
        }
        d_q.prefetch_strip(first);
        let (q, d_o) = (queries.q_strips.strip(first / ROWS), queries.d_o_strips.strip(first / ROWS));
        for run in &self.columns.runs {
            let (column, count) = (run.column, run.keys.len());
            let (k_t, v_t) = (keys.k_t.right(column, count, 0), keys.v_t.right(column, count, 0));
            let (q, d_o) = (Left { data: q, stride: ROWS }, Left { data: d_o, stride: ROWS });
            F::product_transposed(isa, q, k_t, spec.head_dim, (&mut p[column..], STRIDE), Start::Zero);
            F::product_transposed(isa, d_o, v_t, spec.value_dim, (&mut d_s[column..], STRIDE), Start::Zero);
        }
        problem.finish_scores(&self.scaling, strip, &self.columns, p, &mut self.slope);
        problem.dropout_strip(strip, &self.columns, &mut self.z);
        problem.drop_strip(strip, &self.columns, &self.z, d_s);
        for r in 0..strip.lanes().len() {
            for run in &self.columns.runs {
                let own = r * STRIDE + run.column..r * STRIDE + run.column + run.keys.len();
                if queries.lse[first + r] == F::Sum::neg_infinity() {
                    p[own.clone()].fill(F::Sum::zero());
                    d_s[own].fill(F::Sum::zero());
                } else {
                    let (lse, d) = (queries.lse[first + r], queries.d[first + r]);
                    kernels::score_gradients(
                        isa,
                        &mut p[own.clone()],
                        &mut d_s[own.clone()],
                        self.scaling.exponent,
                        lse,
                        d,
                    );
                    if problem.cap.is_some() {
                        kernels::multiply(isa, &mut d_s[own.clone()], &self.slope[own]);
                    }
                }
            }
        }
        problem.drop_strip(strip, &self.columns, &self.z, p);
        // Rows beyond the last hold products of nothing; they may stand below one.
        p[strip.lanes().len() * STRIDE..ROWS * STRIDE].fill(F::Sum::zero());
        d_s[strip.lanes().len() * STRIDE..ROWS * STRIDE].fill(F::Sum::zero());
        if self.partial {
            // All that no run has, too: beyond its last key a product leaves what fills its last vector.
            strip.mask(spec, &self.columns, keys.keys.len(), p, F::Sum::zero());
            strip.mask(spec, &self.columns, keys.keys.len(), d_s, F::Sum::zero());
        }
        let stride = d_q.stride();
        if keys.finite || !self.columns.partial {
            for run in &self.columns.runs {
                let k = keys.k.right(0, spec.head_dim, run.column);
                let d_q = d_q.rows_from_mut(first);
                let d_s = F::weights(isa, &d_s[run.column..], run.keys.len(), &mut self.room);
                F::product(isa, d_s, k, run.keys.len(), (d_q, stride), Start::Sum);
            }
        } else {
            each_visible(spec, strip, &keys.keys, |r, column| {
                let weight = d_s[r * STRIDE + column];
                add_row(d_q.row_mut(first + r), weight, &keys.k, column);
            });
        }
        self.p.stack(isa, at, keys.keys.len());
        self.d_s.stack(isa, at, keys.keys.len());
    }

    /// `dV += (Z∘P)ᵀ·dO` and `dK += dSᵀ·Q` for the rows of a band.
    fn gather_keys<T: Stored<Accum = F::Sum>>(
        &self,
        problem: &Problem<'_, '_, T>,
        [b, h]: [usize; 2],
        band: &Range<usize>,
        queries: &QuerySide<F>,
        gradients: &mut KeyGradients<F::Sum>,
    ) {
        let (spec, origin, keys) = (problem.spec, queries.rows.start, gradients.keys.clone());
        for first in (0..keys.len()).step_by(ROWS) {
            let own = keys.start + first..keys.end.min(keys.start + first + ROWS);
            // Rows of the query tile that see any of these keys.
            let mut rows = band.clone();
            if self.partial {
                let seen = query_range(spec, b, own.clone());
                let (start, end) = (seen.start.saturating_sub(origin), seen.end.saturating_sub(origin));
                rows = rows.start.max(start)..rows.end.min(end);
                let absolute = seeing(spec, [b, h], origin + rows.start..origin + rows.end.max(rows.start), &own);
                if absolute.is_empty() {
                    continue;
                }
                rows = absolute.start - origin..absolute.end - origin;
            }
            // From the beginning of a factor's element: a row before these sees none of the keys.
            let start = rows.start - rows.start % F::DEPTH;
            let from = (start - band.start) / F::DEPTH * STRIDE + first;
            let sides = [
                (&self.p, &queries.d_o, queries.finite[1], &mut gradients.d_v, spec.value_dim),
                (&self.d_s, &queries.q, queries.finite[0], &mut gradients.d_k, spec.head_dim),
            ];
            for (weights, right, finite, sums, dim) in sides {
                let stride = sums.stride();
                sums.prefetch_strip(first + ROWS);
                if finite || !self.partial {
                    let left = Left { data: &weights.band()[from..], stride: STRIDE };
                    let right = right.right(0, dim, start);
                    let sums = (sums.rows_from_mut(first), stride);
                    F::product_transposed(problem.isa, left, right, rows.end - start, sums, Start::Sum);
                    continue;
                }
                for r in rows.clone() {
                    let strip = Strip::new(b, std::iter::once((h, origin + r)));
                    each_visible(spec, &strip, &own, |_, column| {
                        let weight = weights.at(r - band.start, first + column);
                        add_row(sums.row_mut(first + column), weight, right, r);
                    });
                }
            }
        }
    }
}

/// From the first to the last row of blocks that sees any of these keys.
fn seeing(spec: &AttentionSpec, [b, h]: [usize; 2], rows: Range<usize>, keys: &Range<usize>) -> Range<usize> {
    let step = spec.block_mask.as_ref().map_or(usize::MAX, |mask| mask.block_q);
    let sees = |rows: &Range<usize>| coverage(spec, b, h, rows.clone(), keys.clone()) != Coverage::Empty;
    let mut blocks = tiles(rows, step).filter(sees);
    let Some(first) = blocks.next() else { return 0..0 };
    first.start..blocks.last().map_or(first.end, |last| last.end)
}

/// Calls `f` with the row of the strip and the place in `keys` of each visible pair.
fn each_visible(spec: &AttentionSpec, strip: &Strip, keys: &Range<usize>, mut f: impl FnMut(usize, usize)) {
    for (r, &(h, i)) in strip.lanes().iter().enumerate() {
        for j in keys.clone().filter(|&j| spec.visible(strip.b, h, i, j)) {
            f(r, j - keys.start);
        }
    }
}

/// `to += weight ·` a row of packed panels.
fn add_row<F: Factor>(to: &mut [F::Sum], weight: F::Sum, panels: &Panels<F>, row: usize) {
    for (column, to) in to.iter_mut().enumerate() {
        *to += weight * panels.at(row, column);
    }
}
