//! Optimiser state and weights in a file, to the last bit.
//!
//! A file is in the safetensors format: `weights.T` for each tensor, `bucket.B.velocity`, `bucket.B.correction` (DGC's
//! `u`) and `bucket.B.momentum` for each bucket, and in its metadata the step, the rank, the fingerprint of the settings and
//! a digest of everything. It is written beside its place and then renamed: a reader sees the old file or the new one.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};
use tilewright_compression::Memory;
use tilewright_compression::data_parallel::{BucketState, State, hash_of};

const FORMAT: &str = "tilewright data-parallel state 1";

/// Why a state could not be saved or loaded.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be written or read.
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not a saved state, or it is damaged.
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Content { path, problem } => write!(f, "{}: {problem}", path.display()),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// What a rank needs to continue as if nothing had happened. Each rank has a file of its own.
///
/// ```
/// use tilewright_compression::bucket::Buckets;
/// use tilewright_compression::data_parallel::{Config, DataParallel};
/// use tilewright_compression::{Solo, reference::Reference};
/// use tilewright_cpu::checkpoint::Checkpoint;
///
/// let new = || DataParallel::new(Config::dense(0.9), Buckets::pack(&[2], 100, |_, _| false)?, Reference, &Solo);
/// let (mut first, mut weights) = (new()?, [1.0, 2.0]);
/// first.step(0.1, &[&[0.5, -0.5]], &mut [&mut weights])?;
///
/// let path = tempfile::tempdir()?.keep().join("rank0.safetensors");
/// Checkpoint { state: first.state().clone(), weights: vec![weights.to_vec()] }.save(&path)?;
/// let saved = Checkpoint::load(&path)?;
/// let mut second = new()?;
/// second.restore(saved.state)?;
/// assert_eq!(saved.weights, [weights]);
/// assert_eq!(second.state(), first.state());
/// # std::fs::remove_dir_all(path.parent().unwrap())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The optimiser's.
    pub state: State,
    /// The tensors of the model.
    pub weights: Vec<Vec<f32>>,
}

impl Checkpoint {
    /// Writes a file, replacing what is there. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`CheckpointError`]. A file is at every moment either the old one or the new one, never half of it; if the very last
    /// step fails, writing down the directory, it is the new one already.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = self.to_bytes().map_err(|problem| content(path, problem))?;
        replace(path, &bytes).map_err(|error| CheckpointError::Io { path: path.to_owned(), error })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        let bytes = fs::read(path).map_err(|error| CheckpointError::Io { path: path.to_owned(), error })?;
        Self::from_bytes(&bytes).map_err(|problem| content(path, problem))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let arrays: Vec<(String, Vec<u8>)> =
            self.arrays().map(|(name, array)| (name, array.iter().flat_map(|x| x.to_le_bytes()).collect())).collect();
        let mut views = Vec::new();
        for (name, bytes) in &arrays {
            let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|error| error.to_string())?;
            views.push((name, view));
        }
        let mut metadata: HashMap<String, String> =
            self.numbers().into_iter().map(|(name, number)| (name.to_owned(), number.to_string())).collect();
        metadata.insert("format".into(), FORMAT.into());
        metadata.insert("digest".into(), self.digest().to_string());
        safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        if metadata.get("format").is_none_or(|format| format != FORMAT) {
            return Err(format!("not a {FORMAT}"));
        }
        let number = |name: &str| -> Result<u64, String> {
            let text = metadata.get(name).ok_or(format!("no {name}"))?;
            text.parse().map_err(|_| format!("{name}: got {text}, expected a number"))
        };
        let array = |name: String| array(&file, &name);
        let bucket = |i: u64| -> Result<BucketState, String> {
            let memory = Memory {
                velocity: array(format!("bucket.{i}.velocity"))?,
                momentum: array(format!("bucket.{i}.correction"))?,
            };
            Ok(BucketState { memory, momentum: array(format!("bucket.{i}.momentum"))? })
        };
        let saved = Self {
            state: State {
                fingerprint: number("fingerprint")?,
                rank: number("rank")? as usize,
                ranks: number("ranks")? as usize,
                step: number("step")?,
                buckets: (0..number("buckets")?).map(bucket).collect::<Result<_, _>>()?,
            },
            weights: (0..number("tensors")?).map(|i| array(format!("weights.{i}"))).collect::<Result<_, _>>()?,
        };
        if saved.digest() == number("digest")? { Ok(saved) } else { Err("damaged: the digest is another".into()) }
    }

    /// All arrays, each with its name.
    fn arrays(&self) -> impl Iterator<Item = (String, &[f32])> {
        let weights = self.weights.iter().enumerate().map(|(i, weights)| (format!("weights.{i}"), &weights[..]));
        let buckets = self.state.buckets.iter().enumerate().flat_map(|(i, bucket)| {
            [
                (format!("bucket.{i}.velocity"), &bucket.memory.velocity[..]),
                (format!("bucket.{i}.correction"), &bucket.memory.momentum[..]),
                (format!("bucket.{i}.momentum"), &bucket.momentum[..]),
            ]
        });
        weights.chain(buckets)
    }

    /// All numbers, each with its name.
    fn numbers(&self) -> [(&'static str, u64); 6] {
        let state = &self.state;
        [
            ("fingerprint", state.fingerprint),
            ("rank", state.rank as u64),
            ("ranks", state.ranks as u64),
            ("step", state.step),
            ("buckets", state.buckets.len() as u64),
            ("tensors", self.weights.len() as u64),
        ]
    }

    /// A hash of everything: numbers, lengths and bits.
    fn digest(&self) -> u64 {
        let halves = |number: u64| [number as u32, (number >> 32) as u32].map(f32::from_bits);
        let numbers = self.numbers().map(|(_, number)| number);
        let lengths = self.arrays().map(|(_, array)| array.len() as u64);
        let head: Vec<f32> = numbers.into_iter().chain(lengths).flat_map(halves).collect();
        hash_of(std::iter::once(&head[..]).chain(self.arrays().map(|(_, array)| array)))
    }
}

fn array(file: &SafeTensors, name: &str) -> Result<Vec<f32>, String> {
    let view = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name}: got {:?}, expected F32", view.dtype()));
    }
    Ok(view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
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

fn content(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Content { path: path.to_owned(), problem }
}
