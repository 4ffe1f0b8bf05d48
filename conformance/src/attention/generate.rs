//! From a case to its tensors.
//!
//! Every value is a function of the seed, the tensor and the element's place, computed by integer arithmetic and exact
//! scalings and rounded once into the storage format: no platform, layout or order of evaluation changes a bit.
//! Slots that belong to no sequence hold NaN or an infinity, in every case: an implementation that reads one shows it.

use crate::attention::case::{Case, Distribution, Storage};
use crate::attention::file;
use crate::{Tensor, Tensors};
use ndarray::{Array4, ArrayD, IxDyn};
use std::sync::OnceLock;
use tilewright_attention::{AttentionSpec, BlockMask, Dropout, Keys, Queries, Window};
use tilewright_scalar::format::power_of_two;
use tilewright_scalar::{Format, philox4x32_10};

/// A case made concrete.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The problem.
    pub spec: AttentionSpec,
    /// `q`, `k`, `v`, `d_o`, and `bias`, `sink`, `d_lse` where the case has them.
    pub inputs: Tensors,
}

/// Which stream of the generator a tensor draws from.
#[derive(Clone, Copy)]
enum Stream {
    Q = 1,
    K,
    V,
    DO,
    DLse,
    Bias,
    Sink,
    Shape,
    Blocks,
}

/// The generator of one case.
struct Source {
    seed: u32,
}

impl Source {
    fn words(&self, stream: Stream, index: usize, block: u32) -> [u32; 4] {
        philox4x32_10([index as u32, (index >> 32) as u32, block, stream as u32], [self.seed, 0x7469_6c65])
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-16.
    fn uniform(&self, stream: Stream, index: usize) -> f64 {
        f64::from(self.words(stream, index, 0)[0] >> 16) / 65536.0
    }

    /// Roughly normal: the sum of twelve uniforms (Irwin–Hall), mean 0, variance 1.
    fn normal(&self, stream: Stream, index: usize) -> f64 {
        let halves = |word: u32| i64::from(word >> 16) + i64::from(word & 0xffff);
        let [a, b, c, d] = self.words(stream, index, 0);
        let [e, f, ..] = self.words(stream, index, 1);
        let sum: i64 = [a, b, c, d, e, f].into_iter().map(halves).sum();
        (2 * sum - 12 * 65535) as f64 / 131_072.0
    }

    /// An integer in `0 .. bound`.
    fn below(&self, stream: Stream, index: usize, bound: usize) -> usize {
        self.words(stream, index, 0)[0] as usize % bound.max(1)
    }
}

/// Builds the problem of a case.
///
/// # Errors
/// A line of text if the options cannot go together.
pub fn generate(case: &Case) -> Result<Problem, String> {
    let source = Source { seed: case.seed };
    let spec = specification(case, &source);
    spec.validate().map_err(|error| format!("case {case}: {error}"))?;
    let accum = if case.format == Format::F64 { Format::F64 } else { Format::F32 };
    let mut inputs = Tensors::new();
    let mut insert = |name: &str, format: Format, array: &ArrayD<f64>| {
        let values: Vec<f64> = array.iter().copied().collect();
        let tensor =
            Tensor::from_f64(format, array.shape(), &values).map_err(|error| format!("case {case}: {error}"))?;
        inputs.insert(name.into(), tensor);
        Ok::<(), String>(())
    };
    insert("q", case.format, &queries(case, &spec, &source, Stream::Q).into_dyn())?;
    insert("k", case.format, &keys(case, &spec, &source).into_dyn())?;
    insert("v", case.format, &values(case, &spec, &source).into_dyn())?;
    insert("d_o", case.format, &queries(case, &spec, &source, Stream::DO).into_dyn())?;
    let plain = |stream: Stream, shape: &[usize]| {
        let mut index = 0;
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            index += 1;
            source.normal(stream, index)
        })
    };
    if case.d_lse {
        insert("d_lse", accum, &plain(Stream::DLse, &spec.lse_shape()))?;
    }
    if let Some(axes) = case.bias {
        let full = spec.full_bias_shape();
        let shape: Vec<usize> = axes.iter().zip(full).map(|(own, axis)| if *own { axis } else { 1 }).collect();
        insert("bias", case.format, &plain(Stream::Bias, &shape))?;
    }
    if case.sink {
        insert("sink", accum, &plain(Stream::Sink, &[case.q_heads]))?;
    }
    Ok(Problem { spec, inputs })
}

