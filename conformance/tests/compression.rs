//! Compressors on trial: right ones conform everywhere, wrong ones get the verdict they deserve, under its own name.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Mutex;
use tilewright_compression::hash::slot;
use tilewright_compression::message::{unpack, word};
use tilewright_compression::reference::Reference;
use tilewright_compression::statistics::chi_squared;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Count, Decompressor, Memory, Message, Placement, Policy, Reduction,
    Selector, Step,
};
use tilewright_conformance::Verdict;
use tilewright_conformance::compression::case::Case;
use tilewright_conformance::compression::decoy::DECOYS;
use tilewright_conformance::compression::in_process::InProcess;
use tilewright_conformance::compression::judge::Kind;
use tilewright_conformance::compression::report::{hint, hold_trial};
use tilewright_conformance::compression::suite::{self, Suite, any_case, cases};
use tilewright_conformance::compression::trial::{Outcome, Prepared, examine, shrink};
use tilewright_conformance::compression::{Column, Feature, Profile};
use tilewright_cpu::CpuCompressor;
use tilewright_cpu::compression::{CompressorOptions, Simd};

/// What a [`Rogue`] does instead of its work, or to it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crime {
    None,
    Fails,
    Panics,
    Refuses,
    AppendsToMessage,
    ChangesMemoryAndFails,
    OtherBitsEachCall,
    DependsOnThreads,
    ShortMemory,
    RefusesFiniteGradients,
    LosesNegativeMultiples,
    LosesMultiples,
    LosesHigherThresholds,
    LosesInLongerBuckets,
    LosesHalves,
    LosesDecoded,
    FrozenSeeds,
    HalfUnderOtherSeeds,
    LastStaysUnderOtherSeeds,
    LosesAtFullDensity,
    LosesReversed,
    RepliesOnceOnly,
    DecodesForeignIndices,
    TakesInfiniteSteps,
    DecodesOtherwiseOnThreads,
}

/// The reference with a crime committed on the way in or out. What a case asks for it does right, if the crime is against
/// a law.
struct Rogue {
    crime: Crime,
    first: Option<(CompressionSpec, Step, Vec<f32>)>,
    calls: Mutex<usize>,
}

impl Rogue {
    fn new(crime: Crime) -> Self {
        Self { crime, first: None, calls: Mutex::new(0) }
    }

    fn call(&self) -> usize {
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        *calls
    }

    /// Whether the last entry is to be lost in this call.
    fn loses(&self, spec: &CompressionSpec, gradient: &[f32], words: &[u64]) -> bool {
        let Some((first, _, original)) = &self.first else { return false };
        let (Some(a), Some(b)) = (original.first(), gradient.first()) else { return false };
        let zeros = |list: &[f32]| list.iter().filter(|x| **x == 0.0).count();
        match self.crime {
            Crime::LosesNegativeMultiples => *b == -a,
            Crime::LosesMultiples => *b == 2.0 * a,
            Crime::LosesHigherThresholds => match (first.selector, spec.selector) {
                (Selector::FixedThreshold(a), Selector::FixedThreshold(b)) => b > a,
                _ => false,
            },
            Crime::LosesInLongerBuckets => gradient.len() > original.len(),
            Crime::LosesHalves => gradient.get(1) == Some(&0.0) && zeros(gradient) * 2 <= gradient.len() + 1,
            Crime::LosesDecoded => zeros(gradient) > 0 && zeros(gradient) + words.len() == gradient.len(),
            Crime::LosesAtFullDensity => spec.selector == Selector::ExactTopK(Count::Density(1.0)),
            _ => false,
        }
    }
}

