//! The kernel's own certificate: weak duality at the residual, scaled until every group's correlation is feasible.

use crate::grouplasso::Fault;
use crate::grouplasso::design::{Block, Design, Table};
use crate::grouplasso::kernel::Pass;
use tilewright_grouplasso::{Certificate, Loss, Terms};

/// A point and what belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Coefficients, row by row.
    pub(crate) w: Vec<f64>,
    /// The intercept that goes with the design's columns.
    pub(crate) b: Vec<f64>,
    /// `X W`.
    pub(crate) z: Table,
}

/// What is known of a point.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) certificate: Certificate,
    /// Of each group, `X_gᵀ ω̂ R`.
    pub(crate) u: Vec<Vec<f64>>,
}

/// Sums over the groups.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    penalty: f64,
    dual_norm: f64,
    ridge_norm: f64,
    conjugates: f64,
    free: f64,
    kkt: f64,
    active: usize,
}

impl Design {
    /// `X W`.
    pub(crate) fn times(&self, w: &[f64]) -> Table {
        let mut z = vec![vec![0.0; self.samples]; self.outputs];
        for (row, x) in self.x.iter().enumerate() {
            for (k, z) in z.iter_mut().enumerate() {
                let w = w[row * self.outputs + k];
                if w != 0.0 {
                    z.iter_mut().zip(x).for_each(|(z, x)| *z += w * x);
                }
            }
        }
        z
    }

    /// What explains all of `P(0)`, or a logit of 1.
    fn natural(&self) -> f64 {
        match self.loss {
            Loss::LeastSquares => (2.0 * self.null).sqrt(),
            Loss::Multinomial => 1.0,
        }
    }

    /// A group's coefficients, rows end to end.
    pub(crate) fn gather(&self, block: &Block, w: &[f64]) -> Vec<f64> {
        let c = self.outputs;
        block.members.rows.iter().flat_map(|&row| w[row * c..(row + 1) * c].iter().copied()).collect()
    }
}

impl Pass {
    /// The intercept that goes with the columns as the specification has them.
    pub(crate) fn reported_intercept(&self, design: &Design, point: &Point) -> Vec<f64> {
        if self.is(Fault::InterceptOfCentred) {
            return point.b.clone();
        }
        let own = |k: usize| {
            let shifts: f64 =
                design.shift.iter().enumerate().map(|(row, s)| s * point.w[row * design.outputs + k]).sum();
            point.b[k] - shifts
        };
        (0..design.outputs).map(own).collect()
    }

    /// The correlation of a group's columns, as the specification has them, with the residual.
    fn correlation(&self, design: &Design, block: &Block, r: &Table, leftover: &[f64]) -> Vec<f64> {
        let mut u = Vec::with_capacity(block.members.rows.len() * design.outputs);
        for &row in &block.members.rows {
            for k in 0..design.outputs {
                let sum = self.dot(&design.weighted[row], &r[k]) + design.shift[row] * leftover[k];
                u.push(if self.is(Fault::CertificateInF32) { f64::from(sum as f32) } else { sum });
            }
        }
        u
    }

    /// Certifies a point. `judged` are the groups that are looked at — a correct kernel's are all; `last` is the judgement
    /// before this.
    pub(crate) fn certify(&self, design: &Design, point: &Point, judged: &[bool], last: Option<&Judged>) -> Judged {
        let r = self.residual(design, &point.z, &point.b);
        let leftover = self.leftover(design, &r);
        let mut u: Vec<Vec<f64>> =
            design.blocks.iter().map(|block| self.correlation(design, block, &r, &leftover)).collect();
        if let (Some(Fault::StaleCorrelations), Some(last)) = (self.fault, last) {
            u.clone_from(&last.u);
        }
        let mut totals = Totals::default();
        for (g, block) in design.blocks.iter().enumerate() {
            if judged[g] || !self.is(Fault::CertificateOfKept) {
                let v = design.gather(block, &point.w);
                self.tally(design, block, &v, &u[g], judged[g], &mut totals);
            }
        }
        let certificate = self.conclude(design, point, &r, &leftover, totals);
        Judged { certificate, u }
    }

    fn tally(&self, design: &Design, block: &Block, v: &[f64], u: &[f64], kept: bool, totals: &mut Totals) {
        let terms = block.terms;
        let is_active = v.iter().any(|v| *v != 0.0);
        let counted = match self.fault {
            Some(Fault::ActiveCountsRows) => {
                v.chunks(design.outputs).filter(|row| row.iter().any(|w| *w != 0.0)).count()
            }
            Some(Fault::ActiveCountsKept) => usize::from(kept && (is_active || !terms.is_free())),
            _ => usize::from(is_active),
        };
        totals.active += counted;
        totals.penalty += match self.fault {
            Some(Fault::RidgeNotInObjective) => Terms { ridge: 0.0, ..terms }.value(v),
            _ => terms.value(v),
        };
        totals.kkt = greater(totals.kkt, self.distance(terms, v, u, is_active));
        if terms.is_free() {
            let natural = if block.size > 0.0 { design.natural() / block.size } else { return };
            if !self.is(Fault::FreeGroupsUncertified) {
                totals.free += 2.0 * self.norm(v).max(natural) * self.norm(u);
            }
        } else if terms.ridge > 0.0 {
            if !self.is(Fault::ConjugateMissing) {
                totals.conjugates += terms.conjugate(u);
                totals.ridge_norm = greater(totals.ridge_norm, terms.dual_norm(u));
            }
        } else {
            let dual_norm = match self.fault {
                Some(Fault::DualNormUnweighted) => Terms { l2: terms.l2 / block.weight, ..terms }.dual_norm(u),
                Some(Fault::DualNormOfEntries) => Terms { l1: 0.0, l2: terms.l1 + terms.l2, ridge: 0.0 }.dual_norm(u),
                Some(Fault::DualNormOfActive) if !is_active => 0.0,
                Some(Fault::DualNormLastGroup) => return totals.dual_norm = terms.dual_norm(u),
                _ => terms.dual_norm(u),
            };
            totals.dual_norm = greater(totals.dual_norm, dual_norm);
        }
    }

