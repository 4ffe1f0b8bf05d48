//! The bytes of a message on the wire.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | the [`Wire`]: bits 0–1 the values (0 f32, 1 bf16, 2 f16), bit 2 the indices (0 plain, 1 Rice), bits 3–7 the version, 1 |
//! | 4 | length of the bucket |
//! | 4 | number of entries |
//! | | the indices |
//! | | the values, in the order of the indices |
//!
//! Everything is little-endian. Plain indices take four bytes each. Rice indices are a stream of bits, least significant
//! first: of each ascending index its *gap*, the number of indices skipped since the one before. With the parameter `b`
//! of [`rice_parameter`], a gap is `⌊gap / 2ᵇ⌋` zeros, a one, and the `b` low bits of the gap (Golomb 1966; the powers of
//! two are Rice's, 1979). Zeros fill the last byte.
//!
//! The encoding is *canonical*: there is one for a message, and bytes that decode at all are what the decoded message
//! encodes to. The length of the bucket is sent although the receiver should know it, because the parameter depends on
//! it: ranks that disagree would read plausible nonsense. There is no checksum. It would cost another pass over what
//! every transport in use already protects, and would not replace what the decoder must do anyway: survive any bytes.
//! Damage that leaves the bytes well formed is found by comparing the replicas.

use crate::spec::spec;
use crate::{CompressionError, IndexCoding, LONGEST, Message, ValueFormat, Wire};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use rice::{BitReader, BitWriter};
use tilewright_scalar::{Element, bf16, f16};

mod rice;
mod words;

pub use rice::{entropy_bits, expected_bits, rice_parameter};
pub use words::{from_words, to_words};

/// What comes before indices and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How indices and values are written.
    pub wire: Wire,
    /// Gradients in the bucket.
    pub len: u32,
    /// Entries in the message.
    pub count: u32,
}

const VERSION: u8 = 1;
const HEADER: usize = 9;

impl Header {
    /// Reads the header of an encoded message.
    ///
    /// # Errors
    /// [`CompressionError::Codec`].
    pub fn read(bytes: &[u8]) -> Result<Self, CompressionError> {
        let Some(&[tag, l0, l1, l2, l3, c0, c1, c2, c3]) = bytes.first_chunk() else {
            return Err(codec(bytes.len(), "truncated header"));
        };
        let value = match tag & 3 {
            0 => ValueFormat::F32,
            1 => ValueFormat::Bf16,
            2 => ValueFormat::F16,
            _ => return Err(codec(0, "unknown header")),
        };
        if tag >> 3 != VERSION {
            return Err(codec(0, "unknown header"));
        }
        let index = if tag & 4 == 0 { IndexCoding::Plain } else { IndexCoding::Rice };
        let (len, count) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([c0, c1, c2, c3]));
        if count > len {
            return Err(codec(5, "more entries than the bucket has"));
        }
        Ok(Self { wire: Wire { value, index }, len, count })
    }

    fn write(self, out: &mut Vec<u8>) {
        let value = match self.wire.value {
            ValueFormat::F32 => 0,
            ValueFormat::Bf16 => 1,
            ValueFormat::F16 => 2,
        };
        let index = u8::from(self.wire.index == IndexCoding::Rice);
        out.push(VERSION << 3 | index << 2 | value);
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    /// Bits that the indices take at most.
    fn index_bits(self) -> u64 {
        let (len, count) = (u64::from(self.len), u64::from(self.count));
        match self.wire.index {
            IndexCoding::Plain => 32 * count,
            IndexCoding::Rice => {
                // The gaps sum to no more than the indices that are not sent, and so do the rounded quotients.
                let b = rice_parameter(self.len, self.count);
                count * (u64::from(b) + 1) + ((len - count) >> b)
            }
        }
    }

    /// Bits that the indices take at least.
    fn least_index_bits(self) -> u64 {
        let count = u64::from(self.count);
        match self.wire.index {
            IndexCoding::Plain => 32 * count,
            IndexCoding::Rice => count * (u64::from(rice_parameter(self.len, self.count)) + 1),
        }
    }
}

/// Encodes messages. It keeps room to sort in; once that has grown, encoding allocates nothing.
///
/// ```
/// use tilewright_compression::codec::{Encoder, decode};
/// use tilewright_compression::{IndexCoding, Message, Wire};
/// let wire = Wire { index: IndexCoding::Rice, ..Wire::default() };
/// let mut message = Message::default();
/// message.push(70, -2.0);
/// message.push(3, 1.5);
/// let mut bytes = Vec::new();
/// Encoder::default().encode(wire, 1000, &message.words, &mut bytes)?;
/// assert_eq!(bytes.len(), 9 + 3 + 2 * 4);
/// decode(&bytes, 1000, &mut message)?;
/// assert_eq!(message.entries().collect::<Vec<_>>(), [(3, 1.5), (70, -2.0)]);
/// # Ok::<(), tilewright_compression::CompressionError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    sorted: Vec<u64>,
}

