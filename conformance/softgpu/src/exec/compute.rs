//! Arithmetic instructions: sources to destination, under the mask.

use super::Warp;
use crate::alu::{L32, L64, bits, convert, float, half, int, map1, map2};
use crate::isa::{Alu32, Alu64, Carry, Cvt, HalfFormat, Mode, Op, R, Round};
use crate::ptx::Type;

#[inline(always)]
fn alu32(op: Alu32, a: &L32, b: &L32, c: &L32, out: &mut L32) {
    match op {
        Alu32::U32(op) => int::u32s(op, a, b, c, out),
        Alu32::S32(op) => int::s32s(op, a, b, c, out),
        Alu32::U16(op) => int::u16s(op, a, b, c, out),
        Alu32::S16(op) => int::s16s(op, a, b, c, out),
        Alu32::Plain(op) => float::singles(op, Mode::default(), a, b, c, out),
        Alu32::F32(op, mode) => float::singles(op, mode, a, b, c, out),
        Alu32::Half(format, op, mode, pair) => {
            for l in 0..32 {
                out[l] = half::lane(format, op, mode, pair, a[l], b[l], c[l]);
            }
        }
        _ => {
            for l in 0..32 {
                out[l] = bits::lane(op, a[l], b[l], c[l]);
            }
        }
    }
}

#[inline(always)]
fn alu64(op: Alu64, a: &L64, b: &L64, c: &L64, out: &mut L64) {
    match op {
        Alu64::U(op) => int::u64s(op, a, b, c, out),
        Alu64::S(op) => int::s64s(op, a, b, c, out),
        Alu64::F(op, mode) => float::doubles(op, mode, a, b, c, out),
    }
}

/// A 32-bit operation, to be compiled for the machine's vectors.
struct Narrow<'a> {
    warp: &'a mut Warp,
    op: Alu32,
    d: R,
    sources: [R; 3],
    active: u32,
}

impl pulp::WithSimd for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let [a, b, c] = self.sources;
        let mut out = [0; 32];
        alu32(self.op, self.warp.l32(a), self.warp.l32(b), self.warp.l32(c), &mut out);
        self.warp.set32(self.d, &out, self.active);
    }
}

/// A 64-bit operation, likewise.
struct Wide<'a> {
    warp: &'a mut Warp,
    op: Alu64,
    d: R,
    sources: [R; 3],
    active: u32,
}

impl pulp::WithSimd for Wide<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let [a, b, c] = self.sources;
        let mut out = [0; 32];
        alu64(self.op, self.warp.l64(a), self.warp.l64(b), self.warp.l64(c), &mut out);
        self.warp.set64(self.d, &out, self.active);
    }
}

impl Warp {
    #[inline(always)]
    fn l32(&self, r: R) -> &L32 {
        &self.r32[r as usize]
    }

    #[inline(always)]
    fn l64(&self, r: R) -> &L64 {
        &self.r64[r as usize]
    }

    pub(super) fn alu32(&mut self, arch: pulp::Arch, op: Alu32, d: R, sources: [R; 3], active: u32) {
        arch.dispatch(Narrow { warp: self, op, d, sources, active });
    }

    pub(super) fn alu64(&mut self, arch: pulp::Arch, op: Alu64, d: R, sources: [R; 3], active: u32) {
        arch.dispatch(Wide { warp: self, op, d, sources, active });
    }

