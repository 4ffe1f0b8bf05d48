//! The accelerated proximal gradient method on the device: FISTA (Beck and Teboulle 2009) with backtracking, and the restart of
//! O'Donoghue and Candès (2015), in `f64`.
//!
//! `X`, `W` and everything of their size stay on the device, and so do the two products an iteration consists of. What has the
//! size of the predictions, `n × C` — the loss, its residual, the best intercept — is done on the host by the definitions of
//! `tilewright-grouplasso`, and so is the fold of a certificate, whose `Xᵀ ω̂ R` comes from the device.

use super::kernels::{ColumnsArgument, SIDE, THREADS};
use super::resident::{ResidentGroupLasso, ResidentGroups};
use crate::{Buffer, Config, CudaError};
use ndarray::{Array2, Axis};
use std::ops::ControlFlow;
use tilewright_grouplasso::certificate::Fold;
use tilewright_grouplasso::{
    Data, GroupLassoError, GroupLassoSpec, Problem, Progress, Solution, SparseRows, Start, Stopped, Stopping,
};
use tilewright_scalar::Element;

/// Iterations between two certificates.
const CHECK: usize = 10;
/// Certificates without a better gap after which no more is to be hoped for.
const PATIENCE: usize = 500;

pub(super) fn solve<T: Element>(
    resident: &mut ResidentGroupLasso,
    spec: &GroupLassoSpec,
    data: &Data<'_, T>,
    stopping: &Stopping,
    start: Option<&Start>,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Solution, GroupLassoError> {
    stopping.validate()?;
    let problem = Problem::new(spec, data)?;
    let mut run = Run::new(resident, &problem, data, start)?;
    let (mut best, mut since_best) = (run.certified()?, 0);
    loop {
        let (relative_gap, active) = (best.certificate.relative_gap(), best.certificate.active);
        let progress = Progress { point: 0, iterations: run.iterations, relative_gap, active };
        if let Some(stopped) = stopping.verdict(&progress, since_best >= PATIENCE, watch) {
            return Ok(Solution { stopped, iterations: run.iterations, ..best });
        }
        for _ in 0..CHECK.min(stopping.iterations - run.iterations) {
            run.iterate()?;
        }
        let now = run.certified()?;
        since_best += 1;
        if now.certificate.gap() < best.certificate.gap() || !best.certificate.gap().is_finite() {
            (best, since_best) = (now, 0);
        }
    }
}

/// `X` on the device, as narrow as it can be without a change: `f64` or `f32`.
enum Features {
    Wide(Buffer<f64>),
    Narrow(Buffer<f32>),
    /// `X` as the problem means it, a column for each row of `W`: what a plain product needs.
    #[cfg(feature = "cublas")]
    Standardised(Buffer<f64>),
}

impl Features {
    /// Column after column.
    #[cfg_attr(not(feature = "cublas"), allow(unused_variables))]
    fn new<T: Element>(
        resident: &ResidentGroupLasso,
        problem: &Problem<'_, T>,
        data: &Data<'_, T>,
    ) -> Result<Self, CudaError> {
        let (device, columns) = (resident.device(), data.x.t());
        #[cfg(feature = "cublas")]
        if resident.blas.is_some() {
            let (layout, of) = (problem.layout(), problem.columns());
            let column = |row: usize| {
                let feature = layout.feature(row);
                let (mean, scale) = (of.mean[feature], of.scale[feature]);
                data.x.column(feature).to_owned().into_iter().map(move |x| (x.to_f64() - mean) / scale)
            };
            let x: Vec<f64> = (0..layout.rows()).flat_map(column).collect();
            return Ok(Self::Standardised(Buffer::from_slice(device, "features", &x)?));
        }
        if T::FORMAT.name == "f64" {
            let x: Vec<f64> = columns.iter().map(|x| x.to_f64()).collect();
            return Ok(Self::Wide(Buffer::from_slice(device, "features", &x)?));
        }
        let x: Vec<f32> = columns.iter().map(|x| x.to_f64() as f32).collect();
        Ok(Self::Narrow(Buffer::from_slice(device, "features", &x)?))
    }
}

#[cfg(feature = "cublas")]
fn blas(resident: &mut ResidentGroupLasso) -> Result<&mut super::Cublas, CudaError> {
    let gone = || CudaError::Library { library: "cuBLAS", problem: "it was there when the solver began".into() };
    resident.blas.as_mut().ok_or_else(gone)
}

/// FISTA's state: `W`, the extrapolated point `V`, and `t`.
struct Run<'r, 'p, 'a, T> {
    resident: &'r mut ResidentGroupLasso,
    problem: &'p Problem<'a, T>,
    features: Features,
    mean: Buffer<f64>,
    scale: Buffer<f64>,
    /// The column of each row of `W`, where rows are copies.
    copies: Option<Buffer<u64>>,
    groups: ResidentGroups,
    w: Buffer<f64>,
    v: Buffer<f64>,
    next: Buffer<f64>,
    /// `Xᵀ ω̂ R`.
    downhill: Buffer<f64>,
    /// `X W`, or `ω̂ R`.
    predictions: Buffer<f64>,
    sums: Buffer<f64>,
    b: Vec<f64>,
    t: f64,
    /// The estimate of the gradient's Lipschitz constant, and what is proven to be enough.
    lipschitz: f64,
    enough: f64,
    iterations: usize,
}

