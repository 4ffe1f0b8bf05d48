//! What an implementation implements.

use crate::memory::sum_of_squares;
use crate::{CompressionError, CompressionSpec, Memory, Message, Step};

/// From a gradient to a message.
pub trait Compressor {
    /// One step of one bucket on one rank: `gradient`, times `step.scale`, enters `memory`; what is selected leaves it and
    /// makes up `message`, whose former contents are dropped and whose room is used again.
    ///
    /// # Errors
    /// [`CompressionError`]; then neither `memory` nor `message` has changed.
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError>;

    /// `Σ g²` for local clipping: the bits of [`memory::sum_of_squares`](sum_of_squares), which a backend may come to
    /// faster.
    fn sum_of_squares(&mut self, gradient: &[f32]) -> f64 {
        sum_of_squares(gradient)
    }
}

/// What the messages of all ranks are combined to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// Their sum.
    #[default]
    Sum,
    /// Their sum divided by the number of messages.
    Mean,
}

/// From the messages of all ranks to a dense update.
pub trait Decompressor {
    /// Overwrites `out` with the sum, or the mean, of what the messages say: `0 + x₀ + x₁ + …` in the order of
    /// `messages`, which is that of the ranks. Batched as DRAGONN's sparse decoding, but it *adds*.
    ///
    /// # Errors
    /// [`CompressionError::Message`] if an index lies beyond `out`; then `out` has not changed.
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError>;
}
