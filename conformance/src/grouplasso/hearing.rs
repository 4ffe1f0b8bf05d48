//! A subject under examination: every call that a case makes of it.

use crate::SubjectError;
use crate::grouplasso::judge::{Kind, Violation};
use crate::grouplasso::subject::{
    Answer, Feature, Instance, ProxRequest, ScoresRequest, SelectRequest, SolveRequest, Subject,
};
use crate::grouplasso::trial::{Exhibit, Prepared};
use ndarray::{Array2, ArrayView2};
use tilewright_grouplasso::{GroupLassoSpec, Keep, Start};

/// Why the examination of a case ended early.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// Something is wrong.
    Violated(Box<Violation>),
    /// The subject says it cannot do this.
    Refused(String),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violated(Box::new(violation))
    }
}

/// A subject under examination.
pub(crate) struct Hearing<'a> {
    subject: &'a mut dyn Subject,
    pub(crate) prepared: &'a Prepared,
    id: String,
    /// Elements judged so far.
    pub(crate) elements: u64,
    /// The greatest error over its bound so far.
    pub(crate) error: f64,
    /// The greatest gap over the one asked for so far.
    pub(crate) gap: f64,
    /// The first wrong answer.
    pub(crate) exhibit: Option<Exhibit>,
    /// What was left out of answers.
    pub(crate) missing: Vec<&'static str>,
}

/// What is asked of a solver besides the problem.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra<'a> {
    pub(crate) start: Option<&'a Start>,
    pub(crate) interrupt: Option<usize>,
    pub(crate) lambdas: Option<&'a [f64]>,
    pub(crate) threads: Option<usize>,
    pub(crate) limit: Option<usize>,
}

/// Iterations allowed, as each subject counts them.
pub(crate) const MOST_ITERATIONS: usize = 50_000;

/// What became of a call, if it was no answer.
fn ended(error: &SubjectError, place: &str) -> Ended {
    match error {
        SubjectError::Unsupported(why) => Ended::Refused(why.clone()),
        error => Violation::of_error(error, place).into(),
    }
}

impl<'a> Hearing<'a> {
    /// Nothing has been asked yet.
    pub(crate) fn new(subject: &'a mut dyn Subject, prepared: &'a Prepared) -> Self {
        let id = prepared.case.to_string();
        let (elements, error, gap, exhibit, missing) = (0, 0.0, 0.0, None, Vec::new());
        Self { subject, prepared, id, elements, error, gap, exhibit, missing }
    }

    /// Whether the subject can do something that only a law asks for.
    pub(crate) fn can(&self, feature: Feature) -> bool {
        self.subject.profile().supports.contains(&feature)
    }

    pub(crate) fn is_deterministic(&self) -> bool {
        self.subject.profile().deterministic
    }

    pub(crate) fn names_places(&self) -> bool {
        self.subject.profile().names_places
    }

    /// A proximal operator, unjudged.
    pub(crate) fn prox(
        &mut self,
        spec: &GroupLassoSpec,
        step: f64,
        w: ArrayView2<'_, f64>,
        threads: Option<usize>,
        place: &str,
    ) -> Result<Array2<f64>, Ended> {
        let format = self.prepared.case.format();
        let request = ProxRequest { id: &self.id, format, spec, step, w, threads };
        self.elements += w.len() as u64;
        let out = self.subject.prox(&request).map_err(|error| ended(&error, place))?;
        if out.dim() == w.dim() {
            return Ok(out);
        }
        Err(Violation::new(Kind::Shape, place, format!("got {:?}, expected {:?}", out.dim(), w.dim())).into())
    }

    /// Scores, unjudged.
    pub(crate) fn scores(
        &mut self,
        w: ArrayView2<'_, f64>,
        threads: Option<usize>,
        place: &str,
    ) -> Result<Vec<f64>, Ended> {
        let request = ScoresRequest { id: &self.id, format: self.prepared.case.format(), w, threads };
        self.elements += w.nrows() as u64;
        self.subject.scores(&request).map_err(|error| ended(&error, place))
    }

    /// A selection, unjudged.
    pub(crate) fn select(
        &mut self,
        scores: &[f64],
        keep: Keep,
        threads: Option<usize>,
        place: &str,
    ) -> Result<Vec<usize>, Ended> {
        let request = SelectRequest { id: &self.id, format: self.prepared.case.format(), scores, keep, threads };
        self.elements += scores.len() as u64;
        self.subject.select(&request).map_err(|error| ended(&error, place))
    }

    /// Solutions, unjudged: as many as there are λs.
    pub(crate) fn solve_all(
        &mut self,
        instance: &Instance,
        gap: f64,
        extra: Extra<'_>,
        place: &str,
    ) -> Result<Vec<Answer>, Ended> {
        let Extra { start, interrupt, lambdas, threads, limit } = extra;
        let iterations = limit.unwrap_or(MOST_ITERATIONS);
        let request = SolveRequest { id: &self.id, instance, gap, iterations, start, interrupt, lambdas, threads };
        let answers = self.subject.solve(&request).map_err(|error| ended(&error, place))?;
        let expected = lambdas.map_or(1, <[f64]>::len);
        let fewer = interrupt.is_some() && (1..expected).contains(&answers.len());
        if answers.len() != expected && !fewer {
            let detail = format!("got {} answers, expected {expected}", answers.len());
            return Err(Violation::new(Kind::Shape, place, detail).into());
        }
        let elements = |answer: &Answer| (answer.w.rows() * answer.w.columns()) as u64;
        self.elements += answers.iter().map(elements).sum::<u64>();
        Ok(answers)
    }

    /// One solution, unjudged.
    pub(crate) fn solve(
        &mut self,
        instance: &Instance,
        gap: f64,
        extra: Extra<'_>,
        place: &str,
    ) -> Result<Answer, Ended> {
        let mut answers = self.solve_all(instance, gap, extra, place)?;
        answers.pop().ok_or_else(|| Violation::new(Kind::Shape, place, "no answer").into())
    }

    /// What must be refused: whether it is, and the words.
    pub(crate) fn refusal(
        &mut self,
        ask: impl FnOnce(&mut dyn Subject, &str) -> Result<(), SubjectError>,
    ) -> Result<(), Ended> {
        match ask(self.subject, &self.id) {
            Ok(()) => Err(Violation::new(Kind::Refusal, "answer", "answered what must be refused").into()),
            Err(SubjectError::Failed(words)) => {
                let crate::grouplasso::case::Case::Refuse(case) = &self.prepared.case else { return Ok(()) };
                let named = case.flaw.places().iter().any(|place| words.contains(place));
                if named || !self.names_places() {
                    return Ok(());
                }
                let detail = format!("refused with `{words}`, which does not name {:?}", case.flaw.places());
                Err(Violation::new(Kind::Refusal, "words", detail).into())
            }
            Err(error) => Err(ended(&error, "refusal")),
        }
    }

    /// Remembers a wrong answer.
    pub(crate) fn keep<T>(
        &mut self,
        judged: Result<T, Violation>,
        exhibit: impl FnOnce() -> Exhibit,
    ) -> Result<T, Ended> {
        judged.map_err(|violation| {
            self.exhibit = Some(exhibit());
            violation.into()
        })
    }
}
