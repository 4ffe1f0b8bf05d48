//! The CPU solver against the certificate and the reference of the core, on problems of every kind.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2, ShapeBuilder};
use proptest::prelude::*;
use std::ops::ControlFlow;
use tilewright_cpu::CpuGroupLasso;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Groups, Keep, Layout, Loss, Penalty, Problem,
    Progress, Prox, Selection, Solution, SparseRows, Standardise, Start, Stopped, Stopping, Targets, Weights, bf16,
    certificate, f16, geometric_path,
};

/// A problem, with the data it is about.
#[derive(Clone)]
struct Case {
    /// What it was made of, short enough to print.
    name: String,
    spec: GroupLassoSpec,
    x: Array2<f64>,
    values: Array2<f64>,
    labels: Vec<u32>,
    omega: Option<Vec<f64>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name, self.spec)
    }
}

impl Case {
    fn targets(&self) -> Targets<'_> {
        match self.spec.loss {
            Loss::LeastSquares => Targets::Values(self.values.view()),
            Loss::Multinomial => Targets::Labels { labels: &self.labels, classes: self.values.ncols() },
        }
    }

    fn data(&self) -> Data<'_, f64> {
        self.data_of(self.x.view())
    }

    fn data_of<'a, T>(&'a self, x: ArrayView2<'a, T>) -> Data<'a, T> {
        Data { x, targets: self.targets(), sample_weights: self.omega.as_deref() }
    }

    /// λ as a share of the least one at which all is zero.
    fn at(mut self, share: f64) -> Self {
        let unit = GroupLassoSpec { lambda: 1.0, ..self.spec.clone() };
        let largest = CpuGroupLasso.lambda_max(&unit, &self.data()).unwrap();
        // Where free groups explain everything the least λ is rounding.
        self.spec.lambda = if largest.is_finite() && largest > 1e-9 { share * largest } else { share };
        self
    }

    fn solve(&self, gap: f64) -> Solution {
        solve(&self.spec, &self.data(), gap)
    }

    /// The core's opinion of an answer.
    fn certify(&self, answer: &Solution) -> certificate::Certificate {
        let problem = Problem::new(&self.spec, &self.data()).unwrap();
        certificate::certify(&problem, &answer.w, &answer.b).unwrap()
    }
}

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn solve<T: Element>(spec: &GroupLassoSpec, data: &Data<'_, T>, gap: f64) -> Solution
where
    CpuGroupLasso: GroupLassoSolver<T>,
{
    CpuGroupLasso.solve(spec, data, &Stopping { gap, iterations: 1000 }, None, &mut go_on).unwrap()
}

/// Noise from −1 to 1.
fn noise(seed: u64, i: usize) -> f64 {
    let mut z = (seed ^ 0x5851_f42d_4c95_7f2d).wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Correlated columns, some of them far from zero, one of them constant; targets that depend on a few of them.
fn case(n: usize, d: usize, c: usize, seed: u64, spec: GroupLassoSpec, weighted: bool) -> Case {
    let x = Array2::from_shape_fn((n, d), |(i, j)| {
        if d > 4 && j == d / 2 {
            return 0.75;
        }
        let own = noise(seed, i * d + j);
        let shared = noise(seed ^ 0x4d, i * 3 + j % 3);
        0.6 * shared + own + if j % 4 == 0 { 3.0 } else { 0.0 }
    });
    let signal = |i: usize, k: usize| {
        let part = |j: usize| x[[i, j * 7 % d]] * noise(seed ^ 5, j * c + k);
        (0..d.min(4)).map(part).sum::<f64>() + 0.3 * noise(seed ^ 9, i * c + k)
    };
    let values = Array2::from_shape_fn((n, c), |(i, k)| signal(i, k) + 2.0);
    let best = |i: usize| (0..c).max_by(|&a, &b| values[[i, a]].total_cmp(&values[[i, b]])).unwrap() as u32;
    let labels = (0..n).map(|i| if i < c { i as u32 } else { best(i) }).collect();
    let omega = weighted.then(|| (0..n).map(|i| if i == n - 1 { 0.0 } else { 1.5 + noise(seed ^ 3, i) }).collect());
    Case { name: format!("case({n}, {d}, {c}, {seed}, .., {weighted})"), spec, x, values, labels, omega }
}

fn groups(kind: usize, d: usize) -> Groups {
    let lists = |step: usize| (0..step).map(|g| (g..d).step_by(step).rev().collect()).collect::<Vec<Vec<usize>>>();
    match kind {
        0 => Groups::Rows,
        1 => Groups::Sizes((0..d).step_by(3).map(|first| 3.min(d - first)).collect()),
        2 => Groups::Lists(lists(d.div_ceil(4))),
        _ => {
            let window = |first: usize| (first..d.min(first + 3)).collect();
            Groups::Overlapping((0..d).step_by(2).map(window).collect())
        }
    }
}

prop_compose! {
    fn specs()(
        multinomial: bool,
        kind in 0usize..4,
        penalty in 0usize..5,
        weights in 0usize..3,
        intercept: bool,
        centre: bool,
        scale: bool,
    ) -> (usize, usize, GroupLassoSpec) {
        let loss = if multinomial { Loss::Multinomial } else { Loss::LeastSquares };
        let penalty = match penalty {
            0 | 1 => Penalty::GroupLasso,
            2 => Penalty::SparseGroup { tau: 0.3 },
            3 => Penalty::SparseGroup { tau: 1.0 },
            _ => Penalty::ElasticNet { alpha: 0.7 },
        };
        let standardise = Standardise { centre, scale };
        (kind, weights, GroupLassoSpec { penalty, intercept, standardise, ..GroupLassoSpec::rows(loss, 0.0) })
    }
}

prop_compose! {
    fn cases()(
        (kind, weights, spec) in specs(),
        n in 4usize..40,
        d in 1usize..60,
        c in 1usize..5,
        seed: u64,
        weighted: bool,
    ) -> Case {
        let groups = groups(kind, d);
        let count = Layout::new(&groups, d).unwrap().groups();
        let weights = match weights {
            0 => Weights::SqrtSize,
            1 => Weights::Ones,
            // Some light, some heavy; some free, unless that makes so few samples separable.
            _ => {
                let least = if spec.loss == Loss::Multinomial { 0.1 } else { 0.0 };
                Weights::Given((0..count).map(|g| if g == 1 { least } else { 0.5 + (g % 3) as f64 }).collect())
            }
        };
        let c = if spec.loss == Loss::Multinomial { c.max(2) } else { c };
        case(n.max(c + 1), d, c, seed, GroupLassoSpec { groups, weights, ..spec }, weighted)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every answer is as good as it says, by the core's certificate, and that is good enough.
    #[test]
    fn answers_are_certified(case in cases(), share in 0.03..0.9f64) {
        let case = case.at(share);
        let answer = case.solve(1e-7);
        prop_assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
        let proof = case.certify(&answer);
        prop_assert!(proof.relative_gap() <= 1.1e-7, "{proof:?} {:?}", answer.certificate);
        prop_assert!((proof.objective - answer.certificate.objective).abs() <= 1e-10 * proof.null);
        prop_assert_eq!(proof.active, answer.certificate.active);
    }

    /// A path is the same as its points one by one, to within the gaps.
    #[test]
    fn paths_are_their_points(case in cases()) {
        let case = case.at(1.0);
        let lambdas = geometric_path(case.spec.lambda, 0.1, 6);
        let stopping = Stopping { gap: 1e-7, iterations: 1000 };
        let path = CpuGroupLasso.solve_path(&case.spec, &case.data(), &lambdas, &stopping, &mut go_on).unwrap();
        prop_assert_eq!(path.len(), 6);
        for (lambda, answer) in lambdas.into_iter().zip(path) {
            let point = Case { spec: GroupLassoSpec { lambda, ..case.spec.clone() }, ..case.clone() };
            let proof = point.certify(&answer);
            prop_assert!(proof.relative_gap() <= 1.1e-7, "{lambda}: {proof:?} {}", answer.stopped);
            let single = point.solve(1e-7).certificate;
            prop_assert!((single.objective - proof.objective).abs() <= 2.2e-7 * proof.null);
        }
    }

    /// Interrupted anywhere, an answer is valid, and the work goes on from it.
    #[test]
    fn interruptions_can_be_resumed(case in cases(), after in 1usize..4) {
        let case = case.at(0.1);
        let mut seen = 0;
        let mut watch = |_: &Progress| {
            seen += 1;
            if seen >= after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopping = Stopping { gap: 1e-7, iterations: 1000 };
        let part = CpuGroupLasso.solve(&case.spec, &case.data(), &stopping, None, &mut watch).unwrap();
        prop_assert!(part.stopped == Stopped::Reached || (part.stopped == Stopped::Interrupted && seen == after));
        let claimed = part.certificate.relative_gap();
        prop_assert!((case.certify(&part).relative_gap() - claimed).abs() <= 1e-9 * (1.0 + claimed.abs()));
        let whole =
            CpuGroupLasso.solve(&case.spec, &case.data(), &stopping, Some(&part.start()), &mut go_on).unwrap();
        prop_assert!(case.certify(&whole).relative_gap() <= 1.1e-7);
    }

    /// The same bits for 1, 2, 3 and 8 threads.
    #[test]
    fn threads_change_no_bit(case in cases(), share in 0.05..0.5f64) {
        let case = case.at(share);
        let mut answers = [1, 2, 3, 8].into_iter().map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            bits(&pool.install(|| case.solve(1e-6)))
        });
        let first = answers.next().unwrap();
        prop_assert!(answers.all(|answer| answer == first));
    }

    /// Where columns lie in memory, and in what format, does not matter beyond the format's rounding.
    #[test]
    fn strides_and_formats(case in cases()) {
        let case = case.at(0.2);
        let mut columns = Array2::zeros(case.x.raw_dim().f());
        columns.assign(&case.x);
        prop_assert_eq!(bits(&case.solve(1e-6)), bits(&solve(&case.spec, &case.data_of(columns.view()), 1e-6)));
        prop_assert!(is_good_in::<f32>(&case) && is_good_in::<f16>(&case) && is_good_in::<bf16>(&case));
    }

    /// Units of measurement change nothing but the units.
    #[test]
    fn scales(case in cases(), x_power in -250i32..250, y_power in -250i32..250) {
        // A ridge has a unit of its own.
        let ridge = matches!(case.spec.penalty, Penalty::ElasticNet { .. });
        let penalty = if ridge { Penalty::GroupLasso } else { case.spec.penalty };
        let plain = GroupLassoSpec { loss: Loss::LeastSquares, standardise: Standardise::default(), penalty, ..case.spec.clone() };
        let case = Case { spec: plain, ..case }.at(0.2);
        let (x_unit, y_unit) = (2f64.powi(x_power), 2f64.powi(y_power));
        let lambda = case.spec.lambda * x_unit * y_unit;
        let spec = GroupLassoSpec { lambda, ..case.spec.clone() };
        let scaled = Case { spec, x: &case.x * x_unit, values: &case.values * y_unit, ..case.clone() };
        let (plain, scaled) = (case.solve(1e-7), scaled.solve(1e-7));
        prop_assert_eq!(scaled.stopped, Stopped::Reached);
        prop_assert_eq!(plain.w.indices(), scaled.w.indices());
        let difference = &plain.w.values() - &(&scaled.w.values() * (x_unit / y_unit));
        prop_assert!(difference.iter().all(|x| x.abs() <= 1e-9 * (1.0 + plain.w.values().iter().fold(0.0, |m: f64, x| m.max(x.abs())))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn lambda_max_is_the_cores(case in cases()) {
        let ours = CpuGroupLasso.lambda_max(&case.spec, &case.data()).unwrap();
        if let Ok(theirs) = Problem::new(&case.spec, &case.data()).unwrap().lambda_max() {
            prop_assert!(ours == theirs || (ours - theirs).abs() <= 1e-12 * theirs, "{ours} {theirs}");
        }
        let ridge = GroupLassoSpec { penalty: Penalty::ElasticNet { alpha: 0.0 }, ..case.spec.clone() };
        let ridge = GroupLassoSpec { weights: Weights::Ones, ..ridge };
        prop_assert_eq!(CpuGroupLasso.lambda_max(&ridge, &case.data()).unwrap(), f64::INFINITY);
    }

    /// The reference finds the same minimum.
    #[test]
    fn agrees_with_the_reference(case in cases(), share in 0.2..0.8f64) {
        if case.x.len() > 600 {
            return Ok(()); // the reference takes its time
        }
        let case = case.at(share);
        let stopping = Stopping { gap: 1e-6, iterations: 5000 };
        let reference = Reference.solve(&case.spec, &case.data(), &stopping, None, &mut go_on).unwrap();
        let answer = case.solve(1e-8).certificate;
        prop_assert!(answer.objective <= reference.certificate.objective + 1e-8 * answer.null);
        prop_assert!(answer.objective >= reference.certificate.dual - 1e-9 * answer.null);
    }
}

fn bits(answer: &Solution) -> (Vec<usize>, Vec<u64>, Vec<u64>, usize) {
    let all = |values: &mut dyn Iterator<Item = &f64>| values.map(|x| x.to_bits()).collect();
    (answer.w.indices().to_vec(), all(&mut answer.w.values().iter()), all(&mut answer.b.iter()), answer.iterations)
}

/// Whether the answer for rounded features is certified as that problem's.
fn is_good_in<T: Element>(case: &Case) -> bool
where
    CpuGroupLasso: GroupLassoSolver<T>,
{
    let x = case.x.map(|x| T::from_f64(*x));
    let data = case.data_of(x.view());
    let answer = solve(&case.spec, &data, 1e-6);
    let problem = Problem::new(&case.spec, &data).unwrap();
    certificate::certify(&problem, &answer.w, &answer.b).unwrap().relative_gap() <= 1.1e-6
}

/// The machine's own size: several blocks, pieces and tiles of everything.
#[test]
fn larger_problems_in_threads() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let case = case(1300, 2500, 12, 5, GroupLassoSpec::rows(loss, 0.0), true).at(0.3);
        let answers = [1, 2, 3, 8].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| case.solve(1e-6))
        });
        assert_eq!(answers[0].stopped, Stopped::Reached);
        assert!(answers.iter().all(|answer| bits(answer) == bits(&answers[0])));
    }
}

