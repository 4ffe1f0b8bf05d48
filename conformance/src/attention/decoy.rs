//! Decoys: answers that are wrong in a known way. A case is evidence against a fault only if it would have rejected
//! that fault's decoy, and the decoy nearest to a wrong answer is the hint in its report.

use crate::attention::Feature;
use crate::attention::expected::{BACKWARD, Expected, ExpectedTensor, FORWARD};
use crate::attention::generate::Problem;
use crate::attention::typed::{self, with_element};
use crate::tensor::{Stored, Tensor};
use ndarray::{Array3, Array4};
use std::collections::BTreeMap;
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Inputs, Keys, reference};
use tilewright_scalar::{Element, Real};

/// Outputs in `f64`, in C order, by name.
pub type Answer = BTreeMap<&'static str, Vec<f64>>;

/// A wrong answer's name and how to come by it.
#[derive(Clone, Copy, Debug)]
pub struct Decoy {
    /// What is wrong, as the report says it.
    pub name: &'static str,
    /// The feature this decoy is about; `None` concerns any case.
    pub feature: Option<Feature>,
    twist: Twist,
}

#[derive(Clone, Copy, Debug)]
enum Twist {
    Zeros,
    Scale(f64),
    ScaleTwice,
    Uniform,
    LastKey,
    FirstKey,
    OtherCorner,
    StrictDiagonal,
    NoMask,
    WindowLeft(isize),
    WindowRight(isize),
    NoSoftcap,
    NoAlibi,
    NegatedAlibi,
    NoBias,
    NoSink,
    NoDropout,
    OtherDropout,
    NoBlockMask,
    NextHead,
    OneKeyMore,
    SwappedPages,
    LseBase2,
    LseNegated,
    QGradientUnscaled,
    KGradientUnscaled,
    NoRowSum,
    AddedRowSum,
    NoLseGradient,
}

/// Every decoy there is.
pub const DECOYS: [Decoy; 34] = [
    decoy("all zeros", None, Twist::Zeros),
    decoy("scale off by 1 %", None, Twist::Scale(1.01)),
    decoy("scale left out", None, Twist::Scale(0.0)),
    decoy("scale applied twice", None, Twist::ScaleTwice),
    decoy("mean of the visible values", None, Twist::Uniform),
    decoy("last visible key dropped", None, Twist::LastKey),
    decoy("first visible key dropped", None, Twist::FirstKey),
    decoy("LSE in base 2", None, Twist::LseBase2),
    decoy("LSE negated", None, Twist::LseNegated),
    decoy("dQ not multiplied by scale", None, Twist::QGradientUnscaled),
    decoy("dK not multiplied by scale", None, Twist::KGradientUnscaled),
    decoy("row sum D left out of dS", None, Twist::NoRowSum),
    decoy("row sum D added to dP", None, Twist::AddedRowSum),
    decoy("causal diagonal in the other corner", Some(Feature::CausalTopLeft), Twist::OtherCorner),
    decoy("causal diagonal in the other corner", Some(Feature::CausalBottomRight), Twist::OtherCorner),
    decoy("diagonal excluded", Some(Feature::CausalTopLeft), Twist::StrictDiagonal),
    decoy("diagonal excluded", Some(Feature::CausalBottomRight), Twist::StrictDiagonal),
    decoy("mask ignored", Some(Feature::CausalTopLeft), Twist::NoMask),
    decoy("mask ignored", Some(Feature::CausalBottomRight), Twist::NoMask),
    decoy("mask ignored", Some(Feature::Window), Twist::NoMask),
    decoy("window one wider on the left", Some(Feature::Window), Twist::WindowLeft(1)),
    decoy("window one wider on the right", Some(Feature::Window), Twist::WindowRight(1)),
    decoy("softcap left out", Some(Feature::Softcap), Twist::NoSoftcap),
    decoy("ALiBi left out", Some(Feature::Alibi), Twist::NoAlibi),
    decoy("ALiBi of the wrong sign", Some(Feature::Alibi), Twist::NegatedAlibi),
    decoy("bias left out", Some(Feature::Bias), Twist::NoBias),
    decoy("sink left out", Some(Feature::Sink), Twist::NoSink),
    decoy("dropout left out", Some(Feature::Dropout), Twist::NoDropout),
    decoy("dropout of another seed", Some(Feature::Dropout), Twist::OtherDropout),
    decoy("block mask ignored", Some(Feature::BlockMask), Twist::NoBlockMask),
    decoy("key/value head of the neighbouring query head", Some(Feature::Gqa), Twist::NextHead),
    decoy("a key more than the sequence has", Some(Feature::Lengths), Twist::OneKeyMore),
    decoy("first two pages swapped", Some(Feature::Paged), Twist::SwappedPages),
    decoy("gradient into LSE ignored", Some(Feature::LseGradient), Twist::NoLseGradient),
];

