//! The thing on trial.

use crate::SubjectError;
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeSet;
use tilewright_grouplasso::{
    Columns, Data, GroupLassoError, GroupLassoSpec, Keep, Problem, Progress, SparseRows, Start, Stopped, Targets,
};
use tilewright_scalar::Format;

/// The columns of reports: what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// Proximal operators.
    Prox,
    /// Scores, and the selection made by them.
    Select,
    /// Solutions.
    Solve,
}

impl Column {
    /// All of them, in the report's order.
    pub const ALL: [Self; 3] = [Self::Prox, Self::Select, Self::Solve];

    /// The name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prox => "prox",
            Self::Select => "select",
            Self::Solve => "solve",
        }
    }

    /// The column of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }
}

/// What a case may ask of an implementation, for capability declarations and for the report's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Data stored as `f64`.
    F64,
    /// As `f32`.
    F32,
    /// In half precision.
    F16,
    /// As bfloat16.
    Bf16,
    /// Least squares.
    LeastSquares,
    /// Multinomial logistic regression.
    Multinomial,
    /// More than one output.
    Outputs,
    /// Each row a group.
    Rows,
    /// Groups of consecutive rows.
    Ranges,
    /// Groups of any rows.
    Lists,
    /// Groups that share features.
    Overlapping,
    /// The group lasso.
    GroupLasso,
    /// The sparse-group lasso.
    SparseGroup,
    /// The group elastic net.
    ElasticNet,
    /// Weights other than √size.
    Weights,
    /// Groups that pay nothing.
    Free,
    /// An intercept.
    Intercept,
    /// No intercept.
    NoIntercept,
    /// Centred columns.
    Centre,
    /// Scaled columns.
    Scale,
    /// Sample weights.
    SampleWeights,
    /// A class that nobody has.
    AbsentClass,
    /// Columns or targets that say nothing, or nothing new.
    Degenerate,
    /// Numbers whose squares overflow or vanish.
    Extremes,
    /// NaN and infinities.
    NonFinite,
    /// A relative gap of `10⁻⁶`.
    Gap6,
    /// A relative gap of `10⁻⁸`.
    Gap8,
    /// A start from an earlier answer.
    WarmStart,
    /// A path of λs.
    Path,
    /// An end before the end, and going on from there.
    Interruption,
    /// A limit to iterations.
    Limit,
    /// A share of all rows is kept.
    KeepFraction,
    /// A number of rows is kept.
    KeepCount,
    /// Ill-posed problems are refused.
    Refusal,
}

impl Feature {
    /// All of them, in the report's order.
    pub const ALL: [Self; 34] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::LeastSquares,
        Self::Multinomial,
        Self::Outputs,
        Self::Rows,
        Self::Ranges,
        Self::Lists,
        Self::Overlapping,
        Self::GroupLasso,
        Self::SparseGroup,
        Self::ElasticNet,
        Self::Weights,
        Self::Free,
        Self::Intercept,
        Self::NoIntercept,
        Self::Centre,
        Self::Scale,
        Self::SampleWeights,
        Self::AbsentClass,
        Self::Degenerate,
        Self::Extremes,
        Self::NonFinite,
        Self::Gap6,
        Self::Gap8,
        Self::WarmStart,
        Self::Path,
        Self::Interruption,
        Self::Limit,
        Self::KeepFraction,
        Self::KeepCount,
        Self::Refusal,
    ];

    /// The name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::LeastSquares => "least-squares",
            Self::Multinomial => "multinomial",
            Self::Outputs => "outputs",
            Self::Rows => "rows",
            Self::Ranges => "ranges",
            Self::Lists => "lists",
            Self::Overlapping => "overlapping",
            Self::GroupLasso => "group-lasso",
            Self::SparseGroup => "sparse-group",
            Self::ElasticNet => "elastic-net",
            Self::Weights => "weights",
            Self::Free => "free",
            Self::Intercept => "intercept",
            Self::NoIntercept => "no-intercept",
            Self::Centre => "centre",
            Self::Scale => "scale",
            Self::SampleWeights => "sample-weights",
            Self::AbsentClass => "absent-class",
            Self::Degenerate => "degenerate",
            Self::Extremes => "extremes",
            Self::NonFinite => "non-finite",
            Self::Gap6 => "gap-1e-6",
            Self::Gap8 => "gap-1e-8",
            Self::WarmStart => "warm-start",
            Self::Path => "path",
            Self::Interruption => "interruption",
            Self::Limit => "limit",
            Self::KeepFraction => "keep-fraction",
            Self::KeepCount => "keep-count",
            Self::Refusal => "refusal",
        }
    }

    /// The feature of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }

    /// That of a storage format.
    pub fn of_format(format: Format) -> Option<Self> {
        [Self::F64, Self::F32, Self::F16, Self::Bf16].into_iter().find(|feature| feature.name() == format.name)
    }

    /// Whether a case of this column can ask for it.
    pub fn goes_with(self, column: Column) -> bool {
        use Feature::{
            ElasticNet, Extremes, F16, F32, F64, Free, GroupLasso, KeepCount, KeepFraction, Lists, NonFinite, Outputs,
            Overlapping, Ranges, Refusal, Rows, SparseGroup, Weights,
        };
        match self {
            F64 | F32 | F16 | Self::Bf16 | Extremes | Refusal => true,
            Outputs | Rows | Ranges | Lists | Overlapping | GroupLasso | SparseGroup | ElasticNet | Weights | Free => {
                column != Column::Select
            }
            NonFinite => column != Column::Solve,
            KeepFraction | KeepCount => column == Column::Select,
            _ => column == Column::Solve,
        }
    }
}

