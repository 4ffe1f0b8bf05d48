//! One bucket's messages, from every rank to every rank.

use super::DataParallelError;
use crate::codec::{self, Encoder};
use crate::{Collective, CompressionError, Decompressor, Message, Reduction, Wire};
use alloc::string::ToString;
use alloc::vec::Vec;

/// The buffers of the exchange, kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What this rank sends.
    pub(super) message: Message,
    encoder: Encoder,
    bytes: Vec<u8>,
    /// This rank's encoded message as words; then what arrives, and where each rank's part starts.
    packed: Vec<u64>,
    received: Vec<u64>,
    starts: Vec<usize>,
    /// Decoded messages, one after the other, and where each starts.
    decoded: Message,
    words: Vec<u64>,
    word_starts: Vec<usize>,
    /// Room for the list of messages.
    parts: Vec<&'static [u64]>,
}

impl Exchange {
    /// Gathers the messages and overwrites `mean` with their mean, in rank order. Returns the words this rank sent.
    pub(super) fn mean(
        &mut self,
        wire: Wire,
        collective: &dyn Collective,
        backend: &mut impl Decompressor,
        mean: &mut [f32],
    ) -> Result<u64, DataParallelError> {
        let sent = if wire == Wire::default() {
            // A word is an entry already.
            collective.all_gather_v(&self.message.words, &mut self.word_starts, &mut self.words)?;
            self.message.words.len()
        } else {
            self.encoder.encode(wire, mean.len(), &self.message.words, &mut self.bytes)?;
            codec::to_words(&self.bytes, &mut self.packed);
            collective.all_gather_v(&self.packed, &mut self.starts, &mut self.received)?;
            self.decode(mean.len())?;
            self.packed.len()
        };
        self.decompress(backend, mean)?;
        Ok(sent as u64)
    }

    fn decode(&mut self, len: usize) -> Result<(), CompressionError> {
        self.words.clear();
        self.word_starts.clear();
        self.word_starts.push(0);
        for (rank, part) in parts(&self.received, &self.starts).enumerate() {
            codec::from_words(part, &mut self.bytes)
                .and_then(|()| codec::decode(&self.bytes, len, &mut self.decoded))
                .map_err(|error| CompressionError::Message { rank, problem: error.to_string() })?;
            self.words.extend_from_slice(&self.decoded.words);
            self.word_starts.push(self.words.len());
        }
        Ok(())
    }

    fn decompress(&mut self, backend: &mut impl Decompressor, mean: &mut [f32]) -> Result<(), CompressionError> {
        let mut list: Vec<&[u64]> = core::mem::take(&mut self.parts);
        list.extend(parts(&self.words, &self.word_starts));
        let result = backend.decompress(&list, Reduction::Mean, mean);
        list.clear();
        // An empty list has no borrows: collecting it in place keeps its room for the next step.
        self.parts = list.into_iter().map(|_| &[][..]).collect();
        result
    }
}

fn parts<'a>(words: &'a [u64], starts: &'a [usize]) -> impl Iterator<Item = &'a [u64]> {
    starts.windows(2).map(|range| &words[range[0]..range[1]])
}
