//! Solutions.

use super::AGAIN;
use crate::grouplasso::case::{Design, Task};
use crate::grouplasso::generate::{far_start, is_homogeneous};
use crate::grouplasso::hearing::{Ended, Extra, Hearing};
use crate::grouplasso::judge::{Kind, Trial, Violation};
use crate::grouplasso::subject::{Answer, Feature, Instance, Watched};
use crate::grouplasso::trial::{Exhibit, ReadySolve};
use crate::grouplasso::warped::{Warped, doubled, haunted, permuted, recentred, scaled};
use tilewright_grouplasso::certificate::certify;
use tilewright_grouplasso::{Certificate, Columns, GroupLassoError, Problem, SparseRows, Standardise, Start, Stopped};

/// Largest problem, in numbers, that all laws are tried on: size is not what they are about.
const LARGEST: usize = 2500;

/// The task, and the laws of its answer.
pub(crate) fn examine(hearing: &mut Hearing<'_>, ready: &ReadySolve) -> Result<(), Ended> {
    let problem = sound(ready.instance.problem())?;
    let trial = ready.trial(&problem);
    match ready.case.task {
        Task::Once => {
            let (answer, certificate) = once(hearing, ready, &trial, Extra::default(), "answer")?;
            again(hearing, ready, &answer)?;
            let size = ready.case.samples * ready.case.features * ready.case.outputs;
            if size <= LARGEST && trial.excuses.is_empty() {
                Laws { ready, problem: &problem, certificate }.all(hearing)?;
            }
            Ok(())
        }
        Task::Warm => warm(hearing, ready, &trial),
        Task::Path(_) => follow(hearing, ready, &trial),
        Task::Interrupt(after) => interrupt(hearing, ready, &trial, after),
        Task::Far => far(hearing, ready, &trial),
        Task::Limit(iterations) => limit(hearing, ready, &trial, iterations),
        Task::Cut(after) => cut(hearing, ready, &trial, after),
    }
}

/// The judge's own work cannot fail on a case that was generated; if it does, nobody is to blame but us.
fn sound<T>(outcome: Result<T, GroupLassoError>) -> Result<T, Ended> {
    outcome.map_err(|error| Ended::Refused(format!("the judge: {error}")))
}

/// One answer, judged.
fn once(
    hearing: &mut Hearing<'_>,
    ready: &ReadySolve,
    trial: &Trial<'_>,
    extra: Extra<'_>,
    place: &str,
) -> Result<(Answer, Certificate), Ended> {
    let answer = hearing.solve(&ready.instance, ready.case.gap, extra, place)?;
    let certificate = judged(hearing, trial, &answer, place)?;
    Ok((answer, certificate))
}

fn judged(hearing: &mut Hearing<'_>, trial: &Trial<'_>, answer: &Answer, place: &str) -> Result<Certificate, Ended> {
    let judged = trial.judge(answer, place);
    let certificate = hearing.keep(judged, || Exhibit::Solution(answer.start()))?;
    let gave_up = !matches!(answer.stopped, Some(Stopped::Reached) | None);
    if !gave_up && trial.excuses.is_empty() {
        hearing.gap = hearing.gap.max(certificate.relative_gap() / trial.gap);
    }
    let claim = &answer.claim;
    let silent = [
        (claim.objective.is_none(), "objective"),
        (claim.relative_gap.is_none(), "relative gap"),
        (claim.kkt.is_none(), "kkt"),
        (claim.active.is_none(), "active groups"),
        (answer.stopped.is_none(), "stopped"),
        (answer.columns.is_none() && ready_to_say(trial), "columns"),
    ];
    for name in silent.into_iter().filter(|(silent, _)| *silent).map(|(_, name)| name) {
        if !hearing.missing.contains(&name) {
            hearing.missing.push(name);
        }
    }
    Ok(certificate)
}

fn ready_to_say(trial: &Trial<'_>) -> bool {
    trial.problem.spec().standardise != Standardise::default()
}

fn again(hearing: &mut Hearing<'_>, ready: &ReadySolve, answer: &Answer) -> Result<(), Ended> {
    if !hearing.is_deterministic() {
        return Ok(());
    }
    for (threads, place) in AGAIN {
        let again = hearing.solve(&ready.instance, ready.case.gap, Extra { threads, ..Extra::default() }, place)?;
        if !same_bits(&again, answer) {
            let kind = if threads.is_some() { Kind::Threads } else { Kind::Nondeterministic };
            return Err(Violation::new(kind, place, "other bits").into());
        }
    }
    Ok(())
}

