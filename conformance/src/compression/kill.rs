//! The suite on trial: planted bugs it must catch, correct compressors it must not.

use crate::compression::case::Case;
use crate::compression::in_process::InProcess;
use crate::compression::subject::Profile;
use crate::compression::trial::{Outcome, Prepared, examine};
use crate::kill::{self, Bug, Caught, Control, KillMatrix, Record};
use crate::report::Verdict;
use tilewright_mutants::compression::{CorrectVariant, Kernel, Mutant};

/// A compressor of the dock: how to make one, and whether it promises the same bits every time.
struct Defendant {
    kernel: Box<dyn Fn() -> Kernel + Sync>,
    deterministic: bool,
}

/// Puts every mutant, or those not `caught` so far, and every correct variant to every case. `on_case` is called as each case is done.
///
/// # Errors
/// A line of text if a case cannot be generated.
pub fn kill_matrix(
    mutants: &[&'static Mutant],
    controls: Vec<CorrectVariant>,
    cases: &[Case],
    caught: Caught,
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
    let faulty = mutants.iter().map(|&mutant| Defendant {
        deterministic: mutant.kernel().deterministic(),
        kernel: Box::new(move || mutant.kernel()),
    });
    let correct = controls.into_iter().map(|control| Defendant {
        deterministic: control.deterministic(),
        kernel: Box::new(move || control.kernel()),
    });
    let defendants: Vec<Defendant> = faulty.chain(correct).collect();
    kill::kill_matrix(bugs.collect(), described, Vec::new(), cases, caught, |case, spared| {
        let prepared = Prepared::new(case)?;
        let trial = |(defendant, spared): (&Defendant, &bool)| {
            if *spared { Record::default() } else { try_one(defendant, &prepared) }
        };
        let records = defendants.iter().zip(spared).map(trial).collect();
        on_case();
        Ok(records)
    })
}

fn try_one(defendant: &Defendant, prepared: &Prepared) -> Record {
    let mut profile = Profile::new("defendant", "");
    profile.deterministic = defendant.deterministic;
    let outcome = examine(&mut InProcess::sequential((defendant.kernel)(), profile), prepared);
    let mut record = Record { cases: 1, elements: outcome.elements, ..Record::default() };
    if !matches!(outcome.verdict, Verdict::Conforms | Verdict::Vacuous) {
        let (kind, example) = first(&outcome);
        record.rejections.insert(kind, 1);
        record.example = Some(format!("{}: {example}", prepared.case));
    }
    record
}

fn first(outcome: &Outcome) -> (&'static str, String) {
    match outcome.violations.first() {
        Some(violation) => (violation.kind.name(), violation.to_string()),
        None => ("failed", outcome.reason.clone().unwrap_or_default()),
    }
}
