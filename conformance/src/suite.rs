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

/// Few cases for a slow subject: the least work first, those that have a mark which none of the chosen has. A case's marks
/// are what it visits: feature by column, distribution by column, and so on.
pub(crate) fn smallest<C: Clone, M: Ord>(
    cases: &[C],
    work: impl Fn(&C) -> u64,
    marks: impl Fn(&C) -> Vec<M>,
) -> Vec<C> {
    let mut seen = BTreeSet::new();
    let mut chosen = by_work(cases, work);
    chosen.retain(|case| marks(case).into_iter().fold(false, |new, mark| seen.insert(mark) | new));
    chosen.into_iter().cloned().collect()
}

/// For each of the marks that are wanted the smallest case that has it and was not tried.
pub(crate) fn next<C: Clone + PartialEq, M: PartialEq>(
    cases: &[C],
    work: impl Fn(&C) -> u64,
    marks: impl Fn(&C) -> Vec<M>,
    tried: &[C],
    wanted: &[M],
) -> Vec<C> {
    let mut untried = by_work(cases, work);
    untried.retain(|case| !tried.contains(case));
    let mut chosen: Vec<C> = Vec::new();
    for mark in wanted {
        let case = untried.iter().find(|case| marks(case).contains(mark));
        chosen.extend(case.filter(|case| !chosen.contains(case)).map(|case| (*case).clone()));
    }
    chosen
}

fn by_work<C>(cases: &[C], work: impl Fn(&C) -> u64) -> Vec<&C> {
    let mut order: Vec<&C> = cases.iter().collect();
    order.sort_by_key(|case| work(case));
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
