//! DGC's hierarchical selection: the threshold of a sample, then of the whole.

use crate::compression::Fault;
use crate::compression::kernel::Pass;
use crate::compression::select::Cut;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::key::magnitude;
use tilewright_compression::select::{LEAST, Sample};
use tilewright_compression::{Refinement, Sampling};

/// More steps than lowering takes to reach anything, for [`Fault::LoweredWithoutEnd`].
const ENDLESS: u32 = 10_000;

impl Pass {
    pub(crate) fn sampled(&self, k: usize, sampling: Sampling, seeds: StepSeeds, values: &[f32]) -> Cut {
        let len = values.len();
        if k == 0 || len == 0 {
            return Cut::Greatest(0);
        }
        let sample = self.sample(len, k, sampling.ratio, seeds.sample);
        let mut seen = self.seen(sample, values);
        let rank = self.rank(sample, k, len).clamp(1, seen.len());
        let at = if self.is(Fault::SampleFromBelow) { rank - 1 } else { seen.len() - rank };
        let threshold = (*seen.select_nth_unstable(at).1).max(self.least());
        let count = |t: u32| values.iter().filter(|x| magnitude(**x) >= t).count();
        let cut = match sampling.refine {
            Some(refine) if self.is(Fault::RefinedOnSample) => {
                let estimate = |t: u32| seen.iter().filter(|m| **m >= t).count() * len / seen.len();
                self.refined(threshold, k, refine, estimate)
            }
            Some(refine) => self.refined(threshold, k, refine, count),
            None => Cut::AtLeast(threshold),
        };
        match cut {
            Cut::AtLeast(t) if self.is(Fault::OverflowLost) => Cut::Capacity(k, t),
            Cut::AtLeast(t) if self.is(Fault::FirstIndicesKept) => Cut::First(k, t),
            cut => cut,
        }
    }

    fn sample(&self, len: usize, k: usize, ratio: f64, seed: u32) -> Sample {
        let right = Sample::new(len, k, ratio, seed);
        match self.fault {
            Some(Fault::SampleFromZero) => Sample { start: 0, ..right },
            Some(Fault::SampleStartByRemainder) => Sample { start: seed as usize % right.stride, ..right },
            Some(Fault::SampleStrideLonger) => Sample { stride: right.stride + 1, ..right },
            // With so great a k the share alone decides.
            Some(Fault::SampleTooSmall) => Sample::new(len, len, ratio, seed),
            _ => right,
        }
    }

    /// The magnitudes sampled.
    fn seen(&self, sample: Sample, values: &[f32]) -> Vec<u32> {
        let places = sample.places().map(|i| match self.fault {
            Some(Fault::SampleOffsetWraps) => sample.start + ((i - sample.start) & 0xffff),
            _ => i,
        });
        let size = |x: f32| if self.is(Fault::SampleSigned) && x < 0.0 { 0 } else { magnitude(x) };
        places.filter_map(|i| values.get(i)).map(|x| size(*x)).collect()
    }

    fn rank(&self, sample: Sample, k: usize, len: usize) -> usize {
        match self.fault {
            Some(Fault::SampleRankOfWhole) => k,
            Some(Fault::SampleRankRoundedDown) => sample.count * k / len,
            _ => (sample.count * k).div_ceil(len),
        }
    }

    /// Lowers the threshold while too few pass; too many are cut to the greatest `k`.
    fn refined(&self, sampled: u32, k: usize, refine: Refinement, passing: impl Fn(u32) -> usize) -> Cut {
        let wanted = k as f64;
        let (fewest, most) = match self.fault {
            Some(Fault::LoweredBelowK) => (wanted, f64::from(refine.upper) * wanted),
            Some(Fault::BoundsInF32) => (f64::from(refine.lower * k as f32), f64::from(refine.upper * k as f32)),
            _ => (f64::from(refine.lower) * wanted, f64::from(refine.upper) * wanted),
        };
        let too_few = |count: usize| match self.fault {
            Some(Fault::LoweredAtBound) => count as f64 <= fewest,
            _ => (count as f64) < fewest,
        };
        let too_many = |count: usize| match self.fault {
            Some(Fault::ExcessAtBound) => count as f64 >= most,
            _ => count as f64 > most,
        };
        let steps = match self.fault {
            Some(Fault::NeverLowered) => 0,
            Some(Fault::LoweredOnce) => refine.iterations.min(1),
            Some(Fault::LoweredWithoutEnd) => ENDLESS,
            _ => refine.iterations,
        };
        let (mut threshold, mut taken) = (sampled, 0);
        let mut count = passing(threshold);
        while too_few(count) && threshold > LEAST && taken < steps {
            let lower = self.lowered(threshold, refine);
            if lower == threshold {
                break; // Rounding has caught up with it: it will not fall any more.
            }
            threshold = lower;
            count = passing(threshold);
            taken += 1;
        }
        if !too_many(count) {
            return Cut::AtLeast(threshold);
        }
        match self.fault {
            Some(Fault::ExcessNotCut) => Cut::AtLeast(threshold),
            Some(Fault::ExcessCutAtUpper) => Cut::Greatest(most as usize),
            Some(Fault::ExcessKeepsOneMore) => Cut::Greatest(k + 1),
            Some(Fault::FirstIndicesKept) => Cut::First(k, threshold),
            Some(Fault::OverflowLost) => Cut::Capacity(k, threshold),
            _ => Cut::Greatest(k),
        }
    }

    fn lowered(&self, threshold: u32, refine: Refinement) -> u32 {
        let float = f32::from_bits(threshold);
        if !float.is_finite() {
            return f32::MAX.to_bits();
        }
        let lower = if self.is(Fault::LoweredByUpper) { float / refine.upper } else { float * refine.lower };
        lower.to_bits().max(LEAST)
    }
}
