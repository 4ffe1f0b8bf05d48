//! Random problems that use every feature of the specification, and tensors for them.

#![allow(dead_code)] // each test binary uses a part of this

use ndarray::{Array1, Array3, Array4};
use proptest::prelude::*;
use tilewright_attention::tensors::broadcast_index;
use tilewright_attention::{
    AttentionSpec, BlockMask, CausalAlign, Dropout, Element, Gradients, Inputs, Keys, Outputs, Queries, Saved, Window,
};
use tilewright_scalar::philox4x32_10;

/// A problem and what else determines its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub spec: AttentionSpec,
    pub seed: u32,
    /// Which axes of the bias are broadcast.
    pub bias: Option<[bool; 4]>,
    pub sink: bool,
    pub d_lse: bool,
    /// Fast memory.
    pub memory: usize,
}

/// A number in [−1, 1) by integer arithmetic from a seed, a stream and an index.
fn uniform(seed: u32, stream: u32, index: usize) -> f64 {
    let word = philox4x32_10([index as u32, stream, 0, 0], [seed, 0x7469_6c65])[0];
    f64::from(word) / 2_147_483_648.0 - 1.0
}

/// Row offsets of sequences of these lengths.
fn offsets(lengths: &[usize]) -> Vec<usize> {
    let sums = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

fn queries() -> impl Strategy<Value = (Queries, usize)> {
    let lengths = prop::collection::vec(0usize..10, 1..4);
    (any::<bool>(), lengths).prop_map(|(packed, lengths)| {
        let batch = lengths.len();
        if packed {
            (Queries::Packed { cu_seqlens: offsets(&lengths) }, batch)
        } else {
            (Queries::Padded { len: lengths[0] }, batch)
        }
    })
}

fn keys(batch: usize) -> impl Strategy<Value = Keys> {
    let lengths = prop::collection::vec(0usize..12, batch);
    (0..4, lengths, 1usize..4, any::<u32>()).prop_map(move |(kind, lengths, page_size, seed)| match kind {
        0 => Keys::Padded { len: lengths[0], lengths: None },
        1 => Keys::Padded { len: 12, lengths: Some(lengths) },
        2 => Keys::Packed { cu_seqlens: offsets(&lengths) },
        _ => {
            // Pages in any order, shared between sequences and even within one.
            let pages = 8;
            let page = |slot: usize| philox4x32_10([slot as u32, 0, 0, 0], [seed, 1])[0] as usize % pages;
            let table = (0..batch).map(|b| (0..12).map(|slot| page(b * 12 + slot)).collect()).collect();
            Keys::Paged { pages, page_size, table, lengths }
        }
    })
}

fn block_mask(spec: &AttentionSpec, (block_q, block_k, shared, seed): (usize, usize, [bool; 2], u32)) -> BlockMask {
    let shape = (
        if shared[0] { 1 } else { spec.batch },
        if shared[1] { 1 } else { spec.q_heads },
        spec.max_q_len().div_ceil(block_q),
        spec.max_kv_len().div_ceil(block_k),
    );
    let mut index = 0;
    let blocks = Array4::from_shape_simple_fn(shape, || {
        index += 1;
        uniform(seed, 99, index) < 0.2
    });
    BlockMask { block_q, block_k, blocks }
}

prop_compose! {
    /// Every feature of [`AttentionSpec`], each on about half the time.
    pub(crate) fn cases()
        ((queries, batch) in queries())
        (
            queries in Just(queries), batch in Just(batch), keys in keys(batch),
            (kv_heads, group, head_dim, value_dim) in (1usize..3, 1usize..4, 1usize..6, 1usize..6),
            scale in prop_oneof![Just(1.0), -2.0..2.0f64],
            softcap in prop::option::of(0.5..4.0f64),
            (causal, top_left) in any::<(bool, bool)>(),
            left in prop::option::of(prop_oneof![0usize..6, Just(usize::MAX)]),
            right in prop::option::of(prop_oneof![0usize..6, Just(usize::MAX)]),
            alibi in prop::option::of(-0.5..0.5f64),
            dropout in prop::option::of((0.0..0.7f64, any::<u64>())),
            mask in prop::option::of((1usize..6, 1usize..6, any::<[bool; 2]>(), any::<u32>())),
            bias in prop::option::of(any::<[bool; 4]>()),
            (sink, d_lse, seed, rows, rest) in (any::<bool>(), any::<bool>(), any::<u32>(), 1usize..7, 0usize..4),
        )
    -> Case {
        let q_heads = kv_heads * group;
        let align = if top_left { CausalAlign::TopLeft } else { CausalAlign::BottomRight };
        let mut spec = AttentionSpec {
            batch, q_heads, kv_heads, head_dim, value_dim, queries, keys, scale, softcap, causal, align,
            window: Window { left, right },
            alibi: alibi.map(|slope| (0..q_heads).map(|h| slope / (1 + h) as f64).collect()),
            dropout: dropout.map(|(p, seed)| Dropout { p, seed }),
            block_mask: None,
        };
        spec.block_mask = mask.map(|mask| block_mask(&spec, mask));
        let memory = 4 * head_dim.max(value_dim) * rows + rest;
        Case { spec, seed, bias, sink, d_lse, memory }
    }
}

/// All tensors of a case. What no query sees, and what sees no key, is NaN: nobody may look at it.
#[derive(Clone, Debug)]
pub(crate) struct Tensors<T: Element> {
    pub q: Array4<T>,
    pub k: Array4<T>,
    pub v: Array4<T>,
    pub bias: Option<Array4<T>>,
    pub sink: Option<Array1<T::Accum>>,
    pub d_o: Array4<T>,
    pub d_lse: Option<Array3<T::Accum>>,
}

impl<T: Element> Tensors<T> {
    pub(crate) fn new(case: &Case) -> Self {
        let spec = &case.spec;
        let nan = T::from_f64(f64::NAN);
        let bias = case.bias.map(|broadcast| {
            let full = spec.full_bias_shape();
            let shape: [usize; 4] = std::array::from_fn(|axis| if broadcast[axis] { 1 } else { full[axis] });
            Array4::from_elem(shape, nan)
        });
        let mut tensors = Self {
            q: Array4::from_elem(spec.q_shape(), nan),
            k: Array4::from_elem(spec.k_shape(), nan),
            v: Array4::from_elem(spec.v_shape(), nan),
            bias,
            sink: case
                .sink
                .then(|| Array1::from_shape_fn(spec.q_heads, |h| accum::<T>(2.0 * uniform(case.seed, 5, h)))),
            d_o: Array4::from_elem(spec.o_shape(), nan),
            d_lse: None,
        };
        let d_lse = Array3::from_shape_fn(spec.lse_shape(), |(b, h, i)| {
            accum::<T>(uniform(case.seed, 6, (b * 64 + h) * 64 + i))
        });
        tensors.d_lse = case.d_lse.then_some(d_lse);
        for_each_visible(spec, |b, h, i, j| tensors.fill(case, b, h, i, j));
        tensors
    }

    fn fill(&mut self, case: &Case, b: usize, h: usize, i: usize, j: usize) {
        let spec = &case.spec;
        let ((qb, qi), (kb, kj), hk) = (spec.query_slot(b, i), spec.key_slot(b, j), spec.kv_head(h));
        let number = |stream, [a, b, c, d]: [usize; 4]| {
            T::from_f64(uniform(case.seed, stream, ((a * 64 + b) * 64 + c) * 64 + d))
        };
        let fill = |stream, tensor: &mut Array4<T>, [a, b, c]: [usize; 3]| {
            if tensor[[a, b, c, 0]].to_f64().is_nan() {
                (0..tensor.dim().3).for_each(|d| tensor[[a, b, c, d]] = number(stream, [a, b, c, d]));
            }
        };
        fill(0, &mut self.q, [qb, h, qi]);
        fill(1, &mut self.k, [kb, hk, kj]);
        fill(2, &mut self.v, [kb, hk, kj]);
        fill(3, &mut self.d_o, [qb, h, qi]);
        if let Some(bias) = &mut self.bias {
            let index = broadcast_index(bias.dim(), b, h, i, j);
            bias[index] = number(4, index);
        }
    }

    pub(crate) fn inputs(&self) -> Inputs<'_, T> {
        Inputs {
            q: self.q.view(),
            k: self.k.view(),
            v: self.v.view(),
            bias: self.bias.as_ref().map(|x| x.view()),
            sink: self.sink.as_ref().map(|x| x.view()),
        }
    }

    pub(crate) fn saved<'a>(&'a self, forward: &'a Forward<T>) -> Saved<'a, T> {
        Saved {
            o: forward.o.view(),
            lse: forward.lse.view(),
            d_o: self.d_o.view(),
            d_lse: self.d_lse.as_ref().map(|x| x.view()),
        }
    }
}

