//! The reference against answers that share neither code nor method with it: the textbook formula in float64 by
//! PyTorch, its gradients by autograd (`vectors/README.md`).
//!
//! The error of a tensor is the largest error of an entry over its gauge, the largest magnitude in the expected tensor
//! (1 if that is all zeros): float64 leaves a few hundred roundings of 1.1e-16 of it, so 1e-12 has room for arithmetic
//! in another order and for nothing else. Infinities must be the same ones. Case by case a dropped term, a wrong offset
//! or a wrong factor is of order 1.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::{ArrayD, Ix1, Ix3, Ix4};
use std::collections::BTreeMap;
use tilewright_attention::{Inputs, reference};
use tilewright_conformance::attention::file::{FileCase, read_cases};
use tilewright_conformance::tensor::Stored;
use tilewright_scalar::{DoubleDouble, Real};

const TOLERANCE: f64 = 1e-12;
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");

/// The largest error over the gauge; infinite where the answers are not even of one kind.
fn error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let gauge = expected.iter().filter(|x| x.is_finite()).fold(0f64, |max, x| max.max(x.abs()));
    let gauge = if gauge == 0.0 { 1.0 } else { gauge };
    got.iter().zip(expected).fold(0f64, |worst, (&got, &expected)| {
        let error = if got == expected { 0.0 } else { (got - expected).abs() / gauge };
        if error.is_nan() { f64::INFINITY } else { worst.max(error) }
    })
}

fn values<A: Real, D: ndarray::Dimension>(array: &ndarray::Array<A, D>) -> Vec<f64> {
    array.iter().map(|x| x.to_f64()).collect()
}

/// Every output of the reference in the working precision `A`, by role.
fn answers<A: Real>(case: &FileCase) -> BTreeMap<&'static str, Vec<f64>> {
    let array = |role: &str| -> Option<ArrayD<f32>> {
        case.tensors.get(role).map(|tensor| <f32 as Stored>::unwrap(tensor).expect("inputs are f32").clone())
    };
    let four = |role: &str| array(role).map(|array| array.into_dimensionality::<Ix4>().unwrap());
    let (q, k, v, d_o) = (four("q").unwrap(), four("k").unwrap(), four("v").unwrap(), four("d_o").unwrap());
    let bias = four("bias");
    let sink = array("sink").map(|sink| sink.into_dimensionality::<Ix1>().unwrap());
    let d_lse = array("d_lse").map(|d_lse| d_lse.into_dimensionality::<Ix3>().unwrap());
    let inputs = Inputs {
        bias: bias.as_ref().map(|bias| bias.view()),
        sink: sink.as_ref().map(|sink| sink.view()),
        ..Inputs::new(q.view(), k.view(), v.view())
    };
    let forward = reference::forward::<f32, A>(&case.spec, &inputs).unwrap();
    let d_lse = d_lse.as_ref().map(|d_lse| d_lse.view());
    let gradients = reference::backward::<f32, A>(&case.spec, &inputs, d_o.view(), d_lse).unwrap();
    let mut answers = BTreeMap::from([
        ("o", values(&forward.o)),
        ("lse", values(&forward.lse)),
        ("d_q", values(&gradients.d_q)),
        ("d_k", values(&gradients.d_k)),
        ("d_v", values(&gradients.d_v)),
    ]);
    answers.extend(gradients.d_bias.map(|d_bias| ("d_bias", values(&d_bias))));
    answers.extend(gradients.d_sink.map(|d_sink| ("d_sink", values(&d_sink))));
    answers
}

/// Worst error of each tensor kind over a file, and the case it is in.
type Worst = BTreeMap<&'static str, (f64, String)>;

fn record(worst: &mut Worst, role: &'static str, error: f64, case: &str) {
    let entry = worst.entry(role).or_insert((0.0, "(all exact)".into()));
    if error > entry.0 {
        *entry = (error, case.into());
    }
}

/// Judges every tensor of every case of a file against both working precisions; returns how many cases there were.
fn judge(file: &str, expected_cases: usize) {
    let cases = read_cases(format!("{VECTORS}/{file}")).unwrap();
    assert_eq!(cases.len(), expected_cases);
    let (mut single, mut double) = (Worst::new(), Worst::new());
    for case in &cases {
        let (in_f64, in_double_double) = (answers::<f64>(case), answers::<DoubleDouble>(case));
        let roles: Vec<_> = in_f64.keys().collect();
        for (role, got) in &in_f64 {
            let expected = case.tensors.get(*role).expect("every output has an expected tensor").to_f64();
            let doubled = &in_double_double[role];
            record(&mut single, role, error(got, &expected), &case.name);
            record(&mut double, role, error(doubled, &expected).max(error(got, doubled)), &case.name);
        }
        let inputs = ["q", "k", "v", "d_o", "d_lse", "bias", "sink"];
        let stray =
            case.tensors.keys().find(|role| !inputs.contains(&role.as_str()) && !roles.contains(&&role.as_str()));
        assert_eq!(stray, None, "{}: a tensor that nothing was compared with", case.name);
    }
    println!("{file}: {expected_cases} cases\n{:8} {:>9} {:24} {:>13}", "tensor", "f64", "worst case", "double-double");
    for (role, (error, case)) in &single {
        println!("{role:8} {error:9.1e} {case:24} {:13.1e}", double[role].0);
    }
    for (role, (error, case)) in single.iter().chain(&double) {
        assert!(*error <= TOLERANCE, "{role} of {case}: {error:.1e} of its gauge");
    }
}

#[test]
fn reference_agrees_with_autograd_on_synthetic_cases() {
    judge("attention_synthetic.safetensors", 22);
}

#[test]
fn reference_agrees_with_autograd_on_recorded_activations() {
    judge("attention_minilm.safetensors", 2);
}

#[test]
fn the_gauge_sees_wrong_kinds_and_wrong_scales() {
    assert_eq!(error(&[1.0, f64::NEG_INFINITY], &[1.0, f64::NEG_INFINITY]), 0.0);
    assert_eq!(error(&[1.0, 0.0], &[1.0, f64::NEG_INFINITY]), f64::INFINITY);
    assert_eq!(error(&[f64::NAN], &[1.0]), f64::INFINITY);
    assert_eq!(error(&[4.0, 1.0], &[4.0, 2.0]), 0.25);
    assert_eq!(error(&[0.5], &[0.0]), 0.5);
}