const fn decoy(name: &'static str, feature: Option<Feature>, twist: Twist) -> Decoy {
    Decoy { name, feature, twist }
}

impl Decoy {
    /// Whether only gradients can show this fault.
    pub fn backward_only(&self) -> bool {
        matches!(
            self.twist,
            Twist::QGradientUnscaled
                | Twist::KGradientUnscaled
                | Twist::NoRowSum
                | Twist::AddedRowSum
                | Twist::NoLseGradient
        )
    }

    /// The wrong answer, or `None` where the fault makes no sense for this problem.
    pub fn answer(&self, problem: &Problem, truth: &Expected, backward: bool) -> Option<Answer> {
        let copy = || truth.iter().map(|(name, t)| (*name, t.value.iter().map(|x| x.to_f64()).collect())).collect();
        let each = |name: &str, f: &dyn Fn(f64) -> f64| {
            let mut answer: Answer = copy();
            answer.get_mut(name)?.iter_mut().for_each(|x| *x = f(*x));
            Some(answer)
        };
        let scale = problem.spec.scale;
        match self.twist {
            Twist::Zeros => Some(truth.iter().map(|(name, t)| (*name, vec![0.0; t.value.len()])).collect()),
            Twist::LseBase2 => each("lse", &|x| x * std::f64::consts::LOG2_E),
            Twist::LseNegated => each("lse", &|x| -x),
            Twist::QGradientUnscaled => each("d_q", &|x| x / scale).filter(|_| scale != 0.0),
            Twist::KGradientUnscaled => each("d_k", &|x| x / scale).filter(|_| scale != 0.0),
            _ => {
                let format = problem.inputs.get("q")?.format();
                with_element!(format, T => self.recompute::<T>(problem, backward))
            }
        }
    }

    /// The reference's answer to the problem a faulty kernel solves.
    fn recompute<T: Stored>(&self, problem: &Problem, backward: bool) -> Option<Answer>
    where
        T::Accum: Stored,
    {
        let mut spec = problem.spec.clone();
        let mut inputs = typed::inputs::<T>(&problem.inputs).ok()?;
        let (swapped_k, swapped_v);
        match self.twist {
            Twist::NoBias => inputs.bias = None,
            Twist::NoSink => inputs.sink = None,
            Twist::NextHead => {
                swapped_k = rolled(inputs.k.to_owned());
                swapped_v = rolled(inputs.v.to_owned());
                (inputs.k, inputs.v) = (swapped_k.view(), swapped_v.view());
            }
            _ => self.twist_spec(&mut spec)?,
        }
        let result = reference::forward::<T, f64>(&spec, &inputs).ok()?;
        let mut answer = Answer::from([
            ("o", result.o.iter().copied().collect::<Vec<f64>>()),
            ("lse", result.lse.iter().copied().collect()),
        ]);
        if backward {
            self.gradients(problem, &spec, &inputs, &result.o, &mut answer)?;
        }
        Some(answer)
    }

    fn gradients<T: Stored>(
        &self,
        problem: &Problem,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        o: &Array4<f64>,
        answer: &mut Answer,
    ) -> Option<()>
    where
        T::Accum: Stored,
    {
        let d_o = typed::view::<T, ndarray::Ix4>(&problem.inputs, "d_o").ok()?;
        let d_lse = typed::view_if_present::<T::Accum, ndarray::Ix3>(&problem.inputs, "d_lse").ok()?;
        // dS = P (dP − D + dLSE): a gradient of D into LSE cancels D, one of 2 D turns its sign.
        let times = match self.twist {
            Twist::NoRowSum => 1.0,
            Twist::AddedRowSum => 2.0,
            _ => 0.0,
        };
        let mut into_lse = Array3::from_shape_fn(spec.lse_shape(), |at| {
            let at = [at.0, at.1, at.2];
            let row_sum: f64 =
                (0..spec.value_dim).map(|x| d_o[[at[0], at[1], at[2], x]].to_f64() * o[[at[0], at[1], at[2], x]]).sum();
            let given = d_lse.map_or(0.0, |d_lse| Element::to_f64(d_lse[at]));
            <T::Accum as Element>::from_f64(given + if times == 0.0 { 0.0 } else { times * row_sum })
        });
        if matches!(self.twist, Twist::NoLseGradient) {
            into_lse.fill(<T::Accum as Element>::from_f64(0.0));
        }
        let result = reference::backward::<T, f64>(spec, inputs, d_o, Some(into_lse.view())).ok()?;
        answer.insert("d_q", result.d_q.iter().copied().collect());
        answer.insert("d_k", result.d_k.iter().copied().collect());
        answer.insert("d_v", result.d_v.iter().copied().collect());
        result.d_bias.map(|d_bias| answer.insert("d_bias", d_bias.iter().copied().collect()));
        result.d_sink.map(|d_sink| answer.insert("d_sink", d_sink.iter().copied().collect()));
        Some(())
    }

