//! Answers: coefficients that are zero in most rows, the certificate they carry, and why the solver stopped.

use crate::{Certificate, Columns, GroupLassoError, Layout};
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::ops::ControlFlow;
use ndarray::{Array2, ArrayView2, Axis};

/// A matrix most of whose rows are zero.
///
/// ```
/// use ndarray::array;
/// use tilewright_grouplasso::SparseRows;
/// let w = SparseRows::from_dense(array![[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]].view());
/// assert_eq!((w.rows(), w.indices()), (3, &[1][..]));
/// assert_eq!(w.to_dense()[[1, 1]], -1.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SparseRows {
    rows: usize,
    indices: Vec<usize>,
    values: Array2<f64>,
}

impl SparseRows {
    /// The rows `indices`, ascending, of a matrix of `rows` rows.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] if there are more or fewer values than indices, or these do not ascend or reach `rows`.
    pub fn new(rows: usize, indices: Vec<usize>, values: Array2<f64>) -> Result<Self, GroupLassoError> {
        let ascend = indices.windows(2).all(|pair| pair[0] < pair[1]) && indices.last().is_none_or(|&i| i < rows);
        if !ascend || values.nrows() != indices.len() {
            return Err(GroupLassoError::Shape {
                argument: "w",
                got: format!("{} indices, {} rows of values", indices.len(), values.nrows()),
                expected: format!("as many of both, the indices ascending below {rows}"),
            });
        }
        Ok(Self { rows, indices, values })
    }

    /// A zero matrix.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, indices: Vec::new(), values: Array2::zeros((0, columns)) }
    }

    /// The rows that are not zero (a NaN is not) of a dense matrix.
    pub fn from_dense(w: ArrayView2<'_, f64>) -> Self {
        let indices: Vec<usize> = (0..w.nrows()).filter(|&row| w.row(row).iter().any(|x| *x != 0.0)).collect();
        let values = w.select(Axis(0), &indices);
        Self { rows: w.nrows(), indices, values }
    }

    /// Rows of the whole matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, `C`.
    pub fn columns(&self) -> usize {
        self.values.ncols()
    }

    /// The rows that are kept, ascending.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Their values: one row for each of [`indices`](Self::indices).
    pub fn values(&self) -> ArrayView2<'_, f64> {
        self.values.view()
    }

    /// The whole matrix.
    pub fn to_dense(&self) -> Array2<f64> {
        let mut w = Array2::zeros((self.rows, self.columns()));
        for (&row, values) in self.indices.iter().zip(self.values.rows()) {
            w.row_mut(row).assign(&values);
        }
        w
    }
}

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stopping {
    /// The relative gap to reach: [`Certificate::relative_gap`], more than 0.
    pub gap: f64,
    /// Iterations at most, as the solver counts them; at 0 the start is certified, with the best intercept its weights have.
    pub iterations: usize,
}

impl Default for Stopping {
    /// A relative gap of `10⁻⁶`, and 100 000 iterations.
    fn default() -> Self {
        Self { gap: 1e-6, iterations: 100_000 }
    }
}

impl Stopping {
    /// Whether the gap is one that can be asked for.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`] unless it is a finite positive number.
    pub fn validate(&self) -> Result<(), GroupLassoError> {
        if self.gap.is_finite() && self.gap > 0.0 {
            return Ok(());
        }
        Err(crate::spec::spec("gap", format!("{}", self.gap), "a finite number, more than 0"))
    }

    /// Why a solver should stop, if there is a reason: the gap is reached, whoever watches has had enough, there are no more
    /// iterations, or the solver has found that no more is to be hoped for.
    ///
    /// ```
    /// use core::ops::ControlFlow;
    /// use tilewright_grouplasso::{Progress, Stopped, Stopping};
    /// let stopping = Stopping { gap: 1e-6, iterations: 100 };
    /// let progress = Progress { point: 0, iterations: 100, relative_gap: 1e-3, active: 7 };
    /// let verdict = stopping.verdict(&progress, false, &mut |_| ControlFlow::Continue(()));
    /// assert_eq!(verdict, Some(Stopped::Iterations));
    /// ```
    pub fn verdict(
        &self,
        progress: &Progress,
        stalled: bool,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Option<Stopped> {
        if progress.relative_gap <= self.gap {
            Some(Stopped::Reached)
        } else if watch(progress).is_break() {
            Some(Stopped::Interrupted)
        } else if progress.iterations >= self.iterations {
            Some(Stopped::Iterations)
        } else if stalled {
            Some(Stopped::Stalled)
        } else {
            None
        }
    }
}

/// Why a solver stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stopped {
    /// The gap asked for was reached.
    Reached,
    /// Rounding, or a problem without a minimum, lets the gap fall no further.
    Stalled,
    /// All iterations allowed were made.
    Iterations,
    /// Whoever watched said so.
    Interrupted,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reached => "gap reached",
            Self::Stalled => "stalled before the gap was reached",
            Self::Iterations => "iterations used up",
            Self::Interrupted => "interrupted",
        })
    }
}

/// What a solver tells whoever watches, now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Which problem of a path; 0 for a single one.
    pub point: usize,
    /// Iterations so far.
    pub iterations: usize,
    /// The relative gap by the last certificate.
    pub relative_gap: f64,
    /// Groups that are not zero.
    pub active: usize,
}

/// Where a solver starts: an earlier answer, to the same problem or one like it.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// [`Layout::rows`] rows of coefficients of standardised columns.
    pub w: SparseRows,
    /// The intercept; zeros without one.
    pub b: Vec<f64>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Solution {
    /// [`Layout::rows`] rows of coefficients of standardised columns.
    pub w: SparseRows,
    /// The intercept that goes with standardised columns; zeros without one, −∞ for an absent class.
    pub b: Vec<f64>,
    /// How near to the minimum this is, proven.
    pub certificate: Certificate,
    /// Iterations made.
    pub iterations: usize,
    /// Why there were no more.
    pub stopped: Stopped,
    /// How the columns were standardised.
    pub columns: Columns,
}

impl Solution {
    /// To start from here.
    pub fn start(&self) -> Start {
        Start { w: self.w.clone(), b: self.b.clone() }
    }

    /// The same model in raw columns: `d × C` coefficients — sums of copies, if groups overlap — divided by the columns'
    /// scales, and an intercept from which the means have been taken.
    pub fn on_raw_columns(&self, layout: &Layout) -> (SparseRows, Vec<f64>) {
        let mut w = if layout.has_copies() {
            SparseRows::from_dense(layout.by_feature(self.w.to_dense().view()).view())
        } else {
            self.w.clone()
        };
        let mut b = self.b.clone();
        for (&feature, mut row) in w.indices.iter().zip(w.values.rows_mut()) {
            row /= self.columns.scale[feature];
            b.iter_mut().zip(&row).for_each(|(b, w)| *b -= self.columns.mean[feature] * w);
        }
        (w, b)
    }
}