impl Compressor for Rogue {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        let call = self.call();
        let (first_spec, first_step, _) = self.first.get_or_insert_with(|| (*spec, step, gradient.to_vec())).clone();
        let (mut spec, mut step) = (*spec, step);
        let other_seed = (spec.seed, step.number) != (first_spec.seed, first_step.number);
        match self.crime {
            Crime::Fails => return Err(CompressionError::OutOfMemory { what: "table", elements: 1 }),
            Crime::Panics => panic!("index out of bounds\non line two"),
            Crime::Refuses => return Err(CompressionError::Unsupported { what: "Tuesdays" }),
            Crime::ChangesMemoryAndFails => {
                memory.velocity.fill(1.0);
                return Err(CompressionError::OutOfMemory { what: "table", elements: 1 });
            }
            Crime::RefusesFiniteGradients => {
                return Err(CompressionError::NonFinite { index: 0, bits: gradient[0].to_bits() });
            }
            Crime::FrozenSeeds => (spec.seed, step.number) = (first_spec.seed, first_step.number),
            Crime::LastStaysUnderOtherSeeds if other_seed => {
                if let Placement::HashTable { policy, .. } = &mut spec.placement {
                    *policy = Policy::Any;
                }
            }
            Crime::TakesInfiniteSteps if !step.scale.is_finite() => step.scale = 1.0,
            _ => {}
        }
        let old = message.words.clone();
        Reference.compress(&spec, step, gradient, memory, message)?;
        match self.crime {
            Crime::AppendsToMessage => message.words.splice(..0, old).for_each(drop),
            Crime::OtherBitsEachCall if call > 1 => drop(message.words.pop()),
            Crime::DependsOnThreads if rayon::current_num_threads() == 3 => drop(message.words.pop()),
            Crime::ShortMemory => drop(memory.velocity.pop()),
            Crime::HalfUnderOtherSeeds if other_seed => message.words.truncate(message.words.len() / 2),
            _ if self.loses(&spec, gradient, &message.words) => drop(message.words.pop()),
            _ => {}
        }
        Ok(())
    }
}

impl Decompressor for Rogue {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        let call = self.call();
        let own: Vec<Vec<u64>> = messages
            .iter()
            .map(|words| words.iter().copied().filter(|w| (unpack(*w).0 as usize) < out.len()).collect())
            .collect();
        let own: Vec<&[u64]> = own.iter().map(Vec::as_slice).collect();
        let foreign = self.crime == Crime::DecodesForeignIndices;
        Reference.decompress(if foreign { &own } else { messages }, reduction, out)?;
        let reversed = messages.iter().any(|words| words.first() > words.last());
        let spoilt = match self.crime {
            Crime::LosesReversed => reversed,
            // Verified decodings of one step, the law's first two, and then a replica.
            Crime::RepliesOnceOnly => call > 9,
            Crime::DecodesOtherwiseOnThreads => rayon::current_num_threads() == 3,
            _ => false,
        };
        if let Some(x) = out.iter_mut().find(|x| **x != 0.0).filter(|_| spoilt) {
            *x *= 1.5;
        }
        Ok(())
    }
}

fn prepared(id: &str) -> Prepared {
    Prepared::new(&id.parse().unwrap()).unwrap()
}

fn try_rogue(crime: Crime, id: &str) -> Outcome {
    examine(&mut InProcess::new(Rogue::new(crime), Profile::new("rogue", "1")), &prepared(id))
}

const PLAIN: &str = "compression/n900/topk@0.1/compact/residual/wire=f32,plain/heavy/steps=1/ranks=2/1";
const TABLE: &str = "compression/n900/fixed=1/hash=200/residual/wire=f32,plain/heavy/steps=1/ranks=2/1";
const TABLE_K: &str = "compression/n900/topk@0.2/hash=200/residual/wire=f32,plain/heavy/steps=1/ranks=1/1";

