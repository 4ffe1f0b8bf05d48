//! The tensors of a problem, as views, and the check that they fit it.

use crate::{AttentionError, AttentionSpec};
use alloc::format;
use ndarray::{ArrayView1, ArrayView3, ArrayView4, ArrayViewMut1, ArrayViewMut3, ArrayViewMut4, Axis};
use tilewright_scalar::Element;

/// Inputs of the forward pass. Views of any strides; shapes as [`AttentionSpec`] says.
///
/// ```
/// use ndarray::Array4;
/// use tilewright_attention::{AttentionSpec, Inputs};
/// let spec = AttentionSpec::dense(1, 2, 3, 5, 8);
/// let (q, k, v) = (Array4::<f32>::zeros(spec.q_shape()), Array4::zeros(spec.k_shape()), Array4::zeros(spec.v_shape()));
/// let inputs = Inputs::new(q.view(), k.view(), v.view());
/// inputs.check(&spec)?;
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, T: Element> {
    /// Queries, [`AttentionSpec::q_shape`].
    pub q: ArrayView4<'a, T>,
    /// Keys, [`AttentionSpec::k_shape`].
    pub k: ArrayView4<'a, T>,
    /// Values, [`AttentionSpec::v_shape`].
    pub v: ArrayView4<'a, T>,
    /// Additive bias `[batch | 1, q_heads | 1, max q_len | 1, max kv_len | 1]`, in natural score units.
    pub bias: Option<ArrayView4<'a, T>>,
    /// Sink logits, one a query head.
    pub sink: Option<ArrayView1<'a, T::Accum>>,
}

impl<'a, T: Element> Inputs<'a, T> {
    /// Inputs without bias and sink.
    pub fn new(q: ArrayView4<'a, T>, k: ArrayView4<'a, T>, v: ArrayView4<'a, T>) -> Self {
        Self { q, k, v, bias: None, sink: None }
    }

    /// Validates the problem and that these tensors fit it.
    ///
    /// # Errors
    /// As [`AttentionSpec::validate`], and [`AttentionError::Shape`] for the first tensor that does not fit.
    pub fn check(&self, spec: &AttentionSpec) -> Result<(), AttentionError> {
        spec.validate()?;
        expect_shape("q", self.q.shape(), &spec.q_shape())?;
        expect_shape("k", self.k.shape(), &spec.k_shape())?;
        expect_shape("v", self.v.shape(), &spec.v_shape())?;
        if let Some(sink) = &self.sink {
            expect_shape("sink", sink.shape(), &[spec.q_heads])?;
        }
        self.bias.as_ref().map_or(Ok(()), |bias| expect_broadcast("bias", bias.shape(), spec))
    }

    /// The bias at logical coordinates, broadcast; `None` without one.
    pub fn bias_at(&self, b: usize, h: usize, i: usize, j: usize) -> Option<T> {
        self.bias.as_ref().map(|bias| bias[broadcast_index(bias.dim(), b, h, i, j)])
    }
}

/// Where logical coordinates `(b, h, i, j)` fall in a bias of shape `dim`, whose axes of length 1 are shared.
pub fn broadcast_index(dim: (usize, usize, usize, usize), b: usize, h: usize, i: usize, j: usize) -> [usize; 4] {
    let along = |length: usize, index: usize| if length == 1 { 0 } else { index };
    [along(dim.0, b), along(dim.1, h), along(dim.2, i), along(dim.3, j)]
}

/// Outputs of the forward pass. Every element is written, whatever it held before.
#[derive(Debug)]
pub struct Outputs<'a, T: Element> {
    /// Output, [`AttentionSpec::o_shape`].
    pub o: ArrayViewMut4<'a, T>,
    /// Log-sum-exp, natural, [`AttentionSpec::lse_shape`].
    pub lse: ArrayViewMut3<'a, T::Accum>,
}

impl<T: Element> Outputs<'_, T> {
    /// Checks the shapes.
    ///
    /// # Errors
    /// [`AttentionError::Shape`] for the first tensor that does not fit.
    pub fn check(&self, spec: &AttentionSpec) -> Result<(), AttentionError> {
        expect_shape("o", self.o.shape(), &spec.o_shape())?;
        expect_shape("lse", self.lse.shape(), &spec.lse_shape())
    }
}

/// What the backward pass needs besides [`Inputs`]: the forward's results and the gradients that flow in.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a, T: Element> {
    /// Output of the forward pass, as stored.
    pub o: ArrayView4<'a, T>,
    /// Log-sum-exp of the forward pass.
    pub lse: ArrayView3<'a, T::Accum>,
    /// Gradient of the loss with respect to `o`.
    pub d_o: ArrayView4<'a, T>,
    /// Gradient of the loss with respect to `lse`, where the loss depends on it.
    pub d_lse: Option<ArrayView3<'a, T::Accum>>,
}

