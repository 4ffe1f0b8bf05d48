//! What a trial found, counted and printed.

use crate::attention::case::Case;
use crate::attention::decoy;
use crate::attention::judge::{Kind, error};
use crate::attention::trial::{Outcome, Prepared, Verdict, examine, shrink};
use crate::subject::{Feature, Profile, Subject};
use comfy_table::{ContentArrangement, Table, presets};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};
use tilewright_scalar::Format;

/// One failed case, made small and explained.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The case as it was met.
    pub case: String,
    /// The smallest case found that still fails.
    pub shrunk: String,
    /// The gravest kind of violation.
    pub kind: Kind,
    /// Its error over limit.
    pub ratio: f64,
    /// The nearest decoy, if one is near.
    pub hint: Option<&'static str>,
    /// The whole story, several lines.
    pub text: String,
}

/// Everything a trial found about one subject.
#[derive(Clone, Debug)]
pub struct Report {
    /// The subject.
    pub profile: Profile,
    /// Cases by format and verdict.
    pub verdicts: BTreeMap<(&'static str, Verdict), usize>,
    /// Conforming cases that are evidence for a feature, by format.
    pub evidence: BTreeMap<(Feature, &'static str), usize>,
    /// Why cases were unsupported, and how many.
    pub unsupported: BTreeMap<String, usize>,
    /// Outputs left out, and how often.
    pub missing: BTreeMap<&'static str, usize>,
    /// Largest error over certain bound, by format.
    pub bound_ratio: BTreeMap<&'static str, f64>,
    /// Largest error over statistical limit, by format.
    pub spread_ratio: BTreeMap<&'static str, f64>,
    /// Elements judged.
    pub elements: u64,
    /// Failures; only the first of them are shrunk and explained.
    pub failures: Vec<Failure>,
    /// Failures beyond those explained.
    pub more_failures: usize,
    /// How the subject was named on the command line: what a reproducer line needs.
    pub invocation: String,
}

/// Cases prepared at a time: enough to keep every core busy, few enough for memory.
const CHUNK: usize = 32;

/// Holds a trial: puts every case to the subject and returns what was found. `on_case` is called as each is done.
///
/// ```
/// use tilewright_conformance::attention::in_process::InProcess;
/// use tilewright_conformance::attention::suite::{Suite, cases};
/// use tilewright_conformance::{Profile, report};
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
    let mut report = Report::new(&profile);
    for chunk in cases.chunks(CHUNK) {
        let ready: Vec<Prepared> = chunk
            .par_iter()
            .map(|case| Prepared::new(case, &profile.contract(case.format), profile.backward))
            .collect::<Result<_, _>>()?;
        for prepared in &ready {
            let outcome = examine(subject, prepared);
            report.add(subject, prepared, &outcome);
            on_case();
        }
    }
    Ok(report)
}

/// Expands to one `#[test]` a storage format, each of which puts the quick suite to a subject.
///
/// ```
/// tilewright_conformance::attention_tests! {
///     tilewright_conformance::attention::in_process::InProcess::new(
///         tilewright_cpu::CpuAttention::default(),
///         tilewright_conformance::Profile::new("cpu", "", &tilewright_conformance::attention::suite::FORMATS),
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
            let report = $crate::report::hold_trial(&mut subject, &cases, || ()).expect("a suite's cases are sound");
            // A format that the profile does not list is not on trial.
            let lists = $crate::Subject::profile(&subject).formats.contains(&$crate::Format::$format);
            assert!(report.passes() || !lists, "{}", report.to_text());
        }
    };
}

/// Failures that are shrunk and explained; the others are counted.
const EXPLAINED: usize = 8;

impl Report {
    /// An empty report.
    pub fn new(profile: &Profile) -> Self {
        Self {
            profile: profile.clone(),
            verdicts: BTreeMap::new(),
            evidence: BTreeMap::new(),
            unsupported: BTreeMap::new(),
            missing: BTreeMap::new(),
            bound_ratio: BTreeMap::new(),
            spread_ratio: BTreeMap::new(),
            elements: 0,
            failures: Vec::new(),
            more_failures: 0,
            invocation: String::new(),
        }
    }

