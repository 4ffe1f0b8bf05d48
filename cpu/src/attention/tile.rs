//! Tiles in fast memory: rows of any layout and format, packed at the door into contiguous accumulators.

use super::float::{Float, Stored};
use super::isa::Isa;
use super::kernels::{self, LANES, Left, ROWS, Start};
use super::panels::{Panels, Strips};
use ndarray::{ArrayView1, ArrayView4, ArrayViewMut2};
use std::ops::Range;
use tilewright_attention::{AttentionSpec, tensors};

/// A small row-major matrix whose rows are padded to whole vectors, and their number to whole strips.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tile<A> {
    data: Vec<A>,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<A: Float> Tile<A> {
    /// A tile of zeros.
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        let mut tile = Self { data: Vec::new(), stride: 0, rows: 0, columns: 0 };
        tile.reset(rows, columns);
        tile
    }

    /// Makes this a tile of zeros, keeping its memory.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        self.data.clear();
        self.shape(rows, columns);
    }

    /// Takes on a shape; what was there before stays.
    fn shape(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns, self.stride) = (rows, columns, columns.next_multiple_of(LANES));
        // A strip of the transpose may reach beyond the last row.
        self.data.resize((rows.next_multiple_of(ROWS) + 1) * self.stride + ROWS, A::zero());
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Whether every element is finite.
    pub(crate) fn finite(&self, isa: Isa) -> bool {
        self.matrix().finite(isa)
    }

    pub(crate) fn row(&self, i: usize) -> &[A] {
        &self.data[i * self.stride..][..self.columns]
    }

    /// A row with its padding of zeros.
    pub(crate) fn padded_row(&self, i: usize) -> &[A] {
        &self.data[i * self.stride..][..self.stride]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [A] {
        &mut self.data[i * self.stride..][..self.columns]
    }

    /// Its rows.
    pub(crate) fn matrix(&self) -> Matrix<'_, A> {
        Matrix { rows: (0..self.rows).map(|i| self.row(i)).collect(), columns: self.columns }
    }

    /// Everything from row `i` on, padding included.
    pub(crate) fn rows_from(&self, i: usize) -> &[A] {
        &self.data[i * self.stride..]
    }

    /// Everything from row `i` on, to write to.
    pub(crate) fn rows_from_mut(&mut self, i: usize) -> &mut [A] {
        &mut self.data[i * self.stride..]
    }

    /// Asks for the strip of rows that begins at `first`: sums that come late keep a whole product waiting.
    pub(crate) fn prefetch_strip(&self, first: usize) {
        for row in first..(first + ROWS).min(self.rows) {
            kernels::prefetch::<_, { kernels::FIRST }>(self.row(row).as_ptr(), self.columns);
        }
    }

    /// `self += other`, of the same shape.
    pub(crate) fn add(&mut self, other: &Self) {
        for (to, x) in self.data.iter_mut().zip(&other.data) {
            *to += *x;
        }
    }

    /// Rounds `factor ·` the rows from `first` on to storage.
    pub(crate) fn store<T: Stored<Accum = A>>(&self, first: usize, factor: A, mut to: ArrayViewMut2<'_, T>) {
        for (r, mut to) in to.outer_iter_mut().enumerate() {
            let row = self.row(first + r);
            match to.as_slice_mut() {
                Some(to) => to.iter_mut().zip(row).for_each(|(to, x)| *to = T::from_accum(factor * *x)),
                None => to.iter_mut().zip(row).for_each(|(to, x)| *to = T::from_accum(factor * *x)),
            }
        }
    }

    /// Packs `count` rows of `columns` elements.
    pub(crate) fn pack<'a, T: Stored<Accum = A>>(
        &mut self,
        isa: Isa,
        count: usize,
        columns: usize,
        row: impl Fn(usize) -> ArrayView1<'a, T>,
    ) {
        self.shape(count, columns);
        // Where rows have no padding, only what lies behind them is not overwritten.
        let whole = if self.stride == columns { count * columns } else { 0 };
        self.data[whole..].fill(A::zero());
        for i in 0..count {
            let (row, packed) = (row(i), self.row_mut(i));
            // The branches are for speed: a slice converts by whole vectors, or is there already.
            match row.to_slice() {
                Some(row) => match T::as_accum(row) {
                    Some(row) => packed.copy_from_slice(row),
                    None => kernels::widen(isa, row, packed),
                },
                None => packed.iter_mut().zip(row).for_each(|(packed, x)| *packed = x.to_accum()),
            }
        }
    }

    /// The transpose of a packed tile.
    pub(crate) fn transpose_of(&mut self, source: &Self) {
        self.reset(source.columns, source.rows);
        for j in 0..source.rows {
            for (c, x) in source.row(j).iter().enumerate() {
                self.data[c * self.stride + j] = *x;
            }
        }
    }

    /// `self += A·B`.
    pub(crate) fn add_product(&mut self, isa: Isa, a: &Self, b: &Self) {
        let (mut left, mut right) = (Strips::<A>::default(), Panels::<A>::default());
        left.pack(isa, &a.matrix(), A::one());
        right.pack(isa, &b.matrix());
        for i in (0..a.rows).step_by(ROWS) {
            let left = Left { data: left.strip(i / ROWS), stride: ROWS };
            let c = &mut self.data[i * self.stride..];
            kernels::product_transposed(isa, left, right.whole(), b.rows, c, self.stride, Start::Sum);
        }
    }

    /// `self += Aᵀ·B`.
    pub(crate) fn add_product_transposed(&mut self, isa: Isa, a: &Self, b: &Self) {
        let mut right = Panels::<A>::default();
        right.pack(isa, &b.matrix());
        for i in (0..a.columns).step_by(ROWS) {
            let left = Left { data: &a.data[i..], stride: a.stride };
            let c = &mut self.data[i * self.stride..];
            kernels::product_transposed(isa, left, right.whole(), b.rows, c, self.stride, Start::Sum);
        }
    }
}

