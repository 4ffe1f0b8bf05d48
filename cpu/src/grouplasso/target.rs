//! The loss as the solver sees it: in units in which the null model's loss is about 1, in blocks of samples, with its
//! derivatives.

use super::cholesky::Cholesky;
use super::gemm::{BLOCK, Blocks, FromExact, Operand, product};
use super::simd::{dot, exp_of_negative, vectorised};
use rayon::prelude::*;
use tilewright_grouplasso::losses::Null;
use tilewright_grouplasso::{Loss, Response};
use tilewright_scalar::Accum;

/// Targets in the solver's units. Outputs are those that occur: with an intercept, absent classes are left out.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) loss: Loss,
    pub(super) blocks: Blocks,
    /// The outputs kept, ascending.
    pub(super) outputs: Vec<usize>,
    /// What an output is a multiple of: `√(2 P(0))` for least squares.
    pub(super) unit: f64,
    pub(super) omega: Vec<f64>,
    /// In blocks; less the intercept of the null model and over the unit, for least squares.
    y: Vec<f64>,
}

/// What a point comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Fit {
    /// The loss.
    pub(super) value: f64,
    /// `ω̂ R`, in blocks.
    pub(super) rho: Vec<f64>,
    /// The probabilities, in blocks; empty for least squares.
    pub(super) p: Vec<f64>,
}

impl Target {
    pub(super) fn new(response: &Response, null: &Null, intercept: bool) -> Self {
        let loss = response.loss();
        let present = |k: &usize| !(intercept && response.absent()[*k]);
        let outputs: Vec<usize> = (0..response.outputs()).filter(present).collect();
        let blocks = Blocks { samples: response.samples(), outputs: outputs.len() };
        let unit = match loss {
            Loss::LeastSquares if null.objective > 0.0 => (2.0 * null.objective).sqrt(),
            _ => 1.0,
        };
        let mut y = vec![0.0; blocks.len()];
        for i in 0..blocks.samples {
            for (k, &output) in outputs.iter().enumerate() {
                let value = response.y()[[i, output]];
                y[blocks.at(i, k)] = match loss {
                    Loss::LeastSquares => (value - null.intercept[output]) / unit,
                    Loss::Multinomial => value,
                };
            }
        }
        Self { loss, blocks, outputs, unit, omega: response.omega().to_vec(), y }
    }

    /// The loss, residual and probabilities at `z`.
    pub(super) fn fit(&self, z: &[f64], fit: &mut Fit) {
        let chunk = self.blocks.chunk();
        fit.rho.resize(self.blocks.len(), 0.0);
        let multinomial = self.loss == Loss::Multinomial;
        fit.p.resize(if multinomial { self.blocks.len() } else { 0 }, 0.0);
        let weights = self.omega.par_chunks(BLOCK);
        let given = z.par_chunks(chunk).zip(self.y.par_chunks(chunk)).zip(weights);
        let values: Vec<f64> = if multinomial {
            let found = fit.rho.par_chunks_mut(chunk).zip(fit.p.par_chunks_mut(chunk));
            given.zip(found).map(|(((z, y), omega), (rho, p))| softmax_block(z, y, omega, p, rho)).collect()
        } else {
            given
                .zip(fit.rho.par_chunks_mut(chunk))
                .map(|(((z, y), omega), rho)| square_block(z, y, omega, rho))
                .collect()
        };
        fit.value = values.into_iter().sum();
    }

    /// For each sample the mean curvature of its loss over the directions in which it has any, and an upper bound of the
    /// greatest; both times `ω̂`.
    pub(super) fn curvature(&self, fit: &Fit) -> (Vec<f64>, Vec<f64>) {
        if self.loss == Loss::LeastSquares {
            return (self.omega.clone(), self.omega.clone());
        }
        let directions = (self.blocks.outputs.max(2) - 1) as f64;
        let (mut mean, mut most) = (self.omega.clone(), self.omega.clone());
        for (block, p) in fit.p.chunks(self.blocks.chunk()).enumerate() {
            let (first, samples) = self.blocks.span(block);
            for i in 0..samples {
                let (mut squares, mut largest) = (0.0, 0.0f64);
                for p in p[i..].iter().step_by(samples) {
                    squares += p * p;
                    largest = largest.max(*p);
                }
                // The trace of diag(p) − ppᵀ; Gershgorin's 2p(1−p), and diag(p) itself, bound its eigenvalues.
                mean[first + i] *= ((1.0 - squares) / directions).max(1e-6);
                most[first + i] *= (2.0 * largest * (1.0 - largest)).min(largest).clamp(1e-4, 0.5);
            }
        }
        (mean, most)
    }

