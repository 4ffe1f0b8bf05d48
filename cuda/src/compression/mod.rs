//! The gradient compression family on the device.
//!
//! | module | holds |
//! |---|---|
//! | `guess` | how much is staged, and where to look for a floor |
//! | `step` | the launches of one step, in order |
//! | `kernels` | the kernels of `compression.cu` and what they are given |
//! | [`ResidentCompressor`] | steps and decoding for gradients that stay on the device |
//! | [`CudaCompressor`] | the traits of `tilewright-compression`, for gradients on the host |
//!
//! Each bit of memories and messages is the one that the reference has, [`Policy::Any`] aside:
//! an exact top-k is a search by digits of 11, 10 and 10 bits, whose counts do not depend on the order of execution; a
//! message is put together by a compaction in order of index, or of slots; a hash table keeps the greatest key by 64-bit
//! `atomicMax`; decoding adds message after message.
//!
//! [`Policy::Any`]: tilewright_compression::Policy::Any

mod guess;
mod kernels;
mod resident;
mod step;

pub use kernels::UNIT;
pub use resident::{ResidentCompressor, ResidentMemory, ResidentMessage};

use crate::{Buffer, CudaError, Device};
use std::collections::HashMap;
use tilewright_compression::message::unpack;
use tilewright_compression::reference::{check, check_messages};
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Memory, Message, NonFinite, Reduction, Step,
};

impl From<CudaError> for CompressionError {
    fn from(error: CudaError) -> Self {
        Self::Backend { problem: error.to_string() }
    }
}

/// Every [`CompressionSpec`] on a GPU, for data on the host: what goes in is copied to the device and what comes out is
/// copied back. To keep data there, use [`ResidentCompressor`].
///
/// ```no_run
/// use tilewright_compression::{CompressionSpec, Compressor, Count, Memory, Message, Step};
/// use tilewright_cuda::{CudaCompressor, Device};
///
/// let mut cuda = CudaCompressor::new(&Device::open(0)?)?;
/// let spec = CompressionSpec::dgc(1 << 20, Count::Density(0.001), 0.9);
/// let (mut memory, mut message) = (Memory::new(&spec)?, Message::default());
/// cuda.compress(&spec, Step::new(0), &vec![0.5; 1 << 20], &mut memory, &mut message)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CudaCompressor {
    resident: ResidentCompressor,
}

impl CudaCompressor {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`CudaError::Load`], [`CudaError::OutOfMemory`].
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        Ok(Self { resident: ResidentCompressor::new(device)? })
    }

    /// The compressor for data on the device.
    pub fn resident(&mut self) -> &mut ResidentCompressor {
        &mut self.resident
    }
}

impl Compressor for CudaCompressor {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        check(spec, step, gradient, memory)?;
        let device = self.resident.device().clone();
        // Whether the gradient is finite has just been looked at.
        let spec = &CompressionSpec { non_finite: NonFinite::Propagate, ..*spec };
        let on_device = Buffer::from_slice(&device, "gradient", gradient)?;
        let mut there = ResidentMemory {
            velocity: Buffer::from_slice(&device, "velocity", &memory.velocity)?,
            momentum: Buffer::from_slice(&device, "momentum", &memory.momentum)?,
        };
        let mut words = ResidentMessage::new(&device, spec)?;
        self.resident.compress(spec, step, &on_device, &mut there, &mut words)?;
        // All that can fail has happened before anything of the caller's changes.
        let (velocity, momentum) = (there.velocity.to_vec()?, there.momentum.to_vec()?);
        let mut sent = Message::default();
        words.download(&mut sent)?;
        memory.velocity.copy_from_slice(&velocity);
        memory.momentum.copy_from_slice(&momentum);
        message.words.clear();
        message.words.extend_from_slice(&sent.words);
        Ok(())
    }
}

impl Decompressor for CudaCompressor {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        check_messages(messages, out.len())?;
        let device = self.resident.device().clone();
        let mut sum = Buffer::zeros(&device, "update", out.len())?;
        for words in messages {
            for round in rounds(words) {
                let there = Buffer::from_slice(&device, "message", &round)?;
                self.resident.add(&there, None, round.len(), &mut sum)?;
            }
        }
        self.resident.mean(reduction, messages.len(), &mut sum)?;
        sum.download(out)?;
        Ok(())
    }
}

/// A message in parts, none of which has an index twice; one part, for all messages that obey the specification. Parts
/// are added one after the other, so what stands first is added first.
fn rounds(words: &[u64]) -> Vec<Vec<u64>> {
    let index = |word: u64| unpack(word).0;
    if words.is_sorted_by(|a, b| index(*a) < index(*b)) {
        return vec![words.to_vec()];
    }
    let mut seen: HashMap<u32, usize> = HashMap::with_capacity(words.len());
    let mut rounds: Vec<Vec<u64>> = Vec::new();
    for word in words {
        let round = seen.entry(index(*word)).and_modify(|round| *round += 1).or_insert(0);
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(*word);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use tilewright_compression::message::word;

    #[test]
    fn an_index_that_comes_again_waits_for_the_next_round() {
        let message = [word(3, 1.0), word(1, 2.0), word(3, 3.0), word(0, 4.0), word(3, 5.0)];
        let expected = [vec![message[0], message[1], message[3]], vec![message[2]], vec![message[4]]];
        assert_eq!(rounds(&message), expected);
        assert_eq!(rounds(&message[..2]), [message[..2].to_vec()]);
    }
}
