//! Programs on trial: what becomes of those that answer, and of those that crash, hang, flood or lie.
#![cfg(unix)]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::time::{Duration, Instant};
use tilewright_conformance::attention::case::Case;
use tilewright_conformance::attention::judge::Kind;
use tilewright_conformance::attention::process::Process;
use tilewright_conformance::attention::trial::{Outcome, Prepared, Verdict, examine};
use tilewright_conformance::attention::{Request, Subject};
use tilewright_conformance::{SubjectError, Tensors};

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);
const SMALL: &str = "attention/f32/b1h2k2/n3s5d4v4/causal/normal/1";
const PROFILE: &str = r#"{"name":"sh","version":"1","formats":["f32"]}"#;

fn echo(mode: &str) -> String {
    let path: PathBuf = [env!("CARGO_BIN_EXE_assay"), "..", "examples", "echo_subject"].iter().collect();
    let path = PathBuf::from(path.to_str().unwrap().replace("assay/../", ""));
    assert!(path.exists(), "build it first: cargo build --example echo_subject");
    format!("'{}' {mode}", path.display())
}

/// A shell program that writes its profile and goes on with `script`.
fn shell(script: &str) -> String {
    format!("echo '{PROFILE}'; {script}")
}

fn start(command: &str, limit: Duration) -> Process {
    Process::start(command, limit).unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn prepared(id: &str, subject: &Process) -> Prepared {
    let case: Case = id.parse().unwrap();
    Prepared::new(&case, &subject.profile().contract(case.format), subject.profile().backward).unwrap()
}

fn run(subject: &mut Process, id: &str) -> Result<Tensors, SubjectError> {
    let prepared = prepared(id, subject);
    let want = ["o", "lse"];
    let (spec, inputs) = (&prepared.problem.spec, &prepared.problem.inputs);
    subject.run(&Request { id, spec, inputs, layout: prepared.case.layout, want: &want })
}

fn verdict(subject: &mut Process, id: &str) -> Outcome {
    let prepared = prepared(id, subject);
    examine(subject, &prepared)
}

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control) && text.len() < 1000, "{text:?}");
}

#[test]
fn an_honest_program_conforms() {
    let mut subject = start(&echo(""), PATIENCE);
    assert_eq!((subject.profile().name.as_str(), subject.profile().version.as_str()), ("echo", "1.0"));
    for id in [
        SMALL,
        "attention/f16/b3h2k1/n9s20d8v6/packed+dropout=0.2+dlse/normal/2",
        "attention/bf16/b2h2k2/n5s18d8v8/paged=5+window=3,*+sink/peaky/3",
        "attention/f64/b2h2k2/n7s9d3v5/lengths+bias=b1qk+alibi+top-left+softcap=3/normal/4",
        "attention/f32/b1h1k1/n9s4d8v8/causal+blocks=2x3/recorded/5",
    ] {
        let outcome = verdict(&mut subject, id);
        let first = outcome.judgement.violations.first().map(ToString::to_string);
        assert_eq!((outcome.verdict, first), (Verdict::Conforms, None), "{id}: {:?}", outcome.reason);
        assert!(outcome.missing.is_empty() && outcome.judgement.elements > 0);
    }
    let empty = verdict(&mut subject, "attention/f32/b0h1k1/n5s9d8v8/plain/normal/1");
    assert_eq!(empty.verdict, Verdict::Vacuous, "{:?}", empty.judgement.violations);
}

#[test]
fn a_wrong_program_violates() {
    let outcome = verdict(&mut start(&echo("scale=1.01"), PATIENCE), "attention/f32/b1h2k2/n9s30d8v8/plain/peaky/1");
    assert_eq!(outcome.verdict, Verdict::Violates);
    assert_eq!(outcome.judgement.violations[0].kind, Kind::Bound);
}

