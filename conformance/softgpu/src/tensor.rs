//! `mma.sync`: which lane holds which element, and the sums.
//!
//! In every shape, a lane's group `g = lane / 4` picks a row of A and a column of B, and `q = lane % 4` the elements
//! within. A register holds `e` elements (2 of 16 bits, 4 of 8, 1 otherwise).

use crate::alu::float::NAN;
use crate::alu::half::widen;
use crate::alu::round::{F16, narrow};
use crate::isa::{HalfFormat, Mma, MmaShape, Round};
use crate::ptx::Type;

/// Registers a lane gives for a, b and c; `None` for a combination that doesn't exist or isn't supported.
pub(crate) fn registers(shape: MmaShape, a: Type, b: Type, c: Type) -> Option<[usize; 3]> {
    let byte = |ty| matches!(ty, Type::S8 | Type::U8);
    Some(match (shape, a, c) {
        (MmaShape::M16N8K16, Type::F16 | Type::BF16, Type::F32) | (MmaShape::M16N8K8, Type::TF32, Type::F32)
            if a == b =>
        {
            [4, 2, 4]
        }
        (MmaShape::M16N8K16, Type::F16, Type::F16) if a == b => [4, 2, 2],
        (MmaShape::M16N8K8, Type::F16 | Type::BF16, Type::F32) | (MmaShape::M16N8K4, Type::TF32, Type::F32)
            if a == b =>
        {
            [2, 1, 4]
        }
        (MmaShape::M16N8K8, Type::F16, Type::F16) if a == b => [2, 1, 2],
        (MmaShape::M8N8K4, Type::F64, Type::F64) if a == b => [1, 1, 2],
        (MmaShape::M16N8K32, _, Type::S32) if byte(a) && byte(b) => [4, 2, 4],
        (MmaShape::M16N8K16, _, Type::S32) if byte(a) && byte(b) => [2, 1, 4],
        _ => return None,
    })
}

/// A warp's registers as `mma` sees them: one lane's value of one register.
pub(crate) trait Files {
    fn get32(&self, register: u32, lane: usize) -> u32;
    fn get64(&self, register: u32, lane: usize) -> u64;
    fn set32(&mut self, register: u32, lane: usize, value: u32);
    fn set64(&mut self, register: u32, lane: usize, value: u64);
}

/// Executes one `mma.sync` for a whole warp.
pub(crate) fn mma(m: &Mma, files: &mut impl Files) {
    match m.c_type {
        Type::F64 => doubles(m, files),
        Type::S32 => integers(m, files),
        _ => floats(m, files),
    }
}

/// Element `e` of a register of 16- or 32-bit floating point.
fn element(ty: Type, bits: u32, e: usize) -> f32 {
    match ty {
        Type::F16 => widen(HalfFormat::F16, (bits >> (16 * e)) as u16),
        Type::BF16 => widen(HalfFormat::BF16, (bits >> (16 * e)) as u16),
        // Only the upper 19 bits of a tf32 are looked at.
        _ => f32::from_bits(bits & !0x1fff),
    }
}

/// Products are exact in single precision; the sum is rounded after each, in order of k.
fn floats(m: &Mma, files: &mut impl Files) {
    let per = if m.a_type == Type::TF32 { 1 } else { 2 };
    let mut a = [[0f32; 16]; 16];
    let mut b = [[0f32; 8]; 16];
    let mut d = [[0f32; 8]; 16];
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        for (i, &r) in m.a.iter().enumerate() {
            let bits = files.get32(r, lane);
            for e in 0..per {
                a[g + 8 * (i & 1)][per * q + e + (i >> 1) * 4 * per] = element(m.a_type, bits, e);
            }
        }
        for (i, &r) in m.b.iter().enumerate() {
            let bits = files.get32(r, lane);
            for e in 0..per {
                b[per * q + e + i * 4 * per][g] = element(m.b_type, bits, e);
            }
        }
        for (i, &r) in m.c.iter().enumerate() {
            let bits = files.get32(r, lane);
            if m.c_type == Type::F16 {
                for e in 0..2 {
                    d[g + 8 * i][2 * q + e] = element(Type::F16, bits, e);
                }
            } else {
                d[g + 8 * (i >> 1)][2 * q + (i & 1)] = f32::from_bits(bits);
            }
        }
    }
    let depth = per * 4 * m.b.len();
    for (row, sums) in a.iter().zip(d.iter_mut()) {
        for (x, line) in row[..depth].iter().zip(&b) {
            for (sum, y) in sums.iter_mut().zip(line) {
                *sum += x * y;
            }
        }
    }
    let half = |x: f32| narrow(f64::from(x), F16, Round::Nearest);
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        for (i, &r) in m.d.iter().enumerate() {
            let bits = if m.c_type == Type::F16 {
                half(d[g + 8 * i][2 * q]) | half(d[g + 8 * i][2 * q + 1]) << 16
            } else {
                let x = d[g + 8 * (i >> 1)][2 * q + (i & 1)];
                if x.is_nan() { NAN } else { x.to_bits() }
            };
            files.set32(r, lane, bits);
        }
    }
}

fn doubles(m: &Mma, files: &mut impl Files) {
    let (mut a, mut b, mut d) = ([[0f64; 4]; 8], [[0f64; 8]; 4], [[0f64; 8]; 8]);
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        a[g][q] = f64::from_bits(files.get64(m.a[0], lane));
        b[q][g] = f64::from_bits(files.get64(m.b[0], lane));
        for (i, &r) in m.c.iter().enumerate() {
            d[g][2 * q + i] = f64::from_bits(files.get64(r, lane));
        }
    }
    for (row, sums) in a.iter().zip(d.iter_mut()) {
        for (x, line) in row.iter().zip(&b) {
            for (sum, y) in sums.iter_mut().zip(line) {
                *sum = x.mul_add(*y, *sum);
            }
        }
    }
    for lane in 0..32 {
        for (i, &r) in m.d.iter().enumerate() {
            files.set64(r, lane, d[lane >> 2][2 * (lane & 3) + i].to_bits());
        }
    }
}

fn integers(m: &Mma, files: &mut impl Files) {
    let byte = |ty: Type, bits: u32, e: usize| {
        let byte = (bits >> (8 * e)) as u8;
        if ty == Type::S8 { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let (mut a, mut b, mut d) = ([[0i64; 32]; 16], [[0i64; 8]; 32], [[0i64; 8]; 16]);
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        for (i, &r) in m.a.iter().enumerate() {
            for e in 0..4 {
                a[g + 8 * (i & 1)][4 * q + e + (i >> 1) * 16] = byte(m.a_type, files.get32(r, lane), e);
            }
        }
        for (i, &r) in m.b.iter().enumerate() {
            for e in 0..4 {
                b[4 * q + e + i * 16][g] = byte(m.b_type, files.get32(r, lane), e);
            }
        }
        for (i, &r) in m.c.iter().enumerate() {
            d[g + 8 * (i >> 1)][2 * q + (i & 1)] = i64::from(files.get32(r, lane) as i32);
        }
    }
    let depth = 16 * m.b.len();
    for (row, sums) in a.iter().zip(d.iter_mut()) {
        for (x, line) in row[..depth].iter().zip(&b) {
            for (sum, y) in sums.iter_mut().zip(line) {
                *sum += x * y;
            }
        }
    }
    for lane in 0..32 {
        for (i, &r) in m.d.iter().enumerate() {
            let sum = d[(lane >> 2) + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)];
            let sum = if m.saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
            files.set32(r, lane, sum as u32);
        }
    }
}
