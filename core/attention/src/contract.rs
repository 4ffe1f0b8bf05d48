//! What an implementation promises about its arithmetic. The bounds of [`crate::bound`] follow from it, so a looser
//! promise buys a wider bound, and every report shows the promise.

use tilewright_scalar::Format;

/// The numeric contract of an attention kernel on one element type.
///
/// ```
/// use tilewright_attention::{Contract, Format};
/// // A tensor-core kernel on bf16: f32 accumulators, P and dS rounded to bf16 for the second GEMM.
/// let contract = Contract {
///     probabilities: Format::BF16,
///     score_gradients: Format::BF16,
///     ..Contract::strict(Format::BF16)
/// };
/// assert_eq!(contract.accum, Format::F32);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contract {
    /// What inputs, `O` and gradients are stored in.
    pub storage: Format,
    /// What sums, softmax statistics and LSE are computed in.
    pub accum: Format,
    /// Whether accumulation rounds toward zero, as some matrix units do: doubles its unit roundoff.
    pub truncates: bool,
    /// What scores are rounded to before the softmax.
    pub scores: Format,
    /// What `P` is rounded to before `P·V` and `Pᵀ·dO`.
    pub probabilities: Format,
    /// Whether the softmax denominator sums the rounded `P`.
    pub sums_rounded_probabilities: bool,
    /// What `dS` is rounded to before `dS·K` and `dSᵀ·Q`.
    pub score_gradients: Format,
    /// What the running `O` is rounded to after each key tile.
    pub output_accum: Format,
    /// What the running `dQ`, `dK`, `dV`, `dBias` are rounded to after each tile.
    pub gradient_accum: Format,
    /// Smallest number of rows or keys processed between two rescalings, or two roundings of a running result: there
    /// are at most `⌈keys / tile⌉` of them in a row.
    pub tile: usize,
    /// Relative error of `exp`, in unit roundoffs of `accum`.
    pub exp_error: f64,
    /// Relative error of `ln`, in unit roundoffs of `accum`.
    pub ln_error: f64,
    /// Relative error of `tanh`, in unit roundoffs of `accum`.
    pub tanh_error: f64,
    /// What LSE is stored in.
    pub lse: Format,
    /// Whether stored numbers below the smallest normal one may be taken for zero, when read and when written.
    pub flushes_subnormals: bool,
}

impl Contract {
    /// What is assumed of a kernel that declares nothing: everything between loading and storing happens in `f64` for
    /// `f64` storage and in `f32` for anything narrower, rounded to nearest, with elementary functions good to a few
    /// units in the last place.
    pub fn strict(storage: Format) -> Self {
        let accum = if storage.precision > Format::F32.precision { Format::F64 } else { Format::F32 };
        Self {
            storage,
            accum,
            truncates: false,
            scores: accum,
            probabilities: accum,
            sums_rounded_probabilities: false,
            score_gradients: accum,
            output_accum: accum,
            gradient_accum: accum,
            tile: 16,
            exp_error: 4.0,
            ln_error: 4.0,
            tanh_error: 8.0,
            lse: accum,
            flushes_subnormals: false,
        }
    }

    /// Unit roundoff of the accumulator.
    pub fn unit_roundoff(&self) -> f64 {
        self.accum.unit_roundoff() * if self.truncates { 2.0 } else { 1.0 }
    }
}
