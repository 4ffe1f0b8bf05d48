//! Attention on tensors that live on the device: no copies, no waits.

use super::CudaAttention;
use super::element::CudaElement;
use super::params::{Bias, Params, Tensor};
use super::plan::PlanOf;
use super::tensor_cores::TensorCores;
use crate::{Buffer, Config, CudaError, Plain, Unit};
use tilewright_attention::AttentionSpec;

/// Inputs of the forward pass; shapes as [`AttentionSpec`] says, without gaps.
#[derive(Clone, Copy, Debug)]
pub struct DeviceInputs<'a, T: CudaElement> {
    /// Queries.
    pub q: &'a Buffer<T>,
    /// Keys.
    pub k: &'a Buffer<T>,
    /// Values.
    pub v: &'a Buffer<T>,
    /// Additive bias and its shape, in which axes may be 1.
    pub bias: Option<(&'a Buffer<T>, [usize; 4])>,
    /// Sink logits.
    pub sink: Option<&'a Buffer<T::Accum>>,
}

/// Outputs of the forward pass. Every element is written.
#[derive(Debug)]
pub struct DeviceOutputs<'a, T: CudaElement> {
    /// Output.
    pub o: &'a mut Buffer<T>,
    /// Log-sum-exp.
    pub lse: &'a mut Buffer<T::Accum>,
}

/// What the backward pass needs besides the inputs.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSaved<'a, T: CudaElement> {
    /// Output of the forward pass.
    pub o: &'a Buffer<T>,
    /// Log-sum-exp of the forward pass.
    pub lse: &'a Buffer<T::Accum>,
    /// Gradient with respect to `o`.
    pub d_o: &'a Buffer<T>,
    /// Gradient with respect to `lse`.
    pub d_lse: Option<&'a Buffer<T::Accum>>,
}

/// Outputs of the backward pass. Every element is written.
#[derive(Debug)]
pub struct DeviceGradients<'a, T: CudaElement> {
    /// With respect to `q`.
    pub d_q: &'a mut Buffer<T>,
    /// With respect to `k`.
    pub d_k: &'a mut Buffer<T>,
    /// With respect to `v`.
    pub d_v: &'a mut Buffer<T>,
    /// With respect to the bias, if asked for.
    pub d_bias: Option<&'a mut Buffer<T>>,
    /// With respect to the sinks, if asked for.
    pub d_sink: Option<&'a mut Buffer<T::Accum>>,
}

/// Query rows and keys of a tile, and threads of a block, of the kernels that do everything.
const ROWS: usize = 16;
const KEYS: usize = 32;
const THREADS: u32 = 128;

impl CudaAttention {
    /// Puts the forward pass on the device's stream.
    ///
    /// # Errors
    /// [`CudaError::Argument`] for a buffer of the wrong length, [`CudaError::Launch`].
    pub fn forward_on_device<T: CudaElement>(
        &self,
        plan: &PlanOf<T>,
        inputs: &DeviceInputs<'_, T>,
        out: &mut DeviceOutputs<'_, T>,
    ) -> Result<(), CudaError> {
        let spec = plan.spec();
        let mut params = with_inputs(plan, inputs)?;
        params.o = tensor("o", out.o, spec.o_shape())?;
        params.lse = rows("lse", out.lse, spec.lse_shape())?;
        match TensorCores::for_problem::<T>(spec) {
            Some(cores) => self.forward_by_tensor_cores::<T>(spec, cores, &params),
            None => self.query_side::<T>("forward", spec, &params, spec.value_dim),
        }
    }

    /// Puts the backward pass on the device's stream: `D`, then `dQ`, then `dK` and `dV`, then what else is asked for.
    ///
    /// # Errors
    /// As [`forward_on_device`](Self::forward_on_device); [`CudaError::OutOfMemory`] for one number a query row.
    pub fn backward_on_device<T: CudaElement>(
        &self,
        plan: &PlanOf<T>,
        inputs: &DeviceInputs<'_, T>,
        saved: &DeviceSaved<'_, T>,
        gradients: &mut DeviceGradients<'_, T>,
    ) -> Result<(), CudaError> {
        let spec = plan.spec();
        let mut params = with_inputs(plan, inputs)?;
        params.o = tensor("o", saved.o, spec.o_shape())?;
        params.d_o = tensor("d_o", saved.d_o, spec.o_shape())?;
        params.lse = rows("lse", saved.lse, spec.lse_shape())?;
        if let Some(d_lse) = saved.d_lse {
            params.d_lse = rows("d_lse", d_lse, spec.lse_shape())?;
        }
        let d = Buffer::<T::Accum>::uninit(self.device(), "D", spec.lse_shape().iter().product())?;
        params.d = rows("D", &d, spec.lse_shape())?;
        params.d_q = tensor("d_q", gradients.d_q, spec.q_shape())?;
        params.d_k = tensor("d_k", gradients.d_k, spec.k_shape())?;
        params.d_v = tensor("d_v", gradients.d_v, spec.v_shape())?;
        self.query_side::<T>("row_dots", spec, &params, 1)?;
        if let Some(cores) = TensorCores::for_problem::<T>(spec) {
            self.backward_by_tensor_cores::<T>(plan, cores, &params)?;
        } else {
            self.query_side::<T>("query_gradients", spec, &params, spec.head_dim)?;
            self.key_side::<T>(plan, &params)?;
        }
        if let Some(d_bias) = &gradients.d_bias {
            let shape = inputs.bias.map(|(_, shape)| shape).ok_or_else(|| missing("d_bias", "bias"))?;
            length("d_bias", d_bias, &shape)?;
            params.d_bias = Bias::new(d_bias.address(), shape);
            self.bias_side::<T>(&params, shape)?;
        }
        if let Some(d_sink) = &gradients.d_sink {
            inputs.sink.ok_or_else(|| missing("d_sink", "sink"))?;
            length("d_sink", d_sink, &[spec.q_heads])?;
            params.d_sink = d_sink.address();
            self.launch(T::SIMT, &name::<T>("sink_gradient"), spec.q_heads, THREADS, 0, &params)?;
        }
        Ok(())
    }