fn same_bits(a: &Answer, b: &Answer) -> bool {
    let bits =
        |answer: &Answer| -> Vec<u64> { answer.w.values().iter().chain(&answer.b).map(|x| x.to_bits()).collect() };
    a.w.indices() == b.w.indices() && bits(a) == bits(b)
}

/// From the answer for twice the λ; then from the answer itself, where nothing is left to do.
fn warm(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>) -> Result<(), Ended> {
    let mut easier = ready.instance.clone();
    easier.spec.lambda *= 2.0;
    let start = hearing.solve(&easier, ready.case.gap, Extra::default(), "twice the λ")?.start();
    let (answer, before) = once(hearing, ready, trial, Extra { start: Some(&start), ..Extra::default() }, "answer")?;
    let own = answer.start();
    let extra = Extra { start: Some(&own), ..Extra::default() };
    let (second, after) = once(hearing, ready, trial, extra, "from the answer")?;
    if let Some(iterations) = second.iterations.filter(|n| *n > 1 && answer.stopped == Some(Stopped::Reached)) {
        let detail = format!("{iterations} iterations from an answer that is good enough");
        return Err(Violation::new(Kind::WarmStart, "from the answer", detail).into());
    }
    no_worse(&before, &after, Kind::WarmStart)
}

/// Work that goes on from somewhere does not go back.
fn no_worse(before: &Certificate, after: &Certificate, kind: Kind) -> Result<(), Ended> {
    if after.objective <= before.objective + 1e-11 * before.objective.abs().max(before.null) {
        return Ok(());
    }
    let detail = format!("objective {:e} from one of {:e}", after.objective, before.objective);
    Err(Violation::new(kind, "second answer", detail).into())
}

fn follow(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>) -> Result<(), Ended> {
    let lambdas = &ready.lambdas;
    let extra = Extra { lambdas: Some(lambdas), ..Extra::default() };
    let answers = hearing.solve_all(&ready.instance, ready.case.gap, extra, "path")?;
    (0..answers.len()).try_for_each(|point| judge_point(hearing, ready, trial, point, &answers[point]))
}

fn judge_point(
    hearing: &mut Hearing<'_>,
    ready: &ReadySolve,
    trial: &Trial<'_>,
    point: usize,
    answer: &Answer,
) -> Result<(), Ended> {
    let mut instance = ready.instance.clone();
    instance.spec.lambda = ready.lambdas[point];
    let problem = sound(instance.problem())?;
    let last = point + 1 == ready.lambdas.len();
    let trial = Trial { problem: &problem, oracle: trial.oracle.filter(|_| last), ..*trial };
    judged(hearing, &trial, answer, &format!("point {point}")).map(drop)
}

/// A path that is interrupted ends there: with the answers that were finished, and the one that was not.
fn cut(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>, after: usize) -> Result<(), Ended> {
    let extra = Extra { lambdas: Some(&ready.lambdas), interrupt: Some(after), ..Extra::default() };
    let answers = hearing.solve_all(&ready.instance, ready.case.gap, extra, "path")?;
    let last = answers.len() - 1;
    for (point, answer) in answers.iter().enumerate() {
        let excuses: &[Stopped] = if point == last { &[Stopped::Interrupted] } else { &[] };
        judge_point(hearing, ready, &Trial { excuses, ..*trial }, point, answer)?;
    }
    let unfinished = answers[last].stopped == Some(Stopped::Interrupted);
    let wrong = |detail: String| Err(Violation::new(Kind::Resumption, "path", detail).into());
    if answers.len() < ready.lambdas.len() && !unfinished {
        return wrong(format!("{} answers of {}, and none is unfinished", answers.len(), ready.lambdas.len()));
    }
    match answers[last].watched {
        Some(Watched { last: progress, interrupted: true }) if progress.point != last => {
            wrong(format!("interrupted at point {}, and the last answer is point {last}", progress.point))
        }
        Some(Watched { interrupted: true, .. }) if !unfinished && answers.len() < ready.lambdas.len() => {
            wrong("interrupted, and not said so".into())
        }
        _ => Ok(()),
    }
}

