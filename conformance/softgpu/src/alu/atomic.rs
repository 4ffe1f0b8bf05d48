//! What an atomic leaves behind.

use super::half::lane;
use crate::isa::{AtomOp, Flt, HalfFormat, Mode};
use crate::ptx::Type;

/// The new value of a place that held `old`.
pub(crate) fn apply(op: AtomOp, ty: Type, old: u64, a: u64, b: u64) -> u64 {
    let (old32, a32) = (old as u32, a as u32);
    match op {
        AtomOp::Add => match ty {
            Type::F32 => {
                let sum = f32::from_bits(old32) + f32::from_bits(a32);
                u64::from(if sum.is_nan() { super::float::NAN } else { sum.to_bits() })
            }
            Type::F64 => (f64::from_bits(old) + f64::from_bits(a)).to_bits(),
            Type::F16 => lane(HalfFormat::F16, Flt::Add, Mode::default(), false, old32, a32, 0).into(),
            Type::BF16 => lane(HalfFormat::BF16, Flt::Add, Mode::default(), false, old32, a32, 0).into(),
            Type::F16x2 => lane(HalfFormat::F16, Flt::Add, Mode::default(), true, old32, a32, 0).into(),
            Type::BF16x2 => lane(HalfFormat::BF16, Flt::Add, Mode::default(), true, old32, a32, 0).into(),
            _ if ty.bytes() == 4 => old32.wrapping_add(a32).into(),
            _ => old.wrapping_add(a),
        },
        AtomOp::Min => match ty {
            Type::S32 => u64::from((old32 as i32).min(a32 as i32) as u32),
            Type::S64 => (old as i64).min(a as i64) as u64,
            _ => old.min(a),
        },
        AtomOp::Max => match ty {
            Type::S32 => u64::from((old32 as i32).max(a32 as i32) as u32),
            Type::S64 => (old as i64).max(a as i64) as u64,
            _ => old.max(a),
        },
        AtomOp::And => old & a,
        AtomOp::Or => old | a,
        AtomOp::Xor => old ^ a,
        AtomOp::Exch => a,
        AtomOp::Cas => {
            let same = if ty.bytes() == 2 { old as u16 == a as u16 } else { old == a };
            if same { b } else { old }
        }
        AtomOp::Inc => u64::from(if old32 >= a32 { 0 } else { old32 + 1 }),
        AtomOp::Dec => u64::from(if old32 == 0 || old32 > a32 { a32 } else { old32 - 1 }),
    }
}
