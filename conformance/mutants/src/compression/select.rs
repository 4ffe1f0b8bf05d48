//! Which entries are candidates.

use crate::compression::kernel::Pass;
use crate::compression::{Compaction, Fault};
use tilewright_compression::hash::{StepSeeds, slot};
use tilewright_compression::key::magnitude;
use tilewright_compression::select::{LEAST, Permutation};
use tilewright_compression::{CompressionSpec, Count, Selector, Step};

/// Elements of a block of the scan.
const BLOCK: usize = 64;

/// What a selector comes to once the data are known.
pub(crate) enum Cut {
    /// All at or above this magnitude.
    AtLeast(u32),
    /// The so many greatest.
    Greatest(usize),
    /// The first so many at or above this magnitude.
    First(usize, u32),
    /// All at or above this magnitude; beyond so many they are lost.
    Capacity(usize, u32),
}

/// Candidates, ascending by index.
#[derive(Default)]
pub(crate) struct Candidates {
    pub(crate) list: Vec<u32>,
    /// Entries that will be cleared without having been sent.
    pub(crate) lost: Vec<u32>,
}

impl Pass {
    pub(crate) fn candidates(
        &self,
        spec: &CompressionSpec,
        step: Step,
        seeds: StepSeeds,
        values: &[f32],
    ) -> Candidates {
        let cut = match spec.selector {
            Selector::RandomK(count) => {
                let chosen = self.random(self.count(count, values), seeds, values.len());
                let zeros = self.is(Fault::RandomZerosSent);
                return only(self.collect(values, |i, x| chosen[i as usize] && (zeros || self.sendable(x))));
            }
            Selector::FixedThreshold(threshold) => {
                let factor = if self.is(Fault::FixedThresholdScaled) { step.scale } else { 1.0 };
                Cut::AtLeast(magnitude(threshold * factor).max(self.least()))
            }
            Selector::ExactTopK(count) => {
                let more = usize::from(self.is(Fault::OneEntryMore));
                Cut::Greatest(self.count(count, values) + more)
            }
            Selector::SampledThreshold(count, sampling) => {
                self.sampled(self.count(count, values), sampling, seeds, values)
            }
        };
        match cut {
            Cut::AtLeast(threshold) => only(self.reaching(threshold, values)),
            Cut::Greatest(k) => only(self.greatest(k, values)),
            Cut::First(k, threshold) => {
                let mut list = self.reaching(threshold, values);
                list.truncate(k);
                only(list)
            }
            Cut::Capacity(k, threshold) => {
                let mut list = self.reaching(threshold, values);
                let lost = list.split_off(k.min(list.len()));
                Candidates { list, lost }
            }
        }
    }

    /// `k`.
    fn count(&self, count: Count, values: &[f32]) -> usize {
        let len = values.len();
        match (self.fault, count) {
            (Some(Fault::CountRoundedDown), Count::Density(density)) => {
                ((density * len as f64) as usize).max(1).min(len)
            }
            (Some(Fault::CountMayBeZero), Count::Density(density)) => {
                ((density * len as f64).round() as usize).min(len)
            }
            (Some(Fault::CountHalfToEven), Count::Density(density)) => {
                ((density * len as f64).round_ties_even() as usize).max(1).min(len)
            }
            (Some(Fault::CountOfNonzeros), Count::Density(_)) => {
                count.of(values.iter().filter(|x| magnitude(**x) >= LEAST).count())
            }
            _ => count.of(len),
        }
    }

    /// The least magnitude that passes any threshold.
    pub(crate) fn least(&self) -> u32 {
        if self.is(Fault::ThresholdZeroPassesZeros) { 0 } else { LEAST }
    }

    /// Whether a value tells the receiver anything.
    pub(crate) fn sendable(&self, x: f32) -> bool {
        match self.fault {
            Some(Fault::ZerosFillUp) => true,
            Some(Fault::NegativeZeroSent) => x.to_bits() != 0,
            _ => magnitude(x) >= LEAST,
        }
    }

