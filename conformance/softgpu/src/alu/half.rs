//! The 16-bit formats, alone and in pairs.

use super::float::exp2;
use super::round::{BF16, F16, Layout, add_odd, narrow, zero_sum};
use crate::isa::{Flt, HalfFormat, Mode, Round};

const SIGN: u16 = 1 << 15;
const NAN: u16 = 0x7fff;

pub(crate) fn layout(format: HalfFormat) -> Layout {
    match format {
        HalfFormat::F16 => F16,
        HalfFormat::BF16 => BF16,
    }
}

/// The value of 16 bits.
#[inline(always)]
pub(crate) fn widen(format: HalfFormat, bits: u16) -> f32 {
    match format {
        HalfFormat::F16 => half::f16::from_bits(bits).to_f32(),
        HalfFormat::BF16 => f32::from_bits(u32::from(bits) << 16),
    }
}

/// The value of the lower 16 bits of a register whose upper bits are zero, without branches.
#[inline(always)]
pub(crate) fn widen_f16(x: u32) -> f32 {
    // The exponents of the two formats differ by 112; the product makes subnormals right too.
    let finite = f32::from_bits((x & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let special = if x & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite.to_bits() | special | (x & 0x8000) << 16)
}

/// One register: a number, or two.
pub(crate) fn lane(format: HalfFormat, op: Flt, mode: Mode, pair: bool, a: u32, b: u32, c: u32) -> u32 {
    let low = number(format, op, mode, a as u16, b as u16, c as u16);
    if !pair {
        return u32::from(low);
    }
    let high = number(format, op, mode, (a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
    u32::from(high) << 16 | u32::from(low)
}

fn number(format: HalfFormat, op: Flt, mode: Mode, a: u16, b: u16, c: u16) -> u16 {
    let subnormal = |x: u16| widen(format, x).abs() < smallest_normal(format);
    let flush = |x: u16| if mode.ftz && subnormal(x) { x & SIGN } else { x };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let w = |x: u16| f64::from(widen(format, x));
    let (x, y, z) = (w(a), w(b), w(c));
    let is_nan = |x: u16| widen(format, x).is_nan();
    let exact = |s: f64, p: f64, q: f64| if s == 0.0 { zero_sum(p, q, Round::Nearest) } else { s };
    let value = match op {
        Flt::Neg => return a ^ SIGN,
        Flt::Abs => return a & !SIGN,
        Flt::Copysign => return b & !SIGN | a & SIGN,
        Flt::Min | Flt::Max if is_nan(a) || is_nan(b) => {
            if mode.nan || is_nan(a) && is_nan(b) {
                return NAN;
            }
            return if is_nan(a) { b } else { a };
        }
        Flt::Min | Flt::Max => {
            let less = x < y || x == y && a & SIGN != 0;
            return if less == (op == Flt::Max) { b } else { a };
        }
        Flt::Add => exact(add_odd(x, y), x, y),
        Flt::Sub => exact(add_odd(x, -y), x, -y),
        Flt::Mul => x * y,
        Flt::Fma => exact(add_odd(x * y, z), x * y, z),
        Flt::Ex2 => f64::from(exp2(x as f32)),
        Flt::Tanh => libm::tanh(x),
        _ => f64::NAN,
    };
    let mut bits = narrow(value, layout(format), Round::Nearest) as u16;
    if mode.sat && (value <= 0.0 || value.is_nan()) || mode.relu && !is_nan(bits) && bits & SIGN != 0 {
        bits = 0;
    }
    if mode.sat && value > 1.0 {
        bits = narrow(1.0, layout(format), Round::Nearest) as u16;
    }
    flush(bits)
}

fn smallest_normal(format: HalfFormat) -> f32 {
    match format {
        HalfFormat::F16 => 6.103_515_6e-5,
        HalfFormat::BF16 => f32::MIN_POSITIVE,
    }
}
