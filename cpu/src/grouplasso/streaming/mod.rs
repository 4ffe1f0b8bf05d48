//! Problems whose features are larger than memory.
//!
//! The answer has few groups that are not zero. A *pass* streams all features once, in blocks, and computes of each group only
//! its correlation with the residual: from it follow the certificate, what gap-safe screening proves to be zero, and which
//! groups violate the optimality conditions most. Those, with the ones that are not zero, are the *working set*: their columns
//! are copied into memory, a solver for problems in memory minimises over them, and the next pass judges the outcome.
//!
//! ```text
//! W, b := start, or zero and the null model's
//! loop:
//!     pass at (W, b)             certificate, screening, ranking
//!     stop if the gap is reached
//!     working set := the groups that are not zero ∪ those that violate most
//!     (W, b) := the minimum over the working set, from (W, b), to a share of the gap
//! ```
//!
//! Correlations, residual and certificate are computed in `f64` of the features as stored, whatever the inner solver's format
//! is. Work is divided at places that depend on the problem only: the bits are the same for any number of threads.

mod memory;
mod pass;
mod working_set;

pub use memory::Memory;

use crate::grouplasso::source::FeatureSource;
use memory::Plan;
use pass::{Sweep, Swept};
use std::ops::ControlFlow;
use tilewright_grouplasso::certificate::Certificate;
use tilewright_grouplasso::losses::Null;
use tilewright_grouplasso::problem::check_start;
use tilewright_grouplasso::{
    Columns, Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Groups, Layout, Progress, Response,
    Solution, SparseRows, Start, Stopped, Stopping, Targets,
};
use working_set::WorkingSet;

/// Passes without a better gap after which no more is to be hoped for.
const PATIENCE: usize = 8;

/// The inner solver is asked for this share of the gap wanted: what it leaves and what the working set lacks add up.
const INNER_SHARE: f64 = 0.3;

/// And while the gap is large, for this share of it.
const INNER_FIRST: f64 = 0.01;

/// What [`StreamingGroupLasso`] tells whoever watches.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A part of a pass is done.
    Features {
        /// Which problem of a path.
        point: usize,
        /// Which pass, from 1.
        pass: usize,
        /// Features seen.
        done: usize,
        /// Features in all.
        of: usize,
    },
    /// A pass is done, and what it certified. Iterations are passes.
    Pass(Progress),
    /// The solver on the working set has certified something, about that set alone.
    Inner(Progress),
}

/// A problem whose features come from a [`FeatureSource`]; see [`Data`].
#[derive(Clone, Copy)]
pub struct Streamed<'a> {
    /// The features.
    pub x: &'a dyn FeatureSource,
    /// One row, or one label, a sample.
    pub targets: Targets<'a>,
    /// `ω`, all the same if absent.
    pub sample_weights: Option<&'a [f64]>,
}

/// An answer, but for what the answers of a path have in common.
#[derive(Clone, Debug)]
pub struct PathPoint {
    /// As in [`Solution`].
    pub w: SparseRows,
    /// As in [`Solution`].
    pub b: Vec<f64>,
    /// As in [`Solution`].
    pub certificate: Certificate,
    /// Passes made.
    pub iterations: usize,
    /// Why there were no more.
    pub stopped: Stopped,
}

/// The answers of a path: two numbers a feature are kept once, and not once a point.
#[derive(Clone, Debug)]
pub struct StreamedPath {
    /// One answer a λ, as far as it went.
    pub points: Vec<PathPoint>,
    /// How the columns were standardised.
    pub columns: Columns,
}

impl StreamedPath {
    /// An answer of its own, if there is one for that λ.
    pub fn solution(&self, point: usize) -> Option<Solution> {
        let PathPoint { w, b, certificate, iterations, stopped } = self.points.get(point)?.clone();
        Some(Solution { w, b, certificate, iterations, stopped, columns: self.columns.clone() })
    }
}