#[test]
fn crimes_get_the_verdict_they_deserve() {
    for (crime, id, verdict, kind) in [
        (Crime::None, PLAIN, Verdict::Conforms, None),
        (Crime::None, TABLE, Verdict::Conforms, None),
        (Crime::Fails, PLAIN, Verdict::Violates, Some(Kind::Failed)),
        (Crime::Panics, PLAIN, Verdict::Crashed, Some(Kind::Crashed)),
        (Crime::Refuses, PLAIN, Verdict::Unsupported, None),
        (Crime::AppendsToMessage, PLAIN, Verdict::Violates, Some(Kind::Form)),
        (Crime::ChangesMemoryAndFails, PLAIN, Verdict::Violates, Some(Kind::Misbehaved)),
        (Crime::OtherBitsEachCall, &one_rank(PLAIN), Verdict::Violates, Some(Kind::Nondeterministic)),
        (Crime::DependsOnThreads, PLAIN, Verdict::Violates, Some(Kind::OrderFreedom)),
        (Crime::ShortMemory, PLAIN, Verdict::Violates, Some(Kind::Length)),
        (Crime::RefusesFiniteGradients, PLAIN, Verdict::Violates, Some(Kind::Failed)),
        (Crime::RefusesFiniteGradients, &rejecting(PLAIN), Verdict::Violates, Some(Kind::Refusal)),
        (Crime::LosesNegativeMultiples, PLAIN, Verdict::Violates, Some(Kind::ScaleAndSign)),
        (Crime::LosesMultiples, PLAIN, Verdict::Violates, Some(Kind::ScaleAndSign)),
        (Crime::LosesHigherThresholds, TABLE, Verdict::Violates, Some(Kind::ThresholdCommutes)),
        (Crime::LosesInLongerBuckets, PLAIN, Verdict::Violates, Some(Kind::OrderFreedom)),
        (Crime::LosesHalves, TABLE, Verdict::Violates, Some(Kind::Semilattice)),
        (Crime::LosesDecoded, PLAIN, Verdict::Violates, Some(Kind::Idempotence)),
        (Crime::FrozenSeeds, TABLE_K, Verdict::Violates, Some(Kind::Seeds)),
        (Crime::HalfUnderOtherSeeds, TABLE_K, Verdict::Violates, Some(Kind::CollisionStatistics)),
        (Crime::LastStaysUnderOtherSeeds, TABLE_K, Verdict::Violates, Some(Kind::RankSurvival)),
        (Crime::LosesAtFullDensity, &momentum(""), Verdict::Violates, Some(Kind::MomentumSgd)),
        (Crime::LosesAtFullDensity, &momentum(",masked"), Verdict::Violates, Some(Kind::PlainSgd)),
        (Crime::LosesReversed, PLAIN, Verdict::Violates, Some(Kind::MessageOrder)),
        (Crime::RepliesOnceOnly, &one_rank(PLAIN), Verdict::Violates, Some(Kind::Replicas)),
        (Crime::DecodesOtherwiseOnThreads, PLAIN, Verdict::Violates, Some(Kind::Replicas)),
        (Crime::DecodesForeignIndices, PLAIN, Verdict::Violates, Some(Kind::Refusal)),
        (Crime::TakesInfiniteSteps, PLAIN, Verdict::Violates, Some(Kind::Refusal)),
    ] {
        let outcome = try_rogue(crime, id);
        let found = (outcome.verdict, outcome.violations.first().map(|violation| violation.kind));
        assert_eq!(found, (verdict, kind), "{crime:?} on {id}: {:?} {:?}", outcome.violations, outcome.reason);
        assert!(outcome.violations.iter().all(|violation| !violation.to_string().contains('\n')));
    }
}

fn one_rank(id: &str) -> String {
    id.replace("ranks=2", "ranks=1")
}

fn rejecting(id: &str) -> String {
    id.replace("plain/", "plain+reject/")
}

fn momentum(masked: &str) -> String {
    PLAIN.replace("residual", &format!("momentum=0.9{masked}"))
}

#[test]
fn what_is_not_declared_is_not_asked() {
    let mut profile = Profile::new("rogue", "1");
    profile.supports.remove(&Feature::HashTable);
    let outcome = examine(&mut InProcess::new(Rogue::new(Crime::Panics), profile.clone()), &prepared(TABLE));
    assert_eq!(
        (outcome.verdict, outcome.reason.unwrap().as_str()),
        (Verdict::Unsupported, "does not declare hash-table")
    );
    profile.columns = vec![Column::TopK];
    let outcome = examine(&mut InProcess::new(Rogue::new(Crime::Panics), profile), &prepared(TABLE));
    assert_eq!(outcome.reason.unwrap(), "does not declare selector fixed");
}

