//! Packed factors of products: panels of columns for the right factor, strips of rows for the left one.

use super::float::Float;
use super::isa::Isa;
use super::kernels::{LANES, Layout, ROWS, Right};
use super::tile::Matrix;
use std::ops::{Deref, DerefMut};

/// Elements that begin where a cache line does, so that no vector lies on two lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aligned<A> {
    data: Vec<A>,
    first: usize,
}

impl<A: Float> Aligned<A> {
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
        self.data.resize(length + spare, A::zero());
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

/// A right factor of `depth × columns`, as panels that a register tile is wide; the last one is padded with zeros to whole
/// vectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panels<A> {
    data: Aligned<A>,
    depth: usize,
    columns: usize,
    panel: usize,
}

impl<A: Float> Panels<A> {
    fn reset(&mut self, isa: Isa, depth: usize, columns: usize) {
        (self.depth, self.columns, self.panel) = (depth, columns, isa.panel(size_of::<A>()));
        self.data.resize(columns.next_multiple_of(isa.unit(size_of::<A>())) * depth);
    }

    /// Each panel with its first column and its width.
    fn panels_mut(&mut self) -> impl Iterator<Item = (usize, usize, &mut [A])> {
        // Without rows there is no panel either.
        let (columns, depth) = (self.panel, self.depth.max(1));
        let panels = self.data.chunks_mut(columns * depth).enumerate();
        panels.map(move |(at, panel)| (at * columns, panel.len() / depth, panel))
    }

    /// Packs a matrix.
    pub(crate) fn pack(&mut self, isa: Isa, matrix: &Matrix<'_, A>) {
        self.reset(isa, matrix.rows.len(), matrix.columns);
        for (first, width, panel) in self.panels_mut() {
            let used = width.min(matrix.columns - first);
            for (r, row) in panel.chunks_exact_mut(width).enumerate() {
                copy_row(&matrix.rows[r][first..][..used], row);
            }
        }
    }

    /// Packs the transpose of a matrix.
    pub(crate) fn pack_transposed(&mut self, isa: Isa, matrix: &Matrix<'_, A>) {
        self.reset(isa, matrix.columns, matrix.rows.len());
        for (first, width, panel) in self.panels_mut() {
            let used = width.min(matrix.rows.len() - first);
            if used < width {
                panel.chunks_exact_mut(width).for_each(|row| row[used..].fill(A::zero()));
            }
            // A few rows at a time, so that what is read and what is written both stay in the nearest cache.
            for group in (0..width).step_by(8) {
                let rows = matrix.rows[first..first + used].get(group..).unwrap_or_default();
                let rows = &rows[..rows.len().min(8)];
                for (column, packed) in panel.chunks_exact_mut(width).enumerate() {
                    for (x, row) in packed[group..].iter_mut().zip(rows) {
                        *x = row[column];
                    }
                }
            }
        }
    }

    /// The factor for `columns` columns from `column`, a multiple of every panel's width, and inner indices from `skip`.
    pub(crate) fn right(&self, column: usize, columns: usize, skip: usize) -> Right<'_, A> {
        let layout = Layout::Panels { depth: self.depth, skip, packed: self.columns - column };
        Right { data: &self.data[column * self.depth..], columns, layout }
    }

    /// The whole factor.
    pub(crate) fn whole(&self) -> Right<'_, A> {
        self.right(0, self.columns, 0)
    }

    /// One element.
    pub(crate) fn at(&self, row: usize, column: usize) -> A {
        let first = column - column % self.panel;
        let width = self.panel.min(self.data.len() / self.depth - first);
        self.data[first * self.depth + row * width + column - first]
    }
}

/// Copies a row into one that may be longer, and fills that up with zeros. One of [`LANES`] has a case of its own: calling
/// the library for so little costs more than the copy.
fn copy_row<A: Float>(from: &[A], to: &mut [A]) {
    if let (Ok(from), Ok(to)) = (<&[A; LANES]>::try_from(from), <&mut [A; LANES]>::try_from(&mut *to)) {
        *to = *from;
        return;
    }
    let (copied, padding) = to.split_at_mut(from.len());
    copied.copy_from_slice(from);
    padding.fill(A::zero());
}

/// A left factor as strips of [`ROWS`] rows, each the transpose of its rows times `factor`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strips<A> {
    data: Vec<A>,
    depth: usize,
}

impl<A: Float> Strips<A> {
    pub(crate) fn pack(&mut self, matrix: &Matrix<'_, A>, factor: A) {
        self.depth = matrix.columns;
        self.data.clear();
        self.data.resize(matrix.rows.len().next_multiple_of(ROWS) * self.depth, A::zero());
        for (strip, packed) in self.data.chunks_exact_mut(ROWS * self.depth.max(1)).enumerate() {
            for (lane, row) in matrix.rows[strip * ROWS..].iter().take(ROWS).enumerate() {
                for (x, packed) in row.iter().zip(packed.chunks_exact_mut(ROWS)) {
                    packed[lane] = factor * *x;
                }
            }
        }
    }

    /// The transposed rows of one strip.
    pub(crate) fn strip(&self, strip: usize) -> &[A] {
        &self.data[strip * ROWS * self.depth..][..ROWS * self.depth]
    }
}
