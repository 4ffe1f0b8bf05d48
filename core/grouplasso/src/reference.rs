//! The oracle: the accelerated proximal gradient method of the textbook (FISTA, Beck and Teboulle 2009, with backtracking,
//! and the restart of O'Donoghue and Candès 2015), in `f64`, every loop spelled out.
//!
//! The intercept is minimised out: the method runs on `F(W) = min_b F(XW + 1bᵀ)`, whose gradient is `−Xᵀ ω̂ R` at the best
//! `b`, and whose curvature is that of centred columns.

use crate::certificate::{certify, correlations};
use crate::select::Keep;
use crate::{
    Data, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Layout, Problem, Progress, Prox, Selection, Solution,
    SparseRows, Start, Stopped, Stopping, prox, select,
};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use tilewright_scalar::Element;

/// Iterations between two certificates.
const CHECK: usize = 10;

/// Certificates without a better gap after which no more is to be hoped for.
const PATIENCE: usize = 500;

/// The reference solver. An iteration costs `O(n d C)`, so it is for problems of thousands of numbers.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::reference::Reference;
/// use tilewright_grouplasso::{Data, GroupLassoSolver, GroupLassoSpec, Loss, Stopped, Stopping, Targets};
/// let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.1);
/// let x = array![[1.0f32, 0.0], [2.0, 0.1], [-1.0, 0.0], [-2.0, 0.2]];
/// let targets = Targets::Labels { labels: &[0, 0, 1, 1], classes: 2 };
/// let data = Data { x: x.view(), targets, sample_weights: None };
/// let stopping = Stopping { gap: 1e-10, ..Stopping::default() };
/// let answer = Reference.solve(&spec, &data, &stopping, None, &mut |_| std::ops::ControlFlow::Continue(()))?;
/// assert_eq!((answer.stopped, answer.w.indices()), (Stopped::Reached, &[0][..])); // feature 1 tells nothing
/// assert!(answer.certificate.relative_gap() <= 1e-10);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl<T: Element> GroupLassoSolver<T> for Reference {
    fn solve(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError> {
        stopping.validate()?;
        let problem = Problem::new(spec, data)?;
        let mut run = Run::new(&problem, start)?;
        let (mut best, mut since_best) = (run.certified(0)?, 0);
        loop {
            let relative_gap = best.certificate.relative_gap();
            let progress =
                Progress { point: 0, iterations: run.iterations, relative_gap, active: best.certificate.active };
            if let Some(stopped) = stopping.verdict(&progress, since_best >= PATIENCE, watch) {
                return Ok(Solution { stopped, iterations: run.iterations, ..best });
            }
            for _ in 0..CHECK.min(stopping.iterations - run.iterations) {
                run.iterate();
            }
            let now = run.certified(run.iterations)?;
            since_best += 1;
            if now.certificate.gap() < best.certificate.gap() || !best.certificate.gap().is_finite() {
                (best, since_best) = (now, 0);
            }
        }
    }
}

impl<T: Element> Prox<T> for Reference {
    fn prox(&self, spec: &GroupLassoSpec, step: f64, mut w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError> {
        let layout = prox::check(spec, step, w.nrows())?;
        let mut exact = w.map(|x| x.to_f64());
        prox::all(spec, &layout, step, &mut exact.view_mut());
        w.zip_mut_with(&exact, |to, from| *to = T::from_f64(*from));
        Ok(())
    }
}

impl<T: Element> Selection<T> for Reference {
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError> {
        Ok(select::scores(w).into_iter().map(<T::Accum as Element>::from_f64).collect())
    }

    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        select::top(&scores.iter().map(|s| Element::to_f64(*s)).collect::<Vec<_>>(), keep)
    }
}

/// FISTA's state: `W`, the extrapolated point `V`, and `t`.
struct Run<'p, 'a, T> {
    problem: &'p Problem<'a, T>,
    w: Array2<f64>,
    v: Array2<f64>,
    b: Vec<f64>,
    t: f64,
    /// The estimate of the gradient's Lipschitz constant, and what is proven to be enough.
    lipschitz: f64,
    enough: f64,
    iterations: usize,
}

impl<'p, 'a, T: Element> Run<'p, 'a, T> {
    fn new(problem: &'p Problem<'a, T>, start: Option<&Start>) -> Result<Self, GroupLassoError> {
        let (rows, outputs) = problem.shape();
        let (mut w, b) = match start {
            Some(start) => {
                problem.check_start(start)?;
                (start.w.to_dense(), start.b.clone())
            }
            None => (Array2::zeros((rows, outputs)), problem.null().intercept.clone()),
        };
        if problem.spec().intercept {
            let absent = problem.response().absent().iter().enumerate().filter(|(_, absent)| **absent);
            absent.for_each(|(class, _)| w.column_mut(class).fill(0.0));
        }
        let b = if problem.spec().intercept { b } else { vec![0.0; outputs] };
        let (lipschitz, enough) = problem.lipschitz();
        Ok(Self { problem, v: w.clone(), w, b, t: 1.0, lipschitz, enough, iterations: 0 })
    }

