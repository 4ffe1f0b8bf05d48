//! The codec gives back what it was given, refuses everything else, and comes as close to the entropy as its formula says.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Instant;
use tilewright_compression::codec::{
    Encoder, Header, decode, encode, entropy_bits, expected_bits, from_words, rice_parameter, to_words,
};
use tilewright_compression::hash::mix;
use tilewright_compression::message::word;
use tilewright_compression::{CompressionError, IndexCoding, LONGEST, Message, ValueFormat, Wire};

const HEADER: usize = 9;

fn wires() -> impl Strategy<Value = Wire> {
    let value = prop_oneof![Just(ValueFormat::F32), Just(ValueFormat::Bf16), Just(ValueFormat::F16)];
    (value, prop_oneof![Just(IndexCoding::Plain), Just(IndexCoding::Rice)])
        .prop_map(|(value, index)| Wire { value, index })
}

/// A bucket's length and a message for it: indices spread over all of it, or crowded at either end, in any order.
fn messages() -> impl Strategy<Value = (Wire, usize, Vec<u64>)> {
    let len = prop_oneof![1_usize..40, 1_usize..100_000, Just(LONGEST)];
    (wires(), len, 0_usize..80, 0_u8..3).prop_flat_map(|(wire, len, most, crowding)| {
        let index = match crowding {
            0 => 0..len,
            1 => 0..len.min(100),
            _ => len.saturating_sub(100)..len,
        };
        let values = prop_oneof![4 => -1e4_f32..1e4, 2 => any::<u32>().prop_map(f32::from_bits), 1 => Just(0.0)];
        prop::collection::vec((index, values), 0..=most).prop_map(move |entries| {
            let mut seen = BTreeSet::new();
            let fresh = entries.iter().filter(|(index, _)| seen.insert(*index));
            let words = fresh.map(|(index, value)| word(*index as u32, wire.value.round(*value)));
            (wire, len, words.collect())
        })
    })
}

fn encoded(wire: Wire, len: usize, words: &[u64]) -> Vec<u8> {
    let mut bytes = vec![1, 2, 3];
    encode(wire, len, words, &mut bytes).unwrap();
    bytes
}

