//! Compression: what is selected and packed from one vector, and whole steps of DGC and DRAGONN.

use crate::{BenchError, Job, Size, Work, numbers};
use std::rc::Rc;
use tilewright_compression::{CompressionSpec, Count, Feedback, Placement, Policy, Selector, Slots, Step};
use tilewright_cuda::compression::{ResidentCompressor, ResidentMemory, ResidentMessage};
use tilewright_cuda::{Buffer, Device};

/// The share that is sent.
const DENSITY: f64 = 0.01;

pub(crate) fn jobs(device: &Device, size: Size) -> Result<Vec<Job>, BenchError> {
    let n = size.of(1 << 13, 1 << 26, 1 << 28);
    let values: Vec<f32> = numbers(5, n).collect();
    let gradient = Rc::new(Buffer::from_slice(device, "gradient", &values)?);
    let count = Count::Density(DENSITY);
    let (k, len) = (count.of(n) as f64, n as f64);
    let exact = CompressionSpec { feedback: Feedback::None, ..CompressionSpec::top_k(n, count) };
    // Numbers are uniform between -1 and 1, so this keeps the same share.
    let compact = CompressionSpec { selector: Selector::FixedThreshold(1.0 - DENSITY as f32), ..exact };
    let slots = Slots::Exactly((4.0 * k) as u32);
    let table = Placement::HashTable { slots, policy: Policy::LargestMagnitude };
    let hash = CompressionSpec { placement: table, ..compact };
    let sent = 8.0 * k;
    // What must be read and written if everything were known: a vector, or `g`, `u` and `v` with the last two written.
    let (vector, step) = (4.0 * len + sent, 20.0 * len + sent);
    let list = [
        ("compaction", compact, vector),
        ("exact top-k", exact, vector),
        ("hash table", hash, vector),
        ("DGC step", CompressionSpec::dgc(n, count, 0.9), step),
        ("DRAGONN step", CompressionSpec::dragonn(n, count, 0.9), step),
    ];
    list.into_iter().map(|(name, spec, moved)| job(device, name, spec, moved, &gradient)).collect()
}

fn job(
    device: &Device,
    name: &str,
    spec: CompressionSpec,
    moved: f64,
    gradient: &Rc<Buffer<f32>>,
) -> Result<Job, BenchError> {
    let mut compressor = ResidentCompressor::new(device)?;
    let mut memory = ResidentMemory::new(device, &spec)?;
    let mut message = ResidentMessage::new(device, &spec)?;
    let (gradient, len, mut number) = (Rc::clone(gradient), spec.len, 0);
    Ok(Job {
        family: "compression",
        name: name.into(),
        problem: format!("{len} f32, {DENSITY}"),
        work: Work::Bytes { moved, vector: Some(4.0 * len as f64) },
        run: Box::new(move || {
            number += 1;
            Ok(compressor.compress(&spec, Step { number, scale: 1.0 }, &gradient, &mut memory, &mut message)?)
        }),
    })
}