impl<T: Element> Saved<'_, T> {
    /// Checks the shapes.
    ///
    /// # Errors
    /// [`AttentionError::Shape`] for the first tensor that does not fit.
    pub fn check(&self, spec: &AttentionSpec) -> Result<(), AttentionError> {
        expect_shape("o", self.o.shape(), &spec.o_shape())?;
        expect_shape("lse", self.lse.shape(), &spec.lse_shape())?;
        check_incoming::<T>(spec, self.d_o, self.d_lse)
    }
}

/// Checks the shapes of the gradients that flow in.
pub(crate) fn check_incoming<T: Element>(
    spec: &AttentionSpec,
    d_o: ArrayView4<'_, T>,
    d_lse: Option<ArrayView3<'_, T::Accum>>,
) -> Result<(), AttentionError> {
    expect_shape("d_o", d_o.shape(), &spec.o_shape())?;
    d_lse.map_or(Ok(()), |d_lse| expect_shape("d_lse", d_lse.shape(), &spec.lse_shape()))
}

/// Outputs of the backward pass. Every element is written, whatever it held before.
#[derive(Debug)]
pub struct Gradients<'a, T: Element> {
    /// Gradient with respect to `q`.
    pub d_q: ArrayViewMut4<'a, T>,
    /// Gradient with respect to `k`, summed over the query heads of a group.
    pub d_k: ArrayViewMut4<'a, T>,
    /// Gradient with respect to `v`, summed over the query heads of a group.
    pub d_v: ArrayViewMut4<'a, T>,
    /// Gradient with respect to the bias, in the bias's own shape: summed over broadcast axes. Optional.
    pub d_bias: Option<ArrayViewMut4<'a, T>>,
    /// Gradient with respect to the sinks. Optional.
    pub d_sink: Option<ArrayViewMut1<'a, T::Accum>>,
}

impl<T: Element> Gradients<'_, T> {
    /// Checks the shapes, and that nothing is asked for that the inputs lack.
    ///
    /// # Errors
    /// [`AttentionError::Shape`] or [`AttentionError::Presence`] for the first tensor that does not fit.
    pub fn check(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>) -> Result<(), AttentionError> {
        expect_shape("d_q", self.d_q.shape(), &spec.q_shape())?;
        expect_shape("d_k", self.d_k.shape(), &spec.k_shape())?;
        expect_shape("d_v", self.d_v.shape(), &spec.v_shape())?;
        match (&self.d_bias, &inputs.bias) {
            (Some(d_bias), Some(bias)) => expect_shape("d_bias", d_bias.shape(), bias.shape())?,
            (Some(_), None) => return Err(absent("d_bias", "asked for, but the inputs have no bias")),
            (None, _) => {}
        }
        match (&self.d_sink, &inputs.sink) {
            (Some(d_sink), Some(sink)) => expect_shape("d_sink", d_sink.shape(), sink.shape()),
            (Some(_), None) => Err(absent("d_sink", "asked for, but the inputs have no sink")),
            (None, _) => Ok(()),
        }
    }
}

fn absent(tensor: &'static str, problem: &'static str) -> AttentionError {
    AttentionError::Presence { tensor, problem }
}

fn expect_shape(tensor: &'static str, got: &[usize], expected: &[usize]) -> Result<(), AttentionError> {
    if got == expected {
        Ok(())
    } else {
        Err(AttentionError::Shape { tensor, got: format!("{got:?}"), expected: format!("{expected:?}") })
    }
}

fn expect_broadcast(tensor: &'static str, got: &[usize], spec: &AttentionSpec) -> Result<(), AttentionError> {
    let full = spec.full_bias_shape();
    if got.iter().zip(&full).all(|(&axis, &full)| axis == full || axis == 1) {
        Ok(())
    } else {
        let expected = format!("{full:?}, each may be 1");
        Err(AttentionError::Shape { tensor, got: format!("{got:?}"), expected })
    }
}

/// One row of a tensor: `tensor[[a, b, c, ..]]`.
pub fn row<T>(tensor: ArrayView4<'_, T>, [a, b, c]: [usize; 3]) -> ArrayView1<'_, T> {
    tensor.index_axis_move(Axis(0), a).index_axis_move(Axis(0), b).index_axis_move(Axis(0), c)
}

/// One row of a tensor, to write to.
pub fn row_mut<T>(tensor: ArrayViewMut4<'_, T>, [a, b, c]: [usize; 3]) -> ArrayViewMut1<'_, T> {
    tensor.index_axis_move(Axis(0), a).index_axis_move(Axis(0), b).index_axis_move(Axis(0), c)
}
