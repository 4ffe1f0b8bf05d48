//! Which entries are candidates: thresholds from samples, their refinement, and random choice.
//!
//! [`candidates`] is the method in scalar form; the functions it is made of define where samples lie, how a threshold
//! is refined and which indices are random, so that every backend comes to the same set.

use crate::hash::{StepSeeds, mix};
use crate::key::{key, magnitude};
use crate::{CompressionSpec, Refinement, Sampling, Selector};
use alloc::vec::Vec;

/// The least magnitude that is ever sent: above zero.
pub const LEAST: u32 = 1;
/// The greatest finite magnitude.
const GREATEST_FINITE: u32 = 0x7f7f_ffff;

/// What a selector comes to once the data are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All at or above this magnitude.
    AtLeast(u32),
    /// The so many greatest, zeros left out.
    Greatest(usize),
}

/// A strided sample: `count` places from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The first place.
    pub start: usize,
    /// From one place to the next.
    pub stride: usize,
    /// Number of places.
    pub count: usize,
}

impl Sample {
    /// The sample of DGC's official code for `k` of `len` entries: a share `ratio`, but enough that two members are
    /// expected above the cut. The stride is odd, 1 more than a multiple of 8, so it does not fall into step with rows of
    /// a weight matrix; the start is random.
    ///
    /// ```
    /// use tilewright_compression::select::Sample;
    /// let sample = Sample::new(1_000_000, 1000, 0.01, 0);
    /// assert_eq!((sample.start, sample.stride, sample.count), (0, 97, 10_309));
    /// assert_eq!(Sample::new(100, 1, 0.01, 0).count, 100); // few entries: all of them
    /// ```
    pub fn new(len: usize, k: usize, ratio: f64, seed: u32) -> Self {
        let everything = Self { start: 0, stride: 1, count: len };
        if len == 0 || k == 0 {
            return everything;
        }
        // In 64 bits: twice the length may not fit into the `usize` of a small machine.
        let n = len as u64;
        let wanted = (libm::ceil(ratio * len as f64) as u64).max((2 * n).div_ceil(k as u64));
        if wanted >= n {
            return everything;
        }
        let mut stride = n.div_ceil(wanted).div_ceil(32) * 32 + 1;
        while n / stride < wanted {
            stride -= 8;
        }
        let start = (u64::from(seed) * stride) >> 32;
        Self { start: start as usize, stride: stride as usize, count: (n / stride) as usize }
    }

    /// The places.
    pub fn places(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |j| self.start + j * self.stride)
    }

    /// The place of the cut in the sample, from the greatest down: the same share of it as `k` is of `len`, at least 1.
    pub fn rank(self, k: usize, len: usize) -> usize {
        ((self.count as u128 * k as u128).div_ceil(len.max(1) as u128) as usize).clamp(1, self.count.max(1))
    }
}

/// The threshold of a sample's magnitudes: the `rank`-th greatest. `magnitudes` is reordered.
pub fn threshold_of(magnitudes: &mut [u32], rank: usize) -> u32 {
    if magnitudes.is_empty() {
        return LEAST;
    }
    let at = magnitudes.len() - rank.clamp(1, magnitudes.len());
    (*magnitudes.select_nth_unstable(at).1).max(LEAST)
}

/// Whether fewer pass than [`Refinement::lower`] tolerates.
pub fn too_few(passing: usize, k: usize, refine: Refinement) -> bool {
    (passing as f64) < f64::from(refine.lower) * k as f64
}

/// Whether more pass than [`Refinement::upper`] tolerates.
pub fn too_many(passing: usize, k: usize, refine: Refinement) -> bool {
    passing as f64 > f64::from(refine.upper) * k as f64
}

/// A threshold that let too few pass, lowered by one step. What is not finite falls to the greatest finite number.
pub fn lowered(threshold: u32, refine: Refinement) -> u32 {
    if threshold > GREATEST_FINITE {
        return GREATEST_FINITE;
    }
    magnitude(f32::from_bits(threshold) * refine.lower).max(LEAST)
}

/// DGC's hierarchical selection: the sampled threshold, lowered while too few pass; the exact top-k if too many do.
/// Between the two bounds everything that passes is sent. (The official code then cuts to the first k *indices*, which
/// starves the end of a tensor.) `passing` counts the magnitudes at or above a threshold.
pub fn refined(sampled: u32, k: usize, sampling: Sampling, mut passing: impl FnMut(u32) -> usize) -> Cut {
    let Some(refine) = sampling.refine else { return Cut::AtLeast(sampled) };
    let mut threshold = sampled;
    let mut count = passing(threshold);
    for _ in 0..refine.iterations {
        if !too_few(count, k, refine) || threshold == LEAST {
            break;
        }
        let lower = lowered(threshold, refine);
        // Among the least numbers rounding may bring a threshold back to itself.
        if lower == threshold {
            break;
        }
        threshold = lower;
        count = passing(threshold);
    }
    if too_many(count, k, refine) { Cut::Greatest(k) } else { Cut::AtLeast(threshold) }
}

