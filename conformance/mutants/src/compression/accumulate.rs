//! A gradient enters the memory: equations 4 and 5 of Lin et al. 2018.

use crate::compression::kernel::Pass;
use crate::compression::{Fault, StoredNan};
use tilewright_compression::{CompressionSpec, Feedback, Memory, Step};

/// Elements of a vector register.
const VECTOR: usize = 8;

impl Pass {
    /// Writes `u` and `v`, and gives `v`. `stale` is what the call before left over.
    pub(crate) fn accumulate(
        &self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        stale: &[f32],
    ) -> Vec<f32> {
        let len = gradient.len();
        let end = if self.is(Fault::TailNotAccumulated) { len / VECTOR * VECTOR } else { len };
        let mut values = vec![0.0; len];
        for i in self.variant.visit.order(len) {
            let u = memory.momentum.get(i).copied().unwrap_or(0.0);
            let v = memory.velocity.get(i).copied().unwrap_or(0.0);
            let g = if i < end { self.scaled(step, gradient[i]) } else { 0.0 };
            let (new_u, mut new_v) = self.enter(spec.feedback, u, v, g);
            match self.fault {
                Some(Fault::ScaleOnVelocity) => new_v *= step.scale,
                Some(Fault::SubnormalsFlushed) if new_v.is_subnormal() => new_v = 0.0,
                Some(Fault::HiddenResidual) if spec.feedback == Feedback::None && stale.len() == len => {
                    new_v += stale[i];
                }
                _ => {}
            }
            values[i] = new_v;
            if let Some(place) = memory.momentum.get_mut(i) {
                *place = self.stored(new_u);
            }
            if let Some(place) = memory.velocity.get_mut(i) {
                *place = match self.fault {
                    Some(Fault::UnsentNotStored) => v,
                    Some(Fault::ResidualTwice) => new_v + v,
                    Some(Fault::ResidualRounded) => spec.wire.value.round(new_v),
                    _ => self.stored(new_v),
                };
            }
        }
        values
    }

    fn scaled(&self, step: Step, g: f32) -> f32 {
        match self.fault {
            Some(Fault::ScaleIgnored | Fault::ScaleOnVelocity | Fault::ScaleOnMomentum) => g,
            Some(Fault::ScaleTwice) => step.scale * (step.scale * g),
            Some(Fault::NonFiniteZeroed) if !g.is_finite() => 0.0,
            _ => step.scale * g,
        }
    }

    fn enter(&self, feedback: Feedback, u: f32, v: f32, g: f32) -> (f32, f32) {
        match feedback {
            Feedback::None => (u, g),
            Feedback::Residual if self.is(Fault::ResidualDropped) => (u, 0.0 + g),
            Feedback::Residual => (u, v + g),
            Feedback::Momentum { factor, nesterov: true, .. } => match self.fault {
                Some(Fault::NesterovIgnored) => self.classical(factor, u, v, g),
                Some(Fault::NesterovOrder) => {
                    let u = factor * u + g;
                    (u, (v + u) + g)
                }
                Some(Fault::NesterovGradientMissing) => {
                    let u = factor * (u + g);
                    (u, v + u)
                }
                _ => {
                    let u = factor * (u + g);
                    (u, (v + u) + g)
                }
            },
            Feedback::Momentum { factor, .. } => self.classical(factor, u, v, g),
        }
    }

    fn classical(&self, factor: f32, old_u: f32, v: f32, g: f32) -> (f32, f32) {
        let u = match self.fault {
            Some(Fault::MomentumFused) => factor.mul_add(old_u, g),
            Some(Fault::DampenedMomentum) => factor * old_u + (1.0 - factor) * g,
            _ => factor * old_u + g,
        };
        match self.fault {
            Some(Fault::ResidualDropped) => (u, 0.0 + u),
            Some(Fault::SecondAccumulatorMissing) => (u, factor * v + g),
            Some(Fault::VelocityAddsGradient) => (u, v + g),
            Some(Fault::MomentumOfStaleVelocity) => (u, v + old_u),
            _ => (u, v + u),
        }
    }

    /// A number as the memory holds it.
    fn stored(&self, x: f32) -> f32 {
        match self.variant.nan {
            StoredNan::Negative if x.is_nan() => f32::from_bits(0xffc0_0000),
            StoredNan::AllOnes if x.is_nan() => f32::from_bits(0x7fff_ffff),
            _ => x,
        }
    }
}
