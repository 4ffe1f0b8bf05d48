//! Rounding of exactly known values to a format.
//!
//! A value is brought to 53 bits by rounding to odd, which keeps what a second rounding has to know; then [`narrow`] rounds
//! it in any mode. That is exact for every format of at most 51 bits.

use crate::isa::Round;

/// Stored bits of the significand and of the exponent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) mantissa: u32,
    pub(crate) exponent: u32,
}

pub(crate) const F16: Layout = Layout { mantissa: 10, exponent: 5 };
pub(crate) const BF16: Layout = Layout { mantissa: 7, exponent: 8 };
pub(crate) const TF32: Layout = Layout { mantissa: 10, exponent: 8 };
pub(crate) const F32: Layout = Layout { mantissa: 23, exponent: 8 };

/// The bits of `x` in that layout; a NaN becomes the canonical one, all ones but the sign.
pub(crate) fn narrow(x: f64, layout: Layout, round: Round) -> u32 {
    let Layout { mantissa, exponent } = layout;
    let sign_bit = 1u32 << (mantissa + exponent);
    if x.is_nan() {
        return sign_bit - 1;
    }
    let negative = x.is_sign_negative();
    let sign = if negative { sign_bit } else { 0 };
    let infinity = ((1 << exponent) - 1) << mantissa;
    if x.is_infinite() {
        return sign | infinity;
    }
    let bits = x.to_bits() & (u64::MAX >> 1);
    if bits == 0 {
        return sign;
    }
    let bias = (1i32 << (exponent - 1)) - 1;
    let (e, significand) = match (bits >> 52) as i32 {
        0 => (-1022, bits),
        e => (e - 1023, bits & (u64::MAX >> 12) | 1 << 52),
    };
    let smallest = 1 - bias;
    let shift = (e.max(smallest) - mantissa as i32) - (e - 52);
    let shift = (shift as u32).min(63);
    let (kept, rest, half) = (significand >> shift, significand & ((1 << shift) - 1), 1u64 << (shift - 1));
    let up = match round {
        Round::Nearest => rest > half || rest == half && kept & 1 == 1,
        Round::Away => rest >= half,
        Round::Zero => false,
        Round::Up => !negative && rest != 0,
        Round::Down => negative && rest != 0,
    };
    let kept = kept + u64::from(up);
    let value = if e < smallest { kept } else { (((e + bias) as u64) << mantissa) + kept - (1 << mantissa) };
    if value >= u64::from(infinity) {
        let stays = match round {
            Round::Nearest | Round::Away => false,
            Round::Zero => true,
            Round::Up => negative,
            Round::Down => !negative,
        };
        return sign | if stays { infinity - 1 } else { infinity };
    }
    sign | value as u32
}

/// The exact value `s + e`, where `s` is the nearest to it, rounded to odd.
pub(crate) fn odd(s: f64, e: f64) -> f64 {
    if e == 0.0 || !s.is_finite() || e.is_nan() {
        return s;
    }
    if s == 0.0 {
        return e;
    }
    let toward_zero = if (e > 0.0) == (s > 0.0) { s.to_bits() } else { s.to_bits() - 1 };
    f64::from_bits(toward_zero | 1)
}

/// `a + b`, rounded to odd.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    let t = s - a;
    let e = (a - (s - t)) + (b - t);
    odd(s, e)
}

/// An integer, rounded to odd.
pub(crate) fn int_odd(n: i128) -> f64 {
    let s = n as f64;
    odd(s, (n - s as i128) as f64)
}

/// The sign of a sum that is exactly zero: minus only when rounding down, or when both terms have it.
pub(crate) fn zero_sum(a: f64, b: f64, round: Round) -> f64 {
    if a.is_sign_negative() && b.is_sign_negative() {
        return -0.0;
    }
    if a.is_sign_negative() != b.is_sign_negative() && round == Round::Down { -0.0 } else { 0.0 }
}