/// Whatever the bytes: an error that leaves nothing behind, or the message they are the encoding of. Room in proportion.
fn refused_or_canonical(bytes: &[u8], len: usize) -> Result<bool, TestCaseError> {
    let mut message = Message::default();
    let decoded = decode(bytes, len, &mut message);
    prop_assert!(8 * message.words.capacity() <= 4 * bytes.len(), "{} words", message.words.capacity());
    match decoded {
        Ok(()) => {
            let header = Header::read(bytes).unwrap();
            prop_assert_eq!(encoded(header.wire, len, &message.words), bytes);
            Ok(true)
        }
        Err(CompressionError::Codec { at, .. }) => {
            prop_assert!(at <= bytes.len().max(HEADER), "stopped at {} of {}", at, bytes.len());
            prop_assert!(message.is_empty());
            Ok(false)
        }
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

proptest! {
    #[test]
    fn what_was_encoded_comes_back((wire, len, mut words) in messages()) {
        let bytes = encoded(wire, len, &words);
        let mut message = Message { words: vec![7; 3] };
        decode(&bytes, len, &mut message).unwrap();
        if wire.index == IndexCoding::Rice {
            words.sort_unstable();
        }
        prop_assert_eq!(&message.words, &words);
        prop_assert_eq!(Header::read(&bytes).unwrap(), Header { wire, len: len as u32, count: words.len() as u32 });
        prop_assert_eq!(encoded(wire, len, &message.words), bytes);
    }

    /// `b + 1` bits each and the quotients, which the gaps bound: whatever the distribution, at most `b + 1 + 1/ln φ`.
    #[test]
    fn no_message_is_expensive((wire, len, words) in messages()) {
        let wire = Wire { index: IndexCoding::Rice, ..wire };
        let bytes = encoded(wire, len, &words);
        let (count, b) = (words.len() as f64, rice_parameter(len as u32, words.len() as u32));
        let most = count * (f64::from(b) + 1.0 + 1.0 / f64::midpoint(1.0, 5_f64.sqrt()).ln());
        let bits = 8 * (bytes.len() - HEADER - words.len() * wire.value.bytes());
        prop_assert!(bits as f64 <= most + 7.0, "{} bits for {} indices at b = {}", bits, words.len(), b);
    }

    #[test]
    fn truncated_and_prolonged_encodings_are_refused((wire, len, words) in messages(), byte in any::<u8>()) {
        let mut bytes = encoded(wire, len, &words);
        for end in 0..bytes.len() {
            prop_assert!(!refused_or_canonical(&bytes[..end], len)?, "{} of {} bytes", end, bytes.len());
        }
        bytes.push(byte);
        prop_assert!(!refused_or_canonical(&bytes, len)?);
        bytes.pop();
        prop_assert!(!refused_or_canonical(&bytes, len - 1)?);
        prop_assert!(refused_or_canonical(&bytes, len)?);
    }

    /// A flipped bit is noticed, or makes another message; it never makes another spelling of the same.
    #[test]
    fn flipped_bits_never_spell_the_same_message((wire, len, words) in messages(), bit in any::<prop::sample::Index>()) {
        let (mut bytes, mut original, mut message) = (encoded(wire, len, &words), Message::default(), Message::default());
        decode(&bytes, len, &mut original).unwrap();
        let bit = bit.index(8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        if refused_or_canonical(&bytes, len)? {
            prop_assert!(!(8..40).contains(&bit), "the length");
            decode(&bytes, len, &mut message).unwrap();
            prop_assert_ne!((Header::read(&bytes).unwrap().wire, message), (wire, original));
        }
    }

    #[test]
    fn any_bytes_are_survived(
        wire in wires(),
        len in prop_oneof![0_usize..50, Just(LONGEST), any::<u32>().prop_map(|len| len as usize)],
        count in prop_oneof![0_u32..20, any::<u32>()],
        honest in any::<bool>(),
        mut bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(255)], 0..200),
    ) {
        if honest && bytes.len() >= HEADER {
            // Past the header's checks, so that the rest is put to the test.
            bytes[..HEADER].copy_from_slice(&encoded(wire, len, &[]));
            bytes[5..HEADER].copy_from_slice(&count.to_le_bytes());
        }
        refused_or_canonical(&bytes, len)?;
    }

    #[test]
    fn packed_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        let (mut words, mut back) = (vec![9], vec![9]);
        to_words(&bytes, &mut words);
        prop_assert_eq!(words.len(), 1 + bytes.len().div_ceil(8));
        from_words(&words, &mut back).unwrap();
        prop_assert_eq!(&back, &bytes);
        // One spelling here, too.
        let bit = 8 * bytes.len() % 64;
        if bit != 0 {
            *words.last_mut().unwrap() |= 1 << bit;
            prop_assert!(from_words(&words, &mut back).is_err());
            prop_assert!(back.is_empty());
        }
    }

    #[test]
    fn any_words_are_survived(words in prop::collection::vec(prop_oneof![0_u64..20, any::<u64>()], 0..4)) {
        let mut bytes = vec![9];
        if from_words(&words, &mut bytes).is_ok() {
            let mut again = Vec::new();
            to_words(&bytes, &mut again);
            prop_assert_eq!(again, words);
        } else {
            prop_assert!(bytes.is_empty());
        }
    }
}

