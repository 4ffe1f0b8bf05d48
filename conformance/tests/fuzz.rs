//! What strangers may write — case ids, profiles, answers — is read or refused, in one line. Problems as JSON and files
//! of tensors have the same done to them in `wire.rs`.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tilewright_conformance::Tensor;
use tilewright_conformance::attention::Feature;
use tilewright_conformance::attention::case::Case;
use tilewright_conformance::attention::generate::generate;
use tilewright_conformance::attention::process::parse_profile;
use tilewright_conformance::attention::suite::{FORMATS, any_case};
use tilewright_scalar::Format;

fn one_line(text: &str) {
    assert!(!text.contains(['\n', '\r']) && text.len() < 700, "{text:?}");
}

const OPTIONS: [&str; 24] = [
    "causal",
    "top-left",
    "window=3,*",
    "window=*,*",
    "window=,",
    "softcap=1e-300",
    "softcap=inf",
    "alibi",
    "bias=b1q1",
    "bias=é",
    "sink",
    "dropout=0",
    "dropout=0.999999",
    "blocks=1x1",
    "blocks=9x",
    "lengths",
    "packed",
    "paged=1",
    "paged=65536",
    "dlse",
    "gapped",
    "heads-inner",
    "plain",
    "",
];

/// Something in the form of an id, with sizes that are small, large or none.
fn almost_an_id() -> impl Strategy<Value = String> {
    let size = || {
        prop_oneof![4 => (0u64..9).prop_map(|n| n.to_string()), 1 => any::<u64>().prop_map(|n| n.to_string()),
            1 => select(vec!["65536", "65537", "", "-1", "0x1", "٣"]).prop_map(str::to_string)]
    };
    let data = select(vec!["normal", "one-hot", "recorded", "huge-masked", "low", "normal ", "NORMAL"]);
    (
        select(vec!["f32", "f64", "bf16", "f16", "tf32"]),
        vec(size(), 7),
        vec(select(&OPTIONS[..]), 1..5),
        data,
        "[0-9a-f]{1,9}",
    )
        .prop_map(|(format, n, options, data, seed)| {
            let heads = format!("b{}h{}k{}", n[0], n[1], n[2]);
            let sizes = format!("n{}s{}d{}v{}", n[3], n[4], n[5], n[6]);
            format!("attention/{format}/{heads}/{sizes}/{}/{data}/{seed}", options.join("+"))
        })
}

/// JSON of any kind, with names that a profile has.
fn anything() -> impl Strategy<Value = Value> {
    let names: Vec<&str> =
        Feature::ALL.iter().map(|feature| feature.name()).chain(["f32", "f16", "tf32", "e5m2"]).collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(names).prop_map(Value::from),
        "\\PC{0,300}".prop_map(Value::from),
        "(?s).{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let key = prop_oneof!["f32|f64|bf16|f16", "accum|tile|exp_error|scores|truncates|lse", "(?s).{0,8}"];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..5).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ids_are_read_or_refused(id in almost_an_id()) {
        match id.parse::<Case>() {
            // What is read says everything that was written, and small problems can be built.
            Ok(case) => {
                prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case.clone()));
                let small = [case.batch, case.q_heads, case.q_len, case.kv_len, case.head_dim, case.value_dim]
                    .iter()
                    .all(|n| *n < 9);
                if small {
                    let problem = generate(&case);
                    prop_assert!(problem.is_ok(), "{:?}", problem.map(|_| ()));
                }
            }
            Err(error) => one_line(&error.to_string()),
        }
    }

    #[test]
    fn damaged_ids_are_read_or_refused(
        case in select(FORMATS.to_vec()).prop_flat_map(any_case),
        edits in vec((any::<Index>(), any::<char>(), 0u8..3), 1..4),
    ) {
        let mut id: Vec<char> = case.to_string().chars().collect();
        for (at, c, how) in edits {
            let at = at.index(id.len());
            match how {
                0 => id[at] = c,
                1 => id.insert(at, c),
                _ => drop(id.remove(at)),
            }
        }
        let id: String = id.into_iter().collect();
        if let Ok(case) = id.parse::<Case>() {
            prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case));
        }
    }

    #[test]
    fn profiles_are_read_or_refused(
        edits in vec((select(vec!["name", "version", "formats", "supports", "backward", "deterministic", "contract"]), anything()), 0..3),
        fields in vec((select(vec!["accum", "scores", "tile", "exp_error", "truncates", "lse", "tilt"]), anything()), 0..3),
    ) {
        let mut profile = json!({"name": "x", "formats": ["f32", "bf16"], "contract": {"bf16": {"tile": 32}}});
        for (field, value) in fields {
            profile["contract"]["bf16"][field] = value;
        }
        for (key, value) in edits {
            profile[key] = value;
        }
        match parse_profile(&profile.to_string()) {
            Ok(read) => {
                one_line(&read.name);
                prop_assert!(!read.formats.is_empty());
                for format in &read.formats {
                    let contract = read.contract(*format);
                    prop_assert_eq!(contract.storage, *format);
                    prop_assert!(contract.tile >= 1);
                    let errors = [contract.exp_error, contract.ln_error, contract.tanh_error];
                    prop_assert!(errors.iter().all(|error| (0.0..=1e15).contains(error)));
                }
            }
            Err(error) => one_line(&error),
        }
    }

    #[test]
    fn no_line_is_too_strange_for_a_profile(line in "(?s).{0,400}", value in anything()) {
        for line in [line, value.to_string(), format!("{{\"name\":{value}")] {
            if let Err(error) = parse_profile(&line) {
                one_line(&error);
            }
        }
    }

    #[test]
    fn tensors_are_built_or_refused(
        shape in vec(prop_oneof![0usize..5, Just(usize::MAX), Just(1 << 40)], 0..5),
        format in select(vec![Format::F64, Format::F32, Format::F16, Format::BF16, Format::TF32]),
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let elements = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        match Tensor::from_le_bytes(format, &shape, &bytes) {
            Ok(tensor) => {
                prop_assert_eq!(Some(tensor.len()), elements);
                prop_assert_eq!(&tensor.to_le_bytes(), &bytes);
            }
            Err(error) => one_line(&error.to_string()),
        }
        let values: Vec<f64> = bytes.iter().map(|byte| f64::from(*byte)).collect();
        if let Ok(tensor) = Tensor::from_f64(format, &shape, &values) {
            prop_assert_eq!((Some(tensor.len()), tensor.shape()), (elements, &shape[..]));
        }
    }
}