/// A race may be won by anybody, but a subject that promises the same bits is held to it.
#[test]
fn a_race_is_judged_as_a_set() {
    let id = TABLE.replace("hash=200", "hash=200,any");
    let mut profile = Profile { deterministic: false, ..Profile::new("racer", "1") };
    for _ in 0..2 {
        let mut subject = InProcess::new(Racer::default(), profile.clone());
        let outcome = examine(&mut subject, &prepared(&id));
        let verdict = if profile.deterministic { Verdict::Violates } else { Verdict::Conforms };
        assert_eq!(outcome.verdict, verdict, "{:?}", outcome.violations);
        let strict = examine(&mut subject, &prepared(TABLE));
        assert_eq!(strict.violations[0].kind, Kind::Slots, "the rule of the largest magnitude knows no race");
        profile.deterministic = true;
    }
}

/// The first stays, or the last, in turns.
#[derive(Default)]
struct Racer {
    calls: usize,
}

impl Compressor for Racer {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        self.calls += 1;
        let mut spec = *spec;
        if let Placement::HashTable { policy, .. } = &mut spec.placement {
            *policy = if self.calls.is_multiple_of(2) { Policy::LargestMagnitude } else { Policy::Any };
        }
        Reference.compress(&spec, step, gradient, memory, message)
    }
}

impl Decompressor for Racer {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        Reference.decompress(messages, reduction, out)
    }
}

#[test]
fn the_reference_conforms_everywhere_and_every_decoy_is_rejected_somewhere() {
    let mut rejected = BTreeSet::new();
    let mut subject = InProcess::sequential(Reference, Profile::new("reference", "1"));
    for case in cases(Suite::Quick, 0) {
        let prepared = Prepared::new(&case).unwrap();
        let outcome = examine(&mut subject, &prepared);
        assert!(outcome.violations.is_empty() && outcome.reason.is_none(), "{case}: {:?}", outcome.violations);
        rejected.extend(prepared.evidence.iter().map(|e| (e.decoy, e.feature)));
    }
    for decoy in DECOYS {
        assert!(rejected.contains(&(decoy.name, decoy.feature)), "no case rejects \"{}\"", decoy.name);
    }
}

/// With other data, the CPU backend with every set of instructions, as the suite's users will run it.
#[test]
fn the_cpu_backend_conforms_on_other_data() {
    let profile = Profile { deterministic: false, ..Profile::new("cpu", "1") };
    for (seed, simd, every) in [(77, Simd::Portable, 3), (78, Simd::default(), 1)] {
        let options = CompressorOptions { simd, threads: NonZero::new(2) };
        let mut subject = InProcess::new(CpuCompressor::new(options).unwrap(), profile.clone());
        let cases: Vec<Case> = cases(Suite::Quick, seed).into_iter().step_by(every).collect();
        let report = hold_trial(&mut subject, &cases, || ()).unwrap();
        assert!(report.passes() && !report.broken_word(), "{}", report.to_text());
        assert!(every > 1 || report.without_evidence().is_empty(), "{}", report.to_text());
    }
}

#[test]
fn a_case_that_proves_nothing_is_vacuous() {
    let empty = PLAIN.replace("n900", "n0");
    assert_eq!(try_rogue(Crime::None, &empty).verdict, Verdict::Vacuous);
    assert!(prepared(&empty).evidence.is_empty());
    assert!(!prepared(PLAIN).evidence.is_empty());
}

