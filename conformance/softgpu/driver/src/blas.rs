//! A stand-in for the few entry points of cuBLAS that programs of this project call: matrix products in double precision,
//! done on the host over the software device's memory, with its bounds.

use std::ffi::{CStr, c_char, c_int, c_void};

use tilewright_softgpu::{Gpu, MemoryError};

use crate::code::SUCCESS;
use crate::state::{lock, with};

/// `cublasStatus_t`
type Status = c_int;
const OK: Status = 0;
const NOT_INITIALIZED: Status = 1;
const INVALID_VALUE: Status = 7;
const EXECUTION_FAILED: Status = 13;

/// # Safety
/// `handle` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut *mut c_void) -> Status {
    let mut number = 0;
    let code = with(|s| {
        number = s.handle();
        SUCCESS
    });
    if code != SUCCESS || handle.is_null() {
        return NOT_INITIALIZED;
    }
    // SAFETY: as the caller promises.
    unsafe { handle.write(std::ptr::without_provenance_mut(number)) };
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasDestroy_v2(_handle: *mut c_void) -> Status {
    OK
}

/// Work is done when it is asked for, whatever the stream.
#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(_handle: *mut c_void, _stream: *mut c_void) -> Status {
    OK
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasGetStatusString(status: Status) -> *const c_char {
    let text: &CStr = match status {
        OK => c"CUBLAS_STATUS_SUCCESS",
        NOT_INITIALIZED => c"CUBLAS_STATUS_NOT_INITIALIZED",
        INVALID_VALUE => c"CUBLAS_STATUS_INVALID_VALUE",
        EXECUTION_FAILED => c"CUBLAS_STATUS_EXECUTION_FAILED",
        _ => c"unknown error",
    };
    text.as_ptr()
}

/// A matrix whose columns begin `leading` numbers apart.
struct Matrix {
    numbers: Vec<f64>,
    leading: usize,
    transposed: bool,
}

impl Matrix {
    /// Reads a matrix of `columns` columns of `rows` numbers; `transposed`, its transpose is meant.
    fn read(gpu: &Gpu, at: u64, rows: usize, columns: usize, leading: usize, op: c_int) -> Result<Self, MemoryError> {
        // The last column ends with its last number.
        let length = if columns == 0 { 0 } else { (columns - 1) * leading + rows };
        let bytes = gpu.read(at, 8 * length as u64)?;
        let numbers = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Ok(Self { numbers, leading, transposed: op != 0 })
    }

    fn get(&self, row: usize, column: usize) -> f64 {
        let (row, column) = if self.transposed { (column, row) } else { (row, column) };
        self.numbers[column * self.leading + row]
    }
}

/// `C ← α op(A) op(B) + β C`
///
/// # Safety
/// `alpha` and `beta` must be readable.
#[allow(clippy::many_single_char_names)] // they are the standard's
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasDgemm_v2(
    _handle: *mut c_void,
    op_a: c_int,
    op_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const f64,
    a: u64,
    lda: c_int,
    b: u64,
    ldb: c_int,
    beta: *const f64,
    c: u64,
    ldc: c_int,
) -> Status {
    let sizes = [m, n, k, lda, ldb, ldc].map(usize::try_from);
    let [Ok(m), Ok(n), Ok(k), Ok(lda), Ok(ldb), Ok(ldc)] = sizes else { return INVALID_VALUE };
    let shape = |op: c_int, rows: usize, columns: usize| if op == 0 { (rows, columns) } else { (columns, rows) };
    let ((rows_a, columns_a), (rows_b, columns_b)) = (shape(op_a, m, k), shape(op_b, k, n));
    if lda < rows_a.max(1) || ldb < rows_b.max(1) || ldc < m.max(1) || alpha.is_null() || beta.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: as the caller promises.
    let (alpha, beta) = unsafe { (*alpha, *beta) };
    let mut state = lock();
    let Some(state) = state.as_mut() else { return NOT_INITIALIZED };
    let mut run = || -> Result<(), MemoryError> {
        let a = Matrix::read(&state.gpu, a, rows_a, columns_a, lda, op_a)?;
        let b = Matrix::read(&state.gpu, b, rows_b, columns_b, ldb, op_b)?;
        let old = Matrix::read(&state.gpu, c, m, n, ldc, 0)?;
        for column in 0..n {
            let values = (0..m).map(|row| {
                let sum: f64 = (0..k).map(|i| a.get(row, i) * b.get(i, column)).sum();
                // What is not asked for is not read, be it NaN.
                alpha * sum + if beta == 0.0 { 0.0 } else { beta * old.get(row, column) }
            });
            let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
            state.gpu.write(c + 8 * (column * ldc) as u64, &bytes)?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => OK,
        Err(e) => {
            state.fault = e.to_string();
            EXECUTION_FAILED
        }
    }
}
