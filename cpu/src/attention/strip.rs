//! A strip: up to six query rows against the keys of one tile. Which of the keys it computes, and what becomes of its
//! scores between the product and the softmax.

use super::factor::Factor;
use super::float::{Float, Stored, constant};
use super::kernels::{self, LANES, ROWS, STRIDE};
use super::panels::Aligned;
use super::scores::Problem;
use num_traits::One;
use std::ops::Range;
use tilewright_attention::AttentionSpec;
use tilewright_attention::tiling::{key_range, tiles};
use tilewright_scalar::Real;

/// Runs begin at multiples of this from a tile's first key: a multiple of every vector's length, the same on every
/// instruction set, so that sums run alike on all of them.
const ALIGN: usize = LANES;

/// Up to [`ROWS`] query rows of one sequence, each with its head; all heads read the same key/value head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip {
    pub(crate) b: usize,
    lanes: [(usize, usize); ROWS],
    count: usize,
}

impl Strip {
    pub(crate) fn new(b: usize, lanes: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut strip = Self { b, lanes: [(0, 0); ROWS], count: 0 };
        for (slot, lane) in strip.lanes.iter_mut().zip(lanes) {
            *slot = lane;
            strip.count += 1;
        }
        strip
    }

    /// Head and query of each row.
    pub(crate) fn lanes(&self) -> &[(usize, usize)] {
        &self.lanes[..self.count]
    }
}

/// Consecutive keys, and the column of the strip's scores that the first of them stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) keys: Range<usize>,
    pub(crate) column: usize,
}

/// The keys a strip computes scores for: the visible ones, and a few between them where skipping wouldn't pay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) runs: Vec<Run>,
    /// Whether some of them are masked for some row.
    pub(crate) partial: bool,
    /// What the keys were chosen from; others that alignment brings along are masked.
    within: Range<usize>,
    /// What causality, window and length leave of that to each row.
    bands: [Range<usize>; ROWS],
    /// Heads and rows of blocks that the rows belong to, under a block mask.
    block_rows: Vec<(usize, usize)>,
}

impl Columns {
    /// Every key of a range.
    pub(crate) fn all(&mut self, keys: Range<usize>) {
        (self.partial, self.within) = (false, keys.clone());
        self.bands.fill(keys.clone());
        self.runs.clear();
        self.runs.push(Run { keys, column: 0 });
    }

    /// The visible keys of a range whose tile begins at `origin`; none at all is possible.
    pub(crate) fn find(&mut self, spec: &AttentionSpec, strip: &Strip, keys: &Range<usize>, origin: usize) {
        self.runs.clear();
        (self.partial, self.within) = (false, keys.clone());
        let (mut start, mut end) = (usize::MAX, 0);
        for (band, &(_, i)) in self.bands.iter_mut().zip(strip.lanes()) {
            let own = key_range(spec, strip.b, i..i + 1);
            *band = own.start.max(keys.start)..own.end.min(keys.end);
            if band.start < band.end {
                (start, end) = (start.min(band.start), end.max(band.end));
            }
        }
        if start >= end {
            return;
        }
        let Some(mask) = &spec.block_mask else {
            return self.extend(start..end, origin, strip.count);
        };
        self.block_rows.clear();
        self.block_rows.extend(strip.lanes().iter().map(|&(h, i)| (h, i / mask.block_q)));
        self.block_rows.dedup();
        for chunk in tiles(start..end, mask.block_k) {
            let set = |&&(h, row): &&(usize, usize)| mask.entry(strip.b, h, row, chunk.start / mask.block_k);
            let rows = self.block_rows.iter().filter(set).count();
            if rows > 0 {
                self.partial |= rows < self.block_rows.len();
                self.extend(chunk, origin, strip.count);
            }
        }
    }

    /// Adds a range, from an aligned key on; what follows closely on the last one becomes part of it. Some of it is masked if
    /// one of so many rows doesn't see all, or if keys before it come along.
    fn extend(&mut self, range: Range<usize>, origin: usize, rows: usize) {
        let sees_all = |band: &Range<usize>| band.start <= range.start && range.end <= band.end;
        self.partial |= !self.bands[..rows].iter().all(sees_all);
        let start = range.start - (range.start - origin) % ALIGN;
        match self.runs.last_mut() {
            Some(last) if start <= last.keys.end => {
                self.partial |= last.keys.end < range.start;
                last.keys.end = range.end;
            }
            last => {
                let column = last.map_or(0, |last| (last.column + last.keys.len()).next_multiple_of(LANES));
                self.partial |= start < range.start;
                self.runs.push(Run { keys: start..range.end, column });
            }
        }
    }

    /// Puts every run where its keys stand in their tile, instead of one run after the other.
    pub(crate) fn in_place(&mut self, origin: usize) {
        self.runs.iter_mut().for_each(|run| run.column = run.keys.start - origin);
    }

    /// Factors hold `depth` keys of the tile `keys` an element: one that a run ends in brings the next keys along, which are
    /// masked like others.
    pub(crate) fn complete(&mut self, depth: usize, keys: &Range<usize>) {
        let ends_within = |run: &Run| run.keys.end < keys.end && !(run.keys.end - keys.start).is_multiple_of(depth);
        self.partial |= self.runs.iter().any(ends_within);
    }

    /// Whether a key is one of those that were chosen from.
    pub(crate) fn within(&self, j: usize) -> bool {
        self.within.contains(&j)
    }

