//! One task: Head2Toe and what it is compared with.

use crate::input::{Matrices, Run, Set};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;
use tilewright_cpu::CpuGroupLasso;
use tilewright_cpu::grouplasso::crossval;
use tilewright_cpu::grouplasso::head::SavedHead;
use tilewright_grouplasso::cost::{Solve, product};
use tilewright_grouplasso::grid::Grid;
use tilewright_grouplasso::head2toe::{Head2Toe, Settings, Trained};
use tilewright_grouplasso::{Head, Keep, sampling};

/// The least that a working set is taken to have, beside twice the active features.
const WORKING: usize = 200;

/// Steps of the progress bar for a task: the cross-validation's, and one for each method that Head2Toe is compared with.
pub(crate) fn stages(grid: &Grid, folds: usize) -> usize {
    parts(grid, folds) + 4
}

/// In each fold one for each λ, and one for each number kept with it.
fn parts(grid: &Grid, folds: usize) -> usize {
    let pairs = grid.choices() / grid.ridge.len();
    folds * (pairs + pairs / grid.keep.len())
}

/// What was found out.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) task: String,
    pub(crate) seed: String,
    pub(crate) samples: usize,
    pub(crate) features: usize,
    pub(crate) classes: usize,
    /// Shares of test samples that are predicted.
    pub(crate) linear_probe: f64,
    /// The layer that cross-validation prefers.
    pub(crate) best_layer: f64,
    pub(crate) best_layer_name: String,
    /// The layer that is best on the test samples: nobody can know it.
    pub(crate) oracle_layer: f64,
    pub(crate) oracle_layer_name: String,
    pub(crate) all_features: f64,
    pub(crate) random_features: f64,
    pub(crate) head2toe: f64,
    pub(crate) fine_tuned: Option<Run>,
    pub(crate) selection: Selection,
}

/// How Head2Toe came to its head, and what that cost.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Selection {
    pub(crate) cross_validated: f64,
    pub(crate) lambda: f64,
    pub(crate) active: usize,
    pub(crate) kept: usize,
    pub(crate) ridge: f64,
    /// Relative gaps, certified.
    pub(crate) gap: f64,
    pub(crate) head_gap: f64,
    pub(crate) layers: Vec<(String, usize)>,
    pub(crate) bytes: u64,
    pub(crate) copy_bytes: Option<u64>,
    /// Of the scores at the λs down to the one chosen, and of the head.
    pub(crate) operations: f64,
    pub(crate) embedding_operations: Option<f64>,
    pub(crate) paper_ratio: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) cross_validation_seconds: f64,
}

/// How to go about it.
pub(crate) struct Work<'a> {
    pub(crate) settings: Settings,
    pub(crate) grid: &'a Grid,
    pub(crate) folds: usize,
    pub(crate) seed: u64,
    pub(crate) bar: &'a ProgressBar,
    /// Where heads are saved.
    pub(crate) save: Option<&'a Path>,
}

/// A task with its folds and test samples.
struct Trial<'a> {
    work: &'a Work<'a>,
    task: Head2Toe<'a, f32>,
    folds: Vec<Vec<usize>>,
    test: &'a ndarray::Array2<f32>,
    test_labels: &'a [u32],
}

impl Work<'_> {
    pub(crate) fn run(&self, set: &Set, features: &Matrices, task: &str) -> Result<Outcome> {
        let labels = set.labels(task);
        let (train, test) = (&features.train, &features.test);
        let classes = labels.classes();
        let folds = sampling::stratified_folds(&labels.train, self.folds, self.seed)?;
        let task_name = task.to_owned();
        let task = Head2Toe::new(self.settings, set.layers(), train.view(), &labels.train, classes)?;
        let (samples, width) = task.dim();
        let trial = Trial { work: self, task, folds, test, test_labels: &labels.test };

        let (head2toe, mut selection, head) = trial.head2toe()?;
        selection.against(set, samples);
        if let Some(folder) = self.save {
            let about =
                [("task", task_name.clone()), ("seed", set.seed().to_owned()), ("accuracy", head2toe.to_string())];
            let about = about.map(|(key, value)| (key.to_owned(), value)).into();
            SavedHead { head, about }.save(&folder.join(format!("{task_name}-{}.safetensors", set.seed())))?;
        }
        let every: Vec<usize> = (0..width).collect();
        let probe = trial.baseline(&trial.task.last())?.1;
        let all_features = trial.baseline(&every)?.1;
        let random = sampling::random_features(width, selection.kept, self.seed);
        let random_features = trial.baseline(&random)?.1;
        let (best, oracle) = trial.layers()?;
        let name = |layer: usize| set.layers().name(layer).to_owned();
        Ok(Outcome {
            task: task_name,
            seed: set.seed().to_owned(),
            samples,
            features: width,
            classes,
            linear_probe: probe,
            best_layer: best.1,
            best_layer_name: name(best.0),
            oracle_layer: oracle.1,
            oracle_layer_name: name(oracle.0),
            all_features,
            random_features,
            head2toe,
            fine_tuned: None,
            selection,
        })
    }
}