#[test]
fn nothing_is_kept_from_lambda_max_on() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let case = case(30, 50, 3, 1, GroupLassoSpec::rows(loss, 0.0), false);
        let (all, almost) = (case.clone().at(1.0).solve(1e-9), case.at(0.97).solve(1e-9));
        assert_eq!((all.certificate.active, all.iterations, all.stopped), (0, 0, Stopped::Reached));
        assert!((1..4).contains(&almost.certificate.active));
    }
}

#[test]
fn without_a_penalty_least_squares_is_least_squares() {
    let case = case(40, 6, 2, 3, GroupLassoSpec::rows(Loss::LeastSquares, 0.0), false);
    let answer = case.solve(1e-9);
    assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
    let z = Problem::new(&case.spec, &case.data()).unwrap().times(&answer.w);
    let residual = &case.values - &z - &Array2::from_shape_fn(case.values.raw_dim(), |(_, k)| answer.b[k]);
    assert!(case.x.t().dot(&residual).iter().all(|u| u.abs() < 1e-5));
}

#[test]
fn wide_problems_without_a_penalty_are_interpolated() {
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.0);
    let answer = case(20, 90, 2, 3, spec, false).solve(1e-6);
    assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
}

#[test]
fn ridge_regression() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let spec = GroupLassoSpec { penalty: Penalty::ElasticNet { alpha: 0.0 }, ..GroupLassoSpec::rows(loss, 0.3) };
        let case = case(25, 70, 3, 3, spec, false);
        let answer = case.solve(1e-9);
        assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
        assert!(case.certify(&answer).relative_gap() <= 1.1e-9);
    }
}

