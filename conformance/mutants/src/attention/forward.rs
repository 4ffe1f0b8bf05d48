//! The forward pass: query tiles, key ranges, online softmax (FlashAttention-2, Algorithm 1).

use crate::attention::layout::{Head, Problem};
use crate::attention::scores::Score;
use crate::attention::{Fault, Rescaling, Rounding};
use core::f64::consts::LN_2;
use core::ops::Range;
use tilewright_attention::tensors::row_mut;
use tilewright_attention::{Outputs, Queries};
use tilewright_scalar::{Element, Real};

/// Running state of a query tile over one range of keys.
#[derive(Clone, Debug)]
pub(crate) struct Rows<A> {
    /// `m`, per row.
    pub(crate) m: Vec<A>,
    /// `ℓ`, per row.
    pub(crate) l: Vec<A>,
    /// The unnormalised `O`, row by row.
    pub(crate) acc: Vec<A>,
    /// Key tiles that held a visible key, per row.
    pub(crate) tiles: Vec<usize>,
}

/// Buffers of one call.
#[derive(Clone, Debug)]
pub(crate) struct Workspace<A> {
    tile: Vec<Score<A>>,
    weights: Vec<(A, A)>,
    /// One a key range.
    pub(crate) partials: Vec<Rows<A>>,
    /// What the previous call left.
    stale: Vec<f64>,
}

impl<A> Workspace<A> {
    pub(crate) fn new(stale: Vec<f64>) -> Self {
        Self { tile: Vec::new(), weights: Vec::new(), partials: Vec::new(), stale }
    }
}

impl<T: Element> Problem<'_, '_, T> {
    /// `O` and LSE of every row. Returns what is left in scratch memory.
    pub(crate) fn forward<A: Real>(&self, mut out: Outputs<'_, T>, odd_call: bool, stale: Vec<f64>) -> Vec<f64> {
        let mut work = Workspace::<A>::new(stale);
        let mut o = Vec::new();
        for b in 0..self.spec.batch {
            for h in 0..self.spec.q_heads {
                if self.is(Fault::NoKeysUnwritten) && self.kv_len(b) == 0 {
                    continue;
                }
                let mut head = self.load_head::<A>(b, h);
                for rows in tiles(head.q_len, self.by.variant.query_tile) {
                    self.attend(&mut head, &rows, odd_call, &mut work);
                    for i in rows.clone() {
                        let lse = self.finish_row(&head, &work.partials, i - rows.start, &mut o);
                        self.write_output(&mut out, &head, i, &o);
                        self.write_lse(&mut out, &head, i, &rows, lse);
                    }
                }
            }
        }
        work.partials.first().map_or_else(Vec::new, |rows| rows.acc.iter().map(|x| x.to_f64()).collect())
    }

    /// Runs a query tile over every key range: the loop over key tiles of Algorithm 1, lines 6–11.
    pub(crate) fn attend<A: Real>(
        &self,
        head: &mut Head<A>,
        rows: &Range<usize>,
        odd_call: bool,
        work: &mut Workspace<A>,
    ) {
        let range = self.key_range(head.b, rows);
        let splits = self.splits(head.b);
        let mut partials = core::mem::take(&mut work.partials);
        partials.resize_with(splits.len(), || Rows { m: vec![], l: vec![], acc: vec![], tiles: vec![] });
        for (split, partial) in splits.iter().zip(&mut partials) {
            let start = split.start.max(range.start);
            let tiles = self.key_tiles(&(start..split.end.min(range.end).max(start)), odd_call);
            self.reset(partial, rows.len(), head.dv, &work.stale);
            if self.by.variant.rescaling == Rescaling::TwoPass {
                self.find_maxima(head, rows, &tiles, partial, &mut work.tile);
            }
            for cols in &tiles {
                self.score_tile(head, rows, cols, &mut work.tile);
                for r in 0..rows.len() {
                    let scores = &work.tile[r * cols.len()..(r + 1) * cols.len()];
                    self.absorb(partial, r, scores, cols, head, &mut work.weights);
                }
                if self.is(Fault::OutputStagedOverQueries) {
                    stage_output_over_queries(head, rows, partial);
                }
            }
        }
        work.partials = partials;
    }

