//! Launches, occupancy, and the text of the last fault.

use std::ffi::{c_char, c_int, c_uint, c_void};

use tilewright_softgpu::Launch;

use crate::code::{COOPERATIVE_LAUNCH_TOO_LARGE, Code, INVALID_HANDLE, INVALID_VALUE, SUCCESS, of_fault};
use crate::context::put;
use crate::state::{State, with};

/// Most blocks of a cooperative launch: processors times blocks each.
const COOPERATIVE_LIMIT: u64 = 4 * 32;

/// The parameter buffer, from one pointer for each parameter.
///
/// # Safety
/// `params` must have a readable pointer for each parameter of the kernel.
unsafe fn gather(state: &State, function: usize, params: *const *const u8) -> Option<Vec<u8>> {
    let function = state.functions.get(&function)?;
    let info = function.module.kernel(&function.name)?;
    let mut buffer = vec![0; info.param_bytes as usize];
    if params.is_null() && !info.params.is_empty() {
        return None;
    }
    for (i, &(offset, size)) in info.params.iter().enumerate() {
        // SAFETY: as the caller promises.
        let bytes = unsafe { std::slice::from_raw_parts(params.add(i).read(), size as usize) };
        buffer[offset as usize..][..size as usize].copy_from_slice(bytes);
    }
    Some(buffer)
}

/// # Safety
/// As [`gather`].
unsafe fn run(function: *mut c_void, launch: Launch, params: *const *const u8) -> Code {
    with(|s| {
        let blocks = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
        if launch.cooperative && blocks > COOPERATIVE_LIMIT {
            return COOPERATIVE_LAUNCH_TOO_LARGE;
        }
        let Some(known) = s.functions.get(&(function as usize)).cloned() else { return INVALID_HANDLE };
        if launch.shared > known.dynamic as u32 {
            s.fault = format!("{} bytes of dynamic shared memory, but {} allowed", launch.shared, known.dynamic);
            return INVALID_VALUE;
        }
        // SAFETY: as the caller promises.
        let Some(buffer) = (unsafe { gather(s, function as usize, params) }) else { return INVALID_VALUE };
        match s.gpu.launch(&known.module, &known.name, &launch, &buffer) {
            Ok(_) => SUCCESS,
            Err(fault) => {
                s.fault = fault.to_string();
                of_fault(fault.kind)
            }
        }
    })
}

/// # Safety
/// `params` must have a readable pointer for each parameter of the kernel.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    params: *const *const u8,
    _extra: *mut *mut c_void,
) -> Code {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    // SAFETY: as the caller promises.
    unsafe { run(function, Launch { grid, block, shared, cooperative: false }, params) }
}

/// # Safety
/// As [`cuLaunchKernel`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    params: *const *const u8,
) -> Code {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    // SAFETY: as the caller promises.
    unsafe { run(function, Launch { grid, block, shared, cooperative: true }, params) }
}

/// `CUlaunchAttribute`: an identifier, padding, and 64 bytes of value.
#[repr(C, align(8))]
pub struct Attribute {
    id: c_int,
    padding: [u8; 4],
    value: [c_int; 16],
}

/// `CUlaunchConfig`
#[repr(C)]
pub struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: *mut c_void,
    attributes: *const Attribute,
    count: c_uint,
}

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`
const COOPERATIVE: c_int = 2;

/// # Safety
/// `config` must be readable, with as many attributes as it says; `params` as for [`cuLaunchKernel`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const Config,
    function: *mut c_void,
    params: *const *const u8,
    _extra: *mut *mut c_void,
) -> Code {
    // SAFETY: as the caller promises.
    let Some(config) = (unsafe { config.as_ref() }) else { return INVALID_VALUE };
    let attributes = if config.count == 0 || config.attributes.is_null() {
        &[]
    } else {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts(config.attributes, config.count as usize) }
    };
    let cooperative = attributes.iter().any(|a| a.id == COOPERATIVE && a.value[0] != 0);
    let launch = Launch { grid: config.grid, block: config.block, shared: config.shared, cooperative };
    // SAFETY: as the caller promises.
    unsafe { run(function, launch, params) }
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    out: *mut c_int,
    function: *mut c_void,
    threads: c_int,
    shared: usize,
) -> Code {
    with(|s| {
        let Some(function) = s.functions.get(&(function as usize)) else { return INVALID_HANDLE };
        if threads <= 0 {
            return INVALID_VALUE;
        }
        let fixed = function.module.kernel(&function.name).map_or(0, |i| i.shared_bytes as usize);
        let by_shared = 228 * 1024 / (fixed + shared + 1024);
        let by_threads = 2048 / (threads as usize).next_multiple_of(32);
        // SAFETY: as the caller promises.
        unsafe { put(out, by_shared.min(by_threads).min(32) as c_int) }
    })
}

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    out: *mut c_int,
    function: *mut c_void,
    threads: c_int,
    shared: usize,
    _flags: c_uint,
) -> Code {
    // SAFETY: as the caller promises.
    unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(out, function, threads, shared) }
}

/// Copies the text of the last fault, cut to `room` bytes with a zero byte at the end. Returns the text's whole length.
///
/// # Safety
/// `out` must be null or writable for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softgpu_last_fault(out: *mut c_char, room: usize) -> usize {
    let mut length = 0;
    with(|s| {
        length = s.fault.len();
        if !out.is_null() && room > 0 {
            let n = length.min(room - 1);
            // SAFETY: as the caller promises, and `n` is less than `room`.
            unsafe {
                std::ptr::copy_nonoverlapping(s.fault.as_ptr(), out.cast(), n);
                out.add(n).write(0);
            }
        }
        SUCCESS
    });
    length
}

/// Chooses the schedule of the launches to come, whatever was launched before.
#[unsafe(no_mangle)]
pub extern "C" fn softgpu_set_seed(seed: u64) {
    with(|s| {
        s.gpu.set_seed(seed);
        SUCCESS
    });
}
