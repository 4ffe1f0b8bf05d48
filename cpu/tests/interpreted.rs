//! Small problems of every kind, for an interpreter that checks each access to memory: Miri, where there is one.
//!
//! ```text
//! bash .ci/miri
//! ```
#![allow(clippy::unwrap_used)]

mod common;

use common::placed::Placement;
use common::{Case, hash};
use tilewright_attention::{AttentionBackward, AttentionForward, bf16};
use tilewright_cpu::{Bf16Products, CpuAttention, Isa, SplitKv, StandardAttention};
use tilewright_scalar::Element;

/// Problems of each kind: an interpreter takes most of a minute for one.
const SEEDS: u64 = if cfg!(miri) { 1 } else { 20 };

/// A problem with the features that the bits of `seed` name, of few enough rows to be read where they lie or of more.
fn case(seed: u64, rows: usize) -> Case {
    let bits = |salt: usize, below: usize| hash(seed, &[salt]) as usize % below;
    let rare = |salt: usize| bits(salt, 3) == 0;
    Case {
        batch: 1,
        kv_heads: 1,
        group: 1 + bits(1, 2),
        dims: ([16, 3][bits(2, 2)], [16, 5][bits(3, 2)]),
        lens: (rows, 5 + bits(4, 6)),
        packed_queries: rare(5),
        keys: seed as usize % 4,
        page_size: 1 + bits(6, 3),
        causal: rare(7),
        top_left: rare(8),
        window: (rare(9).then_some(3), rare(10).then_some(2)),
        softcap: rare(11),
        alibi: rare(12),
        dropout: rare(13),
        block_mask: rare(14).then_some((2, 3)),
        bias: rare(15).then_some(bits(16, 16)),
        sink: rare(17),
        d_lse: rare(18),
        tiles: (4, 7),
        seed,
    }
}

/// The same bits on two threads, and from framed tensors on as many as there are.
fn runs<T: Element>(case: &Case, method: &(impl AttentionForward<T> + AttentionBackward<T> + Sync)) {
    let tensors = case.tensors::<T>();
    let bits = tensors.run_on(2, method).bits();
    assert!(tensors.run_placed(method, Placement::Framed, case.seed).bits() == bits, "{case:?}");
}

/// On the widest instruction set that is compiled in or detected.
fn method(seed: u64) -> CpuAttention {
    let split_kv = [SplitKv::Auto, SplitKv::Every(4)][seed as usize % 2];
    CpuAttention::with_tiles(4, 7).with_split_kv(split_kv).with_isa(Isa::best())
}

#[test]
fn decoding() {
    for seed in 0..SEEDS {
        runs::<f32>(&case(seed, 3), &method(seed));
    }
    runs::<bf16>(&case(SEEDS, 3), &method(SEEDS));
}

#[test]
fn several_tiles() {
    for seed in 100..100 + SEEDS {
        runs::<f32>(&case(seed, 25), &method(seed));
        // Of few features: what stands in for the instruction takes an interpreter long.
        let pairs = Case { dims: (3, 5), ..case(seed, 25) };
        runs::<bf16>(&pairs, &method(seed).with_bf16_products(Bf16Products::Paired));
    }
}

#[test]
fn the_standard_method() {
    for seed in 200..200 + SEEDS {
        runs::<f32>(&Case { keys: 0, bias: None, ..case(seed, 5) }, &StandardAttention);
    }
}
