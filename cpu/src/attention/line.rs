//! A cache line of accumulators: the interleaved sums of an inner product, on every instruction set.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::{Float, Widen, mul_add};
use super::isa::Machine;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
use std::hint::black_box;

/// 64 bytes of accumulators, which an operation treats alike.
pub(crate) trait Line<A>: Copy {
    /// Accumulators in a line.
    const LANES: usize;

    /// # Safety
    /// [`LANES`](Line::LANES) elements can be read.
    unsafe fn load<B: Widen<A>, M: Machine>(from: *const B) -> Self;

    /// The same number in each lane.
    fn all(x: A) -> Self;

    /// # Safety
    /// [`LANES`](Line::LANES) accumulators can be written.
    unsafe fn store(self, to: *mut A);

    /// `x ∘ y`.
    fn product(x: Self, y: Self) -> Self;

    /// `self + x ∘ y`.
    fn add_product<M: Machine>(self, x: Self, y: Self) -> Self;

    /// The sums of the lanes of each, by halves: lane `n` of the first half and of the second are added, and so on.
    fn totals<const N: usize>(lines: [Self; N]) -> [A; N];
}

/// As loops say it.
impl<A: Float, const L: usize> Line<A> for [A; L] {
    const LANES: usize = L;

    #[inline(always)]
    unsafe fn load<B: Widen<A>, M: Machine>(from: *const B) -> Self {
        // SAFETY: as the caller has it.
        B::widen_all::<M, L>(unsafe { &*from.cast() })
    }

    #[inline(always)]
    fn all(x: A) -> Self {
        [x; L]
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut A) {
        // SAFETY: as the caller has it.
        unsafe { *to.cast() = self };
    }

    #[inline(always)]
    fn product(x: Self, y: Self) -> Self {
        std::array::from_fn(|lane| x[lane] * y[lane])
    }

    #[inline(always)]
    fn add_product<M: Machine>(self, x: Self, y: Self) -> Self {
        let mut sums = self;
        for lane in 0..L {
            sums[lane] = mul_add::<A, M>(x[lane], y[lane], sums[lane]);
        }
        sums
    }

    #[inline(always)]
    fn totals<const N: usize>(lines: [Self; N]) -> [A; N] {
        // As a whole: what is added up number by number would be computed number by number.
        let mut lines = black_box(lines);
        for lanes in &mut lines {
            let mut half = L / 2;
            while half > 0 {
                for lane in 0..half {
                    let other = lanes[lane + half];
                    lanes[lane] += other;
                }
                half /= 2;
            }
        }
        std::array::from_fn(|n| lines[n][0])
    }
}