    /// Everything at or above a threshold.
    fn reaching(&self, threshold: u32, values: &[f32]) -> Vec<u32> {
        let float = f32::from_bits(threshold);
        self.collect(values, |_, x| match self.fault {
            Some(Fault::StrictThreshold) => magnitude(x) > threshold,
            Some(Fault::SignedThreshold) => magnitude(x) >= threshold && (x >= 0.0 || x.is_nan()),
            Some(Fault::NanBelowThreshold) => x.abs() >= float,
            _ => magnitude(x) >= threshold,
        })
    }

    /// The places that are kept, ascending.
    pub(crate) fn collect(&self, values: &[f32], keep: impl Fn(u32, f32) -> bool) -> Vec<u32> {
        let len = values.len();
        let keep = |i: usize| keep(i as u32, values[i]);
        let end = match self.fault {
            Some(Fault::LastEntrySkipped) => len.saturating_sub(1),
            Some(Fault::TailNotScanned) if len > BLOCK => len / BLOCK * BLOCK,
            _ => len,
        };
        let start = usize::from(self.is(Fault::FirstEntrySkipped)).min(end);
        let mut list: Vec<usize> = match self.variant.compaction {
            Compaction::Sorted => {
                self.variant.visit.order(end).into_iter().filter(|i| *i >= start && keep(*i)).collect()
            }
            Compaction::TwoPass(block) => two_pass(block, len, keep),
            Compaction::Marked => {
                let mut marks = vec![false; len];
                self.variant.visit.order(len).into_iter().for_each(|i| marks[i] = keep(i));
                (0..len).filter(|i| marks[*i]).collect()
            }
            Compaction::Filtered => {
                let mut list: Vec<usize> = self.variant.visit.order(len);
                list.retain(|i| magnitude(values[*i]) >= LEAST);
                list.retain(|i| keep(*i));
                list
            }
        };
        if self.is(Fault::SeamTwice) {
            let seams: Vec<usize> = list.iter().copied().filter(|i| *i > 0 && i % BLOCK == 0).collect();
            list.extend(seams);
        }
        list.sort_unstable();
        list.into_iter().map(|i| i as u32).collect()
    }

    /// Which indices random-k names.
    fn random(&self, k: usize, seeds: StepSeeds, len: usize) -> Vec<bool> {
        let mut chosen = vec![false; len];
        if len == 0 {
            return chosen;
        }
        let [a, b] = seeds.permutation;
        let keys = match self.fault {
            Some(Fault::RandomKeysSwapped) => [b, a],
            Some(Fault::RandomOtherWords) => [seeds.hash, seeds.sample],
            _ => [a, b],
        };
        let permutation = Permutation::new(len as u32, keys);
        for j in 0..k as u32 {
            let i = match self.fault {
                Some(Fault::RandomWithReplacement) => slot(j, a, len as u32),
                Some(Fault::RandomIsPrefix) => j,
                _ => permutation.at(j),
            };
            chosen[i as usize] = true;
        }
        chosen
    }
}

fn only(list: Vec<u32>) -> Candidates {
    Candidates { list, lost: Vec::new() }
}

/// Counts what each block keeps, then writes it where the blocks before it end.
fn two_pass(block: usize, len: usize, keep: impl Fn(usize) -> bool) -> Vec<usize> {
    let range = |b: usize| b * block..len.min((b + 1) * block);
    let mut starts = vec![0];
    for b in 0..len.div_ceil(block) {
        starts.push(starts[b] + range(b).filter(|i| keep(*i)).count());
    }
    let mut list = vec![0; starts[starts.len() - 1]];
    for b in (0..starts.len() - 1).rev() {
        let places = &mut list[starts[b]..starts[b + 1]];
        places.iter_mut().zip(range(b).filter(|i| keep(*i))).for_each(|(place, i)| *place = i);
    }
    list
}
