//! The CUDA backend: all that a machine needs is an NVIDIA driver and a GPU of compute capability 8.0 or later.
//!
//! Kernels are PTX text inside this crate, which the driver compiles when they are first used. Three layers:
//!
//! * raw launches: [`Device`], [`Buffer`], [`Kernel`] and [`Launch`];
//! * for each family an API for data that stay on the device, without hidden copies or waits;
//! * types that implement the traits of the `core` crates for data on the host.
//!
//! Without a driver, or without a device, everything is an error that says so:
//!
//! ```
//! use tilewright_cuda::{CudaError, Device};
//! match Device::open(0) {
//!     Ok(device) => println!("{}", device.name()),
//!     Err(error) => println!("no GPU here: {error}"),
//! }
//! ```

pub mod attention;
mod buffer;
pub mod compression;
mod device;
mod error;
pub mod grouplasso;
mod launch;
mod module;
#[cfg(feature = "nccl")]
pub mod nccl;
mod probe;

pub use attention::CudaAttention;
pub use buffer::{Buffer, Plain};
pub use compression::CudaCompressor;
pub use device::{Device, LEAST_CAPABILITY};
pub use error::{CudaError, CudaVersion};
pub use grouplasso::CudaGroupLasso;
pub use launch::{Config, Launch, Value};
pub use module::{Kernel, Unit};
pub use probe::probe;

/// One small kernel, `y = slope · x + offset`: whether launches work on a device at all.
pub static SMOKE: Unit = Unit { name: "smoke", ptx: include_str!("../ptx/smoke.ptx") };
