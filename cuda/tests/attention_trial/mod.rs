//! Problems for attention, their tensors, and a judge: every element within the bound that the contract derives, and
//! within what is expected of independent roundings.

use crate::common::{Random, fault};
use ndarray::{Array, Array1, Array3, Array4, Dimension};
use tilewright_attention::bound::{self, Limit};
use tilewright_attention::tensors::broadcast_index;
use tilewright_attention::{
    AttentionBackward, AttentionForward, AttentionSpec, BlockMask, Contract, Element, Format, Gradients, Inputs, Keys,
    Outputs, Queries, Saved, reference,
};
use tilewright_cuda::CudaAttention;
use tilewright_cuda::attention::CudaElement;
use tilewright_scalar::{DoubleDouble, Real};

/// A problem and what else determines its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub name: String,
    pub spec: AttentionSpec,
    /// Which axes of the bias are shared.
    pub bias: Option<[bool; 4]>,
    pub sink: bool,
    pub d_lse: bool,
    /// Keys, of `k` and of `v`, that are not finite in every sequence and head.
    pub odd: [Option<(usize, f64)>; 2],
    pub seed: u64,
}

impl Case {
    pub(crate) fn new(name: &str, spec: AttentionSpec) -> Self {
        Self { name: name.into(), spec, bias: None, sink: false, d_lse: false, odd: [None; 2], seed: 7 }
    }
}

/// Tensors of a case. What no query sees, and what sees no key, is NaN: nobody may look at it.
pub(crate) struct Tensors<T: Element> {
    pub q: Array4<T>,
    pub k: Array4<T>,
    pub v: Array4<T>,
    pub bias: Option<Array4<T>>,
    pub sink: Option<Array1<T::Accum>>,
    pub d_o: Array4<T>,
    pub d_lse: Option<Array3<T::Accum>>,
}

fn accum<T: Element>(x: f64) -> T::Accum {
    <T::Accum as Element>::from_f64(x)
}

impl<T: Element> Tensors<T> {
    pub(crate) fn new(case: &Case) -> Self {
        let spec = &case.spec;
        let nan = T::from_f64(f64::NAN);
        let mut random = Random(case.seed);
        let bias = case.bias.map(|shared| {
            let full = spec.full_bias_shape();
            Array4::from_elem(std::array::from_fn::<_, 4, _>(|n| if shared[n] { 1 } else { full[n] }), nan)
        });
        let mut tensors = Self {
            q: Array4::from_elem(spec.q_shape(), nan),
            k: Array4::from_elem(spec.k_shape(), nan),
            v: Array4::from_elem(spec.v_shape(), nan),
            bias,
            sink: case.sink.then(|| Array1::from_shape_simple_fn(spec.q_heads, || accum::<T>(2.0 * random.unit()))),
            d_o: Array4::from_elem(spec.o_shape(), nan),
            d_lse: case.d_lse.then(|| Array3::from_shape_simple_fn(spec.lse_shape(), || accum::<T>(random.unit()))),
        };
        tensors.fill_what_is_seen(spec, &mut random);
        for (tensor, odd) in [&mut tensors.k, &mut tensors.v].into_iter().zip(case.odd) {
            if let Some((key, x)) = odd {
                tensor.slice_mut(ndarray::s![.., .., key, ..;3]).fill(T::from_f64(x));
            }
        }
        tensors
    }