    fn reset<A: Real>(&self, partial: &mut Rows<A>, rows: usize, dv: usize, stale: &[f64]) {
        let start = match self.by.fault {
            Some(Fault::MaximumStartsAtZero | Fault::NoMaximum) => A::zero(),
            Some(Fault::MaximumStartsFinite) => A::from_f64(-1e4),
            _ => A::neg_infinity(),
        };
        for (values, length, value) in
            [(&mut partial.m, rows, start), (&mut partial.l, rows, A::zero()), (&mut partial.acc, rows * dv, A::zero())]
        {
            values.clear();
            values.resize(length, value);
        }
        partial.tiles.clear();
        partial.tiles.resize(rows, 0);
        if self.is(Fault::StaleOutputScratch) {
            partial.acc.iter_mut().zip(stale).for_each(|(x, old)| *x = A::from_f64(*old));
        }
    }

    /// The first pass of a two-pass softmax.
    fn find_maxima<A: Real>(
        &self,
        head: &Head<A>,
        rows: &Range<usize>,
        tiles: &[Range<usize>],
        partial: &mut Rows<A>,
        tile: &mut Vec<Score<A>>,
    ) {
        for cols in tiles {
            self.score_tile(head, rows, cols, tile);
            for (m, scores) in partial.m.iter_mut().zip(tile.chunks(cols.len())) {
                *m = m.maximum(self.tile_maximum(scores, 0));
            }
        }
    }

    /// One step of the online softmax for one row:
    /// `m' = max(m, m̃)`, `p = e^{s − m'}`, `ℓ' = e^{m − m'} ℓ + Σ p`, `O' = e^{m − m'} O + (Z∘p) V`.
    fn absorb<A: Real>(
        &self,
        partial: &mut Rows<A>,
        r: usize,
        scores: &[Score<A>],
        cols: &Range<usize>,
        head: &Head<A>,
        weights: &mut Vec<(A, A)>,
    ) {
        let padded_lanes =
            if cols.end == head.kv_len { self.by.variant.key_tile.saturating_sub(cols.len()) } else { 0 };
        if !scores.iter().any(|score| score.visible) {
            return;
        }
        let m_old = partial.m[r];
        let m_new = self.next_maximum(m_old, self.tile_maximum(scores, padded_lanes));
        if m_new == A::neg_infinity() {
            return; // every visible score is −∞: still nothing to normalise
        }
        self.weigh(scores, m_new, weights);
        let first = m_old == A::neg_infinity();
        let alpha = self.rescaling(m_old, m_new);
        let (mut alpha_l, mut alpha_o) = (alpha, alpha);
        match self.by.fault {
            Some(Fault::OutputNotRescaled) => alpha_o = A::one(),
            Some(Fault::DenominatorNotRescaled) => alpha_l = A::one(),
            Some(Fault::RescaleAfterAdding) => (alpha_l, alpha_o) = (A::one(), A::one()),
            Some(Fault::StaleOutputScratch) if first => alpha_o = A::one(),
            _ => {}
        }
        let l_old = partial.l[r] * alpha_l;
        let mut l = self.by.sum(l_old, weights.iter().map(|&(p, _)| (p, A::one())));
        l += self.padding_weight(scores, weights, padded_lanes, m_new);
        let late = if self.is(Fault::RescaleAfterAdding) && !first { alpha } else { A::one() };
        let rounding = if self.is(Fault::DenominatorInStorage) { Rounding::Storage } else { Rounding::Accumulator };
        partial.l[r] = self.by.round(rounding, l * late);
        partial.m[r] = m_new;
        partial.tiles[r] += 1;

        let normalised = self.by.variant.rescaling == Rescaling::Normalised;
        let all = self.by.variant.multiplies_masked;
        for c in 0..head.dv {
            let x = &mut partial.acc[r * head.dv + c];
            let start = if normalised { *x * l_old } else { *x * alpha_o };
            let lanes = (0..scores.len()).filter(|&n| all || scores[n].visible);
            let sum = self.by.sum(start, lanes.map(|n| (weights[n].1, head.v[(cols.start + n) * head.dv + c])));
            let sum = if normalised { sum / l } else { sum * late };
            *x = self.by.round(self.output_rounding(), sum);
        }
        if self.is(Fault::PaddingValueTimesZero) {
            for j in cols.end..cols.end + padded_lanes {
                let Some(v) = self.padding_value(head, j) else { continue };
                let acc = &mut partial.acc[r * head.dv..(r + 1) * head.dv];
                acc.iter_mut().zip(v).for_each(|(x, v)| *x += A::zero() * v);
            }
        }
    }

    fn tile_maximum<A: Real>(&self, scores: &[Score<A>], padded_lanes: usize) -> A {
        let all = self.is(Fault::MaximumBeforeMask);
        let seen = scores.iter().filter(|score| all || score.visible);
        let m = seen.fold(A::neg_infinity(), |m, score| m.maximum(score.s));
        if padded_lanes > 0 && self.is(Fault::TailPaddedWithZeroScore) { m.maximum(A::zero()) } else { m }
    }

