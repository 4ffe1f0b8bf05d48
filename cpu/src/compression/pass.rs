//! One pass over a bucket by several workers: chunks are handed out in order of index, and what each chunk yields is
//! put together in one list, which can be kept short.

use super::keys::kth_greatest;
use super::simd::{BLOCK, Level};
use super::sweep::{Chunk, SPARE, Sweep};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tilewright_compression::Feedback;
use tilewright_compression::key::entry;

/// Elements of a chunk at most: its streams and its keys fit a core's second-level cache.
const LONGEST_CHUNK: usize = 1 << 16;
/// Elements of a chunk at least: handing one out costs little beside it.
const SHORTEST_CHUNK: usize = 1 << 12;
/// Chunks a worker should get, so that they finish together.
const CHUNKS_EACH: usize = 16;
/// A list is shortened when it holds twice as many keys as it must, and so many more.
const SLACK: usize = 1 << 13;

/// The arrays of a step; what the feedback has no use for is empty.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    pub(super) feedback: Feedback,
    pub(super) scale: f32,
    pub(super) gradient: &'a [f32],
    pub(super) momentum: &'a mut [f32],
    pub(super) velocity: &'a mut [f32],
}

/// Keys of one chunk, `start..start + len` of the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Index of the chunk's first element.
    pub(super) base: u32,
    pub(super) start: usize,
    pub(super) len: usize,
    /// How many of them are sent, once that is known.
    pub(super) sent: usize,
}

/// What a pass found. The keys of a segment are in order of index, and so are the segments after the pass.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) keys: Vec<u64>,
    pub(super) segments: Vec<Segment>,
    /// Keys below this one are not wanted.
    pub(super) cut: u64,
    scratch: Vec<u64>,
}

impl Found {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.segments.clear();
        self.cut = 0;
    }

    /// Makes room for all that [`append`](Self::append) can ever pile up, so that no later step asks for more.
    fn reserve(&mut self, keep: usize, len: usize) {
        let most = (2 * keep + SLACK + LONGEST_CHUNK).min(len);
        self.keys.reserve(most);
        self.scratch.reserve(most.saturating_sub(self.scratch.len()));
    }

    /// Adds the keys of the chunk at `base`; if the list then has many more than `keep`, it is cut to its `keep`
    /// greatest.
    fn append(&mut self, base: u32, keys: &[u64], keep: Option<usize>) {
        self.segments.push(Segment { base, start: self.keys.len(), len: keys.len(), sent: 0 });
        self.keys.extend_from_slice(keys);
        if let Some(keep) = keep
            && self.keys.len() > 2 * keep + SLACK
        {
            self.cut = self.kth_greatest(keep, u64::MAX);
            self.drop_below_cut();
        }
    }

    /// The `k`-th greatest key; `certain` is a guess at a key that is a little greater. `k` is at least 1 and at most
    /// the number of keys.
    pub(super) fn kth_greatest(&mut self, k: usize, certain: u64) -> u64 {
        kth_greatest(&self.keys, k, certain, &mut self.scratch)
    }

    /// Keys that are in order of index, but of no particular chunks.
    pub(super) fn split_into_segments(&mut self, len: usize) {
        self.segments.clear();
        self.segments.extend(self.keys.chunks(len).enumerate().map(|(j, keys)| Segment {
            base: entry(keys[0]).0,
            start: j * len,
            len: keys.len(),
            sent: 0,
        }));
    }

    fn drop_below_cut(&mut self) {
        let mut end = 0;
        for segment in &mut self.segments {
            let start = end;
            for at in segment.start..segment.start + segment.len {
                if self.keys[at] >= self.cut {
                    self.keys[end] = self.keys[at];
                    end += 1;
                }
            }
            (segment.start, segment.len) = (start, end - start);
        }
        self.keys.truncate(end);
        self.segments.retain(|segment| segment.len > 0);
    }
}

/// Room that passes use again and again.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The keys of the chunk that a worker has in hand.
    hands: Vec<Vec<u64>>,
}

