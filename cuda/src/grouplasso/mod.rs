//! The group-lasso family on the device.
//!
//! | module | holds |
//! |---|---|
//! | `kernels` | the kernels of `grouplasso.cu` and what they are given |
//! | [`ResidentGroupLasso`] | proximal operators, scores and selection for data that stay on the device |
//! | `Cublas` | with the feature `cublas`: the solver's products by NVIDIA's library |
//! | `solver` | the accelerated proximal gradient method, with its certificate |
//! | [`CudaGroupLasso`] | the traits of `tilewright-grouplasso`, for data on the host |
//!
//! Proximal operators, scores and selections have the bits that the definition gives. The solver's products are sums in the
//! order of the arrays, so its answers are the same in every run and on every device; with cuBLAS they are what cuBLAS makes
//! them, and certified all the same.

#[cfg(feature = "cublas")]
mod cublas;
mod kernels;
mod resident;
mod solver;

#[cfg(feature = "cublas")]
pub use cublas::Cublas;
pub use kernels::UNIT;
pub use resident::{ResidentGroupLasso, ResidentGroups};

use crate::{Buffer, CudaError, Device};
use ndarray::{ArrayView2, ArrayViewMut2};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tilewright_grouplasso::{
    Data, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Keep, Progress, Prox, Selection, Solution, Start,
    Stopping, prox,
};
use tilewright_scalar::{Element, Real};

impl From<CudaError> for GroupLassoError {
    fn from(error: CudaError) -> Self {
        Self::Backend { problem: error.to_string() }
    }
}

/// Group lasso on a GPU, for data on the host.
///
/// ```no_run
/// use ndarray::array;
/// use tilewright_cuda::{CudaGroupLasso, Device};
/// use tilewright_grouplasso::{GroupLassoSpec, Loss, Prox};
///
/// let cuda = CudaGroupLasso::new(&Device::open(0)?)?;
/// let mut w = array![[3.0f32, 4.0], [0.1, 0.2]];
/// cuda.prox(&GroupLassoSpec::rows(Loss::Multinomial, 1.0), 1.0, w.view_mut())?;
/// assert_eq!(w, array![[2.4, 3.2], [0.0, 0.0]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CudaGroupLasso {
    /// One at a time: there is one stream.
    resident: Mutex<ResidentGroupLasso>,
}

impl CudaGroupLasso {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`CudaError::Load`], [`CudaError::OutOfMemory`].
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        Ok(Self { resident: Mutex::new(ResidentGroupLasso::new(device)?) })
    }

    /// With the solver's products by cuBLAS.
    ///
    /// # Errors
    /// [`CudaError::Load`], [`CudaError::OutOfMemory`].
    #[cfg(feature = "cublas")]
    pub fn with_cublas(device: &Device, blas: Cublas) -> Result<Self, CudaError> {
        Ok(Self { resident: Mutex::new(ResidentGroupLasso::new(device)?.with_cublas(blas)) })
    }

    fn resident(&self) -> MutexGuard<'_, ResidentGroupLasso> {
        // Whoever panicked left buffers that are written over before they are read, and a histogram that is empty between
        // launches.
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Element> Prox<T> for CudaGroupLasso {
    fn prox(&self, spec: &GroupLassoSpec, step: f64, mut w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError> {
        let layout = prox::check(spec, step, w.nrows())?;
        let resident = self.resident();
        let groups = ResidentGroups::new(resident.device(), spec, &layout)?;
        let exact: Vec<f64> = w.iter().map(|x| x.to_f64()).collect();
        let mut there = Buffer::from_slice(resident.device(), "w", &exact)?;
        resident.prox(&groups, step, &mut there, w.ncols())?;
        let exact = there.to_vec()?;
        w.iter_mut().zip(exact).for_each(|(w, x)| *w = T::from_f64(x));
        Ok(())
    }
}

impl<T: Element> Selection<T> for CudaGroupLasso {
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError> {
        let resident = self.resident();
        let exact: Vec<f64> = w.iter().map(|x| x.to_f64()).collect();
        let there = Buffer::from_slice(resident.device(), "w", &exact)?;
        let mut scores = Buffer::uninit(resident.device(), "scores", w.nrows())?;
        resident.scores(&there, w.ncols(), &mut scores)?;
        Ok(scores.to_vec()?.into_iter().map(<T::Accum as Real>::from_f64).collect())
    }

    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        keep.validate()?;
        let exact: Vec<f64> = scores.iter().map(|s| Real::to_f64(*s)).collect();
        if let Some(at) = exact.iter().position(|s| s.is_nan()) {
            let (at, got) = (at.to_string(), "NaN".into());
            return Err(GroupLassoError::Value { argument: "scores", at, got, expected: "a number" });
        }
        let mut resident = self.resident();
        let there = Buffer::from_slice(resident.device(), "scores", &exact)?;
        let mut kept = Buffer::uninit(resident.device(), "kept features", keep.of(exact.len()))?;
        resident.top(&there, &mut kept)?;
        Ok(kept.to_vec()?.into_iter().map(|at| at as usize).collect())
    }
}

impl<T: Element> GroupLassoSolver<T> for CudaGroupLasso {
    fn solve(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError> {
        solver::solve(&mut self.resident(), spec, data, stopping, start, watch)
    }
}
