//! The gradient compression family: DGC and DRAGONN at memory speed.
//!
//! | module | holds |
//! |---|---|
//! | `sweep` | what happens to a chunk in cache: equations 4 and 5 of Lin et al. 2018, the threshold, keys of what passes |
//! | `pass` | chunks over workers, one list of keys, kept short where it may be |
//! | `select` | thresholds foreseen, so that every selector takes one pass; what each selector does with the keys |
//! | `settle`, `table` | from keys to a message, in order of index or of slots, and out of the memory |
//! | `decode` | from messages to a dense update, by owners |
//! | `simd` | the one place that knows vector instructions |
//!
//! ```
//! use tilewright_compression::{CompressionSpec, Compressor, Count, Decompressor, Memory, Message, Reduction, Step};
//! use tilewright_cpu::CpuCompressor;
//!
//! let spec = CompressionSpec::dgc(1 << 16, Count::Density(0.01), 0.9);
//! let gradient: Vec<f32> = (0..1u16 << 15).chain(0..1 << 15).map(|i| (f32::from(i) * 0.7).sin().powi(9)).collect();
//! let (mut cpu, mut memory, mut message) = (CpuCompressor::default(), Memory::new(&spec)?, Message::default());
//! cpu.compress(&spec, Step::new(0), &gradient, &mut memory, &mut message)?;
//! assert!((524..=852).contains(&message.len())); // between 0.8 and 1.3 times 1 %
//!
//! let mut update = vec![0.0; spec.len];
//! cpu.decompress(&[&message.words], Reduction::Sum, &mut update)?;
//! // What is sent and what stays make up the gradient.
//! assert!(gradient.iter().zip(update.iter().zip(&memory.velocity)).all(|(g, (sent, left))| *g == sent + left));
//! # Ok::<(), tilewright_compression::CompressionError>(())
//! ```

mod decode;
mod keys;
mod pass;
mod select;
mod settle;
mod simd;
mod sweep;
mod table;

pub use simd::Simd;

use decode::Decode;
use pass::{Found, Streams};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use select::Select;
use settle::{Residual, compact};
use simd::Level;
use std::num::NonZeroUsize;
use sweep::{AllFinite, BlockOfSquares};
use table::Tables;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::reference::check;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Feedback, Memory, Message, NonFinite, Placement,
    Reduction, Step,
};

/// Elements of a block of [`tilewright_compression::memory::sum_of_squares`].
const SQUARES: usize = 1 << 16;

/// How a [`CpuCompressor`] works. Nothing here changes a bit of a message, [`Policy::Any`]'s aside.
///
/// [`Policy::Any`]: tilewright_compression::Policy::Any
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompressorOptions {
    /// Threads of a pool of its own; without, it uses the pool that it is called in.
    pub threads: Option<NonZeroUsize>,
    /// Vector instructions.
    pub simd: Simd,
}

/// DGC, DRAGONN and their relatives on rayon: every [`CompressionSpec`], each bit as the reference has it, for any number
/// of threads and any vector instructions.
///
/// It keeps its working memory from one call to the next, `O(k)` for what sends `k` entries, and allocates nothing once
/// that has its size. One compressor serves any number of buckets, one after the other.
#[derive(Debug)]
pub struct CpuCompressor {
    pool: Option<ThreadPool>,
    level: Level,
    room: Room,
}

/// Working memory.
#[derive(Debug, Default)]
struct Room {
    select: Select,
    found: Found,
    tables: Tables,
    decode: Decode,
    squares: Vec<f64>,
}

impl Default for CpuCompressor {
    /// With [`CompressorOptions::default`].
    fn default() -> Self {
        Self { pool: None, level: Level::detect(), room: Room::default() }
    }
}

