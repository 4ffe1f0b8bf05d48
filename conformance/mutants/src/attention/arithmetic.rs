//! Sums, products and exponentials, as the variant evaluates them and the fault spoils them.

use crate::attention::{Addition, Exponential, Fault, Rounding, SumOrder, Variant};
use core::f64::consts::LOG2_E;
use tilewright_scalar::format::power_of_two;
use tilewright_scalar::{Format, Real};

/// How this kernel, on this storage, computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arithmetic {
    pub(crate) fault: Option<Fault>,
    pub(crate) variant: Variant,
    pub(crate) storage: Format,
    pub(crate) accum: Format,
}

impl Arithmetic {
    pub(crate) fn new(fault: Option<Fault>, variant: Variant, storage: Format) -> Self {
        Self { fault, variant, storage, accum: variant.accum(storage) }
    }

    /// Whether this bug is planted.
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// `start + Σ x·y`.
    pub(crate) fn sum<A: Real>(&self, start: A, terms: impl Iterator<Item = (A, A)>) -> A {
        let mut products: Vec<A> = match self.variant.sum_order {
            SumOrder::Sequential => return terms.fold(start, |sum, (x, y)| self.add_product(sum, x, y)),
            _ => terms.map(|(x, y)| x * y).collect(),
        };
        match self.variant.sum_order {
            SumOrder::Sequential | SumOrder::Pairwise => start + pairwise(&products),
            SumOrder::Blocked(length) => {
                products.chunks(length).fold(start, |sum, block| sum + block.iter().fold(A::zero(), |s, &x| s + x))
            }
            SumOrder::Shuffled => {
                shuffle(&mut products);
                products.into_iter().fold(start, |sum, x| sum + x)
            }
        }
    }

    fn add_product<A: Real>(&self, sum: A, x: A, y: A) -> A {
        match self.variant.addition {
            Addition::Nearest => sum + x * y,
            Addition::Fused => A::from_f64(x.to_f64().mul_add(y.to_f64(), sum.to_f64())),
            // The product of two f32 is exact in f64; so is all but the last bit of the sum.
            Addition::TowardZero => A::from_f64(toward_zero(x.to_f64() * y.to_f64() + sum.to_f64())),
        }
    }

    /// `e^(x − y)`: 0 for `x = −∞`.
    pub(crate) fn exp<A: Real>(&self, x: A, y: A) -> A {
        let difference = x - y;
        if self.is(Fault::Exp2WithoutLog2E) {
            return self.exp2(difference);
        }
        if self.is(Fault::Log2EInF16) {
            return self.exp2(difference * A::from_f64(Format::F16.round(LOG2_E)));
        }
        let value = match self.variant.exponential {
            Exponential::Natural => difference.exp(),
            Exponential::Base2 => self.exp2(difference * A::from_f64(LOG2_E)),
            Exponential::Base2Folded => self.exp2(self.difference_in_base_two(x, y)),
            Exponential::Polynomial => polynomial_exp(difference),
        };
        if self.is(Fault::ExpRipple) {
            let phase = difference.to_f64() * 8.0;
            return value * A::from_f64(1.0 + 2e-3 * ((phase - phase.floor()) - 0.5));
        }
        value
    }

    /// `x log2 e − y log2 e` with one rounding after the second product.
    fn difference_in_base_two<A: Real>(&self, x: A, y: A) -> A {
        let log2_e = A::from_f64(LOG2_E);
        let scaled = y * log2_e;
        if x == A::neg_infinity() || self.accum.precision > Format::F32.precision {
            return x * log2_e - scaled;
        }
        A::from_f64(x.to_f64() * log2_e.to_f64() - scaled.to_f64())
    }

    fn exp2<A: Real>(&self, x: A) -> A {
        if self.accum.precision > Format::F32.precision {
            A::from_f64(libm::exp2(x.to_f64()))
        } else {
            A::from_f64(libm::exp2f(x.to_f64() as f32).into())
        }
    }

    /// `x` as the variant rounds this intermediate result.
    pub(crate) fn round<A: Real>(&self, rounding: Rounding, x: A) -> A {
        match rounding {
            Rounding::Accumulator => x,
            _ => A::from_f64(rounding.format(self.storage, self.accum).round(x.to_f64())),
        }
    }

    /// `P` as it enters a matrix product.
    pub(crate) fn round_probability<A: Real>(&self, p: A) -> A {
        if self.is(Fault::ProbabilitiesInFp8) {
            return A::from_f64(Format::E5M2.round(p.to_f64()));
        }
        if self.is(Fault::ProbabilitiesTruncated) {
            return A::from_f64(truncate(self.storage, p.to_f64()));
        }
        self.round(self.variant.probabilities, p)
    }

