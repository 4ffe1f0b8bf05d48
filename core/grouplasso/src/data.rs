//! What a problem is given: features, targets, sample weights — and what is made of them once they are checked.

use crate::spec::LARGEST;
use crate::{GroupLassoError, Loss, Standardise};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView1, ArrayView2};
use tilewright_scalar::Element;

/// What each sample should come to.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// `n × C` numbers, for least squares.
    Values(ArrayView2<'a, f64>),
    /// A class a sample, from 0, for the multinomial loss.
    Labels {
        /// One a sample.
        labels: &'a [u32],
        /// `C`, at least 2.
        classes: usize,
    },
}

/// The data of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a, T> {
    /// `n × d`, any strides. Solvers read it column by column: features kept one after the other are read fastest.
    pub x: ArrayView2<'a, T>,
    /// One row, or one label, a sample.
    pub targets: Targets<'a>,
    /// `ω`, one a sample, finite and not negative, not all zero; all the same if absent.
    pub sample_weights: Option<&'a [f64]>,
}

/// The checked right-hand side of a problem: targets, sample weights, and which classes occur.
///
/// ```
/// use tilewright_grouplasso::{Loss, Response, Targets};
/// let response = Response::new(Loss::Multinomial, 3, Targets::Labels { labels: &[2, 0, 2], classes: 3 }, None)?;
/// assert_eq!(response.y().row(0).to_vec(), [0.0, 0.0, 1.0]);
/// assert_eq!(response.absent(), [false, true, false]);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Response {
    loss: Loss,
    y: Array2<f64>,
    omega: Vec<f64>,
    absent: Vec<bool>,
}

impl Response {
    /// Checks targets and sample weights for `samples` samples.
    ///
    /// # Errors
    /// [`GroupLassoError`]: targets of the wrong kind or shape, labels out of range, numbers that are not finite or larger than
    /// [`LARGEST`], weights that are negative or all zero.
    pub fn new(
        loss: Loss,
        samples: usize,
        targets: Targets<'_>,
        sample_weights: Option<&[f64]>,
    ) -> Result<Self, GroupLassoError> {
        if samples == 0 {
            return Err(shape("x", "no samples".into(), "at least 1".into()));
        }
        let omega = normalised_weights(samples, sample_weights)?;
        let y = match (loss, targets) {
            (Loss::LeastSquares, Targets::Values(values)) => checked_values(samples, values)?,
            (Loss::Multinomial, Targets::Labels { labels, classes }) => one_hot(samples, labels, classes)?,
            (Loss::LeastSquares, _) => return Err(kind("labels", "values, for least squares")),
            (Loss::Multinomial, _) => return Err(kind("values", "labels, for the multinomial loss")),
        };
        let weighted = |k: usize| y.column(k).iter().zip(&omega).any(|(y, omega)| *y > 0.0 && *omega > 0.0);
        let absent = (0..y.ncols()).map(|k| loss == Loss::Multinomial && !weighted(k)).collect();
        Ok(Self { loss, y, omega, absent })
    }

    /// The loss these targets are for.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// `n × C`: the values, or a 1 in the column of each sample's class.
    pub fn y(&self) -> ArrayView2<'_, f64> {
        self.y.view()
    }

    /// `ω̂`: the sample weights over their sum.
    pub fn omega(&self) -> &[f64] {
        &self.omega
    }

    /// For each class whether no sample of positive weight has it; all `false` for least squares.
    pub fn absent(&self) -> &[bool] {
        &self.absent
    }

    /// Samples, `n`.
    pub fn samples(&self) -> usize {
        self.y.nrows()
    }

    /// Outputs or classes, `C`.
    pub fn outputs(&self) -> usize {
        self.y.ncols()
    }
}

fn normalised_weights(samples: usize, weights: Option<&[f64]>) -> Result<Vec<f64>, GroupLassoError> {
    let Some(weights) = weights else { return Ok(vec![1.0 / samples as f64; samples]) };
    if weights.len() != samples {
        return Err(shape("sample_weights", weights.len().to_string(), format!("{samples}, one a sample")));
    }
    if let Some(at) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        return Err(value("sample_weights", at.to_string(), weights[at], "a finite number, at least 0"));
    }
    let largest = weights.iter().fold(0.0f64, |most, w| most.max(*w));
    if largest == 0.0 {
        return Err(value("sample_weights", "..".into(), 0.0, "at least one that is positive"));
    }
    // Divided twice, so that no sum overflows.
    let sum: f64 = weights.iter().map(|w| w / largest).sum();
    Ok(weights.iter().map(|w| w / largest / sum).collect())
}

fn checked_values(samples: usize, values: ArrayView2<'_, f64>) -> Result<Array2<f64>, GroupLassoError> {
    if values.nrows() != samples || values.ncols() == 0 {
        let got = format!("{} × {}", values.nrows(), values.ncols());
        return Err(shape("y", got, format!("{samples} × at least 1")));
    }
    match values.indexed_iter().find(|(_, y)| !in_range(**y)) {
        Some(((i, k), y)) => Err(value("y", format!("{i}, {k}"), *y, IN_RANGE)),
        None => Ok(values.to_owned()),
    }
}

