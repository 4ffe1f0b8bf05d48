//! Attention problems in a safetensors file.
//!
//! A file holds any number of cases. Case `name` contributes the tensors `name/q`, `name/k`, `name/v` and whatever else
//! it has (`name/d_o`, `name/bias`, `name/sink`, …, and expected outputs `name/o`, `name/lse`, `name/d_q`, …); the
//! file's metadata has the key `name` with the problem as JSON, see [`wire`](super::wire). `q`, `k` and `v` share one
//! of the formats f64, f32, f16, bf16.
//!
//! Files come from anywhere, so nothing in one is believed before it is checked: no file makes this module panic, or
//! allocate more than a small multiple of the file's own size.

use super::wire::{Shapes, WireError, from_json};
use crate::{Tensor, TensorError};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use tilewright_attention::{AttentionSpec, Format};

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

/// Why a file could not be read or written.
#[derive(Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Box<FileProblem>,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileProblem {
    /// The file system refused.
    Io(std::io::Error),
    /// The bytes are no safetensors file.
    Header(String),
    /// A tensor's element type is none of the four formats.
    Dtype {
        /// The tensor.
        tensor: String,
        /// What it holds.
        got: Dtype,
        /// What it should hold.
        expected: String,
    },
    /// A tensor's bytes do not make an array.
    Tensor {
        /// The tensor.
        tensor: String,
        /// Why not.
        error: TensorError,
    },
    /// A tensor does not have the shape that its role asks for.
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape it has.
        got: Vec<usize>,
        /// The shape it should have.
        expected: String,
    },
    /// A case lacks a tensor.
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor belongs to no case of the metadata.
    Stray {
        /// The tensor.
        tensor: String,
    },
    /// A case's metadata is not JSON.
    Json {
        /// The case.
        case: String,
        /// Where it stops being JSON.
        error: serde_json::Error,
    },
    /// A case's metadata is JSON, but no attention problem that fits its tensors.
    Problem {
        /// The case.
        case: String,
        /// Why not.
        error: WireError,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Header(what) => write!(f, "not a safetensors file: {what}"),
            Self::Dtype { tensor, got, expected } => {
                write!(f, "tensor {}: got elements of {got:?}, expected {expected}", quoted(tensor))
            }
            Self::Tensor { tensor, error } => write!(f, "tensor {}: {error}", quoted(tensor)),
            Self::Shape { tensor, got, expected } => {
                write!(f, "tensor {}: got shape {got:?}, expected {expected}", quoted(tensor))
            }
            Self::Missing { tensor } => write!(f, "tensor {}: missing", quoted(tensor)),
            Self::Stray { tensor } => write!(f, "tensor {}: belongs to no case of the metadata", quoted(tensor)),
            Self::Json { case, error } => write!(f, "metadata of case {}: not JSON: {error}", quoted(case)),
            Self::Problem { case, error } => write!(f, "metadata of case {}: {error}", quoted(case)),
        }
    }
}

// No `source`: the one line of `Display` says it all, and a chain of causes would say it twice.
impl std::error::Error for FileError {}

/// A name as it stands in a one-line message, whatever characters it has.
fn quoted(name: &str) -> String {
    format!("{name:?}")
}

/// Tensors by name, and the file's metadata.
pub type Contents = (BTreeMap<String, Tensor>, BTreeMap<String, String>);

/// Reads every case of a file, in order of their names.
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be; a tensor outside every case is an error too, since
/// it would be skipped in silence otherwise.
pub fn read_cases(path: impl AsRef<Path>) -> Result<Vec<FileCase>, FileError> {
    let path = path.as_ref();
    let read = || cases_from_bytes(&std::fs::read(path).map_err(FileProblem::Io)?);
    read().map_err(|problem| FileError { path: path.to_owned(), problem: Box::new(problem) })
}

/// Reads all tensors of a file, and its metadata.
///
/// # Errors
/// [`FileError`], as [`read_cases`].
pub fn read(path: impl AsRef<Path>) -> Result<Contents, FileError> {
    let path = path.as_ref();
    let read = || from_bytes(&std::fs::read(path).map_err(FileProblem::Io)?);
    read().map_err(|problem| FileError { path: path.to_owned(), problem: Box::new(problem) })
}

