//! What an attention trial found, told in terms of the family.

use crate::attention::case::Case;
use crate::attention::decoy;
use crate::attention::judge::{Kind, error};
use crate::attention::trial::{Outcome, Prepared, examine, shrink};
use crate::attention::{Feature, Profile, Subject};
use crate::report::{Entry, Failure, Measure, Report, SHRINK_BUDGET, SHRINK_TIME, Verdict, in_turn};
use std::fmt::Write;
use std::time::Instant;

/// How near a trial's answers come to their limits.
pub const MEASURES: [Measure; 2] =
    [Measure { heading: "error/bound", key: "bound_ratio" }, Measure { heading: "error/spread", key: "spread_ratio" }];

/// Holds a trial: puts every case to the subject and returns what was found. `on_case` is called as each is done.
///
/// ```
/// use tilewright_conformance::attention::in_process::InProcess;
/// use tilewright_conformance::attention::suite::{Suite, cases};
/// use tilewright_conformance::attention::{Profile, report};
/// use tilewright_cpu::CpuAttention;
/// use tilewright_scalar::Format;
///
/// let mut subject = InProcess::new(CpuAttention::default(), Profile::new("cpu", "", &[Format::F32]));
/// let few: Vec<_> = cases(Suite::Quick, 0).into_iter().filter(|case| case.format == Format::F32).take(9).collect();
/// assert!(report::hold_trial(&mut subject, &few, || ())?.passes());
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A line of text if a case cannot be generated.
pub fn hold_trial(subject: &mut dyn Subject, cases: &[Case], mut on_case: impl FnMut()) -> Result<Report, String> {
    let profile = subject.profile().clone();
    let mut report = empty(&profile);
    let prepare = |case: &Case| Prepared::new(case, &profile.contract(case.format), profile.backward);
    in_turn(cases, prepare, |prepared| {
        let outcome = examine(subject, prepared);
        add(&mut report, subject, prepared, &outcome);
        on_case();
    })?;
    Ok(report)
}

/// Expands to one `#[test]` a storage format, each of which puts the quick suite to a subject.
///
/// ```
/// tilewright_conformance::attention_tests! {
///     tilewright_conformance::attention::in_process::InProcess::new(
///         tilewright_cpu::CpuAttention::default(),
///         tilewright_conformance::attention::Profile::new("cpu", "", &tilewright_conformance::attention::suite::FORMATS),
///     )
/// }
/// ```
#[macro_export]
macro_rules! attention_tests {
    ($subject:expr) => {
        $crate::attention_tests! { @format $subject, attention_f32, F32 }
        $crate::attention_tests! { @format $subject, attention_f64, F64 }
        $crate::attention_tests! { @format $subject, attention_f16, F16 }
        $crate::attention_tests! { @format $subject, attention_bf16, BF16 }
    };
    (@format $subject:expr, $name:ident, $format:ident) => {
        #[test]
        fn $name() {
            let mut cases = $crate::attention::suite::cases($crate::attention::suite::Suite::Quick, 0);
            cases.retain(|case| case.format == $crate::Format::$format);
            let mut subject = $subject;
            let report =
                $crate::attention::report::hold_trial(&mut subject, &cases, || ()).expect("a suite's cases are sound");
            // A format that the profile does not list is not on trial.
            let lists = $crate::attention::Subject::profile(&subject).formats.contains(&$crate::Format::$format);
            assert!(report.passes() || !lists, "{}", report.to_text());
        }
    };
}

/// A report in which nothing is counted yet.
fn empty(profile: &Profile) -> Report {
    let formats: Vec<&'static str> = profile.formats.iter().map(|format| format.name).collect();
    let features: Vec<Feature> = Feature::ALL.into_iter().filter(|f| profile.supports.contains(f)).collect();
    let needed = features.iter().filter(|feature| profile.backward || **feature != Feature::LseGradient);
    let required = needed.flat_map(|feature| formats.iter().map(|format| (feature.name(), *format))).collect();
    Report {
        heading: "format",
        features: features.iter().map(|feature| feature.name()).collect(),
        required,
        columns: formats,
        measures: MEASURES.to_vec(),
        promise: format!("contract{}", contract_lines(profile)),
        ..Report::new("attention", &profile.name, &profile.version)
    }
}

