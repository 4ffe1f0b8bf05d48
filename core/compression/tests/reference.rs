//! The reference against the scalar method, against the verifier, and against the mistakes of others.
#![allow(clippy::unwrap_used)]

mod common;

use common::{problem, step};
use proptest::prelude::*;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::invariants::{verify_decode, verify_step};
use tilewright_compression::memory::accumulate;
use tilewright_compression::reference::Reference;
use tilewright_compression::select::candidates;
use tilewright_compression::table::Table;
use tilewright_compression::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What the reference does is what the verifier, which shares none of its steps, calls correct.
    #[test]
    fn every_step_verifies((spec, gradients) in problem()) {
        let mut memory = Memory::new(&spec).unwrap();
        for (number, gradient) in (0..).zip(&gradients) {
            let before = memory.clone();
            let message = step(&spec, number, gradient, &mut memory);
            let verdict = verify_step(&spec, Step::new(number), gradient, &before, &memory, &message.words);
            prop_assert!(verdict.is_ok(), "{:?}", verdict);
        }
    }

    /// The scalar method, by quickselect and a table of keys, comes to the same message.
    #[test]
    fn the_method_agrees((spec, gradients) in problem()) {
        let mut memory = Memory::new(&spec).unwrap();
        for (number, gradient) in (0..).zip(&gradients) {
            let at = |list: &[f32], i: usize| list.get(i).copied().unwrap_or(0.0);
            let values: Vec<f32> = gradient.iter().enumerate()
                .map(|(i, g)| accumulate(spec.feedback, at(&memory.momentum, i), at(&memory.velocity, i), 1.0 * g).1)
                .collect();
            let seeds = StepSeeds::new(spec.seed, number);
            let chosen = candidates(&spec, seeds, &values);
            let placed = match (spec.placement, spec.slots().unwrap()) {
                (Placement::HashTable { policy, .. }, Some(slots)) => {
                    let mut table = Table::new(slots, seeds.hash);
                    for (i, x) in chosen {
                        if policy == Policy::Any { table.overwrite(i, x) } else { table.offer(i, x) }
                    }
                    table.entries().collect()
                }
                _ => chosen,
            };
            let message = step(&spec, number, gradient, &mut memory);
            let expected: Vec<(u32, u32)> =
                placed.into_iter().map(|(i, x)| (i, spec.wire.value.round(x).to_bits())).collect();
            let got: Vec<(u32, u32)> = message.entries().map(|(i, x)| (i, x.to_bits())).collect();
            prop_assert_eq!(got, expected);
        }
    }

    /// Decoding adds in rank order, whatever the messages.
    #[test]
    fn decoding_verifies((spec, gradients) in problem(), mean in any::<bool>()) {
        let messages: Vec<Message> = gradients.iter()
            .map(|gradient| step(&spec, 0, gradient, &mut Memory::new(&spec).unwrap())).collect();
        let words: Vec<&[u64]> = messages.iter().map(|message| &message.words[..]).collect();
        let reduction = if mean { Reduction::Mean } else { Reduction::Sum };
        let mut out = vec![9.0; spec.len];
        Reference.decompress(&words, reduction, &mut out).unwrap();
        prop_assert!(verify_decode(&words, reduction, &out).is_ok());
    }
}

/// A table in which an index of 0 looks like an empty slot never sends element 0.
#[test]
fn element_zero_is_sent() {
    let spec = CompressionSpec::dragonn(100, Count::Entries(1), 0.9);
    let mut gradient = vec![0.0; 100];
    gradient[0] = 5.0;
    assert_eq!(step(&spec, 0, &gradient, &mut Memory::new(&spec).unwrap()).entries().collect::<Vec<_>>(), [(0, 5.0)]);
}

/// A decoder that scatters instead of adding loses one of two contributions to the same index.
#[test]
fn contributions_of_two_ranks_add() {
    let (a, b) = ([message::word(3, 1.0), message::word(1, 4.0)], [message::word(3, 2.0)]);
    let mut out = [7.0; 4];
    Reference.decompress(&[&a, &b], Reduction::Sum, &mut out).unwrap();
    assert_eq!(out, [0.0, 4.0, 0.0, 3.0]);
    Reference.decompress(&[&a, &b], Reduction::Mean, &mut out).unwrap();
    assert_eq!(out, [0.0, 2.0, 0.0, 1.5]); // over all ranks, not over those that sent
}

/// Momentum kept without the second accumulator lets what is not sent decay.
#[test]
fn unsent_mass_does_not_decay() {
    let spec = CompressionSpec {
        selector: Selector::FixedThreshold(100.0),
        ..CompressionSpec::dgc(1, Count::Entries(1), 0.5)
    };
    let mut memory = Memory::new(&spec).unwrap();
    assert!(step(&spec, 0, &[8.0], &mut memory).is_empty());
    assert!(step(&spec, 1, &[0.0], &mut memory).is_empty());
    assert_eq!((memory.momentum[0], memory.velocity[0]), (4.0, 12.0));
}

