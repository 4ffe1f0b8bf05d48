//! Single and double precision.
//!
//! What the manual defines exactly is exact. The `.approx` functions are computed in double precision and rounded, which
//! is within every error it allows.

use super::round::{self, add_odd, narrow, odd, zero_sum};
use super::{L32, L64, map1, map2, map3};
use crate::isa::{Flt, Mode, Round};

/// The NaN that single-precision arithmetic gives.
pub(crate) const NAN: u32 = 0x7fff_ffff;

#[inline(always)]
fn out32(x: f32) -> u32 {
    if x.is_nan() { NAN } else { x.to_bits() }
}

#[inline(always)]
fn f(bits: u32) -> f32 {
    f32::from_bits(bits)
}

/// A subnormal becomes a zero of its sign.
pub(crate) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// Single precision, a warp at a time.
#[inline(always)]
pub(crate) fn singles(op: Flt, mode: Mode, a: &L32, b: &L32, c: &L32, out: &mut L32) {
    if mode == Mode::default() {
        match op {
            Flt::Add => return map2(a, b, out, |x, y| out32(f(x) + f(y))),
            Flt::Sub => return map2(a, b, out, |x, y| out32(f(x) - f(y))),
            Flt::Mul => return map2(a, b, out, |x, y| out32(f(x) * f(y))),
            Flt::Fma => return map3(a, b, c, out, |x, y, z| out32(f(x).mul_add(f(y), f(z)))),
            Flt::Min => return map2(a, b, out, |x, y| if smaller(f(x), f(y)) { x } else { number_of(f(x), y) }),
            Flt::Max => return map2(a, b, out, |x, y| if larger(f(x), f(y)) { x } else { number_of(f(x), y) }),
            Flt::Div => return map2(a, b, out, |x, y| out32(f(x) / f(y))),
            Flt::Sqrt => return map1(a, out, |x| out32(f(x).sqrt())),
            Flt::Rcp => return map1(a, out, |x| out32(1.0 / f(x))),
            _ => {}
        }
    }
    match op {
        Flt::Neg if !mode.ftz => map1(a, out, |x| x ^ 1 << 31),
        Flt::Abs if !mode.ftz => map1(a, out, |x| x & !(1 << 31)),
        Flt::Copysign => map2(a, b, out, |x, y| y & !(1 << 31) | x & 1 << 31),
        Flt::Ex2 if mode.ftz => map1(a, out, |x| flush_bits(out32(exp2(flush(f(x)))))),
        Flt::Ex2 => map1(a, out, |x| out32(exp2(f(x)))),
        _ => {
            for l in 0..32 {
                out[l] = single(op, mode, f(a[l]), f(b[l]), f(c[l]));
            }
        }
    }
}

fn flush_bits(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 { x & 1 << 31 } else { x }
}

/// Whether `x` is the minimum: −0 is below +0.
#[inline(always)]
fn smaller(x: f32, y: f32) -> bool {
    x < y || y.is_nan() && !x.is_nan() || x == y && x.is_sign_negative()
}

/// Whether `x` is the maximum: +0 is above −0.
#[inline(always)]
fn larger(x: f32, y: f32) -> bool {
    x > y || y.is_nan() && !x.is_nan() || x == y && x.is_sign_positive()
}

/// `y`, unless both are NaN.
#[inline(always)]
fn number_of(x: f32, y: u32) -> u32 {
    if x.is_nan() && f(y).is_nan() { NAN } else { y }
}

/// One lane with any modifiers.
fn single(op: Flt, mode: Mode, a: f32, b: f32, c: f32) -> u32 {
    let [a, b, c] = if mode.ftz { [a, b, c].map(flush) } else { [a, b, c] };
    let result = match op {
        Flt::Add => sum(a, b, mode.round),
        Flt::Sub => sum(a, -b, mode.round),
        Flt::Mul => f(narrow(f64::from(a) * f64::from(b), round::F32, mode.round)),
        Flt::Fma => fused(a, b, c, mode.round),
        Flt::Min | Flt::Max if mode.nan && (a.is_nan() || b.is_nan()) => return NAN,
        Flt::Min => f(if smaller(a, b) { a.to_bits() } else { number_of(a, b.to_bits()) }),
        Flt::Max => f(if larger(a, b) { a.to_bits() } else { number_of(a, b.to_bits()) }),
        Flt::Neg => -a,
        Flt::Abs => a.abs(),
        Flt::Div if mode.round == Round::Nearest => a / b,
        Flt::Rcp if mode.round == Round::Nearest => 1.0 / a,
        Flt::Sqrt if mode.round == Round::Nearest => a.sqrt(),
        // A remainder by fused multiply-add says on which side of the double quotient the true one lies.
        Flt::Div => directed_quotient(a, b, mode.round),
        Flt::Rcp => directed_quotient(1.0, a, mode.round),
        Flt::Sqrt => {
            let (x, s) = (f64::from(a), f64::from(a).sqrt());
            f(narrow(odd(s, s.mul_add(-s, x)), round::F32, mode.round))
        }
        Flt::Ex2 => exp2(a),
        Flt::Rsqrt => (1.0 / f64::from(a).sqrt()) as f32,
        Flt::Lg2 => libm::log2(f64::from(a)) as f32,
        Flt::Sin => libm::sin(f64::from(a)) as f32,
        Flt::Cos => libm::cos(f64::from(a)) as f32,
        Flt::Tanh => libm::tanh(f64::from(a)) as f32,
        Flt::Copysign | Flt::RcpHigh | Flt::RsqrtHigh => b.copysign(a),
    };
    let result = if mode.sat { saturate(result) } else { result };
    if result.is_nan() {
        return NAN;
    }
    if mode.ftz { flush(result).to_bits() } else { result.to_bits() }
}

