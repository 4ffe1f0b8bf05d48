//! A binary floating-point format as data, so that an error bound exists for formats Rust has no type for.

/// A binary floating-point format: `precision` significant bits (the hidden one included), normal exponents
/// `min_exponent ..= max_exponent` (the value of the leading bit is `2^e`), gradual underflow below them or not.
///
/// ```
/// use tilewright_scalar::Format;
/// assert_eq!(Format::F16.unit_roundoff(), 2f64.powi(-11));
/// assert_eq!(Format::F16.max_finite(), 65504.0);
/// assert!(Format::F16.round(1e6).is_infinite());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Lower-case name, as in case ids and reports.
    pub name: &'static str,
    /// Significant bits, the hidden one included.
    pub precision: u32,
    /// Exponent of the smallest normal number.
    pub min_exponent: i32,
    /// Exponent of the largest finite number.
    pub max_exponent: i32,
    /// Whether numbers below the smallest normal one exist. Without them they round to zero.
    pub subnormals: bool,
}

impl Format {
    /// IEEE 754 binary64.
    pub const F64: Self = Self::ieee("f64", 53, 11);
    /// IEEE 754 binary32.
    pub const F32: Self = Self::ieee("f32", 24, 8);
    /// IEEE 754 binary16.
    pub const F16: Self = Self::ieee("f16", 11, 5);
    /// bfloat16: binary32 with 8 significant bits.
    pub const BF16: Self = Self::ieee("bf16", 8, 8);
    /// TensorFloat-32: what tensor cores keep of an f32 operand.
    pub const TF32: Self = Self::ieee("tf32", 11, 8);
    /// OCP FP8 E5M2.
    pub const E5M2: Self = Self::ieee("e5m2", 3, 5);

    /// A format laid out as IEEE 754 lays out its interchange formats, with `exponent_bits` of exponent.
    pub const fn ieee(name: &'static str, precision: u32, exponent_bits: u32) -> Self {
        let max_exponent = (1 << (exponent_bits - 1)) - 1;
        Self { name, precision, min_exponent: 1 - max_exponent, max_exponent, subnormals: true }
    }

    /// Unit roundoff `u = 2^-precision`: a correctly rounded normal result is within `u·|x|` of `x`.
    pub fn unit_roundoff(self) -> f64 {
        power_of_two(-(self.precision as i32))
    }

    /// `η`, half the smallest positive number: the absolute error of rounding a result that underflows. For `f64`,
    /// where half of it is no number, the smallest positive number itself; for a format that flushes, the smallest
    /// normal number, which is how far a flushed number may have been from zero.
    pub fn underflow_unit(self) -> f64 {
        if self.precision >= 53 {
            f64::from_bits(1)
        } else if self.subnormals {
            power_of_two(self.min_exponent - self.precision as i32)
        } else {
            power_of_two(self.min_exponent)
        }
    }

    /// The largest finite number.
    pub fn max_finite(self) -> f64 {
        (2.0 - power_of_two(1 - self.precision as i32)) * power_of_two(self.max_exponent)
    }

    /// `x` rounded to the nearest number of this format, ties to even; overflow gives an infinity, NaN stays NaN.
    pub fn round(self, x: f64) -> f64 {
        if self.precision >= 53 || x == 0.0 || !x.is_finite() {
            return x;
        }
        // An f64 subnormal reads as exponent −1023 here; every narrower format rounds it to zero all the same.
        let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let quantum = power_of_two(exponent.max(self.min_exponent) + 1 - self.precision as i32);
        // Exact: `x / quantum` is a scaling by a power of two, and `rint` breaks ties to even.
        let rounded = libm::rint(x / quantum) * quantum;
        if libm::fabs(rounded) > self.max_finite() {
            f64::INFINITY.copysign(x)
        } else if !self.subnormals && libm::fabs(rounded) < power_of_two(self.min_exponent) {
            0f64.copysign(x)
        } else {
            rounded
        }
    }
}

/// `2^e` as an f64, subnormals included; 0 below them and infinity above the range.
pub fn power_of_two(e: i32) -> f64 {
    libm::scalbn(1.0, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    #[test]
    fn constants_are_those_of_the_standard() {
        assert_eq!(Format::F32.max_finite(), f64::from(f32::MAX));
        assert_eq!(Format::F32.underflow_unit() * 2.0, f64::from(f32::from_bits(1)));
        assert_eq!(Format::F16.underflow_unit(), power_of_two(-25));
        assert_eq!(Format::BF16.max_finite(), f64::from(bf16::MAX));
        assert_eq!(Format::F64.max_finite(), f64::MAX);
        assert_eq!(Format::F64.unit_roundoff(), f64::EPSILON / 2.0);
        assert_eq!(Format::E5M2.max_finite(), 57344.0);
    }

    #[test]
    fn every_16_bit_number_rounds_to_itself() {
        for bits in 0..=u16::MAX {
            let (a, b) = (f64::from(f16::from_bits(bits)), f64::from(bf16::from_bits(bits)));
            assert!(a.is_nan() || Format::F16.round(a).to_bits() == a.to_bits(), "f16 {bits:#06x}");
            assert!(b.is_nan() || Format::BF16.round(b).to_bits() == b.to_bits(), "bf16 {bits:#06x}");
        }
    }

    #[test]
    fn ties_go_to_even_and_a_sticky_bit_breaks_them() {
        let tie = 1.0 + power_of_two(-11);
        assert_eq!(Format::F16.round(tie), 1.0);
        // The lowest bit of the f64 decides: a rounding that drops it first goes wrong here.
        assert_eq!(Format::F16.round(f64::from_bits(tie.to_bits() + 1)), 1.0 + power_of_two(-10));
        assert_eq!(Format::F16.round(1.0 + 3.0 * power_of_two(-11)), 1.0 + 2.0 * power_of_two(-10));
        assert_eq!(Format::F16.round(65520.0), f64::INFINITY);
        assert_eq!(Format::F16.round(65519.99), 65504.0);
        assert_eq!(Format::F16.round(power_of_two(-25)), 0.0);
        assert_eq!(Format::F16.round(-1.5 * power_of_two(-25)), -power_of_two(-24));
        let flushing = Format { subnormals: false, ..Format::F16 };
        assert_eq!(flushing.round(power_of_two(-15)).to_bits(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_hardware_on_f32(bits: u64) {
            let x = f64::from_bits(bits);
            prop_assume!(!x.is_nan());
            prop_assert_eq!(Format::F32.round(x).to_bits(), f64::from(x as f32).to_bits());
        }

        #[test]
        fn agrees_with_half_from_f32(bits: u32) {
            let x = f32::from_bits(bits);
            prop_assume!(!x.is_nan());
            prop_assert_eq!(Format::F16.round(x.into()).to_bits(), f64::from(f16::from_f32(x)).to_bits());
            prop_assert_eq!(Format::BF16.round(x.into()).to_bits(), f64::from(bf16::from_f32(x)).to_bits());
        }
    }
}
