//! No planted bug is equivalent to no bug: each changes some output of some case, far beyond rounding.
#![allow(clippy::unwrap_used)]

mod common;

use common::triggers::triggers;
use common::{Case, Forward, Named, Tensors, backward, forward};
use tilewright_mutants::attention::{Fault, Kernel, Mutant, Variant, mutants};
use tilewright_scalar::{Element, bf16};

/// A case in an element type, and what a correct kernel of one variant makes of it.
struct Trial<'a, T: Element> {
    case: &'a Case,
    tensors: Tensors<T>,
    variant: Variant,
    saved: Forward<T>,
    expected: [Named; 2],
}

impl<'a, T: Element> Trial<'a, T> {
    fn new(case: &'a Case, variant: Variant) -> Self {
        let (tensors, kernel) = (Tensors::new(case), Kernel::correct(variant));
        let saved = forward(&kernel, case, &tensors);
        let expected = [saved.named(), backward(&kernel, case, &tensors, &saved)];
        Self { case, tensors, variant, saved, expected }
    }

    /// What tells a kernel from the correct one: results, gradients of what the correct one saved, a second call.
    fn witness(&self, kernel: &Kernel, relative: f64) -> Option<String> {
        let first = forward(kernel, self.case, &self.tensors).named();
        let second = || forward(kernel, self.case, &self.tensors).named();
        let gradients = || backward(kernel, self.case, &self.tensors, &self.saved);
        // Unlike the others, this one is to be seen in the bits of two calls.
        let repeated = if kernel.fault() == Some(Fault::NotDeterministic) { 0.0 } else { relative };
        difference(&first, &self.expected[0], relative)
            .or_else(|| difference(&gradients(), &self.expected[1], relative))
            .or_else(|| difference(&second(), &first, repeated))
            .map(|witness| format!("{}: {witness}", self.case.name))
    }
}

/// Every case under every variant that some mutant is planted in.
fn trials<T: Element>(cases: &[Case]) -> Vec<Trial<'_, T>> {
    let mut variants: Vec<Variant> = Vec::new();
    for mutant in mutants().iter().filter(|mutant| mutant.supports(T::FORMAT)) {
        if !variants.contains(&mutant.variant()) {
            variants.push(mutant.variant());
        }
    }
    variants.iter().flat_map(|&variant| cases.iter().map(move |case| Trial::new(case, variant))).collect()
}

/// The first tensor with an element further off than `relative` of the tensor's largest, or of another class.
fn difference(got: &Named, expected: &Named, relative: f64) -> Option<String> {
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        let largest = expected.iter().filter(|x| x.is_finite()).fold(0.0, |max: f64, x| max.max(x.abs()));
        let differs = |(x, y): &(&f64, &f64)| {
            x.is_nan() != y.is_nan() || (x != y && !x.is_nan() && ((**x - **y).abs() > relative * largest))
        };
        if let Some((x, y)) = got.iter().zip(expected).find(differs) {
            return Some(format!("{name}: {x} instead of {y}"));
        }
    }
    None
}

/// Cases that reveal a mutant.
fn witnesses<T: Element>(mutant: &Mutant, trials: &[Trial<'_, T>], relative: f64) -> Vec<String> {
    let trials = trials.iter().filter(|trial| trial.variant == mutant.variant());
    trials.filter_map(|trial| trial.witness(&mutant.kernel(), relative)).collect()
}

#[test]
fn every_mutant_is_wrong_somewhere() {
    let cases = triggers();
    let (single, half) = (trials::<f32>(&cases), trials::<bf16>(&cases));
    let mut equivalent = Vec::new();
    for mutant in mutants() {
        let found = if mutant.supports(f32::FORMAT) {
            witnesses(mutant, &single, 1e-4)
        } else {
            // What is stored in bf16 differs by more than this if it differs at all.
            witnesses(mutant, &half, 1e-3)
        };
        println!("{:>3} {:<32} {:>2}  {}", mutant.id, mutant.name, found.len(), found.first().map_or("", |x| x));
        if found.is_empty() {
            equivalent.push(mutant.name);
        }
    }
    assert!(equivalent.is_empty(), "no case tells these from the correct kernel: {equivalent:?}");
}

/// The comparison itself: a correct kernel is never told from another of the same arithmetic, nor from itself.
#[test]
fn a_correct_kernel_is_wrong_nowhere() {
    let cases = triggers();
    for trial in trials::<f32>(&cases) {
        assert_eq!(trial.witness(&Kernel::correct(trial.variant), 0.0), None);
    }
}

/// What depends on earlier calls is invisible in the first.
#[test]
fn stale_memory_needs_a_second_call() {
    let cases = triggers();
    let trial = Trial::<f32>::new(&cases[0], Variant::BASE);
    let kernel = Kernel::faulty(Fault::StaleOutputScratch);
    let first = forward(&kernel, trial.case, &trial.tensors).named();
    assert_eq!(difference(&first, &trial.expected[0], 0.0), None);
    assert!(trial.witness(&kernel, 1e-4).is_some());
}
