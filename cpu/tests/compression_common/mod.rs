//! Gradients and problems for the tests of the compression family.
#![allow(dead_code)] // not every test uses everything

use proptest::prelude::*;
use std::num::NonZero;
use tilewright_compression::{
    CompressionSpec, Count, Feedback, NonFinite, Placement, Policy, Refinement, Sampling, Selector, Slots, ValueFormat,
    Wire,
};
use tilewright_cpu::compression::{CompressorOptions, CpuCompressor, Simd};

/// A failure is shrunk and printed; no file keeps it.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What a gradient looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A few values far above the rest, in layers of unlike size.
    HeavyTailed,
    /// Ties everywhere, in both signs.
    FewValues,
    /// One value throughout.
    AllEqual,
    /// Zeros of both signs.
    AllZero,
    /// Nearly all zero.
    Sparse,
    /// All that is large lies together.
    Clustered,
    /// Each greater than the one before.
    Ascending,
    /// NaN, infinities, and finite values whose sums overflow.
    NonFinite,
    /// Too small to be normal.
    Subnormal,
    /// Large in step with some stride.
    Periodic(usize),
}

pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    use Shape::*;
    prop_oneof![
        4 => Just(HeavyTailed), 1 => Just(FewValues), 1 => Just(AllEqual), 1 => Just(AllZero), 1 => Just(Sparse),
        1 => Just(Clustered), 1 => Just(Ascending), 1 => Just(NonFinite), 1 => Just(Subnormal),
        1 => prop::sample::select(vec![2, 64, 97, 129, 1025]).prop_map(Periodic),
    ]
}

/// Numbers that look random (splitmix64).
pub(crate) fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

pub(crate) fn gradient(shape: Shape, len: usize, seed: u64) -> Vec<f32> {
    let mut next = noise(seed);
    let centre = next() as usize % len.max(1);
    let layer = |i: usize| ((i / 5000) as f32 * 1.7).sin() + 1.5;
    let mut one = |i: usize| {
        let bits = next();
        let uniform = (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
        match shape {
            Shape::HeavyTailed => layer(i) * uniform / (0.001 + (bits & 0xffff) as f32 / 65536.0),
            Shape::FewValues => [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -0.0, 1.5][bits as usize % 8],
            Shape::AllEqual => -0.25,
            Shape::AllZero => [0.0, -0.0][bits as usize % 2],
            Shape::Sparse => {
                if bits.is_multiple_of(200) {
                    uniform
                } else {
                    0.0
                }
            }
            Shape::Clustered => uniform / (1.0 + i.abs_diff(centre) as f32),
            Shape::Ascending => i as f32 + 1.0,
            Shape::NonFinite => match bits % 50 {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                3..6 => f32::MAX * (2.0 * uniform),
                _ => uniform,
            },
            Shape::Subnormal => f32::from_bits(bits as u32 & 0x8000_03ff),
            Shape::Periodic(stride) => {
                if i.is_multiple_of(stride) {
                    10.0 + uniform
                } else {
                    uniform
                }
            }
        }
    };
    (0..len).map(&mut one).collect()
}

/// Lengths: none, a few, around the edges of blocks, of the shortest chunk and of chunks, and anything.
pub(crate) fn lengths() -> impl Strategy<Value = usize> {
    let edges = vec![0, 1, 63, 64, 65, 127, 128, 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 65537, 131_073];
    prop_oneof![3 => prop::sample::select(edges), 4 => 1usize..300, 4 => 300usize..20_000, 1 => 20_000usize..150_000]
}

fn counts() -> impl Strategy<Value = Count> {
    prop_oneof![
        4 => prop::sample::select(vec![0.0001, 0.001, 0.01, 0.1, 0.5, 1.0]).prop_map(Count::Density),
        1 => (0usize..50).prop_map(Count::Entries),
        1 => Just(Count::Entries(usize::MAX)),
    ]
}

fn samplings() -> impl Strategy<Value = Sampling> {
    let uppers = prop_oneof![9 => 1.0f32..2.0, 1 => Just(f32::MAX)];
    let refinements = (0.5f32..0.95, uppers, 0u32..12);
    let refinements = refinements.prop_map(|(lower, upper, iterations)| Refinement { lower, upper, iterations });
    let any = (prop::sample::select(vec![0.001, 0.01, 0.1, 1.0]), prop::option::of(refinements));
    prop_oneof![
        Just(Sampling::DGC),
        Just(Sampling::DRAGONN),
        any.prop_map(|(ratio, refine)| Sampling { ratio, refine }),
    ]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let thresholds = vec![0.0, f32::from_bits(1), f32::from_bits(700), 0.25, 0.4, 1.0, 3.0, 100.0, f32::MAX];
    prop_oneof![
        3 => counts().prop_map(Selector::ExactTopK),
        3 => (counts(), samplings()).prop_map(|(count, sampling)| Selector::SampledThreshold(count, sampling)),
        2 => prop::sample::select(thresholds).prop_map(Selector::FixedThreshold),
        1 => counts().prop_map(Selector::RandomK),
    ]
}

fn slots() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), 1u32..100, 100u32..50_000, Just(1 << 20)]
}

fn placements() -> impl Strategy<Value = Placement> {
    let policies = prop_oneof![3 => Just(Policy::LargestMagnitude), 1 => Just(Policy::Any)];
    let table = (slots().prop_map(Slots::Exactly), policies);
    prop_oneof![Just(Placement::Compact), table.prop_map(|(slots, policy)| Placement::HashTable { slots, policy })]
}

fn feedbacks() -> impl Strategy<Value = Feedback> {
    let momentum = (prop::sample::select(vec![0.0f32, 0.5, 0.9]), any::<bool>(), any::<bool>());
    prop_oneof![
        1 => Just(Feedback::None),
        1 => Just(Feedback::Residual),
        2 => momentum.prop_map(|(factor, nesterov, masking)| Feedback::Momentum { factor, nesterov, masking }),
    ]
}

pub(crate) fn specs() -> impl Strategy<Value = CompressionSpec> {
    let values = prop::sample::select(vec![ValueFormat::F32, ValueFormat::F32, ValueFormat::Bf16, ValueFormat::F16]);
    let wires = values.prop_map(|value| Wire { value, ..Wire::default() });
    let non_finite = prop_oneof![3 => Just(NonFinite::Propagate), 1 => Just(NonFinite::Reject)];
    (lengths(), selectors(), placements(), feedbacks(), wires, non_finite, any::<u64>()).prop_map(
        |(len, selector, placement, feedback, wire, non_finite, seed)| CompressionSpec {
            len,
            selector,
            placement,
            feedback,
            wire,
            non_finite,
            seed,
        },
    )
}

/// Compressors of every level of SIMD that the machine has, on so many threads.
pub(crate) fn compressors(threads: &[usize]) -> Vec<(CompressorOptions, CpuCompressor)> {
    let levels = [Simd::Portable, Simd::Avx2, Simd::Avx512, Simd::Detect];
    let all = threads
        .iter()
        .flat_map(|threads| levels.map(|simd| CompressorOptions { threads: NonZero::new(*threads), simd }));
    all.filter_map(|options| Some((options, CpuCompressor::new(options).ok()?))).collect()
}

/// Bits, with all NaNs as one: which one an operation on two NaNs gives, the language leaves open.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}
