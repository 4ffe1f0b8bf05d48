//! What tensors store and what kernels add up in.

use crate::{Format, Real};
use core::fmt::Debug;
use half::{bf16, f16};

/// A number as tensors store it.
///
/// ```
/// use tilewright_scalar::{Element, f16};
/// assert_eq!(f16::FORMAT.name, "f16");
/// assert_eq!(f16::from_f64(0.1).to_f64(), 0.0999755859375);
/// ```
pub trait Element: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// The storage format.
    const FORMAT: Format;
    /// What a kernel on this element accumulates in, and what its log-sum-exp is stored in:
    /// `f64` for `f64`, `f32` for everything narrower.
    type Accum: Accum;

    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest element, ties to even, in one rounding.
    fn from_f64(x: f64) -> Self;
    /// The value in the accumulator, exactly.
    fn to_accum(self) -> Self::Accum;
    /// The nearest element to an accumulator's value, ties to even.
    fn from_accum(x: Self::Accum) -> Self;
    /// The bits, zero-extended, for bitwise comparison.
    fn to_bits64(self) -> u64;
}

/// A number kernels accumulate in: `f32` or `f64`. It stores itself.
pub trait Accum: Real + Element<Accum = Self> {}

impl Accum for f32 {}
impl Accum for f64 {}

impl Element for f64 {
    const FORMAT: Format = Format::F64;
    type Accum = f64;
    fn to_f64(self) -> f64 {
        self
    }
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_accum(self) -> f64 {
        self
    }
    fn from_accum(x: f64) -> Self {
        x
    }
    fn to_bits64(self) -> u64 {
        self.to_bits()
    }
}

impl Element for f32 {
    const FORMAT: Format = Format::F32;
    type Accum = f32;
    fn to_f64(self) -> f64 {
        self.into()
    }
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn to_accum(self) -> f32 {
        self
    }
    fn from_accum(x: f32) -> Self {
        x
    }
    fn to_bits64(self) -> u64 {
        self.to_bits().into()
    }
}

macro_rules! sixteen_bit {
    ($type:ident, $format:ident) => {
        impl Element for $type {
            const FORMAT: Format = Format::$format;
            type Accum = f32;
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn from_f64(x: f64) -> Self {
                // `half`'s own conversion drops the low word of the f64 first, and so a tie's sticky bit with it.
                // After `round` the f32 is exact and so is what follows.
                $type::from_f32($type::FORMAT.round(x) as f32)
            }
            fn to_accum(self) -> f32 {
                self.to_f32()
            }
            fn from_accum(x: f32) -> Self {
                $type::from_f32(x)
            }
            fn to_bits64(self) -> u64 {
                self.to_bits().into()
            }
        }
    };
}

sixteen_bit!(f16, F16);
sixteen_bit!(bf16, BF16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip<T: Element>(x: f64) {
        let stored = T::from_f64(x);
        if x.is_nan() {
            assert!(stored.to_f64().is_nan());
        } else {
            assert_eq!(stored.to_f64().to_bits(), T::FORMAT.round(x).to_bits());
            assert_eq!(T::from_accum(stored.to_accum()).to_bits64(), stored.to_bits64());
        }
    }

    proptest! {
        #[test]
        fn storing_rounds_once(bits: u64) {
            let x = f64::from_bits(bits);
            round_trip::<f64>(x);
            round_trip::<f32>(x);
            round_trip::<f16>(x);
            round_trip::<bf16>(x);
        }

        #[test]
        fn storing_rounds_once_near_ties(mantissa in 0u64..2048, sticky in 0u64..3, exponent in -20i32..20) {
            let x = f64::from_bits((1.0 + mantissa as f64 / 2048.0).to_bits() + sticky - 1);
            round_trip::<f16>(x * crate::format::power_of_two(exponent));
            round_trip::<bf16>(x * crate::format::power_of_two(exponent));
        }
    }
}
