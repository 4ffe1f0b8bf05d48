//! A program in any language on trial: `--cmd`.
//!
//! The program is started once. Unasked, it writes one line of JSON, its profile, and then answers one line for each
//! line it reads:
//!
//! ```text
//! → {"case":ID, "family":"attention", "spec":{…}, "inputs":PATH, "outputs":PATH, "want":["o","lse",…]}
//! ← {"ok":true}  or  {"ok":true,"missing":["lse"]}  or  {"unsupported":"why"}  or  {"error":"what"}
//! ```
//!
//! Tensors travel in safetensors files. A crash or a time-out is a verdict on the case at hand; the next case starts
//! the program anew. What it writes to standard error is kept, and its last line goes into the verdict.

use crate::attention::{case::format_from_name, file, wire};
use crate::subject::{Feature, Profile, Request, Subject, SubjectError, Tensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tilewright_attention::Contract;
use tilewright_scalar::Format;

/// Longest line taken from a program: a profile or an answer is far shorter, and a flood must not fill memory.
const LONGEST_LINE: u64 = 1 << 20;
/// Lines kept of a program that writes more than it is asked for; it waits once they are full.
const LINES_AHEAD: usize = 4;
/// How long a program that closed its output may take to end, and its last words to arrive.
const FAREWELL: Duration = Duration::from_millis(500);

/// An external program as a subject.
#[derive(Debug)]
pub struct Process {
    command: String,
    time_limit: Duration,
    profile: Profile,
    running: Option<Running>,
    directory: TempDir,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Requests on their way to a thread that writes them: a program that does not read must not block us.
    requests: Sender<String>,
    lines: Receiver<std::io::Result<String>>,
    last_words: Arc<Mutex<String>>,
    /// Closed at the end of standard error.
    silence: Receiver<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it is left.
        end(&mut self.child);
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts `command` by the shell and reads its profile.
    ///
    /// # Errors
    /// [`SubjectError`] if it does not start, ends, takes longer than `time_limit` or writes something else first.
    pub fn start(command: &str, time_limit: Duration) -> Result<Self, SubjectError> {
        let directory =
            tempfile::tempdir().map_err(|error| SubjectError::Failed(format!("temporary directory: {error}")))?;
        let mut process = Self {
            command: command.into(),
            time_limit,
            profile: Profile::new(command, "", &[]),
            running: None,
            directory,
        };
        let profile = process.launch()?;
        process.profile =
            parse_profile(&profile).map_err(|what| SubjectError::Misbehaved(format!("profile: {what}")))?;
        Ok(process)
    }

    /// Starts the program and returns its first line.
    fn launch(&mut self) -> Result<String, SubjectError> {
        let mut child = shell(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| SubjectError::Crashed(format!("`{}` does not start: {error}", self.command)))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(SubjectError::Crashed(format!("`{}` has no standard streams", self.command)));
        };
        let (requests, queue) = channel::<String>();
        std::thread::spawn(move || {
            while let Ok(request) = queue.recv() {
                if writeln!(stdin, "{request}").and_then(|()| stdin.flush()).is_err() {
                    break;
                }
            }
        });
        let (sender, lines) = sync_channel(LINES_AHEAD);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            while let Ok(Some(line)) = limited_line(&mut reader).map_err(|error| sender.send(Err(error))) {
                if sender.send(Ok(line)).is_err() {
                    break;
                }
            }
        });
        let last_words = Arc::new(Mutex::new(String::new()));
        let words = Arc::clone(&last_words);
        let (speaking, silence) = sync_channel(0);
        std::thread::spawn(move || {
            let _speaking = speaking;
            keep_last_line(&mut BufReader::new(stderr), &words);
        });
        self.running = Some(Running { child, requests, lines, last_words, silence });
        self.next_line()
    }

    /// The program's next line; on failure the program is ended.
    fn next_line(&mut self) -> Result<String, SubjectError> {
        let Some(running) = &mut self.running else { return Err(SubjectError::Crashed("is not running".into())) };
        let error = match running.lines.recv_timeout(self.time_limit) {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(error)) => SubjectError::Misbehaved(format!("standard output: {error}")),
            Err(RecvTimeoutError::Timeout) => SubjectError::TimedOut(format!("no answer in {:?}", self.time_limit)),
            Err(RecvTimeoutError::Disconnected) => SubjectError::Crashed(farewell(running)),
        };
        self.running = None;
        Err(error)
    }

    fn exchange(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError> {
        let (inputs, outputs) =
            (self.directory.path().join("inputs.safetensors"), self.directory.path().join("outputs.safetensors"));
        file::write(&inputs, request.inputs, BTreeMap::new())
            .map_err(|error| SubjectError::Failed(error.to_string()))?;
        // An answer must not be the previous case's.
        if outputs.exists() {
            std::fs::remove_file(&outputs)
                .map_err(|error| SubjectError::Failed(format!("{}: {error}", outputs.display())))?;
        }
        // A line that nobody asked for would be taken for the answer to this request.
        let unasked = self.running.as_ref().and_then(|running| running.lines.try_recv().ok()?.ok());
        if let Some(line) = unasked {
            self.running = None;
            return Err(SubjectError::Misbehaved(format!("wrote `{}` before it was asked", excerpt(&line, 120))));
        }
        if self.running.is_none() {
            self.launch()?;
        }
        let line = json!({
            "case": request.id,
            "family": "attention",
            "spec": wire::to_json(request.spec),
            "inputs": inputs,
            "outputs": outputs,
            "want": request.want,
        });
        if let Some(running) = &self.running {
            // If the writer is gone so is the program's end of the pipe, and the next line, or its absence, tells why.
            let _ = running.requests.send(line.to_string());
        }
        let answer = self.next_line()?;
        match parse_answer(&answer) {
            Ok(Reply::Done) => {}
            Ok(Reply::Unsupported(why)) => return Err(SubjectError::Unsupported(why)),
            Ok(Reply::Error(what)) => return Err(SubjectError::Failed(what)),
            Err(error) => {
                // Whatever else it is about to say belongs to no request.
                self.running = None;
                return Err(error);
            }
        }
        let contents = file::read(&outputs).map_err(|error| SubjectError::Misbehaved(error.to_string()))?;
        let (mut tensors, _) = contents;
        tensors.retain(|name, _| request.want.contains(&name.as_str()));
        Ok(tensors)
    }
}

