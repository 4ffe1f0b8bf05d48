//! The Rust side of `peers/attention.py`: runs the attention that each line of the standard input asks for, and answers
//! with its times as a line of JSON.
//!
//! ```text
//! mode=flash pass=fwd dtype=f32 b=1 hq=16 hkv=16 n=512 m=512 d=64 causal=0 threads=1 min_reps=3 budget_ms=400
//! ```
//!
//! `mode` is `flash`, `standard`, or a ceiling: `fma` (multiply-adds that never leave the registers; the answer has `flop`)
//! or `read` (as many bytes as `K` and `V` have, from memory). `pass` is `fwd` or `bwd`. Causal is aligned to the top left.
//! Element `i` of tensor `seed` is SplitMix64 of `seed · 2³² + i`, its 24 top bits spread over [−√3, √3).

use ndarray::{Array3, Array4};
use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;
use tilewright_attention::{
    AttentionBackward, AttentionForward, AttentionSpec, CausalAlign, Gradients, Inputs, Outputs, Saved,
};
use tilewright_cpu::attention::ceiling;
use tilewright_cpu::{CpuAttention, StandardAttention};
use tilewright_scalar::{Element, bf16, f16};

type Failure = Box<dyn Error + Send + Sync>;
type Answer = Result<Value, Failure>;

fn main() -> Result<(), Failure> {
    answer(&json!({"ready": true}))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.starts_with("quit") {
            break;
        }
        let request = Request(line.split_whitespace().filter_map(|word| word.split_once('=')).collect());
        answer(&serve(&request).unwrap_or_else(|error| json!({"err": error.to_string()})))?;
    }
    Ok(())
}

fn answer(value: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// The words of a line.
struct Request<'a>(HashMap<&'a str, &'a str>);

impl Request<'_> {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn number(&self, key: &str, otherwise: usize) -> Result<usize, Failure> {
        let Some(text) = self.0.get(key) else { return Ok(otherwise) };
        text.parse().map_err(|_| format!("{key}: got {text}, expected a number").into())
    }

    fn spec(&self) -> Result<AttentionSpec, Failure> {
        let number = |key| self.number(key, 1);
        let (b, hq, n, m, d) = (number("b")?, number("hq")?, number("n")?, number("m")?, number("d")?);
        Ok(AttentionSpec {
            kv_heads: self.number("hkv", hq)?,
            causal: self.text("causal") == "1",
            align: CausalAlign::TopLeft,
            ..AttentionSpec::dense(b, hq, n, m, d)
        })
    }
}

fn serve(request: &Request<'_>) -> Answer {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.number("threads", 1)?).build()?;
    pool.install(|| match (request.text("mode"), request.text("dtype")) {
        ("fma" | "read", _) => ceilings(request),
        ("standard", "f32") => attention::<f32>(request, &StandardAttention),
        (_, "f32") => attention::<f32>(request, &CpuAttention::default()),
        (_, "f64") => attention::<f64>(request, &CpuAttention::default()),
        (_, "bf16") => attention::<bf16>(request, &CpuAttention::default()),
        (_, "f16") => attention::<f16>(request, &CpuAttention::default()),
        (_, other) => Err(format!("dtype: got {other}, expected f32, f64, bf16 or f16").into()),
    })
}

/// The machine's limits, on every thread of the pool at once.
fn ceilings(request: &Request<'_>) -> Answer {
    let (isa, threads) = (CpuAttention::default().isa()?, rayon::current_num_threads());
    if request.text("mode") == "fma" {
        // What is fastest on numbers of this type.
        let paired = request.text("dtype") == "bf16" && isa.multiplies_pairs();
        let spin = if paired { ceiling::pair_products } else { ceiling::multiply_adds };
        let run = || rayon::broadcast(|_| spin(isa, 4_000_000)).into_iter().sum::<u64>();
        let flop = run();
        let mut times = timed(request, || {
            std::hint::black_box(run());
            Ok(())
        })?;
        times["flop"] = flop.into();
        return Ok(times);
    }
    let spec = request.spec()?;
    let memory = vec![1f32; spec.k_shape().iter().product::<usize>() * 2];
    let piece = memory.len().div_ceil(threads);
    timed(request, || {
        memory.par_chunks(piece).for_each(|piece| {
            std::hint::black_box(ceiling::read(isa, piece));
        });
        Ok(())
    })
}

