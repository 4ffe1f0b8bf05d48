//! FlashAttention, forward and backward, against the textbook reference.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Backward, Case, Forward, Gauge, Tensors, cases};
use ndarray::{ArrayView, Dimension};
use proptest::prelude::*;
use tilewright_attention::flash::Flash;
use tilewright_attention::standard::Standard;
use tilewright_attention::{
    AttentionBackward, AttentionForward, AttentionSpec, Element, Inputs, Outputs, bf16, f16, reference,
};

/// Error allowed relative to the gauge: 1e-12 for `f64`, which is far more than it needs; the derived one for the rest.
fn relative<T: Element>(gauge: &Gauge) -> f64 {
    let u = |format: tilewright_attention::Format| format.unit_roundoff();
    let derived = gauge.relative(u(<T::Accum as Element>::FORMAT), u(T::FORMAT));
    if T::FORMAT.name == "f64" { 1e-12 } else { derived }
}

fn compare<T: Element, D: Dimension>(
    what: &str,
    got: ArrayView<'_, T, D>,
    expected: ArrayView<'_, f64, D>,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.shape(), expected.shape());
    for (got, &expected) in got.iter().zip(expected) {
        let got = got.to_f64();
        // An infinity equals itself; a NaN fails.
        prop_assert!(
            got == expected || (got - expected).abs() <= tolerance,
            "{what}: {got}, not {expected}: off by {:e}, {tolerance:e} allowed",
            got - expected
        );
    }
    Ok(())
}

fn forward<T: Element>(method: &impl AttentionForward<T>, case: &Case) -> Result<(), TestCaseError> {
    let (tensors, gauge) = (Tensors::<T>::new(case), Gauge::new(case));
    let mut got = Forward::new(&case.spec);
    method.forward(&case.spec, &tensors.inputs(), got.outputs()).unwrap();
    let expected = reference::forward::<T, f64>(&case.spec, &tensors.inputs()).unwrap();
    compare("o", got.o.view(), expected.o.view(), gauge.o * relative::<T>(&gauge))?;
    // Statistics are kept in the accumulator, whatever the storage.
    compare("lse", got.lse.view(), expected.lse.view(), gauge.lse * relative::<T::Accum>(&gauge))
}

