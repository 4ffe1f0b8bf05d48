//! The same bits whatever runs beside it: threads, strides, neighbours in the batch.
#![allow(clippy::unwrap_used)]

mod common;

use common::placed::Placement;
use common::{Case, Tensors, cases, config, nan};
use ndarray::{Array4, Axis};
use proptest::prelude::*;
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec, Keys, Queries, bf16, reference};
use tilewright_cpu::{CpuAttention, Isa, SplitKv};
use tilewright_scalar::Element;

fn same_bits_on_any_pool<T: Element>(case: &Case) -> Result<(), TestCaseError>
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    let (tensors, method) = (case.tensors::<T>(), case.method());
    let alone = tensors.run_on(1, &method).bits();
    for threads in [2, 3, 8] {
        prop_assert!(tensors.run_on(threads, &method).bits() == alone, "{} threads", threads);
    }
    Ok(())
}

/// Runs on awkward copies of every tensor and returns the bits.
fn bits_when_strided<T: Element>(case: &Case) -> Vec<u64>
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    case.tensors::<T>().run_placed(&case.method(), Placement::Strided, case.seed).bits()
}

/// Instruction sets that fuse multiply-adds do the same arithmetic in the same order.
fn same_bits_on_fused_sets<T: Element>(case: &Case) -> Result<(), TestCaseError>
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    let tensors = case.tensors::<T>();
    let fused = Isa::available().into_iter().filter(|isa| isa.name() != "portable");
    let bits: Vec<_> = fused.map(|isa| tensors.run(&case.method().with_isa(isa)).bits()).collect();
    prop_assert!(bits.windows(2).all(|pair| pair[0] == pair[1]));
    Ok(())
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn threads_change_nothing(case in cases()) {
        same_bits_on_any_pool::<f32>(&case)?;
        same_bits_on_any_pool::<bf16>(&case)?;
        let case = case.longer();
        same_bits_on_any_pool::<f32>(&case)?;
        same_bits_on_any_pool::<bf16>(&case)?;
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn vector_widths_change_nothing(case in cases()) {
        same_bits_on_fused_sets::<f32>(&case)?;
        same_bits_on_fused_sets::<f64>(&case)?;
        same_bits_on_fused_sets::<bf16>(&case)?;
        let case = case.longer();
        same_bits_on_fused_sets::<f32>(&case)?;
        same_bits_on_fused_sets::<bf16>(&case)?;
    }

    #[test]
    fn strides_change_nothing(case in cases()) {
        prop_assert_eq!(bits_when_strided::<f32>(&case), case.tensors::<f32>().run(&case.method()).bits());
        prop_assert_eq!(bits_when_strided::<f64>(&case), case.tensors::<f64>().run(&case.method()).bits());
        prop_assert_eq!(bits_when_strided::<bf16>(&case), case.tensors::<bf16>().run(&case.method()).bits());
    }
}

/// Decoding: one or a few queries against a long cache, grouped heads.
fn decoding(q_len: usize, lengths: &[usize], seed: u64) -> Tensors<f32> {
    let len = lengths.iter().copied().max().unwrap_or(0);
    let case = Case {
        batch: lengths.len(),
        kv_heads: 2,
        group: 2,
        dims: (16, 24),
        lens: (q_len, len),
        packed_queries: false,
        keys: 0,
        page_size: 1,
        causal: true,
        top_left: false,
        window: (None, None),
        softcap: false,
        alibi: false,
        dropout: false,
        block_mask: None,
        bias: None,
        sink: true,
        d_lse: false,
        tiles: (64, 64),
        seed,
    };
    let mut tensors = case.tensors::<f32>();
    tensors.spec.keys = Keys::Padded { len, lengths: Some(lengths.to_vec()) };
    tensors
}

