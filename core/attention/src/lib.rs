//! Attention, defined once.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bound;
pub mod contract;
pub mod dropout;
pub mod error;
pub mod flash;
mod flash_backward;
pub mod io;
pub mod merge;
pub mod online_softmax;
pub mod reference;
pub mod spec;
pub mod spread;
pub mod standard;
pub mod tensors;
pub mod tiling;
pub mod traits;

pub use contract::Contract;
pub use error::AttentionError;
pub use flash::Flash;
pub use io::Io;
pub use spec::{AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};
pub use standard::Standard;
pub use tensors::{Gradients, Inputs, Outputs, Saved};
pub use tilewright_scalar::{Accum, Element, Format, bf16, f16};
pub use traits::{AttentionBackward, AttentionForward};
