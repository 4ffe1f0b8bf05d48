//! The compression kernels: every variant gives the reference's bits, no planted bug is equivalent to no bug.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cases;

use cases::{Case, Gathered, LONG, SHORT, cases, gathered, refined_cases};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tilewright_compression::invariants::{same_number, verify_decode, verify_step};
use tilewright_compression::message::word;
use tilewright_compression::reference::Reference;
use tilewright_compression::{CompressionError, Compressor, Decompressor, Memory, Message, NonFinite, Policy, Step};
use tilewright_mutants::compression::{
    Compaction, Decoding, Fault, Kernel, Mutant, Table, Variant, Visit, mutants, variants,
};

/// What a message and an output hold before they are written.
const OLD: f32 = 777.0;

/// What is wrong with one step, if anything. `memory` and `message` go on to the next.
fn step_fault(
    kernel: &mut impl Compressor,
    case: &Case,
    n: u64,
    memory: &mut Memory,
    message: &mut Message,
) -> Option<String> {
    let (spec, gradient) = (&case.spec, case.gradient(n));
    let step = Step { number: case.first_step.wrapping_add(n), scale: case.scale };
    let (before, said_before) = (memory.clone(), message.clone());
    let outcome = kernel.compress(spec, step, &gradient, memory, message);
    let (mut right, mut said) = (before.clone(), said_before.clone());
    let expected = Reference.compress(spec, step, &gradient, &mut right, &mut said);
    if outcome != expected {
        return Some(format!("step {n}: {outcome:?} instead of {expected:?}"));
    }
    if outcome.is_err() {
        let kept = same_memory(memory, &before) && *message == said_before;
        return (!kept).then(|| format!("step {n}: an error that changed something"));
    }
    verify_step(spec, step, &gradient, &before, memory, &message.words).err().map(|v| format!("step {n}: {v}"))
}

fn same_memory(a: &Memory, b: &Memory) -> bool {
    let same = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_number(*a, *b));
    same(&a.velocity, &b.velocity) && same(&a.momentum, &b.momentum)
}

/// The first thing wrong with a kernel's steps of a case.
fn compress_fault(kernel: &mut impl Compressor, case: &Case) -> Option<String> {
    let mut memory = Memory::new(&case.spec).unwrap();
    let mut message = Message { words: vec![word(0, OLD)] };
    (0..case.steps).find_map(|n| step_fault(kernel, case, n, &mut memory, &mut message))
}

/// The same for decoding, twice.
fn decode_fault(kernel: &mut impl Decompressor, case: &Gathered) -> Option<String> {
    let messages: Vec<&[u64]> = case.messages.iter().map(Vec::as_slice).collect();
    (0..2).find_map(|_| {
        let (mut out, mut right) = (vec![OLD; case.len], vec![OLD; case.len]);
        let outcome = kernel.decompress(&messages, case.reduction, &mut out);
        let expected = Reference.decompress(&messages, case.reduction, &mut right);
        if outcome != expected {
            return Some(format!("{outcome:?} instead of {expected:?}"));
        }
        if outcome.is_err() {
            return out.iter().any(|x| *x != OLD).then(|| "an error that changed the output".into());
        }
        verify_decode(&messages, case.reduction, &out).err().map(|v| v.to_string())
    })
}

