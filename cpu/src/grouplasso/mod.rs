//! The group-lasso family: working sets, coordinate descent for the zeros, Newton's method for the rest.
//!
//! | module | holds |
//! |---|---|
//! | `solver` | the outer loop: certify, choose a working set, work on it; paths |
//! | `answer` | from the solver's units to the specification's, and certificates there |
//! | `pass` | the certificate, and which groups are needed, in one reading of `X` |
//! | `features` | columns checked, centred and scaled as they are read, in tiles; `X` itself is never copied |
//! | `working_set` | the columns that are worked on, in units in which everything is near 1 |
//! | `rounds` | a round: sweeps of coordinate descent, a Newton step, the intercept |
//! | `descent` | block coordinate descent on a quadratic model: where the zeros are |
//! | `newton`, `preconditioner` | conjugate gradients on the support, and what makes them short |
//! | `target` | the losses, their derivatives, in blocks of samples |
//! | [`source`], [`streaming`] | features in files, and problems larger than memory |
//! | [`crossval`], [`head`] | folds side by side; answers in files |
//! | `gemm`, `cholesky`, `simd` | arithmetic; the only modules with `unsafe` are the first and the last |
//!
//! ```
//! use ndarray::Array2;
//! use std::ops::ControlFlow;
//! use tilewright_cpu::CpuGroupLasso;
//! use tilewright_grouplasso::{Data, GroupLassoSolver, GroupLassoSpec, Loss, Stopping, Targets, geometric_path};
//!
//! let x = Array2::from_shape_fn((60, 40), |(i, j)| (((i + 1) * (i + 3 * j + 7) * (j + 2)) as f32 * 0.37).sin());
//! let labels: Vec<u32> = (0..60).map(|i| u32::from(x[[i, 3]] > 0.3) + u32::from(x[[i, 7]] > 0.0)).collect();
//! let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 3 }, sample_weights: None };
//! let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
//! let lambdas = geometric_path(CpuGroupLasso.lambda_max(&spec, &data)?, 0.1, 10);
//! let path = CpuGroupLasso.solve_path(&spec, &data, &lambdas, &Stopping::default(), &mut |_| ControlFlow::Continue(()))?;
//! assert!(path.iter().all(|answer| answer.certificate.relative_gap() <= 1e-6));
//! assert!([3, 7].iter().all(|feature| path[9].w.indices().contains(feature)));
//! # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
//! ```

mod answer;
mod cholesky;
pub mod crossval;
mod descent;
mod features;
mod gemm;
pub mod head;
mod newton;
mod pass;
mod preconditioner;
mod rounds;
mod simd;
mod solver;
pub mod source;
pub mod streaming;
mod target;
mod working_set;

pub use streaming::{Event, Memory, Streamed, StreamingGroupLasso};

use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use solver::Solver;
use std::ops::ControlFlow;
use tilewright_grouplasso::penalty::norm;
use tilewright_grouplasso::{
    Data, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Keep, Progress, Prox, Selection, Solution, Start, Stopped,
    Stopping, prox, select,
};
use tilewright_scalar::{Element, Real, bf16, f16};

/// Rows whose scores are computed at a time.
const SCORES: usize = 1024;

/// Group lasso on the CPU, on the current rayon pool. Any number of threads gives the same bits.
///
/// One *iteration*, as in [`Stopping::iterations`], is a round of coordinate descent and a Newton step on a working set.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuGroupLasso;

impl CpuGroupLasso {
    /// The least λ at which every penalised group is zero. If there are groups of weight 0 the model with these alone is
    /// fitted first, to a relative gap of `10⁻¹⁰`.
    ///
    /// # Errors
    /// [`GroupLassoError`] for a problem or data that are ill-posed.
    pub fn lambda_max<T: Element>(&self, spec: &GroupLassoSpec, data: &Data<'_, T>) -> Result<f64, GroupLassoError> {
        let mut solver = Solver::new(&GroupLassoSpec { lambda: 1.0, ..spec.clone() }, data, None)?;
        let watch = &mut |_: &Progress| ControlFlow::Continue(());
        let start = Stopping { iterations: 0, ..Stopping::default() };
        let stopping = Stopping { gap: 1e-10, ..Stopping::default() };
        let mut lambda = 1.0;
        if !solver.has_free_groups() {
            solver.solve(lambda, None, &start, watch);
            return Ok(solver.greatest_need());
        }
        loop {
            solver.solve(lambda, None, &stopping, watch);
            let needed = solver.greatest_need();
            if needed <= lambda {
                return Ok(needed);
            }
            lambda = 2.0 * needed;
        }
    }
}

