//! Cross-validation: what it chooses from, one fold of it, and what it chose.

use crate::select::Keep;
use crate::spec::spec;
use crate::{GroupLassoError, GroupLassoSolver, Head2Toe, ridge, sampling};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use ndarray::{Array2, Array3, Axis};
use tilewright_scalar::Element;

/// Values of λ to try.
#[derive(Clone, Debug, PartialEq)]
pub enum Lambdas {
    /// Multiples of the least λ at which no feature is active.
    OfMax(Vec<f64>),
    /// As they are.
    Values(Vec<f64>),
}

/// What cross-validation chooses from.
///
/// ```
/// use tilewright_grouplasso::grid::Grid;
/// let grid = Grid::default();
/// assert_eq!(grid.choices(), 135);
/// assert!(Grid { ridge: vec![], ..grid }.validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// λ of the scores.
    pub lambdas: Lambdas,
    /// How many features are kept.
    pub keep: Vec<Keep>,
    /// λ of the second head's ridge penalty, from strong to weak.
    pub ridge: Vec<f64>,
}

/// Target sizes `T` of the paper's experiments with a ResNet-50.
pub const PAPER_TARGETS: [usize; 3] = [512, 2048, 8192];

impl Default for Grid {
    /// Three λs of λ_max, nine shares, five strengths.
    fn default() -> Self {
        Self {
            lambdas: Lambdas::OfMax(vec![0.3, 0.1, 0.03]),
            keep: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].map(Keep::Fraction).to_vec(),
            ridge: vec![30.0, 3.0, 0.3, 0.03, 0.003],
        }
    }
}

impl Grid {
    /// λ and shares in the ranges the paper's code and examples show: `10⁻³` to `10⁻⁵` and 0.05 to 20 %, for unit-length
    /// layers that are not standardised. Learning rates and numbers of steps have no place in a solved problem.
    pub fn paper() -> Self {
        Self { lambdas: Lambdas::Values(vec![1e-3, 1e-4, 1e-5]), ..Self::default() }
    }

    /// Combinations.
    pub fn choices(&self) -> usize {
        let (Lambdas::OfMax(lambdas) | Lambdas::Values(lambdas)) = &self.lambdas;
        lambdas.len() * self.keep.len() * self.ridge.len()
    }

    /// Whether there is a choice, of numbers in their ranges.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`].
    pub fn validate(&self) -> Result<(), GroupLassoError> {
        let (Lambdas::OfMax(lambdas) | Lambdas::Values(lambdas)) = &self.lambdas;
        for (field, values) in [("lambdas", lambdas), ("ridge", &self.ridge)] {
            let wrong = values.iter().find(|x| !(x.is_finite() && **x > 0.0)).map(|x| x.to_string());
            if let Some(got) = wrong.or(values.is_empty().then(|| "none".into())) {
                return Err(spec(field, got, "finite numbers, more than 0"));
            }
        }
        if self.keep.is_empty() {
            return Err(spec("keep", "none".into(), "at least one"));
        }
        self.keep.iter().try_for_each(|keep| keep.validate())
    }
}

/// A member of a [`Grid`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Which λ.
    pub lambda: usize,
    /// Which share.
    pub keep: usize,
    /// Which strength of the ridge penalty.
    pub ridge: usize,
    /// Held-out samples that it predicts, over all folds.
    pub right: u32,
}

impl Choice {
    /// The one with the most right answers in the sum of [`Head2Toe::fold`](crate::Head2Toe::fold)'s tables; of equal ones the one with the largest
    /// λ, then the fewest features, then the strongest penalty, if the grid has that order.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] if there is no table, or one of another shape, or an empty one.
    pub fn best(tables: &[Array3<u32>]) -> Result<Self, GroupLassoError> {
        let shape = tables.first().map_or((0, 0, 0), |table| table.dim());
        if tables.iter().any(|table| table.dim() != shape) || shape.0 * shape.1 * shape.2 == 0 {
            return Err(GroupLassoError::Shape {
                argument: "tables",
                got: format!("{} of them, the first {shape:?}", tables.len()),
                expected: "at least one, all of one shape that is not empty".into(),
            });
        }
        let sum = tables.iter().fold(Array3::zeros(shape), |sum, table| sum + table);
        let mut best = Self { lambda: 0, keep: 0, ridge: 0, right: 0 };
        for ((lambda, keep, ridge), &right) in sum.indexed_iter() {
            if right > best.right {
                best = Self { lambda, keep, ridge, right };
            }
        }
        Ok(best)
    }
}

