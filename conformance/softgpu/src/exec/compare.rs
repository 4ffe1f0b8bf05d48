//! Comparisons: a predicate is one bit per lane.

use core::num::FpCategory::{Infinite, Nan, Normal, Subnormal};

use super::Warp;
use crate::alu::float::flush;
use crate::alu::half::widen;
use crate::decode::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::isa::{Class, Cmp, Combine, HalfFormat, R, Setp};
use crate::ptx::{Space, Type};

/// One bit per lane.
#[inline(always)]
fn bits<T: Copy>(a: &[T; 32], b: &[T; 32], f: impl Fn(T, T) -> bool) -> u32 {
    let mut out = 0;
    for l in 0..32 {
        out |= u32::from(f(a[l], b[l])) << l;
    }
    out
}

#[inline(always)]
fn ordered<T: Copy, V: PartialOrd>(cmp: Cmp, a: &[T; 32], b: &[T; 32], f: impl Fn(T) -> V) -> u32 {
    match cmp {
        Cmp::Eq => bits(a, b, |x, y| f(x) == f(y)),
        Cmp::Ne => bits(a, b, |x, y| f(x) != f(y)),
        Cmp::Lt => bits(a, b, |x, y| f(x) < f(y)),
        Cmp::Le => bits(a, b, |x, y| f(x) <= f(y)),
        Cmp::Gt => bits(a, b, |x, y| f(x) > f(y)),
        Cmp::Ge => bits(a, b, |x, y| f(x) >= f(y)),
        _ => floating(cmp, a, b, f),
    }
}

/// A comparison that knows of NaN.
#[inline(always)]
fn floating<T: Copy, V: PartialOrd>(cmp: Cmp, a: &[T; 32], b: &[T; 32], f: impl Fn(T) -> V) -> u32 {
    use core::cmp::Ordering::{Equal, Greater, Less};
    bits(a, b, |x, y| {
        let order = f(x).partial_cmp(&f(y));
        let unordered = order.is_none();
        match cmp {
            Cmp::Eq => order == Some(Equal),
            Cmp::Ne => !unordered && order != Some(Equal),
            Cmp::Lt => order == Some(Less),
            Cmp::Le => matches!(order, Some(Less | Equal)),
            Cmp::Gt => order == Some(Greater),
            Cmp::Ge => matches!(order, Some(Greater | Equal)),
            Cmp::Equ => unordered || order == Some(Equal),
            Cmp::Neu => order != Some(Equal),
            Cmp::Ltu => unordered || order == Some(Less),
            Cmp::Leu => order != Some(Greater),
            Cmp::Gtu => unordered || order == Some(Greater),
            Cmp::Geu => order != Some(Less),
            Cmp::Num => !unordered,
            Cmp::Nan => unordered,
        }
    })
}

impl Warp {
    #[inline(always)]
    pub(super) fn setp(&mut self, s: &Setp, active: u32) {
        let (a, b) = (s.a as usize, s.b as usize);
        let halves = |format| move |x: u32| widen(format, x as u16);
        let result = match s.ty {
            Type::F64 => floating(s.cmp, &self.r64[a], &self.r64[b], f64::from_bits),
            Type::F32 if s.ftz => floating(s.cmp, &self.r32[a], &self.r32[b], |x| flush(f32::from_bits(x))),
            Type::F32 => floating(s.cmp, &self.r32[a], &self.r32[b], f32::from_bits),
            Type::F16 => floating(s.cmp, &self.r32[a], &self.r32[b], halves(HalfFormat::F16)),
            Type::BF16 => floating(s.cmp, &self.r32[a], &self.r32[b], halves(HalfFormat::BF16)),
            Type::S64 => ordered(s.cmp, &self.r64[a], &self.r64[b], |x| x as i64),
            Type::U64 | Type::B64 => ordered(s.cmp, &self.r64[a], &self.r64[b], |x| x),
            Type::S32 => ordered(s.cmp, &self.r32[a], &self.r32[b], |x| x as i32),
            Type::S16 => ordered(s.cmp, &self.r32[a], &self.r32[b], |x| x as i16),
            Type::U16 | Type::B16 => ordered(s.cmp, &self.r32[a], &self.r32[b], |x| x as u16),
            _ => ordered(s.cmp, &self.r32[a], &self.r32[b], |x| x),
        };
        let combined = |value: u32| match s.with {
            None => value,
            Some((combine, p, negated)) => {
                let p = self.preds[p as usize];
                let p = if negated { !p } else { p };
                match combine {
                    Combine::And => value & p,
                    Combine::Or => value | p,
                    Combine::Xor => value ^ p,
                }
            }
        };
        let (d, q) = (combined(result), combined(!result));
        self.set_pred(s.d, d, active);
        if let Some(other) = s.q {
            self.set_pred(other, q, active);
        }
    }

    pub(super) fn testp(&mut self, which: Class, wide: bool, d: R, a: R, active: u32) {
        let mut out = 0;
        for l in 0..32 {
            let class = if wide {
                f64::from_bits(self.r64[a as usize][l]).classify()
            } else {
                f32::from_bits(self.r32[a as usize][l]).classify()
            };
            let yes = match which {
                Class::Finite => !matches!(class, Infinite | Nan),
                Class::Infinite => class == Infinite,
                Class::Number => class != Nan,
                Class::NotANumber => class == Nan,
                Class::Normal => class == Normal,
                Class::Subnormal => class == Subnormal,
            };
            out |= u32::from(yes) << l;
        }
        self.set_pred(d, out, active);
    }

    pub(super) fn is_space(&mut self, space: Space, d: R, a: R, active: u32) {
        let a = self.r64[a as usize];
        let window = |x: u64| match x >> 32 << 32 {
            SHARED_WINDOW => Space::Shared,
            LOCAL_WINDOW => Space::Local,
            PARAM_WINDOW => Space::Param,
            _ => Space::Global,
        };
        let yes = bits(&a, &a, |x, _| window(x) == space);
        self.set_pred(d, yes, active);
    }
}
