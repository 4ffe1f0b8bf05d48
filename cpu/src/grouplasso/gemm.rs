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
