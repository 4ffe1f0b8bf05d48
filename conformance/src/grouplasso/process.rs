//! A program in any language as a group-lasso subject. The line protocol is [`process`](crate::process)'s:
//!
//! ```text
//! ← {"name":…, "family":"grouplasso", "operations":["solve",…], "supports":[…], "deterministic":true}
//! → {"case":ID, "family":"grouplasso", "op":"prox", "spec":{…}, "derived":{…}, "step":T, "inputs":PATH, "outputs":PATH}
//! → {"case":ID, "family":"grouplasso", "op":"scores", "inputs":PATH, "outputs":PATH}
//! → {"case":ID, "family":"grouplasso", "op":"select", "keep":{"fraction":F}, "inputs":PATH, "outputs":PATH}
//! → {"case":ID, "family":"grouplasso", "op":"solve", "spec":{…}, "derived":{…}, "classes":C, "gap":G, "iterations":N, …}
//! ← {"ok":true}  or  {"unsupported":"why"}  or  {"error":"what"}
//! ```
//!
//! | operation | inputs | outputs |
//! |---|---|---|
//! | `prox` | `w` | `w`, in the same format |
//! | `scores` | `w` | `scores` (`F64` for `F64`, else `F32`) |
//! | `select` | `scores` | `indices` (`U32`) |
//! | `solve` | `x`, `y` or `labels` (`U32`), and as there are `sample_weights`, `start_w`, `start_b` | `w`, `b`; on a path `w0`, `b0`, `w1` … |

use crate::SubjectError;
use crate::grouplasso::file::{self, Entries, Entry};
use crate::grouplasso::subject::{
    Answer, Claim, Column, Feature, Profile, ProxRequest, ScoresRequest, SelectRequest, SolveRequest, Subject, Target,
};
use crate::grouplasso::wire;
use crate::json::count;
use crate::process::{ProfileLine, Program, excerpt};
use ndarray::{Array2, Axis};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tilewright_grouplasso::{Keep, SparseRows, Stopped};
use tilewright_scalar::Format;

/// An external program as a subject.
#[derive(Debug)]
pub struct Process {
    program: Program,
    profile: Profile,
}

impl Process {
    /// Starts `command` by the shell and reads its profile.
    ///
    /// # Errors
    /// [`SubjectError`] if it does not start, ends, takes longer than `time_limit` or writes something else first.
    pub fn start(command: &str, time_limit: Duration) -> Result<Self, SubjectError> {
        let (program, profile) = Program::start(command, time_limit)?;
        let profile = parse_profile(&profile).map_err(|what| SubjectError::Misbehaved(format!("profile: {what}")))?;
        Ok(Self { program, profile })
    }

    /// One request: writes the inputs, returns the answer and the outputs.
    fn ask(&mut self, inputs: Result<Entries, String>, request: Value) -> Result<(Value, Entries), SubjectError> {
        let inputs = inputs.map_err(SubjectError::Failed)?;
        file::write(self.program.inputs(), &inputs, BTreeMap::new())
            .map_err(|error| SubjectError::Failed(error.to_string()))?;
        let answer = self.program.exchange(request)?;
        let outputs =
            file::read(self.program.outputs()).map_err(|error| SubjectError::Misbehaved(error.to_string()))?;
        Ok((answer, outputs))
    }
}

fn one(name: &str, entry: Result<Entry, String>) -> Result<Entries, String> {
    Ok(Entries::from([(name.to_string(), entry?)]))
}

/// Numbers in the format they must be in.
fn in_format<T>(name: &str, (values, got): (T, Format), expected: Format) -> Result<T, String> {
    if got == expected {
        return Ok(values);
    }
    Err(format!("tensor {name}: got {} elements, expected {}", got.name, expected.name))
}

impl Subject for Process {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn prox(&mut self, request: &ProxRequest<'_>) -> Result<Array2<f64>, SubjectError> {
        let format = request.format;
        let (_, mut outputs) = self.ask(
            one("w", Entry::matrix(format, request.w)),
            json!({
                "case": request.id,
                "family": "grouplasso",
                "op": "prox",
                "spec": wire::to_json(request.spec),
                "derived": wire::derived(request.spec, features(request)),
                "step": wire::number_json(request.step),
            }),
        )?;
        let w = file::matrix(&mut outputs, "w").and_then(|w| in_format("w", w, format));
        w.map_err(SubjectError::Misbehaved)
    }

    fn scores(&mut self, request: &ScoresRequest<'_>) -> Result<Vec<f64>, SubjectError> {
        let inputs = one("w", Entry::matrix(request.format, request.w));
        let (_, mut outputs) = self.ask(inputs, json!({"case": request.id, "family": "grouplasso", "op": "scores"}))?;
        let format = accum(request.format);
        let scores = file::list(&mut outputs, "scores").and_then(|list| in_format("scores", list, format));
        scores.map_err(SubjectError::Misbehaved)
    }

    fn select(&mut self, request: &SelectRequest<'_>) -> Result<Vec<usize>, SubjectError> {
        let keep = match request.keep {
            Keep::Fraction(fraction) => json!({"fraction": wire::number_json(fraction)}),
            Keep::Features(features) => json!({"features": features}),
        };
        let (_, mut outputs) = self.ask(
            one("scores", Entry::list(accum(request.format), request.scores)),
            json!({"case": request.id, "family": "grouplasso", "op": "select", "keep": keep}),
        )?;
        let indices = file::counts(&mut outputs, "indices").map_err(SubjectError::Misbehaved)?;
        Ok(indices.into_iter().map(|i| i as usize).collect())
    }

