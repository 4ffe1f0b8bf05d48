//! Gradient compression, defined once: what a rank sends of its gradient, what it keeps, and what the others make of it.
//!
//! *DGC* is Lin et al., "Deep gradient compression" (ICLR 2018); *DRAGONN* is Wang et al., "DRAGONN: distributed
//! randomized approximate gradients of neural networks" (ICML 2022). Conventions — the order of entries, ties, zeros, what
//! stays in the residual — are those of [`spec`], and of every implementation in this workspace.
//!
//! # From the papers to the functions
//!
//! | paper | here |
//! |---|---|
//! | DGC, equations 4 and 5: momentum correction, plain and Nesterov | [`memory::accumulate`], [`Feedback::Momentum`] |
//! | DGC, §3.2: local clipping by `N^{−1/2}` | [`memory::clipping`], [`memory::sum_of_squares`] |
//! | DGC, §3.2: momentum factor masking | [`Feedback::Momentum`]'s `masking` |
//! | DGC, §3.1: hierarchical threshold from a sample | [`select::Sample`], [`select::refined`] |
//! | DGC, §3.3: warm-up | [`schedule`] |
//! | DRAGONN: hash of the index into pre-allocated slots, another seed each step | [`hash::slot`], [`hash::StepSeeds`], [`table::Table`] |
//! | DRAGONN: batched sparse decoding (that *adds*) | [`Decompressor`], [`Reduction`] |
//! | DRAGONN: which tensors are worth compressing | [`cost`], [`bucket`] |
//! | the whole step, by sorting | [`reference::Reference`] |
//! | one interface for dense, top-k, random-k, DGC and DRAGONN | [`data_parallel`] |
//!
//! What no paper has: [`invariants`], a verifier that judges any implementation's step completely and exactly, and
//! [`statistics`], the exact mean and variance of what collides.
//!
//! # One rank, two steps
//!
//! ```
//! use tilewright_compression::reference::Reference;
//! use tilewright_compression::{CompressionSpec, Compressor, Count, Memory, Message, Step, invariants};
//!
//! let spec = CompressionSpec::dragonn(1000, Count::Density(0.01), 0.9);
//! let (mut memory, mut message) = (Memory::new(&spec)?, Message::default());
//! let gradient: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
//! for number in 0..2 {
//!     let before = memory.clone();
//!     Reference.compress(&spec, Step::new(number), &gradient, &mut memory, &mut message)?;
//!     let checked =
//!         invariants::verify_step(&spec, Step::new(number), &gradient, &before, &memory, &message.words).unwrap();
//!     assert!(checked.sent <= checked.candidates.len()); // some lost their slots, and wait
//! }
//! # Ok::<(), tilewright_compression::CompressionError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bucket;
pub mod codec;
pub mod collective;
pub mod cost;
pub mod data_parallel;
pub mod error;
pub mod hash;
pub mod invariants;
pub mod key;
pub mod memory;
pub mod message;
pub mod reference;
pub mod schedule;
pub mod select;
pub mod spec;
pub mod statistics;
pub mod table;
pub mod traits;

pub use collective::{Collective, CollectiveError, Counting, Solo, Traffic};
pub use error::CompressionError;
pub use memory::{Memory, Step};
pub use message::Message;
pub use spec::{
    CompressionSpec, Count, Feedback, IndexCoding, LONGEST, NonFinite, Placement, Policy, Refinement, Sampling,
    Selector, Slots, ValueFormat, Wire,
};
pub use traits::{Compressor, Decompressor, Reduction};
