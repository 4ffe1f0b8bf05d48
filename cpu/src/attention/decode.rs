//! Few queries against many keys: a group of heads reads each key and value once, from where it lies. The time is that of
//! reading them.

use super::few;
use super::float::Stored;
use super::forward::Online;
use super::kernels::{self, LANES, Left, ROWS, STRIDE, Start};
use super::panels::Aligned;
use super::scores::Problem;
use super::split::QueryTask;
use super::strip::Columns;
use super::tile::{Tile, pack_keys, pack_queries};
use ndarray::{ArrayView4, s};
use std::ops::Range;
use tilewright_attention::tiling::tiles;
use tilewright_attention::{AttentionSpec, Keys};

/// Keys between two rescalings.
pub(super) const CHUNK: usize = 256;

/// Rows of keys or values: where they lie, or packed where they lie awkwardly or in another format.
#[derive(Clone, Copy, Debug)]
struct Rows<'a, A> {
    data: &'a [A],
    stride: usize,
}

/// Rows `keys` of a tensor stored as keys are, as they lie if they lie densely.
fn lying<'a, T: Stored>(
    spec: &AttentionSpec,
    tensor: ArrayView4<'a, T>,
    [b, hk]: [usize; 2],
    keys: &Range<usize>,
) -> Option<Rows<'a, T::Accum>> {
    if matches!(spec.keys, Keys::Paged { .. }) {
        return None;
    }
    let ((slot, row), columns) = (spec.key_slot(b, keys.start), tensor.dim().3);
    let rows = tensor.slice_move(s![slot, hk, row..row + keys.len(), ..]);
    Some(Rows { data: T::as_accum(rows.to_slice()?)?, stride: columns })
}

/// Lines 3 to 14 of Algorithm 1 for a task of few rows over one range of keys.
pub(super) fn attend<T: Stored>(
    problem: &Problem<'_, '_, T>,
    task: &QueryTask,
    keys: Range<usize>,
) -> Online<T::Accum> {
    let (spec, inputs, isa) = (problem.spec, problem.inputs, problem.isa);
    let head = [task.b, spec.kv_head(task.heads.start)];
    let mut online = Online::default();
    online.start(problem, task, &keys);
    let queries = scaled_queries(problem, task);
    let zeros = || Aligned::zeros(ROWS * STRIDE);
    let (mut scores, mut slope, mut columns, scaling) = (zeros(), zeros(), Columns::default(), problem.scaling());
    let (mut k_tile, mut v_tile) = (Tile::default(), Tile::default());
    for chunk in tiles(keys, CHUNK) {
        // Kernels read whole lanes, which the last row must have too.
        let whole = |dim: usize| dim.is_multiple_of(LANES);
        let k = lying(spec, inputs.k, head, &chunk).filter(|_| whole(spec.head_dim)).unwrap_or_else(|| {
            pack_keys(isa, &mut k_tile, spec, inputs.k, head, &chunk);
            Rows { data: k_tile.rows_from(0), stride: k_tile.stride() }
        });
        let v = lying(spec, inputs.v, head, &chunk).filter(|_| whole(spec.value_dim)).unwrap_or_else(|| {
            pack_keys(isa, &mut v_tile, spec, inputs.v, head, &chunk);
            Rows { data: v_tile.rows_from(0), stride: v_tile.stride() }
        });
        let finite = spec_is_open(spec) || kernels::all_finite(isa, &v.data[..chunk.len() * v.stride]);
        for at in 0..online.strips.len() {
            let strip = online.strips[at];
            columns.find(spec, &strip, &chunk, chunk.start);
            for run in &columns.runs {
                let left = Left { data: &k.data[(run.keys.start - chunk.start) * k.stride..], stride: k.stride };
                let rows: Vec<_> = (0..strip.lanes().len()).map(|r| queries.padded_row(at * ROWS + r)).collect();
                few::dots(isa, &rows, left, run.keys.len(), &mut scores[run.column..]);
            }
            if columns.runs.is_empty() {
                continue;
            }
            problem.finish_scores(&scaling, &strip, &columns, &mut scores, &mut slope);
            let row = |j: usize| &v.data[(j - chunk.start) * v.stride..];
            let (rows, o_stride) = (strip.lanes().len(), online.o.stride());
            let weigh = |keys: &Range<usize>, p: &[T::Accum], o: &mut [T::Accum], start: Start<T::Accum>| {
                let v = Left { data: row(keys.start), stride: v.stride };
                few::weigh(isa, p, rows, v, keys.len(), o, o_stride, spec.value_dim, start);
            };
            let value = |j: usize, out: &mut [T::Accum]| out.copy_from_slice(&row(j)[..spec.value_dim]);
            online.update(problem, at, &columns, &mut scores, finite, weigh, value);
        }
    }
    online.finish();
    online
}

/// Whether no key of a chunk can be masked for one row and seen by another.
fn spec_is_open(spec: &AttentionSpec) -> bool {
    let bounded = spec.causal || spec.window.left.is_some() || spec.window.right.is_some();
    !bounded && spec.block_mask.is_none()
}

/// The rows of a task, head by head, times what queries are to be multiplied by.
fn scaled_queries<T: Stored>(problem: &Problem<'_, '_, T>, task: &QueryTask) -> Tile<T::Accum> {
    let spec = problem.spec;
    let mut all = Tile::zeros(task.heads.len() * task.rows.len(), spec.head_dim);
    let mut head = Tile::default();
    for (at, h) in task.heads.clone().enumerate() {
        pack_queries(problem.isa, &mut head, spec, problem.inputs.q, [task.b, h], &task.rows);
        for r in 0..task.rows.len() {
            let to = all.row_mut(at * task.rows.len() + r);
            to.copy_from_slice(head.row(r));
            kernels::scale(problem.isa, to, problem.scaling().queries);
        }
    }
    all
}
