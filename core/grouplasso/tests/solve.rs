//! The reference solver, its certificate and the screening rules, on small random problems.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2, array};
use proptest::prelude::*;
use std::ops::ControlFlow;
use tilewright_grouplasso::reference::{Reference, lambda_max};
use tilewright_grouplasso::{
    Certificate, Columns, Data, GroupLassoSolver, GroupLassoSpec, Groups, Layout, Loss, Penalty, Problem, Solution,
    SparseRows, Standardise, Start, Stopped, Stopping, Targets, Weights, certificate, geometric_path, losses,
    screening,
};

/// A problem whose data come from integer noise.
#[derive(Clone, Debug)]
struct Case {
    spec: GroupLassoSpec,
    x: Array2<f64>,
    y: Array2<f64>,
    labels: Vec<u32>,
    classes: usize,
    weights: Option<Vec<f64>>,
    share: f64,
}

impl Case {
    fn data(&self) -> Data<'_, f64> {
        let targets = match self.spec.loss {
            Loss::LeastSquares => Targets::Values(self.y.view()),
            Loss::Multinomial => Targets::Labels { labels: &self.labels, classes: self.classes },
        };
        Data { x: self.x.view(), targets, sample_weights: self.weights.as_deref() }
    }

    /// λ at the case's share of λ_max, or that share itself.
    fn at(&self, share: f64) -> GroupLassoSpec {
        let largest = lambda_max(&self.spec, &self.data()).unwrap();
        GroupLassoSpec { lambda: share * if largest.is_finite() { largest } else { 1.0 }, ..self.spec.clone() }
    }

    fn solve(&self, spec: &GroupLassoSpec, gap: f64) -> Solution {
        let stopping = Stopping { gap, ..Stopping::default() };
        Reference.solve(spec, &self.data(), &stopping, None, &mut |_| ControlFlow::Continue(())).unwrap()
    }
}

