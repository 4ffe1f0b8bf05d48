//! Attention on a device against the reference: every feature alone, then all of them together, in every format,
//! forward and backward, at sizes that are no multiples of a tile.

mod attention_trial;
mod common;

use attention_trial::{Case, blocks, offsets, paged, random_case, trial};
use common::{Random, device};
use ndarray::Array4;
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};
use tilewright_cuda::CudaAttention;
use tilewright_cuda::attention::CudaElement;
use tilewright_scalar::{bf16, f16};

/// Two sequences, two heads, more keys than one tile has.
fn plain() -> AttentionSpec {
    AttentionSpec::dense(2, 2, 19, 45, 24)
}

fn masks() -> Vec<Case> {
    let mut cases = vec![Case::new("plain", plain())];
    for align in [CausalAlign::TopLeft, CausalAlign::BottomRight] {
        for lengths in [[19, 45], [45, 19], [33, 33]] {
            let spec = AttentionSpec::dense(1, 2, lengths[0], lengths[1], 20);
            cases.push(Case::new("causal", AttentionSpec { causal: true, align, ..spec.clone() }));
            let window = Window { left: Some(9), right: Some(4) };
            cases.push(Case::new("window", AttentionSpec { align, window, ..spec.clone() }));
            let window = Window { left: Some(40), right: None };
            cases.push(Case::new("causal window", AttentionSpec { causal: true, align, window, ..spec.clone() }));
            let window = Window { left: None, right: Some(7) };
            cases.push(Case::new("right window", AttentionSpec { align, window, ..spec }));
        }
    }
    for (sides, shared) in [([16, 32], [false, false]), ([7, 5], [true, false]), ([50, 3], [false, true])] {
        let mask = blocks(&plain(), sides, shared, &mut Random(3));
        cases.push(Case::new("blocks", AttentionSpec { block_mask: Some(mask), ..plain() }));
    }
    cases
}

fn scores() -> Vec<Case> {
    let mut cases = vec![
        Case::new("softcap", AttentionSpec { softcap: Some(0.8), ..plain() }),
        Case::new("a cap that bends nothing", AttentionSpec { softcap: Some(1e300), ..plain() }),
        Case::new("alibi", AttentionSpec { alibi: Some(vec![0.25, 0.06]), ..plain() }),
        Case::new("dropout", AttentionSpec { dropout: Some(Dropout { p: 0.4, seed: 1 << 40 | 5 }), ..plain() }),
        Case::new("no scale", AttentionSpec { scale: 0.0, ..plain() }),
        Case { sink: true, ..Case::new("sink", plain()) },
        Case { d_lse: true, ..Case::new("gradient of LSE", plain()) },
    ];
    for shared in 0..16 {
        let bias = Some(std::array::from_fn(|axis| shared >> axis & 1 == 1));
        cases.push(Case { bias, ..Case::new("bias", plain()) });
    }
    cases
}

fn layouts() -> Vec<Case> {
    let packed = Queries::Packed { cu_seqlens: offsets(&[5, 0, 36]) };
    let three = AttentionSpec { batch: 3, queries: packed, ..plain() };
    let random = &mut Random(4);
    let mut cases = vec![
        Case::new(
            "packed",
            AttentionSpec { keys: Keys::Packed { cu_seqlens: offsets(&[33, 12, 0]) }, ..three.clone() },
        ),
        Case::new(
            "lengths",
            AttentionSpec { keys: Keys::Padded { len: 70, lengths: Some(vec![70, 0, 41]) }, ..three.clone() },
        ),
    ];
    for page_size in [1, 6, 16, 37, 64] {
        let keys = paged(&[50, 7, 66], page_size, 9, random);
        let spec = AttentionSpec { keys, dropout: Some(Dropout { p: 0.2, seed: 9 }), ..three.clone() };
        cases.push(Case::new("paged", spec));
    }
    for kv_heads in [1, 2, 3] {
        let spec = AttentionSpec { kv_heads, q_heads: 6, ..AttentionSpec::dense(1, 6, 18, 34, 16) };
        cases.push(Case::new("groups", spec));
    }
    for lengths in [[1, 50], [50, 1], [0, 5], [5, 0], [16, 32], [17, 33]] {
        cases.push(Case::new("lengths of their own", AttentionSpec::dense(1, 1, lengths[0], lengths[1], 8)));
    }
    cases
}

/// Head dimensions on every side of chunks and of what one block of columns holds.
fn dimensions() -> Vec<Case> {
    [[1, 1], [3, 40], [64, 32], [33, 129], [96, 80], [128, 128], [8, 136], [256, 256], [300, 20], [20, 300]]
        .into_iter()
        .map(|[head_dim, value_dim]| {
            let spec = AttentionSpec { value_dim, ..AttentionSpec::dense(1, 1, 18, 37, head_dim) };
            Case::new("dimensions", AttentionSpec { causal: true, ..spec })
        })
        .collect()
}

