//! The outer loop: certify, choose a working set, work on it, and again.

use super::features::Features;
use super::pass::{Found, Pass};
use super::rounds::Point;
use super::target::Target;
use super::working_set::INTERCEPT;
use ndarray::Array2;
use std::ops::ControlFlow;
use tilewright_grouplasso::certificate::Fold;
use tilewright_grouplasso::losses::Null;
use tilewright_grouplasso::problem::check_start;
use tilewright_grouplasso::{
    Data, GroupLassoError, GroupLassoSpec, Layout, Loss, Progress, Response, Solution, SparseRows, Start, Stopped,
    Stopping,
};
use tilewright_scalar::Element;

/// Rows of a working set at least, if there are as many that matter; and how many times the support it may have.
const LEAST: usize = 200;
const GROWTH: usize = 2;

/// Rows that are new in a working set at most, whatever its size.
const NEW: usize = 50;

/// Groups that need a λ of no more than this share of the present one are not worth having in the working set.
const NEAR: f64 = 0.9;

/// The gap on a working set that ends the work there: this share of the gap on all groups, but no less than that share of
/// the gap asked for.
const SHARE: (f64, f64) = (0.5, 0.3);

/// Rounds on a working set at most, so that certificates keep coming.
const ROUNDS: usize = 15;

/// Certificates without a better gap after which no more is to be hoped for.
const PATIENCE: usize = 8;

/// A problem being solved, for one λ after another.
pub(super) struct Solver<'a, T> {
    spec: GroupLassoSpec,
    layout: Layout,
    response: Response,
    null: Null,
    features: Features<'a, T>,
    target: Target,
    point: Point,
    /// What [`Found::need`] was at the last certificate.
    need: Vec<f64>,
    /// Groups whose columns are zero.
    empty: Vec<bool>,
    iterations: usize,
    /// Whether single precision has been found to be too little for this λ.
    sharp: bool,
}

/// A point in the specification's units.
struct Standard {
    w: SparseRows,
    b: Vec<f64>,
    /// `XW`, without the intercept.
    z: Array2<f64>,
    residual: Array2<f64>,
}

impl<'a, T: Element> Solver<'a, T> {
    /// Checks everything; the start is that given, or zero.
    pub(super) fn new(
        spec: &GroupLassoSpec,
        data: &Data<'a, T>,
        start: Option<&Start>,
    ) -> Result<Self, GroupLassoError> {
        let (samples, features) = data.x.dim();
        spec.validate(features)?;
        let layout = Layout::new(&spec.groups, features)?;
        let response = Response::new(spec.loss, samples, data.targets, data.sample_weights)?;
        let features = Features::new(data.x, spec.standardise, spec.intercept, response.omega())?;
        let null = response.null(spec.intercept);
        let target = Target::new(&response, &null, spec.intercept);
        let point = Point::new(&target, intercept(spec, &target, &null.intercept).as_deref());
        let groups = layout.groups();
        let mut solver = Self {
            spec: spec.clone(),
            layout,
            response,
            null,
            features,
            target,
            point,
            need: vec![0.0; groups],
            empty: vec![false; groups],
            iterations: 0,
            sharp: false,
        };
        if let Some(start) = start {
            check_start((solver.layout.rows(), solver.response.outputs()), start)?;
            solver.start(start);
        }
        Ok(solver)
    }

    /// The least λ at which all groups that are penalised are zero, by the last certificate's residual.
    pub(super) fn greatest_need(&self) -> f64 {
        self.need.iter().copied().filter(|need| need.is_finite()).fold(0.0, f64::max)
    }

    /// Whether a group is never penalised.
    pub(super) fn has_free_groups(&self) -> bool {
        (0..self.layout.groups()).any(|group| self.layout.terms(&self.spec, group).is_free())
    }

    /// Puts a start into the solver's units.
    fn start(&mut self, start: &Start) {
        let mut values = vec![usize::MAX; start.w.rows()];
        start.w.indices().iter().enumerate().for_each(|(place, &row)| values[row] = place);
        let groups: Vec<usize> = (0..self.layout.groups())
            .filter(|&group| self.layout.rows_of(group).any(|row| values[row] != usize::MAX))
            .collect();
        self.add(&groups);
        let mut b = start.b.clone();
        let c = self.target.blocks.outputs;
        for member in self.point.set.members.iter().filter(|member| member.group != INTERCEPT) {
            for (at, row) in member.rows.clone().zip(self.layout.rows_of(member.group)) {
                if values[row] == usize::MAX {
                    continue;
                }
                let (w, offset) = (start.w.values(), self.features.offset(self.layout.feature(row)));
                for (k, &output) in self.target.outputs.iter().enumerate() {
                    let value = w[[values[row], output]];
                    self.point.set.w[at * c + k] = value * member.size / self.target.unit;
                    b[output] += offset * value;
                }
            }
        }
        if let Some(b) = intercept(&self.spec, &self.target, &b)
            && b.iter().all(|b| b.is_finite())
        {
            self.point.set.w[..c].copy_from_slice(&b);
        }
        self.point.refresh(&self.target);
        if !self.point.objective().is_finite() {
            let null = intercept(&self.spec, &self.target, &self.null.intercept);
            self.point = Point::new(&self.target, null.as_deref());
        }
    }