    fn distance(&self, terms: Terms, v: &[f64], u: &[f64], is_active: bool) -> f64 {
        match self.fault {
            Some(Fault::KktSign) => terms.distance(v, &u.iter().map(|u| -u).collect::<Vec<_>>()),
            Some(Fault::KktOfActive) if !is_active => 0.0,
            _ => terms.distance(v, u),
        }
    }

    fn conclude(&self, design: &Design, point: &Point, r: &Table, leftover: &[f64], totals: Totals) -> Certificate {
        let rounded = |x: f64| if self.is(Fault::CertificateInF32) { f64::from(x as f32) } else { x };
        let value = self.value(design, &point.z, &point.b);
        let objective = match self.fault {
            Some(Fault::ObjectiveIsLoss) => value,
            _ => rounded(value + totals.penalty),
        };
        let intercept_cost = match (design.intercept, self.fault) {
            (false, _) | (true, Some(Fault::LeftoverUncertified)) => 0.0,
            (true, _) => self.intercept_cost(design, point, leftover),
        };
        let shift: f64 =
            design.null_intercept.iter().zip(leftover).map(|(b, sum)| if b.is_finite() { b * sum } else { 0.0 }).sum();
        let dual = |s: f64, conjugates: f64| {
            let linear = s.abs() * (intercept_cost + totals.free) + s * shift;
            rounded(self.dual(design, r, s) - conjugates - linear)
        };
        let scales = self.scales(design, r, &totals).into_iter();
        let candidates = scales.map(|(s, conjugates)| (dual(s, conjugates), s));
        let (dual, dual_scale) =
            candidates.reduce(|best, other| if other.0 > best.0 { other } else { best }).unwrap_or_default();
        let kkt = if design.intercept { greater(totals.kkt, self.norm(leftover)) } else { totals.kkt };
        Certificate { objective, dual, null: design.null, kkt, active: totals.active, dual_scale }
    }

    fn intercept_cost(&self, design: &Design, point: &Point, leftover: &[f64]) -> f64 {
        let b = self.reported_intercept(design, point);
        let apart = |(b, null): (&f64, &f64)| match (b.is_finite(), null.is_finite()) {
            (true, true) => b - null,
            (true, false) => *b,
            (false, _) => 0.0,
        };
        let apart: Vec<f64> = b.iter().zip(&design.null_intercept).map(apart).collect();
        2.0 * self.norm(&apart).max(design.natural()) * self.norm(leftover)
    }

    /// Factors of the residual that are tried, with what the conjugates come to there.
    fn scales(&self, design: &Design, r: &Table, totals: &Totals) -> Vec<(f64, f64)> {
        let conjugates = totals.conjugates;
        match self.fault {
            Some(Fault::DualNotScaled) => return vec![(1.0, conjugates)],
            Some(Fault::DualScaleAboveOne) if totals.dual_norm > 0.0 => {
                return vec![(1.0 / totals.dual_norm, conjugates)];
            }
            _ => {}
        }
        let norm = greater(totals.dual_norm, totals.ridge_norm);
        let mut scales = vec![(1.0 / totals.dual_norm.max(1.0), conjugates)];
        if conjugates > 0.0 {
            scales.push((1.0 / norm.max(1.0), 0.0));
        }
        if design.loss == Loss::LeastSquares && norm > 0.0 {
            let (mut ry, mut rr) = (0.0, 0.0);
            for (k, r) in r.iter().enumerate() {
                let weighted: Vec<f64> = r.iter().zip(&design.omega).map(|(r, omega)| r * omega).collect();
                let centred: Vec<f64> = design.y[k].iter().map(|y| y - design.null_intercept[k]).collect();
                ry += self.dot(&weighted, &centred);
                rr += self.dot(&weighted, r);
            }
            if rr > 0.0 {
                let limit = if self.is(Fault::BestScaleUnlimited) { f64::INFINITY } else { 1.0 / norm };
                scales.push(((ry / rr).clamp(-limit, limit), 0.0));
            }
        }
        scales
    }

    /// The dual function of the loss at `s ω̂ R`.
    fn dual(&self, design: &Design, r: &Table, s: f64) -> f64 {
        let of = |i: usize| {
            let pairs = r.iter().zip(&design.y).map(|(r, y)| (r[i], y[i]));
            match design.loss {
                Loss::LeastSquares => {
                    let half = if self.is(Fault::DualNotHalved) { 0.25 } else { 0.5 };
                    pairs.map(|(r, y)| s * r * y - half * s * s * r * r).sum::<f64>()
                }
                Loss::Multinomial => {
                    let mixture = pairs.map(|(r, y)| y - s * r).filter(|q| *q > 0.0);
                    let entropy: f64 = mixture.map(|q| -q * q.ln()).sum();
                    if self.is(Fault::EntropyInBits) { entropy / std::f64::consts::LN_2 } else { entropy }
                }
            }
        };
        let counted = (0..design.samples).filter(|&i| design.omega[i] > 0.0);
        let (omega, terms): (Vec<f64>, Vec<f64>) = counted.map(|i| (design.omega[i], of(i))).unzip();
        self.dot(&omega, &terms)
    }
}

/// The greater of two, and NaN if either is.
fn greater(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}