impl Pass {
    /// Sweeps over all of `streams` and leaves in `found` what reaches `threshold`, or of that at least the `keep`
    /// greatest.
    pub(super) fn run(
        &mut self,
        level: Level,
        streams: Streams<'_>,
        threshold: u32,
        keep: Option<usize>,
        found: &mut Found,
    ) {
        found.clear();
        if let Some(keep) = keep {
            found.reserve(keep, streams.gradient.len());
        }
        let len = streams.gradient.len();
        let workers = if len <= SHORTEST_CHUNK { 1 } else { rayon::current_num_threads() };
        let chunk_len = (len / (workers * CHUNKS_EACH)).clamp(SHORTEST_CHUNK, LONGEST_CHUNK).next_multiple_of(BLOCK);
        if self.hands.len() < workers {
            self.hands.resize_with(workers, || vec![0; LONGEST_CHUNK + SPARE]);
        }
        found.segments.reserve(len.div_ceil(chunk_len));
        let (feedback, scale) = (streams.feedback, streams.scale);
        let queue = Mutex::new(Chunks { rest: streams, base: 0, chunk_len });
        let list = Mutex::new(&mut *found);
        let cut = AtomicU64::new(0);
        let work = |hand: &mut Vec<u64>| {
            while let Some(chunk) = { lock(&queue).next() } {
                let base = chunk.base;
                let threshold = threshold.max(least_beyond(cut.load(Relaxed), base));
                let count = level.run(Sweep { feedback, scale, chunk, threshold, found: hand });
                if count > 0 {
                    let mut list = lock(&list);
                    list.append(base, &hand[..count], keep);
                    cut.store(list.cut, Relaxed);
                }
            }
        };
        if workers == 1 {
            self.hands[..1].iter_mut().for_each(work);
        } else {
            self.hands[..workers].par_iter_mut().with_max_len(1).for_each(work);
        }
        found.segments.sort_unstable_by_key(|segment| segment.base);
    }
}

/// The least magnitude that can be above the key `cut` at indices from `base` on.
fn least_beyond(cut: u64, base: u32) -> u32 {
    let magnitude = (cut >> 33) as u32;
    // Of equal magnitudes the least index comes first, and these come later.
    if cut != 0 && base > entry(cut).0 { magnitude + 1 } else { magnitude }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panicked takes the whole pass with it; what it left is not used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has not been handed out yet.
struct Chunks<'a> {
    rest: Streams<'a>,
    base: usize,
    chunk_len: usize,
}

impl<'a> Chunks<'a> {
    fn next(&mut self) -> Option<Chunk<'a>> {
        let len = self.chunk_len.min(self.rest.gradient.len());
        if len == 0 {
            return None;
        }
        let base = self.base as u32;
        self.base += len;
        // What there is no use for is empty, and so is what is split off it.
        let (u, v) = (len.min(self.rest.momentum.len()), len.min(self.rest.velocity.len()));
        Some(Chunk {
            base,
            gradient: self.rest.gradient.split_off(..len)?,
            momentum: self.rest.momentum.split_off_mut(..u)?,
            velocity: self.rest.velocity.split_off_mut(..v)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tilewright_compression::key::{key, magnitude};

    proptest! {
        /// What a worker may skip is exactly what lies beyond the cut; before the cut's index it may keep ties.
        #[test]
        fn skipped_are_those_below_the_cut(at in 0u32..9, base in 0u32..9, cut_bits in 1u32..9, bits in 0u32..9, i in 0u32..9) {
            let cut = key(at, f32::from_bits(cut_bits));
            let (index, value) = (base + i, f32::from_bits(bits));
            let passes = magnitude(value) >= least_beyond(cut, base);
            if base > at {
                prop_assert_eq!(passes, key(index, value) > cut);
            } else {
                prop_assert_eq!(passes, bits >= cut_bits);
            }
        }

        /// However chunks come in, the greatest are in the list, and no more than it may hold.
        #[test]
        fn a_short_list_has_the_greatest(
            order in Just((0..40u32).collect::<Vec<_>>()).prop_shuffle(),
            keep in 1usize..3000,
            kinds in 1u32..2000,
        ) {
            const LEN: u32 = 700;
            let value = |i: u32| f32::from_bits(1 + i.wrapping_mul(0x9e37_79b9) % kinds);
            let mut found = Found::default();
            for base in order.iter().map(|chunk| chunk * LEN) {
                let least = least_beyond(found.cut, base);
                let keys: Vec<u64> =
                    (base..base + LEN).map(|i| key(i, value(i))).filter(|key| (key >> 33) as u32 >= least).collect();
                found.append(base, &keys, Some(keep));
                prop_assert!(found.keys.len() <= 2 * keep + SLACK);
            }
            let mut all: Vec<u64> = (0..40 * LEN).map(|i| key(i, value(i))).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(found.kth_greatest(keep, u64::MAX), all[keep - 1]);
            for segment in &found.segments {
                let indices = found.keys[segment.start..segment.start + segment.len].iter().map(|key| entry(*key).0);
                prop_assert!(indices.clone().is_sorted());
                prop_assert!(indices.clone().all(|i| (segment.base..segment.base + LEN).contains(&i)));
            }
        }
    }
}