fn noise(seed: u64, shape: (usize, usize)) -> Array2<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    Array2::from_shape_simple_fn(shape, || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn groups(features: usize, kind: u8) -> Groups {
    match kind {
        0 => Groups::Rows,
        1 => Groups::Sizes((0..features.div_ceil(3)).map(|g| (features - 3 * g).min(3)).collect()),
        2 => Groups::Lists(vec![(0..features).step_by(2).collect(), (1..features).step_by(2).rev().collect()]),
        _ => Groups::Overlapping(vec![(0..features - 1).collect(), (1..features).rev().collect()]),
    }
}

fn case() -> impl Strategy<Value = Case> {
    let penalty = prop_oneof![
        2 => Just(Penalty::GroupLasso),
        1 => (0.1..0.9f64).prop_map(|tau| Penalty::SparseGroup { tau }),
        1 => (0.1..1.0f64).prop_map(|alpha| Penalty::ElasticNet { alpha }),
    ];
    let shape = (8..22usize, 3..12usize, 1..4usize, any::<u64>());
    let choices = (any::<bool>(), 0..4u8, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (shape, choices, penalty, 0.1..0.9f64).prop_map(|((n, d, c, seed), choices, penalty, share)| {
        let (multinomial, kind, intercept, centre, scale, weighted, free) = choices;
        let groups = groups(d, kind);
        let count = Layout::new(&groups, d).unwrap().groups();
        let weights = match (free && count > 1, kind) {
            // One free group of one row; the data below see to it that the problem still has a minimum.
            (true, 0) => Weights::Given((0..count).map(|g| if g == 1 { 0.0 } else { 1.0 + g as f64 / 4.0 }).collect()),
            _ => Weights::SqrtSize,
        };
        let loss = if multinomial { Loss::Multinomial } else { Loss::LeastSquares };
        let standardise = Standardise { centre, scale };
        let spec = GroupLassoSpec { loss, groups, weights, penalty, lambda: 0.0, intercept, standardise };
        let (mut x, y) = (noise(seed, (n, d)) + 0.5, noise(seed ^ 1, (n, c)));
        let classes = c + 1;
        // Every class twice, the free feature positive in one and negative in the other: the classes' ranges overlap,
        // so no unpenalised direction separates them, even weakly, and the logistic minimum is attained.
        let twice = 2 * classes;
        let labels = (0..n).map(|i| if i < twice { i % classes } else { (y[[i, 0]].abs() * 97.0) as usize % classes });
        let labels = labels.map(|class| class as u32).collect();
        for i in 0..twice {
            x[[i, 1]] = (0.25 + x[[i, 1]].abs()) * if i < classes { 1.0 } else { -1.0 };
        }
        let weights =
            weighted.then(|| (0..n).map(|i| ((i * 7) % 5) as f64 / 2.0 + f64::from(u8::from(i < twice))).collect());
        Case { spec, x, y, labels, classes, weights, share }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The certificate bounds the distance to the minimum from above, at the minimum and everywhere else.
    #[test]
    fn weak_duality(case in case(), seed in any::<u64>(), size in 0.0..1.0f64) {
        let spec = case.at(case.share);
        let best = case.solve(&spec, 1e-9);
        prop_assert_eq!(best.stopped, Stopped::Reached);
        let problem = Problem::new(&spec, &case.data()).unwrap();
        let other = best.w.to_dense() + size * noise(seed, problem.shape());
        let w = SparseRows::from_dense(other.view());
        let b = if spec.intercept { problem.response().best_intercept(problem.times(&w).view(), &best.b) } else { best.b.clone() };
        let there = certificate::certify(&problem, &w, &b).unwrap();
        let slack = 1e-9 * best.certificate.null;
        prop_assert!(there.gap() >= there.objective - best.certificate.objective - slack);
        prop_assert!(there.dual <= best.certificate.objective + slack);
    }

    /// Above λ_max nothing penalised is in, and the answer at once certain; below it something is.
    #[test]
    fn edge_of_the_empty_solution(case in case()) {
        let free = |spec: &GroupLassoSpec, w: &SparseRows| {
            let layout = Layout::new(&spec.groups, case.x.ncols()).unwrap();
            let dense = w.to_dense();
            (0..layout.groups()).filter(|&g| !layout.terms(spec, g).is_free()).all(|g| {
                layout.gather(dense.view(), g).iter().all(|w| *w == 0.0)
            })
        };
        // With a free group λ_max is as good as the fit of the null model: a gap of 10⁻¹⁰ is a gradient of 10⁻⁵.
        let margin = if case.spec.weights == Weights::SqrtSize { 1e-9 } else { 1e-4 };
        let (above, below) = (case.at(1.0 + margin), case.at(0.98));
        let empty = case.solve(&above, 1e-9);
        prop_assert!(free(&above, &empty.w));
        prop_assert_eq!(empty.stopped, Stopped::Reached);
        prop_assert!(!free(&below, &case.solve(&below, 1e-10).w));
    }

    /// Gap-safe discards only what is zero at the minimum; strong rule plus check are exact.
    #[test]
    fn screening_is_safe(case in case()) {
        let spec = case.at(case.share);
        let (best, rough) = (case.solve(&spec, 1e-11), case.solve(&spec, 1e-2));
        let problem = Problem::new(&spec, &case.data()).unwrap();
        let residual = problem.response().residual(problem.times(&rough.w).view(), &rough.b);
        let radius = screening::safe_radius(spec.loss, &rough.certificate);
        let dense = best.w.to_dense();
        for group in 0..problem.layout().groups() {
            let terms = problem.layout().terms(&spec, group);
            let mut u = problem.correlation(group, residual.view());
            for u in &mut u {
                *u *= rough.certificate.dual_scale;
            }
            if !screening::is_safe_to_keep(terms, &u, problem.size(group), radius) {
                // Rounded iterates may keep a little where the limit is zero.
                let left = problem.layout().gather(dense.view(), group);
                prop_assert!(left.iter().all(|w| w.abs() <= 1e-4), "group {group}: {left:?}");
            }
        }
    }

    #[test]
    fn paths_go_on_from_the_last_point(case in case()) {
        let largest = case.at(1.0).lambda;
        let stopping = Stopping { gap: 1e-7, ..Stopping::default() };
        let lambdas = geometric_path(largest, 0.2, 4);
        let path = Reference.solve_path(&case.spec, &case.data(), &lambdas, &stopping, &mut |_| ControlFlow::Continue(())).unwrap();
        for (lambda, point) in lambdas.iter().zip(&path) {
            prop_assert_eq!(point.stopped, Stopped::Reached);
            let alone = case.solve(&GroupLassoSpec { lambda: *lambda, ..case.spec.clone() }, 1e-7);
            let apart = (alone.certificate.objective - point.certificate.objective).abs();
            prop_assert!(apart <= 2e-7 * alone.certificate.null.max(1e-300) + 1e-12);
        }
        // Interrupted, it ends; started again from there, it is finished.
        let cut = Reference.solve_path(&case.spec, &case.data(), &lambdas, &stopping, &mut |p| {
            if p.point == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }).unwrap();
        prop_assert!(cut.len() >= 3);
    }

    /// The residual is the negative gradient of the loss; its dual function lies below it.
    #[test]
    fn losses_and_their_gradients(case in case()) {
        let problem = Problem::new(&case.spec, &case.data()).unwrap();
        let response = problem.response();
        let z = noise(3, (response.samples(), response.outputs()));
        let b = vec![0.25; response.outputs()];
        let r = response.residual(z.view(), &b);
        let h = 1e-6;
        for i in 0..response.samples() {
            for k in 0..response.outputs() {
                let moved = |by: f64| { let mut z = z.clone(); z[[i, k]] += by; response.value(z.view(), &b) };
                let slope = (moved(h) - moved(-h)) / (2.0 * h);
                prop_assert!((slope + response.omega()[i] * r[[i, k]]).abs() <= 1e-8);
                let curvature = (moved(1e-3) - 2.0 * moved(0.0) + moved(-1e-3)) / 1e-6;
                let limit = losses::smoothness(case.spec.loss) * response.omega()[i];
                prop_assert!(curvature <= limit * (1.0 + 1e-4) + 1e-8);
            }
        }
        let best = response.best_intercept(z.view(), &b);
        let left = response.column_sums(response.residual(z.view(), &best).view());
        prop_assert!(left.iter().all(|sum| sum.abs() <= 1e-14), "{left:?}");
    }
}

fn certify(spec: &GroupLassoSpec, data: &Data<'_, f64>, w: ArrayView2<'_, f64>, b: &[f64]) -> Certificate {
    certificate::certify(&Problem::new(spec, data).unwrap(), &SparseRows::from_dense(w), b).unwrap()
}

#[test]
fn softmax_rows_sum_to_zero() {
    let (x, labels) = (noise(5, (30, 8)), (0..30).map(|i| (i * i % 3) as u32).collect::<Vec<_>>());
    let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 3 }, sample_weights: None };
    let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    spec.lambda = lambda_max(&spec, &data).unwrap() / 5.0;
    let stopping = Stopping { gap: 1e-12, ..Stopping::default() };
    let best = Reference.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(best.w.indices().len() > 1);
    assert!(best.w.values().rows().into_iter().all(|row| row.sum().abs() < 1e-6));
}

/// A class nobody has: the objective's infimum, at an intercept of −∞, and every finite intercept is short of it.
#[test]
fn absent_class() {
    let x = noise(7, (20, 4));
    let labels: Vec<u32> = (0..20).map(|i| if i % 3 == 0 { 0 } else { 2 }).collect();
    let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 3 }, sample_weights: None };
    let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    spec.lambda = lambda_max(&spec, &data).unwrap() / 3.0;
    let best = Reference.solve(&spec, &data, &Stopping::default(), None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((best.stopped, best.b[1]), (Stopped::Reached, f64::NEG_INFINITY));
    assert!(best.w.values().column(1).iter().all(|w| *w == 0.0));
    let with = |b1: f64| certify(&spec, &data, best.w.to_dense().view(), &[best.b[0], b1, best.b[2]]).relative_gap();
    assert!(with(-60.0) < 2e-6 && with(-2.0) > 1e-2 && with(f64::NEG_INFINITY) < 2e-6);
    // And a class that somebody has cannot be written off.
    let certificate = certify(&spec, &data, best.w.to_dense().view(), &[f64::NEG_INFINITY, best.b[1], best.b[2]]);
    assert_eq!(certificate.gap(), f64::INFINITY);
}

/// A start at which every class but one has been given up.
#[test]
fn far_start() {
    let x = noise(21, (20, 4));
    let labels: Vec<u32> = (0..20).map(|i| i % 3).collect();
    let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 3 }, sample_weights: None };
    let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.1);
    for b in [vec![900.0, 0.0, -900.0], vec![1e300, 0.0, 0.0], vec![f64::NEG_INFINITY, 5.0, f64::INFINITY]] {
        let start = Start { w: SparseRows::zeros(4, 3), b };
        let watch = &mut |_: &_| ControlFlow::Continue(());
        let best = Reference.solve(&spec, &data, &Stopping::default(), Some(&start), watch).unwrap();
        assert_eq!(best.stopped, Stopped::Reached, "{:?}", start.b);
    }
}

