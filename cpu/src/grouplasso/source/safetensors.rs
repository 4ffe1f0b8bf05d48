//! Safetensors: one tensor a layer.
//!
//! The header is the `safetensors` crate's to parse and check; the numbers are read where they are, since the crate wants all
//! of the file in memory.

use super::file::{FileMatrix, Header, PositionedFile};
use super::npz::{chosen, natural_order};
use super::{FileError, NumberFormat, Orientation};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::sync::Arc;

/// As the format defines.
const LONGEST: u64 = 100_000_000;

/// Metadata that says which axis counts the samples, of a tensor or of all: `samples first` or `features first`.
const ORIENTATION: &str = "orientation";

/// The tensors `layers`, or all.
pub(super) fn open(
    file: PositionedFile,
    layers: Option<&[&str]>,
    orientation: Orientation,
) -> Result<Vec<(String, FileMatrix)>, FileError> {
    let (metadata, data) = header(&file)?;
    let mut names = metadata.tensors().into_keys().collect::<Vec<_>>();
    natural_order(&mut names);
    let names = chosen(&file.path, names, layers)?;
    let file = Arc::new(file);
    let mut arrays = Vec::with_capacity(names.len());
    for name in names {
        let wrong = |problem: String| FileError::content(&file.path, &name, problem);
        let Some(info) = metadata.info(&name) else { return Err(wrong("there is no such tensor".into())) };
        let format = match info.dtype {
            Dtype::F16 => NumberFormat::F16,
            Dtype::BF16 => NumberFormat::Bf16,
            Dtype::F32 => NumberFormat::F32,
            Dtype::F64 => NumberFormat::F64,
            other => return Err(wrong(format!("numbers of type {other:?}, expected F16, BF16, F32 or F64"))),
        };
        let orientation = said(&metadata, &name).map_err(wrong)?.unwrap_or(orientation);
        let header = Header { format, big_endian: false, fortran: false, shape: info.shape.clone() };
        let range = data + info.data_offsets.0 as u64..data + info.data_offsets.1 as u64;
        arrays.push((name.clone(), FileMatrix::new(&file, &name, &header, range, orientation)?));
    }
    Ok(arrays)
}

/// The header, and where the numbers begin.
fn header(file: &PositionedFile) -> Result<(Metadata, u64), FileError> {
    let wrong = |problem: String| FileError::content(&file.path, "header", problem);
    if file.len < 8 {
        return Err(wrong("fewer than 8 bytes: neither .npy, .npz nor .safetensors".into()));
    }
    let mut size = [0; 8];
    file.read(0, &mut size)?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST.min(file.len - 8) {
        let problem = format!("takes {size} bytes, there are {}: neither .npy, .npz nor .safetensors", file.len - 8);
        return Err(wrong(problem));
    }
    let mut text = vec![0; size as usize];
    file.read(8, &mut text)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let end = (8 + size).checked_add(metadata.data_len() as u64);
    if end != Some(file.len) {
        let problem = format!("tensors take {} bytes, there are {}", metadata.data_len(), file.len - 8 - size);
        return Err(wrong(problem));
    }
    Ok((metadata, 8 + size))
}

/// What the file itself says about a tensor's axes.
fn said(metadata: &Metadata, name: &str) -> Result<Option<Orientation>, String> {
    let Some(entries) = metadata.metadata() else { return Ok(None) };
    let entry = entries.get(&format!("{name}.{ORIENTATION}")).or_else(|| entries.get(ORIENTATION));
    match entry.map(String::as_str) {
        None => Ok(None),
        Some("samples first") => Ok(Some(Orientation::SamplesFirst)),
        Some("features first") => Ok(Some(Orientation::FeaturesFirst)),
        Some(other) => Err(format!("{ORIENTATION}: got {other}, expected samples first or features first")),
    }
}
