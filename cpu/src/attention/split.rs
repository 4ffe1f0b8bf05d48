//! Cutting outputs into the disjoint pieces that tasks own, before anything runs: no two tasks can write one element,
//! and the borrow checker knows it.

use ndarray::{ArrayViewMut, ArrayViewMut2, ArrayViewMut3, ArrayViewMut4, Axis, Dimension, RemoveAxis};
use std::ops::Range;
use tilewright_attention::tiling::tiles;
use tilewright_attention::{AttentionSpec, Keys, Queries};

/// The query rows a task owns: `rows` of every head in `heads` of sequence `b`.
#[derive(Clone, Debug)]
pub(crate) struct QueryTask {
    pub(crate) b: usize,
    pub(crate) heads: Range<usize>,
    pub(crate) rows: Range<usize>,
    /// Whether its rows are so few that keys and values are better read where they lie than packed.
    pub(crate) direct: bool,
}

/// Rows of a group of heads up to which a task has the whole group, so that its keys and values are read once.
const DIRECT_ROWS: usize = 24;

/// The tasks of a problem: tiles of `tile` rows of one head — or of a whole group of query heads, where that has few rows
/// (decoding).
pub(crate) fn query_tasks(spec: &AttentionSpec, tile: usize) -> Vec<QueryTask> {
    let mut tasks = Vec::new();
    for b in 0..spec.batch {
        let direct = is_direct(spec, b);
        for heads in tiles(0..spec.q_heads, heads_per_task(spec, b)) {
            let rows = tiles(0..spec.q_len(b), tile);
            tasks.extend(rows.map(|rows| QueryTask { b, heads: heads.clone(), rows, direct }));
        }
    }
    tasks
}

fn is_direct(spec: &AttentionSpec, b: usize) -> bool {
    spec.q_heads / spec.kv_heads * spec.q_len(b) <= DIRECT_ROWS
}

fn heads_per_task(spec: &AttentionSpec, b: usize) -> usize {
    if is_direct(spec, b) { spec.q_heads / spec.kv_heads } else { 1 }
}

/// A tensor stored as queries are, cut as [`query_tasks`] cuts the problem: `[heads, rows, dim]` each, same order.
pub(crate) fn query_pieces<'a, T>(
    spec: &AttentionSpec,
    tile: usize,
    tensor: ArrayViewMut4<'a, T>,
) -> Vec<ArrayViewMut3<'a, T>> {
    let mut pieces = Vec::new();
    for (b, sequence) in query_sequences(spec, tensor).into_iter().enumerate() {
        let heads = tiles(0..spec.q_heads, heads_per_task(spec, b));
        for heads in cut(sequence, 0, heads.map(|heads| heads.len())) {
            pieces.extend(cut(heads, 1, tiles(0..spec.q_len(b), tile).map(|rows| rows.len())));
        }
    }
    pieces
}

/// A tensor stored as queries are, cut into tiles of `tile` rows: those of every head of every sequence, in order.
pub(crate) fn query_tiles<'a, T>(
    spec: &AttentionSpec,
    tile: usize,
    tensor: ArrayViewMut4<'a, T>,
) -> Vec<Vec<ArrayViewMut2<'a, T>>> {
    head_tiles(query_sequences(spec, tensor), |b| spec.q_len(b), tile)
}

/// A tensor stored as keys are, likewise. Nothing of a paged one, for sequences may share pages.
pub(crate) fn key_tiles<'a, T>(
    spec: &AttentionSpec,
    tile: usize,
    tensor: ArrayViewMut4<'a, T>,
) -> Vec<Vec<ArrayViewMut2<'a, T>>> {
    let sequences = match &spec.keys {
        Keys::Padded { .. } => cut_all(tensor),
        Keys::Packed { .. } => cut_packed(tensor, (0..spec.batch).map(|b| spec.kv_len(b))),
        Keys::Paged { .. } => return Vec::new(),
    };
    head_tiles(sequences, |b| spec.kv_len(b), tile)
}

fn query_sequences<'a, T>(spec: &AttentionSpec, tensor: ArrayViewMut4<'a, T>) -> Vec<ArrayViewMut3<'a, T>> {
    match &spec.queries {
        Queries::Padded { .. } => cut_all(tensor),
        Queries::Packed { .. } => cut_packed(tensor, (0..spec.batch).map(|b| spec.q_len(b))),
    }
}

/// Sequences of these lengths, packed one after the other.
fn cut_packed<T>(tensor: ArrayViewMut4<'_, T>, lengths: impl Iterator<Item = usize>) -> Vec<ArrayViewMut3<'_, T>> {
    cut(tensor.index_axis_move(Axis(0), 0), 1, lengths)
}

/// Tiles of the first rows of every head; rows beyond a sequence's length are in none.
fn head_tiles<T>(
    sequences: Vec<ArrayViewMut3<'_, T>>,
    length: impl Fn(usize) -> usize,
    tile: usize,
) -> Vec<Vec<ArrayViewMut2<'_, T>>> {
    let mut heads = Vec::new();
    for (b, sequence) in sequences.into_iter().enumerate() {
        let cut_head = |head| cut(head, 0, tiles(0..length(b), tile).map(|rows| rows.len()));
        heads.extend(cut_all(sequence).into_iter().map(cut_head));
    }
    heads
}

/// A bias-shaped tensor cut into tiles of rows and columns: its indices and `[rows, columns]` each.
pub(crate) fn bias_pieces<T>(
    tensor: ArrayViewMut4<'_, T>,
    tile_q: usize,
    tile_k: usize,
) -> Vec<(BiasTask, ArrayViewMut2<'_, T>)> {
    let (.., row_count, column_count) = tensor.dim();
    let mut pieces = Vec::new();
    for (b, sequence) in cut_all(tensor).into_iter().enumerate() {
        for (h, head) in cut_all(sequence).into_iter().enumerate() {
            let row_tiles = cut(head, 0, tiles(0..row_count, tile_q).map(|rows| rows.len()));
            for (rows, piece) in tiles(0..row_count, tile_q).zip(row_tiles) {
                let column_tiles = cut(piece, 1, tiles(0..column_count, tile_k).map(|columns| columns.len()));
                let named = tiles(0..column_count, tile_k).zip(column_tiles);
                pieces.extend(named.map(|(columns, piece)| (BiasTask { b, h, rows: rows.clone(), columns }, piece)));
            }
        }
    }
    pieces
}

/// The part of a bias's gradient that a task owns, in the bias's own (broadcast) indices.
#[derive(Clone, Debug)]
pub(crate) struct BiasTask {
    pub(crate) b: usize,
    pub(crate) h: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// Consecutive pieces of the given lengths along an axis.
fn cut<T, D: Dimension>(
    view: ArrayViewMut<'_, T, D>,
    axis: usize,
    lengths: impl Iterator<Item = usize>,
) -> Vec<ArrayViewMut<'_, T, D>> {
    let mut rest = view;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, tail) = rest.split_at(Axis(axis), length);
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// Every index along the first axis.
fn cut_all<T, D: RemoveAxis>(view: ArrayViewMut<'_, T, D>) -> Vec<ArrayViewMut<'_, T, D::Smaller>> {
    let length = view.len_of(Axis(0));
    cut(view, 0, std::iter::repeat_n(1, length)).into_iter().map(|piece| piece.index_axis_move(Axis(0), 0)).collect()
}
