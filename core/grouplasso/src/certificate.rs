//! The certificate: how far an answer can be from the minimum, proven by weak duality, for any `(W, b)` from anywhere.
//!
//! For every `u` of `n × C`,
//!
//! ```text
//! min P  ≥  D(u) = −F*(−u) − Σ_g h_g*(X_gᵀ u) − sup_b ⟨b, 1ᵀu⟩
//! ```
//!
//! and `u = s ω̂ R`, the residual at `(W, b)` times a number `s`, is the best `u` at the minimum (with `s = 1`). Away from it `s` is
//! chosen so that every `X_gᵀu` lies where `h_g*` is finite. The *gap* is `P(W, b) − D(u)`.
//!
//! With a ridge `c` that is everywhere, but `h_g* = excess²/2c` turns an error of `ε` in `X_gᵀu` into one of `ε²/2c`, which a
//! slight ridge makes as large as you please, rounding alone sufficing. So `s` is also tried where `h_g*` is zero: the better of
//! two bounds is one, and the second has no `c` in it.
//!
//! What is not penalised — the intercept, and free groups — would ask for `1ᵀu = 0` and `X_gᵀu = 0`, which no rounded
//! number obeys. It is therefore certified against all competitors within a radius: twice its own norm, and not less than twice
//! the size that explains all of the null model's loss (for the multinomial loss: that moves a logit by 1). An answer inside
//! that radius that minimises `P` within it minimises `P`, which is convex.

use crate::losses::Null;
use crate::penalty::norm;
use crate::{GroupLassoError, GroupLassoSpec, Layout, Loss, Problem, Response, SparseRows};
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};
use tilewright_scalar::Element;

/// What is proven of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certificate {
    /// `P(W, b)`.
    pub objective: f64,
    /// A lower bound of the minimum.
    pub dual: f64,
    /// `P` of the model without features: the unit of [`relative_gap`](Self::relative_gap).
    pub null: f64,
    /// The greatest distance of a group's negative gradient, or of the intercept's from 0, from where the optimality
    /// conditions want it; in units of the gradient, so a multiple of λ is the natural tolerance.
    pub kkt: f64,
    /// Groups that are not zero.
    pub active: usize,
    /// `s`, which made the residual a dual point.
    pub dual_scale: f64,
}

impl Certificate {
    /// The objective is at most this far above the minimum.
    pub fn gap(&self) -> f64 {
        self.objective - self.dual
    }

    /// The gap as a share of the null model's objective; the gap itself if that is 0.
    pub fn relative_gap(&self) -> f64 {
        if self.null > 0.0 { self.gap() / self.null } else { self.gap() }
    }
}

/// Certifies an answer, in `f64`: `O(n d C)`.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::{Data, GroupLassoSpec, Loss, Problem, SparseRows, Targets, certificate};
/// // One feature, one output, no intercept: ½ (1 − w)² + ¼ |w| is least at w = ¾.
/// let spec = GroupLassoSpec { intercept: false, ..GroupLassoSpec::rows(Loss::LeastSquares, 0.25) };
/// let (x, y) = (array![[1.0]], array![[1.0]]);
/// let problem = Problem::new(&spec, &Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None })?;
/// let best = certificate::certify(&problem, &SparseRows::from_dense(array![[0.75]].view()), &[0.0])?;
/// assert_eq!((best.gap(), best.kkt), (0.0, 0.0));
/// let other = certificate::certify(&problem, &SparseRows::from_dense(array![[1.0]].view()), &[0.0])?;
/// assert!(other.gap() >= other.objective - best.objective);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// [`GroupLassoError::Shape`] or [`GroupLassoError::Value`] if `w` and `b` are not of the problem's shape, or not finite
/// (an intercept may be −∞).
pub fn certify<T: Element>(
    problem: &Problem<'_, T>,
    w: &SparseRows,
    b: &[f64],
) -> Result<Certificate, GroupLassoError> {
    problem.check_start(&crate::Start { w: w.clone(), b: b.to_vec() })?;
    let z = problem.times(w);
    let residual = problem.response().residual(z.view(), b);
    let dense = w.to_dense();
    let mut fold = Fold::new(problem.spec(), problem.layout(), problem.response(), problem.null());
    for group in 0..problem.layout().groups() {
        let v = problem.layout().gather(dense.view(), group);
        let u = problem.correlation(group, residual.view());
        let size = if fold.is_free(group) { problem.size(group) } else { 0.0 };
        fold.group(group, &v, &u, size);
    }
    Ok(fold.finish(z.view(), b, residual.view()))
}

