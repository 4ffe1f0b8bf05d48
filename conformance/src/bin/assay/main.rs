//! `assay`: puts implementations on trial, the trial itself, and kernels.

mod args;
mod gpu;
mod list;
mod mutants;
mod oracle;
mod output;
mod run;
mod softgpu;
mod subjects;

use args::{Cli, Job, RunArgs};
use clap::Parser;
use std::process::ExitCode;

/// Exit codes: 0 the gate holds, 1 it does not, 2 the job could not be done as asked.
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        None => RunArgs::defaults().and_then(|args| run::run(&args)),
        Some(Job::Run(args)) => run::run(&args),
        Some(Job::Mutants(args)) => mutants::mutants(&args),
        Some(Job::Oracle(args)) => oracle::answer(&args),
        Some(Job::List(args)) => list::list(&args),
        Some(Job::Softgpu(args)) => softgpu::softgpu(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // A closed pipe (`assay list | head`) is no error of ours.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assay: {error:#}");
            ExitCode::from(2)
        }
    }
}
