//! A device for tests, or a reason to skip.

#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use tilewright_cuda::{CudaError, Device};

/// Device tests take turns: the launches of one do not wait behind those of another, and a fault is the fault of one.
static TURN: Mutex<()> = Mutex::new(());

/// A device and the turn to use it.
pub(crate) struct Turn {
    pub(crate) device: Device,
    _turn: MutexGuard<'static, ()>,
}

/// The first device, or `None` with a line that says why not, which is counted in the output. Where a GPU must be, the
/// variable TILEWRIGHT_REQUIRE_GPU makes a skip a failure.
pub(crate) fn device() -> Option<Turn> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    software();
    match Device::open(0) {
        Ok(device) => Some(Turn { device, _turn: turn }),
        Err(error) if std::env::var_os("TILEWRIGHT_REQUIRE_GPU").is_some() => panic!("no device: {error}"),
        Err(error) => {
            assert!(is_absence(&error), "a device that cannot be opened: {error}");
            eprintln!("skipped 1: no device: {error}");
            None
        }
    }
}

/// Whether the error says that there is nothing to work with, rather than that something is broken.
pub(crate) fn is_absence(error: &CudaError) -> bool {
    matches!(
        error,
        CudaError::DriverMissing
            | CudaError::NoDevice
            | CudaError::DriverTooOld { .. }
            | CudaError::CapabilityTooLow { .. }
    )
}

/// Loads the software driver, where TILEWRIGHT_SOFTGPU_LIB names it; cudarc then finds it by its name.
pub(crate) fn software() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(path) = std::env::var_os("TILEWRIGHT_SOFTGPU_LIB") else { return };
        if std::env::var_os("TILEWRIGHT_SOFTGPU").is_none() {
            // SAFETY: the turn is held, and no test of this program reads variables before it has a device.
            unsafe { std::env::set_var("TILEWRIGHT_SOFTGPU", "seed=0") };
        }
        // SAFETY: a library made to be loaded so.
        let library = unsafe { libloading::Library::new(&path) };
        let library = library.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // It stays loaded.
        std::mem::forget(library);
    });
}

/// What the software driver has to say about the last fault; empty on a real one.
pub(crate) fn fault() -> String {
    let Some(path) = std::env::var_os("TILEWRIGHT_SOFTGPU_LIB") else { return String::new() };
    // SAFETY: it is loaded already.
    let Ok(library) = (unsafe { libloading::Library::new(path) }) else { return String::new() };
    // SAFETY: this is the function's signature.
    let get = unsafe { library.get::<unsafe extern "C" fn(*mut u8, usize) -> usize>(b"softgpu_last_fault") };
    let Ok(get) = get else { return String::new() };
    let mut text = vec![0u8; 4096];
    // SAFETY: it writes at most as many bytes as are said.
    let len = unsafe { get(text.as_mut_ptr(), text.len()) };
    String::from_utf8_lossy(&text[..len.min(text.len())]).into_owned()
}

/// Numbers without a pattern, the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Between −1 and 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}
