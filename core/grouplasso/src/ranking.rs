//! All features in the order of their worth at one λ: those of the answer first, the others by how little they lack.

use crate::penalty::norm;
use crate::{Certificate, Problem, Solution, Stopped};
use alloc::vec::Vec;
use tilewright_scalar::Element;

/// The scores of all features at one λ.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// λ.
    pub lambda: f64,
    /// `‖Wᵢ‖` of features that are not zero; of others `‖xᵢᵀω̂R‖/λ − 1`, at most 0.
    pub scores: Vec<f64>,
    /// Features that are not zero.
    pub active: usize,
    /// How near to the minimum the scores are.
    pub certificate: Certificate,
    /// Iterations, as the solver counts them.
    pub iterations: usize,
    /// Why it stopped.
    pub stopped: Stopped,
}

/// The scores that an answer at λ gives.
pub(crate) fn ranking<U: Element>(problem: &Problem<'_, U>, answer: &Solution, lambda: f64) -> Ranking {
    let z = problem.times(&answer.w);
    let residual = problem.response().residual(z.view(), &answer.b);
    let mut active = answer.w.indices().iter().zip(crate::select::scores(answer.w.values())).peekable();
    let score = |feature: usize| match active.next_if(|(row, _)| **row == feature) {
        Some((_, score)) if score > 0.0 => score,
        _ => {
            let u = problem.correlation(feature, residual.view());
            (norm(&u) / lambda - 1.0).min(0.0)
        }
    };
    let scores: Vec<f64> = (0..problem.shape().0).map(score).collect();
    let active = scores.iter().filter(|score| **score > 0.0).count();
    let Solution { certificate, iterations, stopped, .. } = *answer;
    Ranking { lambda, scores, active, certificate, iterations, stopped }
}