#[test]
fn zero_columns_absent_classes_and_one_sample() {
    let spec = GroupLassoSpec { lambda: 0.01, ..GroupLassoSpec::rows(Loss::Multinomial, 0.01) };
    let mut case = case(20, 8, 4, 3, spec, false);
    case.x.column_mut(2).fill(0.0);
    case.labels.iter_mut().for_each(|label| *label = if *label == 1 { 0 } else { *label });
    let answer = case.solve(1e-7);
    assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
    assert_eq!(answer.b[1], f64::NEG_INFINITY);
    assert!(answer.w.values().column(1).iter().all(|w| *w == 0.0) && !answer.w.indices().contains(&2));
    assert!(case.certify(&answer).relative_gap() <= 1.1e-7);

    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let one = Case { spec: GroupLassoSpec::rows(loss, 0.1), ..self::case(1, 3, 2, 1, spec_of(loss), false) };
        assert_eq!(one.solve(1e-9).stopped, Stopped::Reached);
        let all_zero = Case { x: Array2::zeros((1, 3)), ..one };
        assert_eq!(all_zero.solve(1e-9).certificate.active, 0);
    }
}

/// Coefficients that have nothing to do with the problem, and logits in the hundreds.
#[test]
fn far_starts() {
    for seed in 0..100 {
        let classes = 2 + seed as usize % 3;
        let case = case(12, 6, 3.max(classes), seed, GroupLassoSpec::rows(Loss::Multinomial, 0.02), seed % 4 == 1);
        let w = Array2::from_shape_fn((6, 3.max(classes)), |(j, k)| 200.0 * noise(seed ^ 0x33, j * 5 + k));
        let b = (0..3.max(classes)).map(|k| 10.0 * noise(seed ^ 0x35, k)).collect();
        let start = Start { w: SparseRows::from_dense(w.view()), b };
        let stopping = Stopping { gap: 1e-6, iterations: 300 };
        let answer = CpuGroupLasso.solve(&case.spec, &case.data(), &stopping, Some(&start), &mut go_on).unwrap();
        assert_eq!(answer.stopped, Stopped::Reached, "{seed}: {:?}", answer.certificate);
    }
}

