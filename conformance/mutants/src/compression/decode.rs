//! Messages of all ranks become a dense vector: `0 + x₀ + x₁ + …` at every place, in rank order.

use crate::compression::kernel::Pass;
use crate::compression::{Decoding, Fault};
use std::collections::BTreeMap;
use tilewright_compression::message::unpack;
use tilewright_compression::reference::check_messages;
use tilewright_compression::{CompressionError, Reduction};

impl Pass {
    pub(crate) fn decode(
        &self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        let len = out.len();
        let verdict = check_messages(messages, len);
        match verdict {
            Err(CompressionError::Message { .. }) if self.is(Fault::BadIndexSkipped) => {}
            Err(CompressionError::Message { .. }) if self.is(Fault::DecodeErrorLate) => {
                self.rank_by_rank(&self.gathered(messages, len), 1.0, out);
                return verdict;
            }
            Err(_) => return verdict,
            Ok(()) => {}
        }
        let entries = self.gathered(messages, len);
        match self.fault {
            Some(Fault::DecodeOntoOld) => {}
            Some(Fault::UntouchedKeepsOld) => entries.iter().for_each(|(_, i, _)| out[*i] = 0.0),
            _ => out.fill(0.0),
        }
        match self.variant.decoding {
            Decoding::RankByRank => {
                let mean = reduction == Reduction::Mean && self.is(Fault::MeanBeforeSum);
                self.rank_by_rank(&entries, if mean { messages.len() as f32 } else { 1.0 }, out);
            }
            Decoding::Owners(owners) => self.owners(owners, &entries, out),
            Decoding::Sorted => sorted(entries, out),
            Decoding::Tree => tree(&entries, out),
        }
        if reduction == Reduction::Mean {
            self.divide(messages, out);
        }
        Ok(())
    }

    /// All entries as `(rank, index, value)`, in the order in which they are added.
    fn gathered(&self, messages: &[&[u64]], len: usize) -> Vec<(usize, usize, f32)> {
        let ranks = messages.len();
        let total: usize = messages.iter().map(|words| words.len()).sum();
        let order: Vec<usize> = match self.fault {
            Some(Fault::RanksReversed) => (0..ranks).rev().collect(),
            Some(Fault::RanksInTurn) => (0..ranks).map(|r| (r + self.call as usize) % ranks).collect(),
            Some(Fault::LastRankMissing) => (0..ranks - 1).collect(),
            Some(Fault::FirstRankTwice) => (0..1).chain(0..ranks).collect(),
            _ => (0..ranks).collect(),
        };
        let read = |r: usize| match self.fault {
            Some(Fault::LengthOfFirst) => messages[r].len().min(messages[0].len()),
            _ => messages[r].len(),
        };
        let words = order.into_iter().flat_map(|r| messages[r][..read(r)].iter().map(move |word| (r, unpack(*word))));
        let share = match self.fault {
            Some(Fault::EqualSplit) => total / ranks * ranks,
            _ => usize::MAX,
        };
        let skipped = usize::from(self.is(Fault::FirstPlaceSkipped));
        let entries = words.take(share).map(|(r, (i, x))| (r, i as usize, x));
        entries.filter(|(_, i, _)| (skipped..len).contains(i)).collect()
    }

    /// Adds values, each divided by `divisor`.
    fn rank_by_rank(&self, entries: &[(usize, usize, f32)], divisor: f32, out: &mut [f32]) {
        if matches!(self.fault, Some(Fault::SumInF64 | Fault::TreeSum)) {
            return self.place_by_place(entries, out);
        }
        let mut last: Vec<Option<f32>> = vec![None; out.len()];
        for &(_, i, x) in entries {
            match (self.fault, last[i]) {
                (Some(Fault::SecondRankTwice), Some(_)) => out[i] = (out[i] + x) + x,
                (Some(Fault::DecodeOverwrites), _) => out[i] = x,
                (Some(Fault::EqualValuesMerged), Some(before)) if before.to_bits() == x.to_bits() => {}
                (Some(Fault::MeanBeforeSum), _) => out[i] += x / divisor,
                _ => out[i] += x,
            }
            last[i] = Some(x);
        }
    }

    fn place_by_place(&self, entries: &[(usize, usize, f32)], out: &mut [f32]) {
        let mut places: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (_, i, x) in entries {
            places.entry(*i).or_default().push(*x);
        }
        for (i, list) in places {
            out[i] = match self.fault {
                Some(Fault::TreeSum) => by_halves(&list),
                _ => list.iter().map(|x| f64::from(*x)).sum::<f64>() as f32,
            };
        }
    }

    /// Each owner of a range of places reads all messages.
    fn owners(&self, owners: usize, entries: &[(usize, usize, f32)], out: &mut [f32]) {
        let len = out.len();
        let range = if self.is(Fault::OwnersRoundDown) { len / owners } else { len.div_ceil(owners) };
        for owner in (0..owners).rev() {
            let own = owner * range..(owner + 1) * range;
            entries.iter().filter(|(_, i, _)| own.contains(i)).for_each(|(_, i, x)| out[*i] += x);
        }
    }

    fn divide(&self, messages: &[&[u64]], out: &mut [f32]) {
        let ranks = messages.len() as f32;
        let mut senders = vec![0u32; out.len()];
        for word in messages.iter().flat_map(|words| words.iter()) {
            if let Some(senders) = senders.get_mut(unpack(*word).0 as usize) {
                *senders += 1;
            }
        }
        let nonempty = messages.iter().filter(|words| !words.is_empty()).count().max(1) as f32;
        for (i, x) in out.iter_mut().enumerate() {
            *x = match self.fault {
                Some(Fault::MeanMissing | Fault::MeanBeforeSum) => *x,
                Some(Fault::MeanTwice) => *x / ranks / ranks,
                Some(Fault::MeanByReciprocal) => *x * (1.0 / ranks),
                Some(Fault::EmptyRankNotCounted) => *x / nonempty,
                Some(Fault::MeanOfSenders) => *x / senders[i].max(1) as f32,
                _ => *x / ranks,
            };
        }
    }
}

fn by_halves(list: &[f32]) -> f32 {
    match list {
        [] => 0.0,
        [x] => 0.0 + x,
        _ => {
            let (lower, upper) = list.split_at(list.len().div_ceil(2));
            by_halves(lower) + by_halves(upper)
        }
    }
}

fn sorted(mut entries: Vec<(usize, usize, f32)>, out: &mut [f32]) {
    // Stable: entries of one index stay in rank order.
    entries.sort_by_key(|(_, i, _)| *i);
    for run in entries.chunk_by(|(_, i, _), (_, j, _)| i == j) {
        out[run[0].1] = run.iter().fold(0.0, |sum, (.., x)| sum + x);
    }
}

fn tree(entries: &[(usize, usize, f32)], out: &mut [f32]) {
    let mut sums: BTreeMap<usize, f32> = BTreeMap::new();
    for (_, i, x) in entries {
        *sums.entry(*i).or_insert(0.0) += x;
    }
    for (i, sum) in sums {
        out[i] = sum;
    }
}
