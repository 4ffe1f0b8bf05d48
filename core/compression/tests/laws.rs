//! Relations between several runs; each checker is also shown a run that breaks its law.
#![allow(clippy::unwrap_used)]

mod common;

use common::{spec, step};
use proptest::prelude::*;
use tilewright_compression::hash::{StepSeeds, slot};
use tilewright_compression::invariants::*;
use tilewright_compression::message::{unpack, word};
use tilewright_compression::statistics::*;
use tilewright_compression::*;

fn one(spec: &CompressionSpec, gradient: &[f32]) -> Vec<u64> {
    step(spec, 0, gradient, &mut Memory::new(spec).unwrap()).words
}

fn table(len: usize, threshold: f32, slots: u32, seed: u64) -> CompressionSpec {
    CompressionSpec {
        selector: Selector::FixedThreshold(threshold),
        placement: Placement::HashTable { slots: Slots::Exactly(slots), policy: Policy::LargestMagnitude },
        feedback: Feedback::None,
        seed,
        ..CompressionSpec::top_k(len, Count::Entries(1))
    }
}

fn finite(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let few = prop_oneof![Just(0.0f32), Just(1.0), Just(-1.0), Just(0.5)];
    prop_oneof![proptest::collection::vec(-3.0f32..3.0, len), proptest::collection::vec(few, len)]
}

