//! DRAGONN's hash table (Wang et al. 2022, §3): who is sent, in the message's order.

use crate::compression::kernel::Pass;
use crate::compression::select::Candidates;
use crate::compression::{Fault, Race, Table};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_compression::hash::{StepSeeds, mix, slot};
use tilewright_compression::key::{entry, key};
use tilewright_compression::{CompressionSpec, Placement, Policy, Slots};

/// Slots beyond which a wrong number of them is not believed either: memory has an end.
const MOST_SLOTS: f64 = 4_194_304.0;

/// What is sent, in order, and what is cleared without having been sent.
pub(crate) struct Placed {
    pub(crate) sent: Vec<u32>,
    pub(crate) lost: Vec<u32>,
}

/// What a table needs to know.
struct Hashing<'a> {
    slots: u32,
    seed: u32,
    policy: Policy,
    values: &'a [f32],
}

impl Pass {
    /// Without a table: all of them, in order of index.
    pub(crate) fn order(
        &self,
        spec: &CompressionSpec,
        seeds: StepSeeds,
        values: &[f32],
        candidates: Candidates,
    ) -> Placed {
        let Candidates { list: mut sent, lost } = candidates;
        match self.fault {
            Some(Fault::DescendingMessage) => sent.reverse(),
            Some(Fault::MagnitudeOrder) => sent.sort_by_key(|i| Reverse(key(*i, values[*i as usize]))),
            Some(Fault::HashOrder) => sent.sort_by_key(|i| mix(*i, seeds.hash)),
            Some(Fault::MessagePadded) => {
                let short = spec.selector.aim(values.len()).unwrap_or(0).saturating_sub(sent.len());
                sent.extend(sent.last().copied().into_iter().cycle().take(short));
            }
            _ => {}
        }
        Placed { sent, lost }
    }

    /// Through the table.
    pub(crate) fn place(
        &self,
        spec: &CompressionSpec,
        seeds: StepSeeds,
        slots: u32,
        values: &[f32],
        candidates: Candidates,
        stale: &mut Vec<u64>,
    ) -> Placed {
        let Placement::HashTable { policy, slots: sizing } = spec.placement else {
            return self.order(spec, seeds, values, candidates);
        };
        let slots = self.slots(sizing, slots, candidates.list.len(), spec);
        let seed = if self.is(Fault::SeedNotHashed) { 0 } else { seeds.hash };
        let by = Hashing { slots, seed, policy, values };
        let Candidates { list, mut lost } = candidates;
        let visited: Vec<u32> = self.variant.visit.order(list.len()).into_iter().map(|at| list[at]).collect();
        let sent = match self.variant.table {
            Table::Keys => {
                let old = if self.is(Fault::StaleTable) { core::mem::take(stale) } else { Vec::new() };
                let table = self.fill(&by, &visited, old);
                let sent = self.read(&by, &table, &list);
                *stale = table;
                sent
            }
            Table::Sorted => self.sorted(&by, &visited),
            Table::Tree => self.tree(&by, &visited),
            Table::Merged(block) => self.merged(&by, visited.chunks(block).map(<[u32]>::to_vec)),
            Table::Halves(ways) => {
                let parts: Vec<Vec<u32>> =
                    (0..ways).map(|part| visited.iter().copied().skip(part).step_by(ways).collect()).collect();
                self.halves(&by, &parts)
            }
        };
        if self.is(Fault::LoserCleared) || self.is(Fault::LosersMasked) {
            lost.extend(losers(&list, &sent));
        }
        Placed { sent, lost }
    }

    fn slots(&self, sizing: Slots, right: u32, candidates: usize, spec: &CompressionSpec) -> u32 {
        if self.is(Fault::SlotsToPowerOfTwo) {
            return right.checked_next_power_of_two().unwrap_or(right);
        }
        let Slots::PerEntry(per_entry) = sizing else { return right };
        let aim = spec.selector.aim(spec.len).unwrap_or(0);
        let slots = match self.fault {
            Some(Fault::SlotsOfCandidates) => (per_entry * candidates as f64).round(),
            Some(Fault::SlotsOfBucket) => (per_entry * spec.len as f64).round(),
            Some(Fault::SlotsRoundedDown) => (per_entry * aim as f64).floor(),
            Some(Fault::AlwaysFourSlots) => 4.0 * aim as f64,
            _ => return right,
        };
        slots.clamp(1.0, MOST_SLOTS) as u32
    }

    /// Where an entry goes; nowhere if that is no slot.
    fn slot(&self, by: &Hashing<'_>, i: u32) -> Option<usize> {
        let (seed, slots) = (by.seed, by.slots);
        let right = slot(i, seed, slots);
        Some(match self.fault {
            Some(Fault::HashOfValue) => slot(by.values[i as usize].to_bits(), seed, slots) as usize,
            Some(Fault::SignedSlot) => {
                let signed = i64::from(mix(i, seed) as i32) * i64::from(slots);
                return usize::try_from(signed >> 32).ok();
            }
            Some(Fault::MaskedSlot) => (right & (slots - 1)) as usize,
            Some(Fault::SlotByRemainder) => (mix(i, seed) % slots) as usize,
            Some(Fault::LastSlotUnused) => slot(i, seed, (slots - 1).max(1)) as usize,
            _ => right as usize,
        })
    }

