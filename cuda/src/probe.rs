//! Whether there is a driver that can be called. cudarc panics at its first call if there is none, or if one lacks an
//! entry point, and under `panic = "abort"` nobody could catch that: so this comes first.

use crate::CudaError;
use libloading::Library;
use std::ffi::c_int;

/// The CUDA version of the compiler that made the PTX of this crate: a driver accepts no newer PTX than its own.
pub(crate) const NEEDED: i32 = 12040;

/// The names cudarc tries that a driver goes by, in its order.
#[cfg(windows)]
const NAMES: [&str; 2] = ["cuda.dll", "nvcuda.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// The entry points that this crate, and cudarc on its behalf, calls.
const SYMBOLS: [&str; 34] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxGetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuEventDestroy_v2",
    "cuModuleLoadDataEx",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuLaunchKernel",
    "cuLaunchCooperativeKernel",
];

/// Asks for the driver by name and for everything that will be called; returns the CUDA version that it speaks.
///
/// # Errors
/// [`CudaError::DriverMissing`], [`CudaError::DriverIncomplete`], [`CudaError::DriverTooOld`].
pub fn probe() -> Result<i32, CudaError> {
    let driver = NAMES.iter().find_map(|name| open(name)).ok_or(CudaError::DriverMissing)?;
    let version = version(&driver)?;
    if version < NEEDED {
        return Err(CudaError::DriverTooOld { version, needed: NEEDED });
    }
    match SYMBOLS.iter().find(|symbol| !has(&driver, symbol)) {
        Some(symbol) => Err(CudaError::DriverIncomplete { symbol }),
        None => Ok(version),
    }
}

fn open(name: &str) -> Option<Library> {
    // SAFETY: the library's initialisers run, as they will once more when cudarc opens it by the same name; a driver's do
    // no harm.
    unsafe { Library::new(name) }.ok()
}

fn has(driver: &Library, symbol: &str) -> bool {
    // SAFETY: only the address is looked for, nothing is called.
    unsafe { driver.get::<*const ()>(symbol.as_bytes()) }.is_ok()
}

fn version(driver: &Library) -> Result<i32, CudaError> {
    let symbol = "cuDriverGetVersion";
    // SAFETY: this is the signature the driver API gives.
    let get = unsafe { driver.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(symbol.as_bytes()) };
    let get = get.map_err(|_| CudaError::DriverIncomplete { symbol })?;
    let mut version = 0;
    // SAFETY: it writes one integer, and may be called before `cuInit`.
    match unsafe { get(&raw mut version) } {
        0 => Ok(version),
        code => Err(CudaError::Driver { what: "asking the driver for its version", code: format!("error {code}") }),
    }
}
