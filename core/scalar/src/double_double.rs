//! Double-double arithmetic: an unevaluated sum of two `f64`, about 106 significant bits.
//!
//! Sums and products follow Dekker (1971) and Knuth (TAOCP 2, §4.2.2) by way of Joldes, Muller and Popescu, "Tight and
//! rigorous error bounds for basic building blocks of double-word arithmetic" (TOMS 2017), whose algorithm numbers the
//! functions quote; relative errors are a few `2^-106` (of `exp`, times `|x|`; of `ln` near 1, absolute). Products split by Dekker's method, which overflows beyond
//! `2^996`: far from anything a softmax can hold, and plain enough to give the same bits with or without an FMA unit.

use crate::Real;
use core::cmp::Ordering;
use core::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};
use num_traits::{One, Zero};

/// `hi + lo` with `|lo| ≤ ½ ulp(hi)`.
///
/// ```
/// use tilewright_scalar::{DoubleDouble, Real};
/// let third = DoubleDouble::from_f64(1.0) / DoubleDouble::from_f64(3.0);
/// let rest = DoubleDouble::from_f64(1.0) - third * DoubleDouble::from_f64(3.0);
/// assert!(rest.to_f64().abs() < 1e-31);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DoubleDouble {
    hi: f64,
    lo: f64,
}

/// `ln 2` to 106 bits.
const LN_2: DoubleDouble = DoubleDouble { hi: core::f64::consts::LN_2, lo: 2.319_046_813_846_299_6e-17 };

/// `a + b = s + e` exactly (TwoSum).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let b_virtual = s - a;
    (s, (a - (s - b_virtual)) + (b - b_virtual))
}

/// `a + b = s + e` exactly if `|a| ≥ |b|` (Fast2Sum).
fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

/// `a` in two halves of 26 bits (Veltkamp).
fn split(a: f64) -> (f64, f64) {
    let c = 134_217_729.0 * a;
    let hi = c - (c - a);
    (hi, a - hi)
}

/// `a · b = p + e` exactly (Dekker's TwoProd).
fn two_prod(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    (p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)
}

impl DoubleDouble {
    /// The sum of two doubles, exactly.
    pub fn from_sum(a: f64, b: f64) -> Self {
        Self::guarded(two_sum(a, b))
    }

    /// The leading `f64`.
    pub fn hi(self) -> f64 {
        self.hi
    }

    /// What `hi` leaves.
    pub fn lo(self) -> f64 {
        self.lo
    }

    /// An infinite or NaN head has no meaningful tail: the error term of such a sum is NaN.
    fn guarded((hi, lo): (f64, f64)) -> Self {
        Self { hi, lo: if hi.is_finite() { lo } else { 0.0 } }
    }

    fn scale_by_power_of_two(self, e: i32) -> Self {
        Self::guarded((libm::scalbn(self.hi, e), libm::scalbn(self.lo, e)))
    }

    /// `e^x − 1` by its Taylor series, for `|x| ≤ 0.35` (28 terms leave less than 2^-110).
    fn exp_m1_small(self) -> Self {
        let mut term = self;
        let mut sum = self;
        for n in 2..=28 {
            term = term * self / Self::from_f64(f64::from(n));
            sum += term;
        }
        sum
    }
}

impl Add for DoubleDouble {
    type Output = Self;
    /// Algorithm 6, AccurateDWPlusDW.
    fn add(self, y: Self) -> Self {
        let (s, e) = two_sum(self.hi, y.hi);
        let (t, f) = two_sum(self.lo, y.lo);
        let (v, w) = fast_two_sum(s, e + t);
        let (hi, lo) = fast_two_sum(v, f + w);
        if s.is_finite() { Self { hi, lo } } else { Self { hi: s, lo: 0.0 } }
    }
}

impl Mul for DoubleDouble {
    type Output = Self;
    /// Algorithm 11, DWTimesDW2.
    fn mul(self, y: Self) -> Self {
        let (p, e) = two_prod(self.hi, y.hi);
        if !p.is_finite() || p == 0.0 {
            return Self { hi: p, lo: 0.0 };
        }
        Self::guarded(fast_two_sum(p, e + (self.hi * y.lo + self.lo * y.hi)))
    }
}

impl Div for DoubleDouble {
    type Output = Self;
    /// Long division with two corrections.
    fn div(self, y: Self) -> Self {
        let q1 = self.hi / y.hi;
        if !q1.is_finite() || y.hi.is_infinite() {
            return Self { hi: q1, lo: 0.0 };
        }
        let r = self - y * Self::from_f64(q1);
        let q2 = r.hi / y.hi;
        let r = r - y * Self::from_f64(q2);
        let (hi, lo) = fast_two_sum(q1, q2);
        Self { hi, lo } + Self::from_f64(r.hi / y.hi)
    }
}

impl Neg for DoubleDouble {
    type Output = Self;
    fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }
}

impl Sub for DoubleDouble {
    type Output = Self;
    fn sub(self, y: Self) -> Self {
        self + -y
    }
}

impl AddAssign for DoubleDouble {
    fn add_assign(&mut self, y: Self) {
        *self = *self + y;
    }
}

impl SubAssign for DoubleDouble {
    fn sub_assign(&mut self, y: Self) {
        *self = *self - y;
    }
}

impl MulAssign for DoubleDouble {
    fn mul_assign(&mut self, y: Self) {
        *self = *self * y;
    }
}

impl Zero for DoubleDouble {
    fn zero() -> Self {
        Self::default()
    }
    fn is_zero(&self) -> bool {
        self.hi == 0.0
    }
}

