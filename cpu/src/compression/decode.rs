//! Decoding by owners: the output is cut into ranges, and whoever owns a range adds up all that the messages say about
//! it, in rank order, while it is in cache. No range has two writers, so there is nothing to race for.

// Kernels are inlined into one function for each level of SIMD.
#![allow(clippy::inline_always)]

use super::simd::{Kernel, Level, Mask};
use rayon::prelude::*;
use tilewright_compression::message::unpack;
use tilewright_compression::reference::check_messages;
use tilewright_compression::{CompressionError, Reduction};

/// Elements of a range: it stays in a core's own cache from the zeros to the mean.
const RANGE: usize = 1 << 15;
/// Words that one worker checks at a time.
const BLOCK: usize = 1 << 13;

/// Room that decoding uses again and again.
#[derive(Debug, Default)]
pub(super) struct Decode {
    /// Whether a message is in ascending order.
    ascending: Vec<bool>,
}

impl Decode {
    pub(super) fn run(
        &mut self,
        level: Level,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        self.ascending.clear();
        self.ascending.extend(messages.iter().map(|words| is_ascending(words)));
        let ascending = &*self.ascending;
        let fits = messages.iter().zip(ascending).all(|(words, ascending)| fits(words, *ascending, out.len()));
        if !fits || messages.is_empty() {
            // It is refused here, in the words of the definition.
            check_messages(messages, out.len())?;
        }
        // What is not sorted has to be searched by every owner: then there are as few owners as workers.
        let sorted = ascending.iter().all(|ascending| *ascending);
        let range = if sorted { RANGE } else { out.len().div_ceil(rayon::current_num_threads()).max(RANGE) };
        out.par_chunks_mut(range).enumerate().for_each(|(owner, out)| {
            let base = owner * range;
            out.fill(0.0);
            for (words, ascending) in messages.iter().zip(ascending) {
                if *ascending { add_sorted(words, base, out) } else { add_any(words, base, out) }
            }
            if reduction == Reduction::Mean {
                level.run(Divide(out, messages.len()));
            }
        });
        Ok(())
    }
}

/// Divides everything by a number of ranks.
struct Divide<'a>(&'a mut [f32], usize);

impl Kernel for Divide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Mask>(self, _: M) {
        let Self(out, ranks) = self;
        let divisor = ranks as f32;
        if ranks.is_power_of_two() {
            // The quotient and this product are the same number before they are rounded, and the product is cheaper.
            let inverse = 1.0 / divisor;
            for x in out {
                *x *= inverse;
            }
        } else {
            for x in out {
                *x /= divisor;
            }
        }
    }
}

fn index(word: u64) -> usize {
    unpack(word).0 as usize
}

fn is_ascending(words: &[u64]) -> bool {
    let blocks = words.par_chunks(BLOCK).enumerate();
    blocks.map(|(j, block)| (j.checked_sub(1).map(|j| words[j * BLOCK + BLOCK - 1]), block)).all(|(before, block)| {
        before.is_none_or(|before| index(before) <= index(block[0])) && block.is_sorted_by_key(|word| index(*word))
    })
}

/// Whether all indices are below `len`.
fn fits(words: &[u64], ascending: bool, len: usize) -> bool {
    if ascending {
        words.last().is_none_or(|last| index(*last) < len)
    } else {
        words.par_chunks(BLOCK).all(|block| block.iter().all(|word| index(*word) < len))
    }
}

fn add_sorted(words: &[u64], base: usize, out: &mut [f32]) {
    let first = words.partition_point(|word| index(*word) < base);
    for (i, x) in words[first..].iter().map(|word| unpack(*word)) {
        let Some(place) = out.get_mut(i as usize - base) else { break };
        *place += x;
    }
}

fn add_any(words: &[u64], base: usize, out: &mut [f32]) {
    for (i, x) in words.iter().map(|word| unpack(*word)) {
        if let Some(place) = out.get_mut((i as usize).wrapping_sub(base)) {
            *place += x;
        }
    }
}
