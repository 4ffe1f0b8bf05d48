//! Elementary functions as kernels need them: without branches, so that a loop over them becomes vectors, and without
//! any part in the platform's mathematical library.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::factor::Factor;
use super::isa::Machine;
use super::line::Line;
use super::pairs::Pair;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
use tilewright_scalar::{Accum, Element};

/// Relative error of [`exp2`] in unit roundoffs of the accumulator: the tests measure 1.3 in f32 and 1.3 in f64, and
/// three times that is claimed, for what comes of subtracting in base 2.
pub(crate) const EXP_ERROR: f64 = 4.0;

/// An accumulator with the bit patterns that [`exp2`] is made of.
pub(crate) trait Float: Accum {
    /// A line of them as an array.
    type Line: Line<Self>;
    /// A line of them in registers of AVX2.
    #[cfg(target_arch = "x86_64")]
    type Line256: Line<Self>;
    /// A line of them in a register of AVX-512.
    #[cfg(target_arch = "x86_64")]
    type Line512: Line<Self>;

    /// Added and taken away again, it leaves no room for a fraction: rounds to the nearest integer. In between, the sum's
    /// lowest bits are that integer as an exponent is stored.
    const ROUND: Self;
    /// From here down, `2^x` is taken for zero: one less than the smallest normal number's exponent, where the exponent as it is
    /// stored is that of 0.
    const LOWEST: Self;
    /// From this on, `2^x` overflows.
    const HIGHEST: Self;
    /// `log2 e`.
    const LOG2_E: Self;
    /// `ln 2`.
    const LN_2: Self;
    /// `2^x = 1 + x (c_0 + x (c_1 + …))` for `|x| ≤ ½`, least relative error.
    const EXP2: &'static [Self];

    /// `self · y + z`, rounded once.
    fn fused(self, y: Self, z: Self) -> Self;
    /// `2^k` from `k + ROUND`, for `k` from `LOWEST` to `HIGHEST`: 0 and ∞ for these two.
    fn power_of_two(shifted: Self) -> Self;
    /// `tanh x`, to a few units of the last place.
    fn hyperbolic_tangent<M: Machine>(self) -> Self;
}

macro_rules! float_bits {
    ($float:ident, $mantissa:literal) => {
        const ROUND: Self = 1.5 * (1u64 << $mantissa) as $float + ($float::MAX_EXP - 1) as $float;
        const LOWEST: Self = ($float::MIN_EXP - 2) as $float;
        const HIGHEST: Self = $float::MAX_EXP as $float;
        const LOG2_E: Self = std::f64::consts::LOG2_E as $float;
        const LN_2: Self = std::f64::consts::LN_2 as $float;

        #[inline(always)]
        fn fused(self, y: Self, z: Self) -> Self {
            self.mul_add(y, z)
        }

        #[inline(always)]
        fn power_of_two(shifted: Self) -> Self {
            $float::from_bits(shifted.to_bits() << $mantissa)
        }
    };
}

impl Float for f32 {
    type Line = [f32; 16];
    #[cfg(target_arch = "x86_64")]
    type Line256 = [x86::__m256; 2];
    #[cfg(target_arch = "x86_64")]
    type Line512 = [x86::__m512; 1];
    float_bits!(f32, 23);
    // Error 0.04 units.
    const EXP2: &'static [f32] =
        &[std::f32::consts::LN_2, 0.240_226_53, 0.055_503_106, 0.009_617_693, 0.001_340_664_4, 0.000_155_946_78];

    /// Below 5/8 an odd polynomial, as `1 − 2 / (e^2x + 1)` cancels there; both are computed and one is chosen.
    #[inline(always)]
    fn hyperbolic_tangent<M: Machine>(self) -> Self {
        let x = self.abs();
        let z = x * x;
        let mut p = -0.005_717_045;
        for c in [0.020_650_587, -0.053_743_498, 0.133_314_91, -0.333_332_84] {
            p = mul_add::<f32, M>(p, z, c);
        }
        let near = mul_add::<f32, M>(p * z, x, x);
        // Beyond 10, tanh is 1 to the last place; NaN passes.
        let bounded = if x > 10.0 { 10.0 } else { x };
        let far = 1.0 - 2.0 / (exp2::<f32, M>(bounded * (2.0 * f32::LOG2_E)) + 1.0);
        (if x < 0.625 { near } else { far }).copysign(self)
    }
}

