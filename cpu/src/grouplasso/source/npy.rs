//! NumPy's `.npy`: a magic string, a header that is a Python dictionary, and the numbers.
//!
//! The header is read here and not by a crate because those that are about read or map the whole array at once, and because
//! what is wrong with a file should be said with the place.

use super::file::{FileMatrix, Header, PositionedFile};
use super::{FileError, NumberFormat, Orientation};
use std::ops::Range;
use std::sync::Arc;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longer headers are not of three keys and a shape.
const LONGEST: u64 = 1 << 16;

/// The one array of a file.
pub(super) fn open(file: PositionedFile, orientation: Orientation) -> Result<(String, FileMatrix), FileError> {
    let range = 0..file.len;
    let name = file.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let matrix = within(&Arc::new(file), "array", range, orientation)?;
    Ok((name, matrix))
}

/// The array `name` whose `.npy` takes up the bytes `range` of a file.
pub(super) fn within(
    file: &Arc<PositionedFile>,
    name: &str,
    range: Range<u64>,
    orientation: Orientation,
) -> Result<FileMatrix, FileError> {
    let wrong = |place: &str, problem: &str| FileError::content(&file.path, format!("{name}: {place}"), problem);
    let mut start = [0; 8];
    let there = range.end.saturating_sub(range.start);
    if there < 10 {
        return Err(wrong("magic", "fewer than 10 bytes"));
    }
    file.read(range.start, &mut start)?;
    if start[..6] != MAGIC[..] {
        return Err(wrong("magic", "is not that of a .npy file"));
    }
    let (size_bytes, version) = match start[6] {
        1 => (2, 1),
        version @ (2 | 3) => (4, version),
        version => return Err(wrong("version", &format!("{version}, expected 1 to 3"))),
    };
    let mut size = [0; 4];
    let text_at = 8 + size_bytes as u64;
    if there < text_at {
        return Err(wrong("header", "cut short"));
    }
    file.read(range.start + 8, &mut size[..size_bytes])?;
    let size = u64::from(u32::from_le_bytes(size));
    if size > LONGEST {
        return Err(wrong("header", &format!("{size} bytes, expected at most {LONGEST}")));
    }
    if there < text_at + size {
        return Err(wrong("header", "cut short"));
    }
    let mut text = vec![0; size as usize];
    file.read(range.start + text_at, &mut text)?;
    // Versions 1 and 2 are in Latin-1, but what can stand here is ASCII in both.
    let text = str::from_utf8(&text).map_err(|_| wrong("header", &format!("no text of version {version}")))?;
    let header = parse(text).map_err(|(at, problem)| wrong(&format!("header, character {at}"), &problem))?;
    FileMatrix::new(file, name, &header, range.start + text_at + size..range.end, orientation)
}

type Problem = (usize, String);

/// `{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse(text: &str) -> Result<Header, Problem> {
    let mut reader = Reader { text, at: 0 };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    reader.expect('{')?;
    while !reader.skip('}') {
        let at = reader.at;
        let key = reader.string()?;
        reader.expect(':')?;
        let again = match key {
            "descr" => descr.replace(reader.number_format()?).is_some(),
            "fortran_order" => fortran.replace(reader.truth()?).is_some(),
            "shape" => shape.replace(reader.shape()?).is_some(),
            _ => return Err((at, format!("an unknown key, {key}"))),
        };
        if again {
            return Err((at, format!("{key} for the second time")));
        }
        if !reader.skip(',') {
            reader.expect('}')?;
            break;
        }
    }
    let end = reader.at;
    if !reader.rest().trim().is_empty() {
        return Err((end, "more after the dictionary".into()));
    }
    let missing = |key: &str| (end, format!("{key} is missing"));
    let (format, big_endian) = descr.ok_or_else(|| missing("descr"))?;
    let fortran = fortran.ok_or_else(|| missing("fortran_order"))?;
    Ok(Header { format, big_endian, fortran, shape: shape.ok_or_else(|| missing("shape"))? })
}

/// A Python literal, from left to right.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes over what is blank.
    fn blank(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Passes over `c`, if that is next.
    fn skip(&mut self, c: char) -> bool {
        self.blank();
        let is_next = self.rest().starts_with(c);
        self.at += if is_next { c.len_utf8() } else { 0 };
        is_next
    }

    fn expect(&mut self, c: char) -> Result<(), Problem> {
        if self.skip(c) { Ok(()) } else { Err((self.at, format!("expected {c}"))) }
    }

    fn string(&mut self) -> Result<&'a str, Problem> {
        let quote = if self.skip('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect('\'')?;
        }
        let rest = self.rest();
        let end = rest.find(quote).ok_or((self.at, "a string without end".to_owned()))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn word(&mut self) -> &'a str {
        self.blank();
        let rest = self.rest();
        let word = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn truth(&mut self) -> Result<bool, Problem> {
        match self.word() {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err((self.at, "expected True or False".into())),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, Problem> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.skip(')') {
            // Python 2 wrote long integers with an L.
            let axis = self.word().trim_end_matches('L');
            shape.push(axis.parse().map_err(|_| (self.at, format!("{axis:?} is no length of an axis")))?);
            if !self.skip(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }

    /// Byte order and type: `<f2`, `>f4`, `=f8`.
    fn number_format(&mut self) -> Result<(NumberFormat, bool), Problem> {
        self.blank();
        let at = self.at;
        if self.skip('[') {
            return Err((at, "records, expected floating-point numbers".into()));
        }
        let descr = self.string()?;
        let (order, kind) = descr.split_at(descr.chars().next().map_or(0, char::len_utf8));
        let big_endian = match order {
            "<" => false,
            ">" => true,
            "=" => cfg!(target_endian = "big"),
            _ => return Err((at, format!("{descr:?}: expected a byte order, < or >"))),
        };
        let format = match kind {
            "f2" => NumberFormat::F16,
            "f4" => NumberFormat::F32,
            "f8" => NumberFormat::F64,
            // NumPy itself has no bfloat16; extensions write it as two bytes of no type.
            "V2" => return Err((at, format!("{descr:?}: untyped; bfloat16 is read from .safetensors files"))),
            _ => return Err((at, format!("{descr:?}: expected f2, f4 or f8"))),
        };
        Ok((format, big_endian))
    }
}