/// A solver that streams the features and hands working sets to an inner solver.
///
/// ```
/// use ndarray::{Array1, Array2};
/// use std::ops::ControlFlow;
/// use tilewright_cpu::grouplasso::{Memory, Streamed, StreamingGroupLasso};
/// use tilewright_grouplasso::reference::Reference;
/// use tilewright_grouplasso::{GroupLassoSpec, Loss, Stopped, Stopping, Targets};
///
/// let x = Array2::from_shape_fn((40, 300), |(i, j)| ((i * 37 + j * j * 101 + i * j) % 23) as f32 / 11.0 - 1.0);
/// let labels: Vec<u32> = (0..40).map(|i| u32::from(x[[i, 7]] > 0.0)).collect();
/// let view = x.view();
/// let problem = Streamed { x: &view, targets: Targets::Labels { labels: &labels, classes: 2 }, sample_weights: None };
///
/// let solver = StreamingGroupLasso::<_, f32>::new(Reference, Memory { bytes: 4 << 20 });
/// let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
/// spec.lambda = solver.lambda_max(&spec, &problem)? / 3.0;
/// let stopping = Stopping { gap: 1e-4, ..Stopping::default() };
/// let answer = solver.solve(&spec, &problem, &stopping, None, &mut |_| ControlFlow::Continue(()))?;
/// assert_eq!(answer.stopped, Stopped::Reached);
/// assert!(answer.w.indices().contains(&7));
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StreamingGroupLasso<S, T = f32> {
    inner: S,
    memory: Memory,
    /// Formats of working sets are named, not held.
    format: std::marker::PhantomData<fn() -> T>,
}

impl<S: GroupLassoSolver<T>, T: Element> StreamingGroupLasso<S, T> {
    /// A solver that keeps working sets in numbers of type `T` and solves on them with `inner`, within `memory`.
    pub fn new(inner: S, memory: Memory) -> Self {
        Self { inner, memory, format: std::marker::PhantomData }
    }

    /// Solves one problem, from `start` if there is one; `stopping.iterations` counts passes. `watch` may end the work, and
    /// what has been reached by then is the answer, from which a later call can go on.
    ///
    /// # Errors
    /// As [`GroupLassoSolver::solve`]; [`GroupLassoError::Source`] if the features cannot be read,
    /// [`GroupLassoError::OutOfMemory`] with the bytes that would do if the bound is too low, and
    /// [`GroupLassoError::Unsupported`] for groups that are neither rows nor consecutive.
    pub fn solve(
        &self,
        spec: &GroupLassoSpec,
        problem: &Streamed<'_>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError> {
        stopping.validate()?;
        let setup = Setup::new::<T>(spec, problem, self.memory)?;
        let mut run = Run::<S, T>::new(&setup, &self.inner, problem, start)?;
        let PathPoint { w, b, certificate, iterations, stopped } = run.solve(spec, stopping, 0, watch)?;
        Ok(Solution { w, b, certificate, iterations, stopped, columns: run.sweep.columns })
    }

    /// Solves the problem for each λ in turn, each from the answer before (`spec.lambda` is not looked at): as
    /// [`GroupLassoSolver::solve_path`]. After the first, a problem starts without a pass: the correlations of the answer
    /// before propose its working set.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn solve_path(
        &self,
        spec: &GroupLassoSpec,
        problem: &Streamed<'_>,
        lambdas: &[f64],
        stopping: &Stopping,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<StreamedPath, GroupLassoError> {
        stopping.validate()?;
        let specs: Vec<_> = lambdas.iter().map(|&lambda| GroupLassoSpec { lambda, ..spec.clone() }).collect();
        specs.iter().try_for_each(|spec| spec.validate(problem.x.features()))?;
        let setup = Setup::new::<T>(&GroupLassoSpec { lambda: 0.0, ..spec.clone() }, problem, self.memory)?;
        let mut run = Run::<S, T>::new(&setup, &self.inner, problem, None)?;
        let mut points: Vec<PathPoint> = Vec::with_capacity(lambdas.len());
        for (point, spec) in specs.iter().enumerate() {
            points.push(run.solve(spec, stopping, point, watch)?);
            if points.last().is_some_and(|last| last.stopped == Stopped::Interrupted) {
                break;
            }
        }
        Ok(StreamedPath { points, columns: run.sweep.columns })
    }

    /// [`Problem::lambda_max`](tilewright_grouplasso::Problem::lambda_max), by one pass.
    ///
    /// # Errors
    /// As there, and as [`solve`](Self::solve).
    pub fn lambda_max(&self, spec: &GroupLassoSpec, problem: &Streamed<'_>) -> Result<f64, GroupLassoError> {
        let unit = GroupLassoSpec { lambda: 1.0, ..spec.clone() };
        let setup = Setup::new::<T>(&unit, problem, self.memory)?;
        let layout = &setup.layout;
        if (0..layout.groups()).any(|group| layout.terms(&unit, group).is_free()) {
            return Err(GroupLassoError::Unsupported { what: "lambda_max with a group of weight 0" });
        }
        let mut run = Run::<S, T>::new(&setup, &self.inner, problem, None)?;
        let swept = run.pass(&unit, 0, 1, &mut |_| ControlFlow::Continue(()))?;
        Ok(swept.map_or(f64::NAN, |swept| swept.dual_norm)) // nobody interrupts
    }
}

