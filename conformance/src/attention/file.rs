//! Attention problems in a safetensors file.
//!
//! A file holds any number of cases. Case `name` contributes the tensors `name/q`, `name/k`, `name/v` and whatever else
//! it has (`name/d_o`, `name/bias`, `name/sink`, …, and expected outputs `name/o`, `name/lse`, `name/d_q`, …); the
//! file's metadata has the key `name` with the problem as JSON, see [`wire`](super::wire). `q`, `k` and `v` share one
//! of the formats f64, f32, f16, bf16.

use super::wire::{Shapes, from_json};
use crate::Tensor;
use crate::file::dtype;
pub use crate::file::{Contents, FileError, FileProblem, from_bytes, group, read, to_bytes, write};
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_attention::AttentionSpec;

/// One case of a file.
#[derive(Clone, Debug)]
pub struct FileCase {
    /// Its name.
    pub name: String,
    /// Its problem.
    pub spec: AttentionSpec,
    /// Its tensors by role (`q`, `d_o`, …), each of the shape that the problem gives to the role.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Reads every case of a file, in order of their names.
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be; a tensor outside every case is an error too, since
/// it would be skipped in silence otherwise.
pub fn read_cases(path: impl AsRef<Path>) -> Result<Vec<FileCase>, FileError> {
    crate::file::open(path.as_ref(), cases_from_bytes)
}

/// The cases of a file in memory; see [`read_cases`].
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn cases_from_bytes(bytes: &[u8]) -> Result<Vec<FileCase>, FileProblem> {
    let (tensors, metadata) = from_bytes(bytes)?;
    group(tensors, metadata)?.into_iter().map(|(name, problem, tensors)| case(name, &problem, tensors)).collect()
}

fn case(name: String, problem: &str, tensors: BTreeMap<String, Tensor>) -> Result<FileCase, FileProblem> {
    let json = crate::file::problem(&name, problem)?;
    let shapes = Shapes {
        q: shape_of(&name, "q", &tensors)?,
        k: shape_of(&name, "k", &tensors)?,
        v: shape_of(&name, "v", &tensors)?,
    };
    one_format(&name, &tensors)?;
    let spec = from_json(&json, &shapes)
        .map_err(|error| FileProblem::Problem { case: name.clone(), error: error.to_string() })?;
    for (role, tensor) in &tensors {
        let bias = tensors.get("bias").map(Tensor::shape);
        if let Some(expected) = misfit(&spec, role, tensor.shape(), bias) {
            return Err(FileProblem::Shape {
                tensor: format!("{name}/{role}"),
                got: tensor.shape().to_vec(),
                expected,
            });
        }
    }
    Ok(FileCase { name, spec, tensors })
}

fn shape_of(name: &str, role: &str, tensors: &BTreeMap<String, Tensor>) -> Result<[usize; 4], FileProblem> {
    let tensor = || format!("{name}/{role}");
    let shape = tensors.get(role).ok_or_else(|| FileProblem::Missing { tensor: tensor() })?.shape();
    shape.try_into().map_err(|_| FileProblem::Shape {
        tensor: tensor(),
        got: shape.to_vec(),
        expected: "[batch, heads, length, dim]".into(),
    })
}

fn one_format(name: &str, tensors: &BTreeMap<String, Tensor>) -> Result<(), FileProblem> {
    let format = |role: &str| tensors.get(role).map(Tensor::format);
    for role in ["k", "v"] {
        if let Some(tensor) = tensors.get(role).filter(|tensor| Some(tensor.format()) != format("q")) {
            let expected = format!("{}, as q has them", format("q").map_or("none", |format| format.name));
            return Err(FileProblem::Dtype { tensor: format!("{name}/{role}"), got: dtype(tensor), expected });
        }
    }
    Ok(())
}

/// What a tensor's shape should have been, if it does not fit its role. Unknown roles fit.
fn misfit(spec: &AttentionSpec, role: &str, shape: &[usize], bias: Option<&[usize]>) -> Option<String> {
    let expected = match role {
        "q" | "d_q" => spec.q_shape().to_vec(),
        "k" | "d_k" => spec.k_shape().to_vec(),
        "v" | "d_v" => spec.v_shape().to_vec(),
        "o" | "d_o" => spec.o_shape().to_vec(),
        "lse" | "d_lse" => spec.lse_shape().to_vec(),
        "sink" | "d_sink" => vec![spec.q_heads],
        "bias" => {
            let full = spec.full_bias_shape();
            let fits = shape.len() == 4 && shape.iter().zip(full).all(|(&axis, full)| axis == full || axis == 1);
            return (!fits).then(|| format!("{full:?}, each may be 1"));
        }
        "d_bias" => bias?.to_vec(),
        _ => return None,
    };
    (shape != expected).then(|| format!("{expected:?}"))
}
