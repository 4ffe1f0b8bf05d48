//! A trial: a subject, a case, and a verdict.

use crate::grouplasso::case::{Case, SolveCase, Task};
use crate::grouplasso::decoy::{Moment, ProxMoment, SelectMoment, SolveMoment, decoys};
use crate::grouplasso::generate::{instance, path, prox_inputs, select_inputs};
use crate::grouplasso::hearing::{Ended, Hearing, MOST_ITERATIONS};
use crate::grouplasso::judge::{Kind, Oracle, Trial, Violation, prox_limits};
use crate::grouplasso::laws;
pub use crate::grouplasso::shrink::shrink;
use crate::grouplasso::spoil::{Spoilt, spoilt};
use crate::grouplasso::subject::{Feature, Instance, Subject};
use crate::report::UNDECLARED;
pub use crate::report::Verdict;
use ndarray::Array2;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    GroupLassoSolver, GroupLassoSpec, Keep, Layout, Problem, Start, Stopping, bound, prox, select,
};
use tilewright_scalar::Format;

/// A case, ready to be put to any subject.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The case.
    pub case: Case,
    /// What it asks of a subject.
    pub features: BTreeSet<Feature>,
    /// The decoys it rejects: what it is evidence against.
    pub evidence: Vec<Evidence>,
    pub(crate) ready: Ready,
}

/// A case's inputs, and what is known of right answers.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    Prox(Box<ReadyProx>),
    Select(ReadySelect),
    Solve(Box<ReadySolve>),
    Refuse(Spoilt),
}

#[derive(Clone, Debug)]
pub(crate) struct ReadyProx {
    pub(crate) spec: GroupLassoSpec,
    pub(crate) layout: Layout,
    pub(crate) step: f64,
    pub(crate) w: Array2<f64>,
    pub(crate) limits: bound::ProxBound,
}

#[derive(Clone, Debug)]
pub(crate) struct ReadySelect {
    pub(crate) w: Array2<f64>,
    /// Good scores, none of them NaN.
    pub(crate) scores: Vec<f64>,
    pub(crate) keep: Keep,
}

#[derive(Clone, Debug)]
pub(crate) struct ReadySolve {
    pub(crate) case: SolveCase,
    pub(crate) instance: Instance,
    pub(crate) oracle: Option<Oracle>,
    /// The λs of a path.
    pub(crate) lambdas: Vec<f64>,
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
    /// Generates a case's inputs, solves it, and tries its decoys.
    ///
    /// # Errors
    /// A line of text if the case's options cannot go together.
    pub fn new(case: &Case) -> Result<Self, String> {
        let ready = ready(case).map_err(|error| format!("case {case}: {error}"))?;
        let features = case.features().into_iter().collect();
        let mut prepared = Self { case: case.clone(), features, evidence: Vec::new(), ready };
        prepared.evidence = prepared.rejected();
        Ok(prepared)
    }

    fn rejected(&self) -> Vec<Evidence> {
        if let Case::Refuse(_) = self.case {
            return vec![Evidence { decoy: "answered all the same", feature: Some(Feature::Refusal) }];
        }
        let applies = |feature: Option<Feature>| feature.is_none_or(|feature| self.features.contains(&feature));
        self.with_moment(|moment| {
            let list = decoys().filter(|decoy| applies(decoy.feature) && decoy.is_rejected(moment));
            list.map(|decoy| Evidence { decoy: decoy.name, feature: decoy.feature }).collect()
        })
        .unwrap_or_default()
    }

    /// What `job` makes of the case's right answer, if there is one.
    pub(crate) fn with_moment<T>(&self, job: impl FnOnce(&Moment<'_>) -> T) -> Option<T> {
        let format = self.case.format();
        match &self.ready {
            Ready::Prox(ready) => {
                let ReadyProx { spec, layout, step, w, limits } = &**ready;
                Some(job(&Moment::Prox(ProxMoment { spec, layout, step: *step, format, w: w.view(), limits })))
            }
            Ready::Select(ReadySelect { w, scores, keep }) => {
                Some(job(&Moment::Select(SelectMoment { format, w: w.view(), scores, keep: *keep })))
            }
            Ready::Solve(ready) => {
                let (problem, oracle) = (ready.instance.problem().ok()?, ready.oracle.as_ref()?);
                let trial = ready.trial(&problem);
                Some(job(&Moment::Solve(SolveMoment { instance: &ready.instance, trial: &trial, oracle })))
            }
            Ready::Refuse(_) => None,
        }
    }

    /// Whether a right answer to this case is evidence for a feature: one of its decoys is rejected, or, for a feature
    /// without any of its own, some decoy is.
    pub fn testifies_for(&self, feature: Feature) -> bool {
        let column = self.case.column();
        let own =
            decoys().any(|decoy| decoy.column() == column && decoy.is_about(feature)) || feature == Feature::Refusal;
        self.features.contains(&feature) && self.evidence.iter().any(|e| !own || e.feature == Some(feature))
    }
}

impl ReadySolve {
    /// How the case's own answer is judged.
    pub(crate) fn trial<'a>(&'a self, problem: &'a Problem<'a, f64>) -> Trial<'a> {
        Trial { problem, gap: self.case.gap, excuses: self.case.excuses(), oracle: self.oracle.as_ref() }
    }
}

