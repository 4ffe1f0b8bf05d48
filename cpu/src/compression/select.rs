//! Candidates in one pass, whatever the selector.
//!
//! A threshold has to be known before the pass that it is applied in. So it is *foreseen*, from a sparse sample of what the
//! pass is going to compute, and taken low enough that nearly always too much passes rather than too little; the exact
//! rule then decides among what passed. If the guess was too high after all, that shows — too few passed — and a
//! second pass reads the values again with a lower one. If it was far too low, the list is cut while it grows.

use super::keys::least_key;
use super::pass::{Found, Pass, Streams};
use super::simd::Level;
use super::sweep::NEVER;
use rayon::prelude::*;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::key::{entry, key, magnitude};
use tilewright_compression::memory::accumulate;
use tilewright_compression::select::{Cut, LEAST, Permutation, Sample, lowered, refined, threshold_of};
use tilewright_compression::{Feedback, Sampling, Selector};

/// From one member of the foreseeing sample to the next: at the least distance it costs a few tenths of reading
/// everything, at the greatest a few hundredths.
const STRIDES: (f64, f64) = (128.0, 1024.0);
/// Samples and random choices of fewer elements are not worth sharing out.
const WORTH_SHARING: usize = 1 << 13;

/// A bucket's values after the gradient came in, and how to get them beforehand.
#[derive(Clone, Copy)]
struct Values<'a> {
    feedback: Feedback,
    scale: f32,
    gradient: &'a [f32],
    momentum: &'a [f32],
    velocity: &'a [f32],
}

impl Values<'_> {
    /// Arrays that a value is made of.
    fn streams(&self) -> usize {
        [self.gradient, self.momentum, self.velocity].iter().filter(|stream| !stream.is_empty()).count()
    }

    /// What the pass will find at `i`.
    fn foreseen(&self, i: usize) -> f32 {
        let of = |stream: &[f32]| stream.get(i).copied().unwrap_or(0.0);
        accumulate(self.feedback, of(self.momentum), of(self.velocity), self.scale * self.gradient[i]).1
    }

    /// What the pass left at `i`.
    fn updated(&self, i: usize) -> f32 {
        if self.velocity.is_empty() { self.scale * self.gradient[i] } else { self.velocity[i] }
    }
}

impl Streams<'_> {
    fn values(&self) -> Values<'_> {
        Values {
            feedback: self.feedback,
            scale: self.scale,
            gradient: self.gradient,
            momentum: self.momentum,
            velocity: self.velocity,
        }
    }

    fn reborrow(&mut self) -> Streams<'_> {
        Streams {
            feedback: self.feedback,
            scale: self.scale,
            gradient: self.gradient,
            momentum: self.momentum,
            velocity: self.velocity,
        }
    }

    /// A pass that only reads what the first pass left.
    fn again(&self) -> Streams<'_> {
        let (scale, gradient) =
            if self.velocity.is_empty() { (self.scale, self.gradient) } else { (1.0, &*self.velocity) };
        Streams { feedback: Feedback::None, scale, gradient, momentum: &mut [], velocity: &mut [] }
    }
}

/// Room that selections use again and again.
#[derive(Debug, Default)]
pub(super) struct Select {
    pass: Pass,
    magnitudes: Vec<u32>,
    indices: Vec<u32>,
}

/// Magnitudes between which a cut is expected.
#[derive(Clone, Copy)]
struct Foreseen {
    low: u32,
    high: u32,
}

impl Select {
    /// Lets the gradient into the memory and leaves in `found` a list of keys; those at or above `found.cut` are the
    /// candidates.
    pub(super) fn run(
        &mut self,
        level: Level,
        selector: Selector,
        seeds: StepSeeds,
        mut streams: Streams<'_>,
        found: &mut Found,
    ) {
        let len = streams.gradient.len();
        match selector {
            Selector::ExactTopK(count) => self.greatest(level, count.of(len), streams, found),
            Selector::SampledThreshold(count, sampling) => {
                self.sampled(level, count.of(len), sampling, seeds, streams, found);
            }
            Selector::FixedThreshold(threshold) => {
                self.pass.run(level, streams, magnitude(threshold).max(LEAST), None, found);
            }
            Selector::RandomK(count) => {
                self.pass.run(level, streams.reborrow(), NEVER, None, found);
                self.random(count.of(len), seeds, streams.values(), found);
            }
        }
    }

    /// The `k` greatest, exactly, in one pass.
    fn greatest(&mut self, level: Level, k: usize, mut streams: Streams<'_>, found: &mut Found) {
        if k == 0 || streams.gradient.is_empty() {
            return self.pass.run(level, streams, NEVER, None, found);
        }
        let Foreseen { low, high } = self.foresee(k as f64, streams.values());
        self.pass.run(level, streams.reborrow(), low, Some(k), found);
        if found.keys.len() < k && low > LEAST {
            self.pass.run(level, streams.again(), LEAST, Some(k), found);
        }
        found.cut = if found.keys.len() > k { found.kth_greatest(k, least_key(high)) } else { 0 };
    }

