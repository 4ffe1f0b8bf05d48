//! Linear classifiers by ridge regression: a multinomial problem with [`Penalty::ElasticNet`]`{ alpha: 0 }`, for any number of
//! features at the price of at most as many as there are samples.
//!
//! The minimising `W` of `F(ZW + 1bᵀ) + λ/2 ‖W‖²` lies in the span of the samples, `W = Zᵀα`. With `ZZᵀ = LLᵀ`, and `V = Lᵀα`,
//! `ZW = LV` and `‖W‖ = ‖V‖`: the same problem, with as many features as `L` has columns, the rank of `Z`.

use crate::{
    Certificate, Data, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Loss, Penalty, Solution, Stopping, Targets,
};
use alloc::vec::Vec;
use core::ops::ControlFlow;
use ndarray::{Array2, ArrayView2, Axis, ShapeBuilder};

/// A classifier for features as they were given to [`classifiers`].
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    /// One row a feature, one column a class.
    pub weights: Array2<f64>,
    /// One a class.
    pub intercept: Vec<f64>,
    /// How near to the minimum: of the problem as it was solved, in `V`, which is worth as much in `W`.
    pub certificate: Certificate,
    /// Iterations, as the solver counts them.
    pub iterations: usize,
}

/// The problem that is solved.
pub fn problem(lambda: f64) -> GroupLassoSpec {
    GroupLassoSpec { penalty: Penalty::ElasticNet { alpha: 0.0 }, ..GroupLassoSpec::rows(Loss::Multinomial, lambda) }
}

/// Classifiers of `classes` classes with penalties `λ/2 ‖W‖²`, each solved from the one before: from strong to weak is
/// fastest.
///
/// # Errors
/// [`GroupLassoError`], as the solver; [`GroupLassoError::Spec`] for a λ that is not positive.
pub fn classifiers<S: GroupLassoSolver<f64>>(
    solver: &S,
    z: ArrayView2<'_, f64>,
    labels: &[u32],
    classes: usize,
    lambdas: &[f64],
    stopping: &Stopping,
) -> Result<Vec<Classifier>, GroupLassoError> {
    if let Some(lambda) = lambdas.iter().find(|lambda| !(lambda.is_finite() && **lambda > 0.0)) {
        return Err(crate::spec::spec("ridge", alloc::format!("{lambda}"), "a finite number, more than 0"));
    }
    crate::data::check_features(z)?;
    let space = (z.ncols() > z.nrows()).then(|| RowSpace::of(z));
    let x = space.as_ref().map_or(z, |space| space.samples());
    let data = Data { x, targets: Targets::Labels { labels, classes }, sample_weights: None };
    let path = solver.solve_path(&problem(1.0), &data, lambdas, stopping, &mut |_| ControlFlow::Continue(()))?;
    let weights = |v: Array2<f64>| space.as_ref().map_or(v.clone(), |space| space.back(z, v));
    Ok(path.iter().map(|answer| classifier(weights(answer.w.to_dense()), answer)).collect())
}

fn classifier(weights: Array2<f64>, answer: &Solution) -> Classifier {
    Classifier { weights, intercept: answer.b.clone(), certificate: answer.certificate, iterations: answer.iterations }
}

/// Coordinates of samples in the space they span.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::ridge::RowSpace;
/// let z = array![[3.0, 0.0, 4.0], [6.0, 0.0, 8.0], [0.0, 2.0, 0.0]];
/// let space = RowSpace::of(z.view());
/// assert_eq!(space.samples().dim(), (3, 2)); // the second is twice the first
/// let v = array![[1.0], [2.0]];
/// let w = space.back(z.view(), v.clone());
/// assert!((z.dot(&w) - space.samples().dot(&v)).iter().all(|apart| apart.abs() < 1e-12));
/// assert!(((&w * &w).sum() - (&v * &v).sum()).abs() < 1e-12);
/// ```
#[derive(Clone, Debug)]
pub struct RowSpace {
    /// `L`, `n × rank`.
    factor: Array2<f64>,
    /// The samples in whose span the others lie; their rows of `L` are a lower triangle.
    pivots: Vec<usize>,
}

impl RowSpace {
    /// Of the rows of `z`, by Cholesky's method with the largest pivot first; what is left of a row below rounding ends it.
    pub fn of(z: ArrayView2<'_, f64>) -> Self {
        let gram = z.dot(&z.t());
        let n = gram.nrows();
        let mut left: Vec<f64> = gram.diag().to_vec();
        let largest = left.iter().fold(0.0f64, |most, x| most.max(*x));
        let (mut pivots, mut columns) = (Vec::new(), Vec::<Vec<f64>>::new());
        while pivots.len() < n {
            let (pivot, size) = left.iter().enumerate().fold((0, 0.0), |a, (i, &x)| if x > a.1 { (i, x) } else { a });
            if size <= n as f64 * f64::EPSILON * largest {
                break;
            }
            let root = libm::sqrt(size);
            let mut column = gram.row(pivot).to_vec();
            for earlier in &columns {
                let factor = earlier[pivot];
                column.iter_mut().zip(earlier).for_each(|(x, e)| *x -= factor * e);
            }
            for (i, x) in column.iter_mut().enumerate() {
                // Earlier pivots are all used up.
                *x = if i == pivot {
                    root
                } else if left[i] == 0.0 {
                    0.0
                } else {
                    *x / root
                };
                left[i] = if i == pivot { 0.0 } else { (left[i] - *x * *x).max(0.0) };
            }
            pivots.push(pivot);
            columns.push(column);
        }
        if pivots.is_empty() {
            // Nothing but zeros: a feature that is one, since a problem needs some.
            (pivots, columns) = (alloc::vec![0], alloc::vec![alloc::vec![0.0; n]]);
        }
        let factor = Array2::from_shape_fn((n, columns.len()).f(), |(i, k)| columns[k][i]);
        Self { factor, pivots }
    }

    /// `L`: a row for each sample.
    pub fn samples(&self) -> ArrayView2<'_, f64> {
        self.factor.view()
    }

    /// `W = Zᵀα` for `V = Lᵀα`, of the same `z`.
    pub fn back(&self, z: ArrayView2<'_, f64>, mut v: Array2<f64>) -> Array2<f64> {
        // Lᵀα = V, with nothing of α but at the pivots: solved from the last to the first.
        for k in (0..self.pivots.len()).rev() {
            let root = self.factor[[self.pivots[k], k]];
            let solved: Vec<f64> = v.row(k).iter().map(|v| if root > 0.0 { v / root } else { 0.0 }).collect();
            for earlier in 0..k {
                let factor = self.factor[[self.pivots[k], earlier]];
                v.row_mut(earlier).iter_mut().zip(&solved).for_each(|(v, a)| *v -= factor * a);
            }
            v.row_mut(k).iter_mut().zip(solved).for_each(|(v, a)| *v = a);
        }
        z.select(Axis(0), &self.pivots).t().dot(&v)
    }
}

/// The class of the greatest logit of each sample of `z`, and whether it is its label: how many are.
pub fn right(classifier: &Classifier, z: ArrayView2<'_, f64>, labels: impl Iterator<Item = u32>) -> usize {
    let logits = z.dot(&classifier.weights);
    let of = |row: ndarray::ArrayView1<'_, f64>| {
        crate::head::largest(row.iter().zip(&classifier.intercept).map(|(z, b)| z + b))
    };
    logits.rows().into_iter().zip(labels).filter(|(row, label)| of(*row) == *label).count()
}
