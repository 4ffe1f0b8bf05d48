//! Attention, defined once.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod contract;
pub mod dropout;
pub mod error;
pub mod reference;
pub mod spec;
pub mod tensors;
pub mod traits;

pub use contract::Contract;
pub use error::AttentionError;
pub use spec::{AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};
pub use tensors::{Gradients, Inputs, Outputs, Saved};
pub use tilewright_scalar::{Accum, Element, Format, bf16, f16};
pub use traits::{AttentionBackward, AttentionForward};
