//! The group-lasso backend: one pass over the features, the proximal operator, a cold solve, a path.
//!
//! Times of the same run are to be compared with each other: a solve as so many passes, a pass with reading the features.
//! `peers/grouplasso.py` has other people's solvers.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;
use tilewright_cpu::CpuGroupLasso;
use tilewright_grouplasso::{
    Data, GroupLassoSolver, GroupLassoSpec, Loss, Prox, Selection, Stopping, Targets, geometric_path,
};

const SAMPLES: usize = 500;
const FEATURES: usize = 4000;
const OUTPUTS: usize = 10;

/// Rectified mixtures of a few factors: activations, more or less. Features × samples.
fn activations() -> Array2<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let factors = Array2::from_shape_simple_fn((16, SAMPLES), &mut noise);
    let mixing = Array2::from_shape_simple_fn((FEATURES, 16), &mut noise);
    let mut x = mixing.dot(&factors) + 0.5 * Array2::from_shape_simple_fn((FEATURES, SAMPLES), &mut noise);
    x.mapv_inplace(|x| x.max(-0.25));
    x
}

fn solves(criterion: &mut Criterion) {
    let columns = activations();
    let y = Array2::from_shape_fn((SAMPLES, OUTPUTS), |(i, k)| columns[[37 * k + 5, i]] + columns[[91 * k, i]]);
    let labels: Vec<u32> = y
        .rows()
        .into_iter()
        .map(|row| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(k, _)| k as u32))
        .collect();
    let solver = CpuGroupLasso;
    let mut group = criterion.benchmark_group("solve");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for loss in [Loss::LeastSquares, Loss::Multinomial] {
        let targets = match loss {
            Loss::LeastSquares => Targets::Values(y.view()),
            Loss::Multinomial => Targets::Labels { labels: &labels, classes: OUTPUTS },
        };
        let data = Data { x: columns.t(), targets, sample_weights: None };
        let spec = GroupLassoSpec::rows(loss, 0.0);
        let Ok(largest) = solver.lambda_max(&spec, &data) else { continue };
        let spec = GroupLassoSpec { lambda: largest / 10.0, ..spec };
        let quiet = &mut |_: &_| ControlFlow::Continue(());
        group.bench_function(format!("{loss:?}/cold"), |b| {
            b.iter(|| black_box(solver.solve(&spec, &data, &Stopping::default(), None, quiet)));
        });
        let lambdas = geometric_path(largest, 0.1, 20);
        group.bench_function(format!("{loss:?}/path of 20"), |b| {
            b.iter(|| black_box(solver.solve_path(&spec, &data, &lambdas, &Stopping::default(), quiet)));
        });
    }
}

fn operators(criterion: &mut Criterion) {
    let w = activations().mapv(|x| x as f32);
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 5.0);
    let solver = CpuGroupLasso;
    let mut group = criterion.benchmark_group("operators");
    group.throughput(Throughput::Bytes(4 * w.len() as u64)).measurement_time(Duration::from_secs(2));
    group.bench_function("read", |b| b.iter(|| black_box(w.iter().map(|x| x.to_bits()).fold(0, |a, b| a ^ b))));
    group.bench_function("scores", |b| b.iter(|| black_box(Selection::<f32>::scores(&solver, w.view()))));
    group.bench_function("prox", |b| {
        b.iter_batched_ref(
            || w.clone(),
            |w| black_box(Prox::<f32>::prox(&solver, &spec, 1.0, w.view_mut())),
            criterion::BatchSize::LargeInput,
        );
    });
}

criterion_group!(benches, solves, operators);
criterion_main!(benches);