/// As registers, since loops over lines of lanes are not unrolled where there are many; `$four` is the totals of four lines.
#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    (
        $register:ident, $count:literal, $float:ident, $lanes:literal,
        [$set:ident, $store:ident, $mul:ident, $fmadd:ident],
        |$a:ident, $b:ident, $c:ident, $d:ident| $four:expr
    ) => {
        // SAFETY, of all that follows: only machines with such registers have lines of this type, and a line is as many numbers
        // as its registers hold.
        impl Line<$float> for [x86::$register; $count] {
            const LANES: usize = $lanes;

            #[inline(always)]
            fn all(x: $float) -> Self {
                [unsafe { x86::$set(x) }; $count]
            }

            #[inline(always)]
            unsafe fn load<B: Widen<$float>, M: Machine>(from: *const B) -> Self {
                // SAFETY: as the caller has it.
                unsafe { std::mem::transmute(B::widen_all::<M, $lanes>(&*from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $float) {
                for n in 0..$count {
                    // SAFETY: as the caller has it.
                    unsafe { x86::$store(to.add(n * ($lanes / $count)), self[n]) };
                }
            }

            #[inline(always)]
            fn product(x: Self, y: Self) -> Self {
                let mut products = x;
                for n in 0..$count {
                    products[n] = unsafe { x86::$mul(x[n], y[n]) };
                }
                products
            }

            #[inline(always)]
            fn add_product<M: Machine>(self, x: Self, y: Self) -> Self {
                let mut sums = self;
                for n in 0..$count {
                    sums[n] = unsafe { x86::$fmadd(x[n], y[n], self[n]) };
                }
                sums
            }

            #[inline(always)]
            fn totals<const N: usize>(lines: [Self; N]) -> [$float; N] {
                let mut totals = [0.0; N];
                for at in (0..N).step_by(4) {
                    let [$a, $b, $c, $d] = [0, 1, 2, 3].map(|n| lines[(at + n).min(N - 1)]);
                    let four: [$float; 4] = unsafe { std::mem::transmute($four) };
                    for n in at..N.min(at + 4) {
                        totals[n] = four[n - at];
                    }
                }
                totals
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
registers!(__m512, 1, f32, 16, [_mm512_set1_ps, _mm512_storeu_ps, _mm512_mul_ps, _mm512_fmadd_ps], |a, b, c, d| {
    // Halves of two lines in one, and quarters of four.
    let ab = x86::_mm512_add_ps(
        x86::_mm512_shuffle_f32x4::<0x44>(a[0], b[0]),
        x86::_mm512_shuffle_f32x4::<0xee>(a[0], b[0]),
    );
    let cd = x86::_mm512_add_ps(
        x86::_mm512_shuffle_f32x4::<0x44>(c[0], d[0]),
        x86::_mm512_shuffle_f32x4::<0xee>(c[0], d[0]),
    );
    let all = x86::_mm512_add_ps(x86::_mm512_shuffle_f32x4::<0x88>(ab, cd), x86::_mm512_shuffle_f32x4::<0xdd>(ab, cd));
    let all = x86::_mm512_add_ps(all, x86::_mm512_permute_ps::<0x4e>(all));
    let all = x86::_mm512_add_ps(all, x86::_mm512_permute_ps::<0xb1>(all));
    x86::_mm512_castps512_ps128(x86::_mm512_maskz_compress_ps(0x1111, all))
});

#[cfg(target_arch = "x86_64")]
registers!(__m512d, 1, f64, 8, [_mm512_set1_pd, _mm512_storeu_pd, _mm512_mul_pd, _mm512_fmadd_pd], |a, b, c, d| {
    let ab = x86::_mm512_add_pd(
        x86::_mm512_shuffle_f64x2::<0x44>(a[0], b[0]),
        x86::_mm512_shuffle_f64x2::<0xee>(a[0], b[0]),
    );
    let cd = x86::_mm512_add_pd(
        x86::_mm512_shuffle_f64x2::<0x44>(c[0], d[0]),
        x86::_mm512_shuffle_f64x2::<0xee>(c[0], d[0]),
    );
    let all = x86::_mm512_add_pd(x86::_mm512_shuffle_f64x2::<0x88>(ab, cd), x86::_mm512_shuffle_f64x2::<0xdd>(ab, cd));
    let all = x86::_mm512_add_pd(all, x86::_mm512_permute_pd::<0x55>(all));
    x86::_mm512_castpd512_pd256(x86::_mm512_maskz_compress_pd(0x55, all))
});

#[cfg(target_arch = "x86_64")]
registers!(__m256, 2, f32, 16, [_mm256_set1_ps, _mm256_storeu_ps, _mm256_mul_ps, _mm256_fmadd_ps], |a, b, c, d| {
    let (a, b) = (x86::_mm256_add_ps(a[0], a[1]), x86::_mm256_add_ps(b[0], b[1]));
    let (c, d) = (x86::_mm256_add_ps(c[0], c[1]), x86::_mm256_add_ps(d[0], d[1]));
    let ab = x86::_mm256_add_ps(x86::_mm256_permute2f128_ps::<0x20>(a, b), x86::_mm256_permute2f128_ps::<0x31>(a, b));
    let cd = x86::_mm256_add_ps(x86::_mm256_permute2f128_ps::<0x20>(c, d), x86::_mm256_permute2f128_ps::<0x31>(c, d));
    let (ab, cd) = (x86::_mm256_castps_pd(ab), x86::_mm256_castps_pd(cd));
    // Pairs of a, c, b, d.
    let (first, last) = (x86::_mm256_unpacklo_pd(ab, cd), x86::_mm256_unpackhi_pd(ab, cd));
    let all = x86::_mm256_add_ps(x86::_mm256_castpd_ps(first), x86::_mm256_castpd_ps(last));
    let all = x86::_mm256_hadd_ps(all, all);
    x86::_mm_unpacklo_ps(x86::_mm256_castps256_ps128(all), x86::_mm256_extractf128_ps::<1>(all))
});

#[cfg(target_arch = "x86_64")]
registers!(__m256d, 2, f64, 8, [_mm256_set1_pd, _mm256_storeu_pd, _mm256_mul_pd, _mm256_fmadd_pd], |a, b, c, d| {
    let (a, b) = (x86::_mm256_add_pd(a[0], a[1]), x86::_mm256_add_pd(b[0], b[1]));
    let (c, d) = (x86::_mm256_add_pd(c[0], c[1]), x86::_mm256_add_pd(d[0], d[1]));
    let ab = x86::_mm256_add_pd(x86::_mm256_permute2f128_pd::<0x20>(a, b), x86::_mm256_permute2f128_pd::<0x31>(a, b));
    let cd = x86::_mm256_add_pd(x86::_mm256_permute2f128_pd::<0x20>(c, d), x86::_mm256_permute2f128_pd::<0x31>(c, d));
    // Of a, c, b, d.
    x86::_mm256_permute4x64_pd::<0xd8>(x86::_mm256_hadd_pd(ab, cd))
});