impl Encoder {
    /// Overwrites `out` with the encoding of a message's words.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if `len` is beyond [`LONGEST`]; [`CompressionError::Message`], with `rank` 0, if an
    /// index is not below `len`, a value is not one of the wire's format, or, under [`IndexCoding::Rice`], an index
    /// occurs twice. Then `out` is empty.
    pub fn encode(&mut self, wire: Wire, len: usize, words: &[u64], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        out.clear();
        if len > LONGEST {
            return Err(spec("len", len.to_string(), "at most 4294967295: split the tensor into several buckets"));
        }
        check(wire.value, len, words)?;
        let header = Header { wire, len: len as u32, count: words.len() as u32 };
        let words = match wire.index {
            IndexCoding::Plain => words,
            IndexCoding::Rice => self.sort(words)?,
        };
        let most = HEADER + header.index_bits().div_ceil(8) as usize + words.len() * wire.value.bytes();
        out.try_reserve(most).map_err(|_| CompressionError::OutOfMemory { what: "encoding", elements: most })?;
        header.write(out);
        match wire.index {
            IndexCoding::Plain => words.iter().for_each(|word| out.extend_from_slice(&index(*word).to_le_bytes())),
            IndexCoding::Rice => put_gaps(rice_parameter(header.len, header.count), words, out),
        }
        put_values(wire.value, words, out);
        Ok(())
    }

    /// The words in ascending order of index, no index twice. They sort as integers: the index is the upper half.
    fn sort<'a>(&'a mut self, words: &'a [u64]) -> Result<&'a [u64], CompressionError> {
        let ascending = |words: &[u64]| words.windows(2).all(|pair| index(pair[0]) < index(pair[1]));
        if ascending(words) {
            return Ok(words);
        }
        self.sorted.clear();
        self.sorted
            .try_reserve(words.len())
            .map_err(|_| CompressionError::OutOfMemory { what: "sorted message", elements: words.len() })?;
        self.sorted.extend_from_slice(words);
        self.sorted.sort_unstable();
        if ascending(&self.sorted) { Ok(&self.sorted) } else { Err(message("an index occurs twice".into())) }
    }
}

/// [`Encoder::encode`] with an encoder of its own.
///
/// # Errors
/// Those of [`Encoder::encode`].
pub fn encode(wire: Wire, len: usize, words: &[u64], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    Encoder::default().encode(wire, len, words, out)
}

/// Overwrites `message` with what the bytes encode, for a bucket of `len`. The bytes may be anything: nothing panics, time
/// is linear in their number, and a message never takes more than four times their room.
///
/// Under [`IndexCoding::Rice`] the indices ascend by construction; plain indices may repeat, as they may on encoding.
///
/// # Errors
/// [`CompressionError::Codec`] if `bytes` are not exactly one encoded message of such a bucket. Then `message` is empty.
pub fn decode(bytes: &[u8], len: usize, message: &mut Message) -> Result<(), CompressionError> {
    let words = &mut message.words;
    words.clear();
    let decoded = decode_words(bytes, len, words);
    if decoded.is_err() {
        words.clear();
    }
    decoded
}

fn decode_words(bytes: &[u8], len: usize, words: &mut Vec<u64>) -> Result<(), CompressionError> {
    let header = Header::read(bytes)?;
    if header.len as usize != len {
        return Err(codec(1, "another length of bucket"));
    }
    // No message is without its values, and an index takes a bit at least: what follows is no longer than it claims.
    let values = u64::from(header.count) * header.wire.value.bytes() as u64;
    let least = HEADER as u64 + header.least_index_bits().div_ceil(8) + values;
    if (bytes.len() as u64) < least {
        return Err(codec(bytes.len(), "truncated"));
    }
    let count = header.count as usize;
    words
        .try_reserve_exact(count)
        .map_err(|_| CompressionError::OutOfMemory { what: "decoded message", elements: count })?;
    let (front, values) = bytes.split_at(bytes.len() - values as usize);
    match header.wire.index {
        IndexCoding::Plain => get_plain(header, &front[HEADER..], words)?,
        IndexCoding::Rice => get_gaps(header, &front[HEADER..], words)?,
    }
    get_values(header.wire.value, values, words)
        .map_err(|entry| codec(front.len() + entry * header.wire.value.bytes(), "a NaN that is not the canonical one"))
}

