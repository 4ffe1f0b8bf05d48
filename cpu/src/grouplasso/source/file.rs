//! A matrix inside of a file, read where it stands.

use super::{FileError, NumberFormat, Orientation, check_range, in_cache};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tilewright_grouplasso::{GroupLassoError, bf16, f16};

/// Bytes read in one piece: few calls, and what was read is still in the first cache when it is decoded.
const PIECE: usize = 1 << 16;

/// Rows of a matrix stored sample by sample that are turned together: so many numbers of a column are written side by side.
const ROWS: usize = 16;

/// Bytes of a row worth a read of their own, where features are read out of rows.
const ROW_PIECE: usize = PIECE / ROWS;

/// A file that many threads read from, each at its own place.
#[derive(Debug)]
pub(super) struct PositionedFile {
    file: File,
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Npy,
    Zip,
    Other,
}

impl PositionedFile {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(|error| FileError::io(path, error))?;
        Self::of(file, path)
    }

    /// An open file, which goes by the name `path`.
    pub(super) fn of(file: File, path: &Path) -> Result<Self, FileError> {
        let about = file.metadata().map_err(|error| FileError::io(path, error))?;
        if about.is_dir() {
            return Err(FileError::content(path, "the file", "is a directory"));
        }
        Ok(Self { len: about.len(), file, path: path.to_owned() })
    }

    pub(super) fn kind(&self) -> Result<Kind, FileError> {
        let mut first = [0; 6];
        let known = (self.len as usize).min(first.len());
        self.read(0, &mut first[..known])?;
        Ok(match &first {
            b"\x93NUMPY" => Kind::Npy,
            [b'P', b'K', ..] => Kind::Zip,
            _ => Kind::Other,
        })
    }

    /// Fills `bytes` from the file at `offset`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        read_exact_at(&self.file, bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let place = format!("bytes {offset} to {}", offset + bytes.len() as u64);
                FileError::content(&self.path, place, "the file ends before them")
            }
            _ => FileError::io(&self.path, error),
        })
    }

    /// For readers that move about.
    pub(super) fn inner(&self) -> &File {
        &self.file
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Features of samples in one piece of a file, feature after feature or sample after sample.
#[derive(Clone, Debug)]
pub struct FileMatrix {
    file: Arc<PositionedFile>,
    /// Where it begins.
    offset: u64,
    format: NumberFormat,
    big_endian: bool,
    samples: usize,
    features: usize,
    /// Whether a feature's numbers stand side by side.
    by_feature: bool,
}

/// What a header says of an array.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) format: NumberFormat,
    pub(super) big_endian: bool,
    /// The first axis is the one that varies fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl FileMatrix {
    /// The array `name`, which takes up the bytes `range` of the file, no more and no fewer.
    pub(super) fn new(
        file: &Arc<PositionedFile>,
        name: &str,
        header: &Header,
        range: Range<u64>,
        orientation: Orientation,
    ) -> Result<Self, FileError> {
        let wrong = |problem: String| FileError::content(&file.path, name, problem);
        let shape = &header.shape;
        let numbers = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        let bytes = numbers.and_then(|numbers| numbers.checked_mul(header.format.bytes()));
        let bytes = bytes.ok_or_else(|| wrong(format!("shape {shape:?}: more numbers than can be counted")))?;
        let there = range.end.saturating_sub(range.start);
        if bytes as u64 != there || range.end > file.len {
            return Err(wrong(format!("shape {shape:?} takes {bytes} bytes, there are {there}")));
        }
        let samples_first = match orientation {
            Orientation::SamplesFirst => true,
            Orientation::FeaturesFirst => false,
            Orientation::Samples(samples) if shape.first() == Some(&samples) => true,
            Orientation::Samples(samples) if shape.len() > 1 && shape.last() == Some(&samples) => false,
            Orientation::Samples(samples) => {
                return Err(wrong(format!("shape {shape:?}: no axis of {samples} samples")));
            }
        };
        let samples = if samples_first { shape.first() } else { shape.last() };
        let samples = *samples.ok_or_else(|| wrong("a single number has no samples".into()))?;
        if samples == 0 {
            return Err(wrong(format!("shape {shape:?}: no samples")));
        }
        if header.fortran && shape.len() > 2 {
            return Err(wrong(format!("shape {shape:?}: Fortran order is read for two axes at most")));
        }
        let (format, big_endian) = (header.format, header.big_endian);
        let features = numbers.unwrap_or(0) / samples;
        let by_feature = samples_first == header.fortran;
        Ok(Self { file: file.clone(), offset: range.start, format, big_endian, samples, features, by_feature })
    }

    /// Samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// How it is stored.
    pub fn format(&self) -> NumberFormat {
        self.format
    }

    /// Features that are best read together: few enough to stay in a cache, but out of rows so many that a piece of a row is
    /// worth reading, as long as that is not more than some megabytes.
    pub(super) fn together(&self) -> usize {
        let cached = in_cache(self.samples);
        let piece = (ROW_PIECE / self.format.bytes()).min(32 * cached);
        if self.by_feature { cached } else { cached.max(piece) }
    }

    /// Columns, as [`FeatureSource::read`](super::FeatureSource::read).
    pub(super) fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError> {
        check_range(features.clone(), columns.len(), (self.samples, self.features))?;
        if self.by_feature {
            self.read_columns(features, columns)?;
        } else {
            self.read_rows(features, columns)?;
        }
        Ok(())
    }

    fn read_columns(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), FileError> {
        let size = self.format.bytes();
        let mut bytes = vec![0; PIECE.min(columns.len() * size)];
        let mut at = self.offset + (features.start * self.samples * size) as u64;
        for to in columns.chunks_mut(PIECE / size) {
            let bytes = &mut bytes[..to.len() * size];
            self.file.read(at, bytes)?;
            at += bytes.len() as u64;
            self.decode(bytes, to);
        }
        Ok(())
    }

    /// Pieces of [`ROWS`] rows at a time, each turned into pieces of columns.
    fn read_rows(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), FileError> {
        let (size, width) = (self.format.bytes(), features.len());
        let mut bytes = vec![0; width * size];
        let mut rows = vec![0.0; ROWS * width];
        for first in (0..self.samples).step_by(ROWS) {
            let together = ROWS.min(self.samples - first);
            for (i, row) in rows.chunks_exact_mut(width.max(1)).take(together).enumerate() {
                let at = ((first + i) * self.features + features.start) * size;
                self.file.read(self.offset + at as u64, &mut bytes)?;
                self.decode(&bytes, row);
            }
            for (j, column) in columns.chunks_exact_mut(self.samples).enumerate() {
                let to = &mut column[first..first + together];
                to.iter_mut().enumerate().for_each(|(i, to)| *to = rows[i * width + j]);
            }
        }
        Ok(())
    }

    /// Ascending features, valid ones, out of wherever they are.
    pub(super) fn gather(&self, features: &[usize], columns: &mut [f64]) -> Result<(), GroupLassoError> {
        let mut rest = columns;
        // Out of rows, a read takes along what lies between two features unless that is more than a read is worth.
        let (size, near) = (self.format.bytes(), if self.by_feature { 1 } else { ROW_PIECE / self.format.bytes() });
        for run in features.chunk_by(|a, b| b - a <= near) {
            let (columns, after) = rest.split_at_mut(run.len() * self.samples);
            if self.by_feature {
                self.read_columns(run[0]..run[0] + run.len(), columns)?;
            } else {
                self.gather_rows(run, size, columns)?;
            }
            rest = after;
        }
        Ok(())
    }

    fn gather_rows(&self, run: &[usize], size: usize, columns: &mut [f64]) -> Result<(), FileError> {
        let (mut bytes, mut row) = (vec![0; PIECE], vec![0.0; PIECE / size]);
        // No piece is longer than the buffer, though the run may be.
        for (at, piece) in pieces(run, PIECE / size) {
            let width = piece[piece.len() - 1] - piece[0] + 1;
            let (bytes, row) = (&mut bytes[..width * size], &mut row[..width]);
            for i in 0..self.samples {
                self.file.read(self.offset + ((i * self.features + piece[0]) * size) as u64, bytes)?;
                self.decode(bytes, row);
                for (j, feature) in piece.iter().enumerate() {
                    columns[(at + j) * self.samples + i] = row[feature - piece[0]];
                }
            }
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8], to: &mut [f64]) {
        match (self.format, self.big_endian) {
            (NumberFormat::F16, big) => halves(bytes, big, to, |bits, wide| {
                bits.reinterpret_cast::<f16>().convert_to_f32_slice(wide);
            }),
            (NumberFormat::Bf16, big) => halves(bytes, big, to, |bits, wide| {
                bits.reinterpret_cast::<bf16>().convert_to_f32_slice(wide);
            }),
            (NumberFormat::F32, false) => each(bytes, to, |bytes| f32::from_le_bytes(bytes).into()),
            (NumberFormat::F32, true) => each(bytes, to, |bytes| f32::from_be_bytes(bytes).into()),
            (NumberFormat::F64, false) => each(bytes, to, f64::from_le_bytes),
            (NumberFormat::F64, true) => each(bytes, to, f64::from_be_bytes),
        }
    }
}

/// Ascending numbers cut so that no piece reaches further than `width`, each with the place where it begins.
fn pieces(run: &[usize], width: usize) -> impl Iterator<Item = (usize, &[usize])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = *run.get(at)?;
        let piece = &run[at..at + run[at..].partition_point(|feature| feature - first < width)];
        at += piece.len();
        Some((at - piece.len(), piece))
    })
}

fn each<const N: usize>(bytes: &[u8], to: &mut [f64], number: impl Fn([u8; N]) -> f64) {
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = number(*bytes);
    }
}

/// Numbers of two bytes, many at a time.
fn halves(bytes: &[u8], big_endian: bool, to: &mut [f64], widen: impl Fn(&[u16], &mut [f32])) {
    const TOGETHER: usize = 256;
    let (mut bits, mut wide) = ([0u16; TOGETHER], [0.0f32; TOGETHER]);
    for (to, bytes) in to.chunks_mut(TOGETHER).zip(bytes.chunks(2 * TOGETHER)) {
        for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks().0) {
            *bits = if big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) };
        }
        widen(&bits[..to.len()], &mut wide[..to.len()]);
        to.iter_mut().zip(&wide).for_each(|(to, from)| *to = (*from).into());
    }
}
