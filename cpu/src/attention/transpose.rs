//! Rows side by side: what a packed factor is made of.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::Float;
use super::isa::{Machine, stamped};
use super::kernels::LANES;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;

/// Rows that are transposed together, so that what is read and what is written both stay in the nearest cache.
pub(crate) const TOGETHER: usize = 8;

stamped! {
    /// `to[at · width + r] ← factor · rows[r][at]` for up to [`TOGETHER`] rows of one length, and 0 for those missing to that
    /// number or to `width`.
    pub(crate) fn transpose<A: Float>(rows: &[&[A]], factor: A, width: usize, to: &mut [A]) = transpose_body
}

#[inline(always)]
fn transpose_body<A: Float, M: Machine>(rows: &[&[A]], factor: A, width: usize, to: &mut [A]) {
    let length = rows[0].len();
    #[cfg(target_arch = "x86_64")]
    if const { M::WIDENS && size_of::<A>() == 4 } {
        let whole = length - length % TOGETHER;
        for at in (0..whole).step_by(TOGETHER) {
            square::<A>(rows, at, factor, width, to);
        }
        return element_by_element(rows, whole..length, factor, width, to);
    }
    element_by_element(rows, 0..length, factor, width, to);
}

#[inline(always)]
fn element_by_element<A: Float>(rows: &[&[A]], columns: std::ops::Range<usize>, factor: A, width: usize, to: &mut [A]) {
    for at in columns {
        let lanes = to[at * width..].iter_mut().take(width.min(TOGETHER)).enumerate();
        lanes.for_each(|(r, to)| *to = rows.get(r).map_or(A::zero(), |row| factor * row[at]));
    }
}

/// Eight columns from `at` on, in registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn square<A: Float>(rows: &[&[A]], at: usize, factor: A, width: usize, to: &mut [A]) {
    assert!(size_of::<A>() == 4, "numbers of four bytes");
    // SAFETY: who calls this has AVX; eight numbers are read from a row that has them.
    unsafe {
        let factor = x86::_mm256_broadcast_ss(&*(&raw const factor).cast());
        let mut block = [x86::_mm256_setzero_ps(); TOGETHER];
        for (to, row) in block.iter_mut().zip(rows) {
            *to = x86::_mm256_mul_ps(factor, x86::_mm256_loadu_ps(row[at..at + 8].as_ptr().cast()));
        }
        put_columns(block, TOGETHER, width, &mut to[at * width..]);
    }
}

/// Writes the first `count` columns of a block of eight by eight, `width` apart. Where rows are fewer than [`TOGETHER`] and
/// `width` is too, a column's zeros spill into the next column, which is written next.
///
/// # Safety
/// The machine has AVX.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn put_columns<E: Copy + Default>(block: [x86::__m256; TOGETHER], count: usize, width: usize, to: &mut [E]) {
    assert!(size_of::<E>() == 4, "elements of four bytes");
    // SAFETY: the machine has AVX, says the caller; and eight elements are written where there is room for them.
    unsafe {
        for (column, lanes) in transposed(block).into_iter().enumerate().take(count) {
            let to = &mut to[column * width..];
            if to.len() >= 8 {
                x86::_mm256_storeu_ps(to.as_mut_ptr().cast(), lanes);
            } else {
                let mut last = [E::default(); 8];
                x86::_mm256_storeu_ps(last.as_mut_ptr().cast(), lanes);
                to.copy_from_slice(&last[..to.len()]);
            }
        }
    }
}

/// `to[at · width + r] ← block[r][at]` for the first `count` elements, of four bytes, of each row; what rows there are beyond
/// `width` are zeros, and not written to stay.
#[inline(always)]
pub(super) fn transpose_block<E: Copy + Default, M: Machine>(
    block: &[[E; LANES]; TOGETHER],
    count: usize,
    width: usize,
    to: &mut [E],
) {
    #[cfg(target_arch = "x86_64")]
    if const { M::WIDENS && size_of::<E>() == 4 } {
        for at in (0..count).step_by(TOGETHER) {
            // SAFETY: such a machine has AVX, and a row has eight elements of four bytes from `at` on.
            unsafe {
                let mut square = [x86::_mm256_setzero_ps(); TOGETHER];
                for (to, row) in square.iter_mut().zip(block) {
                    *to = x86::_mm256_loadu_ps(row.as_ptr().add(at).cast());
                }
                put_columns(square, count - at, width, &mut to[at * width..]);
            }
        }
        return;
    }
    for at in 0..count {
        let lanes = to[at * width..].iter_mut().take(width.min(TOGETHER));
        lanes.zip(block).for_each(|(to, row)| *to = row[at]);
    }
}

/// # Safety
/// The machine has AVX.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transposed(rows: [x86::__m256; 8]) -> [x86::__m256; 8] {
    use x86::{_mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps};
    // Written out, as closures would be compiled without the machine's features.
    // SAFETY: the machine has AVX, says the caller.
    unsafe {
        // Pairs of rows, then fours of them in both halves, then the halves.
        let (a, b) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[0], rows[1]));
        let (c, d) = (_mm256_unpacklo_ps(rows[2], rows[3]), _mm256_unpackhi_ps(rows[2], rows[3]));
        let (e, f) = (_mm256_unpacklo_ps(rows[4], rows[5]), _mm256_unpackhi_ps(rows[4], rows[5]));
        let (g, h) = (_mm256_unpacklo_ps(rows[6], rows[7]), _mm256_unpackhi_ps(rows[6], rows[7]));
        let upper = [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xee>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xee>(b, d),
        ];
        let lower = [
            _mm256_shuffle_ps::<0x44>(e, g),
            _mm256_shuffle_ps::<0xee>(e, g),
            _mm256_shuffle_ps::<0x44>(f, h),
            _mm256_shuffle_ps::<0xee>(f, h),
        ];
        [
            _mm256_permute2f128_ps::<0x20>(upper[0], lower[0]),
            _mm256_permute2f128_ps::<0x20>(upper[1], lower[1]),
            _mm256_permute2f128_ps::<0x20>(upper[2], lower[2]),
            _mm256_permute2f128_ps::<0x20>(upper[3], lower[3]),
            _mm256_permute2f128_ps::<0x31>(upper[0], lower[0]),
            _mm256_permute2f128_ps::<0x31>(upper[1], lower[1]),
            _mm256_permute2f128_ps::<0x31>(upper[2], lower[2]),
            _mm256_permute2f128_ps::<0x31>(upper[3], lower[3]),
        ]
    }
}
