//! Data-parallel training on real data: handwritten digits, a perceptron of 301 066 weights, gradients that travel dense
//! or compressed between threads or MPI processes.
//!
//! ```text
//! cargo run --release -p tilewright-cpu --example digits -- --method dragonn --density 0.001
//! cargo run --release -p tilewright-cpu --example digits -- --compare --csv curves.csv --svg curves.svg
//! mpirun -n 4 target/release/examples/digits --engine mpi --method dragonn --density 0.001
//! ```
mod compare;
mod data;
mod engine;
mod model;
mod plot;
mod settings;
mod train;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use settings::{Index, Method, Moment, Settings, Value};
use std::path::PathBuf;
use train::{Outcome, dense_ring, model_bytes};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    Threads,
    Mpi,
}

/// Trains a perceptron on handwritten digits, data-parallel.
#[derive(Debug, Parser)]
struct Arguments {
    /// What ranks are.
    #[arg(long, value_enum, default_value = "threads")]
    engine: Engine,
    /// Number of ranks, if they are threads.
    #[arg(long, default_value_t = 4)]
    ranks: usize,
    /// How gradients travel.
    #[arg(long, value_enum, default_value = "dragonn")]
    method: Method,
    /// Share of the gradients that is sent in a step.
    #[arg(long, default_value_t = 0.001)]
    density: f64,
    /// Forget what was not sent.
    #[arg(long)]
    no_error_feedback: bool,
    /// What values travel as.
    #[arg(long, value_enum, default_value = "f32")]
    wire: Value,
    /// How indices are written.
    #[arg(long, value_enum, default_value = "rice")]
    index: Index,
    /// Tensors with fewer elements are not compressed.
    #[arg(long, default_value_t = 0)]
    dense_below: u64,
    /// Send as little as intended from the first step.
    #[arg(long)]
    no_warm_up: bool,
    /// Steps.
    #[arg(long, default_value_t = 400)]
    steps: u64,
    /// Images of a rank in a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Seed of the split, the weights, the batches and the compression.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// With --compare: seeds, counted from --seed.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Train with all methods, on threads, and print a table.
    #[arg(long)]
    compare: bool,
    /// Write the figures of all steps.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Draw the loss against the bytes.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Save the state, to this name with `.rankN` after it.
    #[arg(long, requires = "save_at")]
    save: Option<PathBuf>,
    /// After so many steps.
    #[arg(long, requires = "save")]
    save_at: Option<u64>,
    /// Continue from a saved state.
    #[arg(long)]
    resume: Option<PathBuf>,
    /// This rank vanishes in this step, without a word.
    #[arg(long, value_name = "RANK@STEP")]
    die: Option<Moment>,
    /// This rank fails in this step, and says so.
    #[arg(long, value_name = "RANK@STEP")]
    fail: Option<Moment>,
}

impl Arguments {
    fn settings(&self) -> Settings {
        Settings {
            method: self.method,
            density: self.density,
            error_feedback: !self.no_error_feedback,
            value: self.wire,
            index: self.index,
            dense_below: self.dense_below,
            warm_up: !self.no_warm_up,
            steps: self.steps,
            batch: self.batch,
            seed: self.seed,
            save: self.save.clone(),
            save_at: self.save_at,
            resume: self.resume.clone(),
            die: self.die,
            fail: self.fail,
        }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.ranks > 0 && arguments.batch > 0, "at least one rank and one image");
    let settings = arguments.settings();
    if arguments.compare {
        ensure!(arguments.engine == Engine::Threads, "--compare runs on threads");
        return compare::compare(
            &settings,
            arguments.ranks,
            arguments.seeds,
            arguments.csv.as_deref(),
            arguments.svg.as_deref(),
        );
    }
    let outcome = match arguments.engine {
        Engine::Threads => Some(engine::threads(&settings, arguments.ranks)?),
        Engine::Mpi => engine::mpi(&settings)?,
    };
    // Under MPI the first rank speaks for all.
    let Some(outcome) = outcome else { return Ok(()) };
    report(&settings, &outcome);
    if let Some(path) = &arguments.csv {
        compare::write_steps(path, &outcome)?;
    }
    if let Some(path) = &arguments.svg {
        plot::draw(path, &[plot::Curve::new(&settings, compare::curve(&[&outcome]))])?;
    }
    Ok(())
}

fn report(settings: &Settings, outcome: &Outcome) {
    let Some(last) = outcome.records.last() else { return };
    let (bytes, ring) = (|r: &train::Record| r.bytes, |r: &train::Record| r.ring_bytes);
    println!("{settings}");
    println!("accuracy on held-out images  {:.4}", outcome.accuracy);
    println!("loss, mean of last steps     {:.4}", outcome.loss());
    println!("bytes of a worker, all steps {:.0}", outcome.records.iter().map(bytes).sum::<f64>());
    println!("bytes of a worker a step     {:.0} after the warm-up", outcome.steady(settings, bytes));
    println!("with a ring for messages     {:.0}", outcome.steady(settings, ring));
    let dense = dense_ring(outcome.ranks, model_bytes());
    println!("in a dense ring              {dense:.0}, for a model of {:.0} bytes", model_bytes());
    println!("weights after the last step  {:016x}, the same on all ranks after every step", last.hash);
}
