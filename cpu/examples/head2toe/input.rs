//! Activations and labels, from a folder:
//!
//! * `train.safetensors` and `test.safetensors`, or `.npz`: one array a layer, samples first, of f16, bf16, f32 or f64, in the
//!   order of their names;
//! * `about.json`: `{"tasks": {"NAME": {"train": [labels], "test": [labels]}}}`, and, as far as known, `seed`, `parameters`
//!   (of the network) and `forward_flop` (of a forward pass over a sample).

use ndarray::{Array2, ShapeBuilder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use tilewright_cpu::grouplasso::source::{FeatureSource, Features, FileError, Orientation};
use tilewright_grouplasso::cost::Network;
use tilewright_grouplasso::{GroupLassoError, Layers};

/// Why a folder cannot be worked with.
#[derive(Debug)]
pub(crate) enum InputError {
    /// A file of features.
    File(FileError),
    /// A file of JSON.
    Json { path: PathBuf, error: serde_json::Error },
    /// A file that cannot be read at all.
    Io { path: PathBuf, error: std::io::Error },
    /// Files that are each in order but do not belong together.
    Mismatch { path: PathBuf, problem: String },
    /// Features that cannot be worked with.
    Features { path: PathBuf, error: GroupLassoError },
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Json { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Mismatch { path, problem } => write!(f, "{}: {problem}", path.display()),
            Self::Features { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for InputError {}

/// Labels of a task, one a sample.
#[derive(Debug, Deserialize)]
pub(crate) struct Labels {
    pub(crate) train: Vec<u32>,
    pub(crate) test: Vec<u32>,
}

impl Labels {
    /// One more than the greatest label.
    pub(crate) fn classes(&self) -> usize {
        self.train.iter().chain(&self.test).max().map_or(0, |most| *most as usize + 1)
    }
}

#[derive(Debug, Deserialize)]
struct About {
    tasks: BTreeMap<String, Labels>,
    #[serde(default)]
    seed: String,
    parameters: Option<u64>,
    forward_flop: Option<f64>,
}

/// A folder whose files fit each other.
#[derive(Debug)]
pub(crate) struct Set {
    path: PathBuf,
    about: About,
    layers: Layers,
    train: Features,
    test: Features,
}

/// All of it, in memory.
pub(crate) struct Matrices {
    pub(crate) train: Array2<f32>,
    pub(crate) test: Array2<f32>,
}

impl Set {
    /// Opens the files of a folder and holds them against each other, with these tasks, or all.
    pub(crate) fn check(path: &Path, tasks: &[String]) -> Result<Self, InputError> {
        let mut about: About = json(&path.join("about.json"))?;
        let [train, test] = ["train", "test"].map(|split| open(path, split));
        let (train, test) = (train?, test?);
        let mismatch = |problem| InputError::Mismatch { path: path.to_owned(), problem };
        if let Some((a, b)) = train.parts().iter().zip(test.parts()).find(|(a, b)| a != b) {
            let (wide, other) = (a.features.len(), b.features.len());
            return Err(mismatch(format!(
                "train has {} of {wide} features where test has {} of {other}",
                a.name, b.name
            )));
        }
        if train.parts().len() != test.parts().len() {
            return Err(mismatch(format!("train has {} layers, test {}", train.parts().len(), test.parts().len())));
        }
        about.tasks.retain(|task, _| tasks.is_empty() || tasks.contains(task));
        for (task, labels) in &about.tasks {
            for (split, labels, features) in [("train", &labels.train, &train), ("test", &labels.test, &test)] {
                if labels.len() != features.samples() {
                    let (labels, samples) = (labels.len(), features.samples());
                    return Err(mismatch(format!("{split} has {samples} samples, {labels} labels of {task}")));
                }
            }
            // Classes are counted from 0 without gaps that would cost memory.
            if labels.classes() < 2 || labels.classes() > labels.train.len() {
                let most = labels.classes().saturating_sub(1);
                return Err(mismatch(format!("labels of {task} reach {most}, with {} samples", labels.train.len())));
            }
        }
        let layers = Layers::new(train.parts().iter().map(|part| (part.name.clone(), part.features.len())));
        let layers = layers.map_err(|error| InputError::Features { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), about, layers, train, test })
    }

    /// Reads the features; in `f32`, which is exact unless they are stored as `f64`.
    pub(crate) fn read(&self) -> Result<Matrices, InputError> {
        let error = |error| InputError::Features { path: self.path.clone(), error };
        Ok(Matrices { train: matrix(&self.train).map_err(error)?, test: matrix(&self.test).map_err(error)? })
    }

    pub(crate) fn tasks(&self) -> Vec<&str> {
        self.about.tasks.keys().map(String::as_str).collect()
    }

    pub(crate) fn labels(&self, task: &str) -> &Labels {
        &self.about.tasks[task]
    }

    pub(crate) fn seed(&self) -> &str {
        &self.about.seed
    }

    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// What is known of the network's cost.
    pub(crate) fn network(&self) -> Option<Network> {
        Some(Network { parameters: self.about.parameters?, forward: self.about.forward_flop? })
    }
}

fn open(folder: &Path, split: &str) -> Result<Features, InputError> {
    let names = ["safetensors", "npz", "npy"].map(|kind| folder.join(split).with_extension(kind));
    let Some(path) = names.iter().find(|path| path.exists()) else {
        let problem = format!("no {split}.safetensors, {split}.npz or {split}.npy");
        return Err(InputError::Mismatch { path: folder.to_owned(), problem });
    };
    Features::open(path, Orientation::SamplesFirst).map_err(InputError::File)
}

fn matrix(features: &Features) -> Result<Array2<f32>, GroupLassoError> {
    let (n, d) = (features.samples(), features.features());
    let mut all = Vec::with_capacity(n * d);
    for part in features.parts() {
        let mut columns = vec![0.0; n * part.features.len()];
        features.read(part.features.clone(), &mut columns)?;
        all.extend(columns.into_iter().map(|x| x as f32));
    }
    let shape = |error: ndarray::ShapeError| GroupLassoError::Source { problem: error.to_string() };
    Array2::from_shape_vec((n, d).f(), all).map_err(shape)
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, InputError> {
    let text = std::fs::read_to_string(path).map_err(|error| InputError::Io { path: path.to_owned(), error })?;
    serde_json::from_str(&text).map_err(|error| InputError::Json { path: path.to_owned(), error })
}

/// What fine-tuning came to, once.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    task: String,
    seed: String,
    /// Training samples.
    samples: usize,
    pub(crate) accuracy: f64,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) seconds: f64,
}

/// Figures of fine-tuning, from `minilm.py`.
#[derive(Debug, Deserialize)]
pub(crate) struct FineTuned {
    pub(crate) recipe: String,
    runs: Vec<Run>,
}

impl FineTuned {
    /// From a file, or those that came with the source.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, InputError> {
        let ours = || serde_json::from_str(include_str!("finetuned.json"));
        let error = |error| InputError::Json { path: "finetuned.json".into(), error };
        path.map_or_else(|| ours().map_err(error), json)
    }

    /// Those for a task, with so many training samples.
    pub(crate) fn of(&self, task: &str, seed: &str, samples: usize) -> Option<Run> {
        self.runs.iter().find(|run| (&run.task[..], &run.seed[..], run.samples) == (task, seed, samples)).cloned()
    }
}