    /// `z := H z`, the Hessian of the loss, in blocks; `p` and `omega` in the same precision.
    pub(super) fn hessian<S: Accum>(&self, p: &[S], omega: &[S], z: &mut [S]) {
        let chunk = self.blocks.chunk();
        if self.loss == Loss::LeastSquares {
            let blocks = z.par_chunks_mut(chunk).zip(omega.par_chunks(BLOCK));
            blocks.for_each(|(z, omega)| scale_block(omega, z));
            return;
        }
        let blocks = z.par_chunks_mut(chunk).zip(p.par_chunks(chunk)).zip(omega.par_chunks(BLOCK));
        blocks.for_each(|((z, p), omega)| softmax_hessian_block(p, omega, z));
    }

    /// What an intercept must change by for the residuals of every output to sum to zero, to first order (Newton's step).
    pub(super) fn intercept_step(&self, fit: &Fit) -> Vec<f64> {
        let (blocks, c) = (self.blocks, self.blocks.outputs);
        let mut off = vec![0.0; c];
        let mut weighted = vec![0.0; fit.p.len()];
        let mut hessian = vec![1.0 / c.max(1) as f64; c * c];
        for (block, (rho, p)) in fit.rho.chunks(blocks.chunk()).zip(fit.p.chunks(blocks.chunk())).enumerate() {
            let (first, samples) = blocks.span(block);
            let omega = &self.omega[first..first + samples];
            let weighted = &mut weighted[..p.len()];
            for k in 0..c {
                let range = k * samples..(k + 1) * samples;
                off[k] += rho[range.clone()].iter().sum::<f64>();
                hessian[k * c + k] += dot(omega, &p[range.clone()]);
                super::simd::multiply(omega, &p[range.clone()], &mut weighted[range]);
            }
            let right = Operand::transposed(p, samples);
            product((c, c, samples), -1.0, Operand::by_rows(weighted, samples), right, true, &mut hessian, c);
        }
        if let Some(factor) = Cholesky::new(c, hessian) {
            factor.solve(&mut off, 1);
        }
        off
    }

