//! Which cases make a suite.
//!
//! `quick` visits every feature with every selector, every distribution and every kind of boundary; `full` adds long
//! buckets and random combinations; `extensive` many more of the latter. Lengths straddle the block sizes that
//! compressors use, one below and one above, and are otherwise odd, so that no bug hides in symmetry.

use crate::compression::case::{Case, Distribution};
use crate::compression::subject::Column;
use crate::regressions::{self, RegressionError};
pub use crate::suite::Suite;
use crate::suite::{after_recorded, sample};
use proptest::prelude::*;
use tilewright_compression::{
    Count, Feedback, IndexCoding, NonFinite, Placement, Policy, Refinement, Sampling, Selector, Slots, ValueFormat,
    Wire,
};

/// Cases that tell right from wrong where upstream is wrong, with the reasons in the file itself.
const REGRESSIONS: &str = include_str!("../../vectors/compression_regressions.txt");

/// The regressions, in the file's order: `(case, reason)`.
///
/// # Errors
/// What is wrong with the first line that is no case id with a reason.
pub fn regressions() -> Result<Vec<(Case, &'static str)>, RegressionError> {
    regressions::parse(REGRESSIONS)
}

/// The cases of a suite, for every selector, regressions first. `seed` shifts all other data and picks the random
/// combinations.
///
/// # Panics
/// If a line of the embedded file of regressions is none, rather than try less than was asked for.
pub fn cases(suite: Suite, seed: u32) -> Vec<Case> {
    let recorded = regressions().unwrap_or_else(|error| panic!("{error}"));
    let mut all = Vec::new();
    for column in Column::ALL {
        let mut of_column = listed(column);
        if suite != Suite::Quick {
            of_column.extend(long(column));
        }
        // Another seed each: data, first step and the specification's own seed.
        for (n, case) in (1u32..).zip(&mut of_column) {
            case.seed = n.wrapping_add(seed);
        }
        let random = match suite {
            Suite::Quick => 12,
            Suite::Full => 300,
            Suite::Extensive => 5000,
        };
        of_column.extend(sample(&any_case(column), random, seed ^ column as u32));
        all.extend(of_column);
    }
    after_recorded(recorded.into_iter().map(|(case, _)| case).collect(), all)
}

const MASKED: Feedback = Feedback::Momentum { factor: 0.9, nesterov: false, masking: true };

fn hash(per_entry: f64) -> Placement {
    Placement::HashTable { slots: Slots::PerEntry(per_entry), policy: Policy::LargestMagnitude }
}

fn slots(count: u32) -> Placement {
    Placement::HashTable { slots: Slots::Exactly(count), policy: Policy::LargestMagnitude }
}

fn any_winner(placement: Placement) -> Placement {
    match placement {
        Placement::HashTable { slots, .. } => Placement::HashTable { slots, policy: Policy::Any },
        Placement::Compact => Placement::Compact,
    }
}

/// A case of a column with about one entry in ten, and the table that goes with it.
fn base(column: Column, len: usize) -> Case {
    let count = Count::Density(0.1);
    let selector = match column {
        Column::TopK => Selector::ExactTopK(count),
        Column::Sampled => Selector::SampledThreshold(count, Sampling { ratio: 0.25, refine: None }),
        Column::Fixed => Selector::FixedThreshold(1.0),
        Column::RandomK => Selector::RandomK(count),
    };
    Case { selector, ..Case::new(len, 0.1) }
}

/// A case of a column in which nearly everything is sent.
fn dense(column: Column, len: usize) -> Case {
    let count = Count::Density(1.0);
    let selector = match column {
        Column::TopK => Selector::ExactTopK(count),
        Column::Sampled => Selector::SampledThreshold(count, Sampling { ratio: 1.0, refine: None }),
        Column::Fixed => Selector::FixedThreshold(0.0),
        Column::RandomK => Selector::RandomK(count),
    };
    Case { selector, ..Case::new(len, 1.0) }
}

/// A table for about as many entries as `base` has.
fn table(column: Column, len: usize, per_entry: f64) -> Placement {
    match column {
        Column::Fixed => slots(((len as f64 * 0.3 * per_entry) as u32).max(1)),
        _ => hash(per_entry),
    }
}

