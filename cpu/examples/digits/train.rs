//! One rank's training.

use crate::data;
use crate::model::{Model, lengths};
use crate::settings::Settings;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use tilewright_compression::bucket::Buckets;
use tilewright_compression::data_parallel::{DataParallel, Report, agree, hash_of};
use tilewright_compression::{Collective, LONGEST};
use tilewright_cpu::CpuCompressor;
use tilewright_cpu::checkpoint::Checkpoint;

const LEARNING_RATE: f32 = 0.05;
/// Steps whose mean is the final loss.
const TAIL: usize = 20;

/// What happened in a step, the same on all ranks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) step: u64,
    /// Mean over all batches.
    pub(crate) loss: f64,
    pub(crate) density: f64,
    /// Bytes of a worker, mean over all: its message, and a ring's traffic for what is dense.
    pub(crate) bytes: f64,
    /// The same, where messages too go round a ring.
    pub(crate) ring_bytes: f64,
    /// Of the weights after the step.
    pub(crate) hash: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) ranks: usize,
    pub(crate) records: Vec<Record>,
    pub(crate) accuracy: f64,
}

impl Outcome {
    /// Mean loss of the last steps.
    pub(crate) fn loss(&self) -> f64 {
        mean(self.records.iter().rev().take(TAIL).map(|record| record.loss))
    }

    /// What a step after the warm-up costs.
    pub(crate) fn steady(&self, settings: &Settings, bytes: impl Fn(&Record) -> f64) -> f64 {
        let warm_up = settings.config().schedule.warm_up_steps();
        mean(self.records.iter().filter(|record| record.step >= warm_up).map(bytes))
    }
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// Bytes a worker sends in a dense ring all-reduce of that many bytes.
pub(crate) fn dense_ring(ranks: usize, bytes: f64) -> f64 {
    2.0 * (ranks as f64 - 1.0) / ranks as f64 * bytes
}

/// Bytes of all weights.
pub(crate) fn model_bytes() -> f64 {
    4.0 * lengths().iter().sum::<u64>() as f64
}

/// The file of a rank.
fn file_of(path: &Path, rank: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".rank{rank}"));
    name.into()
}

/// Trains as one of the ranks. The weights of all ranks are compared after each step.
pub(crate) fn train(settings: &Settings, collective: &dyn Collective) -> Result<Outcome> {
    let rank = collective.rank();
    let (train, test) = data::load(settings.seed)?;
    let (mut model, mut gradient) = (Model::new(settings.seed), Model::zeros());
    let buckets = Buckets::pack(&lengths(), LONGEST as u64, |_, len| len >= settings.dense_below)?;
    let mut optimiser = DataParallel::new(settings.config(), buckets, CpuCompressor::default(), collective)?;
    if let Some(path) = &settings.resume {
        let saved = Checkpoint::load(&file_of(path, rank))?;
        optimiser.restore(saved.state).with_context(|| file_of(path, rank).display().to_string())?;
        model.tensors = saved.weights;
    }
    let progress = progress(settings, rank);
    progress.set_position(optimiser.state().step);
    let mut records = Vec::new();
    for step in optimiser.state().step..settings.steps {
        settings.meet_fate(rank, step)?;
        let batch = train.batch(settings.seed, step, rank, settings.batch);
        let loss = model.loss_and_gradient(&batch, &mut gradient);
        let report = optimiser.step(LEARNING_RATE, &gradient.slices(), &mut model.slices_mut())?;
        if !settings.error_feedback {
            forget(&mut optimiser)?;
        }
        let hash = hash_of(model.slices());
        agree(collective, hash).with_context(|| format!("after step {step}"))?;
        let record = record(settings, collective, step, loss, report, hash)?;
        progress.set_message(format!("loss {:.4}", record.loss));
        progress.inc(1);
        records.push(record);
        if settings.save_at == Some(step + 1)
            && let Some(path) = &settings.save
        {
            let checkpoint = Checkpoint { state: optimiser.state().clone(), weights: model.tensors.clone() };
            checkpoint.save(&file_of(path, rank))?;
        }
    }
    progress.finish_and_clear();
    if records.is_empty() {
        bail!("no steps left: the state is of step {}", optimiser.state().step);
    }
    Ok(Outcome { ranks: collective.size(), records, accuracy: model.accuracy(&test) })
}

/// Drops what waits to be sent, and nothing else: the same method without error feedback, for comparison.
fn forget(optimiser: &mut DataParallel<'_, CpuCompressor>) -> Result<()> {
    let mut state = optimiser.state().clone();
    for bucket in &mut state.buckets {
        bucket.memory.velocity.fill(0.0);
    }
    Ok(optimiser.restore(state)?)
}

/// On a terminal, on the first rank.
fn progress(settings: &Settings, rank: usize) -> ProgressBar {
    if rank > 0 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:>24} {wide_bar} {pos}/{len} {msg} {eta}");
    ProgressBar::new(settings.steps)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(settings.to_string())
}

/// Puts all ranks' figures together.
fn record(
    settings: &Settings,
    collective: &dyn Collective,
    step: u64,
    loss: f32,
    report: Report,
    hash: u64,
) -> Result<Record> {
    let ranks = collective.size();
    let mut all = vec![0; 3 * ranks];
    let mine = [u64::from(loss.to_bits()), report.message_bytes, report.dense_bytes];
    collective.all_gather(&mine, &mut all)?;
    let each = |word: usize| all.iter().copied().skip(word).step_by(3);
    let dense = dense_ring(ranks, mean(each(2).map(|bytes| bytes as f64)));
    let message = mean(each(1).map(|bytes| bytes as f64));
    let config = settings.config();
    Ok(Record {
        step,
        loss: mean(each(0).map(|bits| f64::from(f32::from_bits(bits as u32)))),
        density: if config.compression.is_some() { config.schedule.density(step, settings.density) } else { 1.0 },
        bytes: message + dense,
        ring_bytes: (ranks as f64 - 1.0) * message + dense,
        hash,
    })
}