/// Lengths of the sequences: the first is the longest, the second of three or more is empty, the others are drawn.
fn lengths(case: &Case, source: &Source, longest: usize, salt: usize) -> Vec<usize> {
    (0..case.batch)
        .map(|b| match b {
            0 => longest,
            1 if case.batch >= 3 => 0,
            _ => usize::from(longest > 0) + source.below(Stream::Shape, 64 * salt + b, longest),
        })
        .collect()
}

fn offsets(lengths: &[usize]) -> Vec<usize> {
    std::iter::once(0)
        .chain(lengths.iter().scan(0, |total, length| {
            *total += length;
            Some(*total)
        }))
        .collect()
}

fn specification(case: &Case, source: &Source) -> AttentionSpec {
    let kv_lengths = || lengths(case, source, case.kv_len, 1);
    let mut queries = Queries::Padded { len: case.q_len };
    let keys = match case.storage {
        Storage::Padded => Keys::Padded { len: case.kv_len, lengths: None },
        Storage::Lengths => Keys::Padded { len: case.kv_len, lengths: Some(kv_lengths()) },
        Storage::Packed => {
            // An empty sequence among the queries is not the one among the keys.
            let mut q_lengths = lengths(case, source, case.q_len, 2);
            q_lengths.rotate_right(usize::from(case.batch >= 3));
            queries = Queries::Packed { cu_seqlens: offsets(&q_lengths) };
            Keys::Packed { cu_seqlens: offsets(&kv_lengths()) }
        }
        Storage::Paged(page_size) => paged(&kv_lengths(), page_size, source),
    };
    let [left, right] = case.window;
    let mut spec = AttentionSpec {
        kv_heads: case.kv_heads,
        value_dim: case.value_dim,
        queries,
        keys,
        softcap: case.softcap,
        causal: case.causal,
        align: case.align,
        window: Window { left, right },
        alibi: case.alibi.then(|| (0..case.q_heads).map(|h| power_of_two(-(h as i32 % 8) - 1)).collect()),
        dropout: case.dropout.map(|p| Dropout { p, seed: u64::from(case.seed) << 20 | 0x5eed }),
        ..AttentionSpec::dense(case.batch, case.q_heads, case.q_len, case.kv_len, case.head_dim)
    };
    spec.block_mask = case.blocks.map(|[block_q, block_k]| {
        let shape = (case.batch, case.q_heads, spec.max_q_len().div_ceil(block_q), spec.max_kv_len().div_ceil(block_k));
        let mut index = 0;
        let blocks = Array4::from_shape_simple_fn(shape, || {
            index += 1;
            source.below(Stream::Blocks, index, 2) == 1
        });
        BlockMask { block_q, block_k, blocks }
    });
    spec
}

/// A page table in scattered order, with two pages nobody refers to; where the first two sequences both fill their
/// first page they share it.
fn paged(lengths: &[usize], page_size: usize, source: &Source) -> Keys {
    let mut table: Vec<Vec<usize>> = Vec::new();
    let mut next = 0;
    for length in lengths {
        let used = length.div_ceil(page_size);
        table.push((next..next + used).collect());
        next += used;
    }
    let pages = next + 2;
    let mut order: Vec<usize> = (0..pages).collect();
    order.sort_by_key(|page| (source.words(Stream::Shape, 4096 + page, 0)[0], *page));
    for row in &mut table {
        for page in row.iter_mut() {
            *page = order[*page];
        }
    }
    let full = |b: usize| lengths.get(b).is_some_and(|length| *length >= page_size);
    let second = if full(1) { 1 } else { 2 };
    if full(0) && full(second) {
        table[second][0] = table[0][0];
    }
    Keys::Paged { pages, page_size, table, lengths: lengths.to_vec() }
}

