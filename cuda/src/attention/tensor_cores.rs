//! The kernels by tensor cores: which problems they take, and the shapes of their tiles.

use super::CudaAttention;
use super::element::CudaElement;
use super::params::{Params, Tensor};
use super::plan::PlanOf;
use super::resident::product;
use crate::{Buffer, CudaError, Unit};
use tilewright_attention::AttentionSpec;

/// Threads of a block.
const THREADS: u32 = 128;

/// Rows of `Q`, or of `K` and `V`, that a block of the backward pass owns.
const OWN: usize = super::plan::KEY_ROWS[1];

/// Query rows of a sequence up to which the kernels for decoding are used; and rows of their tiles, in which all query heads
/// of a key head are.
const DECODE_ROWS: usize = 16;

/// The least keys in a split (a multiple of every tile), and the most splits.
const SPLIT_KEYS: usize = 512;
const MOST_SPLITS: usize = 64;

/// Kernels for problems whose head dimensions are at most `dim`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorCores {
    units: [&'static Unit; 3],
    dim: usize,
}

impl TensorCores {
    /// The kernels for a problem; `None` if it has to do without: dimensions beyond 256, or rows that are no whole number
    /// of the 16 bytes that copies are made of.
    pub(super) fn for_problem<T: CudaElement>(spec: &AttentionSpec) -> Option<Self> {
        let units = T::MMA?;
        let longest = spec.head_dim.max(spec.value_dim);
        let dim = [32, 64, 96, 128, 256].into_iter().find(|dim| longest <= *dim)?;
        let whole = spec.head_dim.is_multiple_of(8) && spec.value_dim.is_multiple_of(8);
        whole.then_some(Self { units, dim })
    }

    /// Query rows a block and bytes of shared memory: `Shape` of `kernels/attention_mma.cuh`.
    fn forward_shape(self) -> (usize, u32) {
        let (rows, keys) = (if self.dim <= 128 { 128 } else { 64 }, if self.dim <= 128 { 64 } else { 32 });
        (rows, (2 * self.dim * (rows + 2 * keys) + 2 * keys * THREADS as usize) as u32)
    }

    /// Threads of a block and bytes of shared memory: `DecodeShape` of `kernels/attention_mma_decode.cuh`.
    fn decode_shape(self) -> (u32, u32) {
        let (warps, keys, stages) = (if self.dim <= 128 { 4 } else { 2 }, 16, 2);
        let bytes = 2 * self.dim * (DECODE_ROWS + warps * stages * 2 * keys) + 2 * keys * THREADS as usize;
        (32 * warps as u32, bytes as u32)
    }

    /// Keys that pass by the queries of a block, and rows that pass by its keys: `BackwardShape` of
    /// `kernels/attention_mma_backward.cuh`.
    fn keys_passing(self) -> usize {
        match self.dim {
            ..=96 => 64,
            97..=128 => 32,
            _ => 16,
        }
    }

    fn rows_passing(self) -> usize {
        match self.dim {
            ..=64 => 64,
            65..=128 => 32,
            _ => 16,
        }
    }

    /// Stages of what passes by.
    fn stages(self) -> usize {
        if self.dim <= 128 { 2 } else { 1 }
    }

    /// Bytes: two tiles a block owns, two that pass by in each stage, and two slots for each of a thread's pairs.
    fn backward_shared(self, passing: usize) -> u32 {
        (2 * self.dim * 2 * (OWN + self.stages() * passing) + passing * 4 * THREADS as usize) as u32
    }
}

/// How many splits the keys are cut into in decoding, and at the multiples of which length: few queries leave a device idle
/// that keys by the thousand could keep busy. A function of the problem, so that results are one too.
fn key_splits(keys: usize) -> (usize, usize) {
    if keys <= SPLIT_KEYS {
        return (1, 0);
    }
    let len = keys.div_ceil(MOST_SPLITS).max(SPLIT_KEYS).next_multiple_of(SPLIT_KEYS);
    (keys.div_ceil(len), len)
}

