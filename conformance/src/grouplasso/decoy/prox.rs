//! Proximal operators gone wrong.

use super::{Decoy, Wrong, decoy};
use crate::grouplasso::subject::Feature;
use ndarray::{Array2, ArrayView2, Axis};
use tilewright_grouplasso::penalty::{norm, soft};
use tilewright_grouplasso::{GroupLassoSpec, Groups, Layout, Terms, Weights, bound, prox};
use tilewright_scalar::Format;

/// A proximal operator with its right answer.
#[derive(Clone, Copy, Debug)]
pub struct ProxMoment<'a> {
    /// The penalty.
    pub spec: &'a GroupLassoSpec,
    /// Its groups.
    pub layout: &'a Layout,
    /// The step.
    pub step: f64,
    /// What the matrix is stored in.
    pub format: Format,
    /// The matrix.
    pub w: ArrayView2<'a, f64>,
    /// The right answer, and how far from it is right.
    pub limits: &'a bound::ProxBound,
}

// Some mistakes cannot always be made, so all of them are optional.
#[allow(clippy::unnecessary_wraps)]
impl ProxMoment<'_> {
    fn round(&self, mut out: Array2<f64>) -> Array2<f64> {
        out.mapv_inplace(|x| self.format.round(x));
        out
    }

    /// The answer to another problem.
    fn of(&self, change: impl FnOnce(&mut GroupLassoSpec)) -> Option<Array2<f64>> {
        let mut spec = self.spec.clone();
        change(&mut spec);
        let layout = Layout::new(&spec.groups, self.layout.features()).ok()?;
        if layout.rows() != self.layout.rows() {
            return None;
        }
        let mut out = self.w.to_owned();
        prox::all(&spec, &layout, self.step, &mut out.view_mut());
        Some(self.round(out))
    }

    /// What another operator makes of each block.
    fn each(&self, wrong: impl Fn(Terms, f64, &mut [f64])) -> Option<Array2<f64>> {
        let mut out = self.w.to_owned();
        for group in 0..self.layout.groups() {
            let mut block = self.layout.gather(self.w, group);
            wrong(self.layout.terms(self.spec, group), self.step, &mut block);
            for (row, values) in self.layout.rows_of(group).zip(block.chunks(self.w.ncols())) {
                out.row_mut(row).iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            }
        }
        Some(self.round(out))
    }

    fn right(&self) -> Array2<f64> {
        self.round(self.limits.exact.clone())
    }
}

const fn wrong(name: &'static str, wrong: fn(&ProxMoment<'_>) -> Option<Array2<f64>>) -> Decoy {
    decoy(name, None, Wrong::Prox(wrong))
}

const fn about(feature: Feature, name: &'static str, wrong: fn(&ProxMoment<'_>) -> Option<Array2<f64>>) -> Decoy {
    decoy(name, Some(feature), Wrong::Prox(wrong))
}

