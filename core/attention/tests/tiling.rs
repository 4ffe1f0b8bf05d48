//! The block-range arithmetic against the definition of visibility, exhaustively over small problems.

#![allow(clippy::unwrap_used)]

use ndarray::Array4;
use proptest::prelude::*;
use std::ops::Range;
use tilewright_attention::tiling::{Coverage, Tiles, coverage, key_range, query_range, tiles};
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Keys, Window};

const HUGE: usize = usize::MAX;

/// Every small problem: lengths, storage longer than the length, causality, alignment, windows.
fn for_each_spec(mut f: impl FnMut(&AttentionSpec)) {
    let sides = [None, Some(0), Some(1), Some(2), Some(HUGE)];
    for (q_len, kv_len) in (0..=7).flat_map(|q| (0..=7).map(move |k| (q, k))) {
        for (left, right) in sides.iter().flat_map(|&left| sides.iter().map(move |&right| (left, right))) {
            for (causal, align) in [
                (false, CausalAlign::TopLeft),
                (false, CausalAlign::BottomRight),
                (true, CausalAlign::TopLeft),
                (true, CausalAlign::BottomRight),
            ] {
                // Odd lengths sit in longer storage, as in a padded batch.
                let keys = Keys::Padded { len: kv_len + kv_len % 2, lengths: Some(vec![kv_len]) };
                f(&AttentionSpec {
                    keys,
                    causal,
                    align,
                    window: Window { left, right },
                    ..AttentionSpec::dense(1, 1, q_len, kv_len, 1)
                });
            }
        }
    }
}

fn hull(members: impl Iterator<Item = usize>) -> Range<usize> {
    members.fold(0..0, |hull, x| if hull.is_empty() { x..x + 1 } else { hull.start.min(x)..hull.end.max(x + 1) })
}

/// Every range within `0..=len`, empty ones included.
fn ranges(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..=len).flat_map(move |start| (start..=len).map(move |end| start..end))
}

fn brute_coverage(spec: &AttentionSpec, h: usize, rows: Range<usize>, keys: Range<usize>) -> Coverage {
    let rows = rows.start..rows.end.min(spec.q_len(0));
    let pairs = rows.len() * keys.len();
    let seen = rows.flat_map(|i| keys.clone().map(move |j| (i, j))).filter(|&(i, j)| spec.visible(0, h, i, j)).count();
    match seen {
        0 => Coverage::Empty,
        seen if seen == pairs => Coverage::Full,
        _ => Coverage::Partial,
    }
}

#[test]
fn ranges_are_the_hull_of_what_is_visible() {
    for_each_spec(|spec| {
        let (q_len, kv_len) = (spec.q_len(0), spec.kv_len(0));
        for rows in ranges(q_len + 1) {
            let seen = |j: &usize| rows.clone().any(|i| i < q_len && spec.visible(0, 0, i, *j));
            let expected = hull((0..kv_len).filter(seen));
            assert_eq!(key_range(spec, 0, rows.clone()), expected, "{spec:?} {rows:?}");
        }
        for keys in ranges(kv_len + 1) {
            let seen = |i: &usize| keys.clone().any(|j| spec.visible(0, 0, *i, j));
            let expected = hull((0..q_len).filter(seen));
            assert_eq!(query_range(spec, 0, keys.clone()), expected, "{spec:?} {keys:?}");
        }
    });
}

#[test]
fn coverage_is_exact() {
    for_each_spec(|spec| {
        for tile in (1..=4).flat_map(|q| (1..=4).map(move |k| Tiles { q, k })) {
            // Tiles as a kernel launches them: whole ones, over the ends of both lengths.
            for (i, j) in (0..2).flat_map(|i| (0..2).map(move |j| (i * tile.q, j * tile.k))) {
                let (rows, keys) = (i..i + tile.q, j..j + tile.k);
                let got = coverage(spec, 0, 0, rows.clone(), keys.clone());
                assert_eq!(got, brute_coverage(spec, 0, rows.clone(), keys.clone()), "{spec:?} {rows:?} {keys:?}");
            }
        }
        for rows in ranges(spec.q_len(0)) {
            let keys = 1..spec.kv_len(0).max(1);
            let got = coverage(spec, 0, 0, rows.clone(), keys.clone());
            assert_eq!(got, brute_coverage(spec, 0, rows, keys), "{spec:?}");
        }
    });
}

#[test]
fn coverage_is_exact_under_every_block_mask() {
    for_each_spec(|spec| {
        let (q_len, kv_len) = (spec.q_len(0), spec.max_kv_len());
        for (block_q, block_k) in [(1, 3), (2, 2), (4, 3)] {
            let (rows, columns) = (q_len.div_ceil(block_q), kv_len.div_ceil(block_k));
            // Two heads, complementary masks, from a handful of bit patterns.
            for pattern in [0b0u64, 0b0110_1001_1100_0101, 0b1] {
                let blocks = Array4::from_shape_fn((1, 2, rows, columns), |(_, h, i, j)| {
                    (pattern >> ((i * columns + j) % 16)) & 1 == h as u64
                });
                let masked = AttentionSpec {
                    q_heads: 2,
                    block_mask: Some(BlockMask { block_q, block_k, blocks }),
                    ..spec.clone()
                };
                masked.validate().unwrap();
                for (h, tile) in (0..2).flat_map(|h| [2, 3].map(|step| (h, step))) {
                    for rows in tiles(0..q_len, tile) {
                        for keys in tiles(0..kv_len, tile) {
                            let got = coverage(&masked, 0, h, rows.clone(), keys.clone());
                            let expected = brute_coverage(&masked, h, rows.clone(), keys.clone());
                            assert_eq!(got, expected, "{masked:?} {rows:?} {keys:?}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn tile_sizes_are_those_of_the_paper() {
    // The paper's choice for 100 KiB of 16-bit numbers and d = 64.
    assert_eq!(Tiles::from_memory(51_200, 64, 64).unwrap(), Tiles { q: 64, k: 200 });
    assert_eq!(Tiles::from_memory(8, 2, 1).unwrap(), Tiles { q: 1, k: 1 });
    assert_eq!(Tiles::from_memory(9, 1, 2).unwrap(), Tiles { q: 2, k: 2 });
    let message = |m, d, dv| Tiles::from_memory(m, d, dv).unwrap_err().to_string();
    assert_eq!(message(7, 2, 2), "memory: got 7, expected at least 4·2 elements, one row of each of Q, K, V and O");
    assert_eq!(message(7, 0, 2), "head_dim: got 0, expected at least 1");
    assert!(message(7, HUGE, 2).starts_with("memory: got 7"));
}

proptest! {
    #[test]
    fn tiles_partition_at_absolute_multiples(start in 0usize..40, length in 0usize..40, step in 0usize..9) {
        let range = start..start + length;
        let cut: Vec<_> = tiles(range.clone(), step).collect();
        prop_assert_eq!(cut.iter().cloned().flatten().collect::<Vec<_>>(), range.clone().collect::<Vec<_>>());
        prop_assert!(cut.iter().all(|tile| !tile.is_empty()));
        prop_assert!(cut.iter().skip(1).all(|tile| tile.start % step.max(1) == 0));
        prop_assert!(cut.iter().all(|tile| tile.len() <= step.max(1)));
    }
}

#[test]
fn tiles_end_at_the_end_of_the_address_space() {
    assert!(tiles(HUGE - 1..HUGE, 4).eq(std::iter::once(HUGE - 1..HUGE)));
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 5..2;
    assert_eq!(tiles(backwards, 4).count(), 0);
}
