//! The bound on a streamed problem's memory, counted by the allocator. One test only: whatever else ran here would be
//! counted too.
#![allow(clippy::unwrap_used)]

use ndarray::Array2;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tilewright_cpu::CpuGroupLasso;
use tilewright_cpu::grouplasso::source::FeatureSource;
use tilewright_cpu::grouplasso::{Memory, Streamed, StreamingGroupLasso};
use tilewright_grouplasso::{GroupLassoError, GroupLassoSpec, Loss, Stopped, Stopping, Targets};

/// Counts live bytes and their peak.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: both functions pass their arguments to `System`, whose contract is the same, and count beside it. The
// default `realloc` is built on them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
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

/// Features computed as they are read: none of them are in memory.
struct Waves {
    samples: usize,
    features: usize,
}

impl FeatureSource for Waves {
    fn samples(&self) -> usize {
        self.samples
    }

    fn features(&self) -> usize {
        self.features
    }

    fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError> {
        for (j, column) in features.zip(columns.chunks_exact_mut(self.samples)) {
            for (i, x) in column.iter_mut().enumerate() {
                let hash =
                    (j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i as u64).wrapping_mul(0xd1b5_4a32_d192_ed03);
                let hash = (hash ^ (hash >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                *x = (hash >> 40) as f64 / f64::from(1u32 << 23) - 1.0;
            }
        }
        Ok(())
    }
}

#[test]
fn memory_stays_within_its_bound() {
    let x = Waves { samples: 100, features: 8000 };
    let mut some = vec![0.0; 100 * 30];
    x.read(0..30, &mut some).unwrap();
    let truth = |i: usize, k: usize| (0..10).map(|j| some[(3 * j + k % 3) * 100 + i] / (1 + j) as f64).sum::<f64>();
    let y = Array2::from_shape_fn((100, 4), |(i, k)| truth(i, k));
    let labels: Vec<u32> =
        (0..100).map(|i| (0..4).max_by(|a, b| y[[i, *a]].total_cmp(&y[[i, *b]])).unwrap() as u32).collect();
    // Matrix products keep half a megabyte a thread from the first on that needs it. With one worker the second time through
    // meets nothing new.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let losses = [(Loss::LeastSquares, 1e-7), (Loss::Multinomial, 1e-5)];
    for (again, (loss, gap)) in [false, true].into_iter().flat_map(|again| losses.map(|loss| (again, loss))) {
        let targets = match loss {
            Loss::LeastSquares => Targets::Values(y.view()),
            Loss::Multinomial => Targets::Labels { labels: &labels, classes: 4 },
        };
        let problem = Streamed { x: &x, targets, sample_weights: None };
        let ample = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, Memory::default());
        let mut spec = GroupLassoSpec::rows(loss, 0.0);
        spec.lambda = ample.lambda_max(&spec, &problem).unwrap() / 8.0;
        // The bounds that errors name, from the least on, until one is enough.
        let (mut bytes, mut reached) = (1u64, false);
        while !reached {
            let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, Memory { bytes });
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let stopping = Stopping { gap, ..Stopping::default() };
            let outcome = solver.solve(&spec, &problem, &stopping, None, &mut |_| ControlFlow::Continue(()));
            let used = (PEAK.load(Relaxed) - before) as u64;
            assert!(
                !again || used <= bytes.max(200_000),
                "{loss:?}: {used} bytes of {bytes}: {:?}",
                outcome.map(|a| a.iterations)
            );
            match outcome {
                Ok(answer) => {
                    assert_eq!(answer.stopped, Stopped::Reached);
                    println!("{loss:?}: {used} bytes of {bytes}, {} active", answer.w.indices().len());
                    reached = true;
                }
                Err(GroupLassoError::OutOfMemory { bytes: more, .. }) => {
                    assert!(more > bytes && more < 64 << 20, "{more} after {bytes}");
                    bytes = more;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}
