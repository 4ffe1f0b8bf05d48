//! Which keys a query sees, entry by entry and tile by tile.

use crate::attention::layout::{Pass, Problem};
use crate::attention::{Fault, KeyOrder, Split};
use core::ops::Range;
use tilewright_attention::CausalAlign;
use tilewright_scalar::Element;

impl<T: Element> Problem<'_, '_, T> {
    /// Query `i` of sequence `b` stands at key `i + offset`.
    fn offset(&self, b: usize) -> isize {
        let bottom_right = self.spec.align == CausalAlign::BottomRight;
        if bottom_right && self.is(Fault::OffsetFromPaddedLength) {
            return self.spec.max_kv_len() as isize - self.spec.max_q_len() as isize;
        }
        let offset = self.spec.offset(b);
        if self.is(Fault::OffsetUnsigned) { offset.max(0) } else { offset }
    }

    fn causal_offset(&self, b: usize) -> isize {
        let other_corner = self.is(Fault::CausalOtherCorner)
            || (self.is(Fault::BackwardOtherCorner) && self.pass == Pass::Backward)
            || (self.is(Fault::DecodeTopLeft) && self.spec.q_len(b) == 1);
        match self.spec.align {
            CausalAlign::BottomRight if other_corner => 0,
            CausalAlign::TopLeft if other_corner && !self.is(Fault::DecodeTopLeft) => {
                self.spec.kv_len(b) as isize - self.spec.q_len(b) as isize
            }
            _ => self.offset(b),
        }
    }

    fn window_offset(&self, b: usize) -> isize {
        if self.is(Fault::WindowWithoutOffset) { 0 } else { self.offset(b) }
    }

    /// ALiBi's addition to the score.
    pub(crate) fn alibi(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let Some(slopes) = &self.spec.alibi else { return 0.0 };
        let offset = if self.is(Fault::AlibiWithoutOffset) { 0 } else { self.offset(b) };
        let distance = i as isize + offset - j as isize;
        let distance = if self.is(Fault::AlibiSigned) { distance } else { distance.abs() };
        let slope = slopes[if self.is(Fault::AlibiOfOtherHead) { self.spec.kv_head(h) } else { h }];
        if self.is(Fault::AlibiSign) { slope * distance as f64 } else { -slope * distance as f64 }
    }

    /// Whether query `i` of sequence `b` sees key `j` in head `h`.
    pub(crate) fn visible(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        if self.is(Fault::BackwardUnmasked) && self.pass == Pass::Backward {
            return j < self.kv_len(b);
        }
        j < self.kv_len(b)
            && self.causally_visible(b, i, j)
            && (self.is(Fault::WindowByTile) || self.in_window(b, i, j))
            && self.in_block(b, h, i, j)
    }

    fn causally_visible(&self, b: usize, i: usize, j: usize) -> bool {
        let (diagonal, j) = (i as isize + self.causal_offset(b), j as isize);
        let strict = self.is(Fault::StrictDiagonal);
        !self.spec.causal || j < diagonal || (j == diagonal && !strict)
    }

    fn in_window(&self, b: usize, i: usize, j: usize) -> bool {
        let (diagonal, j) = (i as isize + self.window_offset(b), j as isize);
        let (first, last) = self.window_around(diagonal);
        (first..=last).contains(&j)
    }

    fn window_around(&self, diagonal: isize) -> (isize, isize) {
        let shorter = usize::from(self.is(Fault::WindowLeftOffByOne));
        let longer = usize::from(self.is(Fault::WindowRightOffByOne));
        let first = self.spec.window.left.map(|left| diagonal.saturating_sub_unsigned(left) + shorter as isize);
        let last = self.spec.window.right.map(|right| diagonal.saturating_add_unsigned(right.saturating_add(longer)));
        (first.unwrap_or(isize::MIN), last.unwrap_or(isize::MAX))
    }

    fn in_block(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        let Some(mask) = &self.spec.block_mask else { return true };
        let (mut row, mut column) = (i / mask.block_q, j / mask.block_k);
        if self.is(Fault::BlockMaskSizesSwapped) {
            (row, column) = (i / mask.block_k, j / mask.block_q);
        }
        if self.is(Fault::BlockMaskTransposed) {
            (row, column) = (column, row);
        }
        let (batch, heads, rows, columns) = mask.blocks.dim();
        let b = if batch == 1 || self.is(Fault::BlockMaskOfFirstBatch) { 0 } else { b };
        let h = if heads == 1 || self.is(Fault::BlockMaskOfFirstHead) { 0 } else { h };
        // Beyond the mask only under a fault: a transposed index of an oblong mask, or keys past the length.
        mask.blocks[[b, h, row.min(rows - 1), column.min(columns - 1)]]
    }

