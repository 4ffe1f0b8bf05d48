//! From a start to an answer: iterations, certificates, screening, and the reasons to stop.

use crate::grouplasso::accelerated::Momentum;
use crate::grouplasso::arithmetic::to_single_precision;
use crate::grouplasso::certify::{Judged, Point};
use crate::grouplasso::design::{Design, Table};
use crate::grouplasso::kernel::Pass;
use crate::grouplasso::{Fault, Method};
use ndarray::Array2;
use std::ops::ControlFlow;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSpec, Progress, Solution, SparseRows, Start, Stopped, Stopping,
};

/// Certificates in a row, and iterations, that may fail to better the best gap by a thousandth of it: the gap itself, or
/// the objective by so much.
const PATIENCE: (usize, usize) = (100, 1500);

/// Who watches a solve.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// What a point of a path hands to the next.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) start: Start,
    pub(crate) lambda: f64,
    /// `X W` there.
    pub(crate) z: Table,
}

/// A solve under way.
pub(crate) struct Run<'a> {
    pub(crate) pass: Pass,
    pub(crate) design: &'a Design,
    stopping: Stopping,
    pub(crate) point: Point,
    momentum: Option<Momentum>,
    /// Iterates that extrapolation combines, the first of them what it last led to.
    pub(crate) history: Vec<Vec<f64>>,
    /// Groups that are visited.
    pub(crate) alive: Vec<bool>,
    pub(crate) judged: Judged,
    pub(crate) iterations: usize,
}

impl Pass {
    /// Solves one problem. `before` is the point before this on a path.
    pub(crate) fn solve<T: Element>(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        before: Option<&Before>,
        watch: Watch<'_>,
    ) -> Result<(Solution, Table), GroupLassoError> {
        self.admit(spec, data, stopping)?;
        let design = self.design(spec, data);
        if let Some(start) = start {
            self.admit_start((design.rows, design.outputs), start)?;
        }
        let mut run = Run::new(*self, &design, *stopping, start, before);
        let (point, judged, iterations, stopped) = run.go(watch);
        Ok((self.answer(&design, &point, judged, iterations, stopped), point.z))
    }

    fn answer(&self, design: &Design, point: &Point, judged: Judged, iterations: usize, stopped: Stopped) -> Solution {
        let c = design.outputs;
        let mut w = Array2::zeros((design.rows, c));
        w.indexed_iter_mut().for_each(|((row, k), w)| *w = point.w[row * c + k]);
        let (mut b, mut columns) = (self.reported_intercept(design, point), design.columns.clone());
        match self.fault {
            Some(Fault::RawCoefficients) if design.rows == columns.scale.len() => {
                for (mut row, scale) in w.rows_mut().into_iter().zip(&columns.scale) {
                    row /= *scale;
                }
            }
            Some(Fault::InterceptRaw) if design.rows == columns.scale.len() => {
                for (row, w) in w.rows().into_iter().enumerate() {
                    let mean = columns.mean[row] / columns.scale[row];
                    b.iter_mut().zip(w).for_each(|(b, w)| *b -= mean * w);
                }
            }
            Some(Fault::ScalesNotReported) => columns.scale.fill(1.0),
            Some(Fault::CoefficientsInF32) => w.mapv_inplace(|w| f64::from(w as f32)),
            Some(Fault::TinyRowsCut) => w.mapv_inplace(|w| if w.abs() < 1e-3 { 0.0 } else { w }),
            _ => {}
        }
        let iterations =
            if self.is(Fault::IterationsAreChecks) { iterations.div_ceil(self.variant.check) } else { iterations };
        Solution {
            w: SparseRows::from_dense(w.view()),
            b,
            certificate: judged.certificate,
            iterations,
            stopped,
            columns,
        }
    }

