//! An allocator that fences every allocation of the process: what is read or written beside one is noticed.
//!
//! An allocation of [`FENCED`] bytes or more has pages of its own between two inaccessible ones. It ends where the page
//! behind begins, or begins where the page before ends, as [`Side`] says, so that one step too far faults. The rest of its
//! pages, and [`BAND`] bytes on both sides of a smaller allocation, hold ones: NaN in every format, for whoever reads there,
//! and checked when the allocation is given back, for whoever writes. So does what is allocated, until it is written.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr};

/// Bytes from which on an allocation has pages of its own.
pub(crate) const FENCED: usize = 256;

/// Bytes on both sides of a smaller allocation.
const BAND: usize = 64;

/// A NaN in f64, f32, f16 and bf16, if repeated.
const ONES: u8 = 0xff;

/// Where an allocation touches an inaccessible page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Behind it, as far as its alignment allows.
    Behind,
    /// Before it.
    Before,
}

/// The allocator.
pub(crate) struct Guarded {
    before: AtomicBool,
}

impl Guarded {
    pub(crate) const fn new() -> Self {
        Self { before: AtomicBool::new(false) }
    }

    /// Sets the side of all allocations from now on.
    pub(crate) fn set_side(&self, side: Side) {
        self.before.store(side == Side::Before, Relaxed);
    }
}

/// What is mapped for an allocation between its inaccessible pages, given its address or any within its first page.
#[derive(Clone, Copy)]
struct Pages {
    start: *mut u8,
    len: usize,
    page: usize,
}

impl Pages {
    fn len_for(layout: Layout) -> (usize, usize) {
        let page = rustix::param::page_size();
        (layout.size().next_multiple_of(page), page)
    }

    /// Pages that were used before, or new ones, or none if the system has none left.
    fn take(layout: Layout) -> Option<Self> {
        let (len, page) = Self::len_for(layout);
        if let Some(start) = SPARE.get(len / page).and_then(Stack::pop) {
            return Some(Self { start, len, page });
        }
        // SAFETY: new memory at an address that the system chooses.
        let whole =
            unsafe { mmap_anonymous(null_mut(), len + 2 * page, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;
        let start = whole.cast::<u8>().wrapping_add(page);
        // SAFETY: the pages in the middle of those just mapped.
        unsafe { mprotect(start.cast(), len, MprotectFlags::READ | MprotectFlags::WRITE) }.ok()?;
        Some(Self { start, len, page })
    }

    /// Those in which an allocation lies.
    fn of(pointer: *mut u8, layout: Layout) -> Self {
        let (len, page) = Self::len_for(layout);
        Self { start: pointer.wrapping_sub(pointer as usize % page), len, page }
    }

    /// Keeps them for another allocation, or gives them back, if they are many, with the inaccessible ones.
    fn put(self) {
        if let Some(stack) = SPARE.get(self.len / self.page) {
            // SAFETY: nothing else uses them, and a pointer fits.
            return unsafe { stack.push(self.start) };
        }
        // SAFETY: they were mapped together, and nothing in them is used any more.
        let unmapped = unsafe { munmap(self.start.wrapping_sub(self.page).cast(), self.len + 2 * self.page) };
        if unmapped.is_err() {
            fail("pages cannot be given back");
        }
    }
}

/// Pages that were used, by their number: mapping takes longer than most of what is done in them.
static SPARE: [Stack; 64] = [const { Stack { busy: AtomicBool::new(false), top: AtomicPtr::new(null_mut()) } }; 64];

/// Pages of which each holds the address of the next. A lock of its own: those of the standard library may allocate.
struct Stack {
    busy: AtomicBool,
    top: AtomicPtr<u8>,
}

impl Stack {
    fn locked<R>(&self, f: impl FnOnce(&AtomicPtr<u8>) -> R) -> R {
        while self.busy.swap(true, Acquire) {
            std::thread::yield_now();
        }
        let result = f(&self.top);
        self.busy.store(false, Release);
        result
    }

    fn pop(&self) -> Option<*mut u8> {
        self.locked(|top| {
            let start = top.load(Relaxed);
            if start.is_null() {
                return None;
            }
            // SAFETY: what is on the stack is nobody else's, and `push` wrote a pointer there.
            top.store(unsafe { start.cast::<*mut u8>().read_unaligned() }, Relaxed);
            Some(start)
        })
    }

    /// # Safety
    /// A pointer can be written to `start`, which nothing uses any more.
    unsafe fn push(&self, start: *mut u8) {
        self.locked(|top| {
            // SAFETY: as above.
            unsafe { start.cast::<*mut u8>().write_unaligned(top.load(Relaxed)) };
            top.store(start, Relaxed);
        });
    }
}

/// Whether an allocation has pages of its own.
fn fenced(layout: Layout) -> bool {
    layout.size() >= FENCED && layout.align() <= rustix::param::page_size()
}

/// A smaller allocation with its bands, and how far in it begins.
fn banded(layout: Layout) -> (Layout, usize) {
    let front = BAND.max(layout.align());
    let size = front + layout.size() + BAND;
    // The alignment was valid, and nothing this small overflows.
    (Layout::from_size_align(size, layout.align()).unwrap_or(layout), front)
}

/// Ends the process: an allocator must not panic, and memory is not what it should be.
fn fail(what: &str) -> ! {
    // Not by `eprintln`, which a test's output would swallow. Nothing is left to do if it can't be said.
    let _ = std::io::stderr().write_all(format!("guard bands: {what}\n").as_bytes());
    std::process::abort();
}

/// Ends the process unless `len` bytes from `start` are all ones.
///
/// # Safety
/// They can be read.
unsafe fn check(start: *const u8, len: usize, what: &str) {
    // SAFETY: as above.
    let band = unsafe { std::slice::from_raw_parts(start, len) };
    if band.iter().any(|byte| *byte != ONES) {
        fail(what);
    }
}

// SAFETY: `alloc` returns memory of at least the layout's size, aligned as it says, that nothing else owns: the middle of
// mapped pages, or of an allocation by `System`. `dealloc` finds the same whole again, for its parts follow from pointer and layout.
// The other functions are built on these.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (start, len, offset) = if fenced(layout) {
            let Some(pages) = Pages::take(layout) else { return null_mut() };
            let behind = pages.len - layout.size().next_multiple_of(layout.align());
            (pages.start, pages.len, if self.before.load(Relaxed) { 0 } else { behind })
        } else {
            let (whole, front) = banded(layout);
            // SAFETY: bands are longer than nothing.
            (unsafe { System.alloc(whole) }, whole.size(), front)
        };
        if start.is_null() {
            return start;
        }
        // SAFETY: just allocated, of this length.
        unsafe { start.write_bytes(ONES, len) };
        start.wrapping_add(offset)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let end = pointer.wrapping_add(layout.size());
        if fenced(layout) {
            let pages = Pages::of(pointer, layout);
            let used = pointer as usize - pages.start as usize;
            // SAFETY: both lie in the allocation's own pages.
            unsafe {
                check(pages.start, used, "something was written before an allocation");
                check(end, pages.len - used - layout.size(), "something was written behind an allocation");
            }
            pages.put();
        } else {
            let (whole, front) = banded(layout);
            let start = pointer.wrapping_sub(front);
            // SAFETY: both are bands of the allocation, which began at `start`.
            unsafe {
                check(start, front, "something was written before a small allocation");
                check(end, BAND, "something was written behind a small allocation");
                System.dealloc(start, whole);
            }
        }
    }
}