/// The bytes themselves, worked out by hand, so that they stay what they are.
#[test]
fn the_format_is_this() {
    let words = [word(2, 1.0), word(9, -2.0)];
    let plain = encoded(Wire::default(), 10, &words);
    assert_eq!(plain, [8, 10, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 192]);
    // d = 2/10: 0.8² = 0.64 is still more than 0.618, so b = 2. Gaps 2 and 6, first bit first: 1 01, 01 01.
    let rice = Wire { value: ValueFormat::Bf16, index: IndexCoding::Rice };
    assert_eq!(encoded(rice, 10, &words), [13, 10, 0, 0, 0, 2, 0, 0, 0, 0b101_0101, 128, 63, 0, 192]);
    let half = Wire { value: ValueFormat::F16, index: IndexCoding::Rice };
    assert_eq!(encoded(half, 10, &[]), [14, 10, 0, 0, 0, 0, 0, 0, 0]);
}

/// Each way of being no message, and what the decoder says of it.
#[test]
fn refusals_say_what_is_wrong() {
    let rice = Wire { value: ValueFormat::F32, index: IndexCoding::Rice };
    let words = [word(2, 1.5), word(9, -2.0)];
    let (plain, rice) = (encoded(Wire::default(), 10, &words), encoded(rice, 10, &words));
    let spoil = |bytes: &[u8], at: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = byte;
        bytes
    };
    let longer = [rice.clone(), vec![0]].concat();
    for (bytes, problem) in [
        (plain[..8].to_vec(), "encoded message, byte 8: truncated header"),
        (spoil(&plain, 0, 0), "encoded message, byte 0: unknown header"),
        (spoil(&plain, 0, 11), "encoded message, byte 0: unknown header"),
        (spoil(&plain, 1, 11), "encoded message, byte 1: another length of bucket"),
        (spoil(&plain, 5, 11), "encoded message, byte 5: more entries than the bucket has"),
        (spoil(&plain, 5, 3), "encoded message, byte 25: truncated"),
        (spoil(&plain, 5, 1), "encoded message, byte 13: trailing bytes"),
        (spoil(&plain, 13, 10), "encoded message, byte 13: index beyond the bucket"),
        (spoil(&rice, 9, 0), "encoded message, byte 10: truncated"),
        (spoil(&rice, 9, 0b111_0111), "encoded message, byte 10: index beyond the bucket"),
        (spoil(&rice, 9, 0b1101_0101), "encoded message, byte 9: padding is not zero"),
        (longer, "encoded message, byte 10: trailing bytes"),
        (spoil(&rice, 13, 255), "encoded message, byte 10: a NaN that is not the canonical one"),
    ] {
        let mut message = Message { words: vec![7] };
        let error = decode(&bytes, 10, &mut message).unwrap_err();
        assert_eq!(error.to_string(), problem, "{bytes:?}");
        assert!(message.is_empty());
    }
}

#[test]
fn what_cannot_travel_is_refused() {
    let rice = |value| Wire { value, index: IndexCoding::Rice };
    let mut bytes = vec![1];
    let mut refused = |wire: Wire, len: usize, words: &[u64]| {
        let error = Encoder::default().encode(wire, len, words, &mut bytes).unwrap_err();
        assert!(bytes.is_empty());
        error.to_string()
    };
    let plain = Wire::default();
    assert_eq!(refused(plain, 3, &[word(3, 1.0)]), "message of rank 0: entry 0: index 3 of a bucket of 3");
    assert_eq!(refused(plain, 1, &[0, 0]), "message of rank 0: 2 entries of a bucket of 1");
    assert_eq!(refused(rice(ValueFormat::F32), 9, &[8, 8]), "message of rank 0: an index occurs twice");
    let tenth = [word(0, 0.5), word(1, 0.1)];
    assert_eq!(refused(rice(ValueFormat::Bf16), 9, &tenth), "message of rank 0: entry 1: 0.1 is not rounded to Bf16");
    let large = [word(0, 65536.0)];
    assert_eq!(refused(rice(ValueFormat::F16), 9, &large), "message of rank 0: entry 0: 65536 is not rounded to F16");
    let nan = [u64::from(f32::NAN.to_bits() | 1)];
    assert_eq!(refused(plain, 9, &nan), "message of rank 0: entry 0: NaN is not rounded to F32");
    assert!(refused(plain, LONGEST + 1, &[]).starts_with("len: got 4294967296"));
}

