//! Cases: what a trial asks. A case is its printable id, and the id determines every bit of the inputs.
//!
//! ```text
//! grouplasso/solve/f64/n40d60c3/multinomial/ragged/sg=0.3/lambda@0.1/gap=1e-6+intercept+scale/once/gaussian/7f3a
//!            │     │   │        │           │      │      │          │                       │    │        └ seed, hexadecimal
//!            │     │   │        │           │      │      │          │                       │    └ data
//!            │     │   │        │           │      │      │          │                       └ task
//!            │     │   │        │           │      │      │          └ relative gap; options
//!            │     │   │        │           │      │      └ λ: a share of λ_max, or itself
//!            │     │   │        │           │      └ penalty
//!            │     │   │        │           └ groups
//!            │     │   │        └ loss
//!            │     │   └ samples, features, outputs
//!            │     └ format that X is stored in
//!            └ operation
//! grouplasso/prox/f32/r40c3/ragged/sg=0.3/lambda=0.5/step=0.25+weights=drawn/heavy/7f3a
//! grouplasso/select/f32/r100c5/keep@0.05/ties/7f3a
//! grouplasso/refuse/f64/nan-in-x/7f3a
//! ```
//!
//! `@` goes before shares, `=` before numbers: `lambda@0.1` is a tenth of the least λ at which everything is zero.

pub use crate::grouplasso::oddities::{Design, Flaw, Values};
pub use crate::grouplasso::parse::CaseError;
use crate::grouplasso::subject::{Column, Feature};
use crate::suite::Visit;
use std::fmt;
use tilewright_grouplasso::{Keep, Loss, Penalty, Stopped};
use tilewright_scalar::Format;

/// Which rows belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// Each row.
    Rows,
    /// All of them.
    One,
    /// So many consecutive ones a group, the last group whatever is left.
    Equal(usize),
    /// Consecutive ones, sizes drawn.
    Ragged,
    /// Dealt out to so many groups.
    Lists(usize),
    /// Windows of so many features, each half over the one before.
    Overlap(usize),
}

/// The groups' weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Weighting {
    /// √size.
    #[default]
    SqrtSize,
    /// 1.
    Ones,
    /// Drawn.
    Drawn,
    /// Drawn, and every third group free.
    SomeFree,
    /// All groups free.
    AllFree,
}

impl Weighting {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::SqrtSize, Self::Ones, Self::Drawn, Self::SomeFree, Self::AllFree];

    /// The name in ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::SqrtSize => "sqrt-size",
            Self::Ones => "ones",
            Self::Drawn => "drawn",
            Self::SomeFree => "some-free",
            Self::AllFree => "all-free",
        }
    }
}

/// The sample weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// Drawn, all positive.
    Drawn,
    /// Drawn, a quarter of them 0.
    SomeZero,
    /// 1, 2 or 3.
    Counts,
    /// Drawn, and so large that their sum overflows.
    Huge,
    /// Drawn, and 0 for all samples of the last class; for least squares as [`SomeZero`](Self::SomeZero).
    WithoutLast,
}

impl Sampling {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Drawn, Self::SomeZero, Self::Counts, Self::Huge, Self::WithoutLast];

    /// The name in ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::SomeZero => "some-zero",
            Self::Counts => "counts",
            Self::Huge => "huge",
            Self::WithoutLast => "without-last",
        }
    }
}

/// λ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lambda {
    /// A share of the least λ at which all penalised groups are zero.
    Share(f64),
    /// Itself.
    Exactly(f64),
}

/// What is asked of a solver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// One answer.
    Once,
    /// One answer from that for twice the λ; then once more from the answer itself.
    Warm,
    /// So many λs, down to the case's, each a third of the one before.
    Path(usize),
    /// Interrupted after so many reports of progress, then resumed.
    Interrupt(usize),
    /// One answer from far away.
    Far,
    /// No more than so many iterations.
    Limit(usize),
    /// A path of four λs, interrupted after so many reports of progress.
    Cut(usize),
}

/// What a penalty and its groups are made of, for rows of coefficients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Structure {
    /// Groups.
    pub grouping: Grouping,
    /// Their weights.
    pub weighting: Weighting,
    /// What they pay.
    pub penalty: Penalty,
}

impl Structure {
    /// Head2Toe's: each row a group.
    pub const ROWS: Self =
        Self { grouping: Grouping::Rows, weighting: Weighting::SqrtSize, penalty: Penalty::GroupLasso };
}