    fn twist_spec(&self, spec: &mut AttentionSpec) -> Option<()> {
        match self.twist {
            Twist::Scale(factor) if factor != 0.0 => spec.scale *= factor,
            Twist::Scale(_) => spec.scale = 1.0,
            Twist::ScaleTwice => spec.scale *= spec.scale,
            Twist::Uniform => {
                spec.scale = 0.0;
                spec.alibi = None;
            }
            Twist::LastKey | Twist::FirstKey => drop_edge_key(spec, matches!(self.twist, Twist::LastKey)),
            Twist::OtherCorner => {
                spec.align = match spec.align {
                    CausalAlign::TopLeft => CausalAlign::BottomRight,
                    CausalAlign::BottomRight => CausalAlign::TopLeft,
                }
            }
            Twist::StrictDiagonal => {
                let original = spec.clone();
                restrict(spec, |b, h, i, j| {
                    original.visible(b, h, i, j) && j as isize != i as isize + original.offset(b)
                });
            }
            Twist::NoMask => {
                spec.causal = false;
                spec.window = tilewright_attention::Window::default();
            }
            Twist::WindowLeft(by) => spec.window.left = Some(spec.window.left?.checked_add_signed(by)?),
            Twist::WindowRight(by) => spec.window.right = Some(spec.window.right?.checked_add_signed(by)?),
            Twist::NoSoftcap => spec.softcap = None,
            Twist::NoAlibi => spec.alibi = None,
            Twist::NegatedAlibi => spec.alibi.as_mut()?.iter_mut().for_each(|slope| *slope = -*slope),
            Twist::NoDropout => spec.dropout = None,
            Twist::OtherDropout => spec.dropout.as_mut()?.seed ^= 1,
            Twist::NoBlockMask => spec.block_mask = None,
            Twist::OneKeyMore => {
                let Keys::Padded { len, lengths: Some(lengths) } = &mut spec.keys else { return None };
                for length in lengths.iter_mut() {
                    *length = (*length + 1).min(*len);
                }
            }
            Twist::SwappedPages => {
                let Keys::Paged { table, .. } = &mut spec.keys else { return None };
                table.iter_mut().filter(|row| row.len() > 1).for_each(|row| row.swap(0, 1));
            }
            _ => {}
        }
        Some(())
    }
}

/// Heads rolled by one: each query head reads its neighbour group's key/value head.
fn rolled<T: Stored>(tensor: Array4<T>) -> Array4<T> {
    let heads = tensor.dim().1;
    let order: Vec<usize> = (0..heads).map(|h| (h + 1) % heads.max(1)).collect();
    tensor.select(ndarray::Axis(1), &order)
}

/// Replaces every mask by an entry-by-entry one.
fn restrict(spec: &mut AttentionSpec, visible: impl Fn(usize, usize, usize, usize) -> bool) {
    let shape = (spec.batch, spec.q_heads, spec.max_q_len(), spec.max_kv_len());
    let inside = |b: usize, i: usize, j: usize| i < spec.q_len(b) && j < spec.kv_len(b);
    let blocks = Array4::from_shape_fn(shape, |(b, h, i, j)| inside(b, i, j) && visible(b, h, i, j));
    spec.causal = false;
    spec.window = tilewright_attention::Window::default();
    spec.block_mask = Some(BlockMask { block_q: 1, block_k: 1, blocks });
}

/// Drops the last (or first) key that each row sees.
fn drop_edge_key(spec: &mut AttentionSpec, last: bool) {
    let original = spec.clone();
    restrict(spec, |b, h, i, j| {
        let mut beyond = if last { j + 1..original.kv_len(b) } else { 0..j };
        original.visible(b, h, i, j) && beyond.any(|other| original.visible(b, h, i, other))
    });
}

