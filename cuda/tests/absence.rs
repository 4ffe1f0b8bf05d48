//! Machines where something is lacking, each a process of its own: an error with its text and an exit code, never a
//! panic. The program is `examples/devices.rs`, built so that a panic would be the end of it; the drivers are stand-ins
//! made for the occasion.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tilewright_cuda::CudaError;

/// Where this test's own files go.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("absence").join(name);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Compiles; `None` where there is no compiler, as where this test was carried to.
fn compile(source: &Path, to: &Path, options: &[&str]) -> Option<()> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(compiler);
    command.arg(source).arg("-o").arg(to).args(["--edition", "2024", "-C", "panic=abort"]).args(options);
    match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped 1: no compiler");
            None
        }
        output => {
            let output = output.expect("the compiler runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
    }
}

/// The example, in which every panic aborts. It is linked with this crate as the tests are.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let this = std::env::current_exe().expect("the name of this program");
        let built = this.parent().expect("a folder");
        let library = |path: &PathBuf| {
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("libtilewright_cuda-") && path.extension().is_some_and(|ending| ending == "rlib")
        };
        let files = fs::read_dir(built).expect("a folder").flatten().map(|entry| entry.path());
        let newest = files.filter(library).max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok());
        let library = newest.expect("the library that the tests use");
        let to = folder("program").join("devices");
        let external = format!("tilewright_cuda={}", library.display());
        let search = format!("dependency={}", built.display());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/devices.rs");
        compile(&source, &to, &["--extern", &external, "-L", &search]).map(|()| to)
    };
    PROGRAM.get_or_init(build).as_deref()
}

/// The entry points that have to be there.
fn symbols() -> Vec<&'static str> {
    let names = include_str!("../src/probe.rs").split('"').filter(|name| name.starts_with("cu"));
    let mut names: Vec<&str> = names.filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_')).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A library that answers to the driver's name: each entry point but these returns 100, "no device", and the version is
/// this one.
fn stand_in(name: &str, version: i32, without: &[&str]) -> Option<PathBuf> {
    let folder = folder(name);
    let mut source =
        String::from("#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }\n");
    for symbol in symbols().iter().filter(|symbol| !without.contains(symbol)) {
        let body = match *symbol {
            "cuDriverGetVersion" => format!("(out: *mut i32) -> i32 {{ unsafe {{ *out = {version} }}; 0 }}"),
            _ => "() -> i32 { 100 }".into(),
        };
        writeln!(source, "#[unsafe(no_mangle)]\npub unsafe extern \"C\" fn {symbol}{body}").expect("a string grows");
    }
    let file = folder.join("stand_in.rs");
    fs::write(&file, source).expect("a file");
    compile(&file, &folder.join("libcuda.so"), &["--crate-type", "cdylib", "-O", "-A", "warnings"])?;
    Some(folder)
}

/// What the program does where the loader looks in this folder first.
fn run(drivers: Option<&Path>) -> Option<Output> {
    let mut command = Command::new(program()?);
    command.env_remove("TILEWRIGHT_SOFTGPU");
    if let Some(drivers) = drivers {
        command.env("LD_LIBRARY_PATH", drivers);
    }
    Some(command.output().expect("it runs"))
}

/// One line on standard error, and exit code 1: a panic that aborts would be a signal.
fn says(output: &Output, line: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((text.trim_end(), output.status.code()), (line, Some(1)));
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_driver() {
    // Where there is a real driver, it is that one which answers.
    if tilewright_cuda::probe() == Err(CudaError::DriverMissing)
        && let Some(output) = run(None)
    {
        let line = "no NVIDIA driver: libcuda.so.1 could not be loaded; install the driver, or put its folder on \
                    LD_LIBRARY_PATH (in a container: start it with the NVIDIA runtime)";
        says(&output, line);
    }
}

#[test]
fn with_a_driver_without_a_device() {
    let Some(drivers) = stand_in("no_device", 12040, &[]) else { return };
    let Some(output) = run(Some(&drivers)) else { return };
    says(&output, "no CUDA device: the NVIDIA driver is there, but it reports no device");
}

#[test]
fn with_a_driver_that_is_too_old() {
    for (version, text) in [(11080, "11.8"), (12030, "12.3")] {
        let Some(drivers) = stand_in(&format!("version_{version}"), version, &[]) else { return };
        let Some(output) = run(Some(&drivers)) else { return };
        says(&output, &format!("NVIDIA driver: got one for CUDA {text}, expected 12.4 or later"));
    }
}

/// cudarc would panic at the first of these that it needs, which may be long after the start.
#[test]
fn with_a_driver_that_lacks_an_entry_point() {
    assert_eq!(symbols().len(), 34);
    for symbol in ["cuDriverGetVersion", "cuInit", "cuMemFreeAsync", "cuLaunchCooperativeKernel"] {
        let Some(drivers) = stand_in(&format!("without_{symbol}"), 12040, &[symbol]) else { return };
        let Some(output) = run(Some(&drivers)) else { return };
        let line = format!("the NVIDIA driver lacks {symbol}; what was loaded as libcuda is no driver, or far too old");
        says(&output, &line);
    }
}

#[test]
fn with_something_that_is_no_library() {
    let folder = folder("no_library");
    fs::write(folder.join("libcuda.so"), "not a library").expect("a file");
    if tilewright_cuda::probe() == Err(CudaError::DriverMissing)
        && let Some(output) = run(Some(&folder))
    {
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("no NVIDIA driver: "), "{output:?}");
        assert_eq!(output.status.code(), Some(1));
    }
}

/// The software driver plays all of these, too, and a device that is too old.
#[test]
fn with_the_software_driver() {
    let Some(path) = std::env::var_os("TILEWRIGHT_SOFTGPU_LIB") else {
        return eprintln!("skipped 1: no software driver");
    };
    let lines = [
        ("devices=0", "no CUDA device: the NVIDIA driver is there, but it reports no device"),
        ("driver=12020", "NVIDIA driver: got one for CUDA 12.2, expected 12.4 or later"),
        ("capability=7.5", "compute capability of device 0: got 7.5, expected 8.0 or later"),
    ];
    let run = |setting: &str| {
        let drivers = Path::new(&path).parent()?;
        let command = &mut Command::new(program()?);
        Some(command.env("LD_LIBRARY_PATH", drivers).env("TILEWRIGHT_SOFTGPU", setting).output().expect("it runs"))
    };
    for (setting, line) in lines {
        let Some(output) = run(setting) else { return };
        says(&output, line);
    }
    let Some(output) = run("seed=0") else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "0: Tilewright software GPU, compute capability 9.0, 4 multiprocessors, driver for CUDA 12.4\n");
}
