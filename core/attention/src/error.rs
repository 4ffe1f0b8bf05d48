//! The one error type of this crate.

use alloc::string::String;
use core::fmt;

/// Why an attention problem, or the tensors offered for it, cannot be computed.
///
/// Every message is one line: which argument, what it was, what was expected.
///
/// ```
/// use tilewright_attention::AttentionSpec;
/// let error = AttentionSpec::dense(1, 2, 8, 8, 0).validate().unwrap_err();
/// assert_eq!(error.to_string(), "head_dim: got 0, expected at least 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttentionError {
    /// The problem itself is ill-posed.
    Spec {
        /// The offending field of the specification.
        field: &'static str,
        /// What it held.
        got: String,
        /// What it should have held.
        expected: String,
    },
    /// A tensor does not have the shape its role asks for.
    Shape {
        /// The tensor's role: `q`, `k`, `d_o` …
        tensor: &'static str,
        /// The shape it has.
        got: String,
        /// The shape it should have.
        expected: String,
    },
    /// A tensor is missing, or given where the problem has no use for it.
    Presence {
        /// The tensor's role.
        tensor: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A number of elements or bytes overflows `usize`.
    Overflow {
        /// What was being counted.
        what: &'static str,
        /// The product that overflowed.
        got: String,
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

impl fmt::Display for AttentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec { field, got, expected } => write!(f, "{field}: got {got}, expected {expected}"),
            Self::Shape { tensor, got, expected } => write!(f, "shape of {tensor}: got {got}, expected {expected}"),
            Self::Presence { tensor, problem } => write!(f, "tensor {tensor}: {problem}"),
            Self::Overflow { what, got } => write!(f, "{what}: {got} overflows the address space"),
            Self::Unsupported { what } => write!(f, "unsupported: {what}"),
            Self::Backend { problem } => write!(f, "backend: {problem}"),
        }
    }
}

impl core::error::Error for AttentionError {}
