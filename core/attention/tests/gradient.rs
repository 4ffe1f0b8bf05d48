//! The reference's gradients against finite differences of its own forward pass, for every feature at once.
//!
//! The analytic gradients come from the Jacobian of the softmax; the differences know nothing of it. In double-double,
//! with steps of 2⁻²⁰ and 2⁻²¹ along a random direction through all inputs, Richardson's extrapolation leaves an error
//! of the order of 2⁻⁸⁰: any wrong term stands out by fourteen digits.

mod common;

use common::{Case, Tensors, cases};
use ndarray::{Array, Dimension};
use proptest::prelude::*;
use tilewright_attention::{Inputs, reference};
use tilewright_scalar::{DoubleDouble, Real, philox4x32_10};

/// −1, 0 or 1, for each element of each input: steps along it are exact in `f64`.
fn direction<D: Dimension>(like: &Array<f64, D>, stream: u32, seed: u32) -> Array<f64, D> {
    let mut index = 0;
    like.map(|_| {
        index += 1;
        f64::from(philox4x32_10([index, stream, 0, 0], [seed, 7])[0] % 3) - 1.0
    })
}

/// `Σ O∘dO + Σ LSE∘dLSE` after a step of `h` along the direction.
fn loss(case: &Case, tensors: &Tensors<f64>, h: f64) -> DoubleDouble {
    fn step<D: Dimension>(x: &Array<f64, D>, stream: u32, seed: u32, h: f64) -> Array<f64, D> {
        x + &(direction(x, stream, seed) * h)
    }
    let q = step(&tensors.q, 1, case.seed, h);
    let k = step(&tensors.k, 2, case.seed, h);
    let v = step(&tensors.v, 3, case.seed, h);
    let bias = tensors.bias.as_ref().map(|bias| step(bias, 4, case.seed, h));
    let sink = tensors.sink.as_ref().map(|sink| step(sink, 5, case.seed, h));
    let inputs = Inputs {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        bias: bias.as_ref().map(|x| x.view()),
        sink: sink.as_ref().map(|x| x.view()),
    };
    let forward = reference::forward::<f64, DoubleDouble>(&case.spec, &inputs).expect("valid");
    let mut sum = DoubleDouble::from_f64(0.0);
    for (o, d_o) in forward.o.iter().zip(&tensors.d_o).filter(|(_, d_o)| !d_o.is_nan()) {
        sum += *o * DoubleDouble::from_f64(*d_o);
    }
    for (lse, d_lse) in forward.lse.iter().zip(tensors.d_lse.iter().flatten()) {
        if lse.hi().is_finite() {
            sum += *lse * DoubleDouble::from_f64(*d_lse);
        }
    }
    sum
}

fn derivative(case: &Case, tensors: &Tensors<f64>, h: f64) -> DoubleDouble {
    (loss(case, tensors, h) - loss(case, tensors, -h)) / DoubleDouble::from_f64(2.0 * h)
}

/// The gradients' inner product with the direction, and the sum of its terms' absolute values.
fn slope(case: &Case, tensors: &Tensors<f64>) -> (DoubleDouble, f64) {
    let d_lse = tensors.d_lse.as_ref().map(|x| x.view());
    let gradients = reference::backward::<f64, DoubleDouble>(&case.spec, &tensors.inputs(), tensors.d_o.view(), d_lse)
        .expect("valid");
    let (mut sum, mut gauge) = (DoubleDouble::from_f64(0.0), 0.0);
    let mut add = |gradient: &DoubleDouble, along: &f64| {
        sum += *gradient * DoubleDouble::from_f64(*along);
        gauge += (gradient.hi() * along).abs();
    };
    gradients.d_q.iter().zip(&direction(&tensors.q, 1, case.seed)).for_each(|(g, d)| add(g, d));
    gradients.d_k.iter().zip(&direction(&tensors.k, 2, case.seed)).for_each(|(g, d)| add(g, d));
    gradients.d_v.iter().zip(&direction(&tensors.v, 3, case.seed)).for_each(|(g, d)| add(g, d));
    if let (Some(gradient), Some(bias)) = (&gradients.d_bias, &tensors.bias) {
        gradient.iter().zip(&direction(bias, 4, case.seed)).for_each(|(g, d)| add(g, d));
    }
    if let (Some(gradient), Some(sink)) = (&gradients.d_sink, &tensors.sink) {
        gradient.iter().zip(&direction(sink, 5, case.seed)).for_each(|(g, d)| add(g, d));
    }
    (sum, gauge)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn gradients_are_the_derivatives_of_the_forward_pass(case in cases()) {
        let tensors = Tensors::<f64>::new(&case);
        let h = 2f64.powi(-20);
        let (coarse, fine) = (derivative(&case, &tensors, h), derivative(&case, &tensors, h / 2.0));
        let extrapolated = fine + (fine - coarse) / DoubleDouble::from_f64(3.0);
        let (analytic, gauge) = slope(&case, &tensors);
        let error = (extrapolated - analytic).abs().to_f64();
        prop_assert!(error <= 1e-17 * (1.0 + gauge), "{error:e} of {gauge:e}: {extrapolated:?} and {analytic:?}");
    }
}