    /// How far the residuals of the outputs are from summing to zero, as a Euclidean norm.
    pub(super) fn leftover(&self, fit: &Fit) -> f64 {
        let c = self.blocks.outputs;
        let mut off = vec![0.0; c];
        for (block, rho) in fit.rho.chunks(self.blocks.chunk()).enumerate() {
            let samples = self.blocks.span(block).1;
            for (off, rho) in off.iter_mut().zip(rho.chunks(samples)) {
                *off += rho.iter().sum::<f64>();
            }
        }
        off.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// `z := z + 1 bᵀ`.
    pub(super) fn add_intercept(&self, b: &[f64], z: &mut [f64]) {
        for (block, z) in z.chunks_mut(self.blocks.chunk()).enumerate() {
            let samples = self.blocks.span(block).1;
            for (z, b) in z.chunks_mut(samples).zip(b) {
                for z in z {
                    *z += b;
                }
            }
        }
    }
}

vectorised! {
    /// Least squares on a block: `½ Σ ω̂ r²`.
    fn square_block(z: &[f64], y: &[f64], omega: &[f64], rho: &mut [f64]) -> f64 {
        let n = omega.len();
        let mut value = 0.0;
        for ((z, y), rho) in z.chunks(n).zip(y.chunks(n)).zip(rho.chunks_mut(n)) {
            let mut sums = [0.0f64; 16];
            for (lane, sum) in sums.iter_mut().enumerate() {
                for i in (lane..n).step_by(16) {
                    let r = y[i] - z[i];
                    *sum += omega[i] * r * r;
                }
            }
            for i in 0..n {
                rho[i] = omega[i] * (y[i] - z[i]);
            }
            value += 0.5 * sums.iter().sum::<f64>();
        }
        value
    }
}

vectorised! {
    /// Softmax on a block: `Σ ω̂ (ln Σ exp z − z_y)`.
    fn softmax_block(z: &[f64], y: &[f64], omega: &[f64], p: &mut [f64], rho: &mut [f64]) -> f64 {
        let n = omega.len();
        let mut largest = [f64::NEG_INFINITY; BLOCK];
        let (mut sum, mut own) = ([0.0f64; BLOCK], [0.0f64; BLOCK]);
        for z in z.chunks(n) {
            for i in 0..n {
                largest[i] = if z[i] > largest[i] { z[i] } else { largest[i] };
            }
        }
        for ((z, y), p) in z.chunks(n).zip(y.chunks(n)).zip(p.chunks_mut(n)) {
            for i in 0..n {
                let shifted = z[i] - largest[i];
                p[i] = exp_of_negative(shifted);
                sum[i] += p[i];
                own[i] += y[i] * shifted;
            }
        }
        let mut value = 0.0;
        for i in 0..n {
            value += omega[i] * (sum[i].ln() - own[i]);
            sum[i] = 1.0 / sum[i];
        }
        for ((y, p), rho) in y.chunks(n).zip(p.chunks_mut(n)).zip(rho.chunks_mut(n)) {
            for i in 0..n {
                p[i] *= sum[i];
                rho[i] = omega[i] * (y[i] - p[i]);
            }
        }
        value
    }
}

vectorised! {
    /// `z := ω̂ z` on a block.
    fn scale_block<S: Accum>(omega: &[S], z: &mut [S]) {
        for z in z.chunks_mut(omega.len()) {
            for (z, omega) in z.iter_mut().zip(omega) {
                *z *= *omega;
            }
        }
    }
}

vectorised! {
    /// `z := ω̂ (p z − p ⟨p, z⟩)` on a block.
    fn softmax_hessian_block<S: Accum>(p: &[S], omega: &[S], z: &mut [S]) {
        let n = omega.len();
        let mut mean = [S::zero(); BLOCK];
        for (p, z) in p.chunks(n).zip(z.chunks(n)) {
            for i in 0..n {
                mean[i] += p[i] * z[i];
            }
        }
        for (p, z) in p.chunks(n).zip(z.chunks_mut(n)) {
            for i in 0..n {
                z[i] = omega[i] * (p[i] * (z[i] - mean[i]));
            }
        }
    }
}

/// Numbers in the precision of a Newton step.
pub(super) fn convert<S: Accum>(x: &[f64]) -> Vec<S> {
    x.iter().map(|x| S::from_f64_exact(*x)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;
    use tilewright_grouplasso::Targets;

    fn target(n: usize, c: usize, loss: Loss, intercept: bool) -> (Target, Response) {
        let values = Array2::from_shape_fn((n, c), |(i, k)| ((i * 7 + k * 3) % 5) as f64 + 0.25);
        let labels: Vec<u32> = (0..n).map(|i| (i * i % c) as u32).collect();
        let omega: Vec<f64> = (0..n).map(|i| ((i * 3) % 4) as f64 + 0.5).collect();
        let targets = match loss {
            Loss::LeastSquares => Targets::Values(values.view()),
            Loss::Multinomial => Targets::Labels { labels: &labels, classes: c },
        };
        let response = Response::new(loss, n, targets, Some(&omega)).unwrap();
        (Target::new(&response, &response.null(intercept), intercept), response)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Value, gradient and Hessian against the core's value and differences of what comes before.
        #[test]
        fn derivatives(n in 1usize..700, c in 2usize..5, multinomial: bool, seed in 0usize..1000) {
            let loss = if multinomial { Loss::Multinomial } else { Loss::LeastSquares };
            let (target, response) = target(n, c, loss, false);
            let noise = |i: usize, salt: usize| ((i + seed) * (salt + 7919) % 1013) as f64 / 300.0 - 1.7;
            let z: Vec<f64> = (0..n * c).map(|i| noise(i, 0)).collect();
            let d: Vec<f64> = (0..n * c).map(|i| noise(i, 31)).collect();
            let at = |length: f64| {
                let mut fit = Fit::default();
                target.fit(&z.iter().zip(&d).map(|(z, d)| z + length * d).collect::<Vec<_>>(), &mut fit);
                fit
            };
            let (here, before, after) = (at(0.0), at(-1e-4), at(1e-4));

            let standard = Array2::from_shape_fn((n, c), |(i, k)| target.unit * z[target.blocks.at(i, k)]);
            let value = response.value(standard.view(), &vec![0.0; c]) / (target.unit * target.unit);
            prop_assert!((here.value - value).abs() <= 1e-13 * (1.0 + value));

            let slope = (after.value - before.value) / 2e-4;
            prop_assert!((slope + dot(&here.rho, &d)).abs() <= 1e-6 * (1.0 + slope.abs()));

            let mut curved = d.clone();
            target.hessian(&here.p, &target.omega, &mut curved);
            let (mean, most) = target.curvature(&here);
            for (i, curved) in curved.iter().enumerate() {
                prop_assert!(((before.rho[i] - after.rho[i]) / 2e-4 - curved).abs() <= 1e-6);
            }
            let bound: f64 = (0..n).map(|i| (0..c).map(|k| most[i] * d[target.blocks.at(i, k)].powi(2)).sum::<f64>()).sum();
            prop_assert!(dot(&curved, &d) <= bound * (1.0 + 1e-12));
            prop_assert!(mean.iter().zip(&most).all(|(mean, most)| *mean <= most * (1.0 + 1e-12)));
        }
    }

    #[test]
    fn intercepts_settle() {
        let (target, _) = target(600, 4, Loss::Multinomial, true);
        let mut z: Vec<f64> = (0..target.blocks.len()).map(|i| (i % 17) as f64 / 8.0).collect();
        let mut fit = Fit::default();
        for _ in 0..8 {
            target.fit(&z, &mut fit);
            target.add_intercept(&target.intercept_step(&fit), &mut z);
        }
        target.fit(&z, &mut fit);
        assert!(target.leftover(&fit) < 1e-15);
    }
}