/// Counts one outcome; a failure is shrunk and explained, with the subject's help.
fn add(report: &mut Report, subject: &mut dyn Subject, prepared: &Prepared, outcome: &Outcome) {
    let testifies = |feature: &Feature| prepared.testifies_for(*feature, &outcome.missing);
    report.count_in(&Entry {
        column: prepared.case.format.name,
        verdict: outcome.verdict,
        reason: outcome.reason.clone(),
        evidence: Feature::ALL.into_iter().filter(testifies).map(Feature::name).collect(),
        missing: outcome.missing.clone(),
        elements: outcome.judgement.elements,
        measures: vec![outcome.judgement.bound_ratio, outcome.judgement.spread_ratio],
    });
    if matches!(outcome.verdict, Verdict::Violates | Verdict::Crashed | Verdict::TimedOut) {
        let explained = report.explains_more();
        report.failures.push(if explained {
            explain(subject, prepared, outcome)
        } else {
            unexplained(prepared, outcome)
        });
    }
}

/// The promise the limits were derived from, format by format: strict, or what was declared beyond it.
fn contract_lines(profile: &Profile) -> String {
    profile.formats.iter().fold(String::new(), |mut text, format| {
        let c = profile.contract(*format);
        let _ = write!(
            text,
            "\n  {:5} accumulates in {}{}, S in {}, P in {}{}, dS in {}, O and gradients between tiles of {} in {} and {}, LSE in {}, exp within {} u{}",
            format.name,
            c.accum.name,
            if c.truncates { " (truncating)" } else { "" },
            c.scores.name,
            c.probabilities.name,
            if c.sums_rounded_probabilities { " (and sums it so)" } else { "" },
            c.score_gradients.name,
            c.tile,
            c.output_accum.name,
            c.gradient_accum.name,
            c.lse.name,
            c.exp_error,
            if c.flushes_subnormals { ", subnormals may count as 0" } else { "" }
        );
        text
    })
}

/// A failure as it is, for the list of all of them.
fn unexplained(prepared: &Prepared, outcome: &Outcome) -> Failure {
    let worst = outcome.judgement.violations.first();
    Failure {
        case: prepared.case.to_string(),
        shrunk: prepared.case.to_string(),
        kind: worst.map_or(Kind::Failed, |violation| violation.kind).name(),
        ratio: worst.map_or(f64::INFINITY, |violation| violation.ratio),
        hint: None,
        text: String::new(),
    }
}

fn explain(subject: &mut dyn Subject, prepared: &Prepared, outcome: &Outcome) -> Failure {
    let case = &prepared.case;
    let kind = outcome.judgement.violations.first().map_or(Kind::Failed, |violation| violation.kind);
    // A process that hangs costs its whole time limit at every try.
    let budget = if kind == Kind::TimedOut { 0 } else { SHRINK_BUDGET };
    let contract = prepared.contract;
    let retry = |candidate: &Case, subject: &mut dyn Subject| {
        let prepared = Prepared::new(candidate, &contract, prepared.backward).ok()?;
        let outcome = examine(subject, &prepared);
        Some((prepared, outcome)).filter(|(_, o)| !o.judgement.violations.is_empty())
    };
    let deadline = Instant::now() + SHRINK_TIME;
    let shrunk = shrink(case, |candidate| Instant::now() < deadline && retry(candidate, subject).is_some(), budget);
    let small = if budget == 0 { None } else { retry(&shrunk, subject) };
    let (small_prepared, small_outcome) = small.as_ref().map_or((prepared, outcome), |(p, o)| (p, o));
    // The larger case has more elements for a direction to show in.
    let near = |prepared: &Prepared, outcome: &Outcome| {
        let answer = outcome.answer.as_ref()?;
        decoy::nearest(&prepared.problem, &prepared.truth, answer, prepared.backward)
    };
    let hint = near(prepared, outcome).or_else(|| near(small_prepared, small_outcome));
    let worst = outcome.judgement.violations.first();
    Failure {
        case: case.to_string(),
        shrunk: shrunk.to_string(),
        kind: kind.name(),
        ratio: worst.map_or(f64::INFINITY, |violation| violation.ratio),
        hint: hint.map(|(name, _)| name),
        text: story(prepared, outcome, small_prepared, small_outcome, hint),
    }
}