fn attention<T: Element>(request: &Request<'_>, method: &(impl AttentionForward<T> + AttentionBackward<T>)) -> Answer {
    let spec = request.spec()?;
    let (q, k, v) = (random::<T>(1, spec.q_shape()), random(2, spec.k_shape()), random(3, spec.v_shape()));
    let (mut o, mut lse) = (random::<T>(0, spec.o_shape()), Array3::from_elem(spec.lse_shape(), zero::<T>()));
    let inputs = Inputs::new(q.view(), k.view(), v.view());
    if request.text("pass") == "fwd" {
        let mut times =
            timed(request, || Ok(method.forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?))?;
        times["chk"] = json!(sums(&[&o]));
        return Ok(times);
    }
    method.forward(&spec, &inputs, Outputs { o: o.view_mut(), lse: lse.view_mut() })?;
    let d_o = random::<T>(4, spec.o_shape());
    let (mut d_q, mut d_k, mut d_v) = (q.clone(), k.clone(), v.clone());
    let saved = Saved { o: o.view(), lse: lse.view(), d_o: d_o.view(), d_lse: None };
    let mut times = timed(request, || {
        let (d_q, d_k, d_v) = (d_q.view_mut(), d_k.view_mut(), d_v.view_mut());
        Ok(method.backward(&spec, &inputs, &saved, Gradients { d_q, d_k, d_v, d_bias: None, d_sink: None })?)
    })?;
    times["chk"] = json!(sums(&[&d_q, &d_k, &d_v]));
    Ok(times)
}

/// Runs once to warm up, and then as often as the budget allows; or once, to see how much memory it takes.
fn timed(request: &Request<'_>, mut run: impl FnMut() -> Result<(), Failure>) -> Answer {
    if request.text("mem") == "1" {
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = resident("VmRSS:")?;
        run()?;
        return Ok(json!({"rss_mb": resident("VmHWM:")? - before}));
    }
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let mut repetitions = 1;
    while wall.len() <= repetitions {
        let (began, cpu_began) = (Instant::now(), cpu_seconds());
        run()?;
        wall.push(began.elapsed().as_secs_f64() * 1e3);
        cpu.push((cpu_seconds() - cpu_began) * 1e3);
        if wall.len() == 1 {
            let affordable = (request.number("budget_ms", 400)? as f64 / wall[0].max(1e-3)) as usize;
            repetitions = affordable.clamp(request.number("min_reps", 3)?, 200);
        }
    }
    Ok(json!({"ms": wall[1..], "cpu_ms": cpu[1..], "other": vec![0.0; repetitions]}))
}

/// CPU time of all threads of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// A line of the process's status, in MiB.
fn resident(key: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("the status has no such line")?;
    let kib: f64 = line.split_whitespace().next().ok_or("the line is empty")?.parse()?;
    Ok(kib / 1024.0)
}

fn random<T: Element>(seed: u64, shape: [usize; 4]) -> Array4<T> {
    let mut next = seed << 32;
    Array4::from_shape_simple_fn(shape, || {
        let mut z = next.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
        next += 1;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let unit = (z >> 40) as f64 / f64::from(1u32 << 24);
        T::from_f64((2.0 * unit - 1.0) * 3f64.sqrt())
    })
}

fn zero<T: Element>() -> T::Accum {
    <T::Accum as Element>::from_f64(0.0)
}

/// Sums, and sums of squares, for comparing results between peers.
fn sums<T: Element>(tensors: &[&Array4<T>]) -> Vec<f64> {
    let sum = |power: i32| tensors.iter().map(move |x| x.iter().map(|x| x.to_f64().powi(power)).sum::<f64>());
    sum(1).chain(sum(2)).collect()
}
