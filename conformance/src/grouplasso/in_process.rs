//! Any implementation of the traits as a [`Subject`], with the hygiene that a process boundary cannot give: matrices in
//! several layouts with gaps and guards of NaN, compared afterwards, and panics caught.

use crate::SubjectError;
use crate::grouplasso::subject::{
    Answer, Claim, Profile, ProxRequest, ScoresRequest, SelectRequest, SolveRequest, Subject, Watched,
};
use crate::subject::{Explain, nothing};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, ShapeBuilder, Slice};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Keep, Progress, Prox, Selection, Solution,
    Stopping, bf16, f16,
};
use tilewright_scalar::Format;

/// An implementation for one storage format.
pub trait Backend<T: Element>: Prox<T> + Selection<T> + GroupLassoSolver<T> {}

impl<T: Element, B: Prox<T> + Selection<T> + GroupLassoSolver<T>> Backend<T> for B {}

/// An implementation that takes all four storage formats.
pub trait AnyFormat: Backend<f64> + Backend<f32> + Backend<f16> + Backend<bf16> {}

impl<B: Backend<f64> + Backend<f32> + Backend<f16> + Backend<bf16>> AnyFormat for B {}

/// A backend in this process, on trial.
#[derive(Debug)]
pub struct InProcess<B> {
    backend: B,
    profile: Profile,
    parallel: bool,
    explain: Explain,
}

impl<B: AnyFormat + Sync> InProcess<B> {
    /// Puts a backend on trial under a profile.
    pub fn new(backend: B, profile: Profile) -> Self {
        Self { backend, profile, parallel: true, explain: nothing }
    }

    /// The same for a backend that uses no threads of rayon's, so that nothing is gained by trying several numbers of them.
    pub fn sequential(backend: B, profile: Profile) -> Self {
        Self { backend, profile, parallel: false, explain: nothing }
    }

    /// Asks `explain` whenever the backend reports an error, and adds what it says: a device may know more of a fault than
    /// its error code tells.
    #[must_use]
    pub fn explained_by(self, explain: Explain) -> Self {
        Self { explain, ..self }
    }

    /// Runs `job` on the backend, on so many threads if the backend uses rayon's, and survives its panics.
    fn call<R: Send>(
        &self,
        threads: Option<usize>,
        job: impl FnOnce(&B) -> Result<R, SubjectError> + Send,
    ) -> Result<R, SubjectError> {
        let threads = threads.filter(|_| self.parallel);
        let backend = &self.backend;
        let outcome = catch_unwind(AssertUnwindSafe(move || match threads {
            Some(threads) => on_threads(threads, move || job(backend)),
            None => job(backend),
        }));
        outcome
            .unwrap_or_else(|panic| Err(SubjectError::from_panic(panic)))
            .map_err(|error| error.explained(self.explain))
    }
}

/// Runs a job in a pool of its own number of threads.
fn on_threads<R: Send>(
    threads: usize,
    job: impl FnOnce() -> Result<R, SubjectError> + Send,
) -> Result<R, SubjectError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| SubjectError::Failed(error.to_string()))?;
    // Not from this thread: it may be of another pool, and would take up that one's work while it waits.
    let joined = std::thread::scope(|scope| scope.spawn(|| pool.install(job)).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Rows and columns around a matrix that nobody may touch.
const GUARD: usize = 3;

/// A matrix inside of a larger one of NaNs: by rows, by columns, or with gaps between its elements.
struct Guarded<T> {
    memory: Array2<T>,
    inner: (usize, usize),
    gap: usize,
}

impl<T: Element> Guarded<T> {
    fn new(values: ArrayView2<'_, f64>, layout: usize) -> Self {
        let (rows, columns) = values.dim();
        let gap = 1 + usize::from(layout % 3 == 2);
        let outer = (rows * gap + 2 * GUARD, columns * gap + 2 * GUARD).set_f(layout % 3 == 1);
        let mut guarded = Self { memory: Array2::from_elem(outer, T::from_f64(f64::NAN)), inner: (rows, columns), gap };
        guarded.view_mut().zip_mut_with(&values, |to, from| *to = T::from_f64(*from));
        guarded
    }

    fn view_mut(&mut self) -> ArrayViewMut2<'_, T> {
        let slices = self.slices();
        self.memory.slice_each_axis_mut(|axis| slices[axis.axis.index()])
    }

    fn view(&self) -> ArrayView2<'_, T> {
        let slices = self.slices();
        self.memory.slice_each_axis(|axis| slices[axis.axis.index()])
    }

    fn slices(&self) -> [Slice; 2] {
        let ((rows, columns), gap, start) = (self.inner, self.gap as isize, GUARD as isize);
        [rows, columns].map(|len| Slice::new(start, Some(start + len as isize * gap), gap))
    }

    /// Whether everything around and between the elements is as it was.
    fn intact(&self) -> bool {
        let nan = T::from_f64(f64::NAN).to_bits64();
        let inside =
            |at: usize, len: usize| at >= GUARD && at < GUARD + len * self.gap && (at - GUARD).is_multiple_of(self.gap);
        let guard = |(i, k): (usize, usize)| !(inside(i, self.inner.0) && inside(k, self.inner.1));
        self.memory.indexed_iter().filter(|(at, _)| guard(*at)).all(|(_, x)| x.to_bits64() == nan)
    }

    fn holds(&self, values: ArrayView2<'_, f64>) -> bool {
        self.view().iter().zip(values).all(|(x, y)| x.to_bits64() == T::from_f64(*y).to_bits64())
    }

    fn values(&self) -> Array2<f64> {
        self.view().mapv(|x| x.to_f64())
    }
}

