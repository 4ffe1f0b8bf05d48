//! Device memory, pinned host memory, copies and fills.

use std::alloc::Layout;
use std::ffi::{c_uchar, c_uint, c_ushort, c_void};

use tilewright_softgpu::MemoryError;

use crate::code::{Code, ILLEGAL_ADDRESS, INVALID_VALUE, OUT_OF_MEMORY, SUCCESS};
use crate::context::put;
use crate::state::{State, with};

fn code(state: &mut State, result: Result<(), MemoryError>) -> Code {
    match result {
        Ok(()) => SUCCESS,
        Err(e) => {
            state.fault = e.to_string();
            ILLEGAL_ADDRESS
        }
    }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(out: *mut u64, bytes: usize) -> Code {
    if bytes == 0 {
        return INVALID_VALUE;
    }
    with(|s| match s.gpu.alloc(bytes as u64) {
        // SAFETY: as the caller promises.
        Ok(address) => unsafe { put(out, address) },
        Err(e) => {
            s.fault = e.to_string();
            OUT_OF_MEMORY
        }
    })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(out: *mut u64, bytes: usize, _stream: *mut c_void) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuMemAlloc_v2(out, bytes) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> Code {
    if address == 0 {
        return SUCCESS;
    }
    with(|s| match s.gpu.free(address) {
        Ok(()) => SUCCESS,
        Err(e) => {
            s.fault = e.to_string();
            INVALID_VALUE
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(address: u64, _stream: *mut c_void) -> Code {
    cuMemFree_v2(address)
}

/// # Safety
/// Both pointers must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Code {
    with(|s| {
        let limit = s.config.settings.memory_limit;
        // SAFETY: as the caller promises.
        unsafe { put(free, (limit - s.gpu.used()) as usize).max(put(total, limit as usize)) }
    })
}

/// # Safety
/// `from` must be readable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> Code {
    if bytes == 0 {
        return SUCCESS;
    }
    if from.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null, and the caller promises the rest.
    let data = unsafe { std::slice::from_raw_parts(from, bytes) };
    with(|s| {
        let result = s.gpu.write(to, data);
        code(s, result)
    })
}

/// # Safety
/// As [`cuMemcpyHtoD_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _stream: *mut c_void) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuMemcpyHtoD_v2(to, from, bytes) }
}

/// # Safety
/// `to` must be writable for `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> Code {
    if bytes == 0 {
        return SUCCESS;
    }
    if to.is_null() {
        return INVALID_VALUE;
    }
    with(|s| match s.gpu.read(from, bytes as u64) {
        Ok(data) => {
            // SAFETY: not null, the caller promises `bytes` bytes, and `data` has as many.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, bytes) };
            SUCCESS
        }
        Err(e) => code(s, Err(e)),
    })
}

/// # Safety
/// As [`cuMemcpyDtoH_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _stream: *mut c_void) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuMemcpyDtoH_v2(to, from, bytes) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> Code {
    with(|s| {
        let result = s.gpu.copy(to, from, bytes as u64);
        code(s, result)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, _stream: *mut c_void) -> Code {
    cuMemcpyDtoD_v2(to, from, bytes)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: c_uchar, count: usize) -> Code {
    with(|s| {
        let result = s.gpu.fill(to, value, count as u64);
        code(s, result)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(to: u64, value: c_uchar, count: usize, _stream: *mut c_void) -> Code {
    cuMemsetD8_v2(to, value, count)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16_v2(to: u64, value: c_ushort, count: usize) -> Code {
    with(|s| {
        let result = s.gpu.write(to, &value.to_le_bytes().repeat(count));
        code(s, result)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD16Async(to: u64, value: c_ushort, count: usize, _stream: *mut c_void) -> Code {
    cuMemsetD16_v2(to, value, count)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32_v2(to: u64, value: c_uint, count: usize) -> Code {
    with(|s| {
        let result = s.gpu.write(to, &value.to_le_bytes().repeat(count));
        code(s, result)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, _stream: *mut c_void) -> Code {
    cuMemsetD32_v2(to, value, count)
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, _flags: c_uint) -> Code {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 256) else { return INVALID_VALUE };
    with(|s| {
        // SAFETY: the size isn't zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        if memory.is_null() {
            return OUT_OF_MEMORY;
        }
        s.pinned.insert(memory as usize, layout);
        // SAFETY: as the caller promises.
        unsafe { put(out, memory.cast()) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeHost(memory: *mut c_void) -> Code {
    with(|s| match s.pinned.remove(&(memory as usize)) {
        Some(layout) => {
            // SAFETY: it came from `cuMemHostAlloc` with that layout, and leaves the table only once.
            unsafe { std::alloc::dealloc(memory.cast(), layout) };
            SUCCESS
        }
        None => INVALID_VALUE,
    })
}
