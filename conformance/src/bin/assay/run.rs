//! `assay run`.

use crate::args::{self, AnyCase, Family, RunArgs, SubjectName, SuiteName};
use crate::gpu;
use crate::output::{JsonReport, conclude, is_closed_pipe, progress, say};
use crate::subjects::Backend;
use anyhow::{Context, Error};
use console::style;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use tilewright_conformance::suite::{next, smallest};
use tilewright_conformance::{Report, SubjectError, Suite, attention, compression, grouplasso};
use tilewright_cuda::CudaError;

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let families = args.families()?;
    let json = args.json.as_deref().map(JsonReport::create).transpose()?;
    let mut findings = Findings::default();
    match &args.cmd {
        Some(command) => findings.add(&try_program(args, &families, command)?, args)?,
        None => args.subjects().into_iter().try_for_each(|name| try_backend(args, &families, name, &mut findings))?,
    }
    if let Some(json) = json {
        json.write(&findings.to_json())?;
    }
    findings.conclude()
}

/// What was found, about every subject.
#[derive(Default)]
struct Findings {
    conform: usize,
    fail: usize,
    /// Who was not tried, and why.
    absent: Vec<(String, String)>,
    subjects: Vec<Value>,
    violations: Vec<Value>,
}

impl Findings {
    /// Prints and counts what was found about one subject.
    fn add(&mut self, reports: &[Report], args: &RunArgs) -> anyhow::Result<()> {
        let (mut text, mut holds) = (String::new(), true);
        for report in reports {
            holds &= tell(report, !args.case.is_empty(), &mut text);
            self.subjects.push(report.to_json());
            self.violations.extend(report.violations_json());
        }
        let verdict = if holds { style("conforms").green() } else { style("DOES NOT CONFORM").red() };
        let _ = writeln!(text, "\nverdict: {verdict}");
        self.count(holds);
        print(&text)
    }

    fn count(&mut self, holds: bool) {
        *if holds { &mut self.conform } else { &mut self.fail } += 1;
    }

    /// Prints and counts what other processes found about one subject.
    fn merge(&mut self, parts: Vec<gpu::Found>) -> anyhow::Result<()> {
        self.count(parts.iter().all(|part| part.holds));
        for mut part in parts {
            print(&format!("\n{}", part.text))?;
            let mut list = |key: &str| part.json.as_mut()?[key].as_array_mut().map(std::mem::take);
            let (subjects, violations) = (list("subjects"), list("violations"));
            self.subjects.extend(subjects.into_iter().flatten());
            self.violations.extend(violations.into_iter().flatten());
        }
        Ok(())
    }

    fn absent(&mut self, name: SubjectName, why: String) -> anyhow::Result<()> {
        let name = args::name(name);
        print(&format!("\n{name}: not tried: {why}\n\n"))?;
        self.absent.push((name, why));
        Ok(())
    }

    fn to_json(&self) -> Value {
        let absent: Vec<_> = self.absent.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        json!({"subjects": self.subjects, "violations": self.violations, "not_tried": absent})
    }

    /// Of several subjects, how many are what.
    fn conclude(&self) -> anyhow::Result<bool> {
        let holds = self.fail == 0;
        let (conform, fail, absent) = (self.conform, self.fail, self.absent.len());
        let text = if conform + fail + absent > 1 {
            format!("\nbackends: {conform} conform, {fail} do not, {absent} not tried\n")
        } else {
            String::new()
        };
        conclude(&text, holds)
    }
}

/// Prints; that nobody listens any more is no reason to stop.
fn print(text: &str) -> anyhow::Result<()> {
    say(text).or_else(|error| if is_closed_pipe(&error) { Ok(()) } else { Err(error) })
}

/// Adds what a report says to a text, and whether it is good enough. `chosen` cases need not be evidence for everything.
fn tell(report: &Report, chosen: bool, text: &mut String) -> bool {
    if !text.is_empty() {
        text.push('\n');
    }
    *text += &report.to_text();
    let unproven = if chosen { Vec::new() } else { report.without_evidence() };
    for (feature, column) in &unproven {
        let _ = writeln!(text, "no conforming case is evidence for {feature} in {column}, which the profile declares");
    }
    // A refusal of something declared is the subject's broken word; of something it never declared, a fact.
    if report.broken_word() {
        *text += "it refuses cases of what its profile declares: see the lines marked unsupported\n";
    }
    report.passes() && unproven.is_empty() && !report.broken_word()
}