fn backward<T: Element>(case: &Case) -> Result<(), TestCaseError> {
    let (flash, spec, tensors) = (Flash { memory: case.memory }, &case.spec, Tensors::<T>::new(case));
    let mut saved = Forward::new(spec);
    flash.forward(spec, &tensors.inputs(), saved.outputs()).unwrap();
    let mut got = Backward::new(spec, &tensors);
    flash.backward(spec, &tensors.inputs(), &tensors.saved(&saved), got.gradients()).unwrap();
    let d_lse = tensors.d_lse.as_ref().map(|d_lse| d_lse.view());
    let expected = reference::backward::<T, f64>(spec, &tensors.inputs(), tensors.d_o.view(), d_lse).unwrap();
    let (gauge, relative) = (Gauge::new(case), relative::<T>(&Gauge::new(case)));
    compare("d_q", got.d_q.view(), expected.d_q.view(), gauge.d_q * relative)?;
    compare("d_k", got.d_k.view(), expected.d_k.view(), gauge.d_k * relative)?;
    compare("d_v", got.d_v.view(), expected.d_v.view(), gauge.d_v * relative)?;
    if let (Some(got), Some(expected)) = (got.d_bias, expected.d_bias) {
        compare("d_bias", got.view(), expected.view(), gauge.d_bias * relative)?;
    }
    if let (Some(got), Some(expected)) = (got.d_sink, expected.d_sink) {
        compare("d_sink", got.view(), expected.view(), gauge.d_sink * relative)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn forward_is_the_reference(case in cases()) {
        let flash = Flash { memory: case.memory };
        forward::<f64>(&flash, &case)?;
        forward::<f32>(&flash, &case)?;
        forward::<bf16>(&flash, &case)?;
    }

    #[test]
    fn standard_attention_is_the_reference(case in cases()) {
        forward::<f64>(&Standard, &case)?;
        forward::<f16>(&Standard, &case)?;
    }

    #[test]
    fn backward_is_the_reference(case in cases()) {
        backward::<f64>(&case)?;
        backward::<f32>(&case)?;
        backward::<f16>(&case)?;
    }
}

#[test]
fn optional_gradients_may_be_left_out() {
    let spec = AttentionSpec::dense(1, 1, 3, 3, 2);
    let case = Case { spec, seed: 1, bias: Some([false; 4]), sink: true, d_lse: false, memory: 8 };
    let tensors = Tensors::<f64>::new(&case);
    let flash = Flash { memory: case.memory };
    let mut saved = Forward::new(&case.spec);
    flash.forward(&case.spec, &tensors.inputs(), saved.outputs()).unwrap();
    let (mut all, mut fewer) = (Backward::new(&case.spec, &tensors), Backward::new(&case.spec, &tensors));
    (fewer.d_bias, fewer.d_sink) = (None, None);
    for gradients in [&mut all, &mut fewer] {
        flash.backward(&case.spec, &tensors.inputs(), &tensors.saved(&saved), gradients.gradients()).unwrap();
    }
    assert_eq!((all.d_q, all.d_k, all.d_v), (fewer.d_q, fewer.d_k, fewer.d_v));
}

#[test]
fn scores_of_minus_infinity_and_not_a_number() {
    // A visible −∞ score weighs nothing, a row of them is an empty row, and NaN poisons its row only.
    let spec = AttentionSpec::dense(1, 1, 3, 2, 1);
    let case = Case { spec, seed: 3, bias: Some([false; 4]), sink: false, d_lse: true, memory: 4 };
    let mut tensors = Tensors::<f64>::new(&case);
    tensors.bias =
        Some(ndarray::array![[[[0.0, f64::NEG_INFINITY], [f64::NEG_INFINITY, f64::NEG_INFINITY], [f64::NAN, 0.0]]]]);
    let flash = Flash { memory: case.memory };
    let mut out = Forward::new(&case.spec);
    flash.forward(&case.spec, &tensors.inputs(), out.outputs()).unwrap();
    assert_eq!(out.o[[0, 0, 0, 0]], tensors.v[[0, 0, 0, 0]]);
    assert_eq!((out.o[[0, 0, 1, 0]], out.lse[[0, 0, 1]]), (0.0, f64::NEG_INFINITY));
    assert!(out.o[[0, 0, 2, 0]].is_nan() && out.lse[[0, 0, 2]].is_nan());
    let mut gradients = Backward::new(&case.spec, &tensors);
    flash.backward(&case.spec, &tensors.inputs(), &tensors.saved(&out), gradients.gradients()).unwrap();
    assert_eq!(gradients.d_q[[0, 0, 1, 0]], 0.0);
}

#[test]
fn bad_input_is_an_error_and_nothing_is_written() {
    let spec = AttentionSpec::dense(1, 1, 2, 2, 2);
    let case = Case { spec: spec.clone(), seed: 0, bias: None, sink: false, d_lse: false, memory: 8 };
    let tensors = Tensors::<f32>::new(&case);
    let mut out = Forward::new(&spec);
    let error = Flash { memory: 7 }.forward(&spec, &tensors.inputs(), out.outputs()).unwrap_err();
    assert_eq!(error.to_string(), "memory: got 7, expected at least 4·2 elements, one row of each of Q, K, V and O");
    let swapped = Inputs::new(tensors.q.view(), tensors.v.view(), tensors.k.view());
    assert!(Flash { memory: 8 }.forward(&spec, &swapped, out.outputs()).is_ok());
    let longer = AttentionSpec::dense(1, 1, 2, 3, 2);
    let mut out = Forward::new(&spec);
    assert!(Flash { memory: 8 }.forward(&longer, &swapped, out.outputs()).is_err());
    assert!(Standard.forward(&longer, &swapped, out.outputs()).is_err());
    let short = Outputs { o: out.o.view_mut(), lse: out.lse.view_mut() };
    assert!(Flash { memory: 8 }.forward(&AttentionSpec::dense(1, 1, 1, 2, 2), &swapped, short).is_err());
    let mut gradients = Backward::new(&spec, &tensors);
    let saved = tensors.saved(&out);
    assert!(Flash { memory: 8 }.backward(&longer, &swapped, &saved, gradients.gradients()).is_err());
    assert!(Flash { memory: 7 }.backward(&spec, &swapped, &saved, gradients.gradients()).is_err());
    assert!(out.o.iter().chain(&out.lse).chain(&gradients.d_q).all(|x| x.is_nan()));
}
