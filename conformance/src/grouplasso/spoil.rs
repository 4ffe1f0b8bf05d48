//! Problems with a flaw: sound but for one thing, which must be refused.

use crate::grouplasso::case::{Flaw, ProxCase, RefuseCase, SelectCase, SolveCase};
use crate::grouplasso::generate::{Source, instance, prox_inputs, select_inputs};
use crate::grouplasso::subject::{Instance, Target};
use ndarray::{Array2, Axis};
use tilewright_grouplasso::{GroupLassoSpec, Groups, Keep, Loss, Penalty, SparseRows, Start, Weights};
use tilewright_scalar::Format;

/// What must be refused.
#[derive(Clone, Debug)]
pub(crate) enum Spoilt {
    Prox { spec: GroupLassoSpec, step: f64, w: Array2<f64> },
    Select { scores: Vec<f64>, keep: Keep },
    Solve(Box<SpoiltSolve>),
}

/// What must be refused of a solver.
#[derive(Clone, Debug)]
pub(crate) struct SpoiltSolve {
    pub(crate) instance: Instance,
    pub(crate) gap: f64,
    pub(crate) start: Option<Start>,
    pub(crate) lambdas: Option<Vec<f64>>,
}

const SAMPLES: usize = 20;
const FEATURES: usize = 12;
const OUTPUTS: usize = 3;

/// The case's problem, spoilt.
pub(crate) fn spoilt(case: &RefuseCase) -> Result<Spoilt, String> {
    match case.flaw.name().split_once('-') {
        Some(("prox", _)) => spoilt_prox(case),
        Some(("select", _)) => Ok(spoilt_select(case)),
        _ => spoilt_solve(case).map(|spoilt| Spoilt::Solve(Box::new(spoilt))),
    }
}

fn spoilt_prox(case: &RefuseCase) -> Result<Spoilt, String> {
    let sound = ProxCase { seed: case.seed, ..ProxCase::new(case.format, FEATURES, OUTPUTS) };
    let (mut spec, w) = prox_inputs(&sound)?;
    let mut step = 0.5;
    match case.flaw {
        Flaw::ProxNegativeLambda => spec.lambda = -0.5,
        Flaw::ProxNegativeWeight => spec.weights = Weights::Given(one_bad(FEATURES, 1.0, -1.0, case.seed)),
        Flaw::ProxSharedFeature => spec.groups = shared_feature(),
        Flaw::ProxOtherRows => spec.groups = Groups::Sizes(vec![5, FEATURES - 4]),
        Flaw::ProxZeroStep => step = 0.0,
        Flaw::ProxNanStep => step = f64::NAN,
        Flaw::ProxInfiniteStep => step = f64::INFINITY,
        _ => {}
    }
    Ok(Spoilt::Prox { spec, step, w })
}

fn spoilt_select(case: &RefuseCase) -> Spoilt {
    let sound = SelectCase { seed: case.seed, ..SelectCase::new(case.format, FEATURES, OUTPUTS) };
    let w = select_inputs(&sound);
    // Whole numbers are the same in every format.
    let mut scores: Vec<f64> = w.rows().into_iter().map(|row| row[0].abs().ceil()).collect();
    let keep = match case.flaw {
        Flaw::SelectNothing => Keep::Features(0),
        Flaw::SelectFractionZero => Keep::Fraction(0.0),
        Flaw::SelectFractionAboveOne => Keep::Fraction(1.5),
        Flaw::SelectFractionNan => Keep::Fraction(f64::NAN),
        _ => {
            scores = one_of(scores, f64::NAN, case.seed);
            Keep::Fraction(0.25)
        }
    };
    Spoilt::Select { scores, keep }
}

fn spoilt_solve(case: &RefuseCase) -> Result<SpoiltSolve, String> {
    let loss = if case.flaw.is_multinomial() { Loss::Multinomial } else { Loss::LeastSquares };
    let base = SolveCase::new(loss, SAMPLES, FEATURES, OUTPUTS);
    let mut instance = instance(&SolveCase { format: case.format, seed: case.seed, ..base })?;
    let (mut gap, mut start, mut lambdas) = (1e-6, None, None);
    match case.flaw {
        Flaw::ZeroGap => gap = 0.0,
        Flaw::NanGap => gap = f64::NAN,
        Flaw::StartOfOtherShape => {
            start = Some(Start { w: SparseRows::zeros(FEATURES + 1, OUTPUTS), b: vec![0.0; OUTPUTS] });
        }
        Flaw::NanInStart => {
            let mut w = Array2::zeros((FEATURES, OUTPUTS));
            w[[3, 1]] = f64::NAN;
            start = Some(Start { w: SparseRows::from_dense(w.view()), b: vec![0.0; OUTPUTS] });
        }
        Flaw::NanLambdaInPath => {
            let lambda = instance.spec.lambda;
            lambdas = Some(vec![4.0 * lambda, f64::NAN, lambda]);
        }
        flaw => {
            spoil_data(flaw, case.seed, &mut instance);
            spoil_spec(flaw, case.seed, &mut instance.spec);
        }
    }
    Ok(SpoiltSolve { instance, gap, start, lambdas })
}