/// Who is on trial and what it can do.
///
/// ```
/// use tilewright_conformance::grouplasso::{Column, Feature, Profile};
/// let mut profile = Profile::new("my solver", "0.1");
/// profile.columns = vec![Column::Solve]; // a solver and nothing else,
/// profile.supports.remove(&Feature::Multinomial); // of least squares
/// assert!(profile.supports.contains(&Feature::Rows));
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Operations it has.
    pub columns: Vec<Column>,
    /// Features it declares; whatever else a case asks for is counted as unsupported and not run.
    pub supports: BTreeSet<Feature>,
    /// Whether the same inputs always give the same bits, on any number of threads.
    pub deterministic: bool,
    /// Whether its refusals name the argument that is wrong, as [`GroupLassoError`] does.
    pub names_places: bool,
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
            names_places: true,
        }
    }
}

/// What samples should come to, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `n × C` numbers.
    Values(Array2<f64>),
    /// A class a sample.
    Labels {
        /// One a sample.
        labels: Vec<u32>,
        /// `C`.
        classes: usize,
    },
}

impl Target {
    /// As solvers take them.
    pub fn view(&self) -> Targets<'_> {
        match self {
            Self::Values(values) => Targets::Values(values.view()),
            Self::Labels { labels, classes } => Targets::Labels { labels, classes: *classes },
        }
    }

    /// Outputs or classes.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Values(values) => values.ncols(),
            Self::Labels { classes, .. } => *classes,
        }
    }
}

/// A problem with its data: what a solver is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The problem.
    pub spec: GroupLassoSpec,
    /// What `x` is stored in.
    pub format: Format,
    /// `n × d`, each entry a number of the format.
    pub x: Array2<f64>,
    /// Right-hand side.
    pub target: Target,
    /// Sample weights.
    pub sample_weights: Option<Vec<f64>>,
}

impl Instance {
    /// The data, in `f64`.
    pub fn data(&self) -> Data<'_, f64> {
        Data { x: self.x.view(), targets: self.target.view(), sample_weights: self.sample_weights.as_deref() }
    }

    /// The problem as the judge sees it.
    ///
    /// # Errors
    /// If it is none.
    pub fn problem(&self) -> Result<Problem<'_, f64>, GroupLassoError> {
        Problem::new(&self.spec, &self.data())
    }
}

/// A proximal operator to be applied.
#[derive(Clone, Copy, Debug)]
pub struct ProxRequest<'a> {
    /// The case, for messages.
    pub id: &'a str,
    /// What the matrix is stored in.
    pub format: Format,
    /// The penalty.
    pub spec: &'a GroupLassoSpec,
    /// The step.
    pub step: f64,
    /// The matrix, each entry a number of the format.
    pub w: ArrayView2<'a, f64>,
    /// Threads to use, where the subject has a say in it.
    pub threads: Option<usize>,
}

