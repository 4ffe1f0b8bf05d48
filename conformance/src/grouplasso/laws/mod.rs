//! What is asked in each case, and what must hold between several answers of the same subject.
//!
//! A law asks for what the subject declares, and compares its answers with each other: within twice their bounds, or,
//! for solutions, by what they are worth as answers to the problem at hand.

pub(crate) mod prox;
pub(crate) mod select;
pub(crate) mod solve;

use crate::grouplasso::hearing::{Ended, Hearing, MOST_ITERATIONS};
use crate::grouplasso::spoil::Spoilt;
use crate::grouplasso::subject::{ProxRequest, SelectRequest, SolveRequest};

/// The same again, and on other numbers of threads.
pub(crate) const AGAIN: [(Option<usize>, &str); 3] = [(None, "again"), (Some(1), "1 thread"), (Some(3), "3 threads")];

/// Puts what must be refused to a subject.
pub(crate) fn refuse(hearing: &mut Hearing<'_>, spoilt: &Spoilt) -> Result<(), Ended> {
    let (format, threads) = (hearing.prepared.case.format(), None);
    hearing.refusal(|subject, id| match spoilt {
        Spoilt::Prox { spec, step, w } => {
            subject.prox(&ProxRequest { id, format, spec, step: *step, w: w.view(), threads }).map(drop)
        }
        Spoilt::Select { scores, keep } => {
            subject.select(&SelectRequest { id, format, scores, keep: *keep, threads }).map(drop)
        }
        Spoilt::Solve(spoilt) => {
            let (instance, iterations, interrupt) = (&spoilt.instance, MOST_ITERATIONS, None);
            let (start, lambdas, gap) = (spoilt.start.as_ref(), spoilt.lambdas.as_deref(), spoilt.gap);
            subject.solve(&SolveRequest { id, instance, gap, iterations, start, interrupt, lambdas, threads }).map(drop)
        }
    })
}
