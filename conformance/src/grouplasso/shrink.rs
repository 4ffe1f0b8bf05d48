//! From a case that fails to a smaller one that fails too.

use crate::grouplasso::case::{
    Case, Design, Grouping, ProxCase, SelectCase, SolveCase, Structure, Task, Values, Weighting,
};
use crate::suite;
use tilewright_grouplasso::Penalty;
use tilewright_scalar::Format;

/// Simplifies a case step by step while `still_wrong` says that it still shows the fault: plain options, simpler data, and
/// fewer of everything.
pub fn shrink(case: &Case, still_wrong: impl FnMut(&Case) -> bool, budget: usize) -> Case {
    suite::shrink(case, simpler, still_wrong, budget)
}

/// Candidates one step simpler, the boldest first.
fn simpler(case: &Case) -> Vec<Case> {
    let candidates = match case {
        Case::Prox(case) => simpler_prox(case).into_iter().map(Case::Prox).collect(),
        Case::Select(case) => simpler_select(case).into_iter().map(Case::Select).collect(),
        Case::Solve(case) => simpler_solve(case).into_iter().map(Case::Solve).collect(),
        Case::Refuse(_) => Vec::new(),
    };
    // Whatever cannot be written down and read back is no reproducer.
    let sound = |candidate: &Case| candidate != case && candidate.to_string().parse::<Case>().as_ref() == Ok(candidate);
    candidates.into_iter().filter(sound).collect()
}

/// Sizes smaller than `size`, the smallest first.
fn sizes(size: usize, least: usize) -> impl Iterator<Item = usize> {
    [least, size / 2, size - size / 4, size.saturating_sub(1)].into_iter().filter(move |s| *s >= least && *s < size)
}

fn structures(structure: Structure) -> Vec<Structure> {
    let grouping = [Grouping::Rows].into_iter().map(|grouping| Structure { grouping, ..structure });
    let weighting = [Weighting::SqrtSize].into_iter().map(|weighting| Structure { weighting, ..structure });
    let penalty = [Penalty::GroupLasso].into_iter().map(|penalty| Structure { penalty, ..structure });
    grouping.chain(weighting).chain(penalty).collect()
}

fn simpler_prox(case: &ProxCase) -> Vec<ProxCase> {
    let mut list: Vec<ProxCase> =
        structures(case.structure).into_iter().map(|structure| ProxCase { structure, ..case.clone() }).collect();
    list.extend(sizes(case.features, 1).map(|features| ProxCase { features, ..case.clone() }));
    list.extend(sizes(case.outputs, 1).map(|outputs| ProxCase { outputs, ..case.clone() }));
    list.push(ProxCase { step: 1.0, ..case.clone() });
    list.push(ProxCase { values: Values::Heavy, ..case.clone() });
    list.push(ProxCase { format: Format::F64, ..case.clone() });
    list
}

fn simpler_select(case: &SelectCase) -> Vec<SelectCase> {
    let mut list: Vec<SelectCase> = sizes(case.rows, 1).map(|rows| SelectCase { rows, ..case.clone() }).collect();
    list.extend(sizes(case.outputs, 1).map(|outputs| SelectCase { outputs, ..case.clone() }));
    list.push(SelectCase { values: Values::Heavy, ..case.clone() });
    list.push(SelectCase { format: Format::F64, ..case.clone() });
    list
}

fn simpler_solve(case: &SolveCase) -> Vec<SolveCase> {
    let mut list = vec![
        SolveCase { task: Task::Once, ..case.clone() },
        SolveCase { sampling: None, ..case.clone() },
        SolveCase { scale: false, ..case.clone() },
        SolveCase { centre: false, ..case.clone() },
        SolveCase { intercept: false, ..case.clone() },
    ];
    list.extend(structures(case.structure).into_iter().map(|structure| SolveCase { structure, ..case.clone() }));
    list.extend(sizes(case.features, 1).map(|features| SolveCase { features, ..case.clone() }));
    list.extend(sizes(case.samples, 2).map(|samples| SolveCase { samples, ..case.clone() }));
    list.extend(sizes(case.outputs, 2).map(|outputs| SolveCase { outputs, ..case.clone() }));
    list.push(SolveCase { design: Design::Gaussian, ..case.clone() });
    list.push(SolveCase { format: Format::F64, ..case.clone() });
    list
}
