//! The paper's theorems on memory traffic, with their constants, against the counts of the running programs.
//!
//! One head, `N` queries and keys, `d_v = d`, `T_c = ⌈N/B_c⌉`, `B_c = ⌈M/4d⌉`. Elements moved, as the counting programs'
//! documentation derives them:
//!
//! ```text
//! forward    T_c·N·(3d + 4) + 3Nd + 5N        = 12 N²d²/M · (1 + 4/3d) + O(Nd)     Theorem 2
//! backward   T_c·N·(5d + 1) + 7Nd             = 20 N²d²/M · (1 + 1/5d) + O(Nd)     Theorem 5
//! standard   4N² + 4Nd + N                                                        Theorem 2
//! ```

#![allow(clippy::unwrap_used)]

mod common;

use common::{Backward, Case, Forward, Tensors};
use ndarray::Array4;
use tilewright_attention::flash::Flash;
use tilewright_attention::io::Io;
use tilewright_attention::standard::Standard;
use tilewright_attention::tiling::tiles;
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Keys, Queries};

fn case(spec: AttentionSpec) -> Case {
    Case { spec, seed: 7, bias: None, sink: false, d_lse: false, memory: 0 }
}

fn forward(case: &Case, memory: usize) -> Io {
    let tensors = Tensors::<f32>::new(case);
    Flash { memory }.forward_counted(&case.spec, &tensors.inputs(), Forward::new(&case.spec).outputs()).unwrap()
}

fn standard(case: &Case) -> Io {
    let tensors = Tensors::<f32>::new(case);
    Standard.forward_counted(&case.spec, &tensors.inputs(), Forward::new(&case.spec).outputs()).unwrap()
}

fn backward(case: &Case, memory: usize) -> Io {
    let tensors = Tensors::<f32>::new(case);
    // What the forward pass left does not change what moves.
    let mut saved = Forward::new(&case.spec);
    saved.o.fill(0.0);
    saved.lse.fill(0.0);
    let mut gradients = Backward::new(&case.spec, &tensors);
    let saved = tensors.saved(&saved);
    Flash { memory }.backward_counted(&case.spec, &tensors.inputs(), &saved, gradients.gradients()).unwrap()
}

fn square(n: usize, d: usize) -> Case {
    case(AttentionSpec::dense(1, 1, n, n, d))
}

fn io(reads: usize, writes: usize) -> Io {
    Io { reads: reads as u64, writes: writes as u64 }
}

#[test]
fn counts_are_the_closed_forms() {
    // Sizes that divide and sizes that do not, rectangular problems and rectangular heads.
    for (n, s, d, dv) in [(64, 64, 8, 8), (64, 32, 4, 8), (37, 53, 5, 3), (1, 40, 8, 8), (40, 1, 2, 2)] {
        for rows in [1, 2, 8, 13] {
            let memory = 4 * d.max(dv) * rows;
            let spec = AttentionSpec { value_dim: dv, ..AttentionSpec::dense(1, 1, n, s, d) };
            let case = case(spec);
            let t_c = s.div_ceil(rows);
            let expected = io(t_c * n * (d + dv + 2) + s * (d + dv) + 2 * n, (t_c + 1) * n * (dv + 2) + n);
            assert_eq!(forward(&case, memory), expected, "forward {n} {s} {d} {dv} {rows}");
            let expected = io(t_c * n * (2 * d + 2 * dv + 1) + s * (d + dv), (t_c + 1) * n * d + 2 * s * (d + dv));
            assert_eq!(backward(&case, memory), expected, "backward {n} {s} {d} {dv} {rows}");
            assert_eq!(standard(&case), io(n * d + s * (d + dv) + 2 * n * s, 2 * n * s + n * dv + n));
        }
    }
}

