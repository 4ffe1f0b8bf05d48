//! What strangers may write about the group lasso — ids, problems, files, profiles, answers — is read or refused, in one line.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tilewright_conformance::grouplasso::case::Case;
use tilewright_conformance::grouplasso::file::{self, Entries, Entry};
use tilewright_conformance::grouplasso::generate::{instance, prox_inputs};
use tilewright_conformance::grouplasso::judge::Kind;
use tilewright_conformance::grouplasso::process::{Process, parse_profile};
use tilewright_conformance::grouplasso::report::hold_trial;
use tilewright_conformance::grouplasso::suite::{Suite, any_case, cases};
use tilewright_conformance::grouplasso::trial::{Outcome, Prepared, examine};
use tilewright_conformance::grouplasso::wire::{from_json, to_json};
use tilewright_conformance::grouplasso::{Column, Subject};
use tilewright_conformance::{Format, SubjectError, Verdict};

const PATIENCE: Duration = Duration::from_secs(60);
const SMALL: &str = "grouplasso/solve/f32/n12d6c2/ls/ragged/gl/lambda@0.3/gap=1e-4+intercept/once/gaussian/7f3a";

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() < 1200, "{text:?}");
}

fn some_case() -> impl Strategy<Value = Case> {
    select(Column::ALL.to_vec()).prop_flat_map(any_case)
}

/// The problem of a case, and how many features it is over.
fn problem(case: &Case) -> Option<(tilewright_grouplasso::GroupLassoSpec, usize)> {
    match case {
        Case::Prox(case) => Some((prox_inputs(case).unwrap().0, case.features)),
        Case::Solve(case) => Some((instance(case).unwrap().spec, case.features)),
        _ => None,
    }
}

/// Any JSON, not too deep.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        select(vec!["rows", "ones", "NaN", "inf", "multinomial", "sparse-group", ""]).prop_map(Value::from),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let keys = select(vec!["kind", "sizes", "lists", "tau", "alpha", "centre", "scale", "x"]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys.prop_map(str::to_string), inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn problems_survive_json(case in some_case()) {
        let Some((spec, features)) = problem(&case) else { return Ok(()) };
        let text = to_json(&spec).to_string();
        prop_assert_eq!(from_json(&serde_json::from_str(&text).unwrap(), features), Ok(spec));
    }

    #[test]
    fn damaged_problems_are_read_or_refused(
        case in some_case(),
        edits in vec((select(vec!["loss", "groups", "weights", "penalty", "lambda", "intercept", "standardise", "note"]),
            select(vec!["", "kind", "sizes", "lists", "tau", "alpha", "centre", "scale"]), anything()), 1..4),
    ) {
        let Some((spec, features)) = problem(&case) else { return Ok(()) };
        let mut json = to_json(&spec);
        for (key, inner, value) in edits {
            if inner.is_empty() || !json[key].is_object() { json[key] = value } else { json[key][inner] = value }
        }
        match from_json(&json, features) {
            Ok(spec) => prop_assert_eq!(spec.validate(features), Ok(())),
            Err(error) => one_line(&error.to_string()),
        }
    }

    #[test]
    fn damaged_ids_are_read_or_refused(case in some_case(), edits in vec((any::<Index>(), any::<char>(), 0u8..3), 1..4)) {
        let mut id: Vec<char> = case.to_string().chars().collect();
        for (at, c, how) in edits {
            let at = at.index(id.len());
            match how {
                0 => id[at] = c,
                1 => id.insert(at, c),
                _ => drop(id.remove(at)),
            }
        }
        match id.into_iter().collect::<String>().parse::<Case>() {
            Ok(case) => prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case)),
            Err(error) => one_line(&error.to_string()),
        }
    }

    #[test]
    fn files_survive_and_damaged_ones_are_refused(
        numbers in vec(any::<f32>(), 12),
        labels in vec(0u32..3, 4),
        edits in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let x = ndarray::Array2::from_shape_vec((4, 3), numbers.into_iter().map(f64::from).collect()).unwrap();
        let entries = Entries::from([
            ("a/x".to_string(), Entry::matrix(Format::F32, x.view()).unwrap()),
            ("a/labels".to_string(), Entry::Counts(labels)),
        ]);
        let problem = json!({"loss": "multinomial", "lambda": 0.1, "classes": 3}).to_string();
        let mut bytes = file::to_bytes(&entries, [("a".to_string(), problem)].into()).unwrap();
        let (read, _) = file::from_bytes(&bytes).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{entries:?}"));
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(problem) = file::from_bytes(&bytes) {
            one_line(&problem.to_string());
        }
        if let Err(problem) = file::cases_from_bytes(&bytes) {
            one_line(&problem.to_string());
        }
    }

    #[test]
    fn profiles_are_read_or_refused(
        edits in vec((select(vec!["name", "family", "operations", "supports", "deterministic"]), anything()), 0..3),
        line in "(?s).{0,200}",
    ) {
        let mut profile = json!({"name": "x", "family": "grouplasso", "operations": ["solve"], "supports": ["rows"]});
        for (key, value) in edits {
            profile[key] = value;
        }
        for line in [profile.to_string(), line] {
            match parse_profile(&line) {
                Ok(profile) => {
                    one_line(&profile.name);
                    prop_assert!(!profile.columns.is_empty());
                }
                Err(error) => one_line(&error),
            }
        }
    }
}

