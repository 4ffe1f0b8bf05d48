//! Once its buffers have grown, a step allocates nothing: neither optimiser, nor codec, nor the collective of threads. One
//! test only: whatever else ran here would be counted too.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tilewright_compression::bucket::Buckets;
use tilewright_compression::data_parallel::{Config, DataParallel, Momentum};
use tilewright_compression::{Collective, CompressionSpec, Count, IndexCoding, ValueFormat, Wire};
use tilewright_cpu::CpuCompressor;
use tilewright_cpu::collective::Local;
use tilewright_cpu::compression::CompressorOptions;

/// Counts allocations.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: both functions pass their arguments to `System`, whose contract is the same, and count beside it. The
// default `realloc` is built on them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LENGTHS: [usize; 3] = [40_000, 30, 9_000];

/// Allocations of both ranks while each takes some steps, after some others; rank 0 counts.
fn allocations(config: &Config, local: &Local) -> usize {
    let buckets = Buckets::pack(&LENGTHS.map(|len| len as u64), 45_000, |_, len| len > 100).unwrap();
    let one = NonZeroUsize::new(1);
    let compressor = CpuCompressor::new(CompressorOptions { threads: one, ..CompressorOptions::default() }).unwrap();
    let mut optimiser = DataParallel::new(config.clone(), buckets, compressor, local).unwrap();
    let mut weights = LENGTHS.map(|len| vec![0.0_f32; len]);
    let wave = |i: usize| ((i * 7919 % 10_007) as f32 / 10_007.0 - 0.5).powi(3);
    let gradients = LENGTHS.map(|len| (0..len).map(|i| wave(i + local.rank())).collect::<Vec<_>>());
    let mut before = 0;
    for step in 0..60 {
        if step == 40 {
            before = COUNT.load(Relaxed);
        }
        let mut slices = weights.each_mut().map(|tensor| &mut tensor[..]);
        optimiser.step(0.01, &gradients.each_ref().map(|tensor| &tensor[..]), &mut slices).unwrap();
    }
    // Both have come this far, and neither goes on before this one has looked.
    let after = COUNT.load(Relaxed);
    local.all_reduce_sum(&mut []).unwrap();
    after - before
}

#[test]
fn a_step_allocates_nothing() {
    let count = Count::Density(0.01);
    let wire = Wire { value: ValueFormat::Bf16, index: IndexCoding::Rice };
    let top_k = Config::compressed(CompressionSpec::top_k(0, count));
    for config in [
        Config::dense(0.9),
        Config { momentum: Momentum { factor: 0.9, nesterov: false }, clip: Some(1.0), ..top_k },
        Config::compressed(CompressionSpec { wire, ..CompressionSpec::top_k(0, count) }),
    ] {
        let counts: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = Local::group(2)
                .into_iter()
                .map(|local| {
                    scope.spawn(|| {
                        let local = local;
                        allocations(&config, &local)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // The pool's queue of jobs takes a block now and then; anything of the step's own would come in each of 40.
        let most = if config.compression.is_some() { 8 } else { 0 };
        assert!(counts[0] <= most, "{} {config:?}", counts[0]);
    }
}
