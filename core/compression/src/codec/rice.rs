//! Rice codes of geometric gaps: the parameter, its price, the bits.

use alloc::vec::Vec;

/// 1/φ in units of 2⁻⁶³, rounded down.
const INVERSE_GOLDEN_RATIO: u64 = 5_700_357_409_661_599_242;

/// The Rice parameter for the gaps between `count` indices below `len`.
///
/// Gaps between indices drawn with density `d` are geometric: `P(gap ≥ g) = (1 − d)^g`. A gap then takes
/// `b + 1/(1 − q)` bits on average, where `q = (1 − d)^(2ᵇ)` is the chance of another zero. One more bit of remainder
/// squares `q`, which pays if `1 + 1/(1 − q²) < 1/(1 − q)`, that is, if `q > (√5 − 1)/2 = 1/φ`. So the best `b` is the
/// number of times that `1 − d` must be squared to fall to 1/φ. It is computed in integers: both ends must agree on it.
///
/// ```
/// use tilewright_compression::codec::rice_parameter;
/// assert_eq!(rice_parameter(1_000_000, 1_000), 9);
/// assert_eq!(rice_parameter(1_000_000, 900_000), 0);
/// ```
pub fn rice_parameter(len: u32, count: u32) -> u32 {
    if count == 0 || count > len {
        return 0;
    }
    let mut q = ((u128::from(len - count) << 63) / u128::from(len)) as u64;
    let mut squarings = 0;
    // d is more than 2⁻³², so 31 squarings are enough.
    while q > INVERSE_GOLDEN_RATIO {
        q = ((u128::from(q) * u128::from(q)) >> 63) as u64;
        squarings += 1;
    }
    squarings
}

/// Bits that an index takes on average, if `count` indices below `len` are drawn uniformly: `b + 1/(1 − q)`, as in
/// [`rice_parameter`].
///
/// ```
/// use tilewright_compression::codec::{entropy_bits, expected_bits};
/// assert!((expected_bits(100_000_000, 100_000) - 11.49).abs() < 0.01);
/// assert!((entropy_bits(100_000_000, 100_000) - 11.41).abs() < 0.01);
/// ```
pub fn expected_bits(len: u32, count: u32) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let b = rice_parameter(len, count);
    let ln = libm::log1p(-f64::from(count) / f64::from(len));
    f64::from(b) - 1.0 / libm::expm1(ln * libm::exp2(f64::from(b)))
}

/// Bits that uniform indices take at least, each, whatever the code: the entropy of a geometric gap, `log₂(1/d) + (1 − d)/d · log₂(1/(1 − d))`,
/// for small densities `log₂(1/d) + 1.44`.
pub fn entropy_bits(len: u32, count: u32) -> f64 {
    if count == 0 || count >= len {
        return 0.0;
    }
    let d = f64::from(count) / f64::from(len);
    -libm::log2(d) - (1.0 - d) / d * libm::log1p(-d) / core::f64::consts::LN_2
}

/// Bits into bytes, least significant first.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    bits: u64,
    filled: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, bits: 0, filled: 0 }
    }

    /// At most 32 bits; those of `bits` above `count` are zero.
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.bits |= bits << self.filled;
        self.filled += count;
        if self.filled >= 32 {
            self.out.extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.filled -= 32;
        }
    }

    /// A gap, with parameter `b`.
    #[inline]
    pub(super) fn put_rice(&mut self, gap: u32, b: u32) {
        let mut quotient = gap >> b;
        let rest = u64::from(gap) & ((1 << b) - 1);
        while quotient + 1 + b > 32 && quotient > 0 {
            let zeros = quotient.min(32);
            self.put(0, zeros);
            quotient -= zeros;
        }
        self.put((rest << 1 | 1) << quotient, quotient + 1 + b);
    }

    /// Fills up the last byte.
    pub(super) fn finish(self) {
        let bytes = self.filled.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.bits.to_le_bytes()[..bytes]);
    }
}

/// Bits out of bytes, least significant first. The bits above `filled` are zero.
pub(super) struct BitReader<'a> {
    rest: &'a [u8],
    bits: u64,
    filled: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, bits: 0, filled: 0 }
    }

    /// How many whole bytes are left, and what the bits of a byte that was begun are.
    pub(super) fn left(&self) -> (usize, u64) {
        (self.rest.len() + self.filled as usize / 8, self.bits)
    }

    /// From fewer than 32 bits to at least 57, if there are so many.
    #[inline]
    fn refill(&mut self) {
        let room = (64 - self.filled) as usize / 8;
        if let Some(eight) = self.rest.first_chunk::<8>()
            && room < 8
        {
            let bits = u64::from_le_bytes(*eight) & ((1 << (8 * room)) - 1);
            self.bits |= bits << self.filled;
            self.rest = &self.rest[room..];
            self.filled += 8 * room as u32;
            return;
        }
        let (bytes, rest) = self.rest.split_at(room.min(self.rest.len()));
        for byte in bytes {
            self.bits |= u64::from(*byte) << self.filled;
            self.filled += 8;
        }
        self.rest = rest;
    }

    /// The next gap; none if the bits end before it does. One too large for any bucket comes back as 2⁶³ or more.
    #[inline]
    pub(super) fn get_rice(&mut self, b: u32) -> Option<u64> {
        if self.filled < 32 {
            self.refill();
        }
        let mut quotient = 0;
        while self.bits == 0 {
            quotient += u64::from(self.filled);
            self.filled = 0;
            if self.rest.is_empty() {
                return None;
            }
            self.refill();
        }
        let zeros = self.bits.trailing_zeros();
        quotient += u64::from(zeros);
        self.bits = self.bits >> zeros >> 1;
        self.filled -= zeros + 1;
        if self.filled < b {
            self.refill();
            if self.filled < b {
                return None;
            }
        }
        let rest = self.bits & ((1 << b) - 1);
        self.bits >>= b;
        self.filled -= b;
        Some(if quotient >> (32 - b) == 0 { quotient << b | rest } else { 1 << 63 })
    }
}