impl Float for f64 {
    type Line = [f64; 8];
    #[cfg(target_arch = "x86_64")]
    type Line256 = [x86::__m256d; 2];
    #[cfg(target_arch = "x86_64")]
    type Line512 = [x86::__m512d; 1];
    float_bits!(f64, 52);
    // Error 0.16 units.
    const EXP2: &'static [f64] = &[
        0.693_147_180_559_945_7,
        0.240_226_506_959_101,
        0.055_504_108_664_790_39,
        0.009_618_129_107_607_003,
        0.001_333_355_815_344_013_4,
        0.000_154_035_304_415_723_6,
        1.525_272_738_503_823_7e-5,
        1.321_544_267_518_278_3e-6,
        1.018_064_772_211_885_2e-7,
        7.072_570_442_467_681e-9,
        4.078_062_699_466_225e-10,
    ];

    #[inline(always)]
    fn hyperbolic_tangent<M: Machine>(self) -> Self {
        tilewright_scalar::Real::tanh(self)
    }
}

/// `x · y + z`, in one rounding or in two as the machine has it.
#[inline(always)]
pub(crate) fn mul_add<A: Float, M: Machine>(x: A, y: A, z: A) -> A {
    if M::FUSED { x.fused(y, z) } else { x * y + z }
}

/// `2^x`: 0 where the result would be much smaller than a normal number, ∞ where it would overflow, NaN for NaN.
#[inline(always)]
pub(crate) fn exp2<A: Float, M: Machine>(x: A) -> A {
    exp2_below_one::<A, M>(if x > A::HIGHEST { A::HIGHEST } else { x })
}

/// [`exp2`] for `x ≤ 0`, where a comparison less will do.
#[inline(always)]
pub(crate) fn exp2_below_one<A: Float, M: Machine>(x: A) -> A {
    exp2_of_product::<A, M>(x, A::one(), A::LOWEST)
}

/// `2^(c·x)` for `c·x ≤ 0`, where `lowest` is `LOWEST / c`: `c·x = k + f` with `|f| ≤ ½`, a polynomial in `f` and a power of
/// two. The product is not rounded where multiply-adds are fused.
#[inline(always)]
pub(crate) fn exp2_of_product<A: Float, M: Machine>(x: A, c: A, lowest: A) -> A {
    // In this order NaN is passed on.
    let x = if lowest > x { lowest } else { x };
    let shifted = mul_add::<A, M>(x, c, A::ROUND);
    let f = mul_add::<A, M>(x, c, A::ROUND - shifted);
    let mut p = A::zero();
    for (n, c) in A::EXP2.iter().rev().enumerate() {
        p = if n == 0 { *c } else { mul_add::<A, M>(p, f, *c) };
    }
    mul_add::<A, M>(p, f, A::one()) * A::power_of_two(shifted)
}

/// `ln x` in the accumulator, from the library the references use.
pub(crate) fn ln<A: Float>(x: A) -> A {
    tilewright_scalar::Real::ln(x)
}

/// The nearest accumulator.
pub(crate) fn constant<A: Float>(x: f64) -> A {
    <A as tilewright_scalar::Real>::from_f64(x)
}

/// A number that can be read as an accumulator, exactly. Without branches.
pub(crate) trait Widen<A>: Copy {
    /// The same number; any NaN for a NaN.
    fn widen(self) -> A;

    /// The same numbers, with the instruction for it where the machine has one.
    #[inline(always)]
    fn widen_all<M: Machine, const N: usize>(from: &[Self; N]) -> [A; N] {
        std::array::from_fn(|lane| from[lane].widen())
    }
}

impl<A: Float> Widen<A> for A {
    #[inline(always)]
    fn widen(self) -> A {
        self
    }
}

