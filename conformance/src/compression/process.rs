//! A program in any language as a compressor on trial. The line protocol is [`process`](crate::process)'s:
//!
//! ```text
//! ← {"name":…, "family":"compression", "selectors":["top-k",…], "supports":[…], "deterministic":true}
//! → {"case":ID, "family":"compression", "op":"compress", "spec":{…}, "derived":{…}, "step":N, "scale":X, "inputs":PATH, "outputs":PATH}
//! ← {"ok":true}  or  {"ok":true,"refused":INDEX}  or  {"unsupported":"why"}  or  {"error":"what"}
//! → {"case":ID, "family":"compression", "op":"decompress", "reduction":"sum", "len":N, "ranks":R, "inputs":PATH, "outputs":PATH}
//! ← {"ok":true}
//! ```
//!
//! | operation | inputs | outputs |
//! |---|---|---|
//! | `compress` | `gradient`, and as the feedback has them `velocity`, `momentum` | `indices` (`u32`), `values`, and the memory afterwards |
//! | `decompress` | `indices`, `values`, `starts` (`u32`): rank `r` sent those at `starts[r]..starts[r + 1]` | `out` |

use crate::SubjectError;
use crate::compression::file::{self, List, Lists};
use crate::compression::subject::{Column, Compress, Decompress, Feature, Profile, Reply, Subject};
use crate::compression::wire;
use crate::process::{ProfileLine, Program};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tilewright_compression::Reduction;

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

    /// One request: writes the inputs, returns the answer.
    fn ask(&mut self, lists: &Lists, request: Value) -> Result<Value, SubjectError> {
        file::write(self.program.inputs(), lists, BTreeMap::new())
            .map_err(|error| SubjectError::Failed(error.to_string()))?;
        self.program.exchange(request)
    }

    fn outputs(&self) -> Result<Lists, SubjectError> {
        file::read(self.program.outputs()).map_err(|error| SubjectError::Misbehaved(error.to_string()))
    }
}

impl Subject for Process {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn compress(&mut self, request: &Compress<'_>) -> Result<Reply, SubjectError> {
        let mut inputs = Lists::from([("gradient".into(), List::F32(request.gradient.to_vec()))]);
        inputs.extend(file::memory(request.memory));
        let scale = request.step.scale;
        let answer = self.ask(
            &inputs,
            json!({
                "case": request.id,
                "family": "compression",
                "op": "compress",
                "spec": wire::to_json(request.spec),
                "derived": wire::derived(request.spec, request.step.number),
                "step": request.step.number,
                // JSON has no infinities and no NaN.
                "scale": if scale.is_finite() { json!(scale) } else { json!(scale.to_string()) },
            }),
        )?;
        if let Some(refused) = answer.get("refused").filter(|refused| !refused.is_null()) {
            let index = refused.as_u64().and_then(|index| usize::try_from(index).ok());
            let index =
                index.ok_or_else(|| SubjectError::Misbehaved(format!("refused: got {refused}, expected an index")))?;
            return Ok(Reply::Refused { index });
        }
        let mut outputs = self.outputs()?;
        let words = file::words(&mut outputs).map_err(SubjectError::Misbehaved)?;
        let memory = file::memory_of(request.spec, &mut outputs, false).map_err(SubjectError::Misbehaved)?;
        Ok(Reply::Sent { words, memory })
    }

    fn decompress(&mut self, request: &Decompress<'_>) -> Result<Vec<f32>, SubjectError> {
        let mut starts = vec![0];
        let mut words = Vec::new();
        for message in request.messages {
            words.extend_from_slice(message);
            starts.push(words.len() as u32);
        }
        let mut inputs = Lists::from([("starts".into(), List::U32(starts))]);
        inputs.extend(file::message(&words));
        let reduction = match request.reduction {
            Reduction::Sum => "sum",
            Reduction::Mean => "mean",
        };
        self.ask(
            &inputs,
            json!({
                "case": request.id,
                "family": "compression",
                "op": "decompress",
                "reduction": reduction,
                "len": request.len,
                "ranks": request.messages.len(),
            }),
        )?;
        file::numbers(&mut self.outputs()?, "out").map_err(SubjectError::Misbehaved)
    }
}

/// Reads a profile: `name`, `family`, `version`, and optionally `selectors`, `supports`, `deterministic`.
///
/// # Errors
/// A line that names the key and what it held.
pub fn parse_profile(line: &str) -> Result<Profile, String> {
    let line = ProfileLine::parse(line, "compression")?;
    let mut profile = Profile::new(&line.name()?, &line.text("version"));
    if line.get("selectors").is_some() {
        profile.columns = line.some_names("selectors", Column::from_name, "top-k, sampled, fixed or random-k")?;
        profile.columns.sort_unstable();
    }
    if let Some(supports) = line.names("supports", Feature::from_name, "a feature's name")? {
        profile.supports = supports.into_iter().collect();
    }
    profile.deterministic = line.flag("deterministic", true)?;
    Ok(profile)
}