/// A sample of weight 0 does not make a column constant, however large it is.
#[test]
fn samples_of_weight_zero_say_nothing_of_columns() {
    for intercept in [true, false] {
        let standardise = Standardise { centre: intercept, scale: true };
        let spec = GroupLassoSpec { standardise, intercept, ..GroupLassoSpec::rows(Loss::LeastSquares, 0.1) };
        let mut case = case(9, 5, 2, 7, spec, true);
        case.x.row_mut(8).fill(1e80);
        let expected = Problem::new(&case.spec, &case.data()).unwrap().columns().clone();
        assert!(expected.scale.iter().filter(|scale| **scale == 1.0).count() == 1);
        let columns = case.solve(1e-6).columns;
        for (got, expected) in columns.scale.iter().zip(&expected.scale) {
            assert!((got - expected).abs() <= 1e-14 * expected, "{got} {expected}");
        }
    }
}

#[test]
fn nothing_to_choose_from() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let none = Case { x: Array2::zeros((9, 0)), ..case(9, 1, 3, 1, spec_of(loss), false) };
        let answer = none.solve(1e-9);
        assert_eq!((answer.stopped, answer.w.rows()), (Stopped::Reached, 0));
        assert_eq!(CpuGroupLasso.lambda_max(&none.spec, &none.data()).unwrap(), 0.0);
    }
    // One class, or targets that the intercept explains.
    let mut one = case(9, 5, 3, 1, spec_of(Loss::Multinomial), false);
    one.labels.fill(2);
    assert_eq!(one.solve(1e-9).certificate.objective, 0.0);
    let mut constant = case(9, 5, 3, 1, spec_of(Loss::LeastSquares), false);
    constant.values.fill(4.0);
    assert_eq!(constant.solve(1e-9).certificate.active, 0);
}

