//! The textbook formula of a step, written to be read beside the papers: everything is sorted, nothing is clever.

use crate::hash::{StepSeeds, slot};
use crate::key::{key, magnitude};
use crate::memory::{accumulate, left_over, length};
use crate::message::unpack;
use crate::select::{Cut, LEAST, Permutation, Sample, refined};
use crate::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Feedback, Memory, Message, NonFinite, Placement,
    Policy, Reduction, Sampling, Selector, Step,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// The reference: `O(n log n)` time, a few vectors of `n`.
///
/// ```
/// use tilewright_compression::reference::Reference;
/// use tilewright_compression::{CompressionSpec, Compressor, Count, Decompressor, Memory, Message, Reduction, Step};
///
/// let spec = CompressionSpec::top_k(4, Count::Entries(1));
/// let (mut memory, mut message) = (Memory::new(&spec)?, Message::default());
/// Reference.compress(&spec, Step::new(0), &[1.0, -3.0, 2.0, 0.0], &mut memory, &mut message)?;
/// assert_eq!(message.entries().collect::<Vec<_>>(), [(1, -3.0)]);
/// assert_eq!(memory.velocity, [1.0, 0.0, 2.0, 0.0]); // what was not sent waits
///
/// let mut update = [0.0; 4];
/// Reference.decompress(&[&message.words, &message.words], Reduction::Sum, &mut update)?; // two ranks, the same index
/// assert_eq!(update, [0.0, -6.0, 0.0, 0.0]);
/// # Ok::<(), tilewright_compression::CompressionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Compressor for Reference {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        check(spec, step, gradient, memory)?;
        let values = accumulate_all(spec, step.scale, gradient, memory);
        let seeds = StepSeeds::new(spec.seed, step.number);
        let chosen = place(spec, seeds, select(spec, seeds, &values))?;
        message.words.clear();
        for i in chosen {
            let value = values[i as usize];
            let sent = spec.wire.value.round(value);
            message.push(i, sent);
            forget(spec.feedback, i as usize, left_over(value, sent), memory);
        }
        Ok(())
    }
}

/// Whether a step can be taken at all; every implementation refuses the same ones.
///
/// # Errors
/// The specification is invalid, the step's scale is not finite, an array has the wrong length, or the gradient is not
/// finite and must be.
pub fn check(spec: &CompressionSpec, step: Step, gradient: &[f32], memory: &Memory) -> Result<(), CompressionError> {
    spec.validate()?;
    if !step.scale.is_finite() {
        return Err(crate::spec::spec("scale", step.scale.to_string(), "a finite number"));
    }
    length("gradient", gradient.len(), spec.len)?;
    memory.check(spec)?;
    if spec.non_finite == NonFinite::Reject
        && let Some(index) = gradient.iter().position(|g| !g.is_finite())
    {
        return Err(CompressionError::NonFinite { index, bits: gradient[index].to_bits() });
    }
    Ok(())
}

/// The gradient enters the memory; what comes back is the vector that entries are chosen from.
fn accumulate_all(spec: &CompressionSpec, scale: f32, gradient: &[f32], memory: &mut Memory) -> Vec<f32> {
    let mut values = Vec::with_capacity(gradient.len());
    for (i, g) in gradient.iter().enumerate() {
        let u = memory.momentum.get(i).copied().unwrap_or(0.0);
        let v = memory.velocity.get(i).copied().unwrap_or(0.0);
        let (u, v) = accumulate(spec.feedback, u, v, scale * g);
        if let Some(place) = memory.momentum.get_mut(i) {
            *place = u;
        }
        if let Some(place) = memory.velocity.get_mut(i) {
            *place = v;
        }
        values.push(v);
    }
    values
}

