//! Start-up, devices and contexts.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::code::{Code, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, SUCCESS};
use crate::state::{Config, State, lock, with};

/// The primary context's handle.
const CONTEXT: usize = 0x1000;

/// Writes a result through a pointer that the caller gave.
///
/// # Safety
/// `out` must be null or writable.
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Code {
    if out.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null, and the caller promises the rest.
    unsafe { out.write(value) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> Code {
    let mut state = lock();
    match Config::read() {
        Some(config) if config.devices > 0 => {
            if state.is_none() {
                *state = Some(State::new(config));
            }
            SUCCESS
        }
        _ => NO_DEVICE,
    }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(out: *mut c_int) -> Code {
    let version = Config::read().map_or(12040, |c| c.driver);
    // SAFETY: as the caller promises.
    unsafe { put(out, version) }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(out: *mut c_int) -> Code {
    // SAFETY: as the caller promises.
    with(|s| unsafe { put(out, s.config.devices) })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(out: *mut c_int, ordinal: c_int) -> Code {
    if ordinal != 0 {
        return INVALID_DEVICE;
    }
    // SAFETY: as the caller promises.
    with(|_| unsafe { put(out, 0) })
}

/// # Safety
/// `out` must have room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(out: *mut c_char, length: c_int, _device: c_int) -> Code {
    let name = c"Tilewright software GPU".to_bytes_with_nul();
    let n = name.len().min(usize::try_from(length).unwrap_or(0));
    if n == 0 {
        return INVALID_VALUE;
    }
    // SAFETY: the caller promises `length` bytes, and `n` is no more.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr().cast(), out, n);
        out.add(n - 1).write(0);
    }
    SUCCESS
}

/// # Safety
/// `out` must have room for 16 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(out: *mut [u8; 16], _device: c_int) -> Code {
    // SAFETY: as the caller promises.
    unsafe { put(out, *b"tilewright-soft0") }
}

/// # Safety
/// As [`cuDeviceGetUuid`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(out: *mut [u8; 16], device: c_int) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuDeviceGetUuid(out, device) }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(out: *mut usize, _device: c_int) -> Code {
    // SAFETY: as the caller promises.
    with(|s| unsafe { put(out, s.config.settings.memory_limit as usize) })
}

/// The attributes that host code bases decisions on, by their number in `CUdevice_attribute`.
// Equal values of unlike things stay apart.
#[allow(clippy::match_same_arms)]
fn attribute(state: &State, which: c_int) -> c_int {
    match which {
        // Threads a block; along x, y, z; blocks along x, y, z.
        1..=3 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65535,
        // Shared memory a block; constant memory; warp size; registers a block.
        8 => 48 * 1024,
        9 => 65536,
        10 => 32,
        12 => 65536,
        // Clock rate in kHz; processors; can map host memory; compute mode.
        13 => 1_000_000,
        16 => 4,
        // Concurrent kernels; memory clock and bus; level-2 cache; threads a processor.
        31 => 1,
        36 => 1_000_000,
        37 => 64,
        38 => 4 << 20,
        39 => 2048,
        // Unified addressing; capability; stream priorities.
        41 => 1,
        75 => state.config.capability.0,
        76 => state.config.capability.1,
        78 => 1,
        // Shared memory and registers of a processor; cooperative launch; opt-in shared memory.
        81 => 228 * 1024,
        82 => 65536,
        95 => 1,
        97 => state.config.settings.shared_limit as c_int,
        106 => 32,
        111 => 1024,
        115 => 1,
        _ => 0,
    }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(out: *mut c_int, which: c_int, device: c_int) -> Code {
    if device != 0 {
        return INVALID_DEVICE;
    }
    // SAFETY: as the caller promises.
    with(|s| unsafe { put(out, attribute(s, which)) })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(out: *mut *mut c_void, device: c_int) -> Code {
    if device != 0 {
        return INVALID_DEVICE;
    }
    // SAFETY: as the caller promises.
    with(|_| unsafe { put(out, CONTEXT as *mut c_void) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(_device: c_int) -> Code {
    with(|s| {
        let config = s.config.clone();
        *s = State::new(config);
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxSetFlags_v2(_device: c_int, _flags: c_uint) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_context: *mut c_void) -> Code {
    SUCCESS
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(out: *mut *mut c_void) -> Code {
    // SAFETY: as the caller promises.
    with(|_| unsafe { put(out, CONTEXT as *mut c_void) })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(out: *mut c_int) -> Code {
    // SAFETY: as the caller promises.
    with(|_| unsafe { put(out, 0) })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> Code {
    with(|_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetLimit(_limit: c_int, _value: usize) -> Code {
    SUCCESS
}
