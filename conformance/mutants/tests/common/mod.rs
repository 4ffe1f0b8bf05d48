//! Problems with their tensors, and running a kernel on them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod specs;
pub mod triggers;

use ndarray::{Array1, Array3, Array4, ArrayView4};
use tilewright_attention::{
    AttentionBackward, AttentionForward, AttentionSpec, Gradients, Inputs, Keys, Outputs, Saved,
};
use tilewright_mutants::attention::Kernel;
use tilewright_scalar::{Element, Real, philox4x32_10};

/// What output memory holds before a kernel runs.
pub const OLD_MEMORY: f64 = 777.0;

/// A problem, its tensors in f64, and how they are laid out.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub spec: AttentionSpec,
    pub q: Array4<f64>,
    pub k: Array4<f64>,
    pub v: Array4<f64>,
    pub bias: Option<Array4<f64>>,
    pub sink: Option<Array1<f64>>,
    pub d_o: Array4<f64>,
    pub d_lse: Option<Array3<f64>>,
    /// Whether Q, K and V are views of `[batch, length, heads, dim]` memory.
    pub transposed: bool,
}

/// Random numbers in roughly a normal distribution, by position.
pub fn normal(seed: u64, n: usize) -> f64 {
    let words = philox4x32_10([n as u32, (n >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    let sum: f64 = words.iter().map(|&word| f64::from(word) / 4_294_967_296.0).sum();
    (sum - 2.0) * 3f64.sqrt()
}

fn random4(shape: [usize; 4], seed: u64) -> Array4<f64> {
    let mut n = 0;
    Array4::from_shape_simple_fn(shape, || {
        n += 1;
        normal(seed, n)
    })
}

impl Case {
    /// Normal data everywhere, NaN where nothing may be read.
    pub fn new(name: &str, spec: AttentionSpec, seed: u64) -> Self {
        spec.validate().unwrap();
        let (mut k, mut v) = (random4(spec.k_shape(), seed + 1), random4(spec.v_shape(), seed + 2));
        poison_unused_keys(&spec, &mut k, &mut v);
        let (q, d_o) = (random4(spec.q_shape(), seed), random4(spec.o_shape(), seed + 3));
        Self { name: name.into(), spec, q, k, v, bias: None, sink: None, d_o, d_lse: None, transposed: false }
    }

    pub fn with_bias(mut self, seed: u64, shared: [bool; 4]) -> Self {
        let mut shape = self.spec.full_bias_shape();
        for (length, shared) in shape.iter_mut().zip(shared) {
            *length = if shared { 1 } else { *length };
        }
        self.bias = Some(random4(shape, seed + 4));
        self
    }

    pub fn with_sink(mut self, seed: u64) -> Self {
        self.sink = Some((0..self.spec.q_heads).map(|h| 1.0 + normal(seed + 5, h)).collect());
        self
    }

    pub fn with_lse_gradient(mut self, seed: u64) -> Self {
        let mut n = 0;
        self.d_lse = Some(Array3::from_shape_simple_fn(self.spec.lse_shape(), || {
            n += 1;
            normal(seed + 6, n)
        }));
        self
    }
}

fn poison_unused_keys(spec: &AttentionSpec, k: &mut Array4<f64>, v: &mut Array4<f64>) {
    let mut used = vec![vec![false; k.dim().2]; k.dim().0];
    for b in 0..spec.batch {
        for j in 0..spec.kv_len(b) {
            let (kb, kj) = spec.key_slot(b, j);
            used[kb][kj] = true;
        }
    }
    if matches!(spec.keys, Keys::Packed { .. }) {
        return;
    }
    for tensor in [k, v] {
        for ((b, _, j, _), x) in tensor.indexed_iter_mut() {
            if !used[b][j] {
                *x = f64::NAN;
            }
        }
    }
}

/// The tensors of a case in an element type.
pub struct Tensors<T: Element> {
    q: Array4<T>,
    k: Array4<T>,
    v: Array4<T>,
    bias: Option<Array4<T>>,
    sink: Option<Array1<T::Accum>>,
    d_o: Array4<T>,
    d_lse: Option<Array3<T::Accum>>,
}

fn accum<T: Element>(x: f64) -> T::Accum {
    <T::Accum as Real>::from_f64(x)
}

impl<T: Element> Tensors<T> {
    pub fn new(case: &Case) -> Self {
        let cast = |tensor: &Array4<f64>| {
            if case.transposed {
                let memory = tensor.view().permuted_axes([0, 2, 1, 3]).mapv(T::from_f64);
                memory.as_standard_layout().into_owned().permuted_axes([0, 2, 1, 3])
            } else {
                tensor.mapv(T::from_f64)
            }
        };
        Self {
            q: cast(&case.q),
            k: cast(&case.k),
            v: cast(&case.v),
            bias: case.bias.as_ref().map(|bias| bias.mapv(T::from_f64)),
            sink: case.sink.as_ref().map(|sink| sink.mapv(accum::<T>)),
            d_o: case.d_o.mapv(T::from_f64),
            d_lse: case.d_lse.as_ref().map(|d_lse| d_lse.mapv(accum::<T>)),
        }
    }

    pub fn inputs(&self) -> Inputs<'_, T> {
        Inputs {
            bias: self.bias.as_ref().map(|x| x.view()),
            sink: self.sink.as_ref().map(|x| x.view()),
            ..Inputs::new(self.q.view(), self.k.view(), self.v.view())
        }
    }

    pub fn d_o(&self) -> ArrayView4<'_, T> {
        self.d_o.view()
    }

    pub fn d_lse(&self) -> Option<ndarray::ArrayView3<'_, T::Accum>> {
        self.d_lse.as_ref().map(|x| x.view())
    }
}

