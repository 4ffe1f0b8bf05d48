//! Matrix products: the one place that calls the `gemm` crate, and the only one of this family with `unsafe` besides
//! [`simd`](super::simd).
//!
//! Work is split at fixed places, never by the number of threads, and each piece is computed by one thread: every number
//! is the same for any number of threads.

use rayon::prelude::*;
use tilewright_scalar::Accum;

/// Samples of a block; see [`Blocks`].
pub(super) const BLOCK: usize = 512;

/// Rows of a piece of work.
const ROWS: usize = 128;

/// A matrix read: element `(i, j)` lies at `i · rows + j · columns`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand<'a, S> {
    pub(super) data: &'a [S],
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<'a, S> Operand<'a, S> {
    /// Row-major with a row stride.
    pub(super) fn by_rows(data: &'a [S], stride: usize) -> Self {
        Self { data, rows: stride, columns: 1 }
    }

    /// The transpose of a row-major matrix with a row stride.
    pub(super) fn transposed(data: &'a [S], stride: usize) -> Self {
        Self { data, rows: 1, columns: stride }
    }
}

/// `C := keep · C + factor · A B` with `A` of `m × k`, and `C` row-major with a row stride; `keep` is 0 or 1.
pub(super) fn product<S: Accum>(
    (m, n, k): (usize, usize, usize),
    factor: f64,
    a: Operand<'_, S>,
    b: Operand<'_, S>,
    keep: bool,
    c: &mut [S],
    stride: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    let fits = |len: usize, rows: usize, columns: usize, (m, n): (usize, usize)| {
        m == 0 || n == 0 || (m - 1) * rows + (n - 1) * columns < len
    };
    let inside = fits(a.data.len(), a.rows, a.columns, (m, k))
        && fits(b.data.len(), b.rows, b.columns, (k, n))
        && fits(c.len(), stride, 1, (m, n))
        && (m == 1 || stride >= n);
    assert!(inside, "a matrix product reaches out of its operands");
    let (old, new) = (S::from_f64_exact(f64::from(u8::from(keep))), S::from_f64_exact(factor));
    // SAFETY: all elements lie within the three slices, as was just checked; those of `c` are distinct and borrowed
    // mutably, so they overlap nothing; no conjugation is asked for, and the type is one `gemm` has (`f32` or `f64`).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            keep,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            old,
            new,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Constants in either precision.
pub(super) trait FromExact: Accum {
    /// The nearest number.
    fn from_f64_exact(x: f64) -> Self {
        <Self as tilewright_scalar::Real>::from_f64(x)
    }
}

impl<S: Accum> FromExact for S {}

/// How `n` samples of `C` outputs are kept: blocks of [`BLOCK`] samples, each `C ×` (samples in the block) row-major, so that
/// a block is one slice and an output's samples in it another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) samples: usize,
    pub(super) outputs: usize,
}

impl Blocks {
    /// Elements of a block, the last one's aside.
    pub(super) fn chunk(self) -> usize {
        BLOCK * self.outputs
    }

    /// Numbers in all.
    pub(super) fn len(self) -> usize {
        self.samples * self.outputs
    }

    /// The first sample of a block, and how many it has.
    pub(super) fn span(self, block: usize) -> (usize, usize) {
        let first = block * BLOCK;
        (first, BLOCK.min(self.samples - first))
    }

    /// Where output `k` of a sample is.
    pub(super) fn at(self, sample: usize, output: usize) -> usize {
        let (block, within) = (sample / BLOCK, sample % BLOCK);
        block * self.chunk() + output * self.span(block).1 + within
    }

    /// `Z := Vᵀ X` for `X` of `m × n` (a row a feature) and `V` of `m × C`, into blocks.
    pub(super) fn forward<S: Accum>(self, m: usize, x: &[S], v: &[S], z: &mut [S]) {
        if m == 0 {
            z.fill(S::from_f64_exact(0.0));
            return;
        }
        let (n, c) = (self.samples, self.outputs);
        z.par_chunks_mut(self.chunk()).enumerate().for_each(|(block, z)| {
            let (first, samples) = self.span(block);
            let x = Operand::by_rows(&x[first..], n);
            product((c, samples, m), 1.0, Operand::transposed(v, c), x, false, z, samples);
        });
    }