proptest! {
    #[test]
    fn exact_top_k_contracts(v in (1usize..200).prop_flat_map(finite), share in 0.01f64..1.0) {
        let spec = CompressionSpec { feedback: Feedback::None, ..CompressionSpec::top_k(v.len(), Count::Density(share)) };
        prop_assert_eq!(contraction(&v, &one(&spec, &v), spec.selector.aim(v.len()).unwrap()), Ok(()));
    }

    #[test]
    fn a_table_keeps_its_greatest(v in (1usize..200).prop_flat_map(finite), slots in 1u32..50, seed: u64) {
        let words = one(&table(v.len(), 0.0, slots, seed), &v);
        prop_assert_eq!(contraction(&v, &words, 1), Ok(()));
    }

    #[test]
    fn thresholds_commute(v in (1usize..200).prop_flat_map(finite), slots in 1u32..50, seed: u64, low in 0.0f32..1.0, more in 0.0f32..2.0) {
        let (lower, higher) = (one(&table(v.len(), low, slots, seed), &v), one(&table(v.len(), low + more, slots, seed), &v));
        prop_assert_eq!(threshold_commutes(&lower, &higher, low + more), Ok(()));
    }

    #[test]
    fn tables_merge(v in (1usize..200).prop_flat_map(finite), slots in 1u32..50, seed: u64, cut: prop::sample::Index) {
        let spec = table(v.len(), 0.0, slots, seed);
        let cut = cut.index(v.len());
        let part = |keep: &dyn Fn(usize) -> bool| -> Vec<u64> {
            let part: Vec<f32> = v.iter().enumerate().map(|(i, x)| if keep(i) { *x } else { 0.0 }).collect();
            one(&spec, &part)
        };
        let (a, b) = (part(&|i| i < cut), part(&|i| i >= cut));
        let seed = StepSeeds::new(seed, 0).hash;
        prop_assert_eq!(merged(&a, &b, &one(&spec, &v), seed, slots), Ok(()));
        prop_assert_eq!(merged(&b, &a, &one(&spec, &v), seed, slots), Ok(()));
    }

    #[test]
    fn scale_and_sign_do_not_choose(len in 1usize..150, power in -20i32..20, seed: u64) {
        let v: Vec<f32> = (0..len).map(|i| ((i * 37 + 11) % 19) as f32 - 9.0).collect();
        for selector in [
            Selector::ExactTopK(Count::Density(0.3)),
            Selector::SampledThreshold(Count::Density(0.1), Sampling::DGC),
            Selector::RandomK(Count::Density(0.2)),
        ] {
            let spec = CompressionSpec { selector, seed, ..table(len, 0.0, 13, 0) };
            for by in [libm::ldexpf(1.0, power), -1.0] {
                let multiplied: Vec<f32> = v.iter().map(|x| x * by).collect();
                prop_assert_eq!(scaled(&one(&spec, &v), by, &one(&spec, &multiplied)), Ok(()));
            }
        }
    }

    /// compress(decompress(message)) = message, and a vector with few non-zeros goes through unharmed.
    #[test]
    fn compression_is_idempotent(spec in spec(97), v in finite(97)) {
        prop_assume!(!matches!(spec.placement, Placement::HashTable { policy: Policy::Any, .. }));
        prop_assume!(!matches!(spec.selector, Selector::SampledThreshold(..)));
        // Rounded to fewer bits, a value may fall below the threshold it passed.
        let spec = CompressionSpec { feedback: Feedback::None, wire: Wire::default(), ..spec };
        let words = one(&spec, &v);
        let mut dense = vec![0.0; 97];
        words.iter().map(|w| unpack(*w)).for_each(|(i, x)| dense[i as usize] = x);
        prop_assert_eq!(same(&one(&spec, &dense), &words), Ok(()));
    }

    #[test]
    fn error_feedback_telescopes(g in proptest::collection::vec(proptest::collection::vec(-1000i32..1000, 50), 1..8), spec in spec(50)) {
        let spec = CompressionSpec { feedback: Feedback::Residual, ..spec };
        let gradients: Vec<Vec<f32>> = g.iter().map(|g| g.iter().map(|x| *x as f32).collect()).collect();
        let mut memory = Memory::new(&spec).unwrap();
        let messages: Vec<Vec<u64>> = (0..).zip(&gradients).map(|(t, g)| step(&spec, t, g, &mut memory).words).collect();
        prop_assert_eq!(telescopes(&gradients, &messages, &memory.velocity), Ok(()));
    }

    /// At density 1 DGC is momentum SGD without masking, and plain SGD with it.
    #[test]
    fn dgc_identities(gradients in proptest::collection::vec(finite(40), 1..6), factor in 0.0f32..0.99) {
        for masking in [false, true] {
            let feedback = Feedback::Momentum { factor, nesterov: false, masking };
            let spec = CompressionSpec { feedback, ..CompressionSpec::top_k(40, Count::Density(1.0)) };
            let mut memory = Memory::new(&spec).unwrap();
            let mut u = [0.0f32; 40];
            for (t, g) in (0..).zip(&gradients) {
                let mut sent = vec![0.0; 40];
                step(&spec, t, g, &mut memory).entries().for_each(|(i, x)| sent[i as usize] = x);
                for (u, g) in u.iter_mut().zip(g) {
                    *u = if masking { *g } else { factor * *u + g };
                }
                let u: Vec<f32> = u.iter().map(|x| x + 0.0).collect(); // −0 is not sent
                prop_assert_eq!(same_bits("update", &sent, &u), Ok(()));
            }
        }
    }
}

#[test]
fn each_checker_can_fail() {
    let (a, b) = (word(1, 2.0), word(4, 1.0));
    assert!(contraction(&[3.0, 1.0], &[word(1, 1.0)], 1).is_err());
    assert!(threshold_commutes(&[a, b], &[a, b], 1.5).is_err());
    assert!(same(&[a], &[a, b]).is_err());
    assert!(same_entries(&[a, b], &[b, a]).is_ok() && same(&[a, b], &[b, a]).is_err());
    assert!(merged(&[a], &[b], &[b], 0, 1).is_err() && merged(&[a], &[b], &[a], 0, 1).is_ok());
    assert!(scaled(&[a], -1.0, &[a]).is_err());
    assert!(losers_differ(&[1, 2], &[vec![a], vec![a]]).is_err());
    assert!(telescopes(&[vec![1.0, 2.0]], &[vec![]], &[1.0, 0.0]).is_err());
    assert!(balanced(&[5; 1000], 4, 0).is_err());
    assert!(same_bits("x", &[0.0], &[-0.0]).is_err());
    assert!(verify_decode(&[&[a]], Reduction::Sum, &[0.0, 1.0]).is_err());
    assert!(verify_decode(&[&[a], &[a]], Reduction::Mean, &[0.0, 4.0]).is_err());
}