/// What a kernel stored.
pub struct Forward<T: Element> {
    pub o: Array4<T>,
    pub lse: Array3<T::Accum>,
}

pub fn forward<T: Element>(kernel: &Kernel, case: &Case, tensors: &Tensors<T>) -> Forward<T> {
    let mut o = Array4::from_elem(case.spec.o_shape(), T::from_f64(OLD_MEMORY));
    let mut lse = Array3::from_elem(case.spec.lse_shape(), accum::<T>(OLD_MEMORY));
    let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
    kernel.forward(&case.spec, &tensors.inputs(), out).unwrap();
    Forward { o, lse }
}

/// Every tensor by name, in f64.
pub type Named = Vec<(&'static str, Vec<f64>)>;

impl<T: Element> Forward<T> {
    pub fn named(&self) -> Named {
        vec![
            ("o", self.o.iter().map(|x| x.to_f64()).collect()),
            ("lse", self.lse.iter().map(|&x| Real::to_f64(x)).collect()),
        ]
    }
}

/// Gradients from what a forward pass saved.
pub fn backward<T: Element>(kernel: &Kernel, case: &Case, tensors: &Tensors<T>, saved: &Forward<T>) -> Named {
    let old = |shape| Array4::from_elem(shape, T::from_f64(OLD_MEMORY));
    let (mut d_q, mut d_k, mut d_v) = (old(case.spec.q_shape()), old(case.spec.k_shape()), old(case.spec.v_shape()));
    let mut d_bias = tensors.bias.as_ref().map(|bias| Array4::from_elem(bias.dim(), T::from_f64(OLD_MEMORY)));
    let mut d_sink = tensors.sink.as_ref().map(|sink| Array1::from_elem(sink.len(), accum::<T>(OLD_MEMORY)));
    let incoming = Saved { o: saved.o.view(), lse: saved.lse.view(), d_o: tensors.d_o.view(), d_lse: tensors.d_lse() };
    let gradients = Gradients {
        d_q: d_q.view_mut(),
        d_k: d_k.view_mut(),
        d_v: d_v.view_mut(),
        d_bias: d_bias.as_mut().map(|x| x.view_mut()),
        d_sink: d_sink.as_mut().map(|x| x.view_mut()),
    };
    kernel.backward(&case.spec, &tensors.inputs(), &incoming, gradients).unwrap();
    let flat = |tensor: &Array4<T>| tensor.iter().map(|x| x.to_f64()).collect();
    let mut named = vec![("d_q", flat(&d_q)), ("d_k", flat(&d_k)), ("d_v", flat(&d_v))];
    named.extend(d_bias.map(|x| ("d_bias", flat(&x))));
    named.extend(d_sink.map(|x| ("d_sink", x.iter().map(|&x| Real::to_f64(x)).collect())));
    named
}
