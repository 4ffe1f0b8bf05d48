//! The thing on trial.

use crate::SubjectError;
use std::collections::BTreeSet;
use tilewright_compression::{CompressionSpec, Memory, Reduction, Selector, Step};

/// The columns of reports: how entries are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The exact top-k.
    TopK,
    /// A sampled threshold.
    Sampled,
    /// A fixed threshold.
    Fixed,
    /// Random-k.
    RandomK,
}

impl Column {
    /// All of them, in the report's order.
    pub const ALL: [Self; 4] = [Self::TopK, Self::Sampled, Self::Fixed, Self::RandomK];

    /// The column of a selector.
    pub fn of(selector: &Selector) -> Self {
        match selector {
            Selector::ExactTopK(_) => Self::TopK,
            Selector::SampledThreshold(..) => Self::Sampled,
            Selector::FixedThreshold(_) => Self::Fixed,
            Selector::RandomK(_) => Self::RandomK,
        }
    }

    /// The name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "top-k",
            Self::Sampled => "sampled",
            Self::Fixed => "fixed",
            Self::RandomK => "random-k",
        }
    }

    /// The column of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

/// What a compression problem may ask of an implementation, for capability declarations and for the report's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Messages in order of index.
    Compact,
    /// DRAGONN's hash table.
    HashTable,
    /// A table in which any candidate may stay.
    AnyWinner,
    /// A sampled threshold that is refined.
    Refinement,
    /// What was not sent is forgotten.
    NoFeedback,
    /// Error feedback.
    Residual,
    /// Momentum correction.
    Momentum,
    /// Nesterov's momentum.
    Nesterov,
    /// Momentum factor masking.
    Masking,
    /// Values travel as bfloat16.
    Bf16,
    /// Values travel as half precision.
    F16,
    /// NaN and infinities are refused.
    Reject,
    /// NaN, infinities and overflow pass through.
    NonFinite,
    /// Gradients are scaled on their way in.
    Clipping,
    /// Several steps, each with the memory of the one before.
    Steps,
    /// Messages of several ranks are decoded together.
    Ranks,
}

impl Feature {
    /// All of them, in the report's order.
    pub const ALL: [Self; 16] = [
        Self::Compact,
        Self::HashTable,
        Self::AnyWinner,
        Self::Refinement,
        Self::NoFeedback,
        Self::Residual,
        Self::Momentum,
        Self::Nesterov,
        Self::Masking,
        Self::Bf16,
        Self::F16,
        Self::Reject,
        Self::NonFinite,
        Self::Clipping,
        Self::Steps,
        Self::Ranks,
    ];

    /// The name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::HashTable => "hash-table",
            Self::AnyWinner => "any-winner",
            Self::Refinement => "refinement",
            Self::NoFeedback => "no-feedback",
            Self::Residual => "residual",
            Self::Momentum => "momentum",
            Self::Nesterov => "nesterov",
            Self::Masking => "masking",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Reject => "reject",
            Self::NonFinite => "non-finite",
            Self::Clipping => "clipping",
            Self::Steps => "steps",
            Self::Ranks => "ranks",
        }
    }

    /// The feature of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }

    /// Whether a case of this column can ask for it.
    pub fn goes_with(self, column: Column) -> bool {
        self != Self::Refinement || column == Column::Sampled
    }
}

/// Who is on trial and what it can do.
///
/// ```
/// use tilewright_conformance::compression::{Column, Feature, Profile};
/// let mut profile = Profile::new("my compressor", "0.1");
/// profile.columns = vec![Column::TopK]; // nothing but the exact top-k,
/// profile.supports.remove(&Feature::HashTable); // and no hash table
/// assert!(profile.supports.contains(&Feature::Compact));
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Selectors it has.
    pub columns: Vec<Column>,
    /// Features it declares; whatever else a case asks for is counted as unsupported and not run.
    pub supports: BTreeSet<Feature>,
    /// Whether the same inputs always give the same bits, even where any candidate may stay.
    pub deterministic: bool,
}

impl Profile {
    /// A profile that claims everything.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            columns: Column::ALL.to_vec(),
            supports: Feature::ALL.into_iter().collect(),
            deterministic: true,
        }
    }
}

/// One step to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Compress<'a> {
    /// The case id, for messages.
    pub id: &'a str,
    /// The problem.
    pub spec: &'a CompressionSpec,
    /// Which step.
    pub step: Step,
    /// The gradient, of the specification's length.
    pub gradient: &'a [f32],
    /// The memory before.
    pub memory: &'a Memory,
    /// How many threads to use, where the subject can be told: the answer must not depend on it.
    pub threads: Option<usize>,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A message and the memory afterwards.
    Sent {
        /// The entries, as [`message::word`](tilewright_compression::message::word)s.
        words: Vec<u64>,
        /// The memory after.
        memory: Memory,
    },
    /// The gradient is not finite at this index, which the specification says to refuse.
    Refused {
        /// Where.
        index: usize,
    },
}

/// Messages to be decoded.
#[derive(Clone, Copy, Debug)]
pub struct Decompress<'a> {
    /// The case id, for messages.
    pub id: &'a str,
    /// One message a rank.
    pub messages: &'a [&'a [u64]],
    /// Sum or mean.
    pub reduction: Reduction,
    /// Length of the result.
    pub len: usize,
    /// How many threads to use, where the subject can be told.
    pub threads: Option<usize>,
}

/// The thing on trial; it remembers nothing from call to call. Implement this and give it to
/// [`hold_trial`](crate::compression::report::hold_trial), or implement the traits of `tilewright-compression` and wrap it
/// in [`InProcess`](crate::compression::in_process::InProcess).
pub trait Subject {
    /// Who it is and what it claims.
    fn profile(&self) -> &Profile;

    /// Takes one step.
    ///
    /// # Errors
    /// [`SubjectError`] if there is no answer.
    fn compress(&mut self, request: &Compress<'_>) -> Result<Reply, SubjectError>;

    /// Decodes the messages of all ranks.
    ///
    /// # Errors
    /// [`SubjectError`] if there is no answer.
    fn decompress(&mut self, request: &Decompress<'_>) -> Result<Vec<f32>, SubjectError>;
}
