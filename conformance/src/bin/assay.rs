//! `assay`: puts attention kernels on trial, and the trial itself.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tilewright_conformance::attention::case::Case;
use tilewright_conformance::attention::in_process::InProcess;
use tilewright_conformance::attention::oracle;
use tilewright_conformance::attention::suite::{self, FORMATS, Suite};
use tilewright_conformance::attention::trial::Prepared;
use tilewright_conformance::kill::{KillMatrix, kill_matrix};
use tilewright_conformance::process::Process;
use tilewright_conformance::report::{Report, hold_trial, new_table};
use tilewright_conformance::{Profile, Subject};
use tilewright_cpu::CpuAttention;
use tilewright_scalar::Format;

#[derive(Parser)]
#[command(
    name = "assay",
    version,
    about = "Puts attention kernels on trial: derived error bounds, generated and recorded inputs, metamorphic laws."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Job>,
}

#[derive(Subcommand)]
enum Job {
    /// Try a backend, or a program of your own, on a suite of cases (this is also what happens without a command).
    Run(RunArgs),
    /// Try the suite: every planted bug must be caught, no correct variant rejected.
    Mutants(MutantsArgs),
    /// Answer the attention problems of a safetensors file, with the error bound of every element.
    Oracle(OracleArgs),
    /// List the cases of a suite and what each is evidence for.
    List(ListArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Family {
    Attention,
}

#[derive(Clone, Copy, ValueEnum)]
enum SuiteName {
    Quick,
    Full,
    Extensive,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Quick => Self::Quick,
            SuiteName::Full => Self::Full,
            SuiteName::Extensive => Self::Extensive,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SubjectName {
    /// The CPU backend.
    Cpu,
}

#[derive(Args)]
struct RunArgs {
    /// A backend of this build.
    #[arg(long, value_enum, conflicts_with = "cmd")]
    subject: Option<SubjectName>,
    /// A program that speaks the line protocol (see the documentation, "Your kernel on trial").
    #[arg(long, value_name = "PROGRAM …")]
    cmd: Option<String>,
    /// Family of algorithms.
    #[arg(long, value_enum, default_value = "attention")]
    family: Family,
    /// How many cases.
    #[arg(long, value_enum, default_value = "quick")]
    suite: SuiteName,
    /// Only this case; may be given several times.
    #[arg(long, value_name = "ID")]
    case: Vec<Case>,
    /// Shifts all data and picks other random combinations.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    seed: u32,
    /// Also write the verdicts as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds a program may take over one case.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86400))]
    time_limit: u64,
}

#[derive(Args)]
struct MutantsArgs {
    /// Family of algorithms.
    #[arg(long, value_enum, default_value = "attention")]
    family: Family,
    /// `quick`: that suite alone. `full`: the full suite for the variants and for whatever quick did not kill.
    #[arg(long, value_enum, default_value = "full")]
    suite: SuiteName,
    /// Shifts all data.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    seed: u32,
    /// Also write the kill matrix as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct OracleArgs {
    /// Family of algorithms.
    #[arg(value_enum)]
    family: Family,
    /// Problems and their tensors.
    #[arg(value_name = "IN.safetensors")]
    input: PathBuf,
    /// Where the answers go.
    #[arg(value_name = "OUT.safetensors")]
    output: PathBuf,
}

#[derive(Args)]
struct ListArgs {
    /// Family of algorithms.
    #[arg(long, value_enum, default_value = "attention")]
    family: Family,
    /// Which suite.
    #[arg(long, value_enum, default_value = "quick")]
    suite: SuiteName,
    /// Shifts all data.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    seed: u32,
}

fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16).map_err(|_| format!("got `{text}`, expected up to eight hexadecimal digits"))
}

/// Exit codes: 0 the gate holds, 1 it does not, 2 the job could not be done as asked.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => RunArgs::try_parse_from_nothing().and_then(|args| run(&args)),
        Some(Job::Run(args)) => run(&args),
        Some(Job::Mutants(args)) => mutants(&args),
        Some(Job::Oracle(args)) => answer(&args),
        Some(Job::List(args)) => list(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // A closed pipe (`assay list | head`) is no error of ours.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assay: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

impl RunArgs {
    /// The defaults of `assay run`.
    fn try_parse_from_nothing() -> anyhow::Result<Self> {
        match Cli::try_parse_from(["assay", "run"])?.command {
            Some(Job::Run(args)) => Ok(args),
            _ => bail!("no defaults"),
        }
    }
}

fn progress(len: usize, what: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(len as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} cases, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what.to_string());
    bar
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A JSON report in the making: a temporary file beside its target, so that no reader ever sees half a report and a
/// place that cannot be written shows before the trial and not after it.
struct JsonReport {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl JsonReport {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(directory).with_context(|| path.display().to_string())?;
        Ok(Self { file, path: path.into() })
    }

    fn write(mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        let name = || self.path.display().to_string();
        serde_json::to_writer_pretty(&mut self.file, value).with_context(name)?;
        self.file.write_all(b"\n").with_context(name)?;
        self.file.persist(&self.path).with_context(name)?;
        Ok(())
    }
}

fn run(args: &RunArgs) -> anyhow::Result<bool> {
    use std::fmt::Write as _;
    let Family::Attention = args.family;
    let json = args.json.as_deref().map(JsonReport::create).transpose()?;
    let mut subject: Box<dyn Subject> = match &args.cmd {
        Some(command) => Box::new(
            Process::start(command, Duration::from_secs(args.time_limit))
                .with_context(|| format!("--cmd '{command}'"))?,
        ),
        None => Box::new(cpu_subject()),
    };
    let chosen = !args.case.is_empty();
    let cases = if chosen { args.case.clone() } else { suite::cases(args.suite.into(), args.seed) };
    let mut report = trial(subject.as_mut(), &cases)?;
    report.invocation = args.cmd.as_ref().map_or("--subject cpu".into(), |command| format!("--cmd '{command}'"));
    let mut text = report.to_text();
    let unproven = if chosen { Vec::new() } else { report.without_evidence() };
    for (feature, format) in &unproven {
        let name = feature.name();
        let _ = writeln!(text, "no conforming case is evidence for {name} in {format}, which the profile declares");
    }
    // A refusal of something declared is the subject's broken word; of something it never declared, a fact.
    let refused = report.unsupported.iter().any(|(why, _)| !why.starts_with("does not declare"));
    if refused {
        text += "it refuses cases of what its profile declares: see the lines marked unsupported\n";
    }
    let holds = report.passes() && unproven.is_empty() && !refused;
    let verdict = if holds { style("conforms").green() } else { style("DOES NOT CONFORM").red() };
    let _ = writeln!(text, "\nverdict: {verdict}");
    if let Some(json) = json {
        json.write(&json!({"subjects": [report.to_json()], "violations": report.violations_json()}))?;
    }
    conclude(&text, holds)
}

/// Prints a verdict. Nobody may be listening any more, which does not make it a better one.
fn conclude(text: &str, holds: bool) -> anyhow::Result<bool> {
    match say(text) {
        Err(error) if !is_closed_pipe(&error) => Err(error),
        _ => Ok(holds),
    }
}

fn cpu_subject() -> InProcess<CpuAttention> {
    let backend = CpuAttention::default();
    let mut profile = Profile::new("tilewright-cpu", env!("CARGO_PKG_VERSION"), &FORMATS);
    profile.contracts = FORMATS.iter().map(|format: &Format| backend.contract(*format)).collect();
    InProcess::new(backend, profile)
}

fn trial(subject: &mut dyn Subject, cases: &[Case]) -> anyhow::Result<Report> {
    let bar = progress(cases.len(), "trial");
    let report = hold_trial(subject, cases, || bar.inc(1)).map_err(anyhow::Error::msg)?;
    bar.finish_and_clear();
    Ok(report)
}

/// Cases listed at a time.
const CHUNK: usize = 32;

fn mutants(args: &MutantsArgs) -> anyhow::Result<bool> {
    let Family::Attention = args.family;
    let json = args.json.as_deref().map(JsonReport::create).transpose()?;
    let all: Vec<_> = tilewright_mutants::mutants().iter().collect();
    let quick_cases = suite::cases(Suite::Quick, args.seed);
    let bar = progress(quick_cases.len(), "quick suite");
    let mut matrix =
        kill_matrix(&all, tilewright_mutants::variants(), &quick_cases, || bar.inc(1)).map_err(anyhow::Error::msg)?;
    bar.finish_and_clear();
    let quick_killed = matrix.killed();
    if !matches!(args.suite, SuiteName::Quick) {
        let survivors: Vec<_> =
            matrix.mutants.iter().filter(|(_, record)| !record.rejected()).map(|(m, _)| *m).collect();
        let rest: Vec<Case> =
            suite::cases(args.suite.into(), args.seed).into_iter().filter(|case| !quick_cases.contains(case)).collect();
        let bar = progress(rest.len(), "full suite");
        matrix.extend(
            kill_matrix(&survivors, tilewright_mutants::variants(), &rest, || bar.inc(1))
                .map_err(anyhow::Error::msg)?,
        );
        bar.finish_and_clear();
    }
    if let Some(json) = json {
        let mut value = matrix.to_json();
        value["mutants"]["killed_by_quick"] = quick_killed.into();
        json.write(&value)?;
    }
    let total = matrix.mutants.len();
    let quick_holds = quick_killed * 100 >= total * 95;
    let full_holds = matches!(args.suite, SuiteName::Quick) || matrix.killed() == total;
    let holds = quick_holds && full_holds && matrix.false_rejects() == 0;
    conclude(&matrix_text(&matrix, quick_killed, args.suite), holds)
}

fn matrix_text(matrix: &KillMatrix, quick_killed: usize, suite: SuiteName) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut table = new_table();
    table.set_header(["id", "planted bug", "cases", "killed by", "reveals itself on"]);
    for (mutant, record) in &matrix.mutants {
        let kinds: Vec<String> = record.rejections.iter().map(|(kind, n)| format!("{} {n}", kind.name())).collect();
        let verdict = if record.rejected() { kinds.join(", ") } else { "SURVIVES".into() };
        table.add_row([
            mutant.id.to_string(),
            mutant.name.into(),
            record.cases.to_string(),
            verdict,
            mutant.trigger.into(),
        ]);
    }
    let _ = writeln!(text, "{table}");
    let mut table = new_table();
    table.set_header(["correct variant", "cases", "elements", "error/bound", "error/spread", "rejected by"]);
    for (control, record) in &matrix.controls {
        let kinds: Vec<String> = record.rejections.iter().map(|(kind, n)| format!("{} {n}", kind.name())).collect();
        table.add_row([
            control.name.to_string(),
            record.cases.to_string(),
            record.elements.to_string(),
            format!("{:.3}", record.bound_ratio),
            format!("{:.3}", record.spread_ratio),
            if record.rejected() { kinds.join(", ") } else { "–".into() },
        ]);
    }
    let _ = writeln!(text, "{table}");
    for (control, record) in matrix.controls.iter().filter(|(_, record)| record.rejected()) {
        let _ = writeln!(text, "FALSE REJECT {}: {}", control.name, record.example.as_deref().unwrap_or_default());
    }
    let total = matrix.mutants.len();
    let _ = writeln!(text, "quick suite: {quick_killed} of {total} planted bugs killed");
    if !matches!(suite, SuiteName::Quick) {
        let _ = writeln!(text, "with the full suite: {} of {total}", matrix.killed());
    }
    let (rejected, controls, elements) = (matrix.false_rejects(), matrix.controls.len(), matrix.control_elements());
    let _ = writeln!(text, "false rejects: {rejected} of {controls} correct variants, {elements} elements judged");
    text
}

fn answer(args: &OracleArgs) -> anyhow::Result<bool> {
    let Family::Attention = args.family;
    let bar = ProgressBar::new_spinner();
    let count = oracle::answer(&args.input, &args.output, |done, total| {
        if std::io::stderr().is_terminal() {
            bar.set_message(format!("{done} of {total} problems"));
            bar.tick();
        }
    })?;
    bar.finish_and_clear();
    say(&format!("{count} problems answered in {}\n", args.output.display()))?;
    Ok(true)
}

fn list(args: &ListArgs) -> anyhow::Result<bool> {
    let Family::Attention = args.family;
    let cases = suite::cases(args.suite.into(), args.seed);
    for chunk in cases.chunks(CHUNK) {
        let lines: Vec<String> = chunk
            .par_iter()
            .map(|case| {
                let prepared = Prepared::new(case, &tilewright_attention::Contract::strict(case.format), true)?;
                let aims: BTreeSet<&str> = prepared.evidence.iter().map(|evidence| evidence.decoy).collect();
                let aims: Vec<&str> = aims.into_iter().collect();
                Ok(format!(
                    "{case}\n    rejects: {}\n",
                    if aims.is_empty() { "nothing".into() } else { aims.join("; ") }
                ))
            })
            .collect::<Result<_, String>>()
            .map_err(anyhow::Error::msg)?;
        say(&lines.concat())?;
    }
    Ok(true)
}