    fn solve(&mut self, request: &SolveRequest<'_>) -> Result<Vec<Answer>, SubjectError> {
        let (answer, mut outputs) = self.ask(solve_inputs(request), solve_request(request))?;
        let mut read = |suffix: &str, said: &Value| read_answer(&mut outputs, suffix, said);
        let Some(lambdas) = request.lambdas else { return Ok(vec![read("", &answer)?]) };
        let nothing = Value::Null;
        let points = answer.get("points").and_then(Value::as_array);
        let said = |point: usize| points.and_then(|list| list.get(point)).unwrap_or(&nothing);
        // Fewer, if it was interrupted.
        let answered = points.map_or(lambdas.len(), |points| points.len().min(lambdas.len()));
        (0..answered).map(|point| read(&point.to_string(), said(point))).collect()
    }
}

/// As many as the groups speak of.
fn features(request: &ProxRequest<'_>) -> usize {
    match &request.spec.groups {
        tilewright_grouplasso::Groups::Overlapping(lists) => lists.iter().flatten().max().map_or(0, |last| last + 1),
        _ => request.w.nrows(),
    }
}

fn accum(format: Format) -> Format {
    if format == Format::F64 { Format::F64 } else { Format::F32 }
}

fn solve_inputs(request: &SolveRequest<'_>) -> Result<Entries, String> {
    let mut inputs = file::of_instance(request.instance)?;
    if let Some(start) = request.start {
        inputs.insert("start_w".into(), Entry::matrix(Format::F64, start.w.to_dense().view())?);
        inputs.insert("start_b".into(), Entry::list(Format::F64, &start.b)?);
    }
    Ok(inputs)
}

fn solve_request(request: &SolveRequest<'_>) -> Value {
    let instance = request.instance;
    let classes = match &instance.target {
        Target::Labels { classes, .. } => Some(*classes),
        Target::Values(_) => None,
    };
    let lambdas: Option<Vec<Value>> = request.lambdas.map(|list| list.iter().copied().map(wire::number_json).collect());
    json!({
        "case": request.id,
        "family": "grouplasso",
        "op": "solve",
        "spec": wire::to_json(&instance.spec),
        "derived": wire::derived(&instance.spec, instance.x.ncols()),
        "classes": classes,
        "gap": wire::number_json(request.gap),
        "iterations": request.iterations,
        "interrupt": request.interrupt,
        "lambdas": lambdas,
    })
}

/// Every row a program writes is kept that is not zero.
fn read_answer(outputs: &mut Entries, suffix: &str, said: &Value) -> Result<Answer, SubjectError> {
    let wrong = SubjectError::Misbehaved;
    let (w, _) = file::matrix(outputs, &format!("w{suffix}")).map_err(wrong)?;
    let (b, _) = file::list(outputs, &format!("b{suffix}")).map_err(wrong)?;
    let indices: Vec<usize> = (0..w.nrows()).filter(|row| w.row(*row).iter().any(|x| *x != 0.0)).collect();
    let values = w.select(Axis(0), &indices);
    let w = SparseRows::new(w.nrows(), indices, values).map_err(|error| wrong(error.to_string()))?;
    let at = |name: &str| said.get(name).filter(|value| !value.is_null());
    let number = |name: &str| match at(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(format!("{name}: got {value}, expected a number"))),
    };
    let whole = |name: &str| match at(name) {
        None => Ok(None),
        Some(value) => count(value).map(Some).ok_or_else(|| wrong(format!("{name}: got {value}, expected a count"))),
    };
    let claim = Claim {
        objective: number("objective")?,
        relative_gap: number("relative_gap")?,
        kkt: number("kkt")?,
        active: whole("active")?,
    };
    let stopped = at("stopped").map(|value| stopped(value).ok_or_else(|| wrong(unknown_reason(value)))).transpose()?;
    Ok(Answer { w, b, claim, stopped, iterations: whole("iterations")?, columns: None, watched: None })
}

fn stopped(value: &Value) -> Option<Stopped> {
    match value.as_str()? {
        "reached" => Some(Stopped::Reached),
        "stalled" => Some(Stopped::Stalled),
        "iterations" => Some(Stopped::Iterations),
        "interrupted" => Some(Stopped::Interrupted),
        _ => None,
    }
}

fn unknown_reason(value: &Value) -> String {
    let got = excerpt(&value.to_string(), 60);
    format!("stopped: got {got}, expected reached, stalled, iterations or interrupted")
}

/// Reads a profile: `name`, `family`, `version`, and optionally `operations`, `supports`, `deterministic`, `names_places`.
///
/// # Errors
/// A line that names the key and what it held.
pub fn parse_profile(line: &str) -> Result<Profile, String> {
    let line = ProfileLine::parse(line, "grouplasso")?;
    let mut profile = Profile::new(&line.name()?, &line.text("version"));
    if line.get("operations").is_some() {
        profile.columns = line.some_names("operations", Column::from_name, "prox, select or solve")?;
        profile.columns.sort_unstable();
    }
    if let Some(supports) = line.names("supports", Feature::from_name, "a feature's name")? {
        profile.supports = supports.into_iter().collect();
    }
    profile.deterministic = line.flag("deterministic", true)?;
    profile.names_places = line.flag("names_places", false)?;
    Ok(profile)
}
