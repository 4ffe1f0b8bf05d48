//! Attention, defined once: the problem, what the right answer is, how far a kernel may be from it, and the method of
//! the FlashAttention papers in scalar form.
//!
//! Conventions — order of operations on scores, alignment of masks, rows that see nothing — are those of [`spec`], and of
//! every implementation in this workspace.
//!
//! # From the papers to the functions
//!
//! Lines and theorems are those of *FlashAttention* (Dao et al. 2022) unless another paper is named.
//!
//! | paper | here |
//! |---|---|
//! | `S = τ QKᵀ`, `P = softmax(S)`, `O = PV` (§2.2) | [`reference::forward`] |
//! | gradients: `dV`, `dP`, `dS`, `dQ`, `dK` (appendix B.2) | [`reference::backward`] |
//! | Algorithm 0, standard attention | [`Standard`] |
//! | `m`, `ℓ` and their decomposition (§3.1); Algorithm 1, lines 10 and 11 | [`online_softmax::RowState::absorb`], [`merge`](online_softmax::RowState::merge) |
//! | Algorithm 1, line 1: tile sizes from `M` | [`tiling::Tiles::from_memory`] |
//! | Algorithms 1 and 2, forward pass | [`Flash`] as [`AttentionForward`], counted: [`Flash::forward_counted`] |
//! | Algorithm 4, backward pass | [`Flash`] as [`AttentionBackward`], counted: [`Flash::backward_counted`] |
//! | Algorithm 5, block-sparse; causal skipping | [`BlockMask`], [`tiling::coverage`], [`tiling::key_range`], [`tiling::query_range`] |
//! | Algorithm 2, line 14, and Algorithm 4, line 14: the dropout mask | [`dropout::DropoutMask`] |
//! | Theorems 2 and 5, Proposition 4: memory traffic | [`Io`], counted by every `…_counted` |
//! | `L = m + ln ℓ` instead of `m` and `ℓ` (FlashAttention-2, §3.1) | [`online_softmax::RowState::finish`], [`Outputs::lse`] |
//! | `O` and LSE of disjoint keys merged (split-KV decoding, ring attention) | [`merge`] |
//!
//! What no paper has is [`bound`]: given the [`Contract`] a kernel declares, the largest error that each element of each
//! output can have, and beside it ([`spread`]) how far a correct one is expected to scatter.
//!
//! # Example
//!
//! A kernel on trial in its simplest form: the tiled method in `f32`, every element within its bound of the truth.
//!
//! ```
//! use ndarray::{Array3, Array4};
//! use tilewright_attention::{AttentionForward, AttentionSpec, Contract, Flash, Format, Inputs, Outputs};
//! use tilewright_attention::{bound, reference};
//!
//! let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 20, 30, 8) };
//! let wave = |shape, step| Array4::from_shape_fn(shape, |(_, h, i, c)| ((h + 3 * i + c) * step % 17) as f32 / 8.0 - 1.0);
//! let (q, k, v) = (wave(spec.q_shape(), 5), wave(spec.k_shape(), 7), wave(spec.v_shape(), 11));
//! let inputs = Inputs::new(q.view(), k.view(), v.view());
//! let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
//! Flash { memory: 256 }.forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?;
//!
//! let truth = reference::forward::<f32, f64>(&spec, &inputs)?;
//! let limits = bound::forward(&spec, &inputs, &Contract::strict(Format::F32))?;
//! for ((at, x), limit) in truth.o.indexed_iter().zip(&limits.o.worst) {
//!     assert!((f64::from(o[at]) - x).abs() <= *limit);
//! }
//! # Ok::<(), tilewright_attention::AttentionError>(())
//! ```
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