/// Coefficients that have nothing to do with the problem, and logits in the hundreds: an intercept that is found only roughly
/// there must not end the search.
#[test]
fn far_coefficients() {
    for seed in 0..60 {
        let (n, d, classes) = (6, 2, 3);
        let x = noise(31 + seed, (n, d)) * 4.0;
        let labels: Vec<u32> = (0..n).map(|i| (i % (2 + seed as usize % 2)) as u32).collect();
        let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes }, sample_weights: None };
        let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
        spec.lambda = 0.1 * lambda_max(&spec, &data).unwrap();
        let w = noise(67 + seed, (d, classes)) * 200.0;
        let start = Start { w: SparseRows::from_dense(w.view()), b: noise(97 + seed, (1, classes)).row(0).to_vec() };
        let stopping = Stopping { gap: 1e-4, iterations: 2000 };
        let watch = &mut |_: &_| ControlFlow::Continue(());
        let best = Reference.solve(&spec, &data, &stopping, Some(&start), watch).unwrap();
        assert_eq!(best.stopped, Stopped::Reached, "{seed}: {:?}", best.certificate);
    }
}

/// A ridge that weighs nothing proves no less than none: at any point, and however large the columns are.
#[test]
fn a_slight_ridge_proves_as_much_as_none() {
    for (loss, size) in [(Loss::LeastSquares, 1.0), (Loss::Multinomial, 1.0), (Loss::Multinomial, 2f64.powi(265))] {
        let (x, y) = (noise(41, (12, 6)) * size, noise(43, (12, 3)));
        let labels: Vec<u32> = (0..12).map(|i| i % 3).collect();
        let targets = match loss {
            Loss::LeastSquares => Targets::Values(y.view()),
            Loss::Multinomial => Targets::Labels { labels: &labels, classes: 3 },
        };
        let data = Data { x: x.view(), targets, sample_weights: None };
        let mut without = GroupLassoSpec::rows(loss, 0.0);
        without.lambda = 0.3 * lambda_max(&without, &data).unwrap();
        let alpha = 1.0 - f64::EPSILON;
        let with = GroupLassoSpec { penalty: Penalty::ElasticNet { alpha }, ..without.clone() };
        for step in [0.0, 1e-9, 0.01] {
            let stopping = Stopping { gap: 1e-9, ..Stopping::default() };
            let best = Reference.solve(&without, &data, &stopping, None, &mut |_| ControlFlow::Continue(())).unwrap();
            let w = (best.w.to_dense() * size + noise(47, (6, 3)) * step) / size;
            let problem = Problem::new(&without, &data).unwrap();
            let z = problem.times(&SparseRows::from_dense(w.view()));
            let b = problem.response().best_intercept(z.view(), &best.b);
            let [none, slight] = [&without, &with].map(|spec| {
                let problem = Problem::new(spec, &data).unwrap();
                certificate::certify(&problem, &SparseRows::from_dense(w.view()), &b).unwrap().relative_gap()
            });
            assert!(slight <= none + 1e-12, "{loss:?}, {size:e}, {step:e}: {slight:e} with a ridge, {none:e} without");
        }
    }
}

