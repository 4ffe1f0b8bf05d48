//! Every specification against the reference, bit for bit, on any number of threads and any vector instructions.
#![allow(clippy::unwrap_used)]

mod compression_common;

use compression_common::{Shape, bits, compressors, gradient, noise, shapes, specs};
use proptest::prelude::*;
use std::sync::{LazyLock, Mutex};
use tilewright_compression::invariants::verify_step;
use tilewright_compression::memory::sum_of_squares;
use tilewright_compression::message::word;
use tilewright_compression::reference::Reference;
use tilewright_compression::{
    CompressionSpec, Compressor, Count, Decompressor, Feedback, Memory, Message, Placement, Policy, Reduction,
    Selector, Step,
};
use tilewright_cpu::compression::{CompressorOptions, CpuCompressor};

/// Used again and again for unlike problems, as in training.
static ALL: LazyLock<Mutex<Vec<(CompressorOptions, CpuCompressor)>>> =
    LazyLock::new(|| Mutex::new(compressors(&[1, 2, 3, 8])));

/// One rank's state under one implementation.
#[derive(Clone)]
struct Rank {
    memory: Memory,
    message: Message,
}

impl Rank {
    fn new(spec: &CompressionSpec) -> Self {
        Self { memory: Memory::new(spec).unwrap(), message: Message { words: vec![word(9, 9.0)] } }
    }

    fn all_bits(&self) -> (Vec<u32>, Vec<u32>, &[u64]) {
        (bits(&self.memory.velocity), bits(&self.memory.momentum), &self.message.words)
    }
}

/// Some steps of one problem, on the reference and on a choice of compressors.
fn try_steps(spec: &CompressionSpec, shapes: &[Shape], scale: f32, seed: u64) -> Result<(), TestCaseError> {
    let mut all = ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let len = all.len();
    let chosen: Vec<usize> = vec![0, len - 1, seed as usize % len];
    let (mut reference, mut ranks) = (Rank::new(spec), vec![Rank::new(spec); chosen.len()]);
    let racing = matches!(spec.placement, Placement::HashTable { policy: Policy::Any, .. });
    for (number, shape) in (0..).zip(shapes) {
        let step = Step { number, scale };
        let g = gradient(*shape, spec.len, seed ^ number);
        let before = reference.memory.clone();
        let result = Reference.compress(spec, step, &g, &mut reference.memory, &mut reference.message);
        for (rank, which) in ranks.iter_mut().zip(&chosen) {
            let (options, cpu) = &mut all[*which];
            if racing {
                rank.memory = before.clone();
            }
            let got = cpu.compress(spec, step, &g, &mut rank.memory, &mut rank.message);
            prop_assert_eq!(&got, &result, "{:?} step {}", options, number);
            if racing && got.is_ok() {
                let verdict = verify_step(spec, step, &g, &before, &rank.memory, &rank.message.words);
                prop_assert!(verdict.is_ok(), "{:?} step {}: {:?}", options, number, verdict);
            } else if !racing {
                prop_assert!(rank.all_bits() == reference.all_bits(), "{:?} step {} {:?}", options, number, shape);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(compression_common::config(600))]

    #[test]
    fn steps_are_the_references(
        spec in specs(),
        shapes in prop::collection::vec(shapes(), 1..4),
        scale in prop::sample::select(vec![1.0f32, 0.37]),
        seed in any::<u64>(),
    ) {
        try_steps(&spec, &shapes, scale, seed)?;
    }

    #[test]
    fn squares_are_the_references(len in 0usize..200_000, seed in any::<u64>()) {
        let g = gradient(Shape::HeavyTailed, len, seed);
        for (_, cpu) in ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter_mut() {
            prop_assert_eq!(cpu.sum_of_squares(&g).to_bits(), sum_of_squares(&g).to_bits());
        }
    }

    #[test]
    fn decoding_is_the_references(
        len in compression_common::lengths(),
        ranks in 0usize..5,
        sorted in any::<bool>(),
        beyond in prop::option::weighted(0.2, 0u32..3),
        mean in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut next = noise(seed);
        let mut messages: Vec<Vec<u64>> = (0..ranks)
            .map(|_| {
                let entries = if len == 0 { 0 } else { next() as usize % len.min(30_000) };
                let some = (0..entries).map(|_| word((next() % len as u64) as u32, next() as i32 as f32 / 1e6));
                some.collect()
            })
            .collect();
        if let (Some(beyond), Some(message)) = (beyond, messages.last_mut()) {
            let at = next() as usize % (message.len() + 1);
            message.insert(at, word(len as u32 + beyond, 1.0));
        }
        if sorted {
            // Equal indices stay in their order: the sums depend on it.
            for message in &mut messages {
                message.sort_by_key(|word| word >> 32);
            }
        }
        let messages: Vec<&[u64]> = messages.iter().map(|words| &words[..]).collect();
        let reduction = if mean { Reduction::Mean } else { Reduction::Sum };
        let mut expected = vec![7.5; len];
        let result = Reference.decompress(&messages, reduction, &mut expected);
        for (options, cpu) in ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter_mut() {
            let mut out = vec![7.5; len];
            prop_assert_eq!(&cpu.decompress(&messages, reduction, &mut out), &result);
            prop_assert!(bits(&out) == bits(&expected), "{:?}", options);
        }
    }
}

/// Sizes at which chunks are at their longest, several for each worker, and guesses are made from sparse samples.
#[test]
fn large_buckets_are_the_references() {
    let momentum = Feedback::Momentum { factor: 0.9, nesterov: false, masking: true };
    let len = (1 << 21) + 77;
    for density in [0.0001, 0.01] {
        let count = Count::Density(density);
        let exact = CompressionSpec { feedback: momentum, ..CompressionSpec::top_k(len, count) };
        let random = CompressionSpec::random_k(len, count);
        for spec in [exact, random, CompressionSpec::dgc(len, count, 0.9), CompressionSpec::dragonn(len, count, 0.9)] {
            try_steps(&spec, &[Shape::HeavyTailed, Shape::Periodic(1025)], 1.0, 11).unwrap();
        }
    }
}

/// Data that a strided sample misjudges, or that let everything pass.
#[test]
fn misjudged_buckets_are_the_references() {
    let len = 1 << 18;
    for shape in [Shape::AllEqual, Shape::Ascending, Shape::Sparse, Shape::Clustered, Shape::Periodic(129)] {
        for selector in [
            Selector::ExactTopK(Count::Entries(4096)),
            Selector::ExactTopK(Count::Entries(1)),
            Selector::SampledThreshold(Count::Entries(4096), tilewright_compression::Sampling::DGC),
            Selector::SampledThreshold(Count::Entries(4096), tilewright_compression::Sampling::DRAGONN),
        ] {
            let spec = CompressionSpec { selector, ..CompressionSpec::top_k(len, Count::Entries(1)) };
            try_steps(&spec, &[shape, shape], 1.0, 5).unwrap();
        }
    }
}
