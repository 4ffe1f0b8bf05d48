//! What an implementation implements.

use crate::select::Keep;
use crate::{Data, GroupLassoError, GroupLassoSpec, Progress, Solution, Start, Stopping};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use ndarray::{ArrayView2, ArrayViewMut2};
use tilewright_scalar::Element;

/// Minimises `P(W, b)`.
pub trait GroupLassoSolver<T: Element> {
    /// Solves one problem, from `start` if there is one. `watch` is called after each certificate short of the gap asked for, and may end
    /// the work: the answer then is what has been reached, from which a later call can go on.
    ///
    /// # Errors
    /// [`GroupLassoError`] for a problem or data that are ill-posed, or what the implementation lacks. A gap that cannot be
    /// reached is no error: the answer says how far it got, and [`why`](crate::Stopped) no further.
    fn solve(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError>;

    /// Solves the problem for each λ in turn, each from the answer before (`spec.lambda` is not looked at); fewer answers than
    /// λs if interrupted, the last of them unfinished.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    fn solve_path(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        lambdas: &[f64],
        stopping: &Stopping,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Solution>, GroupLassoError> {
        let mut path: Vec<Solution> = Vec::with_capacity(lambdas.len());
        for (point, &lambda) in lambdas.iter().enumerate() {
            let spec = GroupLassoSpec { lambda, ..spec.clone() };
            let start = path.last().map(Solution::start);
            let mut watch = |progress: &Progress| watch(&Progress { point, ..*progress });
            path.push(self.solve(&spec, data, stopping, start.as_ref(), &mut watch)?);
            if path.last().is_some_and(|last| last.stopped == crate::Stopped::Interrupted) {
                break;
            }
        }
        Ok(path)
    }
}

/// The proximal operator of the whole penalty.
pub trait Prox<T: Element> {
    /// Replaces `w`, of [`Layout::rows`](crate::Layout::rows) rows, by `argmin_v ½ ‖v − w‖² + step · Σ h_g(v_g)`.
    ///
    /// # Errors
    /// [`GroupLassoError`] if the problem is ill-posed, `step` is not a finite positive number, or `w` has another number of
    /// rows; then `w` has not changed. Numbers that are not finite are no error: NaN, or an infinity, gives NaN in its group.
    fn prox(&self, spec: &GroupLassoSpec, step: f64, w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError>;
}

/// Head2Toe's scoring and selection.
pub trait Selection<T: Element> {
    /// `‖Wᵢ‖` for every row.
    ///
    /// # Errors
    /// Only what the implementation lacks, or memory.
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError>;

    /// The features kept, ascending: those with the greatest scores, of equal ones the least indices first.
    ///
    /// # Errors
    /// As [`select::top`](crate::select::top).
    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError>;
}

/// `count` values of λ, from `largest` down to `ratio · largest`, each the same multiple of the one before.
///
/// ```
/// let path = tilewright_grouplasso::geometric_path(8.0, 0.125, 4);
/// assert_eq!(path.len(), 4);
/// assert!((path[1] - 4.0).abs() < 1e-14 && (path[3] - 1.0).abs() < 1e-14);
/// ```
pub fn geometric_path(largest: f64, ratio: f64, count: usize) -> Vec<f64> {
    let last = count.saturating_sub(1).max(1) as f64;
    (0..count).map(|point| largest * libm::pow(ratio, point as f64 / last)).collect()
}
