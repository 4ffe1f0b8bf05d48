//! Random problems over every feature of the specification.
#![allow(unreachable_pub)]

use crate::common::Case;
use ndarray::Array4;
use proptest::prelude::*;
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};

prop_compose! {
    /// Lengths, heads and dims.
    fn sizes()(
        batch in 1..3usize, kv_heads in 1..3usize, group in 1..3usize, q_len in 0..24usize, kv_len in 0..45usize,
        head_dim in 1..12usize, value_dim in 1..12usize, scale in prop_oneof![Just(0.0), 0.1..1.5f64],
    ) -> AttentionSpec {
        AttentionSpec {
            kv_heads, q_heads: kv_heads * group, value_dim, scale,
            ..AttentionSpec::dense(batch, kv_heads * group, q_len, kv_len, head_dim)
        }
    }
}

prop_compose! {
    /// Masks and score modifications.
    fn masked()(
        spec in sizes(), causal: bool, bottom_right: bool, softcap in proptest::option::of(0.5..5.0f64),
        left in proptest::option::of(0..30usize), right in proptest::option::of(0..30usize),
        alibi: bool, dropout in proptest::option::of(0.0..0.9f64), seed: u64,
    ) -> AttentionSpec {
        AttentionSpec {
            causal, softcap, window: Window { left, right },
            align: if bottom_right { CausalAlign::BottomRight } else { CausalAlign::TopLeft },
            alibi: alibi.then(|| (0..spec.q_heads).map(|h| 0.5 / (h + 1) as f64).collect()),
            dropout: dropout.map(|p| Dropout { p, seed }),
            ..spec
        }
    }
}

prop_compose! {
    /// Storage of sequences; `cuts` chooses their lengths.
    fn stored()(
        spec in masked(), packed: bool, keys in 0..4usize, page_size in 1..9usize,
        cuts in proptest::collection::vec(0..1000usize, 4),
    ) -> AttentionSpec {
        let (q_len, kv_len) = (spec.max_q_len(), spec.max_kv_len());
        let length = |n: usize, limit: usize| cuts[n] % (limit + 1);
        let lengths: Vec<_> = (0..spec.batch).map(|b| length(b, kv_len)).collect();
        let offsets = |first: usize, limit| -> Vec<usize> {
            (0..=spec.batch).scan(0, |at, b| { let start = *at; *at += length((first + b) % 4, limit); Some(start) }).collect()
        };
        let queries = if packed { Queries::Packed { cu_seqlens: offsets(2, q_len) } } else { Queries::Padded { len: q_len } };
        let keys = match keys {
            0 => Keys::Padded { len: kv_len, lengths: None },
            1 => Keys::Padded { len: kv_len, lengths: Some(lengths) },
            2 => Keys::Packed { cu_seqlens: offsets(0, kv_len) },
            _ => paged(page_size, lengths),
        };
        AttentionSpec { queries, keys, ..spec }
    }
}

/// Pages in reverse order, the first of each sequence shared.
fn paged(page_size: usize, lengths: Vec<usize>) -> Keys {
    let mut pages = 1;
    let table = lengths
        .iter()
        .map(|length| {
            let own = length.div_ceil(page_size).saturating_sub(1);
            let row: Vec<_> = core::iter::once(0).chain((pages..pages + own).rev()).collect();
            pages += own;
            row
        })
        .collect();
    Keys::Paged { pages, page_size, table, lengths }
}

prop_compose! {
    /// A block mask, or none.
    fn blocked()(
        spec in stored(), wanted: bool, per_batch: bool, per_head: bool,
        block_q in 1..9usize, block_k in 1..9usize, pattern: u64,
    ) -> AttentionSpec {
        let shape = [
            if per_batch { spec.batch } else { 1 }, if per_head { spec.q_heads } else { 1 },
            spec.max_q_len().div_ceil(block_q), spec.max_kv_len().div_ceil(block_k),
        ];
        let mut bit = 0;
        let blocks = Array4::from_shape_simple_fn(shape, || { bit += 1; pattern.rotate_left(7 * bit) % 4 != 0 });
        AttentionSpec { block_mask: wanted.then_some(BlockMask { block_q, block_k, blocks }), ..spec }
    }
}

prop_compose! {
    /// A problem with tensors.
    pub fn cases()(
        spec in blocked(), seed in 0..u64::MAX / 2, bias in proptest::option::of(any::<[bool; 4]>()),
        sink: bool, d_lse: bool, transposed: bool,
    ) -> Case {
        let mut case = Case::new("random", spec, seed);
        if let Some(shared) = bias { case = case.with_bias(seed, shared); }
        if sink { case = case.with_sink(seed); }
        if d_lse { case = case.with_lse_gradient(seed); }
        case.transposed = transposed;
        case
    }
}
