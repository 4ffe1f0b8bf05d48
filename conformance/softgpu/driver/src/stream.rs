//! Streams and events. All work is done at once, so both only keep time.

use std::ffi::{c_int, c_uint, c_void};
use std::time::Instant;

use crate::code::{Code, INVALID_HANDLE, SUCCESS};
use crate::context::put;
use crate::state::with;

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(out: *mut *mut c_void, _flags: c_uint) -> Code {
    // SAFETY: as the caller promises.
    with(|s| unsafe { put(out, s.handle() as *mut c_void) })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(out: *mut *mut c_void, flags: c_uint, _priority: c_int) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuStreamCreate(out, flags) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(_stream: *mut c_void) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(_stream: *mut c_void) -> Code {
    with(|_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(_stream: *mut c_void) -> Code {
    with(|_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(_stream: *mut c_void, _event: *mut c_void, _flags: c_uint) -> Code {
    SUCCESS
}

/// # Safety
/// `function` must be callable with `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(
    _stream: *mut c_void,
    function: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> Code {
    // SAFETY: as the caller promises; no lock is held.
    unsafe { function(data) };
    SUCCESS
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(out: *mut *mut c_void, _flags: c_uint) -> Code {
    with(|s| {
        let handle = s.handle();
        s.events.insert(handle, None);
        // SAFETY: as the caller promises.
        unsafe { put(out, handle as *mut c_void) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: *mut c_void, _stream: *mut c_void) -> Code {
    with(|s| {
        let Some(time) = s.events.get_mut(&(event as usize)) else { return INVALID_HANDLE };
        *time = Some(Instant::now());
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(_event: *mut c_void) -> Code {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(_event: *mut c_void) -> Code {
    SUCCESS
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(out: *mut f32, start: *mut c_void, end: *mut c_void) -> Code {
    with(|s| {
        let time = |event: *mut c_void| s.events.get(&(event as usize)).copied().flatten();
        let (Some(start), Some(end)) = (time(start), time(end)) else { return INVALID_HANDLE };
        // SAFETY: as the caller promises.
        unsafe { put(out, end.saturating_duration_since(start).as_secs_f32() * 1e3) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: *mut c_void) -> Code {
    with(|s| {
        s.events.remove(&(event as usize));
        SUCCESS
    })
}