#[test]
fn decoding_splits_and_still_gives_the_same_bits_and_the_right_ones() {
    for q_len in [1, 4] {
        let tensors = decoding(q_len, &[1500, 3000, 7], 3);
        let results = tensors.run_on(1, &CpuAttention::default());
        for threads in [2, 3, 8] {
            assert!(tensors.run_on(threads, &CpuAttention::default()).bits() == results.bits(), "{threads} threads");
        }
        let unsplit = tensors.run(&CpuAttention::default().with_split_kv(SplitKv::Never));
        assert!(results.o != unsplit.o, "3000 keys were to be split");
        let truth = reference::forward::<f32, f64>(&tensors.spec, &tensors.inputs()).unwrap();
        for split_kv in [SplitKv::Auto, SplitKv::Never, SplitKv::Every(100), SplitKv::Every(1)] {
            let split = tensors.run(&CpuAttention::default().with_split_kv(split_kv));
            for (x, truth) in split.o.iter().zip(&truth.o).chain(split.lse.iter().zip(&truth.lse)) {
                assert!((f64::from(*x) - truth).abs() < 2e-5 * truth.abs().max(1.0), "{x} for {truth}");
            }
        }
    }
}

/// Whoever shares the batch, a sequence's output does not change: splits follow its own lengths.
#[test]
fn neighbours_in_the_batch_change_nothing() {
    let together = decoding(1, &[3000, 900, 3000], 5);
    let all = together.run(&CpuAttention::default());
    let mut alone = together.clone();
    alone.spec = AttentionSpec { batch: 1, ..together.spec.clone() };
    alone.spec.keys = Keys::Padded { len: 3000, lengths: Some(vec![3000]) };
    for tensor in [&mut alone.q, &mut alone.k, &mut alone.v, &mut alone.d_o] {
        *tensor = tensor.slice_axis(Axis(0), (2..3).into()).to_owned();
    }
    let one = alone.run(&CpuAttention::default());
    assert!(one.o.iter().eq(all.o.index_axis(Axis(0), 2).iter()));
    assert!(one.lse.iter().eq(all.lse.index_axis(Axis(0), 2).iter()));
}

/// Packing sequences end to end, and paging their keys, are layouts: the arithmetic is the same.
#[test]
fn packed_and_paged_layouts_give_the_bits_of_padded_ones() {
    let padded = decoding(3, &[40, 40], 8);
    let expected = padded.run(&CpuAttention::default());
    let mut packed = padded.clone();
    packed.spec.queries = Queries::Packed { cu_seqlens: vec![0, 3, 6] };
    packed.spec.keys = Keys::Packed { cu_seqlens: vec![0, 40, 80] };
    for tensor in [&mut packed.q, &mut packed.k, &mut packed.v, &mut packed.d_o] {
        *tensor = concatenated(tensor);
    }
    let got = packed.run(&CpuAttention::default());
    assert_eq!(got.o, concatenated(&expected.o));
    assert_eq!(got.d_k, concatenated(&expected.d_k));

    let mut paged = padded.clone();
    let table = vec![vec![3, 0, 5, 1, 8], vec![9, 2, 4, 6, 7]];
    for (tensor, from) in [(&mut paged.k, &padded.k), (&mut paged.v, &padded.v)] {
        *tensor = Array4::from_shape_fn((10, 2, 8, from.dim().3), |(page, h, row, c)| {
            let owner = |b: usize| table[b].iter().position(|&p| p == page).map(|t| from[[b, h, t * 8 + row, c]]);
            owner(0).or(owner(1)).unwrap_or(nan())
        });
    }
    paged.spec.keys = Keys::Paged { pages: 10, page_size: 8, table, lengths: vec![40, 40] };
    let got = paged.run(&CpuAttention::default());
    assert_eq!((got.o, got.lse, got.d_q), (expected.o, expected.lse, expected.d_q));
}

fn concatenated(tensor: &Array4<f32>) -> Array4<f32> {
    let parts: Vec<_> = tensor.axis_iter(Axis(0)).collect();
    ndarray::concatenate(Axis(1), &parts).unwrap().insert_axis(Axis(0))
}