impl CudaAttention {
    pub(super) fn forward_by_tensor_cores<T: CudaElement>(
        &self,
        spec: &AttentionSpec,
        cores: TensorCores,
        params: &Params,
    ) -> Result<(), CudaError> {
        if spec.max_q_len() <= DECODE_ROWS {
            return self.decode::<T>(spec, cores, params);
        }
        let (rows, shared) = cores.forward_shape();
        let tiles = spec.max_q_len().div_ceil(rows);
        let params = Params { tiles: tiles as i32, ..*params };
        let blocks = product(&[tiles, spec.q_heads, spec.batch]);
        let name = format!("attention_mma_forward_{}_{}", cores.dim, T::SUFFIX);
        self.launch(cores.units[0], &name, blocks, THREADS, shared, &params)
    }

    /// The forward pass for few query rows.
    fn decode<T: CudaElement>(
        &self,
        spec: &AttentionSpec,
        cores: TensorCores,
        params: &Params,
    ) -> Result<(), CudaError> {
        let (threads, shared) = cores.decode_shape();
        let tiles = (spec.q_heads / spec.kv_heads * spec.max_q_len()).div_ceil(DECODE_ROWS);
        let (splits, split_len) = key_splits(spec.max_kv_len());
        let mut params = Params { tiles: tiles as i32, splits: splits as i32, split_len: split_len as i32, ..*params };
        let blocks = product(&[tiles, spec.kv_heads, spec.batch, splits]);
        let (unit, name) = (cores.units[2], format!("attention_mma_decode_{}_{}", cores.dim, T::SUFFIX));
        if splits == 1 {
            return self.launch(unit, &name, blocks, threads, shared, &params);
        }
        // What each split makes of a row is kept in single precision, as if splits were heads.
        let ([slots, heads, rows, columns], device) = (spec.o_shape(), self.device());
        let heads = heads * splits;
        let o = Buffer::<f32>::uninit(device, "O of splits", product(&[slots, heads, rows, columns]))?;
        let lse = Buffer::<f32>::uninit(device, "LSE of splits", product(&[slots, heads, rows]))?;
        params.part_o = Tensor::new(o.address(), [slots, heads, rows, columns]);
        params.part_lse = Tensor::rows(lse.address(), [slots, heads, rows]);
        self.launch(unit, &name, blocks, threads, shared, &params)?;
        params.tiles = spec.max_q_len() as i32;
        let merged = product(&[spec.max_q_len(), spec.q_heads, spec.batch]).div_ceil(THREADS as usize / 32);
        self.launch(unit, &format!("attention_merge_{}", T::SUFFIX), merged, THREADS, 0, &params)
    }

    /// `dQ`, then `dK` and `dV`.
    pub(super) fn backward_by_tensor_cores<T: CudaElement>(
        &self,
        plan: &PlanOf<T>,
        cores: TensorCores,
        params: &Params,
    ) -> Result<(), CudaError> {
        let spec = plan.spec();
        let tiles = spec.max_q_len().div_ceil(OWN);
        let name = format!("attention_mma_query_gradients_{}_{}", cores.dim, T::SUFFIX);
        let blocks = product(&[tiles, spec.q_heads, spec.batch]);
        let by_queries = Params { tiles: tiles as i32, ..*params };
        let shared = cores.backward_shared(cores.keys_passing());
        self.launch(cores.units[1], &name, blocks, THREADS, shared, &by_queries)?;

        let columns = cores.dim.div_ceil(128);
        let name = format!("attention_mma_key_gradients_{}_{}", cores.dim, T::SUFFIX);
        let mut by_keys = Params { columns: columns as i32, ..*params };
        let blocks = product(&[plan.set_tasks(1, &mut by_keys), spec.kv_heads, columns]);
        // And two numbers of each row that passes by.
        let shared = cores.backward_shared(cores.rows_passing()) + (8 * cores.stages() * cores.rows_passing()) as u32;
        self.launch(cores.units[1], &name, blocks, THREADS, shared, &by_keys)
    }
}
