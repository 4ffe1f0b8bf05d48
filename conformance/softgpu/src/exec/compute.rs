//! Arithmetic instructions: sources to destination, under the mask.

use super::Warp;
use crate::alu::float::NAN;
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

impl Warp {
    #[inline(always)]
    fn l32(&self, r: R) -> &L32 {
        &self.r32[r as usize]
    }

    #[inline(always)]
    fn l64(&self, r: R) -> &L64 {
        &self.r64[r as usize]
    }

    #[inline(always)]
    pub(super) fn alu32(&mut self, op: Alu32, d: R, [a, b, c]: [R; 3], active: u32) {
        let mut out = [0; 32];
        alu32(op, self.l32(a), self.l32(b), self.l32(c), &mut out);
        self.set32(d, &out, active);
    }

    #[inline(always)]
    pub(super) fn alu64(&mut self, op: Alu64, d: R, [a, b, c]: [R; 3], active: u32) {
        let mut out = [0; 32];
        alu64(op, self.l64(a), self.l64(b), self.l64(c), &mut out);
        self.set64(d, &out, active);
    }

    /// Writes a 32-bit register.
    #[inline(always)]
    fn narrow(&mut self, d: R, active: u32, f: impl FnOnce(&Self, &mut L32)) {
        let mut out = [0; 32];
        f(self, &mut out);
        self.set32(d, &out, active);
    }

    /// Writes a 64-bit register.
    #[inline(always)]
    fn wide(&mut self, d: R, active: u32, f: impl FnOnce(&Self, &mut L64)) {
        let mut out = [0; 32];
        f(self, &mut out);
        self.set64(d, &out, active);
    }

    /// Everything that only reads registers and writes one or a few; `false` if `op` is something else.
    #[allow(clippy::too_many_lines)] // one short arm for each instruction
    #[inline(always)]
    pub(super) fn compute(&mut self, op: &Op, active: u32) -> bool {
        match *op {
            Op::Mov32(d, a) => self.narrow(d, active, |w, out| *out = *w.l32(a)),
            Op::Mov64(d, a) => self.wide(d, active, |w, out| *out = *w.l64(a)),
            Op::Shl64(d, a, n) => self.wide(d, active, |w, out| {
                map2(w.l64(a), w.l32(n), out, |x, n| if n < 64 { x << n } else { 0 });
            }),
            Op::Shr64(signed, d, a, n) => self.wide(d, active, |w, out| {
                map2(w.l64(a), w.l32(n), out, |x, n| match (signed, n < 64) {
                    (false, true) => x >> n,
                    (false, false) => 0,
                    (true, _) => (x as i64 >> n.min(63)) as u64,
                });
            }),
            Op::Wide32(signed, d, a, b) => {
                self.wide(d, active, |w, out| int::wide32(signed, w.l32(a), w.l32(b), out));
            }
            Op::MadWide32(signed, d, a, b, c) => self.wide(d, active, |w, out| {
                let mut product = [0; 32];
                int::wide32(signed, w.l32(a), w.l32(b), &mut product);
                map2(&product, w.l64(c), out, u64::wrapping_add);
            }),
            Op::Wide16(signed, d, a, b) => {
                self.narrow(d, active, |w, out| int::wide16(signed, w.l32(a), w.l32(b), out));
            }
            Op::MadWide16(signed, d, a, b, c) => self.narrow(d, active, |w, out| {
                let mut product = [0; 32];
                int::wide16(signed, w.l32(a), w.l32(b), &mut product);
                map2(&product, w.l32(c), out, u32::wrapping_add);
            }),
            Op::Pack16(d, a, b) => self.narrow(d, active, |w, out| {
                map2(w.l32(a), w.l32(b), out, |x, y| x & 0xffff | y << 16);
            }),
            Op::Pack32(d, a, b) => self.wide(d, active, |w, out| {
                map2(w.l32(a), w.l32(b), out, |x, y| u64::from(y) << 32 | u64::from(x));
            }),
            Op::Selp32(d, a, b, p) => self.narrow(d, active, |w, out| {
                let (p, a, b) = (w.preds[p as usize], w.l32(a), w.l32(b));
                for l in 0..32 {
                    out[l] = if p >> l & 1 == 1 { a[l] } else { b[l] };
                }
            }),
            Op::Selp64(d, a, b, p) => self.wide(d, active, |w, out| {
                let (p, a, b) = (w.preds[p as usize], w.l64(a), w.l64(b));
                for l in 0..32 {
                    out[l] = if p >> l & 1 == 1 { a[l] } else { b[l] };
                }
            }),
            Op::Mask(d, p, ones) => self.narrow(d, active, |w, out| {
                let p = w.preds[p as usize];
                for (l, out) in out.iter_mut().enumerate() {
                    *out = if p >> l & 1 == 1 { ones } else { 0 };
                }
            }),
            Op::CvtPack(format, mode, d, a, b) => {
                self.narrow(d, active, |w, out| w.pack_halves(format, mode, a, b, out));
            }
            _ => return self.fields(op, active) || self.several(op, active),
        }
        true
    }