fn saturate(x: f32) -> f32 {
    // A NaN becomes +0, and so does −0.
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

fn sum(a: f32, b: f32, round: Round) -> f32 {
    let (a, b) = (f64::from(a), f64::from(b));
    let s = add_odd(a, b);
    f(narrow(if s == 0.0 { zero_sum(a, b, round) } else { s }, round::F32, round))
}

fn fused(a: f32, b: f32, c: f32, round: Round) -> f32 {
    // The product of two singles is a double.
    let (p, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let s = add_odd(p, c);
    f(narrow(if s == 0.0 { zero_sum(p, c, round) } else { s }, round::F32, round))
}

fn directed_quotient(a: f32, b: f32, round: Round) -> f32 {
    let (x, y) = (f64::from(a), f64::from(b));
    let q = x / y;
    if !q.is_finite() || q == 0.0 {
        return q as f32;
    }
    let rest = q.mul_add(-y, x);
    // Its size doesn't matter, as long as it is not zero.
    let error = if rest == 0.0 { 0.0 } else { f64::MIN_POSITIVE.copysign(rest * y.signum()) };
    f(narrow(odd(q, error), round::F32, round))
}

/// 2^x, within 0.51 ulp.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let x = f64::from(x.clamp(-200.0, 200.0));
    let whole = x.round_ties_even();
    let r = (x - whole) * core::f64::consts::LN_2;
    let mut sum = 1.0 / 39_916_800.0;
    for factor in [3_628_800.0, 362_880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        sum = sum * r + 1.0 / factor;
    }
    // The power of two is built from its exponent; a NaN stays one through `sum`.
    (sum * f64::from_bits(((whole as i64 + 1023) as u64) << 52)) as f32
}

/// Double precision, a warp at a time.
#[inline(always)]
pub(crate) fn doubles(op: Flt, mode: Mode, a: &L64, b: &L64, c: &L64, out: &mut L64) {
    let g = f64::from_bits;
    match op {
        Flt::Add => map2(a, b, out, |x, y| (g(x) + g(y)).to_bits()),
        Flt::Sub => map2(a, b, out, |x, y| (g(x) - g(y)).to_bits()),
        Flt::Mul => map2(a, b, out, |x, y| (g(x) * g(y)).to_bits()),
        Flt::Fma => map3(a, b, c, out, |x, y, z| g(x).mul_add(g(y), g(z)).to_bits()),
        Flt::Div => map2(a, b, out, |x, y| (g(x) / g(y)).to_bits()),
        Flt::Sqrt => map1(a, out, |x| g(x).sqrt().to_bits()),
        Flt::Rcp => map1(a, out, |x| (1.0 / g(x)).to_bits()),
        Flt::Rsqrt => map1(a, out, |x| (1.0 / g(x).sqrt()).to_bits()),
        Flt::Neg => map1(a, out, |x| x ^ 1 << 63),
        Flt::Abs => map1(a, out, |x| x & !(1 << 63)),
        Flt::Copysign => map2(a, b, out, |x, y| y & !(1 << 63) | x & 1 << 63),
        Flt::Min => map2(a, b, out, |x, y| extreme(g(x), g(y), false)),
        Flt::Max => map2(a, b, out, |x, y| extreme(g(x), g(y), true)),
        // The lower half of the result is zero.
        Flt::RcpHigh => map1(a, out, |x| (1.0 / flush64(g(x))).to_bits() & !0xffff_ffff),
        Flt::RsqrtHigh => map1(a, out, |x| (1.0 / flush64(g(x)).sqrt()).to_bits() & !0xffff_ffff),
        Flt::Ex2 | Flt::Lg2 | Flt::Sin | Flt::Cos | Flt::Tanh => *out = *a,
    }
    if mode.sat {
        let held = *out;
        map1(&held, out, |x| if g(x) > 0.0 { g(x).min(1.0).to_bits() } else { 0 });
    }
}

fn flush64(x: f64) -> f64 {
    if x.is_subnormal() { 0f64.copysign(x) } else { x }
}

fn extreme(x: f64, y: f64, max: bool) -> u64 {
    if x.is_nan() || y.is_nan() {
        return if x.is_nan() { y.to_bits() } else { x.to_bits() };
    }
    let less = x < y || x == y && x.is_sign_negative();
    if less == max { y.to_bits() } else { x.to_bits() }
}