/// A cut to the first k indices starves the end of a tensor: here more than k pass, and all that pass are sent.
#[test]
fn no_front_bias() {
    let sampling = Sampling { ratio: 1.0, refine: Some(Refinement { lower: 0.8, upper: 1.3, iterations: 10 }) };
    let spec = CompressionSpec {
        selector: Selector::SampledThreshold(Count::Entries(10), sampling),
        ..CompressionSpec::top_k(100, Count::Entries(10))
    };
    let mut gradient = vec![0.1; 100];
    gradient[88..].fill(1.0); // 12 equal ones: the threshold is 1, and 12 is not more than 1.3 · 10
    let message = step(&spec, 0, &gradient, &mut Memory::new(&spec).unwrap());
    assert_eq!(message.entries().map(|(i, _)| i).collect::<Vec<_>>(), (88..100).collect::<Vec<u32>>());
    gradient[80..].fill(1.0); // 20 are too many: exactly k, and the last index is as good as the first
    gradient[99] = 2.0;
    let message = step(&spec, 0, &gradient, &mut Memory::new(&spec).unwrap());
    assert_eq!(message.len(), 10);
    assert_eq!(message.entries().last(), Some((99, 2.0)));
}

/// With ten attempts the threshold falls to where something passes, from a NaN down as well.
#[test]
fn a_threshold_too_high_is_lowered() {
    let sampling = Sampling { ratio: 0.01, refine: Some(Refinement { lower: 0.5, upper: 1.3, iterations: 200 }) };
    let spec = CompressionSpec {
        selector: Selector::SampledThreshold(Count::Entries(500), sampling),
        feedback: Feedback::None,
        ..CompressionSpec::top_k(100_000, Count::Entries(500))
    };
    // Only what is sampled is huge.
    let seeds = StepSeeds::new(0, 0);
    let sample = select::Sample::new(100_000, 500, 0.01, seeds.sample);
    let mut gradient = vec![1.0; 100_000];
    sample.places().for_each(|i| gradient[i] = f32::NAN);
    let message = step(&spec, 0, &gradient, &mut Memory::default());
    assert!(message.len() >= 500);
}

/// A refused step leaves no trace.
#[test]
fn rejection_changes_nothing() {
    let spec = CompressionSpec { non_finite: NonFinite::Reject, ..CompressionSpec::dgc(3, Count::Density(1.0), 0.9) };
    let mut memory = Memory::new(&spec).unwrap();
    let mut message = Message::default();
    message.push(1, 1.0);
    let (memory_before, message_before) = (memory.clone(), message.clone());
    let error = Reference.compress(&spec, Step::new(0), &[1.0, 2.0, f32::INFINITY], &mut memory, &mut message);
    assert_eq!(error.unwrap_err().to_string(), "gradient[2]: got inf, expected a finite number");
    assert_eq!((memory, message), (memory_before, message_before));
}

/// NaN and infinities go first, and leave nothing behind.
#[test]
fn what_is_not_finite_propagates_at_once() {
    let spec = CompressionSpec::dgc(4, Count::Entries(2), 0.9);
    let mut memory = Memory::new(&spec).unwrap();
    let message = step(&spec, 0, &[f32::MAX, f32::NEG_INFINITY, 1.0, f32::NAN], &mut memory);
    let sent: Vec<(u32, f32)> = message.entries().collect();
    assert_eq!(sent[0], (1, f32::NEG_INFINITY));
    assert!(sent[1].0 == 3 && sent[1].1.is_nan());
    assert_eq!((memory.velocity[1], memory.velocity[3]), (0.0, 0.0));
}

/// Indices need 32 bits: by arithmetic, for nobody allocates this in a test.
#[test]
fn buckets_longer_than_an_index_are_refused() {
    let spec = CompressionSpec::top_k(LONGEST, Count::Entries(1));
    assert!(spec.validate().is_ok());
    let error = CompressionSpec::top_k(LONGEST + 1, Count::Entries(1)).validate().unwrap_err();
    assert_eq!(
        error.to_string(),
        "len: got 4294967296, expected at most 4294967295: split the tensor into several buckets"
    );
    let sample = select::Sample::new(LONGEST, 4_294_967, 0.01, u32::MAX);
    assert!(sample.places().last().unwrap() < LONGEST);
    assert_eq!(key::entry(key::key(LONGEST as u32 - 1, -1.0)), (LONGEST as u32 - 1, -1.0));
}
