//! Launches: a configuration, arguments with their types, and a check of both against the kernel's signature.

use crate::buffer::{Buffer, Plain};
use crate::error::{CudaError, code};
use crate::module::Kernel;
use cudarc::driver::{DriverError, sys};
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;

/// How many blocks of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block; what exceeds 48 KiB is asked for by itself.
    pub shared: u32,
    /// Whether all blocks run at the same time and may wait for each other.
    pub cooperative: bool,
}

impl Config {
    /// One-dimensional.
    pub fn new(blocks: u32, threads: u32) -> Self {
        Self::grid([blocks, 1, 1], threads)
    }

    /// Blocks in three dimensions, threads in one.
    pub fn grid(grid: [u32; 3], threads: u32) -> Self {
        Self { grid, block: [threads, 1, 1], shared: 0, cooperative: false }
    }

    /// With so many bytes of dynamic shared memory.
    #[must_use]
    pub fn shared(self, bytes: u32) -> Self {
        Self { shared: bytes, ..self }
    }

    /// With all blocks at the same time.
    #[must_use]
    pub fn cooperative(self) -> Self {
        Self { cooperative: true, ..self }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([x, y, z], [i, j, k]) = (self.grid, self.block);
        write!(f, "grid {x}x{y}x{z}, block {i}x{j}x{k}, {} bytes of shared memory", self.shared)?;
        if self.cooperative { f.write_str(", cooperative") } else { Ok(()) }
    }
}

/// What can be passed to a kernel by value: numbers, and structures of them with the layout of C.
///
/// # Safety
/// The type is `repr(C)` or a number, and has the size and the fields that the kernel's source gives it.
pub unsafe trait Value: Copy + 'static {}

/// Numbers and addresses.
macro_rules! value {
    ($($t:ty),*) => { $(
        // SAFETY: a number.
        unsafe impl Value for $t {}
    )* };
}
value!(u8, u16, u32, i32, u64, i64, f32, f64);

/// A launch in the making. What an argument borrows stays borrowed until the launch is on the stream, and work on a
/// stream is done in order, so memory freed afterwards is still there for the kernel.
#[must_use = "nothing is launched before `run`"]
pub struct Launch<'a> {
    kernel: &'a Kernel,
    config: Config,
    /// Where each argument starts in `bytes`, and its size.
    places: Vec<(usize, usize)>,
    /// Arguments, each at a multiple of 16 bytes.
    bytes: Vec<u128>,
    /// The first thing that was wrong with an argument.
    wrong: Option<CudaError>,
    borrowed: PhantomData<&'a mut ()>,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(kernel: &'a Kernel, config: Config) -> Self {
        let (places, bytes) = (Vec::with_capacity(16), Vec::with_capacity(16));
        Self { kernel, config, places, bytes, wrong: None, borrowed: PhantomData }
    }

    /// The address of a buffer that the kernel reads.
    pub fn read<T: Plain>(self, buffer: &'a Buffer<T>) -> Self {
        self.address(buffer, 0)
    }

    /// The address of a buffer that the kernel reads, from element `from` on.
    pub fn read_at<T: Plain>(self, buffer: &'a Buffer<T>, from: usize) -> Self {
        self.address(buffer, from)
    }

    /// The address of a buffer that the kernel reads, or null.
    pub fn read_if<T: Plain>(self, buffer: Option<&'a Buffer<T>>) -> Self {
        match buffer {
            Some(buffer) => self.read(buffer),
            None => self.value(0u64),
        }
    }

    /// The address of a buffer that the kernel writes.
    pub fn write<T: Plain>(self, buffer: &'a mut Buffer<T>) -> Self {
        self.address(buffer, 0)
    }

    /// The address of a buffer that the kernel writes, from element `from` on.
    pub fn write_at<T: Plain>(self, buffer: &'a mut Buffer<T>, from: usize) -> Self {
        self.address(buffer, from)
    }

    /// The address of a buffer that the kernel writes, or null.
    pub fn write_if<T: Plain>(self, buffer: Option<&'a mut Buffer<T>>) -> Self {
        match buffer {
            Some(buffer) => self.write(buffer),
            None => self.value(0u64),
        }
    }

    /// A number or a structure.
    pub fn value<V: Value>(mut self, value: V) -> Self {
        let (start, size) = (self.bytes.len(), size_of::<V>());
        self.bytes.resize(start + size.div_ceil(16), 0);
        if align_of::<V>() > 16 {
            self.wrong.get_or_insert(CudaError::argument("alignment of an argument", align_of::<V>(), "at most 16"));
        } else if size > 0 {
            // SAFETY: from `start` on there are at least `size` bytes, aligned to 16.
            unsafe { self.bytes[start..].as_mut_ptr().cast::<V>().write(value) };
        }
        self.places.push((start, size));
        self
    }

    fn address<T: Plain>(mut self, buffer: &Buffer<T>, from: usize) -> Self {
        if !buffer.device().is(&self.kernel.device) {
            let expected = "one of the kernel's own device and stream";
            self.wrong.get_or_insert(CudaError::argument("buffer", "one of another device or stream", expected));
        }
        if from > buffer.len() {
            let expected = format!("at most the buffer's length, {}", buffer.len());
            self.wrong.get_or_insert(CudaError::argument("first element", from, expected));
        }
        self.value(buffer.address().wrapping_add((from * size_of::<T>()) as u64))
    }

    /// Puts the launch on the device's stream; does not wait for it.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if the arguments do not have the number and the sizes of the kernel's parameters, or a
    /// buffer is another device's; [`CudaError::Launch`] with what the driver says.
    ///
    /// # Safety
    /// With these arguments the kernel reads and writes nothing but what the buffers hold; buffers passed to be read are
    /// not written.
    pub unsafe fn run(mut self) -> Result<(), CudaError> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let sizes: Vec<usize> = self.places.iter().map(|(_, size)| *size).collect();
        if sizes != self.kernel.function.parameters {
            let expected = format!("{:?} bytes for {}", self.kernel.function.parameters, self.kernel.name());
            return Err(CudaError::argument("kernel arguments", format_args!("{sizes:?} bytes"), expected));
        }
        self.kernel.allow_shared(self.config.shared)?;
        let base = self.bytes.as_mut_ptr();
        // SAFETY: each place lies in `bytes`.
        let mut pointers: Vec<*mut c_void> =
            self.places.iter().map(|(at, _)| unsafe { base.add(*at) }.cast()).collect();
        // SAFETY: the pointers are those of as many arguments as the kernel has parameters, of their sizes; the rest is up
        // to the caller.
        unsafe { launch(self.kernel, self.config, &mut pointers) }.map_err(|error| CudaError::Launch {
            kernel: self.kernel.name().into(),
            configuration: self.config.to_string(),
            code: code(error),
        })
    }
}

/// # Safety
/// `arguments` are as the kernel declares them.
unsafe fn launch(kernel: &Kernel, config: Config, arguments: &mut [*mut c_void]) -> Result<(), DriverError> {
    let ([x, y, z], [i, j, k]) = (config.grid, config.block);
    let (function, stream, list) = (kernel.function.raw, kernel.device.stream(), arguments.as_mut_ptr());
    let status = if config.cooperative {
        // SAFETY: the caller's.
        unsafe { sys::cuLaunchCooperativeKernel(function, x, y, z, i, j, k, config.shared, stream, list) }
    } else {
        // SAFETY: the caller's.
        unsafe { sys::cuLaunchKernel(function, x, y, z, i, j, k, config.shared, stream, list, std::ptr::null_mut()) }
    };
    status.result()
}