    /// Solves for `lambda`. If `previous` is given, the last answer was for that λ, and its certificate's correlations are
    /// still those of the point.
    pub(super) fn solve(
        &mut self,
        lambda: f64,
        mut previous: Option<f64>,
        stopping: &Stopping,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Solution {
        self.spec.lambda = lambda;
        self.point.set.set_terms(&self.spec, &self.layout, self.target.unit);
        (self.iterations, self.sharp) = (0, false);
        let mut best: Option<Solution> = None;
        let (mut gap, mut since_best) = (0.0, 0);
        loop {
            if previous.is_none() || stopping.iterations == 0 {
                let now = self.certified();
                gap = now.certificate.relative_gap();
                let active = now.certificate.active;
                let gained = best.as_ref().is_none_or(|best| !(best.certificate.relative_gap() <= gap));
                since_best = if gained { 0 } else { since_best + 1 };
                let answer = if gained { best.insert(now) } else { best.get_or_insert(now) };
                let progress =
                    Progress { point: 0, iterations: self.iterations, relative_gap: gap, active };
                let stopped = if gap <= stopping.gap {
                    Some(Stopped::Reached)
                } else if watch(&progress).is_break() {
                    Some(Stopped::Interrupted)
                } else if self.iterations >= stopping.iterations {
                    Some(Stopped::Iterations)
                } else if since_best >= PATIENCE {
                    Some(Stopped::Stalled)
                } else {
                    None
                };
                if let Some(stopped) = stopped {
                    return Solution { stopped, iterations: self.iterations, ..answer.clone() };
                }
            }
            self.choose(previous);
            let goal = if previous.is_some() { 0.0 } else { SHARE.0 * gap };
            self.work(goal.max(SHARE.1 * stopping.gap), stopping.iterations);
            previous = None;
        }
    }

    /// Rounds until the relative gap on the working set is `goal`.
    fn work(&mut self, goal: f64, iterations: usize) {
        let mut last = f64::INFINITY;
        let mut support = self.support();
        for _ in 0..ROUNDS.min(iterations - self.iterations) {
            self.iterations += 1;
            let fell = self.point.round(&self.target, self.sharp);
            let gap = self.local_gap(); if std::env::var("DBG").is_ok() { println!("   round {} sharp {} fell {fell} gap {gap:.2e} obj {:.15} sup {}", self.iterations, self.sharp, self.point.objective(), self.support().len()); }
            if gap <= goal || (self.sharp && !fell) {
                return;
            }
            // Where the support has settled Newton's method gains digits by the round, unless it lacks precision.
            let now = self.support();
            self.sharp |= !fell || (now == support && gap > 0.5 * last);
            (support, last) = (now, gap);
        }
    }

    /// The groups that are not zero, in the working set's order.
    fn support(&self) -> Vec<usize> {
        self.point.set.support().map(|member| member.group).collect()
    }

    /// Makes the working set the support, all free groups, and those others that seem to be needed most.
    fn choose(&mut self, previous: Option<f64>) {
        let lambda = self.spec.lambda;
        // The sequential strong rule, in terms of the λ that a group needs.
        let level = previous.map_or(NEAR * lambda, |previous| (2.0 * lambda - previous).min(NEAR * lambda));
        let mut wanted = vec![false; self.layout.groups()];
        let mut rows = 0;
        for group in self.support().into_iter().filter(|&group| group != INTERCEPT) {
            wanted[group] = true;
            rows += self.layout.size(group);
        }
        let new = |group: &usize| !wanted[*group] && !self.empty[*group] && self.need[*group] > level;
        let mut candidates: Vec<usize> = (0..wanted.len()).filter(new).collect();
        candidates.sort_by(|&a, &b| self.need[b].total_cmp(&self.need[a]).then(a.cmp(&b)));
        let limit = (GROWTH * rows).max(LEAST).max(rows + NEW);
        for group in candidates {
            if rows >= limit && self.need[group].is_finite() {
                break;
            }
            wanted[group] = true;
            rows += self.layout.size(group);
        }
        self.point.set.retain(|group| wanted[group]);
        self.point.set.members.iter().filter(|member| member.group != INTERCEPT).for_each(|m| wanted[m.group] = false);
        let added: Vec<usize> = (0..wanted.len()).filter(|&group| wanted[group]).collect();
        self.add(&added);
    }

    fn add(&mut self, groups: &[usize]) {
        let empty = self.point.set.add(groups, &self.features, &self.layout, &self.spec, &self.target);
        empty.into_iter().for_each(|group| self.empty[group] = true);
    }

    /// The point as an answer, certified; the reason why it is one is the caller's.
    fn certified(&mut self) -> Solution {
        self.point.refresh(&self.target);
        self.point.settle_intercept(&self.target);
        let Standard { w, b, z, residual } = self.standard();
        let pass = Pass { features: &self.features, layout: &self.layout, response: &self.response, null: &self.null };
        let Found { certificate, need } = pass.certify(&self.spec, &w, &b, z.view(), residual.view());
        self.need = need;
        let columns = self.features.columns.clone();
        Solution { w, b, certificate, iterations: self.iterations, stopped: Stopped::Iterations, columns }
    }

    /// The relative gap of the problem that has the groups of the working set only.
    fn local_gap(&self) -> f64 {
        let Standard { b, z, residual, .. } = self.standard();
        let (set, outputs, c) = (&self.point.set, self.response.outputs(), self.target.blocks.outputs);
        let correlations = set.correlations(&self.point.fit.rho);
        let mut fold = Fold::new(&self.spec, &self.layout, &self.response, &self.null);
        for member in set.members.iter().filter(|member| member.group != INTERCEPT) {
            let expand = |values: &[f64], factor: f64| {
                let mut all = vec![0.0; values.len() / c * outputs];
                for (values, all) in values.chunks(c).zip(all.chunks_mut(outputs)) {
                    self.target.outputs.iter().zip(values).for_each(|(&output, value)| all[output] = factor * value);
                }
                all
            };
            let u = &correlations[member.rows.start * c..member.rows.end * c];
            let v = expand(set.block(member), self.target.unit / member.size);
            fold.group(member.group, &v, &expand(u, self.target.unit * member.size), member.size);
        }
        fold.finish(z.view(), &b, residual.view()).relative_gap()
    }

    /// The point in the specification's units.
    fn standard(&self) -> Standard {
        let (w, shift) = self.coefficients();
        let (blocks, outputs) = (self.target.blocks, self.response.outputs());
        let multinomial = self.spec.loss == Loss::Multinomial && self.spec.intercept;
        let own = |k: usize| if multinomial { self.point.set.w[k] } else { 0.0 };
        let mut z = Array2::zeros((blocks.samples, outputs));
        for (k, &output) in self.target.outputs.iter().enumerate() {
            for i in 0..blocks.samples {
                z[[i, output]] = self.target.unit * (self.point.z[blocks.at(i, k)] - own(k)) + shift[output];
            }
        }
        let mut b = vec![0.0; outputs];
        if multinomial {
            b.fill(f64::NEG_INFINITY);
            self.target.outputs.iter().enumerate().for_each(|(k, &output)| b[output] = own(k) - shift[output]);
        } else if self.spec.intercept {
            b = self.response.best_intercept(z.view(), &b);
        }
        let residual = self.response.residual(z.view(), &b);
        Standard { w, b, z, residual }
    }

    /// Coefficients of standardised columns, and what their means add to every sample's margins.
    fn coefficients(&self) -> (SparseRows, Vec<f64>) {
        let (set, c, outputs) = (&self.point.set, self.target.blocks.outputs, self.response.outputs());
        let mut shift = vec![0.0; outputs];
        let mut rows: Vec<(usize, usize, f64)> = Vec::new();
        for member in set.members.iter().filter(|member| member.group != INTERCEPT && set.is_active(member)) {
            let factor = self.target.unit / member.size;
            rows.extend(member.rows.clone().zip(self.layout.rows_of(member.group)).map(|(at, row)| (row, at, factor)));
        }
        rows.retain(|(_, at, _)| set.w[at * c..(at + 1) * c].iter().any(|w| *w != 0.0));
        rows.sort_unstable_by_key(|(row, ..)| *row);
        let mut values = Array2::zeros((rows.len(), outputs));
        for (mut to, &(row, at, factor)) in values.rows_mut().into_iter().zip(&rows) {
            let offset = self.features.offset(self.layout.feature(row));
            for (k, &output) in self.target.outputs.iter().enumerate() {
                to[output] = factor * set.w[at * c + k];
                shift[output] += offset * to[output];
            }
        }
        let indices = rows.into_iter().map(|(row, ..)| row).collect();
        // Sorted rows of a layout ascend, and there are as many values.
        let w = SparseRows::new(self.layout.rows(), indices, values)
            .unwrap_or_else(|_| SparseRows::zeros(self.layout.rows(), outputs));
        (w, shift)
    }
}

/// The outputs' intercepts as the solver keeps them: a group of their own for the multinomial loss; least squares has none,
/// since everything is centred.
fn intercept(spec: &GroupLassoSpec, target: &Target, b: &[f64]) -> Option<Vec<f64>> {
    let kept = spec.intercept && spec.loss == Loss::Multinomial;
    kept.then(|| target.outputs.iter().map(|&output| b[output]).collect())
}