fn one_hot(samples: usize, labels: &[u32], classes: usize) -> Result<Array2<f64>, GroupLassoError> {
    if classes < 2 {
        return Err(crate::spec::spec("classes", classes.to_string(), "at least 2"));
    }
    if labels.len() != samples {
        return Err(shape("labels", labels.len().to_string(), format!("{samples}, one a sample")));
    }
    let mut y = Array2::zeros((samples, classes));
    for (i, &label) in labels.iter().enumerate() {
        let Some(cell) = y.get_mut((i, label as usize)) else {
            return Err(value("labels", i.to_string(), label.into(), "less than the number of classes"));
        };
        *cell = 1.0;
    }
    Ok(y)
}

const IN_RANGE: &str = "a finite number of magnitude at most 2^300";

/// Whether a number may be in the data.
pub fn in_range(x: f64) -> bool {
    x.abs() <= LARGEST
}

/// Whether all features may be in the data.
///
/// # Errors
/// [`GroupLassoError::Value`], naming the first sample and feature that is NaN, infinite or larger than [`LARGEST`].
pub fn check_features<T: Element>(x: ArrayView2<'_, T>) -> Result<(), GroupLassoError> {
    for (feature, column) in x.columns().into_iter().enumerate() {
        check_column(feature, column)?;
    }
    Ok(())
}

/// The same for one column, whose number goes into the error.
///
/// # Errors
/// As [`check_features`].
pub fn check_column<T: Element>(feature: usize, column: ArrayView1<'_, T>) -> Result<(), GroupLassoError> {
    match column.iter().position(|x| !in_range(x.to_f64())) {
        Some(sample) => {
            let got = column[sample].to_f64();
            Err(value("x", format!("sample {sample}, feature {feature}"), got, IN_RANGE))
        }
        None => Ok(()),
    }
}

/// What is subtracted from each column and what it is divided by: [`Standardise`], computed.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::{Columns, Standardise};
/// let x = array![[1.0, 5.0], [3.0, 5.0]];
/// let columns = Columns::of(Standardise { centre: true, scale: true }, x.view(), &[0.5, 0.5]);
/// assert_eq!((columns.mean, columns.scale), (vec![2.0, 5.0], vec![1.0, 1.0])); // the second is constant
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Subtracted: 0 without centring.
    pub mean: Vec<f64>,
    /// Then divided by: 1 without scaling, and for constant columns.
    pub scale: Vec<f64>,
}

impl Columns {
    /// Of the columns of `x` under the sample weights `omega`, which sum to 1.
    pub fn of<T: Element>(standardise: Standardise, x: ArrayView2<'_, T>, omega: &[f64]) -> Self {
        let both = x.columns().into_iter().map(|column| Self::of_one(standardise, column, omega));
        let (mean, scale) = both.unzip();
        Self { mean, scale }
    }

    /// Mean and scale of one column.
    pub fn of_one<T: Element>(standardise: Standardise, column: ArrayView1<'_, T>, omega: &[f64]) -> (f64, f64) {
        if standardise == Standardise::default() {
            return (0.0, 1.0);
        }
        let values = || column.iter().map(|x| x.to_f64()).zip(omega);
        let mean: f64 = values().map(|(x, omega)| omega * x).sum();
        let variance: f64 = values().map(|(x, omega)| omega * (x - mean) * (x - mean)).sum();
        let deviation = libm::sqrt(variance);
        let divided = standardise.scale && !Self::is_constant(values().map(|(x, _)| x), omega, deviation);
        (if standardise.centre { mean } else { 0.0 }, if divided { deviation } else { 1.0 })
    }

    /// Whether a column of this deviation, as computed, is constant but for rounding; samples of weight 0 are none.
    ///
    /// With `n` samples of positive weight and `u = 2⁻⁵³`, the `ω̂` sum to 1 within `nu`, and a sum of `ω̂ x` in any order has
    /// an error of at most `nu` times that of the magnitudes. The mean of a constant `x` is therefore within `2nu |x|` of it to
    /// first order, and so is what comes out as its deviation.
    pub fn is_constant(column: impl Iterator<Item = f64>, omega: &[f64], deviation: f64) -> bool {
        let counted = column.zip(omega).filter(|(_, omega)| **omega > 0.0);
        let (n, largest) = counted.fold((0, 0.0f64), |(n, most), (x, _)| (n + 1, most.max(x.abs())));
        deviation <= f64::from(n) * f64::EPSILON * largest
    }
}

fn shape(argument: &'static str, got: String, expected: String) -> GroupLassoError {
    GroupLassoError::Shape { argument, got, expected }
}

fn value(argument: &'static str, at: String, got: f64, expected: &'static str) -> GroupLassoError {
    GroupLassoError::Value { argument, at, got: got.to_string(), expected }
}

fn kind(got: &str, expected: &str) -> GroupLassoError {
    crate::spec::spec("targets", got.into(), expected)
}
