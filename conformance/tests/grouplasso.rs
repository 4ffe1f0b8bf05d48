//! Group-lasso solvers on trial: right ones conform everywhere, wrong ones get the verdict they deserve, under its own name.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Mutex;
use tilewright_conformance::Verdict;
use tilewright_conformance::grouplasso::case::Case;
use tilewright_conformance::grouplasso::decoy::decoys;
use tilewright_conformance::grouplasso::in_process::InProcess;
use tilewright_conformance::grouplasso::judge::{Kind, judge_selection, kept};
use tilewright_conformance::grouplasso::report::{hint, hold_trial};
use tilewright_conformance::grouplasso::suite::{Suite, cases};
use tilewright_conformance::grouplasso::trial::{Outcome, Prepared, examine, shrink};
use tilewright_conformance::grouplasso::{Column, Feature, Profile, Subject};
use tilewright_cpu::CpuGroupLasso;
use tilewright_grouplasso::certificate::certify;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Keep, Problem, Progress, Prox, Selection,
    Solution, SparseRows, Start, Stopped, Stopping, Targets,
};

/// What a [`Rogue`] does instead of its work, or to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crime {
    None,
    Panics,
    Refuses,
    ProxOfNothing,
    ProxChangesAndFails,
    ProxOnThreeThreads,
    ProxMovesZero,
    ProxOfLargeOnes,
    ScoresOfMagnitudes,
    SelectsBackwards,
    SelectsTheFirst,
    DropsIntercept,
    MissesGreatest,
    Lies,
    SaysReached,
    GivesUp,
    NeverEmpty,
    IgnoresStart,
    GoesOn,
    LosesWork,
    TakesNan,
    Mumbles,
    WorseThanNothing,
    OtherBitsEachCall,
    WrongColumns,
}

/// The reference with a crime committed on the way in or out.
struct Rogue {
    crime: Crime,
    calls: Mutex<usize>,
}

impl Rogue {
    fn call(&self) -> usize {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        *calls
    }
}

/// The same, for as long as somebody else's data lives.
fn shorter<'a>(targets: &'a Targets<'_>) -> Targets<'a> {
    match targets {
        Targets::Values(values) => Targets::Values(values.view()),
        Targets::Labels { labels, classes } => Targets::Labels { labels, classes: *classes },
    }
}

/// The same with other coefficients, and a certificate of its own.
fn altered<T: Element>(
    spec: &GroupLassoSpec,
    data: &Data<'_, T>,
    solution: Solution,
    change: impl FnOnce(&mut Array2<f64>, &mut Vec<f64>),
) -> Result<Solution, GroupLassoError> {
    let (mut w, mut b) = (solution.w.to_dense(), solution.b.clone());
    change(&mut w, &mut b);
    let w = SparseRows::from_dense(w.view());
    let certificate = certify(&Problem::new(spec, data)?, &w, &b)?;
    Ok(Solution { w, b, certificate, ..solution })
}

