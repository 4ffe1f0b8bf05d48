//! Every feature at once, against the textbook formula, held to the bounds of the contract that is claimed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, cases, config};
use proptest::prelude::*;
use tilewright_attention::{AttentionBackward, AttentionForward, bf16, f16};
use tilewright_cpu::{Bf16Products, CpuAttention, StandardAttention};
use tilewright_scalar::{DoubleDouble, Element, Real};

fn conforms<T: Element, A: Real>(case: &Case) -> Result<(), TestCaseError>
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    conforms_by::<T, A>(case, case.method())
}

fn conforms_by<T: Element, A: Real>(case: &Case, method: CpuAttention) -> Result<(), TestCaseError>
where
    CpuAttention: AttentionForward<T> + AttentionBackward<T>,
{
    let tensors = case.tensors::<T>();
    tensors.judge::<A>(&tensors.run(&method), &method.contract(T::FORMAT))
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn f32_keeps_its_contract(case in cases()) {
        conforms::<f32, f64>(&case)?;
    }

    #[test]
    fn bf16_keeps_its_contract(case in cases()) {
        conforms::<bf16, f64>(&case)?;
    }

    #[test]
    fn f16_keeps_its_contract(case in cases()) {
        conforms::<f16, f64>(&case)?;
    }

    #[test]
    fn pairs_of_bf16_keep_theirs(case in cases()) {
        conforms_by::<bf16, f64>(&case, case.method().with_bf16_products(Bf16Products::Paired))?;
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn f32_keeps_it_over_several_tiles(case in cases()) {
        conforms::<f32, f64>(&case.longer())?;
    }

    #[test]
    fn pairs_of_bf16_keep_theirs_over_several_tiles(case in cases()) {
        let case = case.longer();
        conforms_by::<bf16, f64>(&case, case.method().with_bf16_products(Bf16Products::Paired))?;
    }

    #[test]
    fn f64_keeps_its_contract(case in cases()) {
        conforms::<f64, DoubleDouble>(&case)?;
    }

    #[test]
    fn the_standard_method_keeps_it_too(mut case in cases()) {
        (case.keys, case.bias) = (case.keys % 3, None);
        let tensors = case.tensors::<f32>();
        let contract = CpuAttention::with_tiles(64, 64).contract(f32::FORMAT);
        tensors.judge::<f64>(&tensors.run(&StandardAttention), &contract)?;
    }
}

/// A softcap that f32 cannot hold bends nothing; one that vanishes in it flattens everything. Neither is NaN.
#[test]
fn softcaps_beyond_f32() {
    use ndarray::{Array3, Array4};
    use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs};
    let run = |softcap: Option<f64>| {
        let spec = AttentionSpec { softcap, ..AttentionSpec::dense(1, 1, 3, 5, 4) };
        let wave = |shape, step| Array4::from_shape_fn(shape, |(.., i, c)| ((3 * i + c) * step % 7) as f32 / 4.0 - 1.0);
        let (q, k, v) = (wave(spec.q_shape(), 5), wave(spec.k_shape(), 3), wave(spec.v_shape(), 2));
        let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
        let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
        CpuAttention::default().forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), out).unwrap();
        (o, lse)
    };
    assert_eq!(run(Some(1e308)), run(None));
    let (_, lse) = run(Some(1e-300));
    assert!(lse.iter().all(|lse| (lse - 5f32.ln()).abs() < 1e-6)); // five scores of 0
}
