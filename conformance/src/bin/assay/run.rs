//! `assay run`.

use crate::args::{AnyCase, Family, RunArgs, SubjectName};
use crate::output::{JsonReport, conclude, progress};
use anyhow::{Context, Error};
use console::style;
use serde_json::json;
use std::fmt::Write as _;
use std::time::Duration;
use tilewright_conformance::{Report, attention, compression, grouplasso};
use tilewright_cpu::{CpuAttention, CpuCompressor, CpuGroupLasso};

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let families = args.families()?;
    let json = args.json.as_deref().map(JsonReport::create).transpose()?;
    let (mut text, mut holds) = (String::new(), true);
    let mut reports = Vec::new();
    for family in families {
        let mut report = match family {
            Family::Attention => try_attention(args)?,
            Family::Compression => try_compression(args)?,
            Family::Grouplasso => try_grouplasso(args)?,
        };
        report.invocation = args.cmd.as_ref().map_or_else(
            || format!("--subject {}", args.subject.unwrap_or_default().name()),
            |command| format!("--cmd '{command}'"),
        );
        holds &= tell(&report, !args.case.is_empty(), &mut text);
        reports.push(report);
    }
    let verdict = if holds { style("conforms").green() } else { style("DOES NOT CONFORM").red() };
    let _ = writeln!(text, "\nverdict: {verdict}");
    if let Some(json) = json {
        let subjects: Vec<_> = reports.iter().map(Report::to_json).collect();
        let violations: Vec<_> = reports.iter().flat_map(Report::violations_json).collect();
        json.write(&json!({"subjects": subjects, "violations": violations}))?;
    }
    conclude(&text, holds)
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

fn cpu_attention() -> attention::in_process::InProcess<CpuAttention> {
    let (backend, formats) = (CpuAttention::default(), attention::suite::FORMATS);
    let mut profile = attention::Profile::new("tilewright-cpu", env!("CARGO_PKG_VERSION"), &formats);
    profile.contracts = formats.iter().map(|format| backend.contract(*format)).collect();
    attention::in_process::InProcess::new(backend, profile)
}

/// Which candidate stays where any may is up to its threads.
fn cpu_compressor() -> compression::in_process::InProcess<CpuCompressor> {
    let profile = compression::Profile::new("tilewright-cpu", env!("CARGO_PKG_VERSION"));
    let profile = compression::Profile { deterministic: false, ..profile };
    compression::in_process::InProcess::new(CpuCompressor::default(), profile)
}

fn cpu_grouplasso() -> grouplasso::in_process::InProcess<CpuGroupLasso> {
    let profile = grouplasso::Profile::new("tilewright-cpu", env!("CARGO_PKG_VERSION"));
    grouplasso::in_process::InProcess::new(CpuGroupLasso, profile)
}

fn try_attention(args: &RunArgs) -> anyhow::Result<Report> {
    use attention::{Subject, process::Process, report::hold_trial, suite};
    let mut subject: Box<dyn Subject> = match &args.cmd {
        Some(command) => Box::new(started(command, Process::start(command, Duration::from_secs(args.time_limit)))?),
        None if args.subject == Some(SubjectName::Reference) => Box::new(attention_reference()),
        None => Box::new(cpu_attention()),
    };
    let given = args.case.iter().filter_map(|case| match case {
        AnyCase::Attention(case) => Some(case.clone()),
        _ => None,
    });
    let mut cases: Vec<_> = given.collect();
    if cases.is_empty() {
        cases = suite::cases(args.suite.into(), args.seed);
    }
    let bar = progress(cases.len(), "attention");
    let report = hold_trial(subject.as_mut(), &cases, || bar.inc(1)).map_err(Error::msg)?;
    bar.finish_and_clear();
    Ok(report)
}

fn try_compression(args: &RunArgs) -> anyhow::Result<Report> {
    use compression::{Subject, process::Process, report::hold_trial, suite};
    let mut subject: Box<dyn Subject> = match &args.cmd {
        Some(command) => Box::new(started(command, Process::start(command, Duration::from_secs(args.time_limit)))?),
        None if args.subject == Some(SubjectName::Reference) => Box::new(compression_reference()),
        None => Box::new(cpu_compressor()),
    };
    let given = args.case.iter().filter_map(|case| match case {
        AnyCase::Compression(case) => Some(case.clone()),
        _ => None,
    });
    let mut cases: Vec<_> = given.collect();
    if cases.is_empty() {
        cases = suite::cases(args.suite.into(), args.seed);
    }
    let bar = progress(cases.len(), "compression");
    let report = hold_trial(subject.as_mut(), &cases, || bar.inc(1)).map_err(Error::msg)?;
    bar.finish_and_clear();
    Ok(report)
}

fn try_grouplasso(args: &RunArgs) -> anyhow::Result<Report> {
    use grouplasso::{Subject, process::Process, report::hold_trial, suite};
    let mut subject: Box<dyn Subject> = match &args.cmd {
        Some(command) => Box::new(started(command, Process::start(command, Duration::from_secs(args.time_limit)))?),
        None if args.subject == Some(SubjectName::Reference) => Box::new(grouplasso_reference()),
        None => Box::new(cpu_grouplasso()),
    };
    let given = args.case.iter().filter_map(|case| match case {
        AnyCase::GroupLasso(case) => Some(case.clone()),
        _ => None,
    });
    let mut cases: Vec<_> = given.collect();
    if cases.is_empty() {
        cases = suite::cases(args.suite.into(), args.seed);
    }
    let bar = progress(cases.len(), "group lasso");
    let report = hold_trial(subject.as_mut(), &cases, || bar.inc(1)).map_err(Error::msg)?;
    bar.finish_and_clear();
    Ok(report)
}

fn attention_reference() -> attention::in_process::InProcess<tilewright_attention::Flash> {
    let formats = attention::suite::FORMATS;
    let profile = attention::Profile::new("reference", env!("CARGO_PKG_VERSION"), &formats);
    attention::in_process::InProcess::new(tilewright_attention::Flash { memory: 4096 }, profile)
}

fn compression_reference() -> compression::in_process::InProcess<tilewright_compression::reference::Reference> {
    let profile = compression::Profile::new("reference", env!("CARGO_PKG_VERSION"));
    compression::in_process::InProcess::sequential(tilewright_compression::reference::Reference, profile)
}

/// References use no threads.
fn grouplasso_reference() -> grouplasso::in_process::InProcess<tilewright_grouplasso::reference::Reference> {
    let profile = grouplasso::Profile::new("reference", env!("CARGO_PKG_VERSION"));
    grouplasso::in_process::InProcess::sequential(tilewright_grouplasso::reference::Reference, profile)
}

fn started<T>(command: &str, process: Result<T, tilewright_conformance::SubjectError>) -> anyhow::Result<T> {
    process.with_context(|| format!("--cmd '{command}'"))
}