/// More rows and keys than a block or a tile of any kernel has.
fn long() -> Vec<Case> {
    let spec = AttentionSpec::dense(1, 1, 150, 201, 64);
    let masked = AttentionSpec { causal: true, window: Window { left: Some(70), right: None }, ..spec.clone() };
    let mask = blocks(&spec, [64, 64], [true, true], &mut Random(5));
    vec![
        Case::new("long", spec.clone()),
        Case::new("long and masked", masked),
        Case::new("long and sparse", AttentionSpec { block_mask: Some(mask), ..spec }),
        Case::new("long and deep", AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 133, 70, 128) }),
    ]
}

/// Few queries and many keys: the keys are split, and the splits merged.
fn decoding() -> Vec<Case> {
    let spec = AttentionSpec { kv_heads: 1, ..AttentionSpec::dense(2, 2, 3, 1100, 40) };
    let window = Window { left: Some(600), right: Some(0) };
    let lengths = Keys::Padded { len: 1100, lengths: Some(vec![1100, 513]) };
    let keys = paged(&[700, 1050], 48, 23, &mut Random(6));
    vec![
        Case { sink: true, ..Case::new("decoding", AttentionSpec { keys: lengths, causal: true, ..spec.clone() }) },
        Case {
            bias: Some([true, false, false, false]),
            ..Case::new("decoding, window", AttentionSpec { window, ..spec.clone() })
        },
        Case::new("decoding, pages", AttentionSpec { keys, dropout: Some(Dropout { p: 0.5, seed: 2 }), ..spec }),
    ]
}

/// Few queries whose heads fill more than one tile of rows, in every head dimension that kernels are made for: rows of one tile
/// differ in all that differs by head.
fn few_rows_of_many_heads() -> Vec<Case> {
    let spec = |dim: usize| AttentionSpec { kv_heads: 2, causal: true, ..AttentionSpec::dense(1, 10, 5, 90, dim) };
    let mut cases: Vec<Case> = [32, 64, 96, 128, 256].map(|dim| Case::new("few rows", spec(dim))).into();
    // No two heads of a tile see the same block of keys.
    let seen = Array4::from_shape_fn((1, 10, 3, 6), |(_, h, _, column)| (h + column) % 5 == 0);
    let mask = BlockMask { block_q: 2, block_k: 16, blocks: seen };
    let slopes = (1..=10).map(|n| 0.03 * f64::from(n)).collect();
    cases.extend([
        Case { sink: true, bias: Some([false; 4]), ..Case::new("few rows, bias of each head", spec(40)) },
        Case::new("few rows, alibi", AttentionSpec { alibi: Some(slopes), softcap: Some(2.0), ..spec(8) }),
        Case::new("few rows, dropout", AttentionSpec { dropout: Some(Dropout { p: 0.3, seed: 3 }), ..spec(48) }),
        Case::new("few rows, blocks of each head", AttentionSpec { block_mask: Some(mask), ..spec(24) }),
        Case { odd: [None, Some((87, f64::INFINITY))], ..Case::new("few rows, odd value", spec(16)) },
        Case { odd: [Some((88, f64::NAN)), None], ..Case::new("few rows, odd key", spec(16)) },
    ]);
    cases
}

/// Keys and values that are not finite and that some rows see: those rows show it, and no others do.
fn odd_numbers() -> Vec<Case> {
    let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 70, 70, 16) };
    let sparse =
        AttentionSpec { block_mask: Some(blocks(&spec, [8, 8], [true, false], &mut Random(8))), ..spec.clone() };
    let odd = [
        [None, Some((37, f64::INFINITY))],
        [None, Some((66, f64::NEG_INFINITY))],
        [None, Some((5, f64::NAN))],
        [Some((37, f64::NAN)), None],
        [Some((44, f64::INFINITY)), None],
    ];
    let each = |spec: &AttentionSpec| {
        let spec = spec.clone();
        odd.map(move |odd| Case { odd, ..Case::new("odd numbers", spec.clone()) })
    };
    [each(&spec), each(&sparse)].concat()
}

fn run<T: CudaElement>(cases: &[Case]) {
    let Some(turn) = device() else { return };
    trial::<T>(&CudaAttention::new(turn.device.clone()), cases);
}

macro_rules! in_every_format {
    ($($name:ident: $cases:expr;)*) => {
        $(mod $name {
            use super::*;
            #[test]
            fn in_f32() {
                run::<f32>(&$cases);
            }
            #[test]
            fn in_f64() {
                run::<f64>(&$cases);
            }
            #[test]
            fn in_f16() {
                run::<f16>(&$cases);
            }
            #[test]
            fn in_bf16() {
                run::<bf16>(&$cases);
            }
        })*
    };
}

in_every_format! {
    each_mask: masks();
    each_score: scores();
    each_layout: layouts();
    each_dimension: dimensions();
    long_sequences: long();
    few_queries: decoding();
    many_heads: few_rows_of_many_heads();
    not_finite: odd_numbers();
    everything_together: (0..40).map(|n| random_case(n, &[1, 8, 20, 40, 64])).collect::<Vec<_>>();
    everything_by_eights: (100..140).map(|n| random_case(n, &[8, 16, 24, 64, 72, 104, 136])).collect::<Vec<_>>();
}
