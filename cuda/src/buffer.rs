//! Memory on the device.

use crate::device::Device;
use crate::error::{CudaError, Doing, code};
use cudarc::driver::{DriverError, result, sys};
use std::fmt;
use std::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
}

/// What a buffer can hold: numbers for which every bit pattern is one.
pub trait Plain: Copy + Send + Sync + 'static + sealed::Sealed {}

/// Numbers.
macro_rules! plain {
    ($($t:ty),*) => { $(
        impl sealed::Sealed for $t {}
        impl Plain for $t {}
    )* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, half::f16, half::bf16);

/// `len` numbers on a device. Allocation, copies and release are done in the order of the device's stream.
///
/// ```no_run
/// use tilewright_cuda::{Buffer, Device};
/// let device = Device::open(0)?;
/// let buffer = Buffer::from_slice(&device, "weights", &[1.0f32, 2.0])?;
/// assert_eq!(buffer.to_vec()?, [1.0, 2.0]);
/// # Ok::<(), tilewright_cuda::CudaError>(())
/// ```
pub struct Buffer<T: Plain> {
    device: Device,
    address: sys::CUdeviceptr,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Memory for `len` numbers, whose values are whatever was there before. `what` is for the error's text.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`].
    pub fn uninit(device: &Device, what: &str, len: usize) -> Result<Self, CudaError> {
        let none = |bytes| CudaError::OutOfMemory { what: what.into(), bytes };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| none(usize::MAX))?;
        device.bind()?;
        let address = if bytes == 0 { 0 } else { allocate(device, bytes, none)? };
        Ok(Self { device: device.clone(), address, len, kind: PhantomData })
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn zeros(device: &Device, what: &str, len: usize) -> Result<Self, CudaError> {
        let mut buffer = Self::uninit(device, what, len)?;
        buffer.clear()?;
        Ok(buffer)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], [`CudaError::Driver`].
    pub fn from_slice(device: &Device, what: &str, values: &[T]) -> Result<Self, CudaError> {
        let mut buffer = Self::uninit(device, what, values.len())?;
        buffer.upload(values)?;
        Ok(buffer)
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where it is on the device; 0 if there is nothing.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Makes every byte zero. Does not wait.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn clear(&mut self) -> Result<(), CudaError> {
        self.clear_first(self.len)
    }

    /// Makes the first `len` numbers zero. Does not wait.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if there are not as many, [`CudaError::Driver`].
    pub fn clear_first(&mut self, len: usize) -> Result<(), CudaError> {
        self.device.bind()?;
        self.within("numbers to clear", 0, len)?;
        if len == 0 {
            return Ok(());
        }
        // SAFETY: so many bytes are there, and this buffer is borrowed mutably.
        unsafe { result::memset_d8_async(self.address, 0, len * size_of::<T>(), self.device.stream()) }
            .doing("clearing memory of the device")
    }

    /// Overwrites the first numbers with `values`. Waits until `values` has been read.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if there are more than the buffer holds, [`CudaError::Driver`].
    pub fn upload(&mut self, values: &[T]) -> Result<(), CudaError> {
        self.within("numbers to upload", 0, values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        // SAFETY: so many are there; the wait below keeps `values` borrowed until the copy is done.
        let copied = unsafe { result::memcpy_htod_async(self.address, values, self.device.stream()) };
        copied.doing("copying to the device")?;
        self.device.synchronize()
    }

    /// Fills `values` with the numbers from `from` on. Waits for them.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if there are not as many, [`CudaError::Driver`].
    pub fn download_at(&self, from: usize, values: &mut [T]) -> Result<(), CudaError> {
        self.within("numbers to download", from, values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        self.device.bind()?;
        let address = self.address + (from * size_of::<T>()) as u64;
        // SAFETY: so many are there; the wait below keeps `values` borrowed until the copy is done.
        let copied = unsafe { result::memcpy_dtoh_async(values, address, self.device.stream()) };
        copied.doing("copying from the device")?;
        self.device.synchronize()
    }

    /// Fills `values` with the first numbers. Waits for them.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if there are not as many, [`CudaError::Driver`].
    pub fn download(&self, values: &mut [T]) -> Result<(), CudaError> {
        self.download_at(0, values)
    }

    /// The first `len` numbers. Waits for them.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if there are not as many, [`CudaError::Driver`].
    pub fn first(&self, len: usize) -> Result<Vec<T>, CudaError> {
        self.within("numbers to download", 0, len)?;
        let mut values: Vec<T> = Vec::with_capacity(len);
        // SAFETY: room is there, and of a plain number every bit pattern is a value; they are written over at once.
        unsafe {
            std::ptr::write_bytes(values.as_mut_ptr(), 0, len);
            values.set_len(len);
        }
        self.download(&mut values)?;
        Ok(values)
    }

    /// All numbers. Waits for them.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn to_vec(&self) -> Result<Vec<T>, CudaError> {
        self.first(self.len)
    }

    /// Overwrites the first numbers with the first `len` of another buffer. Does not wait.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if either has not as many, or is another device's; [`CudaError::Driver`].
    pub fn copy_from(&mut self, other: &Self, len: usize) -> Result<(), CudaError> {
        self.within("numbers to copy", 0, len)?;
        other.within("numbers to copy", 0, len)?;
        if !self.device.is(&other.device) {
            return Err(CudaError::argument("buffer", "one of another device or stream", "one of the same"));
        }
        if len == 0 {
            return Ok(());
        }
        self.device.bind()?;
        let (bytes, stream) = (len * size_of::<T>(), self.device.stream());
        // SAFETY: both have so many bytes, and they are two.
        unsafe { result::memcpy_dtod_async(self.address, other.address, bytes, stream) }.doing("copying on the device")
    }

    fn within(&self, argument: &'static str, from: usize, len: usize) -> Result<(), CudaError> {
        if from.checked_add(len).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let expected = format!("at most the buffer's {}", self.len);
        Err(CudaError::argument(argument, format_args!("{len} from {from} on"), expected))
    }
}

/// Memory in the stream's order where the device can do that.
fn allocate(device: &Device, bytes: usize, none: impl Fn(usize) -> CudaError) -> Result<sys::CUdeviceptr, CudaError> {
    let pools = device.context().has_async_alloc();
    // SAFETY: the context is bound; the memory is released in the same way, in `drop`.
    let address =
        unsafe { if pools { result::malloc_async(device.stream(), bytes) } else { result::malloc_sync(bytes) } };
    address.map_err(|error: DriverError| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => none(bytes),
        _ => CudaError::Driver { what: "allocating memory of the device", code: code(error) },
    })
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address == 0 || self.device.bind().is_err() {
            return;
        }
        // SAFETY: nobody else knows the address, and what is on the stream is done before. If the driver refuses there is
        // nothing to do.
        let _ = unsafe {
            if self.device.context().has_async_alloc() {
                result::free_async(self.address, self.device.stream())
            } else {
                self.device.synchronize().ok();
                result::free_sync(self.address)
            }
        };
    }
}

impl<T: Plain> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer<{}>({})", std::any::type_name::<T>(), self.len)
    }
}
