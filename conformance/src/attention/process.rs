//! A program in any language as an attention kernel on trial. The line protocol is [`process`](crate::process)'s; a
//! request also names the outputs it wants, and an answer may leave LSE out:
//!
//! ```text
//! → {"case":ID, "family":"attention", "spec":{…}, "inputs":PATH, "outputs":PATH, "want":["o","lse",…]}
//! ← {"ok":true}  or  {"ok":true,"missing":["lse"]}  or  {"unsupported":"why"}  or  {"error":"what"}
//! ```

use crate::attention::{Feature, Profile, Request, Subject, case::format_from_name, file, wire};
use crate::process::{ProfileLine, Program, excerpt};
use crate::{SubjectError, Tensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tilewright_attention::Contract;
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
}

impl Subject for Process {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn run(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError> {
        file::write(self.program.inputs(), request.inputs, BTreeMap::new())
            .map_err(|error| SubjectError::Failed(error.to_string()))?;
        self.program.exchange(json!({
            "case": request.id,
            "family": "attention",
            "spec": wire::to_json(request.spec),
            "want": request.want,
        }))?;
        let contents = file::read(self.program.outputs());
        let (mut tensors, _) = contents.map_err(|error| SubjectError::Misbehaved(error.to_string()))?;
        tensors.retain(|name, _| request.want.contains(&name.as_str()));
        Ok(tensors)
    }
}

/// Reads a profile: `name`, `version`, `formats`, and optionally `supports`, `backward`, `deterministic`, `contract`.
///
/// # Errors
/// A line that names the key and what it held.
pub fn parse_profile(line: &str) -> Result<Profile, String> {
    let line = ProfileLine::parse(line, "attention")?;
    let name = line.name()?;
    let formats = line.some_names("formats", format_from_name, FORMATS)?;
    let mut profile = Profile::new(&name, &line.text("version"), &formats);
    if let Some(supports) = line.names("supports", Feature::from_name, "a feature's name")? {
        profile.supports = supports.into_iter().collect();
    }
    profile.backward = line.flag("backward", true)?;
    profile.deterministic = line.flag("deterministic", true)?;
    if let Some(contracts) = line.get("contract") {
        let contracts = contracts.as_object().ok_or("contract: expected an object with an entry a storage format")?;
        for (storage, fields) in contracts {
            let format = format_from_name(storage)
                .ok_or_else(|| format!("contract: got `{}`, expected {FORMATS}", excerpt(storage, 120)))?;
            profile.contracts.push(parse_contract(format, fields)?);
        }
    }
    Ok(profile)
}

/// The formats a profile may name.
const FORMATS: &str = "f64, f32, f16 or bf16";

/// Reads a contract; what it does not say is as [`Contract::strict`] has it.
fn parse_contract(storage: Format, fields: &Value) -> Result<Contract, String> {
    let mut contract = Contract::strict(storage);
    let fields = fields.as_object().ok_or_else(|| format!("contract.{}: expected an object", storage.name))?;
    if let Some(accum) = fields.get("accum") {
        let accum = numeric_format("accum", accum)?;
        contract = Contract {
            accum,
            scores: accum,
            probabilities: accum,
            score_gradients: accum,
            output_accum: accum,
            gradient_accum: accum,
            lse: accum,
            ..contract
        };
    }
    for (key, value) in fields {
        let number = || {
            value.as_f64().filter(|x| (0.0..=1e15).contains(x)).ok_or_else(|| {
                format!("contract.{key}: got {}, expected a number from 0 to 1e15", excerpt(&value.to_string(), 120))
            })
        };
        let flag = || {
            let wrong = || format!("contract.{key}: got {}, expected true or false", excerpt(&value.to_string(), 120));
            value.as_bool().ok_or_else(wrong)
        };
        match key.as_str() {
            "accum" => {}
            "scores" => contract.scores = numeric_format(key, value)?,
            "probabilities" => contract.probabilities = numeric_format(key, value)?,
            "score_gradients" => contract.score_gradients = numeric_format(key, value)?,
            "output_accum" => contract.output_accum = numeric_format(key, value)?,
            "gradient_accum" => contract.gradient_accum = numeric_format(key, value)?,
            "lse" => contract.lse = numeric_format(key, value)?,
            "truncates" => contract.truncates = flag()?,
            "flushes_subnormals" => contract.flushes_subnormals = flag()?,
            "sums_rounded_probabilities" => contract.sums_rounded_probabilities = flag()?,
            "tile" => contract.tile = (number()? as usize).max(1),
            "exp_error" => contract.exp_error = number()?,
            "ln_error" => contract.ln_error = number()?,
            "tanh_error" => contract.tanh_error = number()?,
            _ => return Err(format!("contract.{}: no such field", excerpt(key, 120))),
        }
    }
    Ok(contract)
}

fn numeric_format(key: &str, value: &Value) -> Result<Format, String> {
    let known = [Format::F64, Format::F32, Format::F16, Format::BF16, Format::TF32, Format::E5M2];
    let name = value.as_str().unwrap_or_default();
    known
        .into_iter()
        .find(|format| format.name == name)
        .ok_or_else(|| format!("contract.{key}: got {}, expected a format's name", excerpt(&value.to_string(), 120)))
}
