//! Attention on CUDA: exact, by tiles, with O(N) memory besides inputs and outputs.
//!
//! | module | holds |
//! |---|---|
//! | `plan` | a problem's sequences, pages, masks and slopes on the device |
//! | `resident` | the passes over tensors that live there: forward; `D`, `dQ`, `dK` and `dV`, `dBias`, `dSink` |
//! | `host` | the traits of the `core` crate, by copies |
//! | `tensor_cores` | which problems go to them, and their tiles |
//! | `element` | the element types and their kernels |
//! | `params` | the one structure that kernels take |
//!
//! Kernels: `kernels/attention_simt.cuh` does everything by multiply-adds, for every element type and dimension.
//! `kernels/attention_mma.cuh` and `attention_mma_backward.cuh` do it by tensor cores, for `f16` and `bf16` with head
//! dimensions that are multiples of 8 and at most 256. Which of the two a pass takes follows from the element type and
//! the dimensions alone.

mod element;
mod host;
mod params;
mod plan;
mod resident;
mod tensor_cores;

pub use element::CudaElement;
pub use plan::{AttentionPlan, PlanOf};
pub use resident::{DeviceGradients, DeviceInputs, DeviceOutputs, DeviceSaved};

use crate::Device;
use tilewright_attention::Contract;
use tilewright_scalar::Format;

/// FlashAttention on a CUDA device, for `f64`, `f32`, `f16` and `bf16`, and every feature of
/// [`AttentionSpec`](tilewright_attention::AttentionSpec). Results are bitwise the same from run to run.
///
/// ```no_run
/// use ndarray::{Array3, Array4};
/// use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs};
/// use tilewright_cuda::{CudaAttention, Device};
///
/// let method = CudaAttention::new(Device::open(0)?);
/// let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 100, 100, 16) };
/// let (q, k, v) = (Array4::<f32>::ones(spec.q_shape()), Array4::ones(spec.k_shape()), Array4::ones(spec.v_shape()));
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
/// let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
/// method.forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), out)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CudaAttention {
    device: Device,
}

impl CudaAttention {
    /// Attention on this device, in its stream.
    pub fn new(device: Device) -> Self {
        Self { device }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The numeric contract kept on tensors stored in `format`: sums, statistics and LSE in `f32`, or in `f64` where the
    /// storage is wider than that; `exp`, `ln` and `tanh` within two units in the last place. Of 16-bit tensors `P` is
    /// rounded to storage for its products with `V` and `dO`, `dS` for those with `Q` and `K`, and tensor cores may add with
    /// truncation.
    pub fn contract(&self, format: Format) -> Contract {
        let strict = Contract::strict(format);
        if format.precision < Format::F32.precision {
            Contract { probabilities: format, score_gradients: format, truncates: true, ..strict }
        } else {
            strict
        }
    }
}
