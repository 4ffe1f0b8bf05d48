//! Compression on the device against the CPU and the reference, bit for bit.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../cpu/tests/compression_common/mod.rs"]
mod compression_common;
mod compression_trial;

use common::{Random, device, fault};
use compression_common::{Shape, bits, gradient, shapes, specs};
use compression_trial::{Rank, try_steps};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::sync::{Mutex, PoisonError};
use tilewright_compression::hash::mix;
use tilewright_compression::memory::sum_of_squares;
use tilewright_compression::message::word;
use tilewright_compression::reference::Reference;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Count, Decompressor, Feedback, Message, NonFinite, Placement,
    Policy, Reduction, Refinement, Sampling, Selector, Slots, Step, ValueFormat, Wire,
};
use tilewright_cuda::compression::{ResidentMemory, ResidentMessage};
use tilewright_cuda::{Buffer, CudaCompressor};

/// Longer buckets are for a real device: the software one takes its time.
fn longest() -> usize {
    if std::env::var_os("TILEWRIGHT_SOFTGPU_LIB").is_some() { 10_000 } else { 200_000 }
}

fn cases(software: u32, real: u32) -> u32 {
    if std::env::var_os("TILEWRIGHT_SOFTGPU_LIB").is_some() { software } else { real }
}

#[test]
fn any_problem_has_the_bits_of_the_cpu() {
    let Some(turn) = device() else { return };
    let cuda = Mutex::new(CudaCompressor::new(&turn.device).unwrap());
    let problems =
        (specs(), prop::collection::vec(shapes(), 1..4), prop::sample::select(vec![1.0f32, 0.37]), any::<u64>());
    let mut runner = TestRunner::new(compression_common::config(cases(60, 600)));
    let verdict = runner.run(&problems, |(mut spec, shapes, scale, seed)| {
        if spec.len > longest() {
            spec.len %= longest();
        }
        let mut cuda = cuda.lock().unwrap_or_else(PoisonError::into_inner);
        try_steps(&mut cuda, &spec, &shapes, scale, seed).map_err(TestCaseError::fail)
    });
    if let Err(error) = verdict {
        panic!("{error}");
    }
}

/// Every variant of every field once, whatever the generator thinks of.
#[test]
fn every_variant_has_the_bits_of_the_cpu() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    let len = 4500;
    let refine = |iterations| Some(Refinement { lower: 0.8, upper: 1.3, iterations });
    let sampled = |ratio, refine| Selector::SampledThreshold(Count::Density(0.02), Sampling { ratio, refine });
    let selectors = [
        Selector::ExactTopK(Count::Entries(77)),
        Selector::ExactTopK(Count::Density(1.0)),
        sampled(0.01, None),
        sampled(0.3, refine(10)),
        sampled(0.01, refine(200)),
        Selector::FixedThreshold(0.4),
        Selector::FixedThreshold(0.0),
        Selector::RandomK(Count::Entries(300)),
    ];
    let table = |slots, policy| Placement::HashTable { slots: Slots::Exactly(slots), policy };
    let placements = [Placement::Compact, table(64, Policy::LargestMagnitude), table(5000, Policy::Any)];
    let momentum = |nesterov, masking| Feedback::Momentum { factor: 0.9, nesterov, masking };
    let feedbacks = [
        Feedback::None,
        Feedback::Residual,
        momentum(false, true),
        momentum(false, false),
        momentum(true, true),
        momentum(true, false),
    ];
    let values = [ValueFormat::F32, ValueFormat::Bf16, ValueFormat::F16];
    let shapes = [Shape::HeavyTailed, Shape::FewValues, Shape::NonFinite, Shape::Sparse, Shape::Subnormal];
    let mut seed = 0;
    for selector in selectors {
        for placement in placements {
            let (feedback, value) = (feedbacks[seed % feedbacks.len()], values[seed % values.len()]);
            let wire = Wire { value, ..Wire::default() };
            let non_finite = [NonFinite::Propagate, NonFinite::Reject][usize::from(seed % 5 == 4)];
            let spec = CompressionSpec { len, selector, placement, feedback, wire, non_finite, seed: seed as u64 };
            let chosen = [shapes[seed % 5], shapes[(seed + 1) % 5], shapes[(seed + 3) % 5]];
            if let Err(problem) = try_steps(&mut cuda, &spec, &chosen, 1.0, seed as u64) {
                panic!("{spec:?}: {problem}");
            }
            seed += 1;
        }
    }
}