    fn fill_what_is_seen(&mut self, spec: &AttentionSpec, random: &mut Random) {
        let mut fill = |tensor: &mut Array4<T>, [a, b, c]: [usize; 3]| {
            if tensor[[a, b, c, 0]].to_f64().is_nan() {
                tensor.slice_mut(ndarray::s![a, b, c, ..]).mapv_inplace(|_| T::from_f64(1.5 * random.unit()));
            }
        };
        let mut seen = Vec::new();
        for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
            for (i, j) in (0..spec.q_len(b)).flat_map(|i| (0..spec.kv_len(b)).map(move |j| (i, j))) {
                if !spec.visible(b, h, i, j) {
                    continue;
                }
                let ((qb, qi), (kb, kj), hk) = (spec.query_slot(b, i), spec.key_slot(b, j), spec.kv_head(h));
                fill(&mut self.q, [qb, h, qi]);
                fill(&mut self.d_o, [qb, h, qi]);
                fill(&mut self.k, [kb, hk, kj]);
                fill(&mut self.v, [kb, hk, kj]);
                seen.push([b, h, i, j]);
            }
        }
        if let Some(bias) = &mut self.bias {
            let shape = bias.dim();
            for [b, h, i, j] in seen {
                bias[broadcast_index(shape, b, h, i, j)] = T::from_f64(random.unit());
            }
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
}

/// Element by element: the class of a number, then the distance to the truth.
fn judge<T: Element, A: Real, D: Dimension>(
    name: &str,
    got: &Array<T, D>,
    truth: &Array<A, D>,
    limit: &Limit<D>,
    rounding: Format,
) -> Result<(), String> {
    let limits = limit.worst.iter().zip(limit.coherent.iter().zip(&limit.sigma));
    for (n, ((got, truth), (worst, (coherent, sigma)))) in got.iter().zip(truth).zip(limits).enumerate() {
        let (x, value) = (got.to_f64(), truth.to_f64());
        if !value.is_finite() {
            if x.to_bits() != value.to_bits() && !(x.is_nan() && value.is_nan()) {
                return Err(format!("{name}: element {n} is {x}, expected {value}"));
            }
            continue;
        }
        let error = (A::from_f64(x) - *truth).abs().to_f64();
        let expected = coherent + 6.0 * sigma + bound::final_rounding(rounding, value);
        let allowed = expected.min(*worst);
        // What is not a number is not within anything.
        let within = error <= allowed;
        if !within {
            return Err(format!(
                "{name}: element {n} is {x:e}, expected {value:e} ± {allowed:e} (certain ± {worst:e})"
            ));
        }
    }
    Ok(())
}

/// Runs a case both ways and judges every tensor; the reference is `A`.
pub(crate) fn judge_case<T: CudaElement, A: Real>(method: &CudaAttention, case: &Case) -> Result<(), String> {
    let (spec, tensors) = (&case.spec, Tensors::<T>::new(case));
    let contract: Contract = method.contract(T::FORMAT);
    let text = |error: tilewright_attention::AttentionError| format!("{error} {}", fault());
    let nan = T::from_f64(f64::NAN);
    let mut o = Array4::from_elem(spec.o_shape(), nan);
    let mut lse = Array3::from_elem(spec.lse_shape(), accum::<T>(f64::NAN));
    let inputs = tensors.inputs();
    method.forward(spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() }).map_err(text)?;
    let truth = reference::forward::<T, A>(spec, &inputs).map_err(text)?;
    let limits = bound::forward(spec, &inputs, &contract).map_err(text)?;
    judge("o", &o, &truth.o, &limits.o, T::FORMAT)?;
    judge("lse", &lse, &truth.lse, &limits.lse, T::Accum::FORMAT)?;

    let mut d_q = Array4::from_elem(spec.q_shape(), nan);
    let mut d_k = Array4::from_elem(spec.k_shape(), nan);
    let mut d_v = Array4::from_elem(spec.v_shape(), nan);
    let mut d_bias = tensors.bias.as_ref().map(|bias| Array4::from_elem(bias.dim(), nan));
    let mut d_sink = tensors.sink.as_ref().map(|sink| Array1::from_elem(sink.dim(), accum::<T>(f64::NAN)));
    let d_lse = tensors.d_lse.as_ref().map(|d_lse| d_lse.view());
    let saved = Saved { o: o.view(), lse: lse.view(), d_o: tensors.d_o.view(), d_lse };
    let gradients = Gradients {
        d_q: d_q.view_mut(),
        d_k: d_k.view_mut(),
        d_v: d_v.view_mut(),
        d_bias: d_bias.as_mut().map(|x| x.view_mut()),
        d_sink: d_sink.as_mut().map(|x| x.view_mut()),
    };
    method.backward(spec, &inputs, &saved, gradients).map_err(text)?;
    let truth = reference::backward::<T, A>(spec, &inputs, tensors.d_o.view(), d_lse).map_err(text)?;
    let limits = bound::backward(spec, &inputs, tensors.d_o.view(), d_lse, &contract).map_err(text)?;
    judge("d_q", &d_q, &truth.d_q, &limits.d_q, T::FORMAT)?;
    judge("d_k", &d_k, &truth.d_k, &limits.d_k, T::FORMAT)?;
    judge("d_v", &d_v, &truth.d_v, &limits.d_v, T::FORMAT)?;
    if let (Some(got), Some(truth), Some(limit)) = (&d_bias, &truth.d_bias, &limits.d_bias) {
        judge("d_bias", got, truth, limit, T::FORMAT)?;
    }
    if let (Some(got), Some(truth), Some(limit)) = (&d_sink, &truth.d_sink, &limits.d_sink) {
        judge("d_sink", got, truth, limit, T::Accum::FORMAT)?;
    }
    Ok(())
}

