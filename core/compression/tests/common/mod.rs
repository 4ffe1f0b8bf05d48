//! Specifications and gradients at random.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses its own part of this")]

use proptest::prelude::*;
use tilewright_compression::reference::Reference;
use tilewright_compression::*;

/// Runs one step of the reference.
pub(crate) fn step(spec: &CompressionSpec, number: u64, gradient: &[f32], memory: &mut Memory) -> Message {
    let mut message = Message::default();
    Reference.compress(spec, Step::new(number), gradient, memory, &mut message).unwrap();
    message
}

pub(crate) fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        (1e-4f64..=1.0).prop_map(Count::Density),
        (0usize..60).prop_map(Count::Entries),
        Just(Count::Density(1.0))
    ]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let refine = (0.1f32..0.95, 1.0f32..2.0, 0u32..12).prop_map(|(lower, upper, iterations)| Refinement {
        lower,
        upper,
        iterations,
    });
    (0.01f64..=1.0, proptest::option::of(refine)).prop_map(|(ratio, refine)| Sampling { ratio, refine })
}

pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        count().prop_map(Selector::ExactTopK),
        (count(), sampling()).prop_map(|(count, sampling)| Selector::SampledThreshold(count, sampling)),
        prop_oneof![Just(0.0f32), Just(1.0), 1e-3f32..2.0].prop_map(Selector::FixedThreshold),
        count().prop_map(Selector::RandomK),
    ]
}

pub(crate) fn placement() -> impl Strategy<Value = Placement> {
    let policy = prop_oneof![3 => Just(Policy::LargestMagnitude), 1 => Just(Policy::Any)];
    let slots = (1u32..100).prop_map(Slots::Exactly);
    prop_oneof![
        Just(Placement::Compact),
        (slots, policy).prop_map(|(slots, policy)| Placement::HashTable { slots, policy })
    ]
}

pub(crate) fn feedback() -> impl Strategy<Value = Feedback> {
    let momentum = (0.0f32..0.999, any::<bool>(), any::<bool>())
        .prop_map(|(factor, nesterov, masking)| Feedback::Momentum { factor, nesterov, masking });
    prop_oneof![Just(Feedback::None), Just(Feedback::Residual), momentum]
}

pub(crate) fn wire() -> impl Strategy<Value = Wire> {
    let value = prop_oneof![Just(ValueFormat::F32), Just(ValueFormat::Bf16), Just(ValueFormat::F16)];
    let index = prop_oneof![Just(IndexCoding::Plain), Just(IndexCoding::Rice)];
    (value, index).prop_map(|(value, index)| Wire { value, index })
}

pub(crate) fn spec(len: usize) -> impl Strategy<Value = CompressionSpec> {
    (selector(), placement(), feedback(), wire(), any::<u64>()).prop_map(
        move |(selector, placement, feedback, wire, seed)| CompressionSpec {
            len,
            selector,
            placement,
            feedback,
            wire,
            non_finite: NonFinite::Propagate,
            seed,
        },
    )
}

/// Numbers of every kind: zeros of both signs, ties, subnormals, the huge, NaN and infinities.
pub(crate) fn number() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -3.0f32..3.0,
        4 => prop_oneof![Just(0.0f32), Just(-0.0), Just(1.0), Just(-1.0), Just(2.0)],
        2 => any::<u32>().prop_map(f32::from_bits),
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), Just(1e-44)],
    ]
}

pub(crate) fn gradient(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let mixed = proptest::collection::vec(number(), len);
    let plain = proptest::collection::vec(-3.0f32..3.0, len);
    let equal = prop_oneof![Just(0.5f32), Just(-0.5), Just(0.0)].prop_map(move |x| vec![x; len]);
    prop_oneof![3 => mixed, 3 => plain, 1 => equal]
}

/// A specification and a few gradients for it.
pub(crate) fn problem() -> impl Strategy<Value = (CompressionSpec, Vec<Vec<f32>>)> {
    prop_oneof![Just(0usize), Just(1), 2usize..200]
        .prop_flat_map(|len| (spec(len), proptest::collection::vec(gradient(len), 1..4)))
}
