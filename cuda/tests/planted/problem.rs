//! Small problems that between them run every kernel, each with its answer from the CPU.

use crate::attention_trial::{Case, judge_case};
use crate::common::{Random, fault};
use crate::compression_common::{Shape, bits, gradient};
use crate::compression_trial::try_steps;
use ndarray::Array2;
use serde::Deserialize;
use std::fmt::Display;
use std::ops::ControlFlow;
use tilewright_attention::AttentionSpec;
use tilewright_compression::message::unpack;
use tilewright_compression::reference::Reference;
use tilewright_compression::{
    CompressionError, CompressionSpec, Count, Decompressor, Feedback, Message, NonFinite, Placement, Policy, Reduction,
    Refinement, Sampling, Selector, Slots, Step, Wire,
};
use tilewright_cpu::CpuGroupLasso;
use tilewright_cuda::attention::CudaElement;
use tilewright_cuda::compression::{ResidentMemory, ResidentMessage};
use tilewright_cuda::{Buffer, CudaAttention, CudaCompressor, CudaGroupLasso, Device};
use tilewright_grouplasso::certificate::certify;
use tilewright_grouplasso::{
    Data, GroupLassoSolver, GroupLassoSpec, Keep, Loss, Problem as Fit, Prox, Selection, Stopped, Stopping, Targets,
};
use tilewright_scalar::bf16;

/// What is asked of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Problem {
    /// The greatest entries, exactly, by digits; momentum; compaction of three tiles.
    TopK,
    /// A fixed threshold that everything passes: more than can be staged.
    Whole,
    /// A fixed threshold into a hash table.
    Table,
    /// A sampled threshold that has to be refined.
    Refined,
    /// Random indices.
    RandomK,
    /// A message decoded where it lies, some of its indices beyond the end; then a gradient that is not finite.
    Resident,
    /// The sum of squares of a gradient.
    Squares,
    /// Proximal operator and scores of rows.
    Prox,
    /// The greatest scores, twice.
    Select,
    /// A certified answer of the solver.
    Solve,
    /// Attention in `f32`, both passes, with bias, sink and a gradient of LSE.
    Simt,
    /// Attention in `bf16` by tensor cores, both passes.
    Mma,
    /// The same with a mask.
    MmaCausal,
    /// Few queries and many keys, which are split.
    Decoding,
}

impl Problem {
    pub(crate) const ALL: [Self; 14] = [
        Self::TopK,
        Self::Whole,
        Self::Table,
        Self::Refined,
        Self::RandomK,
        Self::Resident,
        Self::Squares,
        Self::Prox,
        Self::Select,
        Self::Solve,
        Self::Simt,
        Self::Mma,
        Self::MmaCausal,
        Self::Decoding,
    ];

    /// Solves it on the device: what is wrong with the answer, or what the device said.
    pub(crate) fn run(self, device: &Device) -> Result<(), String> {
        match self {
            Self::TopK => compress(device, Selector::ExactTopK(Count::Density(0.02)), Placement::Compact),
            Self::Whole => compress(device, Selector::FixedThreshold(0.0), Placement::Compact),
            Self::Table => {
                let (slots, policy) = (Slots::Exactly(64), Policy::LargestMagnitude);
                compress(device, Selector::FixedThreshold(0.4), Placement::HashTable { slots, policy })
            }
            Self::Refined => {
                let refine = Some(Refinement { lower: 0.8, upper: 1.3, iterations: 10 });
                let sampling = Sampling { ratio: 0.05, refine };
                compress(device, Selector::SampledThreshold(Count::Density(0.02), sampling), Placement::Compact)
            }
            Self::RandomK => compress(device, Selector::RandomK(Count::Entries(900)), Placement::Compact),
            Self::Resident => resident(device),
            Self::Squares => squares(device),
            Self::Prox => prox(device),
            Self::Select => select(device),
            Self::Solve => solve(device),
            Self::Simt => {
                let spec = AttentionSpec { value_dim: 35, ..AttentionSpec::dense(1, 2, 50, 70, 40) };
                let bias = Some([true, false, false, false]);
                attend::<f32>(device, &Case { bias, sink: true, d_lse: true, ..Case::new("simt", spec) })
            }
            Self::Mma => attend::<bf16>(device, &Case::new("mma", AttentionSpec::dense(1, 2, 70, 150, 24))),
            Self::MmaCausal => {
                let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 150, 150, 32) };
                attend::<bf16>(device, &Case::new("mma, causal", spec))
            }
            Self::Decoding => attend::<bf16>(device, &Case::new("decoding", AttentionSpec::dense(1, 1, 3, 1100, 24))),
        }
    }
}

fn compress(device: &Device, selector: Selector, placement: Placement) -> Result<(), String> {
    let spec = CompressionSpec {
        len: 9000,
        selector,
        placement,
        feedback: Feedback::Momentum { factor: 0.9, nesterov: false, masking: true },
        wire: Wire::default(),
        non_finite: NonFinite::Reject,
        seed: 3,
    };
    let mut cuda = CudaCompressor::new(device).map_err(said)?;
    try_steps(&mut cuda, &spec, &[Shape::FewValues, Shape::HeavyTailed, Shape::NonFinite], 1.0, 1)
}

/// An error, and what the software driver adds to it.
fn said(error: impl Display) -> String {
    format!("{error} {}", fault())
}