    /// Everything that only reads registers and writes one or a few; `false` if `op` is something else.
    #[allow(clippy::too_many_lines)] // one short arm for each instruction
    pub(super) fn compute(&mut self, op: &Op, active: u32) -> bool {
        match *op {
            Op::Mov32(d, a) => {
                let a = *self.l32(a);
                self.set32(d, &a, active);
                return true;
            }
            Op::Mov64(d, a) => {
                let a = *self.l64(a);
                self.set64(d, &a, active);
                return true;
            }
            _ => {}
        }
        let (mut o32, mut o64) = ([0u32; 32], [0u64; 32]);
        let (d, wide) = match *op {
            Op::Shl64(d, a, n) => {
                map2(self.l64(a), self.l32(n), &mut o64, |x, n| if n < 64 { x << n } else { 0 });
                (d, true)
            }
            Op::Shr64(signed, d, a, n) => {
                map2(self.l64(a), self.l32(n), &mut o64, |x, n| match (signed, n < 64) {
                    (false, true) => x >> n,
                    (false, false) => 0,
                    (true, _) => (x as i64 >> n.min(63)) as u64,
                });
                (d, true)
            }
            Op::Wide32(signed, d, a, b) => {
                int::wide32(signed, self.l32(a), self.l32(b), &mut o64);
                (d, true)
            }
            Op::MadWide32(signed, d, a, b, c) => {
                int::wide32(signed, self.l32(a), self.l32(b), &mut o64);
                let product = o64;
                map2(&product, self.l64(c), &mut o64, u64::wrapping_add);
                (d, true)
            }
            Op::Wide16(signed, d, a, b) => {
                int::wide16(signed, self.l32(a), self.l32(b), &mut o32);
                (d, false)
            }
            Op::MadWide16(signed, d, a, b, c) => {
                int::wide16(signed, self.l32(a), self.l32(b), &mut o32);
                let product = o32;
                map2(&product, self.l32(c), &mut o32, u32::wrapping_add);
                (d, false)
            }
            Op::Pack16(d, a, b) => {
                map2(self.l32(a), self.l32(b), &mut o32, |x, y| x & 0xffff | y << 16);
                (d, false)
            }
            Op::Pack32(d, a, b) => {
                map2(self.l32(a), self.l32(b), &mut o64, |x, y| u64::from(y) << 32 | u64::from(x));
                (d, true)
            }
            Op::Pack64x16(d, parts) => {
                for (i, part) in parts.iter().enumerate() {
                    for l in 0..32 {
                        o64[l] |= u64::from(self.r32[*part as usize][l] as u16) << (16 * i);
                    }
                }
                (d, true)
            }
            Op::Selp32(d, a, b, p) => {
                let p = self.preds[p as usize];
                let (a, b) = (self.l32(a), self.l32(b));
                for l in 0..32 {
                    o32[l] = if p >> l & 1 == 1 { a[l] } else { b[l] };
                }
                (d, false)
            }
            Op::Selp64(d, a, b, p) => {
                let p = self.preds[p as usize];
                let (a, b) = (self.l64(a), self.l64(b));
                for l in 0..32 {
                    o64[l] = if p >> l & 1 == 1 { a[l] } else { b[l] };
                }
                (d, true)
            }
            Op::Mask(d, p, ones) => {
                let p = self.preds[p as usize];
                for l in 0..32 {
                    o32[l] = if p >> l & 1 == 1 { ones } else { 0 };
                }
                (d, false)
            }
            Op::CvtPack(format, mode, d, a, b) => {
                self.pack_halves(format, mode, a, b, &mut o32);
                (d, false)
            }
            Op::Bfi32(d, [a, b, position, length]) => {
                for l in 0..32 {
                    let r = |r: R| self.r32[r as usize][l];
                    o32[l] = bits::insert(r(a).into(), r(b).into(), r(position), r(length), 32) as u32;
                }
                (d, false)
            }
            Op::Bfi64(d, a, b, position, length) => {
                for l in 0..32 {
                    let (x, y) = (self.r64[a as usize][l], self.r64[b as usize][l]);
                    o64[l] = bits::insert(x, y, self.r32[position as usize][l], self.r32[length as usize][l], 64);
                }
                (d, true)
            }
            Op::Bfe64(signed, d, a, position, length) => {
                for l in 0..32 {
                    let (p, n) = (self.r32[position as usize][l], self.r32[length as usize][l]);
                    o64[l] = bits::extract(signed, self.r64[a as usize][l], p, n, 64);
                }
                (d, true)
            }
            Op::Popc64(d, a) => {
                map1(self.l64(a), &mut o32, u64::count_ones);
                (d, false)
            }
            Op::Clz64(d, a) => {
                map1(self.l64(a), &mut o32, u64::leading_zeros);
                (d, false)
            }
            Op::Bfind64 { signed, shift, d, a } => {
                let folded = |x: u64| if signed && x >> 63 == 1 { !x } else { x };
                map1(self.l64(a), &mut o32, |x| bits::found(folded(x), 64, shift));
                (d, false)
            }
            Op::Slct { float, wide, d, a, b, c } => {
                let c = *self.l32(c);
                let first = c.map(|c| if float { f32::from_bits(c) >= 0.0 } else { c as i32 >= 0 });
                for l in 0..32 {
                    let r = if first[l] { a } else { b };
                    if wide {
                        o64[l] = self.r64[r as usize][l];
                    } else {
                        o32[l] = self.r32[r as usize][l];
                    }
                }
                (d, wide)
            }
            _ => return self.several(op, active),
        };
        if wide {
            self.set64(d, &o64, active);
        } else {
            self.set32(d, &o32, active);
        }
        true
    }

