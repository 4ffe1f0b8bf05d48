//! What is printed and written.

use crate::files::write_whole;
use crate::input::FineTuned;
use crate::methods::Outcome;
use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A column of the table of accuracies.
type Column = (&'static str, fn(&Outcome) -> Option<f64>);

const METHODS: [Column; 7] = [
    ("linear probe", |o| Some(o.linear_probe)),
    ("best layer by CV", |o| Some(o.best_layer)),
    ("best layer by oracle", |o| Some(o.oracle_layer)),
    ("all features", |o| Some(o.all_features)),
    ("random features", |o| Some(o.random_features)),
    ("Head2Toe", |o| Some(o.head2toe)),
    ("fine-tuned", |o| o.fine_tuned.as_ref().map(|run| run.accuracy)),
];

/// Outcomes by task.
pub(crate) fn by_task(outcomes: &[Outcome]) -> BTreeMap<&str, Vec<&Outcome>> {
    let mut tasks = BTreeMap::<&str, Vec<&Outcome>>::new();
    for outcome in outcomes {
        tasks.entry(&outcome.task).or_default().push(outcome);
    }
    tasks
}

pub(crate) fn print(outcomes: &[Outcome], fine_tuned: &FineTuned) {
    println!("accuracy on test samples in percent, mean ± standard deviation over seeds\n{}\n", accuracies(outcomes));
    println!("features kept, by layer, all seeds\n{}\n", layers(outcomes));
    println!("selection and head, each task and seed\n{}\n", selections(outcomes));
    println!("cost beside a fine-tuned copy\n{}", costs(outcomes));
    println!(
        "A: operations of fine-tuning as it was run over those of selection and head; B: with the pass that makes the\n\
         activations; C: as B, but fine-tuning by the paper's 500 steps of 128. Searches for λ, number kept and ridge, and for\n\
         the learning rate, are in none of them. Fine-tuned: {}.",
        fine_tuned.recipe
    );
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn accuracies(outcomes: &[Outcome]) -> Table {
    let mut table = table(std::iter::once("task").chain(METHODS.map(|(name, _)| name)).map(String::from).collect());
    for (task, of) in by_task(outcomes) {
        let cells = METHODS.map(|(_, value)| {
            let values: Vec<f64> = of.iter().filter_map(|outcome| value(outcome)).collect();
            spread(&values)
        });
        table.add_row(std::iter::once(task.to_owned()).chain(cells));
    }
    table
}

/// In percent. A run alone has no deviation.
fn spread(values: &[f64]) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    match values.len() {
        0 => "–".into(),
        1 => format!("{:.1}", 100.0 * mean),
        _ => format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * (squares / (count - 1.0)).sqrt()),
    }
}

fn layers(outcomes: &[Outcome]) -> Table {
    let tasks = by_task(outcomes);
    let mut table = table(std::iter::once("layer").chain(tasks.keys().copied()).map(String::from).collect());
    // By name: sets need not come from one network.
    let mut rows = Vec::<(&str, BTreeMap<&str, usize>)>::new();
    for outcome in outcomes {
        for (layer, kept) in &outcome.selection.layers {
            let at = rows.iter().position(|(name, _)| name == layer).unwrap_or_else(|| {
                rows.push((layer, BTreeMap::new()));
                rows.len() - 1
            });
            *rows[at].1.entry(&outcome.task).or_default() += kept;
        }
    }
    for (layer, counts) in rows {
        let cells = tasks.keys().map(|task| counts.get(task).map_or("–".into(), ToString::to_string));
        table.add_row(std::iter::once(layer.to_owned()).chain(cells));
    }
    table
}

fn selections(outcomes: &[Outcome]) -> Table {
    let header = [
        "task",
        "seed",
        "λ",
        "active",
        "kept",
        "of",
        "ridge",
        "gap",
        "head's gap",
        "CV s",
        "then s",
        "probe",
        "Head2Toe",
    ];
    let mut table = table(header.map(String::from).into());
    for outcome in outcomes {
        let s = &outcome.selection;
        table.add_row([
            outcome.task.clone(),
            outcome.seed.clone(),
            format!("{:.2e}", s.lambda),
            s.active.to_string(),
            s.kept.to_string(),
            outcome.features.to_string(),
            s.ridge.to_string(),
            format!("{:.0e}", s.gap),
            format!("{:.0e}", s.head_gap),
            format!("{:.1}", s.cross_validation_seconds),
            format!("{:.2}", s.seconds),
            format!("{:.1}", 100.0 * outcome.linear_probe),
            format!("{:.1}", 100.0 * outcome.head2toe),
        ]);
    }
    table
}

fn costs(outcomes: &[Outcome]) -> Table {
    let header = ["task", "seed", "bytes", "of a copy", "smaller by", "GFLOP", "of fine-tuning", "A", "B", "C"];
    let mut table = table(header.map(String::from).into());
    for outcome in outcomes {
        let s = &outcome.selection;
        let (tuning, embedding) = (outcome.fine_tuning_operations(), s.embedding_operations.unwrap_or(0.0));
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".into());
        table.add_row([
            outcome.task.clone(),
            outcome.seed.clone(),
            s.bytes.to_string(),
            or_dash(s.copy_bytes.map(|bytes| bytes.to_string())),
            or_dash(s.copy_bytes.map(|bytes| format!("{:.0} ×", bytes as f64 / s.bytes as f64))),
            format!("{:.2}", s.operations / 1e9),
            or_dash(tuning.map(|all| format!("{:.0}", all / 1e9))),
            or_dash(tuning.map(|all| format!("{:.0} ×", all / s.operations))),
            or_dash(tuning.map(|all| format!("{:.0} ×", all / (s.operations + embedding)))),
            or_dash(s.paper_ratio.map(|ratio| format!("{ratio:.0} ×"))),
        ]);
    }
    table
}

/// What [`write_json`] wrote, of all files.
pub(crate) fn read_json(paths: &[PathBuf]) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let more: Vec<Outcome> = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        outcomes.extend(more);
    }
    Ok(outcomes)
}

/// Through a file beside it: it appears whole or not at all.
pub(crate) fn write_json(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(outcomes)?;
    text.push(b'\n');
    write_whole(path, &text)
}