fn spec_of(loss: Loss) -> GroupLassoSpec {
    GroupLassoSpec::rows(loss, 0.1)
}

#[test]
fn free_groups_of_a_multinomial_problem() {
    let mut weights = vec![1.0; 40];
    weights[7..10].fill(0.0);
    let spec = GroupLassoSpec { weights: Weights::Given(weights), ..spec_of(Loss::Multinomial) };
    let case = case(300, 40, 3, 6, spec, true);
    let (all, some) = (case.clone().at(1.0).solve(1e-8), case.at(0.2).solve(1e-8));
    assert_eq!((all.w.indices(), all.stopped), (&[7, 8, 9][..], Stopped::Reached), "{:?}", all.certificate);
    assert!(some.certificate.active > 3 && some.stopped == Stopped::Reached, "{:?}", some.certificate);
}

/// At the minimum every row's classes sum to zero: the likelihood does not see a shift, the penalty does.
#[test]
fn classes_sum_to_zero() {
    let answer = case(60, 90, 5, 8, spec_of(Loss::Multinomial), false).at(0.1).solve(1e-8);
    assert!(answer.certificate.active > 3);
    assert!(answer.w.values().rows().into_iter().all(|row| row.sum().abs() < 1e-6));
}

#[test]
fn high_accuracy() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let answer = case(60, 90, 5, 8, spec_of(loss), false).at(0.1).solve(1e-11);
        assert_eq!(answer.stopped, Stopped::Reached, "{:?}", answer.certificate);
    }
}