    /// `dS` as it enters a matrix product.
    pub(crate) fn round_score_gradient<A: Real>(&self, ds: A) -> A {
        if self.is(Fault::ScoreGradientsInFp8) {
            return A::from_f64(Format::E5M2.round(ds.to_f64()));
        }
        self.round(self.variant.score_gradients, ds)
    }
}

fn pairwise<A: Real>(terms: &[A]) -> A {
    match terms {
        [] => A::zero(),
        [x] => *x,
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            pairwise(left) + pairwise(right)
        }
    }
}

/// Fisher–Yates with a linear congruential generator (Knuth's MMIX constants), from a fixed seed.
fn shuffle<A>(terms: &mut [A]) {
    let mut state = 0x5eed_u64;
    for i in (1..terms.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        terms.swap(i, (state >> 33) as usize % (i + 1));
    }
}

/// `x` in f32, rounded toward zero.
fn toward_zero(x: f64) -> f64 {
    let nearest = x as f32;
    let exceeds = f64::from(nearest).abs() > x.abs();
    f64::from(if exceeds { f32::from_bits(nearest.to_bits() - 1) } else { nearest })
}

/// `x ≥ 0` in `format`, rounded toward zero.
fn truncate(format: Format, x: f64) -> f64 {
    let nearest = format.round(x);
    if nearest <= x {
        return nearest;
    }
    let below = f64::from_bits(nearest.to_bits() - 1);
    // The last number of the format below `nearest`: half a unit down rounds to it or ties, a little more reaches it.
    format.round(below - nearest * format.unit_roundoff())
}

/// `e^x = 2^k e^r` with `k = ⌊x / ln 2⌉`, `ln 2` in two parts (Cody and Waite), and a Taylor polynomial for `e^r`.
fn polynomial_exp<A: Real>(x: A) -> A {
    if x.to_f64() < -1000.0 {
        return A::zero();
    }
    let k = (x.to_f64() * LOG2_E).round();
    let (high, low) = (355.0 / 512.0, -2.121_944_400_546_905_8e-4);
    let r = x - A::from_f64(k * high) - A::from_f64(k * low);
    let coefficients = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let e = coefficients.into_iter().fold(A::zero(), |sum, c| sum * r + A::from_f64(c));
    A::from_f64(e.to_f64() * power_of_two(k as i32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arithmetic(variant: Variant) -> Arithmetic {
        Arithmetic::new(None, variant, Format::F32)
    }

    proptest! {
        #[test]
        fn exponentials_keep_their_declared_error(x in -30.0..0f32, y in -30.0..30f32) {
            for exponential in [Exponential::Natural, Exponential::Base2, Exponential::Base2Folded, Exponential::Polynomial] {
                let variant = Variant { exponential, ..Variant::BASE };
                let got = f64::from(arithmetic(variant).exp(x + y, y));
                let exact = (f64::from(x + y) - f64::from(y)).exp();
                // As the bound has it: the declared error, and roundings of the scores and of their difference.
                let roundoffs = variant.contract(Format::F32).exp_error + 2.0 * f64::from((x + y).abs() + x.abs());
                prop_assert!((got / exact - 1.0).abs() <= roundoffs * Format::F32.unit_roundoff(), "{exponential:?}");
            }
        }

        #[test]
        fn truncation_is_the_largest_not_above(x in 1e-4..1.0f64) {
            for format in [Format::F16, Format::BF16] {
                let below = truncate(format, x);
                prop_assert!(below <= x && format.round(below) == below);
                prop_assert!(x - below < 2.0 * format.unit_roundoff() * x);
            }
            let single = toward_zero(-x);
            prop_assert!(single >= -x && single + x < f64::from(f32::EPSILON) * x);
        }

        #[test]
        fn sums_agree_in_every_order(terms in proptest::collection::vec(-1.0..1f32, 0..70)) {
            let exact: f64 = terms.iter().map(|&x| f64::from(x)).sum();
            for sum_order in [SumOrder::Sequential, SumOrder::Pairwise, SumOrder::Blocked(8), SumOrder::Shuffled] {
                for addition in [Addition::Nearest, Addition::Fused, Addition::TowardZero] {
                    let by = arithmetic(Variant { sum_order, addition, ..Variant::BASE });
                    let got = by.sum(0f32, terms.iter().map(|&x| (x, 1.0)));
                    prop_assert!((f64::from(got) - exact).abs() <= 70.0 * 70.0 * f64::from(f32::EPSILON));
                }
            }
        }
    }
}
