//! The one error type of this crate.

use alloc::string::String;
use core::fmt;

/// Why a compression problem, or the data offered for it, cannot be worked on.
///
/// Every message is one line: which argument, what it was, what was expected.
///
/// ```
/// use tilewright_compression::{CompressionSpec, Count};
/// let error = CompressionSpec::top_k(10, Count::Density(1.5)).validate().unwrap_err();
/// assert_eq!(error.to_string(), "density: got 1.5, expected more than 0 and at most 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionError {
    /// A field of the specification, or of some other configuration, is out of its range.
    Spec {
        /// The offending field.
        field: &'static str,
        /// What it held.
        got: String,
        /// What it should have held.
        expected: &'static str,
    },
    /// An array does not have the length its role asks for.
    Length {
        /// The array's role: `gradient`, `velocity`, `out` …
        argument: &'static str,
        /// The length it has.
        got: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A gradient is not finite, and the specification says to refuse it.
    NonFinite {
        /// Where.
        index: usize,
        /// Its bits, so that a NaN can be told from another.
        bits: u32,
    },
    /// A message that came from elsewhere is not one.
    Message {
        /// Number of the offending message, in rank order.
        rank: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes that are no encoded message.
    Codec {
        /// Where the decoder stopped.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// Memory for the state could not be had.
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Elements asked for.
        elements: usize,
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

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec { field, got, expected } => write!(f, "{field}: got {got}, expected {expected}"),
            Self::Length { argument, got, expected } => {
                write!(f, "length of {argument}: got {got}, expected {expected}")
            }
            Self::NonFinite { index, bits } => {
                write!(f, "gradient[{index}]: got {}, expected a finite number", f32::from_bits(*bits))
            }
            Self::Message { rank, problem } => write!(f, "message of rank {rank}: {problem}"),
            Self::Codec { at, problem } => write!(f, "encoded message, byte {at}: {problem}"),
            Self::OutOfMemory { what, elements } => write!(f, "{what}: no memory for {elements} elements"),
            Self::Unsupported { what } => write!(f, "unsupported: {what}"),
            Self::Backend { problem } => write!(f, "backend: {problem}"),
        }
    }
}

impl core::error::Error for CompressionError {}
