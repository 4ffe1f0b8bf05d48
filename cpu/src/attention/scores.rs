//! Scores of a tile, in the order the specification fixes: scale, softcap, bias, ALiBi, mask.

use super::tile::Tile;
use num_traits::{One, Zero};
use std::ops::Range;
use tilewright_attention::dropout::DropoutMask;
use tilewright_attention::tiling::{Coverage, coverage, key_range};
use tilewright_attention::{AttentionSpec, Inputs};
use tilewright_scalar::{Accum, Element, Real};

/// A problem, with its numbers in the accumulator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem<'a, 'i, T: Element> {
    pub(crate) spec: &'a AttentionSpec,
    pub(crate) inputs: &'a Inputs<'i, T>,
    pub(crate) scale: T::Accum,
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
    pub(crate) fn select<A: Accum>(&self, tile: &mut Tile<A>, masked: A) {
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
    pub(crate) fn product<A: Accum>(&self, c: &mut Tile<A>, w: &Tile<A>, b: &Tile<A>) {
        if !self.partial || b.finite() {
            return c.add_product(w, b);
        }
        self.each_visible(|i, j| add_scaled(c.row_mut(i), w.row(i)[j], b.row(j)));
    }

    /// `c += Wᵀ·B`, likewise.
    pub(crate) fn product_transposed<A: Accum>(&self, c: &mut Tile<A>, w: &Tile<A>, b: &Tile<A>) {
        if !self.partial || b.finite() {
            return c.add_product_transposed(w, b);
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
                let block_set =
                    |mask: &tilewright_attention::BlockMask| mask.entry(at.b, at.h, i / mask.block_q, j / mask.block_k);
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

impl<'a, 'i, T: Element> Problem<'a, 'i, T> {
    pub(crate) fn new(spec: &'a AttentionSpec, inputs: &'a Inputs<'i, T>) -> Self {
        let dropout = spec.dropout.map(DropoutMask::new);
        Self { spec, inputs, scale: Real::from_f64(spec.scale), dropout }
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
        out.s.add_product(q, k_t);
        for r in 0..at.rows.len() {
            for s in out.s.row_mut(r) {
                *s = self.scale * *s;
            }
        }
        self.cap(out);
        self.add_biases(at, &mut out.s);
        out.mask.select(&mut out.s, T::Accum::neg_infinity());
    }

    /// `s = c · tanh(s / c)`, with its derivative `1 − tanh²`.
    fn cap(&self, out: &mut Scores<T::Accum>) {
        let Some(cap) = self.spec.softcap.map(<T::Accum as Real>::from_f64) else { return };
        let (zero, one) = (T::Accum::zero(), T::Accum::one());
        // A cap beyond the accumulator's range bends nothing; one that vanishes in it leaves s = 0 as it is.
        let bends = Real::to_f64(cap).is_finite();
        out.slope.clone_from(&out.s);
        for r in 0..out.s.rows() {
            for (s, slope) in out.s.row_mut(r).iter_mut().zip(out.slope.row_mut(r)) {
                let t = if bends && *s != zero { (*s / cap).tanh() } else { zero };
                (*s, *slope) = (if bends { cap * t } else { *s }, one - t * t);
            }
        }
    }

    fn add_biases(&self, at: &Block, s: &mut Tile<T::Accum>) {
        if self.inputs.bias.is_none() && self.spec.alibi.is_none() {
            return;
        }
        for (r, i) in at.rows.clone().enumerate() {
            for (s, j) in s.row_mut(r).iter_mut().zip(at.keys.clone()) {
                if let Some(bias) = self.inputs.bias_at(at.b, at.h, i, j) {
                    *s += bias.to_accum();
                }
                if self.spec.alibi.is_some() {
                    *s += Real::from_f64(self.spec.alibi(at.b, at.h, i, j));
                }
            }
        }
    }

    /// `x ← Z ∘ x` for a tile of the block; nothing without dropout.
    pub(crate) fn drop(&self, at: &Block, x: &mut Tile<T::Accum>) {
        let Some(mask) = self.dropout else { return };
        let keep_factor = Real::from_f64(mask.keep_factor());
        for (r, i) in at.rows.clone().enumerate() {
            let mut kept = [false; 4];
            for (x, j) in x.row_mut(r).iter_mut().zip(at.keys.clone()) {
                if j == at.keys.start || j % 4 == 0 {
                    kept = mask.keep4(at.b, at.h, i, j / 4);
                }
                let z = if kept[j % 4] { keep_factor } else { T::Accum::zero() };
                *x = z * *x;
            }
        }
    }
}

/// `c += w · b`.
fn add_scaled<A: Accum>(c: &mut [A], w: A, b: &[A]) {
    for (c, b) in c.iter_mut().zip(b) {
        *c += w * *b;
    }
}
