//! Attention in bf16: forward, backward, and decoding against a long cache.

use crate::{BenchError, Job, Size, Work, numbers};
use std::cell::RefCell;
use std::rc::Rc;
use tilewright_attention::AttentionSpec;
use tilewright_cuda::attention::{AttentionPlan, DeviceGradients, DeviceInputs, DeviceOutputs, DeviceSaved};
use tilewright_cuda::{Buffer, CudaAttention, CudaError, Device};
use tilewright_scalar::bf16;

/// Numbers that problems of the same size share: `Q`, `K`, `V`, `dO`.
type Given = Rc<[Buffer<bf16>; 4]>;

/// A problem's tensors on the device.
struct Problem {
    method: CudaAttention,
    plan: AttentionPlan<f32>,
    given: Given,
    o: Buffer<bf16>,
    d_q: Buffer<bf16>,
    d_k: Buffer<bf16>,
    d_v: Buffer<bf16>,
    lse: Buffer<f32>,
}

impl Problem {
    fn new(device: &Device, spec: &AttentionSpec, given: Given, backward: bool) -> Result<Self, CudaError> {
        let empty =
            |shape: [usize; 4]| Buffer::uninit(device, "a tensor", if backward { shape.iter().product() } else { 0 });
        Ok(Self {
            method: CudaAttention::new(device.clone()),
            plan: AttentionPlan::new(device, spec)?,
            given,
            o: Buffer::uninit(device, "o", spec.o_shape().iter().product())?,
            lse: Buffer::uninit(device, "lse", spec.lse_shape().iter().product())?,
            d_q: empty(spec.q_shape())?,
            d_k: empty(spec.k_shape())?,
            d_v: empty(spec.v_shape())?,
        })
    }

    fn forward(&mut self) -> Result<(), BenchError> {
        let [q, k, v, _] = &*self.given;
        let inputs = DeviceInputs { q, k, v, bias: None, sink: None };
        let mut out = DeviceOutputs { o: &mut self.o, lse: &mut self.lse };
        Ok(self.method.forward_on_device(&self.plan, &inputs, &mut out)?)
    }

    fn backward(&mut self) -> Result<(), BenchError> {
        let [q, k, v, d_o] = &*self.given;
        let inputs = DeviceInputs { q, k, v, bias: None, sink: None };
        let saved = DeviceSaved { o: &self.o, lse: &self.lse, d_o, d_lse: None };
        let (d_q, d_k, d_v) = (&mut self.d_q, &mut self.d_k, &mut self.d_v);
        let mut gradients = DeviceGradients { d_q, d_k, d_v, d_bias: None, d_sink: None };
        Ok(self.method.backward_on_device(&self.plan, &inputs, &saved, &mut gradients)?)
    }
}

pub(crate) fn jobs(device: &Device, size: Size) -> Result<Vec<Job>, BenchError> {
    let mut jobs = Vec::new();
    let lengths: &[usize] = size.of(&[64], &[2048], &[2048, 8192, 16384]);
    // As many tokens and as wide a model whatever the length and the head, as in the papers on FlashAttention.
    let (tokens, width) = size.of((64, 128), (8192, 2048), (16384, 2048));
    let given = given(device, [tokens * width; 4])?;
    for length in lengths {
        for head_dim in [64, 128] {
            for causal in [false, true] {
                let spec = AttentionSpec::dense(tokens / length, width / head_dim, *length, *length, head_dim);
                jobs.extend(both(device, &AttentionSpec { causal, ..spec }, &given)?);
            }
        }
    }
    jobs.push(decode(device, size)?);
    Ok(jobs)
}

fn describe(spec: &AttentionSpec) -> String {
    let AttentionSpec { batch, q_heads, kv_heads, head_dim, causal, .. } = spec;
    let mask = if *causal { ", causal" } else { "" };
    format!("b{batch} h{q_heads}/{kv_heads} n{} s{} d{head_dim}{mask}", spec.max_q_len(), spec.max_kv_len())
}

/// So many numbers each.
fn given(device: &Device, lens: [usize; 4]) -> Result<Given, CudaError> {
    let one = |seed: usize| {
        let values: Vec<bf16> = numbers(seed as u64 + 1, lens[seed]).map(bf16::from_f32).collect();
        Buffer::from_slice(device, "a tensor", &values)
    };
    Ok(Rc::new([one(0)?, one(1)?, one(2)?, one(3)?]))
}

/// Forward and backward of one problem; the warm-up of the first makes what the second needs.
fn both(device: &Device, spec: &AttentionSpec, given: &Given) -> Result<[Job; 2], BenchError> {
    let problem = Rc::new(RefCell::new(Problem::new(device, spec, Rc::clone(given), true)?));
    let (n, s) = (spec.max_q_len() as f64, spec.max_kv_len() as f64);
    let pairs = if spec.causal { n * (s + 1.0) / 2.0 } else { n * s };
    // Two products forward, five backward, each of 2 d operations a pair that is seen.
    let product = 2.0 * pairs * (spec.batch * spec.q_heads * spec.head_dim) as f64;
    let forward = Rc::clone(&problem);
    let job = |name: &str, products: f64, run: Box<dyn FnMut() -> Result<(), BenchError>>| Job {
        family: "attention",
        name: name.into(),
        problem: describe(spec),
        work: Work::Flops(products * product),
        run,
    };
    Ok([
        job("forward bf16", 2.0, Box::new(move || forward.borrow_mut().forward())),
        job("backward bf16", 5.0, Box::new(move || problem.borrow_mut().backward())),
    ])
}

/// One query a sequence, four query heads a key head: as fast as the cache can be read.
fn decode(device: &Device, size: Size) -> Result<Job, BenchError> {
    let (batch, heads, keys) = size.of((1, 4, 512), (16, 32, 8192), (32, 32, 16384));
    let spec = AttentionSpec { kv_heads: heads / 4, ..AttentionSpec::dense(batch, heads, 1, keys, 128) };
    let [q, k, v, o] =
        [spec.q_shape(), spec.k_shape(), spec.v_shape(), spec.o_shape()].map(|shape| shape.iter().product());
    let mut problem = Problem::new(device, &spec, given(device, [q, k, v, 0])?, false)?;
    let numbers: usize = q + k + v + o;
    Ok(Job {
        family: "attention",
        name: "decode bf16".into(),
        problem: describe(&spec),
        work: Work::Bytes { moved: 2.0 * numbers as f64, vector: None },
        run: Box::new(move || problem.forward()),
    })
}
