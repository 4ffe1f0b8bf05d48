//! The test's side: finds the library and loads it so that cudarc will find it too.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};

/// The stand-in, loaded.
#[derive(Debug)]
pub struct Driver {
    library: Library,
}

/// Why it couldn't be loaded.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't load the software GPU's driver from {}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for LoadError {}

/// The library's file beside the current executable, in the folder above it, or in either's `deps`; those first, which cargo
/// keeps up to date also when the library is built for another crate.
pub fn find() -> Option<PathBuf> {
    let executable = std::env::current_exe().ok()?;
    let folders = executable.ancestors().skip(1).take(2);
    let places = folders.flat_map(|folder| [folder.join("deps"), folder.to_owned()]);
    places.map(|folder| folder.join("libcuda.so")).find(|file| file.is_file())
}

/// Loads the library by its full path, under whose name later requests for `libcuda.so` find it. Call it before the first
/// call into cudarc.
///
/// # Errors
/// If the file is missing, isn't a library, or isn't this one.
pub fn open(path: &Path) -> Result<Driver, LoadError> {
    let failed = |reason: String| LoadError { path: path.to_owned(), reason };
    // SAFETY: the library has no initialisers.
    let library = unsafe { Library::new(path) }.map_err(|e| failed(e.to_string()))?;
    // SAFETY: the symbol is only looked up.
    let known = unsafe { library.get::<unsafe extern "C" fn(*mut c_char, usize) -> usize>(b"softgpu_last_fault\0") };
    known.map(drop).map_err(|_| failed("it is another libcuda.so".into()))?;
    Ok(Driver { library })
}

impl Driver {
    /// The text of the last fault; empty if there was none.
    pub fn last_fault(&self) -> String {
        type Read = unsafe extern "C" fn(*mut c_char, usize) -> usize;
        // SAFETY: that is the function's type.
        let Ok(read) = (unsafe { self.library.get(b"softgpu_last_fault\0") }) else { return String::new() };
        let read: Symbol<'_, Read> = read;
        let mut buffer = vec![0u8; 4096];
        // SAFETY: the buffer has the size given.
        let length = unsafe { read(buffer.as_mut_ptr().cast(), buffer.len()) };
        buffer.truncate(length.min(4095));
        String::from_utf8_lossy(&buffer).into_owned()
    }

    /// Chooses the schedule of the launches to come.
    pub fn set_seed(&self, seed: u64) {
        type Set = unsafe extern "C" fn(u64);
        // SAFETY: that is the function's type.
        if let Ok(set) = unsafe { self.library.get::<Set>(b"softgpu_set_seed\0") } {
            // SAFETY: it may be called with any number.
            unsafe { set(seed) };
        }
    }

    /// Forgets the text of the last fault.
    pub fn forget_fault(&self) {
        type Forget = unsafe extern "C" fn() -> i32;
        // SAFETY: that is the function's type.
        if let Ok(forget) = unsafe { self.library.get::<Forget>(b"softgpu_forget_fault\0") } {
            // SAFETY: it asks for nothing.
            unsafe { forget() };
        }
    }

    /// From now on a module of the first text is loaded from the second; without them all are from their own again.
    pub fn load_instead(&self, texts: Option<(&CStr, &CStr)>) {
        type Load = unsafe extern "C" fn(*const c_char, *const c_char);
        let (text, instead) = texts.map_or((std::ptr::null(), std::ptr::null()), |(a, b)| (a.as_ptr(), b.as_ptr()));
        // SAFETY: that is the function's type.
        if let Ok(load) = unsafe { self.library.get::<Load>(b"softgpu_load_instead\0") } {
            // SAFETY: both are strings, or null.
            unsafe { load(text, instead) };
        }
    }
}