    /// Magnitudes that more than `k` of the values surely reach, and less than `k` surely: the cut of a sample of the
    /// updated values, four standard errors to either side.
    fn foresee(&mut self, k: f64, values: Values<'_>) -> Foreseen {
        let len = values.gradient.len();
        // `n / stride` members cost time in each stream, and so do the `√(k · stride)` keys that the margin lets pass
        // beyond `k`: this balances them.
        let streams = values.streams() as f64;
        let stride = ((len as f64 * streams).powi(2) / (40.0 * k)).cbrt().clamp(STRIDES.0, STRIDES.1) as usize | 1;
        let count = len / stride;
        let rank = k * count as f64 / len as f64;
        let margin = 4.0 * rank.sqrt() + 4.0;
        if rank + margin >= count as f64 {
            return Foreseen { low: LEAST, high: NEVER };
        }
        self.sample(count, |j| values.foreseen(j * stride));
        let at = count - (rank + margin) as usize;
        let (_, low, greater) = self.magnitudes.select_nth_unstable(at);
        let low = (*low).max(LEAST);
        let high = if rank > margin + 1.0 {
            let at = greater.len() - (rank - margin) as usize;
            *greater.select_nth_unstable(at).1
        } else {
            NEVER
        };
        Foreseen { low, high }
    }

    /// The magnitudes of `count` values.
    fn sample(&mut self, count: usize, value: impl Fn(usize) -> f32 + Sync) {
        self.magnitudes.resize(count, 0);
        let places = self.magnitudes.par_iter_mut().with_min_len(WORTH_SHARING).enumerate();
        places.for_each(|(j, place)| *place = magnitude(value(j)));
    }

    /// DGC's hierarchical selection. Its sample is not read beforehand: those members that matter are among the keys
    /// that passed.
    fn sampled(
        &mut self,
        level: Level,
        k: usize,
        sampling: Sampling,
        seeds: StepSeeds,
        mut streams: Streams<'_>,
        found: &mut Found,
    ) {
        let len = streams.gradient.len();
        if k == 0 || len == 0 {
            return self.pass.run(level, streams, NEVER, None, found);
        }
        let sample = Sample::new(len, k, sampling.ratio, seeds.sample);
        let rank = sample.rank(k, len);
        // The sample's own error is part of what has to be foreseen.
        let reach = rank as f64 + 4.0 * (rank as f64).sqrt() + 4.0;
        let mut low = self.foresee(reach * len as f64 / sample.count as f64, streams.values()).low;
        // More than the upper tolerance never has to be known in full: then the exact top-k is sent.
        let keep = sampling.refine.map(|refine| {
            let tolerated = (f64::from(refine.upper) * k as f64) as usize;
            tolerated.saturating_add(1).max(4 * k).min(len)
        });
        self.pass.run(level, streams.reborrow(), low, keep, found);

        let threshold = self.threshold(sample, rank, streams.values(), found);
        let cut = refined(threshold, k, sampling, |threshold| {
            if threshold < low {
                // Lower than is asked for now: the next question is likely to be lower still.
                low = sampling.refine.map_or(threshold, |refine| lowered(lowered(threshold, refine), refine));
                self.pass.run(level, streams.again(), low, keep, found);
            }
            count_from(found, least_key(threshold))
        });
        found.cut = match cut {
            Cut::AtLeast(threshold) if threshold < low => {
                // Without refinement nobody asked.
                self.pass.run(level, streams.again(), threshold, None, found);
                0
            }
            Cut::AtLeast(threshold) => least_key(threshold),
            Cut::Greatest(k) => found.kth_greatest(k, u64::MAX),
        };
    }

    /// The `rank`-th greatest magnitude of the sample.
    fn threshold(&mut self, sample: Sample, rank: usize, values: Values<'_>, found: &Found) -> u32 {
        self.magnitudes.clear();
        self.magnitudes.extend(found.keys.iter().filter_map(|key| {
            let at = (entry(*key).0 as usize).checked_sub(sample.start)?;
            (at % sample.stride == 0 && at / sample.stride < sample.count).then_some((key >> 33) as u32)
        }));
        if self.magnitudes.len() < rank {
            self.sample(sample.count, |j| values.updated(sample.start + j * sample.stride));
        }
        threshold_of(&mut self.magnitudes, rank)
    }

    /// The entries that the step's permutation puts first.
    fn random(&mut self, k: usize, seeds: StepSeeds, values: Values<'_>, found: &mut Found) {
        let len = values.gradient.len();
        if len == 0 {
            return;
        }
        let permutation = Permutation::new(len as u32, seeds.permutation);
        self.indices.resize(k, 0);
        let places = self.indices.par_iter_mut().with_min_len(WORTH_SHARING).enumerate();
        places.for_each(|(j, place)| *place = permutation.at(j as u32));
        self.indices.par_sort_unstable();
        found.keys.resize(k, 0);
        let places = found.keys.par_iter_mut().with_min_len(WORTH_SHARING).zip(&self.indices);
        places.for_each(|(place, i)| *place = key(*i, values.updated(*i as usize)));
        found.keys.retain(|key| *key >= least_key(LEAST));
        found.split_into_segments(WORTH_SHARING);
    }
}

/// How many keys there are from `least` on.
fn count_from(found: &Found, least: u64) -> usize {
    found.keys.iter().filter(|key| **key >= least).count()
}
