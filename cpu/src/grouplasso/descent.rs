//! Block coordinate descent on a quadratic model of the loss, which puts the zeros where they belong.
//!
//! The model bounds each sample's Hessian by a number, `h`: exact for least squares, Böhning's idea with the present
//! probabilities for softmax. One sweep goes through all groups of the working set once (Friedman, Hastie and Tibshirani 2010).

use super::simd::{add_scaled, dot, multiply, weighted_square};
use super::working_set::{Member, WorkingSet};
use tilewright_grouplasso::prox;

/// One model, and its residual while groups change.
pub(super) struct Descent<'a> {
    set: &'a mut WorkingSet,
    /// The curvature of every sample, weights included.
    h: &'a [f64],
    /// The greatest `h / ω̂`.
    relative: f64,
    /// The model's negative gradient with respect to the margins, in blocks.
    rho: Vec<f64>,
    /// `h x` of one column.
    weighted: Vec<f64>,
}

impl<'a> Descent<'a> {
    pub(super) fn new(set: &'a mut WorkingSet, h: &'a [f64], omega: &[f64], rho: Vec<f64>) -> Self {
        let ratios = h.iter().zip(omega).filter(|(_, omega)| **omega > 0.0).map(|(h, omega)| h / omega);
        let relative = ratios.fold(0.0, f64::max);
        Self { set, h, relative, rho, weighted: vec![0.0; h.len()] }
    }

    /// Minimises the model in each group in turn.
    pub(super) fn sweep(&mut self) {
        for at in 0..self.set.members.len() {
            let member = self.set.members[at].clone();
            if member.rows.len() == 1 {
                self.row(&member);
            } else {
                self.group(&member);
            }
        }
    }

    /// A group of one row: its model is a sphere, so this is its exact minimum.
    fn row(&mut self, member: &Member) {
        let (n, c) = (self.set.blocks.samples, self.set.blocks.outputs);
        let row = member.rows.start;
        let x = &self.set.x[row * n..(row + 1) * n];
        let curvature = weighted_square(self.h, x);
        if curvature <= 0.0 {
            return;
        }
        let mut next = self.set.w[row * c..(row + 1) * c].to_vec();
        for (k, next) in next.iter_mut().enumerate() {
            *next += correlation(self.set, &self.rho, x, k) / curvature;
        }
        prox::group(member.terms, 1.0 / curvature, &mut next);
        let w = &mut self.set.w[row * c..(row + 1) * c];
        if *w == next[..] {
            return;
        }
        multiply(self.h, x, &mut self.weighted);
        for k in 0..c {
            let step = w[k] - next[k];
            for (block, rho) in self.rho.chunks_mut(self.set.blocks.chunk()).enumerate() {
                let (first, samples) = self.set.blocks.span(block);
                add_scaled(step, &self.weighted[first..first + samples], &mut rho[k * samples..(k + 1) * samples]);
            }
        }
        w.copy_from_slice(&next);
    }

    /// A larger group: one proximal gradient step.
    fn group(&mut self, member: &Member) {
        let (n, c, blocks) = (self.set.blocks.samples, self.set.blocks.outputs, self.set.blocks);
        let x = &self.set.x[member.rows.start * n..member.rows.end * n];
        let trace: f64 = x.chunks_exact(n).map(|x| weighted_square(self.h, x)).sum();
        let curvature = trace.min(member.bound * self.relative);
        if curvature <= 0.0 {
            return;
        }
        let mut next = vec![0.0; member.rows.len() * c];
        blocks.adjoint(x, &self.rho, &mut next);
        let w = &mut self.set.w[member.rows.start * c..member.rows.end * c];
        next.iter_mut().zip(&*w).for_each(|(next, w)| *next = w + *next / curvature);
        prox::group(member.terms, 1.0 / curvature, &mut next);
        if *w == next[..] {
            return;
        }
        let step: Vec<f64> = w.iter().zip(&next).map(|(w, next)| w - next).collect();
        let mut moved = vec![0.0; self.rho.len()];
        blocks.forward(member.rows.len(), x, &step, &mut moved);
        for (block, (rho, moved)) in self.rho.chunks_mut(blocks.chunk()).zip(moved.chunks(blocks.chunk())).enumerate() {
            let (first, samples) = blocks.span(block);
            let h = &self.h[first..first + samples];
            for (rho, moved) in rho.chunks_mut(samples).zip(moved.chunks(samples)) {
                rho.iter_mut().zip(moved).zip(h).for_each(|((rho, moved), h)| *rho += h * moved);
            }
        }
        w.copy_from_slice(&next);
    }
}

/// `⟨x, ρ_k⟩`.
fn correlation(set: &WorkingSet, rho: &[f64], x: &[f64], k: usize) -> f64 {
    let parts = rho.chunks(set.blocks.chunk()).enumerate().map(|(block, rho)| {
        let (first, samples) = set.blocks.span(block);
        dot(&x[first..first + samples], &rho[k * samples..(k + 1) * samples])
    });
    parts.sum()
}