/// A certificate in the making: told of each group once, in any number of parts, by whoever has `X_gᵀ ω̂ R` at hand.
#[derive(Clone, Debug)]
pub struct Fold<'a> {
    spec: &'a GroupLassoSpec,
    layout: &'a Layout,
    response: &'a Response,
    null: &'a Null,
    /// `Σ h_g(W_g)`.
    penalty: f64,
    /// The greatest dual norm of the groups without a ridge: `u` may be scaled by its reciprocal.
    dual_norm: f64,
    /// That of the groups with one.
    ridge_norm: f64,
    /// `Σ h_g*` of the groups with a ridge, at `s = 1`.
    conjugates: f64,
    /// What free groups could still gain, at `s = 1`.
    free: f64,
    kkt: f64,
    active: usize,
}

impl<'a> Fold<'a> {
    /// Of no group yet.
    pub fn new(spec: &'a GroupLassoSpec, layout: &'a Layout, response: &'a Response, null: &'a Null) -> Self {
        let (penalty, dual_norm, ridge_norm, conjugates, free, kkt) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        Self { spec, layout, response, null, penalty, dual_norm, ridge_norm, conjugates, free, kkt, active: 0 }
    }

    /// Whether a group pays nothing, so that [`group`](Self::group) asks for its size.
    pub fn is_free(&self, group: usize) -> bool {
        self.layout.terms(self.spec, group).is_free()
    }

    /// Takes in a group: its block `v` of `W`, `u = X_gᵀ ω̂ R`, and, if it is free, its [`size`](Problem::size).
    pub fn group(&mut self, group: usize, v: &[f64], u: &[f64], size: f64) {
        let terms = self.layout.terms(self.spec, group);
        self.active += usize::from(v.iter().any(|v| *v != 0.0));
        self.penalty += terms.value(v);
        self.kkt = greater(self.kkt, terms.distance(v, u));
        if terms.is_free() {
            let radius = if size > 0.0 { 2.0 * norm(v).max(self.natural() / size) } else { 0.0 };
            self.free += radius * norm(u);
        } else if terms.ridge > 0.0 {
            self.conjugates += terms.conjugate(u);
            self.ridge_norm = greater(self.ridge_norm, terms.dual_norm(u));
        } else {
            self.dual_norm = greater(self.dual_norm, terms.dual_norm(u));
        }
    }

    /// Takes in the groups of another part, which come after those seen so far.
    pub fn merge(&mut self, other: &Self) {
        self.active += other.active;
        self.penalty += other.penalty;
        self.kkt = greater(self.kkt, other.kkt);
        self.free += other.free;
        self.conjugates += other.conjugates;
        self.dual_norm = greater(self.dual_norm, other.dual_norm);
        self.ridge_norm = greater(self.ridge_norm, other.ridge_norm);
    }

