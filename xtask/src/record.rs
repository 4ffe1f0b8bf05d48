//! What is kept beside each PTX file: a digest of what it was made from, one of itself, and the registers of its kernels.

use crate::digest::Digest;
use std::fmt::Write;

/// What a kernel needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) name: String,
    pub(crate) registers: u32,
    /// Bytes.
    pub(crate) spilt: u32,
}

/// What a record says.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// Digest of the texts, the options and the compiler.
    pub(crate) inputs: String,
    /// Digest of the PTX.
    pub(crate) ptx: String,
    /// What each kernel needs on each target.
    pub(crate) usages: Vec<(String, Usage)>,
}

impl Record {
    pub(crate) fn new(inputs: Digest, ptx: &str, usages: Vec<(String, Usage)>) -> Self {
        Self { inputs: inputs.to_string(), ptx: Digest::of(ptx).to_string(), usages }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("inputs {}\nptx {}\n", self.inputs, self.ptx);
        for (target, Usage { name, registers, spilt }) in &self.usages {
            // A string takes everything.
            let _ = writeln!(text, "{target} {name} {registers} {spilt}");
        }
        text
    }

    /// `None` if the text is no record.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let inputs = lines.next()?.strip_prefix("inputs ")?.to_owned();
        let ptx = lines.next()?.strip_prefix("ptx ")?.to_owned();
        let usage = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [target, name, registers, spilt] = words[..] else { return None };
            let usage = Usage { name: name.into(), registers: registers.parse().ok()?, spilt: spilt.parse().ok()? };
            Some((target.to_owned(), usage))
        };
        Some(Self { inputs, ptx, usages: lines.map(usage).collect::<Option<_>>()? })
    }
}

/// What the assembler's verbose report says of each kernel.
pub(crate) fn usage(log: &str) -> Vec<Usage> {
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
    fn the_report_is_understood_and_kept() {
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
        let usages = found.into_iter().map(|usage| ("sm_80".to_owned(), usage)).collect();
        let record = Record::new(Digest::of("source"), "ptx", usages);
        assert_eq!(Record::parse(&record.to_text()), Some(record));
        for text in ["", "inputs 0", "inputs 0\nptx 0\nsm_80 one 40", "inputs 0\nptx 0\nsm_80 one many 0"] {
            assert_eq!(Record::parse(text), None, "{text}");
        }
    }
}
