//! The kernels of gradient compression, beside one read of the gradient.
//!
//! `TILEWRIGHT_GRADIENT` names a file of little-endian `f32` to be used instead of generated data.
#![allow(missing_docs)] // what `criterion_group!` expands to

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tilewright_benches::compression::{Kernel, Workload, gradient};

fn gradients() -> Vec<Vec<f32>> {
    let Ok(path) = std::env::var("TILEWRIGHT_GRADIENT") else {
        return [1_000_000, 25_000_000, 100_000_000].map(gradient).into();
    };
    let bytes = std::fs::read(path).expect("the file of TILEWRIGHT_GRADIENT");
    vec![bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()]
}

fn kernels(c: &mut Criterion) {
    for gradient in gradients() {
        for density in [0.001, 0.01] {
            let mut group = c.benchmark_group(format!("compression/{}/{density}", gradient.len()));
            group.throughput(Throughput::Bytes(size_of_val(&gradient[..]) as u64));
            let mut workload = Workload::new(gradient.clone(), density);
            for kernel in Kernel::ALL {
                group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                    b.iter_custom(|times| (0..times).map(|_| workload.time(kernel)).sum());
                });
            }
        }
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = config(); targets = kernels }
criterion_main!(benches);