#[test]
fn counts_are_sums_over_sequences_heads_and_extras() {
    // Bias: an element a score. Sink: one a head, and a pass over O, dO, LSE for its gradient. dLSE: one a row a visit.
    let (n, s, d, t_c, heads) = (12, 10, 4, 4, 4);
    let spec = AttentionSpec { kv_heads: 2, ..AttentionSpec::dense(3, heads, n, s, d) };
    let plain = case(spec);
    let all = Case { bias: Some([true; 4]), sink: true, d_lse: true, ..plain.clone() };
    let memory = 4 * d * 3;
    let (per_head, rows, sequences) = (3 * heads, 3 * heads * n, 3);
    // Keys and values are loaded once for the two query heads that share them.
    let reads = per_head * t_c * n * (2 * d + 2) + sequences * 2 * s * 2 * d + 2 * rows;
    assert_eq!(forward(&plain, memory), io(reads, (t_c + 1) * rows * (d + 2) + rows));
    assert_eq!(forward(&all, memory).reads, (reads + rows * s + heads) as u64);
    let (plain, all) = (backward(&plain, memory), backward(&all, memory));
    let extra_reads = rows * t_c + 2 * rows * s + rows * (2 * d + 2) + per_head;
    assert_eq!(all.reads - plain.reads, extra_reads as u64);
    assert_eq!(all.writes - plain.writes, (1 + rows * s + heads) as u64);
}

/// `count · M / (N²d²)`.
fn constant(count: u64, n: usize, d: usize, memory: usize) -> f64 {
    count as f64 * memory as f64 / (n * n * d * d) as f64
}

#[test]
fn constants_of_theorems_2_and_5() {
    // What is left of O(Nd), relative to the leading term: under 8Nd · M/(N²d²) = 8M/(Nd).
    for (n, d, rows) in [(512, 4, 8), (512, 8, 4), (256, 16, 2)] {
        let memory = 4 * d * rows;
        let rest = (8 * memory) as f64 / (n * d) as f64;
        let forward = constant(forward(&square(n, d), memory).total(), n, d, memory);
        let backward = constant(backward(&square(n, d), memory).total(), n, d, memory);
        let (twelve, twenty) = (12.0 * (1.0 + 4.0 / (3 * d) as f64), 20.0 * (1.0 + 1.0 / (5 * d) as f64));
        assert!(forward >= twelve && forward <= twelve + rest, "{forward} {twelve} {rest}");
        assert!(backward >= twenty && backward <= twenty + rest, "{backward} {twenty} {rest}");
    }
    // As d grows too, 12 and 20 alone remain.
    let (n, d, memory) = (256, 128, 1024);
    assert!((constant(forward(&square(n, d), memory).total(), n, d, memory) / 12.0 - 1.0).abs() < 0.03);
    assert!((constant(backward(&square(n, d), memory).total(), n, d, memory) / 20.0 - 1.0).abs() < 0.03);
}

#[test]
fn traffic_is_inverse_in_memory_and_quadratic_in_length() {
    let (n, d) = (256, 8);
    // Without the terms that memory does not change, the laws hold to the element.
    let leading_forward =
        |n: usize, rows: usize| forward(&square(n, d), 4 * d * rows).total() - (n * (3 * d + 5)) as u64;
    let leading_backward = |n: usize, rows: usize| backward(&square(n, d), 4 * d * rows).total() - (n * 7 * d) as u64;
    for rows in [2, 4, 8, 16] {
        assert_eq!(leading_forward(n, rows), 2 * leading_forward(n, 2 * rows));
        assert_eq!(leading_backward(n, rows), 2 * leading_backward(n, 2 * rows));
        assert_eq!(leading_forward(2 * n, rows), 4 * leading_forward(n, rows));
        assert_eq!(leading_backward(2 * n, rows), 4 * leading_backward(n, rows));
    }
    // With them, nearly so: a share of at most 5Nd / (12 N²d²/M) = 5M/(12Nd) is left over.
    let total = |n: usize, rows: usize| forward(&square(n, d), 4 * d * rows).total() as f64;
    let halved = total(n, 4) / total(n, 8);
    let quadrupled = total(2 * n, 4) / total(n, 4);
    assert!((1.93..2.0).contains(&halved), "{halved}");
    assert!((3.93..4.0).contains(&quadrupled), "{quadrupled}");
    // Standard attention does not profit from memory at all, and is quadratic too.
    assert_eq!(standard(&square(2 * n, d)).total() - (2 * n * (4 * d + 1)) as u64, (4 * 4 * n * n) as u64);
}

