//! The CPU backend behind the `--cmd` protocol: what a program on trial looks like in Rust, and, for the tests of the
//! trial itself, a program that breaks the protocol in every way on request.
//!
//! ```text
//! assay run --cmd 'target/release/examples/echo_subject'                  an honest subject
//! assay run --cmd 'target/release/examples/echo_subject scale=1.01'       one with a wrong scale
//! echo_subject crash=2                                                    ends on its second request
//! ```

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Duration;
use tilewright_attention::Format;
use tilewright_conformance::attention::file;
use tilewright_conformance::attention::in_process::InProcess;
use tilewright_conformance::attention::wire::{Shapes, from_json};
use tilewright_conformance::attention::{Profile, Request, Subject};
use tilewright_conformance::{Tensor, Tensors};
use tilewright_cpu::{Bf16Products, CpuAttention};

/// What to do wrong, `FAULT=NUMBER`, and at which request (from 1) for those that strike once.
struct Mode {
    fault: String,
    number: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1).unwrap_or_default();
    let (fault, number) = argument.split_once('=').unwrap_or((&argument, "1"));
    let mode = Mode { fault: fault.into(), number: number.parse()? };
    let formats = [Format::F32, Format::F64, Format::F16, Format::BF16];
    // What it declares is that nothing is rounded on the way: so not the products that some machines have for `bf16`.
    let method = CpuAttention::default().with_bf16_products(Bf16Products::Widened);
    let tile = method.contract(Format::F32).tile;
    let mut subject = InProcess::new(method, Profile::new("echo", "1.0", &formats));
    let contract: BTreeMap<&str, Value> =
        formats.iter().map(|format| (format.name, json!({"tile": tile, "exp_error": 8}))).collect();
    let names: Vec<&str> = formats.iter().map(|format| format.name).collect();
    say(&json!({"name": "echo", "version": "1.0", "formats": names, "contract": contract}))?;
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let request: Value = serde_json::from_str(&line?)?;
        if (n + 1) as f64 == mode.number {
            strike(&mode.fault);
        }
        match answer(&mut subject, &request, &mode) {
            Ok(reply) => say(&reply)?,
            Err(error) => say(&json!({"error": error.to_string()}))?,
        }
        if mode.fault == "twice" {
            say(&json!({"ok": true}))?;
        }
    }
    Ok(())
}

fn say(reply: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{reply}")?;
    out.flush()
}

/// Faults that leave no answer.
fn strike(fault: &str) {
    match fault {
        "crash" => {
            eprintln!("first words\nboom: the kernel is gone\n");
            std::process::exit(3);
        }
        "hang" => std::thread::sleep(Duration::from_secs(1000)),
        _ => {}
    }
}

fn answer(subject: &mut InProcess<CpuAttention>, request: &Value, mode: &Mode) -> Result<Value, Box<dyn Error>> {
    let text = |key: &str| request[key].as_str().ok_or_else(|| format!("{key}: missing"));
    let (inputs, _) = file::read(text("inputs")?)?;
    let shape = |name: &str| -> Result<[usize; 4], Box<dyn Error>> {
        Ok(inputs.get(name).ok_or_else(|| format!("tensor {name}: missing"))?.shape().try_into()?)
    };
    let shapes = Shapes { q: shape("q")?, k: shape("k")?, v: shape("v")? };
    let mut spec = from_json(&request["spec"], &shapes)?;
    if mode.fault == "scale" {
        spec.scale *= mode.number;
    }
    let wanted: Vec<&str> = request["want"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = ["o", "lse", "d_q", "d_k", "d_v", "d_bias", "d_sink"];
    let want: Vec<&'static str> = known.into_iter().filter(|name| wanted.contains(name)).collect();
    let layout = tilewright_conformance::attention::Layout::Contiguous;
    let outputs = subject.run(&Request { id: text("case")?, spec: &spec, inputs: &inputs, layout, want: &want })?;
    write(Path::new(text("outputs")?), outputs, mode)
}

/// Writes the outputs, or something else.
fn write(path: &Path, mut outputs: Tensors, mode: &Mode) -> Result<Value, Box<dyn Error>> {
    let notes = BTreeMap::new();
    match mode.fault.as_str() {
        "no-file" => return Ok(json!({"ok": true})),
        "corrupt" => std::fs::write(path, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}")?,
        "truncated" => {
            let bytes = file::to_bytes(&outputs, notes).map_err(|problem| problem.to_string())?;
            std::fs::write(path, &bytes[..bytes.len() - 1])?;
        }
        "flat" => {
            let flat = outputs.iter().map(|(name, tensor)| {
                Tensor::from_f64(tensor.format(), &[tensor.len()], &tensor.to_f64()).map(|flat| (name.clone(), flat))
            });
            file::write(path, &flat.collect::<Result<Tensors, _>>()?, notes)?;
        }
        "only-lse" | "no-lse" | "nothing" => {
            let left_out = |name: &str| match mode.fault.as_str() {
                "only-lse" => name != "lse",
                "no-lse" => name == "lse",
                _ => true,
            };
            let missing: Vec<String> = outputs.keys().filter(|name| left_out(name)).cloned().collect();
            outputs.retain(|name, _| !left_out(name));
            file::write(path, &outputs, notes)?;
            return Ok(json!({"ok": true, "missing": missing}));
        }
        "extra" => {
            outputs.insert("s".into(), Tensor::from_f64(Format::F32, &[2], &[f64::NAN; 2])?);
            file::write(path, &outputs, notes)?;
        }
        "nulls" => {
            file::write(path, &outputs, notes)?;
            return Ok(json!({"ok": true, "unsupported": null, "error": null}));
        }
        _ => file::write(path, &outputs, notes)?,
    }
    Ok(json!({"ok": true}))
}
