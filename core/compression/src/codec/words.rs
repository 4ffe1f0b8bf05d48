//! Bytes as words.

use super::codec;
use crate::CompressionError;
use alloc::vec::Vec;

/// Packs bytes into words for a [`crate::Collective`]: their number, then eight to a word, the last filled up with zeros.
///
/// ```
/// use tilewright_compression::codec::{from_words, to_words};
/// let (mut words, mut bytes) = (Vec::new(), Vec::new());
/// to_words(b"ninebytes", &mut words);
/// assert_eq!(words.len(), 3);
/// from_words(&words, &mut bytes)?;
/// assert_eq!(bytes, b"ninebytes");
/// # Ok::<(), tilewright_compression::CompressionError>(())
/// ```
pub fn to_words(bytes: &[u8], words: &mut Vec<u64>) {
    words.clear();
    words.reserve(1 + bytes.len().div_ceil(8));
    words.push(bytes.len() as u64);
    let (eights, rest) = bytes.as_chunks::<8>();
    words.extend(eights.iter().map(|eight| u64::from_le_bytes(*eight)));
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words.push(u64::from_le_bytes(last));
    }
}

/// Overwrites `bytes` with what [`to_words`] packed.
///
/// # Errors
/// [`CompressionError::Codec`] if the words are not packed bytes. Then `bytes` is empty.
pub fn from_words(words: &[u64], bytes: &mut Vec<u8>) -> Result<(), CompressionError> {
    bytes.clear();
    let Some((&length, packed)) = words.split_first() else { return Err(codec(0, "no length")) };
    if length.div_ceil(8) != packed.len() as u64 {
        return Err(codec(0, "another number of words than the length says"));
    }
    let used = length % 8 * 8;
    if let Some(last) = packed.last()
        && used != 0
        && last >> used != 0
    {
        return Err(codec(length as usize, "padding is not zero"));
    }
    bytes.reserve(8 * packed.len());
    for word in packed {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length as usize);
    Ok(())
}
