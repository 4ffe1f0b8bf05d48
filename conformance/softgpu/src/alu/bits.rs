//! Bit fields, permutations and dot products of bytes, one lane at a time.

use crate::isa::{Alu32, Permute};

/// A lane of the operations that aren't plain arithmetic.
#[inline(always)]
pub(crate) fn lane(op: Alu32, a: u32, b: u32, c: u32) -> u32 {
    match op {
        Alu32::Popc => a.count_ones(),
        Alu32::Clz => a.leading_zeros(),
        Alu32::Bfind { signed, shift } => {
            let x = if signed { u64::from(if a >> 31 == 1 { !a } else { a }) } else { u64::from(a) };
            found(x, 32, shift)
        }
        Alu32::Bfe { signed } => extract(signed, u64::from(a), b, c, 32) as u32,
        Alu32::Prmt(mode) => permute(mode, a, b, c),
        Alu32::Shf { left, wrap } => {
            let n = if wrap { c & 31 } else { c.min(32) };
            let both = u64::from(b) << 32 | u64::from(a);
            if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
        }
        Alu32::Lop3(table) => lop3(table, a, b, c),
        Alu32::Dp4a { a: sa, b: sb } => (0..4).fold(c, |sum, i| {
            let (x, y) = (byte(a, i, sa), byte(b, i, sb));
            sum.wrapping_add(x.wrapping_mul(y) as u32)
        }),
        Alu32::Dp2a { a: sa, b: sb, high } => (0..2).fold(c, |sum, i| {
            let half = a >> (16 * i);
            let x = if sa { i32::from(half as i16) } else { i32::from(half as u16) };
            let y = byte(b, i + if high { 2 } else { 0 }, sb);
            sum.wrapping_add(x.wrapping_mul(y) as u32)
        }),
        Alu32::Mul24 { signed, high, add } => {
            let cut = |x: u32| if signed { i64::from((x << 8) as i32 >> 8) } else { i64::from(x & 0xff_ffff) };
            let product = cut(a) * cut(b);
            let part = if high { product >> 16 } else { product } as u32;
            if add { part.wrapping_add(c) } else { part }
        }
        Alu32::Szext { signed, wrap } => {
            let n = if wrap { b & 31 } else { b.min(32) };
            match n {
                0 => 0,
                32.. => a,
                _ if signed => ((a << (32 - n)) as i32 >> (32 - n)) as u32,
                _ => a & ((1 << n) - 1),
            }
        }
        Alu32::Bmsk { wrap } => {
            let (start, n) = if wrap { (a & 31, b & 31) } else { (a, b) };
            let ones = if n >= 32 { u64::from(u32::MAX) } else { (1 << n) - 1 };
            if start >= 32 { 0 } else { (ones << start) as u32 }
        }
        _ => 0,
    }
}

fn byte(x: u32, i: u32, signed: bool) -> i32 {
    let byte = (x >> (8 * i)) as u8;
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Position of the highest one, or how far it is from the top; all ones if there is none.
pub(crate) fn found(x: u64, bits: u32, shift: bool) -> u32 {
    if x == 0 {
        return u32::MAX;
    }
    let position = x.ilog2();
    if shift { bits - 1 - position } else { position }
}

/// `bfe`: beyond the top, an unsigned field has zeros and a signed one the sign.
pub(crate) fn extract(signed: bool, a: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let extended = if signed {
        if bits == 32 { i128::from(a as u32 as i32) } else { i128::from(a as i64) }
    } else {
        i128::from(a)
    };
    let last = (position + length - 1).min(bits - 1);
    let field = extended >> position.min(bits - 1 + u32::from(!signed));
    if !signed {
        return (field & ((1i128 << length.min(64)) - 1)) as u64;
    }
    let sign = (a >> last) & 1;
    let kept = length.min(64);
    let low = (field as u64) & if kept == 64 { u64::MAX } else { (1 << kept) - 1 };
    if sign == 1 && kept < 64 { low | u64::MAX << kept } else { low }
}

/// `bfi`: the low `length` bits of `a` into `b` at `position`.
pub(crate) fn insert(a: u64, b: u64, position: u32, length: u32, bits: u32) -> u64 {
    let (position, length) = (position & 0xff, (length & 0xff).min(bits));
    if length == 0 || position >= bits {
        return b;
    }
    let ones = ((1u128 << length) - 1) << position;
    let keep = u128::from(u64::MAX >> (64 - bits));
    ((u128::from(b) & !ones | (u128::from(a) << position) & ones) & keep) as u64
}

/// `prmt`: picks four of the eight bytes of `b:a`.
fn permute(mode: Permute, a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let pick = |i: u32| (bytes >> (8 * (i & 7))) as u8;
    let s = selector & 3;
    let chosen: [u32; 4] = match mode {
        Permute::Index => {
            return (0..4).fold(0, |out, i| {
                let nibble = selector >> (4 * i) & 15;
                let byte = pick(nibble);
                let byte = if nibble & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
                out | u32::from(byte) << (8 * i)
            });
        }
        Permute::Forward4 => [s, s + 1, s + 2, s + 3],
        Permute::Backward4 => [s, s.wrapping_sub(1), s.wrapping_sub(2), s.wrapping_sub(3)],
        Permute::Replicate8 => [s; 4],
        Permute::EdgeLeft => [0, 1, 2, 3].map(|i: u32| i.max(s)),
        Permute::EdgeRight => [0, 1, 2, 3].map(|i: u32| i.min(s)),
        Permute::Replicate16 => {
            let base = 2 * (s & 1);
            [base, base + 1, base, base + 1]
        }
    };
    chosen.iter().rev().fold(0, |out, &i| out << 8 | u32::from(pick(i)))
}

/// Bit by bit the entry of the table that the three bits name.
#[inline(always)]
fn lop3(table: u8, a: u32, b: u32, c: u32) -> u32 {
    let mut out = 0;
    for i in 0..8 {
        let term =
            (if i & 4 == 0 { !a } else { a }) & (if i & 2 == 0 { !b } else { b }) & if i & 1 == 0 { !c } else { c };
        let on = 0u32.wrapping_sub(u32::from(table >> i & 1));
        out |= term & on;
    }
    out
}
