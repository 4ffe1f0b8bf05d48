//! The arithmetic of tiles, and nothing else: two matrix products and four functions of a row, as plain loops over
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

use tilewright_scalar::{Accum, Format, Real};

/// Columns of a register tile; row strides are multiples of it.
pub(crate) const LANES: usize = 16;

/// Rows of a register tile in f32 and f64: as many sums as sixteen 256-bit registers hold beside the operands.
const ROWS_F32: usize = 4;
const ROWS_F64: usize = 2;

/// Relative error of [`exp`] in unit roundoffs of the accumulator: 1.02 in f32 and 2.0 in f64 measured (see the tests),
/// rounded up.
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
            *x = *x * factor;
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

/// `e^x`, computed in `f64` for every accumulator: `x = k·ln 2 + r` with `|r| ≤ ½ ln 2`, then the Taylor series of `e^r`
/// to the degree the accumulator can see, times `2^k`. Branch-free, and the platform's mathematical library has no part in it.
#[inline(always)]
pub(crate) fn exp<A: Accum>(x: A) -> A {
    let x = Real::to_f64(x);
    Real::from_f64(if A::FORMAT.precision > Format::F32.precision {
        // The result may be subnormal: 2^k in two factors, neither of which is.
        let (k, p) = reduce_exp(x.clamp(-800.0, 800.0), &INVERSE_FACTORIALS);
        let half = round(k * 0.5);
        p * power_of_two(half) * power_of_two(k - half)
    } else {
        // Beyond these bounds an f32 is 0 or ∞, and within them 2^k is a normal f64.
        let (k, p) = reduce_exp(x.clamp(-160.0, 130.0), &INVERSE_FACTORIALS[..9]);
        p * power_of_two(k)
    })
}

/// `1 / n!` for `n = 0, 1, …, 13`: degree 13 leaves `0.35^14 / 14! < 2^-57`, degree 8 leaves `2^-31`.
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut table = [1.0; 14];
    let mut n = 1;
    while n < 14 {
        table[n] = table[n - 1] / n as f64;
        n += 1;
    }
    table
};

/// `(k, e^r)` with `x = k·ln 2 + r`.
#[inline(always)]
fn reduce_exp(x: f64, coefficients: &[f64]) -> (f64, f64) {
    // ln 2 in two parts, the first with so few bits that its product with k is exact.
    const LN_2_HIGH: f64 = 6.931_471_803_691_238_16e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_70e-10;
    let k = round(x * std::f64::consts::LOG2_E);
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    (k, coefficients.iter().rev().fold(0.0, |sum, c| sum * r + c))
}

/// The nearest integer for `|x| < 2^51`: adding `1.5 · 2^52` leaves no room for a fraction.
#[inline(always)]
fn round(x: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (x + MAGIC) - MAGIC
}

/// `2^k` for an integer `k` in −1022 ..= 1023: the biased exponent appears in the low bits of `k + 2^52 + 1023`.
#[inline(always)]
fn power_of_two(k: f64) -> f64 {
    const MAGIC: f64 = 4_503_599_627_370_496.0 + 1023.0;
    f64::from_bits((k + MAGIC).to_bits() << 52)
}
