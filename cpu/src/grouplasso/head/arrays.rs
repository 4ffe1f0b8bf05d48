//! Named arrays and JSON in one safetensors file with a digest.

use crate::grouplasso::source::FileError;
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// An array as it is stored.
struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A file in the making.
pub(super) struct Writer {
    arrays: BTreeMap<String, Array>,
    metadata: HashMap<String, String>,
}

impl Writer {
    pub(super) fn new(format: &str) -> Self {
        Self { arrays: BTreeMap::new(), metadata: [("format".to_owned(), format.to_owned())].into() }
    }

    /// Whole numbers.
    pub(super) fn indices(&mut self, name: &str, values: &[usize]) {
        let narrow: Result<Vec<u32>, _> = values.iter().map(|x| u32::try_from(*x)).collect();
        let (dtype, bytes) = match narrow {
            Ok(values) => (Dtype::U32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Err(_) => (Dtype::U64, values.iter().flat_map(|x| (*x as u64).to_le_bytes()).collect()),
        };
        self.arrays.insert(name.to_owned(), Array { dtype, shape: vec![values.len()], bytes });
    }

    /// Numbers, in row-major order.
    pub(super) fn numbers(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f64> + Clone) {
        let is_narrow = values.clone().all(|x| f64::from(x as f32).to_bits() == x.to_bits());
        let (dtype, bytes) = if is_narrow {
            (Dtype::F32, values.flat_map(|x| (x as f32).to_le_bytes()).collect())
        } else {
            (Dtype::F64, values.flat_map(|x| x.to_le_bytes()).collect())
        };
        self.arrays.insert(name.to_owned(), Array { dtype, shape: shape.to_vec(), bytes });
    }

    pub(super) fn json(&mut self, name: &str, value: &Value) {
        self.metadata.insert(name.to_owned(), value.to_string());
    }

    /// Writes the file, or leaves what is there.
    pub(super) fn save(mut self, path: &Path) -> Result<(), FileError> {
        let arrays = self.arrays.iter().map(|(name, array)| (&name[..], &array.bytes[..]));
        self.metadata.insert("digest".into(), digest(arrays, &self.metadata).to_string());
        let bytes = self.bytes().map_err(|error| FileError::content(path, "arrays", error))?;
        replace(path, &bytes).map_err(|error| FileError::io(path, error))
    }

    fn bytes(self) -> Result<Vec<u8>, String> {
        let mut views = Vec::new();
        for (name, Array { dtype, shape, bytes }) in &self.arrays {
            views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| error.to_string())?));
        }
        serialize(views, Some(self.metadata)).map_err(|error| error.to_string())
    }
}

/// Through a temporary file in the same directory, so that the renaming is one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // A renaming lives in the directory, which has a cache of its own.
    #[cfg(unix)]
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

/// FNV-1a of everything but the digest: names and lengths too, in order of the names. It finds damage, not malice.
fn digest<'a>(arrays: impl Iterator<Item = (&'a str, &'a [u8])>, metadata: &HashMap<String, String>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut take = |bytes: &[u8]| {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    let texts: BTreeMap<_, _> = metadata.iter().filter(|(name, _)| *name != "digest").collect();
    for (name, text) in texts {
        take(name.as_bytes());
        take(text.as_bytes());
    }
    for (name, bytes) in arrays {
        take(name.as_bytes());
        take(bytes);
    }
    hash
}

/// A file that has been read.
pub(super) struct Reader {
    path: PathBuf,
    arrays: BTreeMap<String, Array>,
    metadata: HashMap<String, String>,
}

impl Reader {
    /// A file of that format, whose digest is right.
    pub(super) fn open(path: &Path, format: &str) -> Result<Self, FileError> {
        let wrong = |place: &str, problem: String| FileError::content(path, place, problem);
        let bytes = fs::read(path).map_err(|error| FileError::io(path, error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong("header", error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong("header", error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        match metadata.get("format") {
            Some(is) if is == format => {}
            Some(is) => return Err(wrong("format", format!("got {is}, expected {format}"))),
            None => return Err(wrong("format", format!("is missing, expected {format}"))),
        }
        let of = |view: TensorView<'_>| Array {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        let arrays: BTreeMap<_, _> = file.tensors().into_iter().map(|(name, view)| (name, of(view))).collect();
        let found = digest(arrays.iter().map(|(name, array)| (&name[..], &array.bytes[..])), &metadata).to_string();
        if metadata.get("digest") != Some(&found) {
            return Err(wrong("digest", "another than the content's: the file is damaged".into()));
        }
        Ok(Self { path: path.to_owned(), arrays, metadata })
    }

    fn wrong(&self, name: &str, problem: impl Into<String>) -> FileError {
        FileError::content(&self.path, name, problem)
    }

    fn array(&self, name: &str) -> Result<&Array, FileError> {
        self.arrays.get(name).ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// Whole numbers, one axis.
    pub(super) fn indices(&self, name: &str) -> Result<Vec<usize>, FileError> {
        let Array { dtype, shape, bytes } = self.array(name)?;
        if shape.len() != 1 {
            return Err(self.wrong(name, format!("shape {shape:?}, expected one axis")));
        }
        match dtype {
            Dtype::U32 => Ok(bytes.as_chunks().0.iter().map(|x| u32::from_le_bytes(*x) as usize).collect()),
            Dtype::U64 => {
                let fits = |x: &[u8; 8]| usize::try_from(u64::from_le_bytes(*x));
                let values: Result<_, _> = bytes.as_chunks().0.iter().map(fits).collect();
                values.map_err(|_| self.wrong(name, "a number too large for this machine"))
            }
            other => Err(self.wrong(name, format!("numbers of type {other:?}, expected U32 or U64"))),
        }
    }

    /// Numbers, whose axes are as long as given, if that is given.
    pub(super) fn numbers(&self, name: &str, axes: &[Option<usize>]) -> Result<Vec<f64>, FileError> {
        let Array { dtype, shape, bytes } = self.array(name)?;
        let fits = |(is, wanted): (&usize, &Option<usize>)| wanted.is_none_or(|wanted| wanted == *is);
        if shape.len() != axes.len() || !shape.iter().zip(axes).all(fits) {
            let wanted: Vec<String> = axes.iter().map(|axis| axis.map_or("any".into(), |n| n.to_string())).collect();
            return Err(self.wrong(name, format!("shape {shape:?}, expected [{}]", wanted.join(", "))));
        }
        match dtype {
            Dtype::F32 => Ok(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x).into()).collect()),
            Dtype::F64 => Ok(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect()),
            other => Err(self.wrong(name, format!("numbers of type {other:?}, expected F32 or F64"))),
        }
    }

    /// Numbers as a matrix.
    pub(super) fn matrix(&self, name: &str, shape: (usize, usize), values: Vec<f64>) -> Result<Array2<f64>, FileError> {
        Array2::from_shape_vec(shape, values).map_err(|error| self.wrong(name, error.to_string()))
    }

    /// What `parse` makes of an entry of the metadata.
    pub(super) fn json<X>(&self, name: &str, parse: impl Fn(&Value) -> Option<X>) -> Result<X, FileError> {
        let text = self.metadata.get(name).ok_or_else(|| self.wrong(name, "is missing"))?;
        let value = serde_json::from_str(text).map_err(|error| self.wrong(name, error.to_string()))?;
        parse(&value).ok_or_else(|| self.wrong(name, format!("cannot be understood: {text:.200}")))
    }
}
