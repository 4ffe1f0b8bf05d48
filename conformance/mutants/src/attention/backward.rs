//! The backward pass: `D`, then tile by tile `P`, `dP`, `dS` and the sums they enter (FlashAttention-2, Algorithm 2).

use crate::attention::forward::{Workspace, tiles};
use crate::attention::gradients::{HeadSums, Sums};
use crate::attention::layout::{Head, Pass, Problem, load};
use crate::attention::scores::Score;
use crate::attention::{Fault, LseSource, RowDot, Stationary};
use core::f64::consts::LN_2;
use core::ops::Range;
use tilewright_attention::tensors::row;
use tilewright_attention::{Gradients, Saved};
use tilewright_scalar::{Element, Real};

/// What the backward pass knows of the rows of one head.
#[derive(Clone, Debug)]
pub(crate) struct RowData<A> {
    /// `dO`, row by row.
    pub(crate) g: Vec<A>,
    lse: Vec<A>,
    /// `D`.
    dot: Vec<A>,
    d_lse: Vec<A>,
    /// The largest visible score; only [`Fault::ValueGradientDividedAgain`] needs it.
    m: Vec<A>,
}

/// What one pair `(i, j)` contributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<A> {
    /// `Z P`, as it meets `dO`; `None` if the pair is masked.
    pub(crate) weight: Option<A>,
    /// `dS`, as it enters `dBias`; `None` if the pair is masked.
    pub(crate) d_s: Option<A>,
    /// `dS` through the softcap and rounded, as it meets `K` and `Q`.
    pub(crate) d_raw: A,
}

impl<T: Element> Problem<'_, '_, T> {
    /// Every gradient.
    pub(crate) fn backward<A: Real>(&self, saved: &Saved<'_, T>, mut gradients: Gradients<'_, T>) {
        let mut sums = Sums::new(self);
        let mut work = Workspace::new(Vec::new());
        for b in 0..self.spec.batch {
            for hk in 0..self.spec.kv_heads {
                let mut head_sums = HeadSums::new(self, b);
                for h in (0..self.spec.q_heads).filter(|&h| self.kv_head(h) == hk) {
                    let mut head = self.load_head::<A>(b, h);
                    head_sums.start_head(self, &head, &gradients);
                    let rows = self.row_data(&mut head, saved, &mut work);
                    self.differentiate_head(&head, &rows, &mut head_sums, &mut sums);
                    self.add_sink_gradient(&head, &rows, &mut sums);
                    self.write_query_gradient(&head, &head_sums, &mut gradients);
                }
                sums.add_head(self, b, hk, &head_sums);
            }
        }
        sums.write(self, &mut gradients);
    }

    fn differentiate_head<A: Real>(
        &self,
        head: &Head<A>,
        rows: &RowData<A>,
        head_sums: &mut HeadSums<A>,
        sums: &mut Sums<A>,
    ) {
        let (mut tile, mut pairs) = (Vec::new(), Vec::new());
        for (queries, keys) in self.tile_pairs(head) {
            self.score_tile(head, &queries, &keys, &mut tile);
            pairs.clear();
            for (n, score) in tile.iter().enumerate() {
                let (i, j) = (queries.start + n / keys.len(), keys.start + n % keys.len());
                pairs.push(self.differentiate_pair(head, rows, score, i, j));
            }
            head_sums.add_tile(self, head, rows, &queries, &keys, &pairs);
            sums.add_bias_tile(self, head, &queries, &keys, &pairs);
        }
    }

    /// The pairs of tiles that hold a visible entry, in the order of the loops.
    fn tile_pairs<A: Real>(&self, head: &Head<A>) -> Vec<(Range<usize>, Range<usize>)> {
        let mut pairs = Vec::new();
        for queries in tiles(head.q_len, self.by.variant.query_tile) {
            let range = self.key_range(head.b, &queries);
            pairs.extend(self.key_tiles(&range, false).into_iter().map(|keys| (queries.clone(), keys)));
        }
        if self.by.variant.stationary == Stationary::Keys {
            pairs.sort_by_key(|(_, keys)| keys.start);
        }
        pairs
    }