/// Thresholds that sink by a hair each time, in more steps than a batch has.
#[test]
fn long_refinements_ask_again() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    for iterations in [0, 1, 30, 31, 32, 63, 64, 500] {
        let refine = Some(Refinement { lower: 0.97, upper: 1.1, iterations });
        let selector = Selector::SampledThreshold(Count::Density(0.3), Sampling { ratio: 0.01, refine });
        let spec = CompressionSpec { selector, ..CompressionSpec::top_k(3000, Count::Entries(1)) };
        // Large at a few places that the sample is likely to hit or to miss.
        for shape in [Shape::Clustered, Shape::Periodic(97), Shape::Periodic(64)] {
            try_steps(&mut cuda, &spec, &[shape, shape], 1.0, 5).unwrap();
        }
    }
}

/// More tiles than a warp looks back over at once where everything is a candidate, and several groups of tiles where few
/// are.
#[test]
fn long_buckets_look_back_far() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    for (feedback, threshold) in [(Feedback::None, 0.0), (Feedback::None, 0.45), (Feedback::Residual, 0.45)] {
        let base = CompressionSpec::top_k(160_000, Count::Entries(1));
        let spec = CompressionSpec { selector: Selector::FixedThreshold(threshold), feedback, ..base };
        try_steps(&mut cuda, &spec, &[Shape::Periodic(1025)], 1.0, 11).unwrap();
    }
}

/// What is staged is guessed from one value in each sixteen. Data that are made to mislead that guess: it takes them for much
/// larger than they are, and too few are staged; or for much smaller, and there is no room.
#[test]
fn misleading_samples_cost_time_and_nothing_else() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    let (len, stride) = (9000, 16);
    let seen = |i: usize| {
        let within = (u64::from(mix((i / stride) as u32, 0)) * stride as u64) >> 32;
        i % stride == within as usize
    };
    let small = gradient(Shape::HeavyTailed, len, 7);
    for [at_seen, elsewhere] in [[1e6, 1.0], [1e-6, 1.0], [0.0, 1.0], [f32::INFINITY, 1.0]] {
        let g: Vec<f32> = (0..len).map(|i| small[i] * if seen(i) { at_seen } else { elsewhere }).collect();
        for selector in [
            Selector::ExactTopK(Count::Entries(900)),
            Selector::SampledThreshold(Count::Entries(900), Sampling::DGC),
            Selector::SampledThreshold(Count::Entries(900), Sampling::DRAGONN),
        ] {
            let spec = CompressionSpec { selector, ..CompressionSpec::dgc(len, Count::Entries(900), 0.9) };
            let (mut ours, mut expected) = (Rank::new(&spec), Rank::new(&spec));
            for number in 0..2 {
                let step = Step::new(number);
                Reference.compress(&spec, step, &g, &mut expected.memory, &mut expected.message).unwrap();
                cuda.compress(&spec, step, &g, &mut ours.memory, &mut ours.message).unwrap();
                assert_eq!(ours.message, expected.message, "{selector:?}, {at_seen}, step {number}; {}", fault());
                assert_eq!(bits(&ours.memory.velocity), bits(&expected.memory.velocity));
                assert_eq!(bits(&ours.memory.momentum), bits(&expected.memory.momentum));
            }
        }
    }
}

