//! The problem as kernels see it: the structures of `kernels/attention.cuh`, field by field.

use crate::Value;

/// A tensor `[slot, head, row, column]` with adjacent columns; strides in elements.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tensor {
    pub(super) data: u64,
    pub(super) slot: i64,
    pub(super) head: i64,
    pub(super) row: i64,
}

impl Tensor {
    /// A tensor of this shape without gaps at this address. A missing last axis is one column.
    pub(super) fn new(data: u64, [_, heads, rows, columns]: [usize; 4]) -> Self {
        let (row, head) = (columns as i64, (rows * columns) as i64);
        Self { data, slot: heads as i64 * head, head, row }
    }

    /// A tensor of one number a row.
    pub(super) fn rows(data: u64, [slots, heads, rows]: [usize; 3]) -> Self {
        Self::new(data, [slots, heads, rows, 1])
    }
}

/// Bias and its gradient; stride 0 along a shared axis.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bias {
    data: u64,
    strides: [i64; 4],
}

impl Bias {
    /// A bias of this shape, without gaps.
    pub(super) fn new(data: u64, shape: [usize; 4]) -> Self {
        let mut strides = [0; 4];
        let mut step = 1;
        for (stride, axis) in strides.iter_mut().zip(shape).rev() {
            *stride = if axis == 1 { 0 } else { step };
            step *= axis as i64;
        }
        Self { data, strides }
    }
}

/// The block mask; stride 0 along a shared axis.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Blocks {
    pub(super) data: u64,
    pub(super) batch: i64,
    pub(super) head: i64,
    pub(super) row: i64,
    pub(super) block_q: i32,
    pub(super) block_k: i32,
}

/// The one parameter of every attention kernel. Sizes and their order are those of `attention::Params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Params {
    pub(super) q: Tensor,
    pub(super) k: Tensor,
    pub(super) v: Tensor,
    pub(super) o: Tensor,
    pub(super) d_o: Tensor,
    pub(super) d_q: Tensor,
    pub(super) d_k: Tensor,
    pub(super) d_v: Tensor,
    pub(super) lse: Tensor,
    pub(super) d_lse: Tensor,
    pub(super) d: Tensor,
    pub(super) bias: Bias,
    pub(super) d_bias: Bias,
    pub(super) blocks: Blocks,
    pub(super) sink: u64,
    pub(super) d_sink: u64,
    pub(super) slopes: u64,
    pub(super) sequences: u64,
    pub(super) table: u64,
    pub(super) tasks: u64,
    pub(super) uses: u64,
    pub(super) scale: f64,
    pub(super) cap: f64,
    pub(super) keep: f64,
    pub(super) threshold: u64,
    pub(super) seed: [u32; 2],
    pub(super) batch: i32,
    pub(super) q_heads: i32,
    pub(super) group: i32,
    pub(super) dim: i32,
    pub(super) value_dim: i32,
    pub(super) page_size: i32,
    pub(super) cap_mode: i32,
    pub(super) dropout: i32,
    pub(super) tiles: i32,
    pub(super) columns: i32,
    pub(super) bias_shape: [i32; 4],
    pub(super) splits: i32,
    pub(super) split_len: i32,
    pub(super) part_o: Tensor,
    pub(super) part_lse: Tensor,
}

// SAFETY: `repr(C)`, of the fields that `attention::Params` has; every launch compares the size with the kernel's.
unsafe impl Value for Params {}
