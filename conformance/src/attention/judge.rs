//! Is this answer right? In tiers, each with its own kind of violation:
//!
//! 1. *special values*, by class: what must be −∞ is −∞, what must be finite is finite, nothing was left unwritten;
//! 2. *bound*: every element within [`Limit::worst`](tilewright_attention::bound::Limit) of the truth;
//! 3. *spread*: within `coherent + 6 sigma` and the final rounding, where the data are in general position;
//! 4. *population*, for 16-bit storage: the errors of a whole tensor are no wider than predicted and lean neither way;
//! 5. *exact*: where one key takes all, `O` is its value, not something near it.

use crate::attention::expected::{BACKWARD, Expected, ExpectedTensor, FORWARD};
use crate::{Tensor, Tensors};
use std::fmt;
use tilewright_attention::Contract;
use tilewright_attention::bound::final_rounding;
use tilewright_scalar::{DoubleDouble, Real};

/// Standard deviations allowed to one element: at 6, a false alarm in a billion independent normal errors, and
/// rounding errors, being bounded, have lighter tails than normal ones.
const DEVIATIONS: f64 = 6.0;
/// The population tier's limits on the root mean square and on the mean of standardised errors. Rounding to nearest
/// gives a root mean square of at most 1 by construction of sigma, and a mean of 0; truncating `P` a mean beyond 0.7.
const RMS_LIMIT: f64 = 1.5;
const MEAN_LIMIT: f64 = 0.35;
/// The mean must also be this many of its own standard errors from 0, over rows, which share errors within.
const MEAN_ERRORS: f64 = 8.0;
/// Smaller tensors make no population.
const POPULATION: usize = 512;
const POPULATION_ROWS: usize = 24;

/// What kind of wrong an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No answer for a valid problem.
    Failed,
    /// The process ended or the code panicked.
    Crashed,
    /// No answer in time.
    TimedOut,
    /// Wrote outside its outputs, changed its inputs, broke the protocol.
    Misbehaved,
    /// A tensor of the wrong shape or format.
    Shape,
    /// NaN, an infinity or a finite value where the truth is of another class.
    SpecialValue,
    /// Beyond the certain bound.
    Bound,
    /// Beyond the statistical limit.
    Spread,
    /// Errors of the tensor as a whole lean one way or are too wide.
    Population,
    /// Not the exact copy it has to be.
    Exact,
    /// Other bits for the same inputs.
    Nondeterministic,
    /// A law that relates two runs does not hold.
    Law,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 12] = [
        Self::Failed,
        Self::Crashed,
        Self::TimedOut,
        Self::Misbehaved,
        Self::Shape,
        Self::SpecialValue,
        Self::Bound,
        Self::Spread,
        Self::Population,
        Self::Exact,
        Self::Nondeterministic,
        Self::Law,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed-out",
            Self::Misbehaved => "misbehaved",
            Self::Shape => "shape",
            Self::SpecialValue => "special-value",
            Self::Bound => "bound",
            Self::Spread => "spread",
            Self::Population => "population",
            Self::Exact => "exact",
            Self::Nondeterministic => "nondeterministic",
            Self::Law => "law",
        }
    }
}

/// One thing wrong with one tensor, at its worst element.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// What kind.
    pub kind: Kind,
    /// Which tensor, or which law.
    pub subject: String,
    /// Logical index of the worst element; empty for what concerns a whole tensor.
    pub index: Vec<usize>,
    /// What was found there.
    pub got: f64,
    /// The truth.
    pub expected: f64,
    /// The error allowed.
    pub limit: f64,
    /// Error over limit.
    pub ratio: f64,
    /// A remark.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.kind.name(), self.subject)?;
        if !self.index.is_empty() {
            let (index, got, expected) = (&self.index, self.got, self.expected);
            write!(f, " at {index:?}: {got:.9e}, expected {expected:.9e} ± {:.2e}", self.limit)?;
            write!(f, ", error/limit {:.3}", self.ratio)?;
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, "; {}", self.detail) }
    }
}

/// What the judge found.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// Everything wrong, the gravest kind first.
    pub violations: Vec<Violation>,
    /// Largest error over certain bound.
    pub bound_ratio: f64,
    /// Largest error over statistical limit, where that tier applies.
    pub spread_ratio: f64,
    /// Elements looked at.
    pub elements: u64,
}

