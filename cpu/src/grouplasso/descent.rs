//! Block coordinate descent on a quadratic model of the loss, which puts the zeros where they belong.
//!
//! The model bounds each sample's Hessian by a number, `h`: exact for least squares, Böhning's idea with the present
//! probabilities for softmax. One sweep goes through all groups of the working set once (Friedman, Hastie and Tibshirani 2010).

use super::gemm::{Blocks, FromExact};
use super::simd::{add_dots, add_scaled, multiply, weighted_square};
use super::target::convert;
use super::working_set::{Member, WorkingSet};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_grouplasso::{Terms, prox};
use tilewright_scalar::{Accum, Real};

/// Groups that are zero take part if their correlations are above this share of what would move them.
const NEAR: f64 = 0.75;

/// A group that takes part.
#[derive(Clone, Debug)]
struct Part {
    /// Its rows in the working set.
    rows: Range<usize>,
    terms: Terms,
    /// The model's curvature, or a bound of it.
    curvature: f64,
    /// Its rows in the descent's own copy of columns.
    own: Range<usize>,
}

/// One model, and its residual while groups change; columns and residual in the precision `S`.
pub(super) struct Descent<S> {
    blocks: Blocks,
    parts: Vec<Part>,
    x: Vec<S>,
    /// The curvature of every sample, weights included.
    h: Vec<S>,
    /// The model's negative gradient with respect to the margins, in blocks.
    rho: Vec<S>,
    /// `h x` of one column.
    weighted: Vec<S>,
}

impl<S: Accum> Descent<S> {
    /// On the groups that are not zero, or might not stay so by their correlations `u = Xρᵀ`, which is cheaper to know for all
    /// at once than to find out one by one; what a sweep itself brings up the next round sees.
    pub(super) fn new(set: &WorkingSet, h: &[f64], omega: &[f64], rho: &[f64]) -> Self {
        let (n, c) = (set.blocks.samples, set.blocks.outputs);
        let ratios = h.iter().zip(omega).filter(|(_, omega)| **omega > 0.0).map(|(h, omega)| h / omega);
        let relative = ratios.fold(0.0, f64::max);
        let u = set.correlations(rho);
        let moves = |member: &&Member| {
            let u = &u[member.rows.start * c..member.rows.end * c];
            set.is_active(member) || member.terms.dual_norm(u) > NEAR
        };
        let moving: Vec<&Member> = set.members.iter().filter(moves).collect();
        let part = |member: &&Member| Part {
            rows: member.rows.clone(),
            terms: member.terms,
            curvature: curvature(set, member, h, relative),
            own: 0..0,
        };
        let parts = moving.par_iter().with_min_len(16).map(part);
        let mut parts: Vec<Part> = parts.filter(|part| part.curvature > 0.0).collect();
        let mut rows = 0;
        for part in &mut parts {
            part.own = rows..rows + part.rows.len();
            rows = part.own.end;
        }
        let mut x = Vec::with_capacity(rows * n);
        for part in &parts {
            x.extend(set.x[part.rows.start * n..part.rows.end * n].iter().map(|x| S::from_f64_exact(*x)));
        }
        let weighted = vec![S::zero(); n];
        Self { blocks: set.blocks, parts, x, h: convert(h), rho: convert(rho), weighted }
    }

    /// Minimises the model in each group in turn; `w` is the working set's.
    pub(super) fn sweep(&mut self, w: &mut [f64]) {
        let (parts, c) = (std::mem::take(&mut self.parts), self.blocks.outputs);
        for part in &parts {
            let w = &mut w[part.rows.start * c..part.rows.end * c];
            if part.rows.len() == 1 {
                self.row(part, w);
            } else {
                self.group(part, w);
            }
        }
        self.parts = parts;
    }

    /// A group of one row: its model is a sphere, so this is its exact minimum.
    fn row(&mut self, part: &Part, w: &mut [f64]) {
        let n = self.blocks.samples;
        let x = &self.x[part.own.start * n..part.own.end * n];
        let mut u = vec![S::zero(); w.len()];
        for (block, rho) in self.rho.chunks(self.blocks.chunk()).enumerate() {
            let (first, samples) = self.blocks.span(block);
            add_dots(&x[first..first + samples], rho, &mut u);
        }
        let Some(step) = step(part, w, &u) else { return };
        multiply(&self.h, x, &mut self.weighted);
        for (k, step) in step.iter().enumerate() {
            for (block, rho) in self.rho.chunks_mut(self.blocks.chunk()).enumerate() {
                let (first, samples) = self.blocks.span(block);
                add_scaled(*step, &self.weighted[first..first + samples], &mut rho[k * samples..(k + 1) * samples]);
            }
        }
    }

    /// A larger group: one proximal gradient step.
    fn group(&mut self, part: &Part, w: &mut [f64]) {
        let (n, blocks) = (self.blocks.samples, self.blocks);
        let x = &self.x[part.own.start * n..part.own.end * n];
        let mut u = vec![S::zero(); w.len()];
        blocks.adjoint(x, &self.rho, &mut u);
        let Some(step) = step(part, w, &u) else { return };
        let mut moved = vec![S::zero(); self.rho.len()];
        blocks.forward(part.rows.len(), x, &step, &mut moved);
        for (block, (rho, moved)) in self.rho.chunks_mut(blocks.chunk()).zip(moved.chunks(blocks.chunk())).enumerate() {
            let (first, samples) = blocks.span(block);
            let h = &self.h[first..first + samples];
            for (rho, moved) in rho.chunks_mut(samples).zip(moved.chunks(samples)) {
                rho.iter_mut().zip(moved).zip(h).for_each(|((rho, moved), h)| *rho += *h * *moved);
            }
        }
    }
}

/// Moves a group to where the model with the gradient `−u` and a sphere's curvature is least; returns how far back it was.
fn step<S: Accum>(part: &Part, w: &mut [f64], u: &[S]) -> Option<Vec<S>> {
    let mut next: Vec<f64> = w.iter().zip(u).map(|(w, u)| w + Real::to_f64(*u) / part.curvature).collect();
    prox::group(part.terms, 1.0 / part.curvature, &mut next);
    if *w == next[..] {
        return None;
    }
    let step = w.iter().zip(&next).map(|(w, next)| S::from_f64_exact(w - next)).collect();
    w.copy_from_slice(&next);
    Some(step)
}

/// A bound of the model's curvature in a group; of one row, the curvature itself. `relative` is the greatest `h / ω̂`.
fn curvature(set: &WorkingSet, member: &Member, h: &[f64], relative: f64) -> f64 {
    let n = set.blocks.samples;
    let x = &set.x[member.rows.start * n..member.rows.end * n];
    let trace: f64 = x.chunks_exact(n).map(|x| weighted_square(h, x)).sum();
    trace.min(member.bound * relative)
}