impl CpuCompressor {
    /// A compressor that works so.
    ///
    /// # Errors
    /// [`CompressionError::Unsupported`]: the machine lacks the vector instructions, or the threads.
    ///
    /// ```
    /// use tilewright_cpu::compression::{CompressorOptions, CpuCompressor, Simd};
    /// let options = CompressorOptions { threads: std::num::NonZero::new(2), simd: Simd::Portable };
    /// assert!(CpuCompressor::new(options).is_ok());
    /// ```
    pub fn new(options: CompressorOptions) -> Result<Self, CompressionError> {
        let level = Level::new(options.simd)?;
        let start = |threads: NonZeroUsize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads.get()).build();
            pool.map_err(|_| CompressionError::Unsupported { what: "so many threads" })
        };
        Ok(Self { pool: options.threads.map(start).transpose()?, level, room: Room::default() })
    }
}

/// Runs something in a pool: this one, or the one that the caller is in. Entered once for all that happens inside, for
/// each entry puts the caller to sleep.
fn within<R: Send>(pool: Option<&ThreadPool>, run: impl FnOnce() -> R + Send) -> R {
    match pool {
        Some(pool) => pool.install(run),
        None => rayon::scope(|_| run()),
    }
}

impl Compressor for CpuCompressor {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        // All but the look at every number, which is done by all workers.
        check(&CompressionSpec { non_finite: NonFinite::Propagate, ..*spec }, step, gradient, memory)?;
        let slots = spec.slots()?;
        let (level, room) = (self.level, &mut self.room);
        within(self.pool.as_ref(), || {
            if spec.non_finite == NonFinite::Reject {
                all_finite(level, gradient)?;
            }
            room.step(level, spec, slots, step, gradient, memory, &mut message.words);
            Ok(())
        })
    }

    fn sum_of_squares(&mut self, gradient: &[f32]) -> f64 {
        let (level, squares) = (self.level, &mut self.room.squares);
        // A single block, a bias for one, is not worth waking anybody.
        if gradient.len() <= SQUARES {
            return level.run(BlockOfSquares(gradient));
        }
        within(self.pool.as_ref(), || {
            let blocks = gradient.par_chunks(SQUARES).map(|block| level.run(BlockOfSquares(block)));
            blocks.collect_into_vec(squares);
            squares.iter().fold(0.0, |sum, block| sum + block)
        })
    }
}

impl Room {
    fn step(
        &mut self,
        level: Level,
        spec: &CompressionSpec,
        slots: Option<u32>,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        words: &mut Vec<u64>,
    ) {
        let seeds = StepSeeds::new(spec.seed, step.number);
        let streams = Streams {
            feedback: spec.feedback,
            scale: step.scale,
            gradient,
            momentum: &mut memory.momentum,
            velocity: &mut memory.velocity,
        };
        self.select.run(level, spec.selector, seeds, streams, &mut self.found);
        let masking = matches!(spec.feedback, Feedback::Momentum { masking: true, .. });
        let residual = Residual {
            value: spec.wire.value,
            base: 0,
            velocity: &mut memory.velocity,
            momentum: if masking { &mut memory.momentum } else { &mut [] },
        };
        match (spec.placement, slots) {
            (Placement::HashTable { policy, .. }, Some(slots)) => {
                self.tables.place(&self.found, slots, policy, seeds.hash, residual, words);
            }
            _ => compact(&mut self.found, residual, words),
        }
    }
}

/// # Errors
/// [`CompressionError::NonFinite`] for the first number that is not.
fn all_finite(level: Level, gradient: &[f32]) -> Result<(), CompressionError> {
    let bad = gradient.par_chunks(SQUARES).position_first(|chunk| !level.run(AllFinite(chunk)));
    let from = bad.map_or(gradient.len(), |chunk| chunk * SQUARES);
    match gradient[from..].iter().position(|g| !g.is_finite()) {
        Some(at) => Err(CompressionError::NonFinite { index: from + at, bits: gradient[from + at].to_bits() }),
        None => Ok(()),
    }
}

impl Decompressor for CpuCompressor {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        let (level, decode) = (self.level, &mut self.room.decode);
        within(self.pool.as_ref(), || decode.run(level, messages, reduction, out))
    }
}
