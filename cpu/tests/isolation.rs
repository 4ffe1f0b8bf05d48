//! What is masked or out of length cannot be observed, even where it is NaN or infinite. (That unused storage is NaN in
//! every case, and outputs too before they are written, is the doing of `common`.)
#![allow(clippy::unwrap_used)]

mod common;

use common::{Case, Results, Tensors, cases, config, hash};
use ndarray::Axis;
use proptest::prelude::*;
use tilewright_attention::reference;
use tilewright_scalar::Element;

/// Puts `poison` into one row, picked by the seed, of one of `q`, `k`, `v`, `d_o`.
fn poisoned(case: &Case, poison: f64) -> Tensors<f64> {
    let mut tensors = case.tensors::<f64>();
    let pick = |salt: usize, length: usize| hash(case.seed, &[77, salt]) as usize % length;
    let tensor = match pick(0, 4) {
        0 => &mut tensors.q,
        1 => &mut tensors.k,
        2 => &mut tensors.v,
        _ => &mut tensors.d_o,
    };
    if !tensor.is_empty() {
        let (slots, heads, rows, columns) = tensor.dim();
        tensor[[pick(1, slots), pick(2, heads), pick(3, rows), pick(4, columns)]] = poison;
    }
    tensors
}

/// A result is finite exactly where the definition's is, and close to it there.
fn agrees_where_finite(tensors: &Tensors<f64>, got: &Results<f64>) -> Result<(), TestCaseError> {
    let d_lse = tensors.d_lse.as_ref().map(|x| x.view());
    let forward = reference::forward::<f64, f64>(&tensors.spec, &tensors.inputs()).unwrap();
    let backward =
        reference::backward::<f64, f64>(&tensors.spec, &tensors.inputs(), tensors.d_o.view(), d_lse).unwrap();
    let pairs = [(&got.o, &forward.o), (&got.d_q, &backward.d_q), (&got.d_k, &backward.d_k), (&got.d_v, &backward.d_v)];
    for (name, (got, truth)) in ["o", "d_q", "d_k", "d_v"].into_iter().zip(pairs) {
        for (index, truth) in truth.indexed_iter() {
            let got = got[index];
            let same =
                if truth.is_finite() { (got - truth).abs() < 1e-9 * truth.abs().max(1.0) } else { !got.is_finite() };
            prop_assert!(same, "{}{:?}: got {}, expected {}", name, index, got, truth);
        }
    }
    for (got, truth) in got.d_sink.iter().flatten().zip(backward.d_sink.iter().flatten()) {
        prop_assert_eq!(got.is_nan(), truth.is_nan());
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_nan_reaches_exactly_what_may_see_it(case in cases()) {
        let tensors = poisoned(&case, f64::NAN);
        agrees_where_finite(&tensors, &tensors.run(&case.method()))?;
    }

    /// Infinite scores are NaN in the definition too; infinite values and gradients stay within the rows that see them.
    #[test]
    fn an_infinity_stays_with_those_who_see_it(mut case in cases()) {
        (case.dropout, case.softcap) = (false, false); // 0 · ∞ and tanh ∞ are somebody else's subject
        let tensors = poisoned(&case, f64::INFINITY);
        let got = tensors.run(&case.method());
        let forward = reference::forward::<f64, f64>(&tensors.spec, &tensors.inputs()).unwrap();
        for (index, truth) in forward.o.indexed_iter() {
            prop_assert_eq!(got.o[index].is_finite(), truth.is_finite(), "o{:?}", index);
        }
    }

    #[test]
    fn rows_that_see_nothing_are_zero(mut case in cases()) {
        case.sink = false;
        let tensors = case.tensors::<f32>();
        let got = tensors.run(&case.method());
        let spec = &tensors.spec;
        for (b, h) in (0..spec.batch).flat_map(|b| (0..spec.q_heads).map(move |h| (b, h))) {
            for i in 0..spec.q_len(b) {
                let (slot, row) = spec.query_slot(b, i);
                let blind = !(0..spec.kv_len(b)).any(|j| spec.visible(b, h, i, j));
                prop_assert_eq!(got.lse[[slot, h, row]] == f32::NEG_INFINITY, blind);
                for tensor in [&got.o, &got.d_q] {
                    let zero = tensor.index_axis(Axis(0), slot).index_axis(Axis(0), h).row(row).iter().all(|x| x.to_bits64() == 0);
                    prop_assert!(!blind || zero);
                }
            }
        }
    }
}