/// Scores to be computed.
#[derive(Clone, Copy, Debug)]
pub struct ScoresRequest<'a> {
    /// The case, for messages.
    pub id: &'a str,
    /// What the matrix is stored in.
    pub format: Format,
    /// The matrix, each entry a number of the format.
    pub w: ArrayView2<'a, f64>,
    /// Threads to use.
    pub threads: Option<usize>,
}

/// A selection to be made.
#[derive(Clone, Copy, Debug)]
pub struct SelectRequest<'a> {
    /// The case, for messages.
    pub id: &'a str,
    /// What the coefficients are stored in; scores are `f64` for `f64`, else `f32`.
    pub format: Format,
    /// One score a row.
    pub scores: &'a [f64],
    /// How many are kept.
    pub keep: Keep,
    /// Threads to use.
    pub threads: Option<usize>,
}

/// A problem to be solved.
#[derive(Clone, Copy, Debug)]
pub struct SolveRequest<'a> {
    /// The case, for messages.
    pub id: &'a str,
    /// The problem and its data.
    pub instance: &'a Instance,
    /// The relative gap asked for.
    pub gap: f64,
    /// Iterations at most, as the subject counts them.
    pub iterations: usize,
    /// Where to start.
    pub start: Option<&'a Start>,
    /// Interrupt it when it reports progress for the so-manieth time, from 1.
    pub interrupt: Option<usize>,
    /// λs to solve for in turn, in place of the problem's own.
    pub lambdas: Option<&'a [f64]>,
    /// Threads to use.
    pub threads: Option<usize>,
}

/// What a subject says of its answer. What it leaves out is not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Claim {
    /// `P(W, b)`.
    pub objective: Option<f64>,
    /// The gap over `P(0)`.
    pub relative_gap: Option<f64>,
    /// The violation of the optimality conditions.
    pub kkt: Option<f64>,
    /// Groups that are not zero.
    pub active: Option<usize>,
}

/// What was seen of a solver's work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watched {
    /// The last report of progress.
    pub last: Progress,
    /// Whether the work was interrupted there.
    pub interrupted: bool,
}

/// A solver's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Coefficients of standardised columns, by row.
    pub w: SparseRows,
    /// The intercept; zeros without one.
    pub b: Vec<f64>,
    /// What is said of it.
    pub claim: Claim,
    /// Why the solver stopped, if it says so.
    pub stopped: Option<Stopped>,
    /// Iterations made, if it says so.
    pub iterations: Option<usize>,
    /// How columns were standardised, if it says so.
    pub columns: Option<Columns>,
    /// What was seen of the work, if anything was.
    pub watched: Option<Watched>,
}

impl Answer {
    /// To start from here.
    pub fn start(&self) -> Start {
        Start { w: self.w.clone(), b: self.b.clone() }
    }
}

/// A thing that can be put on trial.
pub trait Subject {
    /// Who it is and what it can do.
    fn profile(&self) -> &Profile;

    /// Applies a proximal operator.
    ///
    /// # Errors
    /// [`SubjectError`] in place of an answer.
    fn prox(&mut self, request: &ProxRequest<'_>) -> Result<Array2<f64>, SubjectError>;

    /// Scores rows.
    ///
    /// # Errors
    /// [`SubjectError`] in place of an answer.
    fn scores(&mut self, request: &ScoresRequest<'_>) -> Result<Vec<f64>, SubjectError>;

    /// Selects rows.
    ///
    /// # Errors
    /// [`SubjectError`] in place of an answer.
    fn select(&mut self, request: &SelectRequest<'_>) -> Result<Vec<usize>, SubjectError>;

    /// Solves a problem, or one for each λ of a path: an answer a λ, fewer if it was interrupted.
    ///
    /// # Errors
    /// [`SubjectError`] in place of answers.
    fn solve(&mut self, request: &SolveRequest<'_>) -> Result<Vec<Answer>, SubjectError>;
}
