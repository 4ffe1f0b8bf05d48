//! From a case that fails to a smaller one that fails too.

use crate::compression::case::{Case, Distribution};
use crate::suite;
use tilewright_compression::{Feedback, NonFinite, Placement, Wire};

/// Simplifies a case step by step while `still_wrong` says that it still shows the fault: fewer ranks and steps, plain
/// options, simpler data, and shorter.
pub fn shrink(case: &Case, still_wrong: impl FnMut(&Case) -> bool, budget: usize) -> Case {
    suite::shrink(case, simpler, still_wrong, budget)
}

/// Candidates one step simpler, the boldest first.
fn simpler(case: &Case) -> Vec<Case> {
    let mut list = Vec::new();
    let mut offer = |candidate: Case| {
        // Whatever cannot be written down and read back is no reproducer.
        if candidate != *case && candidate.to_string().parse::<Case>().as_ref() == Ok(&candidate) {
            list.push(candidate);
        }
    };
    offer(Case { ranks: 1, ..case.clone() });
    offer(Case { steps: 1, ..case.clone() });
    offer(Case { steps: case.steps.saturating_sub(1).max(1), ..case.clone() });
    offer(Case { ranks: case.ranks.saturating_sub(1).max(1), ..case.clone() });
    offer(Case { scale: 1.0, ..case.clone() });
    offer(Case { wire: Wire::default(), ..case.clone() });
    offer(Case { non_finite: NonFinite::Propagate, ..case.clone() });
    offer(Case { placement: Placement::Compact, ..case.clone() });
    for feedback in [Feedback::None, Feedback::Residual].into_iter().take_while(|simple| *simple != case.feedback) {
        offer(Case { feedback, ..case.clone() });
    }
    for len in [1, case.len / 2, case.len - case.len / 4, case.len.saturating_sub(1)] {
        if len < case.len {
            offer(Case { len, ..case.clone() });
        }
    }
    // Strictly simpler, or two distributions would be offered in turn for ever.
    let simple = [Distribution::Equal, Distribution::Integer, Distribution::Heavy];
    for distribution in simple.into_iter().take_while(|simple| *simple != case.distribution) {
        offer(Case { distribution, ..case.clone() });
    }
    list
}