/// A proximal operator to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxCase {
    /// What the matrix is stored in.
    pub format: Format,
    /// Features, which are rows unless groups overlap.
    pub features: usize,
    /// Columns.
    pub outputs: usize,
    /// The penalty.
    pub structure: Structure,
    /// λ.
    pub lambda: f64,
    /// The step.
    pub step: f64,
    /// What the matrix looks like.
    pub values: Values,
    /// Seed.
    pub seed: u32,
}

/// Scores and a selection to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectCase {
    /// What the matrix is stored in.
    pub format: Format,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub outputs: usize,
    /// How many are kept.
    pub keep: Keep,
    /// What the matrix looks like.
    pub values: Values,
    /// Seed.
    pub seed: u32,
}

/// A problem to be solved.
#[derive(Clone, Debug, PartialEq)]
pub struct SolveCase {
    /// What `X` is stored in.
    pub format: Format,
    /// Samples.
    pub samples: usize,
    /// Features.
    pub features: usize,
    /// Outputs or classes.
    pub outputs: usize,
    /// Loss.
    pub loss: Loss,
    /// The penalty.
    pub structure: Structure,
    /// λ.
    pub lambda: Lambda,
    /// The relative gap asked for.
    pub gap: f64,
    /// Whether there is an intercept.
    pub intercept: bool,
    /// Whether columns are centred.
    pub centre: bool,
    /// Whether columns are scaled.
    pub scale: bool,
    /// Sample weights, if there are any.
    pub sampling: Option<Sampling>,
    /// What is asked.
    pub task: Task,
    /// What the data looks like.
    pub design: Design,
    /// Seed.
    pub seed: u32,
}

/// Something that must be refused.
#[derive(Clone, Debug, PartialEq)]
pub struct RefuseCase {
    /// What `X` or `W` is stored in.
    pub format: Format,
    /// What is wrong with it.
    pub flaw: Flaw,
    /// Seed.
    pub seed: u32,
}

/// A case.
#[derive(Clone, Debug, PartialEq)]
pub enum Case {
    /// A proximal operator.
    Prox(ProxCase),
    /// Scores and a selection.
    Select(SelectCase),
    /// A problem.
    Solve(SolveCase),
    /// Something that is none.
    Refuse(RefuseCase),
}

impl ProxCase {
    /// Rows of their own, group lasso.
    pub fn new(format: Format, features: usize, outputs: usize) -> Self {
        let (structure, lambda, step) = (Structure::ROWS, 1.0, 1.0);
        Self { format, features, outputs, structure, lambda, step, values: Values::Heavy, seed: 1 }
    }
}

impl SelectCase {
    /// A tenth of so many rows.
    pub fn new(format: Format, rows: usize, outputs: usize) -> Self {
        Self { format, rows, outputs, keep: Keep::Fraction(0.1), values: Values::Heavy, seed: 1 }
    }
}

impl SolveCase {
    /// Head2Toe's problem at a tenth of `λ_max`, to a gap of `10⁻⁶`.
    pub fn new(loss: Loss, samples: usize, features: usize, outputs: usize) -> Self {
        Self {
            format: Format::F64,
            samples,
            features,
            outputs,
            loss,
            structure: Structure::ROWS,
            lambda: Lambda::Share(0.1),
            gap: 1e-6,
            intercept: true,
            centre: false,
            scale: false,
            sampling: None,
            task: Task::Once,
            design: Design::Gaussian,
            seed: 1,
        }
    }

    /// Whether some group pays nothing.
    pub fn has_free(&self) -> bool {
        let free = matches!(self.structure.weighting, Weighting::SomeFree | Weighting::AllFree);
        free || matches!(self.lambda, Lambda::Exactly(0.0) | Lambda::Share(0.0))
    }

    /// Whether the minimum may not be attained: what free coefficients can tell apart, softmax is never sure enough of.
    pub fn may_have_no_minimum(&self) -> bool {
        self.loss == Loss::Multinomial && self.has_free()
    }

    /// Reasons to stop short of the gap that are no fault.
    pub fn excuses(&self) -> &'static [Stopped] {
        match self.task {
            Task::Limit(_) => &[Stopped::Iterations],
            // Beyond what rounding lets anybody prove.
            _ if self.may_have_no_minimum() || self.gap < 1e-13 => &[Stopped::Stalled, Stopped::Iterations],
            _ => &[],
        }
    }
}

impl Case {
    /// The column of reports it belongs to.
    pub fn column(&self) -> Column {
        match self {
            Self::Prox(_) => Column::Prox,
            Self::Select(_) => Column::Select,
            Self::Solve(_) => Column::Solve,
            Self::Refuse(case) => case.flaw.column(),
        }
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        match self {
            Self::Prox(ProxCase { format, .. })
            | Self::Select(SelectCase { format, .. })
            | Self::Solve(SolveCase { format, .. })
            | Self::Refuse(RefuseCase { format, .. }) => *format,
        }
    }

