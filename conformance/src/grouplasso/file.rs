//! Matrices, targets and solutions in safetensors files.

use crate::Format;
use crate::file::{
    self, Dtype, FileError, FileProblem, Raw, RawContents, dtype, group, problem, raw_from_bytes, raw_to_bytes,
};
use crate::grouplasso::subject::{Instance, Target};
use crate::grouplasso::wire::from_json;
use crate::tensor::Tensor;
use ndarray::{Array2, ArrayView2};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_grouplasso::Loss;

/// What a file holds under a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Numbers.
    Numbers(Tensor),
    /// Labels, indices: one axis.
    Counts(Vec<u32>),
}

/// Named entries.
pub type Entries = BTreeMap<String, Entry>;

impl Entry {
    /// A matrix, each entry rounded to the format.
    ///
    /// # Errors
    /// If the format is not one of the four.
    pub fn matrix(format: Format, values: ArrayView2<'_, f64>) -> Result<Self, String> {
        let list: Vec<f64> = values.iter().copied().collect();
        let tensor = Tensor::from_f64(format, &[values.nrows(), values.ncols()], &list);
        tensor.map(Self::Numbers).map_err(|error| error.to_string())
    }

    /// A list, each entry rounded to the format.
    ///
    /// # Errors
    /// If the format is not one of the four.
    pub fn list(format: Format, values: &[f64]) -> Result<Self, String> {
        Tensor::from_f64(format, &[values.len()], values).map(Self::Numbers).map_err(|error| error.to_string())
    }

    fn raw(&self) -> Raw<Vec<u8>> {
        match self {
            Self::Numbers(tensor) => {
                Raw { dtype: dtype(tensor), shape: tensor.shape().to_vec(), bytes: tensor.to_le_bytes() }
            }
            Self::Counts(list) => {
                let bytes = list.iter().flat_map(|x| x.to_le_bytes()).collect();
                Raw { dtype: Dtype::U32, shape: vec![list.len()], bytes }
            }
        }
    }

    fn from_raw(name: &str, raw: &Raw<&[u8]>) -> Result<Self, FileProblem> {
        let format = match raw.dtype {
            Dtype::F64 => Format::F64,
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::BF16,
            Dtype::U32 if raw.shape.len() == 1 && raw.shape[0].checked_mul(4) == Some(raw.bytes.len()) => {
                let words = raw.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                return Ok(Self::Counts(words.collect()));
            }
            Dtype::U32 => {
                let (tensor, got, expected) = (name.into(), raw.shape.clone(), "one axis".into());
                return Err(FileProblem::Shape { tensor, got, expected });
            }
            got => {
                let expected = "F64, F32, F16, BF16 or U32".into();
                return Err(FileProblem::Dtype { tensor: name.into(), got, expected });
            }
        };
        let tensor = Tensor::from_le_bytes(format, &raw.shape, raw.bytes);
        tensor.map(Self::Numbers).map_err(|error| FileProblem::Tensor { tensor: name.into(), error })
    }
}

/// The bytes of a file of entries.
///
/// # Errors
/// [`FileProblem::Header`] if the header is larger than the format allows.
pub fn to_bytes(entries: &Entries, metadata: BTreeMap<String, String>) -> Result<Vec<u8>, FileProblem> {
    raw_to_bytes(&entries.iter().map(|(name, entry)| (name.clone(), entry.raw())).collect(), metadata)
}

/// The entries of a file in memory, and its metadata.
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn from_bytes(bytes: &[u8]) -> Result<(Entries, BTreeMap<String, String>), FileProblem> {
    let (raw, metadata): RawContents<'_> = raw_from_bytes(bytes)?;
    let decode = |(name, raw): (String, Raw<&[u8]>)| Entry::from_raw(&name, &raw).map(|entry| (name, entry));
    Ok((raw.into_iter().map(decode).collect::<Result<_, _>>()?, metadata))
}

/// Reads all entries of a file.
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be.
pub fn read(path: impl AsRef<Path>) -> Result<Entries, FileError> {
    file::open(path.as_ref(), |bytes| from_bytes(bytes).map(|(entries, _)| entries))
}

/// Writes entries and metadata, all or nothing.
///
/// # Errors
/// [`FileError`] if the file system refuses.
pub fn write(path: impl AsRef<Path>, entries: &Entries, metadata: BTreeMap<String, String>) -> Result<(), FileError> {
    file::save(path.as_ref(), to_bytes(entries, metadata))
}

/// Takes numbers of so many axes out.
fn numbers(entries: &mut Entries, name: &str, axes: usize) -> Result<Tensor, String> {
    match entries.remove(name) {
        Some(Entry::Numbers(tensor)) if tensor.shape().len() == axes => Ok(tensor),
        Some(Entry::Numbers(tensor)) => {
            Err(format!("tensor {name}: got shape {:?}, expected one of {axes} axes", tensor.shape()))
        }
        Some(Entry::Counts(_)) => Err(format!("tensor {name}: got U32 elements, expected floating point")),
        None => Err(format!("tensor {name}: missing")),
    }
}

