//! What a second thread brings: wall time of one over that of two, each the shortest of the rounds.

use crate::problem::{Pass, Problem, seconds, wall_seconds};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::hint::black_box;
use tilewright_attention::AttentionSpec;
use tilewright_cpu::attention::ceiling;
use tilewright_cpu::{CpuAttention, Isa};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// Times that each number of threads has its turn.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Divides every length, to try it out.
    #[arg(long, default_value_t = 1)]
    pub(crate) shorter: usize,
}

/// Something to run on either pool.
struct Trial {
    name: String,
    call: Box<dyn FnMut() -> Result<()> + Send>,
    /// The shortest time of one thread, and of two: what other programs have disturbed least.
    least: [f64; 2],
}

impl Trial {
    fn new(name: impl Into<String>, call: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        Self { name: name.into(), call: Box::new(call), least: [f64::INFINITY; 2] }
    }

    /// Both pools, one after the other.
    fn round(&mut self, pools: [&ThreadPool; 2]) -> Result<()> {
        for (least, pool) in self.least.iter_mut().zip(pools) {
            *least = least.min(pool.install(|| seconds(wall_seconds, &mut self.call))?);
        }
        Ok(())
    }
}

pub(crate) fn run(settings: &Settings) -> Result<()> {
    println!("{}", table(&measure(settings)?));
    Ok(())
}

/// Names, and ratios of times.
pub(crate) fn measure(settings: &Settings) -> Result<Vec<(String, f64)>> {
    ensure!(settings.rounds > 0 && settings.shorter > 0, "at least one round, and lengths divided by at least one");
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build();
    let (one, two) = (pool(1)?, pool(2)?);
    let mut trials = ceilings(settings.shorter);
    for (name, heads, n) in [("16 heads, N 2048", 16, 2048), ("1 head, N 8192", 1, 8192)] {
        let n = n / settings.shorter;
        for (pass, causal) in [Pass::Forward, Pass::Backward].into_iter().flat_map(|pass| [(pass, false), (pass, true)])
        {
            let spec = AttentionSpec { causal, ..AttentionSpec::dense(1, heads, n, n, 64) };
            trials.push(attention(
                format!("{name}, {}{}", pass.name(), if causal { ", causal" } else { "" }),
                spec,
                pass,
            )?);
        }
    }
    for keys in [4096, 32768] {
        let spec = AttentionSpec { kv_heads: 8, ..AttentionSpec::dense(1, 32, 1, keys / settings.shorter, 128) };
        trials.push(attention(format!("decoding, 32 heads on 8 of 128, {keys} keys"), spec, Pass::Forward)?);
    }
    for _ in 0..settings.rounds {
        for trial in &mut trials {
            trial.round([&one, &two])?;
        }
    }
    Ok(trials.into_iter().map(|trial| (trial.name, trial.least[0] / trial.least[1])).collect())
}

fn attention(name: String, spec: AttentionSpec, pass: Pass) -> Result<Trial> {
    let mut problem = Problem::new(spec);
    let method = CpuAttention::default();
    problem.run(&method, Pass::Forward)?;
    Ok(Trial::new(name, move || problem.run(&method, pass)))
}

/// What the machine gives: as much arithmetic, or reading, split in two. Two processors may be one core.
fn ceilings(shorter: usize) -> Vec<Trial> {
    let isa = Isa::best();
    let halves = [1_000_000 / shorter as u64; 2];
    let arithmetic = move || {
        halves.par_iter().with_max_len(1).for_each(|rounds| _ = black_box(ceiling::multiply_adds(isa, *rounds)));
        Ok(())
    };
    let memory = vec![1f32; (64 << 20) / shorter];
    let reading = move || {
        memory.par_chunks(memory.len().div_ceil(2)).for_each(|half| _ = black_box(ceiling::read(isa, half)));
        Ok(())
    };
    vec![Trial::new("multiply-adds that never leave the registers", arithmetic), Trial::new("reading memory", reading)]
}

/// As Markdown.
pub(crate) fn table(ratios: &[(String, f64)]) -> String {
    let rows = ratios.iter().map(|(name, ratio)| format!("| {name} | {ratio:.2} |"));
    ["| | one thread over two |".into(), "|---|---:|".into()]
        .into_iter()
        .chain(rows)
        .collect::<Vec<String>>()
        .join("\n")
}