/// A few bytes that claim billions of entries cost neither memory nor time.
#[test]
fn huge_counts_are_cheap_to_refuse() {
    for index in [IndexCoding::Plain, IndexCoding::Rice] {
        for value in [ValueFormat::F32, ValueFormat::F16] {
            for count in [u32::MAX, u32::MAX / 2, 1 << 20] {
                let mut bytes = encoded(Wire { value, index }, LONGEST, &[]);
                bytes[5..9].copy_from_slice(&count.to_le_bytes());
                bytes.resize(10_000, 0);
                let (mut message, start) = (Message::default(), Instant::now());
                decode(&bytes, LONGEST, &mut message).unwrap_err();
                assert_eq!(message.words.capacity(), 0);
                assert!(start.elapsed().as_millis() < 50);
            }
        }
    }
}

/// One code that never ends: the quotient must neither overflow nor wrap into the bucket.
#[test]
fn endless_zeros_are_no_index() {
    let wire = Wire { value: ValueFormat::F16, index: IndexCoding::Rice };
    for zeros in [8, 64, 100_000] {
        for (last, problem) in [(0, "truncated"), (0xff, "index beyond the bucket")] {
            let mut bytes = encoded(wire, LONGEST, &[word(0, 1.0)]);
            assert_eq!(bytes.len(), HEADER + 4 + 2);
            bytes.splice(HEADER..HEADER, vec![0; zeros]);
            bytes[HEADER + zeros..].fill(last);
            let error = decode(&bytes, LONGEST, &mut Message::default()).unwrap_err();
            assert!(error.to_string().ends_with(problem), "{zeros}, {last}: {error}");
        }
    }
}

/// Of all the bytes there are, exactly as many decode as there are messages: ten indices, so many of them sent.
#[test]
fn as_many_encodings_as_messages() {
    let wire = Wire { value: ValueFormat::F16, index: IndexCoding::Rice };
    for (count, messages) in [(1, 10), (2, 45), (3, 120), (8, 45), (10, 1)] {
        let mut decoded = 0;
        for length in 1..=2 {
            for pattern in 0..1_u32 << (8 * length) {
                let mut bytes = encoded(wire, 10, &[]);
                bytes[5] = count;
                bytes.extend_from_slice(&pattern.to_le_bytes()[..length]);
                bytes.resize(bytes.len() + 2 * usize::from(count), 0);
                decoded += u32::from(decode(&bytes, 10, &mut Message::default()).is_ok());
            }
        }
        assert_eq!(decoded, messages, "{count} of 10");
    }
}

/// Codes as long as they get, from 30 bits to 38, across every edge of the words they are packed in.
#[test]
fn long_codes_come_back() {
    let wire = Wire { value: ValueFormat::F16, index: IndexCoding::Rice };
    let b = rice_parameter(u32::MAX, 4);
    assert_eq!(b, 29);
    let gaps = || (0..8).flat_map(|q| [0, 1, 1 << 28, (1 << 29) - 1].map(|rest| q << 29 | rest));
    let (mut encoder, mut bytes, mut message, mut tried) = (Encoder::default(), Vec::new(), Message::default(), 0);
    for (first, second, third) in
        gaps().flat_map(|a: usize| gaps().flat_map(move |b| gaps().map(move |c| (a, a + b + 1, a + b + c + 2))))
    {
        if third + 1 < LONGEST {
            let words = [first, second, third, third + 1].map(|index| word(index as u32, 0.5));
            encoder.encode(wire, LONGEST, &words, &mut bytes).unwrap();
            decode(&bytes, LONGEST, &mut message).unwrap();
            assert_eq!(message.words, words);
            tried += 1;
        }
    }
    assert!(tried > 4000, "{tried}");
}