    /// Counts one outcome; a failure is shrunk and explained, with the subject's help.
    pub fn add(&mut self, subject: &mut dyn Subject, prepared: &Prepared, outcome: &Outcome) {
        let format = prepared.case.format.name;
        *self.verdicts.entry((format, outcome.verdict)).or_default() += 1;
        self.elements += outcome.judgement.elements;
        for name in &outcome.missing {
            *self.missing.entry(name).or_default() += 1;
        }
        let largest = |map: &mut BTreeMap<&'static str, f64>, x: f64| {
            let entry = map.entry(format).or_default();
            *entry = entry.max(x);
        };
        largest(&mut self.bound_ratio, outcome.judgement.bound_ratio);
        largest(&mut self.spread_ratio, outcome.judgement.spread_ratio);
        match outcome.verdict {
            Verdict::Conforms => {
                let testifies = |feature: &Feature| prepared.testifies_for(*feature, &outcome.missing);
                for feature in Feature::ALL.into_iter().filter(testifies) {
                    *self.evidence.entry((feature, format)).or_default() += 1;
                }
            }
            Verdict::Unsupported => {
                *self.unsupported.entry(outcome.reason.clone().unwrap_or_default()).or_default() += 1;
            }
            Verdict::Vacuous => {}
            _ if self.failures.len() < EXPLAINED => self.failures.push(explain(subject, prepared, outcome)),
            _ => {
                self.more_failures += 1;
                self.failures.push(unexplained(prepared, outcome));
            }
        }
    }

    /// How many cases got a verdict, over all formats.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.verdicts.iter().filter(|((_, v), _)| *v == verdict).map(|(_, n)| n).sum()
    }

    /// Declared features that no conforming case testifies for, with their formats.
    pub fn without_evidence(&self) -> Vec<(Feature, &'static str)> {
        let formats: Vec<Format> = self.profile.formats.clone();
        self.profile
            .supports
            .iter()
            .flat_map(|feature| formats.iter().map(move |format| (*feature, format.name)))
            .filter(|(feature, _)| self.profile.backward || *feature != Feature::LseGradient)
            .filter(|key| !self.evidence.contains_key(key))
            .collect()
    }

    /// Whether nothing is wrong. A suite may be too short to give evidence for everything; that is the caller's to say.
    pub fn passes(&self) -> bool {
        [Verdict::Violates, Verdict::Crashed, Verdict::TimedOut].iter().all(|verdict| self.count(*verdict) == 0)
            && self.count(Verdict::Conforms) > 0
    }

    /// The subject's line of the JSON report.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.profile.name,
            "family": "attention",
            "conforms": self.count(Verdict::Conforms),
            "violates": self.count(Verdict::Violates),
            "vacuous": self.count(Verdict::Vacuous),
            "unsupported": self.count(Verdict::Unsupported),
            "crashed": self.count(Verdict::Crashed),
            "timed_out": self.count(Verdict::TimedOut),
            "elements": self.elements,
            "missing_outputs": self.missing,
            "unsupported_reasons": self.unsupported,
        })
    }

    /// The violations of the JSON report.
    pub fn violations_json(&self) -> Vec<Value> {
        let ratio = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        self.failures
            .iter()
            .map(|f| {
                json!({"case": f.case, "shrunk": f.shrunk, "kind": f.kind.name(), "ratio": ratio(f.ratio), "hint": f.hint})
            })
            .collect()
    }

    /// The tables, for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{} {}\n", self.profile.name, self.profile.version);
        let formats: Vec<&str> = self.profile.formats.iter().map(|format| format.name).collect();
        let mut table = new_table();
        let heads = [
            "format",
            "conforms",
            "violates",
            "vacuous",
            "unsupported",
            "crashed",
            "timed out",
            "error/bound",
            "error/spread",
        ];
        table.set_header(heads);
        for format in &formats {
            let n = |verdict| self.verdicts.get(&(*format, verdict)).copied().unwrap_or(0).to_string();
            let ratio = |map: &BTreeMap<&'static str, f64>| format!("{:.3}", map.get(format).copied().unwrap_or(0.0));
            table.add_row([
                (*format).to_string(),
                n(Verdict::Conforms),
                n(Verdict::Violates),
                n(Verdict::Vacuous),
                n(Verdict::Unsupported),
                n(Verdict::Crashed),
                n(Verdict::TimedOut),
                ratio(&self.bound_ratio),
                ratio(&self.spread_ratio),
            ]);
        }
        let _ = writeln!(text, "{table}");
        let mut table = new_table();
        table.set_header(
            std::iter::once("conforming cases that would have shown a fault").chain(formats.iter().copied()),
        );
        for feature in Feature::ALL.into_iter().filter(|feature| self.profile.supports.contains(feature)) {
            let n = |format: &&'static str| self.evidence.get(&(feature, *format)).copied().unwrap_or(0).to_string();
            let formats: Vec<&'static str> = self.profile.formats.iter().map(|format| format.name).collect();
            table.add_row(std::iter::once(feature.name().to_string()).chain(formats.iter().map(n)));
        }
        let _ = writeln!(text, "{table}");
        for (why, n) in &self.unsupported {
            let _ = writeln!(text, "unsupported: {n} × {why}");
        }
        for (name, n) in &self.missing {
            let _ = writeln!(text, "output {name} left out in {n} cases and not judged there");
        }
        let _ = writeln!(text, "contract{}", contract_lines(&self.profile));
        for failure in self.failures.iter().filter(|failure| !failure.text.is_empty()) {
            let _ = write!(text, "\n{}", failure.text);
            let separator = if self.invocation.is_empty() { "" } else { " " };
            let _ = writeln!(text, "  repro    assay run{separator}{} --case '{}'", self.invocation, failure.shrunk);
        }
        if self.more_failures > 0 {
            let _ = writeln!(text, "\n… and {} more failing cases", self.more_failures);
        }
        text
    }
}

/// A table that looks like all of ours.
pub fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table
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

/// Cases tried while shrinking.
const SHRINK_BUDGET: usize = 200;
/// How long shrinking may go on: a program that takes seconds to start, or hangs on some candidates, takes them each time.
const SHRINK_TIME: Duration = Duration::from_secs(20);

/// A failure as it is, for the list of all of them.
fn unexplained(prepared: &Prepared, outcome: &Outcome) -> Failure {
    let worst = outcome.judgement.violations.first();
    Failure {
        case: prepared.case.to_string(),
        shrunk: prepared.case.to_string(),
        kind: worst.map_or(Kind::Failed, |violation| violation.kind),
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
        kind,
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
