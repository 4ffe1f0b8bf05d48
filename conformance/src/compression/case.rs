//! Cases: what a trial asks. A case is its printable id, and the id determines every bit of the inputs.
//!
//! ```text
//! compression/n4097/topk@0.01/hash@4/momentum=0.9,masked/wire=bf16,rice+clip=0.5/heavy/steps=3/ranks=2/7f3a
//!             │     │         │      │                   │                       │     │       │       └ seed, hexadecimal
//!             │     │         │      │                   │                       │     │       └ ranks
//!             │     │         │      │                   │                       │     └ steps, each with the memory of the last
//!             │     │         │      │                   │                       └ distribution
//!             │     │         │      │                   └ wire: values, indices; options
//!             │     │         │      └ feedback
//!             │     │         └ placement
//!             │     └ selector
//!             └ gradients in the bucket
//! ```
//!
//! `@` goes before shares, `=` before numbers: `topk@0.01` is one per cent, `topk=20` twenty entries, `hash@4` four slots
//! an entry aimed at, `hash=100` a hundred. The number of the first step and the specification's 64-bit seed are drawn
//! from the case's seed.

pub use crate::compression::parse::CaseError;
use crate::compression::subject::{Column, Feature};
use crate::suite::Visit;
use std::fmt;
use tilewright_compression::{
    CompressionSpec, Count, Feedback, IndexCoding, NonFinite, Placement, Policy, Refinement, Sampling, Selector, Slots,
    Step, ValueFormat, Wire,
};
use tilewright_scalar::philox4x32_10;

/// What the gradients look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distribution {
    /// Roughly normal times roughly log-normal: what gradients are like.
    Heavy,
    /// All the same number.
    Equal,
    /// Zeros of both signs.
    Zero,
    /// Nothing but the first entry.
    First,
    /// Nothing but the last entry.
    Last,
    /// Runs of neighbours, and dust between them.
    Clustered,
    /// A few magnitudes, both signs, zeros among them.
    Ties,
    /// NaN and infinities among ordinary numbers.
    NonFinite,
    /// Below the normal range.
    Subnormal,
    /// So large that sums overflow.
    Huge,
    /// Whole numbers.
    Integer,
    /// Magnitudes fall with the index.
    Descending,
    /// Magnitudes rise with the index.
    Ascending,
    /// Every 32nd entry is large.
    Strided,
}

impl Distribution {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Heavy,
        Self::Equal,
        Self::Zero,
        Self::First,
        Self::Last,
        Self::Clustered,
        Self::Ties,
        Self::NonFinite,
        Self::Subnormal,
        Self::Huge,
        Self::Integer,
        Self::Descending,
        Self::Ascending,
        Self::Strided,
    ];

    /// The name in ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heavy => "heavy",
            Self::Equal => "equal",
            Self::Zero => "zero",
            Self::First => "first",
            Self::Last => "last",
            Self::Clustered => "clustered",
            Self::Ties => "ties",
            Self::NonFinite => "non-finite",
            Self::Subnormal => "subnormal",
            Self::Huge => "huge",
            Self::Integer => "integer",
            Self::Descending => "descending",
            Self::Ascending => "ascending",
            Self::Strided => "strided",
        }
    }

    /// Whether sums of a few stay finite and far from the subnormal range, so that scaling by a power of two is exact.
    pub fn calm(self) -> bool {
        !matches!(self, Self::NonFinite | Self::Subnormal | Self::Huge)
    }
}

/// A case.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Gradients in the bucket.
    pub len: usize,
    /// Which entries are candidates.
    pub selector: Selector,
    /// Where candidates go.
    pub placement: Placement,
    /// What happens to the rest.
    pub feedback: Feedback,
    /// How messages travel.
    pub wire: Wire,
    /// What to do with NaN and infinities.
    pub non_finite: NonFinite,
    /// What gradients are multiplied by on their way in.
    pub scale: f32,
    /// What gradients look like.
    pub distribution: Distribution,
    /// Steps in a row.
    pub steps: usize,
    /// Ranks.
    pub ranks: usize,
    /// Seed.
    pub seed: u32,
}

impl Case {
    /// One step of one rank: exact top-k of a density, compact, error feedback, `f32` on the wire.
    pub fn new(len: usize, density: f64) -> Self {
        Self {
            len,
            selector: Selector::ExactTopK(Count::Density(density)),
            placement: Placement::Compact,
            feedback: Feedback::Residual,
            wire: Wire::default(),
            non_finite: NonFinite::Propagate,
            scale: 1.0,
            distribution: Distribution::Heavy,
            steps: 1,
            ranks: 1,
            seed: 1,
        }
    }

    /// The problem.
    pub fn spec(&self) -> CompressionSpec {
        let [low, high, ..] = philox4x32_10([0, 0, 0, u32::MAX], [self.seed, 0x6472_6167]);
        CompressionSpec {
            len: self.len,
            selector: self.selector,
            placement: self.placement,
            feedback: self.feedback,
            wire: self.wire,
            non_finite: self.non_finite,
            seed: u64::from(high) << 32 | u64::from(low),
        }
    }

    /// Step `t`, from 0. Numbers start at 0, near 2³² or beyond it, depending on the seed: all 64 bits count.
    pub fn step(&self, t: usize) -> Step {
        let first = [0, 1, u64::from(u32::MAX), 1 << 40][self.seed as usize % 4];
        Step { number: first + t as u64, scale: self.scale }
    }