/// The tensors of an answer that the judge's certain bound would reject.
pub fn rejected(truth: &Expected, answer: &Answer) -> Vec<&'static str> {
    let beyond = |name: &str, expected: &ExpectedTensor| {
        answer.get(name).is_some_and(|values| {
            values.iter().enumerate().any(|(n, x)| {
                // A faulty kernel stores what it computed: its last rounding may bring it back within the bound.
                let (x, value) = (&expected.rounding.round(*x), expected.value[n]);
                if value.hi().is_finite() {
                    !x.is_finite() || super::judge::error(*x, value) > expected.worst[n]
                } else {
                    *x != value.hi()
                }
            })
        })
    };
    truth.iter().filter(|(name, expected)| beyond(name, expected)).map(|(name, _)| *name).collect()
}

/// The decoy whose deviation from the truth is most like an answer's, if one points the same way at all, and the cosine
/// between the two: over all elements, each in units of its bound. Among directions as good as each other the size
/// decides, so that a scale off by 1 % and one left out are told apart.
///
/// Where the forward pass is wrong it alone is compared: gradients follow from it, in as many ways as there are kernels.
pub fn nearest(
    problem: &Problem,
    truth: &Expected,
    answer: &BTreeMap<String, Tensor>,
    backward: bool,
) -> Option<(&'static str, f64)> {
    let got = |name: &str, expected: &ExpectedTensor| {
        answer.get(name).map(Tensor::to_f64).filter(|values| values.len() == expected.value.len())
    };
    let beyond = |names: &[&str]| deviation(truth, names, got).iter().any(|x| x.abs() > 1.0);
    let all: Vec<&str> = truth.keys().copied().collect();
    let names = [&FORWARD[..], &BACKWARD[..]].into_iter().find(|names| beyond(names)).unwrap_or(&all);
    let gradients = backward && names != &FORWARD[..];
    let from_truth = deviation(truth, names, got);
    let likeness = |decoy: &Decoy| {
        let wrong = decoy.answer(problem, truth, gradients)?;
        let (cosine, ratio) = compare(&from_truth, &deviation(truth, names, |name, _| wrong.get(name).cloned()));
        Some((decoy.name, cosine, cosine * 2.0 * ratio / (1.0 + ratio * ratio)))
    };
    DECOYS
        .iter()
        .filter(|decoy| applies(decoy, problem))
        .filter_map(likeness)
        .filter(|(_, cosine, _)| *cosine > 0.8)
        .max_by(|a, b| a.2.total_cmp(&b.2))
        .map(|(name, cosine, _)| (name, cosine))
}

/// The errors of some tensors in units of their bounds; 0 where there is no value, or no finite one.
fn deviation(truth: &Expected, names: &[&str], values: impl Fn(&str, &ExpectedTensor) -> Option<Vec<f64>>) -> Vec<f64> {
    let mut all = Vec::new();
    for (name, expected) in truth.iter().filter(|(name, _)| names.contains(*name)) {
        let values = values(name, expected);
        for (n, value) in expected.value.iter().enumerate() {
            let x = values.as_ref().map_or(value.to_f64(), |values| values[n]);
            let difference = (x - value.to_f64()) / expected.worst[n].max(f64::MIN_POSITIVE);
            all.push(if difference.is_finite() { difference.clamp(-1e12, 1e12) } else { 0.0 });
        }
    }
    all
}

/// Whether a decoy says anything about a problem: those about a feature only where the feature is in use.
pub fn applies(decoy: &Decoy, problem: &Problem) -> bool {
    let spec = &problem.spec;
    match decoy.feature {
        None => true,
        Some(Feature::CausalTopLeft) => spec.causal && spec.align == CausalAlign::TopLeft,
        Some(Feature::CausalBottomRight) => spec.causal && spec.align == CausalAlign::BottomRight,
        Some(Feature::Window) => spec.window != tilewright_attention::Window::default(),
        Some(Feature::Softcap) => spec.softcap.is_some(),
        Some(Feature::Alibi) => spec.alibi.is_some(),
        Some(Feature::Bias) => problem.inputs.contains_key("bias"),
        Some(Feature::Sink) => problem.inputs.contains_key("sink"),
        Some(Feature::Dropout) => spec.dropout.is_some(),
        Some(Feature::BlockMask) => spec.block_mask.is_some(),
        Some(Feature::Gqa) => spec.kv_heads != spec.q_heads && spec.kv_heads > 1,
        Some(Feature::Lengths) => matches!(&spec.keys, Keys::Padded { lengths: Some(_), .. }),
        Some(Feature::Paged) => matches!(&spec.keys, Keys::Paged { .. }),
        Some(Feature::LseGradient) => problem.inputs.contains_key("d_lse"),
        Some(_) => false,
    }
}

/// The cosine between two vectors and the ratio of their lengths.
fn compare(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    (dot / (aa * bb).sqrt().max(f64::MIN_POSITIVE), (aa / bb.max(f64::MIN_POSITIVE)).sqrt())
}
