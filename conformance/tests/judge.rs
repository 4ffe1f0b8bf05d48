//! The judge on trial: it accepts whatever lies within its limits, rejects whatever lies beyond, and says where.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use proptest::sample::Index;
use std::cell::Cell;
use std::collections::BTreeSet;
use tilewright_attention::Contract;
use tilewright_conformance::attention::Layout;
use tilewright_conformance::attention::case::{Case, Distribution, Storage};
use tilewright_conformance::attention::expected::{Expected, ExpectedTensor, expect, under_contract};
use tilewright_conformance::attention::generate::generate;
use tilewright_conformance::attention::judge::{Judgement, Kind, Tiers, judge};
use tilewright_conformance::attention::suite::{FORMATS, Suite, any_case, cases};
use tilewright_conformance::attention::trial::{Prepared, shrink};
use tilewright_conformance::{Tensor, Tensors};
use tilewright_scalar::{DoubleDouble, Format, Real, philox4x32_10};

fn prepared(case: &Case, contract: &Contract) -> Prepared {
    let problem = generate(case).unwrap();
    let truth = expect(&problem, contract, true).unwrap();
    let (features, evidence) = (BTreeSet::new(), Vec::new());
    Prepared { case: case.clone(), problem, truth, features, evidence, backward: true, contract: *contract }
}

/// The truth in storage, with a change here and there.
fn stored(truth: &Expected, change: impl Fn(&str, usize, f64) -> f64) -> Tensors {
    truth
        .iter()
        .map(|(name, t)| {
            let values: Vec<f64> = t.value.iter().enumerate().map(|(n, x)| change(name, n, x.to_f64())).collect();
            ((*name).to_string(), Tensor::from_f64(t.format, &t.shape, &values).unwrap())
        })
        .collect()
}

fn small(format: Format) -> impl Strategy<Value = Case> {
    any_case(format).prop_map(|case| Case {
        q_len: case.q_len.min(24),
        kv_len: case.kv_len.min(48),
        batch: case.batch.min(2),
        ..case
    })
}

fn any_small() -> impl Strategy<Value = Case> {
    proptest::sample::select(FORMATS.to_vec()).prop_flat_map(small)
}