    /// The column of reports it belongs to.
    pub fn column(&self) -> Column {
        Column::of(&self.selector)
    }

    /// The features a subject needs to run this case.
    pub fn features(&self) -> Vec<Feature> {
        let has = |present: bool, feature: Feature| present.then_some(feature);
        let hash = matches!(self.placement, Placement::HashTable { .. });
        let any = matches!(self.placement, Placement::HashTable { policy: Policy::Any, .. });
        let (momentum, nesterov, masking) = match self.feedback {
            Feedback::Momentum { nesterov, masking, .. } => (true, nesterov, masking),
            _ => (false, false, false),
        };
        let refined = matches!(self.selector, Selector::SampledThreshold(_, Sampling { refine: Some(_), .. }));
        let special = matches!(self.distribution, Distribution::NonFinite | Distribution::Huge);
        [
            has(!hash, Feature::Compact),
            has(hash, Feature::HashTable),
            has(any, Feature::AnyWinner),
            has(refined, Feature::Refinement),
            has(self.feedback == Feedback::None, Feature::NoFeedback),
            has(self.feedback == Feedback::Residual, Feature::Residual),
            has(momentum, Feature::Momentum),
            has(nesterov, Feature::Nesterov),
            has(masking, Feature::Masking),
            has(self.wire.value == ValueFormat::Bf16, Feature::Bf16),
            has(self.wire.value == ValueFormat::F16, Feature::F16),
            has(self.non_finite == NonFinite::Reject, Feature::Reject),
            has(special && self.non_finite == NonFinite::Propagate, Feature::NonFinite),
            has(self.scale != 1.0, Feature::Clipping),
            has(self.steps > 1, Feature::Steps),
            has(self.ranks > 1, Feature::Ranks),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Visit for Case {
    /// Gradients of all steps and ranks: how long a case takes, about.
    fn work(&self) -> u64 {
        [self.len, self.steps, self.ranks].into_iter().map(|count| count as u64).fold(1, u64::saturating_mul)
    }

    /// Features and distributions, by selector.
    fn marks(&self) -> Vec<(&'static str, &'static str)> {
        let column = self.column().name();
        let features = self.features().into_iter().map(|feature| (feature.name(), column));
        features.chain([(self.distribution.name(), column)]).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compression/n{}/{}/", self.len, selector_name(&self.selector))?;
        write!(f, "{}/{}/", placement_name(&self.placement), feedback_name(self.feedback))?;
        write!(f, "wire={},{}", value_name(self.wire.value), index_name(self.wire.index))?;
        if self.non_finite == NonFinite::Reject {
            write!(f, "+reject")?;
        }
        if self.scale != 1.0 {
            write!(f, "+clip={}", self.scale)?;
        }
        let (distribution, steps, ranks) = (self.distribution.name(), self.steps, self.ranks);
        write!(f, "/{distribution}/steps={steps}/ranks={ranks}/{:x}", self.seed)
    }
}

fn count_name(name: &str, count: Count) -> String {
    match count {
        Count::Density(density) => format!("{name}@{density}"),
        Count::Entries(entries) => format!("{name}={entries}"),
    }
}

fn selector_name(selector: &Selector) -> String {
    match selector {
        Selector::ExactTopK(count) => count_name("topk", *count),
        Selector::RandomK(count) => count_name("random", *count),
        Selector::FixedThreshold(threshold) => format!("fixed={threshold}"),
        Selector::SampledThreshold(count, Sampling { ratio, refine }) => {
            let refine = refine.map_or(String::new(), |Refinement { lower, upper, iterations }| {
                format!(",refine={lower}:{upper}:{iterations}")
            });
            format!("{},ratio={ratio}{refine}", count_name("sampled", *count))
        }
    }
}

fn placement_name(placement: &Placement) -> String {
    let Placement::HashTable { slots, policy } = placement else { return "compact".into() };
    let slots = match slots {
        Slots::PerEntry(slots) => format!("hash@{slots}"),
        Slots::Exactly(slots) => format!("hash={slots}"),
    };
    if *policy == Policy::Any { format!("{slots},any") } else { slots }
}

fn feedback_name(feedback: Feedback) -> String {
    match feedback {
        Feedback::None => "none".into(),
        Feedback::Residual => "residual".into(),
        Feedback::Momentum { factor, nesterov, masking } => {
            let option = |on: bool, name: &'static str| if on { name } else { "" };
            format!("momentum={factor}{}{}", option(nesterov, ",nesterov"), option(masking, ",masked"))
        }
    }
}

/// The name of a value format.
pub fn value_name(value: ValueFormat) -> &'static str {
    match value {
        ValueFormat::F32 => "f32",
        ValueFormat::Bf16 => "bf16",
        ValueFormat::F16 => "f16",
    }
}

/// The name of an index coding.
pub fn index_name(index: IndexCoding) -> &'static str {
    match index {
        IndexCoding::Plain => "plain",
        IndexCoding::Rice => "rice",
    }
}

/// The value format of a name.
pub fn value_from_name(name: &str) -> Option<ValueFormat> {
    [ValueFormat::F32, ValueFormat::Bf16, ValueFormat::F16].into_iter().find(|value| value_name(*value) == name)
}

/// The index coding of a name.
pub fn index_from_name(name: &str) -> Option<IndexCoding> {
    [IndexCoding::Plain, IndexCoding::Rice].into_iter().find(|index| index_name(*index) == name)
}
