//! The reference, and the CPU backend, against golden vectors from an implementation of its own
//! (`vectors/make_compression.py`): the same indices, the same bits.
#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use serde_json::Value;
use tilewright_compression::invariants::same_number;
use tilewright_compression::reference::Reference;
use tilewright_compression::*;

const VECTORS: &[u8] = include_bytes!("../vectors/compression_synthetic.safetensors");

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect()
}

fn u32s(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    f32s(file, name).into_iter().map(f32::to_bits).collect()
}

fn count(json: &Value) -> Count {
    json["entries"]
        .as_u64()
        .map_or_else(|| Count::Density(json["density"].as_f64().unwrap()), |k| Count::Entries(k as usize))
}

fn single(json: &Value) -> f32 {
    json.as_f64().unwrap() as f32
}

fn spec(json: &Value) -> CompressionSpec {
    let (s, p, f) = (&json["selector"], &json["placement"], &json["feedback"]);
    let refine = |r: &Value| Refinement {
        lower: single(&r["lower"]),
        upper: single(&r["upper"]),
        iterations: r["iterations"].as_u64().unwrap() as u32,
    };
    CompressionSpec {
        len: json["len"].as_u64().unwrap() as usize,
        selector: match s["kind"].as_str().unwrap() {
            "exact-top-k" => Selector::ExactTopK(count(s)),
            "random-k" => Selector::RandomK(count(s)),
            "fixed-threshold" => Selector::FixedThreshold(single(&s["threshold"])),
            _ => {
                let refine = s.get("refine").map(refine);
                Selector::SampledThreshold(count(s), Sampling { ratio: s["ratio"].as_f64().unwrap(), refine })
            }
        },
        placement: if p["kind"] == "compact" {
            Placement::Compact
        } else {
            let slots = p["slots"].as_u64().map_or_else(
                || Slots::PerEntry(p["slots_per_entry"].as_f64().unwrap()),
                |slots| Slots::Exactly(slots as u32),
            );
            Placement::HashTable { slots, policy: Policy::LargestMagnitude }
        },
        feedback: match f["kind"].as_str().unwrap() {
            "none" => Feedback::None,
            "residual" => Feedback::Residual,
            _ => Feedback::Momentum {
                factor: single(&f["factor"]),
                nesterov: f["nesterov"].as_bool().unwrap(),
                masking: f["masking"].as_bool().unwrap(),
            },
        },
        wire: Wire {
            value: match json["wire"]["value"].as_str().unwrap() {
                "f32" => ValueFormat::F32,
                "bf16" => ValueFormat::Bf16,
                _ => ValueFormat::F16,
            },
            index: IndexCoding::Plain,
        },
        non_finite: NonFinite::Propagate,
        seed: json["seed"].as_u64().unwrap(),
    }
}

fn differ(a: &[f32], b: &[f32]) -> Option<usize> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).position(|(a, b)| !same_number(*a, *b))
}

fn agrees(compressor: &mut dyn Compressor) {
    let file = SafeTensors::deserialize(VECTORS).unwrap();
    let (_, header) = SafeTensors::read_metadata(VECTORS).unwrap();
    let cases = header.metadata().as_ref().unwrap();
    assert!(cases.len() >= 30);
    for (name, json) in cases {
        let json: Value = serde_json::from_str(json).unwrap();
        let spec = spec(&json["spec"]);
        let tensor = |what: &str| format!("{name}/{what}");
        let (gradient, starts) = (f32s(&file, &tensor("gradient")), u32s(&file, &tensor("starts")));
        let (indices, values) = (u32s(&file, &tensor("indices")), f32s(&file, &tensor("values")));
        let (mut memory, mut message) = (Memory::new(&spec).unwrap(), Message::default());
        for t in 0..starts.len() - 1 {
            let step = Step { number: t as u64, scale: single(&json["scale"]) };
            let g = &gradient[t * spec.len..][..spec.len];
            compressor.compress(&spec, step, g, &mut memory, &mut message).unwrap();
            let range = starts[t] as usize..starts[t + 1] as usize;
            let (sent, wire): (Vec<u32>, Vec<f32>) = message.entries().unzip();
            assert_eq!(sent, indices[range.clone()], "{name}, step {t}: {}", json["why"]);
            assert_eq!(differ(&wire, &values[range]), None, "{name}, values of step {t}: {}", json["why"]);
        }
        assert_eq!(differ(&memory.velocity, &f32s(&file, &tensor("velocity"))), None, "{name}: velocity");
        assert_eq!(differ(&memory.momentum, &f32s(&file, &tensor("momentum"))), None, "{name}: momentum");
    }
}

#[test]
fn reference() {
    agrees(&mut Reference);
}

#[test]
fn cpu_backend() {
    agrees(&mut tilewright_cpu::CpuCompressor::default());
}
