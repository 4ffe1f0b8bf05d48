//! The one error type of this crate.

use alloc::string::String;
use core::fmt;

/// Why a group-lasso problem, or the data offered for it, cannot be worked on.
///
/// Every message is one line: which argument, what it was, what was expected.
///
/// ```
/// use tilewright_grouplasso::{GroupLassoSpec, Loss};
/// let error = GroupLassoSpec::rows(Loss::LeastSquares, -1.0).validate(5).unwrap_err();
/// assert_eq!(error.to_string(), "lambda: got -1, expected a finite number, at least 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupLassoError {
    /// A field of the specification, or of some other configuration, is out of its range.
    Spec {
        /// The offending field.
        field: &'static str,
        /// What it held.
        got: String,
        /// What it should have held.
        expected: String,
    },
    /// An array does not have the shape its role asks for.
    Shape {
        /// The array's role: `x`, `y`, `sample_weights` …
        argument: &'static str,
        /// The shape it has.
        got: String,
        /// The shape it should have.
        expected: String,
    },
    /// A number in an array is not one the problem can be made of.
    Value {
        /// The array's role.
        argument: &'static str,
        /// Where in it.
        at: String,
        /// What stands there.
        got: String,
        /// What should.
        expected: &'static str,
    },
    /// The groups are no partition of the features.
    Groups {
        /// What is wrong, and where.
        problem: String,
    },
    /// Features cannot be had from where they are kept.
    Source {
        /// Where and why.
        problem: String,
    },
    /// Memory for the work could not be had, or is more than was allowed.
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes that were needed.
        bytes: u64,
    },
    /// The implementation declares that it lacks this.
    Unsupported {
        /// The name of what is lacking.
        what: &'static str,
    },
    /// What the implementation runs on (a device, a driver, another process) failed.
    Backend {
        /// What it said, on one line.
        problem: String,
    },
}

impl fmt::Display for GroupLassoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec { field, got, expected } => write!(f, "{field}: got {got}, expected {expected}"),
            Self::Shape { argument, got, expected } => {
                write!(f, "shape of {argument}: got {got}, expected {expected}")
            }
            Self::Value { argument, at, got, expected } => {
                write!(f, "{argument}[{at}]: got {got}, expected {expected}")
            }
            Self::Groups { problem } => write!(f, "groups: {problem}"),
            Self::Source { problem } => write!(f, "features: {problem}"),
            Self::OutOfMemory { what, bytes } => write!(f, "{what}: no memory for {bytes} bytes"),
            Self::Unsupported { what } => write!(f, "unsupported: {what}"),
            Self::Backend { problem } => write!(f, "backend: {problem}"),
        }
    }
}

impl core::error::Error for GroupLassoError {}
