//! The CUDA devices of this machine, or one line that says why there is none; the exit code says it too.
//!
//! ```text
//! cargo run -p tilewright-cuda --example devices
//! ```

use std::process::ExitCode;
use tilewright_cuda::{CudaError, CudaVersion, Device};

fn main() -> ExitCode {
    match list() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<(), CudaError> {
    let count = Device::count()?;
    if count == 0 {
        return Err(CudaError::NoDevice);
    }
    for ordinal in 0..count {
        let device = Device::open(ordinal)?;
        let ((major, minor), driver) = (device.capability(), CudaVersion(device.driver_version()));
        println!(
            "{ordinal}: {}, compute capability {major}.{minor}, {} multiprocessors, driver for CUDA {driver}",
            device.name(),
            device.multiprocessors()
        );
    }
    Ok(())
}
