//! What products multiply: accumulators, or pairs of `bf16` that an instruction multiplies and adds up at once.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::{Float, mul_add};
use super::isa::{Isa, Machine};
use super::kernels::{self, Left, ROWS, Right, STRIDE, Start};
use super::transpose::transpose;
use std::fmt::Debug;

/// An element of a packed factor: the terms of [`DEPTH`](Factor::DEPTH) consecutive inner indices of a product.
pub(crate) trait Factor: Copy + Default + Debug + Send + Sync + 'static {
    /// What terms come from and products are summed in.
    type Sum: Float;
    /// Terms in an element.
    const DEPTH: usize;
    /// The distance between rows of weights: an odd number of cache lines, as [`STRIDE`] is.
    const STRIDE: usize;

    /// Rows of terms, up to [`TOGETHER`](super::transpose::TOGETHER) of one length, side by side: `to[at · width + r]` becomes
    /// the `at`-th element of row `r`, its terms times `factor` and 0 beyond the row's end; and 0 where rows are missing to
    /// that number or to `width`.
    fn side_by_side(isa: Isa, rows: &[&[Self::Sum]], factor: Self::Sum, width: usize, to: &mut [Self]);

    /// Elements whose terms stand below one another, in up to `DEPTH` rows as long as `to` or shorter; others are 0.
    fn below_one_another(rows: &[&[Self::Sum]], to: &mut [Self]);

    /// `sums += a ⊗ b`.
    fn add_outer<M: Machine, const C: usize>(a: [Self; ROWS], b: &[Self; C], sums: &mut [[Self::Sum; C]; ROWS]);

    /// Term `n`.
    fn term(self, n: usize) -> Self::Sum;

    /// `C ← start + A·B[..k]`, the rows of the strip being those of `a`, `STRIDE` apart.
    fn product(
        isa: Isa,
        a: &[Self],
        b: Right<'_, Self>,
        k: usize,
        c: (&mut [Self::Sum], usize),
        start: Start<Self::Sum>,
    );

    /// `C ← start + Aᵀ·B[..k]`: row `r` of the strip is column `r` of `a`.
    fn product_transposed(
        isa: Isa,
        a: Left<'_, Self>,
        b: Right<'_, Self>,
        k: usize,
        c: (&mut [Self::Sum], usize),
        start: Start<Self::Sum>,
    );

    /// The first `n` weights of each row of a strip as a left factor: what they are already, or what they become in `room`.
    fn weights<'a>(isa: Isa, strip: &'a [Self::Sum], n: usize, room: &'a mut [Self]) -> &'a [Self];

    /// The first `n` weights of each row of a strip as terms that stand below one another, for a left factor's columns.
    /// Nothing is done where [`band`](Factor::band) reads the weights themselves.
    fn stack(isa: Isa, strip: &[Self::Sum], n: usize, to: &mut [Self]);

    /// The stacked weights of a band of rows: they themselves, or what was made of them.
    fn band<'a>(weights: &'a [Self::Sum], stacked: &'a [Self]) -> &'a [Self];
}

impl<A: Float> Factor for A {
    type Sum = A;
    const DEPTH: usize = 1;
    const STRIDE: usize = STRIDE;

    fn side_by_side(isa: Isa, rows: &[&[A]], factor: A, width: usize, to: &mut [A]) {
        transpose(isa, rows, factor, width, to);
    }

    #[inline]
    fn below_one_another(rows: &[&[A]], to: &mut [A]) {
        kernels::copy_row(rows[0], to);
    }

    #[inline(always)]
    fn add_outer<M: Machine, const C: usize>(a: [A; ROWS], b: &[A; C], sums: &mut [[A; C]; ROWS]) {
        for r in 0..ROWS {
            for lane in 0..C {
                sums[r][lane] = mul_add::<A, M>(a[r], b[lane], sums[r][lane]);
            }
        }
    }

    fn term(self, _: usize) -> A {
        self
    }

    fn product(isa: Isa, a: &[A], b: Right<'_, A>, k: usize, (c, stride): (&mut [A], usize), start: Start<A>) {
        kernels::product(isa, a, b, k, c, stride, start);
    }

    fn product_transposed(
        isa: Isa,
        a: Left<'_, A>,
        b: Right<'_, A>,
        k: usize,
        (c, stride): (&mut [A], usize),
        start: Start<A>,
    ) {
        kernels::product_transposed(isa, a, b, k, c, stride, start);
    }

    fn weights<'a>(_: Isa, strip: &'a [A], _: usize, _: &'a mut [A]) -> &'a [A] {
        strip
    }

    fn stack(_: Isa, _: &[A], _: usize, _: &mut [A]) {}

    fn band<'a>(weights: &'a [A], _: &'a [A]) -> &'a [A] {
        weights
    }
}
