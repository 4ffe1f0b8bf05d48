//! Where features come from: memory, or files that may be larger than it.
//!
//! A [`FeatureSource`] gives a few consecutive features at a time, each as a column of all samples. Files are *read*, at the
//! places wanted, and not mapped: what is in memory is then what the reader has room for, and a file that somebody cuts short
//! is an error and not a signal.

mod error;
mod file;
mod npy;
mod npz;
mod safetensors;

pub use error::FileError;
pub use file::FileMatrix;

use ndarray::{ArrayView2, s};
use std::ops::Range;
use std::path::Path;
use tilewright_grouplasso::{Element, GroupLassoError};

/// How a file stores a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberFormat {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an [`F32`](Self::F32).
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl NumberFormat {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Which axis of a stored array counts the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// The first, as models emit them; all other axes together count the features.
    SamplesFirst,
    /// The last; all other axes together count the features. In C order each feature is in one piece: read fastest.
    FeaturesFirst,
    /// The first if it has so many entries, or else the last if that has.
    Samples(usize),
}

/// Features of samples, a few at a time, as `f64`: every format that they may be stored in is exact in it. Several threads
/// read at once.
pub trait FeatureSource: Sync {
    /// Samples, `n`.
    fn samples(&self) -> usize;

    /// Features, `d`.
    fn features(&self) -> usize;

    /// Writes the columns `features`, one after the other, `n` numbers each, to `columns`, which has room for them and no
    /// more.
    ///
    /// # Errors
    /// [`GroupLassoError::Source`], and what `columns` holds then is not defined.
    fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError>;

    /// The same for features that ascend but need not be neighbours.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn gather(&self, features: &[usize], columns: &mut [f64]) -> Result<(), GroupLassoError> {
        let mut rest = columns;
        for run in features.chunk_by(|a, b| a + 1 == *b) {
            let (columns, after) = rest.split_at_mut((run.len() * self.samples()).min(rest.len()));
            self.read(run[0]..run[0] + run.len(), columns)?;
            rest = after;
        }
        Ok(())
    }

    /// Features that are best read together, at least 1: it may depend on what is stored, but not on the machine.
    fn together(&self) -> usize {
        in_cache(self.samples())
    }
}

/// Features whose columns, half a megabyte, stay in a core's cache.
fn in_cache(samples: usize) -> usize {
    ((1 << 16) / samples.max(1)).max(1)
}

impl<E: Element> FeatureSource for ArrayView2<'_, E> {
    fn samples(&self) -> usize {
        self.nrows()
    }

    fn features(&self) -> usize {
        self.ncols()
    }

    fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError> {
        check_range(features.clone(), columns.len(), (self.nrows(), self.ncols()))?;
        let block = self.slice(s![.., features]);
        for (column, to) in block.columns().into_iter().zip(columns.chunks_mut(self.nrows().max(1))) {
            to.iter_mut().zip(column).for_each(|(to, from)| *to = from.to_f64());
        }
        Ok(())
    }
}

/// Where in a [`Features`] one of its parts is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The tensor's name, or the file's if it has no other.
    pub name: String,
    /// Its features among those of all parts.
    pub features: Range<usize>,
}

/// The features of one or several stored arrays — a layer each — of the same samples, one array after the other.
///
/// ```
/// use tilewright_cpu::grouplasso::source::{FeatureSource, Features, Orientation};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("x.npy");
/// // What `numpy.save("x.npy", numpy.array([[1, 2, 3], [4, 5, 6]], "<f4"))` writes: 2 samples, 3 features.
/// let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
/// let numbers = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes());
/// let bytes: Vec<u8> = b"\x93NUMPY\x01\x00\x76\x00".iter().copied().chain(header.bytes()).chain(numbers).collect();
/// std::fs::write(&path, bytes)?;
///
/// let features = Features::open(&path, Orientation::Samples(2))?;
/// let mut columns = [0.0f64; 4];
/// features.read(1..3, &mut columns)?;
/// assert_eq!(columns, [2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Features {
    samples: usize,
    matrices: Vec<FileMatrix>,
    parts: Vec<Part>,
}

impl Features {
    /// Opens a `.npy`, `.npz` or `.safetensors` file, whichever its first bytes say it is. Arrays of an archive are taken in
    /// the order of their names, numbers in them by value: `layer2` before `layer10`.
    ///
    /// # Errors
    /// [`FileError`], naming the file and the place in it: nothing is taken on trust, so that reading later can fail only if
    /// the file changes or its medium does.
    pub fn open(path: &Path, orientation: Orientation) -> Result<Self, FileError> {
        Self::open_layers(path, None, orientation)
    }