/// A problem, checked; everything but the columns, which the first pass checks.
struct Setup {
    spec: GroupLassoSpec,
    layout: Layout,
    response: Response,
    null: Null,
    plan: Plan,
}

impl Setup {
    fn new<T: Element>(spec: &GroupLassoSpec, problem: &Streamed<'_>, memory: Memory) -> Result<Self, GroupLassoError> {
        let (samples, features) = (problem.x.samples(), problem.x.features());
        if !matches!(spec.groups, Groups::Rows | Groups::Sizes(_)) {
            return Err(GroupLassoError::Unsupported {
                what: "streaming groups that are neither rows nor consecutive",
            });
        }
        spec.validate(features)?;
        let layout = Layout::new(&spec.groups, features)?;
        let outputs = match problem.targets {
            Targets::Values(values) => values.ncols(),
            Targets::Labels { classes, .. } => classes,
        };
        // Before anything of that size is made.
        let plan = Plan::new(memory, (samples, outputs), &layout, problem.x.together(), size_of::<T>())?;
        let response = Response::new(spec.loss, samples, problem.targets, problem.sample_weights)?;
        let null = response.null(spec.intercept);
        Ok(Self { spec: spec.clone(), layout, response, null, plan })
    }
}

/// A solution in the making.
struct Run<'a, 'p, S, T> {
    setup: &'a Setup,
    inner: &'a S,
    problem: &'a Streamed<'p>,
    sweep: Sweep,
    /// Groups in the last working set.
    working: usize,
    w: SparseRows,
    b: Vec<f64>,
    /// The λ whose answer `w` and the correlations in `sweep` are; none before the first.
    previous: Option<f64>,
    format: std::marker::PhantomData<fn() -> T>,
}

impl<'a, 'p, S: GroupLassoSolver<T>, T: Element> Run<'a, 'p, S, T> {
    fn new(
        setup: &'a Setup,
        inner: &'a S,
        problem: &'a Streamed<'p>,
        start: Option<&Start>,
    ) -> Result<Self, GroupLassoError> {
        let shape = (setup.layout.rows(), setup.response.outputs());
        let (w, b) = match start {
            Some(start) => {
                check_start(shape, start)?;
                (setup.without_absent(&start.w), start.b.clone())
            }
            None => (SparseRows::zeros(shape.0, shape.1), setup.null.intercept.clone()),
        };
        let b = if setup.spec.intercept { b } else { vec![0.0; shape.1] };
        let sweep = Sweep::new(setup);
        Ok(Self { setup, inner, problem, sweep, working: 0, w, b, previous: None, format: std::marker::PhantomData })
    }

