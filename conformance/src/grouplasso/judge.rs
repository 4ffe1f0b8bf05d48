//! Is this answer right? A proximal operator and a score have a derived error bound, a selection one right answer. A solution
//! is judged by its certificate, computed anew from the data as the subject got them: never by how near it is to
//! somebody else's.

use crate::SubjectError;
use crate::grouplasso::subject::{Answer, Claim};
use crate::tensor::{Tensor, on_array};
use ndarray::{Array2, ArrayView2, Ix2};
use std::fmt;
use tilewright_grouplasso::certificate::certify;
use tilewright_grouplasso::losses::smoothness;
use tilewright_grouplasso::penalty::norm;
use tilewright_grouplasso::{
    Certificate, Columns, Element, GroupLassoSpec, Keep, Layout, Loss, Problem, SparseRows, Stopped, Terms, bound, prox,
};
use tilewright_scalar::Format;

/// What kind of wrong an answer is, gravest first.
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
    /// Answered what must be refused, or refused it without saying what is wrong.
    Refusal,
    /// Another shape than the problem has, or more or fewer answers.
    Shape,
    /// Not a number, or infinite, where nothing asks for it; or a number in place of NaN.
    NonFinite,
    /// Farther from the exact value than rounding takes it.
    Value,
    /// Not exactly zero, where nothing but that is right.
    Zero,
    /// A score farther from the norm than rounding takes it.
    Score,
    /// Other rows than the best, or in another order.
    Selection,
    /// What the subject says of its answer is not so.
    Claim,
    /// Other means or deviations of columns than the data has.
    Columns,
    /// A group is missing that must be there, or there is one that must not.
    Support,
    /// The optimality conditions are violated by more than the gap asked for allows.
    Kkt,
    /// Coefficients of the classes do not sum to zero, though that costs less.
    ClassSums,
    /// The certified gap is larger than the one asked for.
    Gap,
    /// The subject says itself that it did not get there, and had no reason not to.
    Unreached,
    /// Worse than the model without features.
    Worse,
    /// Other bits for the same inputs.
    Nondeterministic,
    /// Other bits on another number of threads.
    Threads,
    /// Law: zero stays zero.
    FixedZero,
    /// Law: two matrices come no farther apart.
    NonExpansive,
    /// Law: order means nothing.
    Permutation,
    /// Law: a step is a factor of λ.
    Step,
    /// Law: units mean nothing.
    Scaling,
    /// Law: the best of fewer are among the best of more.
    Nesting,
    /// Law: above `λ_max` everything is zero, below it something is not.
    LambdaMax,
    /// Law: a sample of weight 2 is two samples.
    Duplicates,
    /// More iterations than were allowed, fewer and yet stopped for that limit, or none of the reports that were due.
    Limit,
    /// Law: a sample of weight 0 is none.
    AbsentSamples,
    /// Law: centring, with an intercept, changes the intercept and nothing else.
    Centring,
    /// An answer is where the next search ends at once.
    WarmStart,
    /// Interrupted work goes on from where it was.
    Resumption,
}

/// Each kind's name.
const NAMES: [(Kind, &str); 34] = [
    (Kind::Failed, "failed"),
    (Kind::Crashed, "crashed"),
    (Kind::TimedOut, "timed-out"),
    (Kind::Misbehaved, "misbehaved"),
    (Kind::Refusal, "refusal"),
    (Kind::Shape, "shape"),
    (Kind::NonFinite, "non-finite"),
    (Kind::Value, "value"),
    (Kind::Zero, "zero"),
    (Kind::Score, "score"),
    (Kind::Selection, "selection"),
    (Kind::Claim, "claim"),
    (Kind::Columns, "columns"),
    (Kind::Support, "support"),
    (Kind::Kkt, "kkt"),
    (Kind::ClassSums, "class-sums"),
    (Kind::Gap, "gap"),
    (Kind::Unreached, "unreached"),
    (Kind::Worse, "worse"),
    (Kind::Nondeterministic, "nondeterministic"),
    (Kind::Threads, "threads"),
    (Kind::FixedZero, "fixed-zero"),
    (Kind::NonExpansive, "non-expansive"),
    (Kind::Permutation, "permutation"),
    (Kind::Step, "step"),
    (Kind::Scaling, "scaling"),
    (Kind::Nesting, "nesting"),
    (Kind::LambdaMax, "lambda-max"),
    (Kind::Duplicates, "duplicates"),
    (Kind::Limit, "limit"),
    (Kind::AbsentSamples, "absent-samples"),
    (Kind::Centring, "centring"),
    (Kind::WarmStart, "warm-start"),
    (Kind::Resumption, "resumption"),
];

