//! Merging partial attention by log-sum-exp.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Backward, Case, Forward, Gauge, Tensors, cases};
use ndarray::{Array3, Array4, Zip};
use proptest::prelude::*;
use tilewright_attention::flash::Flash;
use tilewright_attention::merge::{merge, merge_row};
use tilewright_attention::{AttentionBackward, AttentionForward, AttentionSpec, BlockMask, Inputs, Saved, reference};
use tilewright_scalar::philox4x32_10;

const NOTHING: f64 = f64::NEG_INFINITY;

type Part = ([f64; 3], f64);

/// `O` within ±8 and LSE within ±40; one part in five saw nothing.
fn part() -> impl Strategy<Value = Part> {
    let saw = (prop::array::uniform3(-8.0..8.0f64), -40.0..40.0f64);
    prop_oneof![4 => saw, 1 => Just(([0.0; 3], NOTHING))]
}

fn merged(a: Part, b: Part) -> Part {
    let (mut o, mut lse) = a;
    merge_row(&mut o, &mut lse, &b.0, b.1);
    (o, lse)
}

fn bits((o, lse): Part) -> [u64; 4] {
    [o[0].to_bits(), o[1].to_bits(), o[2].to_bits(), lse.to_bits()]
}

proptest! {
    #[test]
    fn identity_and_commutativity_are_exact(a in part(), b in part()) {
        let identity = ([0.0; 3], NOTHING);
        // What a part that saw nothing left in its O must not leak.
        let garbage = ([f64::NAN, f64::INFINITY, 1.0], NOTHING);
        for nothing in [identity, garbage] {
            prop_assert_eq!(bits(merged(a, nothing)), bits(a));
            prop_assert_eq!(bits(merged(nothing, a)), bits(a));
        }
        prop_assert_eq!(bits(merged(garbage, garbage)), bits(identity));
        prop_assert_eq!(bits(merged(a, b)), bits(merged(b, a)));
    }

    #[test]
    fn associative_up_to_rounding(a in part(), b in part(), c in part()) {
        let (left, right) = (merged(merged(a, b), c), merged(a, merged(b, c)));
        prop_assert_eq!(left.1 == NOTHING, right.1 == NOTHING);
        if left.1 != NOTHING {
            // |LSE| ≤ 42 =: Λ and |O| ≤ 8. One merge gets its weights wrong by at most u·|LSE₁ − LSE₂| in the exponent,
            // which counts times x·e^{−x} < 1/2, and 2u in exp; its LSE by that, 2u in ln and u·Λ; its O by twice the
            // weights' error and 4u of its own, times 8. The second merge inherits the first LSE's error as an error
            // of its exponent. Both sides do this: 2 · (Λ + 10)·2u for LSE, 2·8·2·(Λ + 20)·u for O.
            let u = f64::EPSILON / 2.0;
            prop_assert!((left.1 - right.1).abs() <= 4.0 * 52.0 * u, "{} {}", left.1, right.1);
            for (x, y) in left.0.iter().zip(right.0) {
                prop_assert!((x - y).abs() <= 32.0 * 62.0 * u, "{x} {y}");
            }
        }
    }
}

/// The case restricted to the keys of each of three parts, through a mask of single keys that refines its own mask.
/// The sink goes to the first part.
fn split(case: &Case) -> Vec<AttentionSpec> {
    let spec = &case.spec;
    let part_of = |j: usize| philox4x32_10([j as u32, 0, 0, 0], [case.seed, 77])[0] as usize % 3;
    let shape = (spec.batch, spec.q_heads, spec.max_q_len(), spec.max_kv_len());
    (0..3)
        .map(|part| {
            let blocks = Array4::from_shape_fn(shape, |(b, h, i, j)| {
                let entry = |mask: &BlockMask| mask.entry(b, h, i / mask.block_q, j / mask.block_k);
                part_of(j) == part && spec.block_mask.as_ref().is_none_or(entry)
            });
            AttentionSpec { block_mask: Some(BlockMask { block_q: 1, block_k: 1, blocks }), ..spec.clone() }
        })
        .collect()
}

fn part_inputs(tensors: &Tensors<f64>, part: usize) -> Inputs<'_, f64> {
    let inputs = tensors.inputs();
    Inputs { sink: inputs.sink.filter(|_| part == 0), ..inputs }
}