    /// One problem of a path, or the only one.
    fn solve(
        &mut self,
        spec: &GroupLassoSpec,
        stopping: &Stopping,
        point: usize,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<PathPoint, GroupLassoError> {
        let (mut best, mut since_best, mut passes) = (None::<PathPoint>, 0, 0);
        self.sweep.forget_proofs();
        if let Some(previous) = self.previous.replace(spec.lambda) {
            // The sequential strong rule: `‖u‖ ≥ 2λ − λ₀`, as a share of λ.
            let strong = (2.0 * spec.lambda - previous).max(0.0) / spec.lambda.max(f64::MIN_POSITIVE);
            let gap = INNER_SHARE * stopping.gap;
            if self.minimise(spec, strong, gap, point, watch)?.is_break() {
                return Ok(self.ended(best, Stopped::Interrupted, passes));
            }
        }
        loop {
            let Some(Swept { certificate, everything, .. }) = self.pass(spec, point, passes + 1, watch)? else {
                return Ok(self.ended(best, Stopped::Interrupted, passes));
            };
            passes += 1;
            since_best += 1;
            if best.as_ref().is_none_or(|best| is_better(&certificate, &best.certificate)) {
                best = Some(self.point(certificate, passes));
                since_best = 0;
            }
            let relative_gap = certificate.relative_gap();
            let progress = Progress { point, iterations: passes, relative_gap, active: certificate.active };
            let watched = watch(&Event::Pass(progress));
            if relative_gap <= stopping.gap && everything {
                return Ok(self.ended(best, Stopped::Reached, passes));
            }
            if watched.is_break() {
                return Ok(self.ended(best, Stopped::Interrupted, passes));
            }
            if passes >= stopping.iterations {
                return Ok(self.ended(best, Stopped::Iterations, passes));
            }
            if since_best >= PATIENCE {
                return Ok(self.ended(best, Stopped::Stalled, passes));
            }
            if relative_gap <= stopping.gap {
                // So far it is proven with what screening left out; now of everything.
                self.sweep.forget_proofs();
                best = None;
                continue;
            }
            self.sweep.discard(spec, &self.setup.layout, &self.w, &certificate);
            let gap = (INNER_SHARE * stopping.gap).max(INNER_FIRST * relative_gap);
            if self.minimise(spec, 1.0, gap, point, watch)?.is_break() {
                return Ok(self.ended(best, Stopped::Interrupted, passes));
            }
        }
    }

    /// The best answer so far, or the one at hand with what is known of it without a pass.
    fn ended(&self, best: Option<PathPoint>, stopped: Stopped, iterations: usize) -> PathPoint {
        let best = best.unwrap_or_else(|| {
            // Both losses and all penalties are at least 0.
            let (objective, dual, null) = (f64::INFINITY, 0.0, self.setup.null.objective);
            let active = self.w.indices().len();
            self.point(Certificate { objective, dual, null, kkt: f64::INFINITY, active, dual_scale: 0.0 }, iterations)
        });
        PathPoint { iterations, stopped, ..best }
    }

    fn point(&self, certificate: Certificate, iterations: usize) -> PathPoint {
        PathPoint { w: self.w.clone(), b: self.b.clone(), certificate, iterations, stopped: Stopped::Iterations }
    }

    /// Judges the answer at hand; `None` if interrupted.
    fn pass(
        &mut self,
        spec: &GroupLassoSpec,
        point: usize,
        pass: usize,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Option<Swept>, GroupLassoError> {
        let of = self.setup.layout.features();
        let mut watch = |done| watch(&Event::Features { point, pass, done, of });
        self.sweep.pass(self.setup, spec, self.problem.x, &self.w, &mut self.b, &mut watch)
    }

    /// Minimises over a new working set, to a relative gap of `gap` on it; breaks if interrupted.
    fn minimise(
        &mut self,
        spec: &GroupLassoSpec,
        likely: f64,
        gap: f64,
        point: usize,
        watch: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, GroupLassoError> {
        let set = WorkingSet::choose(self.setup, spec, &self.sweep, &self.w, (likely, self.working))?;
        self.working = set.groups();
        let x: Vec<T> = set.gather(self.problem.x)?;
        let targets = match &self.problem.targets {
            Targets::Values(values) => Targets::Values(values.view()),
            Targets::Labels { labels, classes } => Targets::Labels { labels, classes: *classes },
        };
        let data = Data { x: set.matrix(&x)?, targets, sample_weights: self.problem.sample_weights };
        let start = set.start(&self.w, &self.b);
        let stopping = Stopping { gap, ..Stopping::default() };
        // A solver that has just finished has no need to stop, but what it was told holds for the rest of the work.
        let mut outcome = ControlFlow::Continue(());
        let mut watch = |progress: &Progress| {
            outcome = watch(&Event::Inner(Progress { point, ..*progress }));
            outcome
        };
        let inner = self.inner.solve(&set.spec(spec), &data, &stopping, Some(&start), &mut watch)?;
        (self.w, self.b) = (set.spread(&inner.w)?, inner.b);
        Ok(outcome)
    }
}

fn is_better(a: &Certificate, b: &Certificate) -> bool {
    a.gap() < b.gap() || b.gap().is_nan()
}

impl Setup {
    /// A class without samples has no coefficients beside its intercept of −∞.
    fn without_absent(&self, w: &SparseRows) -> SparseRows {
        let mut dense = w.values().to_owned();
        for (mut column, absent) in dense.columns_mut().into_iter().zip(self.response.absent()) {
            if *absent && self.spec.intercept {
                column.fill(0.0);
            }
        }
        SparseRows::new(w.rows(), w.indices().to_vec(), dense).unwrap_or_else(|_| w.clone())
    }
}
