//! What data looks like, and what can be wrong with it.

use crate::grouplasso::subject::{Column, Feature};

/// What a matrix of coefficients looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Values {
    /// Roughly normal times roughly log-normal.
    Heavy,
    /// A few magnitudes, both signs.
    Ties,
    /// Zeros of both signs.
    Zero,
    /// Norms some units in the last place from the threshold.
    Edge,
    /// Squares overflow.
    Huge,
    /// Squares vanish.
    Tiny,
    /// Below the normal range.
    Subnormal,
    /// Huge, tiny and ordinary entries together.
    Mixed,
    /// Most rows zero.
    Sparse,
    /// Norms fall with the row.
    Descending,
    /// Norms rise with the row.
    Ascending,
    /// NaN here and there.
    Nan,
    /// Infinities here and there.
    Infinite,
}

impl Values {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Heavy,
        Self::Ties,
        Self::Zero,
        Self::Edge,
        Self::Huge,
        Self::Tiny,
        Self::Subnormal,
        Self::Mixed,
        Self::Sparse,
        Self::Descending,
        Self::Ascending,
        Self::Nan,
        Self::Infinite,
    ];

    /// The name in ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Heavy => "heavy",
            Self::Ties => "ties",
            Self::Zero => "zero",
            Self::Edge => "edge",
            Self::Huge => "huge",
            Self::Tiny => "tiny",
            Self::Subnormal => "subnormal",
            Self::Mixed => "mixed",
            Self::Sparse => "sparse",
            Self::Descending => "descending",
            Self::Ascending => "ascending",
            Self::Nan => "nan",
            Self::Infinite => "infinite",
        }
    }

    /// Whether there are neither NaNs nor infinities.
    pub fn is_finite(self) -> bool {
        !matches!(self, Self::Nan | Self::Infinite)
    }
}

/// What the data of a problem looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Design {
    /// Independent columns.
    Gaussian,
    /// Each column much like the one before.
    Correlated,
    /// Blocks of columns that share a few factors, as the units of a network's layers do.
    Layered,
    /// Every column twice.
    Duplicate,
    /// Every third column the sum of the two before.
    Collinear,
    /// Every third column zero.
    ZeroColumns,
    /// Every third column a constant.
    ConstantColumns,
    /// All samples alike in what they should come to.
    ConstantTargets,
    /// Nobody of the last class.
    MissingClass,
    /// Columns far from zero.
    Offset,
    /// Columns so far from zero that squares forget the rest.
    Remote,
    /// Enormous numbers, for the format.
    Huge,
    /// Minute numbers, for the format.
    Tiny,
    /// Columns of all sizes.
    Mixed,
    /// Every other column below the normal range.
    Subnormal,
    /// Small whole numbers.
    Integer,
}

impl Design {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Gaussian,
        Self::Correlated,
        Self::Layered,
        Self::Duplicate,
        Self::Collinear,
        Self::ZeroColumns,
        Self::ConstantColumns,
        Self::ConstantTargets,
        Self::MissingClass,
        Self::Offset,
        Self::Remote,
        Self::Huge,
        Self::Tiny,
        Self::Mixed,
        Self::Subnormal,
        Self::Integer,
    ];

    /// The name in ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Correlated => "correlated",
            Self::Layered => "layered",
            Self::Duplicate => "duplicate",
            Self::Collinear => "collinear",
            Self::ZeroColumns => "zero-columns",
            Self::ConstantColumns => "constant-columns",
            Self::ConstantTargets => "constant-targets",
            Self::MissingClass => "missing-class",
            Self::Offset => "offset",
            Self::Remote => "remote",
            Self::Huge => "huge",
            Self::Tiny => "tiny",
            Self::Mixed => "mixed",
            Self::Subnormal => "subnormal",
            Self::Integer => "integer",
        }
    }

    /// Whether columns or targets say nothing, or nothing new.
    pub fn is_degenerate(self) -> bool {
        use Design::{Collinear, ConstantColumns, ConstantTargets, Duplicate, ZeroColumns};
        matches!(self, Duplicate | Collinear | ZeroColumns | ConstantColumns | ConstantTargets)
    }
}