fn forward_parts(case: &Case, parts: &[AttentionSpec], tensors: &Tensors<f64>) -> (Vec<Forward<f64>>, Forward<f64>) {
    let flash = Flash { memory: case.memory };
    let run = |(p, spec): (usize, &AttentionSpec)| {
        let mut out = Forward::new(spec);
        flash.forward(spec, &part_inputs(tensors, p), out.outputs()).unwrap();
        out
    };
    let results: Vec<_> = parts.iter().enumerate().map(run).collect();
    let views: Vec<_> = results.iter().map(|part| (part.o.view(), part.lse.view())).collect();
    let mut whole = Forward::new(&case.spec);
    merge(&views, whole.o.view_mut(), whole.lse.view_mut()).unwrap();
    (results, whole)
}

fn near<D: ndarray::Dimension>(a: &ndarray::Array<f64, D>, b: &ndarray::Array<f64, D>, tolerance: f64) -> bool {
    Zip::from(a).and(b).all(|&a, &b| a == b || (a - b).abs() <= tolerance)
}

/// Sums the parts' gradients.
fn add(total: &mut Backward<f64>, part: &Backward<f64>, has_sink: bool) {
    total.d_q += &part.d_q;
    total.d_k += &part.d_k;
    total.d_v += &part.d_v;
    if let (Some(total), Some(part)) = (&mut total.d_bias, &part.d_bias) {
        *total += part;
    }
    if let (Some(total), Some(part), true) = (&mut total.d_sink, &part.d_sink, has_sink) {
        *total += part;
    }
}

fn zeros(spec: &AttentionSpec, tensors: &Tensors<f64>) -> Backward<f64> {
    let mut total = Backward::new(spec, tensors);
    total.d_q.fill(0.0);
    total.d_k.fill(0.0);
    total.d_v.fill(0.0);
    total.d_bias.iter_mut().for_each(|x| x.fill(0.0));
    total.d_sink.iter_mut().for_each(|x| x.fill(0.0));
    total
}

fn part_backward(
    case: &Case,
    spec: &AttentionSpec,
    p: usize,
    tensors: &Tensors<f64>,
    saved: &Saved<'_, f64>,
) -> Backward<f64> {
    let mut gradients = Backward::new(spec, tensors);
    if p > 0 {
        gradients.d_sink = None;
    }
    Flash { memory: case.memory }.backward(spec, &part_inputs(tensors, p), saved, gradients.gradients()).unwrap();
    gradients
}

/// Recipe 2 of the module: what flows into one part when the merge is differentiated.
fn through_the_merge(part: &Forward<f64>, whole: &Forward<f64>, tensors: &Tensors<f64>) -> (Array4<f64>, Array3<f64>) {
    let (mut d_o, mut d_lse) = (Array4::zeros(part.o.dim()), Array3::zeros(part.lse.dim()));
    for ((b, h, i), &lse) in part.lse.indexed_iter().filter(|(_, lse)| **lse != NOTHING) {
        let w = (lse - whole.lse[[b, h, i]]).exp();
        let mut mixed = tensors.d_lse.as_ref().map_or(0.0, |d_lse| d_lse[[b, h, i]]);
        for c in 0..part.o.dim().3 {
            let d_o_whole = tensors.d_o[[b, h, i, c]];
            d_o[[b, h, i, c]] = w * d_o_whole;
            mixed += d_o_whole * (part.o[[b, h, i, c]] - whole.o[[b, h, i, c]]);
        }
        d_lse[[b, h, i]] = w * mixed;
    }
    (d_o, d_lse)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn splitting_keys_and_merging_is_the_whole(case in cases()) {
        let tensors = Tensors::<f64>::new(&case);
        let (_, whole) = forward_parts(&case, &split(&case), &tensors);
        let expected = reference::forward::<f64, f64>(&case.spec, &tensors.inputs()).unwrap();
        let gauge = Gauge::new(&case);
        prop_assert!(near(&whole.o, &expected.o, 1e-12 * gauge.o));
        prop_assert!(near(&whole.lse, &expected.lse, 1e-12 * gauge.lse));
    }

    #[test]
    fn both_gradient_recipes_give_the_gradients_of_the_whole(case in cases()) {
        let mut tensors = Tensors::<f64>::new(&case);
        // A row with a sink alone takes part in a merge: its NaN for "not to be looked at" would be looked at here.
        tensors.d_o.mapv_inplace(|x| if x.is_nan() { 0.0 } else { x });
        let parts = split(&case);
        let (results, whole) = forward_parts(&case, &parts, &tensors);
        let d_lse = tensors.d_lse.as_ref().map(|x| x.view());
        let expected = reference::backward::<f64, f64>(&case.spec, &tensors.inputs(), tensors.d_o.view(), d_lse).unwrap();
        let (mut with_whole, mut through_merge) = (zeros(&case.spec, &tensors), zeros(&case.spec, &tensors));
        for (p, spec) in parts.iter().enumerate() {
            add(&mut with_whole, &part_backward(&case, spec, p, &tensors, &tensors.saved(&whole)), p == 0);
            let (d_o, d_lse) = through_the_merge(&results[p], &whole, &tensors);
            let saved =
                Saved { d_o: d_o.view(), d_lse: Some(d_lse.view()), ..tensors.saved(&results[p]) };
            add(&mut through_merge, &part_backward(&case, spec, p, &tensors, &saved), p == 0);
        }
        let gauge = Gauge::new(&case);
        for got in [with_whole, through_merge] {
            prop_assert!(near(&got.d_q, &expected.d_q, 1e-12 * gauge.d_q));
            prop_assert!(near(&got.d_k, &expected.d_k, 1e-12 * gauge.d_k));
            prop_assert!(near(&got.d_v, &expected.d_v, 1e-12 * gauge.d_v));
            if let (Some(got), Some(expected)) = (got.d_bias, &expected.d_bias) {
                prop_assert!(near(&got, expected, 1e-12 * gauge.d_bias));
            }
            if let (Some(got), Some(expected)) = (got.d_sink, &expected.d_sink) {
                prop_assert!(near(&got, expected, 1e-12 * gauge.d_sink));
            }
        }
    }
}

