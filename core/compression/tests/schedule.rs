//! Warm-up against the numbers of the paper and the formula of the official code.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tilewright_compression::schedule::{Schedule, WarmUp};
use tilewright_compression::{CompressionError, CompressionSpec, Count, Selector};

#[test]
fn the_papers_epochs() {
    let schedule = Schedule::paper(10);
    let sparsity: Vec<f64> = (0..7).map(|epoch| 1.0 - schedule.density(10 * epoch + 9, 0.001)).collect();
    for (got, expected) in sparsity.iter().zip([0.75, 0.9375, 0.984_375, 0.996, 0.999, 0.999, 0.999]) {
        assert!((got - expected).abs() < 1e-12, "{sparsity:?}");
    }
    assert_eq!(schedule.warm_up_steps(), 50);
}

/// With four epochs of warm-up, 0.1 % is reached in five equal factors, 10^(−3/5) each.
#[test]
fn exponential_is_geometric() {
    let schedule = Schedule::exponential(4, 7);
    let factor = 10_f64.powf(-0.6);
    for step in 0..50 {
        let expected = factor.powi((step / 7 + 1).min(5) as i32);
        assert!((schedule.density(step, 0.001) / expected - 1.0).abs() < 1e-12, "step {step}");
    }
}

#[test]
fn invalid_ones_are_named() {
    let field = |schedule: Schedule| match schedule.validate() {
        Err(CompressionError::Spec { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(Schedule { steps_per_epoch: 0, ..Schedule::paper(1) }), "steps per epoch");
    for density in [0.0, -0.1, 1.5, f64::NAN] {
        let warm_up = WarmUp::Listed(vec![0.5, density]);
        assert_eq!(field(Schedule { warm_up, steps_per_epoch: 1 }), "warm-up density");
    }
    assert!(Schedule::default().validate().is_ok());
}

#[test]
fn a_fixed_threshold_has_no_warm_up() {
    let spec =
        CompressionSpec { selector: Selector::FixedThreshold(1.0), ..CompressionSpec::top_k(9, Count::Entries(1)) };
    assert!(Schedule::paper(1).apply(&spec, 9, 4).is_err());
    assert_eq!(Schedule::paper(1).apply(&spec, 9, 5), Ok(spec));
    assert_eq!(Schedule::default().apply(&spec, 9, 0), Ok(spec));
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let warm_up = prop_oneof![
        Just(WarmUp::None),
        (0_u32..9).prop_map(|epochs| WarmUp::Exponential { epochs }),
        proptest::collection::vec(1e-6_f64..=1.0, 0..9).prop_map(WarmUp::Listed),
    ];
    (warm_up, 1_u64..20).prop_map(|(warm_up, steps_per_epoch)| Schedule { warm_up, steps_per_epoch })
}

proptest! {
    /// Whatever the schedule, a step's specification is valid, sends at least as much as intended, and exactly that
    /// after the warm-up; nothing else of the specification changes.
    #[test]
    fn applies(schedule in schedule(), step in 0_u64..400, len in 1_usize..5000, entries in 0_usize..6000, density in 1e-5_f64..=1.0) {
        prop_assert!(schedule.validate().is_ok());
        for count in [Count::Entries(entries), Count::Density(density)] {
            let intended = CompressionSpec::dgc(0, count, 0.9);
            let spec = schedule.apply(&intended, len, step).unwrap();
            prop_assert!(spec.validate().is_ok());
            prop_assert_eq!(CompressionSpec { selector: intended.selector, ..spec }, CompressionSpec { len, ..intended });
            let (aim, least) = (spec.selector.aim(len).unwrap(), intended.selector.aim(len).unwrap());
            prop_assert!(aim >= least, "{} < {}", aim, least);
            if step >= schedule.warm_up_steps() {
                prop_assert_eq!(spec.selector, intended.selector);
            }
        }
    }

    /// Exponential densities never rise.
    #[test]
    fn falls(epochs in 0_u32..12, density in 1e-5_f64..=1.0, step in 0_u64..100) {
        let schedule = Schedule::exponential(epochs, 6);
        prop_assert!(schedule.density(step + 1, density) <= schedule.density(step, density));
    }
}