impl Widen<f32> for tilewright_scalar::f16 {
    /// Exponent and mantissa moved to their place are the number times `2^−112`, subnormal or not.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let moved = (bits & 0x7fff) << 13;
        let finite = f32::from_bits(moved) * f32::from_bits((127 + 112) << 23);
        let magnitude = if bits & 0x7c00 == 0x7c00 { moved | f32::INFINITY.to_bits() } else { finite.to_bits() };
        f32::from_bits(magnitude | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn widen_all<M: Machine, const N: usize>(from: &[Self; N]) -> [f32; N] {
        #[cfg(target_arch = "x86_64")]
        if const { M::VECTOR == 64 && N.is_multiple_of(16) } {
            // SAFETY: such a machine has the instruction, and sixteen numbers lie there.
            return by_registers(from, |at| unsafe { x86::_mm512_cvtph_ps(x86::_mm256_loadu_si256(at.cast())) });
        }
        #[cfg(target_arch = "x86_64")]
        if const { M::WIDENS && N.is_multiple_of(8) } {
            // SAFETY: such a machine has the instruction, and eight numbers lie there.
            return by_registers(from, |at| unsafe { x86::_mm256_cvtph_ps(x86::_mm_loadu_si128(at.cast())) });
        }
        std::array::from_fn(|lane| from[lane].widen())
    }
}

impl Widen<f32> for tilewright_scalar::bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn widen_all<M: Machine, const N: usize>(from: &[Self; N]) -> [f32; N] {
        #[cfg(target_arch = "x86_64")]
        if const { M::VECTOR == 64 && N.is_multiple_of(16) } {
            // SAFETY: such a machine has the instructions, and sixteen numbers lie there.
            return by_registers(from, |at| unsafe {
                let bits = x86::_mm512_cvtepu16_epi32(x86::_mm256_loadu_si256(at.cast()));
                x86::_mm512_castsi512_ps(x86::_mm512_slli_epi32::<16>(bits))
            });
        }
        #[cfg(target_arch = "x86_64")]
        if const { M::WIDENS && N.is_multiple_of(8) } {
            // SAFETY: such a machine has the instructions, and eight numbers lie there.
            return by_registers(from, |at| unsafe {
                let bits = x86::_mm256_cvtepu16_epi32(x86::_mm_loadu_si128(at.cast()));
                x86::_mm256_castsi256_ps(x86::_mm256_slli_epi32::<16>(bits))
            });
        }
        std::array::from_fn(|lane| from[lane].widen())
    }
}

/// As many 16-bit numbers at a time as `widen` makes a register `R` of, from where they lie. What loops say of 16-bit numbers does not
/// become vectors beside other arithmetic.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn by_registers<T, R, const N: usize>(from: &[T; N], widen: impl Fn(*const T) -> R) -> [f32; N] {
    let lanes = size_of::<R>() / size_of::<f32>();
    assert!(size_of::<T>() == 2 && N.is_multiple_of(lanes), "not whole registers of 16-bit numbers");
    let mut to = [0.0; N];
    for at in (0..N).step_by(lanes) {
        // SAFETY: both arrays have a register's numbers from `at` on, of two bytes and of four.
        unsafe { to.as_mut_ptr().add(at).cast::<R>().write_unaligned(widen(from.as_ptr().add(at))) };
    }
    to
}

/// A storage format.
pub(crate) trait Stored: Element<Accum: Float> + Widen<Self::Accum> {
    /// What products of tensors in this format can multiply besides accumulators, if there is something.
    type Narrow: Factor<Sum = Self::Accum>;

    /// The same elements as accumulators, where nothing needs converting.
    fn as_accum(row: &[Self]) -> Option<&[Self::Accum]>;
}

impl Stored for f32 {
    type Narrow = f32;

    fn as_accum(row: &[f32]) -> Option<&[f32]> {
        Some(row)
    }
}

impl Stored for f64 {
    type Narrow = f64;

    fn as_accum(row: &[f64]) -> Option<&[f64]> {
        Some(row)
    }
}

impl Stored for tilewright_scalar::f16 {
    type Narrow = f32;

