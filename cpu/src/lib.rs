//! The CPU backend.
//!
//! [`CpuAttention`] is FlashAttention-2 on rayon: forward, backward and split-KV decoding, every feature of the
//! specification, O(N) extra memory, the same bits for any number of threads. [`StandardAttention`] is the method it is
//! compared with.
//!
//! ```
//! use ndarray::{Array3, Array4};
//! use tilewright_attention::{AttentionForward, AttentionSpec, CausalAlign, Inputs, Outputs};
//! use tilewright_cpu::CpuAttention;
//!
//! let spec = AttentionSpec { causal: true, kv_heads: 2, ..AttentionSpec::dense(1, 8, 64, 256, 32) };
//! let wave = |salt| move |(b, h, i, c)| ((b + 3 * h + 5 * i + 7 * c + salt) as f32).sin();
//! let noise = |shape: [usize; 4], salt: usize| Array4::from_shape_fn(shape, wave(salt));
//! let (q, k, v) = (noise(spec.q_shape(), 0), noise(spec.k_shape(), 1), noise(spec.v_shape(), 2));
//! let inputs = Inputs::new(q.view(), k.view(), v.view());
//! let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
//! CpuAttention::default().forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?;
//! assert!(o.iter().all(|o| o.abs() <= 1.0)); // an average of values in [−1, 1]
//! # assert_eq!(spec.align, CausalAlign::BottomRight);
//! # Ok::<(), tilewright_attention::AttentionError>(())
//! ```
//!
//! The backward pass takes the forward's `O` and LSE and the gradient of the loss with respect to `O`:
//!
//! ```
//! use ndarray::{Array3, Array4};
//! use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec, Gradients, Inputs, Outputs, Saved};
//! use tilewright_cpu::CpuAttention;
//!
//! let spec = AttentionSpec::dense(1, 2, 16, 16, 8);
//! let wave = |salt| move |(b, h, i, c)| ((b + 3 * h + 5 * i + 7 * c + salt) as f32).sin();
//! let noise = |shape: [usize; 4], salt: usize| Array4::from_shape_fn(shape, wave(salt));
//! let (q, k, v) = (noise(spec.q_shape(), 0), noise(spec.k_shape(), 1), noise(spec.v_shape(), 2));
//! let d_o = noise(spec.o_shape(), 3);
//! let inputs = Inputs::new(q.view(), k.view(), v.view());
//! let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
//! let method = CpuAttention::default();
//! method.forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?;
//! let saved = Saved { o: o.view(), lse: lse.view(), d_o: d_o.view(), d_lse: None };
//! let (mut d_q, mut d_k, mut d_v) = (q.clone(), k.clone(), v.clone()); // overwritten
//! let (d_q, d_k, d_v_out) = (d_q.view_mut(), d_k.view_mut(), d_v.view_mut());
//! method.backward(&spec, &inputs, &saved, Gradients { d_q, d_k, d_v: d_v_out, d_bias: None, d_sink: None })?;
//! assert!((d_v.sum() - d_o.sum()).abs() < 1e-4); // every row of P sums to 1
//! # Ok::<(), tilewright_attention::AttentionError>(())
//! ```
pub mod attention;
pub mod checkpoint;
pub mod collective;
pub mod compression;
pub mod grouplasso;

pub use attention::{Bf16Products, CpuAttention, ISA_VARIABLE, Isa, SplitKv, StandardAttention};
pub use compression::CpuCompressor;
pub use grouplasso::CpuGroupLasso;
