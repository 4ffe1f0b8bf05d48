//! Scores of rows, and the features kept.

use crate::grouplasso::kernel::Pass;
use crate::grouplasso::{Fault, Top};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use tilewright_grouplasso::{GroupLassoError, Keep};

/// A feature and its score, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ranked {
    score: f64,
    index: usize,
    ties_last: bool,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_index = if self.ties_last { self.index.cmp(&other.index) } else { other.index.cmp(&self.index) };
        // −0 and 0 are the same score.
        self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal).then(by_index)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Pass {
    /// The score of a row.
    pub(crate) fn score(&self, row: &[f64]) -> f64 {
        match self.fault {
            Some(Fault::ScoresSquared) => self.norm(row) * self.norm(row),
            Some(Fault::ScoresOfMagnitudes) => row.iter().map(|x| x.abs()).sum(),
            Some(Fault::ScoresOfGreatest) => row.iter().fold(0.0, |most: f64, x| most.max(x.abs())),
            Some(Fault::ScoresSigned) => row.iter().sum(),
            Some(Fault::ScoresAveraged) => self.norm(row) / (row.len() as f64).sqrt(),
            Some(Fault::ScoresInBf16) => crate::grouplasso::arithmetic::bf16(self.norm(row)),
            Some(Fault::ScoresLastOutputMissing) => self.norm(&row[..row.len().saturating_sub(1)]),
            _ => self.norm(row),
        }
    }

    /// How many are kept of `features`.
    fn count(&self, keep: Keep, scores: &[f64]) -> usize {
        let features = scores.len();
        let Keep::Fraction(fraction) = keep else {
            return match self.fault {
                Some(Fault::OneMoreKept) => keep.of(features).saturating_add(1).min(features),
                _ => keep.of(features),
            };
        };
        let share = fraction * features as f64;
        match self.fault {
            Some(Fault::CountRounded) => (share.round() as usize).max(1).min(features),
            Some(Fault::CountCeiled) => (share.ceil() as usize).max(1).min(features),
            Some(Fault::CountInF32) => ((fraction as f32 * features as f32) as usize).max(1).min(features),
            Some(Fault::CountMayBeZero) => (share as usize).min(features),
            Some(Fault::CountOfNonzeros) => keep.of(scores.iter().filter(|s| **s != 0.0).count()),
            Some(Fault::OneMoreKept) => keep.of(features).saturating_add(1).min(features),
            _ => keep.of(features),
        }
    }

    /// The features kept, ascending.
    pub(crate) fn top(&self, scores: &[f64], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        if !self.is(Fault::FractionUnchecked) {
            keep.validate()?;
        }
        if let (Some(at), false) = (scores.iter().position(|s| s.is_nan()), self.is(Fault::NanScoreFirst)) {
            return Err(GroupLassoError::Value {
                argument: "scores",
                at: at.to_string(),
                got: "NaN".into(),
                expected: "a number",
            });
        }
        let judged = |s: f64| match self.fault {
            Some(Fault::LeastKept) => -s,
            Some(Fault::NanScoreFirst) if s.is_nan() => f64::INFINITY,
            Some(Fault::ComparedInBf16) => crate::grouplasso::arithmetic::bf16(s),
            Some(Fault::ScoresTruncated) => (s * 1e6).trunc(),
            _ => s,
        };
        let ties_last = self.is(Fault::TiesToLast);
        let ranked =
            scores.iter().enumerate().map(|(index, &s)| Ranked { score: judged(s), index, ties_last }).collect();
        let mut kept = self.greatest(ranked, self.count(keep, scores).min(scores.len()));
        if !self.is(Fault::OrderOfScores) {
            kept.sort_unstable();
        }
        Ok(kept)
    }

    /// Of the first `count` in order of preference, the indices.
    fn greatest(&self, mut ranked: Vec<Ranked>, count: usize) -> Vec<usize> {
        match self.variant.top {
            _ if count == 0 => return Vec::new(),
            Top::Sort => ranked.sort_unstable_by_key(|r| Reverse(*r)),
            Top::Quickselect => {
                ranked.select_nth_unstable_by_key(count - 1, |r| Reverse(*r));
            }
            Top::Heap => {
                let mut heap = BinaryHeap::with_capacity(count + 1);
                for r in ranked {
                    heap.push(Reverse(r));
                    if heap.len() > count {
                        heap.pop();
                    }
                }
                ranked = heap.into_iter().map(|r| r.0).collect();
            }
        }
        ranked.truncate(count);
        ranked.iter().map(|r| r.index).collect()
    }
}
