//! NumPy's `.npz`: a zip archive of `.npy` files.

use super::file::{FileMatrix, PositionedFile};
use super::{FileError, Orientation, npy};
use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use zip::{CompressionMethod, ZipArchive};

/// The arrays `layers`, or all. Stored ones are read where they stand; a compressed one is unpacked to a temporary file that
/// nobody else sees, because it can be read from its beginning only.
pub(super) fn open(
    file: PositionedFile,
    layers: Option<&[&str]>,
    orientation: Orientation,
) -> Result<Vec<(String, FileMatrix)>, FileError> {
    let path = file.path.clone();
    let wrong = |place: &str, problem: String| FileError::content(&path, place, problem);
    let mut archive = archive(&file).map_err(|error| wrong("zip archive", error.to_string()))?;
    let mut names = Vec::new();
    for name in archive.file_names() {
        let name = name.map_err(|error| wrong("zip archive", error.to_string()))?;
        names.push(name.trim_end_matches(".npy").to_owned());
    }
    natural_order(&mut names);
    if let Some([name, ..]) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(wrong(name, "two arrays of this name".into()));
    }
    let names = chosen(&path, names, layers)?;
    let file = Arc::new(file);
    let mut arrays = Vec::with_capacity(names.len());
    for name in names {
        let entry = archive.index_for_name(&format!("{name}.npy")).or_else(|| archive.index_for_name(&name));
        let index = entry.ok_or_else(|| wrong(&name, "there is no such array".into()))?;
        let mut entry = archive.by_index(index).map_err(|error| wrong(&name, error.to_string()))?;
        let matrix = if entry.compression() == CompressionMethod::Stored {
            let start = entry.data_start().ok_or_else(|| wrong(&name, "begins nowhere".into()))?;
            let end = start.checked_add(entry.size()).filter(|end| *end <= file.len);
            let end = end.ok_or_else(|| wrong(&name, "reaches beyond the end of the file".into()))?;
            npy::within(&file, &name, start..end, orientation)?
        } else {
            let unpacked = unpack(&mut entry).map_err(|error| wrong(&name, format!("unpacking: {error}")))?;
            let unpacked = Arc::new(PositionedFile::of(unpacked, &path)?);
            npy::within(&unpacked, &name, 0..unpacked.len, orientation)?
        };
        arrays.push((name, matrix));
    }
    Ok(arrays)
}

fn archive(file: &PositionedFile) -> zip::result::ZipResult<ZipArchive<File>> {
    ZipArchive::new(file.inner().try_clone()?)
}

/// All of an entry, but no more than it is said to have; its checksum is checked.
fn unpack(entry: &mut impl ZipEntry) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let said = entry.said();
    let written = io::copy(&mut entry.take(said.saturating_add(1)), &mut file)?;
    if written != said {
        return Err(io::Error::other(format!("{written} bytes or more, said to be {said}")));
    }
    file.rewind()?;
    Ok(file)
}

/// A reader that knows how much it should have.
trait ZipEntry: Read + Sized {
    fn said(&self) -> u64;
}

impl<R: Read> ZipEntry for zip::read::ZipFile<'_, R> {
    fn said(&self) -> u64 {
        self.size()
    }
}

/// `all`, or those asked for.
pub(super) fn chosen(path: &Path, all: Vec<String>, layers: Option<&[&str]>) -> Result<Vec<String>, FileError> {
    let Some(layers) = layers else { return Ok(all) };
    match layers.iter().find(|layer| !all.iter().any(|name| name == *layer)) {
        Some(missing) => Err(FileError::content(path, *missing, "there is no such array")),
        None => Ok(layers.iter().map(|&layer| layer.to_owned()).collect()),
    }
}

/// By name, with numbers in names by value.
pub(super) fn natural_order(names: &mut [String]) {
    names.sort_by(|a, b| natural(a, b).then_with(|| a.cmp(b)));
}

fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (digits_a, digits_b) = (digits(a), digits(b));
        let order = if digits_a.is_empty() || digits_b.is_empty() {
            match (a.chars().next(), b.chars().next()) {
                (Some(x), Some(y)) => {
                    (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]);
                    x.cmp(&y)
                }
                (x, y) => return x.cmp(&y),
            }
        } else {
            (a, b) = (&a[digits_a.len()..], &b[digits_b.len()..]);
            let [x, y] = [digits_a, digits_b].map(|digits| digits.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The digits that a text begins with.
fn digits(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::natural_order;

    #[test]
    fn numbers_in_names_are_ordered_by_value() {
        let mut names = ["b10", "b9", "a2x10", "a2x9", "a02x1", "a", "", "é1"].map(str::to_owned);
        natural_order(&mut names);
        assert_eq!(names, ["", "a", "a02x1", "a2x9", "a2x10", "b9", "b10", "é1"]);
    }
}