/// Which matrix of `W`'s shape.
#[derive(Clone, Copy)]
enum Which {
    Iterate,
    Extrapolated,
    Next,
}

impl<'r, 'p, 'a, T: Element> Run<'r, 'p, 'a, T> {
    fn new(
        resident: &'r mut ResidentGroupLasso,
        problem: &'p Problem<'a, T>,
        data: &Data<'_, T>,
        start: Option<&Start>,
    ) -> Result<Self, GroupLassoError> {
        let (layout, (rows, outputs)) = (problem.layout(), problem.shape());
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
        let copies = layout.has_copies().then(|| (0..rows).map(|row| layout.feature(row) as u64).collect::<Vec<_>>());
        let w: Vec<f64> = w.into_iter().collect();
        let blocks = resident.many(w.len()).grid[0] as usize;
        let device = &resident.device().clone();
        Ok(Self {
            features: Features::new(resident, problem, data)?,
            resident,
            problem,
            mean: Buffer::from_slice(device, "means", &problem.columns().mean)?,
            scale: Buffer::from_slice(device, "scales", &problem.columns().scale)?,
            copies: copies.map(|copies| Buffer::from_slice(device, "copies", &copies)).transpose()?,
            groups: ResidentGroups::new(device, problem.spec(), layout)?,
            v: Buffer::from_slice(device, "weights", &w)?,
            next: Buffer::zeros(device, "weights", w.len())?,
            downhill: Buffer::zeros(device, "gradient", w.len())?,
            predictions: Buffer::zeros(device, "predictions", problem.response().samples() * outputs)?,
            sums: Buffer::zeros(device, "partial sums", 3 * blocks)?,
            w: Buffer::from_slice(device, "weights", &w)?,
            b,
            t: 1.0,
            lipschitz,
            enough,
            iterations: 0,
        })
    }

    fn columns(&self, (x, wide): (u64, u32), transposed: bool) -> ColumnsArgument {
        let (rows, outputs) = self.problem.shape();
        ColumnsArgument {
            x,
            mean: self.mean.address(),
            scale: self.scale.address(),
            features: self.copies.as_ref().map_or(0, Buffer::address),
            samples: self.problem.response().samples() as u64,
            rows: rows as u64,
            outputs: outputs as u64,
            wide,
            transposed: u32::from(transposed),
        }
    }

    /// Blocks of the product for so many rows of the result.
    fn squares(height: usize, outputs: usize) -> Config {
        Config::grid([height.div_ceil(SIDE).max(1) as u32, outputs.div_ceil(SIDE).max(1) as u32, 1], THREADS)
    }

    /// `X W`, on the host.
    fn times(&mut self, which: Which) -> Result<Array2<f64>, GroupLassoError> {
        let (samples, outputs) = (self.problem.response().samples(), self.problem.shape().1);
        let right = match which {
            Which::Iterate => &self.w,
            Which::Extrapolated => &self.v,
            Which::Next => &self.next,
        };
        let x = match &self.features {
            Features::Wide(x) => (x.address(), 1),
            Features::Narrow(x) => (x.address(), 0),
            #[cfg(feature = "cublas")]
            Features::Standardised(x) => {
                // Rows end to end are the columns of the transpose: (X W)ᵀ = Wᵀ Xᵀ.
                let sizes = [outputs, samples, self.problem.shape().0];
                blas(self.resident)?.product(sizes, right, (x, true), &mut self.predictions)?;
                return self.predicted();
            }
        };
        let launch = self.resident.kernels.product.launch(Self::squares(samples, outputs));
        let launch = launch.value(self.columns(x, false)).read(right).write(&mut self.predictions);
        // SAFETY: `X` has a column for each row of `W`, `W` a row for each, and the predictions a row for each sample.
        unsafe { launch.run() }?;
        self.predicted()
    }

    fn predicted(&self) -> Result<Array2<f64>, GroupLassoError> {
        let (samples, outputs) = (self.problem.response().samples(), self.problem.shape().1);
        let z = self.predictions.to_vec()?;
        Array2::from_shape_vec((samples, outputs), z)
            .map_err(|error| GroupLassoError::Backend { problem: error.to_string() })
    }

    /// `Xᵀ ω̂ R`, which stays on the device.
    fn correlate(&mut self, residual: &Array2<f64>) -> Result<(), CudaError> {
        let omega = self.problem.response().omega();
        let residuals = residual.axis_iter(Axis(0)).zip(omega);
        let weighted: Vec<f64> =
            residuals.flat_map(|(row, omega)| row.iter().map(|r| omega * r).collect::<Vec<_>>()).collect();
        self.predictions.upload(&weighted)?;
        let (rows, outputs) = self.problem.shape();
        if rows * outputs == 0 {
            return Ok(());
        }
        let x = match &self.features {
            Features::Wide(x) => (x.address(), 1),
            Features::Narrow(x) => (x.address(), 0),
            #[cfg(feature = "cublas")]
            Features::Standardised(x) => {
                let sizes = [outputs, rows, self.problem.response().samples()];
                return blas(self.resident)?.product(sizes, &self.predictions, (x, false), &mut self.downhill);
            }
        };
        let launch = self.resident.kernels.product.launch(Self::squares(rows, outputs));
        let launch = launch.value(self.columns(x, true)).read(&self.predictions).write(&mut self.downhill);
        // SAFETY: as above, with the result of `W`'s shape.
        unsafe { launch.run() }
    }

