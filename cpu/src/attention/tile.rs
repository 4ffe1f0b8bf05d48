//! Tiles in fast memory: rows of any layout and format, packed at the door into contiguous accumulators.

use super::microkernel::{self, Operand};
use ndarray::{ArrayView1, ArrayView4};
use std::ops::Range;
use tilewright_attention::{AttentionSpec, tensors};
use tilewright_scalar::{Accum, Element};

/// A small row-major matrix whose rows are padded to whole vectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tile<A> {
    data: Vec<A>,
    stride: usize,
    rows: usize,
    columns: usize,
    /// Whether every element packed is finite. Only then is `0 · x = 0` and a masked entry may enter a product.
    finite: bool,
}

impl<A: Accum> Tile<A> {
    /// A tile of zeros.
    pub(crate) fn zeros(rows: usize, columns: usize) -> Self {
        let mut tile = Self { data: Vec::new(), stride: 0, rows: 0, columns: 0, finite: true };
        tile.reset(rows, columns);
        tile
    }

    /// Makes this a tile of zeros, keeping its memory.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns, self.stride, self.finite) = (rows, columns, microkernel::stride(columns), true);
        self.data.clear();
        self.data.resize(rows * self.stride, A::zero());
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn finite(&self) -> bool {
        self.finite
    }

    pub(crate) fn row(&self, i: usize) -> &[A] {
        &self.data[i * self.stride..][..self.columns]
    }

    pub(crate) fn row_mut(&mut self, i: usize) -> &mut [A] {
        &mut self.data[i * self.stride..][..self.columns]
    }

    fn operand(&self) -> Operand<'_, A> {
        Operand { data: &self.data, stride: self.stride }
    }

    /// Packs `count` rows of `columns` elements.
    pub(crate) fn pack<'a, T: Element<Accum = A>>(
        &mut self,
        count: usize,
        columns: usize,
        row: impl Fn(usize) -> ArrayView1<'a, T>,
    ) {
        self.reset(count, columns);
        for i in 0..count {
            let (row, packed) = (row(i), self.row_mut(i));
            // The branch is for speed: a slice converts by whole vectors.
            match row.as_slice() {
                Some(row) => packed.iter_mut().zip(row).for_each(|(packed, x)| *packed = x.to_accum()),
                None => packed.iter_mut().zip(row).for_each(|(packed, x)| *packed = x.to_accum()),
            }
        }
        self.finite = microkernel::all_finite(&self.data);
    }

    /// The transpose of a packed tile.
    pub(crate) fn transpose_of(&mut self, source: &Self) {
        self.reset(source.columns, source.rows);
        self.finite = source.finite;
        for j in 0..source.rows {
            for (c, x) in source.row(j).iter().enumerate() {
                self.data[c * self.stride + j] = *x;
            }
        }
    }

    /// `self += A·B`.
    pub(crate) fn add_product(&mut self, a: &Self, b: &Self) {
        microkernel::product(a.rows, b.rows, a.operand(), b.operand(), &mut self.data, self.stride);
    }

    /// `self += Aᵀ·B`.
    pub(crate) fn add_product_transposed(&mut self, a: &Self, b: &Self) {
        microkernel::product_transposed(a.columns, b.rows, a.operand(), b.operand(), &mut self.data, self.stride);
    }
}

/// Packs rows `rows` of head `h` of a tensor stored as queries are.
pub(crate) fn pack_queries<T: Element>(
    tile: &mut Tile<T::Accum>,
    spec: &AttentionSpec,
    tensor: ArrayView4<'_, T>,
    [b, h]: [usize; 2],
    rows: &Range<usize>,
) {
    let columns = tensor.dim().3;
    tile.pack(rows.len(), columns, |r| {
        let (slot, i) = spec.query_slot(b, rows.start + r);
        tensors::row(tensor, [slot, h, i])
    });
}

/// Packs keys `keys` of key/value head `h` of a tensor stored as keys are.
pub(crate) fn pack_keys<T: Element>(
    tile: &mut Tile<T::Accum>,
    spec: &AttentionSpec,
    tensor: ArrayView4<'_, T>,
    [b, h]: [usize; 2],
    keys: &Range<usize>,
) {
    let columns = tensor.dim().3;
    tile.pack(keys.len(), columns, |r| {
        let (slot, j) = spec.key_slot(b, keys.start + r);
        tensors::row(tensor, [slot, h, j])
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    fn packed(matrix: &Array2<f64>) -> Tile<f64> {
        let mut tile = Tile::default();
        tile.pack(matrix.nrows(), matrix.ncols(), |i| matrix.row(i));
        tile
    }

    fn matrix(rows: usize, columns: usize, salt: usize) -> Array2<f64> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + salt) % 23) as f64 - 11.0)
    }

    proptest! {
        /// Small integers: every order of summation is exact.
        #[test]
        fn products_are_those_of_the_definition(m in 1usize..12, k in 0usize..40, n in 1usize..40) {
            let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
            let mut c = packed(&matrix(m, n, 3));
            c.add_product(&packed(&a), &packed(&b));
            let mut c_t = packed(&matrix(m, n, 3));
            c_t.add_product_transposed(&packed(&a.t().to_owned()), &packed(&b));
            for i in 0..m {
                for j in 0..n {
                    let expected = matrix(m, n, 3)[[i, j]] + (0..k).map(|kk| a[[i, kk]] * b[[kk, j]]).sum::<f64>();
                    prop_assert_eq!(c.row(i)[j], expected);
                    prop_assert_eq!(c_t.row(i)[j], expected);
                }
            }
        }

        #[test]
        fn transposing_swaps_indices(m in 1usize..20, n in 1usize..20) {
            let source = packed(&matrix(m, n, 0));
            let mut transposed = Tile::default();
            transposed.transpose_of(&source);
            for i in 0..m {
                for j in 0..n {
                    prop_assert_eq!(source.row(i)[j], transposed.row(j)[i]);
                }
            }
        }
    }

    #[test]
    fn one_infinity_is_noticed() {
        let mut a = matrix(3, 5, 0);
        assert!(packed(&a).finite());
        a[[1, 4]] = f64::NEG_INFINITY;
        assert!(!packed(&a).finite());
    }
}
