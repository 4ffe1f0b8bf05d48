//! A device: context, one stream, and the kernels loaded so far.

use crate::error::{CudaError, Doing};
use crate::module::{Kernel, Module, Unit};
use crate::probe::probe;
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaStream, sys};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The least compute capability that the kernels run on.
pub const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// A GPU with a stream of its own, on which all work of this handle and its clones is done in order. Kernels are loaded
/// when they are first asked for, and kept.
///
/// ```no_run
/// let device = tilewright_cuda::Device::open(0)?;
/// println!("{}, {} multiprocessors", device.name(), device.multiprocessors());
/// # Ok::<(), tilewright_cuda::CudaError>(())
/// ```
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
    shared_limit: u32,
    driver: i32,
    modules: Mutex<HashMap<&'static str, Arc<Module>>>,
}

impl Device {
    /// The device of this ordinal.
    ///
    /// # Errors
    /// [`CudaError::DriverMissing`] and its kin, [`CudaError::NoDevice`], [`CudaError::NoSuchDevice`],
    /// [`CudaError::CapabilityTooLow`].
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let driver = probe()?;
        match count()? {
            0 => return Err(CudaError::NoDevice),
            found if ordinal >= found => return Err(CudaError::NoSuchDevice { ordinal, found }),
            _ => {}
        }
        let context = CudaContext::new(ordinal).doing("opening the device")?;
        let capability = context.compute_capability().doing("asking for the compute capability")?;
        if capability < LEAST_CAPABILITY {
            return Err(CudaError::CapabilityTooLow { ordinal, capability, needed: LEAST_CAPABILITY });
        }
        let attribute = |which| context.attribute(which).doing("asking for an attribute of the device");
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32;
        let shared_limit = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?.max(0) as u32;
        let name = context.name().doing("asking for the name of the device")?;
        // SAFETY: events order streams that share memory of cudarc's own slice type; none of those is made here. A buffer
        // of this crate is bound to one stream.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().doing("creating a stream")?;
        let modules = Mutex::default();
        Ok(Self(Arc::new(Inner { context, stream, name, capability, multiprocessors, shared_limit, driver, modules })))
    }

    /// How many devices there are.
    ///
    /// # Errors
    /// [`CudaError::DriverMissing`] and its kin.
    pub fn count() -> Result<usize, CudaError> {
        probe()?;
        count()
    }

    /// What the driver calls it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its compute capability.
    pub fn capability(&self) -> (i32, i32) {
        self.0.capability
    }

    /// Its multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_limit(&self) -> u32 {
        self.0.shared_limit
    }

    /// The CUDA version the driver speaks: 12040 is 12.4.
    pub fn driver_version(&self) -> i32 {
        self.0.driver
    }

    /// Waits until everything asked for so far is done.
    ///
    /// # Errors
    /// [`CudaError::Driver`], also for a fault of a kernel launched earlier.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.0.stream.synchronize().doing("waiting for the device")
    }

    /// Milliseconds that the device spends on what `work` asks of it; waits until that is done.
    ///
    /// # Errors
    /// Those of `work`, and [`CudaError::Driver`].
    pub fn time<R>(&self, work: impl FnOnce() -> Result<R, CudaError>) -> Result<(R, f32), CudaError> {
        let what = "timing";
        let mark = || self.0.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).doing(what);
        let start = mark()?;
        let result = work()?;
        let end = mark()?;
        Ok((result, start.elapsed_ms(&end).doing(what)?))
    }

    /// The kernel of this name. Its unit is loaded if it was not before.
    ///
    /// # Errors
    /// [`CudaError::Load`] with the driver's log, [`CudaError::NoKernel`].
    pub fn kernel(&self, unit: &'static Unit, name: &str) -> Result<Kernel, CudaError> {
        // Whoever panicked while holding the lock left a map that is whole all the same.
        let mut modules = self.0.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(unit.name) {
            Some(module) => Arc::clone(module),
            None => Arc::clone(modules.entry(unit.name).or_insert(Module::load(self, unit)?)),
        };
        drop(modules);
        Module::kernel(&module, self, name)
    }

    /// Loads all kernels of these units now rather than when they are first used.
    ///
    /// # Errors
    /// [`CudaError::Load`].
    pub fn warm_up(&self, units: &[&'static Unit]) -> Result<(), CudaError> {
        for unit in units {
            if let Some(name) = unit.kernels().next() {
                self.kernel(unit, name)?;
            }
        }
        Ok(())
    }

    /// Whether both are handles of one device and stream.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes this device the one that the calling thread's driver calls go to.
    pub(crate) fn bind(&self) -> Result<(), CudaError> {
        self.0.context.bind_to_thread().doing("choosing the device")
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.0.stream.cu_stream()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, capability, driver, .. } = &*self.0;
        f.debug_struct("Device").field("name", name).field("capability", capability).field("driver", driver).finish()
    }
}

/// After a probe only.
fn count() -> Result<usize, CudaError> {
    match CudaContext::device_count() {
        Ok(found) => Ok(usize::try_from(found).unwrap_or(0)),
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(0),
        // A library to link against, with nothing behind it.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => Err(CudaError::DriverMissing),
        Err(error) => Err(error).doing("starting the driver"),
    }
}
