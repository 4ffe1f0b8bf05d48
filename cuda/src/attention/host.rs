//! The traits of the `core` crate: tensors on the host are copied to the device, and results back.

use super::CudaAttention;
use super::element::CudaElement;
use super::plan::{AttentionPlan, PlanOf};
use super::resident::{DeviceGradients, DeviceInputs, DeviceOutputs, DeviceSaved};
use crate::{Buffer, CudaError, Device, Plain};
use ndarray::{ArrayView, ArrayViewMut, Dimension};
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, Gradients, Inputs, Outputs, Saved,
};

impl<T: CudaElement> AttentionForward<T> for CudaAttention {
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError> {
        inputs.check(spec)?;
        out.check(spec)?;
        forward(self, spec, inputs, out).map_err(failed)
    }
}

impl<T: CudaElement> AttentionBackward<T> for CudaAttention {
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError> {
        inputs.check(spec)?;
        saved.check(spec)?;
        gradients.check(spec, inputs)?;
        backward(self, spec, inputs, saved, gradients).map_err(failed)
    }
}

fn failed(error: CudaError) -> AttentionError {
    AttentionError::Backend { problem: error.to_string() }
}

fn forward<T: CudaElement>(
    method: &CudaAttention,
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    out: Outputs<'_, T>,
) -> Result<(), CudaError> {
    let device = method.device();
    let plan: PlanOf<T> = AttentionPlan::new(device, spec)?;
    let there = Resident::new(device, inputs)?;
    let mut o = empty(device, "o", &out.o)?;
    let mut lse = empty(device, "lse", &out.lse)?;
    method.forward_on_device(&plan, &there.inputs(), &mut DeviceOutputs { o: &mut o, lse: &mut lse })?;
    // Nothing is written before everything has worked.
    let (o, lse) = (o.to_vec()?, lse.to_vec()?);
    fill(out.o, o);
    fill(out.lse, lse);
    Ok(())
}

fn backward<T: CudaElement>(
    method: &CudaAttention,
    spec: &AttentionSpec,
    inputs: &Inputs<'_, T>,
    saved: &Saved<'_, T>,
    gradients: Gradients<'_, T>,
) -> Result<(), CudaError> {
    let device = method.device();
    let plan: PlanOf<T> = AttentionPlan::new(device, spec)?;
    let there = Resident::new(device, inputs)?;
    let (o, lse) = (copy(device, "o", saved.o)?, copy(device, "lse", saved.lse)?);
    let d_o = copy(device, "d_o", saved.d_o)?;
    let d_lse = saved.d_lse.map(|d_lse| copy(device, "d_lse", d_lse)).transpose()?;
    let saved = DeviceSaved { o: &o, lse: &lse, d_o: &d_o, d_lse: d_lse.as_ref() };
    let mut d_q = empty(device, "d_q", &gradients.d_q)?;
    let mut d_k = empty(device, "d_k", &gradients.d_k)?;
    let mut d_v = empty(device, "d_v", &gradients.d_v)?;
    let mut d_bias = gradients.d_bias.as_ref().map(|d_bias| empty(device, "d_bias", d_bias)).transpose()?;
    let mut d_sink = gradients.d_sink.as_ref().map(|d_sink| empty(device, "d_sink", d_sink)).transpose()?;
    let mut results = DeviceGradients {
        d_q: &mut d_q,
        d_k: &mut d_k,
        d_v: &mut d_v,
        d_bias: d_bias.as_mut(),
        d_sink: d_sink.as_mut(),
    };
    method.backward_on_device(&plan, &there.inputs(), &saved, &mut results)?;
    let (d_q, d_k, d_v) = (d_q.to_vec()?, d_k.to_vec()?, d_v.to_vec()?);
    let d_bias = d_bias.map(|d_bias| d_bias.to_vec()).transpose()?;
    let d_sink = d_sink.map(|d_sink| d_sink.to_vec()).transpose()?;
    fill(gradients.d_q, d_q);
    fill(gradients.d_k, d_k);
    fill(gradients.d_v, d_v);
    if let (Some(to), Some(from)) = (gradients.d_bias, d_bias) {
        fill(to, from);
    }
    if let (Some(to), Some(from)) = (gradients.d_sink, d_sink) {
        fill(to, from);
    }
    Ok(())
}

/// Copies of the inputs.
struct Resident<T: CudaElement> {
    q: Buffer<T>,
    k: Buffer<T>,
    v: Buffer<T>,
    bias: Option<(Buffer<T>, [usize; 4])>,
    sink: Option<Buffer<T::Accum>>,
}

impl<T: CudaElement> Resident<T> {
    fn new(device: &Device, inputs: &Inputs<'_, T>) -> Result<Self, CudaError> {
        let bias = inputs.bias.map(|bias| {
            let (b, h, i, j) = bias.dim();
            Ok::<_, CudaError>((copy(device, "bias", bias)?, [b, h, i, j]))
        });
        Ok(Self {
            q: copy(device, "q", inputs.q)?,
            k: copy(device, "k", inputs.k)?,
            v: copy(device, "v", inputs.v)?,
            bias: bias.transpose()?,
            sink: inputs.sink.map(|sink| copy(device, "sink", sink)).transpose()?,
        })
    }

    fn inputs(&self) -> DeviceInputs<'_, T> {
        let bias = self.bias.as_ref().map(|(bias, shape)| (bias, *shape));
        DeviceInputs { q: &self.q, k: &self.k, v: &self.v, bias, sink: self.sink.as_ref() }
    }
}

/// A view's elements in the order of its axes.
fn copy<T: Plain, D: Dimension>(
    device: &Device,
    name: &str,
    view: ArrayView<'_, T, D>,
) -> Result<Buffer<T>, CudaError> {
    match view.as_slice() {
        Some(slice) => Buffer::from_slice(device, name, slice),
        None => Buffer::from_slice(device, name, &view.iter().copied().collect::<Vec<_>>()),
    }
}

/// Memory for as many elements as a view has.
fn empty<T: Plain, D: Dimension>(
    device: &Device,
    name: &str,
    view: &ArrayViewMut<'_, T, D>,
) -> Result<Buffer<T>, CudaError> {
    Buffer::uninit(device, name, view.len())
}

/// Writes elements in the order of the view's axes.
fn fill<T: Plain, D: Dimension>(mut view: ArrayViewMut<'_, T, D>, from: Vec<T>) {
    view.iter_mut().zip(from).for_each(|(to, from)| *to = from);
}
