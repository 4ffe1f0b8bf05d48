//! Cross-validation with folds side by side.
//!
//! A fold's samples have weight 0 and nothing else: all folds read the same features. What each computes depends on nothing
//! that runs beside it, and tables are put together in the folds' order, so the outcome is the same for any number of threads.

use ndarray::{Array3, Array4, ArrayView3, Axis};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tilewright_grouplasso::grid::{Choice, Grid};
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Head2Toe, Keep, Loss, Problem, Progress,
    Solution, Stopping, Targets, losses,
};

/// What whoever watches a cross-validation is told: parts of the work are done, in an order that is nobody's promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which fold.
    pub fold: usize,
    /// Parts of all folds that are done.
    pub done: usize,
    /// Parts in all.
    pub of: usize,
}

/// Who watches; they may end the work. Several threads call, but one at a time.
pub type Watch<'w> = &'w mut (dyn FnMut(&Part) -> ControlFlow<()> + Send);

/// A mean over folds, and how they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The standard deviation between folds, with divisor `folds − 1`.
    pub deviation: f64,
    /// The standard error of the mean.
    pub error: f64,
}

impl Estimate {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len() as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares: f64 = values.map(|x| (x - mean) * (x - mean)).sum();
        let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
        Self { mean, deviation, error: deviation / count.sqrt() }
    }
}

/// Every member of a grid, tried on every fold.
#[derive(Clone, Debug)]
pub struct CrossValidation {
    /// The grid's values of λ.
    pub lambdas: Vec<f64>,
    /// Numbers of features kept.
    pub keep: Vec<Keep>,
    /// Strengths of the ridge penalty.
    pub ridge: Vec<f64>,
    /// Samples in each fold.
    pub held: Vec<usize>,
    /// Held-out samples predicted rightly: fold, λ, number kept, ridge strength.
    pub right: Array4<u32>,
    /// The most right answers over all folds; of equal ones the largest λ, then the first number kept, then the first strength.
    pub best: Choice,
    features: usize,
}

impl CrossValidation {
    /// The accuracy of one member.
    pub fn accuracy(&self, lambda: usize, keep: usize, ridge: usize) -> Estimate {
        let folds = self.held.iter().enumerate();
        Estimate::of(folds.map(|(fold, held)| f64::from(self.right[[fold, lambda, keep, ridge]]) / *held as f64))
    }

    /// The accuracy for a λ and a number kept, with the ridge strength that is best for them.
    pub fn best_ridge(&self, lambda: usize, keep: usize) -> (usize, Estimate) {
        let all = (0..self.ridge.len()).map(|ridge| (ridge, self.accuracy(lambda, keep, ridge)));
        let better =
            |best: (usize, Estimate), next: (usize, Estimate)| if next.1.mean > best.1.mean { next } else { best };
        all.reduce(better).unwrap_or((0, Estimate { mean: f64::NAN, deviation: f64::NAN, error: f64::NAN }))
    }

    /// The sparest member whose accuracy is within one standard error of the best's (Breiman et al. 1984): with the fewest
    /// features, then the largest λ, then the strongest ridge penalty.
    pub fn one_standard_error(&self) -> Choice {
        let best = self.accuracy(self.best.lambda, self.best.keep, self.best.ridge);
        let sums = self.right.sum_axis(Axis(0));
        let mut sparest = self.best;
        let rank = |choice: &Choice| {
            let kept = self.keep[choice.keep].of(self.features);
            (kept, -self.lambdas[choice.lambda], -self.ridge[choice.ridge])
        };
        for ((lambda, keep, ridge), &right) in sums.indexed_iter() {
            let choice = Choice { lambda, keep, ridge, right };
            if self.accuracy(lambda, keep, ridge).mean >= best.mean - best.error && rank(&choice) < rank(&sparest) {
                sparest = choice;
            }
        }
        sparest
    }

    /// The table of one fold.
    pub fn fold(&self, fold: usize) -> ArrayView3<'_, u32> {
        self.right.index_axis(Axis(0), fold)
    }
}

