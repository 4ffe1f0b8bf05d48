//! Solutions gone wrong.

use super::{Decoy, Wrong, decoy};
use crate::grouplasso::judge::{Oracle, Trial};
use crate::grouplasso::subject::{Feature, Instance};
use ndarray::{Array2, Axis};
use std::ops::ControlFlow;
use tilewright_grouplasso::penalty::norm;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    GroupLassoSolver, GroupLassoSpec, Groups, Penalty, SparseRows, Standardise, Start, Stopping, Weights,
};

/// A problem with a good answer.
#[derive(Clone, Copy, Debug)]
pub struct SolveMoment<'a> {
    /// The problem.
    pub instance: &'a Instance,
    /// How answers are judged.
    pub trial: &'a Trial<'a>,
    /// The good answer.
    pub oracle: &'a Oracle,
}

/// Iterations that a decoy is worth.
const EFFORT: usize = 300;

// Some mistakes cannot always be made, so all of them are optional.
#[allow(clippy::unnecessary_wraps)]
impl SolveMoment<'_> {
    /// A good answer to another problem.
    fn of(&self, change: impl FnOnce(&mut Instance)) -> Option<Start> {
        self.after(EFFORT, 1e-4, change)
    }

    fn after(&self, iterations: usize, gap: f64, change: impl FnOnce(&mut Instance)) -> Option<Start> {
        let mut instance = self.instance.clone();
        change(&mut instance);
        let stopping = Stopping { gap, iterations };
        let watch = &mut |_: &_| ControlFlow::Continue(());
        let answer = Reference.solve(&instance.spec, &instance.data(), &stopping, None, watch).ok()?;
        Some(answer.start())
    }

    fn with_spec(&self, change: impl FnOnce(&mut GroupLassoSpec)) -> Option<Start> {
        self.of(|instance| change(&mut instance.spec))
    }

    /// The good answer, but other coefficients and another intercept.
    fn but(&self, change: impl FnOnce(&mut Array2<f64>, &mut Vec<f64>)) -> Option<Start> {
        let (mut w, mut b) = (self.oracle.w.to_dense(), self.oracle.b.clone());
        change(&mut w, &mut b);
        Some(Start { w: SparseRows::from_dense(w.view()), b })
    }

    /// Without the group that `order` puts first among those that are there.
    fn without(&self, order: impl Fn(f64, f64) -> std::cmp::Ordering) -> Option<Start> {
        let layout = self.trial.problem.layout();
        let dense = self.oracle.w.to_dense();
        let size = |group: &usize| norm(&layout.gather(dense.view(), *group));
        let there = (0..layout.groups()).filter(|group| size(group) > 0.0);
        let group = there.min_by(|a, b| order(size(a), size(b)))?;
        self.but(|w, _| layout.rows_of(group).for_each(|row| w.row_mut(row).fill(0.0)))
    }
}

const fn wrong(name: &'static str, wrong: fn(&SolveMoment<'_>) -> Option<Start>) -> Decoy {
    decoy(name, None, Wrong::Solve(wrong))
}

const fn about(feature: Feature, name: &'static str, wrong: fn(&SolveMoment<'_>) -> Option<Start>) -> Decoy {
    decoy(name, Some(feature), Wrong::Solve(wrong))
}

