//! Modules and their kernels.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use tilewright_softgpu::Module;

use crate::code::{
    Code, FILE_NOT_FOUND, INVALID_HANDLE, INVALID_IMAGE, INVALID_PTX, INVALID_VALUE, NO_BINARY_FOR_GPU, NOT_FOUND,
    OUT_OF_MEMORY, SUCCESS,
};
use crate::context::put;
use crate::instead::replaced;
use crate::state::{Function, with};

/// Loads PTX text.
///
/// # Errors
/// The code, and the text that says why.
fn parse(image: &[u8]) -> Result<Module, (Code, String)> {
    if image.starts_with(b"\x7fELF") || image.starts_with(&[0x50, 0xed, 0x55, 0xba]) {
        return Err((NO_BINARY_FOR_GPU, "the software device runs PTX, this is machine code".into()));
    }
    let text = std::str::from_utf8(image).map_err(|e| (INVALID_IMAGE, e.to_string()))?;
    Module::parse(text).map_err(|e| (INVALID_PTX, e.to_string()))
}

/// # Safety
/// `image` must be a string that ends with a zero byte, or an ELF image.
unsafe fn load(out: *mut *mut c_void, image: *const c_char) -> Result<Code, (Code, String)> {
    if image.is_null() {
        return Err((INVALID_VALUE, "no image".into()));
    }
    // SAFETY: as the caller promises; an ELF image has a zero byte soon after its magic number.
    let bytes = unsafe { CStr::from_ptr(image) }.to_bytes();
    let module = replaced(bytes).map_or_else(|| parse(bytes), |other| parse(&other))?;
    Ok(with(|s| {
        let handle = s.handle();
        s.modules.insert(handle, module);
        // SAFETY: as the caller promises.
        unsafe { put(out, handle as *mut c_void) }
    }))
}

fn remember(text: &str) {
    with(|s| {
        text.clone_into(&mut s.fault);
        SUCCESS
    });
}

/// # Safety
/// `out` must be writable; `image` must be a string that ends with a zero byte, or an ELF image.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(out: *mut *mut c_void, image: *const c_char) -> Code {
    // SAFETY: as the caller promises.
    unsafe { load(out, image) }.unwrap_or_else(|(code, text)| {
        remember(&text);
        code
    })
}

/// `CU_JIT_ERROR_LOG_BUFFER` and its size, which gives the buffer's and receives the text's.
const ERROR_LOG: c_int = 5;
const ERROR_LOG_SIZE: c_int = 6;

/// # Safety
/// As [`cuModuleLoadData`]; `options` and `values` must have `count` entries, an error log's buffer as many bytes as said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    out: *mut *mut c_void,
    image: *const c_char,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> Code {
    // SAFETY: as the caller promises.
    let (code, text) = match unsafe { load(out, image) } {
        Ok(code) => return code,
        Err(failed) => failed,
    };
    remember(&text);
    let option = |wanted: c_int| {
        // SAFETY: the caller promises `count` entries.
        (0..count as usize).find(|&i| unsafe { options.add(i).read() } == wanted)
    };
    if let (Some(log), Some(size)) = (option(ERROR_LOG), option(ERROR_LOG_SIZE)) {
        // SAFETY: both indices are below `count`; the buffer has the size the caller gives beside it.
        unsafe {
            let (buffer, room) = (values.add(log).read().cast::<u8>(), values.add(size).read() as usize);
            let n = text.len().min(room.saturating_sub(1));
            if !buffer.is_null() && room > 0 {
                std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, n);
                buffer.add(n).write(0);
                values.add(size).write((n + 1) as *mut c_void);
            }
        }
    }
    code
}

/// # Safety
/// `out` must be writable, `path` a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(out: *mut *mut c_void, path: *const c_char) -> Code {
    // SAFETY: as the caller promises.
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    let Ok(mut image) = std::fs::read(path.as_ref()) else { return FILE_NOT_FOUND };
    image.push(0);
    // SAFETY: the image ends with a zero byte.
    unsafe { cuModuleLoadData(out, image.as_ptr().cast()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: *mut c_void) -> Code {
    with(|s| s.modules.remove(&(module as usize)).map_or(INVALID_HANDLE, |_| SUCCESS))
}

/// # Safety
/// `out` must be writable, `name` a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(out: *mut *mut c_void, module: *mut c_void, name: *const c_char) -> Code {
    // SAFETY: as the caller promises.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    with(|s| {
        let Some(module) = s.modules.get(&(module as usize)).cloned() else { return INVALID_HANDLE };
        if module.kernel(&name).is_none() {
            return NOT_FOUND;
        }
        let handle = s.handle();
        s.functions.insert(handle, Function { module, name, dynamic: 48 * 1024 });
        // SAFETY: as the caller promises.
        unsafe { put(out, handle as *mut c_void) }
    })
}

/// # Safety
/// `address` and `bytes` must be null or writable, `name` a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetGlobal_v2(
    address: *mut u64,
    bytes: *mut usize,
    module: *mut c_void,
    name: *const c_char,
) -> Code {
    // SAFETY: as the caller promises.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    with(|s| {
        let Some(module) = s.modules.get(&(module as usize)).cloned() else { return INVALID_HANDLE };
        match s.gpu.variable(&module, &name) {
            Ok(Some((at, size))) => {
                // SAFETY: as the caller promises; null is left alone.
                unsafe {
                    put(address, at);
                    put(bytes, size as usize);
                }
                SUCCESS
            }
            Ok(None) => NOT_FOUND,
            Err(_) => OUT_OF_MEMORY,
        }
    })
}

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`
const DYNAMIC: c_int = 8;

/// # Safety
/// `out` must be writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(out: *mut c_int, which: c_int, function: *mut c_void) -> Code {
    with(|s| {
        let Some(function) = s.functions.get(&(function as usize)) else { return INVALID_HANDLE };
        let Some(info) = function.module.kernel(&function.name) else { return INVALID_HANDLE };
        let value = match which {
            0 => info.max_threads as c_int,
            1 => info.shared_bytes as c_int,
            3 => info.local_bytes as c_int,
            4 => info.registers as c_int,
            5 | 6 => 80,
            DYNAMIC => function.dynamic,
            _ => 0,
        };
        // SAFETY: as the caller promises.
        unsafe { put(out, value) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: *mut c_void, which: c_int, value: c_int) -> Code {
    with(|s| {
        let limit = s.config.settings.shared_limit as c_int;
        let Some(function) = s.functions.get_mut(&(function as usize)) else { return INVALID_HANDLE };
        if which == DYNAMIC {
            let fixed = function.module.kernel(&function.name).map_or(0, |i| i.shared_bytes as c_int);
            if value < 0 || value > limit - fixed {
                return INVALID_VALUE;
            }
            function.dynamic = value;
        }
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetCacheConfig(_function: *mut c_void, _config: c_int) -> Code {
    SUCCESS
}
