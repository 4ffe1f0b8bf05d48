//! Proximal operators.

use super::AGAIN;
use crate::grouplasso::generate::is_homogeneous;
use crate::grouplasso::hearing::{Ended, Hearing};
use crate::grouplasso::judge::{Kind, Violation, judge_prox, prox_limits, within};
use crate::grouplasso::trial::{Exhibit, ReadyProx};
use ndarray::{Array2, ArrayView2, Axis};
use tilewright_grouplasso::{GroupLassoSpec, Groups, Weights};

/// The answer and its laws.
pub(crate) fn examine(hearing: &mut Hearing<'_>, ready: &ReadyProx) -> Result<(), Ended> {
    let ReadyProx { spec, layout, step, w, limits } = ready;
    let out = hearing.prox(spec, *step, w.view(), None, "answer")?;
    let judged = judge_prox(layout, limits, w.view(), out.view(), "answer");
    hearing.error = hearing.keep(judged, || Exhibit::Prox(out.clone()))?;
    if hearing.is_deterministic() {
        for (threads, place) in AGAIN {
            let again = hearing.prox(spec, *step, w.view(), threads, place)?;
            let same = again.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
            if !same {
                let kind = if threads.is_some() { Kind::Threads } else { Kind::Nondeterministic };
                return Err(Violation::new(kind, place, "other bits").into());
            }
        }
    }
    fixed_zero(hearing, ready)?;
    if w.iter().all(|x| x.is_finite()) {
        non_expansive(hearing, ready, &out)?;
        permutation(hearing, ready, &out)?;
        steps(hearing, ready, &out)?;
        scaling(hearing, ready, &out)?;
    }
    Ok(())
}

fn fixed_zero(hearing: &mut Hearing<'_>, ready: &ReadyProx) -> Result<(), Ended> {
    let zero = Array2::zeros(ready.w.raw_dim());
    let out = hearing.prox(&ready.spec, ready.step, zero.view(), None, "zero")?;
    match out.indexed_iter().find(|(_, x)| **x != 0.0) {
        Some((at, x)) => Err(Violation::new(Kind::FixedZero, "zero", format!("{x:e} at {at:?}")).into()),
        None => Ok(()),
    }
}

/// `‖prox v − prox w‖ ≤ ‖v − w‖`, but for rounding.
fn non_expansive(hearing: &mut Hearing<'_>, ready: &ReadyProx, out: &Array2<f64>) -> Result<(), Ended> {
    let format = hearing.prepared.case.format();
    let mut n = 0u32;
    let near = ready.w.mapv(|x| {
        n += 1;
        format.round(x * [0.75, 1.0, 1.25, -0.5][(n.wrapping_mul(2_654_435_761) >> 30) as usize])
    });
    let other = hearing.prox(&ready.spec, ready.step, near.view(), None, "law, another matrix")?;
    let limits = limits(ready, &ready.spec, ready.step, near.view(), hearing)?;
    let (after, before) = (distance(out, &other), distance(&ready.w, &near));
    let zero = Array2::zeros(ready.w.raw_dim());
    let rounding = distance(&ready.limits.worst, &zero) + distance(&limits, &zero);
    if after <= before * (1.0 + 1e-12) + rounding {
        return Ok(());
    }
    let detail = format!("matrices {before:e} apart came to be {after:e} apart");
    Err(Violation::new(Kind::NonExpansive, "law", detail).into())
}

/// Other columns first, and other rows first in every group; where each row is a group, other groups first.
fn permutation(hearing: &mut Hearing<'_>, ready: &ReadyProx, out: &Array2<f64>) -> Result<(), Ended> {
    let ReadyProx { spec, layout, w, .. } = ready;
    let mut from: Vec<usize> = (0..w.nrows()).collect();
    if spec.groups == Groups::Rows && !matches!(spec.weights, Weights::Given(_)) {
        from.reverse();
    } else {
        for group in 0..layout.groups() {
            let rows: Vec<usize> = layout.rows_of(group).collect();
            rows.iter().zip(rows.iter().rev()).for_each(|(to, source)| from[*to] = *source);
        }
    }
    let columns: Vec<usize> = (0..w.ncols()).rev().collect();
    let permuted = |m: &Array2<f64>| m.select(Axis(0), &from).select(Axis(1), &columns);
    let other = hearing.prox(spec, ready.step, permuted(w).view(), None, "law, permuted")?;
    same(&permuted(out), &other, &permuted(&ready.limits.worst), 1.0, Kind::Permutation)
}

/// A step of `t` for λ is one of `t/2` for `2λ`.
fn steps(hearing: &mut Hearing<'_>, ready: &ReadyProx, out: &Array2<f64>) -> Result<(), Ended> {
    let spec = GroupLassoSpec { lambda: 2.0 * ready.spec.lambda, ..ready.spec.clone() };
    let other = hearing.prox(&spec, 0.5 * ready.step, ready.w.view(), None, "law, half the step")?;
    same(out, &other, &ready.limits.worst, 1.0, Kind::Step)
}

/// Twice the matrix and twice the step: twice the answer, if every term of the penalty is a norm.
fn scaling(hearing: &mut Hearing<'_>, ready: &ReadyProx, out: &Array2<f64>) -> Result<(), Ended> {
    let format = hearing.prepared.case.format();
    let twice = ready.w.mapv(|x| format.round(2.0 * x));
    let exact = twice.iter().zip(&ready.w).all(|(twice, x)| *twice == 2.0 * x);
    if !is_homogeneous(ready.spec.penalty) || !exact {
        return Ok(());
    }
    let other = hearing.prox(&ready.spec, 2.0 * ready.step, twice.view(), None, "law, twice the matrix")?;
    same(&out.mapv(|x| 2.0 * x), &other, &ready.limits.worst, 2.0, Kind::Scaling)
}

fn limits(
    ready: &ReadyProx,
    spec: &GroupLassoSpec,
    step: f64,
    w: ArrayView2<'_, f64>,
    hearing: &Hearing<'_>,
) -> Result<Array2<f64>, Ended> {
    let format = hearing.prepared.case.format();
    prox_limits(spec, step, format, w).map(|limits| limits.worst).or_else(|_| Ok(ready.limits.worst.clone()))
}

/// Whether two answers are within twice their bound of each other.
fn same(a: &Array2<f64>, b: &Array2<f64>, worst: &Array2<f64>, unit: f64, kind: Kind) -> Result<(), Ended> {
    for ((at, a), b) in a.indexed_iter().zip(b) {
        let limit = 2.0 * unit * worst[at];
        if !within((a - b).abs(), limit) {
            let detail = format!("{a:e} and {b:e} at {at:?}, {limit:.2e} apart at most");
            return Err(Violation::new(kind, "law", detail).into());
        }
    }
    Ok(())
}

fn distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    tilewright_grouplasso::penalty::norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}
