//! A file of kernels and what it is compiled with.
//!
//! It may begin with lines that this program reads:
//!
//! ```text
//! //! options --fmad=false            options for the compiler
//! //! registers 128                   no kernel of the file needs more of them
//! //! registers NAME 255              but this one may
//! ```

use crate::digest::Digest;
use crate::nvrtc::Nvrtc;
use crate::record::Usage;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The compiler that the committed PTX is made with: its PTX asks for a driver of CUDA 12.4 or later.
pub(crate) const VERSION: (i32, i32) = (12, 4);
/// What the PTX is for: every GPU from this capability on.
pub(crate) const VIRTUAL: &str = "compute_80";
/// What kernels are assembled for to see their registers.
pub(crate) const REAL: [&str; 2] = ["sm_80", "sm_90a"];
/// Registers of a kernel whose file says nothing.
const REGISTERS: u32 = 128;

/// A file of kernels.
pub(crate) struct Source {
    pub(crate) name: String,
    text: String,
    /// The files it includes, and those that they include.
    headers: Vec<(String, String)>,
    options: Vec<String>,
    registers: u32,
    exceptions: Vec<(String, u32)>,
}

impl Source {
    /// All of `cuda/kernels`, in order of their names.
    pub(crate) fn all(cuda: &Path) -> Result<Vec<Self>> {
        let headers = read(&cuda.join("kernels"), "cuh")?;
        read(&cuda.join("kernels"), "cu")?.into_iter().map(|(file, text)| Self::new(&file, text, &headers)).collect()
    }

    pub(crate) fn new(file: &str, text: String, headers: &[(String, String)]) -> Result<Self> {
        let name = file.trim_end_matches(".cu").to_owned();
        let headers = included(&text, headers);
        let mut source =
            Self { name, text, headers, options: Vec::new(), registers: REGISTERS, exceptions: Vec::new() };
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
    pub(crate) fn compile(&self, nvrtc: &Nvrtc, target: &str) -> Result<(String, String)> {
        let file = format!("{}.cu", self.name);
        let compiled = nvrtc.compile(&file, &self.text, &self.headers, &self.options_for(target))?;
        Ok((compiled.ptx, compiled.log))
    }

    fn options_for(&self, target: &str) -> Vec<String> {
        let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".into()];
        if target.starts_with("sm_") {
            options.push("--ptxas-options=-v".into());
        }
        options.extend(self.options.iter().cloned());
        options
    }

    /// Of everything that the PTX is made from: the texts, the options, the compiler.
    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        digest.add(&format!("NVRTC {}.{}", VERSION.0, VERSION.1));
        digest.add(&self.options_for(VIRTUAL).join(" "));
        for (name, text) in self.headers.iter().chain([&(self.name.clone(), self.text.clone())]) {
            digest.add(name);
            digest.add(text);
        }
        digest
    }

    /// What is wrong with a kernel's needs.
    pub(crate) fn objection(&self, kernel: &Usage) -> Option<String> {
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

/// Those of the headers that a text includes, in the order they are met.
fn included(text: &str, headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut texts = vec![text];
    while let Some(text) = texts.pop() {
        let names = text.lines().filter_map(|line| line.strip_prefix("#include \"")?.strip_suffix('"'));
        for header in names.filter_map(|name| headers.iter().find(|(header, _)| header == name)) {
            if !found.contains(header) {
                found.push(header.clone());
                texts.push(&header.1);
            }
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_all_that_it_includes_make_the_digest() {
        let header = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let text = "//! options --fmad=false\n#include \"a.cuh\"\n";
        let digest = |text: &str, b: &str, c: &str| {
            let headers = [header("a.cuh", "#include \"b.cuh\"\n"), header("b.cuh", b), header("c.cuh", c)];
            Source::new("x.cu", text.into(), &headers).expect("valid").digest().to_string()
        };
        let one = digest(text, "int b;", "int c;");
        assert_eq!(digest(text, "int b;", "int other;"), one);
        assert_ne!(digest(text, "int other;", "int c;"), one);
        assert_ne!(digest("//! options --fmad=true\n#include \"a.cuh\"\n", "int b;", "int c;"), one);
        assert_ne!(digest(&format!("{text}int x;\n"), "int b;", "int c;"), one);
    }

    #[test]
    fn ceilings_are_read_and_held() {
        let source = Source::new("x.cu", "//! registers 20\n//! registers one 30\nint x;\n".into(), &[]);
        let source = source.expect("valid");
        let objection = |name: &str, registers, spilt| source.objection(&Usage { name: name.into(), registers, spilt });
        assert_eq!(objection("one", 30, 16).as_deref(), Some("one spills 16 bytes"));
        assert_eq!(objection("two", 20, 0), None);
        assert_eq!(objection("two", 21, 0).as_deref(), Some("two needs 21 registers, expected at most 20"));
        assert_eq!(objection("one", 31, 0).as_deref(), Some("one needs 31 registers, expected at most 30"));
        assert!(Source::new("x.cu", "//! nonsense\n".into(), &[]).is_err());
    }
}
