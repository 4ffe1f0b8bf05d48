//! `assay oracle compression`: the reference's answer for gradients of your own.

use crate::compression::file::{self, Lists};
use crate::compression::wire;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_compression::reference::Reference;
use tilewright_compression::{Compressor, Message};

/// Reads problems from a safetensors file (several cases a file, see [`read_cases`](file::read_cases)), and writes for
/// each the message as `name/indices` and `name/values`, and the memory afterwards as `name/velocity` and
/// `name/momentum`, as far as the feedback has them. Returns the number of problems.
///
/// # Errors
/// If a file cannot be read, is not what it should be, or cannot be written, or a problem has no answer; nothing is
/// written then.
pub fn answer(input: &Path, output: &Path, on_case: impl Fn(usize, usize)) -> anyhow::Result<usize> {
    let cases = file::read_cases(input)?;
    let total = cases.len();
    let (mut lists, mut metadata) = (Lists::new(), BTreeMap::new());
    for (done, case) in cases.into_iter().enumerate() {
        on_case(done, total);
        let (mut memory, mut message) = (case.memory, Message::default());
        Reference
            .compress(&case.spec, case.step, &case.gradient, &mut memory, &mut message)
            .with_context(|| format!("{}: case {}", input.display(), case.name))?;
        let answers = file::message(&message.words).into_iter().chain(file::memory(&memory));
        lists.extend(answers.map(|(role, list)| (format!("{}/{role}", case.name), list)));
        metadata.insert(case.name, wire::to_json(&case.spec).to_string());
    }
    file::write(output, &lists, metadata).with_context(|| format!("writing the answers to {total} problems"))?;
    Ok(total)
}
