//! Scores in the order the specification fixes: scale, softcap, bias, ALiBi, mask. Row by row, for whoever computes the
//! products; and for a tile of natural scores, as the standard method and the bias's gradient want them.

use super::dropout;
use super::float::{Float, Stored, constant};
use super::isa::Isa;
use super::kernels;
use super::tile::Tile;
use num_traits::One;
use std::ops::Range;
use tilewright_attention::dropout::DropoutMask;
use tilewright_attention::tiling::{Coverage, coverage, key_range};
use tilewright_attention::{AttentionSpec, BlockMask, Inputs};
use tilewright_scalar::{Accum, Real};

/// A problem, with its numbers in the accumulator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a, 'i, T: Stored> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) inputs: &'a Inputs<'i, T>,
    pub(crate) isa: Isa,
    pub(crate) scale: T::Accum,
    /// A softcap that bends something: one beyond the accumulator's range doesn't.
    pub(crate) cap: Option<T::Accum>,
    dropout: Option<DropoutMask>,
}

/// A rectangle of the score matrix of one head of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) b: usize,
    pub(crate) h: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) keys: Range<usize>,
}

/// What is visible of the block at hand. Without a mask, everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    partial: bool,
    visible: Vec<bool>,
    columns: usize,
}

impl Mask {
    /// Overwrites the masked elements of a tile: a select, so it does not matter what they hold.
    pub(crate) fn select<A: Float>(&self, tile: &mut Tile<A>, masked: A) {
        if !self.partial {
            return;
        }
        for (i, visible) in self.visible.chunks_exact(self.columns).enumerate() {
            for (x, visible) in tile.row_mut(i).iter_mut().zip(visible) {
                if !visible {
                    *x = masked;
                }
            }
        }
    }

    /// `c += W·B`, where masked entries of `W` are 0 and touch nothing, not even a NaN of `B`.
    pub(crate) fn product<A: Float>(&self, isa: Isa, c: &mut Tile<A>, w: &Tile<A>, b: &Tile<A>) {
        if !self.partial || b.finite(isa) {
            return c.add_product(isa, w, b);
        }
        self.each_visible(|i, j| add_scaled(c.row_mut(i), w.row(i)[j], b.row(j)));
    }

    /// `c += Wᵀ·B`, likewise.
    pub(crate) fn product_transposed<A: Float>(&self, isa: Isa, c: &mut Tile<A>, w: &Tile<A>, b: &Tile<A>) {
        if !self.partial || b.finite(isa) {
            return c.add_product_transposed(isa, w, b);
        }
        self.each_visible(|i, j| add_scaled(c.row_mut(j), w.row(i)[j], b.row(i)));
    }

    fn each_visible(&self, mut f: impl FnMut(usize, usize)) {
        for (i, visible) in self.visible.chunks_exact(self.columns).enumerate() {
            for j in (0..self.columns).filter(|&j| visible[j]) {
                f(i, j);
            }
        }
    }

    fn set(&mut self, spec: &AttentionSpec, at: &Block, partial: bool) {
        (self.partial, self.columns) = (partial, at.keys.len());
        if !self.partial {
            return;
        }
        self.visible.clear();
        for i in at.rows.clone() {
            let band = key_range(spec, at.b, i..i + 1);
            self.visible.extend(at.keys.clone().map(|j| {
                let block_set = |mask: &BlockMask| mask.entry(at.b, at.h, i / mask.block_q, j / mask.block_k);
                band.contains(&j) && spec.block_mask.as_ref().is_none_or(block_set)
            }));
        }
    }
}

/// Scores of a block, reused from block to block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scores<A> {
    /// The scores; −∞ where masked.
    pub(crate) s: Tile<A>,
    /// `∂s / ∂(scale · q·k)`, kept under a softcap only.
    pub(crate) slope: Tile<A>,
    pub(crate) mask: Mask,
}

impl<'a, 'i, T: Stored> Problem<'a, 'i, T> {
    pub(crate) fn new(spec: &'a AttentionSpec, inputs: &'a Inputs<'i, T>, isa: Isa) -> Self {
        let dropout = spec.dropout.map(DropoutMask::new);
        let cap = spec.softcap.map(constant::<T::Accum>).filter(|cap| Real::to_f64(*cap).is_finite());
        Self { spec, inputs, isa, scale: constant(spec.scale), cap, dropout }
    }

