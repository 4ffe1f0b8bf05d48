//! The groups that are worked on: their columns, copied, centred and scaled, and their coefficients.
//!
//! A group's columns are divided by one number, [`Problem::size`](tilewright_grouplasso::Problem::size), so that in the
//! solver's units columns, targets and coefficients are all near 1, whatever they were before: single precision then has room
//! for the second-order steps. The penalty's terms are changed to match.

use super::features::{Features, deviation};
use super::gemm::{Blocks, symmetric, symmetric_transposed};
use super::simd::multiply;
use super::target::Target;
use rayon::prelude::*;
use std::ops::Range;
use tilewright_grouplasso::{GroupLassoSpec, Layout, Terms};
use tilewright_scalar::Element;

/// Stands for the intercept, a group with a column of ones.
pub(super) const INTERCEPT: usize = usize::MAX;

/// A group of the working set.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Which, or [`INTERCEPT`].
    pub(super) group: usize,
    /// Its rows of `x` and `w`.
    pub(super) rows: Range<usize>,
    /// What its columns were divided by.
    pub(super) size: f64,
    /// What it pays, in the solver's units.
    pub(super) terms: Terms,
    /// An upper bound of the greatest eigenvalue of `X_g ω̂ X_gᵀ`.
    pub(super) bound: f64,
}

/// The groups, `m` rows in all.
#[derive(Clone, Debug)]
pub(super) struct WorkingSet {
    pub(super) members: Vec<Member>,
    /// `m × n`: a row a column of `X`.
    pub(super) x: Vec<f64>,
    /// `m × C`.
    pub(super) w: Vec<f64>,
    pub(super) blocks: Blocks,
}

impl WorkingSet {
    /// With nothing but, perhaps, the intercept.
    pub(super) fn new(target: &Target, intercept: Option<&[f64]>) -> Self {
        let blocks = target.blocks;
        let mut set = Self { members: Vec::new(), x: Vec::new(), w: Vec::new(), blocks };
        if let Some(b) = intercept {
            let terms = Terms { l1: 0.0, l2: 0.0, ridge: 0.0 };
            set.members.push(Member { group: INTERCEPT, rows: 0..1, size: 1.0, terms, bound: 1.0 });
            set.x.resize(blocks.samples, 1.0);
            set.w.extend_from_slice(b);
        }
        set
    }

    /// `m`.
    pub(super) fn rows(&self) -> usize {
        self.members.last().map_or(0, |member| member.rows.end)
    }

    /// A member's coefficients.
    pub(super) fn block(&self, member: &Member) -> &[f64] {
        let c = self.blocks.outputs;
        &self.w[member.rows.start * c..member.rows.end * c]
    }

    /// Whether a member's coefficients are not all zero.
    pub(super) fn is_active(&self, member: &Member) -> bool {
        self.block(member).iter().any(|w| *w != 0.0)
    }

    /// The members in which the objective is smooth: those that are not zero, or have no kink there.
    pub(super) fn support(&self) -> impl Iterator<Item = &Member> {
        let smooth = |member: &Member| member.terms.l1 == 0.0 && member.terms.l2 == 0.0;
        self.members.iter().filter(move |member| smooth(member) || self.is_active(member))
    }

    /// The sum of all groups' penalties.
    pub(super) fn penalty(&self) -> f64 {
        self.members.iter().map(|member| member.terms.value(self.block(member))).sum()
    }

    /// `z := XW`, in blocks.
    pub(super) fn margins(&self, z: &mut [f64]) {
        self.blocks.forward(self.rows(), &self.x, &self.w, z);
    }

    /// `X ρᵀ`.
    pub(super) fn correlations(&self, rho: &[f64]) -> Vec<f64> {
        let mut u = vec![0.0; self.w.len()];
        self.blocks.adjoint(&self.x, rho, &mut u);
        u
    }

    /// Puts what every group pays into the solver's units.
    pub(super) fn set_terms(&mut self, spec: &GroupLassoSpec, layout: &Layout, unit: f64) {
        for member in self.members.iter_mut().filter(|member| member.group != INTERCEPT) {
            member.terms = scaled_terms(layout.terms(spec, member.group), member.size, unit);
        }
    }

