//! Pairs of `bf16` as factors: `VDPBF16PS` multiplies sixteen of them and adds up both products of each, twice the work of a
//! multiply-add of `f32`. Where there is no such instruction the same is said in others, with the same bits.
//!
//! Its definition: subnormal factors and sums count as 0, and of a pair the product of the second terms is added first, each
//! sum rounded to nearest. Of two `bf16` the product is exact in `f32`.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::factor::Factor;
use super::float::mul_add;
use super::isa::{Isa, Machine, stamped_for_pairs};
use super::kernels::{ByColumns, ByRows, LANES, Left, MAX_KEYS, ROWS, Right, STRIDE, Start, panels};
use super::transpose::{TOGETHER, transpose_block};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// The terms of two consecutive inner indices, the first in the lower half; never subnormal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Pair(u32);

/// The bits of the nearest `bf16`, in the upper half: ties to even, 0 for what is subnormal, a quiet NaN for a NaN.
#[inline(always)]
fn narrowed(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let flushed = if x.abs() < f32::MIN_POSITIVE { bits & 0x8000_0000 } else { nearest };
    (if x.is_nan() { bits | 0x0040_0000 } else { flushed }) & 0xffff_0000
}

/// 0 of the same sign for a subnormal number.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

impl Pair {
    /// Rounds two terms.
    #[inline(always)]
    pub(crate) fn new(first: f32, second: f32) -> Self {
        Self(narrowed(first) >> 16 | narrowed(second))
    }

    #[inline(always)]
    fn first(self) -> f32 {
        f32::from_bits(self.0 << 16)
    }

    #[inline(always)]
    fn second(self) -> f32 {
        f32::from_bits(self.0 & 0xffff_0000)
    }
}

