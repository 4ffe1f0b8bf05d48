//! The reference solver behind the `--cmd` protocol: what a program on trial looks like in Rust, and, for the tests of the
//! trial itself, a program that breaks the protocol in every way on request.
//!
//! ```text
//! assay run --family grouplasso --cmd 'target/release/examples/echo_grouplasso'             an honest subject
//! assay run --family grouplasso --cmd 'target/release/examples/echo_grouplasso boasts'      one whose gaps are never as it says
//! echo_grouplasso crash                                                                     ends on its first request
//! ```

use ndarray::{Array2, array};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use tilewright_conformance::grouplasso::file::{self, Entries, Entry};
use tilewright_conformance::grouplasso::in_process::InProcess;
use tilewright_conformance::grouplasso::subject::{ProxRequest, ScoresRequest, SelectRequest, SolveRequest};
use tilewright_conformance::grouplasso::wire::from_json;
use tilewright_conformance::grouplasso::{Answer, Instance, Profile, Subject, Target};
use tilewright_conformance::{Format, SubjectError};
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{Keep, SparseRows, Start, Stopped};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let mut profile = json!({"name": "echo", "version": "1.0", "family": "grouplasso", "names_places": true});
    if fault == "select-only" {
        profile["operations"] = json!(["select"]);
        profile["supports"] = json!(["f64", "f32", "keep-count", "extremes"]);
    }
    say(&profile)?;
    let mut subject = InProcess::sequential(Reference, Profile::new("echo", "1.0"));
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        if fault == "crash" {
            eprintln!("boom: the matrix is gone");
            std::process::exit(3);
        }
        say(&answer(&mut subject, &request, &fault).unwrap_or_else(|error| json!({"error": error.to_string()})))?;
    }
    Ok(())
}

fn say(reply: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{reply}")?;
    out.flush()
}

fn text<'a>(request: &'a Value, key: &str) -> Result<&'a str> {
    Ok(request[key].as_str().ok_or_else(|| format!("{key}: missing"))?)
}

/// A number, or what JSON has no number for.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn answer(subject: &mut InProcess<Reference>, request: &Value, fault: &str) -> Result<Value> {
    let mut inputs = file::read(text(request, "inputs")?)?;
    let answered = match text(request, "op")? {
        "prox" => prox(subject, request, &mut inputs),
        "scores" => scores(subject, &mut inputs),
        "select" => select(subject, request, &mut inputs),
        "solve" => solve(subject, request, &mut inputs, fault),
        other => Err(format!("op: got {other}").into()),
    };
    let (mut outputs, mut reply) = match answered {
        Ok(answered) => answered,
        Err(error) => match error.downcast::<SubjectError>() {
            Ok(failed) => match *failed {
                SubjectError::Unsupported(why) => return Ok(json!({"unsupported": why})),
                SubjectError::Failed(words) => return Ok(json!({"error": words})),
                other => return Err(other.into()),
            },
            Err(error) => return Err(error),
        },
    };
    match fault {
        "no-file" => return Ok(reply),
        "no-intercept" => drop(outputs.remove("b")),
        "flat" => drop(outputs.insert("w".into(), Entry::list(Format::F64, &[1.0, 2.0])?)),
        "other-shape" => drop(outputs.insert("w".into(), Entry::matrix(Format::F64, array![[1.0]].view())?)),
        "boasts" => reply["relative_gap"] = json!(0.0),
        "nonsense" => reply["stopped"] = json!("tired"),
        "silent" => reply = json!({"ok": true}),
        _ => {}
    }
    file::write(text(request, "outputs")?, &outputs, BTreeMap::new())?;
    Ok(reply)
}

type Answered = (Entries, Value);

fn prox(subject: &mut InProcess<Reference>, request: &Value, inputs: &mut Entries) -> Result<Answered> {
    let (w, format) = file::matrix(inputs, "w")?;
    let lists = request["spec"]["groups"]["lists"].as_array();
    let last = lists.into_iter().flatten().filter_map(Value::as_array).flatten().filter_map(Value::as_u64).max();
    let overlap = request["spec"]["groups"]["kind"] == "overlapping";
    let features = last.filter(|_| overlap).map_or(w.nrows(), |last| last as usize + 1);
    let spec = from_json(&request["spec"], features)?;
    let step = number(&request["step"]).ok_or("step: expected a number")?;
    let out = subject.prox(&ProxRequest { id: "", format, spec: &spec, step, w: w.view(), threads: None })?;
    Ok((Entries::from([("w".into(), Entry::matrix(format, out.view())?)]), json!({"ok": true})))
}