#[test]
fn shapes_are_checked_and_no_parts_are_nothing() {
    let (o, lse) = (Array4::from_elem((1, 2, 3, 4), 1.0f32), Array3::zeros((1, 2, 3)));
    let (mut to, mut to_lse) = (Array4::from_elem((1, 2, 3, 4), 7.0), Array3::from_elem((1, 2, 3), 7.0));
    let wrong = Array4::zeros((1, 2, 3, 5));
    let parts = [(o.view(), lse.view()), (wrong.view(), lse.view())];
    let error = merge(&parts, to.view_mut(), to_lse.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "shape of o of a part: got [1, 2, 3, 5], expected [1, 2, 3, 4]");
    let short = Array3::zeros((1, 2, 2));
    assert!(merge(&[(o.view(), short.view())], to.view_mut(), to_lse.view_mut()).is_err());
    assert!(merge(&[], to.view_mut(), short.clone().view_mut()).is_err());
    assert!(to.iter().chain(&to_lse).all(|&x| x == 7.0));
    merge(&[], to.view_mut(), to_lse.view_mut()).unwrap();
    assert!(to.iter().all(|&x| x == 0.0) && to_lse.iter().all(|&x| x == f32::NEG_INFINITY));
}

#[test]
fn parts_merge_in_the_order_given_and_through_any_strides() {
    let o = Array4::from_shape_fn((2, 3, 4, 5), |(a, b, c, d)| (a + 2 * b + 3 * c + 5 * d) as f64);
    let lse = Array3::from_shape_fn((2, 3, 4), |(a, b, c)| (a * 7 + b * 3 + c) as f64 / 5.0);
    let (o2, lse2) = (o.mapv(|x| 1.0 - x), lse.mapv(|x| 2.0 - x));
    let mut expected = (Array4::zeros(o.dim()), Array3::zeros(lse.dim()));
    merge(&[(o.view(), lse.view()), (o2.view(), lse2.view())], expected.0.view_mut(), expected.1.view_mut()).unwrap();
    // The same numbers, stored with their axes reversed.
    let reversed = |x: &Array4<f64>| x.view().reversed_axes().as_standard_layout().into_owned();
    let (mut to, mut to_lse) = (reversed(&expected.0), Array3::zeros(lse.dim()));
    to.fill(f64::NAN);
    let (stored, stored2) = (reversed(&o), reversed(&o2));
    let parts = [(stored.t(), lse.view()), (stored2.t(), lse2.view())];
    merge(&parts, to.view_mut().reversed_axes(), to_lse.view_mut()).unwrap();
    assert_eq!((to.t(), to_lse.view()), (expected.0.view(), expected.1.view()));
}