/// What slots hold that nobody may read: NaN, +∞ and −∞ by rows.
fn unused(shape: [usize; 4]) -> Array4<f64> {
    Array4::from_shape_fn(shape, |(.., row, _)| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][row % 3])
}

/// `√d` as the trend component of a query holds it, so that the scaled score is the key's own component.
fn root(case: &Case) -> f64 {
    tilewright_scalar::real::sqrt(case.head_dim as f64)
}

/// How far a one-hot score must stand out for every other weight to vanish in the accumulator.
fn one_hot_gap(case: &Case) -> f64 {
    if case.format == Format::F64 { 800.0 } else { 128.0 }
}

/// `q` or `dO`: both are stored by query rows.
fn queries(case: &Case, spec: &AttentionSpec, source: &Source, stream: Stream) -> Array4<f64> {
    let is_q = matches!(stream, Stream::Q);
    let mut array = unused(if is_q { spec.q_shape() } else { spec.o_shape() });
    let (_, heads, rows, dim) = array.dim();
    for b in 0..spec.batch {
        for h in 0..heads {
            for i in 0..spec.q_len(b) {
                let (qb, qi) = spec.query_slot(b, i);
                for c in 0..dim {
                    let index = ((qb * heads + h) * rows + qi) * dim + c;
                    array[[qb, h, qi, c]] = if is_q {
                        query(case, spec, source, [b, h, i, c], index)
                    } else {
                        incoming(case, source, index)
                    };
                }
            }
        }
    }
    array
}

fn query(case: &Case, spec: &AttentionSpec, source: &Source, [b, h, i, c]: [usize; 4], index: usize) -> f64 {
    let normal = source.normal(Stream::Q, index);
    match case.distribution {
        Distribution::Peaky => 4.0 * normal,
        Distribution::Equal => 0.0,
        Distribution::Uniform => source.uniform(Stream::Q, index),
        Distribution::Ascending
        | Distribution::Descending
        | Distribution::Low
        | Distribution::High
        | Distribution::Vast
            if c == 0 =>
        {
            root(case)
        }
        Distribution::Ascending | Distribution::Descending => normal / 2.0,
        Distribution::OneHot => {
            // With codes the scores' gap is about d/2 · strength · scale or more, without them strength · scale a key.
            let gap = one_hot_gap(case) * root(case) / if coded(case) { case.head_dim as f64 / 4.0 } else { 1.0 };
            let strength = power_of_two(exponent(gap) + 1);
            let target = source.below(Stream::Shape, 8192 + i + 977 * h, spec.kv_len(b));
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            if coded(case) { strength * code(case, target, c) } else { strength * sign * f64::from(u8::from(c == 0)) }
        }
        Distribution::Recorded => recorded("q", b, h, i, c),
        _ => normal,
    }
}

