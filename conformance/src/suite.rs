//! How much of the world a trial visits, how random cases are drawn, and how failing ones become small.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

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
