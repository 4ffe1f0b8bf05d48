//! What is wrong with a kernel's answer, if anything: by certificate, never by another solver's coefficients.

use crate::cases::{Block, Case, Task};
use ndarray::Array2;
use std::ops::ControlFlow;
use tilewright_grouplasso::certificate::{Certificate, certify};
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Problem, Progress, Prox, Selection, Solution,
    Start, Stopped, Stopping, prox, select,
};

/// Iterations in which the reference reaches what every kernel must reach in five times as many.
const ENOUGH: usize = 4000;

/// A case in an element type, and what the reference makes of it.
pub struct Trial<T> {
    pub case: Case,
    x: Array2<T>,
    /// By λ of the task: whether the gap can be reached, and `P` there.
    expected: Result<Vec<(bool, f64)>, GroupLassoError>,
}

type Outcome = Result<(Vec<Solution>, Vec<Progress>), GroupLassoError>;

impl<T: Element> Trial<T> {
    pub fn new(case: Case) -> Self {
        let x = case.x.map(|x| T::from_f64(*x));
        let expected = Self::expected(&case, &case.data(x.view()));
        Self { case, x, expected }
    }

    fn expected(case: &Case, data: &Data<'_, T>) -> Result<Vec<(bool, f64)>, GroupLassoError> {
        let enough = Stopping { iterations: ENOUGH, ..case.stopping };
        let solve = |lambda: f64| {
            let spec = GroupLassoSpec { lambda, ..case.spec.clone() };
            if let Task::From(start) = &case.task {
                Problem::new(&spec, data)?.check_start(start)?;
            }
            let mut go_on = |_: &Progress| ControlFlow::Continue(());
            let solution = Reference.solve(&spec, data, &enough, None, &mut go_on)?;
            let reachable = solution.stopped == Stopped::Reached && case.stopping.iterations >= ENOUGH;
            Ok((reachable, solution.certificate.objective))
        };
        lambdas(case).into_iter().map(solve).collect()
    }

    /// What is wrong with a kernel.
    pub fn witness(&self, kernel: &impl GroupLassoSolver<T>) -> Option<String> {
        let data = self.case.data(self.x.view());
        let outcome = run(kernel, &self.case, &data);
        let found = match (&outcome, &self.expected) {
            (Err(got), Err(right)) if got == right => None,
            (Err(got), _) => Some(format!("error {got}")),
            (Ok(_), Err(right)) => Some(format!("no error, but {right}")),
            (Ok((solutions, watched)), Ok(expected)) => self.wrong(&data, solutions, watched, expected),
        };
        found.map(|found| format!("{}: {found}", self.case.name))
    }

    fn wrong(
        &self,
        data: &Data<'_, T>,
        solutions: &[Solution],
        watched: &[Progress],
        expected: &[(bool, f64)],
    ) -> Option<String> {
        let lambdas = lambdas(&self.case);
        let interruption = interruption(&self.case).filter(|at| *at <= watched.len());
        if let Some(at) = interruption {
            if watched.len() > at {
                return Some("it went on after an interruption".into());
            }
            if solutions.last().is_none_or(|last| last.stopped != Stopped::Interrupted) {
                return Some("an interruption that left no trace".into());
            }
        } else if solutions.len() != lambdas.len() {
            return Some(format!("{} answers to {} questions", solutions.len(), lambdas.len()));
        }
        if let Some(last) = watched.iter().map(|progress| progress.point).max() {
            // The last point may be reached without a word.
            if last + 2 < solutions.len() || last >= solutions.len() {
                return Some(format!("progress at point {last} of {}", solutions.len()));
            }
        }
        for (at, solution) in solutions.iter().enumerate() {
            let spec = GroupLassoSpec { lambda: lambdas[at], ..self.case.spec.clone() };
            let problem = Problem::new(&spec, data).unwrap();
            let last_word = watched.iter().rfind(|progress| progress.point == at);
            if let Some(found) = self.unlike(&problem, solution, last_word, expected[at]) {
                return Some(format!("λ = {}: {found}", lambdas[at]));
            }
        }
        None
    }