    /// Keeps the members of which `keep` is true, and the intercept.
    pub(super) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let (n, c) = (self.blocks.samples, self.blocks.outputs);
        let (mut end, mut kept) = (0, Vec::with_capacity(self.members.len()));
        for member in self.members.drain(..) {
            if member.group != INTERCEPT && !keep(member.group) {
                continue;
            }
            let rows = end..end + member.rows.len();
            if rows.start != member.rows.start {
                self.x.copy_within(member.rows.start * n..member.rows.end * n, rows.start * n);
                self.w.copy_within(member.rows.start * c..member.rows.end * c, rows.start * c);
            }
            end = rows.end;
            kept.push(Member { rows, ..member });
        }
        self.members = kept;
        self.x.truncate(end * n);
        self.w.truncate(end * c);
    }

    /// Adds groups, with zero coefficients. Those whose columns are zero, but for rounding, are left out and returned.
    pub(super) fn add<T: Element>(
        &mut self,
        groups: &[usize],
        features: &Features<'_, T>,
        layout: &Layout,
        spec: &GroupLassoSpec,
        target: &Target,
    ) -> Vec<usize> {
        let n = self.blocks.samples;
        let mut at = self.rows();
        let added: Vec<Range<usize>> = groups
            .iter()
            .map(|&group| {
                let rows = at..at + layout.size(group);
                at = rows.end;
                rows
            })
            .collect();
        let first = self.rows();
        self.x.resize(at * n, 0.0);
        self.w.resize(at * self.blocks.outputs, 0.0);
        let mut pieces = Vec::with_capacity(groups.len());
        let mut rest = &mut self.x[first * n..];
        for (&group, rows) in groups.iter().zip(&added) {
            let (piece, others) = rest.split_at_mut(rows.len() * n);
            pieces.push((group, piece));
            rest = others;
        }
        let read = |(group, piece): (usize, &mut [f64])| read_group(group, piece, features, layout, &target.omega);
        let sizes: Vec<(f64, f64)> = pieces.into_par_iter().with_min_len(8).map(read).collect();
        for ((&group, rows), (size, bound)) in groups.iter().zip(added).zip(sizes) {
            let terms = scaled_terms(layout.terms(spec, group), size, target.unit);
            self.members.push(Member { group, rows, size, terms, bound });
        }
        let empty: Vec<usize> = self.members.iter().filter(|member| member.size == 0.0).map(|m| m.group).collect();
        if !empty.is_empty() {
            self.retain(|group| !empty.contains(&group));
        }
        empty
    }
}

/// With `W = unit/size · Ŵ` and `P = unit² P̂`.
fn scaled_terms(terms: Terms, size: f64, unit: f64) -> Terms {
    let per_size = 1.0 / size;
    Terms { l1: terms.l1 * per_size / unit, l2: terms.l2 * per_size / unit, ridge: terms.ridge * per_size * per_size }
}

/// Reads a group's columns and divides them by its size; returns that and the eigenvalue's bound.
fn read_group<T: Element>(
    group: usize,
    x: &mut [f64],
    features: &Features<'_, T>,
    layout: &Layout,
    omega: &[f64],
) -> (f64, f64) {
    let n = omega.len();
    let rows = layout.rows_of(group).map(|row| layout.feature(row));
    features.read(rows.clone(), x);
    let mut sizes = Vec::with_capacity(rows.len());
    for (feature, x) in rows.zip(x.chunks_exact_mut(n)) {
        let scale = features.columns.scale[feature];
        let size = deviation(x, omega) / scale;
        let rounding = features.offset(feature).abs().max(features.columns.mean[feature].abs() / scale);
        if size <= n as f64 * f64::EPSILON * rounding {
            x.fill(0.0); // a constant column: what is left of it is rounding
            continue;
        }
        sizes.push(size);
        for x in x {
            *x /= scale;
        }
    }
    let size = tilewright_grouplasso::penalty::norm(&sizes);
    if size == 0.0 {
        return (0.0, 0.0);
    }
    for x in x.iter_mut() {
        *x /= size;
    }
    let bound = if x.len() == n { 1.0 } else { eigenvalue_bound(x, omega) };
    (size, bound)
}

/// A bound of the greatest eigenvalue of `X ω̂ Xᵀ`, whose trace is 1: the Frobenius norm of it, or of `√ω̂ Xᵀ X √ω̂`, whichever is
/// smaller and has the same eigenvalues.
fn eigenvalue_bound(x: &[f64], omega: &[f64]) -> f64 {
    let n = omega.len();
    let roots: Vec<f64> = omega.iter().map(|omega| omega.sqrt()).collect();
    let mut weighted = vec![0.0; x.len()];
    x.chunks_exact(n).zip(weighted.chunks_exact_mut(n)).for_each(|(x, to)| multiply(&roots, x, to));
    let rows = x.len() / n;
    let size = rows.min(n);
    let gram =
        if rows <= n { symmetric(rows, n, &weighted, &weighted) } else { symmetric_transposed(n, rows, &weighted) };
    let squares = |(i, row): (usize, &[f64])| {
        let below: f64 = row[..i].iter().map(|a| a * a).sum();
        2.0 * below + row[i] * row[i]
    };
    gram.chunks_exact(size).enumerate().map(squares).sum::<f64>().sqrt().min(1.0)
}