impl Kind {
    /// All kinds, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(kind, _)| *kind)
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// One thing wrong with one answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// What kind.
    pub kind: Kind,
    /// Which answer, or under which law.
    pub place: String,
    /// In words.
    pub detail: String,
    /// Error over limit; infinite where errors have no size.
    pub ratio: f64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.kind.name(), self.place, self.detail)
    }
}

impl Violation {
    /// A violation without a size.
    pub fn new(kind: Kind, place: &str, detail: impl Into<String>) -> Self {
        Self { kind, place: place.into(), detail: detail.into(), ratio: f64::INFINITY }
    }

    fn sized(kind: Kind, place: &str, ratio: f64, detail: String) -> Self {
        Self { ratio, ..Self::new(kind, place, detail) }
    }

    /// What became of a call that gave no answer.
    pub(crate) fn of_error(error: &SubjectError, place: &str) -> Self {
        let kind = match error {
            SubjectError::Crashed(_) => Kind::Crashed,
            SubjectError::TimedOut(_) => Kind::TimedOut,
            SubjectError::Misbehaved(_) => Kind::Misbehaved,
            _ => Kind::Failed,
        };
        Self::new(kind, place, error.to_string())
    }
}

/// The limits of a proximal operator's answer: `exact` and `worst` as [`bound::prox`] has them.
///
/// # Errors
/// A line of text if the problem is ill-posed.
pub fn prox_limits(
    spec: &GroupLassoSpec,
    step: f64,
    format: Format,
    w: ArrayView2<'_, f64>,
) -> Result<bound::ProxBound, String> {
    fn typed<T: Element>(spec: &GroupLassoSpec, step: f64, w: ArrayView2<'_, T>) -> Result<bound::ProxBound, String> {
        bound::prox(spec, step, w, <T::Accum as Element>::FORMAT).map_err(|error| error.to_string())
    }
    let values: Vec<f64> = w.iter().copied().collect();
    let tensor = Tensor::from_f64(format, &[w.nrows(), w.ncols()], &values).map_err(|error| error.to_string())?;
    on_array!(&tensor, array => {
        let view = array.view().into_dimensionality::<Ix2>().map_err(|error| error.to_string())?;
        typed(spec, step, view)
    })
}

/// Judges a proximal operator's answer; the greatest error over its limit.
///
/// # Errors
/// The first [`Violation`] found.
pub fn judge_prox(
    layout: &Layout,
    limits: &bound::ProxBound,
    w: ArrayView2<'_, f64>,
    out: ArrayView2<'_, f64>,
    place: &str,
) -> Result<f64, Violation> {
    if out.dim() != w.dim() {
        let detail = format!("got {:?}, expected {:?}", out.dim(), w.dim());
        return Err(Violation::new(Kind::Shape, place, detail));
    }
    let mut largest = 0.0f64;
    for group in 0..layout.groups() {
        let cells: Vec<(usize, usize)> =
            layout.rows_of(group).flat_map(|row| (0..w.ncols()).map(move |k| (row, k))).collect();
        if cells.iter().any(|cell| !w[*cell].is_finite()) {
            judge_not_finite(&cells, w, out, place)?;
            continue;
        }
        for cell in cells {
            let (got, exact, worst) = (out[cell], limits.exact[cell], limits.worst[cell]);
            let at = format!("group {group}, row {}, output {}: got {got:e}", cell.0, cell.1);
            if !got.is_finite() {
                return Err(Violation::new(Kind::NonFinite, place, format!("{at}, expected {exact:e}")));
            }
            if limits.zero[group] && got != 0.0 {
                return Err(Violation::new(Kind::Zero, place, format!("{at}, expected exactly 0")));
            }
            let (off, ratio) = ((got - exact).abs(), (got - exact).abs() / worst);
            if off > worst {
                let detail = format!("{at}, expected {exact:e} ± {worst:.2e}");
                return Err(Violation::sized(Kind::Value, place, ratio, detail));
            }
            largest = largest.max(if off == 0.0 { 0.0 } else { ratio });
        }
    }
    Ok(largest)
}

