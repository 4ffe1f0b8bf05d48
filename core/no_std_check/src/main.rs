//! Links only if nothing in `core` needs the standard library: this program brings a panic handler and an allocator of
//! its own, and a second panic handler, from `std`, would be an error. It runs, too: it computes attention over one key,
//! compresses a gradient of two entries and fits one feature, and exits with 0 if that is right.
#![no_std]
#![no_main]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};
use core::ops::ControlFlow;
use core::panic::PanicInfo;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use ndarray::{Array2, Array4};
use tilewright_attention::{AttentionSpec, Contract, Inputs, bound, reference};
use tilewright_compression::reference::Reference;
use tilewright_compression::{CompressionSpec, Compressor, Count, Memory, Message, Step};
use tilewright_grouplasso::reference::Reference as Solver;
use tilewright_grouplasso::{Data, GroupLassoSolver, GroupLassoSpec, Loss, Stopping, Targets};
use tilewright_scalar::{DoubleDouble, Format, Real};

const ARENA: usize = 1 << 16;

/// Hands out an arena once and takes nothing back.
struct Bump {
    arena: core::cell::UnsafeCell<[u8; ARENA]>,
    used: AtomicUsize,
}

// SAFETY: each byte of the arena belongs to at most one allocation, for `used` only grows, atomically.
unsafe impl Sync for Bump {}

// SAFETY: blocks are disjoint, aligned and inside the arena, or null.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Room for alignment whatever the arena's own address is.
        let size = layout.size() + layout.align();
        let start = self.used.fetch_add(size, Ordering::Relaxed);
        if start.saturating_add(size) > ARENA {
            return null_mut();
        }
        let block = self.arena.get().cast::<u8>().wrapping_add(start);
        block.wrapping_add(block.align_offset(layout.align()))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Bump = Bump { arena: core::cell::UnsafeCell::new([0; ARENA]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

// The precompiled `alloc` refers to these two although nothing here ever unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}

// For `memcpy` and its kind, and for the code that calls `main`.
#[link(name = "c")]
unsafe extern "C" {}

/// The reference in two precisions, and its bound, over a single key of score 0 and value 1.
fn attention() -> Option<[f64; 3]> {
    let spec = AttentionSpec::dense(1, 1, 1, 1, 1);
    let (zero, one) = (Array4::<f32>::from_elem([1; 4], 0.0), Array4::<f32>::from_elem([1; 4], 1.0));
    let inputs = Inputs::new(zero.view(), zero.view(), one.view());
    let single = reference::forward::<f32, f64>(&spec, &inputs).ok()?;
    let double = reference::forward::<f32, DoubleDouble>(&spec, &inputs).ok()?;
    let limits = bound::forward(&spec, &inputs, &Contract::strict(Format::F32)).ok()?;
    Some([single.o[[0; 4]], double.lse[[0; 3]].to_f64(), limits.o.worst[[0; 4]]])
}

/// The greater of two entries is sent, the other one waits.
fn compression() -> Option<bool> {
    let spec = CompressionSpec::dgc(2, Count::Entries(1), 0.5);
    let (mut memory, mut message) = (Memory::new(&spec).ok()?, Message::default());
    Reference.compress(&spec, Step::new(0), &[1.0, -2.0], &mut memory, &mut message).ok()?;
    Some(message.entries().eq([(1, -2.0)]) && memory.velocity == [1.0, 0.0])
}

/// ½ (1 − w)² + ¼ |w| is least at ¾, and known to be.
fn grouplasso() -> Option<bool> {
    let spec = GroupLassoSpec { intercept: false, ..GroupLassoSpec::rows(Loss::LeastSquares, 0.25) };
    let (x, y) = (Array2::from_elem((1, 1), 1.0f32), Array2::from_elem((1, 1), 1.0));
    let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
    let stopping = Stopping::default();
    let best = Solver.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Continue(())).ok()?;
    let w = best.w.values().first().copied()?;
    Some(w - 0.75 < 1e-3 && 0.75 - w < 1e-3 && best.certificate.relative_gap() <= 1e-6)
}

/// Succeeds if one entry of two is sent, the fit is right, `O = 1`, `LSE = 0` and the error allowed is that of a few roundings.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    match attention() {
        Some([o, lse, worst])
            if o == 1.0
                && lse == 0.0
                && worst > 0.0
                && worst < 1e-4
                && compression() == Some(true)
                && grouplasso() == Some(true) =>
        {
            0
        }
        _ => 1,
    }
}