fn spoil_data(flaw: Flaw, seed: u32, instance: &mut Instance) {
    let source = Source::new(seed, 100);
    let place = [source.below(0, SAMPLES), source.below(1, FEATURES)];
    match (flaw, &mut instance.target) {
        (Flaw::NanInX, _) => instance.x[place] = f64::NAN,
        (Flaw::InfinityInX, _) => instance.x[place] = f64::NEG_INFINITY,
        // A narrower format has no such number; there it is an infinity.
        (Flaw::TooLargeInX, _) => {
            instance.x[place] = if instance.format == Format::F64 { 1e300 } else { f64::INFINITY };
        }
        (Flaw::NanInY, Target::Values(y)) => y[[place[0], 1]] = f64::NAN,
        (Flaw::InfinityInY, Target::Values(y)) => y[[place[0], 1]] = f64::INFINITY,
        (Flaw::TooFewTargets, Target::Values(y)) => *y = y.slice_axis(Axis(0), (..SAMPLES - 1).into()).to_owned(),
        (Flaw::LabelOutOfRange, Target::Labels { labels, .. }) => labels[place[0]] = OUTPUTS as u32,
        (Flaw::TooFewLabels, Target::Labels { labels, .. }) => drop(labels.pop()),
        (Flaw::OneClass, target) => *target = Target::Labels { labels: vec![0; SAMPLES], classes: 1 },
        (Flaw::WrongTargets, target) => *target = Target::Labels { labels: vec![0; SAMPLES], classes: OUTPUTS },
        (Flaw::NegativeSampleWeight, _) => instance.sample_weights = Some(one_bad(SAMPLES, 1.0, -1.0, seed)),
        (Flaw::NanSampleWeight, _) => instance.sample_weights = Some(one_bad(SAMPLES, 1.0, f64::NAN, seed)),
        (Flaw::ZeroSampleWeights, _) => instance.sample_weights = Some(vec![0.0; SAMPLES]),
        (Flaw::TooFewSampleWeights, _) => instance.sample_weights = Some(vec![1.0; SAMPLES - 1]),
        (Flaw::NoSamples, target) => {
            instance.x = Array2::zeros((0, FEATURES));
            *target = Target::Values(Array2::zeros((0, OUTPUTS)));
        }
        _ => {}
    }
}

fn spoil_spec(flaw: Flaw, seed: u32, spec: &mut GroupLassoSpec) {
    match flaw {
        Flaw::NegativeLambda => spec.lambda = -spec.lambda,
        Flaw::NanLambda => spec.lambda = f64::NAN,
        Flaw::InfiniteLambda => spec.lambda = f64::INFINITY,
        Flaw::TauAboveOne => spec.penalty = Penalty::SparseGroup { tau: 1.25 },
        Flaw::NanAlpha => spec.penalty = Penalty::ElasticNet { alpha: f64::NAN },
        Flaw::NegativeWeight => spec.weights = Weights::Given(one_bad(FEATURES, 1.0, -1.0, seed)),
        Flaw::NanWeight => spec.weights = Weights::Given(one_bad(FEATURES, 1.0, f64::NAN, seed)),
        Flaw::TooFewWeights => spec.weights = Weights::Given(vec![1.0; FEATURES - 1]),
        Flaw::SharedFeature => spec.groups = shared_feature(),
        Flaw::MissingFeature => spec.groups = Groups::Lists(vec![(0..5).collect(), (6..FEATURES).collect()]),
        Flaw::UnknownFeature => spec.groups = Groups::Lists(vec![(0..5).collect(), (5..=FEATURES).collect()]),
        Flaw::DoubleFeature => {
            spec.groups = Groups::Overlapping(vec![vec![0, 1, 2, 1], (2..FEATURES).collect()]);
        }
        Flaw::EmptyGroup => spec.groups = Groups::Sizes(vec![5, 0, FEATURES - 5]),
        Flaw::ShortSizes => spec.groups = Groups::Sizes(vec![5, FEATURES - 6]),
        _ => {}
    }
}

fn shared_feature() -> Groups {
    Groups::Lists(vec![(0..6).collect(), (5..FEATURES).collect()])
}

fn one_bad(len: usize, good: f64, bad: f64, seed: u32) -> Vec<f64> {
    one_of(vec![good; len], bad, seed)
}

/// One entry replaced.
fn one_of(mut list: Vec<f64>, bad: f64, seed: u32) -> Vec<f64> {
    let at = Source::new(seed, 101).below(0, list.len());
    list[at] = bad;
    list
}
