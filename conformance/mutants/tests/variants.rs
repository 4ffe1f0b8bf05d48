//! The kernel without a bug: every variant agrees with the reference and keeps the contract it declares.
#![allow(clippy::unwrap_used)]

mod common;

use common::specs::cases;
use common::{Case, Named, Tensors, backward, forward};
use proptest::prelude::*;
use tilewright_attention::{AttentionError, AttentionForward, Contract, Inputs, Outputs, bound, reference};
use tilewright_mutants::attention::{Fault, Kernel, Variant, mutants, variants};
use tilewright_scalar::{DoubleDouble, Element, Real, bf16, f16};

/// True values, in the order of the kernel's tensors.
fn truth<T: Element>(case: &Case, tensors: &Tensors<T>) -> Named {
    let values = |x: &mut dyn Iterator<Item = &DoubleDouble>| x.map(|x| x.to_f64()).collect::<Vec<_>>();
    let forward = reference::forward::<T, DoubleDouble>(&case.spec, &tensors.inputs()).unwrap();
    let gradients =
        reference::backward::<T, DoubleDouble>(&case.spec, &tensors.inputs(), tensors.d_o(), tensors.d_lse()).unwrap();
    let mut named = vec![
        ("o", values(&mut forward.o.iter())),
        ("lse", values(&mut forward.lse.iter())),
        ("d_q", values(&mut gradients.d_q.iter())),
        ("d_k", values(&mut gradients.d_k.iter())),
        ("d_v", values(&mut gradients.d_v.iter())),
    ];
    named.extend(gradients.d_bias.map(|x| ("d_bias", values(&mut x.iter()))));
    named.extend(gradients.d_sink.map(|x| ("d_sink", values(&mut x.iter()))));
    named
}

/// What any kernel of this contract stays within.
fn limits<T: Element>(case: &Case, tensors: &Tensors<T>, contract: &Contract) -> Vec<Vec<f64>> {
    let forward = bound::forward(&case.spec, &tensors.inputs(), contract).unwrap();
    let gradients = bound::backward(&case.spec, &tensors.inputs(), tensors.d_o(), tensors.d_lse(), contract).unwrap();
    let mut limits = vec![
        forward.o.worst.into_iter().collect(),
        forward.lse.worst.into_iter().collect(),
        gradients.d_q.worst.into_iter().collect(),
        gradients.d_k.worst.into_iter().collect::<Vec<_>>(),
        gradients.d_v.worst.into_iter().collect(),
    ];
    limits.extend(gradients.d_bias.map(|limit| limit.worst.into_iter().collect::<Vec<_>>()));
    limits.extend(gradients.d_sink.map(|limit| limit.worst.into_iter().collect::<Vec<_>>()));
    limits
}

fn run<T: Element>(case: &Case, tensors: &Tensors<T>, kernel: &Kernel) -> Named {
    let stored = forward(kernel, case, tensors);
    let mut named = stored.named();
    named.extend(backward(kernel, case, tensors, &stored));
    named
}

/// Distance, with equal infinities and nothing else at distance 0 from an infinity.
fn distance(got: f64, exact: f64) -> f64 {
    if got == exact {
        0.0
    } else if got.is_finite() && exact.is_finite() {
        (got - exact).abs()
    } else {
        f64::INFINITY
    }
}

/// Without any theory: no tensor is further off than `relative` of its largest entry.
fn agrees<T: Element>(case: &Case, relative: f64) -> Result<(), TestCaseError> {
    let tensors = Tensors::<T>::new(case);
    let expected = truth(case, &tensors);
    for control in variants().iter().filter(|control| control.variant.supports(T::FORMAT)) {
        for ((name, got), (_, exact)) in run(case, &tensors, &Kernel::correct(control.variant)).iter().zip(&expected) {
            let largest = exact.iter().filter(|x| x.is_finite()).fold(1.0, |max: f64, x| max.max(x.abs()));
            for (n, (got, exact)) in got.iter().zip(exact).enumerate() {
                let error = distance(*got, *exact);
                prop_assert!(error <= relative * largest, "{}: {name}[{n}] = {got}, not {exact}", control.name);
            }
        }
    }
    Ok(())
}