/// Answers come through a process; a few hundred odd ones in one life of it.
#[test]
#[cfg(unix)]
fn answers_are_read_or_refused() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::fmt::Write;
    use tilewright_conformance::SubjectError;
    use tilewright_conformance::attention::process::Process;
    use tilewright_conformance::attention::{Request, Subject};

    let mut runner = TestRunner::deterministic();
    let key = select(vec!["ok", "unsupported", "error", "missing", "oK"]);
    let object = proptest::collection::btree_map(key.prop_map(str::to_string), anything(), 0..3)
        .prop_map(|map| map.into_iter().collect::<Value>());
    let line = prop_oneof![3 => object.prop_map(|value| value.to_string()), 1 => anything().prop_map(|value| value.to_string())];
    let lines: Vec<String> = (0..300).map(|_| line.new_tree(&mut runner).unwrap().current()).collect();
    let directory = tempfile::tempdir().unwrap();
    let script = lines.iter().fold(String::new(), |mut script, line| {
        writeln!(script, "{line}").unwrap();
        script
    });
    std::fs::write(directory.path().join("answers"), script).unwrap();
    // Each life of the program gives one more answer than the last, since a wrong one ends it.
    let place = directory.path().display();
    let command = format!(
        r#"cd '{place}'; echo '{{"name":"x","formats":["f32"]}}'; touch n; while read x; do echo >> n; sed -n "$(wc -l < n)p" answers; done"#
    );
    let mut subject = Process::start(&command, std::time::Duration::from_secs(30)).unwrap();
    let problem = generate(&"attention/f32/b1h1k1/n1s1d1v1/plain/normal/1".parse().unwrap()).unwrap();
    let (spec, inputs, layout) =
        (&problem.spec, &problem.inputs, tilewright_conformance::attention::Layout::Contiguous);
    let mut refused = 0;
    for line in &lines {
        let answer = subject.run(&Request { id: "x", spec, inputs, layout, want: &["o"] });
        let value: Value = serde_json::from_str(line).unwrap();
        let said = |key: &str| value.get(key).filter(|value| !value.is_null());
        match answer {
            Err(SubjectError::Unsupported(why)) => {
                assert!(said("unsupported").is_some(), "{line}");
                one_line(&why);
            }
            Err(SubjectError::Failed(what)) => {
                assert!(said("error").is_some(), "{line}");
                one_line(&what);
            }
            // Without a file even a good answer is none.
            Err(SubjectError::Misbehaved(what)) => {
                refused += 1;
                one_line(&what);
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    assert!(refused > 100, "{refused}");
}
