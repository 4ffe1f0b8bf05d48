//! Group lasso on the device: the bits of the CPU for proximal operators, scores and selections; certified answers.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, device, fault};
use ndarray::{Array2, ShapeBuilder};
use std::ops::ControlFlow;
use tilewright_cpu::CpuGroupLasso;
use tilewright_cuda::CudaGroupLasso;
use tilewright_grouplasso::certificate::certify;
use tilewright_grouplasso::{
    Data, Element, GroupLassoSolver, GroupLassoSpec, Groups, Keep, Loss, Penalty, Problem, Prox, Selection,
    Standardise, Start, Stopped, Stopping, Targets, Weights, bf16, f16,
};

const PENALTIES: [Penalty; 6] = [
    Penalty::GroupLasso,
    Penalty::SparseGroup { tau: 0.0 },
    Penalty::SparseGroup { tau: 0.3 },
    Penalty::SparseGroup { tau: 1.0 },
    Penalty::ElasticNet { alpha: 0.4 },
    Penalty::ElasticNet { alpha: 0.0 },
];

/// Every shape of groups over `features` features.
fn shapes(features: usize, random: &mut Random) -> [Groups; 4] {
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < features {
        sizes.push(1 + random.below((features - sizes.iter().sum::<usize>()).min(7)));
    }
    let mut order: Vec<usize> = (0..features).collect();
    for i in (1..features).rev() {
        order.swap(i, random.below(i + 1));
    }
    let mut rest = &*order;
    let mut lists: Vec<Vec<usize>> = Vec::new();
    for size in &sizes {
        let (list, others) = rest.split_at(*size);
        lists.push(list.to_vec());
        rest = others;
    }
    let mut overlapping = lists.clone();
    for list in &mut overlapping {
        let extra = random.below(features);
        if !list.contains(&extra) {
            list.push(extra);
        }
    }
    [Groups::Rows, Groups::Sizes(sizes), Groups::Lists(lists), Groups::Overlapping(overlapping)]
}

fn rows(groups: &Groups, features: usize) -> usize {
    match groups {
        Groups::Overlapping(lists) => lists.iter().map(Vec::len).sum(),
        _ => features,
    }
}

fn number_of_groups(groups: &Groups, features: usize) -> usize {
    match groups {
        Groups::Rows => features,
        Groups::Sizes(sizes) => sizes.len(),
        Groups::Lists(lists) | Groups::Overlapping(lists) => lists.len(),
    }
}

/// What blocks can hold: numbers near 1, huge and tiny ones, zeros, and what is no number.
fn oddity(kind: usize, random: &mut Random) -> f64 {
    let unit = random.unit();
    match kind {
        0 => unit,
        1 => unit * 1e200,
        2 => unit * 1e-200,
        3 => f64::from_bits(random.next() & 0x8000_0000_0000_ffff),
        4 => [0.0, -0.0, unit][random.below(3)],
        5 if random.below(9) == 0 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][random.below(3)],
        _ => [0.5, -0.25, 1.0][random.below(3)],
    }
}

/// Bits, with all NaNs as one.
fn bits<T: Element>(values: impl IntoIterator<Item = T>) -> Vec<u64> {
    let one = |x: T| if x.to_f64().is_nan() { f64::NAN.to_bits() } else { x.to_bits64() };
    values.into_iter().map(one).collect()
}

