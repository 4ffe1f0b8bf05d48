//! The losses: value, residual, and the intercept that minimises.

use crate::grouplasso::design::{Design, Table};
use crate::grouplasso::kernel::Pass;
use crate::grouplasso::{Fault, Intercept};
use tilewright_grouplasso::Loss;

impl Pass {
    /// `ln Σ exp`; the softmax takes the place of the row.
    fn softmax(&self, row: &mut [f64]) -> f64 {
        let greatest = row.iter().fold(f64::NEG_INFINITY, |most, z| most.max(*z));
        let unshifted = self.is(Fault::SoftmaxUnshifted);
        let shift = if unshifted { 0.0 } else { greatest };
        let mut sum = 0.0;
        for z in row.iter_mut() {
            *z = (*z - shift).exp();
            if unshifted {
                *z = (self.store)(*z);
            }
            sum += *z;
        }
        for p in row.iter_mut() {
            *p /= sum;
        }
        shift + sum.ln()
    }

    fn logits(design: &Design, z: &Table, b: &[f64], i: usize) -> Vec<f64> {
        (0..design.outputs).map(|k| z[k][i] + b[k]).collect()
    }

    /// `F(Z + 1bᵀ)`.
    pub(crate) fn value(&self, design: &Design, z: &Table, b: &[f64]) -> f64 {
        let of = |i: usize| {
            let mut row = Self::logits(design, z, b, i);
            match design.loss {
                Loss::LeastSquares => {
                    0.5 * row.iter().zip(&design.y).map(|(z, y)| (y[i] - z) * (y[i] - z)).sum::<f64>()
                }
                Loss::Multinomial => {
                    let own = (0..design.outputs).find(|&k| design.y[k][i] > 0.0).map_or(0.0, |k| row[k]);
                    self.softmax(&mut row) - own
                }
            }
        };
        // A sample of weight 0 counts for nothing, whatever its loss.
        let counted = (0..design.samples).filter(|&i| design.omega[i] > 0.0);
        let (omega, losses): (Vec<f64>, Vec<f64>) = counted.map(|i| (design.omega[i], of(i))).unzip();
        self.dot(&omega, &losses)
    }

    /// `R`: `Y − Z`, or `Y − softmax(Z)`.
    pub(crate) fn residual(&self, design: &Design, z: &Table, b: &[f64]) -> Table {
        let mut r = design.y.clone();
        for i in 0..design.samples {
            let mut row = Self::logits(design, z, b, i);
            if design.loss == Loss::Multinomial {
                self.softmax(&mut row);
            }
            row.iter().zip(&mut r).for_each(|(model, r)| r[i] -= model);
        }
        r
    }

    /// `Σ ω̂ᵢ rᵢ`.
    pub(crate) fn leftover(&self, design: &Design, r: &Table) -> Vec<f64> {
        r.iter().map(|r| self.dot(r, &design.omega)).collect()
    }

    /// The `b` that minimises `F(Z + 1bᵀ)`, from `b`.
    pub(crate) fn best_intercept(&self, design: &Design, z: &Table, b: &[f64]) -> Vec<f64> {
        match (design.intercept, design.loss) {
            (false, _) => return b.to_vec(),
            _ if self.is(Fault::InterceptOfNull) => return design.null_intercept.clone(),
            (true, Loss::LeastSquares) => {
                let best = self.leftover(design, &self.residual(design, z, &vec![0.0; design.outputs]));
                return self.penalised(design, best);
            }
            (true, Loss::Multinomial) => {}
        }
        let mut b = design.gauged(b);
        let mut off = f64::INFINITY;
        let limit = if self.variant.intercept == Intercept::Newton { 60 } else { 40 };
        for _ in 0..limit {
            let r = self.residual(design, z, &b);
            let gradient = self.leftover(design, &r);
            let now: f64 = gradient.iter().map(|g| g.abs()).sum();
            if now <= 1e-16 || !now.is_finite() || (now < 1e-12 && now >= 0.5 * off) {
                break;
            }
            off = now;
            b = match self.variant.intercept {
                Intercept::Newton => self.newton(design, z, &b, &r, &gradient),
                Intercept::Scaling => self.scaled(design, &b, &gradient),
            };
        }
        self.penalised(design, b)
    }

