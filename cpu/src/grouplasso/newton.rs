//! A truncated Newton step on the support, where the objective is smooth.
//!
//! On groups that are not zero, `h(v) = a ‖v‖₁ + b ‖v‖ + c/2 ‖v‖²` has the Hessian `b/‖v‖ (I − v̂v̂ᵀ) + c I`; entries that are
//! zero although `a > 0` stay so. With that of the loss, `(X H Xᵀ + D) Δ = −∇P` is solved by preconditioned conjugate
//! gradients — in single precision as a rule: a direction needs few digits, and gradient and objective, which decide, are in
//! double.

use super::gemm::FromExact;
use super::preconditioner::Preconditioner;
use super::simd::dot_accum;
use super::target::{Fit, Target, convert};
use super::working_set::WorkingSet;
use rayon::prelude::*;
use std::ops::Range;
use tilewright_grouplasso::penalty::norm;
use tilewright_scalar::{Accum, Real};

/// How well the system is solved: conjugate gradients stop at this share of the residual in the preconditioner's norm, or
/// after so many steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    pub(super) forcing: f64,
    pub(super) steps: usize,
    /// Added to the diagonal, so that no direction is without curvature.
    pub(super) damping: f64,
}

/// Curvatures above this, in the solver's units, are as good as infinite; single precision can still square them.
const STIFF: f64 = 1e12;

/// An active group.
#[derive(Clone, Debug)]
pub(super) struct Active {
    /// Its rows among those of the support.
    pub(super) rows: Range<usize>,
    /// `b/‖v‖`: the curvature across `v`.
    pub(super) across: f64,
    /// `c`, damped: the curvature along `v`.
    pub(super) along: f64,
    /// Whether its norm has a kink at zero.
    pub(super) kinked: bool,
}

/// The system on the support of a working set, in the precision `S`.
pub(super) struct System<'a, S> {
    target: &'a Target,
    pub(super) groups: Vec<Active>,
    /// Columns of the support, as rows; `m × n`.
    pub(super) x: Vec<S>,
    /// `v̂`, `m × C`.
    pub(super) unit: Vec<S>,
    /// Which entries may move; empty if all.
    free: Vec<bool>,
    /// `−∇P`.
    downhill: Vec<S>,
    p: Vec<S>,
    omega: Vec<S>,
}

/// A step for the whole working set, and the objective's slope along it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) direction: Vec<f64>,
    pub(super) slope: f64,
}

/// Newton's step at `fit`, where `u = Xρᵀ`; `curvature` is the mean one of each sample. None if
/// nothing is active.
pub(super) fn step<S: Accum>(
    target: &Target,
    set: &WorkingSet,
    fit: &Fit,
    u: &[f64],
    curvature: &[f64],
    effort: Effort,
) -> Option<Step> {
    let system = System::<S>::new(target, set, fit, u, effort.damping);
    if system.groups.is_empty() {
        return None;
    }
    let preconditioner = Preconditioner::new(&system, curvature);
    Some(system.spread(set, &system.solve(&preconditioner, effort)))
}

impl<'a, S: Accum> System<'a, S> {
    fn new(target: &'a Target, set: &WorkingSet, fit: &Fit, u: &[f64], damping: f64) -> Self {
        let (n, c) = (target.blocks.samples, target.blocks.outputs);
        let active: Vec<_> = set.support().collect();
        let rows: usize = active.iter().map(|member| member.rows.len()).sum();
        let mut groups = Vec::with_capacity(active.len());
        let (mut x, mut unit) = (Vec::with_capacity(rows * n), Vec::with_capacity(rows * c));
        let (mut downhill, mut free) = (Vec::with_capacity(rows * c), Vec::new());
        let sparse = active.iter().any(|member| member.terms.l1 > 0.0);
        let mut first = 0;
        for member in active {
            let (terms, v) = (member.terms, set.block(member));
            let size = norm(v);
            let kinked = terms.l2 > 0.0;
            let across = if kinked { (terms.l2 / size).min(STIFF) } else { 0.0 };
            let along = terms.ridge.min(STIFF) + damping;
            groups.push(Active { rows: first..first + member.rows.len(), across, along, kinked });
            first += member.rows.len();
            x.extend(set.x[member.rows.start * n..member.rows.end * n].iter().map(|x| S::from_f64_exact(*x)));
            for (v, u) in v.iter().zip(&u[member.rows.start * c..member.rows.end * c]) {
                let moves = terms.l1 == 0.0 || *v != 0.0;
                let direction = if kinked { v / size } else { 0.0 };
                let slope =
                    terms.l2 * direction + terms.ridge * v + if *v == 0.0 { 0.0 } else { terms.l1.copysign(*v) };
                unit.push(S::from_f64_exact(direction));
                downhill.push(S::from_f64_exact(if moves { u - slope } else { 0.0 }));
                if sparse {
                    free.push(moves);
                }
            }
        }
        let (p, omega) = (convert(&fit.p), convert(&target.omega));
        Self { target, groups, x, unit, free, downhill, p, omega }
    }

