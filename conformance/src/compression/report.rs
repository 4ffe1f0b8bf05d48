//! What a compression trial found, told in terms of the family.

use crate::compression::case::Case;
use crate::compression::decoy::DECOYS;
use crate::compression::judge::Kind;
use crate::compression::moment::{Arrival, Moment};
use crate::compression::subject::{Feature, Profile, Subject};
use crate::compression::trial::{Exhibit, Outcome, Prepared, examine, shrink};
use crate::report::{Entry, Failure, Report, SHRINK_BUDGET, SHRINK_TIME, Verdict, in_turn};
use std::fmt::Write;
use std::time::Instant;

/// Holds a trial: puts every case to the subject and returns what was found. `on_case` is called as each is done.
///
/// ```
/// use tilewright_compression::reference::Reference;
/// use tilewright_conformance::compression::suite::{Suite, cases};
/// use tilewright_conformance::compression::{Profile, in_process::InProcess, report};
///
/// let mut subject = InProcess::new(Reference, Profile::new("reference", ""));
/// let few: Vec<_> = cases(Suite::Quick, 0).into_iter().filter(|case| case.len < 1000).take(9).collect();
/// assert!(report::hold_trial(&mut subject, &few, || ())?.passes());
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A line of text if a case cannot be generated.
pub fn hold_trial(subject: &mut dyn Subject, cases: &[Case], mut on_case: impl FnMut()) -> Result<Report, String> {
    let mut report = empty(subject.profile());
    in_turn(cases, Prepared::new, |prepared| {
        let outcome = examine(subject, prepared);
        add(&mut report, subject, prepared, &outcome);
        on_case();
    })?;
    Ok(report)
}

/// Expands to one `#[test]` a selector, each of which puts the quick suite to a subject.
///
/// ```
/// tilewright_conformance::compression_tests! {
///     tilewright_conformance::compression::in_process::InProcess::new(
///         tilewright_compression::reference::Reference,
///         tilewright_conformance::compression::Profile::new("reference", ""),
///     )
/// }
/// ```
#[macro_export]
macro_rules! compression_tests {
    ($subject:expr) => {
        $crate::compression_tests! { @column $subject, compression_top_k, TopK }
        $crate::compression_tests! { @column $subject, compression_sampled, Sampled }
        $crate::compression_tests! { @column $subject, compression_fixed, Fixed }
        $crate::compression_tests! { @column $subject, compression_random_k, RandomK }
    };
    (@column $subject:expr, $name:ident, $column:ident) => {
        #[test]
        fn $name() {
            let mut cases = $crate::compression::suite::cases($crate::compression::suite::Suite::Quick, 0);
            cases.retain(|case| case.column() == $crate::compression::Column::$column);
            let mut subject = $subject;
            let report = $crate::compression::report::hold_trial(&mut subject, &cases, || ())
                .expect("a suite's cases are sound");
            // A selector that the profile does not list is not on trial.
            let profile = $crate::compression::Subject::profile(&subject);
            let lists = profile.columns.contains(&$crate::compression::Column::$column);
            assert!(report.passes() || !lists, "{}", report.to_text());
        }
    };
}

/// A report in which nothing is counted yet.
fn empty(profile: &Profile) -> Report {
    let features: Vec<Feature> = Feature::ALL.into_iter().filter(|f| profile.supports.contains(f)).collect();
    let pairs = features.iter().flat_map(|feature| profile.columns.iter().map(move |column| (*feature, *column)));
    let required = pairs.filter(|(feature, column)| feature.goes_with(*column)).map(|(f, c)| (f.name(), c.name()));
    let promise = if profile.deterministic {
        "promise: the same inputs give the same bits, where any candidate may stay too"
    } else {
        "promise: the same inputs give the same bits, except where any candidate may stay"
    };
    Report {
        heading: "selector",
        columns: profile.columns.iter().map(|column| column.name()).collect(),
        required: required.collect(),
        features: features.iter().map(|feature| feature.name()).collect(),
        promise: promise.into(),
        ..Report::new("compression", &profile.name, &profile.version)
    }
}

/// Counts one outcome; a failure is shrunk and explained, with the subject's help.
fn add(report: &mut Report, subject: &mut dyn Subject, prepared: &Prepared, outcome: &Outcome) {
    let testifies = |feature: &Feature| prepared.testifies_for(*feature);
    report.count_in(&Entry {
        column: prepared.case.column().name(),
        verdict: outcome.verdict,
        reason: outcome.reason.clone(),
        evidence: Feature::ALL.into_iter().filter(testifies).map(Feature::name).collect(),
        missing: Vec::new(),
        elements: outcome.elements,
        measures: Vec::new(),
    });
    if let (Verdict::Violates | Verdict::Crashed | Verdict::TimedOut, Some(violation)) =
        (outcome.verdict, outcome.violations.first())
    {
        let id = prepared.case.to_string();
        let failure = Failure {
            case: id.clone(),
            shrunk: id,
            kind: violation.kind.name(),
            ratio: f64::INFINITY,
            hint: None,
            text: String::new(),
        };
        let explained = report.explains_more();
        report.failures.push(if explained { explain(subject, prepared, outcome, failure) } else { failure });
    }
}

fn explain(subject: &mut dyn Subject, prepared: &Prepared, outcome: &Outcome, failure: Failure) -> Failure {
    // A process that hangs costs its whole time limit at every try.
    let budget = if failure.kind == Kind::TimedOut.name() { 0 } else { SHRINK_BUDGET };
    let deadline = Instant::now() + SHRINK_TIME;
    let mut smallest: Option<Outcome> = None;
    let still_wrong = |candidate: &Case| {
        if Instant::now() >= deadline {
            return false;
        }
        let Ok(candidate) = Prepared::new(candidate) else { return false };
        let outcome = examine(subject, &candidate);
        let wrong = !outcome.violations.is_empty();
        if wrong {
            smallest = Some(outcome);
        }
        wrong
    };
    let shrunk = shrink(&prepared.case, still_wrong, budget);
    let hint = hint(prepared, outcome);
    let mut text = format!("VIOLATES  {}\n", prepared.case);
    for violation in &outcome.violations {
        let _ = writeln!(text, "  worst    {violation}");
    }
    if let Some(violation) = smallest.as_ref().and_then(|outcome| outcome.violations.first()) {
        let _ = writeln!(text, "  shrunk   {shrunk}\n           {violation}");
    }
    match hint {
        Some(name) => {
            let _ = writeln!(text, "  nearest  decoy \"{name}\", to the bit");
        }
        None => text.push_str("  nearest  no decoy gives this answer\n"),
    }
    Failure { shrunk: shrunk.to_string(), hint, text, ..failure }
}

/// The decoy that gives the wrong answer, to the bit.
pub fn hint(prepared: &Prepared, outcome: &Outcome) -> Option<&'static str> {
    match outcome.exhibit.as_ref()? {
        Exhibit::Step { t, rank, before, reply } => {
            let (spec, case) = (&prepared.spec, &prepared.case);
            let moment = Moment::new(spec, case.step(*t), &prepared.gradients[*t][*rank], before.clone()).ok()?;
            DECOYS.iter().find(|decoy| decoy.explains_step(&moment, reply)).map(|decoy| decoy.name)
        }
        Exhibit::Decode { messages, reduction, out } => {
            let arrival = Arrival::new(messages.clone(), *reduction, prepared.case.len).ok()?;
            DECOYS.iter().find(|decoy| decoy.explains_decode(&arrival, out)).map(|decoy| decoy.name)
        }
    }
}