/// Writes tensors and metadata: to a temporary file in the same directory, which then takes the place of `path`, so
/// that nobody ever reads half a file.
///
/// # Errors
/// [`FileError`] if the file system refuses.
pub fn write(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let write = || replace(path, &to_bytes(tensors, metadata)?).map_err(FileProblem::Io);
    write().map_err(|problem| FileError { path: path.to_owned(), problem: Box::new(problem) })
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // The default, readable by its owner alone, is for secrets; the umask still has its say.
    #[cfg(unix)]
    let builder = builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The bytes of a safetensors file.
///
/// # Errors
/// [`FileProblem::Header`] if a tensor or the header is larger than the format allows.
pub fn to_bytes(
    tensors: &BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, FileProblem> {
    let header = |error: SafeTensorError| FileProblem::Header(error.to_string());
    let bytes: Vec<_> = tensors.values().map(Tensor::to_le_bytes).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        Ok((name, TensorView::new(dtype(tensor), tensor.shape().to_vec(), bytes).map_err(header)?))
    });
    let views = views.collect::<Result<Vec<_>, FileProblem>>()?;
    // Given an empty map and no tensors, the serialiser writes a header that is no JSON.
    let metadata = Some(HashMap::from_iter(metadata)).filter(|metadata| !metadata.is_empty());
    safetensors::serialize(views, metadata).map_err(header)
}

fn dtype(tensor: &Tensor) -> Dtype {
    match tensor {
        Tensor::F64(_) => Dtype::F64,
        Tensor::F32(_) => Dtype::F32,
        Tensor::F16(_) => Dtype::F16,
        Tensor::Bf16(_) => Dtype::BF16,
    }
}

/// Tensors and metadata of a safetensors file in memory.
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn from_bytes(bytes: &[u8]) -> Result<Contents, FileProblem> {
    let (header, data) = parts(bytes)?;
    // Not `SafeTensors::deserialize`: it adds up offsets without a check for overflow.
    let header: Metadata = serde_json::from_slice(header).map_err(|error| FileProblem::Header(error.to_string()))?;
    if header.data_len() != data.len() {
        let what = format!("{} bytes of data, expected {}", data.len(), header.data_len());
        return Err(FileProblem::Header(what));
    }
    let decode = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let format = format_of(info.dtype).ok_or_else(|| FileProblem::Dtype {
            tensor: name.clone(),
            got: info.dtype,
            expected: "F64, F32, F16 or BF16".into(),
        })?;
        let slice = data.get(info.data_offsets.0..info.data_offsets.1).unwrap_or_default();
        match Tensor::from_le_bytes(format, &info.shape, slice) {
            Ok(tensor) => Ok((name, tensor)),
            Err(error) => Err(FileProblem::Tensor { tensor: name, error }),
        }
    };
    let tensors = header.tensors().into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok((tensors, header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect()))
}

/// Header and data of a safetensors file: eight bytes give the header's length.
fn parts(bytes: &[u8]) -> Result<(&[u8], &[u8]), FileProblem> {
    let header = |what: String| FileProblem::Header(what);
    let (length, rest) =
        bytes.split_first_chunk::<8>().ok_or_else(|| header(format!("{} bytes, expected 8 or more", bytes.len())))?;
    let length = u64::from_le_bytes(*length);
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or_else(|| header(format!("a header of {length} bytes, of which there are {}", rest.len())))
}

fn format_of(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F64 => Some(Format::F64),
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

/// The cases of a file in memory; see [`read_cases`].
///
/// # Errors
/// [`FileProblem`], for the first thing that is not as it should be.
pub fn cases_from_bytes(bytes: &[u8]) -> Result<Vec<FileCase>, FileProblem> {
    let (tensors, metadata) = from_bytes(bytes)?;
    let mut groups: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (path, tensor) in tensors {
        match path.rsplit_once('/') {
            Some((name, role)) if metadata.contains_key(name) => {
                groups.entry(name.to_owned()).or_default().insert(role.to_owned(), tensor);
            }
            _ => return Err(FileProblem::Stray { tensor: path }),
        }
    }
    let mut cases = Vec::new();
    for (name, problem) in metadata {
        match groups.remove(&name) {
            // Many writers tag their files `format: pt`.
            None if name == "format" => {}
            tensors => cases.push(case(name, &problem, tensors.unwrap_or_default())?),
        }
    }
    Ok(cases)
}

fn case(name: String, problem: &str, tensors: BTreeMap<String, Tensor>) -> Result<FileCase, FileProblem> {
    let json = serde_json::from_str(problem).map_err(|error| FileProblem::Json { case: name.clone(), error })?;
    let shapes = Shapes {
        q: shape_of(&name, "q", &tensors)?,
        k: shape_of(&name, "k", &tensors)?,
        v: shape_of(&name, "v", &tensors)?,
    };
    one_format(&name, &tensors)?;
    let spec = from_json(&json, &shapes).map_err(|error| FileProblem::Problem { case: name.clone(), error })?;
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
