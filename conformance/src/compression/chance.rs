//! Laws of chance: one problem under many seeds, and how often who loses.

use crate::compression::hearing::{Ended, Hearing};
use crate::compression::judge::{Kind, Violation};
use crate::compression::laws::{Bare, law};
use crate::compression::subject::Column;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tilewright_compression::key::key;
use tilewright_compression::message::unpack;
use tilewright_compression::statistics::{expected_occupied, occupied_variance, survival};
use tilewright_compression::{Selector, invariants};

/// Runs under as many seeds.
const SEEDS: u64 = 64;
/// −ln of the chance of a false alarm that one comparison is allowed: 4·10⁻⁸.
const SURPRISE: f64 = 17.0;
/// Longest bucket that is compressed that often.
const LONGEST: usize = 5000;
/// So many of so many more make too many sets for two seeds to meet in one: 48 over 24 is 3·10¹³.
const MANY: usize = 24;
/// Candidates that must at least be there for chance to have its say.
const FEWEST: usize = 48;

/// One problem under many seeds: half of them other steps, half other specifications.
pub(crate) fn many_seeds(hearing: &mut Hearing<'_>, bare: &Bare) -> Result<(), Ended> {
    let by_chance = bare.slots().is_some() && matches!(bare.column, Column::TopK | Column::Fixed);
    let candidates = candidates(bare);
    let enough = candidates.len() >= FEWEST && bare.gradient.len() <= LONGEST;
    if !enough || !(by_chance || bare.column == Column::RandomK) {
        return Ok(());
    }
    let mut messages = Vec::new();
    for j in 0..SEEDS {
        let (mut spec, mut step) = (bare.spec, bare.step);
        if j % 2 == 0 {
            step.number += j;
        } else {
            spec.seed ^= j << 40;
        }
        messages.push(hearing.message(&spec, step, &bare.gradient, "law, seeds")?);
    }
    let Some(slots) = bare.slots().filter(|_| by_chance) else {
        // Random-k loses most of the entries or few; either way not the same ones twice.
        law(Kind::Seeds, chosen_anew(&candidates, &messages))?;
        // In a table an index may lose its slot under every seed.
        return if bare.slots().is_none() { ends_are_ordinary(bare, &messages) } else { Ok(()) };
    };
    // With few losers, or few slots for the others, two runs may well lose the same entries.
    let losers = candidates.len() as f64 - expected_occupied(candidates.len() as u64, u64::from(slots));
    if losers > 8.0 && slots as usize >= MANY {
        law(Kind::Seeds, invariants::losers_differ(&candidates, &messages))?;
    }
    let (k, m) = (candidates.len() as u64, u64::from(slots));
    let taken: usize = messages.iter().map(Vec::len).sum();
    let (mean, variance) = (expected_occupied(k, m) * SEEDS as f64, occupied_variance(k, m) * SEEDS as f64);
    let off = taken as f64 - mean;
    if off.abs() > tolerance(variance) {
        let detail = format!("{taken} slots taken by {k} entries in {m} slots over {SEEDS} seeds, {mean:.1} expected");
        return Err(Violation::new(Kind::CollisionStatistics, "law", detail).into());
    }
    if bare.settled { survivors(bare, candidates, slots, &messages) } else { Ok(()) }
}

/// How far a sum of many small chances may be from its mean: Bernstein's inequality, which unlike a number of standard
/// deviations also holds where next to nothing is expected to happen. For large variances it allows 5.8 of them.
fn tolerance(variance: f64) -> f64 {
    SURPRISE / 3.0 + (SURPRISE * SURPRISE / 9.0 + 2.0 * SURPRISE * variance).sqrt()
}

/// Entries that compete under every seed, ascending.
fn candidates(bare: &Bare) -> Vec<u32> {
    let mut list: Vec<u32> = (0u32..).zip(&bare.gradient).filter(|(_, x)| **x != 0.0).map(|(i, _)| i).collect();
    match bare.spec.selector {
        Selector::ExactTopK(count) => {
            list.sort_unstable_by_key(|i| Reverse(key(*i, bare.gradient[*i as usize])));
            list.truncate(count.of(bare.spec.len));
            list.sort_unstable();
        }
        Selector::FixedThreshold(threshold) => list.retain(|i| bare.gradient[*i as usize].abs() >= threshold),
        Selector::RandomK(_) | Selector::SampledThreshold(..) => {}
    }
    list
}

fn chosen_anew(candidates: &[u32], messages: &[Vec<u64>]) -> Result<(), invariants::Violation> {
    // With few entries in, or few out, there are only so many sets, and some will meet by chance.
    let aim = messages.iter().map(Vec::len).max().unwrap_or(0);
    if aim < MANY || aim + MANY > candidates.len() {
        return Ok(());
    }
    invariants::losers_differ(candidates, messages)
}

/// The first and the last index are chosen sometimes, and sometimes not.
fn ends_are_ordinary(bare: &Bare, messages: &[Vec<u64>]) -> Result<(), Ended> {
    let Selector::RandomK(count) = bare.spec.selector else { return Ok(()) };
    let share = count.of(bare.spec.len) as f64 / bare.spec.len as f64;
    // Otherwise chance alone would do it more often than once in a billion.
    if !(0.3..=0.7).contains(&share) {
        return Ok(());
    }
    for i in [0, bare.spec.len as u32 - 1] {
        let times = messages.iter().filter(|words| words.iter().any(|word| unpack(*word).0 == i)).count();
        if bare.gradient[i as usize] != 0.0 && (times == 0 || times == messages.len()) {
            let detail = format!("index {i} was sent under {times} of {} seeds", messages.len());
            return Err(Violation::new(Kind::Seeds, "law", detail).into());
        }
    }
    Ok(())
}

/// An entry of rank `r` survives with the chance `(1 − 1/m)^(r − 1)`: in eight groups of ranks, and the first always.
fn survivors(bare: &Bare, mut candidates: Vec<u32>, slots: u32, messages: &[Vec<u64>]) -> Result<(), Ended> {
    candidates.sort_unstable_by_key(|i| Reverse(key(*i, bare.gradient[*i as usize])));
    let mut survived = vec![0u64; candidates.len()];
    let mut rank_of = BTreeMap::new();
    rank_of.extend(candidates.iter().enumerate().map(|(rank, i)| (*i, rank)));
    for word in messages.iter().flatten() {
        if let Some(rank) = rank_of.get(&unpack(*word).0) {
            survived[*rank] += 1;
        }
    }
    let runs = messages.len() as f64;
    let size = candidates.len().div_ceil(8);
    for (group, times) in survived.chunks(size).enumerate() {
        let chances = (0..times.len()).map(|n| survival((group * size + n + 1) as u64, u64::from(slots)));
        let (mean, variance) = chances.fold((0.0, 0.0), |(mean, var), p| (mean + runs * p, var + runs * p * (1.0 - p)));
        let off = times.iter().sum::<u64>() as f64 - mean;
        // Survivals of one run hinder each other, so their sum varies less than independent ones would.
        if off.abs() > tolerance(variance) {
            let (from, to) = (group * size + 1, group * size + times.len());
            let detail = format!("ranks {from} to {to} survive {off:+.0} times against {mean:.1} expected");
            return Err(Violation::new(Kind::RankSurvival, "law", detail).into());
        }
    }
    if survived.first().is_some_and(|times| *times != SEEDS) {
        let detail = format!("the greatest entry survives under {} of {SEEDS} seeds", survived[0]);
        return Err(Violation::new(Kind::RankSurvival, "law", detail).into());
    }
    Ok(())
}
