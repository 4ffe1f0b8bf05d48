//! The kernels of `compression.cu` and the structures that they are given.

use crate::{CudaError, Device, Kernel, Unit, Value};
use tilewright_compression::hash::mix;
use tilewright_compression::{Feedback, ValueFormat};

/// The PTX of `compression.cu`.
pub static UNIT: Unit = Unit { name: "compression", ptx: include_str!("../../ptx/compression.ptx") };

/// Elements of a tile of the compaction; and of a stage, by kind of feedback.
pub(super) const TILE: usize = 4096;
pub(super) const STAGE: [usize; 4] = [8192, 4096, 4096, 4096];
/// Threads of its blocks, and warps.
pub(super) const THREADS: u32 = 256;
pub(super) const WARPS: u32 = THREADS / 32;
/// Numbers of `Control`, 32 bits each; and where some of them are.
pub(super) const CONTROL: usize = 16;
pub(super) const WORDS: usize = 6;
pub(super) const FIRST_BAD: usize = 8;
pub(super) const REFINING: usize = 9;
/// Thresholds that are counted in one launch.
pub(super) const BATCH: u32 = 32;
/// Places of a histogram.
pub(super) const DIGITS: usize = 2048;
/// Shift and width of each digit of a magnitude.
pub(super) const SPLIT: [(u32, u32); 3] = [(20, 11), (10, 10), (0, 10)];

/// How a gradient enters the memory; `Feedback` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Entering {
    pub(super) kind: u32,
    masking: u32,
    factor: f32,
    pub(super) scale: f32,
}

impl Entering {
    pub(super) fn new(feedback: Feedback, scale: f32) -> Self {
        match feedback {
            Feedback::None => Self { kind: 0, masking: 0, factor: 0.0, scale },
            Feedback::Residual => Self { kind: 1, masking: 0, factor: 0.0, scale },
            Feedback::Momentum { factor, nesterov, masking } => {
                Self { kind: if nesterov { 3 } else { 2 }, masking: u32::from(masking), factor, scale }
            }
        }
    }
}

/// Values to choose from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub(super) at: u64,
    pub(super) count: u64,
    pub(super) scale: f32,
    pub(super) pad: u32,
}

/// A strided sample that is staged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strided {
    pub(super) at: u64,
    pub(super) start: u32,
    pub(super) stride: u32,
    pub(super) count: u32,
    pub(super) pad: u32,
}

/// What was staged.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    pub(super) words: u64,
    pub(super) segments: u64,
    pub(super) capacity: u64,
    pub(super) tiles: u64,
    pub(super) share: u64,
}

impl Pool {
    /// None: all values are looked at.
    pub(super) const NONE: Self = Self { words: 0, segments: 0, capacity: 0, tiles: 0, share: 0 };
}

/// What a search by digits is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Cut = 1,
    Floor = 2,
    Threshold = 3,
}

/// One digit of a search.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    rank: u64,
    goal: u32,
    shift: u32,
    bits: u32,
    last: u32,
}

impl Search {
    /// The digit at `place` of a search for `of` digits. Without `begin`, a rank and a goal, it has begun on the device.
    pub(super) fn digit(begin: Option<(usize, Goal)>, place: usize, of: usize) -> Self {
        let (rank, goal) = begin.filter(|_| place == 0).map_or((0, 0), |(rank, goal)| (rank as u64, goal as u32));
        let (shift, bits) = SPLIT[place];
        Self { rank, goal, shift, bits, last: u32::from(place + 1 == of) }
    }
}

/// A batch of thresholds that are tried.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    pub(super) lower: f32,
    pub(super) upper: f32,
    pub(super) k: u64,
    pub(super) most: u32,
    pub(super) last: u32,
    pub(super) trying: u32,
    pub(super) pad: u32,
}

/// A keyed permutation of `0..len`, as `tilewright_compression::select::Permutation` defines it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    len: u32,
    mask: u32,
    shift: u32,
    pad: u32,
    factor: [u32; 8],
    summand: [u32; 8],
}

impl Permutation {
    /// `len` is at least 1.
    pub(super) fn new(len: u32, keys: [u32; 2]) -> Self {
        let bits = (32 - len.saturating_sub(1).leading_zeros()).max(1);
        let factor = std::array::from_fn(|r| mix(keys[0], 2 * r as u32) | 1);
        let summand = std::array::from_fn(|r| mix(keys[1], 2 * r as u32 + 1));
        Self { len, mask: u32::MAX >> (32 - bits), shift: bits.div_ceil(2), pad: 0, factor, summand }
    }
}

/// What the compaction is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Emit {
    pub(super) entering: Entering,
    pub(super) values: u64,
    pub(super) momentum: u64,
    pub(super) velocity: u64,
    pub(super) words: u64,
    pub(super) table: u64,
    pub(super) n: u64,
    pub(super) capacity: u64,
    pub(super) format: u32,
    pub(super) slots: u32,
    pub(super) seed: u32,
    pub(super) racing: u32,
}

/// The number that kernels know a format by.
pub(super) fn format(value: ValueFormat) -> u32 {
    match value {
        ValueFormat::F32 => 0,
        ValueFormat::Bf16 => 1,
        ValueFormat::F16 => 2,
    }
}

// SAFETY: numbers, in the order and of the sizes that `compression.cu` gives them.
unsafe impl Value for Entering {}
// SAFETY: as above.
unsafe impl Value for Values {}
// SAFETY: as above.
unsafe impl Value for Strided {}
// SAFETY: as above.
unsafe impl Value for Pool {}
// SAFETY: as above.
unsafe impl Value for Search {}
// SAFETY: as above.
unsafe impl Value for Thresholds {}
// SAFETY: as above.
unsafe impl Value for Permutation {}
// SAFETY: as above.
unsafe impl Value for Emit {}

/// Every kernel of the unit, loaded.
pub(super) struct Kernels {
    pub(super) update: Kernel,
    pub(super) first_bad: Kernel,
    pub(super) guess: Kernel,
    pub(super) count: Kernel,
    pub(super) cut: Kernel,
    pub(super) refine: Kernel,
    pub(super) permute: Kernel,
    /// By kind of feedback.
    pub(super) stage: [Kernel; 4],
    pub(super) order: Kernel,
    pub(super) emit: Kernel,
    pub(super) slots: Kernel,
    pub(super) add: Kernel,
    pub(super) mean: Kernel,
    pub(super) squares: Kernel,
}

impl Kernels {
    pub(super) fn new(device: &Device) -> Result<Self, CudaError> {
        let get = |name: &str| device.kernel(&UNIT, &format!("compression_{name}"));
        Ok(Self {
            update: get("update")?,
            first_bad: get("first_bad")?,
            guess: get("guess")?,
            count: get("count")?,
            cut: get("cut")?,
            refine: get("refine")?,
            permute: get("permute")?,
            stage: [get("stage_0")?, get("stage_1")?, get("stage_2")?, get("stage_3")?],
            order: get("order")?,
            emit: get("emit")?,
            slots: get("slots")?,
            add: get("add")?,
            mean: get("mean")?,
            squares: get("squares")?,
        })
    }
}
