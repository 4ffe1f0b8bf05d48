//! The arithmetic a reference is written in.

use core::fmt::Debug;
use core::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};
use num_traits::{One, Zero};

/// Real arithmetic at some working precision: `f32`, `f64` or [`DoubleDouble`](crate::DoubleDouble).
///
/// `exp`, `ln` and `tanh` are those of the pure-Rust `libm` (or built on them), never the platform's, so a reference
/// gives the same bits on every machine.
///
/// ```
/// use tilewright_scalar::{DoubleDouble, Real};
/// fn log_sum_exp<A: Real>(x: A, y: A) -> A {
///     let m = x.maximum(y);
///     m + ((x - m).exp() + (y - m).exp()).ln()
/// }
/// assert_eq!(log_sum_exp(0.0f64, 0.0), core::f64::consts::LN_2);
/// assert_eq!(log_sum_exp(DoubleDouble::zero(), DoubleDouble::zero()).to_f64(), core::f64::consts::LN_2);
/// # use num_traits::Zero;
/// ```
pub trait Real:
    Copy
    + Debug
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Zero
    + One
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
{
    /// The nearest value to `x`; exact unless `Self` is narrower than `f64`.
    fn from_f64(x: f64) -> Self;
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
    /// `e^x`; 0 at −∞.
    fn exp(self) -> Self;
    /// Natural logarithm; −∞ at 0.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Negative infinity, the identity of [`maximum`](Self::maximum).
    fn neg_infinity() -> Self;
    /// Whether this is not a number.
    fn is_nan(self) -> bool;
    /// The larger of two values; NaN if either is.
    fn maximum(self, other: Self) -> Self {
        if self.is_nan() || self > other { self } else { other }
    }
}

macro_rules! primitive {
    ($type:ident, $exp:path, $ln:path, $tanh:path) => {
        impl Real for $type {
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                $exp(self)
            }
            fn ln(self) -> Self {
                $ln(self)
            }
            fn tanh(self) -> Self {
                $tanh(self)
            }
            fn abs(self) -> Self {
                $type::from_bits(self.to_bits() & ($type::MAX.to_bits() | $type::INFINITY.to_bits()))
            }
            fn neg_infinity() -> Self {
                $type::NEG_INFINITY
            }
            fn is_nan(self) -> bool {
                self != self
            }
        }
    };
}

/// Square root of an `f64`, correctly rounded, where `std` may not be.
pub fn sqrt(x: f64) -> f64 {
    libm::sqrt(x)
}

primitive!(f32, libm::expf, libm::logf, libm::tanhf);
primitive!(f64, libm::exp, libm::log, libm::tanh);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_exp_and_ln() {
        assert_eq!(Real::exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(Real::ln(0.0f32), f32::NEG_INFINITY);
        assert_eq!(Real::abs(-0.0f64).to_bits(), 0);
        assert_eq!(Real::abs(f32::NEG_INFINITY), f32::INFINITY);
        assert!(Real::maximum(1f64, f64::NAN).is_nan() && Real::maximum(f64::NAN, 1.0).is_nan());
        assert_eq!(Real::maximum(1f64, f64::NEG_INFINITY), 1.0);
    }
}
