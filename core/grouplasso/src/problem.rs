//! A problem with its data, checked: what the reference and the judge compute with, in `f64` and in plain loops.

use crate::data::{check_features, in_range};
use crate::losses::{Null, smoothness};
use crate::{Columns, Data, GroupLassoError, GroupLassoSpec, Layout, Response, SparseRows, Start};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};
use tilewright_scalar::Element;

/// A specification and data that fit each other.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::{Data, GroupLassoSpec, Loss, Problem, Targets};
/// let (x, y) = (array![[1.0f32, 0.0], [0.0, 2.0]], array![[1.0], [3.0]]);
/// let spec = GroupLassoSpec { intercept: false, ..GroupLassoSpec::rows(Loss::LeastSquares, 0.1) };
/// let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
/// let problem = Problem::new(&spec, &data)?;
/// assert_eq!(problem.lambda_max()?, 3.0); // feature 1: 2 · 3 / n
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Problem<'a, T> {
    spec: GroupLassoSpec,
    layout: Layout,
    x: ArrayView2<'a, T>,
    response: Response,
    columns: Columns,
    null: Null,
}

impl<'a, T: Element> Problem<'a, T> {
    /// Checks everything, and finds means and scales of the columns.
    ///
    /// # Errors
    /// [`GroupLassoError`], naming what does not fit.
    pub fn new(spec: &GroupLassoSpec, data: &Data<'a, T>) -> Result<Self, GroupLassoError> {
        let (samples, features) = data.x.dim();
        spec.validate(features)?;
        let layout = Layout::new(&spec.groups, features)?;
        let response = Response::new(spec.loss, samples, data.targets, data.sample_weights)?;
        check_features(data.x)?;
        let columns = Columns::of(spec.standardise, data.x, response.omega());
        let null = response.null(spec.intercept);
        Ok(Self { spec: spec.clone(), layout, x: data.x, response, columns, null })
    }

    /// The specification.
    pub fn spec(&self) -> &GroupLassoSpec {
        &self.spec
    }

    /// Its groups.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Targets and sample weights.
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// Means and scales of the columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The model without features.
    pub fn null(&self) -> &Null {
        &self.null
    }

    /// Rows of `W`, and outputs.
    pub fn shape(&self) -> (usize, usize) {
        (self.layout.rows(), self.response.outputs())
    }

    /// A feature's column, standardised.
    pub fn column(&self, feature: usize) -> Vec<f64> {
        let (mean, scale) = (self.columns.mean[feature], self.columns.scale[feature]);
        self.x.column(feature).iter().map(|x| (x.to_f64() - mean) / scale).collect()
    }

    /// `X W`, without the intercept.
    pub fn times(&self, w: &SparseRows) -> Array2<f64> {
        let mut z = Array2::zeros((self.response.samples(), self.response.outputs()));
        for (&row, values) in w.indices().iter().zip(w.values().rows()) {
            for (mut z, x) in z.rows_mut().into_iter().zip(self.column(self.layout.feature(row))) {
                z.scaled_add(x, &values);
            }
        }
        z
    }

    /// `X_gᵀ ω̂ R`: the negative gradient of the loss in a group's block, rows end to end.
    pub fn correlation(&self, group: usize, residual: ArrayView2<'_, f64>) -> Vec<f64> {
        let mut block = Vec::with_capacity(self.layout.size(group) * residual.ncols());
        for row in self.layout.rows_of(group) {
            let mut sum = vec![0.0; residual.ncols()];
            for (i, x) in self.column(self.layout.feature(row)).into_iter().enumerate() {
                let x = x * self.response.omega()[i];
                sum.iter_mut().zip(residual.row(i)).for_each(|(sum, r)| *sum += x * r);
            }
            block.extend(sum);
        }
        block
    }

    /// `√(Σ ω̂ ‖xᵢ‖²)` over a group's columns.
    pub fn size(&self, group: usize) -> f64 {
        let squares = |row| {
            let column = self.column(self.layout.feature(row));
            column.into_iter().zip(self.response.omega()).map(|(x, omega)| omega * x * x).sum::<f64>()
        };
        libm::sqrt(self.layout.rows_of(group).map(squares).sum())
    }

    /// A constant `L` with `F(W + D) ≤ F(W) + ⟨∇F(W), D⟩ + L/2 ‖D‖²`, to begin a search from, and one that is proven to be enough.
    ///
    /// The least such `L` is at most `ℓ λ_max(Xᵀ Ω̂ X)`, with `ℓ` the [`smoothness`] of a sample's loss, whether the intercept is
    /// held or minimised out. That eigenvalue is at most the trace, the sum of the groups' squared [sizes](Self::size); what is
    /// begun from is the greatest of these. Both are positive, even if all columns are zero.
    pub fn lipschitz(&self) -> (f64, f64) {
        let squares = (0..self.layout.groups()).map(|group| self.size(group)).map(|size| size * size);
        let (largest, trace) = squares.fold((0.0f64, 0.0), |(most, sum), square| (most.max(square), sum + square));
        let of = |square: f64| (smoothness(self.spec.loss) * square).max(f64::MIN_POSITIVE);
        (of(largest), of(trace))
    }

    /// The least λ at which all of `W` is zero, in closed form: the greatest dual norm among the groups at the null model. ∞ for
    /// ridge regression.
    ///
    /// # Errors
    /// [`GroupLassoError::Unsupported`] if a group has weight 0: the null model then has features, and must be fitted first.
    pub fn lambda_max(&self) -> Result<f64, GroupLassoError> {
        let zeros = Array2::zeros((self.response.samples(), self.response.outputs()));
        let residual = self.response.residual(zeros.view(), &self.null.intercept);
        let unit = GroupLassoSpec { lambda: 1.0, ..self.spec.clone() };
        let mut largest = 0.0f64;
        for group in 0..self.layout.groups() {
            let terms = self.layout.terms(&unit, group);
            if terms.is_free() {
                return Err(GroupLassoError::Unsupported { what: "lambda_max with a group of weight 0" });
            }
            largest = largest.max(terms.dual_norm(&self.correlation(group, residual.view())));
        }
        Ok(largest)
    }

    /// Whether a start fits: shapes, and coefficients that are finite.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] or [`GroupLassoError::Value`].
    pub fn check_start(&self, start: &Start) -> Result<(), GroupLassoError> {
        check_start(self.shape(), start)
    }
}

/// Whether a start has the shape `(rows of W, outputs)`, and finite coefficients.
///
/// # Errors
/// [`GroupLassoError::Shape`] or [`GroupLassoError::Value`].
pub fn check_start((rows, outputs): (usize, usize), start: &Start) -> Result<(), GroupLassoError> {
    let got = (start.w.rows(), start.w.columns(), start.b.len());
    if got != (rows, outputs, outputs) {
        return Err(GroupLassoError::Shape {
            argument: "start",
            got: format!("w {} × {}, b {}", got.0, got.1, got.2),
            expected: format!("w {rows} × {outputs}, b {outputs}"),
        });
    }
    match start.w.values().indexed_iter().find(|(_, w)| !in_range(**w)) {
        Some(((at, output), w)) => Err(GroupLassoError::Value {
            argument: "start.w",
            at: format!("{}, {output}", start.w.indices()[at]),
            got: format!("{w}"),
            expected: "a finite number of magnitude at most 2^300",
        }),
        None => Ok(()),
    }
}