/// A sample of weight 0 does not make a column constant, however large it is.
#[test]
fn samples_of_weight_zero_say_nothing_of_columns() {
    let standardise = Standardise { centre: true, scale: true };
    let with = Columns::of(standardise, array![[1.0, 3.7], [2.0, 3.7], [1e80, 0.0]].view(), &[0.5, 0.5, 0.0]);
    assert_eq!((with.mean, with.scale), (vec![1.5, 3.7], vec![0.5, 1.0]));
}

#[test]
fn one_class_only_is_solved_by_the_intercept() {
    let (x, labels) = (noise(9, (10, 3)), vec![1u32; 10]);
    let data = Data { x: x.view(), targets: Targets::Labels { labels: &labels, classes: 3 }, sample_weights: None };
    let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.1);
    let best = Reference.solve(&spec, &data, &Stopping::default(), None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((best.stopped, best.certificate.objective, best.iterations), (Stopped::Reached, 0.0, 0));
    assert_eq!((best.b[0], best.b[2]), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    assert!(best.b[1].abs() < 1e-15);
}

/// λ = 0: least squares, certified; more features than samples, and the gap still closes.
#[test]
fn no_penalty() {
    for d in [4, 30] {
        let (x, y) = (noise(11, (12, d)), noise(13, (12, 2)));
        let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
        let best = Reference
            .solve(&GroupLassoSpec::rows(Loss::LeastSquares, 0.0), &data, &Stopping::default(), None, &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(best.stopped, Stopped::Reached, "{d}: {:?}", best.certificate);
    }
}

/// Raw columns say the same as standardised ones.
#[test]
fn raw_columns() {
    let (x, y) = (noise(17, (25, 5)) * 3.0 + 2.0, noise(19, (25, 2)));
    let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
    let spec = GroupLassoSpec {
        standardise: Standardise { centre: true, scale: true },
        groups: Groups::Overlapping(vec![vec![0, 1, 2], vec![2, 3], vec![4, 1]]),
        ..GroupLassoSpec::rows(Loss::LeastSquares, 0.01)
    };
    let best = Reference.solve(&spec, &data, &Stopping::default(), None, &mut |_| ControlFlow::Continue(())).unwrap();
    let problem = Problem::new(&spec, &data).unwrap();
    let (w, b) = best.on_raw_columns(problem.layout());
    let (inside, outside) = (problem.times(&best.w), x.dot(&w.to_dense()));
    for ((i, k), z) in inside.indexed_iter() {
        assert!((z + best.b[k] - outside[[i, k]] - b[k]).abs() < 1e-12);
    }
}
