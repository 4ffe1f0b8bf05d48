//! What any correct output satisfies, whatever computed it. No tolerance anywhere but where a sum has to be taken.
//!
//! [`verify_step`] judges one step of one rank completely: accumulators, candidates, placement, values on the wire,
//! residual. [`verify_decode`] judges the other end. The rest are laws that relate several runs; each takes the messages
//! and says whether the law holds between them.
//!
//! | property | function |
//! |---|---|
//! | mass conservation, by supports; edge cases | [`verify_step`] |
//! | exact top-k: the least sent is no less than the greatest kept back | [`verify_step`] |
//! | contraction | [`contraction`] |
//! | the threshold commutes with the rule of the largest magnitude | [`threshold_commutes`] |
//! | freedom of order; the same seed gives the same bytes; replicas agree | [`same`], [`same_entries`] |
//! | semilattice | [`merged`] |
//! | idempotence | [`same_entries`] of a message and of its decoded vector's |
//! | scale and sign | [`scaled`] |
//! | other seeds lose other entries | [`losers_differ`] |
//! | collision statistics | [`crate::statistics`] |
//! | telescoping | [`telescopes`] |
//! | DGC's identities | [`same_bits`] with momentum SGD and plain SGD |
//! | decoding adds in rank order | [`verify_decode`] |
//! | balance of owners | [`balanced`] |
//!
//! That the steady state allocates nothing is for each backend's own tests.

use crate::hash::{StepSeeds, slot};
use crate::key::{key, magnitude};
use crate::memory::{accumulate, left_over};
use crate::message::{unpack, word};
use crate::reference::check_messages;
use crate::select::{Cut, LEAST, Permutation, sampled};
use crate::statistics::owner_imbalance;
use crate::{CompressionSpec, Feedback, Memory, Placement, Policy, Reduction, Selector, Step};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// A property that an output lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Property {
    /// Arrays have the lengths of their roles.
    Length,
    /// A message is well formed: indices in range, none twice, in the placement's order.
    Form,
    /// What is sent are candidates, and all that must be sent is.
    Selection,
    /// Each slot with candidates sends one of them, the right one.
    Slots,
    /// The value sent is the accumulated value, rounded to the wire's format.
    Value,
    /// What was sent has left the residual, what was not is still there, bit for bit.
    Residual,
    /// Momentum is what the equations say, and cleared where masking says.
    Momentum,
    /// The decoded vector is the sum in rank order.
    Decode,
    /// A law between several runs.
    Law,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property.
    pub property: Property,
    /// The index concerned, if it is one.
    pub index: Option<u32>,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{:?} at index {index}: {}", self.property, self.detail),
            None => write!(f, "{:?}: {}", self.property, self.detail),
        }
    }
}

impl core::error::Error for Violation {}

fn violation(property: Property, index: u32, detail: String) -> Violation {
    Violation { property, index: Some(index), detail }
}

fn beyond(index: u32, len: usize) -> Violation {
    violation(Property::Form, index, format!("beyond the bucket's {len}"))
}

fn broken(property: Property, detail: String) -> Violation {
    Violation { property, index: None, detail }
}

/// What a verified step came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checked {
    /// The accumulated vector that entries were chosen from.
    pub values: Vec<f32>,
    /// Candidates, ascending.
    pub candidates: Vec<u32>,
    /// Entries sent.
    pub sent: usize,
}

