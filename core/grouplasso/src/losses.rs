//! The two losses: value, residual, smoothness, best intercept, and the dual function.
//!
//! With `Z = XW + 1bᵀ`, the loss is `F(Z) = Σᵢ ω̂ᵢ ℓ(yᵢ, zᵢ)`, and its gradient `−ω̂ᵢ rᵢ`, where the residual `R` is `Y − Z`
//! for least squares and `Y − softmax(Z)` for the multinomial loss.

use crate::{Loss, Response};
use alloc::vec;
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};

/// `L` of one sample's loss: the greatest eigenvalue its Hessian can have. For softmax, `diag(p) − ppᵀ`, that is ½.
pub fn smoothness(loss: Loss) -> f64 {
    match loss {
        Loss::LeastSquares => 1.0,
        Loss::Multinomial => 0.5,
    }
}

/// `ln Σₖ exp zₖ` and the softmax of `z`, which takes its place. Classes at −∞ have probability 0.
///
/// ```
/// let mut z = [1e4, 1e4, f64::NEG_INFINITY];
/// assert_eq!(tilewright_grouplasso::losses::softmax(&mut z), 1e4 + 2f64.ln());
/// assert_eq!(z, [0.5, 0.5, 0.0]);
/// ```
pub fn softmax(z: &mut [f64]) -> f64 {
    let largest = z.iter().fold(f64::NEG_INFINITY, |most, z| most.max(*z));
    let mut sum = 0.0;
    for z in z.iter_mut() {
        *z = libm::exp(*z - largest);
        sum += *z;
    }
    for p in z.iter_mut() {
        *p /= sum;
    }
    largest + libm::log(sum)
}

/// The farthest that iterative scaling moves an intercept at once: a class the model has given up has a share of 0.
const LEAP: f64 = 20.0;

/// What a model without features comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Null {
    /// The best intercept, or zeros if there is none to choose. −∞ for an absent class.
    pub intercept: Vec<f64>,
    /// `P(0, b)`: what relative gaps are relative to.
    pub objective: f64,
}

impl Response {
    /// `F(Z + 1bᵀ)`.
    pub fn value(&self, z: ArrayView2<'_, f64>, b: &[f64]) -> f64 {
        self.sum_over_samples(|i| {
            let mut row: Vec<f64> = z.row(i).iter().zip(b).map(|(z, b)| z + b).collect();
            let y = self.y().row(i).to_owned();
            match self.loss() {
                Loss::LeastSquares => 0.5 * row.iter().zip(&y).map(|(z, y)| (y - z) * (y - z)).sum::<f64>(),
                Loss::Multinomial => {
                    let own: f64 = row.iter().zip(&y).filter(|(_, y)| **y > 0.0).map(|(z, _)| *z).sum();
                    softmax(&mut row) - own
                }
            }
        })
    }

    /// `R`, at `Z + 1bᵀ`.
    pub fn residual(&self, z: ArrayView2<'_, f64>, b: &[f64]) -> Array2<f64> {
        let mut r = Array2::zeros(z.raw_dim());
        for i in 0..self.samples() {
            let mut row: Vec<f64> = z.row(i).iter().zip(b).map(|(z, b)| z + b).collect();
            if self.loss() == Loss::Multinomial {
                softmax(&mut row);
            }
            for (k, model) in row.into_iter().enumerate() {
                r[[i, k]] = self.y()[[i, k]] - model;
            }
        }
        r
    }

    /// The model without features.
    pub fn null(&self, intercept: bool) -> Null {
        let zeros = Array2::zeros((self.samples(), self.outputs()));
        let means = || self.column_sums(self.y());
        let intercept = match (intercept, self.loss()) {
            (false, _) => vec![0.0; self.outputs()],
            (true, Loss::LeastSquares) => means(),
            (true, Loss::Multinomial) => means().into_iter().map(libm::log).collect(),
        };
        let objective = self.value(zeros.view(), &intercept);
        Null { intercept, objective }
    }

    /// `Σᵢ ω̂ᵢ aᵢ`, for each column of `a`.
    pub fn column_sums(&self, a: ArrayView2<'_, f64>) -> Vec<f64> {
        (0..a.ncols()).map(|k| a.column(k).iter().zip(self.omega()).map(|(a, omega)| omega * a).sum()).collect()
    }

