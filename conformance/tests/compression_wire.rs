//! What strangers may write about compression — ids, problems, files, profiles, answers — is read or refused, in one line.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tilewright_conformance::compression::case::Case;
use tilewright_conformance::compression::file::{self, List, Lists};
use tilewright_conformance::compression::judge::Kind;
use tilewright_conformance::compression::process::{Process, parse_profile};
use tilewright_conformance::compression::report::{hint, hold_trial};
use tilewright_conformance::compression::suite::{Suite, any_case, cases};
use tilewright_conformance::compression::trial::{Outcome, Prepared, examine};
use tilewright_conformance::compression::wire::{derived, from_json, to_json};
use tilewright_conformance::compression::{Column, Feature, Subject};
use tilewright_conformance::{SubjectError, Verdict};

const PATIENCE: Duration = Duration::from_secs(30);
const SMALL: &str = "compression/n130/topk@0.4/hash@4/momentum=0.9,masked/wire=bf16,rice/heavy/steps=2/ranks=2/7f3a";

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() < 1200, "{text:?}");
}

fn some_case() -> impl Strategy<Value = Case> {
    select(Column::ALL.to_vec()).prop_flat_map(any_case)
}

/// Any JSON, not too deep.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        select(vec!["top-k", "hash-table", "any", "momentum", "rice", "f16", "reject", ""]).prop_map(Value::from),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let keys = select(vec!["kind", "density", "entries", "slots", "factor", "value", "refine", "lower", "x"]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys.prop_map(str::to_string), inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn problems_survive_json(case in some_case()) {
        let spec = case.spec();
        let text = to_json(&spec).to_string();
        prop_assert_eq!(from_json(&serde_json::from_str(&text).unwrap(), spec.len), Ok(spec));
        prop_assert_eq!(&derived(&spec, 7)["k"], &json!(spec.selector.aim(spec.len)));
    }

    #[test]
    fn damaged_problems_are_read_or_refused(
        case in some_case(),
        edits in vec((select(vec!["len", "selector", "placement", "feedback", "wire", "non_finite", "seed", "note"]),
            select(vec!["", "kind", "density", "entries", "ratio", "refine", "slots", "slots_per_entry", "policy", "factor", "masking", "value", "index"]), anything()), 1..4),
    ) {
        let mut json = to_json(&case.spec());
        for (key, inner, value) in edits {
            if inner.is_empty() || !json[key].is_object() { json[key] = value } else { json[key][inner] = value }
        }
        match from_json(&json, case.len) {
            Ok(spec) => prop_assert_eq!(spec.validate(), Ok(())),
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
            Ok(case) => {
                prop_assert_eq!(case.spec().validate(), Ok(()));
                prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case));
            }
            Err(error) => one_line(&error.to_string()),
        }
    }

    #[test]
    fn files_survive_and_damaged_ones_are_refused(
        numbers in vec(any::<f32>(), 0..40),
        indices in vec(any::<u32>(), 0..40),
        edits in vec((any::<Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let lists = Lists::from([("a/gradient".to_string(), List::F32(numbers)), ("a/indices".to_string(), List::U32(indices))]);
        let problem = to_json(&SMALL.parse::<Case>().unwrap().spec()).to_string();
        let mut bytes = file::to_bytes(&lists, [("a".to_string(), problem)].into()).unwrap();
        let (read, _) = file::from_bytes(&bytes).unwrap();
        let bits = |lists: &Lists| format!("{lists:?}");
        prop_assert_eq!(bits(&read), bits(&lists));
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
        edits in vec((select(vec!["name", "family", "version", "selectors", "supports", "deterministic"]), anything()), 0..3),
        line in "(?s).{0,200}",
    ) {
        let mut profile = json!({"name": "x", "family": "compression", "selectors": ["top-k"], "supports": ["compact"]});
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
    let path: PathBuf = [env!("CARGO_BIN_EXE_assay"), "..", "examples", "echo_compressor"].iter().collect();
    let path = PathBuf::from(path.to_str().unwrap().replace("assay/../", ""));
    assert!(path.exists(), "build it first: cargo build --example echo_compressor");
    format!("'{}' {fault}", path.display())
}

fn start(command: &str) -> Process {
    Process::start(command, PATIENCE).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn verdict(fault: &str, id: &str) -> (Outcome, Prepared) {
    let prepared = Prepared::new(&id.parse().unwrap()).unwrap();
    (examine(&mut start(&echo(fault)), &prepared), prepared)
}

#[test]
fn an_honest_program_conforms() {
    let mut subject = start(&echo(""));
    assert_eq!((subject.profile().name.as_str(), subject.profile().deterministic), ("echo", false));
    let some: Vec<Case> = cases(Suite::Quick, 0).into_iter().filter(|case| case.len < 2000).step_by(17).collect();
    let report = hold_trial(&mut subject, &some, || ()).unwrap();
    assert!(report.passes() && report.count(Verdict::Unsupported) == 0, "{}", report.to_text());
}

#[test]
fn a_program_is_asked_for_no_more_than_it_declares() {
    let mut subject = start(&echo("top-k-only"));
    assert_eq!(subject.profile().columns, [Column::TopK]);
    assert!(!subject.profile().supports.contains(&Feature::HashTable));
    let some: Vec<Case> = cases(Suite::Quick, 0).into_iter().filter(|case| case.len < 2000).step_by(23).collect();
    let report = hold_trial(&mut subject, &some, || ()).unwrap();
    assert!(report.passes() && !report.broken_word(), "{}", report.to_text());
    assert!(report.count(Verdict::Unsupported) > report.count(Verdict::Conforms));
}

#[test]
fn answers_that_are_none() {
    let reject = SMALL.replace("rice/", "rice+reject/");
    for (fault, id, verdict_due, kind, words) in [
        ("crash", SMALL, Verdict::Crashed, Kind::Crashed, "boom: the table is gone"),
        ("float-indices", SMALL, Verdict::Violates, Kind::Misbehaved, "tensor indices: got F32"),
        ("no-values", SMALL, Verdict::Violates, Kind::Misbehaved, "tensor values: missing"),
        ("no-velocity", SMALL, Verdict::Violates, Kind::Misbehaved, "tensor velocity: missing"),
        ("no-file", SMALL, Verdict::Violates, Kind::Misbehaved, "outputs.safetensors"),
        ("refuses", SMALL, Verdict::Violates, Kind::Refusal, "is finite"),
        ("refuses-nonsense", &reject, Verdict::Violates, Kind::Misbehaved, "refused: got \"all of it\""),
        ("short", SMALL, Verdict::Violates, Kind::Length, "129 elements"),
        ("overwrites", SMALL, Verdict::Violates, Kind::Decode, "expected"),
    ] {
        let (outcome, prepared) = verdict(fault, id);
        let worst = outcome.violations.first().unwrap_or_else(|| panic!("{fault}: {:?}", outcome.reason));
        assert_eq!((outcome.verdict, worst.kind), (verdict_due, kind), "{fault}: {worst}");
        assert!(worst.to_string().contains(words), "{fault}: {worst}");
        one_line(&worst.to_string());
        if fault == "overwrites" {
            assert_eq!(hint(&prepared, &outcome), Some("a later rank overwrites"));
        }
    }
    assert_eq!(verdict("extra", SMALL).0.verdict, Verdict::Conforms);
}

#[test]
fn refusals_travel() {
    let id = SMALL.replace("rice/", "rice+reject/").replace("heavy", "non-finite");
    assert_eq!(verdict("", &id).0.verdict, Verdict::Conforms);
}

#[test]
fn profiles_are_checked_key_by_key() {
    for (profile, message) in [
        (r#"{"name":"x"}"#, "family: got `attention`, expected `compression`"),
        (r#"{"name":"x","family":7}"#, "family: got ``"),
        (r#"{"family":"compression"}"#, "name: missing"),
        (r#"{"name":"x","family":"compression","selectors":[]}"#, "selectors: got []"),
        (r#"{"name":"x","family":"compression","selectors":["best"]}"#, "selectors: got `best`"),
        (r#"{"name":"x","family":"compression","supports":["magic"]}"#, "supports: got `magic`"),
        (r#"{"name":"x","family":"compression","deterministic":1}"#, "deterministic: got 1"),
    ] {
        match Process::start(&format!("printf '%s\\n' '{profile}'; cat"), PATIENCE) {
            Err(SubjectError::Misbehaved(what)) => assert!(what.contains(message), "{profile}: {what}"),
            other => panic!("{profile}: {other:?}"),
        }
    }
}