fn story(
    prepared: &Prepared,
    outcome: &Outcome,
    small: &Prepared,
    small_outcome: &Outcome,
    hint: Option<(&'static str, f64)>,
) -> String {
    let mut text = format!("VIOLATES  {}\n", prepared.case);
    for violation in outcome.judgement.violations.iter().take(4) {
        let _ = writeln!(text, "  worst    {violation}");
    }
    if small.case != prepared.case {
        let _ = writeln!(text, "  shrunk   {}", small.case);
        if let Some(violation) = small_outcome.judgement.violations.first() {
            let _ = writeln!(text, "           {violation}");
        }
    }
    if let Some(answer) = &outcome.answer {
        for (name, truth) in &prepared.truth {
            let Some(tensor) = answer.get(*name).filter(|tensor| tensor.shape() == truth.shape) else { continue };
            let ratios: Vec<f64> = tensor
                .to_f64()
                .iter()
                .enumerate()
                .map(|(n, x)| match error(*x, truth.value[n]) / truth.worst[n] {
                    _ if *x == truth.value[n].hi() => 0.0,
                    ratio if ratio.is_nan() => f64::INFINITY,
                    ratio => ratio,
                })
                .collect();
            let bad = ratios.iter().filter(|ratio| **ratio > 1.0).count();
            let largest = ratios.iter().fold(0.0f64, |a, b| a.max(*b));
            let state = if bad == 0 { "conforms" } else { "VIOLATES" };
            let _ = write!(
                text,
                "  {name:<8} {state}, error/bound {largest:.3}, {bad} of {} elements beyond",
                ratios.len()
            );
            let _ = writeln!(text, "{}", tile_map(&truth.shape, &ratios, bad > 0));
        }
    }
    match hint {
        Some((name, cosine)) => {
            let _ = writeln!(text, "  nearest  decoy \"{name}\" (cosine {cosine:.3})");
        }
        None => text.push_str("  nearest  no decoy points the same way\n"),
    }
    let _ = writeln!(
        text,
        "  inputs unchanged, nothing written outside the outputs: {}",
        kinds_absent(outcome, Kind::Misbehaved)
    );
    text
}

fn kinds_absent(outcome: &Outcome, kind: Kind) -> &'static str {
    if outcome.judgement.violations.iter().any(|violation| violation.kind == kind) { "no" } else { "yes" }
}

/// Largest error over bound in each tile of 16 rows, over all heads: where along the sequence a fault sits.
fn tile_map(shape: &[usize], ratios: &[f64], wanted: bool) -> String {
    let (rows, dim) = match shape {
        [_, _, rows, dim] => (*rows, *dim),
        [_, _, rows] => (*rows, 1),
        _ => return String::new(),
    };
    if !wanted || rows == 0 || dim == 0 {
        return String::new();
    }
    let mut tiles = vec![0.0f64; rows.div_ceil(16)];
    for (n, ratio) in ratios.iter().enumerate() {
        let tile = &mut tiles[n / dim % rows / 16];
        *tile = tile.max(*ratio);
    }
    let shown: Vec<String> = tiles.iter().take(12).map(|ratio| format!("{ratio:.1}")).collect();
    let more = if tiles.len() > 12 { " …" } else { "" };
    format!("; by 16 rows [{}{more}]", shown.join(" "))
}
