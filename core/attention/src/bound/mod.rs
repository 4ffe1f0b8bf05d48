//! Per-element error bounds, derived from a [`Contract`].
//!
//! For every element of every output there are two figures beside the true value `x`:
//!
//! * [`Limit::worst`]: no implementation that keeps its contract can be further from `x`, whatever the order of its
//!   sums, its tile sizes or the data. An error beyond it is a bug with certainty.
//! * [`Limit::coherent`] and [`Limit::sigma`]: the part of that error which may have one sign throughout (the
//!   accumulator's own roundings, kept at their worst), and the standard deviation of the rest (roundings to formats
//!   narrower than the accumulator, independent of each other where the data are in general position). A kernel stays
//!   within `coherent + 6 sigma` and the final rounding; see [`crate::spread`].
//!
//! The bound is the gauge of the Level-3 BLAS tester (Dongarra et al. 1990) carried through the softmax and its
//! derivative: every sum of products is accompanied by the sum of its absolute values, and every rounding error is a
//! multiple of such a sum. Notation, per row `i` and visible key `j`:
//!
//! ```text
//! u, γ(n) = n u / (1 − n u)     unit roundoff of the accumulator; n roundings in a row
//! u_s, u_P, u_dS, u_o           roundings to narrower formats (0 where the value stays in the accumulator)
//! ε_e, ε_l, ε_t                 relative errors of exp, ln, tanh
//! η                             half the smallest subnormal of a format: the error of a rounding that underflows
//! T                             number of tiles in a row of the score matrix
//! t_ij, π_ij                    relative error of an unnormalised and of a recomputed probability
//! B^X                           the bound on X
//! ```
//!
//! No first-order shortcut is taken where an exponent's error may be large: `e^δ − 1` stands where `δ` usually does,
//! always in a product with its `P`, and an average of values is never further from its true value than the values are. So the bounds hold for scores of
//! ±10⁴ too, where they say, rightly, that f32 knows little.

mod gradients;
mod rows;
mod units;

use crate::spread;
use crate::tensors::check_incoming;
use crate::{AttentionError, AttentionSpec, Contract, Inputs};
use libm::fabs;
use ndarray::{Array, ArrayView3, ArrayView4, Dimension};
use tilewright_scalar::{Element, Format};

pub(crate) use rows::{row_error, score_stages};
pub(crate) use units::{Units, tile_count};

/// The error allowed to one tensor, element by element, around its true value.
#[derive(Clone, Debug)]
pub struct Limit<D: Dimension> {
    /// Bound on the error of any kernel that keeps the contract.
    pub worst: Array<f64, D>,
    /// The part of the error that may be systematic, without the final rounding.
    pub coherent: Array<f64, D>,
    /// Standard deviation of the rest, without the final rounding.
    pub sigma: Array<f64, D>,
}

/// Limits of the forward pass.
#[derive(Clone, Debug)]
pub struct ForwardLimits {
    /// For `O`.
    pub o: Limit<ndarray::Ix4>,
    /// For LSE.
    pub lse: Limit<ndarray::Ix3>,
}

/// Limits of the backward pass that follows the implementation's own forward pass.
#[derive(Clone, Debug)]
pub struct BackwardLimits {
    /// For `dQ`.
    pub d_q: Limit<ndarray::Ix4>,
    /// For `dK`.
    pub d_k: Limit<ndarray::Ix4>,
    /// For `dV`.
    pub d_v: Limit<ndarray::Ix4>,
    /// For `dBias`, if there is a bias.
    pub d_bias: Option<Limit<ndarray::Ix4>>,
    /// For `dSink`, if there are sinks.
    pub d_sink: Option<Limit<ndarray::Ix1>>,
}

/// Limits for `O` and LSE.
///
/// ```
/// use ndarray::array;
/// use tilewright_attention::{AttentionSpec, Contract, Format, Inputs, bound};
/// let spec = AttentionSpec::dense(1, 1, 1, 2, 1);
/// let (q, k, v) = (array![[[[1f32]]]], array![[[[0f32], [1.0]]]], array![[[[2f32], [4.0]]]]);
/// let limits = bound::forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), &Contract::strict(Format::F32))?;
/// let worst = limits.o.worst[[0, 0, 0, 0]];
/// assert!(worst > 1e-7 && worst < 1e-4);
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
///
/// Time and memory as the [reference](crate::reference), about three times over.
///
/// # Errors
/// As [`Inputs::check`].
pub fn forward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    contract: &Contract,
) -> Result<ForwardLimits, AttentionError> {
    inputs.check(spec)?;
    let (o, lse) = rows::worst_forward(spec, inputs, contract);
    let (o_coherent, lse_coherent) = rows::worst_forward(spec, inputs, &widened(contract));
    let (o_sigma, lse_sigma) = spread::forward(spec, inputs, contract);
    Ok(ForwardLimits {
        o: Limit { worst: o, coherent: o_coherent, sigma: o_sigma },
        lse: Limit { worst: lse, coherent: lse_coherent, sigma: lse_sigma },
    })
}

/// Limits for the gradients of `Σ O∘dO + Σ LSE∘dLSE`, where `O` and LSE are the implementation's own.
///
/// # Errors
/// As [`crate::reference::backward`].
pub fn backward<T: Element>(
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
    contract: &Contract,
) -> Result<BackwardLimits, AttentionError> {
    inputs.check(spec)?;
    check_incoming(spec, d_o, d_lse)?;
    let worst = gradients::worst_backward(spec, inputs, d_o, d_lse, contract);
    let coherent = gradients::worst_backward(spec, inputs, d_o, d_lse, &widened(contract));
    let sigma = spread::backward(spec, inputs, d_o, d_lse, contract);
    let limit4 = |worst, coherent, sigma| Limit { worst, coherent, sigma };
    Ok(BackwardLimits {
        d_q: limit4(worst.d_q, coherent.d_q, sigma.d_q),
        d_k: limit4(worst.d_k, coherent.d_k, sigma.d_k),
        d_v: limit4(worst.d_v, coherent.d_v, sigma.d_v),
        d_bias: zip3(worst.d_bias, coherent.d_bias, sigma.d_bias),
        d_sink: zip3(worst.d_sink, coherent.d_sink, sigma.d_sink),
    })
}

/// The format `O` and gradients come out in: the storage format, without subnormals if the contract says so.
pub fn stored(contract: &Contract) -> Format {
    Format { subnormals: !contract.flushes_subnormals, ..contract.storage }
}

/// The error of the final rounding of a value near `x`: `u_o |x| + η_o`.
pub fn final_rounding(format: Format, x: f64) -> f64 {
    format.unit_roundoff() * fabs(x) + format.underflow_unit()
}

fn zip3<D: Dimension>(
    worst: Option<Array<f64, D>>,
    coherent: Option<Array<f64, D>>,
    sigma: Option<Array<f64, D>>,
) -> Option<Limit<D>> {
    Some(Limit { worst: worst?, coherent: coherent?, sigma: sigma? })
}

/// The same kernel with every narrower format replaced by the accumulator: what is left is what may be systematic.
fn widened(contract: &Contract) -> Contract {
    let accum = contract.accum;
    Contract {
        // Its range stays: what is flushed stays flushed.
        storage: Format { precision: accum.precision, ..contract.storage },
        scores: accum,
        probabilities: accum,
        score_gradients: accum,
        output_accum: accum,
        gradient_accum: accum,
        // LSE's rounding, whatever its format, stays: a whole row shares it, and the gradients of every key see that row.
        ..*contract
    }
}
