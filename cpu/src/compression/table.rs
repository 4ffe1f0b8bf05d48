//! DRAGONN's hash table, filled by all workers at once: each slot keeps the greatest key, or with
//! [`Policy::Any`] the last one, which is 8 bytes and so always somebody's in full.

use super::pass::Found;
use super::settle::{AHEAD, Residual, forget_winners, on_the_wire};
use super::simd::prefetch;
use rayon::prelude::*;
use std::cmp::Reverse;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tilewright_compression::hash::slot;
use tilewright_compression::key::entry;
use tilewright_compression::message::word;
use tilewright_compression::{Policy, ValueFormat};

/// Slots that one worker reads at a time.
const BLOCK: usize = 1 << 12;
/// Keys that are not worth sharing out.
const WORTH_SHARING: usize = 1 << 13;
/// More slots than this for each candidate, and a table is a waste: candidates are sorted by slot instead.
const SLOTS_EACH: usize = 32;

/// Room that tables use again and again.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// All zero between steps.
    slots: Vec<AtomicU64>,
    dirty: bool,
    taken: Vec<usize>,
    sorted: Vec<(u32, Reverse<u64>)>,
}

/// A table of one step.
#[derive(Debug)]
pub(super) struct Table<'a> {
    slots: &'a [AtomicU64],
    seed: u32,
}

impl Table<'_> {
    fn at(&self, key: u64) -> &AtomicU64 {
        &self.slots[slot(entry(key).0, self.seed, self.slots.len() as u32) as usize]
    }

    /// Starts to fetch the slot of a key whose turn comes soon.
    #[inline]
    pub(super) fn prefetch(&self, key: Option<&u64>) {
        prefetch(key.map(|key| self.at(*key)));
    }

    /// Whether this entry stayed.
    pub(super) fn holds(&self, key: u64) -> bool {
        self.at(key).load(Relaxed) == key
    }

    fn offer(&self, key: u64, policy: Policy) {
        let place = self.at(key);
        match policy {
            Policy::Any => place.store(key, Relaxed),
            // Most who lose can see it without the cost of an atomic update.
            Policy::LargestMagnitude => {
                if place.load(Relaxed) < key {
                    place.fetch_max(key, Relaxed);
                }
            }
        }
    }
}

impl Tables {
    /// [`tilewright_compression::Placement::HashTable`]: the winners among the candidates, in order of slots.
    pub(super) fn place(
        &mut self,
        found: &Found,
        slots: u32,
        policy: Policy,
        seed: u32,
        residual: Residual<'_>,
        words: &mut Vec<u64>,
    ) {
        if found.keys.is_empty() {
            return words.clear();
        }
        if slots as usize > SLOTS_EACH * found.keys.len() + BLOCK {
            return self.sort(found, slots, seed, residual, words);
        }
        self.prepare(slots as usize);
        let Self { slots: all, taken, dirty, .. } = self;
        let table = Table { slots: &all[..slots as usize], seed };
        found.keys.par_chunks(WORTH_SHARING).for_each(|keys| {
            for (j, key) in keys.iter().enumerate() {
                table.prefetch(keys.get(j + AHEAD));
                if *key >= found.cut {
                    table.offer(*key, policy);
                }
            }
        });
        let value = residual.value;
        if !residual.velocity.is_empty() {
            forget_winners(&found.keys, &found.segments, &table, residual);
        }
        let all = &mut all[..slots as usize];
        let blocks = all.par_chunks_mut(BLOCK).map(taken_slots);
        blocks.collect_into_vec(taken);
        // All of them are written over.
        words.resize(taken.iter().sum(), 0);
        empty(all, taken, value, words);
        *dirty = false;
    }

    /// As many empty slots as are asked for.
    fn prepare(&mut self, slots: usize) {
        if self.dirty {
            self.slots.par_iter().with_min_len(BLOCK).for_each(|slot| slot.store(0, Relaxed));
        }
        if self.slots.len() < slots {
            self.slots.resize_with(slots, AtomicU64::default);
        }
        self.dirty = true;
    }

    /// The same without a table.
    fn sort(&mut self, found: &Found, slots: u32, seed: u32, mut residual: Residual<'_>, words: &mut Vec<u64>) {
        let candidates = found.keys.iter().filter(|key| **key >= found.cut);
        self.sorted.clear();
        self.sorted.extend(candidates.map(|key| (slot(entry(*key).0, seed, slots), Reverse(*key))));
        self.sorted.sort_unstable();
        // Of a slot's keys the greatest is the first; it is as good as any for `Policy::Any`.
        self.sorted.dedup_by_key(|(slot, _)| *slot);
        words.clear();
        words.extend(self.sorted.iter().map(|(_, key)| residual.settle(key.0, true)));
    }
}

fn taken_slots(slots: &mut [AtomicU64]) -> usize {
    slots.iter_mut().map(|slot| usize::from(*slot.get_mut() != 0)).sum()
}

/// Writes the words of a table and empties it, by halves. `taken` has the number of taken slots of each block.
fn empty(slots: &mut [AtomicU64], taken: &[usize], value: ValueFormat, words: &mut [u64]) {
    if taken.len() > 1 && words.len() > WORTH_SHARING {
        let half = taken.len() / 2;
        let (words, words_right) = words.split_at_mut(taken[..half].iter().sum());
        let (slots, slots_right) = slots.split_at_mut(half * BLOCK);
        rayon::join(
            || empty(slots, &taken[..half], value, words),
            || empty(slots_right, &taken[half..], value, words_right),
        );
        return;
    }
    // Which slots are taken is hard to foresee: all are written down, and those that are not taken are written over.
    let mut count = 0;
    for slot in slots {
        let key = std::mem::take(slot.get_mut());
        let (index, x) = entry(key);
        if let Some(place) = words.get_mut(count) {
            *place = word(index, on_the_wire(value, x));
        }
        count += usize::from(key != 0);
    }
}
