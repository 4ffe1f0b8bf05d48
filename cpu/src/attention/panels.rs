//! Packed factors of products: panels of columns for the right factor, strips of rows for the left one.

use super::factor::Factor;
use super::isa::Isa;
use super::kernels::{ROWS, Right};
use super::tile::Matrix;
use super::transpose::TOGETHER;
use num_traits::One;
use std::ops::{Deref, DerefMut};

/// Elements that begin where a cache line does, so that no vector lies on two lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aligned<A> {
    data: Vec<A>,
    first: usize,
}

impl<A: Copy + Default> Aligned<A> {
    const LINE: usize = 64;

    pub(crate) fn zeros(length: usize) -> Self {
        let mut aligned = Self::default();
        aligned.resize(length);
        aligned
    }

    /// Makes this so many elements; those that were there before may have any values afterwards.
    pub(crate) fn resize(&mut self, length: usize) {
        if self.len() == length {
            return;
        }
        let spare = Self::LINE / size_of::<A>();
        self.data.resize(length + spare, A::default());
        self.first = self.data.as_ptr().align_offset(Self::LINE).min(spare);
        self.data.truncate(self.first + length);
    }
}

impl<A> Deref for Aligned<A> {
    type Target = [A];

    fn deref(&self) -> &[A] {
        &self.data[self.first..]
    }
}

impl<A> DerefMut for Aligned<A> {
    fn deref_mut(&mut self) -> &mut [A] {
        &mut self.data[self.first..]
    }
}

/// A right factor of `depth × columns` elements, as panels that a register tile is wide; the last one is padded with zeros to
/// whole vectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panels<F> {
    data: Aligned<F>,
    depth: usize,
    columns: usize,
    panel: usize,
}

impl<F: Factor> Panels<F> {
    /// Makes room for this many inner indices and columns.
    fn reset(&mut self, isa: Isa, inner: usize, columns: usize) {
        let depth = inner.div_ceil(F::DEPTH);
        (self.depth, self.columns, self.panel) = (depth, columns, isa.panel(size_of::<F>()));
        self.data.resize(columns.next_multiple_of(isa.unit(size_of::<F>())) * depth);
    }

    /// Each panel with its first column and its width.
    fn panels_mut(&mut self) -> impl Iterator<Item = (usize, usize, &mut [F])> {
        // Without rows there is no panel either.
        let (columns, depth) = (self.panel, self.depth.max(1));
        let panels = self.data.chunks_mut(columns * depth).enumerate();
        panels.map(move |(at, panel)| (at * columns, panel.len() / depth, panel))
    }

    /// Packs a matrix.
    pub(crate) fn pack(&mut self, isa: Isa, matrix: &Matrix<'_, F::Sum>) {
        self.reset(isa, matrix.rows.len(), matrix.columns);
        for (first, width, panel) in self.panels_mut() {
            let used = first..first + width.min(matrix.columns - first);
            for (rows, packed) in matrix.rows.chunks(F::DEPTH).zip(panel.chunks_exact_mut(width)) {
                match rows {
                    [one] => F::below_one_another(&[&one[used.clone()]], packed),
                    [one, other, ..] => F::below_one_another(&[&one[used.clone()], &other[used.clone()]], packed),
                    [] => {}
                }
            }
        }
    }

    /// Packs the transpose of a matrix.
    pub(crate) fn pack_transposed(&mut self, isa: Isa, matrix: &Matrix<'_, F::Sum>) {
        self.reset(isa, matrix.columns, matrix.rows.len());
        for (first, width, panel) in self.panels_mut() {
            let used = width.min(matrix.rows.len() - first);
            if used < width {
                panel.chunks_exact_mut(width).for_each(|row| row[used..].fill(F::default()));
            }
            let rows = matrix.rows[first..first + used].chunks(TOGETHER).enumerate();
            rows.for_each(|(at, rows)| F::side_by_side(isa, rows, F::Sum::one(), width, &mut panel[at * TOGETHER..]));
        }
    }

    /// The factor for `columns` columns from `first`, a multiple of every vector's length, and inner indices from `skip`, a
    /// multiple of the factor's depth.
    pub(crate) fn right(&self, first: usize, columns: usize, skip: usize) -> Right<'_, F> {
        Right { data: &self.data, first, columns, depth: self.depth, skip: skip / F::DEPTH, packed: self.columns }
    }

    /// The whole factor.
    pub(crate) fn whole(&self) -> Right<'_, F> {
        self.right(0, self.columns, 0)
    }

    /// One term.
    pub(crate) fn at(&self, inner: usize, column: usize) -> F::Sum {
        let first = column - column % self.panel;
        let width = self.panel.min(self.data.len() / self.depth - first);
        let element = self.data[first * self.depth + inner / F::DEPTH * width + column - first];
        element.term(inner % F::DEPTH)
    }
}

/// A left factor as strips of [`ROWS`] rows, each the transpose of its rows times `factor`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strips<F> {
    data: Aligned<F>,
    depth: usize,
}

impl<F: Factor> Strips<F> {
    pub(crate) fn pack(&mut self, isa: Isa, matrix: &Matrix<'_, F::Sum>, factor: F::Sum) {
        self.depth = matrix.columns.div_ceil(F::DEPTH);
        self.data.resize(matrix.rows.len().next_multiple_of(ROWS) * self.depth);
        let strips = self.data.chunks_exact_mut(ROWS * self.depth.max(1)).zip(matrix.rows.chunks(ROWS));
        strips.for_each(|(strip, rows)| F::side_by_side(isa, rows, factor, ROWS, strip));
    }

    /// The transposed rows of one strip.
    pub(crate) fn strip(&self, strip: usize) -> &[F] {
        &self.data[strip * ROWS * self.depth..][..ROWS * self.depth]
    }
}