fn scores(subject: &mut InProcess<Reference>, inputs: &mut Entries) -> Result<Answered> {
    let (w, format) = file::matrix(inputs, "w")?;
    let scores = subject.scores(&ScoresRequest { id: "", format, w: w.view(), threads: None })?;
    let accum = if format == Format::F64 { Format::F64 } else { Format::F32 };
    Ok((Entries::from([("scores".into(), Entry::list(accum, &scores)?)]), json!({"ok": true})))
}

fn select(subject: &mut InProcess<Reference>, request: &Value, inputs: &mut Entries) -> Result<Answered> {
    let (scores, format) = file::list(inputs, "scores")?;
    let keep = &request["keep"];
    let keep = match keep["features"].as_u64() {
        Some(features) => Keep::Features(features as usize),
        None => Keep::Fraction(number(&keep["fraction"]).ok_or("keep: expected a number")?),
    };
    let kept = subject.select(&SelectRequest { id: "", format, scores: &scores, keep, threads: None })?;
    let kept = kept.into_iter().map(|row| row as u32).collect();
    Ok((Entries::from([("indices".into(), Entry::Counts(kept))]), json!({"ok": true})))
}

fn instance(request: &Value, inputs: &mut Entries) -> Result<Instance> {
    let (x, format) = file::matrix(inputs, "x")?;
    let spec = from_json(&request["spec"], x.ncols())?;
    let target = if inputs.contains_key("labels") {
        let classes = request["classes"].as_u64().ok_or("classes: expected a count")? as usize;
        Target::Labels { labels: file::counts(inputs, "labels")?, classes }
    } else {
        Target::Values(file::matrix(inputs, "y")?.0)
    };
    let given = inputs.contains_key("sample_weights");
    let sample_weights = given.then(|| file::list(inputs, "sample_weights")).transpose()?.map(|(list, _)| list);
    Ok(Instance { spec, format, x, target, sample_weights })
}

fn solve(subject: &mut InProcess<Reference>, request: &Value, inputs: &mut Entries, fault: &str) -> Result<Answered> {
    let instance = instance(request, inputs)?;
    let start = if inputs.contains_key("start_w") {
        let w: Array2<f64> = file::matrix(inputs, "start_w")?.0;
        Some(Start { w: SparseRows::from_dense(w.view()), b: file::list(inputs, "start_b")?.0 })
    } else {
        None
    };
    let lambdas: Option<Vec<f64>> = request["lambdas"].as_array().map(|list| list.iter().filter_map(number).collect());
    let count = |key: &str| request[key].as_u64().map(|n| n as usize);
    let answers = subject.solve(&SolveRequest {
        id: "",
        instance: &instance,
        gap: number(&request["gap"]).ok_or("gap: expected a number")?,
        iterations: count("iterations").ok_or("iterations: expected a count")?,
        start: start.as_ref(),
        interrupt: count("interrupt"),
        lambdas: lambdas.as_deref(),
        threads: None,
    })?;
    let mut outputs = Entries::new();
    let mut points = Vec::new();
    for (point, answer) in answers.iter().enumerate() {
        let suffix = if lambdas.is_some() { point.to_string() } else { String::new() };
        let mut w = answer.w.to_dense();
        if fault == "off" {
            w *= 1.05;
        }
        outputs.insert(format!("w{suffix}"), Entry::matrix(Format::F64, w.view())?);
        outputs.insert(format!("b{suffix}"), Entry::list(Format::F64, &answer.b)?);
        points.push(said(answer));
    }
    let mut reply = if lambdas.is_some() { json!({"points": points}) } else { points.remove(0) };
    if fault == "off" {
        reply = json!({});
    }
    reply["ok"] = json!(true);
    Ok((outputs, reply))
}

fn said(answer: &Answer) -> Value {
    let stopped = match answer.stopped {
        Some(Stopped::Reached) => "reached",
        Some(Stopped::Stalled) => "stalled",
        Some(Stopped::Interrupted) => "interrupted",
        _ => "iterations",
    };
    let claim = &answer.claim;
    json!({
        "stopped": stopped,
        "iterations": answer.iterations,
        "objective": claim.objective,
        "relative_gap": claim.relative_gap,
        "kkt": claim.kkt,
        "active": claim.active,
    })
}