#[test]
fn a_crash_is_a_verdict_and_the_next_case_restarts() {
    let mut subject = start(&echo("crash=2"), PATIENCE);
    assert!(run(&mut subject, SMALL).is_ok());
    match run(&mut subject, SMALL) {
        Err(SubjectError::Crashed(why)) => {
            assert!(why.contains("exit status: 3") && why.ends_with("boom: the kernel is gone"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert!(run(&mut subject, SMALL).is_ok(), "the third request goes to a new process");
    let outcome = verdict(&mut start(&echo("crash=1"), PATIENCE), SMALL);
    assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::Crashed, Kind::Crashed));
}

/// A crash in a run that only a law asks for is not excused because the plain run went well.
#[test]
fn a_crash_under_a_law_counts() {
    let outcome = verdict(&mut start(&echo("crash=2"), PATIENCE), "attention/f32/b1h2k2/n3s5d4v4/plain/normal/1");
    assert_eq!(outcome.verdict, Verdict::Crashed, "{:?}", outcome.judgement.violations);
}

#[test]
fn a_hang_times_out_and_the_next_case_restarts() {
    let mut subject = start(&echo("hang=2"), SHORT);
    assert!(run(&mut subject, SMALL).is_ok());
    let begun = Instant::now();
    assert!(matches!(run(&mut subject, SMALL), Err(SubjectError::TimedOut(_))));
    assert!(begun.elapsed() < 3 * SHORT, "{:?}", begun.elapsed());
    assert!(run(&mut subject, SMALL).is_ok());
    let outcome = verdict(&mut start(&echo("hang=1"), SHORT), SMALL);
    assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::TimedOut, Kind::TimedOut));
}

