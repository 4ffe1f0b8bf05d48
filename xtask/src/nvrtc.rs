//! As much of NVRTC's interface as is needed, opened at run time.

use anyhow::{Context, Result, bail};
use libloading::{Library, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names of the library, the wanted version's first.
const NAMES: [&str; 2] = ["libnvrtc.so.12", "libnvrtc.so"];

type Program = *mut c_void;

/// The compiler.
pub(crate) struct Nvrtc {
    library: Library,
    /// Major and minor.
    pub(crate) version: (i32, i32),
}

/// What came of a compilation.
pub(crate) struct Compiled {
    /// PTX, for a virtual architecture.
    pub(crate) ptx: String,
    /// What compiler and assembler had to say.
    pub(crate) log: String,
}

impl Nvrtc {
    /// Opens the compiler.
    pub(crate) fn open() -> Result<Self> {
        let places = folders();
        let tried = places.iter().flat_map(|folder| NAMES.iter().map(move |name| folder.join(name)));
        let found = tried.clone().find_map(|path| {
            // The library finds its companion beside itself only if that is loaded already, in some versions.
            let companion = path.parent().and_then(builtins);
            // SAFETY: a compiler's library; loading it runs nothing of note.
            unsafe { Library::new(&path) }.ok().map(|library| (library, companion))
        });
        let Some((library, companion)) = found else {
            let tried: Vec<_> = tried.map(|path| path.display().to_string()).collect();
            bail!(
                "NVRTC not found: pip install nvidia-cuda-nvrtc-cu12==12.4.127, and activate that environment or let \
                 TILEWRIGHT_NVRTC name the folder; tried {}",
                tried.join(", ")
            );
        };
        // It stays loaded for as long as the process lives.
        std::mem::forget(companion);
        let (mut major, mut minor) = (0, 0);
        let get: Symbol<'_, unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> = symbol(&library, "nvrtcVersion")?;
        // SAFETY: it writes two integers.
        let status = unsafe { get(&raw mut major, &raw mut minor) };
        if status != 0 {
            bail!("NVRTC does not tell its version: status {status}");
        }
        Ok(Self { library, version: (major, minor) })
    }

    /// Compiles `source`, which may include `headers` by name.
    pub(crate) fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(String, String)],
        options: &[String],
    ) -> Result<Compiled> {
        let program = Handle::new(self, name, source, headers)?;
        let options: Vec<CString> = options.iter().map(|o| CString::new(o.as_str())).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let compile: Symbol<'_, unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int> =
            symbol(&self.library, "nvrtcCompileProgram")?;
        // SAFETY: the program exists, and as many options as are said.
        let status = unsafe { compile(program.raw, pointers.len() as c_int, pointers.as_ptr()) };
        let log = program.text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
        if status != 0 {
            bail!("{name} does not compile: {}\n{log}", self.message(status)?);
        }
        Ok(Compiled { ptx: program.text("nvrtcGetPTXSize", "nvrtcGetPTX").unwrap_or_default(), log })
    }

    fn message(&self, status: c_int) -> Result<String> {
        let get: Symbol<'_, unsafe extern "C" fn(c_int) -> *const c_char> =
            symbol(&self.library, "nvrtcGetErrorString")?;
        // SAFETY: it returns a constant text for any status.
        Ok(unsafe { CStr::from_ptr(get(status)) }.to_string_lossy().into_owned())
    }
}

/// A program of NVRTC's, destroyed at the end.
struct Handle<'a> {
    nvrtc: &'a Nvrtc,
    raw: Program,
}

type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;

impl<'a> Handle<'a> {
    fn new(nvrtc: &'a Nvrtc, name: &str, source: &str, headers: &[(String, String)]) -> Result<Self> {
        let (name, source) = (CString::new(name)?, CString::new(source)?);
        let texts: Vec<CString> = headers.iter().map(|(_, t)| CString::new(t.as_str())).collect::<Result<_, _>>()?;
        let names: Vec<CString> = headers.iter().map(|(n, _)| CString::new(n.as_str())).collect::<Result<_, _>>()?;
        let texts: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        let names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let create: Symbol<'_, Create> = symbol(&nvrtc.library, "nvrtcCreateProgram")?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: all texts end with NUL and outlive the call, which copies them; the lists are as long as is said.
        let status = unsafe {
            let (many, texts, names) = (headers.len() as c_int, texts.as_ptr(), names.as_ptr());
            create(&raw mut raw, source.as_ptr(), name.as_ptr(), many, texts, names)
        };
        if status != 0 {
            bail!("NVRTC: {}", nvrtc.message(status)?);
        }
        Ok(Self { nvrtc, raw })
    }

    /// A text that has one function for its size and another for itself.
    fn text(&self, size: &str, get: &str) -> Result<String> {
        let library = &self.nvrtc.library;
        let size: Symbol<'_, unsafe extern "C" fn(Program, *mut usize) -> c_int> = symbol(library, size)?;
        let get: Symbol<'_, unsafe extern "C" fn(Program, *mut c_char) -> c_int> = symbol(library, get)?;
        let mut bytes = 0;
        // SAFETY: the program exists; the function writes one number.
        let mut status = unsafe { size(self.raw, &raw mut bytes) };
        let mut text = vec![0u8; bytes];
        if status == 0 {
            // SAFETY: the text has the size that was asked for.
            status = unsafe { get(self.raw, text.as_mut_ptr().cast()) };
        }
        if status != 0 {
            bail!("NVRTC: {}", self.nvrtc.message(status)?);
        }
        Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').into())
    }
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        let destroy = symbol::<unsafe extern "C" fn(*mut Program) -> c_int>(&self.nvrtc.library, "nvrtcDestroyProgram");
        if let Ok(destroy) = destroy {
            // SAFETY: the program exists, and nobody uses it any more.
            unsafe { destroy(&raw mut self.raw) };
        }
    }
}

fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>> {
    // SAFETY: the types given by the callers are those of NVRTC's header.
    unsafe { library.get(name.as_bytes()) }.with_context(|| format!("NVRTC lacks {name}"))
}

/// Where the library may lie: the folder that TILEWRIGHT_NVRTC names and no other; or a Python environment's, then
/// wherever the loader looks by itself.
fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("TILEWRIGHT_NVRTC") {
        return vec![PathBuf::from(folder)];
    }
    let list = "import nvidia, os\nfor p in nvidia.__path__:\n  for d in sorted(os.listdir(p)):\n    \
                l = os.path.join(p, d, 'lib')\n    if os.path.isdir(l): print(l)";
    let output = ["python3", "python"].iter().find_map(|python| {
        let output = Command::new(python).args(["-c", list]).output().ok()?;
        output.status.success().then_some(output.stdout)
    });
    let listed = String::from_utf8_lossy(&output.unwrap_or_default()).lines().map(PathBuf::from).collect::<Vec<_>>();
    let has = |folder: &PathBuf| NAMES.iter().any(|name| folder.join(name).exists());
    listed.into_iter().filter(has).chain([PathBuf::new()]).collect()
}

/// Loads the companion library that lies in this folder.
fn builtins(folder: &Path) -> Option<Library> {
    let name =
        |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("libnvrtc-builtins.so"));
    let path = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find(name)?;
    // SAFETY: as for the compiler's library.
    unsafe { Library::new(path) }.ok()
}