    /// `m` and `C`.
    pub(super) fn shape(&self) -> (usize, usize) {
        let c = self.target.blocks.outputs;
        (self.unit.len() / c, c)
    }

    /// Samples, `n`.
    pub(super) fn samples(&self) -> usize {
        self.omega.len()
    }

    /// `Xᵀ V̂`, the change of all margins by a step along each kinked group's direction, and the loss's Hessian times it: a row
    /// a group.
    pub(super) fn images(&self) -> (Vec<S>, Vec<S>) {
        let (n, c, size) = (self.samples(), self.target.blocks.outputs, self.target.blocks.len());
        let kinked: Vec<&Active> = self.groups.iter().filter(|group| group.kinked).collect();
        let mut images = vec![S::zero(); kinked.len() * size];
        images.par_chunks_mut(size).zip(kinked).for_each(|(image, group)| {
            let (rows, unit) = (&group.rows, &self.unit[group.rows.start * c..group.rows.end * c]);
            self.target.blocks.forward(rows.len(), &self.x[rows.start * n..rows.end * n], unit, image);
        });
        let mut curved = images.clone();
        curved.par_chunks_mut(size).for_each(|image| self.target.hessian(&self.p, &self.omega, image));
        (images, curved)
    }

    /// `⟨v̂, d⟩` of a group.
    pub(super) fn radial(&self, group: &Active, d: &[S]) -> S {
        let c = self.target.blocks.outputs;
        let range = group.rows.start * c..group.rows.end * c;
        dot_accum(&self.unit[range.clone()], &d[range])
    }

    /// Adds `a v̂` to a group of `d`.
    pub(super) fn add_radial(&self, group: &Active, a: S, d: &mut [S]) {
        let c = self.target.blocks.outputs;
        let range = group.rows.start * c..group.rows.end * c;
        for (d, v) in d[range.clone()].iter_mut().zip(&self.unit[range]) {
            *d += a * *v;
        }
    }

    /// Zeroes what may not move.
    fn mask(&self, d: &mut [S]) {
        for (d, free) in d.iter_mut().zip(&self.free) {
            if !free {
                *d = S::zero();
            }
        }
    }

    /// `out := (X H Xᵀ + D) d`.
    fn apply(&self, d: &[S], z: &mut [S], out: &mut [S]) {
        let (m, c) = self.shape();
        self.target.blocks.forward(m, &self.x, d, z);
        self.target.hessian(&self.p, &self.omega, z);
        self.target.blocks.adjoint(&self.x, z, out);
        for group in &self.groups {
            let radial = self.radial(group, d);
            let (all, along) = (S::from_f64_exact(group.across + group.along), S::from_f64_exact(-group.across));
            for i in group.rows.start * c..group.rows.end * c {
                out[i] += all * d[i];
            }
            self.add_radial(group, along * radial, out);
        }
        self.mask(out);
    }

    /// Preconditioned conjugate gradients from 0 (Hestenes and Stiefel 1952).
    fn solve(&self, preconditioner: &Preconditioner<S>, effort: Effort) -> Vec<S> {
        let precondition = |r: &[S]| {
            let mut y = preconditioner.apply(self, r);
            self.mask(&mut y);
            y
        };
        let mut solution = vec![S::zero(); self.unit.len()];
        let mut residual = self.downhill.clone();
        let mut y = precondition(&residual);
        let mut direction = y.clone();
        let (mut z, mut image) = (vec![S::zero(); self.target.blocks.len()], vec![S::zero(); self.unit.len()]);
        let mut energy = dot_accum(&residual, &y);
        let enough = S::from_f64_exact(effort.forcing * effort.forcing) * energy;
        for _ in 0..effort.steps {
            if energy <= enough || energy.is_nan() {
                return solution;
            }
            self.apply(&direction, &mut z, &mut image);
            let curvature = dot_accum(&direction, &image);
            if curvature <= S::zero() || curvature.is_nan() {
                return solution;
            }
            let length = energy / curvature;
            for i in 0..solution.len() {
                solution[i] += length * direction[i];
                residual[i] -= length * image[i];
            }
            y = precondition(&residual);
            let next = dot_accum(&residual, &y);
            let keep = next / energy;
            energy = next;
            for (d, y) in direction.iter_mut().zip(&y) {
                *d = *y + keep * *d;
            }
        }
        solution
    }

    /// The step in the working set's order.
    fn spread(&self, set: &WorkingSet, solution: &[S]) -> Step {
        let c = self.target.blocks.outputs;
        let mut direction = vec![0.0; set.w.len()];
        for (member, group) in set.support().zip(&self.groups) {
            let solution = &solution[group.rows.start * c..group.rows.end * c];
            for (d, s) in direction[member.rows.start * c..member.rows.end * c].iter_mut().zip(solution) {
                *d = Real::to_f64(*s);
            }
        }
        let slope = -Real::to_f64(dot_accum(&self.downhill, solution));
        if slope.is_finite() {
            Step { direction, slope }
        } else {
            Step { direction: vec![0.0; set.w.len()], slope: 0.0 }
        }
    }
}
