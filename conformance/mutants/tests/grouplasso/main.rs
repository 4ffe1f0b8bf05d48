//! The group-lasso kernels: every variant's answers are certified, no planted bug is equivalent to no bug.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod cases;
mod judge;
mod triggers;

use cases::{Block, Case, any_problem, blocks, selections};
use judge::{Trial, prox_witness, selection_witness};
use proptest::prelude::*;
use std::sync::LazyLock;
use tilewright_grouplasso::{Element, GroupLassoError, Selection};
use tilewright_mutants::grouplasso::{CorrectVariant, Kernel, Mutant, Variant, mutants, variants};
use triggers::{matrices, triggers};

/// Everything that mutants are put to.
struct Population {
    problems: Vec<Trial<f64>>,
    singles: Vec<Trial<f32>>,
    blocks: Vec<Block>,
}

static POPULATION: LazyLock<Population> = LazyLock::new(|| {
    let (problems, singles) = (triggers(), triggers().into_iter().filter(|case| case.name.contains("single")));
    Population {
        problems: problems.into_iter().map(Trial::new).collect(),
        singles: singles.map(Trial::new).collect(),
        blocks: blocks(),
    }
});

impl Population {
    /// A case that tells a kernel from a right one.
    fn witness(&self, kernel: &Kernel) -> Option<String> {
        selection_witness(kernel, &selections(), &matrices())
            .or_else(|| self.blocks.iter().find_map(|block| prox_witness::<f64>(kernel, block)))
            .or_else(|| self.blocks.iter().find_map(|block| prox_witness::<f32>(kernel, block)))
            .or_else(|| self.problems.iter().find_map(|trial| trial.witness(kernel)))
            .or_else(|| self.singles.iter().find_map(|trial| trial.witness(kernel)))
    }
}

#[test]
fn every_mutant_is_wrong_somewhere() {
    let mut equivalent = Vec::new();
    for mutant in mutants() {
        let witness = POPULATION.witness(&mutant.kernel());
        println!("{:>3} {:<28} {}", mutant.id, mutant.name, witness.as_deref().unwrap_or("EQUIVALENT"));
        if witness.is_none() {
            equivalent.push(mutant.name);
        }
    }
    assert!(equivalent.is_empty(), "nothing tells these from the correct kernel: {equivalent:?}");
}

/// The judge of the test above lets correct kernels pass, on the same population.
#[test]
fn no_variant_is_wrong_there() {
    let mut wrong = Vec::new();
    for control in variants() {
        if let Some(witness) = POPULATION.witness(&control.kernel()) {
            wrong.push((control.name, witness));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A variant that a case convicts.
fn convicted<T: Element>(case: Case) -> Option<String> {
    let trial = Trial::<T>::new(case);
    let wrong = |control: CorrectVariant| Some(format!("{}: {}", control.name, trial.witness(&control.kernel())?));
    variants().into_iter().find_map(wrong)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    /// A gap of 10⁻⁸, certified, wherever the reference reaches it.
    #[test]
    fn variants_reach_the_gap(seed in any::<u64>()) {
        prop_assert_eq!(convicted::<f64>(any_problem(seed)), None);
    }

    #[test]
    fn variants_reach_the_gap_from_single_precision(seed in any::<u64>()) {
        prop_assert_eq!(convicted::<f32>(any_problem(seed)), None);
    }
}

#[test]
fn catalogues_are_sound() {
    let kebab = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let (mutants, controls) = (mutants(), variants());
    assert!(mutants.len() >= 170 && controls.len() >= 30);
    assert!(mutants.windows(2).all(|pair| pair[0].id < pair[1].id), "numbers must ascend");
    assert!(mutants.iter().all(|m| !m.about.is_empty() && !m.trigger.is_empty()));
    let mut names: Vec<_> = mutants.iter().map(|m| m.name).chain(controls.iter().map(|c| c.name)).collect();
    assert!(names.iter().all(|name| kebab(name)));
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "names must differ");
    for (n, control) in controls.iter().enumerate() {
        assert!(controls[..n].iter().all(|other| other.variant != control.variant), "{} repeats", control.name);
    }
    let attention = tilewright_mutants::attention::mutants().iter().map(|m| m.id);
    let compression = tilewright_mutants::compression::mutants().iter().map(|m| m.id);
    let others: Vec<u16> = attention.chain(compression).collect();
    assert!(mutants.iter().all(|m: &Mutant| !others.contains(&m.id)), "numbers are shared");
}

#[test]
fn what_a_variant_cannot_do_is_an_error() {
    let refuses = |variant: Variant| {
        let outcome =
            Selection::<f64>::select(&Kernel::correct(variant), &[1.0], tilewright_grouplasso::Keep::Features(1));
        matches!(outcome, Err(GroupLassoError::Unsupported { .. }))
    };
    assert!(refuses(Variant { steps: 0, ..Variant::BASE }));
    assert!(refuses(Variant { check: 0, ..Variant::BASE }));
    assert!(!refuses(Variant::BASE));
}