    /// Keys that some query of `rows` may see, as the tile loop computes it from causality and window.
    pub(crate) fn key_range(&self, b: usize, rows: &Range<usize>) -> Range<usize> {
        let kv_len = self.kv_len(b);
        let clamp = |j: isize| j.clamp(0, kv_len as isize) as usize;
        let (mut start, mut end) = (0, kv_len);
        let (first, last) = (rows.start as isize, rows.end as isize - 1);
        if self.spec.causal {
            end = end.min(clamp(self.causal_end(b, first, last)));
        }
        let (window_start, _) = self.window_around(first + self.window_offset(b));
        let (_, window_last) = self.window_around(last + self.window_offset(b));
        start = start.max(clamp(window_start));
        end = end.min(clamp(window_last.saturating_add(1)));
        if self.is(Fault::WindowStartRoundedUp) && self.spec.window.left.is_some() {
            start = start.next_multiple_of(self.by.variant.key_tile);
        }
        start..end.max(start)
    }

    fn causal_end(&self, b: usize, first: isize, last: isize) -> isize {
        let offset = self.causal_offset(b);
        match self.by.fault {
            Some(Fault::CausalExitEarly) => first + offset + 1,
            Some(Fault::CausalExitIgnoresOffset) => last + 1,
            Some(Fault::BackwardDiagonalTileDropped) if self.pass == Pass::Backward => {
                let tile = self.by.variant.key_tile as isize;
                (first + offset).div_euclid(tile) * tile
            }
            _ => last + offset + 1,
        }
    }

    /// The ranges that keys of sequence `b` are split into.
    pub(crate) fn splits(&self, b: usize) -> Vec<Range<usize>> {
        let kv_len = self.kv_len(b);
        let length = match self.by.variant.split {
            Split::Whole => kv_len,
            Split::Parts(parts) if self.is(Fault::SplitEndRoundedDown) => {
                let length = kv_len / parts;
                return (0..parts).map(|part| part * length..(part + 1) * length).collect();
            }
            Split::Parts(parts) => kv_len.div_ceil(parts),
            Split::Every(length) => length,
        };
        let overlap = usize::from(self.is(Fault::SplitBoundaryTwice));
        let starts = (0..kv_len.max(1)).step_by(length.max(1));
        starts.map(|start| start.saturating_sub(overlap)..(start + length).min(kv_len)).collect()
    }

    /// The key tiles of a range, in the order they are visited.
    pub(crate) fn key_tiles(&self, range: &Range<usize>, odd_call: bool) -> Vec<Range<usize>> {
        let size = self.by.variant.key_tile;
        let starts = range.clone().step_by(size);
        let mut tiles: Vec<_> = starts.map(|start| start..start.saturating_add(size).min(range.end)).collect();
        if self.pass == Pass::Forward {
            self.spoil_tiles(&mut tiles, size);
        }
        let backwards = self.by.variant.key_order == KeyOrder::Descending;
        if backwards || (odd_call && self.is(Fault::NotDeterministic)) {
            tiles.reverse();
        }
        tiles
    }

    fn spoil_tiles(&self, tiles: &mut Vec<Range<usize>>, size: usize) {
        let count = tiles.len();
        let Some(last) = tiles.last().cloned() else { return };
        match self.by.fault {
            Some(Fault::TailKeyDropped) if last.len() < size => tiles[count - 1].end -= 1,
            Some(Fault::SeamKeySkipped) => tiles[..count - 1].iter_mut().for_each(|tile| tile.end -= 1),
            Some(Fault::SeamKeyTwice) => tiles[1..].iter_mut().for_each(|tile| tile.start -= 1),
            Some(Fault::ExactLastTileSkipped) if last.len() == size => tiles.truncate(count - 1),
            Some(Fault::FirstTileTwice) => tiles.insert(0, tiles[0].clone()),
            _ => {}
        }
    }

    /// `Z_ij`, for a score tile whose first row and key are `origin`.
    pub(crate) fn dropout_factor(&self, b: usize, h: usize, i: usize, j: usize, origin: (usize, usize)) -> f64 {
        let Some(mask) = &self.dropout else { return 1.0 };
        let (mut h, mut i, mut j) = (h, i, j);
        match self.by.fault {
            Some(Fault::DropoutByTileCoordinates) => (i, j) = (i - origin.0, j - origin.1),
            Some(Fault::DropoutSameForHeads) => h = 0,
            Some(Fault::BackwardDropoutShifted) if self.pass == Pass::Backward => i += 1,
            _ => {}
        }
        let factor = mask.factor(b, h, i, j);
        match self.by.fault {
            Some(Fault::DropoutComplement) if factor == 0.0 => mask.keep_factor(),
            Some(Fault::DropoutComplement) => 0.0,
            Some(Fault::DropoutNotScaled) if factor > 0.0 => 1.0,
            _ => factor,
        }
    }
}
