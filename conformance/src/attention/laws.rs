//! Metamorphic laws: what must hold between two runs of the same kernel, whatever its rounding.

use crate::attention::case::{Case, Distribution, Storage};
use crate::attention::expected::Expected;
use crate::attention::generate::Problem;
use crate::attention::judge::{Kind, Violation, incident};
use crate::tensor::{Stored, Tensor};
use crate::{Request, Subject, Tensors};
use ndarray::{ArrayD, Axis, Slice};
use tilewright_attention::{AttentionSpec, Keys, Window};
use tilewright_scalar::{Format, bf16, f16};

/// Applies `f` to every element of a tensor.
fn map(tensor: &Tensor, f: impl Fn(f64) -> f64 + Copy) -> Tensor {
    fn typed<T: Stored>(array: &ArrayD<T>, f: impl Fn(f64) -> f64) -> Tensor {
        T::wrap(array.mapv(|x| T::from_f64(f(x.to_f64()))))
    }
    match tensor {
        Tensor::F64(array) => typed::<f64>(array, f),
        Tensor::F32(array) => typed::<f32>(array, f),
        Tensor::F16(array) => typed::<f16>(array, f),
        Tensor::Bf16(array) => typed::<bf16>(array, f),
    }
}

/// A range of a tensor along an axis.
fn slice(tensor: &Tensor, axis: usize, range: std::ops::Range<usize>) -> Tensor {
    crate::tensor::on_array!(tensor, array => {
        Stored::wrap(array.slice_axis(Axis(axis), Slice::from(range)).as_standard_layout().into_owned())
    })
}

/// Runs every law that applies and returns those that do not hold.
pub fn check(
    subject: &mut dyn Subject,
    case: &Case,
    problem: &Problem,
    truth: &Expected,
    answer: &Tensors,
) -> Vec<Violation> {
    let mut broken = Vec::new();
    broken.extend(unused_slots(subject, case, problem, answer));
    broken.extend(value_scaling(subject, case, problem, answer));
    broken.extend(merging(subject, case, problem, truth));
    broken
}

fn rerun(
    subject: &mut dyn Subject,
    case: &Case,
    spec: &AttentionSpec,
    inputs: &Tensors,
    want: &[&'static str],
) -> Option<Tensors> {
    let id = format!("{case} (under a law)");
    subject.run(&Request { id: &id, spec, inputs, layout: case.layout, want }).ok()
}

fn compare_bits(law: &str, expected: &Tensors, got: Option<&Tensors>) -> Option<Violation> {
    for (name, tensor) in got? {
        let reference = expected.get(name)?;
        if reference.bits() != tensor.bits() {
            let at = reference.bits().iter().zip(tensor.bits()).position(|(a, b)| *a != b).unwrap_or(0);
            return Some(incident(Kind::Law, law, format!("{name} differs, first at element {at}")));
        }
    }
    None
}

/// Slots that belong to no sequence hold NaN and infinities in the case; zeros instead must change no bit.
fn unused_slots(subject: &mut dyn Subject, case: &Case, problem: &Problem, answer: &Tensors) -> Option<Violation> {
    if !subject.profile().deterministic || !matches!(case.storage, Storage::Lengths | Storage::Paged(_)) {
        return None;
    }
    let mut inputs = problem.inputs.clone();
    for name in ["k", "v"] {
        let clean = map(problem.inputs.get(name)?, |x| if x.is_finite() { x } else { 0.0 });
        inputs.insert(name.into(), clean);
    }
    let want: Vec<&'static str> = wanted(answer);
    compare_bits("unused slots are not read", answer, rerun(subject, case, &problem.spec, &inputs, &want).as_ref())
}

fn wanted(answer: &Tensors) -> Vec<&'static str> {
    use crate::attention::expected::{BACKWARD, FORWARD};
    FORWARD.into_iter().chain(BACKWARD).filter(|name| answer.contains_key(*name)).collect()
}

/// `O` is linear in `V`: doubling every value doubles every output, to the bit, and leaves LSE alone.
fn value_scaling(subject: &mut dyn Subject, case: &Case, problem: &Problem, answer: &Tensors) -> Option<Violation> {
    let calm = matches!(case.distribution, Distribution::Normal | Distribution::Peaky | Distribution::Uniform);
    // f16 underflows early, and a rounding of a subnormal does not scale.
    if !calm || case.format == Format::F16 || !subject.profile().deterministic {
        return None;
    }
    let mut inputs = problem.inputs.clone();
    inputs.insert("v".into(), map(problem.inputs.get("v")?, |x| 2.0 * x));
    let doubled = rerun(subject, case, &problem.spec, &inputs, &["o", "lse"])?;
    let mut expected = answer.clone();
    expected.insert("o".into(), map(answer.get("o")?, |x| 2.0 * x));
    compare_bits("doubling V doubles O", &expected, Some(&doubled))
}

/// Attention over all keys is the merge of attention over two halves of them, by LSE: what ring attention, split-KV
/// decoding and prefix sharing rest on.
fn merging(subject: &mut dyn Subject, case: &Case, problem: &Problem, truth: &Expected) -> Option<Violation> {
    let plain = matches!(case.storage, Storage::Padded)
        && !case.causal
        && case.window == [None, None]
        && case.blocks.is_none()
        && case.bias.is_none()
        && case.dropout.is_none()
        && !(case.sink || case.alibi)
        && case.kv_len >= 2
        && case.q_len > 0
        && case.distribution == Distribution::Normal;
    if !plain {
        return None;
    }
    let half = case.kv_len / 3 + 1;
    let mut parts = Vec::new();
    for keys in [0..half, half..case.kv_len] {
        let mut inputs = Tensors::from([("q".to_string(), problem.inputs.get("q")?.clone())]);
        for name in ["k", "v"] {
            inputs.insert(name.into(), slice(problem.inputs.get(name)?, 2, keys.clone()));
        }
        let spec = AttentionSpec {
            keys: Keys::Padded { len: keys.len(), lengths: None },
            window: Window::default(),
            ..problem.spec.clone()
        };
        let part = rerun(subject, case, &spec, &inputs, &["o", "lse"])?;
        parts.push((part.get("o")?.to_f64(), part.get("lse")?.to_f64()));
    }
    let expected = truth.get("o")?;
    let dim = *expected.shape.last()?;
    let ((o1, lse1), (o2, lse2)) = (&parts[0], &parts[1]);
    for (n, value) in expected.value.iter().enumerate() {
        let (l1, l2) = (*lse1.get(n / dim)?, *lse2.get(n / dim)?);
        let l = l1.max(l2);
        let (w1, w2) = ((l1 - l).exp(), (l2 - l).exp());
        let (a, b) = (*o1.get(n)?, *o2.get(n)?);
        let merged = (w1 * a + w2 * b) / (w1 + w2);
        // Each half is within a bound of its own truth, of the same size as the whole's or below it in its share;
        // an error of either LSE moves weight between the halves.
        let lse_bound = 2.0 * truth.get("lse")?.worst[n / dim];
        let storage = expected.format.unit_roundoff() * (a.abs() + b.abs()) + 2.0 * expected.format.underflow_unit();
        let limit = 3.0 * expected.worst[n] + lse_bound * (a - b).abs() + storage;
        if (merged - tilewright_scalar::Real::to_f64(*value)).abs() > limit {
            let detail = format!("element {n}: {merged:e}, expected {:e} ± {limit:.2e}", value.hi());
            return Some(incident(Kind::Law, "merging halves by LSE gives the whole", detail));
        }
    }
    None
}
