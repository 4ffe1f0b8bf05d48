//! The Rust side of `peers/compression.py`: runs the kernel that each line of the standard input names, once, and answers
//! with its time as a line of JSON.
//!
//! ```text
//! compression_peer FILE LEN DENSITY
//! ```
//!
//! `FILE` holds `LEN` little-endian `f32`; where there is none, one is written.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use tilewright_benches::compression::{Kernel, Workload, gradient};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, len, density] = &arguments[..] else {
        return Err("usage: compression_peer FILE LEN DENSITY".into());
    };
    let mut workload = Workload::new(read_or_write(Path::new(file), len.parse()?)?, density.parse()?);
    let names = Kernel::ALL.map(|kernel| format!("\"{}\"", kernel.name())).join(",");
    answer(&format!("{{\"aim\":{},\"kernels\":[{names}]}}", workload.aim()))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let kernel = Kernel::ALL.into_iter().find(|kernel| kernel.name() == line).ok_or("no such kernel")?;
        let time = workload.time(kernel).as_secs_f64() * 1e3;
        answer(&format!("{{\"kernel\":\"{line}\",\"ms\":{time:.6},\"sent\":{}}}", workload.sent()))?;
    }
    Ok(())
}

fn answer(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn read_or_write(file: &Path, len: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    if !file.exists() {
        let values = gradient(len);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(file, bytes)?;
        return Ok(values);
    }
    let bytes = std::fs::read(file)?;
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    if values.len() == len {
        Ok(values)
    } else {
        Err(format!("{} holds {} values", file.display(), values.len()).into())
    }
}
