//! How much of the world a trial visits, how random cases are drawn, and how failing ones become small.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;

/// How much of the world a trial visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Under a minute.
    Quick,
    /// Some minutes.
    Full,
    /// An hour or so.
    Extensive,
}

/// `count` random values, a function of the seed.
pub(crate) fn sample<S: Strategy>(strategy: &S, count: usize, seed: u32) -> Vec<S::Value> {
    let mut bytes = [0x74; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).filter_map(|_| strategy.new_tree(&mut runner).ok()).map(|tree| tree.current()).collect()
}

/// A case as whoever chooses among cases sees it.
pub trait Visit: Clone + PartialEq {
    /// How long it takes, about: in units of the family's own.
    fn work(&self) -> u64;

    /// What it visits, by the report's columns: features first of all, as [`Report::without_evidence`] names them.
    ///
    /// [`Report::without_evidence`]: crate::Report::without_evidence
    fn marks(&self) -> Vec<(&'static str, &'static str)>;
}

/// Few cases for a slow subject, such as an interpreter: the least work first, those that have a mark which none of the
/// chosen has.
///
/// ```
/// use tilewright_conformance::compression::suite::{Suite, cases};
/// use tilewright_conformance::suite::smallest;
/// let quick = cases(Suite::Quick, 0);
/// assert!(smallest(&quick).len() < quick.len() / 5);
/// ```
pub fn smallest<C: Visit>(cases: &[C]) -> Vec<C> {
    let mut seen = BTreeSet::new();
    let mut chosen = by_work(cases);
    chosen.retain(|case| case.marks().into_iter().fold(false, |new, mark| seen.insert(mark) | new));
    chosen.into_iter().cloned().collect()
}

/// For each of the marks that are wanted the smallest case that has it and was not tried.
pub fn next<C: Visit>(cases: &[C], tried: &[C], wanted: &[(&'static str, &'static str)]) -> Vec<C> {
    let mut untried = by_work(cases);
    untried.retain(|case| !tried.contains(case));
    let mut chosen: Vec<C> = Vec::new();
    for mark in wanted {
        let case = untried.iter().find(|case| case.marks().contains(mark));
        chosen.extend(case.filter(|case| !chosen.contains(case)).map(|case| (*case).clone()));
    }
    chosen
}

fn by_work<C: Visit>(cases: &[C]) -> Vec<&C> {
    let mut order: Vec<&C> = cases.iter().collect();
    order.sort_by_key(|case| case.work());
    order
}

/// Recorded cases first, then the others without those.
pub(crate) fn after_recorded<C: PartialEq>(recorded: Vec<C>, others: Vec<C>) -> Vec<C> {
    let others: Vec<C> = others.into_iter().filter(|case| !recorded.contains(case)).collect();
    recorded.into_iter().chain(others).collect()
}

/// Simplifies a case step by step while `still_wrong` says that it still shows the fault. `simpler` lists candidates one
/// step simpler, the boldest first; at most `budget` of them are tried.
pub(crate) fn shrink<C: Clone>(
    case: &C,
    simpler: impl Fn(&C) -> Vec<C>,
    mut still_wrong: impl FnMut(&C) -> bool,
    budget: usize,
) -> C {
    let mut smallest = case.clone();
    let mut tries = 0;
    loop {
        let better = simpler(&smallest).into_iter().find(|candidate| {
            tries += 1;
            tries <= budget && still_wrong(candidate)
        });
        match better {
            Some(better) => smallest = better,
            None => return smallest,
        }
    }
}
