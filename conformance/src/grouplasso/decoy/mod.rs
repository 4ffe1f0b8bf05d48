//! Answers that are wrong in a known way. A case is evidence against a fault only if it rejects the fault's decoy, and
//! a wrong answer that is some decoy's has its name.

mod prox;
mod select;
mod solve;

use crate::grouplasso::judge::{judge_prox, judge_scores, judge_selection};
use crate::grouplasso::subject::{Answer, Claim, Column, Feature};
use crate::grouplasso::trial::Exhibit;
use ndarray::Array2;
pub use prox::ProxMoment;
pub use select::SelectMoment;
pub use solve::SolveMoment;
use tilewright_grouplasso::{SparseRows, Start, Stopped};

/// A known mistake.
#[derive(Clone, Copy, Debug)]
pub struct Decoy {
    /// What is wrong.
    pub name: &'static str,
    /// The feature it is about.
    pub feature: Option<Feature>,
    wrong: Wrong,
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    Prox(fn(&ProxMoment<'_>) -> Option<Array2<f64>>),
    Scores(fn(&SelectMoment<'_>) -> Option<Vec<f64>>),
    Select(fn(&SelectMoment<'_>) -> Option<Vec<usize>>),
    Solve(fn(&SolveMoment<'_>) -> Option<Start>),
}

/// The right answer to a case, and what it was asked: what decoys are made from.
#[derive(Debug)]
pub enum Moment<'a> {
    /// A proximal operator.
    Prox(ProxMoment<'a>),
    /// Scores and a selection.
    Select(SelectMoment<'a>),
    /// A problem.
    Solve(SolveMoment<'a>),
}

/// All decoys.
pub fn decoys() -> impl Iterator<Item = &'static Decoy> {
    prox::DECOYS.iter().chain(select::DECOYS).chain(solve::DECOYS)
}

const fn decoy(name: &'static str, feature: Option<Feature>, wrong: Wrong) -> Decoy {
    Decoy { name, feature, wrong }
}

impl Decoy {
    /// Whether some case must reject it for there to be evidence about its feature; decoys that are wrong about nothing
    /// in particular bear on every feature without decoys of its own.
    pub fn is_about(&self, feature: Feature) -> bool {
        self.feature == Some(feature)
    }

    /// The operation it goes wrong in.
    pub fn column(&self) -> Column {
        match self.wrong {
            Wrong::Prox(_) => Column::Prox,
            Wrong::Scores(_) | Wrong::Select(_) => Column::Select,
            Wrong::Solve(_) => Column::Solve,
        }
    }

    /// Whether the judge sees through it.
    pub fn is_rejected(&self, moment: &Moment<'_>) -> bool {
        match (self.wrong, moment) {
            (Wrong::Prox(wrong), Moment::Prox(m)) => {
                wrong(m).is_some_and(|out| judge_prox(m.layout, m.limits, m.w, out.view(), "decoy").is_err())
            }
            (Wrong::Scores(wrong), Moment::Select(m)) => {
                wrong(m).is_some_and(|scores| judge_scores(m.format, m.w, &scores, "decoy").is_err())
            }
            (Wrong::Select(wrong), Moment::Select(m)) => {
                wrong(m).is_some_and(|kept| judge_selection(m.scores, m.keep, &kept, "decoy").is_err())
            }
            (Wrong::Solve(wrong), Moment::Solve(m)) => {
                // Where giving up is no fault, nothing is proven by one that did not get there.
                let stopped = m.trial.excuses.contains(&Stopped::Stalled).then_some(Stopped::Stalled);
                wrong(m).is_some_and(|start| m.trial.judge(&Answer { stopped, ..silent(start) }, "decoy").is_err())
            }
            _ => false,
        }
    }

    /// Whether this is the mistake: an answer that is this decoy's, or for a solution far nearer to it than to the right
    /// one.
    pub fn explains(&self, moment: &Moment<'_>, exhibit: &Exhibit) -> bool {
        match (self.wrong, moment, exhibit) {
            (Wrong::Prox(wrong), Moment::Prox(m), Exhibit::Prox(got)) => wrong(m).is_some_and(|out| {
                let near = |(at, x): ((usize, usize), &f64)| {
                    let off = (got[at] - x).abs();
                    off <= 2.0 * m.limits.worst[at] || (x.is_nan() && got[at].is_nan())
                };
                out.dim() == got.dim() && out.indexed_iter().all(near)
            }),
            (Wrong::Scores(wrong), Moment::Select(m), Exhibit::Scores(got)) => wrong(m).is_some_and(|scores| {
                let near = |(x, got): (&f64, &f64)| (x - got).abs() <= 1e-3 * x.abs() || (x.is_nan() && got.is_nan());
                scores.len() == got.len() && scores.iter().zip(got).all(near)
            }),
            (Wrong::Select(wrong), Moment::Select(m), Exhibit::Selection(got)) => {
                wrong(m).is_some_and(|kept| kept == *got)
            }
            (Wrong::Solve(wrong), Moment::Solve(m), Exhibit::Solution(got)) => wrong(m).is_some_and(|decoy| {
                let right = Start { w: m.oracle.w.clone(), b: m.oracle.b.clone() };
                distance(&decoy, got) <= 0.05 * distance(&decoy, &right)
            }),
            _ => false,
        }
    }
}

/// A solution of which nothing is said.
fn silent(start: Start) -> Answer {
    let Start { w, b } = start;
    Answer { w, b, claim: Claim::default(), stopped: None, iterations: None, columns: None, watched: None }
}

/// Between two solutions of the same shape; infinite if they are not.
fn distance(a: &Start, b: &Start) -> f64 {
    if (a.w.rows(), a.w.columns(), a.b.len()) != (b.w.rows(), b.w.columns(), b.b.len()) {
        return f64::INFINITY;
    }
    let apart = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b) * (a - b) };
    let dense = |w: &SparseRows| w.to_dense();
    let w: f64 = dense(&a.w).iter().zip(&dense(&b.w)).map(apart).sum();
    (w + a.b.iter().zip(&b.b).map(apart).sum::<f64>()).sqrt()
}