/// Implements what is written for all storage formats for each of them, here: a generic implementation would be compiled anew in
/// every crate that calls it.
macro_rules! solve_in {
    ($($format:ty),+) => {$(
        impl GroupLassoSolver<$format> for CpuGroupLasso {
            fn solve(
                &self,
                spec: &GroupLassoSpec,
                data: &Data<'_, $format>,
                stopping: &Stopping,
                start: Option<&Start>,
                watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
            ) -> Result<Solution, GroupLassoError> {
                stopping.validate()?;
                Ok(Solver::new(spec, data, start)?.solve(spec.lambda, None, stopping, watch))
            }

            fn solve_path(
                &self,
                spec: &GroupLassoSpec,
                data: &Data<'_, $format>,
                lambdas: &[f64],
                stopping: &Stopping,
                watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
            ) -> Result<Vec<Solution>, GroupLassoError> {
                path(spec, data, lambdas, stopping, watch)
            }
        }
    )+};
}

solve_in!(f64, f32, f16, bf16);

fn path<T: Element>(
    spec: &GroupLassoSpec,
    data: &Data<'_, T>,
    lambdas: &[f64],
    stopping: &Stopping,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Vec<Solution>, GroupLassoError> {
    stopping.validate()?;
    for lambda in lambdas {
        GroupLassoSpec { lambda: *lambda, ..spec.clone() }.validate(data.x.ncols())?;
    }
    let mut path: Vec<Solution> = Vec::with_capacity(lambdas.len());
    let mut solver = Solver::new(&GroupLassoSpec { lambda: 0.0, ..spec.clone() }, data, None)?;
    for (point, &lambda) in lambdas.iter().enumerate() {
        let previous = point.checked_sub(1).map(|previous| lambdas[previous]);
        let mut watch = |progress: &Progress| watch(&Progress { point, ..*progress });
        let answer = solver.solve(lambda, previous, stopping, &mut watch);
        let interrupted = answer.stopped == Stopped::Interrupted;
        path.push(answer);
        if interrupted {
            break;
        }
    }
    Ok(path)
}

impl<T: Element> Prox<T> for CpuGroupLasso {
    fn prox(&self, spec: &GroupLassoSpec, step: f64, mut w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError> {
        let layout = prox::check(spec, step, w.nrows())?;
        let (outputs, read) = (w.ncols(), w.view());
        let apply = |group: usize| {
            let rows = layout.rows_of(group);
            let mut block: Vec<f64> = rows.flat_map(|row| read.row(row).into_iter().map(|x| x.to_f64())).collect();
            prox::group(layout.terms(spec, group), step, &mut block);
            block
        };
        let blocks: Vec<Vec<f64>> = (0..layout.groups()).into_par_iter().with_min_len(64).map(apply).collect();
        for (group, block) in blocks.iter().enumerate() {
            for (row, values) in layout.rows_of(group).zip(block.chunks(outputs.max(1))) {
                w.row_mut(row).iter_mut().zip(values).for_each(|(w, x)| *w = T::from_f64(*x));
            }
        }
        Ok(())
    }
}

impl<T: Element> Selection<T> for CpuGroupLasso {
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError> {
        let of_piece = |rows: ArrayView2<'_, T>| {
            let score = |row: ndarray::ArrayView1<'_, T>| norm(&row.iter().map(|x| x.to_f64()).collect::<Vec<_>>());
            rows.rows().into_iter().map(|row| <T::Accum as Real>::from_f64(score(row))).collect::<Vec<_>>()
        };
        let pieces: Vec<_> = w.axis_chunks_iter(Axis(0), SCORES).collect();
        Ok(pieces.into_par_iter().flat_map_iter(of_piece).collect())
    }

    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        select::top(&scores.iter().map(|s| Real::to_f64(*s)).collect::<Vec<_>>(), keep)
    }
}