    fn unlike(
        &self,
        problem: &Problem<'_, T>,
        solution: &Solution,
        last_word: Option<&Progress>,
        (reachable, objective): (bool, f64),
    ) -> Option<String> {
        let right = match certify(problem, &solution.w, &solution.b) {
            Ok(right) => right,
            Err(error) => return Some(format!("no answer: {error}")),
        };
        let (claimed, stopping) = (&solution.certificate, &self.case.stopping);
        // What sums of residuals of targets of this size are known to.
        let farthest = problem.response().y().iter().fold(0.0f64, |most, y| most.max(y.abs()));
        let rounding = 64.0 * f64::EPSILON * farthest * (1.0 + (2.0 * right.null).sqrt());
        let (gap, slack) = (right.relative_gap(), 1e-11 + rounding / right.null);
        let reached = gap <= 1.01 * stopping.gap + slack;
        if solution.stopped == Stopped::Reached && !reached {
            return Some(format!("says the gap is reached, but it is {gap:e}"));
        }
        if solution.stopped == Stopped::Reached && claimed.relative_gap() > stopping.gap {
            return Some(format!("reached, with a gap of {:e} by its own words", claimed.relative_gap()));
        }
        if solution.stopped == Stopped::Stalled && reachable {
            return Some(format!("stalled at {gap:e}"));
        }
        if solution.stopped == Stopped::Iterations && (reachable || solution.iterations != stopping.iterations) {
            return Some(format!("{} iterations used up at {gap:e}", solution.iterations));
        }
        if solution.iterations > stopping.iterations {
            return Some(format!("{} iterations", solution.iterations));
        }
        let word = last_word.map_or(f64::INFINITY, |word| word.relative_gap);
        if solution.stopped == Stopped::Interrupted && gap > 1.01 * word + slack {
            return Some(format!("interrupted at {word:e}, returned {gap:e}"));
        }
        if let Task::From(start) = &self.case.task {
            let before = certify(problem, &start.w, &start.b).map_or(f64::INFINITY, |c| c.relative_gap());
            if gap > 1.01 * before + slack {
                return Some(format!("a start of {before:e} became {gap:e}"));
            }
        }
        wrong_shape(problem, solution).or_else(|| dishonest(claimed, &right, objective, rounding))
    }
}

/// Whether two numbers are not within a limit of each other; NaN never is.
fn far(a: f64, b: f64, limit: f64) -> bool {
    let apart = (a - b).abs();
    apart > limit || apart.is_nan()
}

/// A claim that differs from what is so.
fn dishonest(claimed: &Certificate, right: &Certificate, least: f64, rounding: f64) -> Option<String> {
    let unit = right.null.max(f64::MIN_POSITIVE);
    if far(claimed.null, right.null, 1e-10 * unit + rounding) {
        return Some(format!("P(0) = {}, not {}", claimed.null, right.null));
    }
    if far(claimed.objective, right.objective, 1e-10 * unit.max(right.objective) + rounding) {
        return Some(format!("P = {}, not {}", claimed.objective, right.objective));
    }
    let near = 1e-9 * unit.max(right.objective) + rounding;
    if claimed.dual > least + near {
        return Some(format!("a lower bound of {} above {least}", claimed.dual));
    }
    if claimed.gap() < right.gap() / 1.01 - near {
        return Some(format!("a gap of {:e}, not {:e}", claimed.gap(), right.gap()));
    }
    if far(claimed.kkt, right.kkt, 1e-9 + 1e-6 * right.kkt + rounding) {
        return Some(format!("a KKT residual of {:e}, not {:e}", claimed.kkt, right.kkt));
    }
    (claimed.active != right.active).then(|| format!("{} active groups, not {}", claimed.active, right.active))
}

fn wrong_shape<T: Element>(problem: &Problem<'_, T>, solution: &Solution) -> Option<String> {
    let (response, columns) = (problem.response(), problem.columns());
    let apart = |a: &[f64], b: &[f64], unit: f64| a.iter().zip(b).any(|(a, b)| far(*a, *b, 1e-9 * (b.abs() + unit)));
    if apart(&solution.columns.mean, &columns.mean, 1.0) || apart(&solution.columns.scale, &columns.scale, 0.0) {
        return Some("other means or scales".into());
    }
    for (k, b) in solution.b.iter().enumerate() {
        let absent = response.absent()[k] && problem.spec().intercept;
        if absent != (*b == f64::NEG_INFINITY) || (!problem.spec().intercept && *b != 0.0) {
            return Some(format!("an intercept of {b}"));
        }
        if absent && solution.w.values().column(k).iter().any(|w| *w != 0.0) {
            return Some("coefficients of an absent class".into());
        }
    }
    None
}