impl One for DoubleDouble {
    fn one() -> Self {
        Self { hi: 1.0, lo: 0.0 }
    }
}

impl PartialOrd for DoubleDouble {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.hi.partial_cmp(&other.hi) {
            Some(Ordering::Equal) => self.lo.partial_cmp(&other.lo),
            order => order,
        }
    }
}

impl Real for DoubleDouble {
    fn from_f64(x: f64) -> Self {
        Self { hi: x, lo: 0.0 }
    }

    fn to_f64(self) -> f64 {
        self.hi
    }

    /// `e^x = 2^k e^r` with `k = ⌊x / ln 2⌉`, so `|r| ≤ ½ ln 2`.
    fn exp(self) -> Self {
        if self.hi.is_nan() || self.hi > 709.8 || self.hi < -745.2 {
            return Self::from_f64(libm::exp(self.hi));
        }
        let k = libm::rint(self.hi / LN_2.hi);
        let r = self - LN_2 * Self::from_f64(k);
        (r.exp_m1_small() + Self::one()).scale_by_power_of_two(k as i32)
    }

    /// One Newton step on `e^y = x` from the `f64` logarithm: its error of 2^-53 squares.
    fn ln(self) -> Self {
        let y = Self::from_f64(libm::log(self.hi));
        if y.hi.is_finite() { y + (self * (-y).exp() - Self::one()) } else { y }
    }

    /// `(e^{2x} − 1) / (e^{2x} + 1)`, with the numerator from the series near 0, where it would cancel.
    fn tanh(self) -> Self {
        if libm::fabs(self.hi) > 40.0 || self.hi.is_nan() {
            return Self::from_f64(libm::tanh(self.hi));
        }
        let twice = self + self;
        let m1 = if libm::fabs(twice.hi) < 0.35 { twice.exp_m1_small() } else { twice.exp() - Self::one() };
        m1 / (m1 + Self::from_f64(2.0))
    }

    fn abs(self) -> Self {
        if self.hi.is_sign_negative() { -self } else { self }
    }

    fn neg_infinity() -> Self {
        Self::from_f64(f64::NEG_INFINITY)
    }

    fn is_nan(self) -> bool {
        self.hi.is_nan()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dd(x: f64) -> DoubleDouble {
        DoubleDouble::from_f64(x)
    }

    fn close(a: DoubleDouble, b: DoubleDouble, relative: f64) -> bool {
        (a - b).abs().to_f64() <= relative * b.abs().to_f64().max(f64::MIN_POSITIVE)
    }

    /// e and e⁻¹ to 40 digits, split by an arbitrary-precision calculator.
    #[test]
    fn exp_of_one() {
        let e = DoubleDouble { hi: core::f64::consts::E, lo: 1.445_646_891_729_250_2e-16 };
        assert!(close(dd(1.0).exp(), e, 1e-31));
        assert!(close(dd(-1.0).exp() * e, dd(1.0), 1e-31));
        assert!(close(dd(2.0).ln(), LN_2, 1e-31));
    }

    #[test]
    fn special_values() {
        assert_eq!(DoubleDouble::neg_infinity().exp().to_f64(), 0.0);
        assert_eq!(dd(0.0).ln().to_f64(), f64::NEG_INFINITY);
        assert_eq!((DoubleDouble::neg_infinity() + dd(1.0)).to_f64(), f64::NEG_INFINITY);
        assert!((DoubleDouble::neg_infinity() - DoubleDouble::neg_infinity()).is_nan());
        assert_eq!((dd(1.0) / dd(f64::INFINITY)).to_f64(), 0.0);
        assert_eq!((dd(1.0) / dd(0.0)).to_f64(), f64::INFINITY);
        assert_eq!(dd(1000.0).tanh().to_f64(), 1.0);
    }

    proptest! {
        #[test]
        fn sums_of_two_doubles_are_exact(a in -1e20..1e20f64, b in -1e-5..1e-5f64) {
            let s = dd(a) + dd(b);
            prop_assert_eq!((s - dd(a)).to_f64(), b);
        }

        #[test]
        fn division_undoes_multiplication(a in -1e3..1e3f64, b in 1e-3..1e3f64) {
            prop_assert!(close(dd(a) / dd(b) * dd(b), dd(a), 1e-30));
        }

        #[test]
        fn exp_turns_sums_into_products(a in -300.0..300.0f64, b in -300.0..300.0f64) {
            // |a + b| · 2^-106 of the argument's error shows in the result.
            prop_assert!(close((dd(a) + dd(b)).exp(), dd(a).exp() * dd(b).exp(), 1e-28));
        }

        #[test]
        fn ln_undoes_exp(a in -300.0..300.0f64) {
            let back = dd(a).exp().ln();
            prop_assert!((back - dd(a)).abs().to_f64() <= 1e-29 * (1.0 + a.abs()));
        }

        #[test]
        fn agrees_with_f64(a in -20.0..20.0f64) {
            prop_assert!((dd(a).exp().to_f64() / libm::exp(a) - 1.0).abs() < 1e-15);
            prop_assert!((dd(a).tanh().to_f64() - libm::tanh(a)).abs() <= 1e-15 * libm::tanh(a).abs());
        }

        /// tanh 2x = 2 tanh x / (1 + tanh² x), across the switch between the two branches.
        #[test]
        fn tanh_doubles(a in -3.0..3.0f64) {
            let t = dd(a).tanh();
            prop_assert!(close(dd(2.0 * a).tanh(), (t + t) / (t * t + dd(1.0)), 1e-29));
        }
    }
}
