//! A device for tests, or a reason to skip.

#![allow(dead_code)]

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tilewright_cuda::Device;

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
            assert!(error.is_absence(), "a device that cannot be opened: {error}");
            eprintln!("skipped 1: no device: {error}");
            None
        }
    }
}

/// The software driver, where TILEWRIGHT_SOFTGPU_LIB names it: loaded, so that cudarc finds it by its name.
pub(crate) fn software() -> Option<&'static cuda::Driver> {
    static DRIVER: OnceLock<Option<cuda::Driver>> = OnceLock::new();
    let load = || {
        let path = std::env::var_os("TILEWRIGHT_SOFTGPU_LIB")?;
        if std::env::var_os(cuda::VARIABLE).is_none() {
            // SAFETY: the turn is held, and no test of this program reads variables before it has a device.
            unsafe { std::env::set_var(cuda::VARIABLE, "seed=0") };
        }
        Some(cuda::open(path.as_ref()).unwrap_or_else(|error| panic!("{error}")))
    };
    DRIVER.get_or_init(load).as_ref()
}

/// What the software driver has to say about the last fault; empty on a real one.
pub(crate) fn fault() -> String {
    software().map_or_else(String::new, cuda::Driver::last_fault)
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
