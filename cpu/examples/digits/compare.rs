//! All methods over several seeds.

use crate::engine;
use crate::plot::{self, Curve, Point};
use crate::settings::{Method, Settings};
use crate::train::{Outcome, dense_ring, mean, model_bytes};
use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use std::path::Path;

/// Steps over which a curve's loss is averaged.
const SMOOTHING: usize = 10;

/// All that is compared.
fn variants(base: &Settings) -> Vec<Settings> {
    let mut list = vec![Settings { method: Method::Dense, ..base.clone() }];
    for density in [0.01, 0.001] {
        for (method, error_feedback) in [
            (Method::TopK, true),
            (Method::Dgc, true),
            (Method::Dragonn, true),
            (Method::RandomK, true),
            (Method::TopK, false),
            (Method::Dgc, false),
            (Method::Dragonn, false),
        ] {
            list.push(Settings { method, density, error_feedback, ..base.clone() });
        }
    }
    list
}

/// Trains with everything, prints a table, and writes the curves.
pub(crate) fn compare(base: &Settings, ranks: usize, seeds: u64, csv: Option<&Path>, svg: Option<&Path>) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "method",
        "accuracy",
        "loss",
        "bytes a step",
        "of dense",
        "of density",
        "ring bytes a step",
        "of dense",
    ]);
    let mut curves = Vec::new();
    for variant in variants(base) {
        let runs = (base.seed..base.seed + seeds)
            .map(|seed| engine::threads(&Settings { seed, ..variant.clone() }, ranks))
            .collect::<Result<Vec<_>>>()?;
        table.add_row(row(&variant, ranks, &runs));
        curves.push(Curve::new(&variant, curve(&runs.iter().collect::<Vec<_>>())));
    }
    println!(
        "{} weights, {ranks} ranks, {} images each, {} steps, {seeds} seeds",
        model_bytes() / 4.0,
        base.batch,
        base.steps
    );
    println!("{table}");
    if let Some(path) = csv {
        write_curves(path, &curves)?;
    }
    if let Some(path) = svg {
        plot::draw(path, &curves)?;
    }
    Ok(())
}

fn row(variant: &Settings, ranks: usize, runs: &[Outcome]) -> Vec<String> {
    let over = |figure: &dyn Fn(&Outcome) -> f64| {
        let mean = mean(runs.iter().map(figure));
        let squares: f64 = runs.iter().map(|run| (figure(run) - mean).powi(2)).sum();
        (mean, (squares / (runs.len().max(2) - 1) as f64).sqrt())
    };
    let dense = dense_ring(ranks, model_bytes());
    let density = if variant.method == Method::Dense { 1.0 } else { variant.density };
    let (accuracy, loss) = (over(&|run| run.accuracy), over(&Outcome::loss));
    let (bytes, _) = over(&|run| run.steady(variant, |record| record.bytes));
    let (ring, _) = over(&|run| run.steady(variant, |record| record.ring_bytes));
    vec![
        variant.to_string(),
        format!("{:.4} ± {:.4}", accuracy.0, accuracy.1),
        format!("{:.4} ± {:.4}", loss.0, loss.1),
        format!("{bytes:.0}"),
        format!("{:.3} %", 100.0 * bytes / dense),
        format!("{:.2} ×", bytes / dense / density),
        format!("{ring:.0}"),
        format!("{:.3} %", 100.0 * ring / dense),
    ]
}

/// The mean over runs of the same length, smoothed.
pub(crate) fn curve(runs: &[&Outcome]) -> Vec<Point> {
    let steps = runs.iter().map(|run| run.records.len()).min().unwrap_or(0);
    let mut sent = 0.0;
    let mut points = Vec::new();
    for step in 0..steps {
        sent += mean(runs.iter().map(|run| run.records[step].bytes));
        let window = (step + 1).saturating_sub(SMOOTHING)..=step;
        points.push((sent, mean(window.map(|step| mean(runs.iter().map(|run| run.records[step].loss))))));
    }
    points
}

fn write_curves(path: &Path, curves: &[Curve]) -> Result<()> {
    let mut file = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    file.write_record(["method", "step", "bytes", "loss"])?;
    for Curve { name, points, .. } in curves {
        for (step, (bytes, loss)) in points.iter().enumerate() {
            file.write_record([name, &step.to_string(), &format!("{bytes:.0}"), &format!("{loss:.6}")])?;
        }
    }
    Ok(file.flush()?)
}

/// One run, step by step; equal files are equal runs, to the last bit of every weight.
pub(crate) fn write_steps(path: &Path, run: &Outcome) -> Result<()> {
    let mut file = csv::Writer::from_path(path).with_context(|| path.display().to_string())?;
    file.write_record(["step", "loss", "density", "bytes", "ring_bytes", "weights"])?;
    for record in &run.records {
        file.write_record([
            record.step.to_string(),
            record.loss.to_string(),
            record.density.to_string(),
            record.bytes.to_string(),
            record.ring_bytes.to_string(),
            format!("{:016x}", record.hash),
        ])?;
    }
    Ok(file.flush()?)
}