pub(super) static DECOYS: &[Decoy] = &[
    wrong("nothing fitted", |m| {
        m.but(|w, b| {
            w.fill(0.0);
            b.clone_from(&m.trial.problem.null().intercept);
        })
    }),
    wrong("the greatest group missing", |m| m.without(|a, b| b.total_cmp(&a))),
    wrong("the least group missing", |m| m.without(|a, b| a.total_cmp(&b))),
    wrong("coefficients one per cent too large", |m| m.but(|w, _| *w *= 1.01)),
    wrong("rows off by one", |m| m.but(|w, _| rotate(w, Axis(0)))),
    about(Feature::LeastSquares, "the loss summed instead of averaged", |m| {
        let n = m.instance.x.nrows() as f64;
        m.with_spec(|spec| spec.lambda /= n)
    }),
    about(Feature::GroupLasso, "λ doubled", |m| m.with_spec(|spec| spec.lambda *= 2.0)),
    about(Feature::Multinomial, "the last class held at zero", |m| {
        m.but(|w, b| {
            let last = w.ncols() - 1;
            let (held, shift) = (w.column(last).to_owned(), b[last]);
            w.columns_mut().into_iter().for_each(|mut column| column -= &held);
            b.iter_mut().filter(|_| shift.is_finite()).for_each(|b| *b -= shift);
        })
    }),
    about(Feature::Outputs, "outputs off by one", |m| {
        m.but(|w, b| {
            rotate(w, Axis(1));
            b.rotate_left(1);
        })
    }),
    about(Feature::Intercept, "the intercept dropped", |m| {
        m.but(|_, b| b.iter_mut().filter(|b| b.is_finite()).for_each(|b| *b = 0.0))
    }),
    about(Feature::Intercept, "the intercept of the null model", |m| {
        m.but(|_, b| b.clone_from(&m.trial.problem.null().intercept))
    }),
    about(Feature::NoIntercept, "an intercept fitted and left out", |m| {
        let fitted = m.with_spec(|spec| spec.intercept = true)?;
        let outputs = m.instance.target.outputs();
        Some(Start { b: vec![0.0; outputs], ..fitted })
    }),
    about(Feature::Centre, "columns not centred", |m| {
        let mean = &m.trial.problem.columns().mean;
        let scale = &m.trial.problem.columns().scale;
        if !m.instance.spec.intercept {
            return m.with_spec(|spec| spec.standardise.centre = false);
        }
        let layout = m.trial.problem.layout();
        m.but(|w, b| {
            for (row, w) in w.rows().into_iter().enumerate() {
                let j = layout.feature(row);
                b.iter_mut().zip(w).for_each(|(b, w)| *b -= mean[j] / scale[j] * w);
            }
        })
    }),
    about(Feature::Scale, "coefficients of raw columns", |m| {
        let (scale, layout) = (&m.trial.problem.columns().scale, m.trial.problem.layout());
        m.but(|w, _| w.rows_mut().into_iter().enumerate().for_each(|(row, mut w)| w /= scale[layout.feature(row)]))
    }),
    about(Feature::Scale, "columns not scaled", |m| {
        m.with_spec(|spec| spec.standardise = Standardise { scale: false, ..spec.standardise })
    }),
    about(Feature::SampleWeights, "sample weights ignored", |m| m.of(|instance| instance.sample_weights = None)),
    about(Feature::Weights, "weights ignored", |m| m.with_spec(|spec| spec.weights = Weights::SqrtSize)),
    about(Feature::Free, "free groups penalised", |m| {
        m.with_spec(|spec| {
            if let Weights::Given(weights) = &mut spec.weights {
                weights.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = 1.0);
            }
            if spec.lambda == 0.0 {
                spec.lambda = 0.1;
            }
        })
    }),
    about(Feature::SparseGroup, "no entries selected", |m| m.with_spec(|spec| spec.penalty = Penalty::GroupLasso)),
    about(Feature::SparseGroup, "no groups selected", |m| {
        m.with_spec(|spec| spec.penalty = Penalty::SparseGroup { tau: 1.0 })
    }),
    about(Feature::ElasticNet, "no ridge", |m| m.with_spec(|spec| spec.penalty = Penalty::GroupLasso)),
    about(Feature::ElasticNet, "the ridge without its half", |m| m.but(|w, _| *w *= 0.9)),
    about(Feature::Rows, "all rows one group", |m| {
        let features = m.instance.x.ncols();
        m.with_spec(|spec| regroup(spec, Groups::Sizes(vec![features])))
    }),
    about(Feature::Ranges, "each row a group", |m| m.with_spec(|spec| regroup(spec, Groups::Rows))),
    about(Feature::Ranges, "the root of the size left out", |m| m.with_spec(unweighted)),
    about(Feature::Lists, "each row a group", |m| m.with_spec(|spec| regroup(spec, Groups::Rows))),
    about(Feature::Overlapping, "only the first copy of a feature kept", |m| {
        let layout = m.trial.problem.layout();
        let first = |row: usize| (0..row).all(|other| layout.feature(other) != layout.feature(row));
        let later: Vec<usize> = (0..layout.rows()).filter(|row| !first(*row)).collect();
        m.but(|w, _| later.iter().for_each(|row| w.row_mut(*row).fill(0.0)))
    }),
    about(Feature::AbsentClass, "a finite intercept for a class that nobody has", |m| {
        let gone = m.trial.problem.response().absent();
        if m.instance.spec.intercept {
            m.but(|_, b| b.iter_mut().zip(gone).filter(|(_, gone)| **gone).for_each(|(b, _)| *b = 0.0))
        } else {
            m.with_spec(|spec| spec.lambda *= 2.0)
        }
    }),
    about(Feature::Gap6, "a gap of 1e-4", |m| m.after(EFFORT, 1e-4, |_| ())),
    about(Feature::Gap8, "a gap of 1e-6", |m| m.after(EFFORT, 1e-6, |_| ())),
    about(Feature::WarmStart, "the start returned", |m| m.with_spec(|spec| spec.lambda *= 2.0)),
    about(Feature::Path, "the answer for the λ before", |m| m.with_spec(|spec| spec.lambda *= 3.0)),
    about(Feature::Interruption, "unfinished work", |m| m.after(3, 1e-12, |_| ())),
];

fn rotate(w: &mut Array2<f64>, axis: Axis) {
    let len = w.len_of(axis);
    if len > 0 {
        let order: Vec<usize> = (0..len).map(|i| (i + 1) % len).collect();
        *w = w.select(axis, &order);
    }
}

fn regroup(spec: &mut GroupLassoSpec, groups: Groups) {
    spec.groups = groups;
    if matches!(spec.weights, Weights::Given(_)) {
        spec.weights = Weights::Ones;
    }
}

fn unweighted(spec: &mut GroupLassoSpec) {
    if spec.weights == Weights::SqrtSize {
        spec.weights = Weights::Ones;
    }
}
