//! Integer arithmetic of 16, 32 and 64 bits.

use super::{L32, L64, map1, map2, map3};
use crate::isa::{Carry, CarryOp, Int};

/// One width and signedness: `$reg` is what a lane holds, `$u` and `$s` the integers in it, `$wide` twice as wide.
macro_rules! family {
    ($name:ident, $reg:ty, $u:ty, $t:ty, $wide:ty, $doc:literal) => {
        #[doc = $doc]
        #[inline(always)]
        pub(crate) fn $name(op: Int, a: &[$reg; 32], b: &[$reg; 32], c: &[$reg; 32], out: &mut [$reg; 32]) {
            const BITS: u32 = <$u>::BITS;
            let up = |x: $t| -> $reg { <$reg>::from(x as $u) };
            match op {
                Int::Add => map2(a, b, out, |x, y| up((x as $t).wrapping_add(y as $t))),
                Int::Sub => map2(a, b, out, |x, y| up((x as $t).wrapping_sub(y as $t))),
                Int::Mul => map2(a, b, out, |x, y| up((x as $t).wrapping_mul(y as $t))),
                Int::MulHi => {
                    map2(a, b, out, |x, y| up(((x as $t as $wide).wrapping_mul(y as $t as $wide) >> BITS) as $t))
                }
                Int::Mad => map3(a, b, c, out, |x, y, z| up((x as $t).wrapping_mul(y as $t).wrapping_add(z as $t))),
                Int::MadHi => map3(a, b, c, out, |x, y, z| {
                    up((((x as $t as $wide).wrapping_mul(y as $t as $wide) >> BITS) as $t).wrapping_add(z as $t))
                }),
                Int::And => map2(a, b, out, |x, y| up((x as $t) & (y as $t))),
                Int::Or => map2(a, b, out, |x, y| up((x as $t) | (y as $t))),
                Int::Xor => map2(a, b, out, |x, y| up((x as $t) ^ (y as $t))),
                Int::Not => map1(a, out, |x| up(!(x as $t))),
                Int::Cnot => map1(a, out, |x| <$reg>::from(x as $t == 0)),
                // A count too large shifts everything out, or leaves the sign.
                Int::Shl => map2(a, b, out, |x, y| {
                    let n = y as u32;
                    if n < BITS { up((x as $t) << n) } else { 0 }
                }),
                Int::Shr => map2(a, b, out, |x, y| {
                    let n = (y as u32).min(BITS - 1);
                    let most = (x as $t) >> n;
                    up(if y as u32 >= BITS { most >> 1 } else { most })
                }),
                Int::Min => map2(a, b, out, |x, y| up((x as $t).min(y as $t))),
                Int::Max => map2(a, b, out, |x, y| up((x as $t).max(y as $t))),
                Int::Div => map2(a, b, out, |x, y| {
                    let (x, y) = (x as $t, y as $t);
                    up(if y == 0 { !0 } else { x.wrapping_div(y) })
                }),
                Int::Rem => map2(a, b, out, |x, y| {
                    let (x, y) = (x as $t, y as $t);
                    up(if y == 0 { x } else { x.wrapping_rem(y) })
                }),
                Int::Abs => map1(a, out, |x| {
                    let x = x as $t;
                    up(if x > 0 { x } else { (0 as $t).wrapping_sub(x) })
                }),
                Int::Neg => map1(a, out, |x| up((0 as $t).wrapping_sub(x as $t))),
                Int::Sad => map3(a, b, c, out, |x, y, z| {
                    let (x, y) = (x as $t, y as $t);
                    let apart = if x > y { x.wrapping_sub(y) } else { y.wrapping_sub(x) };
                    up((z as $t).wrapping_add(apart))
                }),
                Int::Brev => map1(a, out, |x| up((x as $t).reverse_bits())),
            }
        }
    };
}

family!(u32s, u32, u32, u32, u64, "32 bits, unsigned.");
family!(s32s, u32, u32, i32, i64, "32 bits, signed.");
family!(u16s, u32, u16, u16, u32, "16 bits, unsigned, in 32-bit registers.");
family!(s16s, u32, u16, i16, i32, "16 bits, signed, in 32-bit registers.");
family!(u64s, u64, u64, u64, u128, "64 bits, unsigned.");
family!(s64s, u64, u64, i64, i128, "64 bits, signed.");

/// `mul.wide` from 32 to 64 bits.
#[inline(always)]
pub(crate) fn wide32(signed: bool, a: &L32, b: &L32, out: &mut L64) {
    if signed {
        map2(a, b, out, |x, y| (i64::from(x as i32) * i64::from(y as i32)) as u64);
    } else {
        map2(a, b, out, |x, y| u64::from(x) * u64::from(y));
    }
}

/// `mul.wide` from 16 to 32 bits.
#[inline(always)]
pub(crate) fn wide16(signed: bool, a: &L32, b: &L32, out: &mut L32) {
    if signed {
        map2(a, b, out, |x, y| (i32::from(x as i16) * i32::from(y as i16)) as u32);
    } else {
        map2(a, b, out, |x, y| u32::from(x as u16) * u32::from(y as u16));
    }
}

/// One lane of an operation with the carry flag: the result and the carry out.
pub(crate) fn carry(op: Carry, a: u64, b: u64, c: u64, flag: bool) -> (u64, bool) {
    let bits = if op.wide { 64 } else { 32 };
    let keep = u128::from(u64::MAX >> (64 - bits));
    let product = || {
        if op.signed {
            let extend = |x: u64| if op.wide { i128::from(x as i64) } else { i128::from(x as i32) };
            (extend(a) * extend(b)) as u128
        } else {
            (u128::from(a) & keep) * (u128::from(b) & keep)
        }
    };
    let flag = u128::from(op.reads && flag);
    let (x, y) = match op.op {
        CarryOp::Add => (u128::from(a) & keep, u128::from(b) & keep),
        CarryOp::Sub => {
            // The flag is a borrow.
            let (x, y) = (u128::from(a) & keep, (u128::from(b) & keep) + flag);
            return ((x.wrapping_sub(y) & keep) as u64, x < y);
        }
        CarryOp::MadLo => (product() & keep, u128::from(c) & keep),
        CarryOp::MadHi => ((product() >> bits) & keep, u128::from(c) & keep),
    };
    let sum = x + y + flag;
    ((sum & keep) as u64, sum > keep)
}
