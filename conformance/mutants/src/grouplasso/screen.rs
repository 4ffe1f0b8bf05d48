//! Which groups a sweep visits.

use crate::grouplasso::design::Design;
use crate::grouplasso::solver::{Before, Run};
use crate::grouplasso::{Fault, Screening};
use tilewright_grouplasso::screening;

impl Run<'_> {
    /// Which groups are visited first.
    pub(crate) fn screen_first(&mut self, before: Option<&Before>) {
        match (self.pass.variant.screening, before) {
            (Screening::Strong, Some(before)) => {
                let previous = if self.pass.is(Fault::StrongAtPrevious) { self.design.lambda } else { before.lambda };
                for (g, block) in self.design.blocks.iter().enumerate() {
                    let u = &self.judged.u[g];
                    let Design { penalty, lambda, .. } = *self.design;
                    self.alive[g] = screening::is_strong(penalty, block.weight, lambda, previous, u);
                }
                self.keep_what_is_not_zero();
            }
            (Screening::WorkingSet, _) => self.screen(),
            _ => {}
        }
    }

    fn keep_what_is_not_zero(&mut self) {
        for (g, block) in self.design.blocks.iter().enumerate() {
            let is_zero = self.design.gather(block, &self.point.w).iter().all(|w| *w == 0.0);
            self.alive[g] |= !is_zero || block.terms.is_free();
        }
    }

    /// Which groups are visited from now on.
    pub(crate) fn screen(&mut self) {
        match self.pass.variant.screening {
            Screening::None => {}
            Screening::GapSafe => self.drop_safely(),
            Screening::Strong | Screening::WorkingSet => {
                let first = self.iterations == 0;
                let unchecked = matches!(
                    self.pass.fault,
                    Some(Fault::ViolationsUnchecked | Fault::CertificateOfKept | Fault::StrongAtPrevious)
                );
                if unchecked && !first {
                    return;
                }
                for (g, block) in self.design.blocks.iter().enumerate() {
                    let violated = block.terms.excess(&self.judged.u[g]) > 0.0;
                    self.alive[g] = violated || (self.alive[g] && self.pass.variant.screening == Screening::Strong);
                }
                self.keep_what_is_not_zero();
            }
        }
    }

    fn drop_safely(&mut self) {
        let certificate = self.judged.certificate;
        let radius = match self.pass.fault {
            Some(Fault::RadiusMissing) => 0.0,
            Some(Fault::RadiusIsGap) => certificate.gap().max(0.0),
            _ => screening::safe_radius(self.design.loss, &certificate),
        };
        for (g, block) in self.design.blocks.iter().enumerate() {
            let u: Vec<f64> = self.judged.u[g].iter().map(|u| certificate.dual_scale * u).collect();
            let size = match self.pass.fault {
                Some(Fault::SphereSizeMissing) => 1.0,
                _ => block.size,
            };
            if self.alive[g] && !screening::is_safe_to_keep(block.terms, &u, size, radius) {
                self.alive[g] = false;
                let c = self.design.outputs;
                block.members.rows.iter().for_each(|&row| self.point.w[row * c..(row + 1) * c].fill(0.0));
                self.point.z = self.design.times(&self.point.w);
                // Extrapolation would bring the group back.
                self.history = vec![self.point.w.clone()];
            }
        }
    }
}
