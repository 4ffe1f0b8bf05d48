//! Block-range arithmetic: which tiles of the score matrix a method visits, and which of them need a mask.
//!
//! Every backend calls this module, so causal skipping, windows and tails are right or wrong in one place. All of it
//! rests on one fact: without the block mask, query `i` sees key `j < kv_len` iff `−left ≤ j − (i + offset) ≤ right`
//! (causality is `right = 0`), so visible pairs form a band, and over a rectangle of pairs `j − i` takes every integer
//! between its extremes.
//!
//! Rows beyond a sequence's queries do not exist here: ranges of rows are clipped to its length.

use crate::{AttentionError, AttentionSpec};
use alloc::format;
use alloc::string::ToString;
use core::ops::Range;

/// Tile sizes `B_r × B_c`.
///
/// ```
/// use tilewright_attention::tiling::Tiles;
/// assert_eq!(Tiles::from_memory(4096, 16, 16)?, Tiles { q: 16, k: 64 });
/// assert!(Tiles::from_memory(63, 16, 16).is_err());
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    /// Query rows a tile, `B_r`.
    pub q: usize,
    /// Keys a tile, `B_c`.
    pub k: usize,
}

impl Tiles {
    /// Algorithm 1, line 1: `B_c = ⌈M/4d⌉`, `B_r = min(⌈M/4d⌉, d)` for a fast memory of `M` elements, where `d` is the
    /// longer of key and value. Four tiles of `d` columns (Q, K, V, O) share the memory; the `min` keeps `B_r × B_c`
    /// scores within a quarter of it.
    ///
    /// # Errors
    /// [`AttentionError::Spec`] if a dimension is 0 or the memory does not hold one row of each of the four tiles.
    pub fn from_memory(m: usize, head_dim: usize, value_dim: usize) -> Result<Self, AttentionError> {
        for (field, dim) in [("head_dim", head_dim), ("value_dim", value_dim)] {
            if dim == 0 {
                return Err(AttentionError::Spec { field, got: "0".to_string(), expected: "at least 1".to_string() });
            }
        }
        let d = head_dim.max(value_dim);
        match d.checked_mul(4) {
            Some(four_rows) if m >= four_rows => {
                let k = m.div_ceil(four_rows);
                Ok(Self { q: k.min(d), k })
            }
            _ => {
                let expected = format!("at least 4·{d} elements, one row of each of Q, K, V and O");
                Err(AttentionError::Spec { field: "memory", got: m.to_string(), expected })
            }
        }
    }
}

/// How much of a tile is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// No pair is: the tile can be skipped.
    Empty,
    /// Some pairs are: the tile needs its mask.
    Partial,
    /// Every pair is: the tile needs no mask.
    Full,
}

/// Pairs with `−left ≤ j − i ≤ right`, the offset absorbed.
#[derive(Clone, Copy, Debug)]
struct Band {
    /// Least `j − i`.
    least: isize,
    /// Greatest `j − i`.
    greatest: isize,
}

impl Band {
    fn new(spec: &AttentionSpec, b: usize) -> Self {
        // An unbounded side, far beyond any length and far from overflow when a few lengths are added.
        const FAR: usize = isize::MAX as usize / 4;
        let side = |side: Option<usize>| side.unwrap_or(FAR).min(FAR) as isize;
        let right = if spec.causal { 0 } else { side(spec.window.right) };
        let offset = spec.offset(b);
        Self { least: offset - side(spec.window.left), greatest: offset + right }
    }

    /// Whether any pair of a non-empty rectangle lies in the band.
    fn meets(self, rows: &Range<usize>, keys: &Range<usize>) -> bool {
        let (least, greatest) = differences(rows, keys);
        least <= self.greatest && self.least <= greatest
    }

    /// Whether every pair of a non-empty rectangle lies in the band.
    fn contains(self, rows: &Range<usize>, keys: &Range<usize>) -> bool {
        let (least, greatest) = differences(rows, keys);
        self.least <= least && greatest <= self.greatest
    }
}

/// Least and greatest `j − i` over a non-empty rectangle.
fn differences(rows: &Range<usize>, keys: &Range<usize>) -> (isize, isize) {
    (keys.start as isize - (rows.end as isize - 1), keys.end as isize - 1 - rows.start as isize)
}

