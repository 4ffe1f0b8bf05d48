//! Time and memory by the length of the sequence: the median of the rounds, and the most of them.

use crate::counting::extra_bytes;
use crate::files::write_whole;
use crate::plot;
use crate::problem::{Pass, Problem, cpu_seconds, median, seconds};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::path::PathBuf;
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec};
use tilewright_cpu::{CpuAttention, StandardAttention};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// Queries, and keys as many.
    #[arg(long, value_delimiter = ',', default_values_t = [512, 1024, 2048, 4096, 8192, 16384])]
    pub(crate) lengths: Vec<usize>,
    /// Heads.
    #[arg(long, default_value_t = 4)]
    pub(crate) heads: usize,
    /// Features of a head.
    #[arg(long, default_value_t = 64)]
    pub(crate) dim: usize,
    /// Each query sees the keys up to its own only.
    #[arg(long)]
    pub(crate) causal: bool,
    /// Times that each method has its turn.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Keep every figure.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Draw time and memory.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

/// What a method takes for a call: seconds of CPU time, and bytes at most beyond inputs and outputs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) bytes: usize,
}

/// One length, one pass.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) length: usize,
    pub(crate) backward: bool,
    pub(crate) tilewright: Cost,
    /// None where its matrices don't fit into memory.
    pub(crate) standard: Option<Cost>,
}

pub(crate) fn run(settings: &Settings) -> Result<()> {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    let rows = one_thread.install(|| measure(settings))?;
    println!("{}", table(&rows));
    if let Some(path) = &settings.json {
        let mut text = serde_json::to_vec_pretty(&rows)?;
        text.push(b'\n');
        write_whole(path, &text)?;
    }
    settings.svg.as_ref().map_or(Ok(()), |path| plot::draw(path, &rows))
}

/// Forward and backward pass of every length.
pub(crate) fn measure(settings: &Settings) -> Result<Vec<Row>> {
    ensure!(
        settings.rounds > 0 && settings.lengths.iter().all(|n| *n > 0),
        "at least one round, and lengths above zero"
    );
    let mut rows = Vec::new();
    for &n in &settings.lengths {
        let spec =
            AttentionSpec { causal: settings.causal, ..AttentionSpec::dense(1, settings.heads, n, n, settings.dim) };
        let mut problem = Problem::new(spec);
        for pass in [Pass::Forward, Pass::Backward] {
            let fits = standard_fits(n);
            let (mut tilewright, mut standard) = (Vec::new(), Vec::new());
            for _ in 0..settings.rounds {
                tilewright.push(cost(&mut problem, &CpuAttention::default(), pass)?);
                if fits {
                    standard.push(cost(&mut problem, &StandardAttention, pass)?);
                }
            }
            let backward = pass == Pass::Backward;
            let standard = fits.then(|| summary(&standard));
            rows.push(Row { length: n, backward, tilewright: summary(&tilewright), standard });
            eprintln!("{n} {}: done", pass.name());
        }
    }
    Ok(rows)
}

/// Whether a head's scores, and what the allocator may keep of the last one's, fit into what memory is free.
fn standard_fits(n: usize) -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return n <= 8192 };
    let free =
        text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
    free.is_some_and(|kib: usize| 2 * n * n * size_of::<f32>() < kib * 1024)
}

fn cost<M: AttentionForward<f32> + AttentionBackward<f32>>(
    problem: &mut Problem,
    method: &M,
    pass: Pass,
) -> Result<Cost> {
    let mut bytes = 0;
    let seconds = seconds(cpu_seconds, || {
        let mut result = Ok(());
        bytes = bytes.max(extra_bytes(|| result = problem.run(method, pass)));
        result
    })?;
    Ok(Cost { seconds, bytes })
}

/// The median of the times, the most of the bytes.
fn summary(rounds: &[Cost]) -> Cost {
    let bytes = rounds.iter().map(|cost| cost.bytes).max().unwrap_or(0);
    Cost { seconds: median(rounds.iter().map(|cost| cost.seconds).collect()), bytes }
}

/// As Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        "| N | pass | ms | standard, ms | times faster | MiB | standard, MiB | times less |".to_string(),
        "|---:|---|---:|---:|---:|---:|---:|---:|".to_string(),
    ];
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    for row in rows {
        let (pass, own) = (if row.backward { "backward" } else { "forward" }, row.tilewright);
        let cells = row.standard.map_or(["–"; 4].map(String::from), |standard| {
            let (faster, less) = (standard.seconds / own.seconds, standard.bytes as f64 / own.bytes as f64);
            let (ms, mib) = (1e3 * standard.seconds, mib(standard.bytes));
            [format!("{ms:.1}"), format!("{faster:.1}"), format!("{mib:.1}"), format!("{less:.0}")]
        });
        let [ms, faster, standard_mib, less] = cells;
        let (own_ms, own_mib) = (1e3 * own.seconds, mib(own.bytes));
        lines.push(format!(
            "| {} | {pass} | {own_ms:.1} | {ms} | {faster} | {own_mib:.1} | {standard_mib} | {less} |",
            row.length
        ));
    }
    lines.join("\n")
}