fn try_backend(args: &RunArgs, families: &[Family], name: SubjectName, findings: &mut Findings) -> anyhow::Result<()> {
    // Of several backends one may not be there; the one that was asked for must be.
    let chosen = args.subject.is_some();
    let families = &Backend::families(name, families, chosen && (args.family.is_some() || !args.case.is_empty()))?[..];
    if families.is_empty() {
        return Ok(());
    }
    if name == SubjectName::Softgpu && !gpu::is_for_software() {
        if !chosen && !gpu::is_software_built() {
            return findings.absent(name, gpu::NOT_BUILT.into());
        }
        return findings.merge(gpu::in_own_processes(args, families)?);
    }
    let backend = match Backend::open(name) {
        Err(error) if !chosen && error.downcast_ref::<CudaError>().is_some_and(CudaError::is_absence) => {
            return findings.absent(name, error.to_string());
        }
        backend => backend?,
    };
    let invocation = format!("--subject {}", args::name(name));
    let slow = backend.is_slow();
    let reports = families.iter().map(|family| match family {
        Family::Attention => try_attention(args, backend.attention(), slow, &invocation),
        Family::Compression => try_compression(args, backend.compression()?, slow, &invocation),
        Family::Grouplasso => try_grouplasso(args, backend.grouplasso()?, slow, &invocation),
    });
    findings.add(&reports.collect::<anyhow::Result<Vec<_>>>()?, args)
}

fn try_program(args: &RunArgs, families: &[Family], command: &str) -> anyhow::Result<Vec<Report>> {
    let limit = Duration::from_secs(args.time_limit);
    let invocation = format!("--cmd '{command}'");
    let reports = families.iter().map(|family| match family {
        Family::Attention => {
            let program = started(command, attention::process::Process::start(command, limit))?;
            try_attention(args, Box::new(program), false, &invocation)
        }
        Family::Compression => {
            let program = started(command, compression::process::Process::start(command, limit))?;
            try_compression(args, Box::new(program), false, &invocation)
        }
        Family::Grouplasso => {
            let program = started(command, grouplasso::process::Process::start(command, limit))?;
            try_grouplasso(args, Box::new(program), false, &invocation)
        }
    });
    reports.collect()
}

fn started<T>(command: &str, process: Result<T, SubjectError>) -> anyhow::Result<T> {
    process.with_context(|| format!("--cmd '{command}'"))
}

/// Defines a family's trial: the cases named, or those of the suite. A slow subject gets the suite before the one asked for,
/// and of the quick one the smallest cases, then others until there is evidence for everything.
macro_rules! trial {
    ($name:ident, $family:ident, $variant:ident, $title:literal) => {
        fn $name(
            args: &RunArgs,
            mut subject: Box<dyn $family::Subject>,
            slow: bool,
            invocation: &str,
        ) -> anyhow::Result<Report> {
            use $family::{report::hold_trial, suite};
            let bar = progress(0, $title);
            let mut put = |cases: &[_]| {
                bar.inc_length(cases.len() as u64);
                hold_trial(subject.as_mut(), cases, || bar.inc(1)).map_err(Error::msg)
            };
            let given = args.case.iter().filter_map(|case| match case {
                AnyCase::$variant(case) => Some(case.clone()),
                _ => None,
            });
            let given: Vec<_> = given.collect();
            let mut report = match (args.suite, slow) {
                _ if !given.is_empty() => put(&given)?,
                (suite, false) => put(&suite::cases(suite.into(), args.seed))?,
                (SuiteName::Extensive, true) => put(&suite::cases(Suite::Full, args.seed))?,
                (SuiteName::Full, true) => put(&suite::cases(Suite::Quick, args.seed))?,
                (SuiteName::Quick, true) => {
                    let all = suite::cases(Suite::Quick, args.seed);
                    let mut tried = smallest(&all);
                    let mut report = put(&tried)?;
                    for _ in 0..MORE {
                        let more = next(&all, &tried, &report.without_evidence());
                        if more.is_empty() {
                            break;
                        }
                        report.absorb(put(&more)?);
                        tried.extend(more);
                    }
                    report
                }
            };
            bar.finish_and_clear();
            report.invocation = invocation.into();
            Ok(report)
        }
    };
}

/// How often more cases are tried where evidence is missing.
const MORE: usize = 8;

trial!(try_attention, attention, Attention, "attention");
trial!(try_compression, compression, Compression, "compression");
trial!(try_grouplasso, grouplasso, GroupLasso, "group lasso");
