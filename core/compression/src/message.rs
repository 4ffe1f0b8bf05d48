//! What a rank tells the others about a bucket.

use alloc::vec::Vec;

/// Packs an entry into a word: the index in the upper half, the value's bits in the lower.
#[inline]
pub fn word(index: u32, value: f32) -> u64 {
    u64::from(index) << 32 | u64::from(value.to_bits())
}

/// The entry of a word.
#[inline]
pub fn unpack(word: u64) -> (u32, f32) {
    ((word >> 32) as u32, f32::from_bits(word as u32))
}

/// The entries that one rank sends of one bucket, one word each, so that one collective over plain words carries them.
/// Values are already rounded to the wire's format.
///
/// ```
/// use tilewright_compression::Message;
/// let mut message = Message::default();
/// message.push(0, 1.5);
/// message.push(7, -2.0);
/// assert_eq!(message.entries().collect::<Vec<_>>(), [(0, 1.5), (7, -2.0)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The words, in the order of the placement.
    pub words: Vec<u64>,
}

impl Message {
    /// Adds an entry at the end.
    pub fn push(&mut self, index: u32, value: f32) {
        self.words.push(word(index, value));
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether nothing is sent.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.words.iter().map(|word| unpack(*word))
    }
}