stamped_for_pairs! {
    /// `C ← start + A·B`, over `k` pairs.
    fn product(a: &[Pair], b: Right<'_, Pair>, k: usize, c: &mut [f32], c_stride: usize, start: Start<f32>) = by_rows
}

#[inline(always)]
fn by_rows<M: Machine>(a: &[Pair], b: Right<'_, Pair>, k: usize, c: &mut [f32], c_stride: usize, start: Start<f32>) {
    panels::<Pair, M>(ByRows(a), b, k, c, c_stride, start);
}

stamped_for_pairs! {
    /// `C ← start + Aᵀ·B`, over `k` pairs.
    fn product_transposed(
        a: Left<'_, Pair>,
        b: Right<'_, Pair>,
        k: usize,
        c: &mut [f32],
        c_stride: usize,
        start: Start<f32>,
    ) = by_columns
}

#[inline(always)]
fn by_columns<M: Machine>(
    a: Left<'_, Pair>,
    b: Right<'_, Pair>,
    k: usize,
    c: &mut [f32],
    c_stride: usize,
    start: Start<f32>,
) {
    panels::<Pair, M>(ByColumns(a), b, k, c, c_stride, start);
}

stamped_for_pairs! {
    /// Pairs of neighbours: `to[r, c] ← (s[r, 2c], s[r, 2c + 1])` for the first `n` columns of a strip, and a 0 after the last
    /// if their number is odd.
    fn pair_neighbours(s: &[f32], n: usize, to: &mut [Pair]) = pair_neighbours_body
}

#[inline(always)]
fn pair_neighbours_body<M: Machine>(s: &[f32], n: usize, to: &mut [Pair]) {
    for r in 0..ROWS {
        // Whole vectors: rows are long enough.
        let chunks = s[r * STRIDE..].as_chunks::<{ 2 * LANES }>().0;
        let row = &mut to[r * Pair::STRIDE..][..Pair::STRIDE];
        for (to, chunk) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(&chunks[..n.div_ceil(2 * LANES)]) {
            *to = neighbours::<M>(chunk);
        }
        if !n.is_multiple_of(2) {
            row[n / 2] = Pair(row[n / 2].0 & 0xffff);
        }
    }
}

#[inline(always)]
fn neighbours<M: Machine>(from: &[f32; 2 * LANES]) -> [Pair; LANES] {
    #[cfg(target_arch = "x86_64")]
    if const { M::PAIRS } {
        // SAFETY: such a machine has the instruction, and there are two vectors of sixteen numbers.
        return unsafe {
            let (first, last) = (x86::_mm512_loadu_ps(from.as_ptr()), x86::_mm512_loadu_ps(from.as_ptr().add(LANES)));
            std::mem::transmute::<x86::__m512bh, [Pair; LANES]>(x86::_mm512_cvtne2ps_pbh(last, first))
        };
    }
    std::array::from_fn(|lane| Pair::new(from[2 * lane], from[2 * lane + 1]))
}

stamped_for_pairs! {
    /// Pairs of neighbours, side by side: [`Factor::side_by_side`].
    fn pair_transpose(rows: &[&[f32]], factor: f32, width: usize, to: &mut [Pair]) = pair_transpose_body
}

#[inline(always)]
fn pair_transpose_body<M: Machine>(rows: &[&[f32]], factor: f32, width: usize, to: &mut [Pair]) {
    const TERMS: usize = 2 * LANES;
    let length = rows[0].len();
    for (first, to) in (0..length).step_by(TERMS).zip(to.chunks_mut(LANES * width)) {
        let count = TERMS.min(length - first);
        let mut block = [[Pair::default(); LANES]; TOGETHER];
        for (pairs, row) in block.iter_mut().zip(rows) {
            let mut terms = [0.0; TERMS];
            terms[..count].copy_from_slice(&row[first..first + count]);
            for term in &mut terms {
                *term *= factor;
            }
            *pairs = neighbours::<M>(&terms);
        }
        transpose_block::<Pair, M>(&block, count.div_ceil(2), width, to);
    }
}

stamped_for_pairs! {
    /// Pairs of what stands below one another: `to[r, c] ← (s[2r, c], s[2r + 1, c])` for the first `n` columns of a strip.
    fn pair_rows(s: &[f32], n: usize, to: &mut [Pair]) = pair_rows_body
}

#[inline(always)]
fn pair_rows_body<M: Machine>(s: &[f32], n: usize, to: &mut [Pair]) {
    for r in 0..ROWS / 2 {
        let [above, below] = [2 * r, 2 * r + 1].map(|row| s[row * STRIDE..].as_chunks::<LANES>().0);
        let row = to[r * STRIDE..].as_chunks_mut::<LANES>().0;
        for ((to, above), below) in row[..n.div_ceil(LANES)].iter_mut().zip(above).zip(below) {
            *to = interleaved::<M>(above, below);
        }
    }
}

#[inline(always)]
fn interleaved<M: Machine>(first: &[f32; LANES], second: &[f32; LANES]) -> [Pair; LANES] {
    #[cfg(target_arch = "x86_64")]
    if const { M::PAIRS } {
        const ORDER: [u16; 2 * LANES] = {
            let (mut order, mut at) = ([0; 2 * LANES], 0);
            while at < LANES {
                (order[2 * at], order[2 * at + 1]) = (at as u16, (at + LANES) as u16);
                at += 1;
            }
            order
        };
        // SAFETY: such a machine has the instructions, and all have sixteen numbers or thirty-two halves.
        return unsafe {
            let (first, second) = (x86::_mm512_loadu_ps(first.as_ptr()), x86::_mm512_loadu_ps(second.as_ptr()));
            let one_after_another =
                std::mem::transmute::<x86::__m512bh, x86::__m512i>(x86::_mm512_cvtne2ps_pbh(second, first));
            let order = x86::_mm512_loadu_si512(ORDER.as_ptr().cast());
            std::mem::transmute::<x86::__m512i, [Pair; LANES]>(x86::_mm512_permutexvar_epi16(order, one_after_another))
        };
    }
    std::array::from_fn(|lane| Pair::new(first[lane], second[lane]))
}

impl Factor for Pair {
    type Sum = f32;
    const DEPTH: usize = 2;
    const STRIDE: usize = MAX_KEYS / 2 + LANES;

    fn side_by_side(isa: Isa, rows: &[&[f32]], factor: f32, width: usize, to: &mut [Self]) {
        pair_transpose(isa, rows, factor, width, to);
    }

    fn below_one_another(rows: &[&[f32]], to: &mut [Self]) {
        let (used, padding) = to.split_at_mut(rows[0].len());
        match rows {
            [first, second, ..] => {
                used.iter_mut().zip(*first).zip(*second).for_each(|((to, x), y)| *to = Self::new(*x, *y));
            }
            _ => used.iter_mut().zip(rows[0]).for_each(|(to, x)| *to = Self::new(*x, 0.0)),
        }
        padding.fill(Self::default());
    }

    #[inline(always)]
    fn add_outer<M: Machine, const C: usize>(a: [Self; ROWS], b: &[Self; C], sums: &mut [[f32; C]; ROWS]) {
        #[cfg(target_arch = "x86_64")]
        if const { M::PAIRS && C.is_multiple_of(16) } {
            for at in (0..C).step_by(16) {
                // SAFETY: such a machine has the instruction, and both rows have sixteen elements of four bytes from `at` on.
                unsafe {
                    let b: x86::__m512bh = std::mem::transmute(x86::_mm512_loadu_si512(b.as_ptr().add(at).cast()));
                    for r in 0..ROWS {
                        let a: x86::__m512bh = std::mem::transmute(x86::_mm512_set1_epi32(a[r].0.cast_signed()));
                        let to = sums[r].as_mut_ptr().add(at);
                        x86::_mm512_storeu_ps(to, x86::_mm512_dpbf16_ps(x86::_mm512_loadu_ps(to), a, b));
                    }
                }
            }
            return;
        }
        for r in 0..ROWS {
            for lane in 0..C {
                let sum = flushed(sums[r][lane]);
                let sum = flushed(mul_add::<f32, M>(a[r].second(), b[lane].second(), sum));
                sums[r][lane] = flushed(mul_add::<f32, M>(a[r].first(), b[lane].first(), sum));
            }
        }
    }

    fn term(self, n: usize) -> f32 {
        [self.first(), self.second()][n]
    }

    fn product(
        isa: Isa,
        a: &[Self],
        b: Right<'_, Self>,
        k: usize,
        (c, stride): (&mut [f32], usize),
        start: Start<f32>,
    ) {
        product(isa, a, b, k.div_ceil(2), c, stride, start);
    }

    fn product_transposed(
        isa: Isa,
        a: Left<'_, Self>,
        b: Right<'_, Self>,
        k: usize,
        (c, stride): (&mut [f32], usize),
        start: Start<f32>,
    ) {
        product_transposed(isa, a, b, k.div_ceil(2), c, stride, start);
    }

    fn weights<'a>(isa: Isa, strip: &'a [f32], n: usize, room: &'a mut [Self]) -> &'a [Self] {
        pair_neighbours(isa, strip, n, room);
        room
    }

    fn stack(isa: Isa, strip: &[f32], n: usize, to: &mut [Self]) {
        pair_rows(isa, strip, n, to);
    }

    fn band<'a>(_: &'a [f32], stacked: &'a [Self]) -> &'a [Self] {
        stacked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::panels::Panels;
    use crate::attention::tile::Matrix;
    use proptest::prelude::*;
    use tilewright_scalar::bf16;

    /// What counts as 0 is 0.
    fn flush(x: bf16) -> bf16 {
        if x.to_f32().is_subnormal() { bf16::from_f32(0f32.copysign(x.to_f32())) } else { x }
    }

    fn same(x: f32, y: f32) -> bool {
        x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
    }

    /// The definition, in `f64`: there a product of two terms is exact, and so is its sum with anything of the same size.
    fn dot(a: [f32; 2], b: [f32; 2], sum: f32) -> f32 {
        let second = (f64::from(a[1]) * f64::from(b[1]) + f64::from(sum)) as f32;
        (f64::from(a[0]) * f64::from(b[0]) + f64::from(second)) as f32
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        /// Any bits: subnormal numbers, infinities and NaN among them.
        #[test]
        fn rounding_is_to_nearest(first: u32, second: u32, near_a_tie: bool) {
            let bits = [first, second].map(|bits| if near_a_tie { bits & 0xffff_8000 } else { bits });
            let [x, y] = bits.map(f32::from_bits);
            // A number that is subnormal before it is rounded is flushed even if it would be rounded up to a normal one.
            let expected = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { flush(bf16::from_f32(x)).to_f32() };
            let pair = Pair::new(x, y);
            prop_assert!(same(pair.term(0), expected(x)), "{x}: {}", pair.term(0));
            prop_assert!(same(pair.term(1), expected(y)), "{y}: {}", pair.term(1));
        }

        /// By rows and by columns, on every instruction set, in the order of the definition.
        #[test]
        fn products_are_those_of_the_definition(
            k in 1usize..12,
            columns in 1usize..100,
            odd: bool,
            a in proptest::collection::vec(-8i8..8, 24),
            scale in -60i32..60,
        ) {
            let inner = 2 * k - usize::from(odd);
            let term = |row: usize, at: usize| f32::from(a[(row * 7 + at * 5) % 24]) * 2f32.powi(scale) * 1.0625;
            let zero_beyond = |row: usize, at: usize| if at < inner { term(row, at) } else { 0.0 };
            let pair = |row: usize, at: usize| Pair::new(zero_beyond(row, 2 * at), zero_beyond(row, 2 * at + 1));
            let stride = columns.next_multiple_of(LANES);
            let rows: Vec<Vec<f32>> =
                (0..inner).map(|at| (0..columns).map(|column| term(column + 11, at)).collect()).collect();
            let b = Matrix { rows: rows.iter().map(|row| &row[..]).collect(), columns };
            let mut rows = vec![Pair::default(); ROWS * Pair::STRIDE];
            let mut strip = vec![Pair::default(); ROWS * k];
            for (r, at) in (0..ROWS).flat_map(|r| (0..k).map(move |at| (r, at))) {
                (rows[r * Pair::STRIDE + at], strip[at * ROWS + r]) = (pair(r, at), pair(r, at));
            }
            for isa in Isa::available() {
                let mut panels = Panels::default();
                panels.pack(isa, &b);
                let right = panels.whole();
                let mut c = [vec![0.5f32; ROWS * stride], vec![0.5f32; ROWS * stride]];
                Pair::product(isa, &rows, right, inner, (&mut c[0], stride), Start::Sum);
                let left = Left { data: &strip[..], stride: ROWS };
                Pair::product_transposed(isa, left, right, inner, (&mut c[1], stride), Start::Sum);
                for (r, column) in (0..ROWS).flat_map(|r| (0..columns).map(move |column| (r, column))) {
                    let expected = (0..k).fold(0.5, |sum, at| {
                        let terms = |row| [zero_beyond(row, 2 * at), zero_beyond(row, 2 * at + 1)];
                        dot(terms(r), terms(column + 11), sum)
                    });
                    prop_assert_eq!(c[0][r * stride + column], expected);
                    prop_assert_eq!(c[1][r * stride + column], expected);
                }
            }
        }

        #[test]
        fn strips_are_paired_both_ways(n in 1usize..=MAX_KEYS, salt: u32) {
            let number = |r: usize, c: usize| ((r * 977 + c * 31) as u32 ^ salt) as f32 / 7.0;
            let strip: Vec<f32> = (0..ROWS * STRIDE).map(|at| number(at / STRIDE, at % STRIDE)).collect();
            let rounded = |r: usize, c: usize| bf16::from_f32(number(r, c)).to_f32();
            for isa in Isa::available() {
                let mut room = vec![Pair::default(); ROWS * Pair::STRIDE];
                let beside = Pair::weights(isa, &strip, n, &mut room);
                let mut below = vec![Pair::default(); ROWS / 2 * STRIDE];
                Pair::stack(isa, &strip, n, &mut below);
                for (r, c) in (0..ROWS).flat_map(|r| (0..n).map(move |c| (r, c))) {
                    prop_assert_eq!(beside[r * Pair::STRIDE + c / 2].term(c % 2), rounded(r, c));
                    prop_assert_eq!(below[r / 2 * STRIDE + c].term(r % 2), rounded(r, c));
                }
                if n % 2 == 1 {
                    prop_assert!((0..ROWS).all(|r| beside[r * Pair::STRIDE + n / 2].term(1).to_bits() == 0));
                }
            }
        }
    }

    /// Subnormal sums become 0 of their sign, at every step.
    #[test]
    fn subnormal_sums_are_flushed() {
        let tiny = Pair::new(2f32.powi(-70), 2f32.powi(-64));
        for isa in Isa::available() {
            let right = Right { data: &[tiny; LANES][..], first: 0, columns: 1, depth: 1, skip: 0, packed: 1 };
            let mut c = vec![-f32::MIN_POSITIVE / 2.0; ROWS * LANES];
            let left = Left { data: &[tiny; ROWS][..], stride: ROWS };
            Pair::product_transposed(isa, left, right, 2, (&mut c, LANES), Start::Sum);
            // Both products are subnormal, 2^−128 and 2^−140, and so is what they are added to.
            assert_eq!(c[0], 0.0);
        }
    }
}