/// The hand-picked cases: one line a reason.
fn listed(column: Column) -> Vec<Case> {
    let mut list = Vec::new();
    distributions(column, &mut list);
    lengths(column, &mut list);
    memories(column, &mut list);
    wires(column, &mut list);
    tables(column, &mut list);
    several(column, &mut list);
    match column {
        Column::TopK => counts(Selector::ExactTopK, &mut list),
        Column::RandomK => counts(Selector::RandomK, &mut list),
        Column::Sampled => samples(&mut list),
        Column::Fixed => thresholds(&mut list),
    }
    list
}

fn distributions(column: Column, list: &mut Vec<Case>) {
    for distribution in Distribution::ALL {
        list.push(Case { distribution, steps: 2, ..base(column, 1000) });
        let placement = table(column, 1500, 2.0);
        list.push(Case { distribution, placement, feedback: MASKED, steps: 3, ranks: 2, ..base(column, 1500) });
    }
    let huge = Case { distribution: Distribution::Huge, steps: 3, ..base(column, 300) };
    list.push(Case { non_finite: NonFinite::Reject, ..huge.clone() });
    list.push(Case { non_finite: NonFinite::Reject, distribution: Distribution::NonFinite, ..huge.clone() });
    list.push(Case {
        non_finite: NonFinite::Reject,
        feedback: MASKED,
        distribution: Distribution::NonFinite,
        ..huge.clone()
    });
    list.push(Case { non_finite: NonFinite::Reject, ..base(column, 300) });
    // So few candidates a step that NaN and infinities have to wait.
    list.push(Case { distribution: Distribution::NonFinite, placement: slots(3), feedback: MASKED, ..huge });
}

fn lengths(column: Column, list: &mut Vec<Case>) {
    let edges = [0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097];
    for (n, len) in edges.into_iter().enumerate() {
        list.push(Case { steps: 2, ..base(column, len) });
        let placement = table(column, len, 3.0);
        let feedback = if n % 2 == 0 { Feedback::None } else { MASKED };
        list.push(Case { placement, feedback, distribution: Distribution::Ascending, ..base(column, len) });
    }
    // What is largest lies in the last, partial block, and in the first.
    for distribution in [Distribution::Last, Distribution::First, Distribution::Descending] {
        list.push(Case { distribution, ..base(column, 2051) });
    }
    list.push(Case { distribution: Distribution::Ascending, ..base(column, 32769) });
    list.push(Case { placement: table(column, 65537, 1.0), ..base(column, 65537) });
}

fn memories(column: Column, list: &mut Vec<Case>) {
    let mut feedbacks = vec![Feedback::None, Feedback::Residual];
    for (nesterov, masking) in [(false, false), (false, true), (true, false), (true, true)] {
        feedbacks.push(Feedback::Momentum { factor: 0.9, nesterov, masking });
    }
    feedbacks.push(Feedback::Momentum { factor: 0.0, nesterov: false, masking: false });
    for feedback in feedbacks {
        let case = Case { feedback, steps: 4, ..base(column, 701) };
        list.push(case.clone());
        list.push(Case { placement: table(column, 701, 1.5), ..case.clone() });
        list.push(Case { scale: 0.3, ..case.clone() });
        list.push(Case { scale: 0.75, placement: table(column, 701, 2.0), ranks: 3, ..case });
    }
    // Whole numbers add up exactly, whoever loses a slot.
    for placement in [Placement::Compact, table(column, 500, 1.0), any_winner(table(column, 500, 1.0))] {
        list.push(Case { placement, distribution: Distribution::Integer, steps: 9, ..base(column, 500) });
    }
}

fn wires(column: Column, list: &mut Vec<Case>) {
    let narrow = [(ValueFormat::Bf16, IndexCoding::Rice), (ValueFormat::F16, IndexCoding::Plain)];
    for (value, index) in narrow {
        let wire = Wire { value, index };
        for distribution in [Distribution::Heavy, Distribution::Huge, Distribution::Subnormal, Distribution::NonFinite]
        {
            list.push(Case { wire, distribution, steps: 3, ..base(column, 900) });
        }
        list.push(Case { wire, placement: table(column, 900, 2.0), feedback: MASKED, steps: 3, ..base(column, 900) });
        list.push(Case { wire, feedback: Feedback::None, ranks: 3, ..base(column, 900) });
    }
    let rice = Wire { value: ValueFormat::F32, index: IndexCoding::Rice };
    list.push(Case { wire: rice, placement: table(column, 3000, 4.0), ..base(column, 3000) });
}

