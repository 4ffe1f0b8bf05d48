//! Proximal operators, conjugates, dual norms and bounds against their definitions.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use tilewright_grouplasso::penalty::{norm, norm_of_soft};
use tilewright_grouplasso::{Format, GroupLassoSpec, Groups, Layout, Loss, Penalty, Terms, Weights, bound, prox};

fn entry() -> impl Strategy<Value = f64> {
    prop_oneof![4 => -3.0..3.0f64, 1 => Just(0.0), 1 => Just(-0.0), 1 => Just(1.0)]
}

fn block() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(entry(), 1..9)
}

fn penalty() -> impl Strategy<Value = Penalty> {
    prop_oneof![
        Just(Penalty::GroupLasso),
        (0.0..=1.0).prop_map(|tau| Penalty::SparseGroup { tau }),
        prop_oneof![Just(0.0), Just(1.0)].prop_map(|tau| Penalty::SparseGroup { tau }),
        (0.0..=1.0).prop_map(|alpha| Penalty::ElasticNet { alpha }),
        prop_oneof![Just(0.0), Just(1.0)].prop_map(|alpha| Penalty::ElasticNet { alpha }),
    ]
}

fn terms() -> impl Strategy<Value = Terms> {
    let lambda = prop_oneof![8 => 0.01..2.0f64, 1 => Just(0.0)];
    let weight = prop_oneof![8 => 0.1..3.0f64, 1 => Just(0.0)];
    (penalty(), lambda, weight).prop_map(|(penalty, lambda, weight)| Terms::new(penalty, lambda, weight))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn after_prox(terms: Terms, t: f64, v: &[f64]) -> Vec<f64> {
    let mut p = v.to_vec();
    prox::group(terms, t, &mut p);
    p
}

proptest! {
    /// `p = prox(v)` if and only if `(v − p)/t` is a subgradient at `p`.
    #[test]
    fn prox_is_stationary(terms in terms(), t in 0.05..4.0f64, v in block()) {
        let p = after_prox(terms, t, &v);
        let u: Vec<f64> = v.iter().zip(&p).map(|(v, p)| (v - p) / t).collect();
        prop_assert!(terms.distance(&p, &u) <= 1e-12 * (1.0 + norm(&v) / t), "{p:?}");
    }

    /// And it minimises: nothing near it, nor zero, nor `v`, is better.
    #[test]
    fn prox_minimises(terms in terms(), t in 0.05..4.0f64, v in block(), other in block()) {
        let objective = |x: &[f64]| {
            let apart: Vec<f64> = x.iter().zip(&v).map(|(x, v)| x - v).collect();
            0.5 * dot(&apart, &apart) + t * terms.value(x)
        };
        let p = after_prox(terms, t, &v);
        let rival: Vec<f64> = p.iter().zip(other.iter().cycle()).map(|(p, o)| p + 0.01 * o).collect();
        for x in [&rival, &v, &vec![0.0; v.len()]] {
            prop_assert!(objective(&p) <= objective(x) + 1e-12 * (1.0 + objective(x)));
        }
    }

    #[test]
    fn prox_is_not_expansive(terms in terms(), t in 0.05..4.0f64, pairs in prop::collection::vec((entry(), entry()), 1..9)) {
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        let (p, q) = (after_prox(terms, t, &a), after_prox(terms, t, &b));
        let apart = |a: &[f64], b: &[f64]| norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
        prop_assert!(apart(&p, &q) <= apart(&a, &b) * (1.0 + 1e-13));
    }

    /// Huge and tiny blocks behave as scaled ones.
    #[test]
    fn prox_scales(terms in terms(), v in block(), exponent in -250..250i32) {
        let c = 2f64.powi(exponent);
        let scaled = Terms { l1: terms.l1 * c, l2: terms.l2 * c, ridge: terms.ridge };
        let p = after_prox(terms, 1.0, &v);
        let q = after_prox(scaled, 1.0, &v.iter().map(|x| x * c).collect::<Vec<_>>());
        prop_assert!(p.iter().zip(&q).all(|(p, q)| (p - q / c).abs() <= 1e-13 * norm(&v)));
    }

    /// Fenchel and Young: `h(v) + h*(u) ≥ ⟨u, v⟩`, with equality where `u` is a subgradient.
    #[test]
    fn conjugate(terms in terms(), v in block(), raw in block()) {
        let u: Vec<f64> = raw.iter().cycle().take(v.len()).copied().collect();
        prop_assert!(terms.value(&v) + terms.conjugate(&u) >= dot(&u, &v) - 1e-12);
        let p = after_prox(terms, 1.0, &v);
        let u: Vec<f64> = v.iter().zip(&p).map(|(v, p)| v - p).collect();
        // Rounding may have put u just outside of where a conjugate without a ridge is finite.
        let at_u = if terms.excess(&u) <= 1e-14 * norm(&v) { 0.0 } else { terms.conjugate(&u) };
        let excess = terms.value(&p) + at_u - dot(&u, &p);
        prop_assert!(excess.abs() <= 1e-10, "{excess:e}");
    }

    /// `u / ν` is on the boundary of `B`.
    #[test]
    fn dual_norm(terms in terms(), u in block()) {
        let nu = terms.dual_norm(&u);
        if nu == 0.0 {
            prop_assert!(u.iter().all(|x| *x == 0.0));
        } else if nu.is_finite() {
            let on = norm_of_soft(&u, nu * terms.l1) - nu * terms.l2;
            prop_assert!(on.abs() <= 1e-12 * norm(&u), "{on:e} at {nu}");
            let inside = Terms { l1: terms.l1 * nu * 0.999, l2: terms.l2 * nu * 0.999, ridge: 0.0 };
            prop_assert!(inside.excess(&u) > 0.0);
        } else {
            prop_assert!(terms.l1 == 0.0 && terms.l2 == 0.0);
        }
    }

    /// Arithmetic in `f32`, in the other of the two usual forms, stays within the bound, and is zero where it must be.
    #[test]
    fn bound_of_prox(
        penalty in penalty(), lambda in 0.01..2.0f64, step in 0.1..3.0f64, sizes in prop::collection::vec(1..5usize, 1..6),
        raw in prop::collection::vec(entry(), 60), exponent in -20..20i32,
    ) {
        let rows: usize = sizes.iter().sum();
        let scale = 2f64.powi(exponent);
        let w = Array2::from_shape_fn((rows, 3), |(i, k)| (raw[(3 * i + k) % 60] * scale) as f32);
        let lambda = lambda * scale;
        let spec = GroupLassoSpec {
            groups: Groups::Sizes(sizes), penalty, weights: Weights::SqrtSize, ..GroupLassoSpec::rows(Loss::LeastSquares, lambda)
        };
        let limits = bound::prox(&spec, step, w.view(), Format::F32).unwrap();
        let got = single(&spec, step as f32, w.view());
        for (at, got) in got.indexed_iter() {
            let error = (f64::from(*got) - limits.exact[at]).abs();
            prop_assert!(error <= limits.worst[at], "{at:?}: {error:e} of {:e}", limits.worst[at]);
        }
        let layout = Layout::new(&spec.groups, rows).unwrap();
        for group in 0..layout.groups() {
            let zero = layout.rows_of(group).all(|row| got.row(row).iter().all(|x| *x == 0.0));
            prop_assert!(zero || !limits.zero[group]);
        }
    }
}

/// `max(0, 1 − tb/N) / (1 + tc)`, all in `f32`.
fn single(spec: &GroupLassoSpec, step: f32, w: ArrayView2<'_, f32>) -> Array2<f32> {
    let layout = Layout::new(&spec.groups, w.nrows()).unwrap();
    let mut out = w.to_owned();
    for group in 0..layout.groups() {
        let lambda = spec.lambda as f32;
        let weight = (layout.size(group) as f32).sqrt();
        let (l1, l2, ridge) = match spec.penalty {
            Penalty::GroupLasso => (0.0, step * lambda * weight, 0.0),
            Penalty::SparseGroup { tau } => {
                (step * lambda * tau as f32, step * (lambda * ((1.0 - tau as f32) * weight)), 0.0)
            }
            Penalty::ElasticNet { alpha } => {
                let alpha = alpha as f32;
                (0.0, step * lambda * alpha * weight, (step * lambda) * (1.0 - alpha) * weight)
            }
        };
        let soft = |x: f32| if x.abs() <= l1 { 0.0 } else { x - l1.copysign(x) };
        let mut squares = 0.0f32;
        for row in layout.rows_of(group) {
            squares = w.row(row).iter().fold(squares, |sum, x| soft(*x) * soft(*x) + sum);
        }
        let n = squares.sqrt();
        let factor = if n > 0.0 { (1.0 - l2 / n).max(0.0) / (1.0 + ridge) } else { 0.0 };
        for row in layout.rows_of(group) {
            out.row_mut(row).iter_mut().for_each(|x| *x = soft(*x) * factor);
        }
    }
    out
}

#[test]
fn the_bound_is_no_licence() {
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 1.0);
    let w = Array2::from_shape_fn((50, 4), |(i, k)| ((i * 7 + k * 3) % 11) as f32 - 5.0);
    let limits = bound::prox(&spec, 0.5, w.view(), Format::F32).unwrap();
    // A threshold that is wrong by one part in ten thousand is outside.
    let wrong = single(&spec, 0.50005, w.view());
    let outside = wrong.indexed_iter().filter(|(at, x)| (f64::from(**x) - limits.exact[*at]).abs() > limits.worst[*at]);
    assert!(outside.count() > 50);
}

#[test]
fn edges() {
    let lasso = Terms::new(Penalty::GroupLasso, 1.0, 5.0);
    let mut at_threshold = [3.0, -4.0];
    prox::group(lasso, 1.0, &mut at_threshold);
    assert_eq!(at_threshold.map(f64::to_bits), [0, 0], "equality is zero, and no −0");
    let mut nan = [f64::NAN, 1.0];
    prox::group(lasso, 1.0, &mut nan);
    assert!(nan.iter().all(|x| x.is_nan()));
    let mut tiny = [1e-310, 1e-310];
    prox::group(Terms::new(Penalty::GroupLasso, 1e-311, 1.0), 1.0, &mut tiny);
    assert!(tiny[0] > 9e-311 && tiny[0] < 1e-310);
    assert_eq!(norm(&[f64::INFINITY, 1.0]), f64::INFINITY);
    assert!(norm(&[f64::NAN, f64::INFINITY]).is_nan());
    assert_eq!(norm(&[1e300, 1e300]), 2f64.sqrt() * 1e300);
    assert_eq!(Terms::new(Penalty::ElasticNet { alpha: 0.0 }, 1.0, 1.0).dual_norm(&[1.0]), f64::INFINITY);
}