pub(crate) fn for_each_visible(spec: &AttentionSpec, mut f: impl FnMut(usize, usize, usize, usize)) {
    for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
        for (i, j) in (0..spec.q_len(b)).flat_map(|i| (0..spec.kv_len(b)).map(move |j| (i, j))) {
            if spec.visible(b, h, i, j) {
                f(b, h, i, j);
            }
        }
    }
}

/// The nearest accumulator.
pub(crate) fn accum<T: Element>(x: f64) -> T::Accum {
    <T::Accum as Element>::from_f64(x)
}

/// Results of a forward pass, NaN until written.
#[derive(Clone, Debug)]
pub(crate) struct Forward<T: Element> {
    pub o: Array4<T>,
    pub lse: Array3<T::Accum>,
}

impl<T: Element> Forward<T> {
    pub(crate) fn new(spec: &AttentionSpec) -> Self {
        Self {
            o: Array4::from_elem(spec.o_shape(), T::from_f64(f64::NAN)),
            lse: Array3::from_elem(spec.lse_shape(), accum::<T>(f64::NAN)),
        }
    }

    pub(crate) fn outputs(&mut self) -> Outputs<'_, T> {
        Outputs { o: self.o.view_mut(), lse: self.lse.view_mut() }
    }
}

/// Results of a backward pass, NaN until written.
#[derive(Clone, Debug)]
#[allow(clippy::struct_field_names)] // the names of `Gradients`
pub(crate) struct Backward<T: Element> {
    pub d_q: Array4<T>,
    pub d_k: Array4<T>,
    pub d_v: Array4<T>,
    pub d_bias: Option<Array4<T>>,
    pub d_sink: Option<Array1<T::Accum>>,
}