pub(super) static DECOYS: &[Decoy] = &[
    wrong("nothing done", |m| Some(m.w.to_owned())),
    wrong("the step ignored", |m| m.each(|terms, _, v| prox::group(terms, 1.0, v))),
    wrong("twice the threshold", |m| m.of(|spec| spec.lambda *= 2.0)),
    wrong("hard threshold", |m| m.each(hard)),
    wrong("negative factors", |m| m.each(negative)),
    wrong("the last group untouched", |m| {
        let mut out = m.right();
        m.layout.rows_of(m.layout.groups() - 1).for_each(|row| out.row_mut(row).assign(&m.w.row(row)));
        Some(out)
    }),
    about(Feature::Outputs, "each output by itself", |m| {
        let mut out = m.w.to_owned();
        for k in 0..m.w.ncols() {
            prox::all(m.spec, m.layout, m.step, &mut out.slice_axis_mut(Axis(1), (k..=k).into()));
        }
        Some(m.round(out))
    }),
    about(Feature::Rows, "all rows one group", |m| m.of(|spec| regroup(spec, Groups::Sizes(vec![m.w.nrows()])))),
    about(Feature::Ranges, "each row a group", |m| m.of(|spec| regroup(spec, Groups::Rows))),
    about(Feature::Ranges, "the root of the size left out", |m| m.of(unweighted)),
    about(Feature::Lists, "each row a group", |m| m.of(|spec| regroup(spec, Groups::Rows))),
    about(Feature::Lists, "consecutive rows", |m| {
        let Groups::Lists(lists) = &m.spec.groups else { return None };
        let sizes = lists.iter().map(Vec::len).collect();
        m.of(|spec| spec.groups = Groups::Sizes(sizes))
    }),
    about(Feature::Overlapping, "copies of a feature averaged", |m| m.layout.has_copies().then(|| averaged(m))),
    about(Feature::GroupLasso, "entries instead of groups", |m| m.each(entries)),
    about(Feature::SparseGroup, "no threshold for entries", |m| {
        m.each(|terms, t, v| {
            prox::group(Terms { l1: 0.0, ..terms }, t, v);
        })
    }),
    about(Feature::SparseGroup, "no threshold for groups", |m| {
        m.each(|terms, t, v| {
            prox::group(Terms { l2: 0.0, ..terms }, t, v);
        })
    }),
    about(Feature::SparseGroup, "groups before entries", |m| {
        m.each(|terms, t, v| {
            prox::group(Terms { l1: 0.0, ..terms }, t, v);
            prox::group(Terms { l2: 0.0, ridge: 0.0, ..terms }, t, v);
        })
    }),
    about(Feature::ElasticNet, "no ridge", |m| m.each(|terms, t, v| prox::group(Terms { ridge: 0.0, ..terms }, t, v))),
    about(Feature::ElasticNet, "the ridge doubled", |m| {
        m.each(|terms, t, v| {
            prox::group(Terms { ridge: 2.0 * terms.ridge, ..terms }, t, v);
        })
    }),
    about(Feature::Weights, "weights ignored", |m| m.of(|spec| spec.weights = Weights::SqrtSize)),
    about(Feature::Free, "free groups penalised", |m| {
        m.of(|spec| {
            if let Weights::Given(weights) = &mut spec.weights {
                weights.iter_mut().filter(|w| **w == 0.0).for_each(|w| *w = 1.0);
            }
        })
    }),
    about(Feature::NonFinite, "NaN and infinities taken for zero", |m| {
        let mut out = m.w.mapv(|x| if x.is_finite() { x } else { 0.0 });
        prox::all(m.spec, m.layout, m.step, &mut out.view_mut());
        Some(m.round(out))
    }),
    about(Feature::Extremes, "squares overflow or vanish", |m| {
        let accum = if m.format == Format::F64 { Format::F64 } else { Format::F32 };
        m.each(|terms, t, v| {
            let squares: f64 = v.iter().map(|x| accum.round(x * x)).sum();
            let (size, threshold) = (accum.round(squares).sqrt(), t * terms.l2);
            let factor = if size <= threshold { 0.0 } else { (size - threshold) / size };
            scale(v, factor);
        })
    }),
];

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

fn scale(v: &mut [f64], factor: f64) {
    for x in v {
        *x *= factor;
    }
}

fn hard(terms: Terms, t: f64, v: &mut [f64]) {
    if norm(v) <= t * terms.l2 {
        v.fill(0.0);
    }
}

/// No positive part: short vectors come out the other way round.
fn negative(terms: Terms, t: f64, v: &mut [f64]) {
    let size = norm(v);
    if size > 0.0 {
        scale(v, 1.0 - t * terms.l2 / size);
    }
}

fn entries(terms: Terms, t: f64, v: &mut [f64]) {
    for x in v {
        *x = soft(*x, t * terms.l2);
    }
}

fn averaged(m: &ProxMoment<'_>) -> Array2<f64> {
    let mut out = m.right();
    for feature in 0..m.layout.features() {
        let copies: Vec<usize> = (0..m.layout.rows()).filter(|row| m.layout.feature(*row) == feature).collect();
        let mean = m.right().select(Axis(0), &copies).mean_axis(Axis(0));
        for (row, mean) in copies.iter().zip(mean.iter().cycle()) {
            out.row_mut(*row).assign(mean);
        }
    }
    m.round(out)
}