/// The hull of the keys that causality, window and the sequence's length leave to any of these query rows; `0..0` if
/// they see none. The block mask is not looked at.
///
/// ```
/// use tilewright_attention::{AttentionSpec, tiling::key_range};
/// let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 4, 6, 8) };
/// assert_eq!(key_range(&spec, 0, 0..2), 0..4); // row 1 stands at key 1 + (6 − 4)
/// ```
pub fn key_range(spec: &AttentionSpec, b: usize, rows: Range<usize>) -> Range<usize> {
    let band = Band::new(spec, b);
    across(&rows, spec.q_len(b), spec.kv_len(b), band.least, band.greatest)
}

/// The hull of the query rows that see any of these keys; `0..0` if none does. The block mask is not looked at.
pub fn query_range(spec: &AttentionSpec, b: usize, keys: Range<usize>) -> Range<usize> {
    let band = Band::new(spec, b);
    // The same band seen from the keys: `i − j` lies between −greatest and −least.
    across(&keys, spec.kv_len(b), spec.q_len(b), -band.greatest, -band.least)
}

/// For the `x` in `range`, all below `x_len`: the hull of the `y < y_len` with `least ≤ y − x ≤ greatest`.
fn across(range: &Range<usize>, x_len: usize, y_len: usize, least: isize, greatest: isize) -> Range<usize> {
    let (x_len, y_len) = (x_len as isize, y_len as isize);
    // Only the x whose partners are not all negative or all too large: x + greatest ≥ 0 and x + least < y_len.
    let first = (range.start.min(x_len as usize) as isize).max(-greatest);
    let end = (range.end.min(x_len as usize) as isize).min(y_len - least);
    let start = (first + least).max(0);
    let stop = (end + greatest).min(y_len);
    if first < end && start < stop { start as usize..stop as usize } else { 0..0 }
}

/// How much of the tile `rows × keys` head `h` of sequence `b` sees, block mask included. Exact.
///
/// ```
/// use tilewright_attention::{AttentionSpec, tiling::{Coverage, coverage}};
/// let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 8, 8, 8) };
/// assert_eq!(coverage(&spec, 0, 0, 4..8, 0..4), Coverage::Full);
/// assert_eq!(coverage(&spec, 0, 0, 4..8, 4..8), Coverage::Partial);
/// assert_eq!(coverage(&spec, 0, 0, 0..4, 4..8), Coverage::Empty);
/// ```
pub fn coverage(spec: &AttentionSpec, b: usize, h: usize, rows: Range<usize>, keys: Range<usize>) -> Coverage {
    let rows = rows.start..rows.end.min(spec.q_len(b));
    let stored = keys.start..keys.end.min(spec.kv_len(b));
    let band = Band::new(spec, b);
    if rows.is_empty() || stored.is_empty() || !band.meets(&rows, &stored) {
        return Coverage::Empty;
    }
    let in_band = stored.end == keys.end && band.contains(&rows, &stored);
    let Some(mask) = &spec.block_mask else {
        return if in_band { Coverage::Full } else { Coverage::Partial };
    };
    let (mut any, mut all) = (false, in_band);
    for block_rows in tiles(rows, mask.block_q) {
        for block_keys in tiles(stored.clone(), mask.block_k) {
            let set = mask.entry(b, h, block_rows.start / mask.block_q, block_keys.start / mask.block_k);
            any |= set && band.meets(&block_rows, &block_keys);
            all &= set;
        }
    }
    match (any, all) {
        (_, true) => Coverage::Full,
        (true, false) => Coverage::Partial,
        (false, false) => Coverage::Empty,
    }
}

/// Cuts a range at the absolute multiples of `step`, so that a tile's boundary never depends on where the range
/// starts: the first tile may begin, and the last end, in mid-tile. A step of 0 counts as 1.
///
/// ```
/// use tilewright_attention::tiling::tiles;
/// assert_eq!(tiles(3..9, 4).collect::<Vec<_>>(), [3..4, 4..8, 8..9]);
/// ```
pub fn tiles(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let step = step.max(1);
    let mut start = range.start;
    core::iter::from_fn(move || {
        if start >= range.end {
            return None;
        }
        let tile = start..(start / step + 1).saturating_mul(step).min(range.end);
        start = tile.end;
        Some(tile)
    })
}
