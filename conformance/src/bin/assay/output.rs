//! What `assay` prints and writes.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

pub(crate) fn progress(len: usize, what: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(len as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} cases, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what.to_string());
    bar
}

pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a verdict. Nobody may be listening any more, which does not make it a better one.
pub(crate) fn conclude(text: &str, holds: bool) -> anyhow::Result<bool> {
    match say(text) {
        Err(error) if !is_closed_pipe(&error) => Err(error),
        _ => Ok(holds),
    }
}

/// A JSON report in the making: a temporary file beside its target, so that no reader ever sees half a report and a
/// place that cannot be written shows before the trial and not after it.
pub(crate) struct JsonReport {
    file: tempfile::NamedTempFile,
    path: PathBuf,
}

impl JsonReport {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(!path.is_dir(), "{}: is a directory", path.display());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::NamedTempFile::new_in(directory).with_context(|| path.display().to_string())?;
        Ok(Self { file, path: path.into() })
    }

    pub(crate) fn write(mut self, value: &serde_json::Value) -> anyhow::Result<()> {
        let name = || self.path.display().to_string();
        serde_json::to_writer_pretty(&mut self.file, value).with_context(name)?;
        self.file.write_all(b"\n").with_context(name)?;
        self.file.persist(&self.path).with_context(name)?;
        Ok(())
    }
}
