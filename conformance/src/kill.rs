//! The suite on trial: planted bugs it must catch, correct kernels it must not.

use crate::attention::case::Case;
use crate::attention::in_process::InProcess;
use crate::attention::judge::Kind;
use crate::attention::trial::{Prepared, Verdict, examine};
use crate::subject::Profile;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tilewright_attention::Contract;
use tilewright_mutants::{CorrectVariant, Kernel, Mutant};
use tilewright_scalar::Format;

/// What the suite did to one kernel.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Cases put to it.
    pub cases: usize,
    /// Cases that rejected it, by the kind of violation that came first.
    pub rejections: BTreeMap<Kind, usize>,
    /// A case that rejected it.
    pub example: Option<String>,
    /// Elements judged.
    pub elements: u64,
    /// Largest error over certain bound among the cases that did not reject it.
    pub bound_ratio: f64,
    /// The same over the statistical limit.
    pub spread_ratio: f64,
}

impl Record {
    /// Whether any case rejected it.
    pub fn rejected(&self) -> bool {
        !self.rejections.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.cases += other.cases;
        for (kind, n) in other.rejections {
            *self.rejections.entry(kind).or_default() += n;
        }
        self.example = self.example.take().or(other.example);
        self.elements += other.elements;
        self.bound_ratio = self.bound_ratio.max(other.bound_ratio);
        self.spread_ratio = self.spread_ratio.max(other.spread_ratio);
    }
}

/// The kill matrix: planted bugs × checks, correct variants × checks.
#[derive(Clone, Debug)]
pub struct KillMatrix {
    /// Each planted bug and what became of it.
    pub mutants: Vec<(&'static Mutant, Record)>,
    /// Each correct variant and what became of it.
    pub controls: Vec<(CorrectVariant, Record)>,
}

/// A kernel of the dock, with what it claims.
struct Defendant {
    kernel: Box<dyn Fn() -> Kernel + Sync>,
    supports: Box<dyn Fn(Format) -> bool + Sync>,
    contract: Box<dyn Fn(Format) -> Contract + Sync>,
}

/// Puts every mutant and every correct variant to every case. `on_case` is called as each case is done.
///
/// # Errors
/// A line of text if a case cannot be generated.
pub fn kill_matrix(
    mutants: &[&'static Mutant],
    controls: Vec<CorrectVariant>,
    cases: &[Case],
    on_case: impl Fn() + Sync,
) -> Result<KillMatrix, String> {
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
    let blank = || vec![Record::default(); defendants.len()];
    let records = cases
        .par_iter()
        .map(|case| {
            let records = one_case(case, &defendants);
            on_case();
            records
        })
        .try_reduce(blank, |mut a, b| {
            a.iter_mut().zip(b).for_each(|(a, b)| a.merge(b));
            Ok(a)
        })?;
    let mut records = records.into_iter();
    let mutants = mutants.iter().copied().zip(records.by_ref()).collect();
    Ok(KillMatrix { mutants, controls: controls.into_iter().zip(records).collect() })
}

fn one_case(case: &Case, defendants: &[Defendant]) -> Result<Vec<Record>, String> {
    let mut prepared: Vec<Prepared> = vec![Prepared::new(case, &Contract::strict(case.format), true)?];
    let mut records = Vec::with_capacity(defendants.len());
    for defendant in defendants {
        let mut record = Record::default();
        if (defendant.supports)(case.format) {
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
                record.bound_ratio = outcome.judgement.bound_ratio;
                record.spread_ratio = outcome.judgement.spread_ratio;
            } else {
                let kind = outcome.judgement.violations.first().map_or(Kind::Failed, |violation| violation.kind);
                record.rejections.insert(kind, 1);
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

impl KillMatrix {
    /// Mutants that some case rejected.
    pub fn killed(&self) -> usize {
        self.mutants.iter().filter(|(_, record)| record.rejected()).count()
    }

    /// Correct variants that some case rejected.
    pub fn false_rejects(&self) -> usize {
        self.controls.iter().filter(|(_, record)| record.rejected()).count()
    }

    /// Elements of correct variants that were judged.
    pub fn control_elements(&self) -> u64 {
        self.controls.iter().map(|(_, record)| record.elements).sum()
    }

    /// Adds what other cases found.
    pub fn extend(&mut self, other: Self) {
        for (mutant, record) in other.mutants {
            if let Some((_, known)) = self.mutants.iter_mut().find(|(known, _)| known.id == mutant.id) {
                known.merge(record);
            }
        }
        for (control, record) in other.controls {
            if let Some((_, known)) = self.controls.iter_mut().find(|(known, _)| known.name == control.name) {
                known.merge(record);
            }
        }
    }

    /// The JSON report.
    pub fn to_json(&self) -> Value {
        let rejections = |record: &Record| -> BTreeMap<&'static str, usize> {
            record.rejections.iter().map(|(kind, n)| (kind.name(), *n)).collect()
        };
        let mutants = self.mutants.iter().map(|(mutant, record)| {
            json!({
                "id": mutant.id,
                "name": mutant.name,
                "group": format!("{:?}", mutant.group).to_lowercase(),
                "about": mutant.about,
                "trigger": mutant.trigger,
                "killed": record.rejected(),
                "cases": record.cases,
                "rejections": rejections(record),
                "example": record.example,
            })
        });
        let controls = self.controls.iter().map(|(control, record)| {
            json!({
                "name": control.name,
                "about": control.about,
                "cases": record.cases,
                "elements": record.elements,
                "rejections": rejections(record),
                "example": record.example,
                "bound_ratio": record.bound_ratio,
                "spread_ratio": record.spread_ratio,
            })
        });
        json!({
            "mutants": {"total": self.mutants.len(), "killed": self.killed()},
            "controls": {
                "total": self.controls.len(),
                "rejected": self.false_rejects(),
                "elements": self.control_elements(),
            },
            "matrix": mutants.collect::<Vec<_>>(),
            "variants": controls.collect::<Vec<_>>(),
        })
    }
}
