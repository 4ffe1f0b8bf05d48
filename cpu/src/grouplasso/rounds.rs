//! Work on one working set: rounds of coordinate descent and a Newton step, until the gap there is small enough.

use super::descent::Descent;
use super::newton::{self, Effort, Step};
use super::target::{Fit, Target};
use super::working_set::{INTERCEPT, WorkingSet};
use tilewright_scalar::Accum;

/// A step is taken if the objective goes up by no more than this, relatively: rounding.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

/// The share of the decrease that the slope promises which a step must bring.
const ARMIJO: f64 = 0.05;

/// Times a step is halved before it is given up.
const HALVINGS: usize = 40;

/// The same for steps of coordinate descent, whose model bounds the loss: what does not help at once is rounding.
const MODEL_HALVINGS: usize = 5;

/// How hard a Newton step may be tried, from rough to sharp: the last in double precision, as is then coordinate descent.
const EFFORTS: [Effort; 3] = [
    Effort { forcing: 0.03, steps: 60, damping: 0.0 },
    Effort { forcing: 0.01, steps: 120, damping: 0.0 },
    Effort { forcing: 1e-3, steps: 250, damping: 0.0 },
];

/// The sharpest of them.
pub(super) const SHARPEST: usize = EFFORTS.len() - 1;

/// The least and the greatest damping, in the solver's units, in which a group's curvature is at most 1.
const DAMPING: (f64, f64) = (1e-9, 1.0);

/// Sweeps of coordinate descent in a round, and so many more for every time the working set has as many rows as there are
/// samples: the more correlated columns there are, the harder it is to say which of them count.
const SWEEPS: usize = 2;

/// The point, and what it comes to.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) set: WorkingSet,
    /// `XW` and the intercept, in blocks.
    pub(super) z: Vec<f64>,
    pub(super) fit: Fit,
    /// Levenberg's.
    damping: f64,
}

impl Point {
    pub(super) fn new(target: &Target, intercept: Option<&[f64]>) -> Self {
        let set = WorkingSet::new(target, intercept);
        let mut point = Self { set, z: vec![0.0; target.blocks.len()], fit: Fit::default(), damping: DAMPING.0 };
        point.refresh(target);
        point
    }

    /// Finds everything that follows from the coefficients.
    pub(super) fn refresh(&mut self, target: &Target) {
        self.set.margins(&mut self.z);
        target.fit(&self.z, &mut self.fit);
    }

    pub(super) fn objective(&self) -> f64 {
        self.fit.value + self.set.penalty()
    }

    /// Brings the intercept to its best, so that residuals sum to zero: Newton's method while it gains.
    pub(super) fn settle_intercept(&mut self, target: &Target) {
        if self.set.members.first().is_none_or(|member| member.group != INTERCEPT) {
            return;
        }
        let mut leftover = target.leftover(&self.fit);
        for _ in 0..20 {
            if leftover <= f64::EPSILON {
                return;
            }
            let step = target.intercept_step(&self.fit);
            let (z, value) = (self.z.clone(), self.fit.value);
            target.add_intercept(&step, &mut self.z);
            target.fit(&self.z, &mut self.fit);
            let now = target.leftover(&self.fit);
            if !(now < 0.9 * leftover && self.fit.value <= value + ROUNDING * value.abs()) {
                self.z = z;
                target.fit(&self.z, &mut self.fit);
                return;
            }
            leftover = now;
            self.set.w.iter_mut().zip(step).for_each(|(b, step)| *b += step);
        }
    }

    /// One round, of an effort up to [`SHARPEST`]. Returns whether the objective fell.
    pub(super) fn round(&mut self, target: &Target, effort: usize) -> bool {
        let before = self.objective();
        if effort == SHARPEST {
            self.descend::<f64>(target);
        } else {
            self.descend::<f32>(target);
        }
        self.newton(target, effort);
        self.settle_intercept(target);
        self.objective() < before - ROUNDING * before.abs()
    }