impl Trial<'_> {
    /// λ, number kept and ridge strength by cross-validation, folds side by side; then scores and head of all samples.
    fn head2toe(&self) -> Result<(f64, Selection, Head)> {
        let began = Instant::now();
        let (task, grid) = (&self.task, self.work.grid);
        let (bar, start) = (self.work.bar, self.work.bar.position());
        let watch: crossval::Watch<'_> = &mut |part| {
            bar.set_position(start + part.done as u64);
            ControlFlow::Continue(())
        };
        let tried = crossval::head2toe(task, &CpuGroupLasso, grid, &self.folds, watch)?.context("interrupted")?;
        // A solve that is done before it begins is no part that anybody is told of.
        bar.set_position(start + parts(grid, self.folds.len()) as u64);
        let (choice, lambdas) = (tried.best, tried.lambdas);
        let cross_validation_seconds = began.elapsed().as_secs_f64();

        let began = Instant::now();
        let (samples, features) = task.dim();
        let mut certificates = 0;
        let rankings = task.rank(&CpuGroupLasso, &lambdas[..=choice.lambda], &[], &mut |_| {
            certificates += 1;
            ControlFlow::Continue(())
        })?;
        let ranking = rankings.last().context("no scores")?;
        let keep: Keep = grid.keep[choice.keep];
        let kept = task.top(ranking, keep)?;
        let ridge = grid.ridge[choice.ridge];
        let trained = task.train(&CpuGroupLasso, &kept, ridge)?;
        let seconds = began.elapsed().as_secs_f64();
        let accuracy = trained.head.accuracy(self.test.view(), self.test_labels)?;
        let scoring: f64 = rankings
            .iter()
            .map(|ranking| {
                // On the way more may be active than at the end.
                let (working, support) = (WORKING.max(2 * ranking.active), 3 * ranking.active / 2);
                let (classes, iterations) = (task.classes(), ranking.iterations);
                Solve { samples, features, classes, working, support, certificates: 0, iterations }.operations()
            })
            .sum();
        let operations = scoring
            // For each λ one more that nobody watches, and the ranking of what is not active.
            + (certificates + 2 * rankings.len()) as f64 * product(samples, features, task.classes())
            + self.head_operations(&trained);
        let names = |(layer, kept): (usize, usize)| (task.layers().name(layer).to_owned(), kept);
        let selection = Selection {
            cross_validated: f64::from(choice.right) / samples as f64,
            lambda: ranking.lambda,
            active: ranking.active,
            kept: kept.len(),
            ridge,
            gap: ranking.certificate.relative_gap(),
            head_gap: trained.certificate.relative_gap(),
            layers: trained.head.kept_per_layer().into_iter().enumerate().map(names).collect(),
            bytes: trained.head.bytes(),
            copy_bytes: None,
            operations,
            embedding_operations: None,
            paper_ratio: None,
            seconds,
            cross_validation_seconds,
        };
        Ok((accuracy, selection, trained.head))
    }

    /// A Gram matrix of the samples where there are more features than those, and iterations on no more than so many.
    fn head_operations(&self, trained: &Trained) -> f64 {
        let (samples, kept, classes) = (self.task.dim().0, trained.head.kept.len(), self.task.classes());
        let features = kept.min(samples);
        let gram = if kept > samples { product(samples, kept, samples) } else { 0.0 };
        let (certificates, iterations) = (trained.iterations + 1, trained.iterations);
        gram + Solve { samples, features, classes, working: features, support: features, certificates, iterations }
            .operations()
    }

    /// A head on some features, its strength by cross-validation: held-out samples and share of test samples it predicts.
    fn baseline(&self, features: &[usize]) -> Result<(u32, f64)> {
        let found = self.head_on(features);
        self.work.bar.inc(1);
        found
    }

    fn head_on(&self, features: &[usize]) -> Result<(u32, f64)> {
        let (ridge, right) = self.task.best_ridge(&CpuGroupLasso, features, &self.work.grid.ridge, &self.folds)?;
        let head = self.task.train(&CpuGroupLasso, features, ridge)?.head;
        Ok((right, head.accuracy(self.test.view(), self.test_labels)?))
    }

    /// The layer that cross-validation prefers and the one that is best on the test samples, and the latter's share for both.
    fn layers(&self) -> Result<((usize, f64), (usize, f64))> {
        let one = |layer: usize| self.head_on(&self.task.layer(layer));
        let heads: Result<Vec<_>> = (0..self.task.layers().len()).into_par_iter().map(one).collect();
        self.work.bar.inc(1);
        let heads = heads?;
        let best = (0..heads.len()).rev().max_by_key(|&layer| heads[layer].0).context("no layers")?;
        let oracle = (0..heads.len()).rev().max_by(|&a, &b| heads[a].1.total_cmp(&heads[b].1)).context("no layers")?;
        Ok(((best, heads[best].1), (oracle, heads[oracle].1)))
    }
}

impl Selection {
    /// Cost beside that of the network.
    fn against(&mut self, set: &Set, samples: usize) {
        let Some(network) = set.network() else { return };
        self.copy_bytes = Some(network.bytes());
        self.embedding_operations = Some(network.embed(samples));
        // The recipe that the paper's claim is about: 500 steps of 128, against selection with one pass over the samples.
        self.paper_ratio = Some(network.fine_tune(500, 128) / (network.embed(samples) + self.operations));
    }
}

impl Outcome {
    /// Operations of the fine-tuning that was run, without its search for a learning rate.
    pub(crate) fn fine_tuning_operations(&self) -> Option<f64> {
        let (run, embedding) = (self.fine_tuned.as_ref()?, self.selection.embedding_operations?);
        // The embedding is `n f`; fine-tuning `3 f` for each sample of each step.
        Some(3.0 * (run.steps * run.batch) as f64 * embedding / self.samples as f64)
    }
}
