//! What a group-lasso trial found, told in terms of the family.

use crate::grouplasso::case::Case;
use crate::grouplasso::decoy::decoys;
use crate::grouplasso::judge::Kind;
use crate::grouplasso::subject::{Feature, Profile, Subject};
use crate::grouplasso::trial::{Outcome, Prepared, examine, shrink};
use crate::report::{Entry, Failure, Measure, Report, SHRINK_BUDGET, SHRINK_TIME, Verdict, in_turn};
use std::fmt::Write;
use std::time::Instant;

/// What is measured: how near answers came to their limits.
pub(crate) const MEASURES: [Measure; 2] = [
    Measure { heading: "error/bound", key: "error_over_bound" },
    Measure { heading: "gap/asked", key: "gap_over_asked" },
];

/// Holds a trial: puts every case to the subject and returns what was found. `on_case` is called as each is done.
///
/// ```
/// use tilewright_conformance::grouplasso::suite::{Suite, cases};
/// use tilewright_conformance::grouplasso::{Profile, in_process::InProcess, report};
/// use tilewright_grouplasso::reference::Reference;
///
/// let mut subject = InProcess::sequential(Reference, Profile::new("reference", ""));
/// let few: Vec<_> = cases(Suite::Quick, 0).into_iter().step_by(40).collect();
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

/// Expands to one `#[test]` an operation, each of which puts the quick suite to a subject.
///
/// ```
/// tilewright_conformance::grouplasso_tests! {
///     tilewright_conformance::grouplasso::in_process::InProcess::sequential(
///         tilewright_grouplasso::reference::Reference,
///         tilewright_conformance::grouplasso::Profile::new("reference", ""),
///     )
/// }
/// ```
#[macro_export]
macro_rules! grouplasso_tests {
    ($subject:expr) => {
        $crate::grouplasso_tests! { @column $subject, grouplasso_prox, Prox }
        $crate::grouplasso_tests! { @column $subject, grouplasso_select, Select }
        $crate::grouplasso_tests! { @column $subject, grouplasso_solve, Solve }
    };
    (@column $subject:expr, $name:ident, $column:ident) => {
        #[test]
        fn $name() {
            let mut cases = $crate::grouplasso::suite::cases($crate::grouplasso::suite::Suite::Quick, 0);
            cases.retain(|case| case.column() == $crate::grouplasso::Column::$column);
            let mut subject = $subject;
            let report =
                $crate::grouplasso::report::hold_trial(&mut subject, &cases, || ()).expect("a suite's cases are sound");
            // An operation that the profile does not list is not on trial.
            let profile = $crate::grouplasso::Subject::profile(&subject);
            let lists = profile.columns.contains(&$crate::grouplasso::Column::$column);
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
        "promise: the same inputs give the same bits, on any number of threads"
    } else {
        "promise: none that the same inputs give the same bits"
    };
    Report {
        heading: "operation",
        columns: profile.columns.iter().map(|column| column.name()).collect(),
        required: required.collect(),
        features: features.iter().map(|feature| feature.name()).collect(),
        measures: MEASURES.to_vec(),
        promise: promise.into(),
        ..Report::new("grouplasso", &profile.name, &profile.version)
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
        missing: outcome.missing.clone(),
        elements: outcome.elements,
        measures: vec![outcome.error, outcome.gap],
    });
    if let (Verdict::Violates | Verdict::Crashed | Verdict::TimedOut, Some(violation)) =
        (outcome.verdict, outcome.violations.first())
    {
        let id = prepared.case.to_string();
        let failure = Failure {
            case: id.clone(),
            shrunk: id,
            kind: violation.kind.name(),
            ratio: violation.ratio,
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
            let _ = writeln!(text, "  nearest  decoy \"{name}\"");
        }
        None => text.push_str("  nearest  no decoy gives this answer\n"),
    }
    Failure { shrunk: shrunk.to_string(), hint, text, ..failure }
}

/// The decoy that gives the wrong answer.
pub fn hint(prepared: &Prepared, outcome: &Outcome) -> Option<&'static str> {
    let exhibit = outcome.exhibit.as_ref()?;
    prepared
        .with_moment(|moment| decoys().find(|decoy| decoy.explains(moment, exhibit)).map(|decoy| decoy.name))
        .flatten()
}