/// From coefficients that have nothing to do with the problem.
fn far(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>) -> Result<(), Ended> {
    let layout = trial.problem.layout();
    let start = far_start(&ready.instance, layout.rows(), |row| layout.feature(row), ready.case.seed);
    once(hearing, ready, trial, Extra { start: Some(&start), ..Extra::default() }, "answer").map(drop)
}

/// Few iterations: from nothing, from a good start, and from one whose intercept is off.
fn limit(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>, most: usize) -> Result<(), Ended> {
    let limited = |hearing: &mut Hearing<'_>, start: Option<&Start>, place: &str| {
        let extra = Extra { limit: Some(most), start, ..Extra::default() };
        let (answer, certificate) = once(hearing, ready, trial, extra, place)?;
        match answer.iterations {
            Some(made) if made > most => {
                let detail = format!("{made} iterations, {most} allowed");
                Err(Ended::from(Violation::new(Kind::Limit, place, detail)))
            }
            Some(made) if made < most && answer.stopped == Some(Stopped::Iterations) => {
                let detail = format!("stopped for its limit of {most} iterations, and made {made}");
                Err(Ended::from(Violation::new(Kind::Limit, place, detail)))
            }
            _ => Ok(certificate),
        }
    };
    limited(hearing, None, "answer")?;
    if !hearing.can(Feature::WarmStart) {
        return Ok(());
    }
    let mut easier = ready.instance.clone();
    easier.spec.lambda *= 1.25;
    let mut start = hearing.solve(&easier, ready.case.gap, Extra::default(), "a larger λ")?.start();
    let before = sound(certify(trial.problem, &start.w, &start.b))?;
    let after = limited(hearing, Some(&start), "from a good start")?;
    no_worse(&before, &after, Kind::WarmStart)?;
    if ready.instance.spec.intercept {
        start.b.iter_mut().for_each(|b| *b += 0.125);
        limited(hearing, Some(&start), "from another intercept")?;
    }
    Ok(())
}

fn interrupt(hearing: &mut Hearing<'_>, ready: &ReadySolve, trial: &Trial<'_>, after: usize) -> Result<(), Ended> {
    let extra = Extra { interrupt: Some(after), ..Extra::default() };
    let unfinished = Trial { excuses: &[Stopped::Interrupted], ..*trial };
    let (answer, before) = once(hearing, ready, &unfinished, extra, "interrupted")?;
    if let Some(Watched { last, interrupted: true }) = answer.watched {
        let (seen, got) = (last.relative_gap, before.relative_gap());
        if got > 1.001 * seen + 1e-10 {
            let detail = format!("a relative gap of {seen:.3e} was reported, the answer has {got:.3e}");
            return Err(Violation::new(Kind::Resumption, "interrupted", detail).into());
        }
    }
    let start = answer.start();
    let extra = Extra { start: Some(&start), ..Extra::default() };
    let (_, after) = once(hearing, ready, trial, extra, "resumed")?;
    no_worse(&before, &after, Kind::Resumption)
}

struct Laws<'a> {
    ready: &'a ReadySolve,
    problem: &'a Problem<'a, f64>,
    /// What is proven of the case's own answer.
    certificate: Certificate,
}

