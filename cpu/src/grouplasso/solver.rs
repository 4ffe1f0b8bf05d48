//! The outer loop: certify, choose a working set, work on it, and again.

use super::features::Features;
use super::rounds::{Point, SHARPEST};
use super::target::Target;
use super::working_set::INTERCEPT;
use std::ops::ControlFlow;
use tilewright_grouplasso::losses::Null;
use tilewright_grouplasso::problem::check_start;
use tilewright_grouplasso::{
    Data, GroupLassoError, GroupLassoSpec, Layout, Loss, Progress, Response, Solution, Start, Stopping,
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
    pub(super) spec: GroupLassoSpec,
    pub(super) layout: Layout,
    pub(super) response: Response,
    pub(super) null: Null,
    pub(super) features: Features<'a, T>,
    pub(super) target: Target,
    pub(super) point: Point,
    /// What [`Found::need`](super::pass::Found::need) was at the last certificate.
    pub(super) need: Vec<f64>,
    /// Groups whose columns are zero.
    pub(super) empty: Vec<bool>,
    pub(super) iterations: usize,
    /// How hard a round must try; what has been found to be too little for this λ is not tried again.
    pub(super) effort: usize,
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
            effort: 0,
        };
        if let Some(start) = start {
            check_start((solver.layout.rows(), solver.response.outputs()), start)?;
            solver.start(start);
        }
        Ok(solver)
    }

    /// The least λ at which all groups that are penalised are zero, by the last certificate's residual.
    pub(super) fn greatest_need(&self) -> f64 {
        let penalised = |group: &usize| !self.layout.terms(&self.spec, *group).is_free();
        (0..self.layout.groups()).filter(penalised).map(|group| self.need[group]).fold(0.0, f64::max)
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
        (self.iterations, self.effort) = (0, 0);
        let mut best: Option<Solution> = None;
        let (mut gap, mut since_best) = (0.0, 0);
        loop {
            if previous.is_none() || stopping.iterations == 0 {
                let now = self.certified();
                gap = now.certificate.relative_gap();
                let active = now.certificate.active;
                let gained = best.as_ref().is_none_or(|best| gap < best.certificate.relative_gap());
                since_best = if gained { 0 } else { since_best + 1 };
                let answer = if gained { best.insert(now) } else { best.get_or_insert(now) };
                let progress = Progress { point: 0, iterations: self.iterations, relative_gap: gap, active };
                if let Some(stopped) = stopping.verdict(&progress, since_best >= PATIENCE, watch) {
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
            let fell = self.point.round(&self.target, self.effort);
            let gap = self.local_gap();
            if gap <= goal || (self.effort == SHARPEST && !fell) {
                return;
            }
            // Where the support has settled Newton's method gains digits by the round, unless it lacks precision.
            let now = self.support();
            if !fell || (now == support && gap > 0.5 * last) {
                self.effort = SHARPEST.min(self.effort + 1);
            }
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
        for group in empty {
            self.empty[group] = true;
        }
    }
}

/// The outputs' intercepts as the solver keeps them: a group of their own for the multinomial loss; least squares has none,
/// since everything is centred.
fn intercept(spec: &GroupLassoSpec, target: &Target, b: &[f64]) -> Option<Vec<f64>> {
    let kept = spec.intercept && spec.loss == Loss::Multinomial;
    kept.then(|| target.outputs.iter().map(|&output| b[output]).collect())
}
