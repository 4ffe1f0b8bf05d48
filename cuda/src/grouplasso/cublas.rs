//! The two products of the solver by cuBLAS. The library is opened when it is asked for: its absence is an error.

use crate::{Buffer, CudaError, Device};
use libloading::{Library, Symbol};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fmt;

/// The names of the library, newest first.
const NAMES: [&str; 4] = ["libcublas.so.13", "libcublas.so.12", "libcublas.so.11", "libcublas.so"];
/// `CUBLAS_OP_N` and `CUBLAS_OP_T`.
const PLAIN: c_int = 0;
const TRANSPOSED: c_int = 1;

type Handle = *mut c_void;
/// `cublasDgemm`: handle, two operations, m, n, k, α, A and its leading dimension, B likewise, β, C likewise.
type Gemm = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const f64,
    u64,
    c_int,
    u64,
    c_int,
    *const f64,
    u64,
    c_int,
) -> c_int;

/// cuBLAS on a device's stream, in double precision.
pub struct Cublas {
    library: Library,
    handle: Handle,
    device: Device,
}

// SAFETY: a handle may be used from any thread, as long as one does at a time, which `&mut self` and `Drop` see to.
unsafe impl Send for Cublas {}

impl Cublas {
    /// Finds the library by its name.
    ///
    /// # Errors
    /// [`CudaError::Library`]: there is no cuBLAS, or it says no.
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        // SAFETY: a library of numerical functions; loading it runs nothing of note.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        let missing = || problem("libcublas could not be loaded; install it, or put its folder on LD_LIBRARY_PATH");
        Self::with(device, library.ok_or_else(missing)?)
    }

    /// The library at `path`.
    ///
    /// # Errors
    /// [`CudaError::Library`]: there is no cuBLAS, or it says no.
    ///
    /// # Safety
    /// What is there must be cuBLAS, or have its `cublasCreate_v2`, `cublasDestroy_v2`, `cublasSetStream_v2` and
    /// `cublasDgemm_v2`.
    pub unsafe fn at(device: &Device, path: impl AsRef<OsStr>) -> Result<Self, CudaError> {
        // SAFETY: as the caller promises.
        let library = unsafe { Library::new(path.as_ref()) };
        Self::with(device, library.map_err(|error| problem(error.to_string()))?)
    }

    fn with(device: &Device, library: Library) -> Result<Self, CudaError> {
        device.bind()?;
        let mut handle = std::ptr::null_mut();
        let create: Symbol<'_, unsafe extern "C" fn(*mut Handle) -> c_int> = symbol(&library, "cublasCreate_v2")?;
        // SAFETY: the device is bound; a handle is written.
        check(&library, unsafe { create(&raw mut handle) })?;
        // From here on it is destroyed when this is dropped.
        let blas = Self { library, handle, device: device.clone() };
        let stream: Symbol<'_, unsafe extern "C" fn(Handle, *mut c_void) -> c_int> =
            symbol(&blas.library, "cublasSetStream_v2")?;
        // SAFETY: both live.
        check(&blas.library, unsafe { stream(blas.handle, device.stream().cast()) })?;
        Ok(blas)
    }

    /// `C = A · B`, or `A · Bᵀ` if `transposed`, for matrices whose columns lie end to end: `C` is `m × n`, `A` is `m × k`.
    /// Does not wait.
    ///
    /// # Errors
    /// [`CudaError::Argument`] if a buffer has another size, [`CudaError::Library`] if cuBLAS says no.
    pub fn product(
        &mut self,
        [m, n, k]: [usize; 3],
        a: &Buffer<f64>,
        (b, transposed): (&Buffer<f64>, bool),
        c: &mut Buffer<f64>,
    ) -> Result<(), CudaError> {
        for (argument, length, expected) in [("A", a.len(), m * k), ("B", b.len(), n * k), ("C", c.len(), m * n)] {
            if length != expected {
                return Err(CudaError::argument(argument, format_args!("{length} numbers"), expected));
            }
        }
        if k == 0 {
            return c.clear();
        }
        if m * n == 0 {
            return Ok(());
        }
        let size = |argument: &'static str, n: usize| {
            c_int::try_from(n).map_err(|_| CudaError::argument(argument, n, "at most 2147483647 for cuBLAS"))
        };
        let (m, n, k) = (size("rows", m)?, size("columns", n)?, size("inner length", k)?);
        self.device.bind()?;
        let gemm: Symbol<'_, Gemm> = symbol(&self.library, "cublasDgemm_v2")?;
        let (one, zero) = (1.0, 0.0);
        let (operation, leading) = if transposed { (TRANSPOSED, n) } else { (PLAIN, k) };
        // SAFETY: the buffers have the sizes that the numbers say, and work on the device's stream is done in order.
        let status = unsafe {
            gemm(
                self.handle,
                PLAIN,
                operation,
                m,
                n,
                k,
                &raw const one,
                a.address(),
                m,
                b.address(),
                leading,
                &raw const zero,
                c.address(),
                m,
            )
        };
        check(&self.library, status)
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        if self.device.bind().is_err() {
            return;
        }
        if let Ok(destroy) = symbol::<unsafe extern "C" fn(Handle) -> c_int>(&self.library, "cublasDestroy_v2") {
            // SAFETY: nobody uses the handle any more. If cuBLAS objects there is nothing to do.
            unsafe { destroy(self.handle) };
        }
    }
}

impl fmt::Debug for Cublas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cublas").field("device", &self.device).finish_non_exhaustive()
    }
}

fn problem(problem: impl Into<String>) -> CudaError {
    CudaError::Library { library: "cuBLAS", problem: problem.into() }
}

fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, CudaError> {
    // SAFETY: the types given by the callers are those of cuBLAS's header.
    let symbol = unsafe { library.get(name.as_bytes()) };
    symbol.map_err(|_| problem(format!("it lacks {name}")))
}

fn check(library: &Library, status: c_int) -> Result<(), CudaError> {
    if status == 0 {
        return Ok(());
    }
    // Versions before 11.4 have no texts.
    let text = symbol::<unsafe extern "C" fn(c_int) -> *const c_char>(library, "cublasGetStatusString");
    Err(problem(match text {
        // SAFETY: it returns a constant text for any status.
        Ok(get) => unsafe { CStr::from_ptr(get(status)) }.to_string_lossy().into_owned(),
        Err(_) => format!("status {status}"),
    }))
}