/// Judges the tensors of an answer against what was expected. Tensors that are expected but not in the answer are the
/// caller's business.
pub fn judge(expected: &Expected, answer: &Tensors, contract: &Contract, tiers: &Tiers) -> Judgement {
    let mut judgement = Judgement::default();
    let queries = expected.get("lse").and_then(|lse| lse.shape.last().copied()).unwrap_or(0);
    // The forward pass first: of violations alike, gradients are the consequence.
    for name in FORWARD.into_iter().chain(BACKWARD) {
        if let (Some(truth), Some(tensor)) = (expected.get(name), answer.get(name)) {
            judge_tensor(name, truth, tensor, contract, tiers, queries, &mut judgement);
        }
    }
    judgement.violations.sort_by(|a, b| a.kind.cmp(&b.kind).then(b.ratio.total_cmp(&a.ratio)));
    judgement
}

/// Which of the optional tiers apply to a case.
#[derive(Clone, Debug, Default)]
pub struct Tiers {
    /// The data are in general position: rounding errors are independent.
    pub statistical: bool,
    /// For each row of `O`, whether one key takes all and the row is a copy of its value; empty if none does.
    pub copies: Vec<bool>,
}

/// The error of one element, in enough precision for any storage.
pub(crate) fn error(got: f64, truth: DoubleDouble) -> f64 {
    (DoubleDouble::from_f64(got) - truth).abs().to_f64()
}

impl ExpectedTensor {
    /// The statistical limit of element `n`, never above the certain one.
    pub fn spread_limit(&self, n: usize) -> f64 {
        let limit = self.coherent[n] + DEVIATIONS * self.sigma[n] + final_rounding(self.rounding, self.value[n].hi());
        limit.min(self.worst[n])
    }

    /// The logical index of element `n`.
    pub fn unravel(&self, n: usize) -> Vec<usize> {
        let mut rest = n;
        let mut index: Vec<usize> = self.shape.iter().rev().map(|axis| (rest % axis, rest /= axis).0).collect();
        index.reverse();
        index
    }
}

/// Finds the largest ratio and where.
#[derive(Default)]
struct Worst {
    ratio: f64,
    at: Option<usize>,
}

impl Worst {
    fn see(&mut self, n: usize, ratio: f64) {
        if ratio > self.ratio || (self.at.is_none() && ratio > 0.0) {
            *self = Self { ratio, at: Some(n) };
        }
    }
}

fn judge_tensor(
    name: &str,
    truth: &ExpectedTensor,
    tensor: &Tensor,
    contract: &Contract,
    tiers: &Tiers,
    queries: usize,
    judgement: &mut Judgement,
) {
    if tensor.shape() != truth.shape || tensor.format() != truth.format {
        let detail = format!(
            "got {} {:?}, expected {} {:?}",
            tensor.format().name,
            tensor.shape(),
            truth.format.name,
            truth.shape
        );
        judgement.violations.push(whole(Kind::Shape, name, f64::INFINITY, detail));
        return;
    }
    let got = tensor.to_f64();
    let dim = truth.shape.last().copied().unwrap_or(1).max(1);
    // `p · v / ℓ` with `p = ℓ` may round twice, once more where splits are merged; narrower storage hides even that.
    let copied = |n: usize| 4.0 * contract.unit_roundoff() * truth.value[n].hi().abs();
    judgement.elements += got.len() as u64;
    let (mut special, mut bound, mut spread, mut exact) =
        (Worst::default(), Worst::default(), Worst::default(), Worst::default());
    for (n, (&x, &value)) in got.iter().zip(&truth.value).enumerate() {
        if !same_class(x, value.hi(), truth.worst[n], truth.format.max_finite()) {
            special.see(n, f64::INFINITY);
            continue;
        }
        if !x.is_finite() {
            continue;
        }
        let error = error(x, value);
        bound.see(n, ratio(error, truth.worst[n]));
        if tiers.statistical {
            spread.see(n, ratio(error, truth.spread_limit(n)));
        }
        if name == "o" && tiers.copies.get(n / dim).is_some_and(|copy| *copy) {
            exact.see(n, ratio(error, copied(n)));
        }
    }
    judgement.bound_ratio = judgement.bound_ratio.max(bound.ratio);
    judgement.spread_ratio = judgement.spread_ratio.max(spread.ratio);
    let mut report = |kind: Kind, worst: &Worst, limit: &dyn Fn(usize) -> f64| {
        if let Some(n) = worst.at.filter(|_| worst.ratio > 1.0) {
            judgement.violations.push(Violation {
                kind,
                subject: name.into(),
                index: truth.unravel(n),
                got: got[n],
                expected: truth.value[n].hi(),
                limit: limit(n),
                ratio: worst.ratio,
                detail: String::new(),
            });
        }
    };
    report(Kind::SpecialValue, &special, &|n| truth.worst[n]);
    report(Kind::Bound, &bound, &|n| truth.worst[n]);
    report(Kind::Exact, &exact, &copied);
    if bound.ratio <= 1.0 {
        report(Kind::Spread, &spread, &|n| truth.spread_limit(n));
    }
    if tiers.statistical && contract.storage.precision < contract.accum.precision && name != "lse" && name != "d_sink" {
        judgement.violations.extend(population(name, truth, &got, queries));
    }
}