    /// Bit fields, counts of bits, and what else is rare.
    fn fields(&mut self, op: &Op, active: u32) -> bool {
        match *op {
            Op::Pack64x16(d, parts) => self.wide(d, active, |w, out| {
                for (i, part) in parts.into_iter().enumerate() {
                    for (out, x) in out.iter_mut().zip(w.l32(part)) {
                        *out |= u64::from(*x as u16) << (16 * i);
                    }
                }
            }),
            Op::Bfi32(d, sources) => self.narrow(d, active, |w, out| {
                for (l, out) in out.iter_mut().enumerate() {
                    let [a, b, position, length] = sources.map(|r| w.l32(r)[l]);
                    *out = bits::insert(a.into(), b.into(), position, length, 32) as u32;
                }
            }),
            Op::Bfi64(d, a, b, position, length) => self.wide(d, active, |w, out| {
                for (l, out) in out.iter_mut().enumerate() {
                    *out = bits::insert(w.l64(a)[l], w.l64(b)[l], w.l32(position)[l], w.l32(length)[l], 64);
                }
            }),
            Op::Bfe64(signed, d, a, position, length) => self.wide(d, active, |w, out| {
                for (l, out) in out.iter_mut().enumerate() {
                    *out = bits::extract(signed, w.l64(a)[l], w.l32(position)[l], w.l32(length)[l], 64);
                }
            }),
            Op::Popc64(d, a) => self.narrow(d, active, |w, out| map1(w.l64(a), out, u64::count_ones)),
            Op::Clz64(d, a) => self.narrow(d, active, |w, out| map1(w.l64(a), out, u64::leading_zeros)),
            Op::Bfind64 { signed, shift, d, a } => self.narrow(d, active, |w, out| {
                let folded = |x: u64| if signed && x >> 63 == 1 { !x } else { x };
                map1(w.l64(a), out, |x| bits::found(folded(x), 64, shift));
            }),
            Op::Slct { float, wide, d, a, b, c } => {
                let first = self.l32(c).map(|c| if float { f32::from_bits(c) >= 0.0 } else { c as i32 >= 0 });
                if wide {
                    self.wide(d, active, |w, out| {
                        for (l, out) in out.iter_mut().enumerate() {
                            *out = w.l64(if first[l] { a } else { b })[l];
                        }
                    });
                } else {
                    self.narrow(d, active, |w, out| {
                        for (l, out) in out.iter_mut().enumerate() {
                            *out = w.l32(if first[l] { a } else { b })[l];
                        }
                    });
                }
            }
            _ => return false,
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

    #[inline(always)]
    pub(super) fn cvt(&mut self, cvt: Cvt, wide_from: bool, wide_to: bool, d: R, a: R, active: u32) {
        let done = match (wide_from, wide_to) {
            (false, false) => self.quick_cvt(cvt, d, a, active),
            _ => self.resize(cvt, d, a, active),
        };
        if !done {
            self.slow_cvt(cvt, wide_from, wide_to, d, a, active);
        }
    }

    /// Integers of 32 bits to 64 and back, as addresses need them, and sums of doubles that are narrowed.
    #[inline(always)]
    fn resize(&mut self, cvt: Cvt, d: R, a: R, active: u32) -> bool {
        if cvt.mode != Mode::default() {
            return false;
        }
        match (cvt.from, cvt.to) {
            (Type::U32, Type::U64 | Type::S64) => self.wide(d, active, |w, out| map1(w.l32(a), out, u64::from)),
            (Type::S32, Type::U64 | Type::S64) => {
                self.wide(d, active, |w, out| map1(w.l32(a), out, |x| i64::from(x as i32) as u64));
            }
            (Type::U64 | Type::S64, Type::U32 | Type::S32) => {
                self.narrow(d, active, |w, out| map1(w.l64(a), out, |x| x as u32));
            }
            (Type::F64, Type::F32) => self.narrow(d, active, |w, out| {
                map1(w.l64(a), out, |x| {
                    let x = f64::from_bits(x) as f32;
                    if x.is_nan() { NAN } else { x.to_bits() }
                });
            }),
            _ => return false,
        }
        true
    }

    fn slow_cvt(&mut self, cvt: Cvt, wide_from: bool, wide_to: bool, d: R, a: R, active: u32) {
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
    #[inline(always)]
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
            (Type::F16, Type::F32) => map1(a, &mut out, |x| {
                let x = half::widen_f16(x & 0xffff);
                if x.is_nan() { NAN } else { x.to_bits() }
            }),
            (Type::S32, Type::F32) => map1(a, &mut out, |x| (x as i32 as f32).to_bits()),
            (Type::U32, Type::F32) => map1(a, &mut out, |x| (x as f32).to_bits()),
            (Type::U16, Type::U32) | (Type::U32, Type::U16) => map1(a, &mut out, |x| x & 0xffff),
            _ => return false,
        }
        self.set32(d, &out, active);
        true
    }
}