    /// `U := X Rᵀ`, of `m × C`, for `R` in blocks.
    pub(super) fn adjoint<S: Accum>(self, x: &[S], r: &[S], u: &mut [S]) {
        let (n, c) = (self.samples, self.outputs);
        u.par_chunks_mut(ROWS * c).enumerate().for_each(|(piece, u)| {
            let x = &x[piece * ROWS * n..];
            for (block, r) in r.chunks(self.chunk()).enumerate() {
                let (first, samples) = self.span(block);
                let shape = (u.len() / c, c, samples);
                product(shape, 1.0, Operand::by_rows(&x[first..], n), Operand::transposed(r, samples), block > 0, u, c);
            }
        });
    }
}

/// The lower triangle of `A Bᵀ` (and some of the rest) for `A`, `B` of `m × k` row-major, whose product is symmetric.
pub(super) fn symmetric<S: Accum>(m: usize, k: usize, a: &[S], b: &[S]) -> Vec<S> {
    let mut product_ = vec![S::from_f64_exact(0.0); m * m];
    product_.par_chunks_mut(ROWS * m.max(1)).enumerate().for_each(|(piece, c)| {
        let (first, rows) = (piece * ROWS, c.len() / m);
        let shape = (rows, first + rows, k);
        product(shape, 1.0, Operand::by_rows(&a[first * k..], k), Operand::transposed(b, k), false, c, m);
    });
    product_
}

/// The lower triangle of `Aᵀ A` (and some of the rest) for `A` of `k × m` row-major.
pub(super) fn symmetric_transposed<S: Accum>(m: usize, k: usize, a: &[S]) -> Vec<S> {
    let mut product_ = vec![S::from_f64_exact(0.0); m * m];
    product_.par_chunks_mut(ROWS * m.max(1)).enumerate().for_each(|(piece, c)| {
        let (first, rows) = (piece * ROWS, c.len() / m);
        let shape = (rows, first + rows, k);
        product(shape, 1.0, Operand::transposed(&a[first..], m), Operand::by_rows(a, m), false, c, m);
    });
    product_
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Small whole numbers: their products are exact in any order.
    fn whole(len: usize, seed: usize) -> Vec<f64> {
        (0..len).map(|i| ((i + seed) * 7919 % 11) as f64 - 5.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn blocks_are_products(n in 1usize..1200, c in 1usize..6, m in 0usize..150, seed in 0usize..100) {
            let blocks = Blocks { samples: n, outputs: c };
            let (x, v, r) = (whole(m * n, seed), whole(m * c, seed + 1), whole(n * c, seed + 2));
            let (mut z, mut u) = (vec![f64::NAN; n * c], vec![f64::NAN; m * c]);
            blocks.forward(m, &x, &v, &mut z);
            blocks.adjoint(&x, &r, &mut u);
            for i in (0..n).step_by(37) {
                for k in 0..c {
                    let naive: f64 = (0..m).map(|j| x[j * n + i] * v[j * c + k]).sum();
                    prop_assert_eq!(z[blocks.at(i, k)], naive);
                }
            }
            for j in (0..m).step_by(7) {
                for k in 0..c {
                    let naive: f64 = (0..n).map(|i| x[j * n + i] * r[blocks.at(i, k)]).sum();
                    prop_assert_eq!(u[j * c + k], naive);
                }
            }
        }

        #[test]
        fn symmetric_products(m in 1usize..300, k in 1usize..40, seed in 0usize..100) {
            let a = whole(m * k, seed);
            let rows = symmetric(m, k, &a, &a);
            let transposed: Vec<f64> = (0..m * k).map(|at| a[at % m * k + at / m]).collect();
            let columns = symmetric_transposed(m, k, &transposed);
            for i in (0..m).step_by(5) {
                for j in (0..=i).step_by(3) {
                    let naive: f64 = (0..k).map(|l| a[i * k + l] * a[j * k + l]).sum();
                    prop_assert_eq!((rows[i * m + j], columns[i * m + j]), (naive, naive));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "reaches out")]
    fn a_product_stays_inside() {
        let (a, mut c) = ([1.0; 6], [0.0; 4]);
        product((2, 2, 4), 1.0, Operand::by_rows(&a, 3), Operand::by_rows(&a, 2), false, &mut c, 2);
    }
}
