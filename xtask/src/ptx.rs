//! `cargo xtask ptx`.
//!
//! A file of kernels may begin with lines that this program reads:
//!
//! ```text
//! //! options --fmad=false            options for the compiler
//! //! registers 128                   no kernel of the file needs more of them
//! //! registers NAME 255              but this one may
//! ```

use crate::nvrtc::Nvrtc;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The compiler that the committed PTX is made with: its PTX asks for a driver of CUDA 12.4 or later.
const VERSION: (i32, i32) = (12, 4);
/// What the PTX is for: every GPU from this capability on.
const VIRTUAL: &str = "compute_80";
/// What kernels are assembled for to see their registers.
const REAL: [&str; 2] = ["sm_80", "sm_90a"];
/// Registers of a kernel whose file says nothing.
const REGISTERS: u32 = 128;

/// A file of kernels.
struct Source {
    name: String,
    text: String,
    options: Vec<String>,
    registers: u32,
    exceptions: Vec<(String, u32)>,
}

/// Compiles every file whose name begins with `only`; with `check`, compares and looks at registers instead of writing.
pub(crate) fn run(check: bool, only: &str) -> Result<()> {
    let cuda = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda");
    let nvrtc = Nvrtc::open()?;
    ensure!(
        nvrtc.version == VERSION,
        "NVRTC: got {}.{}, expected {}.{}",
        nvrtc.version.0,
        nvrtc.version.1,
        VERSION.0,
        VERSION.1
    );
    let headers = read(&cuda.join("kernels"), "cuh")?;
    let mut wrong = Vec::new();
    for (file, text) in read(&cuda.join("kernels"), "cu")? {
        let source = Source::new(&file, text)?;
        if !source.name.starts_with(only) {
            continue;
        }
        let ptx = source.compile(&nvrtc, &headers, VIRTUAL)?.0;
        let path = cuda.join("ptx").join(format!("{}.ptx", source.name));
        if !check {
            fs::write(&path, ptx).with_context(|| format!("writing {}", path.display()))?;
            println!("{}", source.name);
            continue;
        }
        if fs::read_to_string(&path).ok().as_deref() != Some(&ptx) {
            wrong.push(format!("{file}: the committed PTX is not what the source gives; run `cargo xtask ptx`"));
        }
        for target in REAL {
            let (_, log) = source.compile(&nvrtc, &headers, target)?;
            let kernels = usage(&log);
            ensure!(!kernels.is_empty(), "{file}: the assembler says nothing about any kernel\n{log}");
            for kernel in kernels {
                println!("{target} {:44} {:3} registers, {} bytes spilt", kernel.name, kernel.registers, kernel.spilt);
                wrong.extend(source.objection(&kernel).map(|objection| format!("{file}, {target}: {objection}")));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The files of a folder with this ending, in order of their names.
fn read(folder: &Path, ending: &str) -> Result<Vec<(String, String)>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    let named = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok((name, fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?))
    };
    paths.iter().map(named).collect()
}

impl Source {
    fn new(file: &str, text: String) -> Result<Self> {
        let name = file.trim_end_matches(".cu").to_owned();
        let mut source = Self { name, text, options: Vec::new(), registers: REGISTERS, exceptions: Vec::new() };
        for line in source.text.lines().map_while(|line| line.strip_prefix("//! ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["options", ref options @ ..] => source.options.extend(options.iter().map(|&option| option.into())),
                ["registers", most] => source.registers = most.parse()?,
                ["registers", kernel, most] => source.exceptions.push((kernel.into(), most.parse()?)),
                _ => bail!("{file}: got the line {line}, expected options or registers"),
            }
        }
        Ok(source)
    }

    /// PTX and log.
    fn compile(&self, nvrtc: &Nvrtc, headers: &[(String, String)], target: &str) -> Result<(String, String)> {
        let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".into()];
        if target.starts_with("sm_") {
            options.push("--ptxas-options=-v".into());
        }
        options.extend(self.options.iter().cloned());
        let compiled = nvrtc.compile(&format!("{}.cu", self.name), &self.text, headers, &options)?;
        Ok((compiled.ptx, compiled.log))
    }

    fn objection(&self, kernel: &Usage) -> Option<String> {
        let exception = self.exceptions.iter().find(|(name, _)| *name == kernel.name);
        let most = exception.map_or(self.registers, |(_, most)| *most);
        match kernel {
            Usage { name, spilt, .. } if *spilt > 0 => Some(format!("{name} spills {spilt} bytes")),
            Usage { name, registers, .. } if *registers > most => {
                Some(format!("{name} needs {registers} registers, expected at most {most}"))
            }
            _ => None,
        }
    }
}

/// What a kernel needs.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    name: String,
    registers: u32,
    spilt: u32,
}

/// What the assembler's verbose report says of each kernel.
fn usage(log: &str) -> Vec<Usage> {
    let mut kernels: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Usage { name, ..Usage::default() });
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        for what in ["bytes spill stores", "bytes spill loads"] {
            kernel.spilt += before(line, what).unwrap_or(0);
        }
        if let Some(registers) = before(line, "registers") {
            kernel.registers = registers;
        }
    }
    kernels
}

/// The number before a word.
fn before(line: &str, what: &str) -> Option<u32> {
    line.split_once(what)?.0.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_understood() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
                   ptxas info    : Function properties for one\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 40 registers, 400 bytes cmem[0]\n\
                   ptxas info    : Compiling entry function 'two' for 'sm_80'\n\
                   ptxas info    : Used 17 registers, 384 bytes cmem[0]\n";
        let found = usage(log);
        let expected = [("one", 40, 16), ("two", 17, 0)];
        assert_eq!(found, expected.map(|(name, registers, spilt)| Usage { name: name.into(), registers, spilt }));
        let source = Source::new("x.cu", "//! registers 20\n//! registers one 30\nint x;\n".into()).expect("valid");
        assert_eq!(source.objection(&found[0]).as_deref(), Some("one spills 16 bytes"));
        assert_eq!(source.objection(&found[1]), None);
        let greedy = Usage { name: "one".into(), registers: 31, spilt: 0 };
        assert_eq!(source.objection(&greedy).as_deref(), Some("one needs 31 registers, expected at most 30"));
    }
}
