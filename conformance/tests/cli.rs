//! The program `assay` as its users meet it: exit codes, messages, files. It never panics, whatever it is given.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tilewright_conformance::attention::file::{self, read_cases};
use tilewright_scalar::Format;

const CASE: &str = "attention/f32/b1h2k2/n3s5d4v4/causal/normal/1";
const OTHER: &str = "attention/bf16/b2h2k1/n3s5d4v4/lengths/peaky/2";
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/attention_synthetic.safetensors");

fn assay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_assay"))
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

fn run(arguments: &[&str]) -> Said {
    said(assay().args(arguments).output().unwrap())
}

/// Exit code 2 and a message with these words.
fn refused(arguments: &[&str], words: &[&str]) {
    let said = run(arguments);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{arguments:?}: {}", said.err);
    for word in words {
        assert!(said.err.contains(word), "{arguments:?}: `{word}` is not in: {}", said.err);
    }
}

fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_string()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A program that declares f32 and answers every request with one line.
fn answering(line: &str) -> String {
    format!(r#"echo '{{"name":"sh","formats":["f32"]}}'; while read x; do echo '{line}'; done"#)
}

#[test]
fn a_wrong_case_id_is_refused_by_the_part() {
    for (id, part) in [
        ("nonsense", "form"),
        ("", "form"),
        ("attention/f32", "form"),
        ("lasso/f32/b1h2k2/n3s5d4v4/plain/normal/1", "form"),
        ("attention/f32/b1h2k2/n3s5d4v4/plain/normal/1/2", "form"),
        ("attention/f8/b1h2k2/n3s5d4v4/plain/normal/1", "format"),
        ("attention/f32/b1h2/n3s5d4v4/plain/normal/1", "heads"),
        ("attention/f32/b1h3k2/n3s5d4v4/plain/normal/1", "heads"),
        ("attention/f32/b1h0k0/n3s5d4v4/plain/normal/1", "heads"),
        ("attention/f32/b1h0k1/n3s5d4v4/plain/normal/1", "heads"),
        ("attention/f32/b-1h2k2/n3s5d4v4/plain/normal/1", "heads"),
        ("attention/f32/b1h2k2/n3s5d0v4/plain/normal/1", "sizes"),
        ("attention/f32/b1h2k2/n3s5d4v4 /plain/normal/1", "sizes"),
        ("attention/f32/b1h2k2/n65537s5d4v4/plain/normal/1", "sizes"),
        ("attention/f32/b1h2k2/n99999999999999999999s5d4v4/plain/normal/1", "sizes"),
        ("attention/f32/b1h2k2/n3s5d4v4//normal/1", "option"),
        ("attention/f32/b1h2k2/n3s5d4v4/casual/normal/1", "option: got `casual`"),
        ("attention/f32/b1h2k2/n3s5d4v4/causal+softcap=-1/normal/1", "softcap=-1"),
        ("attention/f32/b1h2k2/n3s5d4v4/softcap=nan/normal/1", "softcap=nan"),
        ("attention/f32/b1h2k2/n3s5d4v4/dropout=1/normal/1", "dropout=1"),
        ("attention/f32/b1h2k2/n3s5d4v4/bias=bhq/normal/1", "bias=bhq"),
        ("attention/f32/b1h2k2/n3s5d4v4/window=1/normal/1", "window=1"),
        ("attention/f32/b1h2k2/n3s5d4v4/paged=0/normal/1", "paged=0"),
        ("attention/f32/b1h2k2/n3s5d4v4/blocks=0x1/normal/1", "blocks=0x1"),
        ("attention/f32/b1h2k2/n3s5d4v4/plain/gaussian/1", "distribution"),
        ("attention/f32/b1h2k2/n3s5d4v4/plain/normal/xyz", "seed"),
        ("attention/f32/b1h2k2/n3s5d4v4/plain/normal/100000000", "seed"),
    ] {
        refused(&["run", "--case", id], &["case id", part]);
    }
}

const COMPRESSION: &str =
    "compression/n130/topk@0.1/hash@4/momentum=0.9,masked/wire=bf16,rice/heavy/steps=3/ranks=2/7f3a";

#[test]
fn a_wrong_compression_id_is_refused_by_the_part() {
    for (from, to, part) in [
        ("n130", "130", "length"),
        ("n130", "n1048577", "length"),
        ("n130", "n-1", "length"),
        ("topk@0.1", "topk@0", "specification"),
        ("topk@0.1", "topk@nan", "specification"),
        ("topk@0.1", "topk@0.1,ratio=1", "selector"),
        ("topk@0.1", "bottomk@0.1", "selector"),
        ("topk@0.1", "topk=-1", "selector"),
        ("topk@0.1", "sampled@0.1", "selector"),
        ("topk@0.1", "sampled@0.1,ratio=2", "specification"),
        ("topk@0.1", "sampled@0.1,ratio=1,refine=0.8:1.3", "selector"),
        ("topk@0.1", "sampled@0.1,ratio=1,refine=0.8:1.3:10:1", "selector"),
        ("topk@0.1", "fixed=-1", "specification"),
        ("topk@0.1", "fixed=inf", "specification"),
        ("hash@4", "hash=0", "specification"),
        ("hash@4", "hash@-1", "specification"),
        ("hash@4", "hash@1e6", "placement"),
        ("hash@4", "hash", "placement"),
        ("hash@4", "hash@4,some", "placement"),
        ("momentum=0.9,masked", "momentum=1", "specification"),
        ("momentum=0.9,masked", "momentum=0.9,masked,nesterov", "feedback"),
        ("momentum=0.9,masked", "", "feedback"),
        ("wire=bf16,rice", "wire=f8,rice", "option"),
        ("wire=bf16,rice", "wire=bf16,rice+clip=nan", "option"),
        ("wire=bf16,rice", "wire=bf16,rice+tea", "option: got `tea`"),
        ("heavy", "light", "distribution"),
        ("steps=3", "steps=0", "steps"),
        ("steps=3", "steps=65", "steps"),
        ("ranks=2", "ranks=17", "ranks"),
        ("ranks=2", "2", "ranks"),
        ("7f3a", "7f3g", "seed"),
        ("7f3a", "7f3a/1", "form"),
        ("n130/topk@0.1", "n1048576/topk@0.1", ""),
    ] {
        let id = COMPRESSION.replace(from, to);
        let id = if part.is_empty() { id.replace("steps=3", "steps=64") } else { id };
        refused(&["run", "--case", &id], &["case id", part]);
    }
}

#[test]
fn families_are_tried_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let report = path(&directory, "report.json");
    let said = run(&["run", "--case", COMPRESSION, "--case", CASE, "--json", &report]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("verdict: conforms"), "{}", said.out);
    let subjects = json(&report)["subjects"].clone();
    let families: Vec<&str> = subjects.as_array().unwrap().iter().map(|s| s["family"].as_str().unwrap()).collect();
    assert_eq!(families, ["attention", "compression"]);
    for key in ["name", "family", "conforms", "violates", "vacuous", "unsupported", "crashed", "timed_out"] {
        assert!(subjects.as_array().unwrap().iter().all(|subject| !subject[key].is_null()), "{key}: {subjects}");
    }
    assert_eq!(run(&["run", "--family", "compression", "--case", COMPRESSION]).code, Some(0));
    refused(&["run", "--family", "attention", "--case", COMPRESSION], &["another family"]);
    refused(&["run", "--family", "compression", "--case", CASE], &["another family"]);
    refused(&["run", "--family", "lasso"], &["lasso"]);
    // A program of one family is no subject of the other.
    refused(
        &["run", "--family", "compression", "--cmd", &answering("{}"), "--case", COMPRESSION],
        &["family", "attention"],
    );
}