fn prox_in<T: Element>(cuda: &CudaGroupLasso, seed: u64) {
    let mut random = Random(seed);
    let mut cases = 0;
    for penalty in PENALTIES {
        let features = 1 + random.below(40);
        for groups in shapes(features, &mut random) {
            let (rows, count) = (rows(&groups, features), number_of_groups(&groups, features));
            let outputs = random.below(6);
            let weights = match random.below(3) {
                0 => Weights::SqrtSize,
                1 => Weights::Ones,
                _ => Weights::Given((0..count).map(|_| [0.0, 0.5, 2.0][random.below(3)]).collect()),
            };
            let kind = random.below(7);
            let base = GroupLassoSpec::rows(Loss::Multinomial, [0.0, 0.2, 1.0][random.below(3)]);
            let spec = GroupLassoSpec { groups, weights, penalty, ..base };
            // Columns first, and rows first: the view says which.
            let shape = (rows, outputs).set_f(random.below(2) == 0);
            let w = Array2::from_shape_simple_fn(shape, || T::from_f64(oddity(kind, &mut random)));
            let step = [1.0, 0.3, 1e-9][random.below(3)];
            let (mut expected, mut got) = (w.clone(), w.clone());
            let answer = CpuGroupLasso.prox(&spec, step, expected.view_mut());
            assert_eq!(cuda.prox(&spec, step, got.view_mut()), answer, "{}", fault());
            assert_eq!(bits(got), bits(expected), "{spec:?} kind {kind} step {step}");

            let scores = |method: &dyn Selection<T>| bits(method.scores(w.view()).unwrap());
            assert_eq!(scores(cuda), scores(&CpuGroupLasso), "kind {kind}");
            cases += 1;
        }
    }
    assert_eq!(cases, 24);
}

#[test]
fn prox_and_scores_have_the_bits_of_the_cpu() {
    let Some(turn) = device() else { return };
    let cuda = CudaGroupLasso::new(&turn.device).unwrap();
    for seed in 0..3 {
        prox_in::<f64>(&cuda, seed);
        prox_in::<f32>(&cuda, seed + 10);
    }
    prox_in::<f16>(&cuda, 20);
    prox_in::<bf16>(&cuda, 30);
}

#[test]
fn prox_refuses_what_the_cpu_refuses() {
    let Some(turn) = device() else { return };
    let cuda = CudaGroupLasso::new(&turn.device).unwrap();
    let spec = GroupLassoSpec { groups: Groups::Sizes(vec![2, 2]), ..GroupLassoSpec::rows(Loss::LeastSquares, 0.1) };
    for (rows, step) in [(4, 0.0), (4, f64::NAN), (5, 1.0), (0, 1.0)] {
        let mut w = Array2::<f32>::ones((rows, 2));
        let got = cuda.prox(&spec, step, w.view_mut());
        assert!(got.is_err());
        assert_eq!(got, CpuGroupLasso.prox(&spec, step, w.view_mut()));
        assert_eq!(w, Array2::<f32>::ones((rows, 2)));
    }
}

#[test]
fn the_greatest_scores_are_kept() {
    let Some(turn) = device() else { return };
    let cuda = CudaGroupLasso::new(&turn.device).unwrap();
    let mut random = Random(5);
    for n in [1usize, 2, 31, 4096, 4097] {
        for kind in 0..4 {
            let score = |random: &mut Random| match kind {
                0 => random.unit().abs(),
                1 => [0.0, -0.0, 1.0, 2.0][random.below(4)],
                2 => f64::from_bits(random.next() >> 12),
                _ => [f64::INFINITY, -1.0, 3.0, f64::NEG_INFINITY, 5e-324][random.below(5)],
            };
            let wide: Vec<f64> = (0..n).map(|_| score(&mut random)).collect();
            let narrow: Vec<f32> = wide.iter().map(|s| *s as f32).collect();
            for keep in [Keep::Fraction(0.01), Keep::Fraction(1.0), Keep::Features(1 + random.below(n))] {
                let select = |method: &dyn Selection<f64>| method.select(&wide, keep).unwrap();
                assert_eq!(select(&cuda), select(&CpuGroupLasso), "{n} {kind} {keep:?} {}", fault());
                let select = |method: &dyn Selection<bf16>| method.select(&narrow, keep).unwrap();
                assert_eq!(select(&cuda), select(&CpuGroupLasso), "{n} {kind} {keep:?}");
            }
        }
    }
    let error = |method: &dyn Selection<f64>, keep| method.select(&[1.0, f64::NAN], keep).unwrap_err();
    for keep in [Keep::Features(1), Keep::Features(0), Keep::Fraction(2.0)] {
        assert_eq!(error(&cuda, keep), error(&CpuGroupLasso, keep));
    }
}