#[test]
fn more_than_arithmetic_can_do_ends() {
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let answer = case(30, 60, 3, 8, spec_of(loss), false).at(0.1).solve(1e-18);
        assert!(answer.stopped == Stopped::Stalled || answer.stopped == Stopped::Reached);
        assert!(answer.certificate.relative_gap() < 1e-12, "{:?}", answer.certificate);
    }
}

#[test]
fn iterations_are_counted() {
    let case = case(60, 90, 5, 8, spec_of(Loss::Multinomial), false).at(0.05);
    let with = |iterations| {
        let stopping = Stopping { gap: 1e-9, iterations };
        CpuGroupLasso.solve(&case.spec, &case.data(), &stopping, None, &mut go_on).unwrap()
    };
    let (none, two) = (with(0), with(2));
    assert_eq!((none.iterations, none.stopped, none.certificate.active), (0, Stopped::Iterations, 0));
    assert_eq!((two.iterations, two.stopped), (2, Stopped::Iterations));
}

#[test]
fn bad_input_is_an_error() {
    let good = case(10, 6, 2, 1, spec_of(Loss::LeastSquares), false);
    let refused = |case: &Case| {
        CpuGroupLasso.solve(&case.spec, &case.data(), &Stopping::default(), None, &mut go_on).unwrap_err()
    };
    let mut case = good.clone();
    case.x[[3, 4]] = f64::NAN;
    assert_eq!(refused(&case).to_string(), Problem::new(&case.spec, &case.data()).unwrap_err().to_string());
    case.x[[3, 4]] = 1e200;
    case.x[[9, 5]] = f64::INFINITY;
    assert_eq!(refused(&case).to_string(), Problem::new(&case.spec, &case.data()).unwrap_err().to_string());
    let mut case = good.clone();
    case.values[[0, 0]] = f64::INFINITY;
    assert!(matches!(refused(&case), GroupLassoError::Value { argument: "y", .. }));
    let mut case = good.clone();
    case.spec.lambda = -1.0;
    assert!(matches!(refused(&case), GroupLassoError::Spec { field: "lambda", .. }));
    let stopping = Stopping { gap: 0.0, ..Stopping::default() };
    assert!(CpuGroupLasso.solve(&good.spec, &good.data(), &stopping, None, &mut go_on).is_err());
    let start = Start { w: SparseRows::zeros(5, 2), b: vec![0.0; 2] };
    let start = CpuGroupLasso.solve(&good.spec, &good.data(), &Stopping::default(), Some(&start), &mut go_on);
    assert!(matches!(start, Err(GroupLassoError::Shape { argument: "start", .. })));
    let path = CpuGroupLasso.solve_path(&good.spec, &good.data(), &[1.0, f64::NAN], &Stopping::default(), &mut go_on);
    assert!(matches!(path, Err(GroupLassoError::Spec { field: "lambda", .. })));
}

proptest! {
    #[test]
    fn prox_and_selection_are_the_references((kind, _, spec) in specs(), d in 1usize..200, seed: u64, keep in 1usize..9) {
        let spec = GroupLassoSpec { groups: groups(kind, d), lambda: 0.7, ..spec };
        let rows = Layout::new(&spec.groups, d).unwrap().rows();
        let w = Array2::from_shape_fn((rows, 3), |(i, k)| noise(seed, 3 * i + k) as f32 * 3.0);
        let (mut ours, mut theirs) = (w.clone(), w.clone());
        CpuGroupLasso.prox(&spec, 0.5, ours.view_mut()).unwrap();
        Reference.prox(&spec, 0.5, theirs.view_mut()).unwrap();
        prop_assert_eq!(&ours, &theirs);
        let scores = CpuGroupLasso.scores(ours.view()).unwrap();
        prop_assert_eq!(&scores, &Reference.scores(ours.view()).unwrap());
        let keep = Keep::Features(keep);
        let ours = Selection::<f32>::select(&CpuGroupLasso, &scores, keep).unwrap();
        prop_assert_eq!(ours, Selection::<f32>::select(&Reference, &scores, keep).unwrap());
    }
}