fn keeps_contracts<T: Element>(case: &Case) -> Result<(), TestCaseError> {
    let tensors = Tensors::<T>::new(case);
    let expected = truth(case, &tensors);
    for control in variants().iter().filter(|control| control.variant.supports(T::FORMAT)) {
        let limits = limits(case, &tensors, &control.variant.contract(T::FORMAT));
        let got = run(case, &tensors, &Kernel::correct(control.variant));
        for (((name, got), (_, exact)), limit) in got.iter().zip(&expected).zip(&limits) {
            for (n, ((got, exact), limit)) in got.iter().zip(exact).zip(limit).enumerate() {
                let error = distance(*got, *exact);
                prop_assert!(error <= *limit, "{}: {name}[{n}] = {got}, not {exact} ± {limit}", control.name);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn variants_agree_with_the_reference_in_f64(case in cases()) {
        agrees::<f64>(&case, 1e-11)?;
    }

    #[test]
    fn variants_agree_with_the_reference_in_f32(case in cases()) {
        agrees::<f32>(&case, 3e-4)?;
    }

    #[test]
    fn variants_agree_with_the_reference_in_f16(case in cases()) {
        agrees::<f16>(&case, 0.03)?;
    }

    #[test]
    fn variants_agree_with_the_reference_in_bf16(case in cases()) {
        agrees::<bf16>(&case, 0.2)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn variants_keep_their_contracts_in_f64(case in cases()) {
        keeps_contracts::<f64>(&case)?;
    }

    #[test]
    fn variants_keep_their_contracts_in_f32(case in cases()) {
        keeps_contracts::<f32>(&case)?;
    }

    #[test]
    fn variants_keep_their_contracts_in_f16(case in cases()) {
        keeps_contracts::<f16>(&case)?;
    }

    #[test]
    fn variants_keep_their_contracts_in_bf16(case in cases()) {
        keeps_contracts::<bf16>(&case)?;
    }
}

#[test]
fn catalogues_are_sound() {
    let kebab = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let (mutants, controls) = (mutants(), variants());
    assert!(mutants.len() >= 140 && controls.len() >= 35);
    assert!(mutants.windows(2).all(|pair| pair[0].id < pair[1].id), "numbers must ascend");
    let mut names: Vec<_> = mutants.iter().map(|m| m.name).chain(controls.iter().map(|c| c.name)).collect();
    assert!(names.iter().all(|name| kebab(name)));
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names must differ");
    for (n, control) in controls.iter().enumerate() {
        assert!(controls[..n].iter().all(|other| other.variant != control.variant), "{} repeats", control.name);
        assert!(control.variant.supports(f16::FORMAT));
    }
    is_shareable(&Kernel::faulty(Fault::StrictDiagonal));
}

fn is_shareable(_: &(impl Send + Sync)) {}

#[test]
fn what_a_variant_cannot_do_is_an_error() {
    let case = Case::new("small", tilewright_attention::AttentionSpec::dense(1, 1, 2, 2, 2), 1);
    let refuses = |variant: Variant| {
        let tensors = Tensors::<f64>::new(&case);
        let inputs: Inputs<'_, f64> = tensors.inputs();
        let (mut o, mut lse) =
            (ndarray::Array4::zeros(case.spec.o_shape()), ndarray::Array3::zeros(case.spec.lse_shape()));
        let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
        matches!(Kernel::correct(variant).forward(&case.spec, &inputs, out), Err(AttentionError::Unsupported { .. }))
    };
    assert!(refuses(Variant { addition: tilewright_mutants::attention::Addition::TowardZero, ..Variant::BASE }));
    assert!(refuses(Variant { key_tile: 0, ..Variant::BASE }));
    assert!(!refuses(Variant::BASE));
}