/// Error over limit; infinite where either is not a number, so that nothing passes for want of a comparison.
fn ratio(error: f64, limit: f64) -> f64 {
    if error == 0.0 || limit == f64::INFINITY {
        0.0
    } else if error.is_nan() || limit.is_nan() || limit < 0.0 {
        f64::INFINITY
    } else {
        error / limit
    }
}

/// Whether a value is of the class the truth asks for. A truth so large that its error reaches beyond the format's
/// range may come back as the infinity at that end, and one of which nothing is known as anything: where a contract
/// keeps a running sum in a format that it overflows, infinities of both signs may meet.
fn same_class(got: f64, truth: f64, worst: f64, max_finite: f64) -> bool {
    if truth.is_nan() {
        got.is_nan()
    } else if truth.is_infinite() {
        got == truth
    } else {
        got.is_finite()
            || worst == f64::INFINITY
            || (got == f64::INFINITY && truth + worst >= max_finite)
            || (got == f64::NEG_INFINITY && truth - worst <= -max_finite)
    }
}

fn whole(kind: Kind, subject: &str, ratio: f64, detail: String) -> Violation {
    let subject = subject.into();
    Violation { kind, subject, index: Vec::new(), got: f64::NAN, expected: f64::NAN, limit: f64::NAN, ratio, detail }
}

/// A violation that concerns a run and not an element.
pub(crate) fn incident(kind: Kind, subject: &str, detail: String) -> Violation {
    whole(kind, subject, f64::INFINITY, detail)
}

/// The population tier: standardised errors `z`, less what may be systematic, must have a root mean square of at most
/// [`RMS_LIMIT`] and, taken away from zero, no mean to speak of. Truncating `P` instead of rounding it moves no single
/// element beyond its limit and every one of them towards zero.
fn population(name: &str, truth: &ExpectedTensor, got: &[f64], queries: usize) -> Option<Violation> {
    let dim = *truth.shape.last()?;
    let (mut squares, mut count) = (0.0, 0usize);
    let mut rows = Vec::new();
    for (row, values) in got.chunks(dim.max(1)).enumerate() {
        let (mut sum, mut in_row) = (0.0, 0usize);
        for (c, &x) in values.iter().enumerate() {
            let n = row * dim + c;
            let value = truth.value[n];
            let rounding = truth.format.unit_roundoff() * value.hi();
            let deviation = (truth.sigma[n].powi(2) + rounding * rounding / 3.0).sqrt();
            // Near the underflow threshold rounding errors no longer scale with the value.
            if !x.is_finite() || deviation <= 16.0 * truth.rounding.underflow_unit() {
                continue;
            }
            let error = (DoubleDouble::from_f64(x) - value).to_f64();
            let z = error.signum() * (error.abs() - truth.coherent[n]).max(0.0) / deviation;
            squares += z * z;
            sum += z * value.hi().signum();
            in_row += 1;
        }
        if in_row > 0 {
            rows.push(sum / in_row as f64);
            count += in_row;
        }
    }
    if count < POPULATION || rows.len() < POPULATION_ROWS {
        return None;
    }
    let rms = (squares / count as f64).sqrt();
    if rms > RMS_LIMIT {
        let detail = format!("errors {rms:.2} times as wide as predicted over {count} elements");
        return Some(whole(Kind::Population, name, rms / RMS_LIMIT, detail));
    }
    // Every key's gradients see the same queries, and with them the errors of the same few LSE and D.
    if matches!(name, "d_k" | "d_v" | "d_bias") && queries < POPULATION_ROWS {
        return None;
    }
    let mean = rows.iter().sum::<f64>() / rows.len() as f64;
    let variance = rows.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (rows.len() - 1) as f64;
    let standard_error = (variance / rows.len() as f64).sqrt();
    if mean.abs() > MEAN_LIMIT && mean.abs() > MEAN_ERRORS * standard_error {
        let towards = if mean < 0.0 { "towards" } else { "away from" };
        let detail =
            format!("errors lean {towards} zero by {:.2} standard deviations over {count} elements", mean.abs());
        return Some(whole(Kind::Population, name, mean.abs() / MEAN_LIMIT, detail));
    }
    None
}
