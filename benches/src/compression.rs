//! Gradient compression: data like a network's gradient, and kernels to be timed on it.
//!
//! The yardstick is [`Kernel::Read`]: the time it takes to read the vector once, by all workers. A kernel that compresses
//! has to do at least that, so its multiple of the same run's read says what it costs beyond the inevitable.
//!
//! ```
//! use tilewright_benches::compression::{Kernel, Workload, gradient};
//! let mut workload = Workload::new(gradient(100_000), 0.01);
//! for kernel in Kernel::ALL {
//!     assert!(!workload.time(kernel).is_zero());
//! }
//! ```

use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tilewright_compression::message::{unpack, word};
use tilewright_compression::{
    CompressionSpec, Compressor, Count, Decompressor, Feedback, Memory, Message, Placement, Policy, Reduction,
    Sampling, Selector, Slots, Step,
};
use tilewright_cpu::CpuCompressor;
use tilewright_scalar::{Real, philox4x32_10};

/// Values of one layer: layers have scales of their own.
const LAYER: usize = 1 << 16;
/// Values that one worker reads at a time.
const STRIP: usize = 1 << 18;
/// Ranks whose messages are decoded.
const RANKS: usize = 4;
/// DGC's momentum.
const MOMENTUM: f32 = 0.9;

/// A vector like a gradient: normal times log-normal, so a few values hold much of the energy, and large values come in
/// layers. The same on every machine.
pub fn gradient(len: usize) -> Vec<f32> {
    let mut values = vec![0.0; len];
    values.par_chunks_mut(LAYER).enumerate().for_each(|(layer, values)| {
        let (scale, _) = two_normals(u32::MAX, layer as u32);
        for (j, value) in values.iter_mut().enumerate() {
            let (z, s) = two_normals(j as u32, layer as u32);
            *value = (1e-3 * z * Real::exp(s + 0.5 * scale)) as f32;
        }
    });
    values
}

/// Box and Muller's transform of two words of a counter-based generator.
fn two_normals(number: u32, stream: u32) -> (f64, f64) {
    let [a, b, ..] = philox4x32_10([number, stream, 0, 0], [20_221_107, 0]);
    let radius = Real::ln((f64::from(a) + 0.5) / f64::from(u32::MAX)) * -2.0;
    let angle = std::f64::consts::TAU * f64::from(b) / f64::from(u32::MAX);
    (radius.max(0.0).sqrt() * angle.cos(), radius.max(0.0).sqrt() * angle.sin())
}

/// Reads everything once, with all workers, as fast as memory delivers.
pub fn read_sum(values: &[f32]) -> u32 {
    values.par_chunks(STRIP).map(sum_of_bits).reduce(|| 0, u32::wrapping_add)
}

/// A sum that costs less than the reading: of bits, in many lanes, with the widest vectors there are.
fn sum_of_bits(strip: &[f32]) -> u32 {
    #[allow(clippy::inline_always)] // compiled for what it is inlined into
    #[inline(always)]
    fn portable(strip: &[f32]) -> u32 {
        let mut sums = [0u32; 128];
        for block in strip.as_chunks::<128>().0 {
            for (sum, x) in sums.iter_mut().zip(block) {
                *sum = sum.wrapping_add(x.to_bits());
            }
        }
        sums.iter().fold(0u32, |total, sum| total.wrapping_add(*sum))
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512(strip: &[f32]) -> u32 {
            portable(strip)
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the only requirement of `avx512` is the feature, which was just detected.
            return unsafe { avx512(strip) };
        }
    }
    portable(strip)
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// [`read_sum`].
    Read,
    /// A known threshold, in order of index.
    Compaction,
    /// The `k` greatest.
    ExactTopK,
    /// A known threshold, a table of `4k` slots, the greatest stays.
    HashLargest,
    /// A known threshold, a table of `4k` slots, racing writers.
    HashAny,
    /// DGC's sampled threshold, refined; nothing is remembered.
    Sampled,
    /// Momentum and velocity are updated, nothing is sent.
    Update,
    /// The step of DGC, with the exact top-k.
    ExactDgc,
    /// The step of DGC.
    Dgc,
    /// The step of DRAGONN.
    Dragonn,
    /// The sum of four ranks' messages.
    Decode,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Compaction,
        Self::ExactTopK,
        Self::HashLargest,
        Self::HashAny,
        Self::Sampled,
        Self::Update,
        Self::ExactDgc,
        Self::Dgc,
        Self::Dragonn,
        Self::Decode,
    ];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Compaction => "compaction",
            Self::ExactTopK => "exact_top_k",
            Self::HashLargest => "hash_largest",
            Self::HashAny => "hash_any",
            Self::Sampled => "dgc_selection",
            Self::Update => "update_only",
            Self::ExactDgc => "exact_dgc_step",
            Self::Dgc => "dgc_step",
            Self::Dragonn => "dragonn_step",
            Self::Decode => "decode_4_ranks",
        }
    }

    /// Whether it changes momentum and velocity.
    fn has_memory(self) -> bool {
        matches!(self, Self::Update | Self::ExactDgc | Self::Dgc | Self::Dragonn)
    }
}

