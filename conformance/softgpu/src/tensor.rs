//! `mma.sync`: which lane holds which element, and the sums.
//!
//! In every shape, a lane's group `g = lane / 4` picks a row of A and a column of B, and `q = lane % 4` the elements
//! within. A register holds `e` elements (2 of 16 bits, 4 of 8, 1 otherwise).

use crate::alu::float::NAN;
use crate::alu::half::widen_f16;
use crate::alu::round::{F16, narrow};
use crate::alu::{L32, L64, map1};
use crate::isa::{Mma, MmaShape, Round};
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

/// Executes one `mma.sync` for a whole warp, whose registers these are.
pub(crate) fn mma(m: &Mma, arch: pulp::Arch, r32: &mut [L32], r64: &mut [L64]) {
    match m.c_type {
        Type::F64 => doubles(m, r64),
        Type::S32 => integers(m, r32),
        _ => arch.dispatch(Floats { m, r32 }),
    }
}

/// The product of floating-point matrices, to be compiled for the machine's vectors.
struct Floats<'a> {
    m: &'a Mma,
    r32: &'a mut [L32],
}

impl pulp::WithSimd for Floats<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let (m, r32) = (self.m, self.r32);
        let per = if m.a_type == Type::TF32 { 1 } else { 2 };
        let (mut a, mut b) = ([[0f32; 16]; 16], [[0f32; 8]; 16]);
        for (i, &r) in m.a.iter().enumerate() {
            let (low, high) = elements(m.a_type, &r32[r as usize]);
            let (row, column) = (8 * (i & 1), 4 * per * (i >> 1));
            for g in 0..8 {
                for q in 0..4 {
                    a[row + g][column + per * q] = low[4 * g + q];
                    if per == 2 {
                        a[row + g][column + 2 * q + 1] = high[4 * g + q];
                    }
                }
            }
        }
        for (i, &r) in m.b.iter().enumerate() {
            let (low, high) = elements(m.b_type, &r32[r as usize]);
            for q in 0..4 {
                for g in 0..8 {
                    b[4 * per * i + per * q][g] = low[4 * g + q];
                    if per == 2 {
                        b[4 * per * i + 2 * q + 1][g] = high[4 * g + q];
                    }
                }
            }
        }
        let mut d = accumulators(m, r32);
        add_products(&a, &b[..per * 4 * m.b.len()], &mut d);
        put(m, &d, r32);
    }
}

/// The two elements of a register of 16-bit floating point, in all lanes; the first only of a 32-bit one.
#[inline(always)]
fn elements(ty: Type, bits: &L32) -> ([f32; 32], [f32; 32]) {
    let (mut low, mut high) = ([0f32; 32], [0f32; 32]);
    for l in 0..32 {
        (low[l], high[l]) = match ty {
            Type::F16 => (widen_f16(bits[l] & 0xffff), widen_f16(bits[l] >> 16)),
            Type::BF16 => (f32::from_bits(bits[l] << 16), f32::from_bits(bits[l] & 0xffff_0000)),
            // Only the upper 19 bits of a tf32 are looked at.
            _ => (f32::from_bits(bits[l] & !0x1fff), 0.0),
        };
    }
    (low, high)
}

/// The accumulator: sums of one row, two in a lane.
#[inline(always)]
fn accumulators(m: &Mma, r32: &[L32]) -> [[f32; 8]; 16] {
    let mut d = [[0f32; 8]; 16];
    let mut fill = |row: usize, even: &[f32; 32], odd: &[f32; 32]| {
        for g in 0..8 {
            for q in 0..4 {
                (d[row + g][2 * q], d[row + g][2 * q + 1]) = (even[4 * g + q], odd[4 * g + q]);
            }
        }
    };
    if m.c_type == Type::F16 {
        for (i, &r) in m.c.iter().enumerate() {
            let (even, odd) = elements(Type::F16, &r32[r as usize]);
            fill(8 * i, &even, &odd);
        }
    } else {
        for (i, pair) in m.c.chunks_exact(2).enumerate() {
            let [even, odd] = [pair[0], pair[1]].map(|r| {
                let mut values = [0f32; 32];
                map1(&r32[r as usize], &mut values, f32::from_bits);
                values
            });
            fill(8 * i, &even, &odd);
        }
    }
    d
}

/// Products are exact in single precision; the sum is rounded after each, in order of k.
#[inline(always)]
fn add_products(a: &[[f32; 16]; 16], b: &[[f32; 8]], d: &mut [[f32; 8]; 16]) {
    for (row, sums) in a.iter().zip(d.iter_mut()) {
        let mut held = *sums;
        for (x, line) in row.iter().zip(b) {
            // Each sum waits for the one before, but those of other rows don't.
            for (s, y) in held.iter_mut().zip(line) {
                *s += x * y;
            }
        }
        *sums = held;
    }
}

#[inline(always)]
fn put(m: &Mma, d: &[[f32; 8]; 16], r32: &mut [L32]) {
    if m.c_type == Type::F16 {
        let half = |x: f32| narrow(f64::from(x), F16, Round::Nearest);
        for (i, &r) in m.d.iter().enumerate() {
            for (lane, to) in r32[r as usize].iter_mut().enumerate() {
                let (row, q) = (&d[(lane >> 2) + 8 * i], lane & 3);
                *to = half(row[2 * q]) | half(row[2 * q + 1]) << 16;
            }
        }
        return;
    }
    for (i, &r) in m.d.iter().enumerate() {
        let to = &mut r32[r as usize];
        for g in 0..8 {
            for q in 0..4 {
                let x = d[8 * (i >> 1) + g][2 * q + (i & 1)];
                to[4 * g + q] = if x.is_nan() { NAN } else { x.to_bits() };
            }
        }
    }
}

fn doubles(m: &Mma, r64: &mut [L64]) {
    let (mut a, mut b, mut d) = ([[0f64; 4]; 8], [[0f64; 8]; 4], [[0f64; 8]; 8]);
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        a[g][q] = f64::from_bits(r64[m.a[0] as usize][lane]);
        b[q][g] = f64::from_bits(r64[m.b[0] as usize][lane]);
        for (i, &r) in m.c.iter().enumerate() {
            d[g][2 * q + i] = f64::from_bits(r64[r as usize][lane]);
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
            r64[r as usize][lane] = d[lane >> 2][2 * (lane & 3) + i].to_bits();
        }
    }
}

fn integers(m: &Mma, r32: &mut [L32]) {
    let byte = |ty: Type, bits: u32, e: usize| {
        let byte = (bits >> (8 * e)) as u8;
        if ty == Type::S8 { i64::from(byte as i8) } else { i64::from(byte) }
    };
    let (mut a, mut b, mut d) = ([[0i64; 32]; 16], [[0i64; 8]; 32], [[0i64; 8]; 16]);
    for lane in 0..32 {
        let (g, q) = (lane >> 2, lane & 3);
        for (i, &r) in m.a.iter().enumerate() {
            for e in 0..4 {
                a[g + 8 * (i & 1)][4 * q + e + (i >> 1) * 16] = byte(m.a_type, r32[r as usize][lane], e);
            }
        }
        for (i, &r) in m.b.iter().enumerate() {
            for e in 0..4 {
                b[4 * q + e + i * 16][g] = byte(m.b_type, r32[r as usize][lane], e);
            }
        }
        for (i, &r) in m.c.iter().enumerate() {
            d[g + 8 * (i >> 1)][2 * q + (i & 1)] = i64::from(r32[r as usize][lane] as i32);
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
            r32[r as usize][lane] = sum as u32;
        }
    }
}