/// Rows of accumulators, wherever they are.
#[derive(Clone, Debug)]
pub(crate) struct Matrix<'a, A> {
    pub(crate) rows: Vec<&'a [A]>,
    pub(crate) columns: usize,
}

impl<A: Float> Matrix<'_, A> {
    /// Whether every element is finite. Only then is `0 · x = 0` and a masked entry may enter a product.
    pub(crate) fn finite(&self, isa: Isa) -> bool {
        self.rows.iter().all(|row| kernels::all_finite::<A, A>(isa, row))
    }
}

/// Rows of a tensor: how many, how long, and where each is stored.
pub(crate) struct Source<F> {
    count: usize,
    columns: usize,
    row: F,
}

/// Rows `rows` of head `h` of a tensor stored as queries are.
pub(crate) fn queries<'a, T: Stored>(
    spec: &AttentionSpec,
    tensor: ArrayView4<'a, T>,
    [b, h]: [usize; 2],
    rows: &Range<usize>,
) -> Source<impl Fn(usize) -> ArrayView1<'a, T>> {
    let first = rows.start;
    let row = move |r| {
        let (slot, i) = spec.query_slot(b, first + r);
        tensors::row(tensor, [slot, h, i])
    };
    Source { count: rows.len(), columns: tensor.dim().3, row }
}

/// Keys `keys` of key/value head `h` of a tensor stored as keys are.
pub(crate) fn keys<'a, T: Stored>(
    spec: &AttentionSpec,
    tensor: ArrayView4<'a, T>,
    [b, h]: [usize; 2],
    keys: &Range<usize>,
) -> Source<impl Fn(usize) -> ArrayView1<'a, T>> {
    let first = keys.start;
    let row = move |r| {
        let (slot, j) = spec.key_slot(b, first + r);
        tensors::row(tensor, [slot, h, j])
    };
    Source { count: keys.len(), columns: tensor.dim().3, row }
}

impl<'a, T: Stored, F: Fn(usize) -> ArrayView1<'a, T>> Source<F> {
    /// Packs them.
    pub(crate) fn pack(self, isa: Isa, tile: &mut Tile<T::Accum>) {
        tile.pack(isa, self.count, self.columns, self.row);
    }

