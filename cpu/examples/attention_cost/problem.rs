//! A problem with its tensors, and clocks.

use anyhow::Result;
use ndarray::{Array1, Array3, Array4};
use std::time::Instant;
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec, Gradients, Inputs, Outputs, Saved};

/// A pass of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

impl Pass {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

/// Everything that a forward and a backward pass read and write.
pub(crate) struct Problem {
    pub(crate) spec: AttentionSpec,
    q: Array4<f32>,
    k: Array4<f32>,
    v: Array4<f32>,
    d_o: Array4<f32>,
    o: Array4<f32>,
    lse: Array3<f32>,
    gradients: [Array4<f32>; 3],
    bias: Option<Array4<f32>>,
    sink: Option<Array1<f32>>,
}

/// Values in [−√3, √3): of variance 1. From a multiplicative hash of their number.
fn noise(salt: u64, shape: [usize; 4]) -> Array4<f32> {
    let mut number = salt << 40;
    Array4::from_shape_simple_fn(shape, || {
        number += 1;
        let hashed = (number ^ (number >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (hashed as f32 / (1u32 << 23) as f32 - 1.0) * 3f32.sqrt()
    })
}

impl Problem {
    pub(crate) fn new(spec: AttentionSpec) -> Self {
        let (q, k, v) = (noise(1, spec.q_shape()), noise(2, spec.k_shape()), noise(3, spec.v_shape()));
        let (d_o, o) = (noise(4, spec.o_shape()), Array4::ones(spec.o_shape()));
        let (lse, gradients) = (Array3::ones(spec.lse_shape()), [&q, &k, &v].map(|x| Array4::ones(x.dim())));
        Self { spec, q, k, v, d_o, o, lse, gradients, bias: None, sink: None }
    }

    /// The same with a bias of this shape, or a sink of score 0 for every head.
    pub(crate) fn with(self, bias: Option<[usize; 4]>, sink: bool) -> Self {
        let sink = sink.then(|| Array1::zeros(self.spec.q_heads));
        Self { bias: bias.map(|shape| noise(5, shape)), sink, ..self }
    }

    /// One call. The backward pass takes what the last forward pass left.
    pub(crate) fn run<M: AttentionForward<f32> + AttentionBackward<f32>>(
        &mut self,
        method: &M,
        pass: Pass,
    ) -> Result<()> {
        let mut inputs = Inputs::new(self.q.view(), self.k.view(), self.v.view());
        inputs.bias = self.bias.as_ref().map(|bias| bias.view());
        inputs.sink = self.sink.as_ref().map(|sink| sink.view());
        if pass == Pass::Forward {
            let out = Outputs { o: self.o.view_mut(), lse: self.lse.view_mut() };
            return Ok(method.forward(&self.spec, &inputs, out)?);
        }
        let saved = Saved { o: self.o.view(), lse: self.lse.view(), d_o: self.d_o.view(), d_lse: None };
        let [d_q, d_k, d_v] = self.gradients.each_mut().map(|x| x.view_mut());
        Ok(method.backward(&self.spec, &inputs, &saved, Gradients { d_q, d_k, d_v, d_bias: None, d_sink: None })?)
    }
}

/// CPU time of all threads of this process, which other programs change little.
#[cfg(unix)]
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Wall time, where there is no other clock.
#[cfg(not(unix))]
pub(crate) fn cpu_seconds() -> f64 {
    wall_seconds()
}

/// Time since the first call.
pub(crate) fn wall_seconds() -> f64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds of a call by some clock: the mean of as many as make up a tenth of a second.
pub(crate) fn seconds(clock: fn() -> f64, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let (began, mut calls) = (clock(), 0);
    loop {
        call()?;
        calls += 1;
        let passed = clock() - began;
        if passed > 0.1 {
            return Ok(passed / f64::from(calls));
        }
    }
}

/// The middle one, or the mean of the two in the middle; NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