    /// The same, of an archive, with the arrays `layers` only, in that order.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such array.
    pub fn open_layers(path: &Path, layers: Option<&[&str]>, orientation: Orientation) -> Result<Self, FileError> {
        let file = file::PositionedFile::open(path)?;
        let arrays = match file.kind()? {
            file::Kind::Npy => vec![npy::open(file, orientation)?],
            file::Kind::Zip => npz::open(file, layers, orientation)?,
            file::Kind::Other => safetensors::open(file, layers, orientation)?,
        };
        Self::joined(path, arrays)
    }

    /// Arrays of the same samples.
    fn joined(path: &Path, arrays: Vec<(String, FileMatrix)>) -> Result<Self, FileError> {
        let Some(samples) = arrays.first().map(|(_, first)| first.samples()) else {
            return Err(FileError::content(path, "its list of arrays", "there is none"));
        };
        let (mut matrices, mut parts, mut start) = (Vec::new(), Vec::new(), 0usize);
        for (name, matrix) in arrays {
            if matrix.samples() != samples {
                let problem = format!("{} samples, others have {samples}", matrix.samples());
                return Err(FileError::content(path, &name, problem));
            }
            let end = start.checked_add(matrix.features());
            let end = end.ok_or_else(|| FileError::content(path, &name, "more features than can be counted"))?;
            parts.push(Part { name, features: start..end });
            matrices.push(matrix);
            start = end;
        }
        Ok(Self { samples, matrices, parts })
    }

    /// Features of other files after these.
    ///
    /// # Errors
    /// [`FileError`] if the samples are not as many.
    pub fn and(mut self, path: &Path, orientation: Orientation) -> Result<Self, FileError> {
        let more = Self::open(path, orientation)?;
        if more.samples != self.samples {
            let problem = format!("{} samples, others have {}", more.samples, self.samples);
            return Err(FileError::content(path, "shape", problem));
        }
        let shift = self.features();
        let moved = |part: Part| Part { features: part.features.start + shift..part.features.end + shift, ..part };
        self.parts.extend(more.parts.into_iter().map(moved));
        self.matrices.extend(more.matrices);
        Ok(self)
    }

    /// The arrays, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl FeatureSource for Features {
    fn samples(&self) -> usize {
        self.samples
    }

    fn features(&self) -> usize {
        self.parts.last().map_or(0, |last| last.features.end)
    }

    fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError> {
        check_range(features.clone(), columns.len(), (self.samples, self.features()))?;
        let mut rest = columns;
        for (part, matrix) in self.parts.iter().zip(&self.matrices) {
            let range = features.start.max(part.features.start)..features.end.min(part.features.end);
            if range.start < range.end {
                let (columns, after) = rest.split_at_mut(range.len() * self.samples);
                matrix.read(range.start - part.features.start..range.end - part.features.start, columns)?;
                rest = after;
            }
        }
        Ok(())
    }

    fn gather(&self, features: &[usize], columns: &mut [f64]) -> Result<(), GroupLassoError> {
        let (Some(&first), Some(&last)) = (features.first(), features.last()) else { return Ok(()) };
        let ascend = features.is_sorted_by(|a, b| a < b) && last < self.features();
        if !ascend || features.len().checked_mul(self.samples) != Some(columns.len()) {
            return check_range(first..last + 1, columns.len(), (self.samples, self.features()));
        }
        let mut rest = columns;
        for (part, matrix) in self.parts.iter().zip(&self.matrices) {
            let [from, to] = [part.features.start, part.features.end].map(|end| features.partition_point(|f| *f < end));
            let (columns, after) = rest.split_at_mut((to - from) * self.samples);
            let own: Vec<usize> = features[from..to].iter().map(|feature| feature - part.features.start).collect();
            matrix.gather(&own, columns)?;
            rest = after;
        }
        Ok(())
    }

    fn together(&self) -> usize {
        self.matrices.iter().map(FileMatrix::together).max().unwrap_or(1)
    }
}

/// Whether a read asks for columns that are there, with room for them.
pub(crate) fn check_range(
    features: Range<usize>,
    room: usize,
    (samples, all): (usize, usize),
) -> Result<(), GroupLassoError> {
    if features.start <= features.end && features.end <= all && features.len().checked_mul(samples) == Some(room) {
        return Ok(());
    }
    Err(GroupLassoError::Shape {
        argument: "columns",
        got: format!("features {} to {}, room for {room} numbers", features.start, features.end),
        expected: format!("of {all} features, {samples} numbers each"),
    })
}
