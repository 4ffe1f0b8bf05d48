//! The suite on trial: planted bugs it must catch, correct implementations it must not.

use crate::grouplasso::case::Case;
use crate::grouplasso::in_process::InProcess;
use crate::grouplasso::report::MEASURES;
use crate::grouplasso::subject::Profile;
use crate::grouplasso::trial::{Outcome, Prepared, examine};
use crate::kill::{self, Bug, Caught, Control, KillMatrix, Record};
use crate::report::Verdict;
use tilewright_mutants::grouplasso::{CorrectVariant, Kernel, Mutant};

/// Puts every mutant, until a round of cases rejects it, and every correct variant to the cases: solving problems wrongly takes
/// time, and once is enough. `on_case` is called as each case is done.
///
/// # Errors
/// A line of text if a case cannot be generated.
pub fn kill_matrix(
    mutants: &[&'static Mutant],
    controls: Vec<CorrectVariant>,
    cases: &[Case],
    on_case: impl Fn() + Sync,
) -> Result<KillMatrix, String> {
    let bugs = mutants.iter().map(|mutant| Bug {
        id: mutant.id,
        name: mutant.name,
        group: format!("{:?}", mutant.group).to_lowercase(),
        about: mutant.about,
        trigger: mutant.trigger,
    });
    let described = controls.iter().map(|control| Control { name: control.name, about: control.about }).collect();
    kill::kill_matrix(bugs.collect(), described, MEASURES.to_vec(), cases, Caught::AreSpared, |case, spared| {
        let prepared = Prepared::new(case)?;
        let faulty = mutants
            .iter()
            .zip(spared)
            .map(|(mutant, spared)| if *spared { Record::default() } else { try_one(mutant.kernel(), &prepared) });
        let records = faulty.chain(controls.iter().map(|control| try_one(control.kernel(), &prepared))).collect();
        on_case();
        Ok(records)
    })
}

fn try_one(kernel: Kernel, prepared: &Prepared) -> Record {
    let outcome = examine(&mut InProcess::sequential(kernel, Profile::new("defendant", "")), prepared);
    let measures = vec![outcome.error, outcome.gap];
    let mut record = Record { cases: 1, elements: outcome.elements, measures, ..Record::default() };
    if !matches!(outcome.verdict, Verdict::Conforms | Verdict::Vacuous) {
        let (kind, example) = first(&outcome);
        record.rejections.insert(kind, 1);
        record.example = Some(format!("{}: {example}", prepared.case));
        record.measures.clear();
    }
    record
}

fn first(outcome: &Outcome) -> (&'static str, String) {
    match outcome.violations.first() {
        Some(violation) => (violation.kind.name(), violation.to_string()),
        None => ("failed", outcome.reason.clone().unwrap_or_default()),
    }
}
