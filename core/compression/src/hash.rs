//! From indices to slots, and from a step's number to its seeds.

use tilewright_scalar::philox4x32_10;

/// 32 bits well mixed: a bijection for every seed, each input bit changes each output bit about half of the time. (The
/// two multipliers are from a search for low bias among such functions, by C. Wellons, "hash-prospector".)
#[inline]
pub fn mix(index: u32, seed: u32) -> u32 {
    let mut h = index.wrapping_add(seed.wrapping_mul(0x9e37_79b9));
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// The slot of an index among `slots`: the mixed index as a fraction of 2³², scaled. No division, any number of slots.
///
/// ```
/// use tilewright_compression::hash::slot;
/// assert!((0..1000).all(|i| slot(i, 7, 12) < 12));
/// ```
#[inline]
pub fn slot(index: u32, seed: u32, slots: u32) -> u32 {
    ((u64::from(mix(index, seed)) * u64::from(slots)) >> 32) as u32
}

/// What is random about one step. Every rank derives the same from the same specification and step, and a pair of
/// indices that collides in one step has no more reason than any other to collide in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSeeds {
    /// For [`slot`].
    pub hash: u32,
    /// Where the strided sample starts, as a fraction of 2³² of the stride.
    pub sample: u32,
    /// Keys of the random permutation.
    pub permutation: [u32; 2],
}

impl StepSeeds {
    /// The seeds of step `step` under a specification's seed.
    ///
    /// ```
    /// use tilewright_compression::hash::StepSeeds;
    /// assert_ne!(StepSeeds::new(1, 0).hash, StepSeeds::new(1, 1).hash);
    /// ```
    pub fn new(seed: u64, step: u64) -> Self {
        let [hash, sample, a, b] =
            philox4x32_10([step as u32, (step >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
        Self { hash, sample, permutation: [a, b] }
    }
}
