//! The `k` greatest magnitudes, in five ways.

use crate::compression::kernel::Pass;
use crate::compression::{Fault, Top};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tilewright_compression::key::{key, magnitude};

/// Elements of a block of [`Fault::TopKOfBlocks`].
const BLOCK: usize = 256;

impl Pass {
    /// The `k` greatest, ascending by index.
    pub(crate) fn greatest(&self, k: usize, values: &[f32]) -> Vec<u32> {
        if self.is(Fault::TopKOfBlocks) && values.len() > BLOCK {
            return self.greatest_of_blocks(k, values);
        }
        let keys = (0u32..).zip(values).filter(|(_, x)| self.sendable(**x)).map(|(i, x)| self.key(i, *x)).collect();
        let Some(cut) = kth(self.variant.top, keys, k) else { return Vec::new() };
        let least = (cut >> 33) as u32;
        self.collect(values, |i, x| {
            self.sendable(x)
                && match self.fault {
                    Some(Fault::TopKStrict) => magnitude(x) > least,
                    Some(Fault::TiesAllTaken) => magnitude(x) >= least,
                    Some(Fault::WholeBinTaken) => magnitude(x) >> 23 >= least >> 23,
                    _ => self.key(i, x) >= cut,
                }
        })
    }

    fn greatest_of_blocks(&self, k: usize, values: &[f32]) -> Vec<u32> {
        let share = (k * BLOCK).div_ceil(values.len());
        let blocks = values.chunks(BLOCK).zip((0u32..).step_by(BLOCK));
        let mut list: Vec<u32> = blocks
            .flat_map(|(block, start)| {
                let keys = (start..).zip(block).filter(|(_, x)| self.sendable(**x)).map(|(i, x)| key(i, *x)).collect();
                let cut = kth(self.variant.top, keys, share).unwrap_or(u64::MAX);
                (start..).zip(block).filter(move |(i, x)| self.sendable(**x) && key(*i, **x) >= cut).map(|(i, _)| i)
            })
            .collect();
        list.truncate(k);
        list
    }

    /// The rank of an entry: the greater one goes first.
    fn key(&self, i: u32, x: f32) -> u64 {
        let (size, sign) = (u64::from(magnitude(x)), u64::from(x.to_bits() >> 31));
        match self.fault {
            Some(Fault::SignedTopK) if sign == 1 => u64::from(!i),
            Some(Fault::TiesToHighestIndex) => size << 33 | u64::from(i) << 1 | sign,
            Some(Fault::TiesToPositive) => size << 33 | (1 - sign) << 32 | u64::from(!i),
            Some(Fault::NanByPayload) => u64::from(x.to_bits() & 0x7fff_ffff) << 33 | u64::from(!i) << 1 | sign,
            Some(Fault::NanComesLast) if x.is_nan() => u64::from(!i),
            Some(Fault::MagnitudeInBf16) => key(i, f32::from_bits(x.to_bits() & 0xffff_0000)),
            _ => key(i, x),
        }
    }
}

/// The `k`-th greatest key, or the least if there are fewer; none if `k` is 0 or there are no keys.
fn kth(top: Top, mut keys: Vec<u64>, k: usize) -> Option<u64> {
    if k == 0 {
        return None;
    }
    let at = k.min(keys.len()).checked_sub(1)?;
    Some(match top {
        Top::Quickselect => *keys.select_nth_unstable_by_key(at, |key| Reverse(*key)).1,
        Top::Sort => {
            keys.sort_unstable_by_key(|key| Reverse(*key));
            keys[at]
        }
        Top::Heap => return by_heap(&keys, at + 1),
        Top::Radix => by_digits(keys, at),
        Top::Bisection => by_bisection(&keys, at + 1),
    })
}

fn by_heap(keys: &[u64], k: usize) -> Option<u64> {
    let mut greatest: BinaryHeap<Reverse<u64>> = BinaryHeap::with_capacity(k + 1);
    for key in keys {
        greatest.push(Reverse(*key));
        if greatest.len() > k {
            greatest.pop();
        }
    }
    greatest.pop().map(|key| key.0)
}

/// Digits of 8 bits, the most significant first: only the keys in the digit's bin that the cut falls in stay.
fn by_digits(mut keys: Vec<u64>, mut at: usize) -> u64 {
    let mut prefix = 0;
    for shift in (0..64).step_by(8).rev() {
        let digit = |key: u64| (key >> shift & 0xff) as usize;
        let mut histogram = [0usize; 256];
        for key in &keys {
            histogram[digit(*key)] += 1;
        }
        let mut bin = 255;
        while histogram[bin] <= at {
            at -= histogram[bin];
            bin -= 1;
        }
        keys.retain(|key| digit(*key) == bin);
        prefix |= (bin as u64) << shift;
    }
    prefix
}

/// The greatest number that `k` keys reach.
fn by_bisection(keys: &[u64], k: usize) -> u64 {
    (0..64).rev().fold(0, |least, bit| {
        let higher = least | 1 << bit;
        if keys.iter().filter(|key| **key >= higher).count() >= k { higher } else { least }
    })
}