/// Rounds of a [`Permutation`]: with six, pairs of indices in buckets of a dozen were not yet uniform.
const ROUNDS: usize = 8;

/// A keyed permutation of `0..len`: rounds of multiplication, shift and addition on just enough bits, each of them
/// invertible, repeated until the result is below `len`.
///
/// ```
/// use tilewright_compression::select::Permutation;
/// let permutation = Permutation::new(10, [1, 2]);
/// let mut all: Vec<u32> = (0..10).map(|i| permutation.at(i)).collect();
/// all.sort();
/// assert_eq!(all, (0..10).collect::<Vec<u32>>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permutation {
    len: u32,
    mask: u32,
    shift: u32,
    /// Factor and summand of each round.
    rounds: [[u32; 2]; ROUNDS],
}

impl Permutation {
    /// The permutation of these keys. `len` is at least 1.
    pub fn new(len: u32, keys: [u32; 2]) -> Self {
        let bits = (32 - len.saturating_sub(1).leading_zeros()).max(1);
        let round = |r: usize| [mix(keys[0], 2 * r as u32) | 1, mix(keys[1], 2 * r as u32 + 1)];
        let rounds = core::array::from_fn(round);
        Self { len: len.max(1), mask: u32::MAX >> (32 - bits), shift: bits.div_ceil(2), rounds }
    }

    /// Where `i` goes; `i` is less than `len`.
    pub fn at(self, i: u32) -> u32 {
        let mut x = i & self.mask;
        loop {
            x = self.once(x);
            if x < self.len {
                return x;
            }
        }
    }

    fn once(self, mut x: u32) -> u32 {
        for [factor, summand] in self.rounds {
            x = x.wrapping_mul(factor).wrapping_add(summand) & self.mask;
            x ^= x >> self.shift;
        }
        x
    }
}

/// The candidates among `values`, ascending by index.
pub fn candidates(spec: &CompressionSpec, seeds: StepSeeds, values: &[f32]) -> Vec<(u32, f32)> {
    let len = values.len();
    let cut = match spec.selector {
        Selector::RandomK(count) => return random(count.of(len), seeds, values),
        Selector::FixedThreshold(threshold) => Cut::AtLeast(magnitude(threshold).max(LEAST)),
        Selector::ExactTopK(count) => Cut::Greatest(count.of(len)),
        Selector::SampledThreshold(count, sampling) => sampled(count.of(len), sampling, seeds, values),
    };
    match cut {
        Cut::AtLeast(threshold) => entries(values).filter(|(_, x)| magnitude(*x) >= threshold).collect(),
        Cut::Greatest(k) => greatest(k, values),
    }
}

fn entries(values: &[f32]) -> impl Iterator<Item = (u32, f32)> + '_ {
    (0u32..).zip(values.iter().copied())
}

/// The cut of [`Selector::SampledThreshold`].
pub fn sampled(k: usize, sampling: Sampling, seeds: StepSeeds, values: &[f32]) -> Cut {
    let len = values.len();
    if k == 0 || len == 0 {
        return Cut::Greatest(0);
    }
    let sample = Sample::new(len, k, sampling.ratio, seeds.sample);
    let mut magnitudes: Vec<u32> = sample.places().map(|i| magnitude(values[i])).collect();
    let threshold = threshold_of(&mut magnitudes, sample.rank(k, len));
    refined(threshold, k, sampling, |t| values.iter().filter(|x| magnitude(**x) >= t).count())
}

/// The `k` greatest by [`key`], zeros left out, ascending by index: one pass to find the last that belongs, one to
/// collect.
fn greatest(k: usize, values: &[f32]) -> Vec<(u32, f32)> {
    let mut keys: Vec<u64> = entries(values).filter(|(_, x)| magnitude(*x) >= LEAST).map(|(i, x)| key(i, x)).collect();
    if k == 0 || keys.is_empty() {
        return Vec::new();
    }
    let last = k.min(keys.len()) - 1;
    let cut = *keys.select_nth_unstable_by(last, |a, b| b.cmp(a)).1;
    entries(values).filter(|(i, x)| magnitude(*x) >= LEAST && key(*i, *x) >= cut).collect()
}

fn random(k: usize, seeds: StepSeeds, values: &[f32]) -> Vec<(u32, f32)> {
    if values.is_empty() {
        return Vec::new();
    }
    let permutation = Permutation::new(values.len() as u32, seeds.permutation);
    let mut indices: Vec<u32> = (0..k as u32).map(|i| permutation.at(i)).collect();
    indices.sort_unstable();
    indices.into_iter().map(|i| (i, values[i as usize])).filter(|(_, x)| magnitude(*x) >= LEAST).collect()
}