impl<U: Element> Head2Toe<'_, U> {
    /// How many samples of `held` each of some heads predicts, trained on the others and the features `kept`, one for each
    /// strength of the ridge penalty.
    ///
    /// # Errors
    /// [`GroupLassoError`], as the solver.
    pub fn right<S: GroupLassoSolver<f64>>(
        &self,
        solver: &S,
        kept: &[usize],
        ridge: &[f64],
        held: &[usize],
    ) -> Result<Vec<u32>, GroupLassoError> {
        self.check_held(held)?;
        let x = self.kept(kept)?;
        let train = sampling::others(self.labels.len(), held);
        let (inside, outside) = (x.select(Axis(0), &train), x.select(Axis(0), held));
        let columns = self.settings.normalise.columns(self.settings.standardise, inside.view());
        let inside: Array2<f64> = columns.apply(inside.view())?;
        let outside: Array2<f64> = columns.apply(outside.view())?;
        let labels: Vec<u32> = train.iter().map(|&sample| self.labels[sample]).collect();
        let heads = ridge::classifiers(solver, inside.view(), &labels, self.classes, ridge, &self.settings.head)?;
        let held_labels = || held.iter().map(|&sample| self.labels[sample]);
        Ok(heads.iter().map(|head| ridge::right(head, outside.view(), held_labels()) as u32).collect())
    }

    /// For each λ, number kept and ridge strength of a grid, how many samples of `held` are predicted by what the others
    /// teach: one fold of a cross-validation. Folds know nothing of each other, so they can be had side by side.
    ///
    /// # Errors
    /// [`GroupLassoError`], as the solver, or for a grid that is not valid.
    pub fn fold<S: GroupLassoSolver<U> + GroupLassoSolver<f64>>(
        &self,
        solver: &S,
        grid: &Grid,
        lambdas: &[f64],
        held: &[usize],
    ) -> Result<Array3<u32>, GroupLassoError> {
        grid.validate()?;
        let rankings = self.rank(solver, lambdas, held, &mut |_| ControlFlow::Continue(()))?;
        let mut table = Array3::zeros((lambdas.len(), grid.keep.len(), grid.ridge.len()));
        for (l, ranking) in rankings.iter().enumerate() {
            for (k, keep) in grid.keep.iter().enumerate() {
                let kept = self.top(ranking, *keep)?;
                let right = self.right(solver, &kept, &grid.ridge, held)?;
                right.into_iter().enumerate().for_each(|(r, right)| table[[l, k, r]] = right);
            }
        }
        Ok(table)
    }

    /// All folds, one after the other: the best choice, and the grid's values of λ.
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    pub fn cross_validate<S: GroupLassoSolver<U> + GroupLassoSolver<f64>>(
        &self,
        solver: &S,
        grid: &Grid,
        folds: &[Vec<usize>],
    ) -> Result<(Choice, Vec<f64>), GroupLassoError> {
        grid.validate()?;
        let lambdas = self.lambdas(&grid.lambdas)?;
        let tables: Result<Vec<_>, _> = folds.iter().map(|held| self.fold(solver, grid, &lambdas, held)).collect();
        Ok((Choice::best(&tables?)?, lambdas))
    }

    /// The best ridge strength for some features, and how many held-out samples it predicts: for the heads that Head2Toe is
    /// compared with, on the last layer ([`last`](Self::last), linear probing), on any one layer, on all features, on random ones.
    ///
    /// # Errors
    /// As [`right`](Self::right).
    pub fn best_ridge<S: GroupLassoSolver<f64>>(
        &self,
        solver: &S,
        kept: &[usize],
        ridge: &[f64],
        folds: &[Vec<usize>],
    ) -> Result<(f64, u32), GroupLassoError> {
        let mut right = vec![0u32; ridge.len()];
        for held in folds {
            let of_fold = self.right(solver, kept, ridge, held)?;
            right.iter_mut().zip(of_fold).for_each(|(sum, right)| *sum += right);
        }
        let best = ridge.iter().copied().zip(right);
        best.reduce(|best, next| if next.1 > best.1 { next } else { best })
            .ok_or_else(|| spec("ridge", "none".into(), "at least one"))
    }
}
