//! The arithmetic of tiles, and nothing else: two matrix products and a few functions of a row, as plain loops over
//! contiguous slices that the compiler vectorises.
//!
//! This is the seam for SIMD: an implementation in intrinsics replaces the bodies in this module and leaves everything
//! else alone. What callers rely on is that a result depends on its operands' values and sizes only — not on
//! addresses, threads or the register blocking — and the errors that [`EXP_ERROR`] and `Contract` state.
//!
//! Matrices are row-major slices with a row stride. The stride of a right-hand factor and of a result is a multiple of
//! [`LANES`], and columns beyond the logical width are padding: they are computed with and hold nothing of meaning.
//!
//! On x86-64 every function has a second compilation with AVX2 enabled, chosen at run time. Rust neither contracts nor
//! reassociates floating-point arithmetic, so both give the same bits.

// A function compiled for AVX2 lends the feature to what is inlined into it, and only to that.
#![allow(clippy::inline_always)]

use tilewright_scalar::{Accum, Format, Real};

/// Columns of a register tile; row strides are multiples of it.
pub(crate) const LANES: usize = 16;

/// Rows of a register tile in f32 and f64: as many sums as sixteen 256-bit registers hold beside the operands.
const ROWS_F32: usize = 4;
const ROWS_F64: usize = 2;

/// Relative error of [`exp`] in unit roundoffs of the accumulator: the tests measure 1.7 in f32 and 1.6 in f64, and
/// twice that is claimed.
pub(crate) const EXP_ERROR: f64 = 4.0;

/// The stride of a row of `columns` elements.
pub(crate) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(LANES)
}

/// A matrix operand: row-major elements and the distance between rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand<'a, A> {
    pub(crate) data: &'a [A],
    pub(crate) stride: usize,
}