impl<T: Element> Backward<T> {
    pub(crate) fn new(spec: &AttentionSpec, tensors: &Tensors<T>) -> Self {
        let nan = T::from_f64(f64::NAN);
        Self {
            d_q: Array4::from_elem(spec.q_shape(), nan),
            d_k: Array4::from_elem(spec.k_shape(), nan),
            d_v: Array4::from_elem(spec.v_shape(), nan),
            d_bias: tensors.bias.as_ref().map(|bias| Array4::from_elem(bias.dim(), nan)),
            d_sink: tensors.sink.as_ref().map(|sink| Array1::from_elem(sink.dim(), accum::<T>(f64::NAN))),
        }
    }

    pub(crate) fn gradients(&mut self) -> Gradients<'_, T> {
        Gradients {
            d_q: self.d_q.view_mut(),
            d_k: self.d_k.view_mut(),
            d_v: self.d_v.view_mut(),
            d_bias: self.d_bias.as_mut().map(|x| x.view_mut()),
            d_sink: self.d_sink.as_mut().map(|x| x.view_mut()),
        }
    }
}

/// Bounds on the sizes of things, tensor by tensor: what an error is measured against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge {
    pub o: f64,
    pub lse: f64,
    pub d_q: f64,
    pub d_k: f64,
    pub d_v: f64,
    pub d_bias: f64,
    pub d_sink: f64,
    score: f64,
    operations: f64,
}

impl Gauge {
    /// Inputs are at most 1 in size, sinks 2. With `z` the largest dropout factor: `|O| ≤ z`, `|dP|, |D| ≤ z·d_v`, and so
    /// `|dS_ij| ≤ P_ij·(2 z d_v + 1)`, of which `dQ` takes `Σ_j P_ij ≤ 1`, and `dK`, `dV`, `dBias`, `dSink` at worst one
    /// from every row of every head of every sequence.
    pub(crate) fn new(case: &Case) -> Self {
        let spec = &case.spec;
        let length = spec.max_q_len().max(spec.max_kv_len()) as f64;
        let rows = (spec.max_q_len() * spec.q_heads * spec.batch) as f64;
        let slope = spec.alibi.as_ref().map_or(0.0, |slopes| slopes[0].abs());
        let score = spec.scale.abs() * spec.head_dim as f64 + 1.0 + slope * 2.0 * length;
        let z = spec.dropout.map_or(1.0, |dropout| 1.0 / (1.0 - dropout.p));
        let d_s = 2.0 * z * spec.value_dim as f64 + 1.0;
        Self {
            o: z,
            lse: score + 2.0 + (length + 1.0).ln(),
            d_q: spec.scale.abs() * d_s,
            d_k: rows * spec.scale.abs() * d_s,
            d_v: rows * z,
            d_bias: rows * d_s,
            d_sink: rows * d_s,
            score,
            operations: length + rows + (spec.head_dim + spec.value_dim) as f64,
        }
    }

    /// Relative error to allow a method with accumulator and storage of these unit roundoffs.
    ///
    /// A score is off by at most `δ = (d + 14)·u·|s|` (inner product, softcap, bias, ALiBi), and so is an LSE, which adds
    /// its own rounding; `P = exp(s − LSE)` then by `2δ + 2u·|LSE|` and the roundings of a sum. A gradient holds at most
    /// six such factors at once (`P` twice, the stored `O`, the softcap's slope), and every sum adds `u` an operation.
    pub(crate) fn relative(&self, u: f64, u_storage: f64) -> f64 {
        let delta = 20.0 * u * self.score;
        6.0 * (2.0 * delta + 2.0 * u * self.lse + (self.operations + 20.0) * u + u_storage)
    }
}
