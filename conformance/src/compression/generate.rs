//! From a case to its gradients.
//!
//! Every value is a function of the seed, the rank, the step and the place, computed by integer arithmetic and exact
//! scalings: no platform changes a bit. NaNs are quiet, of either sign and any payload: which NaN an operation gives is
//! the processor's business, and no answer may depend on it.

use crate::compression::case::{Case, Distribution};
use tilewright_scalar::philox4x32_10;

/// The generator of one gradient.
struct Source {
    seed: u32,
    rank: u32,
    step: u32,
}

impl Source {
    fn words(&self, index: usize) -> [u32; 4] {
        philox4x32_10([index as u32, self.rank, self.step, 1], [self.seed, 0x6772_6164])
    }

    /// A random word of the gradient as a whole, not of one of its places; the same on all ranks.
    fn word(&self, which: u32) -> u32 {
        philox4x32_10([which, 0, self.step, 2], [self.seed, 0x6772_6164])[0]
    }
}

/// The gradient of a rank in a step, both from 0.
///
/// ```
/// use tilewright_conformance::compression::generate::gradient;
/// let id = "compression/n5/topk=1/compact/residual/wire=f32,plain/first/steps=1/ranks=1/1";
/// assert_eq!(gradient(&id.parse()?, 0, 0), [-3.0, 0.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), tilewright_conformance::compression::case::CaseError>(())
/// ```
pub fn gradient(case: &Case, step: usize, rank: usize) -> Vec<f32> {
    let source = Source { seed: case.seed, rank: rank as u32, step: step as u32 };
    (0..case.len).map(|i| value(case, &source, i)).collect()
}

fn value(case: &Case, source: &Source, i: usize) -> f32 {
    let [a, b, c, d] = source.words(i);
    let sign = |x: f32| if d & 1 == 0 { x } else { -x };
    match case.distribution {
        Distribution::Heavy => heavy([a, b, c]),
        Distribution::Equal => 0.5,
        Distribution::Zero => sign(0.0),
        Distribution::First => alone(i == 0),
        Distribution::Last => alone(i + 1 == case.len),
        Distribution::Clustered => {
            let width = (case.len / 64).max(1);
            let starts = (0..5).map(|run| source.word(run) as usize % case.len.max(1));
            let inside = starts.into_iter().any(|start| (start..start + width).contains(&i));
            heavy([a, b, c]) * if inside { 1.0 } else { power(-12) }
        }
        Distribution::Ties => sign([0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0][a as usize % 8]),
        // NaN alone, infinities alone, both.
        Distribution::NonFinite => match (a % 64, source.seed.wrapping_add(source.step) % 3) {
            (0, 0 | 2) => f32::from_bits(0x7fc0_0000 | d & 0x803f_ffff),
            (1, 1 | 2) => sign(f32::INFINITY),
            _ => heavy([b, c, d]),
        },
        Distribution::Subnormal => sign(f32::from_bits(a % 4096)),
        Distribution::Huge if a.is_multiple_of(16) => sign(f32::MAX),
        Distribution::Huge => sign(f32::from_bits(0x7e80_0000 + b % 0x0100_0000)),
        Distribution::Integer => sign((a % 1000) as f32),
        Distribution::Descending => sign((case.len - i) as f32 * power(-6)),
        Distribution::Ascending => sign((i + 1) as f32 * power(-6)),
        Distribution::Strided => heavy([a, b, c]) * if i % 32 == 5 { 1.0 } else { power(-10) },
    }
}

fn alone(here: bool) -> f32 {
    if here { -3.0 } else { 0.0 }
}

/// `2ᵉ`.
fn power(e: i32) -> f32 {
    f32::from_bits(((127 + e) as u32) << 23)
}

/// Roughly normal (the sum of four uniforms, all 24 bits of it in use) times a power of two with a binomial exponent of
/// standard deviation 2.
fn heavy([a, b, c]: [u32; 3]) -> f32 {
    let halves = |word: u32| (word >> 16) as i32 + (word & 0xffff) as i32;
    let fraction = (c >> 16 & 63) as i32;
    let normal = (64 * (halves(a) + halves(b) - 2 * 65535) + fraction) as f32 * power(-22);
    normal * power((c & 0xffff).count_ones() as i32 - 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_what_they_say() {
        let case = |distribution| Case { distribution, ..Case::new(4096, 0.1) };
        let data = |distribution| gradient(&case(distribution), 0, 0);
        let kinds = [2, 3, 4].map(|seed| {
            let data = gradient(&Case { seed, ..case(Distribution::NonFinite) }, 0, 0);
            [data.iter().any(|x| x.is_nan()), data.iter().any(|x| x.is_infinite())]
        });
        assert_eq!(kinds, [[true, true], [true, false], [false, true]]);
        assert!(data(Distribution::Subnormal).iter().all(|x| x.abs() < f32::MIN_POSITIVE));
        let huge = data(Distribution::Huge);
        assert!(huge.iter().all(|x| x.is_finite() && x.abs() > 8e37) && huge.contains(&f32::MAX));
        assert!(data(Distribution::Integer).iter().all(|x| x.fract() == 0.0 && x.abs() < 1000.0));
        let zero = data(Distribution::Zero);
        assert!(zero.iter().all(|x| *x == 0.0) && zero.iter().any(|x| x.is_sign_negative()));
        assert_eq!(data(Distribution::Last).iter().position(|x| *x != 0.0), Some(4095));
        let heavy = data(Distribution::Heavy);
        let energy: f32 = heavy.iter().map(|x| x * x).sum();
        let mut squares: Vec<f32> = heavy.iter().map(|x| x * x).collect();
        squares.sort_by(f32::total_cmp);
        assert!(squares[4096 - 41..].iter().sum::<f32>() > 0.4 * energy, "one per cent has much of the energy");
        assert_ne!(gradient(&case(Distribution::Heavy), 1, 0), heavy);
        assert_ne!(gradient(&case(Distribution::Heavy), 0, 1), heavy);
    }
}