/// Whether these words can travel so.
fn check(format: ValueFormat, len: usize, words: &[u64]) -> Result<(), CompressionError> {
    if words.len() > len {
        return Err(message(format!("{} entries of a bucket of {len}", words.len())));
    }
    for (entry, word) in words.iter().enumerate() {
        let (index, value) = crate::message::unpack(*word);
        if index as usize >= len {
            return Err(message(format!("entry {entry}: index {index} of a bucket of {len}")));
        }
        if format.round(value).to_bits() != value.to_bits() {
            return Err(message(format!("entry {entry}: {value} is not rounded to {format:?}")));
        }
    }
    Ok(())
}

fn index(word: u64) -> u32 {
    (word >> 32) as u32
}

fn put_gaps(b: u32, words: &[u64], out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out);
    let mut next = 0;
    for word in words {
        let gap = index(*word) - next;
        bits.put_rice(gap, b);
        // Only the last index can be the greatest of all, and what then wraps is not used.
        next = index(*word).wrapping_add(1);
    }
    bits.finish();
}

fn get_gaps(header: Header, bytes: &[u8], words: &mut Vec<u64>) -> Result<(), CompressionError> {
    let b = rice_parameter(header.len, header.count);
    let mut bits = BitReader::new(bytes);
    let end = HEADER + bytes.len();
    let mut next = 0;
    for _ in 0..header.count {
        let Some(gap) = bits.get_rice(b) else { return Err(codec(end, "truncated")) };
        let index = gap.saturating_add(next);
        if index >= u64::from(header.len) {
            return Err(codec(end - bits.left().0, "index beyond the bucket"));
        }
        words.push(index << 32);
        next = index + 1;
    }
    match bits.left() {
        (0, 0) => Ok(()),
        (0, _) => Err(codec(end - 1, "padding is not zero")),
        (trailing, _) => Err(codec(end - trailing, "trailing bytes")),
    }
}

fn get_plain(header: Header, bytes: &[u8], words: &mut Vec<u64>) -> Result<(), CompressionError> {
    let (indices, trailing) = bytes.as_chunks::<4>();
    if indices.len() > header.count as usize || !trailing.is_empty() {
        return Err(codec(HEADER + 4 * header.count as usize, "trailing bytes"));
    }
    for (entry, index) in indices.iter().enumerate() {
        let index = u32::from_le_bytes(*index);
        if index >= header.len {
            return Err(codec(HEADER + 4 * entry, "index beyond the bucket"));
        }
        words.push(u64::from(index) << 32);
    }
    Ok(())
}

fn put_values(format: ValueFormat, words: &[u64], out: &mut Vec<u8>) {
    let values = words.iter().map(|word| f32::from_bits(*word as u32));
    match format {
        ValueFormat::F32 => values.for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        ValueFormat::Bf16 => values.for_each(|x| out.extend_from_slice(&bf16::from_accum(x).to_le_bytes())),
        ValueFormat::F16 => values.for_each(|x| out.extend_from_slice(&f16::from_accum(x).to_le_bytes())),
    }
}

/// Adds the values to words that hold their indices only; `Err` is the entry with a NaN that encoding never produces.
fn get_values(format: ValueFormat, bytes: &[u8], words: &mut [u64]) -> Result<(), usize> {
    fn join<const N: usize>(bytes: &[u8], words: &mut [u64], read: impl Fn([u8; N]) -> f32) -> Result<(), usize> {
        for (entry, (word, value)) in words.iter_mut().zip(bytes.as_chunks::<N>().0).enumerate() {
            let bits = read(*value).to_bits();
            if f32::from_bits(bits).is_nan() && bits != f32::NAN.to_bits() {
                return Err(entry);
            }
            *word |= u64::from(bits);
        }
        Ok(())
    }
    match format {
        ValueFormat::F32 => join(bytes, words, f32::from_le_bytes),
        ValueFormat::Bf16 => join(bytes, words, |value| bf16::from_le_bytes(value).to_accum()),
        ValueFormat::F16 => join(bytes, words, |value| f16::from_le_bytes(value).to_accum()),
    }
}

fn codec(at: usize, problem: &'static str) -> CompressionError {
    CompressionError::Codec { at, problem }
}

fn message(problem: String) -> CompressionError {
    CompressionError::Message { rank: 0, problem }
}
