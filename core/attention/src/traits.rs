//! What an implementation offers: one small trait an operation.

use crate::{AttentionError, AttentionSpec, Gradients, Inputs, Outputs, Saved};
use tilewright_scalar::Element;

/// Computes `O` and LSE.
pub trait AttentionForward<T: Element> {
    /// Writes every element of `out`.
    ///
    /// # Errors
    /// On an ill-posed problem, tensors that do not fit it, or what the implementation lacks
    /// ([`AttentionError::Unsupported`]); nothing is written then.
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError>;
}

/// Computes the gradients of a loss from the gradients that flow into `O` and LSE.
pub trait AttentionBackward<T: Element> {
    /// Writes every element of `gradients`.
    ///
    /// # Errors
    /// As [`AttentionForward::forward`].
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError>;
}