/// 64 seeds: the same one gives the same bytes, no two others lose the same entries, and no place is special.
#[test]
fn seeds_matter() {
    let v: Vec<f32> = (0..500).map(|i| 1.0 + (i % 7) as f32).collect();
    let messages: Vec<Vec<u64>> = (0..64).map(|seed| one(&table(500, 0.0, 1000, seed), &v)).collect();
    let all: Vec<u32> = (0..500).collect();
    assert_eq!(losers_differ(&all, &messages), Ok(()));
    assert_eq!(one(&table(500, 0.0, 1000, 5), &v), messages[5]);
    // Entry 0 and the last one, equal to all others, survive as often as others do.
    let flat = vec![1.0; 500];
    for at in [0u32, 499] {
        let survived = (0..400)
            .filter(|seed| one(&table(500, 0.0, 1000, *seed), &flat).iter().any(|w| unpack(*w).0 == at))
            .count() as f64;
        // Ties go to the least index, so entry `at` has rank at + 1.
        let p = survival(u64::from(at) + 1, 1000);
        let sd = (400.0 * p * (1.0 - p)).sqrt();
        assert!((survived - 400.0 * p).abs() <= 5.0 * sd + 1e-6, "{at}: {survived} of 400, expected {}", 400.0 * p);
    }
}

/// Taken slots over fixed seeds lie within five standard deviations of the exact mean, for indices of several patterns;
/// χ² of the slots too. A hash that is a polynomial of low degree fails at the strided ones.
#[test]
fn collisions_are_those_of_a_uniform_hash() {
    type Pattern = fn(u32) -> u32;
    let patterns: [(&str, Pattern); 4] = [
        ("consecutive", |i| i),
        ("strided", |i| i * 4096),
        ("clustered", |i| i / 32 * 65_536 + i % 32),
        ("reversed bits", u32::reverse_bits),
    ];
    for (name, pattern) in patterns {
        for (k, m) in [(1000u32, 4000u32), (2000, 2000), (4000, 1000)] {
            let rounds = 40;
            let mut occupied = 0;
            let mut counts = vec![0u64; 64];
            for round in 0..rounds {
                let seed = StepSeeds::new(9, round).hash;
                let mut taken = vec![false; m as usize];
                for i in 0..k {
                    taken[slot(pattern(i), seed, m) as usize] = true;
                    counts[slot(pattern(i), seed, 64) as usize] += 1;
                }
                occupied += taken.iter().filter(|taken| **taken).count() as u64;
            }
            let z = deviations(occupied, rounds, u64::from(k), u64::from(m));
            assert!(z.abs() < 5.0, "{name} {k} in {m}: {z}");
            // 63 degrees of freedom: mean 63, standard deviation √126.
            let chi = (chi_squared(&counts) - 63.0) / 126f64.sqrt();
            assert!(chi < 6.0, "{name} {k}: {chi}");
        }
    }
}

/// The formulas against brute enumeration of all hashes of few entries.
#[test]
fn collision_formulas_are_exact() {
    for (k, m) in [(1u32, 3u64), (2, 3), (3, 3), (4, 2), (5, 3), (3, 1), (0, 5)] {
        let all = m.pow(k);
        let mut sums = (0.0, 0.0);
        let mut last_survives = 0;
        for hash in 0..all {
            let slots: Vec<u64> = (0..k).map(|i| hash / m.pow(i) % m).collect();
            let taken = slots.iter().collect::<std::collections::BTreeSet<_>>().len() as f64;
            sums = (sums.0 + taken, sums.1 + taken * taken);
            // Entries in order of magnitude: the last survives if none before it has its slot.
            last_survives += u32::from(slots.split_last().is_some_and(|(last, others)| !others.contains(last)));
        }
        let (mean, variance) = (sums.0 / all as f64, sums.1 / all as f64 - (sums.0 / all as f64).powi(2));
        assert!((expected_occupied(u64::from(k), m) - mean).abs() < 1e-12, "{k} in {m}");
        assert!((occupied_variance(u64::from(k), m) - variance).abs() < 1e-12, "{k} in {m}");
        if k > 0 {
            let survives = f64::from(last_survives) / all as f64;
            assert!((survival(u64::from(k), m) - survives).abs() < 1e-12, "rank {k} in {m}");
        }
    }
}