    /// `P = e^{S − LSE}`, `dP = Z∘(dO Vᵀ)`, `dS = P∘(dP − D + dLSE)`.
    fn differentiate_pair<A: Real>(
        &self,
        head: &Head<A>,
        rows: &RowData<A>,
        score: &Score<A>,
        i: usize,
        j: usize,
    ) -> Pair<A> {
        let nothing = Pair { weight: None, d_s: None, d_raw: A::zero() };
        let unguarded = self.is(Fault::EmptyRowGradientNan) && !score.visible;
        if rows.lse[i] == A::neg_infinity() && !unguarded {
            return nothing;
        }
        let p = self.probability(rows, score, i);
        let mut weight = self.by.round_probability(p) * score.z;
        if self.is(Fault::ValueGradientWithoutDropout) {
            weight = p;
        }
        if self.is(Fault::ValueGradientDividedAgain) {
            weight = weight / self.by.exp(rows.lse[i], rows.m[i]);
        }
        if !score.visible && !unguarded {
            let leaks = self.is(Fault::ValueGradientUnmasked);
            return Pair { weight: leaks.then_some(weight), ..nothing };
        }
        let d_s = p * (self.d_p(head, rows, score, i, j) - self.centre(rows, i));
        let d_raw = self.by.round_score_gradient(d_s * score.slope);
        let weight = if self.is(Fault::ValueGradientFromScores) { d_s } else { weight };
        Pair { weight: Some(weight), d_s: Some(d_s), d_raw }
    }

    fn probability<A: Real>(&self, rows: &RowData<A>, score: &Score<A>, i: usize) -> A {
        let lse = rows.lse[i];
        let read = if self.is(Fault::BackwardReadsBaseTwoLse) { lse * A::from_f64(LN_2) } else { lse };
        self.by.exp(score.s, read)
    }

    fn d_p<A: Real>(&self, head: &Head<A>, rows: &RowData<A>, score: &Score<A>, i: usize, j: usize) -> A {
        let dv = head.dv;
        let (g, v) = (&rows.g[i * dv..(i + 1) * dv], &head.v[j * dv..(j + 1) * dv]);
        let d_p = self.by.sum(A::zero(), g.iter().copied().zip(v.iter().copied()));
        if self.is(Fault::DropoutMissingInBackward) { d_p } else { score.z * d_p }
    }

    /// `D − dLSE`.
    fn centre<A: Real>(&self, rows: &RowData<A>, i: usize) -> A {
        let dot = match self.by.fault {
            Some(Fault::RowDotOmitted) => A::zero(),
            Some(Fault::RowDotAdded) => -rows.dot[i],
            Some(Fault::RowDotOfNeighbour) => rows.dot[(i + 1) % rows.dot.len()],
            _ => rows.dot[i],
        };
        match self.by.fault {
            Some(Fault::LseGradientIgnored) => dot,
            Some(Fault::LseGradientSign) => dot + rows.d_lse[i],
            _ => dot - rows.d_lse[i],
        }
    }

    /// `dSink = Σ_i e^{sink − LSE_i} (dLSE_i − D_i)`.
    fn add_sink_gradient<A: Real>(&self, head: &Head<A>, rows: &RowData<A>, sums: &mut Sums<A>) {
        let sink = self.sink::<A>(head.h);
        if sink == A::neg_infinity() {
            return;
        }
        for i in 0..head.q_len {
            let p = self.by.exp(sink, rows.lse[i]);
            let centre = self.centre(rows, i);
            let term = if self.is(Fault::SinkGradientSign) { p * centre } else { -(p * centre) };
            let sum = &mut sums.sink[head.h];
            *sum = if self.is(Fault::SinkGradientOverwritten) { term } else { *sum + term };
        }
    }