fn lambdas(case: &Case) -> Vec<f64> {
    match &case.task {
        Task::Path(lambdas) | Task::InterruptedPath(lambdas, _) => lambdas.clone(),
        _ => vec![case.spec.lambda],
    }
}

/// The certificate at which whoever watches says stop.
fn interruption(case: &Case) -> Option<usize> {
    match case.task {
        Task::Interrupted(at) | Task::InterruptedPath(_, at) => Some(at),
        _ => None,
    }
}

fn run<T: Element>(kernel: &impl GroupLassoSolver<T>, case: &Case, data: &Data<'_, T>) -> Outcome {
    let mut watched = Vec::new();
    let stop = interruption(case);
    let mut watch = |progress: &Progress| {
        watched.push(*progress);
        if Some(watched.len()) == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let solutions = match &case.task {
        Task::Path(lambdas) | Task::InterruptedPath(lambdas, _) => {
            kernel.solve_path(&case.spec, data, lambdas, &case.stopping, &mut watch)?
        }
        Task::From(start) => vec![kernel.solve(&case.spec, data, &case.stopping, Some(start), &mut watch)?],
        _ => vec![kernel.solve(&case.spec, data, &case.stopping, None, &mut watch)?],
    };
    Ok((solutions, watched))
}

/// A start from an answer of the reference, to a gap.
pub fn start(case: &Case, gap: f64) -> Start {
    let mut go_on = |_: &Progress| ControlFlow::Continue(());
    let stopping = tilewright_grouplasso::Stopping { gap, ..case.stopping };
    Reference.solve(&case.spec, &case.data(case.x.view()), &stopping, None, &mut go_on).unwrap().start()
}

/// What is wrong with a kernel's proximal operator in an element type of this precision.
pub fn prox_witness<T: Element>(kernel: &impl Prox<T>, block: &Block) -> Option<String> {
    let before = block.w.map(|x| T::from_f64(*x));
    let mut got = before.clone();
    let outcome = kernel.prox(&block.spec, block.step, got.view_mut());
    let layout = match prox::check(&block.spec, block.step, block.w.nrows()) {
        Ok(layout) => layout,
        Err(right) => {
            let kept = got.iter().zip(&before).all(|(a, b)| a.to_bits64() == b.to_bits64());
            return (outcome != Err(right) || !kept).then(|| format!("{}: {outcome:?}", block.name));
        }
    };
    let mut right = before.map(|x| x.to_f64());
    prox::all(&block.spec, &layout, block.step, &mut right.view_mut());
    let roundoff = T::FORMAT.unit_roundoff();
    for g in 0..layout.groups() {
        let size = before.map(|x| x.to_f64());
        let size = tilewright_grouplasso::penalty::norm(&layout.gather(size.view(), g));
        let got = layout.gather(got.map(|x| x.to_f64()).view(), g);
        for (got, right) in got.iter().zip(layout.gather(right.view(), g)) {
            let limit = 16.0 * roundoff * size.min(f64::MAX / 32.0) + T::FORMAT.underflow_unit();
            let far = far(*got, right, limit) && got.to_bits() != right.to_bits();
            if (far && !(got.is_nan() && right.is_nan())) || (right == 0.0 && *got != 0.0) {
                return Some(format!("{}: {got} instead of {right} of {size}", block.name));
            }
        }
    }
    None
}

/// What is wrong with a kernel's scores and selection.
pub fn selection_witness(
    kernel: &impl Selection<f64>,
    selections: &[(Vec<f64>, select::Keep)],
    w: &[Array2<f64>],
) -> Option<String> {
    for w in w {
        let right = select::scores(w.view());
        let got = kernel.scores(w.view()).unwrap();
        if let Some((got, right)) = got.iter().zip(&right).find(|(a, b)| far(**a, **b, 1e-13 * b.abs())) {
            return Some(format!("a score of {got}, not {right}"));
        }
    }
    for (scores, keep) in selections {
        let (got, right) = (kernel.select(scores, *keep), select::top(scores, *keep));
        if got != right {
            return Some(format!("{keep:?} of {}: {got:?}, not {right:?}", scores.len()));
        }
    }
    None
}
