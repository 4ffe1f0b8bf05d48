//! The suite on trial: planted bugs it must catch, correct kernels it must not.

use crate::attention::Profile;
use crate::attention::case::Case;
use crate::attention::in_process::InProcess;
use crate::attention::judge::Kind;
use crate::attention::report::MEASURES;
use crate::attention::trial::{Prepared, examine};
use crate::kill::{self, Bug, Caught, Control, KillMatrix, Record};
use crate::report::Verdict;
use tilewright_attention::Contract;
use tilewright_mutants::attention::{CorrectVariant, Kernel, Mutant};
use tilewright_scalar::Format;

/// A kernel of the dock, with what it claims.
struct Defendant {
    kernel: Box<dyn Fn() -> Kernel + Sync>,
    supports: Box<dyn Fn(Format) -> bool + Sync>,
    contract: Box<dyn Fn(Format) -> Contract + Sync>,
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
    let defendants: Vec<Defendant> = mutants
        .iter()
        .map(|&mutant| Defendant {
            kernel: Box::new(move || mutant.kernel()),
            supports: Box::new(move |format| mutant.supports(format)),
            contract: Box::new(move |format| mutant.contract(format)),
        })
        .chain(controls.iter().map(|control| {
            let variant = control.variant;
            Defendant {
                kernel: Box::new(move || Kernel::correct(variant)),
                supports: Box::new(move |format| variant.supports(format)),
                contract: Box::new(move |format| variant.contract(format)),
            }
        }))
        .collect();
    kill::kill_matrix(bugs.collect(), described, MEASURES.to_vec(), cases, caught, |case, spared| {
        let records = one_case(case, &defendants, spared);
        on_case();
        records
    })
}

fn one_case(case: &Case, defendants: &[Defendant], spared: &[bool]) -> Result<Vec<Record>, String> {
    let mut prepared: Vec<Prepared> = vec![Prepared::new(case, &Contract::strict(case.format), true)?];
    let mut records = Vec::with_capacity(defendants.len());
    for (defendant, spared) in defendants.iter().zip(spared) {
        let mut record = Record::default();
        if !spared && (defendant.supports)(case.format) {
            let contract = (defendant.contract)(case.format);
            let known = prepared.iter().position(|p| p.contract == contract);
            let index = if let Some(index) = known {
                index
            } else {
                prepared.push(prepared[0].under_contract(&contract)?);
                prepared.len() - 1
            };
            let formats = crate::attention::suite::FORMATS;
            let mut subject = InProcess::new((defendant.kernel)(), Profile::new("defendant", "", &formats));
            let outcome = examine(&mut subject, &prepared[index]);
            record.cases = 1;
            record.elements = outcome.judgement.elements;
            if matches!(outcome.verdict, Verdict::Conforms | Verdict::Vacuous) {
                record.measures = vec![outcome.judgement.bound_ratio, outcome.judgement.spread_ratio];
            } else {
                let kind = outcome.judgement.violations.first().map_or(Kind::Failed, |violation| violation.kind);
                record.rejections.insert(kind.name(), 1);
                record.example = Some(format!(
                    "{case}: {}",
                    outcome
                        .judgement
                        .violations
                        .first()
                        .map_or_else(|| outcome.reason.clone().unwrap_or_default(), ToString::to_string,)
                ));
            }
        }
        records.push(record);
    }
    Ok(records)
}
