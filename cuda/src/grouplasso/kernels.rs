//! The kernels of `grouplasso.cu` and the structures that they are given.

use crate::{CudaError, Device, Kernel, Unit, Value};

/// The PTX of `grouplasso.cu`.
pub static UNIT: Unit = Unit { name: "grouplasso", ptx: include_str!("../../ptx/grouplasso.ptx") };

/// Threads of a block in loops and in the compaction.
pub(super) const THREADS: u32 = 256;
/// Elements of a tile of the compaction.
pub(super) const TILE: usize = 4096;
/// Places of a histogram.
pub(super) const DIGITS: usize = 2048;
/// Shift and width of each digit of a key.
pub(super) const SPLIT: [(u32, u32); 6] = [(53, 11), (42, 11), (31, 11), (20, 11), (10, 10), (0, 10)];
/// Side of the square that a block of the product makes.
pub(super) const SIDE: usize = 64;

/// Groups, resolved.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupsArgument {
    pub(super) starts: u64,
    pub(super) members: u64,
    pub(super) groups: u64,
    pub(super) outputs: u64,
}

/// Columns of `X`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnsArgument {
    pub(super) x: u64,
    pub(super) mean: u64,
    pub(super) scale: u64,
    pub(super) features: u64,
    pub(super) samples: u64,
    pub(super) rows: u64,
    pub(super) outputs: u64,
    pub(super) wide: u32,
    pub(super) transposed: u32,
}

// SAFETY: numbers, in the order and of the sizes that `grouplasso.cu` gives them.
unsafe impl Value for GroupsArgument {}
// SAFETY: as above.
unsafe impl Value for ColumnsArgument {}

/// Every kernel of the unit, loaded.
#[derive(Clone)]
pub(super) struct Kernels {
    pub(super) prox: Kernel,
    pub(super) scores: Kernel,
    pub(super) digits: Kernel,
    pub(super) pick: Kernel,
    pub(super) keep: Kernel,
    pub(super) product: Kernel,
    pub(super) axpy: Kernel,
    pub(super) dots: Kernel,
    pub(super) extrapolate: Kernel,
}

impl Kernels {
    pub(super) fn new(device: &Device) -> Result<Self, CudaError> {
        let get = |name: &str| device.kernel(&UNIT, &format!("grouplasso_{name}"));
        Ok(Self {
            prox: get("prox")?,
            scores: get("scores")?,
            digits: get("digits")?,
            pick: get("pick")?,
            keep: get("keep")?,
            product: get("product")?,
            axpy: get("axpy")?,
            dots: get("dots")?,
            extrapolate: get("extrapolate")?,
        })
    }
}