fn tables(column: Column, list: &mut Vec<Case>) {
    for per_entry in [0.5, 1.0, 3.3, 8.0] {
        let case = Case { placement: table(column, 1100, per_entry), ..base(column, 1100) };
        list.push(case.clone());
        list.push(Case { placement: any_winner(case.placement), steps: 3, ..case.clone() });
        list.push(Case { distribution: Distribution::Ties, feedback: Feedback::None, ..case });
    }
    for count in [1, 2, 64, 100] {
        list.push(Case { placement: slots(count), feedback: MASKED, steps: 2, ..base(column, 800) });
    }
    // Regular indices, which a weak hash does not spread.
    for distribution in [Distribution::Strided, Distribution::Clustered, Distribution::Equal, Distribution::Descending]
    {
        list.push(Case { distribution, placement: table(column, 2500, 1.0), ..base(column, 2500) });
    }
}

fn several(column: Column, list: &mut Vec<Case>) {
    for ranks in [2, 3, 4, 5, 8] {
        list.push(Case { ranks, steps: 2, distribution: Distribution::Ties, ..base(column, 401) });
        let placement = table(column, 401, 2.0);
        list.push(Case { ranks, placement, distribution: Distribution::Clustered, ..base(column, 401) });
        // Everybody sends the same few, with all their digits.
        list.push(Case { ranks, feedback: Feedback::None, ..dense(column, 37) });
    }
    list.push(Case { ranks: 6, distribution: Distribution::Equal, ..base(column, 50) });
    list.push(Case { ranks: 3, distribution: Distribution::First, ..base(column, 130) });
    list.push(Case { ranks: 7, distribution: Distribution::Last, steps: 2, ..base(column, 130) });
}

fn counts(selector: fn(Count) -> Selector, list: &mut Vec<Case>) {
    let shares = [0.0001, 0.0004, 0.0017, 0.0025, 0.35, 0.5, 0.999, 1.0].map(Count::Density);
    let numbers = [0, 1, 2, 7, 999, 1000, 5000].map(Count::Entries);
    for count in shares.into_iter().chain(numbers) {
        let case = Case { selector: selector(count), steps: 2, ..Case::new(1000, 1.0) };
        list.push(case.clone());
        list.push(Case { distribution: Distribution::Ties, ..case.clone() });
        list.push(Case { placement: slots(150), distribution: Distribution::Ties, ..case });
    }
    // More NaNs and infinities than may be sent: which of them go first?
    let few = Case { selector: selector(Count::Entries(5)), steps: 3, ..Case::new(1000, 1.0) };
    list.push(Case { distribution: Distribution::NonFinite, ..few });
    let half = Case { selector: selector(Count::Density(0.5)), ..Case::new(1000, 1.0) };
    list.push(Case { distribution: Distribution::Integer, feedback: Feedback::None, ..half.clone() });
    // All magnitudes in one binade, so that their leading bits say little.
    list.push(Case { distribution: Distribution::Huge, wire: Wire::default(), feedback: Feedback::None, ..half });
    // Most of what counts in one block of many.
    let clustered = Case { selector: selector(Count::Density(0.1)), ..Case::new(9000, 1.0) };
    list.push(Case { distribution: Distribution::Clustered, ..clustered.clone() });
    list.push(Case { distribution: Distribution::Ascending, ..clustered });
    let everything = Case { selector: selector(Count::Density(1.0)), ..Case::new(333, 1.0) };
    let momentum = Feedback::Momentum { factor: 0.9, nesterov: false, masking: false };
    list.push(Case { feedback: momentum, ..everything.clone() });
    list.push(Case { feedback: MASKED, ..everything });
}

