//! What the compressor allocates, counted by the allocator. One test only: whatever else ran here would be counted too.
#![allow(clippy::unwrap_used)]

mod compression_common;

use compression_common::{Shape, gradient};
use rayon::ThreadPoolBuilder;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tilewright_compression::{
    CompressionSpec, Compressor, Count, Decompressor, Feedback, Memory, Message, Placement, Policy, Reduction,
    Selector, Slots, Step,
};
use tilewright_cpu::CpuCompressor;

/// Counts calls, live bytes and their peak.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: both functions pass their arguments to `System`, whose contract is the same, and count beside it. The
// default `realloc` is built on them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn specs(len: usize) -> Vec<CompressionSpec> {
    let count = Count::Density(0.01);
    let momentum = Feedback::Momentum { factor: 0.9, nesterov: true, masking: true };
    let table = |policy| Placement::HashTable { slots: Slots::PerEntry(4.0), policy };
    let exact = CompressionSpec::top_k(len, count);
    let fixed = CompressionSpec { selector: Selector::FixedThreshold(50.0), feedback: Feedback::None, ..exact };
    vec![
        exact,
        fixed,
        CompressionSpec::random_k(len, count),
        CompressionSpec::dgc(len, count, 0.9),
        CompressionSpec::dragonn(len, count, 0.9),
        CompressionSpec { feedback: momentum, placement: table(Policy::LargestMagnitude), ..exact },
        CompressionSpec { placement: table(Policy::Any), ..exact },
        CompressionSpec {
            placement: Placement::HashTable { slots: Slots::Exactly(1 << 30), policy: Policy::Any },
            ..exact
        },
    ]
}

/// Calls of the allocator during steps that come after some that looked the same.
fn calls_in_the_steady_state(spec: &CompressionSpec) -> usize {
    let gradients: Vec<Vec<f32>> = (0..8).map(|seed| gradient(Shape::HeavyTailed, spec.len, seed)).collect();
    let (mut cpu, mut memory, mut message) = (CpuCompressor::default(), Memory::new(spec).unwrap(), Message::default());
    let mut out = vec![0.0; spec.len];
    let mut steps = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let gradient = &gradients[number as usize % gradients.len()];
            cpu.compress(spec, Step::new(number), gradient, &mut memory, &mut message).unwrap();
            cpu.decompress(&[&message.words, &message.words], Reduction::Mean, &mut out).unwrap();
            assert!(cpu.sum_of_squares(gradient) > 0.0);
            assert!(!message.is_empty());
        }
    };
    steps(0..32);
    let before = CALLS.load(Relaxed);
    steps(32..64);
    CALLS.load(Relaxed) - before
}

/// The most bytes that are live during the first step on data where everything passes any threshold foreseen, beyond
/// those that were before.
fn peak_on_hostile_data(len: usize, selector: Selector, shape: Shape) -> usize {
    let spec = CompressionSpec { selector, ..CompressionSpec::top_k(len, Count::Entries(1)) };
    let gradient = gradient(shape, len, 3);
    let (mut cpu, mut memory, mut message) =
        (CpuCompressor::default(), Memory::new(&spec).unwrap(), Message::default());
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    cpu.compress(&spec, Step::new(0), &gradient, &mut memory, &mut message).unwrap();
    assert!((80..=130).contains(&message.len()));
    PEAK.load(Relaxed) - before
}

#[test]
fn allocates_little_and_then_nothing() {
    // Inside the pool: a call from outside may have to lengthen the pool's queue.
    ThreadPoolBuilder::new().num_threads(3).build().unwrap().install(|| {
        for spec in specs(100_003) {
            assert_eq!(calls_in_the_steady_state(&spec), 0, "{spec:?}");
        }
        let len = 1 << 22;
        for shape in [Shape::AllEqual, Shape::Ascending] {
            let count = Count::Entries(100);
            let refined = Selector::SampledThreshold(count, tilewright_compression::Sampling::DGC);
            for selector in [Selector::ExactTopK(count), refined] {
                // A key for each element would be 32 MiB.
                let peak = peak_on_hostile_data(len, selector, shape);
                println!("{shape:?} {selector:?}: {} KiB", peak >> 10);
                assert!(peak < 4 << 20, "{shape:?} {selector:?}: {peak} bytes");
            }
        }
    });
}
