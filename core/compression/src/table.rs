//! The hash table of DRAGONN, with a rule that makes it a mathematical object: each slot holds the greatest key that was
//! ever offered to it. The order of offers does not matter, tables of two sets of entries merge slot by slot, and a
//! higher threshold is the same as forgetting the smaller winners.

use crate::hash::slot;
use crate::key::{entry, key};
use alloc::vec;
use alloc::vec::Vec;

/// Slots of keys; 0 is an empty one.
///
/// ```
/// use tilewright_compression::table::Table;
/// let mut table = Table::new(1, 7); // one slot: everything collides
/// table.offer(3, 1.0);
/// table.offer(0, -2.0);
/// table.offer(5, 2.0);
/// assert_eq!(table.entries().collect::<Vec<_>>(), [(0, -2.0)]); // the greatest magnitude, then the least index
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    slots: Vec<u64>,
    seed: u32,
}

impl Table {
    /// An empty table; `slots` is at least 1.
    pub fn new(slots: u32, seed: u32) -> Self {
        Self { slots: vec![0; slots.max(1) as usize], seed }
    }

    /// The slot of an index.
    pub fn slot(&self, index: u32) -> u32 {
        slot(index, self.seed, self.slots.len() as u32)
    }

    /// An entry asks for its slot; the greater key stays.
    pub fn offer(&mut self, index: u32, value: f32) {
        let at = self.slot(index) as usize;
        self.slots[at] = self.slots[at].max(key(index, value));
    }

    /// An entry takes its slot from whoever is there: DRAGONN's own rule, with the order of calls for the race.
    pub fn overwrite(&mut self, index: u32, value: f32) {
        let at = self.slot(index) as usize;
        self.slots[at] = key(index, value);
    }

    /// The table of both tables' entries. Commutative, associative, idempotent. Both must have the same slots and seed.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let slots = self.slots.iter().zip(&other.slots).map(|(a, b)| *a.max(b)).collect();
        Self { slots, seed: self.seed }
    }

    /// Who stayed, in the order of slots.
    pub fn entries(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.slots.iter().filter(|key| **key != 0).map(|key| entry(*key))
    }

    /// Slots that are taken.
    pub fn occupied(&self) -> usize {
        self.slots.iter().filter(|key| **key != 0).count()
    }
}