    /// The loss at predictions, with the best intercept and the residual there; it is sought from `b`, and is no worse than it.
    fn loss(&self, z: &Array2<f64>, b: &[f64]) -> (f64, Vec<f64>, Array2<f64>) {
        let response = self.problem.response();
        let b = if self.problem.spec().intercept { response.best_intercept(z.view(), b) } else { b.to_vec() };
        (response.value(z.view(), &b), b.clone(), response.residual(z.view(), &b))
    }

    /// Beck and Teboulle's (4.1) to (4.3), the step found by backtracking. The model bounds the loss of the next iterate at
    /// whatever intercept was found here, the best or not, and so the search for the next one begins there.
    fn iterate(&mut self) -> Result<(), GroupLassoError> {
        self.iterations += 1;
        let z = self.times(Which::Extrapolated)?;
        let (value, b, residual) = self.loss(&z, &self.b);
        self.correlate(&residual)?;
        let turn = loop {
            let [along, squares, turn] = self.step()?;
            // Where the constant is proven the comparison can only tell of rounding.
            if self.lipschitz >= self.enough {
                break turn;
            }
            let model = value - along + 0.5 * self.lipschitz * squares;
            let z = self.times(Which::Next)?;
            if self.loss(&z, &b).0 <= model + 1e-12 * value.abs() {
                break turn;
            }
            self.lipschitz = (2.0 * self.lipschitz).min(self.enough);
        };
        self.b = b;
        let uphill = turn > 0.0;
        let t = if uphill { 1.0 } else { 0.5 * (1.0 + (1.0 + 4.0 * self.t * self.t).sqrt()) };
        self.extrapolate(if uphill { 0.0 } else { (self.t - 1.0) / t })?;
        self.t = t;
        Ok(())
    }

    /// The next iterate from `V`, and the sums that judge it.
    fn step(&mut self) -> Result<[f64; 3], CudaError> {
        let (n, kernels) = (self.w.len(), &self.resident.kernels);
        if n == 0 {
            return Ok([0.0; 3]);
        }
        let (grid, step) = (self.resident.many(n), 1.0 / self.lipschitz);
        let launch = kernels.axpy.launch(grid).write(&mut self.next).read(&self.v).read(&self.downhill);
        // SAFETY: all three have `n` numbers.
        unsafe { launch.value(step).value(n as u64).run() }?;
        self.resident.prox(&self.groups, step, &mut self.next, self.problem.shape().1)?;
        let launch = kernels.dots.launch(grid).read(&self.downhill).read(&self.next).read(&self.v).read(&self.w);
        // SAFETY: all four have `n` numbers, and there is room for three sums a block.
        unsafe { launch.value(n as u64).write(&mut self.sums).run() }?;
        let mut total = [0.0; 3];
        for part in self.sums.to_vec()?.chunks_exact(3) {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        Ok(total)
    }

    /// `V ← next + factor · (next − W)`, `W ← next`.
    fn extrapolate(&mut self, factor: f64) -> Result<(), CudaError> {
        let n = self.w.len();
        if n == 0 {
            return Ok(());
        }
        let launch = self.resident.kernels.extrapolate.launch(self.resident.many(n)).write(&mut self.v);
        // SAFETY: all three have `n` numbers.
        unsafe { launch.write(&mut self.w).read(&self.next).value(factor).value(n as u64).run() }
    }

    /// The answer as it stands, with its certificate.
    fn certified(&mut self) -> Result<Solution, GroupLassoError> {
        let (layout, shape) = (self.problem.layout(), self.problem.shape());
        let z = self.times(Which::Iterate)?;
        let (_, b, residual) = self.loss(&z, &self.b);
        self.correlate(&residual)?;
        let matrix = |values: Vec<f64>| {
            Array2::from_shape_vec(shape, values)
                .map_err(|error| GroupLassoError::Backend { problem: error.to_string() })
        };
        let (w, u) = (matrix(self.w.to_vec()?)?, matrix(self.downhill.to_vec()?)?);
        let mut fold = Fold::new(self.problem.spec(), layout, self.problem.response(), self.problem.null());
        for group in 0..layout.groups() {
            let size = if fold.is_free(group) { self.problem.size(group) } else { 0.0 };
            fold.group(group, &layout.gather(w.view(), group), &layout.gather(u.view(), group), size);
        }
        let certificate = fold.finish(z.view(), &b, residual.view());
        let (w, columns) = (SparseRows::from_dense(w.view()), self.problem.columns().clone());
        Ok(Solution { w, b, certificate, iterations: self.iterations, stopped: Stopped::Iterations, columns })
    }
}