    /// `dO`, LSE, `D` and `dLSE` of every row of a head.
    fn row_data<A: Real>(&self, head: &mut Head<A>, saved: &Saved<'_, T>, work: &mut Workspace<A>) -> RowData<A> {
        let n = head.q_len;
        let (mut g, mut lse) = (Vec::with_capacity(n * head.dv), Vec::with_capacity(n));
        let (mut dot, mut d_lse) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for i in 0..n {
            let (qb, qi) = self.spec.query_slot(head.b, i);
            g.extend(row(saved.d_o, [qb, head.h, qi]).iter().map(|&g| load::<T, A>(g)));
            lse.push(load::<T::Accum, A>(saved.lse[[qb, head.h, qi]]));
            d_lse.push(saved.d_lse.map_or(A::zero(), |d_lse| load(d_lse[[qb, head.h, qi]])));
            let (ob, oh) = match self.by.fault {
                Some(Fault::RowDotOfOtherHead) => (qb, (head.h + 1) % self.spec.q_heads),
                Some(Fault::RowDotOfFirstBatch) => (0, head.h),
                _ => (qb, head.h),
            };
            let columns = head.dv - usize::from(self.is(Fault::RowDotMissesColumn));
            let o = row(saved.o, [ob, oh, qi]);
            let products = g[i * head.dv..].iter().zip(o).take(columns).map(|(&g, &o)| (g, load::<T, A>(o)));
            dot.push(self.by.sum(A::zero(), products));
        }
        let mut rows = RowData { g, lse, dot, d_lse, m: Vec::new() };
        if self.by.variant.lse_source == LseSource::Recomputed {
            rows.lse = self.recompute_lse(head, work);
        }
        if self.by.variant.row_dot == RowDot::Probabilities {
            self.dot_probabilities(head, &mut rows);
        }
        if self.is(Fault::ValueGradientDividedAgain) {
            self.find_row_maxima(head, &mut rows);
        }
        rows
    }

    /// LSE by the forward pass's own loop, without values.
    fn recompute_lse<A: Real>(&self, head: &mut Head<A>, work: &mut Workspace<A>) -> Vec<A> {
        let forward = Self { pass: Pass::Forward, ..*self };
        let dv = core::mem::take(&mut head.dv);
        let (mut lse, mut o) = (Vec::with_capacity(head.q_len), Vec::new());
        for rows in tiles(head.q_len, self.by.variant.query_tile) {
            forward.attend(head, &rows, false, work);
            lse.extend((0..rows.len()).map(|r| forward.finish_row(head, &work.partials, r, &mut o)));
        }
        head.dv = dv;
        lse
    }

    /// `D_i = Σ_j P_ij dP_ij`.
    fn dot_probabilities<A: Real>(&self, head: &Head<A>, rows: &mut RowData<A>) {
        let mut tile = Vec::new();
        rows.dot.fill(A::zero());
        for (queries, keys) in self.tile_pairs(head) {
            self.score_tile(head, &queries, &keys, &mut tile);
            for (i, scores) in queries.clone().zip(tile.chunks(keys.len())) {
                let visible = scores.iter().enumerate().filter(|(_, s)| s.visible && rows.lse[i] != A::neg_infinity());
                let terms = visible.map(|(n, score)| {
                    (self.probability(rows, score, i), self.d_p(head, rows, score, i, keys.start + n))
                });
                rows.dot[i] = self.by.sum(rows.dot[i], terms);
            }
        }
    }

    fn find_row_maxima<A: Real>(&self, head: &Head<A>, rows: &mut RowData<A>) {
        let mut tile = Vec::new();
        rows.m = vec![A::neg_infinity(); head.q_len];
        for (queries, keys) in self.tile_pairs(head) {
            self.score_tile(head, &queries, &keys, &mut tile);
            for (i, scores) in queries.clone().zip(tile.chunks(keys.len())) {
                rows.m[i] = scores.iter().filter(|score| score.visible).fold(rows.m[i], |m, score| m.maximum(score.s));
            }
        }
    }
}
