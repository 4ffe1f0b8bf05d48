//! What is left of all the work: a linear classifier on the features that were kept.

use crate::features::{Layers, Normalise};
use crate::{Columns, GroupLassoError};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};
use tilewright_scalar::Element;

/// A linear head on some features of all layers.
///
/// A sample's logits are those of its kept features, [normalised](Normalise) layer by layer, [standardised](Columns) one by one,
/// times the weights, plus the intercepts.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::features::{Layers, Normalise};
/// use tilewright_grouplasso::{Columns, Head};
/// let head = Head {
///     layers: Layers::new([("a", 2), ("b", 2)])?,
///     normalise: Normalise::Layer,
///     kept: vec![1, 2],
///     columns: Columns { mean: vec![0.5, 0.0], scale: vec![0.1, 1.0] },
///     weights: array![[1.0, -1.0], [2.0, 0.0]],
///     intercept: vec![0.0, 1.0],
/// };
/// let x = array![[3.0f32, 4.0, 5.0, 0.0]]; // lengths 5 and 5
/// let logits = head.logits(x.view())?; // features 0.8 and 1, standardised 3 and 1
/// assert!((logits[[0, 0]] - 5.0).abs() < 1e-12 && (logits[[0, 1]] + 2.0).abs() < 1e-12);
/// assert_eq!(head.predict(x.view())?, [0]);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The layers a sample's features come from.
    pub layers: Layers,
    /// How they are normalised.
    pub normalise: Normalise,
    /// The features kept, ascending.
    pub kept: Vec<usize>,
    /// What is subtracted from each kept feature, once normalised, and what it is divided by.
    pub columns: Columns,
    /// One row a kept feature, one column a class.
    pub weights: Array2<f64>,
    /// One a class; −∞ for one that had no training sample.
    pub intercept: Vec<f64>,
}

impl Head {
    /// Whether the parts fit each other, and hold numbers.
    ///
    /// # Errors
    /// [`GroupLassoError`], naming the first part that does not.
    pub fn validate(&self) -> Result<(), GroupLassoError> {
        self.layers.check(&self.kept)?;
        self.columns.check(self.kept.len())?;
        if self.weights.dim() != (self.kept.len(), self.intercept.len()) || self.intercept.is_empty() {
            return Err(GroupLassoError::Shape {
                argument: "weights",
                got: format!(
                    "{} × {}, {} intercepts",
                    self.weights.nrows(),
                    self.weights.ncols(),
                    self.intercept.len()
                ),
                expected: format!("{} × classes, as many intercepts", self.kept.len()),
            });
        }
        if let Some(((row, class), w)) = self.weights.indexed_iter().find(|(_, w)| !w.is_finite()) {
            return Err(value("weights", format!("{row}, {class}"), *w, "a finite number"));
        }
        match self.intercept.iter().position(|b| b.is_nan() || *b == f64::INFINITY) {
            Some(class) => Err(value("intercept", class.to_string(), self.intercept[class], "a number below ∞")),
            None => Ok(()),
        }
    }

    /// Classes, `C`.
    pub fn classes(&self) -> usize {
        self.intercept.len()
    }

    /// `n × C` logits of samples, all features given.
    ///
    /// # Errors
    /// [`GroupLassoError`] if the head is not [valid](Self::validate), or `x` has other features, or is not finite.
    pub fn logits<T: Element>(&self, x: ArrayView2<'_, T>) -> Result<Array2<f64>, GroupLassoError> {
        self.validate()?;
        let kept = self.normalise.apply::<_, f64>(x, &self.layers, &self.kept)?;
        let kept: Array2<f64> = self.columns.apply(kept.view())?;
        let mut logits = kept.dot(&self.weights);
        for mut row in logits.rows_mut() {
            row.iter_mut().zip(&self.intercept).for_each(|(z, b)| *z += b);
        }
        Ok(logits)
    }

    /// The class of the greatest logit, of equal ones the first, of each sample.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn predict<T: Element>(&self, x: ArrayView2<'_, T>) -> Result<Vec<u32>, GroupLassoError> {
        Ok(self.logits(x)?.rows().into_iter().map(|row| largest(row.iter().copied())).collect())
    }

    /// The share of samples whose class is predicted.
    ///
    /// # Errors
    /// As [`logits`](Self::logits), or [`GroupLassoError::Shape`] if there are more or fewer labels than samples, or none.
    pub fn accuracy<T: Element>(&self, x: ArrayView2<'_, T>, labels: &[u32]) -> Result<f64, GroupLassoError> {
        if labels.len() != x.nrows() || labels.is_empty() {
            return Err(GroupLassoError::Shape {
                argument: "labels",
                got: labels.len().to_string(),
                expected: format!("{}, one a sample, at least 1", x.nrows()),
            });
        }
        let right = self.predict(x)?.iter().zip(labels).filter(|(a, b)| a == b).count();
        Ok(right as f64 / labels.len() as f64)
    }

    /// How many features each layer keeps.
    pub fn kept_per_layer(&self) -> Vec<usize> {
        self.layers.count(&self.kept)
    }

    /// Bytes of all its numbers, four each: weights, intercepts, means, scales, and the features' indices.
    pub fn bytes(&self) -> u64 {
        4 * (self.weights.len() + self.intercept.len() + 3 * self.kept.len()) as u64
    }
}

/// The place of the greatest, of equal ones the first.
pub(crate) fn largest(values: impl Iterator<Item = f64>) -> u32 {
    let best = values.enumerate().fold((0, f64::NEG_INFINITY), |best, (k, z)| if z > best.1 { (k, z) } else { best });
    best.0 as u32
}

fn value(argument: &'static str, at: alloc::string::String, got: f64, expected: &'static str) -> GroupLassoError {
    GroupLassoError::Value { argument, at, got: got.to_string(), expected }
}