/// Cross-validates Head2Toe over a grid, as [`Head2Toe::cross_validate`] does, folds side by side; `None` if the work was ended.
///
/// # Errors
/// As there.
pub fn head2toe<U: Element, S: GroupLassoSolver<U> + GroupLassoSolver<f64> + Sync>(
    task: &Head2Toe<'_, U>,
    solver: &S,
    grid: &Grid,
    folds: &[Vec<usize>],
    watch: Watch<'_>,
) -> Result<Option<CrossValidation>, GroupLassoError> {
    grid.validate()?;
    let lambdas = task.lambdas(&grid.lambdas)?;
    let shape = (lambdas.len(), grid.keep.len(), grid.ridge.len());
    let watched = Watched::new(watch, folds.len() * (1 + shape.0 * shape.1));
    let fold = |(fold, held): (usize, &Vec<usize>)| -> Result<Option<Array3<u32>>, GroupLassoError> {
        let rankings = task.rank(solver, &lambdas, held, &mut |_| watched.ended())?;
        let mut table = Array3::zeros(shape);
        if rankings.len() < lambdas.len() || watched.done(fold, 1).is_break() {
            return Ok(None);
        }
        let pairs: Vec<_> = (0..shape.0).flat_map(|l| (0..shape.1).map(move |k| (l, k))).collect();
        let tried = pairs.par_iter().map(|&(l, k)| {
            if watched.ended().is_break() {
                return Ok(None);
            }
            let kept = task.top(&rankings[l], grid.keep[k])?;
            let right = task.right(solver, &kept, &grid.ridge, held)?;
            Ok(watched.done(fold, 1).is_continue().then_some(right))
        });
        let tried: Vec<Result<Option<Vec<u32>>, GroupLassoError>> = tried.collect();
        for (&(l, k), right) in pairs.iter().zip(tried) {
            let Some(right) = right? else { return Ok(None) };
            right.into_iter().enumerate().for_each(|(r, right)| table[[l, k, r]] = right);
        }
        Ok(Some(table))
    };
    let Some(tables) = side_by_side(folds, fold)? else { return Ok(None) };
    let best = Choice::best(&tables)?;
    let views: Vec<_> = tables.iter().map(|table| table.view()).collect();
    let right = ndarray::stack(Axis(0), &views).map_err(|error| GroupLassoError::Shape {
        argument: "folds",
        got: error.to_string(),
        expected: "at least one".into(),
    })?;
    let (keep, ridge, held) = (grid.keep.clone(), grid.ridge.clone(), folds.iter().map(Vec::len).collect());
    Ok(Some(CrossValidation { lambdas, keep, ridge, held, right, best, features: task.dim().1 }))
}

/// The outcome of all folds, in order; the first error among them.
fn side_by_side<X: Send>(
    folds: &[Vec<usize>],
    fold: impl Fn((usize, &Vec<usize>)) -> Result<Option<X>, GroupLassoError> + Send + Sync,
) -> Result<Option<Vec<X>>, GroupLassoError> {
    let outcomes: Vec<_> = folds.par_iter().enumerate().with_max_len(1).map(fold).collect();
    outcomes.into_iter().collect()
}

/// A watcher shared by threads.
struct Watched<'w> {
    watch: Mutex<Watch<'w>>,
    done: AtomicUsize,
    of: usize,
    ended: AtomicBool,
}

impl<'w> Watched<'w> {
    fn new(watch: Watch<'w>, of: usize) -> Self {
        Self { watch: Mutex::new(watch), done: AtomicUsize::new(0), of, ended: AtomicBool::new(false) }
    }