#[test]
fn block_sparse_traffic_is_linear_in_the_visited_fraction() {
    let (n, d, rows) = (128, 8, 8);
    let memory = 4 * d * rows;
    let tile_count = (n / rows) * (n / rows);
    let dense = square(n, d);
    let (leading_forward, leading_backward) = (forward(&dense, memory), backward(&dense, memory));
    let (rest_forward, rest_backward) = ((n * (3 * d + 5)) as u64, (n * 7 * d) as u64);
    for band in [1, 2, 3, 5, 8, 16] {
        // A cyclic band: `band` tiles of every row of tiles.
        let blocks =
            Array4::from_shape_fn((1, 1, n / rows, n / rows), |(_, _, i, j)| (j + n / rows - i) % (n / rows) < band);
        let visited = (n / rows * band) as u64;
        let mask = BlockMask { block_q: rows, block_k: rows, blocks };
        let sparse = case(AttentionSpec { block_mask: Some(mask), ..dense.spec.clone() });
        // Proposition 4, to the element: Θ(Nd) + s · leading term, s = visited / all.
        let got = forward(&sparse, memory).total() - rest_forward;
        assert_eq!(got * tile_count as u64, (leading_forward.total() - rest_forward) * visited);
        let got = backward(&sparse, memory).total() - rest_backward;
        assert_eq!(got * tile_count as u64, (leading_backward.total() - rest_backward) * visited);
        assert_eq!(standard(&sparse), standard(&dense), "standard attention computes every score");
    }
}

#[test]
fn tiles_that_nobody_sees_are_not_visited() {
    // Causality, a window and lengths cut traffic as a block mask would.
    let (n, d, rows) = (60, 4, 4);
    let spec = AttentionSpec {
        batch: 2,
        queries: Queries::Padded { len: n },
        keys: Keys::Padded { len: n, lengths: Some(vec![n, 33]) },
        causal: true,
        align: CausalAlign::BottomRight,
        window: tilewright_attention::Window { left: Some(17), right: None },
        ..AttentionSpec::dense(2, 1, n, n, d)
    };
    // In a band, the rows that see a tile of keys and the keys seen at all are contiguous.
    let (mut rows_visited, mut keys_loaded, mut all) = (0, 0, 0);
    for b in 0..2 {
        let sees = |i: usize, j: usize| spec.visible(b, 0, i, j);
        for keys in tiles(0..spec.kv_len(b), rows) {
            rows_visited += (0..n).filter(|&i| keys.clone().any(|j| sees(i, j))).count();
            keys_loaded += keys.filter(|&j| (0..n).any(|i| sees(i, j))).count();
            all += n;
        }
    }
    assert!(3 * rows_visited < 2 * all);
    let case = case(spec);
    let expected = io(
        rows_visited * (2 * d + 2) + keys_loaded * 2 * d + 2 * 2 * n,
        2 * n * (d + 2) + rows_visited * (d + 2) + 2 * n,
    );
    assert_eq!(forward(&case, 4 * d * rows), expected);
    let expected =
        io(rows_visited * (4 * d + 1) + keys_loaded * 2 * d, 2 * n * 3 * d + rows_visited * d + keys_loaded * 2 * d);
    assert_eq!(backward(&case, 4 * d * rows), expected);
}

#[test]
fn flash_beats_standard_when_d_squared_is_small_beside_memory() {
    // The paper's example: N = 1024, d = 64, about 100 KB of 16-bit numbers: 200 keys a tile.
    let gpt2 = square(1024, 64);
    let (flash, standard_gpt2) = (forward(&gpt2, 51_200).total(), standard(&gpt2).total());
    assert_eq!((flash, standard_gpt2), (6 * 1024 * 196 + 1024 * 197, 4 * 1024 * 1024 + 1024 * 257));
    assert!(3 * flash < standard_gpt2, "{flash} {standard_gpt2}");
    // Leading terms 12 N²d²/M (1 + 4/3d) and 4N² cross at M = 3d² + 4d.
    let (n, d) = (512, 8);
    let crossing = 3 * d * d + 4 * d;
    assert!(forward(&square(n, d), crossing / 2).total() > standard(&square(n, d)).total());
    assert!(forward(&square(n, d), crossing * 2).total() < standard(&square(n, d)).total());
}