/// Judges cases on tensors of `T`; a panic names all that fail.
pub(crate) fn trial<T: CudaElement>(method: &CudaAttention, cases: &[Case]) {
    let wide = T::FORMAT.precision > Format::F32.precision;
    let one = if wide { judge_case::<T, DoubleDouble> } else { judge_case::<T, f64> };
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let error = one(method, case).err()?;
            Some(format!("{} {}: {error}\n    {case:?}", T::FORMAT.name, case.name))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Row offsets of sequences of these lengths.
pub(crate) fn offsets(lengths: &[usize]) -> Vec<usize> {
    let sums = lengths.iter().scan(0, |sum, length| {
        *sum += length;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

/// A mask of which about half the blocks are set.
pub(crate) fn blocks(
    spec: &AttentionSpec,
    [block_q, block_k]: [usize; 2],
    shared: [bool; 2],
    random: &mut Random,
) -> BlockMask {
    let shape = (
        if shared[0] { 1 } else { spec.batch },
        if shared[1] { 1 } else { spec.q_heads },
        spec.max_q_len().div_ceil(block_q),
        spec.max_kv_len().div_ceil(block_k),
    );
    BlockMask { block_q, block_k, blocks: Array4::from_shape_simple_fn(shape, || random.below(2) == 0) }
}

/// Pages in any order, shared between sequences and even within one.
pub(crate) fn paged(lengths: &[usize], page_size: usize, pages: usize, random: &mut Random) -> Keys {
    let row = |length: &usize| (0..length.div_ceil(page_size)).map(|_| random.below(pages)).collect();
    Keys::Paged { pages, page_size, table: lengths.iter().map(row).collect(), lengths: lengths.to_vec() }
}

/// A problem that uses every feature about half the time.
pub(crate) fn random_case(n: u64, dims: &[usize]) -> Case {
    let random = &mut Random(n);
    let batch = 1 + random.below(3);
    let kv_heads = 1 + random.below(2);
    let q_heads = kv_heads * (1 + random.below(3));
    let queries: Vec<usize> = (0..batch).map(|_| random.below(40)).collect();
    let keys: Vec<usize> = (0..batch).map(|_| random.below(75)).collect();
    let mut coins = random.next() >> 16;
    let mut coin = |odds: u64| {
        let side = coins % odds;
        coins /= odds;
        side == 0
    };
    let (packed, causal, top_left, capped, sloped, dropped, blocked) =
        (coin(2), coin(2), coin(2), coin(3), coin(3), coin(3), coin(3));
    let (biased, sink, d_lse, left, right) = (coin(2), coin(2), coin(2), coin(2), coin(2));
    let shared = [coin(2), coin(2), coin(2), coin(2)];
    let mut spec = AttentionSpec {
        q_heads,
        kv_heads,
        value_dim: dims[random.below(dims.len())],
        scale: 0.6 * random.unit(),
        softcap: capped.then_some(1.5),
        causal,
        alibi: sloped.then(|| (0..q_heads).map(|h| 0.3 / (1 + h) as f64).collect()),
        dropout: dropped.then(|| tilewright_attention::Dropout { p: 0.3, seed: random.next() }),
        ..AttentionSpec::dense(batch, q_heads, queries[0], 75, dims[random.below(dims.len())])
    };
    if top_left {
        spec.align = tilewright_attention::CausalAlign::TopLeft;
    }
    if packed {
        spec.queries = Queries::Packed { cu_seqlens: offsets(&queries) };
    }
    spec.keys = match random.below(4) {
        0 => Keys::Padded { len: keys[0], lengths: None },
        1 => Keys::Padded { len: 75, lengths: Some(keys) },
        2 => Keys::Packed { cu_seqlens: offsets(&keys) },
        _ => paged(&keys, 1 + random.below(40), 5, random),
    };
    spec.window.left = left.then(|| random.below(40));
    spec.window.right = right.then(|| random.below(40));
    if blocked {
        let sides = [1 + random.below(40), 1 + random.below(40)];
        spec.block_mask = Some(blocks(&spec, sides, [shared[0], shared[1]], random));
    }
    let bias = biased.then_some(shared);
    Case { name: format!("random {n}"), spec, bias, sink, d_lse, odd: [None; 2], seed: n }
}
