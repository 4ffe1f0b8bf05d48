//! The CPU compressor behind the `--cmd` protocol: what a program on trial looks like in Rust, and, for the tests of the
//! trial itself, a program that breaks the protocol in every way on request.
//!
//! ```text
//! assay run --family compression --cmd 'target/release/examples/echo_compressor'              an honest subject
//! assay run --family compression --cmd 'target/release/examples/echo_compressor overwrites'   one that adds no ranks up
//! echo_compressor crash                                                                       ends on its first request
//! ```

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use tilewright_compression::message::{unpack, word};
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Memory, Message, Reduction, Step,
};
use tilewright_conformance::compression::file::{self, List, Lists};
use tilewright_conformance::compression::wire::from_json;
use tilewright_cpu::CpuCompressor;

fn main() -> Result<(), Box<dyn Error>> {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let mut profile = json!({"name": "echo", "version": "1.0", "family": "compression", "deterministic": false});
    if fault == "top-k-only" {
        profile["selectors"] = json!(["top-k"]);
        profile["supports"] = json!(["compact", "residual", "no-feedback", "steps", "ranks"]);
    }
    say(&profile)?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        if fault == "crash" {
            eprintln!("boom: the table is gone");
            std::process::exit(3);
        }
        let answer = match request["op"].as_str() {
            Some("compress") => compress(&request, &fault),
            Some("decompress") => decompress(&request, &fault),
            _ => Err("op: expected compress or decompress".into()),
        };
        say(&answer.unwrap_or_else(|error| json!({"error": error.to_string()})))?;
    }
    Ok(())
}

fn say(reply: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{reply}")?;
    out.flush()
}

fn text<'a>(request: &'a Value, key: &str) -> Result<&'a str, String> {
    request[key].as_str().ok_or_else(|| format!("{key}: missing"))
}

fn compress(request: &Value, fault: &str) -> Result<Value, Box<dyn Error>> {
    let mut inputs = file::read(text(request, "inputs")?)?;
    let gradient = file::numbers(&mut inputs, "gradient")?;
    let spec: CompressionSpec = from_json(&request["spec"], gradient.len())?;
    let mut memory: Memory = file::memory_of(&spec, &mut inputs, false)?;
    let number = request["step"].as_u64().ok_or("step: expected a count")?;
    let scale = request["scale"].as_f64().ok_or("scale: expected a finite number")? as f32;
    let mut message = Message::default();
    let step = Step { number, scale };
    match CpuCompressor::default().compress(&spec, step, &gradient, &mut memory, &mut message) {
        Ok(()) => {}
        Err(CompressionError::NonFinite { index, .. }) => return Ok(json!({"ok": true, "refused": index})),
        Err(error) => return Err(error.into()),
    }
    let mut outputs: Lists = file::message(&message.words).into_iter().chain(file::memory(&memory)).collect();
    match fault {
        "float-indices" => {
            let indices = message.words.iter().map(|word| unpack(*word).0 as f32).collect();
            outputs.insert("indices".into(), List::F32(indices));
        }
        "no-values" => drop(outputs.remove("values")),
        "no-velocity" => drop(outputs.remove("velocity")),
        "refuses" => return Ok(json!({"ok": true, "refused": 0})),
        "refuses-nonsense" => return Ok(json!({"ok": true, "refused": "all of it"})),
        "no-file" => return Ok(json!({"ok": true})),
        _ => {}
    }
    file::write(text(request, "outputs")?, &outputs, BTreeMap::new())?;
    Ok(json!({"ok": true}))
}

fn decompress(request: &Value, fault: &str) -> Result<Value, Box<dyn Error>> {
    let mut inputs = file::read(text(request, "inputs")?)?;
    let words = file::words(&mut inputs)?;
    let Some(List::U32(starts)) = inputs.remove("starts") else { return Err("tensor starts: missing".into()) };
    let len = request["len"].as_u64().ok_or("len: expected a count")? as usize;
    let reduction = if text(request, "reduction")? == "mean" { Reduction::Mean } else { Reduction::Sum };
    let messages: Vec<&[u64]> = starts.windows(2).map(|ends| &words[ends[0] as usize..ends[1] as usize]).collect();
    let mut out = vec![0.0; len];
    CpuCompressor::default().decompress(&messages, reduction, &mut out)?;
    if fault == "overwrites" {
        out.fill(0.0);
        for (i, x) in words.iter().map(|word| unpack(*word)) {
            out[i as usize] = if reduction == Reduction::Mean { x / messages.len() as f32 } else { x };
        }
    }
    if fault == "short" {
        out.pop();
    }
    let mut outputs = Lists::from([("out".to_string(), List::F32(out))]);
    if fault == "extra" {
        outputs.extend(file::message(&[word(0, 1.0)]));
    }
    file::write(text(request, "outputs")?, &outputs, BTreeMap::new())?;
    Ok(json!({"ok": true}))
}
