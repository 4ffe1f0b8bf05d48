//! Every feature at once, against the textbook formula, held to the bounds of the contract that is claimed.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, cases, config};
use proptest::prelude::*;
use tilewright_attention::{bf16, f16};
use tilewright_cpu::{CpuAttention, StandardAttention};
use tilewright_scalar::{DoubleDouble, Element, Real};

fn conforms<T: Element, A: Real>(case: &Case) -> Result<(), TestCaseError> {
    let (tensors, method) = (case.tensors::<T>(), case.method());
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
}

proptest! {
    #![proptest_config(config(60))]

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
