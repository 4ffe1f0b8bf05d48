//! The kernels by tensor cores: which problems they take, and the shapes of their tiles.

use super::CudaAttention;
use super::element::CudaElement;
use super::params::Params;
use super::resident::product;
use crate::{CudaError, Unit};
use tilewright_attention::AttentionSpec;

/// Threads of a block.
const THREADS: u32 = 128;

/// Kernels for problems whose head dimensions are at most `dim`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorCores {
    unit: &'static Unit,
    dim: usize,
}

impl TensorCores {
    /// The kernels for a problem; `None` if it has to do without: dimensions beyond 256, or rows that are no whole number
    /// of the 16 bytes that copies are made of.
    pub(super) fn for_problem<T: CudaElement>(spec: &AttentionSpec) -> Option<Self> {
        let unit = T::MMA?;
        let longest = spec.head_dim.max(spec.value_dim);
        let dim = [32, 64, 96, 128, 256].into_iter().find(|dim| longest <= *dim)?;
        let whole = spec.head_dim.is_multiple_of(8) && spec.value_dim.is_multiple_of(8);
        whole.then_some(Self { unit, dim })
    }

    /// Query rows a block, keys a tile, bytes of shared memory: `Shape` of `kernels/attention_mma.cuh`.
    fn forward_shape(self) -> (usize, usize, usize) {
        let (rows, keys) = (if self.dim <= 128 { 128 } else { 64 }, if self.dim <= 64 { 64 } else { 32 });
        (rows, keys, 2 * self.dim * (rows + 2 * keys) + 2 * keys * THREADS as usize)
    }
}

impl CudaAttention {
    pub(super) fn forward_by_tensor_cores<T: CudaElement>(
        &self,
        spec: &AttentionSpec,
        cores: TensorCores,
        params: &Params,
    ) -> Result<(), CudaError> {
        let (rows, _, shared) = cores.forward_shape();
        let tiles = spec.max_q_len().div_ceil(rows);
        let params = Params { tiles: tiles as i32, splits: 1, ..*params };
        let blocks = product(&[tiles, spec.q_heads, spec.batch]);
        let name = format!("attention_mma_forward_{}_{}", cores.dim, T::SUFFIX);
        self.launch(cores.unit, &name, blocks, THREADS, shared as u32, &params)
    }
}