impl<T: Element> GroupLassoSolver<T> for Rogue {
    fn solve(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError> {
        let call = self.call();
        let zeroed = data.x.mapv(|x| if x.to_f64().is_nan() { T::from_f64(0.0) } else { x });
        let taken = if self.crime == Crime::TakesNan { zeroed.view() } else { data.x.reborrow() };
        let data = Data { x: taken, targets: shorter(&data.targets), sample_weights: data.sample_weights };
        let (mut stopping, mut start) = (*stopping, start);
        match self.crime {
            Crime::Panics => panic!("index out of bounds\non line two"),
            Crime::Refuses => return Err(GroupLassoError::Unsupported { what: "Tuesdays" }),
            Crime::SaysReached | Crime::GivesUp => stopping.iterations = 3,
            Crime::IgnoresStart => start = None,
            _ => {}
        }
        let mut stubborn = |progress: &Progress| {
            let _ = watch(progress);
            ControlFlow::Continue(())
        };
        let solution = match self.crime {
            Crime::GoesOn => Reference.solve(spec, &data, &stopping, start, &mut stubborn),
            _ => Reference.solve(spec, &data, &stopping, start, watch),
        };
        let solution = solution.map_err(|error| match self.crime {
            Crime::Mumbles => GroupLassoError::Source { problem: "something is wrong".into() },
            _ => error,
        })?;
        let stopped = solution.stopped;
        match self.crime {
            Crime::DropsIntercept => altered(spec, &data, solution, |_, b| b.fill(0.0)),
            Crime::MissesGreatest => altered(spec, &data, solution, |w, _| {
                let size = |row: &usize| w.row(*row).iter().map(|x| x * x).sum::<f64>();
                let greatest = (0..w.nrows()).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap();
                w.row_mut(greatest).fill(0.0);
            }),
            Crime::Lies => Ok(Solution {
                certificate: tilewright_grouplasso::Certificate { active: 0, ..solution.certificate },
                ..solution
            }),
            Crime::SaysReached => Ok(Solution { stopped: Stopped::Reached, ..solution }),
            Crime::GivesUp => Ok(Solution { stopped: Stopped::Stalled, ..solution }),
            Crime::NeverEmpty => altered(spec, &data, solution, |w, _| w[[0, 0]] += 1e-13),
            Crime::LosesWork if stopped == Stopped::Interrupted => {
                let nothing = Stopping { iterations: 0, ..stopping };
                let blank = Reference.solve(spec, &data, &nothing, None, &mut |_| ControlFlow::Continue(()))?;
                Ok(Solution { stopped, ..blank })
            }
            Crime::WorseThanNothing => {
                // Not the same for all classes: that would be nothing.
                let solution = altered(spec, &data, solution, |w, _| w.column_mut(0).fill(100.0))?;
                Ok(Solution { stopped: Stopped::Stalled, ..solution })
            }
            Crime::OtherBitsEachCall if call > 1 => {
                altered(spec, &data, solution, |w, _| *w *= 1.0 + f64::EPSILON * call as f64)
            }
            Crime::WrongColumns => {
                let mut columns = solution.columns.clone();
                columns.scale.iter_mut().for_each(|scale| *scale *= 1.001);
                Ok(Solution { columns, ..solution })
            }
            _ => Ok(solution),
        }
    }
}

impl<T: Element> Prox<T> for Rogue {
    fn prox(&self, spec: &GroupLassoSpec, step: f64, mut w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError> {
        let zero = w.iter().all(|x| x.to_f64() == 0.0);
        let large = w.iter().any(|x| x.to_f64().abs() > 15.0);
        match self.crime {
            Crime::ProxOfNothing => return Ok(()),
            Crime::ProxChangesAndFails => {
                w.fill(T::from_f64(1.0));
                return Err(GroupLassoError::OutOfMemory { what: "a copy", bytes: 1 });
            }
            _ => Reference.prox(spec, step, w.view_mut())?,
        }
        let spoilt = match self.crime {
            Crime::ProxOnThreeThreads => rayon::current_num_threads() == 3,
            Crime::ProxMovesZero => zero,
            Crime::ProxOfLargeOnes => large,
            _ => false,
        };
        if spoilt {
            w.mapv_inplace(|x| T::from_f64(x.to_f64() * 1.5 + 0.5));
        }
        Ok(())
    }
}

impl<T: Element> Selection<T> for Rogue {
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError> {
        if self.crime == Crime::ScoresOfMagnitudes {
            let sum = |row: ndarray::ArrayView1<'_, T>| row.iter().map(|x| x.to_f64().abs()).sum::<f64>();
            return Ok(w.rows().into_iter().map(|row| <T::Accum as Element>::from_f64(sum(row))).collect());
        }
        Reference.scores(w)
    }

    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        let mut kept = <Reference as Selection<T>>::select(&Reference, scores, keep)?;
        match self.crime {
            Crime::SelectsBackwards => kept.reverse(),
            Crime::SelectsTheFirst => kept = (0..kept.len()).collect(),
            _ => {}
        }
        Ok(kept)
    }
}

fn prepared(id: &str) -> Prepared {
    Prepared::new(&id.parse().unwrap()).unwrap()
}

fn rogue(crime: Crime) -> InProcess<Rogue> {
    InProcess::new(Rogue { crime, calls: Mutex::new(0) }, Profile::new("rogue", ""))
}

fn outcome(crime: Crime, id: &str) -> Outcome {
    examine(&mut rogue(crime), &prepared(id))
}

const PROX: &str = "grouplasso/prox/f32/r29c3/ragged/gl/lambda=1/step=0.5/heavy/1";
const SELECT: &str = "grouplasso/select/f64/r60c3/keep@0.1/heavy/1";
const SOLVE: &str = "grouplasso/solve/f64/n20d15c3/ls/rows/gl/lambda@0.1/gap=1e-6+intercept/once/gaussian/1";
const SCALED: &str = "grouplasso/solve/f64/n20d15c3/ls/rows/gl/lambda@0.1/gap=1e-6+intercept+scale/once/gaussian/1";
const WARM: &str = "grouplasso/solve/f64/n20d15c3/multinomial/rows/gl/lambda@0.1/gap=1e-6+intercept/warm/gaussian/1";
const INTERRUPT: &str = "grouplasso/solve/f64/n20d15c3/multinomial/rows/gl/lambda@0.1/gap=1e-6/interrupt=2/gaussian/1";
const FREE: &str = "grouplasso/solve/f64/n8d12c3/multinomial/rows/gl/lambda=0/gap=1e-6/once/gaussian/1";

#[test]
fn every_crime_has_its_verdict() {
    for (crime, id, kind, words) in [
        (Crime::Panics, SOLVE, Kind::Crashed, "index out of bounds"),
        (Crime::ProxOfNothing, PROX, Kind::Value, "expected"),
        (Crime::ProxChangesAndFails, PROX, Kind::Misbehaved, "changed the matrix"),
        (Crime::ProxOnThreeThreads, PROX, Kind::Threads, "other bits"),
        (Crime::ProxMovesZero, PROX, Kind::FixedZero, "5e-1"),
        (Crime::ProxOfLargeOnes, "grouplasso/prox/f64/r3c1/rows/gl/lambda=1/step=1/ascending/1", Kind::Value, ""),
        (Crime::ScoresOfMagnitudes, SELECT, Kind::Score, "expected"),
        (Crime::SelectsBackwards, SELECT, Kind::Selection, "not in ascending order"),
        (Crime::SelectsTheFirst, SELECT, Kind::Selection, "not among the best 6"),
        (Crime::DropsIntercept, SOLVE, Kind::Claim, "said that the gap was reached"),
        (Crime::MissesGreatest, SOLVE, Kind::Claim, "said that the gap was reached"),
        (Crime::Lies, SOLVE, Kind::Claim, "active groups: said 0"),
        (Crime::SaysReached, SOLVE, Kind::Claim, "said that the gap was reached"),
        (Crime::GivesUp, SOLVE, Kind::Unreached, "stalled"),
        (Crime::NeverEmpty, SOLVE, Kind::LambdaMax, "not zero a thousandth above"),
        (Crime::IgnoresStart, WARM, Kind::WarmStart, "iterations from an answer that is good enough"),
        (Crime::GoesOn, INTERRUPT, Kind::Misbehaved, "went on"),
        (Crime::LosesWork, INTERRUPT, Kind::Resumption, "was reported"),
        (Crime::TakesNan, "grouplasso/refuse/f64/nan-in-x/1", Kind::Refusal, "answered what must be refused"),
        (Crime::Mumbles, "grouplasso/refuse/f64/nan-in-x/1", Kind::Refusal, "does not name"),
        (Crime::WorseThanNothing, FREE, Kind::Worse, "without features"),
        (Crime::OtherBitsEachCall, SOLVE, Kind::Nondeterministic, "other bits"),
        (Crime::WrongColumns, SCALED, Kind::Columns, "feature 0"),
    ] {
        if crime == Crime::ProxOfLargeOnes {
            continue; // below, where only the law sees it
        }
        let outcome = outcome(crime, id);
        let worst = outcome.violations.first().unwrap_or_else(|| panic!("{crime:?}: {:?}", outcome.verdict));
        assert_eq!(worst.kind, kind, "{crime:?}: {worst}");
        assert!(worst.to_string().contains(words), "{crime:?}: {worst}");
    }
    let refused = outcome(Crime::Refuses, SOLVE);
    assert_eq!(refused.verdict, Verdict::Unsupported);
    assert!(refused.reason.unwrap().contains("refuses what it declares: Tuesdays"));
}

#[test]
fn laws_see_what_no_answer_shows() {
    // Entries of the case itself stay below 15; twice the matrix goes beyond.
    let id = "grouplasso/prox/f64/r130c1/rows/gl/lambda=1/step=1/ascending/1";
    let outcome = outcome(Crime::ProxOfLargeOnes, id);
    assert_eq!(outcome.violations.first().map(|v| v.kind), Some(Kind::Scaling), "{:?}", outcome.violations);
    assert_eq!(self::outcome(Crime::None, id).verdict, Verdict::Conforms);
}

#[test]
fn a_wrong_answer_that_is_a_decoy_has_its_name() {
    for (crime, id, name) in [
        (Crime::ProxOfNothing, PROX, "nothing done"),
        (Crime::ScoresOfMagnitudes, SELECT, "sums of magnitudes for norms"),
        (Crime::SelectsBackwards, SELECT, "in order of score"),
        (Crime::DropsIntercept, SOLVE, "the intercept dropped"),
        (Crime::MissesGreatest, SOLVE, "the greatest group missing"),
    ] {
        let prepared = prepared(id);
        let outcome = examine(&mut rogue(crime), &prepared);
        match (crime, hint(&prepared, &outcome)) {
            // Six rows in ascending order of their scores may be in descending order of index by chance.
            (Crime::SelectsBackwards, None) => {}
            (_, hint) => assert_eq!(hint, Some(name), "{crime:?}"),
        }
    }
}

#[test]
fn failing_cases_become_small() {
    let case: Case = SCALED.parse().unwrap();
    let wrong = |case: &Case| {
        Prepared::new(case)
            .is_ok_and(|prepared| !examine(&mut rogue(Crime::DropsIntercept), &prepared).violations.is_empty())
    };
    let Case::Solve(small) = shrink(&case, wrong, 60) else { panic!("another operation") };
    assert!(small.features <= 2 && small.samples <= 3 && !small.scale && small.intercept, "{}", Case::Solve(small));
}

/// Every decoy is seen through by some case, and every feature has a case that testifies for it.
#[test]
fn the_suite_has_evidence_for_everything() {
    let list = cases(Suite::Quick, 0);
    let found: Vec<(Column, Prepared)> =
        list.par_iter().step_by(2).map(|case| (case.column(), Prepared::new(case).unwrap())).collect();
    let rejected: BTreeSet<(&str, Option<Feature>)> =
        found.iter().flat_map(|(_, prepared)| prepared.evidence.iter().map(|e| (e.decoy, e.feature))).collect();
    let unseen: Vec<&str> =
        decoys().filter(|decoy| !rejected.contains(&(decoy.name, decoy.feature))).map(|decoy| decoy.name).collect();
    assert!(unseen.is_empty(), "no case rejects {unseen:?}");
    let mut testified: BTreeMap<(Feature, Column), usize> = BTreeMap::new();
    for (column, prepared) in &found {
        for feature in Feature::ALL.into_iter().filter(|feature| prepared.testifies_for(*feature)) {
            *testified.entry((feature, *column)).or_default() += 1;
        }
    }
    for (feature, column) in Feature::ALL.into_iter().flat_map(|feature| Column::ALL.map(|column| (feature, column))) {
        let count = testified.get(&(feature, column)).copied().unwrap_or(0);
        assert!(count > 0 || !feature.goes_with(column), "{} in {}", feature.name(), column.name());
    }
}

#[test]
fn the_backend_and_the_reference_conform() {
    let some: Vec<Case> = cases(Suite::Quick, 7).into_iter().step_by(9).collect();
    let mut subjects: [Box<dyn Subject>; 2] = [
        Box::new(InProcess::sequential(Reference, Profile::new("reference", ""))),
        Box::new(InProcess::new(CpuGroupLasso, Profile::new("cpu", ""))),
    ];
    for subject in &mut subjects {
        let report = hold_trial(subject.as_mut(), &some, || ()).unwrap();
        assert!(report.passes() && !report.broken_word(), "{}", report.to_text());
    }
}

#[test]
fn what_is_kept_is_counted_row_by_row() {
    let scores = [0.5, 2.0, 0.0, 2.0, 0.5, -0.0];
    assert_eq!(kept(&scores, Keep::Features(3)), [0, 1, 3]);
    assert_eq!(kept(&scores, Keep::Fraction(0.01)), [1]);
    assert_eq!(kept(&scores, Keep::Fraction(1.0)), [0, 1, 2, 3, 4, 5]);
    assert!(judge_selection(&scores, Keep::Features(3), &[1, 3, 4], "").is_err());
}
