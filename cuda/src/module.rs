//! Units of PTX, embedded in this crate and loaded by the driver.

use crate::device::Device;
use crate::error::{CudaError, code};
use crate::launch::{Config, Launch};
use cudarc::driver::{CudaContext, DriverError, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Kernels that are loaded together: the PTX of one file of `cuda/kernels`.
#[derive(Debug)]
pub struct Unit {
    /// The file's name without its ending.
    pub name: &'static str,
    /// The PTX.
    pub ptx: &'static str,
}

impl Unit {
    /// The names of its kernels.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> {
        entries(self.ptx).map(|(name, _)| name)
    }
}

/// Shared memory of a block that needs no permission.
const UNASKED: u32 = 48 << 10;

/// The entries of a PTX text: names and what is between the parentheses.
fn entries(ptx: &str) -> impl Iterator<Item = (&str, &str)> {
    ptx.split(".entry ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (parameters, _) = rest.split_once(')')?;
        Some((name.trim(), parameters))
    })
}

/// The size in bytes of each parameter: `.param .u64 name`, `.param .align 8 .b8 name[48]`.
fn sizes(parameters: &str) -> Vec<usize> {
    let one = |parameter: &str| {
        let unit = parameter.split_whitespace().rev().find_map(|word| match word.strip_prefix('.') {
            Some("b8" | "u8" | "s8") => Some(1),
            Some("b16" | "u16" | "s16" | "f16") => Some(2),
            Some("b32" | "u32" | "s32" | "f32") => Some(4),
            Some("b64" | "u64" | "s64" | "f64") => Some(8),
            _ => None,
        })?;
        let many = parameter.split_once('[').and_then(|(_, rest)| rest.split_once(']')?.0.trim().parse().ok());
        Some(unit * many.unwrap_or(1))
    };
    parameters.split(',').filter_map(one).collect()
}

/// A loaded unit.
pub(crate) struct Module {
    unit: &'static Unit,
    raw: sys::CUmodule,
    context: Arc<CudaContext>,
    functions: Mutex<HashMap<String, Arc<Function>>>,
}

// SAFETY: a module handle is a name for something the driver guards by itself; it may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// A kernel's handle and what is known about it.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) raw: sys::CUfunction,
    /// Sizes of its parameters.
    pub(crate) parameters: Vec<usize>,
    /// Dynamic shared memory that it may have as things are.
    shared: AtomicU32,
}

// SAFETY: as for a module.
unsafe impl Send for Function {}
// SAFETY: as for a module.
unsafe impl Sync for Function {}

impl Module {
    pub(crate) fn load(device: &Device, unit: &'static Unit) -> Result<Arc<Self>, CudaError> {
        device.bind()?;
        let fault = |code: String, log: &[u8]| {
            let text = String::from_utf8_lossy(log);
            let text = text.trim_end_matches('\0').split_whitespace().collect::<Vec<_>>().join(" ");
            CudaError::Load { unit: unit.name.into(), code, log: text }
        };
        let image = CString::new(unit.ptx).map_err(|_| fault("a NUL byte in the PTX".into(), &[]))?;
        let mut log = vec![0u8; 1 << 13];
        match load(&image, &mut log) {
            Ok(raw) => {
                let context = Arc::clone(device.context());
                Ok(Arc::new(Self { unit, raw, context, functions: Mutex::default() }))
            }
            Err(error) => Err(fault(code(error), &log)),
        }
    }

    pub(crate) fn kernel(module: &Arc<Self>, device: &Device, name: &str) -> Result<Kernel, CudaError> {
        // See `Device::kernel`.
        let mut functions = module.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = if let Some(function) = functions.get(name) {
            Arc::clone(function)
        } else {
            let function = Arc::new(module.function(device, name)?);
            functions.insert(name.into(), Arc::clone(&function));
            function
        };
        Ok(Kernel { device: device.clone(), function, _module: Arc::clone(module) })
    }

    fn function(&self, device: &Device, name: &str) -> Result<Function, CudaError> {
        let missing = || CudaError::NoKernel { unit: self.unit.name.into(), kernel: name.into() };
        let (_, parameters) = entries(self.unit.ptx).find(|(entry, _)| *entry == name).ok_or_else(missing)?;
        device.bind()?;
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the module is loaded, and stays so while the function lives (`Kernel` holds it).
        let raw = unsafe { result::module::get_function(self.raw, c_name) }.map_err(|_| missing())?;
        Ok(Function { name: name.into(), raw, parameters: sizes(parameters), shared: AtomicU32::new(UNASKED) })
    }
}

fn load(image: &CString, log: &mut [u8]) -> Result<sys::CUmodule, DriverError> {
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The size travels in the pointer's place.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
    let mut raw = std::ptr::null_mut();
    // SAFETY: the image ends with NUL; both lists have two elements, of the kinds the driver API gives for these options;
    // the log outlives the call.
    unsafe {
        sys::cuModuleLoadDataEx(&raw mut raw, image.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr())
    }
    .result()?;
    Ok(raw)
}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: nobody has a handle of one of its functions any more. If the driver refuses there is nothing to do.
            let _ = unsafe { result::module::unload(self.raw) };
        }
    }
}

/// A kernel, ready to be launched.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) device: Device,
    pub(crate) function: Arc<Function>,
    /// Stays loaded as long.
    _module: Arc<Module>,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.function.name
    }

    /// Its device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Begins a launch; arguments come next, in the order of the kernel's parameters.
    pub fn launch(&self, config: Config) -> Launch<'_> {
        Launch::new(self, config)
    }

    /// How many blocks of so many threads and so much dynamic shared memory a multiprocessor holds at once.
    ///
    /// # Errors
    /// [`CudaError::Driver`], [`CudaError::Argument`].
    pub fn blocks_per_multiprocessor(&self, threads: u32, shared: u32) -> Result<u32, CudaError> {
        self.allow_shared(shared)?;
        // SAFETY: the function is loaded.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(self.function.raw, threads as i32, shared as usize)
        };
        blocks
            .map(|blocks| blocks.max(0) as u32)
            .map_err(|error| CudaError::Driver { what: "asking for the occupancy", code: code(error) })
    }

    /// Asks for so much dynamic shared memory, if it is more than what needs no asking.
    pub(crate) fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        self.device.bind()?;
        if bytes <= self.function.shared.load(Relaxed) {
            return Ok(());
        }
        let limit = self.device.shared_limit();
        if bytes > limit {
            return Err(CudaError::argument("dynamic shared memory", bytes, format_args!("at most {limit} bytes")));
        }
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        unsafe { result::function::set_function_attribute(self.function.raw, attribute, bytes as i32) }
            .map_err(|error| CudaError::Driver { what: "asking for shared memory", code: code(error) })?;
        // Of the memory that is cache or shared, as much shared as there is: else fewer blocks may share a multiprocessor.
        // A wish, not a condition.
        let (attribute, all) = (sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100);
        // SAFETY: as above.
        let _ = unsafe { result::function::set_function_attribute(self.function.raw, attribute, all) };
        self.function.shared.fetch_max(bytes, Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_from_the_text() {
        let ptx = ".visible .entry one(\n\t.param .u64 one_param_0,\n\t.param .align 8 .b8 one_param_1[48],\n\
                   \t.param .f32 one_param_2\n)\n{\n\tret;\n}\n.visible .entry none()\n.maxntid 128, 1, 1\n{ ret; }";
        let found: Vec<_> = entries(ptx).map(|(name, parameters)| (name, sizes(parameters))).collect();
        assert_eq!(found, [("one", vec![8, 48, 4]), ("none", vec![])]);
    }
}