/// In a group that has NaN or an infinity, that entry stays none; what becomes of its neighbours is nobody's business.
fn judge_not_finite(
    cells: &[(usize, usize)],
    w: ArrayView2<'_, f64>,
    out: ArrayView2<'_, f64>,
    place: &str,
) -> Result<(), Violation> {
    let lost =
        |cell: &&(usize, usize)| if w[**cell].is_nan() { !out[**cell].is_nan() } else { out[**cell].is_finite() };
    match cells.iter().filter(|cell| !w[**cell].is_finite()).find(lost) {
        Some(&cell) => {
            let detail = format!("row {}, output {}: got {:e} of {:e}", cell.0, cell.1, out[cell], w[cell]);
            Err(Violation::new(Kind::NonFinite, place, detail))
        }
        None => Ok(()),
    }
}

/// Judges the scores of the rows of `w`; the greatest error over its limit.
///
/// # Errors
/// The first [`Violation`] found.
pub fn judge_scores(format: Format, w: ArrayView2<'_, f64>, scores: &[f64], place: &str) -> Result<f64, Violation> {
    if scores.len() != w.nrows() {
        let detail = format!("got {} scores, expected {}", scores.len(), w.nrows());
        return Err(Violation::new(Kind::Shape, place, detail));
    }
    let accum = if format == Format::F64 { Format::F64 } else { Format::F32 };
    let mut largest = 0.0f64;
    for (i, (row, &got)) in w.rows().into_iter().zip(scores).enumerate() {
        let row = row.to_vec();
        let exact = norm(&row);
        let worst = bound::score(&row, accum, accum);
        let same_kind = (exact.is_nan(), exact.is_infinite()) == (got.is_nan(), got.is_infinite());
        // A norm may be beyond the format that it goes into.
        let beyond = exact.is_finite() && exact + worst > accum.max_finite();
        if !same_kind && !beyond {
            return Err(Violation::new(Kind::NonFinite, place, format!("row {i}: got {got:e}, expected {exact:e}")));
        }
        let off = (got - exact).abs();
        if off > worst && !beyond {
            let detail = format!("row {i}: got {got:e}, expected {exact:e} ± {worst:.2e}");
            return Err(Violation::sized(Kind::Score, place, off / worst, detail));
        }
        largest = largest.max(if off > 0.0 && off.is_finite() { off / worst } else { 0.0 });
    }
    Ok(largest)
}

/// The rows that are kept, by counting for each how many come before it.
pub fn kept(scores: &[f64], keep: Keep) -> Vec<usize> {
    let wanted = match keep {
        Keep::Fraction(share) => ((share * scores.len() as f64).floor() as usize).max(1),
        Keep::Features(count) => count,
    };
    let before = |i: usize| {
        let ahead = |&j: &usize| scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
        (0..scores.len()).filter(ahead).count()
    };
    (0..scores.len()).filter(|&i| before(i) < wanted).collect()
}

/// Judges a selection.
///
/// # Errors
/// [`Violation`].
pub fn judge_selection(scores: &[f64], keep: Keep, got: &[usize], place: &str) -> Result<(), Violation> {
    let expected = kept(scores, keep);
    if got == expected {
        return Ok(());
    }
    let wrong = |detail: String| Err(Violation::new(Kind::Selection, place, detail));
    if got.len() != expected.len() {
        return wrong(format!("kept {} rows, expected {}", got.len(), expected.len()));
    }
    let mut sorted = got.to_vec();
    sorted.sort_unstable();
    if sorted == expected {
        return wrong("the right rows, not in ascending order".into());
    }
    let stray = got.iter().find(|i| !expected.contains(i));
    wrong(format!("kept row {}, which is not among the best {}", stray.unwrap_or(&0), expected.len()))
}

/// What a minimum looks like, to the reference: a dual point near the best.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// Its coefficients.
    pub w: SparseRows,
    /// Its intercept.
    pub b: Vec<f64>,
    /// What is proven of them.
    pub certificate: Certificate,
    /// `X_gᵀu` at its dual point, group by group.
    pub pull: Vec<Vec<f64>>,
}

