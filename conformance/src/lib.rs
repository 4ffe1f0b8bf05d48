//! Puts implementations on trial: attention kernels, gradient compressors, group-lasso solvers.
//!
//! What a trial is made of is the same for every family; what is asked and how an answer is judged is the family's own.
//!
//! | module | holds |
//! |---|---|
//! | [`attention`] | exact attention, forward and backward: cases, error bounds, laws |
//! | [`compression`] | gradient compression: cases, exact invariants, laws, collision statistics |
//! | [`grouplasso`] | the group lasso and Head2Toe: proximal operators, selections, solutions by their certificates |
//! | [`report`], [`kill`] | verdicts counted and printed; the suite's own trial |
//! | [`process`] | a program in any language, one line of JSON a request |
//! | [`file`](mod@file), [`tensor`], [`json`] | safetensors files and JSON from strangers |
//! | [`subject`] | how a subject fails to answer |
//! | [`suite`], [`regressions`] | how many cases; recorded ones with reasons |
#![forbid(unsafe_code)]

pub mod attention;
pub mod compression;
pub mod file;
pub mod grouplasso;
pub mod json;
pub mod kill;
pub mod process;
pub mod regressions;
pub mod report;
pub mod subject;
pub mod suite;
pub mod tensor;

pub use report::{Report, Verdict};
pub use subject::SubjectError;
pub use suite::Suite;
pub use tensor::{Tensor, TensorError, Tensors};
pub use tilewright_scalar::Format;

/// The programs of the README and of the book, which run as tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/src/your-kernel.md")]
    struct YourKernel;
    #[doc = include_str!("../../docs/src/compression-conformance.md")]
    struct CompressionConformance;
    #[doc = include_str!("../../docs/src/grouplasso-conformance.md")]
    struct GroupLassoConformance;
}
