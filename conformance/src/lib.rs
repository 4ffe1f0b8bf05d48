//! Puts attention kernels on trial.
#![forbid(unsafe_code)]

pub mod attention;
pub mod kill;
pub mod process;
pub mod report;
pub mod subject;
pub mod tensor;

pub use subject::{Feature, Layout, Profile, Request, Subject, SubjectError, Tensors};
pub use tensor::{Tensor, TensorError};
pub use tilewright_scalar::Format;

/// The programs of the README and of the book, which run as tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/src/your-kernel.md")]
    struct YourKernel;
}