/// What is wrong with a problem that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Their names say it, and `about` says it again.
pub enum Flaw {
    NanInX,
    InfinityInX,
    TooLargeInX,
    NanInY,
    InfinityInY,
    LabelOutOfRange,
    TooFewLabels,
    TooFewTargets,
    OneClass,
    WrongTargets,
    NegativeSampleWeight,
    NanSampleWeight,
    ZeroSampleWeights,
    TooFewSampleWeights,
    NoSamples,
    NegativeLambda,
    NanLambda,
    InfiniteLambda,
    TauAboveOne,
    NanAlpha,
    NegativeWeight,
    NanWeight,
    TooFewWeights,
    SharedFeature,
    MissingFeature,
    UnknownFeature,
    DoubleFeature,
    EmptyGroup,
    ShortSizes,
    ZeroGap,
    NanGap,
    StartOfOtherShape,
    NanInStart,
    NanLambdaInPath,
    ProxNegativeLambda,
    ProxNegativeWeight,
    ProxSharedFeature,
    ProxOtherRows,
    ProxZeroStep,
    ProxNanStep,
    ProxInfiniteStep,
    SelectNan,
    SelectNothing,
    SelectFractionZero,
    SelectFractionAboveOne,
    SelectFractionNan,
}

/// Each flaw with its name in ids and what a message about it must mention, in any one of these ways.
const FLAWS: [(Flaw, &str, &[&str]); 46] = [
    (Flaw::NanInX, "nan-in-x", &["x["]),
    (Flaw::InfinityInX, "infinity-in-x", &["x["]),
    (Flaw::TooLargeInX, "too-large-in-x", &["x["]),
    (Flaw::NanInY, "nan-in-y", &["y["]),
    (Flaw::InfinityInY, "infinity-in-y", &["y["]),
    (Flaw::LabelOutOfRange, "label-out-of-range", &["labels["]),
    (Flaw::TooFewLabels, "too-few-labels", &["labels"]),
    (Flaw::TooFewTargets, "too-few-targets", &["y"]),
    (Flaw::OneClass, "one-class", &["classes"]),
    (Flaw::WrongTargets, "wrong-targets", &["targets"]),
    (Flaw::NegativeSampleWeight, "negative-sample-weight", &["sample_weights["]),
    (Flaw::NanSampleWeight, "nan-sample-weight", &["sample_weights["]),
    (Flaw::ZeroSampleWeights, "zero-sample-weights", &["sample_weights"]),
    (Flaw::TooFewSampleWeights, "too-few-sample-weights", &["sample_weights"]),
    (Flaw::NoSamples, "no-samples", &["x", "samples"]),
    (Flaw::NegativeLambda, "negative-lambda", &["lambda"]),
    (Flaw::NanLambda, "nan-lambda", &["lambda"]),
    (Flaw::InfiniteLambda, "infinite-lambda", &["lambda"]),
    (Flaw::TauAboveOne, "tau-above-one", &["tau"]),
    (Flaw::NanAlpha, "nan-alpha", &["alpha"]),
    (Flaw::NegativeWeight, "negative-weight", &["weights["]),
    (Flaw::NanWeight, "nan-weight", &["weights["]),
    (Flaw::TooFewWeights, "too-few-weights", &["weights"]),
    (Flaw::SharedFeature, "shared-feature", &["groups: feature"]),
    (Flaw::MissingFeature, "missing-feature", &["groups: feature"]),
    (Flaw::UnknownFeature, "unknown-feature", &["groups: group"]),
    (Flaw::DoubleFeature, "double-feature", &["groups: feature"]),
    (Flaw::EmptyGroup, "empty-group", &["groups: group"]),
    (Flaw::ShortSizes, "short-sizes", &["groups: sizes"]),
    (Flaw::ZeroGap, "zero-gap", &["gap"]),
    (Flaw::NanGap, "nan-gap", &["gap"]),
    (Flaw::StartOfOtherShape, "start-of-other-shape", &["start"]),
    (Flaw::NanInStart, "nan-in-start", &["start"]),
    (Flaw::NanLambdaInPath, "nan-lambda-in-path", &["lambda"]),
    (Flaw::ProxNegativeLambda, "prox-negative-lambda", &["lambda"]),
    (Flaw::ProxNegativeWeight, "prox-negative-weight", &["weights["]),
    (Flaw::ProxSharedFeature, "prox-shared-feature", &["groups: feature"]),
    (Flaw::ProxOtherRows, "prox-other-rows", &["groups: sizes", "w"]),
    (Flaw::ProxZeroStep, "prox-zero-step", &["step"]),
    (Flaw::ProxNanStep, "prox-nan-step", &["step"]),
    (Flaw::ProxInfiniteStep, "prox-infinite-step", &["step"]),
    (Flaw::SelectNan, "select-nan", &["scores["]),
    (Flaw::SelectNothing, "select-nothing", &["features"]),
    (Flaw::SelectFractionZero, "select-fraction-zero", &["fraction"]),
    (Flaw::SelectFractionAboveOne, "select-fraction-above-one", &["fraction"]),
    (Flaw::SelectFractionNan, "select-fraction-nan", &["fraction"]),
];

