//! What is trained, and how.

use anyhow::{Result, bail};
use clap::ValueEnum;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tilewright_compression::data_parallel::{Config, Momentum};
use tilewright_compression::schedule::Schedule;
use tilewright_compression::{CompressionSpec, Count, IndexCoding, ValueFormat, Wire};

const MOMENTUM: f32 = 0.9;
/// Bound on the norm of the gradient.
const CLIP: f64 = 5.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    Dense,
    #[value(name = "topk")]
    TopK,
    #[value(name = "randomk")]
    RandomK,
    Dgc,
    Dragonn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Value {
    F32,
    Bf16,
    F16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Index {
    Plain,
    Rice,
}

/// A rank and a step, written `RANK@STEP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    rank: usize,
    step: u64,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let moment = text.split_once('@').and_then(|(rank, step)| Some((rank.parse().ok()?, step.parse().ok()?)));
        moment.map(|(rank, step)| Self { rank, step }).ok_or(format!("got {text}, expected RANK@STEP"))
    }
}

/// A rank that ends without telling the others why; see [`Settings::meet_fate`].
#[derive(Debug)]
pub(crate) struct Death;

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "died, as asked")
    }
}

impl std::error::Error for Death {}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) method: Method,
    pub(crate) density: f64,
    pub(crate) error_feedback: bool,
    pub(crate) value: Value,
    pub(crate) index: Index,
    pub(crate) dense_below: u64,
    pub(crate) warm_up: bool,
    pub(crate) steps: u64,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    pub(crate) save: Option<PathBuf>,
    pub(crate) save_at: Option<u64>,
    pub(crate) resume: Option<PathBuf>,
    pub(crate) die: Option<Moment>,
    pub(crate) fail: Option<Moment>,
}

impl Settings {
    /// The optimiser's settings. The warm-up takes the first fifth of the steps, in the paper's five stages.
    pub(crate) fn config(&self) -> Config {
        let count = Count::Density(self.density);
        let spec = match self.method {
            Method::Dense => return Config::dense(MOMENTUM),
            Method::TopK => CompressionSpec::top_k(0, count),
            Method::RandomK => CompressionSpec::random_k(0, count),
            Method::Dgc => CompressionSpec::dgc(0, count, MOMENTUM),
            Method::Dragonn => CompressionSpec::dragonn(0, count, MOMENTUM),
        };
        let value = match self.value {
            Value::F32 => ValueFormat::F32,
            Value::Bf16 => ValueFormat::Bf16,
            Value::F16 => ValueFormat::F16,
        };
        let index = match self.index {
            Index::Plain => IndexCoding::Plain,
            Index::Rice => IndexCoding::Rice,
        };
        let spec = CompressionSpec { wire: Wire { value, index }, seed: self.seed, ..spec };
        Config {
            momentum: Momentum { factor: MOMENTUM, nesterov: false },
            schedule: if self.warm_up { Schedule::paper((self.steps / 25).max(1)) } else { Schedule::default() },
            clip: Some(CLIP),
            ..Config::compressed(spec)
        }
    }

    /// Whether this rank is to come to grief in this step: by an error that it tells the others about, or without a word.
    pub(crate) fn meet_fate(&self, rank: usize, step: u64) -> Result<()> {
        let now = Some(Moment { rank, step });
        if self.fail == now {
            bail!("failed in step {step}, as asked");
        }
        if self.die == now { Err(Death.into()) } else { Ok(()) }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.method {
            Method::Dense => return write!(f, "dense"),
            Method::TopK => "top-k",
            Method::RandomK => "random-k",
            Method::Dgc => "DGC",
            Method::Dragonn => "DRAGONN",
        };
        write!(f, "{name} {} %", 100.0 * self.density)?;
        if self.error_feedback { Ok(()) } else { write!(f, ", no feedback") }
    }
}
