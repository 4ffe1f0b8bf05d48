//! What attention costs on this machine: time and memory against standard attention over the length of the sequence, what a
//! second thread brings, and what options cost.
//!
//! ```text
//! cargo run --release -p tilewright-cpu --example attention_cost -- curves --json curves.json --svg curves.svg
//! cargo run --release -p tilewright-cpu --example attention_cost -- threads
//! cargo run --release -p tilewright-cpu --example attention_cost -- options
//! ```
//!
//! What is compared takes turns. Tables are printed as Markdown.
#[path = "../../tests/counting/mod.rs"]
mod counting;
mod curves;
#[path = "../shared/files.rs"]
mod files;
mod options;
mod plot;
mod problem;
mod threads;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Measures attention on the CPU.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU time and peak memory of one thread, against standard attention, by length.
    Curves(curves::Settings),
    /// Wall time of two threads against one.
    Threads(threads::Settings),
    /// CPU time of a visible pair under each option of the specification, against one without.
    Options(options::Settings),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Curves(settings) => curves::run(&settings),
        What::Threads(settings) => threads::run(&settings),
        What::Options(settings) => options::run(&settings),
    }
}
