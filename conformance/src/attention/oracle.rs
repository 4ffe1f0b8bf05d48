//! `assay oracle attention`: the reference's answer, and its error bound, for tensors of your own.

use crate::attention::expected::{self, Expected};
use crate::attention::file;
use crate::attention::generate::Problem;
use crate::{Tensor, Tensors};
use anyhow::{Context, Error, bail};
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_attention::Contract;
use tilewright_scalar::{Format, Real};

/// Reads problems from a safetensors file (several cases a file, see [`file`](mod@file)), and writes for each its outputs in
/// `f64` under the same names — `name/o`, `name/lse`, and where the case has a `d_o` also `name/d_q` and so on — with
/// the error bound of a kernel that keeps the strict contract of the inputs' format beside them as `name/bound/o` ….
/// Returns the number of problems.
///
/// # Errors
/// If a file cannot be read, is not what it should be, or cannot be written; nothing is written then.
pub fn answer(input: &Path, output: &Path, mut on_case: impl FnMut(usize, usize)) -> anyhow::Result<usize> {
    let cases = file::read_cases(input)?;
    let total = cases.len();
    let (mut tensors, mut metadata) = (Tensors::new(), BTreeMap::new());
    for (done, case) in cases.into_iter().enumerate() {
        on_case(done, total);
        let format = case.tensors.get("q").map_or(Format::F32, Tensor::format);
        let backward = case.tensors.contains_key("d_o");
        metadata.insert(case.name.clone(), super::wire::to_json(&case.spec).to_string());
        let named = || format!("{}: case {}", input.display(), case.name);
        let inputs = accumulator_typed(case.tensors, format).with_context(named)?;
        let problem = Problem { spec: case.spec, inputs };
        let contract = Contract::strict(format);
        let truth = expected::expect(&problem, &contract, backward).map_err(Error::msg).with_context(named)?;
        insert(&mut tensors, &case.name, &truth)?;
    }
    file::write(output, &tensors, metadata).with_context(|| format!("writing the answers to {total} problems"))?;
    Ok(total)
}

/// Sinks and gradients into LSE are wanted in the accumulator's format; a file may hold them in any that is exact.
fn accumulator_typed(mut tensors: Tensors, format: Format) -> anyhow::Result<Tensors> {
    let accum = if format == Format::F64 { Format::F64 } else { Format::F32 };
    for name in ["sink", "d_lse"] {
        let Some(tensor) = tensors.get_mut(name).filter(|tensor| tensor.format() != accum) else { continue };
        let converted = Tensor::from_f64(accum, tensor.shape(), &tensor.to_f64())?;
        if converted.to_f64() != tensor.to_f64() {
            bail!("tensor {name}: got {} values that {} cannot hold exactly", tensor.format().name, accum.name);
        }
        *tensor = converted;
    }
    Ok(tensors)
}

fn insert(tensors: &mut Tensors, case: &str, truth: &Expected) -> anyhow::Result<()> {
    for (name, expected) in truth {
        let value: Vec<f64> = expected.value.iter().map(|x| x.to_f64()).collect();
        tensors.insert(format!("{case}/{name}"), Tensor::from_f64(Format::F64, &expected.shape, &value)?);
        tensors
            .insert(format!("{case}/bound/{name}"), Tensor::from_f64(Format::F64, &expected.shape, &expected.worst)?);
    }
    Ok(())
}
