//! Steps of compression on CPU and device, side by side.

use crate::common::fault;
use crate::compression_common::{Shape, bits, gradient};
use tilewright_compression::invariants::verify_step;
use tilewright_compression::message::word;
use tilewright_compression::{CompressionSpec, Compressor, Memory, Message, Placement, Policy, Step};
use tilewright_cpu::CpuCompressor;
use tilewright_cuda::CudaCompressor;

/// One rank's state under one implementation.
#[derive(Clone)]
pub(crate) struct Rank {
    pub(crate) memory: Memory,
    pub(crate) message: Message,
}

impl Rank {
    pub(crate) fn new(spec: &CompressionSpec) -> Self {
        Self { memory: Memory::new(spec).unwrap(), message: Message { words: vec![word(9, 9.0)] } }
    }

    fn all_bits(&self) -> (Vec<u32>, Vec<u32>, &[u64]) {
        (bits(&self.memory.velocity), bits(&self.memory.momentum), &self.message.words)
    }
}

/// Some steps of one problem on CPU and device: the same bits, or the same error.
pub(crate) fn try_steps(
    cuda: &mut CudaCompressor,
    spec: &CompressionSpec,
    shapes: &[Shape],
    scale: f32,
    seed: u64,
) -> Result<(), String> {
    let mut cpu = CpuCompressor::default();
    let (mut expected, mut got) = (Rank::new(spec), Rank::new(spec));
    let racing = matches!(spec.placement, Placement::HashTable { policy: Policy::Any, .. });
    for (number, shape) in (0..).zip(shapes) {
        let step = Step { number, scale };
        let g = gradient(*shape, spec.len, seed ^ number);
        let before = expected.memory.clone();
        if racing {
            got.memory = before.clone();
        }
        let result = cpu.compress(spec, step, &g, &mut expected.memory, &mut expected.message);
        let ours = cuda.compress(spec, step, &g, &mut got.memory, &mut got.message);
        if ours != result {
            return Err(format!("step {number}: got {ours:?}, expected {result:?}; {}", fault()));
        }
        if racing && ours.is_ok() {
            verify_step(spec, step, &g, &before, &got.memory, &got.message.words)
                .map_err(|violation| format!("step {number} {shape:?}: {violation:?}"))?;
        } else if !racing && got.all_bits() != expected.all_bits() {
            let (ours, theirs) = (got.all_bits(), expected.all_bits());
            let words = ours.2.iter().zip(theirs.2).position(|(a, b)| a != b);
            let velocity = ours.0.iter().zip(&theirs.0).position(|(a, b)| a != b);
            let momentum = ours.1.iter().zip(&theirs.1).position(|(a, b)| a != b);
            return Err(format!(
                "step {number} {shape:?}: {} words, expected {}; first difference: word {words:?}, velocity \
                 {velocity:?}, momentum {momentum:?}",
                ours.2.len(),
                theirs.2.len()
            ));
        }
    }
    Ok(())
}