/// Candidates with their keys, ascending by index.
fn select(spec: &CompressionSpec, seeds: StepSeeds, values: &[f32]) -> Vec<(u32, u64)> {
    let all = || (0u32..).zip(values).filter(|(_, x)| magnitude(**x) >= LEAST).map(|(i, x)| (i, key(i, *x)));
    let at_least = |t: u32| all().filter(|(i, _)| magnitude(values[*i as usize]) >= t).collect::<Vec<_>>();
    let greatest = |k: usize| {
        let mut list: Vec<_> = all().collect();
        list.sort_by_key(|(_, key)| Reverse(*key));
        list.truncate(k);
        list.sort_by_key(|(i, _)| *i);
        list
    };
    let (len, aim) = (values.len(), spec.selector.aim(values.len()).unwrap_or(0));
    match spec.selector {
        Selector::FixedThreshold(threshold) => at_least(magnitude(threshold)),
        Selector::ExactTopK(_) => greatest(aim),
        Selector::SampledThreshold(_, sampling) if aim > 0 => match sampled_cut(aim, sampling, seeds, values) {
            Cut::AtLeast(threshold) => at_least(threshold),
            Cut::Greatest(k) => greatest(k),
        },
        Selector::RandomK(_) if len > 0 => {
            let permutation = Permutation::new(len as u32, seeds.permutation);
            let mut chosen: Vec<bool> = alloc::vec![false; len];
            (0..aim as u32).for_each(|j| chosen[permutation.at(j) as usize] = true);
            all().filter(|(i, _)| chosen[*i as usize]).collect()
        }
        Selector::SampledThreshold(..) | Selector::RandomK(_) => Vec::new(),
    }
}

/// DGC, §3.1: the threshold of a sample, then of the whole.
fn sampled_cut(k: usize, sampling: Sampling, seeds: StepSeeds, values: &[f32]) -> Cut {
    let sample = Sample::new(values.len(), k, sampling.ratio, seeds.sample);
    let mut magnitudes: Vec<u32> = sample.places().map(|i| magnitude(values[i])).collect();
    magnitudes.sort_unstable_by_key(|m| Reverse(*m));
    let threshold = magnitudes[sample.rank(k, values.len()) - 1].max(LEAST);
    refined(threshold, k, sampling, |t| values.iter().filter(|x| magnitude(**x) >= t).count())
}

/// Who is sent, in the message's order.
fn place(spec: &CompressionSpec, seeds: StepSeeds, candidates: Vec<(u32, u64)>) -> Result<Vec<u32>, CompressionError> {
    let (Placement::HashTable { policy, .. }, Some(slots)) = (spec.placement, spec.slots()?) else {
        return Ok(candidates.into_iter().map(|(i, _)| i).collect());
    };
    let mut table: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for (i, key) in candidates {
        let held = table.entry(slot(i, seeds.hash, slots)).or_insert((i, key));
        // Under `Any` the reference's race is won by whoever comes last.
        if policy == Policy::Any || key > held.1 {
            *held = (i, key);
        }
    }
    Ok(table.into_values().map(|(i, _)| i).collect())
}

/// An entry was sent: only `rest` of it stays.
fn forget(feedback: Feedback, i: usize, rest: f32, memory: &mut Memory) {
    if let Some(v) = memory.velocity.get_mut(i) {
        *v = rest;
    }
    if let (Feedback::Momentum { masking: true, .. }, Some(u)) = (feedback, memory.momentum.get_mut(i)) {
        *u = 0.0;
    }
}

impl Decompressor for Reference {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        check_messages(messages, out.len())?;
        out.fill(0.0);
        for (i, x) in messages.iter().flat_map(|words| words.iter().map(|word| unpack(*word))) {
            out[i as usize] += x;
        }
        if reduction == Reduction::Mean {
            for x in out {
                *x /= messages.len() as f32;
            }
        }
        Ok(())
    }
}

/// Whether all indices of all messages lie below `len`, and a mean has something to divide by.
///
/// # Errors
/// [`CompressionError::Message`], naming the first rank whose message does not fit.
pub fn check_messages(messages: &[&[u64]], len: usize) -> Result<(), CompressionError> {
    if messages.is_empty() {
        return Err(crate::spec::spec("messages", "none".into(), "one of each rank"));
    }
    for (rank, words) in messages.iter().enumerate() {
        if let Some(word) = words.iter().find(|word| unpack(**word).0 as usize >= len) {
            let problem = format!("index {}, expected less than {len}", unpack(*word).0);
            return Err(CompressionError::Message { rank, problem });
        }
    }
    Ok(())
}