fn samples(list: &mut Vec<Case>) {
    let refined = |lower, upper, iterations| Some(Refinement { lower, upper, iterations });
    let sampled = |density: f64, ratio: f64, refine: Option<Refinement>, len: usize| Case {
        selector: Selector::SampledThreshold(Count::Density(density), Sampling { ratio, refine }),
        ..Case::new(len, 1.0)
    };
    for refine in [
        None,
        Sampling::DGC.refine,
        refined(0.5, 1.0, 3),
        refined(0.9, 1.05, 40),
        refined(0.99, 4.0, 2),
        refined(0.8, 1.3, 0),
    ] {
        for distribution in [
            Distribution::Heavy,
            Distribution::Clustered,
            Distribution::Strided,
            Distribution::Ties,
            Distribution::Last,
            Distribution::NonFinite,
            Distribution::Integer,
        ] {
            list.push(Case { distribution, ..sampled(0.05, 0.03, refine, 3001) });
        }
        list.push(Case { placement: hash(4.0), feedback: MASKED, steps: 3, ..sampled(0.02, 0.02, refine, 4100) });
        list.push(Case {
            placement: hash(4.0),
            distribution: Distribution::Clustered,
            ..sampled(0.02, 0.02, refine, 4100)
        });
        for distribution in [Distribution::Ascending, Distribution::Descending, Distribution::Huge] {
            list.push(Case { distribution, steps: 2, ..sampled(0.1, 0.02, refine, 2500) });
        }
    }
    for entries in [0, 1, 3, 20, 2999, 3000] {
        let selector = Selector::SampledThreshold(Count::Entries(entries), Sampling::DGC);
        list.push(Case { selector, steps: 2, ..Case::new(3000, 1.0) });
        let selector = Selector::SampledThreshold(Count::Entries(entries), Sampling::DRAGONN);
        list.push(Case { selector, ..Case::new(3000, 1.0) });
    }
    list.push(sampled(0.01, 1.0, None, 2000));
    // Samples beyond the 65536th place.
    list.push(Case { distribution: Distribution::Ascending, ..sampled(0.01, 0.01, None, 70_001) });
    list.push(Case { ..sampled(0.01, 0.01, Sampling::DGC.refine, 70_001) });
}

fn thresholds(list: &mut Vec<Case>) {
    let fixed = |threshold, distribution| Case {
        selector: Selector::FixedThreshold(threshold),
        distribution,
        ..Case::new(900, 1.0)
    };
    for (threshold, distribution) in [
        (0.0, Distribution::Ties),
        (0.0, Distribution::Zero),
        (-0.0, Distribution::Heavy),
        (1.0, Distribution::Ties),
        (2.0, Distribution::Ties),
        (3.0, Distribution::Ties),
        (0.5, Distribution::Equal),
        (500.0, Distribution::Integer),
        (f32::MAX, Distribution::Huge),
        (1e38, Distribution::Huge),
        (1e-45, Distribution::Subnormal),
        (1e-42, Distribution::Subnormal),
        (1e30, Distribution::Heavy),
        (f32::MAX, Distribution::NonFinite),
    ] {
        list.push(fixed(threshold, distribution));
        list.push(Case { placement: slots(200), steps: 2, ..fixed(threshold, distribution) });
    }
    list.push(Case { scale: 0.5, feedback: Feedback::None, ..fixed(1.0, Distribution::Ties) });
}

/// Long buckets, for what only shows beyond a block, a page or 16 bits.
fn long(column: Column) -> Vec<Case> {
    let lens = [32767, 32768, 32769, 65535, 65536, 65537, 262_143, 262_144, 262_145];
    let mut list = Vec::new();
    for (n, len) in lens.into_iter().enumerate() {
        let distribution = [Distribution::Heavy, Distribution::Ascending, Distribution::Clustered][n % 3];
        list.push(Case { distribution, ..base(column, len) });
        if n % 3 == 2 {
            list.push(Case { placement: table(column, len, 2.0), feedback: MASKED, ..base(column, len) });
        }
    }
    list
}