    /// Where to begin.
    fn beginning(&self, design: &Design, start: Option<&Start>, before: Option<&Before>) -> Point {
        let c = design.outputs;
        let (mut w, mut b) = (vec![0.0; design.rows * c], design.null_intercept.clone());
        if let Some(start) = start {
            if !self.is(Fault::StartIgnored) {
                for (row, values) in start.w.indices().iter().zip(start.w.values().rows()) {
                    for (k, value) in values.iter().enumerate().filter(|(k, _)| *k < c && *row < design.rows) {
                        w[row * c + k] = *value;
                    }
                }
            }
            if design.intercept && !self.is(Fault::StartInterceptIgnored) {
                b.iter_mut().zip(&start.b).for_each(|(b, start)| *b = *start);
            }
        }
        if design.intercept && !self.is(Fault::AbsentKeepsStart) {
            let absent = (0..c).filter(|&k| design.absent[k]);
            absent.for_each(|k| w.iter_mut().skip(k).step_by(c).for_each(|w| *w = 0.0));
        }
        if self.is(Fault::LambdaZeroEmpty) && design.lambda == 0.0 {
            w.fill(0.0);
        }
        for k in 0..c {
            let shifts = design.shift.iter().enumerate().map(|(row, shift)| shift * w[row * c + k]);
            b[k] += shifts.sum::<f64>();
        }
        let mut z = design.times(&w);
        if let (Some(Fault::PathKeepsLogits), Some(before)) = (self.fault, before) {
            w.fill(0.0);
            z.clone_from(&before.z);
        }
        let as_it_is = matches!(self.fault, Some(Fault::StartInterceptIgnored | Fault::LeftoverUncertified));
        if !as_it_is || start.is_none() {
            b = self.best_intercept(design, &z, &b);
        }
        Point { w, b, z }
    }
}

impl<'a> Run<'a> {
    fn new(pass: Pass, design: &'a Design, stopping: Stopping, start: Option<&Start>, before: Option<&Before>) -> Self {
        let point = pass.beginning(design, start, before);
        let everything = vec![true; design.blocks.len()];
        let judged = pass.certify(design, &point, &everything, None);
        let momentum = (pass.variant.method == Method::Accelerated).then(|| Momentum::new(&pass, design, &point.w));
        let history = vec![point.w.clone()];
        let mut run =
            Self { pass, design, stopping, point, momentum, history, alive: everything, judged, iterations: 0 };
        run.screen_first(before);
        run
    }

    /// Until there is a reason to stop: the best point, its certificate, all iterations, and the reason.
    fn go(&mut self, watch: Watch<'_>) -> (Point, Judged, usize, Stopped) {
        let mut best = (self.point.clone(), self.judged.clone());
        let first = best.clone();
        let (mut since_best, mut better, mut lowest) = (0, 0, f64::INFINITY);
        loop {
            let reported = Progress {
                point: 0,
                iterations: self.iterations,
                relative_gap: best.1.certificate.relative_gap(),
                active: best.1.certificate.active,
            };
            let stalled = since_best >= PATIENCE.0 && self.iterations >= better + PATIENCE.1;
            if let Some(stopped) = self.reason(&best, stalled, &reported, watch) {
                let (point, judged) = match (stopped, self.pass.fault) {
                    (Stopped::Interrupted, Some(Fault::InterruptionLosesState)) => first,
                    (_, Some(Fault::LastNotBest)) => (self.point.clone(), best.1),
                    _ => best,
                };
                return (point, judged, self.iterations, self.said(stopped));
            }
            let objective = best.1.certificate.objective;
            self.advance();
            if self.converged_otherwise(objective) {
                return (self.point.clone(), self.judged.clone(), self.iterations, Stopped::Reached);
            }
            let (gap, least) = (self.judged.certificate.gap(), best.1.certificate.gap());
            let objective = self.judged.certificate.objective;
            let nearer = gap < 0.999 * least || (gap.is_finite() && !least.is_finite());
            if nearer || objective < lowest - 1e-3 * least {
                (since_best, better, lowest) = (0, self.iterations, objective.min(lowest));
            } else {
                since_best += 1;
            }
            if gap < least || (!least.is_finite() && gap.is_finite()) {
                best = (self.point.clone(), self.judged.clone());
            }
        }
    }