/// The same bits, or both NaN: which NaN an operation gives is the processor's business.
pub fn same_number(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Judges one step: `gradient` came in with memory `before`, and `after` and `words` came out.
///
/// # Errors
/// The first [`Violation`] found.
pub fn verify_step(
    spec: &CompressionSpec,
    step: Step,
    gradient: &[f32],
    before: &Memory,
    after: &Memory,
    words: &[u64],
) -> Result<Checked, Violation> {
    let length = |error: crate::CompressionError| broken(Property::Length, format!("{error}"));
    crate::reference::check(spec, step, gradient, before).map_err(length)?;
    after.check(spec).map_err(length)?;
    let updated = Updated::new(spec, step, gradient, before);
    let sent = form(spec, words)?;
    let seeds = StepSeeds::new(spec.seed, step.number);
    let candidates = candidates(spec, seeds, &updated.v);
    placed(spec, seeds, &updated.v, &candidates, words)?;
    kept(spec, &updated, &sent, after)?;
    Ok(Checked { values: updated.v, candidates, sent: words.len() })
}

/// The accumulators after the gradient came in and before anything was sent.
struct Updated {
    u: Vec<f32>,
    v: Vec<f32>,
}

impl Updated {
    fn new(spec: &CompressionSpec, step: Step, gradient: &[f32], before: &Memory) -> Self {
        let at = |list: &[f32], i: usize| list.get(i).copied().unwrap_or(0.0);
        let (u, v) = gradient
            .iter()
            .enumerate()
            .map(|(i, g)| accumulate(spec.feedback, at(&before.momentum, i), at(&before.velocity, i), step.scale * g))
            .unzip();
        Self { u, v }
    }
}

/// Indices in range, none twice, in order. Which index is sent with which value.
fn form(spec: &CompressionSpec, words: &[u64]) -> Result<BTreeMap<u32, f32>, Violation> {
    let mut sent = BTreeMap::new();
    for (i, x) in words.iter().map(|word| unpack(*word)) {
        if i as usize >= spec.len {
            return Err(beyond(i, spec.len));
        }
        if sent.insert(i, x).is_some() {
            return Err(violation(Property::Form, i, "sent twice".into()));
        }
    }
    if spec.placement == Placement::Compact
        && let Some(pair) = words.windows(2).find(|pair| pair[0] >> 32 > pair[1] >> 32)
    {
        return Err(violation(Property::Form, unpack(pair[1]).0, "out of order".into()));
    }
    Ok(sent)
}

/// The candidates, by counting and comparing rather than by a method: ascending.
fn candidates(spec: &CompressionSpec, seeds: StepSeeds, v: &[f32]) -> Vec<u32> {
    let cut = match spec.selector {
        Selector::FixedThreshold(threshold) => Cut::AtLeast(magnitude(threshold)),
        Selector::ExactTopK(count) => Cut::Greatest(count.of(v.len())),
        Selector::SampledThreshold(count, sampling) => sampled(count.of(v.len()), sampling, seeds, v),
        Selector::RandomK(count) => {
            let k = if v.is_empty() { 0 } else { count.of(v.len()) };
            let permutation = Permutation::new(v.len() as u32, seeds.permutation);
            let set: BTreeSet<u32> = (0..k as u32).map(|j| permutation.at(j)).collect();
            return set.into_iter().filter(|i| magnitude(v[*i as usize]) >= LEAST).collect();
        }
    };
    let threshold = match cut {
        Cut::AtLeast(threshold) => u64::from(threshold.max(LEAST)) << 33,
        Cut::Greatest(k) => least_of_greatest(k, v),
    };
    (0u32..).zip(v).filter(|(i, x)| magnitude(**x) >= LEAST && key(*i, **x) >= threshold).map(|(i, _)| i).collect()
}

/// The key of the `k`-th greatest entry, found by bisection over keys: so many are at or above it.
fn least_of_greatest(k: usize, v: &[f32]) -> u64 {
    let above = |least: u64| (0u32..).zip(v).filter(|(i, x)| magnitude(**x) >= LEAST && key(*i, **x) >= least).count();
    // `above(low) >= k` and `above(high) < k`, unless there are not k at all.
    let (mut low, mut high) = (0, u64::MAX);
    if above(low) <= k {
        return low;
    }
    if k == 0 {
        return high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if above(middle) >= k { low = middle } else { high = middle }
    }
    low
}

/// Every candidate is sent, or has lost its slot to another one; nothing else is sent.
fn placed(
    spec: &CompressionSpec,
    seeds: StepSeeds,
    v: &[f32],
    candidates: &[u32],
    words: &[u64],
) -> Result<(), Violation> {
    let indices: Vec<u32> = words.iter().map(|word| unpack(*word).0).collect();
    if let Some(i) = indices.iter().find(|i| candidates.binary_search(i).is_err()) {
        return Err(violation(Property::Selection, *i, format!("{} is sent and is no candidate", v[*i as usize])));
    }
    let (Placement::HashTable { policy, .. }, Ok(Some(slots))) = (spec.placement, spec.slots()) else {
        return match candidates.iter().find(|i| indices.binary_search(i).is_err()) {
            Some(i) => {
                Err(violation(Property::Selection, *i, format!("{} is a candidate and is not sent", v[*i as usize])))
            }
            None => Ok(()),
        };
    };
    let place = |i: u32| slot(i, seeds.hash, slots);
    if let Some(pair) = indices.windows(2).find(|pair| place(pair[0]) >= place(pair[1])) {
        let text = format!("slot {} after slot {}", place(pair[1]), place(pair[0]));
        return Err(violation(Property::Slots, pair[1], text));
    }
    let held: BTreeMap<u32, u32> = indices.iter().map(|i| (place(*i), *i)).collect();
    for i in candidates {
        let Some(winner) = held.get(&place(*i)) else {
            return Err(violation(Property::Slots, *i, format!("slot {} has a candidate and is empty", place(*i))));
        };
        let beaten = key(*i, v[*i as usize]) > key(*winner, v[*winner as usize]);
        if policy == Policy::LargestMagnitude && beaten {
            return Err(violation(Property::Slots, *winner, format!("holds the slot of the greater entry {i}")));
        }
    }
    Ok(())
}

/// Values on the wire, and what stays behind.
fn kept(spec: &CompressionSpec, updated: &Updated, sent: &BTreeMap<u32, f32>, after: &Memory) -> Result<(), Violation> {
    for (i, v) in (0u32..).zip(&updated.v) {
        let on_wire = sent.get(&i).copied();
        if let Some(x) = on_wire
            && x.to_bits() != spec.wire.value.round(*v).to_bits()
        {
            return Err(violation(Property::Value, i, format!("sent {x:e}, accumulated {v:e}")));
        }
        if let Some(rest) = after.velocity.get(i as usize) {
            let expected = on_wire.map_or(*v, |x| left_over(*v, x));
            if !same_number(*rest, expected) {
                return Err(violation(Property::Residual, i, format!("keeps {rest:e}, expected {expected:e}")));
            }
        }
        if let Some(u) = after.momentum.get(i as usize) {
            let masked = on_wire.is_some() && matches!(spec.feedback, Feedback::Momentum { masking: true, .. });
            let expected = if masked { 0.0 } else { updated.u[i as usize] };
            if !same_number(*u, expected) {
                return Err(violation(Property::Momentum, i, format!("keeps {u:e}, expected {expected:e}")));
            }
        }
    }
    Ok(())
}

/// Judges a decoded vector: `0 + x₀ + x₁ + …` in rank order at every place, divided by their number for a mean.
///
/// # Errors
/// The first [`Violation`] found.
pub fn verify_decode(messages: &[&[u64]], reduction: Reduction, out: &[f32]) -> Result<(), Violation> {
    check_messages(messages, out.len()).map_err(|error| broken(Property::Form, format!("{error}")))?;
    let mut places: Vec<Vec<f32>> = vec![Vec::new(); out.len()];
    for (i, x) in messages.iter().flat_map(|words| words.iter().map(|word| unpack(*word))) {
        places[i as usize].push(x);
    }
    for (i, (summands, got)) in (0u32..).zip(places.iter().zip(out)) {
        let sum = summands.iter().fold(0.0, |sum, x| sum + x);
        let expected = if reduction == Reduction::Mean { sum / messages.len() as f32 } else { sum };
        if !same_number(*got, expected) {
            return Err(violation(Property::Decode, i, format!("got {got:e}, expected {expected:e}")));
        }
    }
    Ok(())
}

/// `‖v − C(v)‖² ≤ (1 − k/n)‖v‖²` for the exact top-k, and with `k = 1` for a table of the largest magnitudes, whose
/// greatest entry always survives. Finite values only. Sums are taken in `f64`; each of their `2n` roundings is granted.
///
/// # Errors
/// [`Violation`] if it does not hold.
pub fn contraction(values: &[f32], words: &[u64], k: usize) -> Result<(), Violation> {
    let energy = |list: &mut dyn Iterator<Item = f32>| list.fold(0.0, |sum, x| sum + f64::from(x) * f64::from(x));
    let mut rest = values.to_vec();
    for (i, _) in words.iter().map(|word| unpack(*word)) {
        let Some(x) = rest.get_mut(i as usize) else { return Err(beyond(i, values.len())) };
        *x = 0.0;
    }
    let (total, left) = (energy(&mut values.iter().copied()), energy(&mut rest.iter().copied()));
    let n = values.len().max(1) as f64;
    let allowed = total * (1.0 - k as f64 / n) + 2.0 * n * f64::EPSILON * total;
    if left <= allowed {
        return Ok(());
    }
    Err(broken(Property::Law, format!("contraction: {left:e} of the energy is left, at most {allowed:e} expected")))
}

/// The winners above a higher threshold are those of the winners above a lower one that reach it: same seed, same
/// vector, the rule of the largest magnitude. Of values as they are: rounded to a narrow wire, one may reach a threshold
/// that it did not reach before. The same goes for [`merged`] and [`scaled`].
///
/// # Errors
/// [`Violation`] if they are not.
pub fn threshold_commutes(lower: &[u64], higher: &[u64], threshold: f32) -> Result<(), Violation> {
    let reach: Vec<u64> =
        lower.iter().copied().filter(|word| magnitude(unpack(*word).1) >= magnitude(threshold).max(LEAST)).collect();
    same(&reach, higher).map_err(|v| Violation { detail: format!("threshold commutes: {}", v.detail), ..v })
}

/// Two messages are the same, word for word.
///
/// # Errors
/// [`Violation`] at the first word that differs.
pub fn same(a: &[u64], b: &[u64]) -> Result<(), Violation> {
    let differ = a.iter().zip(b).position(|(a, b)| a != b).or((a.len() != b.len()).then_some(a.len().min(b.len())));
    let Some(at) = differ else { return Ok(()) };
    let show = |words: &[u64]| words.get(at).map_or("nothing".into(), |word| format!("{:?}", unpack(*word)));
    Err(broken(Property::Law, format!("entry {at}: {} in one run, {} in the other", show(a), show(b))))
}

/// Two messages have the same entries, in whatever order.
///
/// # Errors
/// [`Violation`] at the first entry, by index, that differs.
pub fn same_entries(a: &[u64], b: &[u64]) -> Result<(), Violation> {
    let sorted = |words: &[u64]| {
        let mut words = words.to_vec();
        words.sort_unstable();
        words
    };
    same(&sorted(a), &sorted(b))
}

/// Two vectors are the same, bit for bit.
///
/// # Errors
/// [`Violation`] at the first place that differs.
pub fn same_bits(what: &'static str, a: &[f32], b: &[f32]) -> Result<(), Violation> {
    match a.iter().zip(b).position(|(a, b)| !same_number(*a, *b)) {
        Some(i) => Err(violation(Property::Law, i as u32, format!("{what}: {:e} and {:e}", a[i], b[i]))),
        None if a.len() != b.len() => {
            Err(broken(Property::Law, format!("{what}: lengths {} and {}", a.len(), b.len())))
        }
        None => Ok(()),
    }
}

/// The table of two sets of entries is the merger of their tables: slot by slot, the greater key. All under one seed.
///
/// # Errors
/// [`Violation`] if it is not.
pub fn merged(a: &[u64], b: &[u64], both: &[u64], seed: u32, slots: u32) -> Result<(), Violation> {
    let mut table = BTreeMap::new();
    for (i, x) in a.iter().chain(b).map(|word| unpack(*word)) {
        let held = table.entry(slot(i, seed, slots)).or_insert((i, x));
        if key(i, x) > key(held.0, held.1) {
            *held = (i, x);
        }
    }
    let words: Vec<u64> = table.into_values().map(|(i, x)| word(i, x)).collect();
    same(&words, both).map_err(|v| Violation { detail: format!("semilattice: {}", v.detail), ..v })
}

/// Multiplying a vector and its threshold by a power of two, or by its negative, multiplies the message.
///
/// # Errors
/// [`Violation`] if it does not.
pub fn scaled(words: &[u64], by: f32, multiplied: &[u64]) -> Result<(), Violation> {
    let expected: Vec<u64> = words.iter().map(|w| unpack(*w)).map(|(i, x)| word(i, x * by)).collect();
    same(&expected, multiplied).map_err(|v| Violation { detail: format!("scale by {by}: {}", v.detail), ..v })
}

/// Among tables under different seeds no two have lost the same entries, unless they lost none. True with a probability
/// that grows with the number of losers: ask it of tables that lose a dozen and more.
///
/// # Errors
/// [`Violation`] naming the seeds' numbers.
pub fn losers_differ(candidates: &[u32], messages: &[Vec<u64>]) -> Result<(), Violation> {
    let losers = |words: &Vec<u64>| -> BTreeSet<u32> {
        let sent: BTreeSet<u32> = words.iter().map(|word| unpack(*word).0).collect();
        candidates.iter().copied().filter(|i| !sent.contains(i)).collect()
    };
    let mut seen: BTreeMap<BTreeSet<u32>, usize> = BTreeMap::new();
    for (number, words) in messages.iter().enumerate() {
        let lost = losers(words);
        if lost.is_empty() {
            continue;
        }
        if let Some(other) = seen.insert(lost, number) {
            return Err(broken(Property::Law, format!("seeds {other} and {number} lose the same entries")));
        }
    }
    Ok(())
}

/// Everything that came in was sent or is still there: `Σ sent + residual = Σ g`, exactly, for plain error feedback and
/// whole numbers below 2²⁴ in magnitude.
///
/// # Errors
/// [`Violation`] at the first place where it does not hold.
pub fn telescopes(gradients: &[Vec<f32>], messages: &[Vec<u64>], residual: &[f32]) -> Result<(), Violation> {
    let mut balance: Vec<f64> = residual.iter().map(|x| -f64::from(*x)).collect();
    for (i, g) in gradients.iter().flat_map(|gradient| (0u32..).zip(gradient)) {
        *balance.get_mut(i as usize).ok_or_else(|| beyond(i, residual.len()))? += f64::from(*g);
    }
    for (i, x) in messages.iter().flatten().map(|word| unpack(*word)) {
        *balance.get_mut(i as usize).ok_or_else(|| beyond(i, residual.len()))? -= f64::from(x);
    }
    match balance.iter().position(|x| *x != 0.0) {
        Some(i) => Err(violation(Property::Law, i as u32, format!("telescoping: {:e} is missing", balance[i]))),
        None => Ok(()),
    }
}

/// Indices shared out to owners by [`slot`] are balanced as [`owner_imbalance`] allows.
///
/// # Errors
/// [`Violation`] naming the owner with too much.
pub fn balanced(indices: &[u32], owners: u32, seed: u32) -> Result<(), Violation> {
    let owners = owners.max(1);
    let mut loads = vec![0usize; owners as usize];
    for i in indices {
        loads[slot(*i, seed, owners) as usize] += 1;
    }
    let limit = indices.len() as f64 / f64::from(owners) * owner_imbalance(owners as usize, indices.len());
    match loads.iter().position(|load| *load as f64 > limit) {
        Some(owner) => Err(broken(
            Property::Law,
            format!("owner {owner} has {} of {} indices, at most {limit:.1} expected", loads[owner], indices.len()),
        )),
        None => Ok(()),
    }
}