fn ready(case: &Case) -> Result<Ready, String> {
    match case {
        Case::Prox(case) => {
            let (spec, w) = prox_inputs(case)?;
            let layout = prox::check(&spec, case.step, w.nrows()).map_err(|error| error.to_string())?;
            let limits = prox_limits(&spec, case.step, case.format, w.view())?;
            Ok(Ready::Prox(Box::new(ReadyProx { spec, layout, step: case.step, w, limits })))
        }
        Case::Select(case) => {
            let w = select_inputs(case);
            let accum = if case.format == Format::F64 { Format::F64 } else { Format::F32 };
            let score = |s: f64| if s.is_nan() { 0.0 } else { accum.round(s) };
            let scores = select::scores(w.view()).into_iter().map(score).collect();
            Ok(Ready::Select(ReadySelect { w, scores, keep: case.keep }))
        }
        Case::Solve(case) => ready_solve(case).map(|ready| Ready::Solve(Box::new(ready))),
        Case::Refuse(case) => spoilt(case).map(Ready::Refuse),
    }
}

fn ready_solve(case: &SolveCase) -> Result<ReadySolve, String> {
    let instance = instance(case)?;
    let problem = instance.problem().map_err(|error| error.to_string())?;
    // Where there is no minimum, more effort is more of the same.
    let iterations = if case.may_have_no_minimum() { 200 } else { MOST_ITERATIONS };
    let stopping = Stopping { gap: (0.3 * case.gap).max(1e-13), iterations };
    let watch = &mut |_: &_| ControlFlow::Continue(());
    let answer = Reference.solve(&instance.spec, &instance.data(), &stopping, None, watch);
    let Start { w, b } = answer.map_err(|error| error.to_string())?.start();
    let oracle = Oracle::new(&problem, w, b);
    let lambdas = match case.task {
        Task::Path(points) => path(instance.spec.lambda, points),
        Task::Cut(_) => path(instance.spec.lambda, 4),
        _ => Vec::new(),
    };
    Ok(ReadySolve { case: case.clone(), oracle, lambdas, instance })
}

/// A wrong answer: what a hint is looked for in.
#[derive(Clone, Debug)]
pub enum Exhibit {
    /// A matrix.
    Prox(Array2<f64>),
    /// Scores.
    Scores(Vec<f64>),
    /// A selection.
    Selection(Vec<usize>),
    /// A solution.
    Solution(Start),
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
    /// The greatest error over its bound.
    pub error: f64,
    /// The greatest gap over the one asked for.
    pub gap: f64,
    /// What was left out of answers.
    pub missing: Vec<&'static str>,
    /// The first wrong answer.
    pub exhibit: Option<Exhibit>,
}

/// Whether a subject's profile covers a case; if not, what it lacks.
pub fn lacks(subject: &dyn Subject, case: &Case) -> Option<String> {
    let profile = subject.profile();
    if !profile.columns.contains(&case.column()) {
        return Some(format!("operation {}", case.column().name()));
    }
    case.features().into_iter().find(|feature| !profile.supports.contains(feature)).map(|f| f.name().into())
}

/// Puts one case to a subject.
pub fn examine(subject: &mut dyn Subject, prepared: &Prepared) -> Outcome {
    let mut outcome = Outcome {
        verdict: Verdict::Conforms,
        violations: Vec::new(),
        reason: None,
        elements: 0,
        error: 0.0,
        gap: 0.0,
        missing: Vec::new(),
        exhibit: None,
    };
    if let Some(what) = lacks(subject, &prepared.case) {
        outcome.verdict = Verdict::Unsupported;
        outcome.reason = Some(format!("{UNDECLARED} {what}"));
        return outcome;
    }
    let mut hearing = Hearing::new(subject, prepared);
    let ended = match &prepared.ready {
        Ready::Prox(ready) => laws::prox::examine(&mut hearing, ready),
        Ready::Select(ready) => laws::select::examine(&mut hearing, ready),
        Ready::Solve(ready) => laws::solve::examine(&mut hearing, ready),
        Ready::Refuse(spoilt) => laws::refuse(&mut hearing, spoilt),
    };
    outcome.elements = hearing.elements;
    (outcome.error, outcome.gap) = (hearing.error, hearing.gap);
    (outcome.exhibit, outcome.missing) = (hearing.exhibit, hearing.missing);
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