    /// Columns of scores in use.
    pub(crate) fn width(&self) -> usize {
        self.runs.last().map_or(0, |run| run.column + run.keys.len())
    }
}

impl Strip {
    /// Overwrites what a row doesn't see: masked keys, and the columns between runs and behind them, up to `width`.
    pub(crate) fn mask<A: Float>(&self, spec: &AttentionSpec, columns: &Columns, width: usize, s: &mut [A], with: A) {
        for (r, &(h, i)) in self.lanes().iter().enumerate() {
            let row = &mut s[r * STRIDE..][..STRIDE];
            let mut done = 0;
            for Run { keys, column } in &columns.runs {
                row[done..*column].fill(with);
                done = column + keys.len();
                if !columns.partial {
                    continue;
                }
                let band = &columns.bands[r];
                let (start, end) = (band.start.clamp(keys.start, keys.end), band.end.clamp(keys.start, keys.end));
                row[*column..column + start - keys.start].fill(with);
                row[column + end.max(start) - keys.start..done].fill(with);
                let Some(mask) = &spec.block_mask else { continue };
                for chunk in tiles(keys.clone(), mask.block_k) {
                    if !mask.entry(self.b, h, i / mask.block_q, chunk.start / mask.block_k) {
                        row[column + chunk.start - keys.start..][..chunk.len()].fill(with);
                    }
                }
            }
            row[done..width.max(done)].fill(with);
        }
    }
}

/// In which units a product leaves its scores, and what is left to do to them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scaling<A> {
    /// Multiplies `Q` as it is packed.
    pub(crate) queries: A,
    /// Multiplies the product, where neither `Q` nor the softmax could take the scale.
    product: Option<A>,
    /// What finished scores times this are exponents of 2; positive.
    pub(crate) exponent: A,
}

impl<T: Stored> Problem<'_, '_, T> {
    /// `Q` takes the scale, and `log2 e` with it where nothing comes between; where `Q` is a factor as it is stored, the
    /// softmax takes both. A scale that neither can take, as rows might leave the accumulator's range or the order of scores
    /// would be reversed, waits for the product.
    pub(crate) fn scaling<F: Factor<Sum = T::Accum>>(&self) -> Scaling<T::Accum> {
        let (spec, log2_e, plain) = (self.spec, std::f64::consts::LOG2_E, self.plain());
        let moderate = (2f64.powi(-20)..2f64.powi(20)).contains(&spec.scale.abs());
        // A sink's score would be divided by the scale.
        let late = plain && spec.scale > 0.0 && self.inputs.sink.is_none();
        let one = T::Accum::one();
        let (queries, product, exponent) = match (moderate, F::DEPTH == 1) {
            (true, true) if plain => (constant(spec.scale * log2_e), None, one),
            (true, true) => (self.scale, None, constant(log2_e)),
            (true, false) if late => (one, None, constant(spec.scale * log2_e)),
            _ => (one, Some(self.scale), constant(log2_e)),
        };
        Scaling { queries, product, exponent }
    }

    /// Whether nothing but a scale comes between products and masks.
    fn plain(&self) -> bool {
        self.cap.is_none() && self.inputs.bias.is_none() && self.spec.alibi.is_none()
    }

    /// From products to scores, −∞ where masked. The softcap's slope, if asked for, is left in `slope`.
    pub(crate) fn finish_scores(
        &self,
        scaling: &Scaling<T::Accum>,
        strip: &Strip,
        columns: &Columns,
        s: &mut [T::Accum],
        slope: &mut [T::Accum],
    ) {
        let width = columns.width();
        let finished = scaling.product.is_none() && self.plain();
        for (r, &(h, i)) in strip.lanes().iter().enumerate().filter(|_| !finished) {
            let row = &mut s[r * STRIDE..][..width];
            if let Some(scale) = scaling.product {
                kernels::scale(self.isa, row, scale);
            }
            if self.cap.is_some() {
                self.soften(row, &mut slope[r * STRIDE..][..width]);
            }
            for run in &columns.runs {
                self.add_biases([strip.b, h, i], run.keys.clone(), &mut row[run.column..][..run.keys.len()]);
            }
        }
        if columns.partial || columns.runs.len() > 1 {
            strip.mask(self.spec, columns, width, s, T::Accum::neg_infinity());
        }
    }

    /// `z ← Z` for a strip; nothing without dropout.
    pub(crate) fn dropout_strip(&self, strip: &Strip, columns: &Columns, z: &mut Aligned<T::Accum>) {
        if !self.drops() {
            return;
        }
        z.resize(ROWS * STRIDE);
        for (r, &(h, i)) in strip.lanes().iter().enumerate() {
            for run in &columns.runs {
                let z = &mut z[r * STRIDE + run.column..][..run.keys.len()];
                self.dropout_row([strip.b, h, i], run.keys.clone(), z);
            }
        }
    }

    /// `x ← Z ∘ x` for a strip, `z` being what [`dropout_strip`](Self::dropout_strip) left.
    pub(crate) fn drop_strip(&self, strip: &Strip, columns: &Columns, z: &[T::Accum], x: &mut [T::Accum]) {
        if !self.drops() {
            return;
        }
        for r in 0..strip.lanes().len() {
            for run in &columns.runs {
                let own = r * STRIDE + run.column..r * STRIDE + run.column + run.keys.len();
                kernels::multiply(self.isa, &mut x[own.clone()], &z[own]);
            }
        }
    }
}
