//! Planted bugs and correct-but-different kernels: what the conformance suite is measured on.
//!
//! Each family has one scalar kernel that supports everything its specification can say. A `Fault` plants one bug in it,
//! at the line where such a bug would live; a `Variant` changes how it works without making it wrong. A suite that knows
//! its trade convicts every one of the family's `mutants` and none of its `variants`.
//!
//! | module | kernel |
//! |---|---|
//! | [`attention`] | an attention kernel in the manner of FlashAttention-2, forward and backward |
//! | [`compression`] | a gradient compressor and the decoder of its messages |
//! | [`grouplasso`] | a group-lasso solver with its certificate, the proximal operator, Head2Toe's selection |
#![forbid(unsafe_code)]

pub mod attention;
pub mod compression;
pub mod grouplasso;