impl Flaw {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        FLAWS.iter().map(|(flaw, ..)| *flaw)
    }

    fn row(self) -> &'static (Self, &'static str, &'static [&'static str]) {
        // Every flaw is in the table; a test says so.
        FLAWS.iter().find(|(flaw, ..)| *flaw == self).unwrap_or(&FLAWS[0])
    }

    /// The name in ids.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What a message that names the place says, in one of these ways.
    pub fn places(self) -> &'static [&'static str] {
        self.row().2
    }

    /// The operation that has to refuse it.
    pub fn column(self) -> Column {
        match self.name().split_once('-') {
            Some(("prox", _)) => Column::Prox,
            Some(("select", _)) => Column::Select,
            _ => Column::Solve,
        }
    }

    /// Whether the problem it spoils is multinomial; least squares otherwise.
    pub fn is_multinomial(self) -> bool {
        matches!(self, Self::LabelOutOfRange | Self::TooFewLabels | Self::OneClass)
    }

    /// What the spoilt problem, but for the flaw, asks of a subject.
    pub(crate) fn features(self) -> Vec<Feature> {
        let groups = match self {
            Self::SharedFeature | Self::MissingFeature | Self::UnknownFeature | Self::ProxSharedFeature => {
                Some(Feature::Lists)
            }
            Self::DoubleFeature => Some(Feature::Overlapping),
            Self::EmptyGroup | Self::ShortSizes | Self::ProxOtherRows => Some(Feature::Ranges),
            _ if self.column() == Column::Select => None,
            _ => Some(Feature::Rows),
        };
        let penalty = match self {
            Self::TauAboveOne => Some(Feature::SparseGroup),
            Self::NanAlpha => Some(Feature::ElasticNet),
            _ if self.column() == Column::Select => None,
            _ => Some(Feature::GroupLasso),
        };
        let own = match self {
            Self::NegativeSampleWeight
            | Self::NanSampleWeight
            | Self::ZeroSampleWeights
            | Self::TooFewSampleWeights => Some(Feature::SampleWeights),
            Self::NegativeWeight | Self::NanWeight | Self::TooFewWeights | Self::ProxNegativeWeight => {
                Some(Feature::Weights)
            }
            Self::StartOfOtherShape | Self::NanInStart => Some(Feature::WarmStart),
            Self::NanLambdaInPath => Some(Feature::Path),
            Self::SelectNothing => Some(Feature::KeepCount),
            _ if self.column() == Column::Select => Some(Feature::KeepFraction),
            _ => None,
        };
        let mut list: Vec<Feature> = [groups, penalty, own].into_iter().flatten().collect();
        if self.column() == Column::Solve {
            let loss = if self.is_multinomial() { Feature::Multinomial } else { Feature::LeastSquares };
            list.extend([loss, Feature::Outputs, Feature::Intercept]);
        } else if self.column() == Column::Prox {
            list.push(Feature::Outputs);
        }
        list
    }
}
