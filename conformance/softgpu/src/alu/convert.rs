//! `cvt` between any two types.

use super::float::{NAN, flush};
use super::half::{layout, widen};
use super::round::{self, int_odd, narrow};
use crate::isa::{Cvt, HalfFormat, Mode, Round};
use crate::ptx::Type;

/// A number on its way from one type to another.
#[derive(Clone, Copy)]
enum Value {
    Int(i128),
    Float(f64),
}

/// One lane; the result fills its register, sign-extended if its type is signed.
pub(crate) fn convert(cvt: Cvt, bits: u64) -> u64 {
    let Cvt { from, to, mode } = cvt;
    let value = read(from, bits, mode);
    match (value, to.float()) {
        (Value::Int(n), false) => store_int(to, n, mode.sat),
        (Value::Int(n), true) => from_int(to, n, mode),
        (Value::Float(x), false) => to_int(from, to, x, mode),
        (Value::Float(x), true) => to_float(cvt, x, bits),
    }
}

fn read(from: Type, bits: u64, mode: Mode) -> Value {
    match from {
        Type::U8 | Type::B8 => Value::Int((bits & 0xff).into()),
        Type::U16 | Type::B16 => Value::Int((bits & 0xffff).into()),
        Type::U32 | Type::B32 => Value::Int((bits & 0xffff_ffff).into()),
        Type::S8 => Value::Int((bits as i8).into()),
        Type::S16 => Value::Int((bits as i16).into()),
        Type::S32 => Value::Int((bits as i32).into()),
        Type::S64 => Value::Int((bits as i64).into()),
        Type::F16 => Value::Float(widen(HalfFormat::F16, bits as u16).into()),
        Type::BF16 => Value::Float(widen(HalfFormat::BF16, bits as u16).into()),
        Type::F32 | Type::TF32 => {
            let x = f32::from_bits(bits as u32);
            Value::Float((if mode.ftz { flush(x) } else { x }).into())
        }
        Type::F64 => Value::Float(f64::from_bits(bits)),
        _ => Value::Int(bits.into()),
    }
}

fn range(to: Type) -> (i128, i128) {
    let bits = to.bytes() * 8;
    if to.signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn store_int(to: Type, n: i128, clamp: bool) -> u64 {
    let (low, high) = range(to);
    let n = if clamp { n.clamp(low, high) } else { n };
    match to {
        Type::S8 => i64::from(n as i8) as u64,
        Type::S16 => i64::from(n as i16) as u64,
        Type::S32 => i64::from(n as i32) as u64,
        Type::U8 | Type::B8 => u64::from(n as u8),
        Type::U16 | Type::B16 => u64::from(n as u16),
        Type::U32 | Type::B32 => u64::from(n as u32),
        _ => n as u64,
    }
}

fn from_int(to: Type, n: i128, mode: Mode) -> u64 {
    let nearest = mode.round == Round::Nearest;
    match to {
        Type::F64 if nearest => (n as f64).to_bits(),
        Type::F64 => {
            let near = n as f64;
            let over = near as i128 - n;
            let away = |x: f64| if x > 0.0 { x.next_up() } else { x.next_down() };
            let toward = |x: f64| if x > 0.0 { x.next_down() } else { x.next_up() };
            let fixed = match mode.round {
                Round::Up if over < 0 => near.next_up(),
                Round::Down if over > 0 => near.next_down(),
                Round::Zero if over != 0 && (over > 0) == (n > 0) => toward(near),
                Round::Away if over != 0 && (over > 0) != (n > 0) => away(near),
                _ => near,
            };
            fixed.to_bits()
        }
        Type::F16 => narrow(int_odd(n), round::F16, mode.round).into(),
        Type::BF16 => narrow(int_odd(n), round::BF16, mode.round).into(),
        _ => {
            let x = f32::from_bits(narrow(int_odd(n), round::F32, mode.round));
            u64::from(if mode.sat { x.clamp(0.0, 1.0) } else { x }.to_bits())
        }
    }
}

fn to_int(from: Type, to: Type, x: f64, mode: Mode) -> u64 {
    if x.is_nan() {
        let zero = from != Type::F64 && to.bytes() < 8;
        let bits = to.bytes() * 8;
        return if zero { 0 } else { store_int(to, 1i128 << (bits - 1), false) };
    }
    store_int(to, integral(x, mode.round) as i128, true)
}

fn integral(x: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => x.round_ties_even(),
        Round::Zero => x.trunc(),
        Round::Down => x.floor(),
        Round::Up => x.ceil(),
        Round::Away => x.round(),
    }
}

fn to_float(cvt: Cvt, x: f64, bits: u64) -> u64 {
    let Cvt { from, to, mode } = cvt;
    let mut x = if mode.integral { integral(x, mode.round) } else { x };
    if mode.sat {
        x = if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if mode.relu && x < 0.0 {
        x = 0.0;
    }
    match to {
        Type::F64 if x.is_nan() => x.to_bits() | 1 << 51,
        Type::F64 => x.to_bits(),
        Type::F16 => narrow(x, round::F16, mode.round).into(),
        Type::BF16 => narrow(x, round::BF16, mode.round).into(),
        Type::TF32 if x.is_nan() => NAN.into(),
        Type::TF32 => u64::from(narrow(x, round::TF32, mode.round)) << 13,
        _ => {
            if from == Type::F32 && x.is_nan() {
                return if mode.integral || mode.sat || mode.ftz { NAN.into() } else { bits & 0xffff_ffff };
            }
            let x = f32::from_bits(narrow(x, round::F32, if mode.integral { Round::Nearest } else { mode.round }));
            u64::from(if mode.ftz { flush(x) } else { x }.to_bits())
        }
    }
}

/// A single to 16 bits.
#[inline(always)]
pub(crate) fn single_to_half(format: HalfFormat, mode: Mode, x: f32) -> u16 {
    let x = if mode.relu && x < 0.0 { 0.0 } else { x };
    if mode.round == Round::Nearest && !x.is_nan() {
        return match format {
            HalfFormat::F16 => half::f16::from_f32(x).to_bits(),
            HalfFormat::BF16 => {
                let bits = x.to_bits();
                (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
            }
        };
    }
    narrow(x.into(), layout(format), mode.round) as u16
}
