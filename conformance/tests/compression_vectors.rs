//! The reference, and the CPU backend, against golden vectors from an implementation of its own
//! (`vectors/make_compression.py`): the same indices, the same bits.
#![allow(clippy::unwrap_used)]

use safetensors::SafeTensors;
use serde_json::Value;
use tilewright_compression::invariants::same_number;
use tilewright_compression::reference::Reference;
use tilewright_compression::{Compressor, Memory, Message, Step};
use tilewright_conformance::compression::wire::from_json;

const VECTORS: &[u8] = include_bytes!("../vectors/compression_synthetic.safetensors");

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect()
}

fn u32s(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    f32s(file, name).into_iter().map(f32::to_bits).collect()
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
        let tensor = |what: &str| format!("{name}/{what}");
        let len = file.tensor(&tensor("gradient")).unwrap().shape()[1];
        let spec = from_json(&json["spec"], len).unwrap();
        let (gradient, starts) = (f32s(&file, &tensor("gradient")), u32s(&file, &tensor("starts")));
        let (indices, values) = (u32s(&file, &tensor("indices")), f32s(&file, &tensor("values")));
        let (mut memory, mut message) = (Memory::new(&spec).unwrap(), Message::default());
        for t in 0..starts.len() - 1 {
            let step = Step { number: t as u64, scale: json["scale"].as_f64().unwrap() as f32 };
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
