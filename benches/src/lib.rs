//! What the benches share: inputs, outputs, and how many operations a problem costs.
//!
//! The benches report throughput as "elements" a second, where an element is one floating-point operation of the
//! textbook's count ([`forward_flops`], [`backward_flops`]) over visible pairs: what a method computes beyond it — tiles
//! it could have skipped, scores it recomputes — shows as a lower figure.
//!
//! ```
//! use tilewright_attention::AttentionSpec;
//! use tilewright_benches::{Tensors, forward_flops};
//! let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 8, 8, 4) };
//! assert_eq!(Tensors::<f32>::new(&spec).q.dim(), (1, 2, 8, 4));
//! assert_eq!(forward_flops(&spec), 4 * 4 * 2 * (8 * 9 / 2));
//! ```

pub mod compression;

use ndarray::{Array3, Array4};
use tilewright_attention::tiling::key_range;
use tilewright_attention::{AttentionSpec, Gradients, Inputs, Outputs, Saved};
use tilewright_scalar::{Element, Real};

/// Everything a forward and a backward pass read and write.
#[derive(Clone, Debug)]
pub struct Tensors<T: Element> {
    /// Queries.
    pub q: Array4<T>,
    /// Keys.
    pub k: Array4<T>,
    /// Values.
    pub v: Array4<T>,
    /// Output.
    pub o: Array4<T>,
    /// Log-sum-exp.
    pub lse: Array3<T::Accum>,
    /// Gradient with respect to the output.
    pub d_o: Array4<T>,
    /// Gradient with respect to the queries.
    pub d_q: Array4<T>,
    /// Gradient with respect to the keys.
    pub d_k: Array4<T>,
    /// Gradient with respect to the values.
    pub d_v: Array4<T>,
}

impl<T: Element> Tensors<T> {
    /// Inputs that look random, the same on every machine; outputs zero.
    pub fn new(spec: &AttentionSpec) -> Self {
        let zeros = |shape| Array4::from_elem(shape, T::from_f64(0.0));
        Self {
            q: noise(1, spec.q_shape()),
            k: noise(2, spec.k_shape()),
            v: noise(3, spec.v_shape()),
            o: zeros(spec.o_shape()),
            lse: Array3::from_elem(spec.lse_shape(), Real::from_f64(0.0)),
            d_o: noise(4, spec.o_shape()),
            d_q: zeros(spec.q_shape()),
            d_k: zeros(spec.k_shape()),
            d_v: zeros(spec.v_shape()),
        }
    }

    /// The forward pass's operands.
    pub fn forward(&mut self) -> (Inputs<'_, T>, Outputs<'_, T>) {
        let inputs = Inputs::new(self.q.view(), self.k.view(), self.v.view());
        (inputs, Outputs { o: self.o.view_mut(), lse: self.lse.view_mut() })
    }

    /// The backward pass's operands.
    pub fn backward(&mut self) -> (Inputs<'_, T>, Saved<'_, T>, Gradients<'_, T>) {
        let inputs = Inputs::new(self.q.view(), self.k.view(), self.v.view());
        let saved = Saved { o: self.o.view(), lse: self.lse.view(), d_o: self.d_o.view(), d_lse: None };
        let (d_q, d_k, d_v) = (self.d_q.view_mut(), self.d_k.view_mut(), self.d_v.view_mut());
        (inputs, saved, Gradients { d_q, d_k, d_v, d_bias: None, d_sink: None })
    }
}

/// Values in [−1, 1) from a multiplicative hash of the element's number.
fn noise<T: Element>(salt: u64, shape: [usize; 4]) -> Array4<T> {
    let mut number = salt << 40;
    Array4::from_shape_simple_fn(shape, || {
        number += 1;
        let hashed = (number ^ (number >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        T::from_f64(hashed as f64 / f64::from(1u32 << 23) - 1.0)
    })
}

/// Visible pairs, all sequences and heads together, the block mask not counted.
fn visible_pairs(spec: &AttentionSpec) -> u64 {
    let rows = (0..spec.batch).flat_map(|b| (0..spec.q_len(b)).map(move |i| (b, i)));
    let pairs: usize = rows.map(|(b, i)| key_range(spec, b, i..i + 1).len()).sum();
    (pairs * spec.q_heads) as u64
}

/// Operations of the forward pass: two products, `2·pairs·(d + dv)`.
pub fn forward_flops(spec: &AttentionSpec) -> u64 {
    2 * visible_pairs(spec) * (spec.head_dim + spec.value_dim) as u64
}

/// Operations of the backward pass: five products, of which three run over `d` and two over `dv`.
pub fn backward_flops(spec: &AttentionSpec) -> u64 {
    2 * visible_pairs(spec) * (3 * spec.head_dim + 2 * spec.value_dim) as u64
}
