//! A program in any language on trial: `--cmd`.
//!
//! The program is started once. Unasked, it writes one line of JSON, its profile, and then answers one line for each
//! line it reads:
//!
//! ```text
//! → {"case":ID, "family":FAMILY, "spec":{…}, "inputs":PATH, "outputs":PATH, …}
//! ← {"ok":true}  or  {"unsupported":"why"}  or  {"error":"what"}
//! ```
//!
//! Tensors travel in safetensors files. A crash or a time-out is a verdict on the case at hand; the next case starts
//! the program anew. What it writes to standard error is kept, and its last line goes into the verdict.
//!
//! What a profile declares, and what a request and the files hold, is each family's own:
//! [`attention::process`](crate::attention::process), [`compression::process`](crate::compression::process).

use crate::SubjectError;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest line taken from a program: a profile or an answer is far shorter, and a flood must not fill memory.
const LONGEST_LINE: u64 = 1 << 20;
/// Lines kept of a program that writes more than it is asked for; it waits once they are full.
const LINES_AHEAD: usize = 4;
/// How long a program that closed its output may take to end, and its last words to arrive.
const FAREWELL: Duration = Duration::from_millis(500);

/// An external program, started by a shell and started again when it has ended.
#[derive(Debug)]
pub struct Program {
    command: String,
    time_limit: Duration,
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
    /// How it ended, once it was waited for: from then on its number may be another's.
    reaped: Option<std::io::Result<ExitStatus>>,
}

impl Running {
    /// Ends the program, if it has not ended yet, and everything it started.
    fn end(&mut self) -> &std::io::Result<ExitStatus> {
        self.reaped.get_or_insert_with(|| {
            end(&mut self.child);
            self.child.wait()
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Program {
    /// Starts `command` by the shell; also returns its first line.
    ///
    /// # Errors
    /// [`SubjectError`] if it does not start, ends, or takes longer than `time_limit` to write that line.
    pub fn start(command: &str, time_limit: Duration) -> Result<(Self, String), SubjectError> {
        let directory =
            tempfile::tempdir().map_err(|error| SubjectError::Failed(format!("temporary directory: {error}")))?;
        let mut program = Self { command: command.into(), time_limit, running: None, directory };
        let profile = program.launch()?;
        Ok((program, profile))
    }

    /// Where the inputs of a request go, to be written before [`exchange`](Self::exchange).
    pub fn inputs(&self) -> PathBuf {
        self.directory.path().join("inputs.safetensors")
    }

    /// Where the program writes its outputs, to be read after [`exchange`](Self::exchange).
    pub fn outputs(&self) -> PathBuf {
        self.directory.path().join("outputs.safetensors")
    }

    /// One request and its answer, an object in which `ok` is true. The paths of inputs and outputs are added to the
    /// request; a program that has ended is started again.
    ///
    /// # Errors
    /// [`SubjectError`]: what the program says, or what became of it.
    pub fn exchange(&mut self, mut request: Value) -> Result<Value, SubjectError> {
        let outputs = self.outputs();
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
        request["inputs"] = json!(self.inputs());
        request["outputs"] = json!(outputs);
        if let Some(running) = &self.running {
            // If the writer is gone so is the program's end of the pipe, and the next line, or its absence, tells why.
            let _ = running.requests.send(request.to_string());
        }
        let answer = self.next_line()?;
        match parse_answer(&answer) {
            Ok(Reply::Done(answer)) => Ok(answer),
            Ok(Reply::Unsupported(why)) => Err(SubjectError::Unsupported(why)),
            Ok(Reply::Error(what)) => Err(SubjectError::Failed(what)),
            Err(error) => {
                // Whatever else it is about to say belongs to no request.
                self.running = None;
                Err(error)
            }
        }
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
        self.running = Some(Running { child, requests, lines, last_words, silence, reaped: None });
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

/// Ends the shell and everything it started. It must not have been waited for: until then its number, and that of its
/// group, is its own.
#[cfg(unix)]
fn end(child: &mut Child) {
    use rustix::process::{Signal, kill_process_group};
    if let Some(group) = group_of(child) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
}

#[cfg(not(unix))]
fn end(child: &mut Child) {
    let _ = child.kill();
}

#[cfg(unix)]
fn group_of(child: &Child) -> Option<rustix::process::Pid> {
    i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
}

/// Whether the shell has ended, without waiting for it: its number stays its own.
#[cfg(unix)]
fn has_ended(child: &mut Child) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    group_of(child).is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), look), Ok(None)))
}

#[cfg(not(unix))]
fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
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
    while !has_ended(&mut running.child) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = if has_ended(&mut running.child) {
        // Its group goes with it: what is left of it could hold the other end of standard error open.
        running.end().as_ref().map_or_else(ToString::to_string, ToString::to_string)
    } else {
        "closed its standard output".into()
    };
    let _ = running.silence.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let words = running.last_words.lock().map(|words| words.clone()).unwrap_or_default();
    if words.is_empty() { status } else { format!("{status}: {words}") }
}

enum Reply {
    Done(Value),
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
        Ok(Reply::Done(answer))
    } else {
        Err(confused())
    }
}

/// Longest part of a program's own words that goes into a report.
pub(crate) const LONGEST_REASON: usize = 400;

/// The beginning of a text as one line without control characters.
pub(crate) fn excerpt(text: &str, longest: usize) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(longest).collect()
}

/// A program's profile, read key by key.
pub(crate) struct ProfileLine {
    json: Value,
}

impl ProfileLine {
    /// Reads the line, which must be of the family on trial; one that names none is an attention kernel's, as all were
    /// before there were families.
    pub(crate) fn parse(line: &str, family: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(line)
            .map_err(|_| format!("got `{}`, expected one JSON object", excerpt(line, 120)))?;
        let said = json.get("family").map_or("attention", |family| family.as_str().unwrap_or_default());
        if said != family {
            return Err(format!("family: got `{}`, expected `{family}`", excerpt(said, 120)));
        }
        Ok(Self { json })
    }

    /// What stands at a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key)
    }

    /// The name, which every profile has.
    pub(crate) fn name(&self) -> Result<String, String> {
        self.get("name")
            .and_then(Value::as_str)
            .map(|name| excerpt(name, 120))
            .ok_or("name: missing, expected text".into())
    }

    /// Text, or nothing.
    pub(crate) fn text(&self, key: &str) -> String {
        excerpt(self.get(key).and_then(Value::as_str).unwrap_or_default(), 120)
    }

    /// A list of names, each of something `known`, if the key is there; doubles count once.
    pub(crate) fn names<T: PartialEq>(
        &self,
        key: &str,
        known: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<Vec<T>>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let list =
            list.ok_or_else(|| format!("{key}: got {}, expected a list of names", excerpt(&value.to_string(), 120)))?;
        let mut names = Vec::new();
        for name in list {
            let name =
                known(name).ok_or_else(|| format!("{key}: got `{}`, expected {expected}", excerpt(name, 120)))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Some(names))
    }

    /// The same for a key that must be there and not be empty.
    pub(crate) fn some_names<T: PartialEq>(
        &self,
        key: &str,
        known: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Vec<T>, String> {
        let names =
            self.names(key, known, expected)?.ok_or_else(|| format!("{key}: missing, expected a list of names"))?;
        if names.is_empty() { Err(format!("{key}: got [], expected at least one of {expected}")) } else { Ok(names) }
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let wrong = || format!("{key}: got {}, expected true or false", excerpt(&value.to_string(), 120));
        value.as_bool().ok_or_else(wrong)
    }
}
