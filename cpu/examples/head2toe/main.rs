//! Head2Toe end to end: from activations of all layers of a frozen network to a head for another task, beside linear probing,
//! the best single layer, all features, random ones — and fine-tuning, where its figures are at hand.
//!
//! ```text
//! cargo run --release -p tilewright-cpu --example head2toe
//! python cpu/examples/head2toe/minilm.py --out DIR && cargo run --release -p tilewright-cpu --example head2toe -- --features DIR
//! ```
//!
//! Without arguments it runs on the small set that is in the repository. `minilm.py` makes the large ones; a folder of one's own
//! activations is as good (see `input.rs`).
#[path = "../shared/files.rs"]
mod files;
mod input;
mod methods;
mod plot;
mod report;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use input::{FineTuned, Set};
use methods::Outcome;
use std::path::{Path, PathBuf};
use tilewright_grouplasso::grid::Grid;
use tilewright_grouplasso::head2toe::Settings;
use tilewright_grouplasso::{Normalise, Stopping};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lengths {
    /// No.
    None,
    /// Of the features kept, so that selection changes it: as the paper does.
    Kept,
    /// Of all features of a layer.
    Layer,
    /// No: features of mean 0 and variance 1.
    PerFeature,
}

/// Selects features of all layers by the group lasso, and trains a linear head on them.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder of folders with train.safetensors, test.safetensors (or .npz) and about.json; the small set if absent.
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Only these tasks.
    #[arg(long, num_args = 1.., value_name = "TASK")]
    tasks: Vec<String>,
    /// Folds of the cross-validation.
    #[arg(long, default_value_t = 5)]
    folds: usize,
    /// Relative gap to which scores are solved.
    #[arg(long, default_value_t = 1e-6)]
    gap: f64,
    /// Whether each layer of a sample is made one unit long.
    #[arg(long, value_enum, default_value = "layer")]
    normalise: Lengths,
    /// Seed of the folds and of the random features.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Figures of fine-tuning, as minilm.py writes them; ours if absent.
    #[arg(long, value_name = "FILE")]
    finetuned: Option<PathBuf>,
    /// Save the heads in this folder.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Write everything that was found out.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Work on nothing: print and draw what these files, written with --json, hold together.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["features", "save"])]
    from: Vec<PathBuf>,
    /// Draw how many features each layer keeps.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Arguments {
    fn settings(&self) -> Settings {
        let normalise = match self.normalise {
            Lengths::None => Normalise::None,
            Lengths::Kept => Normalise::Kept,
            Lengths::Layer => Normalise::Layer,
            Lengths::PerFeature => Normalise::PerFeature,
        };
        let selection = Stopping { gap: self.gap, ..Stopping::default() };
        Settings { normalise, selection, ..Settings::default() }
    }

    fn sets(&self) -> Result<Vec<PathBuf>> {
        let Some(folder) = &self.features else {
            return Ok(vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/head2toe/small")]);
        };
        if folder.join("about.json").exists() {
            return Ok(vec![folder.clone()]);
        }
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut sets: Vec<PathBuf> = paths?.into_iter().filter(|path| path.join("about.json").exists()).collect();
        sets.sort();
        ensure!(!sets.is_empty(), "{}: no folder in it has an about.json", folder.display());
        Ok(sets)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let fine_tuned = FineTuned::read(arguments.finetuned.as_deref())?;
    let mut outcomes = if arguments.from.is_empty() { work(&arguments)? } else { report::read_json(&arguments.from)? };
    for outcome in &mut outcomes {
        outcome.fine_tuned = fine_tuned.of(&outcome.task, &outcome.seed, outcome.samples);
    }
    report::print(&outcomes, &fine_tuned);
    if let Some(path) = &arguments.json {
        report::write_json(path, &outcomes)?;
    }
    if let Some(path) = &arguments.svg {
        plot::draw(path, &outcomes)?;
    }
    Ok(())
}

/// All tasks of all sets. Everything is opened and checked before anything is worked on.
fn work(arguments: &Arguments) -> Result<Vec<Outcome>> {
    let (settings, grid) = (arguments.settings(), Grid::default());
    let sets: Result<Vec<Set>, _> = arguments.sets()?.iter().map(|path| Set::check(path, &arguments.tasks)).collect();
    let sets = sets?;
    let tasks: usize = sets.iter().map(|set| set.tasks().len()).sum();
    ensure!(tasks > 0, "no set has a task of those asked for");
    if let Some(folder) = &arguments.save {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let bar = ProgressBar::new((tasks * methods::stages(&grid, arguments.folds)) as u64);
    bar.set_style(ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {elapsed}")?);
    let mut outcomes = Vec::with_capacity(tasks);
    for set in &sets {
        let features = set.read()?;
        for task in set.tasks() {
            bar.set_message(format!("{} {}", task, set.seed()));
            let (folds, seed, save) = (arguments.folds, arguments.seed, arguments.save.as_deref());
            let work = methods::Work { settings, grid: &grid, folds, seed, bar: &bar, save };
            outcomes.push(work.run(set, &features, task).with_context(|| format!("{task} {}", set.seed()))?);
        }
    }
    bar.finish_and_clear();
    Ok(outcomes)
}