    /// Scores of a block from packed `Q` and `Kᵀ`; `false`, and nothing computed, if none of it is visible.
    pub(crate) fn scores(
        &self,
        at: &Block,
        q: &Tile<T::Accum>,
        k_t: &Tile<T::Accum>,
        out: &mut Scores<T::Accum>,
    ) -> bool {
        let coverage = coverage(self.spec, at.b, at.h, at.rows.clone(), at.keys.clone());
        if coverage == Coverage::Empty {
            return false;
        }
        self.compute(at, coverage, q, k_t, out);
        true
    }

    /// Scores of a block, whatever is visible of it.
    pub(crate) fn compute(
        &self,
        at: &Block,
        coverage: Coverage,
        q: &Tile<T::Accum>,
        k_t: &Tile<T::Accum>,
        out: &mut Scores<T::Accum>,
    ) {
        out.mask.set(self.spec, at, coverage != Coverage::Full);
        out.s.reset(at.rows.len(), at.keys.len());
        out.s.add_product(self.isa, q, k_t);
        if self.spec.softcap.is_some() {
            out.slope.reset(at.rows.len(), at.keys.len());
        }
        for (r, i) in at.rows.clone().enumerate() {
            let s = out.s.row_mut(r);
            kernels::scale(self.isa, s, self.scale);
            if self.spec.softcap.is_some() {
                self.soften(s, out.slope.row_mut(r));
            }
            self.add_biases([at.b, at.h, i], at.keys.clone(), s);
        }
        out.mask.select(&mut out.s, T::Accum::neg_infinity());
    }

    /// `s = c · tanh(s / c)`, with its derivative `1 − tanh²`.
    pub(crate) fn soften(&self, s: &mut [T::Accum], slope: &mut [T::Accum]) {
        match self.cap {
            Some(cap) => kernels::softcap(self.isa, s, slope, cap),
            None => slope.fill(T::Accum::one()),
        }
    }

    /// Bias and ALiBi, for one query and consecutive keys.
    pub(crate) fn add_biases(&self, [b, h, i]: [usize; 3], keys: Range<usize>, s: &mut [T::Accum]) {
        if let Some(bias) = &self.inputs.bias {
            let at = |length: usize, index: usize| if length == 1 { 0 } else { index };
            let (batch, heads, rows, columns) = bias.dim();
            let row = tilewright_attention::tensors::row(*bias, [at(batch, b), at(heads, h), at(rows, i)]);
            if columns == 1 {
                let bias = row[0].to_accum();
                for s in s.iter_mut() {
                    *s += bias;
                }
            } else {
                match row.to_slice() {
                    Some(row) => s.iter_mut().zip(&row[keys.clone()]).for_each(|(s, bias)| *s += bias.to_accum()),
                    None => s.iter_mut().zip(keys.clone()).for_each(|(s, j)| *s += row[j].to_accum()),
                }
            }
        }
        if let Some(slopes) = &self.spec.alibi {
            let distance = i as isize + self.spec.offset(b) - keys.start as isize;
            kernels::add_distances(self.isa, s, constant(slopes[h]), constant(distance as f64));
        }
    }

    /// Whether probabilities are dropped.
    pub(crate) fn drops(&self) -> bool {
        self.dropout.is_some()
    }

    /// `z ← Z` for one query and consecutive keys; nothing without dropout.
    pub(crate) fn dropout_row(&self, [b, h, i]: [usize; 3], keys: Range<usize>, z: &mut [T::Accum]) {
        let Some(mask) = self.dropout else { return };
        dropout::factors(self.isa, z, keys.start, [i as u32, h as u32, b as u32], mask);
    }

    /// `x ← Z ∘ x` for a tile of the block.
    pub(crate) fn drop(&self, at: &Block, x: &mut Tile<T::Accum>) {
        if !self.drops() {
            return;
        }
        let mut z = vec![T::Accum::one(); at.keys.len()];
        for (r, i) in at.rows.clone().enumerate() {
            self.dropout_row([at.b, at.h, i], at.keys.clone(), &mut z);
            kernels::multiply(self.isa, x.row_mut(r), &z);
        }
    }
}

/// `c += w · b`.
pub(crate) fn add_scaled<A: Accum>(c: &mut [A], w: A, b: &[A]) {
    for (c, b) in c.iter_mut().zip(b) {
        *c += w * *b;
    }
}