/// Any case of a column, simpler ones first: what proptest shrinks towards.
pub fn any_case(column: Column) -> impl Strategy<Value = Case> {
    let count = prop_oneof![
        3 => prop::sample::select(vec![0.001, 0.01, 0.05, 0.25, 0.7, 1.0]).prop_map(Count::Density),
        1 => (0usize..300).prop_map(Count::Entries),
    ];
    let refine = prop::option::of(
        (prop::sample::select(vec![0.5f32, 0.8, 0.95]), prop::sample::select(vec![1.0f32, 1.3, 2.0]), 0u32..12)
            .prop_map(|(lower, upper, iterations)| Refinement { lower, upper, iterations }),
    );
    let ratio = prop::sample::select(vec![0.01, 0.05, 0.2, 1.0]);
    let threshold = prop::sample::select(vec![0.0f32, 1e-40, 0.125, 0.5, 1.0, 2.0, 100.0]);
    let selector = (count, refine, ratio, threshold).prop_map(move |(count, refine, ratio, threshold)| match column {
        Column::TopK => Selector::ExactTopK(count),
        Column::RandomK => Selector::RandomK(count),
        Column::Sampled => Selector::SampledThreshold(count, Sampling { ratio, refine }),
        Column::Fixed => Selector::FixedThreshold(threshold),
    });
    let table = (prop::sample::select(vec![0.7, 1.0, 4.0]), 1u32..500, any::<bool>(), prop::bool::weighted(0.2));
    let placement = prop::option::of(table.prop_map(move |(per_entry, count, exactly, any)| Placement::HashTable {
        slots: if exactly || column == Column::Fixed { Slots::Exactly(count) } else { Slots::PerEntry(per_entry) },
        policy: if any { Policy::Any } else { Policy::LargestMagnitude },
    }))
    .prop_map(|placement| placement.unwrap_or(Placement::Compact));
    let feedback = prop_oneof![
        Just(Feedback::None),
        Just(Feedback::Residual),
        (prop::sample::select(vec![0.0f32, 0.5, 0.9, 0.99]), any::<bool>(), any::<bool>())
            .prop_map(|(factor, nesterov, masking)| Feedback::Momentum { factor, nesterov, masking }),
    ];
    let value = prop_oneof![3 => Just(ValueFormat::F32), 1 => Just(ValueFormat::Bf16), 1 => Just(ValueFormat::F16)];
    let index = prop_oneof![Just(IndexCoding::Plain), Just(IndexCoding::Rice)];
    let options =
        (value, index, prop::bool::weighted(0.1), prop_oneof![4 => Just(1.0f32), 1 => Just(0.37), 1 => Just(0.5)]);
    let data = (prop::sample::select(Distribution::ALL.to_vec()), 1usize..4, 1usize..4, any::<u32>());
    let len = prop_oneof![1 => 0usize..70, 3 => 0usize..2000, 1 => 4000usize..6000];
    (len, selector, placement, feedback, options, data).prop_map(
        |(len, selector, placement, feedback, (value, index, reject, scale), (distribution, steps, ranks, seed))| {
            Case {
                len,
                selector,
                placement,
                feedback,
                wire: Wire { value, index },
                non_finite: if reject { NonFinite::Reject } else { NonFinite::Propagate },
                scale,
                distribution,
                steps,
                ranks,
                seed,
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn an_id_says_everything(case in prop::sample::select(Column::ALL.to_vec()).prop_flat_map(any_case)) {
            prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = text.parse::<Case>();
        }
    }

    #[test]
    fn every_listed_case_has_an_id_and_a_sound_problem() {
        for case in cases(Suite::Full, 3) {
            assert_eq!(case.to_string().parse::<Case>(), Ok(case.clone()), "{case}");
            assert_eq!(case.spec().validate(), Ok(()), "{case}");
        }
    }

    #[test]
    fn every_regression_is_a_case_with_a_reason() {
        let regressions = regressions().expect("case ids");
        assert!(regressions.len() >= 6);
        assert!(regressions.iter().all(|(_, reason)| reason.len() > 20));
        assert_eq!(cases(Suite::Quick, 5)[0], regressions[0].0);
    }

    #[test]
    fn suites_are_the_same_every_time_and_have_no_doubles() {
        let quick = cases(Suite::Quick, 0);
        assert_eq!(quick, cases(Suite::Quick, 0));
        let ids: std::collections::BTreeSet<String> = quick.iter().map(ToString::to_string).collect();
        assert_eq!(ids.len(), quick.len());
    }
}