#[test]
fn a_compressor_that_only_fails_violates() {
    let directory = tempfile::tempdir().unwrap();
    let report = path(&directory, "report.json");
    let command = r#"echo '{"name":"sh","family":"compression"}'; while read x; do echo '{"error":"no table"}'; done"#;
    let said = run(&["run", "--family", "compression", "--cmd", command, "--case", COMPRESSION, "--json", &report]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains("DOES NOT CONFORM") && said.out.contains("no table"), "{}", said.out);
    let violation = json(&report)["violations"][0].clone();
    assert_eq!((violation["case"].as_str(), violation["kind"].as_str()), (Some(COMPRESSION), Some("failed")));
    let keys: Vec<&String> = violation.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["case", "hint", "kind", "ratio", "shrunk"]);
    // The reproducer shows the fault by itself.
    let shrunk = violation["shrunk"].as_str().unwrap();
    assert_eq!(run(&["run", "--family", "compression", "--cmd", command, "--case", shrunk]).code, Some(1));
}

#[test]
fn the_compression_oracle_answers_and_refuses() {
    use tilewright_conformance::compression::file::{List, Lists, read, write};
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (path(&directory, "in.safetensors"), path(&directory, "out.safetensors"));
    let ask = |lists: &Lists, problem: &str| {
        write(&input, lists, [("a".to_string(), problem.to_string())].into()).unwrap();
        run(&["oracle", "compression", &input, &output])
    };
    let mut lists = Lists::from([("a/gradient".to_string(), List::F32(vec![1.0, -3.0, 2.0, 0.0]))]);
    let problem = r#"{"selector": {"kind": "top-k", "entries": 1}, "step": 5}"#;
    let said = ask(&lists, problem);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let answers = read(&output).unwrap();
    assert_eq!(answers["a/indices"], List::U32(vec![1]));
    assert_eq!(answers["a/values"], List::F32(vec![-3.0]));
    assert_eq!(answers["a/velocity"], List::F32(vec![1.0, 0.0, 2.0, 0.0]));
    lists.insert("a/velocity".into(), List::F32(vec![0.0, 3.0, 0.5, 0.0]));
    assert_eq!(ask(&lists, problem).code, Some(0));
    assert_eq!(read(&output).unwrap()["a/values"], List::F32(vec![2.5]));
    for (lists, problem, words) in [
        (lists.clone(), "{}", vec!["key selector: got nothing"]),
        (lists.clone(), "7", vec!["key (problem)"]),
        (
            lists.clone(),
            r#"{"selector": {"kind": "top-k", "entries": 1}, "len": 5}"#,
            vec!["key len: got 5, expected 4"],
        ),
        (lists.clone(), r#"{"selector": {"kind": "top-k", "entries": 1}, "step": -1}"#, vec!["key step: got -1"]),
        (lists.clone(), r#"{"selector": {"kind": "top-k", "density": 2}}"#, vec!["density: got 2"]),
        (Lists::from([("a/momentum".to_string(), List::F32(vec![1.0]))]), problem, vec!["tensor gradient: missing"]),
        (Lists::from([("b/gradient".to_string(), List::F32(vec![1.0]))]), problem, vec!["belongs to no case"]),
        (Lists::from([("a/gradient".to_string(), List::U32(vec![1]))]), problem, vec!["tensor gradient", "F32"]),
    ] {
        let said = ask(&lists, problem);
        assert_eq!(said.code, Some(2), "{problem}");
        for word in words {
            assert!(said.err.contains(word), "{problem}: {}", said.err);
        }
    }
}

/// Ids of problems that no machine should be asked to solve for a typo.
#[test]
fn a_case_too_large_is_refused_at_once() {
    for id in [
        "attention/f32/b65536h65536k65536/n0s0d1v1/plain/normal/1",
        "attention/f32/b1h1k1/n65536s65536d65536v1/plain/normal/1",
        "attention/f32/b1h1k1/n65536s65536d1v1/bias=bhqk/normal/1",
        "attention/f32/b4096h1k1/n1s1d16v16/paged=65536/normal/1",
    ] {
        refused(&["run", "--case", id], &["case id, sizes", "at most"]);
    }
}

#[test]
fn unusual_cases_that_are_in_order_are_run() {
    let all = u64::MAX;
    for options in [format!("window={all},{all}"), format!("window={all},0+causal"), "softcap=1e30".into()] {
        let said = run(&["run", "--case", &format!("attention/f32/b1h1k1/n3s5d4v4/{options}/normal/1")]);
        assert_eq!(said.code, Some(0), "{options}: {}{}", said.out, said.err);
    }
    // Nothing in it can be wrong, so it is no evidence, and a trial without evidence does not pass.
    let said = run(&["run", "--case", "attention/f32/b0h1k1/n3s5d4v4/plain/normal/1"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
}

#[test]
fn wrong_arguments_are_refused() {
    refused(&["run", "--sute", "quick"], &["--sute", "--suite"]);
    refused(&["run", "--suite", "huge"], &["huge", "quick"]);
    refused(&["try"], &["try"]);
    refused(&["run", "--seed", "xyz"], &["xyz", "hexadecimal"]);
    refused(&["run", "--seed", "123456789"], &["hexadecimal"]);
    refused(&["run", "--time-limit", "0"], &["0"]);
    refused(&["run", "--subject", "cpu", "--cmd", "cat"], &["cannot be used with"]);
    refused(&["run", "--subject", "tpu"], &["tpu"]);
    refused(&["run", "--subject", "cpu-pairs", "--family", "compression"], &["cpu-pairs", "compression", "attention"]);
    refused(&["oracle", "attention"], &["IN.safetensors"]);
    refused(&["oracle", "lasso", "a", "b"], &["lasso"]);
    refused(&["run", "--case"], &["--case"]);
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["run", "mutants", "oracle", "list"] {
        assert!(help.out.contains(command), "{}", help.out);
    }
    assert_eq!(run(&["--version"]).code, Some(0));
}

#[test]
fn a_verdict_is_an_exit_code_and_json() {
    let directory = tempfile::tempdir().unwrap();
    let report = path(&directory, "report.json");
    let said = run(&["run", "--case", CASE, "--case", OTHER, "--case", CASE, "--json", &report]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("verdict: conforms"), "{}", said.out);
    let right = json(&report);
    assert_eq!(right["subjects"][0]["conforms"], 3);
    assert_eq!(right["violations"], Value::Array(Vec::new()));
    for key in ["name", "family", "conforms", "violates", "vacuous", "unsupported", "crashed", "timed_out"] {
        assert!(!right["subjects"][0][key].is_null(), "{key}: {right}");
    }
    assert_eq!(right["subjects"][0]["family"], "attention");
    let command = answering(r#"{"error":"no kernel image"}"#);
    let said = run(&["run", "--cmd", &command, "--case", CASE, "--case", OTHER, "--json", &report]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains("DOES NOT CONFORM") && said.out.contains("no kernel image"), "{}", said.out);
    let wrong = json(&report);
    let subject = &wrong["subjects"][0];
    assert_eq!((&subject["violates"], &subject["unsupported"]), (&1.into(), &1.into()));
    let violation = &wrong["violations"][0];
    assert_eq!((&violation["case"], &violation["kind"]), (&CASE.into(), &"failed".into()));
    let keys: Vec<&String> = violation.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["case", "hint", "kind", "ratio", "shrunk"]);
    // The reproducer is a case id, and shows the fault by itself.
    let shrunk = violation["shrunk"].as_str().unwrap();
    assert_eq!(run(&["run", "--cmd", &command, "--case", shrunk]).code, Some(1));
    assert_eq!(run(&["run", "--case", shrunk]).code, Some(0));
}

#[test]
fn every_violation_is_in_the_json() {
    let directory = tempfile::tempdir().unwrap();
    let report = path(&directory, "report.json");
    let ids: Vec<String> =
        (1..=12).map(|seed| format!("attention/f32/b1h1k1/n1s1d1v1/plain/one-hot/{seed:x}")).collect();
    let command = answering(r#"{"error":"no"}"#);
    let mut arguments = vec!["run", "--cmd", &command, "--json", &report];
    arguments.extend(ids.iter().flat_map(|id| ["--case", id]));
    assert_eq!(run(&arguments).code, Some(1));
    let report = json(&report);
    let cases: Vec<&str> = report["violations"].as_array().unwrap().iter().filter_map(|v| v["case"].as_str()).collect();
    assert_eq!(cases, ids);
    assert_eq!(report["subjects"][0]["violates"], 12);
}

/// Refusing what the profile declares breaks a promise; what it does not declare is nobody's business.
#[test]
fn refusals_count_unless_they_were_announced() {
    let refusing = answering(r#"{"unsupported":"does not declare anything"}"#);
    let said = run(&["run", "--cmd", &refusing, "--case", CASE]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("refuses"), "{}", said.out);
}

#[test]
fn a_program_that_does_not_start_is_refused() {
    refused(&["run", "--cmd", "/no/such/program", "--case", CASE], &["/no/such/program", "not found"]);
    refused(&["run", "--cmd", "", "--case", CASE], &["--cmd ''"]);
    refused(&["run", "--cmd", "echo hello", "--case", CASE], &["profile", "hello"]);
    refused(&["run", "--cmd", "sleep 60", "--time-limit", "1", "--case", CASE], &["timed out", "1s"]);
}

#[test]
fn files_that_cannot_be_written_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = path(&directory, "no/such/place.json");
    refused(&["run", "--case", CASE, "--json", &nowhere], &[&nowhere]);
    // In the way stands a directory.
    let here = directory.path().to_str().unwrap();
    refused(&["run", "--case", CASE, "--json", here], &[here]);
    let nowhere = path(&directory, "no/such/place.safetensors");
    refused(&["oracle", "attention", VECTORS, &nowhere], &[&nowhere]);
    refused(&["oracle", "attention", VECTORS, here], &[here]);
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn files_that_are_none_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (path(&directory, "in.safetensors"), path(&directory, "out.safetensors"));
    refused(&["oracle", "attention", &input, &output], &[&input, "No such file"]);
    refused(&["oracle", "attention", directory.path().to_str().unwrap(), &output], &["directory"]);
    let whole = std::fs::read(VECTORS).unwrap();
    let with_case = |metadata: &str| {
        let mut tensors = tilewright_conformance::Tensors::new();
        for name in ["q", "k", "v"] {
            let tensor = tilewright_conformance::Tensor::from_f64(Format::F32, &[1, 1, 2, 2], &[0.0; 4]).unwrap();
            tensors.insert(format!("a/{name}"), tensor);
        }
        file::to_bytes(&tensors, [("a".to_string(), metadata.to_string())].into()).unwrap()
    };
    for (bytes, words) in [
        (Vec::new(), "not a safetensors file"),
        (whole[..7].to_vec(), "not a safetensors file"),
        (whole[..100].to_vec(), "not a safetensors file"),
        (whole[..whole.len() - 1].to_vec(), "bytes of data"),
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "18446744073709551615"),
        ([&(1u64 << 62).to_le_bytes()[..], b"{}"].concat(), "a header of"),
        (b"\x02\0\0\0\0\0\0\0[]".to_vec(), "not a safetensors file"),
        (with_case("{"), "not JSON"),
        (with_case(r#"{"window": 3}"#), "key window: got 3"),
        (with_case(r#"{"kv_lengths": [3]}"#), "kv_len"),
        (with_case(r#"{"scale": null}"#), "key scale"),
    ] {
        std::fs::write(&input, &bytes).unwrap();
        refused(&["oracle", "attention", &input, &output], &[&input, words]);
        assert!(!Path::new(&output).exists());
    }
    std::fs::write(&input, with_case("{}")).unwrap();
    let said = run(&["oracle", "attention", &input, &output]);
    assert_eq!((said.code, said.out.starts_with("1 problems answered")), (Some(0), true), "{}{}", said.out, said.err);
    // An empty file is a file of no problems, and so is the answer.
    std::fs::write(&input, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    assert_eq!(run(&["oracle", "attention", &input, &output]).code, Some(0));
    assert_eq!(read_cases(&output).unwrap().len(), 0);
}

/// The answers to our own vectors are those of an oracle that shares neither code nor method.
#[test]
fn the_oracle_agrees_with_the_vectors() {
    let directory = tempfile::tempdir().unwrap();
    let output = path(&directory, "out.safetensors");
    let said = run(&["oracle", "attention", VECTORS, &output]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let cases = read_cases(VECTORS).unwrap();
    assert!(said.out.starts_with(&format!("{} problems answered in {output}", cases.len())), "{}", said.out);
    let (answers, metadata) = file::read(&output).unwrap();
    assert_eq!(metadata.len(), cases.len());
    let (mut compared, mut worst) = (0, 0f64);
    for case in &cases {
        for (role, expected) in &case.tensors {
            if !["o", "lse", "d_q", "d_k", "d_v", "d_bias", "d_sink"].contains(&role.as_str()) {
                continue;
            }
            let answer = &answers[&format!("{}/{role}", case.name)];
            let bound = &answers[&format!("{}/bound/{role}", case.name)];
            assert_eq!((answer.format(), answer.shape()), (Format::F64, expected.shape()), "{} {role}", case.name);
            assert_eq!((bound.format(), bound.shape()), (Format::F64, expected.shape()), "{} {role}", case.name);
            let (answer, expected) = (answer.to_f64(), expected.to_f64());
            let gauge = expected.iter().filter(|x| x.is_finite()).fold(0f64, |max, x| max.max(x.abs()));
            for ((x, y), bound) in answer.iter().zip(&expected).zip(bound.to_f64()) {
                let error = if x == y { 0.0 } else { (x - y).abs() / if gauge == 0.0 { 1.0 } else { gauge } };
                assert!(error <= 1e-12, "{} {role}: {x} instead of {y}", case.name);
                assert!(bound >= 0.0 && bound.is_finite() && (bound > 0.0 || *x == 0.0 || !x.is_finite()), "{bound}");
                worst = worst.max(error);
                compared += 1;
            }
        }
        assert!(answers.contains_key(&format!("{}/d_q", case.name)), "{}", case.name);
    }
    let mine = answers.len();
    assert_eq!(answers.keys().filter(|name| name.contains("/bound/")).count() * 2, mine);
    println!("{compared} elements of {mine} tensors, worst error {worst:.1e} of the largest entry");
    assert!(compared > 10_000);
}

/// One line of output, then the reader goes away.
fn cut_short(arguments: &[&str]) -> (String, Said) {
    let mut child = assay().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(!err.contains("panicked"), "{err}");
    (line, Said { code: child.wait().unwrap().code(), out: String::new(), err })
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (line, said) = cut_short(&["list", "--suite", "quick"]);
    assert!(line.starts_with("attention/"), "{line}");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

/// … and no acquittal either.
#[test]
fn a_verdict_does_not_depend_on_who_is_listening() {
    let directory = tempfile::tempdir().unwrap();
    let report = path(&directory, "report.json");
    let command = answering(r#"{"error":"no"}"#);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let deaf = |arguments: &[&str]| said(assay().args(arguments).stdout(writer.try_clone().unwrap()).output().unwrap());
    let said = deaf(&["run", "--cmd", &command, "--case", CASE, "--json", &report]);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert_eq!(json(&report)["subjects"][0]["violates"], 1);
    assert_eq!(deaf(&["run", "--case", CASE]).code, Some(0));
}

#[test]
fn a_program_of_ones_own_is_tried() {
    let echo: PathBuf = Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap().join("examples/echo_subject");
    assert!(echo.exists(), "build it first: cargo build --example echo_subject");
    let command = format!("'{}'", echo.display());
    let said = run(&["run", "--cmd", &command, "--case", CASE, "--case", OTHER]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let wrong = format!("{command} scale=1.05");
    let said = run(&["run", "--cmd", &wrong, "--case", "attention/f32/b1h2k2/n9s30d8v8/plain/normal/1"]);
    assert_eq!(said.code, Some(1));
    for words in ["VIOLATES", "nearest  decoy \"scale off by 1 %\"", "shrunk", &wrong, "repro    assay run --cmd"] {
        assert!(said.out.contains(words), "`{words}` is not in {}", said.out);
    }
}