/// Data that stay on the device: there the kernels, and nobody else, look for what isn't finite and for what is beyond
/// the end.
fn resident(device: &Device) -> Result<(), String> {
    let mut cuda = CudaCompressor::new(device).map_err(said)?;
    let spec = CompressionSpec { non_finite: NonFinite::Reject, ..CompressionSpec::top_k(3000, Count::Entries(150)) };
    let mut memory = ResidentMemory::new(device, &spec).map_err(said)?;
    let mut message = ResidentMessage::new(device, &spec).map_err(said)?;
    let g = gradient(Shape::HeavyTailed, spec.len, 5);
    let there = Buffer::from_slice(device, "gradient", &g).map_err(said)?;
    cuda.resident().compress(&spec, Step::new(0), &there, &mut memory, &mut message).map_err(said)?;
    let mut words = Message::default();
    message.download(&mut words).map_err(said)?;
    // A buffer that is too short for some of them.
    let mut sum = Buffer::zeros(device, "update", 1500).map_err(said)?;
    cuda.resident().decompress(&[&message, &message], Reduction::Mean, &mut sum).map_err(said)?;
    words.words.retain(|word| unpack(*word).0 < 1500);
    let mut expected = vec![0.0; 1500];
    Reference.decompress(&[&words.words, &words.words], Reduction::Mean, &mut expected).map_err(said)?;
    if bits(&sum.to_vec().map_err(said)?) != bits(&expected) {
        return Err("another sum".into());
    }
    let bad: Vec<f32> = (0..3000).map(|i| if i % 7 == 5 { f32::INFINITY } else { 1.0 }).collect();
    let there = Buffer::from_slice(device, "gradient", &bad).map_err(said)?;
    let error = cuda.resident().compress(&spec, Step::new(1), &there, &mut memory, &mut message).err();
    let expected = CompressionError::NonFinite { index: 5, bits: f32::INFINITY.to_bits() };
    if error.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{error:?} {}", fault())) }
}

fn squares(device: &Device) -> Result<(), String> {
    let mut cuda = CudaCompressor::new(device).map_err(said)?;
    let mut random = Random(4);
    let g: Vec<f32> = (0..3000).map(|_| random.unit() as f32).collect();
    let expected = tilewright_compression::memory::sum_of_squares(&g);
    let there = Buffer::from_slice(device, "gradient", &g).map_err(said)?;
    let got = cuda.resident().sum_of_squares(&there).map_err(said)?;
    if got.to_bits() == expected.to_bits() { Ok(()) } else { Err(format!("{got}, expected {expected}")) }
}

fn lasso(device: &Device) -> Result<CudaGroupLasso, String> {
    CudaGroupLasso::new(device).map_err(said)
}

fn prox(device: &Device) -> Result<(), String> {
    let (cuda, mut random) = (lasso(device)?, Random(5));
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.4);
    let w = Array2::from_shape_simple_fn((600, 3), || random.unit());
    let (mut expected, mut got) = (w.clone(), w.clone());
    let answer = CpuGroupLasso.prox(&spec, 0.7, expected.view_mut());
    let ours = cuda.prox(&spec, 0.7, got.view_mut());
    if ours != answer || got != expected {
        return Err(format!("prox: got {ours:?}, expected {answer:?} {}", fault()));
    }
    let (got, expected) = (cuda.scores(w.view()), CpuGroupLasso.scores(w.view()));
    if got == expected { Ok(()) } else { Err(format!("scores: got {got:?} {}", fault())) }
}

fn select(device: &Device) -> Result<(), String> {
    let (cuda, mut random) = (lasso(device)?, Random(6));
    for n in [9000, 5000] {
        let scores: Vec<f64> = (0..n).map(|_| (random.unit() * 40.0).round() / 8.0 + 6.0).collect();
        let one = |method: &dyn Selection<f64>| method.select(&scores, Keep::Fraction(0.1));
        let (got, expected) = (one(&cuda), one(&CpuGroupLasso));
        if got != expected {
            return Err(format!("{n} scores: another choice {:?} {}", got.err(), fault()));
        }
    }
    Ok(())
}

fn solve(device: &Device) -> Result<(), String> {
    let (cuda, mut random) = (lasso(device)?, Random(7));
    let x = Array2::from_shape_simple_fn((70, 37), || random.unit());
    let y = Array2::from_shape_fn((70, 3), |(i, k)| x[[i, 2]] * (k as f64 + 0.5) - x[[i, 31]] + 0.1 * random.unit());
    let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.02);
    let stopping = Stopping { gap: 1e-6, iterations: 300 };
    let solution = cuda.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Continue(()));
    let solution = solution.map_err(said)?;
    let fit = Fit::new(&spec, &data).map_err(said)?;
    let defined = certify(&fit, &solution.w, &solution.b).map_err(said)?;
    // Sums of some hundred terms: this is a thousand times their rounding.
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-10 * (1.0 + b.abs());
    let ours = &solution.certificate;
    if close(ours.objective, defined.objective)
        && close(ours.dual, defined.dual)
        && solution.stopped == Stopped::Reached
    {
        return Ok(());
    }
    Err(format!("{:?} with {ours:?}, expected {defined:?}", solution.stopped))
}

fn attend<T: CudaElement>(device: &Device, case: &Case) -> Result<(), String> {
    judge_case::<T, f64>(&CudaAttention::new(device.clone()), case)
}