/// A gradient, a memory that looks as after some steps, and everything a kernel needs.
#[derive(Debug)]
pub struct Workload {
    gradient: Vec<f32>,
    /// As it was.
    before: Memory,
    memory: Memory,
    nothing: Memory,
    message: Message,
    ranks: Vec<Vec<u64>>,
    out: Vec<f32>,
    density: f64,
    threshold: f32,
    cpu: CpuCompressor,
    step: u64,
}

impl Workload {
    /// Everything for this gradient, at this density.
    pub fn new(gradient: Vec<f32>, density: f64) -> Self {
        let len = gradient.len();
        let rotated = |by: usize| (0..len).map(|i| 0.3 * gradient[(i + by) % len]).collect::<Vec<f32>>();
        let before = Memory { momentum: rotated(12_345), velocity: rotated(54_321) };
        let (memory, out) = (before.clone(), vec![0.0; len]);
        let (nothing, message, cpu) = (Memory::default(), Message::default(), CpuCompressor::default());
        let (ranks, threshold, step) = (Vec::new(), 0.0, 0);
        let mut all = Self { gradient, before, memory, nothing, message, ranks, out, density, threshold, cpu, step };
        all.time(Kernel::ExactTopK);
        all.threshold = all.message.entries().map(|(_, x)| x.abs()).fold(f32::INFINITY, f32::min);
        all.ranks = (0..RANKS).map(|rank| rotated_message(&all.message, rank * len / RANKS, len)).collect();
        all
    }

    /// The number of entries aimed at.
    pub fn aim(&self) -> usize {
        Count::Density(self.density).of(self.gradient.len())
    }

    /// The gradient.
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// The problem a kernel solves; none for those that solve none.
    fn spec(&self, kernel: Kernel) -> Option<CompressionSpec> {
        let (len, count) = (self.gradient.len(), Count::Density(self.density));
        let exact = CompressionSpec { feedback: Feedback::None, ..CompressionSpec::top_k(len, count) };
        let fixed = CompressionSpec { selector: Selector::FixedThreshold(self.threshold), ..exact };
        let momentum = Feedback::Momentum { factor: MOMENTUM, nesterov: false, masking: true };
        let hash = |policy| {
            let placement = Placement::HashTable { slots: Slots::Exactly(4 * self.aim() as u32), policy };
            CompressionSpec { placement, ..fixed }
        };
        Some(match kernel {
            Kernel::Read | Kernel::Decode => return None,
            Kernel::Compaction => fixed,
            Kernel::ExactTopK => exact,
            Kernel::HashLargest => hash(Policy::LargestMagnitude),
            Kernel::HashAny => hash(Policy::Any),
            Kernel::Sampled => CompressionSpec { selector: Selector::SampledThreshold(count, Sampling::DGC), ..exact },
            Kernel::Update => {
                CompressionSpec { selector: Selector::FixedThreshold(f32::MAX), feedback: momentum, ..exact }
            }
            Kernel::ExactDgc => CompressionSpec { feedback: momentum, ..exact },
            Kernel::Dgc => CompressionSpec::dgc(len, count, MOMENTUM),
            Kernel::Dragonn => CompressionSpec::dragonn(len, count, MOMENTUM),
        })
    }

    /// Runs a kernel once. What it starts from is put back before, outside of the time.
    ///
    /// # Panics
    /// If the compressor refuses the problem.
    pub fn time(&mut self, kernel: Kernel) -> Duration {
        let spec = self.spec(kernel);
        let memory = if kernel.has_memory() {
            self.memory.velocity.copy_from_slice(&self.before.velocity);
            self.memory.momentum.copy_from_slice(&self.before.momentum);
            &mut self.memory
        } else {
            &mut self.nothing
        };
        self.step += 1;
        let start = Instant::now();
        match (kernel, spec) {
            (Kernel::Read, _) => {
                black_box(read_sum(black_box(&self.gradient)));
            }
            (_, Some(spec)) => {
                let step = Step::new(self.step);
                self.cpu.compress(&spec, step, &self.gradient, memory, &mut self.message).expect("a sound problem");
            }
            (_, None) => {
                let messages: Vec<&[u64]> = self.ranks.iter().map(|words| &words[..]).collect();
                self.cpu.decompress(&messages, Reduction::Mean, &mut self.out).expect("sound messages");
            }
        }
        start.elapsed()
    }

    /// Entries of the last message.
    pub fn sent(&self) -> usize {
        self.message.len()
    }
}

/// A message as another rank might send it: other places, in order of index.
fn rotated_message(message: &Message, by: usize, len: usize) -> Vec<u64> {
    let entries = message.words.iter().map(|word| unpack(*word));
    let mut words: Vec<u64> = entries.map(|(i, x)| word(((i as usize + by) % len) as u32, x)).collect();
    words.sort_unstable();
    words
}