    /// The features a subject needs to run this case.
    pub fn features(&self) -> Vec<Feature> {
        let mut list: Vec<Feature> = Feature::of_format(self.format()).into_iter().collect();
        match self {
            Self::Prox(case) => {
                list.extend(structure_features(&case.structure));
                list.extend((case.outputs > 1).then_some(Feature::Outputs));
                list.extend(value_features(case.values));
            }
            Self::Select(case) => {
                list.push(match case.keep {
                    Keep::Fraction(_) => Feature::KeepFraction,
                    Keep::Features(_) => Feature::KeepCount,
                });
                list.extend(value_features(case.values));
            }
            Self::Solve(case) => list.extend(solve_features(case)),
            Self::Refuse(case) => {
                list.push(Feature::Refusal);
                list.extend(case.flaw.features());
            }
        }
        list
    }
}

fn structure_features(structure: &Structure) -> Vec<Feature> {
    let groups = match structure.grouping {
        Grouping::Rows => Feature::Rows,
        Grouping::One | Grouping::Equal(_) | Grouping::Ragged => Feature::Ranges,
        Grouping::Lists(_) => Feature::Lists,
        Grouping::Overlap(_) => Feature::Overlapping,
    };
    let penalty = match structure.penalty {
        Penalty::GroupLasso => Feature::GroupLasso,
        Penalty::SparseGroup { .. } => Feature::SparseGroup,
        Penalty::ElasticNet { .. } => Feature::ElasticNet,
    };
    let weights = match structure.weighting {
        Weighting::SqrtSize => None,
        Weighting::Ones | Weighting::Drawn => Some(Feature::Weights),
        Weighting::SomeFree | Weighting::AllFree => Some(Feature::Free),
    };
    [Some(groups), Some(penalty), weights].into_iter().flatten().collect()
}

fn value_features(values: Values) -> Option<Feature> {
    match values {
        Values::Nan | Values::Infinite => Some(Feature::NonFinite),
        Values::Huge | Values::Tiny | Values::Subnormal | Values::Mixed => Some(Feature::Extremes),
        _ => None,
    }
}

fn solve_features(case: &SolveCase) -> Vec<Feature> {
    let has = |present: bool, feature: Feature| present.then_some(feature);
    let extreme = matches!(case.design, Design::Huge | Design::Tiny | Design::Subnormal | Design::Mixed);
    let without_last = case.loss == Loss::Multinomial && case.sampling == Some(Sampling::WithoutLast);
    let free = case.has_free() && !structure_features(&case.structure).contains(&Feature::Free);
    let own = [
        has(case.loss == Loss::LeastSquares, Feature::LeastSquares),
        has(case.loss == Loss::Multinomial, Feature::Multinomial),
        has(case.outputs > 1, Feature::Outputs),
        has(free, Feature::Free),
        has(case.intercept, Feature::Intercept),
        has(!case.intercept, Feature::NoIntercept),
        has(case.centre, Feature::Centre),
        has(case.scale, Feature::Scale),
        has(case.sampling.is_some(), Feature::SampleWeights),
        has(case.design == Design::MissingClass || without_last, Feature::AbsentClass),
        has(case.design.is_degenerate(), Feature::Degenerate),
        has(extreme, Feature::Extremes),
        has(case.gap <= 1e-5, Feature::Gap6),
        has(case.gap <= 1e-7, Feature::Gap8),
        has(matches!(case.task, Task::Warm | Task::Far), Feature::WarmStart),
        has(matches!(case.task, Task::Path(_) | Task::Cut(_)), Feature::Path),
        has(matches!(case.task, Task::Interrupt(_) | Task::Cut(_)), Feature::Interruption),
        has(matches!(case.task, Task::Limit(_)), Feature::Limit),
    ];
    structure_features(&case.structure).into_iter().chain(own.into_iter().flatten()).collect()
}

impl Visit for Case {
    /// Elements of the matrix that is worked on; for a solve also the iterations of a first-order method, of which softmax,
    /// a small λ and a small gap want more. How long a case takes, about.
    fn work(&self) -> u64 {
        match self {
            Self::Prox(case) => (case.features * case.outputs) as u64,
            Self::Select(case) => (case.rows * case.outputs) as u64,
            Self::Solve(case) => {
                let share = match case.lambda {
                    Lambda::Share(share) => share.clamp(0.01, 1.0),
                    Lambda::Exactly(_) => 0.1,
                };
                let softmax = if case.loss == Loss::Multinomial { 8.0 } else { 1.0 };
                let iterations = softmax * -case.gap.log10() / share;
                ((case.samples * case.features * case.outputs) as f64 * iterations) as u64
            }
            Self::Refuse(_) => 1,
        }
    }