#[test]
fn nothing_is_left_of_a_program_that_was_ended() {
    // A shell's child that was killed with it is the system's to reap: until then it is there, but dead.
    let gone = |pid: &str| {
        let stat = std::fs::read_to_string(std::path::Path::new("/proc").join(pid).join("stat"));
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
    };
    let gone = |pid: &str| {
        (0..100).any(|_| {
            gone(pid) || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    let command = r#"sh -c 'echo "{\"name\":\"$$\",\"formats\":[\"f32\"]}"; exec sleep 1000'"#;
    let mut subject = start(command, SHORT);
    let pid = subject.profile().name.clone();
    if cfg!(target_os = "linux") {
        assert!(std::path::Path::new("/proc").join(&pid).exists(), "{pid}");
    }
    assert!(matches!(run(&mut subject, SMALL), Err(SubjectError::TimedOut(_))));
    assert!(gone(&pid), "timed out, but process {pid} is still alive");
    let subject = start(command, SHORT);
    let pid = subject.profile().name.clone();
    drop(subject);
    assert!(gone(&pid), "dropped, but process {pid} is still alive");
    // The shell ends by itself and leaves a child behind, which holds its streams open or has closed them.
    for redirected in ["", "<&- >&- 2>&-"] {
        let command = format!(
            r#"sleep 1000 {redirected} & echo "{{\"name\":\"$!\",\"formats\":[\"f32\"]}}"; read line; exec >&-; exit 3"#
        );
        let mut subject = start(&command, SHORT);
        let pid = subject.profile().name.clone();
        assert!(run(&mut subject, SMALL).is_err());
        assert!(gone(&pid), "left behind, but process {pid} is still alive");
    }
}

#[test]
fn answers_that_are_none() {
    for answer in [
        "here you are",
        "{\"ok\":",
        "{}",
        "[]",
        "null",
        "7",
        "{\"ok\":\"yes\"}",
        "{\"ok\":false}",
        "{\"OK\":true}",
        "",
        "\u{1b}[31mred",
    ] {
        let script = format!("while read line; do echo '{answer}'; done");
        let mut subject = start(&shell(&script), PATIENCE);
        // Twice: a program that said something wrong is started anew, and says it again.
        for _ in 0..2 {
            match run(&mut subject, SMALL) {
                Err(SubjectError::Misbehaved(what)) => {
                    one_line(&what);
                    assert!(what.contains("expected one JSON object"), "{what}");
                }
                other => panic!("`{answer}`: {other:?}"),
            }
        }
    }
    let binary = shell(r"read line; printf '\377\376\n'; sleep 1000");
    assert!(matches!(run(&mut start(&binary, PATIENCE), SMALL), Err(SubjectError::Misbehaved(_))));
}

/// Kilobytes this process has in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn a_flood_does_not_fill_memory() {
    let endless_line = shell("read line; yes | tr -d '\\n'");
    match run(&mut start(&endless_line, PATIENCE), SMALL) {
        Err(SubjectError::Misbehaved(what)) => assert!(what.contains("a line of more than"), "{what}"),
        other => panic!("{other:?}"),
    }
    let mut subject = start(&shell("yes"), PATIENCE);
    std::thread::sleep(SHORT); // unbounded, a gigabyte or so
    assert!(resident() < 500_000, "{} kB", resident());
    match run(&mut subject, SMALL) {
        Err(SubjectError::Misbehaved(what)) => assert!(what.contains("before it was asked"), "{what}"),
        other => panic!("{other:?}"),
    }
    let no_profile = Process::start("yes | tr -d '\\n'", PATIENCE).unwrap_err();
    assert!(no_profile.to_string().contains("a line of more than"), "{no_profile}");
}

#[test]
fn a_line_too_many_is_not_the_next_answer() {
    let mut subject = start(&echo("twice"), PATIENCE);
    assert!(run(&mut subject, SMALL).is_ok());
    std::thread::sleep(SHORT / 4); // the second line is on its way
    match run(&mut subject, SMALL) {
        Err(SubjectError::Misbehaved(what)) => assert!(what.contains("{\"ok\":true}"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert!(run(&mut subject, SMALL).is_ok());
}

#[test]
fn a_program_that_does_not_read_times_out() {
    // Too large for the pipe's buffer.
    let id = "attention/f32/b2h4k4/n70s140d1v1/blocks=1x1/normal/1";
    let begun = Instant::now();
    let answer = run(&mut start(&shell("sleep 1000"), SHORT), id);
    assert!(matches!(answer, Err(SubjectError::TimedOut(_))), "{answer:?}");
    assert!(begun.elapsed() < 6 * SHORT, "{:?}", begun.elapsed());
    assert!(run(&mut start(&echo(""), PATIENCE), id).is_ok(), "read, it is answered");
}

#[test]
fn a_program_that_closes_its_output_is_not_waited_for() {
    let begun = Instant::now();
    for script in ["exec >&-; sleep 1000", "read line; exec >&- 2>&-; sleep 1000"] {
        let answer = run(&mut start(&shell(script), PATIENCE), SMALL);
        assert!(matches!(answer, Err(SubjectError::Crashed(_))), "{answer:?}");
    }
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    // Deaf, but alive.
    let answer = run(&mut start(&shell("exec <&-; sleep 1000"), SHORT), SMALL);
    assert!(matches!(answer, Err(SubjectError::TimedOut(_))), "{answer:?}");
}

#[test]
fn a_program_that_ends_after_its_profile_crashes() {
    let mut subject = start(&shell("echo 'out of memory' >&2; exit 7"), PATIENCE);
    for _ in 0..2 {
        match run(&mut subject, SMALL) {
            Err(SubjectError::Crashed(why)) => assert!(why.contains('7') && why.ends_with("out of memory"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    let killed = run(&mut start(&shell("read line; kill -SEGV $$"), PATIENCE), SMALL);
    assert!(matches!(&killed, Err(SubjectError::Crashed(why)) if why.contains("signal")), "{killed:?}");
}

#[test]
fn last_words_are_the_last_line_even_of_a_progress_bar() {
    let words = |script: &str| match run(&mut start(&shell(script), PATIENCE), SMALL) {
        Err(SubjectError::Crashed(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(words("printf 'a\\n\\nb\\n\\n  \\n' >&2; exit 1").ends_with(": b"));
    assert!(words("printf '10 %%\\r50 %%\\rno room\\r' >&2; exit 1").ends_with(": no room"));
    // Two megabytes without a line's end must neither block the program nor fill the report.
    let flood = words("yes x | head -c 2000000 | tr -d '\\n' >&2; printf '\\nend\\n' >&2; exit 1");
    assert!(flood.ends_with("end"), "{flood:.100}");
    one_line(&words("yes x | head -c 100000 | tr -d '\\n' >&2; exit 1"));
}

#[test]
fn outputs_that_are_none() {
    for (mode, message) in
        [("no-file", "outputs.safetensors"), ("corrupt", "not a safetensors file"), ("truncated", "bytes of data")]
    {
        let mut subject = start(&echo(mode), PATIENCE);
        let outcome = verdict(&mut subject, SMALL);
        let worst = &outcome.judgement.violations[0];
        assert_eq!((outcome.verdict, worst.kind), (Verdict::Violates, Kind::Misbehaved), "{mode}");
        assert!(worst.detail.contains(message), "{mode}: {worst}");
        one_line(&worst.to_string());
    }
    let outcome = verdict(&mut start(&echo("flat"), PATIENCE), SMALL);
    assert_eq!((outcome.verdict, outcome.judgement.violations[0].kind), (Verdict::Violates, Kind::Shape));
    // The file of the request before is not an answer to this one.
    let copycat = shell(
        r#"n=0; while read line; do n=$((n+1)); out=${line#*\"outputs\":\"}; out=${out%%\"*}
        [ $n = 1 ] && printf '\010\000\000\000\000\000\000\000{}      ' > $out; echo '{"ok":true}'; done"#,
    );
    let mut subject = start(&copycat, PATIENCE);
    assert_eq!(run(&mut subject, SMALL), Ok(Tensors::new()));
    assert!(matches!(run(&mut subject, SMALL), Err(SubjectError::Misbehaved(_))));
}

#[test]
fn what_is_left_out_is_counted_and_is_no_evidence() {
    let outcome = verdict(&mut start(&echo("no-lse"), PATIENCE), SMALL);
    assert_eq!((outcome.verdict, outcome.missing), (Verdict::Conforms, vec!["lse"]));
    let mut subject = start(&echo("only-lse"), PATIENCE);
    let prepared = prepared("attention/f32/b1h2k2/n3s5d4v4/dlse/normal/1", &subject);
    let outcome = examine(&mut subject, &prepared);
    assert_eq!(outcome.missing, ["o", "d_q", "d_k", "d_v"]);
    let about = |missing: &[&'static str]| -> Vec<&str> {
        prepared.evidence_without(missing).map(|evidence| evidence.decoy).collect()
    };
    assert!(about(&[]).contains(&"row sum D left out of dS") && about(&[]).contains(&"LSE in base 2"));
    assert!(!about(&["lse"]).contains(&"LSE in base 2"));
    assert!(!about(&outcome.missing).contains(&"row sum D left out of dS"), "gradients that were never seen");
    let outcome = verdict(&mut start(&echo("nothing"), PATIENCE), SMALL);
    assert_eq!((outcome.verdict, outcome.missing.len()), (Verdict::Violates, 5), "{:?}", outcome.reason);
}

#[test]
fn extra_tensors_and_null_keys_do_no_harm() {
    for mode in ["extra", "nulls"] {
        let outcome = verdict(&mut start(&echo(mode), PATIENCE), SMALL);
        assert_eq!(outcome.verdict, Verdict::Conforms, "{mode}: {:?}", outcome.judgement.violations);
    }
}

#[test]
fn refusals_and_errors_are_told_apart() {
    let answering = |answer: &str| {
        let script = format!("while read line; do printf '%s\\n' '{answer}'; done");
        verdict(&mut start(&shell(&script), PATIENCE), SMALL)
    };
    let refused = answering(r#"{"unsupported":"does not declare mercy"}"#);
    assert_eq!(refused.verdict, Verdict::Unsupported);
    // A subject cannot pass a refusal of something declared off as something it never declared.
    let reason = refused.reason.unwrap();
    assert!(reason.ends_with("does not declare mercy") && !reason.starts_with("does not declare"), "{reason}");
    let failed = answering(r#"{"error":"CUDA error 700\nat line 3"}"#);
    assert_eq!((failed.verdict, failed.judgement.violations[0].kind), (Verdict::Violates, Kind::Failed));
    one_line(&failed.judgement.violations[0].to_string());
    let long = answering(&format!(r#"{{"error":"{}"}}"#, "x".repeat(100_000)));
    one_line(&long.judgement.violations[0].to_string());
    assert_eq!(answering(r#"{"unsupported":["a",1]}"#).verdict, Verdict::Unsupported);
}

#[test]
fn profiles_are_checked_key_by_key() {
    for (profile, message) in [
        ("", "profile: got ``"),
        ("hello", "profile: got `hello`"),
        ("[]", "name: missing"),
        ("null", "name: missing"),
        (r#"{"name":7}"#, "name: missing"),
        (r#"{"name":"x"}"#, "formats: missing"),
        (r#"{"name":"x","formats":"f32"}"#, "formats: got \"f32\""),
        (r#"{"name":"x","formats":[]}"#, "formats: got []"),
        (r#"{"name":"x","formats":["f8"]}"#, "formats: got `f8`"),
        (r#"{"name":"x","formats":["f32",1]}"#, "formats: got [\"f32\",1]"),
        (r#"{"name":"x","formats":["f32"],"supports":["gqa","magic"]}"#, "supports: got `magic`"),
        (r#"{"name":"x","formats":["f32"],"supports":{}}"#, "supports: got {}"),
        (r#"{"name":"x","formats":["f32"],"backward":"no"}"#, "backward: got \"no\""),
        (r#"{"name":"x","formats":["f32"],"deterministic":0}"#, "deterministic: got 0"),
        (r#"{"name":"x","formats":["f32"],"contract":[]}"#, "contract: expected an object"),
        (r#"{"name":"x","formats":["f32"],"contract":{"f9":{}}}"#, "contract: got `f9`"),
        (r#"{"name":"x","formats":["f32"],"contract":{"f32":1}}"#, "contract.f32: expected an object"),
        (r#"{"name":"x","formats":["f32"],"contract":{"f32":{"tilt":1}}}"#, "contract.tilt: no such field"),
        (r#"{"name":"x","formats":["f32"],"contract":{"f32":{"tile":-1}}}"#, "contract.tile: got -1"),
        (r#"{"name":"x","formats":["f32"],"contract":{"f32":{"scores":"f12"}}}"#, "contract.scores: got \"f12\""),
        (r#"{"name":"x","formats":["f32"],"contract":{"f32":{"truncates":1}}}"#, "contract.truncates: got 1"),
    ] {
        let error = Process::start(&format!("printf '%s\\n' '{profile}'; cat"), PATIENCE).unwrap_err();
        assert!(matches!(error, SubjectError::Misbehaved(_)), "{profile}: {error:?}");
        assert!(error.to_string().contains(message), "{profile}: {error}");
        one_line(&error.to_string());
    }
    for (command, message) in [
        ("/no/such/program", "not found"),
        ("true", "exit status: 0"),
        ("echo no GPU here >&2; exit 4", "exit status: 4: no GPU here"),
    ] {
        match Process::start(command, PATIENCE) {
            Err(SubjectError::Crashed(why)) => assert!(why.contains(message), "{command}: {why}"),
            other => panic!("{command}: {other:?}"),
        }
    }
    assert!(matches!(Process::start("sleep 1000", SHORT), Err(SubjectError::TimedOut(_))));
    let twice =
        Process::start(r#"printf '%s\n' '{"name":"x\ny","formats":["f32","f16","f32"]}'; cat"#, PATIENCE).unwrap();
    assert_eq!((twice.profile().formats.len(), twice.profile().name.as_str()), (2, "x y"));
}

#[test]
fn commands_are_what_a_shell_takes_them_for() {
    let profile = |command: &str| start(command, PATIENCE).profile().name.clone();
    let named = r#"sh -c 'echo "{\"name\":\"$WHO\",\"formats\":[\"f32\"]}"; cat'"#;
    assert_eq!(profile(&format!("WHO=me {named}")), "me");
    assert_eq!(profile(&format!("WHO=me ALSO='a b' {named}")), "me");
    assert_eq!(profile(&format!("cd / && WHO=there {named}")), "there");
    assert_eq!(profile(&format!("env WHO=env {named}")), "env");
}