/// The parameter is the best one: no neighbour's expected length is less. (The formula at hand, in floating point.)
#[test]
fn the_parameter_is_optimal() {
    let bits = |d: f64, b: i32| f64::from(b) + 1.0 / (1.0 - (1.0 - d).powf(2_f64.powi(b)));
    for len in [10, 1000, 1_000_000, u32::MAX] {
        for share in 1..200 {
            let count = ((f64::from(len) * 0.9_f64.powi(share)) as u32).max(1);
            let (d, b) = (f64::from(count) / f64::from(len), rice_parameter(len, count) as i32);
            assert!(b <= 31);
            let best = bits(d, b);
            assert!((0..=32).all(|other| best <= bits(d, other) * (1.0 + 1e-6)), "{count} of {len}: {b}");
            assert!((expected_bits(len, count) - best).abs() < 1e-5 * best, "{count} of {len}");
            assert!(best >= entropy_bits(len, count) - 1e-9, "{count} of {len}: less than the entropy");
        }
    }
}

/// 11.5 bits an index at 0.1 % instead of 32, and 11.4 are the least there can be.
#[test]
fn uniform_indices_take_the_expected_bits() {
    let len = 1_u32 << 24;
    let mut encoder = Encoder::default();
    for (density, entropy) in [(1e-4, 14.73), (1e-3, 11.41), (0.01, 8.08), (0.1, 4.69), (0.5, 2.0)] {
        let exact = entropy_bits(1_000_000_000, (1e9 * density) as u32);
        assert!((exact - entropy).abs() < 0.006, "{density}: entropy {exact}");
        // A mixed index is uniform, and mixing is a bijection: as near to a random set as a fixed one comes.
        let below = (density * 2_f64.powi(32)) as u32;
        let words = (0..len).filter(|i| mix(*i, 1) < below).map(|i| word(i, 1.0)).collect::<Vec<_>>();
        let count = words.len() as u32;
        let mut bytes = Vec::new();
        encoder
            .encode(Wire { value: ValueFormat::Bf16, index: IndexCoding::Rice }, len as usize, &words, &mut bytes)
            .unwrap();
        let measured = 8.0 * (bytes.len() - HEADER - 2 * words.len()) as f64 / f64::from(count);
        let (expected, bound) = (expected_bits(len, count), entropy_bits(len, count));
        println!("density {density}: {measured:.3} bits an index, expected {expected:.3}, entropy {bound:.3}");
        assert!((measured / expected - 1.0).abs() < 0.02, "{density}: {measured}, expected {expected}");
        assert!(measured < bound * 1.04 + 0.01, "{density}: {measured} against {bound}");
        if density < 0.002 {
            assert!(((f64::from(len) / f64::from(count)).log2() + std::f64::consts::LOG2_E - bound).abs() < 0.001);
        }
    }
}

/// Steady state: neither side asks for memory again.
#[test]
fn room_is_used_again() {
    let wire = Wire { value: ValueFormat::F32, index: IndexCoding::Rice };
    let (mut encoder, mut bytes, mut message) = (Encoder::default(), Vec::new(), Message::default());
    let words = |seed| (0..1000).map(move |i| word(i * 1000 + mix(i, seed) % 1000, 1.0)).rev().collect::<Vec<_>>();
    encoder.encode(wire, 1_000_000, &words(0), &mut bytes).unwrap();
    decode(&bytes, 1_000_000, &mut message).unwrap();
    let room = (bytes.capacity(), bytes.as_ptr(), message.words.capacity(), message.words.as_ptr());
    for seed in 1..50 {
        encoder.encode(wire, 1_000_000, &words(seed), &mut bytes).unwrap();
        decode(&bytes, 1_000_000, &mut message).unwrap();
        assert_eq!(message.len(), 1000);
    }
    assert_eq!(room, (bytes.capacity(), bytes.as_ptr(), message.words.capacity(), message.words.as_ptr()));
}
