//! O(N) extra memory, counted by the allocator. One test only: whatever else ran here would be counted too.
#![allow(clippy::unwrap_used)]

mod counting;

use counting::{Counting, extra_bytes};
use ndarray::{Array3, Array4};
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec, Gradients, Inputs, Outputs, Saved};
use tilewright_cpu::{CpuAttention, StandardAttention};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Extra bytes of the forward and of the backward pass for `n` queries and keys.
fn extra<M: AttentionForward<f32> + AttentionBackward<f32>>(method: &M, n: usize) -> (usize, usize) {
    let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, n, n, 16) };
    let ones = || Array4::<f32>::ones(spec.q_shape());
    let (q, k, v, d_o) = (ones(), ones(), ones(), ones());
    let inputs = Inputs::new(q.view(), k.view(), v.view());
    let (mut o, mut lse) = (ones(), Array3::zeros(spec.lse_shape()));
    let forward = extra_bytes(|| {
        method.forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() }).unwrap();
    });
    let saved = Saved { o: o.view(), lse: lse.view(), d_o: d_o.view(), d_lse: None };
    let (mut d_q, mut d_k, mut d_v) = (ones(), ones(), ones());
    let gradients =
        Gradients { d_q: d_q.view_mut(), d_k: d_k.view_mut(), d_v: d_v.view_mut(), d_bias: None, d_sink: None };
    let backward = extra_bytes(|| method.backward(&spec, &inputs, &saved, gradients).unwrap());
    (forward, backward)
}

#[test]
fn memory_is_linear_in_the_sequence() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let measured = |n| pool.install(|| extra(&CpuAttention::default(), n));
    measured(64); // threads start, lazily allocated things are allocated
    let n = 4096;
    let (forward, backward) = measured(n);
    println!("extra bytes at N = {n}: forward {forward}, backward {backward}; one N × N matrix is {}", n * n * 4);
    assert!(forward < n * n * 4 / 64, "forward: {forward} bytes");
    // Five copies of a query-shaped tensor and five of a key-shaped one, packed or gathering; and for each of two threads
    // a band of P and one of dS, 96 rows of 400 numbers.
    let (tensor, bands) = (n * 16 * 4, 2 * 2 * 96 * 400 * 4);
    assert!(backward < 10 * tensor + 2 * bands, "backward: {backward} bytes");
    // Doubling N at most doubles it; tiles, which do not grow, make it less.
    let (forward_2n, backward_2n) = measured(2 * n);
    assert!(forward_2n <= 2 * forward && backward_2n <= 2 * backward, "{forward_2n}, {backward_2n}");
    // The instrument works: the standard method does hold the matrix.
    let (standard, _) = pool.install(|| extra(&StandardAttention, 1024));
    assert!(standard > 1024 * 1024 * 4, "standard: {standard} bytes");
}