    /// `F(W)`, and the intercept and residual there; the intercept is sought from `b`, and is no worse than it.
    fn loss(&self, w: ArrayView2<'_, f64>, b: &[f64]) -> (f64, Vec<f64>, Array2<f64>) {
        let z = self.problem.times(&SparseRows::from_dense(w));
        let response = self.problem.response();
        let b = if self.problem.spec().intercept { response.best_intercept(z.view(), b) } else { b.to_vec() };
        (response.value(z.view(), &b), b.clone(), response.residual(z.view(), &b))
    }

    /// Beck and Teboulle's (4.1) to (4.3), the step found by backtracking.
    ///
    /// Logits in the hundreds make the best intercept hard to find, and `b` may be short of it. For that `b` the model still
    /// bounds the loss of the next iterate, once the constant is large enough, and so it bounds that at any intercept found from
    /// there. From anywhere else the search may end at another one, and no step would be short enough.
    fn iterate(&mut self) {
        self.iterations += 1;
        let (value, b, residual) = self.loss(self.v.view(), &self.b);
        let downhill = correlations(self.problem, residual.view());
        let next = loop {
            let mut next = &self.v + &(&downhill / self.lipschitz);
            prox::all(self.problem.spec(), self.problem.layout(), 1.0 / self.lipschitz, &mut next.view_mut());
            let step = &next - &self.v;
            let model = value - (&downhill * &step).sum() + 0.5 * self.lipschitz * (&step * &step).sum();
            // Where the constant is proven the comparison can only tell of rounding.
            if self.lipschitz >= self.enough || self.loss(next.view(), &b).0 <= model + 1e-12 * value.abs() {
                break next;
            }
            self.lipschitz = (2.0 * self.lipschitz).min(self.enough);
        };
        self.b = b;
        let moved = &next - &self.w;
        let uphill = ((&self.v - &next) * &moved).sum() > 0.0;
        let t = if uphill { 1.0 } else { 0.5 * (1.0 + libm::sqrt(1.0 + 4.0 * self.t * self.t)) };
        self.v = if uphill { next.clone() } else { &next + &(moved * ((self.t - 1.0) / t)) };
        (self.w, self.t) = (next, t);
    }

    fn certified(&self, iterations: usize) -> Result<Solution, GroupLassoError> {
        let w = SparseRows::from_dense(self.w.view());
        let (_, b, _) = self.loss(self.w.view(), &self.b);
        let certificate = certify(self.problem, &w, &b)?;
        let columns = self.problem.columns().clone();
        Ok(Solution { w, b, certificate, iterations, stopped: Stopped::Iterations, columns })
    }
}

/// The least λ at which every penalised group is zero, free groups or none: if there are any, the null model with them is
/// fitted first, to a relative gap of `10⁻¹⁰`.
///
/// # Errors
/// [`GroupLassoError`], as [`Problem::new`].
pub fn lambda_max<T: Element>(spec: &GroupLassoSpec, data: &Data<'_, T>) -> Result<f64, GroupLassoError> {
    let problem = Problem::new(spec, data)?;
    let layout = Layout::new(&spec.groups, data.x.ncols())?;
    let unit = GroupLassoSpec { lambda: 1.0, ..spec.clone() };
    let free = |group: usize| layout.terms(&unit, group).is_free();
    if !(0..layout.groups()).any(free) {
        return problem.lambda_max();
    }
    // At a λ at which everything penalised stays zero: doubled until it does.
    let mut lambda = 1.0;
    loop {
        let spec = GroupLassoSpec { lambda, ..spec.clone() };
        let stopping = Stopping { gap: 1e-10, ..Stopping::default() };
        let fitted = Reference.solve(&spec, data, &stopping, None, &mut |_| ControlFlow::Continue(()))?;
        let z = problem.times(&fitted.w);
        let residual = problem.response().residual(z.view(), &fitted.b);
        let penalised = (0..layout.groups()).filter(|&group| !free(group));
        let norms =
            penalised.map(|group| layout.terms(&unit, group).dual_norm(&problem.correlation(group, residual.view())));
        let largest = norms.fold(0.0, f64::max);
        if largest <= lambda || !lambda.is_finite() {
            return Ok(largest);
        }
        lambda = 2.0 * largest;
    }
}
