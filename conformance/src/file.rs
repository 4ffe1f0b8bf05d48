//! Tensors in safetensors files.
//!
//! Files come from anywhere, so nothing in one is believed before it is checked: no file makes this module panic, or
//! allocate more than a small multiple of the file's own size.
//!
//! A file of problems holds any number of cases: case `name` contributes tensors `name/role`, and the file's metadata
//! has the key `name` with the problem as JSON. What roles and problems there are is each family's own.

use crate::{Format, Tensor, TensorError};
use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo, TensorView};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use safetensors::tensor::Dtype;

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
    /// A case's metadata is JSON, but no problem of its family that fits its tensors.
    Problem {
        /// The case.
        case: String,
        /// Why not.
        error: String,
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

/// Reads all tensors of a file, and its metadata.
///
/// # Errors
/// [`FileError`], for the first thing that is not as it should be.
pub fn read(path: impl AsRef<Path>) -> Result<Contents, FileError> {
    open(path.as_ref(), from_bytes)
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
    save(path.as_ref(), to_bytes(tensors, metadata))
}

/// Reads a file and decodes it.
pub(crate) fn open<T>(path: &Path, decode: impl Fn(&[u8]) -> Result<T, FileProblem>) -> Result<T, FileError> {
    let read = || decode(&std::fs::read(path).map_err(FileProblem::Io)?);
    read().map_err(|problem| FileError { path: path.to_owned(), problem: Box::new(problem) })
}

/// Writes what was encoded.
pub(crate) fn save(path: &Path, bytes: Result<Vec<u8>, FileProblem>) -> Result<(), FileError> {
    let write = || replace(path, &bytes?).map_err(FileProblem::Io);
    write().map_err(|problem| FileError { path: path.to_owned(), problem: Box::new(problem) })
}

/// Writes a file as a whole or not at all: beside its place, and then into it.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
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

/// A tensor as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<B> {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, little-endian, in C order.
    pub bytes: B,
}

/// The bytes of a safetensors file.
///
/// # Errors
/// [`FileProblem::Header`] if a tensor or the header is larger than the format allows.
pub fn to_bytes(
    tensors: &BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, FileProblem> {
    let raw =
        |tensor: &Tensor| Raw { dtype: dtype(tensor), shape: tensor.shape().to_vec(), bytes: tensor.to_le_bytes() };
    raw_to_bytes(&tensors.iter().map(|(name, tensor)| (name.clone(), raw(tensor))).collect(), metadata)
}

/// The bytes of a safetensors file, whatever the element types.
///
/// # Errors
/// [`FileProblem::Header`] if a tensor or the header is larger than the format allows, or a shape does not fit.
pub fn raw_to_bytes(
    tensors: &BTreeMap<String, Raw<Vec<u8>>>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>, FileProblem> {
    let header = |error: SafeTensorError| FileProblem::Header(error.to_string());
    let views = tensors
        .iter()
        .map(|(name, raw)| Ok((name, TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).map_err(header)?)));
    let views = views.collect::<Result<Vec<_>, FileProblem>>()?;
    // Given an empty map and no tensors, the serialiser writes a header that is no JSON.
    let metadata = Some(HashMap::from_iter(metadata)).filter(|metadata| !metadata.is_empty());
    safetensors::serialize(views, metadata).map_err(header)
}

pub(crate) fn dtype(tensor: &Tensor) -> Dtype {
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
    let (raw, metadata) = raw_from_bytes(bytes)?;
    let decode = |(name, raw): (String, Raw<&[u8]>)| {
        let format = format_of(raw.dtype).ok_or_else(|| FileProblem::Dtype {
            tensor: name.clone(),
            got: raw.dtype,
            expected: "F64, F32, F16 or BF16".into(),
        })?;
        match Tensor::from_le_bytes(format, &raw.shape, raw.bytes) {
            Ok(tensor) => Ok((name, tensor)),
            Err(error) => Err(FileProblem::Tensor { tensor: name, error }),
        }
    };
    Ok((raw.into_iter().map(decode).collect::<Result<_, _>>()?, metadata))
}

/// The tensors of a file by name, undecoded, and its metadata.
pub type RawContents<'a> = (BTreeMap<String, Raw<&'a [u8]>>, BTreeMap<String, String>);

/// Undecoded tensors and metadata of a safetensors file in memory. Whether bytes fit a shape is the decoder's to say.
///
/// # Errors
/// [`FileProblem::Header`].
pub fn raw_from_bytes(bytes: &[u8]) -> Result<RawContents<'_>, FileProblem> {
    let (header, data) = parts(bytes)?;
    // Not `SafeTensors::deserialize`: it adds up offsets without a check for overflow.
    let header: Metadata = serde_json::from_slice(header).map_err(|error| FileProblem::Header(error.to_string()))?;
    if header.data_len() != data.len() {
        let what = format!("{} bytes of data, expected {}", data.len(), header.data_len());
        return Err(FileProblem::Header(what));
    }
    let raw = |(name, info): (String, &TensorInfo)| {
        let bytes = data.get(info.data_offsets.0..info.data_offsets.1).unwrap_or_default();
        (name, Raw { dtype: info.dtype, shape: info.shape.clone(), bytes })
    };
    let tensors = header.tensors().into_iter().map(raw).collect();
    Ok((tensors, header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect()))
}

/// A case of a file of problems: its name, its problem, and its tensors by role.
pub type Grouped<T> = (String, String, BTreeMap<String, T>);

/// The cases of a file of problems, in order of their names.
///
/// # Errors
/// [`FileProblem::Stray`]: a tensor outside every case would be skipped in silence otherwise.
pub fn group<T>(
    tensors: BTreeMap<String, T>,
    metadata: BTreeMap<String, String>,
) -> Result<Vec<Grouped<T>>, FileProblem> {
    let mut groups: BTreeMap<String, BTreeMap<String, T>> = BTreeMap::new();
    for (path, tensor) in tensors {
        match path.rsplit_once('/') {
            Some((name, role)) if metadata.contains_key(name) => {
                groups.entry(name.to_owned()).or_default().insert(role.to_owned(), tensor);
            }
            _ => return Err(FileProblem::Stray { tensor: path }),
        }
    }
    let cases = metadata.into_iter().filter_map(|(name, problem)| match groups.remove(&name) {
        // Many writers tag their files `format: pt`.
        None if name == "format" => None,
        tensors => Some((name, problem, tensors.unwrap_or_default())),
    });
    Ok(cases.collect())
}

/// A case's problem as JSON.
///
/// # Errors
/// [`FileProblem::Json`].
pub fn problem(case: &str, text: &str) -> Result<Value, FileProblem> {
    serde_json::from_str(text).map_err(|error| FileProblem::Json { case: case.into(), error })
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