    /// A kernel over tiles of query rows, with `columns` of output a row.
    fn query_side<T: CudaElement>(
        &self,
        kernel: &str,
        spec: &AttentionSpec,
        params: &Params,
        columns: usize,
    ) -> Result<(), CudaError> {
        let (tiles, columns) = (spec.max_q_len().div_ceil(ROWS), columns.div_ceil(T::WIDTHS[0]));
        let blocks = product(&[tiles, columns, spec.q_heads, spec.batch]);
        let params = Params { tiles: tiles as i32, columns: columns as i32, ..*params };
        self.launch(T::SIMT, &name::<T>(kernel), blocks, THREADS, 0, &params)
    }

    fn key_side<T: CudaElement>(&self, plan: &PlanOf<T>, params: &Params) -> Result<(), CudaError> {
        let spec = plan.spec();
        let columns = spec.head_dim.max(spec.value_dim).div_ceil(T::WIDTHS[1]);
        let mut params = Params { columns: columns as i32, ..*params };
        let blocks = product(&[plan.set_tasks(0, &mut params), spec.kv_heads, columns]);
        self.launch(T::SIMT, &name::<T>("key_gradients"), blocks, THREADS, 0, &params)
    }

    fn bias_side<T: CudaElement>(&self, params: &Params, shape: [usize; 4]) -> Result<(), CudaError> {
        let blocks = product(&[shape[0], shape[1], shape[2].div_ceil(ROWS), shape[3].div_ceil(KEYS)]);
        let params = Params { bias_shape: shape.map(|axis| axis as i32), ..*params };
        self.launch(T::SIMT, &name::<T>("bias_gradient"), blocks, THREADS, 0, &params)
    }

    /// Launches a kernel of the one parameter, unless there is nothing to do.
    pub(super) fn launch(
        &self,
        unit: &'static Unit,
        kernel: &str,
        blocks: usize,
        threads: u32,
        shared: u32,
        params: &Params,
    ) -> Result<(), CudaError> {
        if blocks == 0 {
            return Ok(());
        }
        let most = i32::MAX;
        let blocks = i32::try_from(blocks)
            .map_err(|_| CudaError::argument("blocks of the grid", blocks, format_args!("at most {most}")))?;
        let kernel = self.device().kernel(unit, kernel)?;
        let launch = kernel.launch(Config::new(blocks as u32, threads).shared(shared)).value(*params);
        // SAFETY: the buffers behind the addresses have the lengths that the shapes ask for, as was checked, and live
        // until the launch is on the stream; those written to are borrowed mutably by the caller.
        unsafe { launch.run() }
    }
}

fn name<T: CudaElement>(kernel: &str) -> String {
    format!("attention_simt_{kernel}_{}", T::SUFFIX)
}

/// A product that sticks at the largest number.
pub(super) fn product(factors: &[usize]) -> usize {
    factors.iter().fold(1, |product: usize, factor| product.saturating_mul(*factor))
}

fn missing(gradient: &'static str, input: &'static str) -> CudaError {
    CudaError::argument(gradient, "asked for", format_args!("none, for there is no {input}"))
}

fn length<T: Plain>(tensor: &'static str, buffer: &Buffer<T>, shape: &[usize]) -> Result<(), CudaError> {
    if buffer.len() == product(shape) {
        return Ok(());
    }
    Err(CudaError::argument(tensor, format_args!("{} numbers", buffer.len()), format_args!("those of {shape:?}")))
}

fn tensor<T: Plain>(name: &'static str, buffer: &Buffer<T>, shape: [usize; 4]) -> Result<Tensor, CudaError> {
    length(name, buffer, &shape)?;
    Ok(Tensor::new(buffer.address(), shape))
}

fn rows<T: Plain>(name: &'static str, buffer: &Buffer<T>, shape: [usize; 3]) -> Result<Tensor, CudaError> {
    length(name, buffer, &shape)?;
    Ok(Tensor::rows(buffer.address(), shape))
}

fn with_inputs<T: CudaElement>(plan: &PlanOf<T>, inputs: &DeviceInputs<'_, T>) -> Result<Params, CudaError> {
    let (spec, mut params) = (plan.spec(), plan.params());
    params.q = tensor("q", inputs.q, spec.q_shape())?;
    params.k = tensor("k", inputs.k, spec.k_shape())?;
    params.v = tensor("v", inputs.v, spec.v_shape())?;
    if let Some((bias, shape)) = inputs.bias {
        let full = spec.full_bias_shape();
        if !shape.iter().zip(full).all(|(&axis, full)| axis == full || axis == 1) {
            let expected = format!("{full:?}, each may be 1");
            return Err(CudaError::argument("shape of bias", format_args!("{shape:?}"), expected));
        }
        length("bias", bias, &shape)?;
        params.bias = Bias::new(bias.address(), shape);
    }
    if let Some(sink) = inputs.sink {
        length("sink", sink, &[spec.q_heads])?;
        params.sink = sink.address();
    }
    Ok(params)
}
