//! The one order of entries: greatest magnitude first, then least index, as a 64-bit integer.

/// The magnitude of every NaN: above infinity.
pub const NAN: u32 = 0x7fc0_0000;

/// The magnitude of a number as an integer: monotone in `|x|`, NaN above infinity above everything finite, −0 equal to 0.
/// All NaNs are equal: which of them an operation gives depends on the processor, and the order of entries must not.
///
/// ```
/// use tilewright_compression::key::magnitude;
/// assert!(magnitude(-2.0) > magnitude(1.0));
/// assert!(magnitude(f32::NAN) > magnitude(f32::INFINITY));
/// assert_eq!(magnitude(f32::from_bits(0xffff_ffff)), magnitude(f32::NAN));
/// assert_eq!(magnitude(-0.0), 0);
/// ```
#[inline]
pub fn magnitude(x: f32) -> u32 {
    let bits = x.to_bits() & 0x7fff_ffff;
    if bits > 0x7f80_0000 { NAN } else { bits }
}

/// The key of an entry: 31 bits of magnitude, 32 bits of complemented index, the sign. A greater key is an entry that
/// goes first, and the entry can be had back from it. The sign comes last, where it decides nothing (no two entries of a
/// bucket have the same index), so negating a gradient selects the same places. No entry's key is 0, for an index is
/// less than 2³² − 1: 0 marks an empty slot, and index 0 is as good as any other.
///
/// ```
/// use tilewright_compression::key::{entry, key};
/// assert!(key(7, -2.0) > key(3, 1.0));
/// assert!(key(3, 1.0) > key(7, 1.0));
/// assert_eq!(entry(key(7, -2.0)), (7, -2.0));
/// assert_ne!(key(0, 0.0), 0);
/// ```
#[inline]
pub fn key(index: u32, value: f32) -> u64 {
    u64::from(magnitude(value)) << 33 | u64::from(!index) << 1 | u64::from(value.to_bits() >> 31)
}

/// The entry of a key.
#[inline]
pub fn entry(key: u64) -> (u32, f32) {
    (!((key >> 1) as u32), f32::from_bits((key >> 33) as u32 | (key as u32 & 1) << 31))
}