#[test]
fn gradients_on_the_device_stay_there() {
    let Some(turn) = device() else { return };
    let device = &turn.device;
    let mut cuda = CudaCompressor::new(device).unwrap();
    let resident = cuda.resident();
    let spec = CompressionSpec::dragonn(6000, Count::Density(0.01), 0.9);
    let (mut memory, mut message) =
        (ResidentMemory::new(device, &spec).unwrap(), ResidentMessage::new(device, &spec).unwrap());
    let (mut expected, mut sum) = (Rank::new(&spec), Buffer::zeros(device, "update", spec.len).unwrap());
    for number in 0..3 {
        let g = gradient(Shape::HeavyTailed, spec.len, number);
        let there = Buffer::from_slice(device, "gradient", &g).unwrap();
        resident.compress(&spec, Step::new(number), &there, &mut memory, &mut message).unwrap();
        Reference.compress(&spec, Step::new(number), &g, &mut expected.memory, &mut expected.message).unwrap();
        let mut got = Message::default();
        message.download(&mut got).unwrap();
        assert_eq!(got, expected.message);
        assert_eq!(bits(&memory.velocity.to_vec().unwrap()), bits(&expected.memory.velocity));
        assert_eq!(bits(&memory.momentum.to_vec().unwrap()), bits(&expected.memory.momentum));

        resident.decompress(&[&message, &message, &message], Reduction::Mean, &mut sum).unwrap();
        let mut update = vec![0.0; spec.len];
        let words = &*expected.message.words;
        Reference.decompress(&[words, words, words], Reduction::Mean, &mut update).unwrap();
        assert_eq!(bits(&sum.to_vec().unwrap()), bits(&update));
    }
    let short = Buffer::zeros(device, "gradient", 5).unwrap();
    let error = resident.compress(&spec, Step::new(9), &short, &mut memory, &mut message).unwrap_err();
    assert_eq!(error, CompressionError::Length { argument: "gradient", got: 5, expected: 6000 });
}

#[test]
fn decoding_adds_in_the_order_of_ranks() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    let mut random = Random(3);
    for case in 0..40 {
        let len = [0, 1, 5, 700, 3000][case % 5];
        let ranks = random.below(5);
        let beyond = case % 7 == 6;
        let mut messages: Vec<Vec<u64>> = (0..ranks)
            .map(|_| {
                let many = if len == 0 { 0 } else { random.below(len + 1) };
                (0..many).map(|_| word(random.below(len) as u32, (random.unit() * 1e3) as f32)).collect()
            })
            .collect();
        if beyond && let Some(last) = messages.last_mut() {
            last.push(word(len as u32, 1.0));
        }
        if case % 2 == 0 {
            for words in &mut messages {
                words.sort_unstable();
            }
        }
        let messages: Vec<&[u64]> = messages.iter().map(|words| &**words).collect();
        let reduction = [Reduction::Sum, Reduction::Mean][case % 2];
        let (mut expected, mut got) = (vec![7.0; len], vec![7.0; len]);
        let result = Reference.decompress(&messages, reduction, &mut expected);
        assert_eq!(cuda.decompress(&messages, reduction, &mut got), result, "{}", fault());
        assert_eq!(bits(&got), bits(&expected), "case {case}");
    }
}

#[test]
fn squares_are_summed_in_the_order_that_is_defined() {
    let Some(turn) = device() else { return };
    let mut cuda = CudaCompressor::new(&turn.device).unwrap();
    for len in [0, 1, 15, 16, 17, 1000, 65_536, 65_537, 140_000] {
        let g = gradient(Shape::HeavyTailed, len, len as u64);
        let there = Buffer::from_slice(&turn.device, "gradient", &g).unwrap();
        let got = cuda.resident().sum_of_squares(&there).unwrap();
        assert_eq!(got.to_bits(), sum_of_squares(&g).to_bits(), "{len}");
    }
}