impl Oracle {
    /// From any good answer.
    pub fn new(problem: &Problem<'_, f64>, w: SparseRows, b: Vec<f64>) -> Option<Self> {
        let certificate = certify(problem, &w, &b).ok()?;
        let residual = problem.response().residual(problem.times(&w).view(), &b);
        let scaled =
            |group| problem.correlation(group, residual.view()).iter().map(|u| u * certificate.dual_scale).collect();
        let pull = (0..problem.layout().groups()).map(scaled).collect();
        Some(Self { w, b, certificate, pull })
    }
}

/// How an answer is judged.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The problem.
    pub problem: &'a Problem<'a, f64>,
    /// The relative gap asked for.
    pub gap: f64,
    /// Reasons to stop short of it that are no fault.
    pub excuses: &'static [Stopped],
    /// What the reference knows.
    pub oracle: Option<&'a Oracle>,
}

/// Whether an error is within its limit: a NaN is not.
pub(crate) fn within(error: f64, limit: f64) -> bool {
    error <= limit
}

/// What the second computation of the same number may differ by: rounding, relative to what it is computed from.
const ROUNDING: f64 = 1e-11;

impl Trial<'_> {
    /// Judges an answer; what is proven of it.
    ///
    /// # Errors
    /// The gravest [`Violation`] found.
    pub fn judge(&self, answer: &Answer, place: &str) -> Result<Certificate, Violation> {
        let problem = self.problem;
        let certificate = certify(problem, &answer.w, &answer.b)
            .map_err(|error| Violation::new(Kind::Shape, place, error.to_string()))?;
        if !certificate.objective.is_finite() {
            let detail = format!("objective {}", certificate.objective);
            return Err(Violation::new(Kind::NonFinite, place, detail));
        }
        if !problem.spec().intercept && answer.b.iter().any(|b| *b != 0.0) {
            return Err(Violation::new(Kind::Shape, place, "an intercept, where none is asked for"));
        }
        self.judge_claim(&answer.claim, &certificate, place)?;
        self.judge_word(answer, place)?;
        if let Some(columns) = &answer.columns {
            self.judge_columns(columns, place)?;
        }
        let reached = certificate.relative_gap() <= self.allowed();
        let excused = answer.stopped.is_some_and(|why| self.excuses.contains(&why));
        if excused && !reached {
            return self.judge_unfinished(&certificate, place);
        }
        if !reached && !matches!(answer.stopped, Some(Stopped::Reached) | None) {
            return Err(self.too_far(answer, &certificate, place));
        }
        self.judge_groups(answer, place)?;
        self.judge_absent(answer, place)?;
        self.judge_class_sums(answer, &certificate, place)?;
        if !reached {
            return Err(self.too_far(answer, &certificate, place));
        }
        Ok(certificate)
    }

    /// The relative gap that a second computation may find where the first found the one asked for.
    fn allowed(&self) -> f64 {
        self.gap * 1.001 + ROUNDING
    }

    /// The unit of gaps: `P(0)`, or 1 where that is 0.
    fn unit(&self) -> f64 {
        let null = self.problem.null().objective;
        if null > 0.0 { null } else { 1.0 }
    }

    fn too_far(&self, answer: &Answer, certificate: &Certificate, place: &str) -> Violation {
        let gap = certificate.relative_gap();
        let detail = |what: &str| format!("relative gap {gap:.3e}, asked for {:.0e}: {what}", self.gap);
        let ratio = gap / self.gap;
        match answer.stopped {
            Some(Stopped::Reached) | None => Violation::sized(Kind::Gap, place, ratio, detail("not optimal")),
            Some(why) => Violation::sized(Kind::Unreached, place, ratio, detail(&why.to_string())),
        }
    }

    /// Giving up is no excuse for having made things worse.
    fn judge_unfinished(&self, certificate: &Certificate, place: &str) -> Result<Certificate, Violation> {
        if certificate.objective <= certificate.null * (1.0 + 1e-9) + ROUNDING * self.unit() {
            return Ok(*certificate);
        }
        let (objective, null) = (certificate.objective, certificate.null);
        let detail = format!("objective {objective:e}, and {null:e} without features");
        Err(Violation::sized(Kind::Worse, place, objective / null, detail))
    }

    fn judge_claim(&self, claim: &Claim, certificate: &Certificate, place: &str) -> Result<(), Violation> {
        let size = certificate.objective.abs().max(self.unit());
        let gap = certificate.relative_gap();
        // The sums of which gap and objective are made may be larger than both.
        let rounding = 1e-9 * size;
        let gradient = 1e-9 * self.gradient_size();
        let numbers = [
            ("objective", claim.objective, certificate.objective, rounding),
            (
                "relative gap",
                claim.relative_gap,
                gap,
                1e-3 * gap.abs() + 1e-2 * self.gap + 1e-2 * rounding / self.unit(),
            ),
            ("kkt", claim.kkt, certificate.kkt, 1e-6 * certificate.kkt + gradient),
        ];
        for (name, claimed, found, tolerance) in numbers {
            let Some(claimed) = claimed else { continue };
            let off = (claimed - found).abs();
            if !within(off, tolerance) {
                let detail = format!("{name}: said {claimed:e}, found {found:e} ± {tolerance:.1e}");
                return Err(Violation::sized(Kind::Claim, place, off / tolerance, detail));
            }
        }
        match claim.active {
            Some(active) if active != certificate.active => {
                let detail = format!("active groups: said {active}, found {}", certificate.active);
                Err(Violation::new(Kind::Claim, place, detail))
            }
            _ => Ok(()),
        }
    }

    /// Who says that the gap was reached has to say so of a gap that is.
    fn judge_word(&self, answer: &Answer, place: &str) -> Result<(), Violation> {
        match (answer.stopped, answer.claim.relative_gap) {
            (Some(Stopped::Reached), Some(gap)) if !within(gap, self.gap) => {
                let detail = format!("said that the gap was reached, and that it is {gap:e}, asked for {:e}", self.gap);
                Err(Violation::new(Kind::Claim, place, detail))
            }
            _ => Ok(()),
        }
    }

    /// How large a correlation with a residual, or its mean, can be.
    fn gradient_size(&self) -> f64 {
        let problem = self.problem;
        let sizes = (0..problem.layout().groups()).map(|group| problem.size(group));
        let intercept = if problem.spec().intercept { 1.0 } else { 0.0 };
        sizes.fold(intercept, f64::max) * (2.0 * self.unit()).sqrt()
    }

    fn judge_columns(&self, columns: &Columns, place: &str) -> Result<(), Violation> {
        let right = self.problem.columns();
        let features = right.mean.len();
        let wrong = |detail: String| Err(Violation::new(Kind::Columns, place, detail));
        if columns.mean.len() != features || columns.scale.len() != features {
            return wrong(format!("{} means, {} scales", columns.mean.len(), columns.scale.len()));
        }
        for j in 0..features {
            let size = right.mean[j].abs().max(right.scale[j]);
            let near = |got: f64, expected: f64| (got - expected).abs() <= 1e-9 * size;
            if !near(columns.mean[j], right.mean[j]) || !near(columns.scale[j], right.scale[j]) {
                let (mean, scale) = (columns.mean[j], columns.scale[j]);
                let expected = format!("{:e} and {:e}", right.mean[j], right.scale[j]);
                return wrong(format!("feature {j}: said mean {mean:e} and scale {scale:e}, found {expected}"));
            }
        }
        Ok(())
    }

    /// All of this follows from the gap, and says more about what is wrong: what a group adds to it by being there, and what a
    /// proximal step of its own could take off.
    fn judge_groups(&self, answer: &Answer, place: &str) -> Result<(), Violation> {
        let (problem, dense) = (self.problem, answer.w.to_dense());
        let residual = problem.response().residual(problem.times(&answer.w).view(), &answer.b);
        let most = 1.001 * self.allowed() * self.unit();
        let worse = |kind: Kind, by: f64, detail: String| {
            let detail = format!("{detail} {by:.3e}, {most:.1e} is allowed");
            Err(Violation::sized(kind, place, by / most, detail))
        };
        for group in 0..problem.layout().groups() {
            let terms = problem.layout().terms(problem.spec(), group);
            let v = problem.layout().gather(dense.view(), group);
            let absent = v.iter().all(|v| *v == 0.0);
            if let Some(oracle) = self.oracle.filter(|_| !absent && terms.ridge == 0.0 && !terms.is_free()) {
                let along: f64 = v.iter().zip(&oracle.pull[group]).map(|(v, u)| v * u).sum();
                let cost = terms.value(&v) - along;
                if cost > most + oracle.certificate.gap().max(0.0) + ROUNDING * terms.value(&v) {
                    return worse(Kind::Support, cost, format!("group {group} must not be like this: it adds"));
                }
            }
            let gain = self.gain(group, terms, &v, &problem.correlation(group, residual.view()));
            if gain > most && absent {
                return worse(Kind::Support, gain, format!("group {group} is missing: its first step alone takes off"));
            }
            if gain > most {
                return worse(Kind::Kkt, gain, format!("one step in group {group} takes off"));
            }
        }
        let leftover = norm(&problem.response().column_sums(residual.view()));
        let gain = leftover * leftover / (2.0 * smoothness(problem.spec().loss));
        if problem.spec().intercept && gain > most {
            return worse(Kind::Kkt, gain, "a better intercept takes off".into());
        }
        Ok(())
    }

    /// What one proximal gradient step in a group, with step `1/L`, certainly takes off the objective: `L/2` times the squared
    /// distance it goes.
    fn gain(&self, group: usize, terms: Terms, v: &[f64], u: &[f64]) -> f64 {
        let size = self.problem.size(group);
        let curvature = smoothness(self.problem.spec().loss) * size * size;
        if curvature == 0.0 || !curvature.is_finite() {
            return 0.0;
        }
        let mut next: Vec<f64> = v.iter().zip(u).map(|(v, u)| v + u / curvature).collect();
        prox::group(terms, 1.0 / curvature, &mut next);
        let step = norm(&next.iter().zip(v).map(|(next, v)| next - v).collect::<Vec<_>>());
        // The rounding of v itself is no step.
        let step = (step - 4.0 * f64::EPSILON * norm(v)).max(0.0);
        0.5 * (curvature.sqrt() * step).powi(2)
    }

    /// A class without samples has no weights where there is an intercept: that is where every minimising sequence goes.
    fn judge_absent(&self, answer: &Answer, place: &str) -> Result<(), Violation> {
        let problem = self.problem;
        if problem.spec().loss != Loss::Multinomial || !problem.spec().intercept {
            return Ok(());
        }
        let size = |weights: ndarray::ArrayView1<'_, f64>| weights.iter().fold(0.0f64, |most, w| most.max(w.abs()));
        let largest = answer.w.values().columns().into_iter().map(size).fold(0.0, f64::max);
        for (class, _) in problem.response().absent().iter().enumerate().filter(|(_, absent)| **absent) {
            let weight = size(answer.w.values().column(class));
            // What rounding leaves of a zero is one.
            if weight > ROUNDING * largest {
                let detail = format!("class {class} has no samples, and a weight of {weight:e}");
                return Err(Violation::new(Kind::Support, place, detail));
            }
        }
        Ok(())
    }

    /// Softmax does not see the mean over classes, and a penalty by norms does.
    fn judge_class_sums(&self, answer: &Answer, certificate: &Certificate, place: &str) -> Result<(), Violation> {
        let problem = self.problem;
        let absent = problem.response().absent().iter().any(|absent| *absent);
        if problem.spec().loss != Loss::Multinomial || (absent && problem.spec().intercept) {
            return Ok(());
        }
        let layout = problem.layout();
        let mut dense = answer.w.to_dense();
        let penalty = |w: &Array2<f64>| -> f64 {
            (0..layout.groups()).map(|g| layout.terms(problem.spec(), g).value(&layout.gather(w.view(), g))).sum()
        };
        let before = penalty(&dense);
        for mut row in dense.rows_mut() {
            let mean = row.mean().unwrap_or(0.0);
            row -= mean;
        }
        let (saved, most) = (before - penalty(&dense), self.allowed() * self.unit());
        if saved > most * 1.001 + ROUNDING * certificate.objective {
            let detail = format!("centred rows of W cost {saved:.3e} less, {most:.1e} is allowed");
            return Err(Violation::sized(Kind::ClassSums, place, saved / most, detail));
        }
        Ok(())
    }
}