/// A population drawn from a strategy, the same in each run.
fn population<T: Strategy>(strategy: T, size: usize) -> Vec<T::Value> {
    let mut runner = TestRunner::deterministic();
    (0..size).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Everything that mutants are put to.
struct Population {
    steps: Vec<Case>,
    messages: Vec<Gathered>,
}

impl Population {
    fn new() -> Self {
        let mut steps = population(cases(SHORT, &[Policy::LargestMagnitude, Policy::Any]), 1500);
        steps.extend(population(refined_cases(&[300, 1000]), 400));
        steps.extend(population(cases(LONG, &[Policy::LargestMagnitude]), 20));
        steps.extend(population(refined_cases(LONG), 10));
        Self { steps, messages: population(gathered(), 200) }
    }

    /// A case that tells the kernels of a maker from a right one.
    fn witness(&self, new: impl Fn() -> Kernel) -> Option<String> {
        let of_message =
            |case: &Gathered| decode_fault(&mut new(), case).map(|w| format!("{w}, decoding {} places", case.len));
        let of_steps = |case: &Case| compress_fault(&mut new(), case).map(|w| format!("{w} of {:?}", case.spec));
        self.messages.iter().find_map(of_message).or_else(|| self.steps.iter().find_map(of_steps))
    }
}

#[test]
fn every_mutant_is_wrong_somewhere() {
    let population = Population::new();
    let mut equivalent = Vec::new();
    for mutant in mutants() {
        let witness = population.witness(|| mutant.kernel());
        println!("{:>3} {:<28} {}", mutant.id, mutant.name, witness.as_deref().unwrap_or("EQUIVALENT"));
        if witness.is_none() {
            equivalent.push(mutant.name);
        }
    }
    assert!(equivalent.is_empty(), "nothing tells these from the correct kernel: {equivalent:?}");
}

/// The judge of the test above lets the correct kernel pass, on the same population.
#[test]
fn the_correct_kernel_is_wrong_nowhere() {
    assert_eq!(Population::new().witness(|| Kernel::correct(Variant::BASE)), None);
}

/// Kernels run a case; the last memory and all messages.
fn run(kernel: &mut impl Compressor, case: &Case) -> Result<(Memory, Vec<Vec<u64>>), CompressionError> {
    let (mut memory, mut message) = (Memory::new(&case.spec)?, Message::default());
    let mut said = Vec::new();
    for n in 0..case.steps {
        let step = Step { number: case.first_step.wrapping_add(n), scale: case.scale };
        kernel.compress(&case.spec, step, &case.gradient(n), &mut memory, &mut message)?;
        said.push(message.words.clone());
    }
    Ok((memory, said))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Where there is one answer, it is the reference's, bit for bit, step after step.
    #[test]
    fn variants_give_the_references_bits(case in cases(SHORT, &[Policy::LargestMagnitude])) {
        let expected = run(&mut Reference, &case);
        for control in variants() {
            match (run(&mut control.kernel(), &case), &expected) {
                (Ok((memory, said)), Ok((right, expected))) => {
                    prop_assert!(same_memory(&memory, right), "{}: another memory", control.name);
                    prop_assert_eq!(&said, expected, "{}: other messages", control.name);
                }
                (got, expected) => prop_assert_eq!(&got, expected, "{}", control.name),
            }
        }
    }

    /// Where anyone may win a collision, each step is one of the right ones.
    #[test]
    fn variants_take_right_steps_where_anyone_may_win(case in cases(SHORT, &[Policy::Any])) {
        for control in variants() {
            prop_assert_eq!(compress_fault(&mut control.kernel(), &case), None, "{}", control.name);
        }
    }

    #[test]
    fn variants_decode_the_references_bits(case in gathered()) {
        for control in variants() {
            prop_assert_eq!(decode_fault(&mut control.kernel(), &case), None, "{}", control.name);
        }
    }

    /// One kernel for cases of all kinds: nothing of a call is left for the next.
    #[test]
    fn a_kernel_may_be_used_again(list in prop::collection::vec(cases(SHORT, &[Policy::LargestMagnitude]), 4)) {
        let mut kernel = Kernel::correct(Variant::BASE);
        for case in &list {
            prop_assert_eq!(compress_fault(&mut kernel, case), None);
        }
    }
}

/// A variant that claims the same bits keeps its word; the others show that theirs differ.
#[test]
fn variants_are_as_deterministic_as_they_say() {
    let population = population(cases(SHORT, &[Policy::Any]), 60);
    for control in variants() {
        let repeats = |case: &Case| {
            let bits = |(memory, said): (Memory, Vec<Vec<u64>>)| {
                (said, memory.velocity.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            run(&mut control.kernel(), case).map(bits) == run(&mut control.kernel(), case).map(bits)
        };
        assert_eq!(population.iter().all(repeats), control.deterministic(), "{}", control.name);
    }
}

#[test]
fn catalogues_are_sound() {
    let kebab = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let (mutants, controls) = (mutants(), variants());
    assert!(mutants.len() >= 130 && controls.len() >= 25);
    assert!(mutants.windows(2).all(|pair| pair[0].id < pair[1].id), "numbers must ascend");
    assert!(mutants.iter().all(|m| !m.about.is_empty() && !m.trigger.is_empty()));
    let mut names: Vec<_> = mutants.iter().map(|m| m.name).chain(controls.iter().map(|c| c.name)).collect();
    assert!(names.iter().all(|name| kebab(name)));
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names must differ");
    for (n, control) in controls.iter().enumerate() {
        assert!(controls[..n].iter().all(|other| other.variant != control.variant), "{} repeats", control.name);
    }
    let attention = tilewright_mutants::attention::mutants();
    assert!(mutants.iter().all(|m: &Mutant| attention.iter().all(|other| other.id != m.id)), "numbers are shared");
}

#[test]
fn a_refused_step_changes_nothing_whatever_the_variant() {
    let refused = |case: &Case| case.spec.non_finite == NonFinite::Reject && case.data == cases::Data::NonFinite;
    let mut population = population(cases(SHORT, &[Policy::LargestMagnitude]), 600);
    population.retain(refused);
    assert!(population.iter().any(|case| run(&mut Reference, case).is_err()));
    for control in variants() {
        for case in &population {
            assert_eq!(compress_fault(&mut control.kernel(), case), None, "{}", control.name);
        }
    }
}

/// What depends on earlier calls is invisible in the first.
#[test]
fn stale_memory_needs_a_second_call() {
    let population = population(cases(SHORT, &[Policy::LargestMagnitude]), 300);
    for fault in [Fault::StaleTable, Fault::StaleMagnitudes, Fault::HiddenResidual, Fault::ResidualDropped] {
        let first = |case: &Case| Case { steps: 1, ..case.clone() };
        assert!(population.iter().all(|case| compress_fault(&mut Kernel::faulty(fault), &first(case)).is_none()));
        assert!(population.iter().any(|case| compress_fault(&mut Kernel::faulty(fault), case).is_some()));
    }
}

#[test]
fn what_a_variant_cannot_do_is_an_error() {
    let refuses = |variant: Variant| {
        let outcome = Kernel::correct(variant).decompress(&[&[]], tilewright_compression::Reduction::Sum, &mut [0.0]);
        matches!(outcome, Err(CompressionError::Unsupported { .. }))
    };
    assert!(refuses(Variant { visit: Visit::Strided(0), ..Variant::BASE }));
    assert!(refuses(Variant { compaction: Compaction::TwoPass(0), ..Variant::BASE }));
    assert!(refuses(Variant { table: Table::Merged(0), ..Variant::BASE }));
    assert!(refuses(Variant { decoding: Decoding::Owners(0), ..Variant::BASE }));
    assert!(!refuses(Variant::BASE));
}

/// Every order of visits is one of each number.
#[test]
fn orders_visit_everything_once() {
    let orders = [Visit::Ascending, Visit::Descending, Visit::Strided(7), Visit::Blocks(61), Visit::Shuffled];
    for (visit, len) in orders.iter().flat_map(|visit| SHORT.iter().map(move |len| (visit, *len))) {
        let mut order = visit.order(len);
        assert!(len < 100 || *visit == Visit::Ascending || !order.is_sorted(), "{visit:?}");
        order.sort_unstable();
        assert_eq!(order, (0..len).collect::<Vec<_>>());
    }
}
