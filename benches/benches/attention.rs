//! Tiled against standard attention: forward, causal, backward, decoding.
#![allow(missing_docs)] // what `criterion_group!` expands to

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec};
use tilewright_benches::{Tensors, backward_flops, forward_flops};
use tilewright_cpu::{CpuAttention, SplitKv, StandardAttention};
use tilewright_scalar::{Element, bf16};

const HEADS: usize = 4;
const DIM: usize = 64;

fn bench_forward<T: Element>(
    c: &mut Criterion,
    group: &str,
    name: &str,
    method: &impl AttentionForward<T>,
    spec: &AttentionSpec,
) {
    let mut tensors = Tensors::<T>::new(spec);
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(forward_flops(spec)));
    group.bench_function(BenchmarkId::new(name, spec.max_kv_len()), |b| {
        b.iter(|| {
            let (inputs, out) = tensors.forward();
            method.forward(spec, &inputs, out).expect("a sound problem");
        });
    });
}

fn bench_backward<T: Element>(
    c: &mut Criterion,
    group: &str,
    name: &str,
    method: &(impl AttentionForward<T> + AttentionBackward<T>),
    spec: &AttentionSpec,
) {
    let mut tensors = Tensors::<T>::new(spec);
    let (inputs, out) = tensors.forward();
    method.forward(spec, &inputs, out).expect("a sound problem");
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(backward_flops(spec)));
    group.bench_function(BenchmarkId::new(name, spec.max_kv_len()), |b| {
        b.iter(|| {
            let (inputs, saved, gradients) = tensors.backward();
            method.backward(spec, &inputs, &saved, gradients).expect("a sound problem");
        });
    });
}

fn forward(c: &mut Criterion) {
    for n in [256, 1024, 4096] {
        let spec = AttentionSpec::dense(1, HEADS, n, n, DIM);
        let causal = AttentionSpec { causal: true, ..spec.clone() };
        bench_forward::<f32>(c, "forward", "flash", &CpuAttention::default(), &spec);
        bench_forward::<f32>(c, "forward", "standard", &StandardAttention, &spec);
        bench_forward::<f32>(c, "causal", "flash", &CpuAttention::default(), &causal);
        bench_forward::<f32>(c, "causal", "standard", &StandardAttention, &causal);
    }
    let spec = AttentionSpec::dense(1, HEADS, 1024, 1024, DIM);
    bench_forward::<f64>(c, "forward", "flash f64", &CpuAttention::default(), &spec);
    bench_forward::<bf16>(c, "forward", "flash bf16", &CpuAttention::default(), &spec);
}

fn backward(c: &mut Criterion) {
    for n in [256, 1024] {
        let spec = AttentionSpec::dense(1, HEADS, n, n, DIM);
        let causal = AttentionSpec { causal: true, ..spec.clone() };
        bench_backward::<f32>(c, "backward", "flash", &CpuAttention::default(), &spec);
        bench_backward::<f32>(c, "backward", "standard", &StandardAttention, &spec);
        bench_backward::<f32>(c, "backward causal", "flash", &CpuAttention::default(), &causal);
    }
}

/// One query of 8 heads in groups of 4 against a long cache.
fn decode(c: &mut Criterion) {
    for kv_len in [4096, 32768] {
        let spec = AttentionSpec { kv_heads: 2, causal: true, ..AttentionSpec::dense(1, 8, 1, kv_len, DIM) };
        bench_forward::<f32>(c, "decode", "flash, split", &CpuAttention::default(), &spec);
        let unsplit = CpuAttention::default().with_split_kv(SplitKv::Never);
        bench_forward::<f32>(c, "decode", "flash, unsplit", &unsplit, &spec);
        bench_forward::<f32>(c, "decode", "standard", &StandardAttention, &spec);
    }
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = config(); targets = forward, backward, decode }
criterion_main!(benches);