#[test]
fn features_are_testified_for_by_their_own_decoys() {
    // Nothing is not finite in ordinary data, so conforming on them says nothing about refusals.
    let calm = prepared(&rejecting(PLAIN));
    assert!(calm.features.contains(&Feature::Reject) && !calm.testifies_for(Feature::Reject));
    let wild = prepared(&rejecting(PLAIN).replace("heavy", "non-finite"));
    assert!(wild.testifies_for(Feature::Reject));
    // And who loses nothing cannot clear a loser.
    assert!(prepared(TABLE).testifies_for(Feature::HashTable));
    assert!(!prepared(PLAIN).testifies_for(Feature::HashTable));
}

/// The published code's mistakes, each committed by a compressor, each caught by the case recorded for it.
#[test]
fn the_published_defects_are_caught_by_their_cases() {
    let regressions = suite::regressions().unwrap();
    let case = |word: &str| {
        let found = regressions.iter().find(|(_, reason)| reason.contains(word));
        found.unwrap_or_else(|| panic!("no case for {word}")).0.to_string()
    };
    for (defect, id, kind, decoy) in [
        (Defect::LastWriter, case("race"), Kind::Slots, Some("the last one keeps the slot")),
        (Defect::ZeroIsEmpty, case("element 0"), Kind::Slots, Some("element 0 never sent")),
        (Defect::Scatters, case("scatters"), Kind::Decode, Some("a later rank overwrites")),
        (Defect::NoMean, case("returns the mean"), Kind::Decode, Some("the mean not divided")),
        (Defect::EqualSplit, case("equal parts"), Kind::Decode, Some("gathered messages split equally")),
        (Defect::OneBuffer, case("decaying buffer"), Kind::Residual, None),
        (Defect::NoMemory, case("without memory"), Kind::Residual, None),
        (Defect::FirstK, case("first k indices"), Kind::Selection, Some("the first k that pass the threshold")),
    ] {
        let prepared = prepared(&id);
        let outcome = examine(&mut InProcess::new(Published(defect), Profile::new("published", "1")), &prepared);
        let found = outcome.violations.first().map(|violation| violation.kind);
        assert_eq!((outcome.verdict, found), (Verdict::Violates, Some(kind)), "{defect:?}: {:?}", outcome.violations);
        assert!(decoy.is_none() || hint(&prepared, &outcome) == decoy, "{defect:?}: {:?}", hint(&prepared, &outcome));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    LastWriter,
    ZeroIsEmpty,
    Scatters,
    NoMean,
    EqualSplit,
    OneBuffer,
    NoMemory,
    FirstK,
}

/// A compressor with one defect of the published code.
struct Published(Defect);

impl Compressor for Published {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        let mut changed = *spec;
        if let (Defect::LastWriter, Placement::HashTable { policy, .. }) = (self.0, &mut changed.placement) {
            *policy = Policy::Any;
        }
        Reference.compress(&changed, step, gradient, memory, message)?;
        let kept = match self.0 {
            Defect::ZeroIsEmpty => message.words.iter().position(|w| unpack(*w).0 == 0),
            Defect::FirstK => spec.selector.aim(spec.len).filter(|k| *k < message.len()),
            _ => None,
        };
        if let Some(at) = kept {
            let from = if self.0 == Defect::FirstK { at } else { 0 };
            let lost: Vec<u64> = message
                .words
                .drain(from..if self.0 == Defect::FirstK { message.words.len() } else { at + 1 })
                .collect();
            lost.iter().map(|w| unpack(*w)).for_each(|(i, x)| memory.velocity[i as usize] = x);
        }
        match self.0 {
            Defect::OneBuffer => memory.velocity.iter_mut().for_each(|v| *v *= 0.9),
            Defect::NoMemory => memory.velocity.fill(0.0),
            _ => {}
        }
        Ok(())
    }
}

impl Decompressor for Published {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        let all: Vec<u64> = messages.concat();
        let share = all.len() / messages.len().max(1);
        let split: Vec<&[u64]> = (0..messages.len()).map(|r| &all[r * share..(r + 1) * share]).collect();
        match self.0 {
            Defect::EqualSplit => Reference.decompress(&split, reduction, out),
            Defect::NoMean => Reference.decompress(messages, Reduction::Sum, out),
            Defect::Scatters => {
                Reference.decompress(messages, reduction, out)?;
                let by = if reduction == Reduction::Mean { messages.len() as f32 } else { 1.0 };
                all.iter().map(|w| unpack(*w)).for_each(|(i, x)| out[i as usize] = x / by);
                Ok(())
            }
            _ => Reference.decompress(messages, reduction, out),
        }
    }
}

