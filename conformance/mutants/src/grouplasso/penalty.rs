//! What a group pays, and its proximal operator.

use crate::grouplasso::kernel::Pass;
use crate::grouplasso::{Fault, Shrink};
use tilewright_grouplasso::{GroupLassoSpec, Penalty, Terms, Weights};

impl Pass {
    /// The weight of a group of `size` features.
    pub(crate) fn weight(&self, spec: &GroupLassoSpec, group: usize, size: usize) -> f64 {
        match &spec.weights {
            Weights::SqrtSize => match self.fault {
                Some(Fault::WeightMissing) => 1.0,
                Some(Fault::WeightIsSize) => size as f64,
                _ => (size as f64).sqrt(),
            },
            Weights::Ones if self.is(Fault::OnesAreRoots) => (size as f64).sqrt(),
            Weights::Ones => 1.0,
            Weights::Given(given) => match self.fault {
                Some(Fault::FreeGroupPays) if given[group] == 0.0 => 1.0,
                Some(Fault::GivenWeightsByRoot) => given[group] * (size as f64).sqrt(),
                Some(Fault::GivenWeightsShifted) => given[(group + 1) % given.len()],
                _ => given[group],
            },
        }
    }

    /// λ as the penalty sees it.
    pub(crate) fn lambda(&self, spec: &GroupLassoSpec, samples: usize, outputs: usize) -> f64 {
        match self.fault {
            Some(Fault::PenaltyDoubled) => 2.0 * spec.lambda,
            Some(Fault::LossNotHalved) => 0.5 * spec.lambda,
            Some(Fault::LossSummed) => spec.lambda / samples as f64,
            Some(Fault::LossPerOutput) => spec.lambda * outputs as f64,
            _ => spec.lambda,
        }
    }

    /// `a`, `b` and `c` of a group.
    pub(crate) fn terms(&self, penalty: Penalty, lambda: f64, weight: f64) -> Terms {
        let free = lambda == 0.0 || weight == 0.0;
        let (l1, l2, ridge) = match penalty {
            Penalty::SparseGroup { tau } if free && self.is(Fault::FreeGroupsSparse) => (lambda * tau, 0.0, 0.0),
            _ if free => (0.0, 0.0, 0.0),
            Penalty::GroupLasso => (0.0, lambda * weight, 0.0),
            Penalty::SparseGroup { tau } => {
                let tau = if self.is(Fault::TauSwapped) { 1.0 - tau } else { tau };
                match self.fault {
                    Some(Fault::SparseTermMissing) => (0.0, lambda * (1.0 - tau) * weight, 0.0),
                    Some(Fault::SparseTermWeighted) => (lambda * tau * weight, lambda * (1.0 - tau) * weight, 0.0),
                    Some(Fault::GroupTermUndivided) => (lambda * tau, lambda * weight, 0.0),
                    _ => (lambda * tau, lambda * (1.0 - tau) * weight, 0.0),
                }
            }
            Penalty::ElasticNet { alpha } => {
                let alpha = if self.is(Fault::AlphaSwapped) { 1.0 - alpha } else { alpha };
                let ridge = match self.fault {
                    Some(Fault::RidgeMissing) => 0.0,
                    Some(Fault::RidgeUnweighted) => lambda * (1.0 - alpha),
                    Some(Fault::RidgeNotHalved) => 2.0 * lambda * (1.0 - alpha) * weight,
                    _ => lambda * (1.0 - alpha) * weight,
                };
                (0.0, lambda * alpha * weight, ridge)
            }
        };
        Terms { l1, l2, ridge }
    }

    /// Replaces a block, its rows end to end, by `argmin ½ ‖x − v‖² + t h(x)`.
    pub(crate) fn prox(&self, terms: Terms, t: f64, outputs: usize, v: &mut [f64]) {
        if self.is(Fault::ProxTwice) {
            self.prox_once(terms, t, outputs, v);
        }
        self.prox_once(terms, t, outputs, v);
    }

    fn prox_once(&self, terms: Terms, t: f64, outputs: usize, v: &mut [f64]) {
        // Where the bug is that one threshold lacks the step, the other has it.
        let (norm_step, entry_step) = match self.fault {
            Some(Fault::ThresholdWithoutStep) => (1.0, t),
            Some(Fault::EntriesWithoutStep) => (t, 1.0),
            _ => (t, t),
        };
        let divisor = if self.is(Fault::RidgeNotDivided) { 1.0 } else { 1.0 + entry_step * terms.ridge };
        if self.is(Fault::RidgeFirst) {
            divide(v, divisor);
        }
        if !self.is(Fault::GroupBeforeEntries) {
            self.soften(entry_step * terms.l1, v);
        }
        match self.fault {
            Some(Fault::EachOutputItsGroup) => self.shrink_outputs(norm_step * terms.l2, outputs, v),
            Some(Fault::EachEntryItsGroup) => self.soften(norm_step * terms.l2, v),
            _ => self.shrink(norm_step * terms.l2, v),
        }
        if self.is(Fault::GroupBeforeEntries) {
            self.soften(entry_step * terms.l1, v);
        }
        if !self.is(Fault::RidgeFirst) {
            divide(v, divisor);
        }
    }

    /// Each entry towards 0 by `t`.
    fn soften(&self, t: f64, v: &mut [f64]) {
        if t == 0.0 {
            return;
        }
        for x in v {
            *x = match self.fault {
                _ if x.abs() <= t => 0.0,
                Some(Fault::SoftSignMissing) => *x - t,
                _ => *x - t.copysign(*x),
            };
        }
    }

    /// Every output as a group of its own.
    fn shrink_outputs(&self, t: f64, outputs: usize, v: &mut [f64]) {
        for k in 0..outputs {
            let mut column: Vec<f64> = v.iter().skip(k).step_by(outputs).copied().collect();
            self.shrink(t, &mut column);
            v.iter_mut().skip(k).step_by(outputs).zip(column).for_each(|(to, x)| *to = x);
        }
    }

    /// The block towards 0 by `t`.
    fn shrink(&self, t: f64, v: &mut [f64]) {
        let size = self.norm(v);
        let judged = if self.is(Fault::SquaredNorm) { size * size } else { size };
        match self.fault {
            Some(Fault::NanIsZero) if judged.is_nan() => return v.fill(0.0),
            Some(Fault::TieUntouched) if judged == t => return,
            Some(Fault::ZeroByZero) if size == 0.0 && t == 0.0 => return v.fill(f64::NAN),
            Some(Fault::NotClamped) if size > 0.0 => {}
            Some(Fault::TailLeft) if judged <= t => {
                let kept = v.len().saturating_sub(1);
                return v[..kept].fill(0.0);
            }
            _ if judged <= t => return v.fill(0.0),
            _ => {}
        }
        if !size.is_finite() {
            return v.fill(f64::NAN);
        }
        if self.is(Fault::NormAfterShrink) {
            for at in 0..v.len() {
                let size = self.norm(v);
                v[at] *= (1.0 - t / size).max(0.0);
            }
            return;
        }
        let last = v.len().saturating_sub(1);
        let end = if self.is(Fault::LastEntryUnshrunk) { last } else { v.len() };
        let factor = (size - t) / size;
        for x in &mut v[..end] {
            *x = match self.variant.shrink {
                Shrink::Factor => *x * factor,
                Shrink::Direction => *x - t * (*x / size),
                Shrink::Moreau => *x - *x * (t / size).min(1.0),
            };
        }
    }
}

fn divide(v: &mut [f64], by: f64) {
    for x in v {
        *x /= by;
    }
}