    /// The certificate, once every group has been taken in; `z = XW` and the residual at `z + 1bᵀ`.
    pub fn finish(&self, z: ArrayView2<'_, f64>, b: &[f64], residual: ArrayView2<'_, f64>) -> Certificate {
        let objective = self.response.value(z, b) + self.penalty;
        let leftover = self.response.column_sums(residual);
        // The part of the dual that is linear in s, besides F*.
        let linear = if self.spec.intercept { self.intercept_cost(b, &leftover) } else { 0.0 } + self.free;
        let mut best = (f64::NAN, f64::NAN);
        for (s, conjugates) in self.scales(residual) {
            let dual = self.response.dual(residual, s) - conjugates - s.abs() * linear - self.shift(s, &leftover);
            if best.0.is_nan() || dual > best.0 {
                best = (dual, s);
            }
        }
        let kkt = if self.spec.intercept { greater(self.kkt, norm(&leftover)) } else { self.kkt };
        let (dual, dual_scale) = best;
        Certificate { objective, dual, null: self.null.objective, kkt, active: self.active, dual_scale }
    }

    /// Factors worth trying, each with a bound of `Σ h_g*` there: the largest feasible one up to 1, which with a ridge is 1, and
    /// best at the minimum; the largest up to 1 at which no `h_g*` is more than zero; and for least squares the one that maximises
    /// `s ⟨R, Y − b₀⟩ − ½ s² ‖R‖²` as far as that goes.
    fn scales(&self, residual: ArrayView2<'_, f64>) -> Vec<(f64, f64)> {
        let within = |norm: f64| if norm > 1.0 { 1.0 / norm } else { 1.0 };
        let mut scales = alloc::vec![(within(self.dual_norm), self.conjugates)];
        let norm = greater(self.dual_norm, self.ridge_norm);
        if self.conjugates > 0.0 {
            scales.push((within(norm), 0.0));
        }
        if self.spec.loss == Loss::LeastSquares && norm > 0.0 {
            let limit = 1.0 / norm;
            let (mut ry, mut rr) = (0.0, 0.0);
            for ((i, k), r) in residual.indexed_iter() {
                let omega = self.response.omega()[i];
                ry += omega * r * (self.response.y()[[i, k]] - self.null.intercept[k]);
                rr += omega * r * r;
            }
            if rr > 0.0 {
                scales.push(((ry / rr).clamp(-limit, limit), 0.0));
            }
        }
        scales
    }

    /// `⟨b₀, 1ᵀu⟩`: intercepts are compared as differences from the null model's.
    fn shift(&self, s: f64, leftover: &[f64]) -> f64 {
        let finite = |(b, sum): (&f64, &f64)| if b.is_finite() { b * s * sum } else { 0.0 };
        self.null.intercept.iter().zip(leftover).map(finite).sum()
    }

    /// What another intercept within the radius could gain, at `s = 1`: `‖b − b₀‖` at most times `‖1ᵀu‖`.
    fn intercept_cost(&self, b: &[f64], leftover: &[f64]) -> f64 {
        let from_null = |(b, null): (&f64, &f64)| match (b.is_finite(), null.is_finite()) {
            (true, true) => b - null,
            (true, false) => *b, // an absent class, whose intercept should be −∞
            (false, _) => 0.0,   // −∞: its column of the residual is exactly 0, or the objective is infinite
        };
        let apart: Vec<f64> = b.iter().zip(&self.null.intercept).map(from_null).collect();
        2.0 * norm(&apart).max(self.natural()) * norm(leftover)
    }

    /// The size of a change that matters in what the model says: what explains all of `P(0)`, or a logit of 1.
    fn natural(&self) -> f64 {
        match self.spec.loss {
            Loss::LeastSquares => libm::sqrt(2.0 * self.null.objective),
            Loss::Multinomial => 1.0,
        }
    }
}

/// The greater of two, and NaN if either is.
fn greater(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// `X_gᵀ ω̂ R` of every group as rows of one matrix of [`Layout::rows`] rows.
pub fn correlations<T: Element>(problem: &Problem<'_, T>, residual: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut all = Array2::zeros(problem.shape());
    for group in 0..problem.layout().groups() {
        let block = problem.correlation(group, residual);
        for (row, values) in problem.layout().rows_of(group).zip(block.chunks(residual.ncols().max(1))) {
            all.row_mut(row).iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        }
    }
    all
}
