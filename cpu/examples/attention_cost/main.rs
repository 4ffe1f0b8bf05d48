//! What attention costs on this machine: time and memory against standard attention over the length of the sequence, and what
//! a second thread brings.
//!
//! ```text
//! cargo run --release -p tilewright-cpu --example attention_cost -- curves --json curves.json --svg curves.svg
//! cargo run --release -p tilewright-cpu --example attention_cost -- threads
//! ```
//!
//! What is compared takes turns. Tables are printed as Markdown.
#[path = "../../tests/counting/mod.rs"]
mod counting;
mod curves;
#[path = "../shared/files.rs"]
mod files;
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
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Curves(settings) => curves::run(&settings),
        What::Threads(settings) => threads::run(&settings),
    }
}