/// A matrix, and what it was stored in.
///
/// # Errors
/// A line of text that names it.
pub fn matrix(entries: &mut Entries, name: &str) -> Result<(Array2<f64>, Format), String> {
    let tensor = numbers(entries, name, 2)?;
    let shape = (tensor.shape()[0], tensor.shape()[1]);
    let values = Array2::from_shape_vec(shape, tensor.to_f64()).map_err(|error| format!("tensor {name}: {error}"))?;
    Ok((values, tensor.format()))
}

/// A list of numbers, and what it was stored in.
///
/// # Errors
/// A line of text that names it.
pub fn list(entries: &mut Entries, name: &str) -> Result<(Vec<f64>, Format), String> {
    let tensor = numbers(entries, name, 1)?;
    Ok((tensor.to_f64(), tensor.format()))
}

/// A list of counts.
///
/// # Errors
/// A line of text that names it.
pub fn counts(entries: &mut Entries, name: &str) -> Result<Vec<u32>, String> {
    match entries.remove(name) {
        Some(Entry::Counts(list)) => Ok(list),
        Some(Entry::Numbers(tensor)) => {
            Err(format!("tensor {name}: got {} elements, expected U32", tensor.format().name))
        }
        None => Err(format!("tensor {name}: missing")),
    }
}

/// The data of a problem, by role.
///
/// # Errors
/// If the format is not one of the four.
pub fn of_instance(instance: &Instance) -> Result<Entries, String> {
    let mut entries = Entries::from([("x".into(), Entry::matrix(instance.format, instance.x.view())?)]);
    match &instance.target {
        Target::Values(y) => entries.insert("y".into(), Entry::matrix(Format::F64, y.view())?),
        Target::Labels { labels, .. } => entries.insert("labels".into(), Entry::Counts(labels.clone())),
    };
    if let Some(weights) = &instance.sample_weights {
        entries.insert("sample_weights".into(), Entry::list(Format::F64, weights)?);
    }
    Ok(entries)
}

/// One case of a file of problems.
#[derive(Clone, Debug)]
pub struct FileCase {
    /// Its name.
    pub name: String,
    /// The problem and its data.
    pub instance: Instance,
    /// The relative gap asked for.
    pub gap: f64,
}

/// Reads every case of a file, in order of their names. Case `name` has `name/x` and `name/y` (numbers) or `name/labels`
/// (`U32`), and optionally `name/sample_weights`; the file's metadata has the key `name` with the problem as JSON (see
/// [`wire`](super::wire)), and there `classes` (one more than the greatest label) and `gap` (`1e-10`).
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
    let (entries, metadata) = from_bytes(bytes)?;
    group(entries, metadata)?.into_iter().map(|(name, text, entries)| file_case(name, &text, entries)).collect()
}

fn file_case(name: String, text: &str, mut entries: Entries) -> Result<FileCase, FileProblem> {
    let wrong = |error: String| FileProblem::Problem { case: name.clone(), error };
    let json = problem(&name, text)?;
    let known = ["x", "y", "labels", "sample_weights"];
    if let Some(stray) = entries.keys().find(|role| !known.contains(&role.as_str())) {
        return Err(wrong(format!("tensor {stray}: expected none but {known:?}")));
    }
    let (x, format) = matrix(&mut entries, "x").map_err(&wrong)?;
    let spec = from_json(&json, x.ncols()).map_err(|error| wrong(error.to_string()))?;
    let target = match spec.loss {
        Loss::LeastSquares => Target::Values(matrix(&mut entries, "y").map_err(&wrong)?.0),
        Loss::Multinomial => {
            let labels = counts(&mut entries, "labels").map_err(&wrong)?;
            let most = labels.iter().max().map_or(0, |label| *label as usize + 1);
            let classes = match &json["classes"] {
                Value::Null => most,
                given => crate::json::count(given)
                    .ok_or_else(|| wrong(format!("key classes: got {given}, expected a count")))?,
            };
            Target::Labels { labels, classes }
        }
    };
    let given = entries.contains_key("sample_weights");
    let sample_weights = given.then(|| list(&mut entries, "sample_weights")).transpose().map_err(&wrong)?;
    if let Some(stray) = entries.keys().next() {
        return Err(wrong(format!("tensor {stray}: not for this loss")));
    }
    let gap = match &json["gap"] {
        Value::Null => 1e-10,
        gap => gap.as_f64().ok_or_else(|| wrong(format!("key gap: got {gap}, expected a number")))?,
    };
    let sample_weights = sample_weights.map(|(weights, _)| weights);
    let instance = Instance { spec, format, x, target, sample_weights };
    instance.problem().map_err(|error| wrong(error.to_string()))?;
    Ok(FileCase { name, instance, gap })
}