/// Far more slots than entries: nothing cancels. (To first order k²/2m entries collide, and so do as many in variance.)
#[test]
fn collision_formulas_are_stable() {
    for (k, m) in [(10u64, u64::from(u32::MAX)), (1_000, 1 << 32), (10_000, 100_000_000), (1_000_000, 1 << 40)] {
        let expected = (k * (k - 1)) as f64 / (2 * m) as f64;
        assert!((occupied_variance(k, m) / expected - 1.0).abs() < 1e-3, "{k} in {m}: {}", occupied_variance(k, m));
        let lost = k as f64 - expected_occupied(k, m);
        assert!((lost - expected).abs() < 1e-3 * expected + 1e-9 * k as f64, "{k} in {m}: {lost}");
    }
    assert_eq!((survival(0, 5), chi_squared(&[0, 0]), owner_imbalance(0, 3)), (1.0, 0.0, 1.0));
}

/// The checkers themselves survive what they judge.
#[test]
fn checkers_do_not_panic() {
    let far = [word(9, 1.0)];
    assert_eq!(contraction(&[1.0], &far, 1).unwrap_err().property, Property::Form);
    assert_eq!(telescopes(&[vec![1.0]], &[far.to_vec()], &[1.0]).unwrap_err().property, Property::Form);
    assert_eq!(telescopes(&[vec![1.0; 3]], &[], &[1.0]).unwrap_err().property, Property::Form);
    assert!(balanced(&[1], 0, 0).is_ok());
}

/// A NaN travels as the one NaN there is: the codec takes no other.
#[test]
fn a_raw_nan_is_no_value() {
    let spec = CompressionSpec { feedback: Feedback::None, ..CompressionSpec::top_k(2, Count::Entries(1)) };
    let memory = Memory::new(&spec).unwrap();
    let verdict =
        |bits: u32| verify_step(&spec, Step::new(0), &[1.0, f32::NAN], &memory, &memory, &[1 << 32 | u64::from(bits)]);
    assert!(verdict(f32::NAN.to_bits()).is_ok());
    assert_eq!(verdict(0xffff_dead).unwrap_err().property, Property::Value);
}

/// Owners by hash stay balanced on clustered indices.
#[test]
fn owners_are_balanced() {
    let clustered: Vec<u32> = (0..100_000).map(|i| i / 64 * 1_000_000 % 4_000_000_000 + i % 64).collect();
    for owners in [2, 4, 16, 64] {
        assert_eq!(balanced(&clustered, owners, 3), Ok(()));
    }
}

/// Over many keys each index is chosen as often as any other, and so is each ordered pair, in buckets of any size.
#[test]
fn random_choice_is_uniform() {
    for (len, keys) in [(5u32, 4000u32), (8, 4000), (12, 8000), (64, 8000), (100, 8000)] {
        let mut single = vec![0u64; len as usize];
        let mut pairs = vec![0u64; (len * len) as usize];
        for key in 0..keys {
            let StepSeeds { permutation, .. } = StepSeeds::new(1, u64::from(key));
            let permutation = select::Permutation::new(len, permutation);
            let (a, b) = (permutation.at(0), permutation.at(1));
            single[a as usize] += 1;
            pairs[(a * len + b) as usize] += 1;
        }
        let normal = |counts: &[u64]| {
            let freedom = counts.len() as f64 - 1.0;
            (chi_squared(counts) - freedom) / (2.0 * freedom).sqrt()
        };
        assert!(normal(&single) < 5.0, "{len}: {}", normal(&single));
        let pairs: Vec<u64> = (0..).zip(pairs).filter(|(at, _)| at / len != at % len).map(|(_, n)| n).collect();
        assert!(normal(&pairs) < 5.0, "pairs of {len}: {}", normal(&pairs));
    }
}