/// Declares a function that runs `$body` compiled for the widest vectors this machine has.
macro_rules! dispatched {
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$A:ident>($($arg:ident: $type:ty),*) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name<$A: Accum>($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable<$A: Accum>($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2<$A: Accum>($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the only requirement of `avx2` is the feature, which was just detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}

dispatched! {
    /// `C += A·B` with `A` of `m × k`; every element of the product is summed over `k` in ascending order, from 0.
    pub(crate) fn product<A>(m: usize, k: usize, a: Operand<'_, A>, b: Operand<'_, A>, c: &mut [A], c_stride: usize) {
        blocked(m, k, a, b, c, c_stride, Rows);
    }
}

dispatched! {
    /// `C += Aᵀ·B` with `A` of `k × m`, summed as in [`product`].
    pub(crate) fn product_transposed<A>(
        m: usize,
        k: usize,
        a: Operand<'_, A>,
        b: Operand<'_, A>,
        c: &mut [A],
        c_stride: usize
    ) {
        blocked(m, k, a, b, c, c_stride, Columns);
    }
}

/// How a product walks its left factor: element `kk` of the `i`-th vector.
trait Walk: Copy {
    fn at<A: Accum>(self, a: Operand<'_, A>, i: usize, kk: usize) -> A;
}

/// The left factor's rows.
#[derive(Clone, Copy)]
struct Rows;

/// The left factor's columns.
#[derive(Clone, Copy)]
struct Columns;

impl Walk for Rows {
    #[inline(always)]
    fn at<A: Accum>(self, a: Operand<'_, A>, i: usize, kk: usize) -> A {
        a.data[i * a.stride + kk]
    }
}

impl Walk for Columns {
    #[inline(always)]
    fn at<A: Accum>(self, a: Operand<'_, A>, i: usize, kk: usize) -> A {
        a.data[kk * a.stride + i]
    }
}

#[inline(always)]
fn blocked<A: Accum>(
    m: usize,
    k: usize,
    a: Operand<'_, A>,
    b: Operand<'_, A>,
    c: &mut [A],
    c_stride: usize,
    walk: impl Walk,
) {
    if A::FORMAT.precision > Format::F32.precision {
        by_rows::<A, ROWS_F64>(m, k, a, b, c, c_stride, walk);
    } else {
        by_rows::<A, ROWS_F32>(m, k, a, b, c, c_stride, walk);
    }
}

#[inline(always)]
fn by_rows<A: Accum, const R: usize>(
    m: usize,
    k: usize,
    a: Operand<'_, A>,
    b: Operand<'_, A>,
    c: &mut [A],
    c_stride: usize,
    walk: impl Walk,
) {
    let whole = m - m % R;
    for column in (0..b.stride.min(c_stride)).step_by(LANES) {
        for i in (0..whole).step_by(R) {
            register_tile::<A, R>(i, column, k, a, b, c, c_stride, walk);
        }
        for i in whole..m {
            register_tile::<A, 1>(i, column, k, a, b, c, c_stride, walk);
        }
    }
}

/// `R × LANES` elements of `C`, held in registers over the whole sum.
#[inline(always)]
fn register_tile<A: Accum, const R: usize>(
    i: usize,
    column: usize,
    k: usize,
    a: Operand<'_, A>,
    b: Operand<'_, A>,
    c: &mut [A],
    c_stride: usize,
    walk: impl Walk,
) {
    let mut sums = [[A::zero(); LANES]; R];
    for (kk, b_row) in b.data.chunks_exact(b.stride).take(k).enumerate() {
        let Some(b_row) = b_row[column..].first_chunk::<LANES>() else { return };
        for r in 0..R {
            let x = walk.at(a, i + r, kk);
            for lane in 0..LANES {
                sums[r][lane] += x * b_row[lane];
            }
        }
    }
    for r in 0..R {
        let c_row = &mut c[(i + r) * c_stride + column..][..LANES];
        for lane in 0..LANES {
            c_row[lane] += sums[r][lane];
        }
    }
}

dispatched! {
    /// `x ← exp(x − shift)`, elementwise.
    pub(crate) fn exp_row<A>(x: &mut [A], shift: A) {
        for x in x {
            *x = exp(*x - shift);
        }
    }
}

dispatched! {
    /// `x ← factor · x`.
    pub(crate) fn scale_row<A>(x: &mut [A], factor: A) {
        for x in x {
            *x *= factor;
        }
    }
}

dispatched! {
    /// The largest element, −∞ if there is none. A NaN is passed over: the exponentials that follow will show it.
    pub(crate) fn max_row<A>(x: &[A]) -> A {
        fold_lanes(x, A::neg_infinity(), |m, x| if x > m { x } else { m })
    }
}

dispatched! {
    /// The sum, by lanes: the same order for the same length.
    pub(crate) fn sum_row<A>(x: &[A]) -> A {
        fold_lanes(x, A::zero(), |sum, x| sum + x)
    }
}

/// Folds element `i` into lane `i % LANES`, then the lanes in order.
#[inline(always)]
fn fold_lanes<A: Accum>(x: &[A], start: A, f: impl Fn(A, A) -> A + Copy) -> A {
    let mut lanes = [start; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = f(lanes[lane], chunk[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] = f(lanes[lane], *x);
    }
    lanes.into_iter().fold(start, f)
}

dispatched! {
    /// Whether every element is finite: `0 · x` is 0 then, and NaN otherwise.
    pub(crate) fn all_finite<A>(x: &[A]) -> bool {
        fold_lanes(x, A::zero(), |sum, x| sum + x * A::zero()) == A::zero()
    }
}

/// `e^x`: `x = k·ln 2 + r` with `|r| ≤ ½ ln 2`, then the Taylor series of `e^r` to the degree the accumulator can see,
/// times `2^k`. Branch-free, and the platform's mathematical library has no part in it.
#[inline(always)]
pub(crate) fn exp<A: Accum>(x: A) -> A {
    // Both conversions are exact, and disappear when compiled.
    let x = Real::to_f64(x);
    if A::FORMAT.precision > Format::F32.precision {
        Real::from_f64(exp_f64(x))
    } else {
        Real::from_f64(exp_f32(x as f32).into())
    }
}

macro_rules! exponential {
    ($name:ident, $float:ident, $log2_e:expr, $ln_2:expr, $range:expr, $degree:expr, $mantissa:expr) => {
        #[inline(always)]
        fn $name(x: $float) -> $float {
            /// Added and taken away again, it leaves no room for a fraction: rounds to the nearest integer.
            const ROUND: $float = 1.5 * (1u64 << $mantissa) as $float;
            /// The bits of `k + BIASED` end in `k` and the exponent's bias.
            const BIASED: $float = (1u64 << $mantissa) as $float + ($float::MAX_EXP - 1) as $float;
            /// `1 / n!`
            const COEFFICIENTS: [$float; $degree + 1] = {
                let mut table = [1.0; $degree + 1];
                let mut n = 1;
                while n <= $degree {
                    table[n] = table[n - 1] / n as $float;
                    n += 1;
                }
                table
            };
            let round = |x: $float| (x + ROUND) - ROUND;
            let power_of_two = |k: $float| $float::from_bits((k + BIASED).to_bits() << $mantissa);
            // Beyond these bounds the result is 0 or ∞; NaN stays NaN.
            let x = x.clamp($range.0, $range.1);
            let k = round(x * $log2_e);
            // The first part of ln 2 has so few bits that its product with k is exact.
            let r = (x - k * $ln_2.0) - k * $ln_2.1;
            let mut p = COEFFICIENTS[$degree];
            for n in (0..$degree).rev() {
                p = p * r + COEFFICIENTS[n];
            }
            // The result may be subnormal: 2^k in two factors, neither of which is.
            let half = round(k * 0.5);
            p * power_of_two(half) * power_of_two(k - half)
        }
    };
}

exponential!(
    exp_f64,
    f64,
    std::f64::consts::LOG2_E,
    (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10),
    (-800.0, 800.0),
    13,
    52
);

exponential!(exp_f32, f32, std::f32::consts::LOG2_E, (0.693_359_4, -2.121_944_4e-4), (-110.0, 100.0), 7, 23);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tilewright_scalar::DoubleDouble;

    /// Error of `exp(x)` in unit roundoffs of the format, subnormal results aside.
    fn exp_error<A: Accum>(x: f64) -> f64 {
        let x: A = Real::from_f64(x);
        let truth = Real::exp(DoubleDouble::from_f64(Real::to_f64(x)));
        let difference = DoubleDouble::from_f64(Real::to_f64(exp(x))) - truth;
        (difference / truth).to_f64().abs() / A::FORMAT.unit_roundoff()
    }

    #[test]
    fn exp_is_good_to_two_units() {
        let worst = |error: fn(f64) -> f64, lowest: f64, highest: f64| {
            let points = (0..400_000).map(|i| lowest + (highest - lowest) * f64::from(i) / 400_000.0);
            points.map(error).fold(0.0, f64::max)
        };
        let (f32_worst, f64_worst) = (worst(exp_error::<f32>, -87.0, 88.0), worst(exp_error::<f64>, -690.0, 690.0));
        println!("worst errors of exp: {f32_worst:.2} u in f32, {f64_worst:.2} u in f64");
        assert!(f32_worst < EXP_ERROR && f64_worst < EXP_ERROR);
    }

    proptest! {
        #[test]
        fn exp_keeps_its_error_anywhere(x in -87.0..88.0f64, y in -690.0..690.0f64) {
            prop_assert!(exp_error::<f32>(x) < EXP_ERROR);
            prop_assert!(exp_error::<f64>(y) < EXP_ERROR);
        }

        /// Subnormal results round twice, to within a unit of the last place.
        #[test]
        fn exp_underflows_gradually(x in -104.0f32..-87.0, y in -745.2..-708.0f64) {
            prop_assert!((exp(x) - Real::exp(x)).abs() <= f32::from_bits(1) + 4.0 * f32::EPSILON * exp(x));
            prop_assert!((exp(y) - Real::exp(y)).abs() <= f64::from_bits(1) + 4.0 * f64::EPSILON * exp(y));
        }

        #[test]
        fn rows_of_any_length(x in proptest::collection::vec(-50i32..50, 0..100)) {
            let x: Vec<f64> = x.into_iter().map(f64::from).collect();
            prop_assert_eq!(sum_row(&x), x.iter().sum::<f64>());
            prop_assert_eq!(max_row(&x), x.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            prop_assert!(all_finite(&x));
            for spoiled in 0..x.len() {
                let mut y = x.clone();
                y[spoiled] = f64::NEG_INFINITY;
                prop_assert!(!all_finite(&y));
            }
        }
    }

    proptest! {
        /// What the dispatch picks on this machine against the portable code, bit for bit.
        #[test]
        fn wide_vectors_change_no_bit(
            x in proptest::collection::vec(-3.0f32..3.0, 32 * 40),
            m in 1usize..12,
            k in 1usize..40,
        ) {
            let (a, b) = (Operand { data: &x, stride: 40 }, Operand { data: &x, stride: 32 });
            let (mut wide, mut portable) = (vec![0.5; m * 32], vec![0.5; m * 32]);
            product(m, k, a, b, &mut wide, 32);
            blocked(m, k, a, b, &mut portable, 32, Rows);
            exp_row(&mut wide, 1.0);
            for x in &mut portable {
                *x = exp(*x - 1.0);
            }
            prop_assert!(wide.iter().zip(&portable).all(|(x, y)| x.to_bits() == y.to_bits()));
        }
    }

    #[test]
    fn edges_of_exp() {
        assert_eq!((exp(0.0f32), exp(0.0f64)), (1.0, 1.0));
        assert_eq!((exp(f32::NEG_INFINITY), exp(f64::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(f64::INFINITY)), (f32::INFINITY, f64::INFINITY));
        assert_eq!((exp(-104.0f32), exp(-746.0f64)), (0.0, 0.0));
        assert_eq!((exp(89.0f32), exp(710.0f64)), (f32::INFINITY, f64::INFINITY));
        assert!(exp(f32::NAN).is_nan() && exp(f64::NAN).is_nan());
    }
}
