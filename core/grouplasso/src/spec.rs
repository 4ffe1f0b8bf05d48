//! The problem as plain data. Every convention of this family is an enum variant or a sentence here.
//!
//! For `n` samples, `d` features and `C` outputs (classes), with `X` of `n × d`, the answer is a matrix `W` of `d × C` and
//! an intercept `b` of `C` numbers that minimise
//!
//! ```text
//! P(W, b) = Σᵢ ω̂ᵢ ℓ(yᵢ, xᵢ W + b) + Σ_g h_g(W_g)
//! ```
//!
//! * `ω̂ᵢ = ωᵢ / Σ ω` are the sample weights, `1/n` if none are given: the loss is a *mean*, as in glmnet and scikit-learn.
//! * least squares: `ℓ(y, z) = ½ ‖y − z‖²`, so without weights `1/(2n) ‖Y − 1bᵀ − XW‖²`, summed over the outputs (adelie
//!   divides by `C` as well: its λ is ours over `C`). One output is the group lasso of statistics.
//! * multinomial: `ℓ(k, z) = ln Σⱼ exp zⱼ − zₖ`, natural logarithms. All classes have a row of coefficients; the penalty
//!   makes them unique (they sum to zero over the classes wherever every group is penalised).
//! * `W_g` are the rows of `W` that belong to group `g`, all their outputs, as one vector; `‖·‖` is its Euclidean norm.
//! * group lasso: `h_g = λ w_g ‖W_g‖`. Sparse group: `λ (τ ‖W_g‖₁ + (1−τ) w_g ‖W_g‖)`. Elastic net:
//!   `λ w_g (α ‖W_g‖ + (1−α)/2 ‖W_g‖²)`.
//! * A group of weight 0, and every group if `λ = 0`, is *free*: no part of the penalty touches it. The intercept is never
//!   penalised.
//! * With [`Standardise`], `x` stands for `(x − mean) / deviation` everywhere above, so `W` multiplies standardised columns and
//!   the penalty sees those; [`Solution::on_raw_columns`](crate::Solution::on_raw_columns) says the same in raw columns.
//! * A class that no sample of positive weight has, in a multinomial problem with an intercept, has intercept −∞ and
//!   weights 0: that is the limit of every minimising sequence.

use crate::{GroupLassoError, Layout};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The greatest magnitude a number in the data may have, `2³⁰⁰`: sums of products of four stay finite.
pub const LARGEST: f64 = 2.037_035_976_334_486e90;

/// What is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Half the squared distance to `C` numbers a sample.
    LeastSquares,
    /// The cross-entropy of softmax with one of `C` classes a sample.
    Multinomial,
}

/// Which rows of `W` live and die together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Groups {
    /// Each feature's row is a group: Head2Toe's.
    Rows,
    /// Consecutive features, so many in each group; together all of them.
    Sizes(Vec<usize>),
    /// The features of each group, in any order; each feature in exactly one.
    Lists(Vec<Vec<usize>>),
    /// The same, but a feature may belong to several groups: it has a coefficient in each (a *latent copy*, Jacob, Obozinski
    /// and Vert 2009), and what multiplies the feature is their sum. Each feature in at least one group, at most once in each.
    Overlapping(Vec<Vec<usize>>),
}

/// The weights `w_g` of the groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Weights {
    /// The square root of the number of features, so 1 for rows (Yuan and Lin 2006).
    #[default]
    SqrtSize,
    /// All 1.
    Ones,
    /// These: one a group, finite and not negative. 0 frees the group.
    Given(Vec<f64>),
}

/// What a group costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Penalty {
    /// `λ w_g ‖W_g‖`.
    #[default]
    GroupLasso,
    /// `λ (τ ‖W_g‖₁ + (1−τ) w_g ‖W_g‖)`: zeros within groups too (Simon et al. 2013).
    SparseGroup {
        /// τ, from 0 to 1.
        tau: f64,
    },
    /// `λ w_g (α ‖W_g‖ + (1−α)/2 ‖W_g‖²)`; `α = 0` is ridge regression, which selects nothing.
    ElasticNet {
        /// α, from 0 to 1.
        alpha: f64,
    },
}

/// What is done to the columns of `X` before anything else, by arithmetic on the fly: `X` is neither changed nor copied.
///
/// Mean and standard deviation are those of the weighted sample, the deviation with divisor `n` (`Σ ω̂ (x − mean)²`). A column
/// whose deviation is not above `n · 2⁻⁵²` times its greatest magnitude, among the `n` samples of positive weight, is
/// [constant but for rounding](crate::Columns::is_constant): it is not divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standardise {
    /// Subtract each column's mean. With an intercept this changes the intercept and nothing else.
    pub centre: bool,
    /// Divide each column by its standard deviation.
    pub scale: bool,
}

/// A group-lasso problem.
///
/// ```
/// use tilewright_grouplasso::{GroupLassoSpec, Groups, Loss, Penalty};
/// let spec = GroupLassoSpec {
///     groups: Groups::Sizes(vec![2, 3]),
///     penalty: Penalty::SparseGroup { tau: 0.1 },
///     ..GroupLassoSpec::rows(Loss::Multinomial, 0.05)
/// };
/// assert!(spec.validate(5).is_ok());
/// assert_eq!(spec.validate(6).unwrap_err().to_string(), "groups: sizes cover 5 features, there are 6");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLassoSpec {
    /// What is fitted.
    pub loss: Loss,
    /// Which rows of `W` belong together.
    pub groups: Groups,
    /// The groups' weights.
    pub weights: Weights,
    /// What a group costs.
    pub penalty: Penalty,
    /// λ, at least 0.
    pub lambda: f64,
    /// Whether there is an intercept.
    pub intercept: bool,
    /// What is done to the columns.
    pub standardise: Standardise,
}

impl GroupLassoSpec {
    /// Head2Toe's problem: every feature a group of weight 1, an intercept, columns as they are.
    pub fn rows(loss: Loss, lambda: f64) -> Self {
        Self {
            loss,
            groups: Groups::Rows,
            weights: Weights::default(),
            penalty: Penalty::GroupLasso,
            lambda,
            intercept: true,
            standardise: Standardise::default(),
        }
    }

    /// Whether every field is in its range for `features` features.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`] or [`GroupLassoError::Groups`], naming the first that is not.
    pub fn validate(&self, features: usize) -> Result<(), GroupLassoError> {
        if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            return Err(spec("lambda", self.lambda.to_string(), "a finite number, at least 0"));
        }
        match self.penalty {
            Penalty::SparseGroup { tau } if !(0.0..=1.0).contains(&tau) => {
                return Err(spec("tau", tau.to_string(), "from 0 to 1"));
            }
            Penalty::ElasticNet { alpha } if !(0.0..=1.0).contains(&alpha) => {
                return Err(spec("alpha", alpha.to_string(), "from 0 to 1"));
            }
            _ => {}
        }
        let layout = Layout::new(&self.groups, features)?;
        let Weights::Given(weights) = &self.weights else { return Ok(()) };
        if weights.len() != layout.groups() {
            let expected = format!("{} weights, one a group", layout.groups());
            return Err(spec("weights", format!("{} of them", weights.len()), &expected));
        }
        match weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            Some(at) => Err(GroupLassoError::Value {
                argument: "weights",
                at: at.to_string(),
                got: weights[at].to_string(),
                expected: "a finite number, at least 0",
            }),
            None => Ok(()),
        }
    }
}

pub(crate) fn spec(field: &'static str, got: String, expected: &str) -> GroupLassoError {
    GroupLassoError::Spec { field, got, expected: expected.into() }
}