    /// The `b` that minimises `F(Z + 1bᵀ)`, near `start` if that matters: the mean of `Y − Z` for least squares; for the
    /// multinomial loss by Newton's method, whose fixed point has the model's class shares equal to those of the sample.
    pub fn best_intercept(&self, z: ArrayView2<'_, f64>, start: &[f64]) -> Vec<f64> {
        if self.loss() == Loss::LeastSquares {
            let zeros = vec![0.0; self.outputs()];
            return self.column_sums(self.residual(z, &zeros).view());
        }
        let mut b = self.finite_start(start);
        let null = self.null(true).intercept;
        let is_better = self.value(z, &b) <= self.value(z, &null);
        if !is_better {
            b = null;
        }
        let (mut value, mut last_off, mut settled) = (self.value(z, &b), f64::INFINITY, false);
        for _ in 0..100 {
            let p = self.y().to_owned() - self.residual(z, &b);
            let (share, model) = (self.column_sums(self.y()), self.column_sums(p.view()));
            let off: f64 = share.iter().zip(&model).map(|(s, m)| (s - m).abs()).sum();
            // Once the value moves by rounding only, the shares go on as long as that is by leaps.
            if off <= f64::EPSILON || (settled && off > 0.5 * last_off) {
                break;
            }
            // Iterative scaling never goes up; Newton's step, where it goes down further, is quadratic at the end.
            let leap = |s: f64, m: f64| libm::log(s / m).clamp(-LEAP, LEAP);
            let scaled = |(b, (s, m)): (&f64, (&f64, &f64))| if *s > 0.0 { b + leap(*s, *m) } else { *b };
            let mut next: Vec<f64> = b.iter().zip(share.iter().zip(&model)).map(scaled).collect();
            let mut next_value = self.value(z, &next);
            let newton = self.newton_intercept(p.view(), &b, &share, &model);
            let newton_value = self.value(z, &newton);
            if newton_value <= next_value {
                (next, next_value) = (newton, newton_value);
            }
            settled = next_value >= value - 1e-14 * value.abs();
            (b, value, last_off) = (next, next_value, off);
        }
        b
    }

    /// An intercept to start from: −∞ for absent classes, and for the others what is given, less its mean, which is no one's.
    fn finite_start(&self, start: &[f64]) -> Vec<f64> {
        let present = |k: usize| !self.absent()[k] && start[k].is_finite();
        let counted: Vec<f64> = (0..start.len()).filter(|&k| present(k)).map(|k| start[k]).collect();
        let mean = counted.iter().sum::<f64>() / counted.len().max(1) as f64;
        let pick = |k: usize| match (self.absent()[k], present(k)) {
            (true, _) => f64::NEG_INFINITY,
            (false, true) => start[k] - mean,
            (false, false) => 0.0,
        };
        (0..start.len()).map(pick).collect()
    }

    /// `b + H⁺ (share − model)` with `H = Σᵢ ω̂ᵢ (diag(pᵢ) − pᵢpᵢᵀ)`, made regular along the ones it is blind to.
    fn newton_intercept(&self, p: ArrayView2<'_, f64>, b: &[f64], share: &[f64], model: &[f64]) -> Vec<f64> {
        let present: Vec<usize> = (0..b.len()).filter(|&k| !self.absent()[k]).collect();
        let c = present.len();
        let mut h = Array2::from_elem((c, c), 1.0 / c as f64);
        for (i, omega) in self.omega().iter().enumerate() {
            for (a, &j) in present.iter().enumerate() {
                h[[a, a]] += omega * p[[i, j]];
                for (e, &k) in present.iter().enumerate() {
                    h[[a, e]] -= omega * p[[i, j]] * p[[i, k]];
                }
            }
        }
        let step = solve(h, present.iter().map(|&k| share[k] - model[k]).collect());
        let mut next = b.to_vec();
        present.iter().zip(step).for_each(|(&k, step)| next[k] += step);
        next
    }

    /// The dual function `−F*(−u)` at `u = s ω̂ R`: for least squares `Σ ω̂ (s⟨r, y⟩ − ½ s² ‖r‖²)`; for the multinomial loss
    /// the mean entropy of the mixtures `(1−s) yᵢ + s pᵢ`, with `s` from 0 to 1.
    pub fn dual(&self, residual: ArrayView2<'_, f64>, s: f64) -> f64 {
        self.sum_over_samples(|i| {
            let pairs = residual.row(i).to_owned().into_iter().zip(self.y().row(i).to_owned());
            match self.loss() {
                Loss::LeastSquares => pairs.map(|(r, y)| s * r * y - 0.5 * s * s * r * r).sum(),
                Loss::Multinomial => pairs
                    .map(|(r, y)| y - s * r)
                    .filter(|q| *q > 0.0) // q ln q → 0
                    .map(|q| -q * libm::log(q))
                    .sum(),
            }
        })
    }

    fn sum_over_samples(&self, term: impl Fn(usize) -> f64) -> f64 {
        // 0 · ∞ would be NaN: a sample of weight 0 counts for nothing, whatever its loss.
        let counts = |(_, omega): &(usize, &f64)| **omega > 0.0;
        self.omega().iter().enumerate().filter(counts).map(|(i, omega)| omega * term(i)).sum()
    }
}

/// Solves `A x = y` for a symmetric positive definite `A` by Cholesky's method.
fn solve(mut a: Array2<f64>, mut y: Vec<f64>) -> Vec<f64> {
    let n = y.len();
    for j in 0..n {
        for k in 0..j {
            for i in j..n {
                a[[i, j]] -= a[[i, k]] * a[[j, k]];
            }
        }
        let pivot = libm::sqrt(a[[j, j]].max(f64::MIN_POSITIVE));
        (j..n).for_each(|i| a[[i, j]] /= pivot);
    }
    for i in 0..n {
        (0..i).for_each(|k| y[i] -= a[[i, k]] * y[k]);
        y[i] /= a[[i, i]];
    }
    for i in (0..n).rev() {
        (i + 1..n).for_each(|k| y[i] -= a[[k, i]] * y[k]);
        y[i] /= a[[i, i]];
    }
    y
}