    fn penalised(&self, design: &Design, mut b: Vec<f64>) -> Vec<f64> {
        if self.is(Fault::InterceptPenalised) {
            let size = self.norm(&b);
            let factor = if size > design.lambda { 1.0 - design.lambda / size } else { 0.0 };
            b.iter_mut().filter(|b| b.is_finite()).for_each(|b| *b *= factor);
        }
        b
    }

    /// `b + ln(share / model)`, class by class.
    fn scaled(&self, design: &Design, b: &[f64], gradient: &[f64]) -> Vec<f64> {
        let step = |k: usize| {
            let share = self.dot(&design.y[k], &design.omega);
            if share > 0.0 { b[k] + (share / (share - gradient[k]).max(f64::MIN_POSITIVE)).ln() } else { b[k] }
        };
        (0..b.len()).map(step).collect()
    }

    /// A Newton step, halved until the value does not rise; scaling where it would not help.
    fn newton(&self, design: &Design, z: &Table, b: &[f64], r: &Table, gradient: &[f64]) -> Vec<f64> {
        let present: Vec<usize> = (0..b.len()).filter(|&k| !design.absent[k]).collect();
        let p = |k: usize, i: usize| design.y[k][i] - r[k][i];
        // The Hessian is blind to what all logits have in common: that direction is made regular.
        let entry = |j: usize, k: usize| {
            let of = |i: usize| design.omega[i] * p(j, i) * (f64::from(u8::from(j == k)) - p(k, i));
            (0..design.samples).map(of).sum::<f64>() + 1.0 / present.len() as f64
        };
        let hessian: Table = present.iter().map(|&j| present.iter().map(|&k| entry(j, k)).collect()).collect();
        let step = solve(hessian, present.iter().map(|&k| gradient[k]).collect());
        let value = self.value(design, z, b);
        for halvings in 0..8 {
            let mut next = b.to_vec();
            present.iter().zip(&step).for_each(|(&k, step)| next[k] += step * 0.5f64.powi(halvings));
            if self.value(design, z, &next) <= value + 1e-14 * value.abs() {
                return next;
            }
        }
        self.scaled(design, b, gradient)
    }
}

impl Design {
    /// A start for the intercept: −∞ for absent classes; the mean of the others, which the loss does not see, as that of
    /// the null model.
    fn gauged(&self, b: &[f64]) -> Vec<f64> {
        let null = &self.null_intercept;
        let start = |k: usize| if b[k].is_finite() { b[k] } else { null[k] };
        let present: Vec<usize> = (0..b.len()).filter(|&k| !self.absent[k]).collect();
        let apart = present.iter().map(|&k| start(k) - null[k]).sum::<f64>() / present.len() as f64;
        let own = |k: usize| if self.absent[k] { null[k] } else { start(k) - apart };
        (0..b.len()).map(own).collect()
    }
}

/// Solves `A x = y` by elimination with pivots; where a pivot vanishes, `x` is 0.
pub(crate) fn solve(mut a: Table, mut y: Vec<f64>) -> Vec<f64> {
    let n = y.len();
    for j in 0..n {
        let pivot = (j..n).max_by(|&p, &q| a[p][j].abs().total_cmp(&a[q][j].abs())).unwrap_or(j);
        a.swap(j, pivot);
        y.swap(j, pivot);
        if a[j][j] == 0.0 {
            continue;
        }
        for i in j + 1..n {
            let factor = a[i][j] / a[j][j];
            for k in j..n {
                a[i][k] -= factor * a[j][k];
            }
            y[i] -= factor * y[j];
        }
    }
    for j in (0..n).rev() {
        let known: f64 = (j + 1..n).map(|k| a[j][k] * y[k]).sum();
        y[j] = if a[j][j] == 0.0 { 0.0 } else { (y[j] - known) / a[j][j] };
    }
    y
}
