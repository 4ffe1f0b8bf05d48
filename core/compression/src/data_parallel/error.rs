//! Why a step did not happen.

use crate::{CollectiveError, CompressionError};
use alloc::string::String;
use core::fmt;

/// Why a data-parallel step, or the restoration of a state, failed.
///
/// If [`DataParallel::step`](super::DataParallel::step) fails after it has begun to change something, ranks may have got
/// differently far: the optimiser answers [`Broken`](Self::Broken) until a state is restored. Wrong lengths, ranks that
/// disagree from the start, and [`Refused`](Self::Refused) leave it as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataParallelError {
    /// A specification is invalid, or an array has the wrong length, or a message is not one.
    Compression(CompressionError),
    /// The ranks could not talk, or do not agree.
    Collective(CollectiveError),
    /// A state belongs to another optimiser.
    State {
        /// What differs.
        field: &'static str,
        /// What the state says.
        got: String,
        /// What this optimiser has.
        expected: String,
    },
    /// A rank's gradient is not finite, and the specification says to refuse such a step. All ranks refuse it together,
    /// and nothing has changed on any.
    Refused {
        /// The first such rank.
        rank: usize,
    },
    /// An earlier step failed half way.
    Broken,
}

impl fmt::Display for DataParallelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compression(error) => error.fmt(f),
            Self::Collective(error) => error.fmt(f),
            Self::State { field, got, expected } => write!(f, "{field} of the state: got {got}, expected {expected}"),
            Self::Refused { rank } => write!(f, "step refused: the gradient of rank {rank} is not finite"),
            Self::Broken => write!(f, "an earlier step failed half way: restore a state"),
        }
    }
}

impl core::error::Error for DataParallelError {}

impl From<CompressionError> for DataParallelError {
    fn from(error: CompressionError) -> Self {
        Self::Compression(error)
    }
}

impl From<CollectiveError> for DataParallelError {
    fn from(error: CollectiveError) -> Self {
        Self::Collective(error)
    }
}