    fn descend<S: Accum>(&mut self, target: &Target) {
        let before = self.objective();
        let mut w = self.set.w.clone();
        let (_, most) = target.curvature(&self.fit);
        let sweeps = SWEEPS * (1 + self.set.rows() / target.blocks.samples);
        let mut descent = Descent::<S>::new(&self.set, &most, &target.omega, &self.fit.rho);
        for _ in 0..sweeps {
            descent.sweep(&mut w);
        }
        let direction = w.iter().zip(&self.set.w).map(|(new, old)| new - old).collect();
        self.search(target, before, &Step { direction, slope: 0.0 }, MODEL_HALVINGS);
    }

    fn newton(&mut self, target: &Target, effort: usize) {
        let before = self.objective();
        let u = self.set.correlations(&self.fit.rho);
        let (mean, _) = target.curvature(&self.fit);
        let tried = Effort { damping: self.damping, ..EFFORTS[effort.min(SHARPEST)] };
        let step = if effort >= SHARPEST {
            newton::step::<f64>(target, &self.set, &self.fit, &u, &mean, tried)
        } else {
            newton::step::<f32>(target, &self.set, &self.fit, &u, &mean, tried)
        };
        if let Some(step) = step {
            let length = self.search(target, before, &step, HALVINGS);
            // Levenberg's rule: what had to be cut short was not damped enough.
            let factor = if length < 0.1 { 100.0 } else { 0.1 };
            self.damping = (self.damping * factor).clamp(DAMPING.0, DAMPING.1);
        }
    }

    /// Goes along a step, as far as it pays (Armijo's rule), halving; along an arc, since what would cross zero stays there.
    /// Returns how far.
    fn search(&mut self, target: &Target, before: f64, step: &Step, halvings: usize) -> f64 {
        let (old, old_z) = (self.set.w.clone(), self.z.clone());
        let mut moved = vec![0.0; self.z.len()];
        let (mut length, mut best) = (1.0, (before, 0.0));
        for _ in 0..halvings {
            self.advance(target, &old, &old_z, &step.direction, length, &mut moved);
            let objective = self.objective();
            if objective <= before + ARMIJO * length * step.slope + ROUNDING * before.abs() {
                return length;
            }
            if objective < best.0 {
                best = (objective, length);
            }
            length *= 0.5;
        }
        self.advance(target, &old, &old_z, &step.direction, best.1, &mut moved);
        best.1
    }

    /// `old + length · direction`, with zeros for groups, and entries that pay for their magnitude, that would cross zero.
    fn advance(
        &mut self,
        target: &Target,
        old: &[f64],
        old_z: &[f64],
        direction: &[f64],
        length: f64,
        moved: &mut [f64],
    ) {
        let c = self.set.blocks.outputs;
        self.set.w.iter_mut().zip(old).zip(direction).for_each(|((w, old), d)| *w = old + length * d);
        for member in &self.set.members {
            let range = member.rows.start * c..member.rows.end * c;
            let (old, w) = (&old[range.clone()], &mut self.set.w[range]);
            if member.terms.l2 > 0.0 && old.iter().zip(&*w).map(|(old, w)| old * w).sum::<f64>() <= 0.0 {
                // A group that was zero may leave it.
                if old.iter().any(|old| *old != 0.0) {
                    w.fill(0.0);
                }
            } else if member.terms.l1 > 0.0 {
                w.iter_mut().zip(old).filter(|(w, old)| *old * **w < 0.0).for_each(|(w, _)| *w = 0.0);
            }
        }
        let change: Vec<f64> = self.set.w.iter().zip(old).map(|(w, old)| w - old).collect();
        self.set.blocks.forward(self.set.rows(), &self.set.x, &change, moved);
        self.z.iter_mut().zip(old_z).zip(&*moved).for_each(|((z, old), moved)| *z = old + moved);
        target.fit(&self.z, &mut self.fit);
    }
}
