//! Do all ranks have the same bits?

use crate::{Collective, CollectiveError};
use alloc::format;
use alloc::vec;
use core::fmt;

/// A 64-bit hash for telling states apart; not for adversaries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// FNV-1a's round (Fowler, Noll and Vo) on whole words: a bijection of the state for each word and of the word for
    /// each state, so a single different word always shows.
    fn word(&mut self, word: u32) {
        self.0 = (self.0 ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3);
    }

    pub(super) fn finish(self) -> u64 {
        // High bits of the state never reach the low ones in a round.
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl fmt::Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.word(u32::from(byte)));
        Ok(())
    }
}

/// A 64-bit hash of the bits of a list of tensors.
///
/// ```
/// use tilewright_compression::data_parallel::hash_of;
/// assert_eq!(hash_of([&[1.0, 2.0][..]]), hash_of([&[1.0][..], &[2.0]]));
/// assert_ne!(hash_of([&[0.0][..]]), hash_of([&[-0.0][..]]));
/// ```
pub fn hash_of<'a>(tensors: impl IntoIterator<Item = &'a [f32]>) -> u64 {
    let mut hash = Fingerprint::default();
    tensors.into_iter().flatten().for_each(|x| hash.word(x.to_bits()));
    hash.finish()
}

/// Whether all ranks have the same hash of their weights.
///
/// # Errors
/// [`CollectiveError::Mismatch`], naming a rank that differs from most; all ranks name the same.
pub fn agree(collective: &dyn Collective, hash: u64) -> Result<(), CollectiveError> {
    let mut hashes = vec![0; collective.size()];
    collective.all_gather(&[hash], &mut hashes)?;
    let votes = |hash: &u64| hashes.iter().filter(|other| *other == hash).count();
    // Of equally many votes those for the least rank's hash count: `max_by_key` returns the last of equals.
    let Some(common) = hashes.iter().rev().max_by_key(|hash| votes(hash)) else { return Ok(()) };
    match hashes.iter().position(|hash| hash != common) {
        None => Ok(()),
        Some(rank) => Err(CollectiveError::Mismatch {
            rank,
            problem: format!("its weights hash to {:016x}, those of others to {common:016x}", hashes[rank]),
        }),
    }
}
