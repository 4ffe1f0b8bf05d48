//! Files that appear whole or not at all.

use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;

/// Writes a file through another beside it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let at = || path.display().to_string();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().tempfile_in(folder).with_context(at)?;
    file.write_all(bytes).with_context(at)?;
    file.persist(path).with_context(at)?;
    Ok(())
}