/// The certificate that the device's products give is the one of the definition, and the answer is the CPU's.
fn solve_in<T: Element>(cuda: &CudaGroupLasso, loss: Loss, seed: u64)
where
    CpuGroupLasso: GroupLassoSolver<T>,
{
    let mut random = Random(seed);
    let (samples, features, outputs) = (20 + random.below(20), 9, 3);
    for groups in shapes(features, &mut random) {
        let x = Array2::from_shape_simple_fn((samples, features), || T::from_f64(random.unit() + 0.3));
        let truth = |i: usize, k: usize| x[[i, 2]].to_f64() * (k as f64 - 0.7) - x[[i, 7]].to_f64() * k as f64;
        let y = Array2::from_shape_fn((samples, outputs), |(i, k)| truth(i, k));
        let labels: Vec<u32> =
            (0..samples).map(|i| u32::from(truth(i, 1) > 0.0) + u32::from(truth(i, 2) > 0.4)).collect();
        let weights: Vec<f64> = (0..samples).map(|_| random.unit().abs() + 0.1).collect();
        let targets = match loss {
            Loss::LeastSquares => Targets::Values(y.view()),
            Loss::Multinomial => Targets::Labels { labels: &labels, classes: outputs },
        };
        let data = Data { x: x.view(), targets, sample_weights: Some(&weights) };
        let scale = random.below(2) == 0;
        let spec = GroupLassoSpec {
            groups,
            penalty: PENALTIES[[0, 2, 4][random.below(3)]],
            standardise: Standardise { centre: scale, scale },
            intercept: random.below(4) > 0,
            ..GroupLassoSpec::rows(loss, 0.02)
        };
        let stopping = Stopping { gap: 1e-6, iterations: 3000 };
        let watch = &mut |_: &_| ControlFlow::Continue(());
        let answer = cuda.solve(&spec, &data, &stopping, None, watch);
        let answer = answer.unwrap_or_else(|error| panic!("{error} {}", fault()));
        assert_eq!(answer.stopped, Stopped::Reached, "{spec:?}: {:?}", answer.certificate);
        let problem = Problem::new(&spec, &data).unwrap();
        let defined = certify(&problem, &answer.w, &answer.b).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-10 * (1.0 + a.abs());
        assert!(close(answer.certificate.objective, defined.objective), "{spec:?}");
        assert!(close(answer.certificate.dual, defined.dual), "{spec:?}");
        let cpu = CpuGroupLasso.solve(&spec, &data, &stopping, None, watch).unwrap();
        let apart = (answer.certificate.objective - cpu.certificate.objective).abs();
        assert!(apart <= 1e-6 * defined.null, "{spec:?}: {apart}");

        // From the answer there is nothing left to do.
        let Start { w, b } = answer.start();
        let again = cuda.solve(&spec, &data, &stopping, Some(&Start { w, b }), watch).unwrap();
        assert_eq!((again.stopped, again.iterations), (Stopped::Reached, 0));
    }
}

#[test]
fn answers_are_certified() {
    let Some(turn) = device() else { return };
    let cuda = CudaGroupLasso::new(&turn.device).unwrap();
    solve_in::<f64>(&cuda, Loss::LeastSquares, 1);
    solve_in::<f32>(&cuda, Loss::Multinomial, 2);
    solve_in::<f16>(&cuda, Loss::LeastSquares, 3);
}

#[test]
fn whoever_watches_may_end_it() {
    let Some(turn) = device() else { return };
    let cuda = CudaGroupLasso::new(&turn.device).unwrap();
    let x = Array2::from_shape_fn((20, 5), |(i, j)| ((i * 7 + j * 3) % 11) as f64);
    let y = Array2::from_shape_fn((20, 1), |(i, _)| x[[i, 1]] + x[[i, 4]]);
    let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.1);
    let stopping = Stopping { gap: 1e-300, iterations: 25 };
    let solution = cuda.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((solution.stopped, solution.iterations), (Stopped::Interrupted, 0));
    let solution = cuda.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((solution.stopped, solution.iterations), (Stopped::Iterations, 25));
}