fn echo(fault: &str) -> String {
    let path: PathBuf = [env!("CARGO_BIN_EXE_assay"), "..", "examples", "echo_grouplasso"].iter().collect();
    let path = PathBuf::from(path.to_str().unwrap().replace("assay/../", ""));
    assert!(path.exists(), "build it first: cargo build --example echo_grouplasso");
    format!("'{}' {fault}", path.display())
}

fn start(command: &str) -> Process {
    Process::start(command, PATIENCE).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn verdict(fault: &str, id: &str) -> Outcome {
    examine(&mut start(&echo(fault)), &Prepared::new(&id.parse().unwrap()).unwrap())
}

#[test]
fn an_honest_program_conforms() {
    let mut subject = start(&echo(""));
    assert_eq!((subject.profile().name.as_str(), subject.profile().names_places), ("echo", true));
    let some: Vec<Case> = cases(Suite::Quick, 0).into_iter().step_by(37).collect();
    let report = hold_trial(&mut subject, &some, || ()).unwrap();
    assert!(report.passes() && report.count(Verdict::Unsupported) == 0, "{}", report.to_text());
}

#[test]
fn a_program_is_asked_for_no_more_than_it_declares() {
    let mut subject = start(&echo("select-only"));
    assert_eq!(subject.profile().columns, [Column::Select]);
    let some: Vec<Case> = cases(Suite::Quick, 0).into_iter().step_by(11).collect();
    let report = hold_trial(&mut subject, &some, || ()).unwrap();
    assert!(report.passes() && !report.broken_word(), "{}", report.to_text());
    assert!(report.count(Verdict::Unsupported) > report.count(Verdict::Conforms));
}

#[test]
fn answers_that_are_none() {
    for (fault, verdict_due, kind, words) in [
        ("crash", Verdict::Crashed, Kind::Crashed, "boom: the matrix is gone"),
        ("no-file", Verdict::Violates, Kind::Misbehaved, "outputs.safetensors"),
        ("no-intercept", Verdict::Violates, Kind::Misbehaved, "tensor b: missing"),
        ("flat", Verdict::Violates, Kind::Misbehaved, "tensor w: got shape [2], expected one of 2 axes"),
        ("other-shape", Verdict::Violates, Kind::Shape, "w 1 × 1"),
        ("nonsense", Verdict::Violates, Kind::Misbehaved, "stopped: got \"tired\""),
        ("boasts", Verdict::Violates, Kind::Claim, "relative gap: said 0e0"),
        ("off", Verdict::Violates, Kind::Kkt, "is allowed"),
    ] {
        let outcome = verdict(fault, SMALL);
        let worst = outcome.violations.first().unwrap_or_else(|| panic!("{fault}: {:?}", outcome.reason));
        assert_eq!((outcome.verdict, worst.kind), (verdict_due, kind), "{fault}: {worst}");
        assert!(worst.to_string().contains(words), "{fault}: {worst}");
        one_line(&worst.to_string());
    }
    let silent = verdict("silent", SMALL);
    assert_eq!(silent.verdict, Verdict::Conforms, "{:?}", silent.violations);
    assert!(silent.missing.contains(&"relative gap"));
}

#[test]
fn refusals_travel() {
    for flaw in ["nan-in-x", "nan-lambda", "prox-nan-step", "select-fraction-nan", "label-out-of-range"] {
        let outcome = verdict("", &format!("grouplasso/refuse/f64/{flaw}/1"));
        assert_eq!(outcome.verdict, Verdict::Conforms, "{flaw}: {:?}", outcome.violations);
    }
}

#[test]
fn profiles_are_checked_key_by_key() {
    for (profile, message) in [
        (r#"{"name":"x"}"#, "family: got `attention`, expected `grouplasso`"),
        (r#"{"family":"grouplasso"}"#, "name: missing"),
        (r#"{"name":"x","family":"grouplasso","operations":[]}"#, "operations: got []"),
        (r#"{"name":"x","family":"grouplasso","operations":["guess"]}"#, "operations: got `guess`"),
        (r#"{"name":"x","family":"grouplasso","supports":["magic"]}"#, "supports: got `magic`"),
        (r#"{"name":"x","family":"grouplasso","deterministic":1}"#, "deterministic: got 1"),
    ] {
        match Process::start(&format!("printf '%s\\n' '{profile}'; cat"), PATIENCE) {
            Err(SubjectError::Misbehaved(what)) => assert!(what.contains(message), "{profile}: {what}"),
            other => panic!("{profile}: {other:?}"),
        }
    }
}