impl Subject for Process {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn run(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError> {
        self.exchange(request)
    }
}

/// The command under a shell, in a process group of its own: whatever it starts ends with it.
#[cfg(unix)]
fn shell(command: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").arg(command);
    shell
}

/// Ends the shell and everything it started.
#[cfg(unix)]
fn end(child: &mut Child) {
    use rustix::process::{Pid, Signal, kill_process_group};
    // The group's leader has not been waited for, so its number is still its own.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
}

#[cfg(not(unix))]
fn end(child: &mut Child) {
    let _ = child.kill();
}

/// One line of at most [`LONGEST_LINE`] bytes; `None` at the end.
fn limited_line(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = std::io::Read::take(&mut *reader, LONGEST_LINE).read_until(b'\n', &mut line)?;
    if read as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
        return Err(std::io::Error::other(format!("a line of more than {LONGEST_LINE} bytes")));
    }
    Ok((read > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

/// Drains a stream; its last line that is not blank ends up in `words`.
fn keep_last_line(reader: &mut impl BufRead, words: &Mutex<String>) {
    let mut line = Vec::new();
    // A part of an overlong line is as good as a line here: what matters is that the program never waits for us.
    while matches!(std::io::Read::take(&mut *reader, LONGEST_LINE).read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        // Progress bars go back to the start of the line and write over it.
        if let (Some(last), Ok(mut words)) = (text.split(['\n', '\r']).rfind(|t| !t.trim().is_empty()), words.lock()) {
            *words = excerpt(last, LONGEST_REASON);
        }
        line.clear();
    }
}

/// How a program ended and what it said last.
fn farewell(running: &mut Running) -> String {
    let deadline = Instant::now() + FAREWELL;
    let status = loop {
        match running.child.try_wait() {
            Ok(Some(status)) => break status.to_string(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => break "closed its standard output".into(),
            Err(error) => break error.to_string(),
        }
    };
    let _ = running.silence.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let words = running.last_words.lock().map(|words| words.clone()).unwrap_or_default();
    if words.is_empty() { status } else { format!("{status}: {words}") }
}

enum Reply {
    Done,
    Unsupported(String),
    Error(String),
}

fn parse_answer(line: &str) -> Result<Reply, SubjectError> {
    let confused = || {
        SubjectError::Misbehaved(format!(
            "answered `{}`, expected one JSON object with ok, unsupported or error",
            excerpt(line, 120)
        ))
    };
    let answer: Value = serde_json::from_str(line).map_err(|_| confused())?;
    let text =
        |value: &Value| excerpt(&value.as_str().map_or_else(|| value.to_string(), str::to_string), LONGEST_REASON);
    // `null` is what many languages write for a key they do not use.
    let said = |key: &str| answer.get(key).filter(|value| !value.is_null());
    if let Some(why) = said("unsupported") {
        Ok(Reply::Unsupported(text(why)))
    } else if let Some(what) = said("error") {
        Ok(Reply::Error(text(what)))
    } else if answer.get("ok").and_then(Value::as_bool) == Some(true) {
        Ok(Reply::Done)
    } else {
        Err(confused())
    }
}

/// Longest part of a program's own words that goes into a report.
const LONGEST_REASON: usize = 400;

/// The beginning of a text as one line without control characters.
fn excerpt(text: &str, longest: usize) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(longest).collect()
}

/// Reads a profile: `name`, `version`, `formats`, and optionally `supports`, `backward`, `deterministic`, `contract`.
///
/// # Errors
/// A line that names the key and what it held.
pub fn parse_profile(line: &str) -> Result<Profile, String> {
    let json: Value =
        serde_json::from_str(line).map_err(|_| format!("got `{}`, expected one JSON object", excerpt(line, 120)))?;
    let text = |key: &str| excerpt(json.get(key).and_then(Value::as_str).unwrap_or_default(), 120);
    let name = json.get("name").and_then(Value::as_str).ok_or("name: missing, expected text")?;
    let names = |key: &str| -> Result<Option<Vec<&str>>, String> {
        let Some(value) = json.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        list.map(Some)
            .ok_or_else(|| format!("{key}: got {}, expected a list of names", excerpt(&value.to_string(), 120)))
    };
    let flag = |key: &str, default: bool| match json.get(key) {
        None => Ok(default),
        Some(value) => {
            let wrong = || format!("{key}: got {}, expected true or false", excerpt(&value.to_string(), 120));
            value.as_bool().ok_or_else(wrong)
        }
    };
    let format = |key: &str, name: &str| {
        format_from_name(name)
            .ok_or_else(|| format!("{key}: got `{}`, expected f64, f32, f16 or bf16", excerpt(name, 120)))
    };
    let mut formats: Vec<Format> = Vec::new();
    for name in names("formats")?.ok_or("formats: missing, expected a list of names")? {
        let format = format("formats", name)?;
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    if formats.is_empty() {
        return Err("formats: got [], expected at least one of f64, f32, f16 or bf16".into());
    }
    let mut profile = Profile::new(&excerpt(name, 120), &text("version"), &formats);
    if let Some(supports) = names("supports")? {
        let feature = |name: &str| {
            Feature::from_name(name)
                .ok_or_else(|| format!("supports: got `{}`, expected a feature's name", excerpt(name, 120)))
        };
        profile.supports = supports.into_iter().map(feature).collect::<Result<_, _>>()?;
    }
    profile.backward = flag("backward", true)?;
    profile.deterministic = flag("deterministic", true)?;
    if let Some(contracts) = json.get("contract") {
        let contracts = contracts.as_object().ok_or("contract: expected an object with an entry a storage format")?;
        for (storage, fields) in contracts {
            profile.contracts.push(parse_contract(format("contract", storage)?, fields)?);
        }
    }
    Ok(profile)
}

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