    /// So many more parts are done.
    fn done(&self, fold: usize, parts: usize) -> ControlFlow<()> {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ended().is_break() {
            return ControlFlow::Break(());
        }
        let done = parts + self.done.fetch_add(parts, Ordering::Relaxed);
        if watch(&Part { fold, done, of: self.of }).is_break() {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.ended()
    }

    /// Whether somebody ended the work.
    fn ended(&self) -> ControlFlow<()> {
        if self.ended.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Every λ of a path, tried on every fold: the mean loss of held-out samples, by the loss that is fitted.
#[derive(Clone, Debug)]
pub struct PathValidation {
    /// For each λ.
    pub losses: Vec<Estimate>,
    /// For each fold and λ.
    pub by_fold: Vec<Vec<f64>>,
    /// The λ of least mean loss; of equal ones the first.
    pub best: usize,
    /// The first λ whose mean is within one standard error of the best's: the sparest, if they descend.
    pub one_standard_error: usize,
}

/// Cross-validates a path, a fold's samples having weight 0 while it is solved; `None` if the work was ended.
///
/// ```
/// use ndarray::Array2;
/// use std::ops::ControlFlow;
/// use tilewright_cpu::{CpuGroupLasso, grouplasso::crossval};
/// use tilewright_grouplasso::sampling::stratified_folds;
/// use tilewright_grouplasso::{Data, GroupLassoSpec, Loss, Stopping, Targets, geometric_path};
///
/// let x = Array2::from_shape_fn((60, 40), |(i, j)| ((i * 37 + j * j * 101) % 23) as f32 / 11.0 - 1.0);
/// let labels: Vec<u32> = (0..60).map(|i| u32::from(x[[i, 3]] > 0.0)).collect();
/// let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 2 }, sample_weights: None };
/// let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
/// let lambdas = geometric_path(CpuGroupLasso.lambda_max(&spec, &data)?, 0.05, 8);
/// let folds = stratified_folds(&labels, 5, 0)?;
/// let watch = &mut |_: &crossval::Part| ControlFlow::Continue(());
/// let tried = crossval::path(&CpuGroupLasso, &spec, &data, &lambdas, &folds, &Stopping::default(), watch)?;
/// let tried = tried.expect("nobody ended it");
/// assert!(tried.losses[tried.best].mean < 0.5 * tried.losses[0].mean);
/// assert!(tried.one_standard_error <= tried.best);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// As the solver; [`GroupLassoError::Value`] for folds that name samples which are not there, or all of them, or none.
pub fn path<T: Element, S: GroupLassoSolver<T> + Sync>(
    solver: &S,
    spec: &GroupLassoSpec,
    data: &Data<'_, T>,
    lambdas: &[f64],
    folds: &[Vec<usize>],
    stopping: &Stopping,
    watch: Watch<'_>,
) -> Result<Option<PathValidation>, GroupLassoError> {
    let samples = data.x.nrows();
    let problem = Problem::new(&GroupLassoSpec { lambda: 0.0, ..spec.clone() }, data)?;
    check_folds(&problem, folds)?;
    if lambdas.is_empty() {
        return Err(GroupLassoError::Spec { field: "lambdas", got: "none".into(), expected: "at least one".into() });
    }
    let watched = Watched::new(watch, folds.len() * lambdas.len());
    let fold = |(fold, held): (usize, &Vec<usize>)| -> Result<Option<Vec<f64>>, GroupLassoError> {
        let mut omega = data.sample_weights.map_or_else(|| vec![1.0; samples], <[f64]>::to_vec);
        for &sample in held {
            omega[sample] = 0.0;
        }
        let targets = match &data.targets {
            Targets::Values(values) => Targets::Values(values.view()),
            Targets::Labels { labels, classes } => Targets::Labels { labels, classes: *classes },
        };
        let training = Data { x: data.x.view(), targets, sample_weights: Some(&omega) };
        let mut reached = 0;
        let mut inner = |progress: &Progress| {
            let points = progress.point - std::mem::replace(&mut reached, progress.point);
            if points > 0 { watched.done(fold, points) } else { watched.ended() }
        };
        let answers = solver.solve_path(spec, &training, lambdas, stopping, &mut inner)?;
        if answers.len() < lambdas.len() || watched.done(fold, lambdas.len() - reached).is_break() {
            return Ok(None);
        }
        Ok(Some(answers.iter().map(|answer| held_out_loss(&problem, data, answer, held)).collect()))
    };
    let Some(by_fold) = side_by_side(folds, fold)? else { return Ok(None) };
    let estimate = |point: usize| Estimate::of(by_fold.iter().map(move |losses| losses[point]));
    let losses: Vec<Estimate> = (0..lambdas.len()).map(estimate).collect();
    let best = (0..lambdas.len()).fold(0, |best, at| if losses[at].mean < losses[best].mean { at } else { best });
    let enough = losses[best].mean + losses[best].error;
    let one_standard_error = losses.iter().position(|loss| loss.mean <= enough).unwrap_or(best);
    Ok(Some(PathValidation { losses, by_fold, best, one_standard_error }))
}

fn check_folds<T>(problem: &Problem<'_, T>, folds: &[Vec<usize>]) -> Result<(), GroupLassoError>
where
    T: Element,
{
    let omega = problem.response().omega();
    let wrong = |fold: &Vec<usize>| {
        let weight: f64 = fold.iter().filter_map(|sample| omega.get(*sample)).sum();
        fold.iter().any(|sample| *sample >= omega.len()) || weight <= 0.0
    };
    match folds.iter().position(wrong).or(folds.is_empty().then_some(0)) {
        Some(at) => Err(GroupLassoError::Value {
            argument: "folds",
            at: at.to_string(),
            got: folds.get(at).map_or("none".into(), |fold| format!("{} samples", fold.len())),
            expected: "samples, at least one of them with a weight",
        }),
        None => Ok(()),
    }
}

/// The weighted mean loss of held-out samples.
fn held_out_loss<T: Element>(problem: &Problem<'_, T>, data: &Data<'_, T>, answer: &Solution, held: &[usize]) -> f64 {
    let (w, b) = answer.on_raw_columns(problem.layout());
    let (response, x) = (problem.response(), data.x);
    let (mut sum, mut weight) = (0.0, 0.0);
    for &sample in held {
        let mut z = b.clone();
        for (&feature, row) in w.indices().iter().zip(w.values().rows()) {
            let x = x[[sample, feature]].to_f64();
            z.iter_mut().zip(row).for_each(|(z, w)| *z += x * w);
        }
        let (y, omega) = (response.y().row(sample).to_owned(), response.omega()[sample]);
        if omega == 0.0 {
            continue;
        }
        let own = |z: &[f64]| z.iter().zip(&y).filter(|(_, y)| **y > 0.0).map(|(z, _)| *z).sum::<f64>();
        let loss = match response.loss() {
            Loss::LeastSquares => 0.5 * z.iter().zip(&y).map(|(z, y)| (y - z) * (y - z)).sum::<f64>(),
            Loss::Multinomial => {
                let own = own(&z);
                losses::softmax(&mut z) - own
            }
        };
        sum += omega * loss;
        weight += omega;
    }
    sum / weight
}
