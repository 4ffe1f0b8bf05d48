//! The one error type of this crate.

use cudarc::driver::DriverError;
use std::fmt;

/// Why the CUDA backend cannot do what was asked. Every message is one line that says what to do, where something can be
/// done; nothing here is ever reported by a panic.
///
/// ```
/// use tilewright_cuda::CudaError;
/// let error = CudaError::NoSuchDevice { ordinal: 3, found: 1 };
/// assert_eq!(error.to_string(), "device: got 3, expected less than 1, the number of CUDA devices");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no NVIDIA driver on this machine, or the loader cannot find it.
    DriverMissing,
    /// What answers to the driver's name lacks an entry point, so it cannot be a driver this crate can work with.
    DriverIncomplete {
        /// The entry point.
        symbol: &'static str,
    },
    /// The driver is older than the PTX in this crate.
    DriverTooOld {
        /// The CUDA version it speaks, as it says it: 12040 is 12.4.
        version: i32,
        /// The least that will do.
        needed: i32,
    },
    /// A driver, but no device.
    NoDevice,
    /// Devices, but not this one.
    NoSuchDevice {
        /// The ordinal asked for.
        ordinal: usize,
        /// How many devices there are.
        found: usize,
    },
    /// The device is older than the kernels.
    CapabilityTooLow {
        /// The ordinal of the device.
        ordinal: usize,
        /// Its compute capability.
        capability: (i32, i32),
        /// The least that will do.
        needed: (i32, i32),
    },
    /// The driver did not accept a unit of kernels.
    Load {
        /// The unit's name.
        unit: String,
        /// The driver's name for the fault.
        code: String,
        /// What it had to say beyond that, on one line.
        log: String,
    },
    /// A unit has no kernel of this name.
    NoKernel {
        /// The unit's name.
        unit: String,
        /// The kernel's.
        kernel: String,
    },
    /// Memory on the device could not be had.
    OutOfMemory {
        /// What it was for.
        what: String,
        /// Bytes asked for.
        bytes: usize,
    },
    /// A kernel could not be launched, or one launched before failed.
    Launch {
        /// The kernel's name.
        kernel: String,
        /// Grid, block, shared memory.
        configuration: String,
        /// The driver's name for the fault.
        code: String,
    },
    /// Some other call to the driver failed; it may be a kernel launched before that shows here.
    Driver {
        /// What was being done.
        what: &'static str,
        /// The driver's name for the fault.
        code: String,
    },
    /// A library that was asked for is not there, or a call to it failed.
    Library {
        /// Its name.
        library: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// An argument is not what it should be.
    Argument {
        /// Its name.
        argument: &'static str,
        /// What it was.
        got: String,
        /// What it should have been.
        expected: String,
    },
    /// The backend declares that it lacks this.
    Unsupported {
        /// The name of what is lacking.
        what: String,
    },
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DriverMissing => f.write_str(
                "no NVIDIA driver: libcuda.so.1 could not be loaded; install the driver, or put its folder on \
                 LD_LIBRARY_PATH (in a container: start it with the NVIDIA runtime)",
            ),
            Self::DriverIncomplete { symbol } => {
                write!(f, "the NVIDIA driver lacks {symbol}; what was loaded as libcuda is no driver, or far too old")
            }
            Self::DriverTooOld { version, needed } => {
                write!(
                    f,
                    "NVIDIA driver: got one for CUDA {}, expected {} or later",
                    CudaVersion(*version),
                    CudaVersion(*needed)
                )
            }
            Self::NoDevice => f.write_str("no CUDA device: the NVIDIA driver is there, but it reports no device"),
            Self::NoSuchDevice { ordinal, found } => {
                write!(f, "device: got {ordinal}, expected less than {found}, the number of CUDA devices")
            }
            Self::CapabilityTooLow { ordinal, capability, needed } => write!(
                f,
                "compute capability of device {ordinal}: got {}.{}, expected {}.{} or later",
                capability.0, capability.1, needed.0, needed.1
            ),
            Self::Load { unit, code, log } if log.is_empty() => write!(f, "loading kernels of {unit}: {code}"),
            Self::Load { unit, code, log } => write!(f, "loading kernels of {unit}: {code}: {log}"),
            Self::NoKernel { unit, kernel } => write!(f, "kernel: got {kernel}, which {unit} does not have"),
            Self::OutOfMemory { what, bytes } => write!(f, "{what}: no memory for {bytes} bytes on the device"),
            Self::Launch { kernel, configuration, code } => write!(f, "launch of {kernel} ({configuration}): {code}"),
            Self::Driver { what, code } => write!(f, "{what}: {code}"),
            Self::Library { library, problem } => write!(f, "{library}: {problem}"),
            Self::Argument { argument, got, expected } => write!(f, "{argument}: got {got}, expected {expected}"),
            Self::Unsupported { what } => write!(f, "unsupported: {what}"),
        }
    }
}

impl std::error::Error for CudaError {}

impl CudaError {
    /// Whether there is nothing to work with, a driver or a device that is new enough, rather than something broken.
    ///
    /// ```
    /// use tilewright_cuda::CudaError;
    /// assert!(CudaError::NoDevice.is_absence());
    /// assert!(!CudaError::DriverIncomplete { symbol: "cuInit" }.is_absence());
    /// ```
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::DriverMissing | Self::NoDevice | Self::DriverTooOld { .. } | Self::CapabilityTooLow { .. })
    }

    /// [`CudaError::Argument`].
    pub fn argument(argument: &'static str, got: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::Argument { argument, got: got.to_string(), expected: expected.to_string() }
    }
}

/// A version of CUDA as drivers count: 1000 times the major, 10 times the minor.
///
/// ```
/// assert_eq!(tilewright_cuda::CudaVersion(12040).to_string(), "12.4");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion(pub i32);

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// The driver's name for a fault, `CUDA_ERROR_ILLEGAL_ADDRESS` and the like.
pub(crate) fn code(error: DriverError) -> String {
    format!("{:?}", error.0)
}

/// Says what was being done when a call to the driver failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, CudaError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, what: &'static str) -> Result<T, CudaError> {
        self.map_err(|error| CudaError::Driver { what, code: code(error) })
    }
}
