//! What a rank remembers of a bucket from one step to the next, and how a gradient enters it.

use crate::{CompressionError, CompressionSpec, Feedback};
use alloc::vec::Vec;

/// DGC's two accumulators. What the [`Feedback`] has no use for is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// `v`: what is waiting to be sent.
    pub velocity: Vec<f32>,
    /// `u`: momentum.
    pub momentum: Vec<f32>,
}

/// Which step it is, and what the gradient is multiplied by on its way in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The step's number: the same on all ranks, another in each step.
    pub number: u64,
    /// Factor for local clipping; 1 otherwise.
    pub scale: f32,
}

impl Step {
    /// A step without clipping.
    pub fn new(number: u64) -> Self {
        Self { number, scale: 1.0 }
    }
}

impl Memory {
    /// Memory of a bucket that has seen no gradient.
    ///
    /// # Errors
    /// [`CompressionError::OutOfMemory`], or that the specification is invalid.
    pub fn new(spec: &CompressionSpec) -> Result<Self, CompressionError> {
        spec.validate()?;
        let (velocity, momentum) = Self::lengths(spec);
        Ok(Self { velocity: zeros("velocity", velocity)?, momentum: zeros("momentum", momentum)? })
    }

    /// How long `velocity` and `momentum` are.
    pub fn lengths(spec: &CompressionSpec) -> (usize, usize) {
        match spec.feedback {
            Feedback::None => (0, 0),
            Feedback::Residual => (spec.len, 0),
            Feedback::Momentum { .. } => (spec.len, spec.len),
        }
    }

    /// Whether this memory belongs to such a bucket.
    ///
    /// # Errors
    /// [`CompressionError::Length`].
    pub fn check(&self, spec: &CompressionSpec) -> Result<(), CompressionError> {
        let (velocity, momentum) = Self::lengths(spec);
        length("velocity", self.velocity.len(), velocity)?;
        length("momentum", self.momentum.len(), momentum)
    }
}

fn zeros(what: &'static str, elements: usize) -> Result<Vec<f32>, CompressionError> {
    let mut list = Vec::new();
    list.try_reserve_exact(elements).map_err(|_| CompressionError::OutOfMemory { what, elements })?;
    list.resize(elements, 0.0);
    Ok(list)
}

pub(crate) fn length(argument: &'static str, got: usize, expected: usize) -> Result<(), CompressionError> {
    if got == expected { Ok(()) } else { Err(CompressionError::Length { argument, got, expected }) }
}

/// One place of DGC's accumulators after a gradient came in: `(u, v)`. Equations 4 and 5 of Lin et al. 2018; each
/// product and each sum is rounded once.
///
/// ```
/// use tilewright_compression::{Feedback, memory::accumulate};
/// let dgc = Feedback::Momentum { factor: 0.5, nesterov: false, masking: true };
/// assert_eq!(accumulate(dgc, 2.0, 10.0, 1.0), (2.0, 12.0)); // u = 0.5·2 + 1, v = 10 + u
/// let nesterov = Feedback::Momentum { factor: 0.5, nesterov: true, masking: true };
/// assert_eq!(accumulate(nesterov, 2.0, 10.0, 1.0), (1.5, 12.5)); // u = 0.5·(2 + 1), v = 10 + u + 1
/// ```
#[inline]
pub fn accumulate(feedback: Feedback, u: f32, v: f32, g: f32) -> (f32, f32) {
    match feedback {
        Feedback::None => (u, g),
        Feedback::Residual => (u, v + g),
        Feedback::Momentum { factor, nesterov: false, .. } => {
            let u = factor * u + g;
            (u, v + u)
        }
        Feedback::Momentum { factor, nesterov: true, .. } => {
            let u = factor * (u + g);
            (u, (v + u) + g)
        }
    }
}

/// What stays in the residual where `value` was sent as `sent`: nothing, or what rounding to the wire's format left over.
/// (A NaN or an infinity leaves nothing behind.)
#[inline]
pub fn left_over(value: f32, sent: f32) -> f32 {
    if value.is_finite() { value - sent } else { 0.0 }
}

/// Local gradient clipping (Lin et al. 2018, §3.2): the factor that brings a rank's gradient, whose squares sum to
/// `squares`, to a norm of at most `bound`/√`workers`, as if the sum of all ranks' were clipped to `bound`·√`workers`.
///
/// ```
/// use tilewright_compression::memory::clipping;
/// assert_eq!(clipping(100.0, 10.0, 4), 0.5);
/// assert_eq!(clipping(1.0, 10.0, 4), 1.0);
/// ```
pub fn clipping(squares: f64, bound: f64, workers: usize) -> f32 {
    let (norm, limit) = (libm::sqrt(squares), bound / libm::sqrt(workers as f64));
    // A norm that is NaN or infinite has no factor that helps; it must show, and it does if nothing is scaled away.
    if norm > limit && norm.is_finite() { (limit / norm) as f32 } else { 1.0 }
}

/// Elements of a block of [`sum_of_squares`].
const BLOCK: usize = 1 << 16;
/// Running sums side by side.
const LANES: usize = 16;

/// `Σ g²` in `f64`, in one fixed order that vectorises and can be shared out: 16 running sums over the elements of a
/// block of 2¹⁶, added from the first to the last, then the blocks in order.
pub fn sum_of_squares(gradient: &[f32]) -> f64 {
    gradient.chunks(BLOCK).map(block_of_squares).fold(0.0, |sum, block| sum + block)
}

/// One block of [`sum_of_squares`].
pub fn block_of_squares(block: &[f32]) -> f64 {
    let mut sums = [0.0; LANES];
    let mut rows = block.chunks_exact(LANES);
    for row in &mut rows {
        for (sum, g) in sums.iter_mut().zip(row) {
            *sum += f64::from(*g) * f64::from(*g);
        }
    }
    for (sum, g) in sums.iter_mut().zip(rows.remainder()) {
        *sum += f64::from(*g) * f64::from(*g);
    }
    sums.iter().fold(0.0, |total, sum| total + sum)
}
