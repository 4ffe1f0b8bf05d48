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
}

/// The tasks of a problem: tiles of `tile` rows of one head — or, where one tile holds the rows of a whole group of
/// query heads (decoding), of the group, so that its keys and values are packed once.
pub(crate) fn query_tasks(spec: &AttentionSpec, tile: usize) -> Vec<QueryTask> {
    let mut tasks = Vec::new();
    for b in 0..spec.batch {
        let step = heads_per_task(spec, b, tile);
        for heads in tiles(0..spec.q_heads, step) {
            let rows = tiles(0..spec.q_len(b), tile);
            tasks.extend(rows.map(|rows| QueryTask { b, heads: heads.clone(), rows }));
        }
    }
    tasks
}

fn heads_per_task(spec: &AttentionSpec, b: usize, tile: usize) -> usize {
    let group = spec.q_heads / spec.kv_heads;
    if group * spec.q_len(b) <= tile { group } else { 1 }
}

/// A tensor stored as queries are, cut as [`query_tasks`] cuts the problem: `[heads, rows, dim]` each, same order.
pub(crate) fn query_pieces<'a, T>(
    spec: &AttentionSpec,
    tile: usize,
    tensor: ArrayViewMut4<'a, T>,
) -> Vec<ArrayViewMut3<'a, T>> {
    let sequences: Vec<ArrayViewMut3<'a, T>> = match &spec.queries {
        Queries::Padded { .. } => cut_all(tensor),
        Queries::Packed { .. } => {
            let whole = tensor.index_axis_move(Axis(0), 0);
            cut(whole, 1, (0..spec.batch).map(|b| spec.q_len(b)))
        }
    };
    let mut pieces = Vec::new();
    for (b, sequence) in sequences.into_iter().enumerate() {
        let heads = tiles(0..spec.q_heads, heads_per_task(spec, b, tile));
        for heads in cut(sequence, 0, heads.map(|heads| heads.len())) {
            pieces.extend(cut(heads, 1, tiles(0..spec.q_len(b), tile).map(|rows| rows.len())));
        }
    }
    pieces
}

/// Stored key rows that a task owns, and who reads them.
#[derive(Clone, Debug)]
pub(crate) struct KeyTask {
    /// Index on the first axis.
    slot: usize,
    /// Stored rows.
    rows: Range<usize>,
    /// Sequences and the keys of theirs that lie here, from the first row on; in ascending order.
    pub(crate) uses: Vec<(usize, Range<usize>)>,
}

impl KeyTask {
    pub(crate) fn row_count(&self) -> usize {
        self.rows.len()
    }
}

/// Tiles of `tile` rows over everything stored, used or not: rows of one sequence, or of one physical page, so that
/// whoever shares a page has its gradients added by one task in a fixed order.
pub(crate) fn key_tasks(spec: &AttentionSpec, tile: usize) -> Vec<KeyTask> {
    match &spec.keys {
        Keys::Padded { len, .. } => (0..spec.batch)
            .flat_map(|b| tiles(0..*len, tile).map(move |rows| (b, rows)))
            .map(|(b, rows)| {
                let keys = rows.start..rows.end.min(spec.kv_len(b));
                let uses = if keys.is_empty() { vec![] } else { vec![(b, keys)] };
                KeyTask { slot: b, rows, uses }
            })
            .collect(),
        Keys::Packed { cu_seqlens } => (0..spec.batch)
            .flat_map(|b| tiles(0..spec.kv_len(b), tile).map(move |keys| (b, keys)))
            .map(|(b, keys)| {
                let rows = cu_seqlens[b] + keys.start..cu_seqlens[b] + keys.end;
                KeyTask { slot: 0, rows, uses: vec![(b, keys)] }
            })
            .collect(),
        Keys::Paged { pages, page_size, table, .. } => {
            let mut readers = vec![Vec::new(); *pages];
            for (b, row) in table.iter().enumerate() {
                for (entry, &page) in row[..spec.kv_len(b).div_ceil(*page_size)].iter().enumerate() {
                    readers[page].push((b, entry * page_size));
                }
            }
            (0..*pages)
                .flat_map(|page| tiles(0..*page_size, tile).map(move |rows| (page, rows)))
                .map(|(slot, rows)| {
                    let keys =
                        |&(b, first): &(usize, usize)| (b, first + rows.start..(first + rows.end).min(spec.kv_len(b)));
                    let uses = readers[slot].iter().map(keys).filter(|(_, keys)| !keys.is_empty()).collect();
                    KeyTask { slot, rows, uses }
                })
                .collect()
        }
    }
}

/// A tensor stored as keys are, cut as [`key_tasks`] cuts it and by heads: task-major, `[rows, dim]` each.
pub(crate) fn key_pieces<'a, T>(tasks: &[KeyTask], tensor: ArrayViewMut4<'a, T>) -> Vec<ArrayViewMut2<'a, T>> {
    let mut pieces = Vec::new();
    let mut rest = tasks; // in order of slots
    for (slot, stored) in cut_all(tensor).into_iter().enumerate() {
        let (here, later) = rest.split_at(rest.partition_point(|task| task.slot == slot));
        rest = later;
        for rows in cut(stored, 1, here.iter().map(KeyTask::row_count)) {
            pieces.extend(cut_all(rows));
        }
    }
    pieces
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