#[test]
fn a_failure_is_made_small_and_named() {
    let id = "compression/n4097/topk@0.1/hash@2/momentum=0.9,masked/wire=bf16,rice/heavy/steps=3/ranks=3/9";
    let mut subject = InProcess::new(Published(Defect::LastWriter), Profile::new("published", "1"));
    let report = hold_trial(&mut subject, &[id.parse().unwrap()], || ()).unwrap();
    let failure = &report.failures[0];
    let shrunk: Case = failure.shrunk.parse().unwrap();
    assert!(shrunk.len < 300 && shrunk.steps == 1 && shrunk.ranks == 1, "{}", failure.shrunk);
    assert!(matches!(shrunk.placement, Placement::HashTable { .. }), "{}", failure.shrunk);
    assert_eq!((failure.kind, failure.hint), ("slots", Some("the last one keeps the slot")), "{}", failure.text);
    assert!(!report.passes() && report.to_text().contains(&failure.shrunk));
}

#[test]
fn shrinking_ends_and_keeps_what_matters() {
    let big: Case = TABLE_K.parse().unwrap();
    let small = shrink(&big, |case| case.len > 17 && matches!(case.placement, Placement::HashTable { .. }), 500);
    assert_eq!((small.len, small.steps, small.ranks), (18, 1, 1), "{small}");
    assert_eq!(shrink(&big, |_| false, 500), big);
}

/// Buckets beyond 32 bits cannot be built here; what they are refused by can.
#[test]
fn lengths_beyond_32_bits_are_refused() {
    for len in [1usize << 32, (1 << 32) + 1, usize::MAX] {
        let spec = CompressionSpec::dragonn(len, Count::Density(0.001), 0.9);
        assert!(matches!(spec.validate(), Err(CompressionError::Spec { field: "len", .. })), "{len}");
        let refused = Reference.compress(&spec, Step::new(0), &[1.0], &mut Memory::default(), &mut Message::default());
        assert!(matches!(refused, Err(CompressionError::Spec { field: "len", .. })));
        let refused = CpuCompressor::default().compress(
            &spec,
            Step::new(0),
            &[1.0],
            &mut Memory::default(),
            &mut Message::default(),
        );
        assert!(matches!(refused, Err(CompressionError::Spec { field: "len", .. })));
    }
    let longest = CompressionSpec::dragonn((1 << 32) - 1, Count::Density(0.001), 0.9);
    assert_eq!((longest.validate(), longest.selector.aim(longest.len)), (Ok(()), Some(4_294_967)));
    assert_eq!(longest.slots(), Ok(Some(17_179_868)));
}