/// cuBLAS, or what stands in for it: the software GPU's library, or NVIDIA's; `None` with a line that says why not.
#[cfg(feature = "cublas")]
fn blas(device: &tilewright_cuda::Device) -> Option<tilewright_cuda::grouplasso::Cublas> {
    use tilewright_cuda::grouplasso::Cublas;
    let found = match std::env::var_os("TILEWRIGHT_SOFTGPU_LIB") {
        // SAFETY: the software driver's library has the entry points.
        Some(path) => unsafe { Cublas::at(device, path) },
        None => Cublas::new(device),
    };
    found.inspect_err(|error| eprintln!("skipped 1: {error}")).ok()
}

#[cfg(feature = "cublas")]
#[test]
fn answers_by_cublas_are_certified() {
    let Some(turn) = device() else { return };
    let Some(blas) = blas(&turn.device) else { return };
    let cuda = CudaGroupLasso::with_cublas(&turn.device, blas).unwrap();
    solve_in::<f64>(&cuda, Loss::LeastSquares, 1);
    solve_in::<f32>(&cuda, Loss::Multinomial, 2);
    solve_in::<f16>(&cuda, Loss::LeastSquares, 3);
}

#[cfg(feature = "cublas")]
#[test]
fn cublas_multiplies_matrices_of_any_size() {
    use tilewright_cuda::Buffer;
    let Some(turn) = device() else { return };
    let Some(mut blas) = blas(&turn.device) else { return };
    let mut random = Random(5);
    for [m, n, k] in [[1, 1, 1], [3, 5, 2], [7, 1, 9], [4, 6, 0], [0, 3, 2], [2, 0, 3]] {
        // Integers: every order of summation gives the same.
        let mut numbers = |len: usize| (0..len).map(|_| random.below(19) as f64 - 9.0).collect::<Vec<_>>();
        let (a, b) = (numbers(m * k), numbers(k * n));
        let there = |x: &[f64]| Buffer::from_slice(&turn.device, "matrix", x).unwrap();
        for transposed in [false, true] {
            let mut c = there(&vec![f64::NAN; m * n]);
            blas.product([m, n, k], &there(&a), (&there(&b), transposed), &mut c).unwrap();
            let entry = |i: usize, j: usize| if transposed { b[i * n + j] } else { b[j * k + i] };
            let expected = (0..m * n).map(|at| (0..k).map(|i| a[i * m + at % m] * entry(i, at / m)).sum::<f64>());
            assert_eq!(c.to_vec().unwrap(), expected.collect::<Vec<_>>(), "{m} {n} {k} {transposed} {}", fault());
        }
    }
    let zeros = |n: usize| Buffer::<f64>::zeros(&turn.device, "matrix", n).unwrap();
    let error = blas.product([2, 2, 2], &zeros(4), (&zeros(3), false), &mut zeros(4)).unwrap_err();
    assert_eq!(error.to_string(), "B: got 3 numbers, expected 4");
}

#[cfg(feature = "cublas")]
#[test]
fn what_is_not_cublas_is_an_error() {
    use tilewright_cuda::grouplasso::Cublas;
    let Some(turn) = device() else { return };
    // SAFETY: there is nothing.
    let error = unsafe { Cublas::at(&turn.device, "/nowhere/libcublas.so") }.unwrap_err().to_string();
    assert!(error.starts_with("cuBLAS: ") && !error.contains('\n'), "{error}");
    // SAFETY: the C library's mathematics has none of the entry points.
    let error = unsafe { Cublas::at(&turn.device, "libm.so.6") }.unwrap_err();
    assert_eq!(error.to_string(), "cuBLAS: it lacks cublasCreate_v2");
}