    /// As they lie if they are contiguous accumulators; if not, packed into `scratch`.
    pub(crate) fn matrix(self, isa: Isa, scratch: &'a mut Tile<T::Accum>) -> Matrix<'a, T::Accum> {
        let lying: Option<_> = (0..self.count).map(|i| (self.row)(i).to_slice().and_then(T::as_accum)).collect();
        if let Some(rows) = lying {
            return Matrix { rows, columns: self.columns };
        }
        self.pack(isa, scratch);
        scratch.matrix()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::factor::Factor;
    use crate::attention::float::constant;
    use crate::attention::pairs::Pair;
    use ndarray::Array2;
    use num_traits::Zero;
    use proptest::prelude::*;

    fn packed(matrix: &Array2<f64>) -> Tile<f64> {
        let mut tile = Tile::default();
        tile.pack(Isa::best(), matrix.nrows(), matrix.ncols(), |i| matrix.row(i));
        tile
    }

    fn matrix(rows: usize, columns: usize, salt: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + salt) % 23) as f64 - 11.0)
    }

    proptest! {
        /// Small integers: every order of summation is exact.
        #[test]
        fn products_are_those_of_the_definition(m in 1usize..20, k in 0usize..40, n in 1usize..150) {
            let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
            for isa in Isa::available() {
                let mut c = packed(&matrix(m, n, 3));
                c.add_product(isa, &packed(&a), &packed(&b));
                let mut c_t = packed(&matrix(m, n, 3));
                c_t.add_product_transposed(isa, &packed(&a.t().to_owned()), &packed(&b));
                for i in 0..m {
                    for j in 0..n {
                        let expected = matrix(m, n, 3)[[i, j]] + (0..k).map(|kk| a[[i, kk]] * b[[kk, j]]).sum::<f64>();
                        prop_assert_eq!(c.row(i)[j], expected);
                        prop_assert_eq!(c_t.row(i)[j], expected);
                    }
                }
            }
        }

        #[test]
        fn packed_forms_hold_the_tile(m in 1usize..100, n in 1usize..100) {
            packed_forms_hold::<f64>(m, n)?;
            packed_forms_hold::<Pair>(m, n)?;
        }
    }

    /// Small integers and halves of them, which every factor holds.
    fn packed_forms_hold<F: Factor>(m: usize, n: usize) -> Result<(), TestCaseError> {
        let tile = |rows: usize, columns: usize, salt: usize| {
            let numbers = matrix(rows, columns, salt);
            let mut tile = Tile::<F::Sum>::zeros(rows, columns);
            numbers.indexed_iter().for_each(|((i, j), x)| tile.row_mut(i)[j] = constant(*x));
            tile
        };
        let (before, source) = (tile(n, m + 1, 5), tile(m, n, 0));
        let (mut panels, mut transposed) = (Panels::<F>::default(), Panels::<F>::default());
        let mut strips = Strips::<F>::default();
        for isa in Isa::available() {
            // Into memory that held something else.
            for (tile, factor) in [(&before, 1.0), (&source, 2.0)] {
                panels.pack(isa, &tile.matrix());
                transposed.pack_transposed(isa, &tile.matrix());
                strips.pack(isa, &tile.matrix(), constant(factor));
            }
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let (x, depth) = (source.row(i)[j], F::DEPTH);
                prop_assert_eq!(panels.at(i, j), x);
                prop_assert_eq!(transposed.at(j, i), x);
                let strip = strips.strip(i / ROWS)[j / depth * ROWS + i % ROWS];
                prop_assert_eq!(strip.term(j % depth), x + x);
            }
            if m % F::DEPTH == 1 {
                prop_assert_eq!(panels.at(m, 0), F::Sum::zero(), "the term that fills up the last row of elements");
            }
        }
        Ok(())
    }

    #[test]
    fn one_infinity_is_noticed() {
        let mut a = matrix(3, 5, 0);
        assert!(packed(&a).finite(Isa::best()));
        a[[1, 4]] = f64::NEG_INFINITY;
        assert!(!packed(&a).finite(Isa::best()));
    }
}