/// Indices of any regular pattern spread over slots as random ones would: χ² within five deviations of its mean.
#[test]
fn regular_indices_spread_evenly() {
    type Pattern = (&'static str, fn(u32) -> u32);
    let patterns: [Pattern; 6] = [
        ("consecutive", |n| n),
        ("strided by 32", |n| 32 * n + 5),
        ("strided by 4096", |n| 4096 * n),
        ("from the end", |n| u32::MAX - 1 - n),
        ("clustered", |n| n % 50 + n / 50 * 100_003),
        ("powers of two apart", |n| ((n % 32) << 27) | (n / 32)),
    ];
    for (name, index) in patterns {
        for seed in [0, 1, 12345, u32::MAX] {
            for slots in [64u32, 100, 1021] {
                let mut counts = vec![0u64; slots as usize];
                (0..20_000).for_each(|n| counts[slot(index(n), seed, slots) as usize] += 1);
                let freedom = f64::from(slots - 1);
                let off = (chi_squared(&counts) - freedom) / (2.0 * freedom).sqrt();
                assert!(off.abs() < 5.0, "{name}, seed {seed}, {slots} slots: {off:.1} deviations");
            }
        }
    }
}

#[test]
fn reports_count_and_say_what_they_counted() {
    let ids = [PLAIN, TABLE, &PLAIN.replace("n900", "n0")].map(|id| id.parse().unwrap());
    let mut profile = Profile::new("few", "2");
    profile.columns = vec![Column::TopK];
    let report = hold_trial(&mut InProcess::new(Reference, profile), &ids, || ()).unwrap();
    let json = report.to_json();
    assert_eq!((json["family"].as_str(), json["name"].as_str()), (Some("compression"), Some("few")));
    assert_eq!([&json["conforms"], &json["vacuous"], &json["unsupported"], &json["timed_out"]], [1, 1, 1, 0]);
    assert_eq!(report.evidence.get(&("ranks", "top-k")), Some(&1));
    let missing: BTreeMap<_, Vec<_>> =
        report.without_evidence().into_iter().fold(BTreeMap::new(), |mut map, (f, c)| {
            map.entry(c).or_insert_with(Vec::new).push(f);
            map
        });
    assert!(missing["top-k"].contains(&"hash-table") && !missing["top-k"].contains(&"compact"));
    assert!(!missing["top-k"].contains(&"refinement"), "nobody can refine an exact top-k");
    assert!(report.to_text().contains("unsupported: 1 × does not declare selector fixed"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A message with one entry left out, doubled, moved or changed is rejected, wherever it is.
    #[test]
    fn no_single_change_passes(
        case in prop::sample::select(Column::ALL.to_vec()).prop_flat_map(any_case),
        at in any::<prop::sample::Index>(),
        how in 0u8..5,
    ) {
        struct Changed(usize, u8);
        impl Compressor for Changed {
            fn compress(&mut self, spec: &CompressionSpec, step: Step, gradient: &[f32], memory: &mut Memory, message: &mut Message) -> Result<(), CompressionError> {
                Reference.compress(spec, step, gradient, memory, message)?;
                let words = &mut message.words;
                let at = self.0 % words.len().max(1);
                let Some(entry) = words.get(at).copied().map(unpack) else { return Ok(()) };
                match self.1 {
                    0 => drop(words.remove(at)),
                    1 => words.insert(at, word(entry.0, entry.1)),
                    2 => words[at] = word(entry.0 ^ 1, entry.1),
                    3 => words[at] = word(entry.0, if entry.1.is_nan() { 1.0 } else { -entry.1 }),
                    _ => memory.velocity.iter_mut().chain(&mut memory.momentum).take(1).for_each(|x| *x = 12345.5),
                }
                Ok(())
            }
        }
        impl Decompressor for Changed {
            fn decompress(&mut self, messages: &[&[u64]], reduction: Reduction, out: &mut [f32]) -> Result<(), CompressionError> {
                Reference.decompress(messages, reduction, out)
            }
        }
        let case = Case { steps: 1, ranks: 1, ..case };
        let prepared = Prepared::new(&case).unwrap();
        let right = examine(&mut InProcess::sequential(Reference, Profile::new("", "")), &prepared);
        prop_assert!(right.violations.is_empty(), "{case}: {:?}", right.violations);
        let (mut memory, mut message) = (Memory::new(&case.spec()).unwrap(), Message::default());
        let sent = Reference.compress(&case.spec(), case.step(0), &prepared.gradients[0][0], &mut memory, &mut message);
        // A change of nothing is none, and neither is the sign of a value that rounds to zero.
        let changed = sent.is_ok() && message.entries().all(|(_, x)| x != 0.0) && !message.is_empty() && (how < 4 || !memory.velocity.is_empty());
        let wrong = examine(&mut InProcess::sequential(Changed(at.index(usize::MAX), how), Profile::new("", "")), &prepared);
        prop_assert!(!changed || wrong.verdict == Verdict::Violates, "{case}: {how} passes");
    }
}
