//! Numbers, as the Tilewright references understand them.
//!
//! | module | holds |
//! |---|---|
//! | [`format`] | [`Format`]: a binary floating-point format as data — precision, exponent range — and correct rounding into it |
//! | [`element`] | [`Element`], what tensors store (`f64`, `f32`, `f16`, `bf16`), and [`Accum`], what kernels add up in (`f64`, `f32`) |
//! | [`real`] | [`Real`], the arithmetic a reference is written in; its `exp`, `ln` and `tanh` come from the pure-Rust `libm` on every platform |
//! | [`double_double`] | [`DoubleDouble`]: about 106 bits, for judging `f64` kernels |
//! | [`philox`] | the counter-based generator Philox4x32-10, with its published test vectors |
//!
//! Nothing here uses the platform's mathematical library, threads or I/O: the same inputs give the same bits everywhere.
//!
//! ```
//! use tilewright_scalar::{Element, Format, bf16};
//!
//! // 1 + 2⁻⁸ lies half way between two bf16 numbers; ties go to the even one.
//! assert_eq!(Format::BF16.round(1.0 + 1.0 / 256.0), 1.0);
//! assert_eq!(bf16::from_f64(1.01).to_f64(), Format::BF16.round(1.01));
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod double_double;
pub mod element;
pub mod format;
pub mod philox;
pub mod real;

pub use double_double::DoubleDouble;
pub use element::{Accum, Element};
pub use format::Format;
pub use half::{bf16, f16};
pub use philox::philox4x32_10;
pub use real::Real;