    /// Features by operation, flaws, and far starts, which ask of each loss what no other start does.
    fn marks(&self) -> Vec<(&'static str, &'static str)> {
        let column = self.column().name();
        let other = match self {
            Self::Refuse(case) => Some((case.flaw.name(), column)),
            Self::Solve(SolveCase { task: Task::Far, loss: Loss::LeastSquares, .. }) => Some(("far", "ls")),
            Self::Solve(SolveCase { task: Task::Far, .. }) => Some(("far", "multinomial")),
            _ => None,
        };
        self.features().into_iter().map(|feature| (feature.name(), column)).chain(other).collect()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prox(case) => case.fmt(f),
            Self::Select(case) => case.fmt(f),
            Self::Solve(case) => case.fmt(f),
            Self::Refuse(RefuseCase { format, flaw, seed }) => {
                write!(f, "grouplasso/refuse/{}/{}/{seed:x}", format.name, flaw.name())
            }
        }
    }
}

impl fmt::Display for ProxCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Structure { grouping, weighting, penalty } = self.structure;
        let (features, outputs, format) = (self.features, self.outputs, self.format.name);
        write!(f, "grouplasso/prox/{format}/r{features}c{outputs}/{grouping}/{}/", penalty_name(penalty))?;
        write!(f, "lambda={}/step={}{}/", self.lambda, self.step, WeightsOption(weighting))?;
        write!(f, "{}/{:x}", self.values.name(), self.seed)
    }
}

impl fmt::Display for SelectCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grouplasso/select/{}/r{}c{}/", self.format.name, self.rows, self.outputs)?;
        match self.keep {
            Keep::Fraction(fraction) => write!(f, "keep@{fraction}")?,
            Keep::Features(features) => write!(f, "keep={features}")?,
        }
        write!(f, "/{}/{:x}", self.values.name(), self.seed)
    }
}

impl fmt::Display for SolveCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Structure { grouping, weighting, penalty } = self.structure;
        let (samples, features, outputs) = (self.samples, self.features, self.outputs);
        let loss = loss_name(self.loss);
        write!(f, "grouplasso/solve/{}/n{samples}d{features}c{outputs}/{loss}/{grouping}/", self.format.name)?;
        write!(f, "{}/", penalty_name(penalty))?;
        match self.lambda {
            Lambda::Share(share) => write!(f, "lambda@{share}")?,
            Lambda::Exactly(lambda) => write!(f, "lambda={lambda}")?,
        }
        write!(f, "/gap={:e}", self.gap)?;
        for (on, name) in [(self.intercept, "+intercept"), (self.centre, "+centre"), (self.scale, "+scale")] {
            f.write_str(if on { name } else { "" })?;
        }
        write!(f, "{}", WeightsOption(weighting))?;
        if let Some(sampling) = self.sampling {
            write!(f, "+samples={}", sampling.name())?;
        }
        write!(f, "/{}/{}/{:x}", self.task, self.design.name(), self.seed)
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows => f.write_str("rows"),
            Self::One => f.write_str("one"),
            Self::Equal(size) => write!(f, "equal={size}"),
            Self::Ragged => f.write_str("ragged"),
            Self::Lists(groups) => write!(f, "lists={groups}"),
            Self::Overlap(size) => write!(f, "overlap={size}"),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("once"),
            Self::Warm => f.write_str("warm"),
            Self::Path(points) => write!(f, "path={points}"),
            Self::Interrupt(after) => write!(f, "interrupt={after}"),
            Self::Far => f.write_str("far"),
            Self::Limit(iterations) => write!(f, "limit={iterations}"),
            Self::Cut(after) => write!(f, "cut={after}"),
        }
    }
}

struct WeightsOption(Weighting);

impl fmt::Display for WeightsOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Weighting::default() { Ok(()) } else { write!(f, "+weights={}", self.0.name()) }
    }
}

fn penalty_name(penalty: Penalty) -> String {
    match penalty {
        Penalty::GroupLasso => "gl".into(),
        Penalty::SparseGroup { tau } => format!("sg={tau}"),
        Penalty::ElasticNet { alpha } => format!("en={alpha}"),
    }
}

/// The name of a loss.
pub fn loss_name(loss: Loss) -> &'static str {
    match loss {
        Loss::LeastSquares => "ls",
        Loss::Multinomial => "multinomial",
    }
}