    /// Who stays in the slot: the one there or the newcomer, by their keys.
    fn settle(&self, by: &Hashing<'_>, held: u64, newcomer: u64) -> u64 {
        if held == 0 || newcomer == 0 {
            return held | newcomer;
        }
        let ((_, x), (i, y)) = (entry(held), entry(newcomer));
        let coarse = |key: u64| key & !(0xffff << 33);
        let newcomer_stays = match self.fault {
            Some(Fault::FirstWriterStays) => false,
            Some(Fault::LastWriterStays) => true,
            Some(Fault::SmallestStays) => newcomer < held,
            Some(Fault::TableTiesToHighest) => (newcomer >> 33, i) > (held >> 33, entry(held).0),
            Some(Fault::SignedWinner) => y > x || (y == x && newcomer > held),
            Some(Fault::KeyInBf16) => coarse(newcomer) > coarse(held),
            Some(Fault::NanLosesSlot) => y.abs() > x.abs() || (y.abs() == x.abs() && newcomer > held),
            _ if by.policy == Policy::Any || self.is(Fault::RaceUnderLargest) => match self.race() {
                Race::Last => true,
                Race::First => false,
                Race::Largest => newcomer > held,
                Race::Random => self.coin(i),
            },
            _ => newcomer > held,
        };
        if newcomer_stays { newcomer } else { held }
    }

    /// An array of keys, 0 where nobody is.
    fn fill(&self, by: &Hashing<'_>, visited: &[u32], old: Vec<u64>) -> Vec<u64> {
        let slots = by.slots as usize;
        let mut table = if old.len() == slots { old } else { vec![0; slots] };
        let mut contested = vec![false; slots];
        for &i in visited {
            let Some(mut at) = self.slot(by, i) else { continue };
            let newcomer = key(i, by.values[i as usize]);
            if self.is(Fault::LinearProbing) && table[at] != 0 {
                let free = (1..slots).map(|step| (at + step) % slots).find(|at| table[*at] == 0);
                at = free.unwrap_or(at);
            }
            contested[at] |= table[at] != 0;
            table[at] = self.settle(by, table[at], newcomer);
        }
        if self.is(Fault::CollisionEmptiesSlot) {
            table.iter_mut().zip(contested).filter(|(_, contested)| *contested).for_each(|(slot, _)| *slot = 0);
        }
        table
    }

    /// The message of a table.
    fn read(&self, by: &Hashing<'_>, table: &[u64], list: &[u32]) -> Vec<u32> {
        let taken = |slot: &u64| *slot != 0 || self.is(Fault::EmptySlotsSent);
        let index = |slot: u64| if slot == 0 { 0 } else { entry(slot).0 };
        let start = usize::from(self.is(Fault::FirstSlotUnread));
        let slots = table.iter().copied().skip(start).filter(taken).map(index);
        // A stale entry may lie beyond a shorter bucket.
        let mut sent: Vec<u32> = slots.filter(|i| (*i as usize) < by.values.len()).collect();
        match self.fault {
            Some(Fault::IndexZeroEmpty) => sent.retain(|i| *i != 0),
            Some(Fault::SlotsReversed) => sent.reverse(),
            Some(Fault::TableSortedByIndex) => sent.sort_unstable(),
            Some(Fault::LosersSentToo) => {
                let losers = losers(list, &sent);
                sent.extend(losers);
            }
            _ => {}
        }
        sent
    }

    fn sorted(&self, by: &Hashing<'_>, visited: &[u32]) -> Vec<u32> {
        let mut entries: Vec<(Option<usize>, u64)> =
            visited.iter().map(|i| (self.slot(by, *i), key(*i, by.values[*i as usize]))).collect();
        entries.sort_by_key(|(slot, _)| *slot);
        let runs = entries.chunk_by(|(a, _), (b, _)| a == b);
        runs.map(|run| entry(run.iter().fold(0, |held, (_, newcomer)| self.settle(by, held, *newcomer))).0).collect()
    }

    fn tree(&self, by: &Hashing<'_>, visited: &[u32]) -> Vec<u32> {
        let mut table: BTreeMap<Option<usize>, u64> = BTreeMap::new();
        for &i in visited {
            let held = table.entry(self.slot(by, i)).or_default();
            *held = self.settle(by, *held, key(i, by.values[i as usize]));
        }
        table.into_values().map(|key| entry(key).0).collect()
    }

    /// One table after the other is merged into the first.
    fn merged(&self, by: &Hashing<'_>, parts: impl Iterator<Item = Vec<u32>>) -> Vec<u32> {
        let empty = vec![0; by.slots as usize];
        let whole = parts.fold(empty, |whole, part| self.merge(by, whole, &self.fill(by, &part, Vec::new())));
        self.read(by, &whole, &[])
    }

    fn merge(&self, by: &Hashing<'_>, mut into: Vec<u64>, from: &[u64]) -> Vec<u64> {
        for (held, newcomer) in into.iter_mut().zip(from) {
            if *held == 0 || !self.is(Fault::MergedWithoutComparing) {
                *held = self.settle(by, *held, *newcomer);
            }
        }
        into
    }

    fn halves(&self, by: &Hashing<'_>, parts: &[Vec<u32>]) -> Vec<u32> {
        let mut tables: Vec<Vec<u64>> = parts.iter().map(|part| self.fill(by, part, Vec::new())).collect();
        while tables.len() > 1 {
            let upper = tables.split_off(tables.len().div_ceil(2));
            for (lower, upper) in tables.iter_mut().zip(upper) {
                *lower = self.merge(by, core::mem::take(lower), &upper);
            }
        }
        self.read(by, &tables.pop().unwrap_or_default(), &[])
    }
}

/// Candidates that are not sent.
fn losers(list: &[u32], sent: &[u32]) -> Vec<u32> {
    let sent: BTreeSet<u32> = sent.iter().copied().collect();
    list.iter().copied().filter(|i| !sent.contains(i)).collect()
}
