//! From candidates to a message: words in order, and what is sent leaves the memory.

use super::pass::{Found, Segment};
use super::simd::prefetch;
use super::table::Table;
use rayon::prelude::*;
use tilewright_compression::ValueFormat;
use tilewright_compression::key::entry;
use tilewright_compression::memory::left_over;
use tilewright_compression::message::word;

/// Keys between the one in hand and the one whose places are fetched.
pub(super) const AHEAD: usize = 24;
/// Keys that are not worth sharing out.
const WORTH_SHARING: usize = 1 << 13;

/// The part of a memory from index `base` on. What there is no use for is empty.
#[derive(Debug)]
pub(super) struct Residual<'a> {
    pub(super) value: ValueFormat,
    pub(super) base: usize,
    pub(super) velocity: &'a mut [f32],
    /// Empty without masking, too.
    pub(super) momentum: &'a mut [f32],
}

impl Residual<'_> {
    /// Both sides of index `at`.
    fn split_at(self, at: usize) -> (Self, Self) {
        let (v, v_right) = self.velocity.split_at_mut((at - self.base).min(self.velocity.len()));
        let (u, u_right) = self.momentum.split_at_mut((at - self.base).min(self.momentum.len()));
        (Self { velocity: v, momentum: u, ..self }, Self { base: at, velocity: v_right, momentum: u_right, ..self })
    }

    /// Starts to fetch the places of a key whose turn comes soon.
    #[inline]
    fn prefetch(&self, key: Option<&u64>) {
        if let Some(at) = key.map(|key| entry(*key).0 as usize - self.base) {
            prefetch(self.velocity.get(at));
            prefetch(self.momentum.get(at));
        }
    }

    /// The entry of `key` is sent, or is not: of what is sent there stays what the wire's format cannot express. Returns
    /// its word. Nothing here depends on `sent` by a branch, for that would be hard to foresee.
    #[inline]
    pub(super) fn settle(&mut self, key: u64, sent: bool) -> u64 {
        let (index, value) = entry(key);
        let rounded = on_the_wire(self.value, value);
        let at = index as usize - self.base;
        if let Some(v) = self.velocity.get_mut(at) {
            let left = left_over(value, rounded);
            *v = if sent { left } else { value };
        }
        if let Some(u) = self.momentum.get_mut(at) {
            *u = if sent { 0.0 } else { *u };
        }
        word(index, rounded)
    }

    /// Makes words of the keys of what is sent.
    fn settle_all(&mut self, keys: &mut [u64]) {
        if self.velocity.is_empty() {
            for key in keys {
                let (index, value) = entry(*key);
                *key = word(index, on_the_wire(self.value, value));
            }
            return;
        }
        for j in 0..keys.len() {
            self.prefetch(keys.get(j + AHEAD));
            keys[j] = self.settle(keys[j], true);
        }
    }
}

/// [`ValueFormat::round`], with the usual case in line.
#[inline]
pub(super) fn on_the_wire(format: ValueFormat, value: f32) -> f32 {
    match format {
        ValueFormat::F32 => {
            if value.is_nan() {
                f32::NAN
            } else {
                value
            }
        }
        _ => format.round(value),
    }
}

/// [`tilewright_compression::Placement::Compact`]: all candidates, in order of index.
pub(super) fn compact(found: &mut Found, residual: Residual<'_>, words: &mut Vec<u64>) {
    let Found { keys, segments, cut, .. } = found;
    let (keys, cut) = (&**keys, *cut);
    let shares = (WORTH_SHARING * segments.len()).div_ceil(keys.len().max(1));
    segments.par_iter_mut().with_min_len(shares).for_each(|segment| {
        let keys = &keys[segment.start..segment.start + segment.len];
        segment.sent = keys.iter().filter(|key| **key >= cut).count();
    });
    // All of them are written over.
    words.resize(segments.iter().map(|segment| segment.sent).sum(), 0);
    write(keys, segments, cut, residual, words);
}

/// Writes the words of `segments`, by halves.
fn write(keys: &[u64], segments: &[Segment], cut: u64, mut residual: Residual<'_>, words: &mut [u64]) {
    if segments.len() > 1 && words.len() > WORTH_SHARING {
        let (left, right) = segments.split_at(segments.len() / 2);
        let (words, words_right) = words.split_at_mut(left.iter().map(|segment| segment.sent).sum());
        let (residual, residual_right) = residual.split_at(right[0].base as usize);
        rayon::join(
            || write(keys, left, cut, residual, words),
            || write(keys, right, cut, residual_right, words_right),
        );
        return;
    }
    // What is sent is hard to foresee: every key is written down, and what is not sent is written over.
    let mut count = 0;
    for segment in segments {
        for key in &keys[segment.start..segment.start + segment.len] {
            if let Some(place) = words.get_mut(count) {
                *place = *key;
            }
            count += usize::from(*key >= cut);
        }
    }
    residual.settle_all(words);
}

/// Whoever holds a slot of `table` leaves the memory, in order of index, which memory likes better than that of slots.
pub(super) fn forget_winners(keys: &[u64], segments: &[Segment], table: &Table<'_>, mut residual: Residual<'_>) {
    if segments.len() > 1 && segments.iter().map(|s| s.len).sum::<usize>() > WORTH_SHARING {
        let (left, right) = segments.split_at(segments.len() / 2);
        let (residual, residual_right) = residual.split_at(right[0].base as usize);
        rayon::join(
            || forget_winners(keys, left, table, residual),
            || forget_winners(keys, right, table, residual_right),
        );
        return;
    }
    for segment in segments {
        let keys = &keys[segment.start..segment.start + segment.len];
        for (j, key) in keys.iter().enumerate() {
            residual.prefetch(keys.get(j + AHEAD));
            table.prefetch(keys.get(j + AHEAD));
            residual.settle(*key, table.holds(*key));
        }
    }
}