    fn as_accum(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Stored for tilewright_scalar::bf16 {
    type Narrow = Pair;

    fn as_accum(_: &[Self]) -> Option<&[f32]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::isa::{Isa, Portable};
    use proptest::prelude::*;
    use tilewright_attention::Contract;
    use tilewright_scalar::{DoubleDouble, Real};

    /// Error in unit roundoffs of the format.
    fn units<A: Float>(got: A, truth: DoubleDouble) -> f64 {
        let difference = DoubleDouble::from_f64(Real::to_f64(got)) - truth;
        (difference / truth).to_f64().abs() / A::FORMAT.unit_roundoff()
    }

    /// With fused multiply-adds the error differs, but not by much: both are measured.
    struct Fused;
    impl Machine for Fused {
        const FUSED: bool = true;
        const VECTOR: usize = 16;
        const VECTORS: usize = 2;
        const WIDENS: bool = false;
        const PAIRS: bool = false;
    }

    fn exp2_error<A: Float>(x: f64) -> f64 {
        let x: A = constant(x);
        let truth = Real::exp(DoubleDouble::from_f64(Real::to_f64(x)) * Real::ln(DoubleDouble::from_f64(2.0)));
        let both = [exp2::<A, Portable>(x), exp2::<A, Fused>(x)];
        both.into_iter().map(|got| units(got, truth)).fold(0.0, f64::max)
    }

    fn tanh_error(x: f64) -> f64 {
        let x = x as f32;
        let truth = Real::tanh(DoubleDouble::from_f64(x.into()));
        let both = [x.hyperbolic_tangent::<Portable>(), x.hyperbolic_tangent::<Fused>()];
        both.into_iter().map(|got| units(got, truth)).fold(0.0, f64::max)
    }

    fn worst(error: fn(f64) -> f64, lowest: f64, highest: f64) -> f64 {
        (1..100_000).map(|i| error(lowest + (highest - lowest) * f64::from(i) / 100_000.0)).fold(0.0, f64::max)
    }

    /// Twice what is measured is claimed, and the rest is left to the conversion between bases.
    #[test]
    fn elementary_functions_keep_their_errors() {
        let (single, double) = (worst(exp2_error::<f32>, -126.0, 127.0), worst(exp2_error::<f64>, -1022.0, 1023.0));
        let tanh = worst(tanh_error, -11.0, 11.0).max(worst(tanh_error, -0.7, 0.7));
        println!("worst errors: exp2 {single:.2} u in f32, {double:.2} u in f64, tanh {tanh:.2} u in f32");
        assert!(single < EXP_ERROR / 2.0 && double < EXP_ERROR / 2.0);
        assert!(tanh < Contract::strict(f32::FORMAT).tanh_error);
    }

    proptest! {
        #[test]
        fn errors_hold_anywhere(x in -126.0..127.0f64, y in -1022.0..1023.0f64, z in -20.0..20.0f64) {
            prop_assert!(exp2_error::<f32>(x) < EXP_ERROR / 2.0);
            prop_assert!(exp2_error::<f64>(y) < EXP_ERROR / 2.0);
            prop_assert!(tanh_error(z) < Contract::strict(f32::FORMAT).tanh_error);
        }
    }

    /// All numbers of the 16-bit formats, one by one and as kernels widen them.
    #[test]
    fn widening_is_exact() {
        fn same<T: Stored<Accum = f32>>(from_bits: fn(u16) -> T) {
            let all: Vec<T> = (0..=u16::MAX).map(from_bits).collect();
            let expected: Vec<f32> = all.iter().map(|x| x.to_accum()).collect();
            let mut widened = vec![all.iter().map(|x| x.widen()).collect::<Vec<f32>>()];
            for isa in Isa::available() {
                // Whole lanes, and a rest.
                for skip in [0, 3] {
                    let mut to = expected.clone();
                    to[skip..].fill(-1.0);
                    crate::attention::kernels::widen(isa, &all[skip..], &mut to[skip..]);
                    widened.push(to);
                }
            }
            for (got, expected) in widened.iter().flat_map(|got| got.iter().zip(&expected)) {
                assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{got}: {expected}");
            }
        }
        same(tilewright_scalar::f16::from_bits);
        same(tilewright_scalar::bf16::from_bits);
    }

    #[test]
    fn edges() {
        fn of<A: Float>(below: f64, beyond: f64) {
            let at = |x: f64| exp2::<A, Portable>(constant(x));
            assert_eq!((at(0.0), at(-1.0)), (A::one(), constant(0.5)));
            assert_eq!((at(f64::NEG_INFINITY), at(below)), (A::zero(), A::zero()));
            assert!(at(f64::INFINITY) > constant(1e38) && at(beyond) == at(f64::INFINITY));
            assert!(Real::is_nan(at(f64::NAN)));
            assert_eq!(exp2_below_one::<A, Portable>(A::neg_infinity()), A::zero());
        }
        of::<f32>(-126.6, 128.0);
        of::<f64>(-1022.6, 1024.0);
        assert!(f32::NAN.hyperbolic_tangent::<Portable>().is_nan());
        assert_eq!((0f32.hyperbolic_tangent::<Portable>(), 99f32.hyperbolic_tangent::<Portable>()), (0.0, 1.0));
        // Any NaN, whatever its payload, stays one.
        assert!(exp2_below_one::<f32, Portable>(f32::from_bits(0x7fc0_0001)).is_nan());
    }
}
