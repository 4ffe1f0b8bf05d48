//! Sums, norms, and roundings.

use crate::grouplasso::kernel::Pass;
use crate::grouplasso::{Addition, Fault, Norm};
use tilewright_scalar::DoubleDouble;
use tilewright_scalar::Real;

impl Pass {
    /// `Σ aᵢ bᵢ`.
    pub(crate) fn dot(&self, a: &[f64], b: &[f64]) -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| a * b);
        match self.variant.addition {
            Addition::Forward => products.sum(),
            Addition::Backward => products.rev().sum(),
            Addition::Pairwise => pairwise(&products.collect::<Vec<_>>()),
            Addition::Kahan => kahan(products),
        }
    }

    /// The Euclidean norm; NaN if any entry is.
    pub(crate) fn norm(&self, v: &[f64]) -> f64 {
        if v.iter().any(|x| x.is_nan()) {
            return f64::NAN;
        }
        let largest = v.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        match self.fault {
            Some(Fault::NormNarrow) => {
                return v.iter().fold(0.0, |sum, x| (self.narrow)(sum + (self.narrow)(x * x))).sqrt();
            }
            Some(Fault::NormUnscaled) => {
                return v.iter().fold(0.0, |sum, x| (self.store)(sum + (self.store)(x * x))).sqrt();
            }
            Some(Fault::MaxNorm) => return largest,
            Some(Fault::SumNorm) => return v.iter().map(|x| x.abs()).sum(),
            _ => {}
        }
        if largest == 0.0 || largest.is_infinite() {
            return largest;
        }
        // A power of two, so that the division is exact.
        let unit = libm::ldexp(1.0, libm::ilogb(largest).clamp(-1000, 1000));
        let scaled = v.iter().map(|x| x / unit);
        match self.variant.norm {
            Norm::Scaled => unit * scaled.map(|x| x * x).sum::<f64>().sqrt(),
            Norm::Hypot => v.iter().fold(0.0, |norm, x| libm::hypot(norm, *x)),
            Norm::Pairs => {
                let squares =
                    scaled.map(DoubleDouble::from_f64).fold(DoubleDouble::from_f64(0.0), |sum, x| sum + x * x);
                unit * squares.to_f64().sqrt()
            }
        }
    }
}

fn pairwise(v: &[f64]) -> f64 {
    match v.len() {
        0..=4 => v.iter().sum(),
        n => pairwise(&v[..n / 2]) + pairwise(&v[n / 2..]),
    }
}

fn kahan(terms: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for term in terms {
        let term = term - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
    }
    sum
}

/// The nearest number of bfloat16's precision.
pub(crate) fn bf16(x: f64) -> f64 {
    f64::from(f32::from_bits((x as f32).to_bits().wrapping_add(0x8000) & 0xffff_0000))
}

/// The greatest eigenvalue of `X Xᵀ` for the vectors `X`, from above, by the smaller of `X Xᵀ` and `Xᵀ X`.
pub(crate) fn greatest_curvature(mut x: Vec<Vec<f64>>) -> f64 {
    let length = x.first().map_or(0, Vec::len);
    if x.len() > length {
        x = (0..length).map(|i| x.iter().map(|x| x[i]).collect()).collect();
    }
    let product = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum();
    greatest_eigenvalue(x.iter().map(|a| x.iter().map(|b| product(a, b)).collect()).collect())
}

/// An upper bound of the greatest eigenvalue of a symmetric matrix without negative ones, at most `m^(1/32)` times as
/// much: the 32nd root of the trace of its 32nd power.
fn greatest_eigenvalue(mut a: Vec<Vec<f64>>) -> f64 {
    let (mut exponent, mut log) = (1.0, 0.0);
    for _ in 0..=5 {
        let trace: f64 = (0..a.len()).map(|i| a[i][i]).sum();
        if trace <= 0.0 || !trace.is_finite() {
            return if exponent == 1.0 { trace.max(0.0) } else { log.exp() };
        }
        log += trace.ln() / exponent;
        exponent *= 2.0;
        a.iter_mut().flatten().for_each(|x| *x /= trace);
        let row = |i: usize| (0..a.len()).map(|j| a[i].iter().zip(&a[j]).map(|(x, y)| x * y).sum()).collect();
        a = (0..a.len()).map(row).collect();
    }
    log.exp() * (1.0 + 1e-12)
}

/// The nearest number with the 24 significant bits of an f32, whatever its size.
pub(crate) fn to_single_precision(x: f64) -> f64 {
    const DROPPED: u64 = 29;
    f64::from_bits((x.to_bits() + (1 << (DROPPED - 1))) & !((1 << DROPPED) - 1))
}
