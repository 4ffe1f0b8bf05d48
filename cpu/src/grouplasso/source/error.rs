//! What can be wrong with a file.

use std::path::{Path, PathBuf};
use std::{fmt, io};
use tilewright_grouplasso::GroupLassoError;

/// Why a file cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be opened, read or written.
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It does not hold what it should, or not all of it.
    Content {
        /// Which file.
        path: PathBuf,
        /// Where in it: a field, an array, a byte.
        place: String,
        /// What is wrong there.
        problem: String,
    },
}

impl FileError {
    pub(crate) fn content(path: &Path, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), place: place.into(), problem: problem.into() }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Content { path, place, problem } => write!(f, "{}: {place}: {problem}", path.display()),
        }
    }
}

impl std::error::Error for FileError {}

impl From<FileError> for GroupLassoError {
    fn from(error: FileError) -> Self {
        Self::Source { problem: error.to_string() }
    }
}