/// A layout that differs from request to request and is the same for the same request.
fn layout(id: &str) -> usize {
    id.bytes().map(usize::from).sum()
}

fn misbehaved<R>(what: &str) -> Result<R, SubjectError> {
    Err(SubjectError::Misbehaved(what.into()))
}

fn failed(error: &GroupLassoError) -> SubjectError {
    match error {
        GroupLassoError::Unsupported { what } => SubjectError::Unsupported((*what).into()),
        other => SubjectError::Failed(other.to_string()),
    }
}

fn prox<T: Element>(
    backend: &impl Prox<T>,
    spec: &GroupLassoSpec,
    step: f64,
    w: ArrayView2<'_, f64>,
    layout: usize,
) -> Result<Array2<f64>, SubjectError> {
    let mut guarded = Guarded::<T>::new(w, layout);
    let outcome = backend.prox(spec, step, guarded.view_mut());
    if !guarded.intact() {
        return misbehaved("wrote outside of the matrix");
    }
    match outcome {
        Ok(()) => Ok(guarded.values()),
        Err(_) if !guarded.holds(w) => misbehaved("failed, but changed the matrix"),
        Err(error) => Err(failed(&error)),
    }
}

fn scores<T: Element>(
    backend: &impl Selection<T>,
    w: ArrayView2<'_, f64>,
    layout: usize,
) -> Result<Vec<f64>, SubjectError> {
    let guarded = Guarded::<T>::new(w, layout);
    let scores = backend.scores(guarded.view()).map_err(|error| failed(&error))?;
    Ok(scores.into_iter().map(Element::to_f64).collect())
}

fn select<T: Element>(backend: &impl Selection<T>, scores: &[f64], keep: Keep) -> Result<Vec<usize>, SubjectError> {
    let scores: Vec<T::Accum> = scores.iter().map(|s| <T::Accum as Element>::from_f64(*s)).collect();
    backend.select(&scores, keep).map_err(|error| failed(&error))
}

fn solve<T: Element>(
    backend: &impl GroupLassoSolver<T>,
    request: &SolveRequest<'_>,
) -> Result<Vec<Answer>, SubjectError> {
    let instance = request.instance;
    let x = Guarded::<T>::new(instance.x.view(), layout(request.id));
    let sample_weights = instance.sample_weights.as_deref();
    let data = Data { x: x.view(), targets: instance.target.view(), sample_weights };
    let stopping = Stopping { gap: request.gap, iterations: request.iterations };
    let (mut reports, mut seen) = (0, None);
    let mut watch = |progress: &Progress| {
        reports += 1;
        let interrupted = request.interrupt.is_some_and(|last| reports >= last);
        seen = Some(Watched { last: *progress, interrupted });
        if interrupted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = match request.lambdas {
        Some(lambdas) => backend.solve_path(&instance.spec, &data, lambdas, &stopping, &mut watch),
        None => backend.solve(&instance.spec, &data, &stopping, request.start, &mut watch).map(|answer| vec![answer]),
    };
    if !x.intact() || !x.holds(instance.x.view()) {
        return misbehaved("changed the features");
    }
    if request.interrupt.is_some_and(|last| reports > last) {
        return misbehaved("went on after it was interrupted");
    }
    let solutions = outcome.map_err(|error| failed(&error))?;
    let last = solutions.len().saturating_sub(1);
    let watched = |point: usize| seen.filter(|_| point == last);
    Ok(solutions.into_iter().enumerate().map(|(point, solution)| answer(solution, watched(point))).collect())
}

fn answer(solution: Solution, watched: Option<Watched>) -> Answer {
    let certificate = solution.certificate;
    let claim = Claim {
        objective: Some(certificate.objective),
        relative_gap: Some(certificate.relative_gap()),
        kkt: Some(certificate.kkt),
        active: Some(certificate.active),
    };
    Answer {
        w: solution.w,
        b: solution.b,
        claim,
        stopped: Some(solution.stopped),
        iterations: Some(solution.iterations),
        columns: Some(solution.columns),
        watched,
    }
}

/// Evaluates `$job` with `$T` standing for the element type of a storage format.
macro_rules! of_format {
    ($format:expr, $T:ident => $job:expr) => {
        match $format {
            Format::F64 => {
                type $T = f64;
                $job
            }
            Format::F16 => {
                type $T = f16;
                $job
            }
            Format::BF16 => {
                type $T = bf16;
                $job
            }
            _ => {
                type $T = f32;
                $job
            }
        }
    };
}

impl<B: AnyFormat + Sync> Subject for InProcess<B> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn prox(&mut self, request: &ProxRequest<'_>) -> Result<Array2<f64>, SubjectError> {
        let ProxRequest { id, format, spec, step, w, threads } = *request;
        self.call(threads, move |backend| of_format!(format, T => prox::<T>(backend, spec, step, w, layout(id))))
    }

    fn scores(&mut self, request: &ScoresRequest<'_>) -> Result<Vec<f64>, SubjectError> {
        let ScoresRequest { id, format, w, threads } = *request;
        self.call(threads, move |backend| of_format!(format, T => scores::<T>(backend, w, layout(id))))
    }

    fn select(&mut self, request: &SelectRequest<'_>) -> Result<Vec<usize>, SubjectError> {
        let SelectRequest { format, scores, keep, threads, .. } = *request;
        self.call(threads, move |backend| of_format!(format, T => select::<T>(backend, scores, keep)))
    }

    fn solve(&mut self, request: &SolveRequest<'_>) -> Result<Vec<Answer>, SubjectError> {
        let (request, format) = (*request, request.instance.format);
        self.call(request.threads, move |backend| of_format!(format, T => solve::<T>(backend, &request)))
    }
}