    /// Those with more than one destination, or a flag.
    fn several(&mut self, op: &Op, active: u32) -> bool {
        match *op {
            Op::Unpack16(low, high, a) => {
                let a = *self.l32(a);
                for (d, shift) in [(low, 0), (high, 16)] {
                    if let Some(d) = d {
                        self.set32(d, &a.map(|x| x >> shift & 0xffff), active);
                    }
                }
            }
            Op::Unpack32(low, high, a) => {
                let a = *self.l64(a);
                for (d, shift) in [(low, 0), (high, 32)] {
                    if let Some(d) = d {
                        self.set32(d, &a.map(|x| (x >> shift) as u32), active);
                    }
                }
            }
            Op::Unpack64x16(parts, a) => {
                let a = *self.l64(a);
                for (i, d) in parts.iter().enumerate() {
                    if let Some(d) = d {
                        self.set32(*d, &a.map(|x| u32::from((x >> (16 * i)) as u16)), active);
                    }
                }
            }
            Op::Carry(carry, d, sources) => self.carry(carry, d, sources, active),
            Op::PredAnd(d, a, b) => self.set_pred(d, self.preds[a as usize] & self.preds[b as usize], active),
            Op::PredOr(d, a, b) => self.set_pred(d, self.preds[a as usize] | self.preds[b as usize], active),
            Op::PredXor(d, a, b) => self.set_pred(d, self.preds[a as usize] ^ self.preds[b as usize], active),
            Op::PredNot(d, a) => self.set_pred(d, !self.preds[a as usize], active),
            _ => return false,
        }
        true
    }

    fn pack_halves(&self, format: HalfFormat, mode: Mode, a: R, b: R, out: &mut L32) {
        let (a, b) = (self.l32(a), self.l32(b));
        for l in 0..32 {
            let narrow = |x: u32| u32::from(convert::single_to_half(format, mode, f32::from_bits(x)));
            out[l] = narrow(a[l]) << 16 | narrow(b[l]);
        }
    }

    fn carry(&mut self, op: Carry, d: R, sources: [R; 3], active: u32) {
        let (mut low, mut high, mut flags) = ([0u32; 32], [0u64; 32], 0);
        for l in 0..32 {
            let read = |r: R| if op.wide { self.r64[r as usize][l] } else { self.r32[r as usize][l].into() };
            let [a, b, c] = sources.map(read);
            let (value, flag) = int::carry(op, a, b, c, self.carry >> l & 1 == 1);
            (low[l], high[l]) = (value as u32, value);
            flags |= u32::from(flag) << l;
        }
        if op.wide {
            self.set64(d, &high, active);
        } else {
            self.set32(d, &low, active);
        }
        if op.writes {
            self.carry = self.carry & !active | flags & active;
        }
    }

    pub(super) fn cvt(&mut self, cvt: Cvt, wide_from: bool, wide_to: bool, d: R, a: R, active: u32) {
        if !wide_from && !wide_to && self.quick_cvt(cvt, d, a, active) {
            return;
        }
        let mut out = [0u64; 32];
        for l in super::lanes(active) {
            let bits = if wide_from { self.r64[a as usize][l] } else { self.r32[a as usize][l].into() };
            out[l] = convert::convert(cvt, bits);
        }
        if wide_to {
            self.set64(d, &out, active);
        } else {
            // A 16-bit register holds 16 bits, whatever the sign.
            let keep = if cvt.to.bytes() <= 2 && cvt.to != Type::S8 && cvt.to != Type::S16 { 0xffff } else { u32::MAX };
            self.set32(d, &out.map(|x| x as u32 & keep), active);
        }
    }

    /// The conversions that kernels spend time in.
    fn quick_cvt(&mut self, cvt: Cvt, d: R, a: R, active: u32) -> bool {
        let mode = cvt.mode;
        let plain = mode == Mode { round: mode.round, ..Mode::default() };
        if !plain || mode.round != Round::Nearest {
            return false;
        }
        let a = self.l32(a);
        let mut out = [0; 32];
        match (cvt.from, cvt.to) {
            (Type::F32, Type::F16) => {
                map1(a, &mut out, |x| u32::from(convert::single_to_half(HalfFormat::F16, mode, f32::from_bits(x))));
            }
            (Type::F32, Type::BF16) => {
                map1(a, &mut out, |x| u32::from(convert::single_to_half(HalfFormat::BF16, mode, f32::from_bits(x))));
            }
            (Type::S32, Type::F32) => map1(a, &mut out, |x| (x as i32 as f32).to_bits()),
            (Type::U32, Type::F32) => map1(a, &mut out, |x| (x as f32).to_bits()),
            (Type::U16, Type::U32) | (Type::U32, Type::U16) => map1(a, &mut out, |x| x & 0xffff),
            _ => return false,
        }
        self.set32(d, &out, active);
        true
    }
}
