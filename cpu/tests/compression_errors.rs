//! What is refused leaves everything as it was.
#![allow(clippy::unwrap_used)]

mod compression_common;

use compression_common::{Shape, gradient};
use proptest::prelude::*;
use tilewright_compression::message::word;
use tilewright_compression::reference::Reference;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Count, Decompressor, Memory, Message, NonFinite, Reduction,
    Selector, Step,
};
use tilewright_cpu::CpuCompressor;
use tilewright_cpu::compression::{CompressorOptions, Simd};

/// A factor that is none.
fn scaled(scale: f32) -> Step {
    Step { scale, ..Step::new(0) }
}

/// The error of a step, which must be the reference's and must not change anything.
fn refused(spec: &CompressionSpec, step: Step, gradient: &[f32], memory: &Memory) -> CompressionError {
    let message = Message { words: vec![word(3, 4.0)] };
    let (mut memory_after, mut message_after) = (memory.clone(), message.clone());
    let mut run = |method: &mut dyn Compressor| {
        method.compress(spec, step, gradient, &mut memory_after, &mut message_after).unwrap_err()
    };
    let (error, expected) = (run(&mut CpuCompressor::default()), run(&mut Reference));
    assert_eq!(error, expected);
    assert_eq!((&memory_after, &message_after), (memory, &message));
    error
}

#[test]
fn lengths_and_fields_are_checked() {
    let spec = CompressionSpec::dgc(100, Count::Density(0.1), 0.9);
    let (memory, g) = (Memory::new(&spec).unwrap(), vec![1.0; 101]);
    assert!(matches!(refused(&spec, Step::new(0), &g, &memory), CompressionError::Length { argument: "gradient", .. }));
    assert!(matches!(refused(&spec, Step::new(0), &g[..100], &Memory::default()), CompressionError::Length { .. }));
    let too_long = Memory { momentum: vec![0.0; 101], ..memory.clone() };
    assert!(matches!(
        refused(&spec, Step::new(0), &g[..100], &too_long),
        CompressionError::Length { argument: "momentum", .. }
    ));
    let nonsense = CompressionSpec { selector: Selector::FixedThreshold(f32::NAN), ..spec };
    assert!(matches!(refused(&nonsense, Step::new(0), &g[..100], &memory), CompressionError::Spec { .. }));
    for scale in [f32::NAN, f32::INFINITY] {
        let error = refused(&spec, scaled(scale), &g[..100], &memory);
        assert!(matches!(error, CompressionError::Spec { field: "scale", .. }));
    }
}

#[test]
fn messages_are_checked() {
    let run = |method: &mut dyn Decompressor, messages: &[&[u64]]| {
        let mut out = [7.0; 4];
        let result = method.decompress(messages, Reduction::Mean, &mut out);
        (result, out)
    };
    let (good, bad, unsorted) =
        (vec![word(0, 1.0), word(3, 1.0)], vec![word(4, 1.0)], vec![word(9, 1.0), word(0, 1.0)]);
    for messages in [&[&good[..], &bad][..], &[&unsorted, &bad], &[&bad, &good], &[]] {
        let (result, out) = run(&mut CpuCompressor::default(), messages);
        assert_eq!(result, run(&mut Reference, messages).0);
        assert!(result.is_err());
        assert_eq!(out, [7.0; 4]);
    }
}

#[test]
fn what_the_machine_lacks_is_named() {
    for simd in [Simd::Avx2, Simd::Avx512] {
        match CpuCompressor::new(CompressorOptions { simd, ..CompressorOptions::default() }) {
            Ok(mut cpu) => assert_eq!(cpu.sum_of_squares(&[2.0; 70]), 280.0),
            Err(error) => assert!(error.to_string().starts_with("unsupported: AVX")),
        }
    }
    assert!(CpuCompressor::new(CompressorOptions { simd: Simd::Portable, ..CompressorOptions::default() }).is_ok());
}

proptest! {
    #![proptest_config(compression_common::config(60))]

    #[test]
    fn the_first_number_that_is_not_finite_is_named(
        len in 1usize..200_000,
        places in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3), 1..4),
    ) {
        let spec = CompressionSpec { non_finite: NonFinite::Reject, ..CompressionSpec::top_k(len, Count::Density(0.1)) };
        let mut g = gradient(Shape::HeavyTailed, len, 1);
        for (at, which) in &places {
            g[at.index(len)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][*which];
        }
        let first = places.iter().map(|(at, _)| at.index(len)).min().unwrap();
        let error = refused(&spec, Step::new(0), &g, &Memory::new(&spec).unwrap());
        let named = matches!(error, CompressionError::NonFinite { index, .. } if index == first);
        prop_assert!(named, "{}", error);
    }
}