impl Laws<'_> {
    fn all(&self, hearing: &mut Hearing<'_>) -> Result<(), Ended> {
        let (instance, seed) = (&self.ready.instance, self.ready.case.seed);
        self.same(hearing, &permuted(instance, hearing.can(Feature::Lists), seed), Kind::Permutation)?;
        if let Some(scaled) =
            scaled(instance).filter(|_| is_homogeneous(instance.spec.penalty) || instance.spec.standardise.scale)
        {
            self.same(hearing, &scaled, Kind::Scaling)?;
        }
        if hearing.can(Feature::SampleWeights) {
            self.same(hearing, &haunted(instance, seed), Kind::AbsentSamples)?;
        }
        // So far from zero that without centring nothing can be told from rounding.
        let remote = self.ready.case.design == Design::Remote;
        if instance.spec.intercept && hearing.can(Feature::Centre) && !remote {
            let columns = self.columns();
            let warped = recentred(instance, &columns.mean, &columns.scale, self.problem.layout());
            self.same(hearing, &warped, Kind::Centring)?;
        }
        self.duplicates(hearing)?;
        self.lambda_max(hearing)
    }

    /// Means and deviations of the columns, whatever is done with them here.
    fn columns(&self) -> Columns {
        let (spec, x) = (&self.ready.instance.spec, self.ready.instance.x.view());
        let mean = Standardise { centre: true, ..spec.standardise };
        Columns::of(mean, x, self.problem.response().omega())
    }

    /// The same problem said in another way has the same answers.
    fn same(&self, hearing: &mut Hearing<'_>, warped: &Warped<'_>, kind: Kind) -> Result<(), Ended> {
        let place = format!("law, {}", kind.name());
        let answer = hearing.solve(&warped.instance, self.ready.case.gap, Extra::default(), &place)?;
        shaped(&answer, &warped.instance, &place)?;
        self.worth(self.problem, &(warped.back)(&answer.start()), Some(self.certificate.dual), kind)
    }

    /// What an answer to a problem is worth, by its own certificate or by a bound of the minimum that is known.
    fn worth(&self, problem: &Problem<'_, f64>, start: &Start, dual: Option<f64>, kind: Kind) -> Result<(), Ended> {
        let found =
            certify(problem, &start.w, &start.b).map_err(|error| Violation::new(kind, "law", error.to_string()))?;
        let unit = if found.null > 0.0 { found.null } else { 1.0 };
        let best = dual.map_or(found.dual, |dual| dual.max(found.dual));
        let (gap, limit) = ((found.objective - best) / unit, 2.0 * self.ready.case.gap + 1e-10);
        if gap <= limit {
            return Ok(());
        }
        let detail = format!("brought back, the answer has a relative gap of {gap:.3e}, {limit:.0e} is allowed");
        Err(Violation { ratio: gap / limit, ..Violation::new(kind, "law", detail) }.into())
    }

    fn duplicates(&self, hearing: &mut Hearing<'_>) -> Result<(), Ended> {
        let (weighted, warped) = doubled(&self.ready.instance);
        let place = "law, duplicates";
        let answer = hearing.solve(&warped.instance, self.ready.case.gap, Extra::default(), place)?;
        shaped(&answer, &warped.instance, place)?;
        let problem = sound(weighted.problem())?;
        self.worth(&problem, &(warped.back)(&answer.start()), None, Kind::Duplicates)
    }

    fn lambda_max(&self, hearing: &mut Hearing<'_>) -> Result<(), Ended> {
        let Ok(largest) = self.problem.lambda_max() else { return Ok(()) };
        let sizes = (0..self.problem.layout().groups()).map(|group| self.problem.size(group)).fold(0.0, f64::max);
        let spread = (2.0 * self.problem.null().objective).sqrt();
        if !largest.is_finite() || largest <= 1e-9 * sizes * spread.max(f64::MIN_POSITIVE) {
            return Ok(());
        }
        let mut instance = self.ready.instance.clone();
        instance.spec.lambda = 1.001 * largest;
        let above = hearing.solve(&instance, self.ready.case.gap, Extra::default(), "law, above λ_max")?;
        if above.w.values().iter().any(|w| *w != 0.0) {
            let detail = format!("{} rows are not zero a thousandth above it", above.w.indices().len());
            return Err(Violation::new(Kind::LambdaMax, "law, above", detail).into());
        }
        instance.spec.lambda = 0.9 * largest;
        let problem = sound(instance.problem())?;
        let nothing = SparseRows::zeros(problem.shape().0, problem.shape().1);
        let empty = sound(certify(&problem, &nothing, &problem.null().intercept))?;
        if empty.relative_gap() <= 2.0 * self.ready.case.gap {
            return Ok(());
        }
        let below = hearing.solve(&instance, self.ready.case.gap, Extra::default(), "law, below λ_max")?;
        if below.w.values().iter().all(|w| *w == 0.0) {
            return Err(Violation::new(Kind::LambdaMax, "law, below", "everything is zero a tenth below it").into());
        }
        Ok(())
    }
}

/// Whether an answer can be brought back at all.
fn shaped(answer: &Answer, instance: &Instance, place: &str) -> Result<(), Ended> {
    let (rows, outputs) = sound(instance.problem())?.shape();
    if (answer.w.rows(), answer.w.columns(), answer.b.len()) == (rows, outputs, outputs) {
        return Ok(());
    }
    Err(Violation::new(Kind::Shape, place, "not of the problem's shape").into())
}
