//! `assay oracle grouplasso`: the reference's answers to problems of your own, with what is proven of them.

use crate::grouplasso::file::{self, Entries, Entry};
use crate::grouplasso::wire;
use anyhow::{Context, Error};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{GroupLassoSolver, Solution, Stopping};
use tilewright_scalar::Format;

/// Reads problems from a safetensors file (several cases a file, see [`read_cases`](file::read_cases)), and writes for
/// each `name/w` and `name/b`, and in the metadata the problem with its certificate. Returns the number of problems.
///
/// # Errors
/// If a file cannot be read, is not what it should be, or cannot be written, or a problem has no answer; nothing is
/// written then.
pub fn answer(input: &Path, output: &Path, on_case: impl Fn(usize, usize)) -> anyhow::Result<usize> {
    let cases = file::read_cases(input)?;
    let total = cases.len();
    let (mut entries, mut metadata) = (Entries::new(), BTreeMap::new());
    for (done, case) in cases.into_iter().enumerate() {
        on_case(done, total);
        let named = || format!("{}: case {}", input.display(), case.name);
        let stopping = Stopping { gap: case.gap, ..Stopping::default() };
        let watch = &mut |_: &_| ControlFlow::Continue(());
        let solution =
            Reference.solve(&case.instance.spec, &case.instance.data(), &stopping, None, watch).with_context(named)?;
        let w = Entry::matrix(Format::F64, solution.w.to_dense().view()).map_err(Error::msg)?;
        entries.insert(format!("{}/w", case.name), w);
        entries.insert(format!("{}/b", case.name), Entry::list(Format::F64, &solution.b).map_err(Error::msg)?);
        let mut problem = wire::to_json(&case.instance.spec);
        problem["certificate"] = certificate(&solution);
        metadata.insert(case.name, problem.to_string());
    }
    file::write(output, &entries, metadata).with_context(|| format!("writing the answers to {total} problems"))?;
    Ok(total)
}

fn certificate(solution: &Solution) -> serde_json::Value {
    let certificate = solution.certificate;
    json!({
        "objective": certificate.objective,
        "dual": certificate.dual,
        "null": certificate.null,
        "relative_gap": certificate.relative_gap(),
        "kkt": certificate.kkt,
        "active": certificate.active,
        "stopped": solution.stopped.to_string(),
        "iterations": solution.iterations,
    })
}
