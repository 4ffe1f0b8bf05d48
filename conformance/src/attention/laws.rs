//! Metamorphic laws: what must hold between two runs of the same kernel, whatever its rounding.

use crate::attention::case::{Case, Distribution, Storage};
use crate::attention::expected::Expected;
use crate::attention::generate::Problem;
use crate::attention::judge::{Kind, Violation, incident};
use crate::attention::trial::Prepared;
use crate::attention::{Request, Subject};
use crate::tensor::{Stored, Tensor};
use crate::{SubjectError, Tensors};
use ndarray::{ArrayD, Axis, Slice};
use tilewright_attention::bound::final_rounding;
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
pub fn check(subject: &mut dyn Subject, prepared: &Prepared, answer: &Tensors) -> Vec<Violation> {
    let (case, problem) = (&prepared.case, &prepared.problem);
    let findings = [
        unused_slots(subject, case, problem, answer),
        value_scaling(subject, case, problem, answer),
        merging(subject, case, problem, prepared),
    ];
    findings.into_iter().filter_map(|finding| finding.unwrap_or_else(Some)).collect()
}

/// A law that holds or does not apply, one that is broken, or a run that failed on the way.
type Finding = Result<Option<Violation>, Violation>;

fn rerun(
    subject: &mut dyn Subject,
    case: &Case,
    spec: &AttentionSpec,
    inputs: &Tensors,
    want: &[&'static str],
) -> Result<Option<Tensors>, Violation> {
    let id = case.to_string();
    match subject.run(&Request { id: &id, spec, inputs, layout: case.layout, want }) {
        Ok(answer) => Ok(Some(answer)),
        Err(SubjectError::Unsupported(_)) => Ok(None),
        // The law's problem is as valid as the case's, so this is as bad as if the case itself had failed.
        Err(error) => {
            let kind = match &error {
                SubjectError::Crashed(_) => Kind::Crashed,
                SubjectError::TimedOut(_) => Kind::TimedOut,
                SubjectError::Misbehaved(_) => Kind::Misbehaved,
                _ => Kind::Failed,
            };
            Err(incident(kind, "run", format!("with the inputs that a law varies: {error}")))
        }
    }
}

fn compare_bits(law: &str, expected: &Tensors, got: &Tensors, names: &[&'static str]) -> Option<Violation> {
    for name in names {
        let (Some(reference), Some(tensor)) = (expected.get(*name), got.get(*name)) else { continue };
        if reference.bits() != tensor.bits() {
            let at = reference.bits().iter().zip(tensor.bits()).position(|(a, b)| *a != b).unwrap_or(0);
            return Some(incident(Kind::Law, law, format!("{name} differs, first at element {at}")));
        }
    }
    None
}

/// Slots that belong to no sequence hold NaN and infinities in the case; zeros instead must change no bit.
fn unused_slots(subject: &mut dyn Subject, case: &Case, problem: &Problem, answer: &Tensors) -> Finding {
    if !subject.profile().deterministic || !matches!(case.storage, Storage::Lengths | Storage::Paged(_)) {
        return Ok(None);
    }
    let mut inputs = problem.inputs.clone();
    for name in ["k", "v"] {
        let Some(tensor) = inputs.get_mut(name) else { return Ok(None) };
        *tensor = map(tensor, |x| if x.is_finite() { x } else { 0.0 });
    }
    let want: Vec<&'static str> = wanted(answer);
    let clean = rerun(subject, case, &problem.spec, &inputs, &want)?;
    Ok(clean.and_then(|clean| compare_bits("unused slots are not read", answer, &clean, &want)))
}

fn wanted(answer: &Tensors) -> Vec<&'static str> {
    use crate::attention::expected::{BACKWARD, FORWARD};
    FORWARD.into_iter().chain(BACKWARD).filter(|name| answer.contains_key(*name)).collect()
}

/// `O` is linear in `V`: doubling every value doubles every output, to the bit, and leaves LSE alone.
fn value_scaling(subject: &mut dyn Subject, case: &Case, problem: &Problem, answer: &Tensors) -> Finding {
    let calm = matches!(case.distribution, Distribution::Normal | Distribution::Peaky | Distribution::Uniform);
    // f16 underflows early, and a rounding of a subnormal does not scale.
    if !calm || case.format == Format::F16 || !subject.profile().deterministic {
        return Ok(None);
    }
    let (mut inputs, mut expected, want) = (problem.inputs.clone(), answer.clone(), ["o", "lse"]);
    let (Some(v), Some(o)) = (inputs.get_mut("v"), expected.get_mut("o")) else { return Ok(None) };
    (*v, *o) = (map(v, |x| 2.0 * x), map(o, |x| 2.0 * x));
    let doubled = rerun(subject, case, &problem.spec, &inputs, &want)?;
    Ok(doubled.and_then(|doubled| compare_bits("doubling V doubles O", &expected, &doubled, &want)))
}

/// Attention over all keys is the merge of attention over two halves of them, by LSE: what ring attention, split-KV
/// decoding and prefix sharing rest on.
fn merging(subject: &mut dyn Subject, case: &Case, problem: &Problem, prepared: &Prepared) -> Finding {
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
    let tensors = (problem.inputs.get("q"), problem.inputs.get("k"), problem.inputs.get("v"));
    let (true, (Some(q), Some(k), Some(v))) = (plain, tensors) else { return Ok(None) };
    let half = case.kv_len / 3 + 1;
    let mut parts = Vec::new();
    for keys in [0..half, half..case.kv_len] {
        let inputs = Tensors::from([
            ("q".to_string(), q.clone()),
            ("k".to_string(), slice(k, 2, keys.clone())),
            ("v".to_string(), slice(v, 2, keys.clone())),
        ]);
        let spec = AttentionSpec {
            keys: Keys::Padded { len: keys.len(), lengths: None },
            window: Window::default(),
            ..problem.spec.clone()
        };
        let Some(part) = rerun(subject, case, &spec, &inputs, &["o", "lse"])? else { return Ok(None) };
        let (Some(o), Some(lse)) = (part.get("o"), part.get("lse")) else { return Ok(None) };
        parts.push((o.to_f64(), lse.to_f64()));
    }
    Ok(merged_differs(&prepared.truth, prepared.contract.lse, &parts[0], &parts[1]))
}

/// The first element of `O` that the merge of two halves, each its `O` and LSE, misses.
fn merged_differs(
    truth: &Expected,
    lse: Format,
    (o1, lse1): &(Vec<f64>, Vec<f64>),
    (o2, lse2): &(Vec<f64>, Vec<f64>),
) -> Option<Violation> {
    let expected = truth.get("o")?;
    let dim = *expected.shape.last()?;
    for (n, value) in expected.value.iter().enumerate() {
        let (l1, l2) = (*lse1.get(n / dim)?, *lse2.get(n / dim)?);
        let l = l1.max(l2);
        let (w1, w2) = ((l1 - l).exp(), (l2 - l).exp());
        let (a, b) = (*o1.get(n)?, *o2.get(n)?);
        let merged = (w1 * a + w2 * b) / (w1 + w2);
        // Each half is within a bound of its own truth, of the same size as the whole's or below it in its share;
        // an error of either LSE moves weight between the halves.
        let stored = final_rounding(lse, l1) + final_rounding(lse, l2);
        let lse_bound = 2.0 * truth.get("lse")?.worst[n / dim] + stored;
        let storage = expected.format.unit_roundoff() * (a.abs() + b.abs()) + 2.0 * expected.format.underflow_unit();
        let limit = 3.0 * expected.worst[n] + lse_bound * (a - b).abs() + storage;
        // Not `>`: half of the keys may have given a NaN.
        let holds = (merged - tilewright_scalar::Real::to_f64(*value)).abs() <= limit;
        if !holds {
            let detail = format!("element {n}: {merged:e}, expected {:e} ± {limit:.2e}", value.hi());
            return Some(incident(Kind::Law, "merging halves by LSE gives the whole", detail));
        }
    }
    None
}
