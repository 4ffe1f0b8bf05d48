//! Gradients, memories and messages in safetensors files: lists of 32-bit elements.

use crate::compression::wire::from_json;
use crate::file;
use crate::file::{Dtype, FileError, FileProblem, Raw, RawContents, group, problem, raw_from_bytes, raw_to_bytes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_compression::message::unpack;
use tilewright_compression::{CompressionSpec, Memory, Step};

/// A list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum List {
    /// Gradients, accumulators, values.
    F32(Vec<f32>),
    /// Indices, where messages start.
    U32(Vec<u32>),
}

/// Named lists.
pub type Lists = BTreeMap<String, List>;

impl List {
    fn raw(&self) -> Raw<Vec<u8>> {
        let (dtype, len, bytes) = match self {
            Self::F32(list) => (Dtype::F32, list.len(), list.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Self::U32(list) => (Dtype::U32, list.len(), list.iter().flat_map(|x| x.to_le_bytes()).collect()),
        };
        Raw { dtype, shape: vec![len], bytes }
    }

    fn from_raw(name: &str, raw: &Raw<&[u8]>) -> Result<Self, FileProblem> {
        let [len] = raw.shape[..] else {
            return Err(FileProblem::Shape {
                tensor: name.into(),
                got: raw.shape.clone(),
                expected: "one axis".into(),
            });
        };
        let words = raw.bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        if len.checked_mul(4) != Some(raw.bytes.len()) && matches!(raw.dtype, Dtype::F32 | Dtype::U32) {
            let expected = format!("{} elements", raw.bytes.len() / 4);
            return Err(FileProblem::Shape { tensor: name.into(), got: raw.shape.clone(), expected });
        }
        match raw.dtype {
            Dtype::F32 => Ok(Self::F32(words.map(f32::from_le_bytes).collect())),
            Dtype::U32 => Ok(Self::U32(words.map(u32::from_le_bytes).collect())),
            got => Err(FileProblem::Dtype { tensor: name.into(), got, expected: "F32 or U32".into() }),
        }
    }
}

/// The bytes of a file of lists.
///
/// # Errors
/// [`FileProblem::Header`] if the header is larger than the format allows.
pub fn to_bytes(lists: &Lists, metadata: BTreeMap<String, String>) -> Result<Vec<u8>, FileProblem> {
    raw_to_bytes(&lists.iter().map(|(name, list)| (name.clone(), list.raw())).collect(), metadata)
}

/// The lists of a file in memory, and its metadata.
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn from_bytes(bytes: &[u8]) -> Result<(Lists, BTreeMap<String, String>), FileProblem> {
    let (raw, metadata): RawContents<'_> = raw_from_bytes(bytes)?;
    let decode = |(name, raw): (String, Raw<&[u8]>)| List::from_raw(&name, &raw).map(|list| (name, list));
    Ok((raw.into_iter().map(decode).collect::<Result<_, _>>()?, metadata))
}

/// Reads all lists of a file.
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be.
pub fn read(path: impl AsRef<Path>) -> Result<Lists, FileError> {
    file::open(path.as_ref(), |bytes| from_bytes(bytes).map(|(lists, _)| lists))
}

/// Writes lists and metadata, all or nothing.
///
/// # Errors
/// [`FileError`] if the file system refuses.
pub fn write(path: impl AsRef<Path>, lists: &Lists, metadata: BTreeMap<String, String>) -> Result<(), FileError> {
    file::save(path.as_ref(), to_bytes(lists, metadata))
}

/// A message as lists: `indices` and `values`.
pub fn message(words: &[u64]) -> [(String, List); 2] {
    let (indices, values) = words.iter().map(|word| unpack(*word)).unzip();
    [("indices".into(), List::U32(indices)), ("values".into(), List::F32(values))]
}

/// The words of a message from its lists.
///
/// # Errors
/// A line of text that names the list that is missing or does not fit.
pub fn words(lists: &mut Lists) -> Result<Vec<u64>, String> {
    let indices = match lists.remove("indices") {
        Some(List::U32(list)) => list,
        Some(List::F32(_)) => return Err("tensor indices: got F32 elements, expected U32".into()),
        None => return Err("tensor indices: missing".into()),
    };
    let values = numbers(lists, "values")?;
    if indices.len() != values.len() {
        return Err(format!(
            "tensor values: got {} elements, expected {}, as indices has",
            values.len(),
            indices.len()
        ));
    }
    Ok(indices.iter().zip(values).map(|(i, x)| tilewright_compression::message::word(*i, x)).collect())
}

/// A list of `f32`.
///
/// # Errors
/// A line of text that names it.
pub fn numbers(lists: &mut Lists, name: &str) -> Result<Vec<f32>, String> {
    match lists.remove(name) {
        Some(List::F32(list)) => Ok(list),
        Some(List::U32(_)) => Err(format!("tensor {name}: got U32 elements, expected F32")),
        None => Err(format!("tensor {name}: missing")),
    }
}

/// A memory as lists; those that a feedback has no use for are left out.
pub fn memory(memory: &Memory) -> impl Iterator<Item = (String, List)> {
    let lists = [("velocity", &memory.velocity), ("momentum", &memory.momentum)];
    lists
        .map(|(name, list)| (name.to_string(), List::F32(list.clone())))
        .into_iter()
        .filter(|(_, list)| list != &List::F32(Vec::new()))
}

/// A memory from lists: of the lengths that the problem asks for, zeros where the lists are absent and `blank` says so.
///
/// # Errors
/// A line of text that names what is missing or has another length.
pub fn memory_of(spec: &CompressionSpec, lists: &mut Lists, blank: bool) -> Result<Memory, String> {
    let (velocity, momentum) = Memory::lengths(spec);
    let mut list = |name: &str, len: usize| match lists.contains_key(name) {
        true => numbers(lists, name),
        false if blank || len == 0 => Ok(vec![0.0; len]),
        false => Err(format!("tensor {name}: missing")),
    };
    let memory = Memory { velocity: list("velocity", velocity)?, momentum: list("momentum", momentum)? };
    Ok(memory)
}

/// One case of a file of problems.
#[derive(Clone, Debug)]
pub struct FileCase {
    /// Its name.
    pub name: String,
    /// Its problem.
    pub spec: CompressionSpec,
    /// Which step it is.
    pub step: Step,
    /// The gradient.
    pub gradient: Vec<f32>,
    /// The memory before.
    pub memory: Memory,
}

/// Reads every case of a file, in order of their names. Case `name` has the list `name/gradient`, and optionally
/// `name/velocity` and `name/momentum` (zeros otherwise); the file's metadata has the key `name` with the problem as JSON
/// (see [`wire`](super::wire)), and there `step` (0) and `scale` (1).
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be.
pub fn read_cases(path: impl AsRef<Path>) -> Result<Vec<FileCase>, FileError> {
    file::open(path.as_ref(), cases_from_bytes)
}

/// The cases of a file in memory; see [`read_cases`].
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn cases_from_bytes(bytes: &[u8]) -> Result<Vec<FileCase>, FileProblem> {
    let (lists, metadata) = from_bytes(bytes)?;
    group(lists, metadata)?.into_iter().map(|(name, text, lists)| file_case(name, &text, lists)).collect()
}

fn file_case(name: String, text: &str, mut lists: Lists) -> Result<FileCase, FileProblem> {
    let wrong = |error: String| FileProblem::Problem { case: name.clone(), error };
    let json = problem(&name, text)?;
    let known = ["gradient", "velocity", "momentum"];
    if let Some(stray) = lists.keys().find(|role| !known.contains(&role.as_str())) {
        return Err(wrong(format!("tensor {stray}: expected none but {known:?}")));
    }
    let gradient = numbers(&mut lists, "gradient").map_err(&wrong)?;
    let spec = from_json(&json, gradient.len()).map_err(|error| wrong(error.to_string()))?;
    let memory = memory_of(&spec, &mut lists, true).map_err(&wrong)?;
    memory.check(&spec).map_err(|error| wrong(error.to_string()))?;
    let number = match &json["step"] {
        Value::Null => 0,
        step => step.as_u64().ok_or_else(|| wrong(format!("key step: got {step}, expected a count below 2^64")))?,
    };
    let scale = match &json["scale"] {
        Value::Null => 1.0,
        scale => scale.as_f64().ok_or_else(|| wrong(format!("key scale: got {scale}, expected a number")))? as f32,
    };
    Ok(FileCase { step: Step { number, scale }, name, spec, gradient, memory })
}
