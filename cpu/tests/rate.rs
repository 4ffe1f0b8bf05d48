//! What the compiler makes of the kernels: the share of the machine's rate of multiply-adds that they reach, both measured
//! in turns in one run. A loop that is no longer vectorised, or sums that are spilled, cost half of it and more.
//!
//! ```text
//! cargo test --release -p tilewright-cpu --test rate -- --nocapture
//! ```
#![cfg(not(debug_assertions))] // rates are those of a release build
#![allow(clippy::unwrap_used)]

#[path = "../examples/attention_cost/problem.rs"]
#[allow(dead_code)]
mod problem;

use problem::{Pass, Problem, cpu_seconds, median, seconds};
use std::hint::black_box;
use tilewright_attention::AttentionSpec;
use tilewright_cpu::attention::ceiling;
use tilewright_cpu::{CpuAttention, Isa};

/// Rounds, of which the median counts.
const ROUNDS: usize = 7;

/// Multiply-adds in a call of the ceiling: some hundredths of a second.
const CEILING: u64 = 1_000_000;

/// A problem, and the least share of the ceiling that its products are to reach: about half of what they do reach.
struct Floor {
    name: &'static str,
    spec: AttentionSpec,
    pass: Pass,
    operations: f64,
    /// Runs that are timed together.
    runs: usize,
    share: f64,
}

/// The products of a pass over all pairs, or over the half that a causal mask leaves: `4·H·N²·d`, 2.5 times as many backward.
fn floor(name: &'static str, dim: usize, causal: bool, pass: Pass, share: f64) -> Floor {
    let (heads, n) = (2, 1024);
    let spec = AttentionSpec { causal, ..AttentionSpec::dense(1, heads, n, n, dim) };
    let pairs = if causal { n * (n + 1) / 2 } else { n * n };
    let forward = (4 * heads * pairs * dim) as f64;
    Floor { name, spec, pass, operations: if pass == Pass::Backward { 2.5 * forward } else { forward }, runs: 1, share }
}

/// One query against keys and values that a cache holds, for `group` heads that share them.
fn decoding(name: &'static str, group: usize, share: f64) -> Floor {
    let (kv_heads, keys, dim) = (4, 512, 128);
    let spec = AttentionSpec { kv_heads, ..AttentionSpec::dense(1, kv_heads * group, 1, keys, dim) };
    let operations = (4 * kv_heads * group * keys * dim) as f64;
    Floor { name, spec, pass: Pass::Forward, operations, runs: 50, share }
}

/// The instruction sets whose figures are in `docs/src/cpu-attention.md`. Where nothing has been measured, no number is a floor.
const MEASURED: [&str; 2] = ["avx2", "avx512"];

fn floors() -> Vec<Floor> {
    vec![
        floor("forward, d 128", 128, false, Pass::Forward, 0.35),
        floor("forward, d 64", 64, false, Pass::Forward, 0.3),
        floor("forward, d 64, causal", 64, true, Pass::Forward, 0.25),
        floor("backward, d 64", 64, false, Pass::Backward, 0.3),
        decoding("decoding, one head to a key head", 1, 0.1),
        decoding("decoding, four heads to a key head", 4, 0.25),
        decoding("decoding, six heads to a key head", 6, 0.25),
    ]
}

/// The median share of `ceiling`'s rate that attention on `isa` reaches.
fn share(floor: &Floor, isa: Isa, ceiling: Isa) -> f64 {
    let (mut problem, method) = (Problem::new(floor.spec.clone()), CpuAttention::default().with_isa(isa));
    problem.run(&method, Pass::Forward).unwrap();
    let mut round = || {
        let spin = || {
            black_box(ceiling::multiply_adds(ceiling, CEILING));
            Ok(())
        };
        let peak = ceiling::multiply_adds(ceiling, CEILING) as f64 / seconds(cpu_seconds, spin).unwrap();
        let mut runs = || (0..floor.runs).try_for_each(|_| problem.run(&method, floor.pass));
        floor.operations * floor.runs as f64 / seconds(cpu_seconds, &mut runs).unwrap() / peak
    };
    median((0..ROUNDS).map(|_| round()).collect())
}

/// One test: the clock is that of the whole process.
#[test]
fn kernels_reach_their_share_of_the_machine() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one_thread.install(|| {
        let portable = Isa::named("portable").unwrap();
        let mut slow = Vec::new();
        for isa in Isa::available().into_iter().filter(|isa| *isa != portable) {
            for floor in floors() {
                let reached = share(&floor, isa, isa);
                let judged = MEASURED.contains(&isa.name());
                let least = if judged { format!("at least {:.0}", 100.0 * floor.share) } else { "no floor".to_owned() };
                println!("{}, {}: {:.0} %, {least}", isa.name(), floor.name, 100.0 * reached);
                if judged && reached < floor.share {
                    slow.push(format!("{}, {}: {reached:.2} of the multiply-adds' rate", isa.name(), floor.name));
                }
            }
        }
        assert!(slow.is_empty(), "below their floors: {}", slow.join("; "));
        // The instrument works: kernels of narrower vectors, without fused multiply-adds, fall through.
        for isa in Isa::available().into_iter().filter(|isa| MEASURED.contains(&isa.name())) {
            let floor = &floors()[0];
            let spoiled = share(floor, portable, isa);
            println!("portable beside {}: {:.0} %", isa.name(), 100.0 * spoiled);
            assert!(spoiled < floor.share, "portable kernels reach {spoiled:.2} of {}'s rate", isa.name());
        }
    });
}