fn one_line(judgement: &Judgement) {
    for violation in &judgement.violations {
        let text = violation.to_string();
        assert!(!text.contains('\n') && text.starts_with(violation.kind.name()) && text.len() < 300, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_truth_rounded_to_storage_conforms(case in any_small()) {
        let prepared = prepared(&case, &Contract::strict(case.format));
        let answer = stored(&prepared.truth, |_, _, x| x);
        let judgement = judge(&prepared.truth, &answer, &prepared.contract, &prepared.tiers());
        prop_assert!(judgement.violations.is_empty(), "{case}: {}", judgement.violations[0]);
        prop_assert!(judgement.bound_ratio <= 1.0 && judgement.spread_ratio <= 1.0);
        let elements: usize = prepared.truth.values().map(|t| t.value.len()).sum();
        prop_assert_eq!(judgement.elements, elements as u64);
    }

    /// One element beyond its bound is rejected, and named; within it, the certain tier has nothing to say.
    #[test]
    fn the_bound_is_where_it_says(case in any_small(), tensor: Index, element: Index, up: bool) {
        let prepared = prepared(&case, &Contract::strict(case.format));
        let candidates: Vec<&str> = prepared.truth.keys().copied().filter(|name| !prepared.truth[name].value.is_empty()).collect();
        prop_assume!(!candidates.is_empty());
        let name = candidates[tensor.index(candidates.len())];
        let truth = &prepared.truth[name];
        let at = element.index(truth.value.len());
        let (value, worst) = (truth.value[at].to_f64(), truth.worst[at]);
        prop_assume!(value.is_finite() && worst > 0.0);
        let moved = |factor: f64, roundings: f64| {
            let quantum = truth.format.unit_roundoff() * (value.abs() + worst) + truth.format.underflow_unit();
            let distance = factor * worst + 2.0 * roundings * quantum;
            (distance > 0.0).then(|| value + if up { distance } else { -distance })
        };
        let judged = |to: f64| {
            let answer = stored(&prepared.truth, |tensor, n, x| if (tensor, n) == (name, at) { to } else { x });
            judge(&prepared.truth, &answer, &prepared.contract, &Tiers::default())
        };
        let beyond = moved(1.01, 1.0).unwrap();
        let judgement = judged(beyond);
        if beyond.abs() < truth.format.max_finite() {
            prop_assert_eq!(judgement.violations.len(), 1);
            let violation = &judgement.violations[0];
            prop_assert_eq!((violation.kind, violation.subject.as_str()), (Kind::Bound, name));
            prop_assert_eq!(&violation.index, &truth.unravel(at));
            prop_assert!(violation.ratio > 1.0 && violation.ratio.is_finite(), "{violation}");
            prop_assert_eq!((violation.expected, violation.limit), (value, worst));
        }
        one_line(&judgement);
        if let Some(within) = moved(0.99, -1.0) {
            prop_assert!(judged(within).violations.is_empty(), "{:?}", judged(within).violations);
        }
    }

    #[test]
    fn indices_unravel(shape in proptest::collection::vec(1usize..5, 1..5), at: Index) {
        let count: usize = shape.iter().product();
        let n = at.index(count);
        let t = ExpectedTensor { shape: shape.clone(), ..element(Format::F32, 0.0, 0.0) };
        let index = t.unravel(n);
        prop_assert_eq!(index.len(), shape.len());
        prop_assert!(index.iter().zip(&shape).all(|(i, axis)| i < axis));
        prop_assert_eq!(index.iter().zip(&shape).fold(0, |flat, (i, axis)| flat * axis + i), n);
    }

    #[test]
    fn shrinking_ends_with_something_no_larger_that_still_fails(
        case in any_small(),
        keys in 0usize..20,
        queries in 0usize..10,
        dim in 0usize..8,
        needs_mask: bool,
        needs_batch: bool,
        needs_data: bool,
    ) {
        let masked = |case: &Case| case.causal || case.window != [None, None] || case.blocks.is_some();
        let data = case.distribution;
        let fails = |candidate: &Case| {
            candidate.kv_len >= keys.min(case.kv_len)
                && candidate.q_len >= queries.min(case.q_len)
                && candidate.value_dim >= dim.min(case.value_dim)
                && (!needs_mask || !masked(&case) || masked(candidate))
                && (!needs_batch || candidate.batch == case.batch)
                && (!needs_data || candidate.distribution == data)
        };
        let tries = Cell::new(0);
        let shrunk = shrink(&case, |candidate| { tries.set(tries.get() + 1); fails(candidate) }, 1000);
        prop_assert!(tries.get() < 1000, "it ends by itself");
        prop_assert!(fails(&shrunk));
        prop_assert_eq!(shrunk.kv_len, keys.min(case.kv_len).max(case.kv_len.min(1)));
        prop_assert_eq!(shrunk.q_len, queries.min(case.q_len).max(case.q_len.min(1)));
        prop_assert_eq!((shrunk.value_dim, shrunk.head_dim), (dim.max(1).min(case.value_dim), 1));
        prop_assert_eq!((shrunk.q_heads, shrunk.kv_heads, shrunk.seed), (1, 1, case.seed));
        prop_assert_eq!(shrunk.batch, if needs_batch { case.batch } else { case.batch.min(1) });
        prop_assert_eq!(shrunk.layout, Layout::Contiguous);
        prop_assert_eq!(shrunk.storage, Storage::Padded);
        prop_assert!(generate(&shrunk).is_ok());
        prop_assert_eq!(shrunk.to_string().parse::<Case>(), Ok(shrunk));
    }

    #[test]
    fn shrinking_respects_its_budget(case in any_small(), budget in 0usize..12) {
        let tries = Cell::new(0);
        let shrunk = shrink(&case, |_| { tries.set(tries.get() + 1); true }, budget);
        prop_assert!(tries.get() <= budget);
        prop_assert!(budget > 0 || shrunk == case);
        prop_assert_eq!(shrink(&case, |_| false, 10_000), case);
    }
}

/// No limit of any case is negative or not a number: the judge could then accept anything.
#[test]
fn limits_are_numbers() {
    let quick = cases(Suite::Quick, 3);
    let crude = |storage: Format| Contract {
        accum: Format::E5M2,
        scores: Format::E5M2,
        probabilities: Format::E5M2,
        output_accum: Format::E5M2,
        sums_rounded_probabilities: true,
        flushes_subnormals: true,
        truncates: true,
        tile: 1,
        exp_error: 1e15,
        ..Contract::strict(storage)
    };
    let mut unlimited = 0;
    for case in quick.iter().step_by(3).filter(|case| case.kv_len <= 140) {
        let problem = generate(case).unwrap();
        let strict = expect(&problem, &Contract::strict(case.format), true).unwrap();
        let loose = under_contract(&strict, &problem, &crude(case.format), true).unwrap();
        for (truth, strict) in [(&strict, true), (&loose, false)] {
            for (name, tensor) in truth {
                for n in 0..tensor.value.len() {
                    let [value, worst, coherent] = [tensor.value[n].hi(), tensor.worst[n], tensor.coherent[n]];
                    let limits = [worst, coherent, tensor.sigma[n], tensor.spread_limit(n)];
                    assert!(!value.is_nan() && limits.iter().all(|limit| *limit >= 0.0), "{case} {name}: {limits:?}");
                    assert!(!strict || worst.is_finite(), "{case} {name}: {limits:?}");
                    unlimited += usize::from(!worst.is_finite());
                }
            }
        }
    }
    println!("{unlimited} elements without a finite limit under a contract that promises nothing");
}

#[test]
fn the_spread_tier_is_for_data_in_general_position() {
    for distribution in Distribution::ALL {
        let case = Case { distribution, ..Case::new(Format::BF16, [1, 1, 1], [2, 3, 4, 4]) };
        let tiers = prepared(&case, &Contract::strict(Format::BF16)).tiers();
        assert_eq!(tiers.statistical, distribution.general_position(), "{}", distribution.name());
    }
    // Between the two limits.
    let tensor = ExpectedTensor { sigma: vec![0.01], ..element(Format::F32, 1.0, 0.5) };
    let (statistical, certain) = (Tiers { statistical: true, ..Tiers::default() }, Tiers::default());
    assert_eq!(kinds(&tensor, 1.1, &statistical), [Kind::Spread]);
    assert_eq!(kinds(&tensor, 1.1, &certain), []);
    assert_eq!(kinds(&tensor, 1.05, &statistical), []);
    // Beyond the certain limit that is all there is to say.
    assert_eq!(kinds(&tensor, 1.6, &statistical), [Kind::Bound]);
    // A prediction wider than the certain limit does not widen it.
    let vague = ExpectedTensor { sigma: vec![10.0], ..tensor };
    assert_eq!(kinds(&vague, 1.6, &statistical), [Kind::Bound]);
}

/// A tensor of one element.
fn element(format: Format, value: f64, worst: f64) -> ExpectedTensor {
    let value = vec![DoubleDouble::from_f64(value)];
    ExpectedTensor {
        shape: vec![1],
        format,
        rounding: format,
        value,
        worst: vec![worst],
        coherent: vec![0.0],
        sigma: vec![0.0],
    }
}

fn judged(tensor: &ExpectedTensor, got: &[f64], tiers: &Tiers) -> Judgement {
    let answer = Tensors::from([("o".to_string(), Tensor::from_f64(tensor.format, &tensor.shape, got).unwrap())]);
    let judgement = judge(&Expected::from([("o", tensor.clone())]), &answer, &Contract::strict(tensor.format), tiers);
    one_line(&judgement);
    judgement
}

fn kinds(tensor: &ExpectedTensor, got: f64, tiers: &Tiers) -> Vec<Kind> {
    judged(tensor, &[got], tiers).violations.iter().map(|violation| violation.kind).collect()
}

#[test]
fn classes_come_first() {
    const INF: f64 = f64::INFINITY;
    let (nan, none) = (f64::NAN, Tiers::default());
    for (truth, worst, got, kind) in [
        (-INF, 0.0, -INF, None),
        (-INF, 0.0, INF, Some(Kind::SpecialValue)),
        (-INF, 0.0, nan, Some(Kind::SpecialValue)),
        (-INF, 0.0, -65504.0, Some(Kind::SpecialValue)),
        (-INF, INF, 0.0, Some(Kind::SpecialValue)),
        (INF, 0.0, INF, None),
        (INF, 0.0, 65504.0, Some(Kind::SpecialValue)),
        (1.0, 0.5, nan, Some(Kind::SpecialValue)),
        (1.0, 0.5, INF, Some(Kind::SpecialValue)),
        (1.0, 0.5, -INF, Some(Kind::SpecialValue)),
        (0.0, 0.0, 0.0, None),
        (0.0, 0.0, -0.0, None),
        (0.0, 0.0, 1e-7, Some(Kind::Bound)),
        (nan, 0.0, nan, None),
        (nan, 0.0, 1.0, Some(Kind::SpecialValue)),
        // Beyond the range of f16 an infinity is right, at the right end, and the largest number is not.
        (70000.0, 40.0, INF, None),
        (70000.0, 40.0, -INF, Some(Kind::SpecialValue)),
        (70000.0, 40.0, nan, Some(Kind::SpecialValue)),
        (70000.0, 40.0, 65504.0, Some(Kind::Bound)),
        (-70000.0, 40.0, -INF, None),
        (65500.0, 40.0, INF, None),
        (65500.0, 40.0, 65504.0, None),
        (65400.0, 40.0, INF, Some(Kind::SpecialValue)),
        // An error that reaches both ends.
        (-1.0, 1e6, INF, None),
        (-1.0, 1e6, -INF, None),
        // A limit that is no number limits nothing, and nothing may pass for that.
        (1.0, nan, 1.0, None),
        (1.0, nan, 1.5, Some(Kind::Bound)),
        (1.0, INF, 1.5, None),
    ] {
        let found = kinds(&element(Format::F16, truth, worst), got, &none);
        assert_eq!(found.first().copied(), kind, "{got} for {truth} ± {worst}");
    }
    // So far apart that the error overflows.
    assert_eq!(kinds(&element(Format::F64, -f64::MAX, 1.0), f64::MAX, &none), [Kind::Bound]);
}

#[test]
fn ratios_are_finite_and_the_worst_is_the_worst() {
    let tensor = ExpectedTensor {
        shape: vec![2, 2],
        value: vec![DoubleDouble::from_f64(1.0); 4],
        worst: vec![0.5, 0.25, 0.5, 1.0],
        coherent: vec![0.0; 4],
        sigma: vec![0.0; 4],
        ..element(Format::F32, 0.0, 0.0)
    };
    let within = judged(&tensor, &[1.25, 1.125, 0.875, 0.25], &Tiers::default());
    assert_eq!((within.violations.len(), within.bound_ratio, within.elements), (0, 0.75, 4));
    let beyond = judged(&tensor, &[1.75, 0.0, 1.5, 1.0], &Tiers::default());
    let violation = &beyond.violations[0];
    assert_eq!((violation.index.as_slice(), violation.ratio, violation.got), (&[0, 1][..], 4.0, 0.0));
    assert_eq!(
        violation.to_string(),
        "bound(o) at [0, 1]: 0.000000000e0, expected 1.000000000e0 ± 2.50e-1, error/limit 4.000"
    );
    let exact = ExpectedTensor { worst: vec![0.0; 4], ..tensor };
    assert_eq!(judged(&exact, &[1.0; 4], &Tiers::default()).bound_ratio, 0.0);
}

#[test]
fn nothing_at_all_is_judged_without_complaint() {
    let empty = ExpectedTensor {
        shape: vec![2, 0, 3],
        value: Vec::new(),
        worst: Vec::new(),
        coherent: Vec::new(),
        sigma: Vec::new(),
        ..element(Format::BF16, 0.0, 0.0)
    };
    let judgement = judged(&empty, &[], &Tiers { statistical: true, copies: Vec::new() });
    assert_eq!((judgement.violations.len(), judgement.elements, judgement.bound_ratio), (0, 0, 0.0));
    let nothing =
        judge(&Expected::from([("o", empty)]), &Tensors::new(), &Contract::strict(Format::BF16), &Tiers::default());
    assert_eq!((nothing.violations.len(), nothing.elements), (0, 0));
}

#[test]
fn copies_must_be_exact() {
    let tensor = |format| ExpectedTensor { shape: vec![1, 1], ..element(format, 3.0, 0.5) };
    let copy = Tiers { statistical: false, copies: vec![true] };
    for format in FORMATS {
        assert_eq!(kinds(&tensor(format), 3.0, &copy), []);
        assert_eq!(
            kinds(&tensor(format), 3.0 + 64.0 * format.unit_roundoff(), &copy),
            [Kind::Exact],
            "{}",
            format.name
        );
        assert_eq!(kinds(&tensor(format), 3.0 + 64.0 * format.unit_roundoff(), &Tiers::default()), []);
        assert_eq!(kinds(&tensor(format), 4.0, &copy), [Kind::Bound, Kind::Exact]);
    }
}

/// Uniform in `[−1, 1)`.
fn noise(n: usize, stream: u32) -> f64 {
    f64::from(philox4x32_10([n as u32, stream, 0, 0], [7, 7])[0]) / 2f64.powi(31) - 1.0
}

/// A large bf16 tensor whose errors are predicted to scatter by `sigma` units of rounding beside the last rounding.
fn population(sigma: f64) -> ExpectedTensor {
    let values: Vec<f64> = (0..64 * 48).map(|n| (1.5 + noise(n, 1) * 0.4).copysign(noise(n, 2))).collect();
    let u = Format::BF16.unit_roundoff();
    ExpectedTensor {
        shape: vec![64, 48],
        format: Format::BF16,
        rounding: Format::BF16,
        worst: vec![1.0; values.len()],
        coherent: vec![0.0; values.len()],
        sigma: values.iter().map(|x| sigma * u * x.abs()).collect(),
        value: values.into_iter().map(DoubleDouble::from_f64).collect(),
    }
}

/// What the judge says of errors `error(n, value, sigma)`, before the last rounding.
fn verdict(sigma: f64, statistical: bool, error: impl Fn(usize, f64, f64) -> f64) -> Option<(Kind, String)> {
    let tensor = population(sigma);
    let got: Vec<f64> = (0..tensor.value.len())
        .map(|n| tensor.value[n].hi() + error(n, tensor.value[n].hi(), tensor.sigma[n]))
        .collect();
    let judgement = judged(&tensor, &got, &Tiers { statistical, copies: Vec::new() });
    judgement.violations.first().map(|violation| (violation.kind, violation.detail.clone()))
}

#[test]
fn a_population_of_errors_tells_what_no_single_one_does() {
    let uniform = 3f64.sqrt();
    // Rounding to nearest alone, and noise as wide as predicted, are what the prediction is made of.
    assert_eq!(verdict(0.0, true, |_, _, _| 0.0), None);
    assert_eq!(verdict(4.0, true, |n, _, sigma| sigma * uniform * noise(n, 3)), None);
    // Twice as wide.
    let (kind, detail) = verdict(4.0, true, |n, _, sigma| 2.0 * sigma * uniform * noise(n, 3)).unwrap();
    assert!(kind == Kind::Population && detail.contains("times as wide"), "{detail}");
    assert_eq!(verdict(4.0, false, |n, _, sigma| 2.0 * sigma * uniform * noise(n, 3)), None);
    // Leaning, not wide: towards zero as truncation does, or away from it.
    for (lean, words) in [(-0.7, "lean towards zero"), (0.7, "lean away from zero")] {
        let leaning = |n: usize, value: f64, sigma: f64| sigma * (lean * value.signum() + 0.8 * uniform * noise(n, 3));
        let (kind, detail) = verdict(4.0, true, leaning).unwrap();
        assert!(kind == Kind::Population && detail.contains(words), "{detail}");
        assert_eq!(verdict(4.0, false, leaning), None);
    }
    // Truncation of the result itself.
    let quantum = 2.0 * Format::BF16.unit_roundoff();
    let truncation = |_: usize, value: f64, _: f64| (value / quantum).trunc() * quantum - value;
    assert_eq!(verdict(1.0, true, truncation).map(|found| found.0), Some(Kind::Population));
    // A lean within what may be systematic.
    let mut allowed = population(4.0);
    allowed.coherent = allowed.sigma.iter().map(|sigma| 1.2 * sigma).collect();
    let got: Vec<f64> = (0..allowed.value.len()).map(|n| allowed.value[n].hi() + 0.7 * allowed.sigma[n]).collect();
    assert!(judged(&allowed, &got, &Tiers { statistical: true, copies: Vec::new() }).violations.is_empty());
}