    fn reason(&self, best: &(Point, Judged), stalled: bool, now: &Progress, watch: Watch<'_>) -> Option<Stopped> {
        let limit = if self.pass.is(Fault::IterationLimitIgnored) { usize::MAX } else { self.stopping.iterations };
        let reached = match self.pass.fault {
            Some(Fault::AbsoluteGap) => best.1.certificate.gap() <= self.stopping.gap,
            Some(Fault::GapByRoot) => now.relative_gap <= self.stopping.gap.sqrt(),
            Some(Fault::KktForGap) => best.1.certificate.kkt <= self.stopping.gap,
            _ => now.relative_gap <= self.stopping.gap,
        };
        if reached || (self.pass.is(Fault::LambdaZeroEmpty) && self.design.lambda == 0.0) {
            Some(Stopped::Reached)
        } else if watch(now).is_break() && !self.pass.is(Fault::InterruptionIgnored) {
            Some(Stopped::Interrupted)
        } else if self.iterations >= limit {
            Some(Stopped::Iterations)
        } else if stalled {
            Some(Stopped::Stalled)
        } else {
            None
        }
    }

    fn said(&self, stopped: Stopped) -> Stopped {
        match (stopped, self.pass.fault) {
            (Stopped::Iterations, Some(Fault::LimitIsSuccess))
            | (Stopped::Stalled, Some(Fault::StallIsSuccess))
            | (Stopped::Interrupted, Some(Fault::InterruptionIsSuccess)) => Stopped::Reached,
            _ => stopped,
        }
    }

    /// Signs of convergence that are none.
    fn converged_otherwise(&self, objective: f64) -> bool {
        let now = self.judged.certificate.objective;
        match self.pass.fault {
            Some(Fault::StopsOnObjective) => (objective - now).abs() <= self.stopping.gap * now.abs(),
            Some(Fault::StopsOnStep) => {
                let last = self.history.last().into_iter().flatten().zip(&self.point.w);
                last.map(|(from, to)| (to - from).abs()).fold(0.0, f64::max) <= self.stopping.gap.sqrt()
            }
            _ => false,
        }
    }

    /// Iterations up to the next certificate, and that.
    fn advance(&mut self) {
        let left = self.stopping.iterations.saturating_sub(self.iterations).max(1);
        for _ in 0..self.pass.variant.check.min(left) {
            self.iterate();
        }
        if self.pass.variant.rough_first && self.judged.certificate.relative_gap() > 1e-3 {
            self.point.w.iter_mut().for_each(|w| *w = to_single_precision(*w));
        }
        if !matches!(self.pass.fault, Some(Fault::PathKeepsLogits | Fault::ExtrapolatedLogitsStale)) {
            // Updates have rounded again and again.
            self.point.z = self.design.times(&self.point.w);
        }
        let stale = self.point.b.clone();
        if !self.pass.is(Fault::LeftoverUncertified) {
            self.point.b = self.pass.best_intercept(self.design, &self.point.z, &self.point.b);
        }
        self.judged = self.pass.certify(self.design, &self.point, &self.alive, Some(&self.judged));
        if self.pass.is(Fault::StaleIntercept) {
            self.point.b = stale;
        }
        self.screen();
    }

    fn iterate(&mut self) {
        self.iterations += 1;
        if let Some(momentum) = &mut self.momentum {
            return self.pass.accelerate(self.design, &mut self.point, momentum);
        }
        self.pass.sweep(self.design, &mut self.point, &self.alive, &self.judged, self.iterations);
        if self.pass.variant.anderson == 0 {
            self.history = vec![self.point.w.clone()];
            return;
        }
        self.history.push(self.point.w.clone());
        if self.history.len() > self.pass.variant.anderson + 1 {
            self.pass.extrapolate(self.design, &self.history, &mut self.point);
            self.history = vec![self.point.w.clone()];
        }
    }
}