    fn next_maximum<A: Real>(&self, m_old: A, m_tile: A) -> A {
        match self.by.fault {
            Some(Fault::NoMaximum) => return A::zero(),
            Some(Fault::MaximumOfTileOnly) => return m_tile,
            _ => {}
        }
        let lazy = self.by.variant.rescaling == Rescaling::Lazy && m_old != A::neg_infinity();
        if lazy && m_tile - m_old <= A::from_f64(8.0 * LN_2) {
            return m_old;
        }
        m_old.maximum(m_tile)
    }

    fn rescaling<A: Real>(&self, m_old: A, m_new: A) -> A {
        if m_old == A::neg_infinity() {
            A::zero()
        } else if m_old == m_new {
            A::one()
        } else if self.is(Fault::RescaleSignFlipped) {
            self.by.exp(m_new, m_old)
        } else {
            self.by.exp(m_old, m_new)
        }
    }

    /// Per lane: what the denominator sums, and what multiplies `V`.
    fn weigh<A: Real>(&self, scores: &[Score<A>], m: A, weights: &mut Vec<(A, A)>) {
        weights.clear();
        weights.extend(scores.iter().map(|score| {
            if !score.visible {
                return (A::zero(), A::zero());
            }
            let p = self.by.exp(score.s, m);
            let rounded = self.by.round_probability(p);
            let counted = if self.by.variant.sums_rounded_probabilities { rounded } else { p };
            let counted = if self.is(Fault::DropoutInDenominator) { counted * score.z } else { counted };
            (counted, rounded * score.z)
        }));
    }

    /// What lanes past the end add to the denominator: nothing, unless they are mistreated.
    fn padding_weight<A: Real>(&self, scores: &[Score<A>], weights: &[(A, A)], lanes: usize, m: A) -> A {
        let count = A::from_f64(lanes as f64);
        match self.by.fault {
            Some(Fault::TailPaddedWithZeroScore) if lanes > 0 => count * self.by.exp(A::zero(), m),
            Some(Fault::TailCountedInDenominator) if lanes > 0 => count * weights[scores.len() - 1].0,
            _ => A::zero(),
        }
    }

    fn write_output<A: Real>(&self, out: &mut Outputs<'_, T>, head: &Head<A>, i: usize, o: &[A]) {
        let (qb, qi) = self.spec.query_slot(head.b, i);
        let last = qb + 1 == out.o.dim().0 && head.h + 1 == self.spec.q_heads && qi + 1 == out.o.dim().2;
        if last && self.is(Fault::LastRowUnwritten) {
            return;
        }
        let columns = if self.is(Fault::ValueTailUnwritten) { head.dv - head.dv % 8 } else { head.dv };
        for (stored, x) in row_mut(out.o.view_mut(), [qb, head.h, qi]).iter_mut().zip(&o[..columns]) {
            *stored = T::from_f64(x.to_f64());
        }
    }

    fn write_lse<A: Real>(&self, out: &mut Outputs<'_, T>, head: &Head<A>, i: usize, rows: &Range<usize>, lse: A) {
        let (mut qb, mut qi) = self.spec.query_slot(head.b, i);
        let (_, heads, stored_rows) = out.lse.dim();
        let mut h = head.h;
        let tile = self.by.variant.query_tile;
        match self.by.fault {
            Some(Fault::LseTailUnwritten) if rows.len() < tile => return,
            Some(Fault::LseHeadStride) => {
                let address = (qb * heads + h) * stored_rows.next_multiple_of(tile) + qi;
                (qb, h, qi) = (address / (heads * stored_rows), address / stored_rows % heads, address % stored_rows);
            }
            Some(Fault::PackedLseRow) if matches!(self.spec.queries, Queries::Packed { .. }) => {
                qi = head.b * self.spec.max_q_len() + i;
            }
            _ => {}
        }
        // Out of range only under a fault; a real kernel would write to foreign memory.
        if let Some(stored) = out.lse.get_mut([qb, h, qi]) {
            *stored = <T::Accum as Real>::from_f64(lse.to_f64());
        }
    }
}

/// `0 .. length` in steps of `tile`.
pub(crate) fn tiles(length: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(tile).map(move |start| start..start.saturating_add(tile).min(length))
}

fn stage_output_over_queries<A: Real>(head: &mut Head<A>, rows: &Range<usize>, partial: &Rows<A>) {
    for (r, i) in rows.clone().enumerate() {
        let staged = &partial.acc[r * head.dv..(r + 1) * head.dv];
        head.q[i * head.d..(i + 1) * head.d].iter_mut().zip(staged).for_each(|(q, o)| *q = *o);
    }
}