/// `⌊log2 x⌋` of a positive normal number.
fn exponent(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

fn coded(case: &Case) -> bool {
    case.head_dim >= 16
}

/// Component `c` of key `j`'s code, ±1.
fn code(case: &Case, j: usize, c: usize) -> f64 {
    let bit = philox4x32_10([j as u32, c as u32, 0, 99], [case.seed, 0])[0] & 1;
    if bit == 1 { 1.0 } else { -1.0 }
}

fn keys(case: &Case, spec: &AttentionSpec, source: &Source) -> Array4<f64> {
    let mut array = unused(spec.k_shape());
    for_each_key(case, spec, |b, h, j, [kb, kh, kj], hidden| {
        for c in 0..case.head_dim {
            let index = ((kb * case.kv_heads + kh) * array.dim().2 + kj) * case.head_dim + c;
            array[[kb, kh, kj, c]] = if hidden {
                huge(case, source, Stream::K, index)
            } else {
                key(case, spec, source, [b, h, j, c], index)
            };
        }
    });
    array
}

fn key(case: &Case, spec: &AttentionSpec, source: &Source, [b, h, j, c]: [usize; 4], index: usize) -> f64 {
    let normal = source.normal(Stream::K, index);
    let place = j as f64 / spec.kv_len(b).max(1) as f64 - 0.5;
    match case.distribution {
        Distribution::Uniform => source.uniform(Stream::K, index),
        Distribution::Ascending if c == 0 => 24.0 * place,
        Distribution::Descending if c == 0 => -24.0 * place,
        Distribution::Low if c == 0 => -150.0,
        Distribution::High if c == 0 => 150.0,
        Distribution::Vast if c == 0 => 10_000.0 * normal,
        Distribution::Ascending | Distribution::Descending => normal / 2.0,
        Distribution::OneHot if coded(case) => code(case, j, c),
        Distribution::OneHot if c == 0 => j as f64,
        Distribution::OneHot => 0.0,
        Distribution::Recorded => recorded("k", b, h, j, c),
        _ => normal,
    }
}

fn values(case: &Case, spec: &AttentionSpec, source: &Source) -> Array4<f64> {
    let mut array = unused(spec.v_shape());
    for_each_key(case, spec, |b, h, j, [kb, kh, kj], hidden| {
        for c in 0..case.value_dim {
            let index = ((kb * case.kv_heads + kh) * array.dim().2 + kj) * case.value_dim + c;
            let normal = source.normal(Stream::V, index);
            array[[kb, kh, kj, c]] = match case.distribution {
                _ if hidden => huge(case, source, Stream::V, index),
                Distribution::Uniform => source.uniform(Stream::V, index),
                Distribution::Equal => source.below(Stream::V, index, 9) as f64 - 4.0,
                Distribution::Offset => 16.0 + normal / 8.0,
                Distribution::Subnormal => normal * power_of_two(case.format.min_exponent - 3),
                Distribution::Recorded => recorded("v", b, h, j, c),
                _ => normal,
            };
        }
    });
    array
}

/// An element of `dO`.
fn incoming(case: &Case, source: &Source, index: usize) -> f64 {
    match case.distribution {
        Distribution::Uniform => source.uniform(Stream::DO, index),
        Distribution::Equal => source.below(Stream::DO, index, 9) as f64 - 4.0,
        Distribution::Subnormal => source.normal(Stream::DO, index) * power_of_two(case.format.min_exponent - 3),
        _ => source.normal(Stream::DO, index),
    }
}

fn huge(case: &Case, source: &Source, stream: Stream, index: usize) -> f64 {
    let size = if case.format == Format::F16 { 6.0e4 } else { 1.0e30 };
    if source.normal(stream, index) < 0.0 { -size } else { size }
}

/// Calls `f(b, h, j, slot, hidden)` for every key of every sequence, where `hidden` says that the data are to hide
/// something huge in keys that no query sees.
fn for_each_key(case: &Case, spec: &AttentionSpec, mut f: impl FnMut(usize, usize, usize, [usize; 3], bool)) {
    let group = spec.q_heads / spec.kv_heads;
    for b in 0..spec.batch {
        for h in 0..spec.kv_heads {
            for j in 0..spec.kv_len(b) {
                let (kb, kj) = spec.key_slot(b, j);
                let hidden = case.distribution == Distribution::HugeMasked
                    && !matches!(case.storage, Storage::Paged(_))
                    && (h * group..(h + 1) * group)
                        .all(|head| (0..spec.q_len(b)).all(|i| !spec.visible(b, head, i, j)));
                f(b, h, j, [kb, h, kj], hidden);
            }
        }
    }
}

/// An activation recorded from a language model: even sequences from its first layer, odd ones from its last; heads,
/// positions and components repeat beyond what was recorded.
fn recorded(tensor: &str, b: usize, h: usize, i: usize, c: usize) -> f64 {
    static RECORDING: OnceLock<Vec<file::FileCase>> = OnceLock::new();
    let recording = RECORDING.get_or_init(|| {
        file::cases_from_bytes(include_bytes!("../../vectors/attention_minilm.safetensors")).unwrap_or_default()
    });
    let Some(case) = recording.get(b % recording.len().max(1)) else { return f64::NAN };
    match case.tensors.get(tensor) {
        Some(Tensor::F32(array)) => {
            let shape = array.shape();
            f64::from(array[[0, h % shape[1], i % shape[2], c % shape[3]]])
        }
        _ => f64::NAN,
    }
}
