//! A trial: a subject, a case, and a verdict.

use crate::compression::case::Case;
use crate::compression::decoy::DECOYS;
use crate::compression::generate::gradient;
use crate::compression::hearing::{Ended, Hearing};
use crate::compression::judge::{Kind, Violation};
use crate::compression::laws;
use crate::compression::moment::{Arrival, Moment};
pub use crate::compression::shrink::shrink;
use crate::compression::subject::{Feature, Reply, Subject};
use crate::report::UNDECLARED;
pub use crate::report::Verdict;
use std::collections::BTreeSet;
use tilewright_compression::{CompressionError, CompressionSpec, Memory, Reduction};

/// A case, ready to be put to any subject.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case.
    pub case: Case,
    /// Its problem.
    pub spec: CompressionSpec,
    /// The gradients of every step, rank by rank.
    pub gradients: Vec<Vec<Vec<f32>>>,
    /// What it asks of a subject.
    pub features: BTreeSet<Feature>,
    /// The decoys it rejects: what it is evidence against.
    pub evidence: Vec<Evidence>,
}

/// A decoy that a case rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The decoy's name.
    pub decoy: &'static str,
    /// The feature it is about.
    pub feature: Option<Feature>,
}

impl Prepared {
    /// Generates a case's gradients and tries its decoys.
    ///
    /// # Errors
    /// A line of text if the case's options cannot go together.
    pub fn new(case: &Case) -> Result<Self, String> {
        let spec = case.spec();
        let named = |error: &dyn std::fmt::Display| format!("case {case}: {error}");
        spec.validate().map_err(|error| named(&error))?;
        let of_step = |t: usize| (0..case.ranks).map(|rank| gradient(case, t, rank)).collect();
        let mut prepared = Self {
            case: case.clone(),
            spec,
            gradients: (0..case.steps).map(of_step).collect(),
            features: case.features().into_iter().collect(),
            evidence: Vec::new(),
        };
        prepared.evidence = prepared.rejected().map_err(|error| named(&error))?;
        Ok(prepared)
    }

    /// The decoys that the judge sees through in some step.
    fn rejected(&self) -> Result<Vec<Evidence>, CompressionError> {
        let mut open: Vec<_> = DECOYS
            .iter()
            .filter(|decoy| decoy.feature.is_none_or(|feature| self.features.contains(&feature)))
            .collect();
        let mut evidence = Vec::new();
        let mut memories = vec![Memory::new(&self.spec)?; self.case.ranks];
        for (t, gradients) in self.gradients.iter().enumerate() {
            let mut messages = Vec::new();
            for (gradient, memory) in gradients.iter().zip(&mut memories) {
                let moment = Moment::new(&self.spec, self.case.step(t), gradient, std::mem::take(memory))?;
                // One rank's moments say as much as all ranks'.
                if messages.is_empty() {
                    open.retain(|decoy| {
                        let rejected = decoy.rejected_step(&moment);
                        evidence.extend(rejected.then_some(Evidence { decoy: decoy.name, feature: decoy.feature }));
                        !rejected
                    });
                }
                *memory = moment.after().clone();
                messages.push(moment.words().to_vec());
            }
            for reduction in [Reduction::Sum, Reduction::Mean] {
                let arrival = Arrival::new(messages.clone(), reduction, self.case.len)?;
                open.retain(|decoy| {
                    let rejected = decoy.rejected_decode(&arrival);
                    evidence.extend(rejected.then_some(Evidence { decoy: decoy.name, feature: decoy.feature }));
                    !rejected
                });
            }
        }
        Ok(evidence)
    }

    /// Whether a right answer to this case is evidence for a feature: one of its decoys is rejected, or, for a feature
    /// without any of its own, some decoy is.
    pub fn testifies_for(&self, feature: Feature) -> bool {
        let own = DECOYS.iter().any(|decoy| decoy.is_about(feature));
        self.features.contains(&feature) && self.evidence.iter().any(|e| !own || e.feature == Some(feature))
    }
}

/// Where an answer went wrong: what a hint is looked for in.
#[derive(Clone, Debug)]
pub enum Exhibit {
    /// A step.
    Step {
        /// Which step, from 0.
        t: usize,
        /// Of which rank.
        rank: usize,
        /// The memory before it.
        before: Memory,
        /// The answer.
        reply: Reply,
    },
    /// A decoding.
    Decode {
        /// The messages.
        messages: Vec<Vec<u64>>,
        /// Sum or mean.
        reduction: Reduction,
        /// The answer.
        out: Vec<f32>,
    },
}

/// How one case went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// What is wrong, gravest first.
    pub violations: Vec<Violation>,
    /// Why it is unsupported, if it is.
    pub reason: Option<String>,
    /// Elements judged.
    pub elements: u64,
    /// The first wrong answer.
    pub exhibit: Option<Exhibit>,
}

/// Whether a subject's profile covers a case; if not, what it lacks.
pub fn lacks(subject: &dyn Subject, case: &Case) -> Option<String> {
    let profile = subject.profile();
    if !profile.columns.contains(&case.column()) {
        return Some(format!("selector {}", case.column().name()));
    }
    case.features().into_iter().find(|feature| !profile.supports.contains(feature)).map(|f| f.name().into())
}

/// Puts one case to a subject.
pub fn examine(subject: &mut dyn Subject, prepared: &Prepared) -> Outcome {
    let mut outcome =
        Outcome { verdict: Verdict::Conforms, violations: Vec::new(), reason: None, elements: 0, exhibit: None };
    if let Some(what) = lacks(subject, &prepared.case) {
        outcome.verdict = Verdict::Unsupported;
        outcome.reason = Some(format!("{UNDECLARED} {what}"));
        return outcome;
    }
    let mut hearing = Hearing::new(subject, prepared);
    let ended = hearing.chain().and_then(|history| {
        let history = history.ok_or(Ended::Refused("the reference's turn".into()))?;
        laws::check(&mut hearing, &history)
    });
    (outcome.elements, outcome.exhibit) = (hearing.elements, hearing.exhibit);
    outcome.verdict = match ended {
        Ok(()) if prepared.evidence.is_empty() => Verdict::Vacuous,
        Ok(()) => Verdict::Conforms,
        // The profile declares everything this case needs, so a refusal now is a broken promise, but an honest one.
        Err(Ended::Refused(why)) => {
            outcome.reason = Some(format!("refuses what it declares: {why}"));
            Verdict::Unsupported
        }
        Err(Ended::Violated(violation)) => {
            let verdict = match violation.kind {
                Kind::Crashed => Verdict::Crashed,
                Kind::TimedOut => Verdict::TimedOut,
                _ => Verdict::Violates,
            };
            outcome.violations.push(*violation);
            verdict
        }
    };
    outcome
}
