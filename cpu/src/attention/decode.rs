//! Few queries against many keys: a group of heads reads each key and value once, from where it lies. The time is that of
//! reading them.

use super::float::Stored;
use super::forward::Online;
use super::kernels::{self, ROWS, STRIDE, Start};
use super::panels::Aligned;
use super::rows::Rows;
use super::scores::Problem;
use super::split::QueryTask;
use super::strip::Columns;
use super::tile::{self, Tile};
use std::ops::Range;
use tilewright_attention::tiling::tiles;

/// Keys between two rescalings.
pub(super) const CHUNK: usize = 256;

/// Lines 3 to 14 of Algorithm 1 for a task of few rows over one range of keys.
pub(super) fn attend<T: Stored>(
    problem: &Problem<'_, '_, T>,
    task: &QueryTask,
    keys: Range<usize>,
) -> Online<T::Accum> {
    let (spec, inputs, isa) = (problem.spec, problem.inputs, problem.isa);
    let head = [task.b, spec.kv_head(task.heads.start)];
    let mut online = Online::default();
    let queries = scaled_queries(problem, task);
    let zeros = || Aligned::zeros(ROWS * STRIDE);
    let (mut scores, mut slope, mut columns, scaling) =
        (zeros(), zeros(), Columns::default(), problem.scaling::<T::Accum>());
    online.start(problem, task, &keys, scaling.exponent);
    let (mut k_tile, mut v_tile) = (Tile::default(), Tile::default());
    for chunk in tiles(keys, CHUNK) {
        let k = Rows::new(problem, inputs.k, head, &chunk, &mut k_tile);
        let v = Rows::new(problem, inputs.v, head, &chunk, &mut v_tile);
        for at in 0..online.strips.len() {
            let strip = online.strips[at];
            columns.find(spec, &strip, &chunk, chunk.start);
            if columns.runs.is_empty() {
                continue;
            }
            let rows: Vec<_> = (0..strip.lanes().len()).map(|r| queries.padded_row(at * ROWS + r)).collect();
            for run in &columns.runs {
                k.dots(isa, &rows, &run.keys, &mut scores[run.column..]);
            }
            problem.finish_scores(&scaling, &strip, &columns, &mut scores, &mut slope);
            let stride = online.o.stride();
            let weigh = |keys: &Range<usize>, p: &[T::Accum], o: &mut [T::Accum], start: Start<T::Accum>| {
                v.weigh(isa, (p, rows.len()), keys, (o, stride), spec.value_dim, start);
            };
            let (finite, value) = (|| v.finite(isa), |j: usize, out: &mut [T::Accum]| v.value(j, out));
            online.update(problem, at, &columns, &mut scores, finite, weigh, value);
        }
    }
    online.finish();
    online
}

/// The rows of a task, head by head, times what queries are to be multiplied by.
fn scaled_queries<T: Stored>(problem: &Problem<'_, '_, T>, task: &QueryTask) -> Tile<T::Accum> {
    let spec = problem.spec;
    let mut all = Tile::zeros(task.heads.len() * task.rows.len(), spec.head_dim);
    let mut head = Tile::default();
    for (at, h) in task.heads.clone().enumerate() {
        tile::queries(spec, problem.inputs.q, [task.b, h], &task.rows).pack(problem.isa, &mut head);
        for r in 0..task.rows.len() {
            let to = all.row_mut(at * task.rows.len() + r);
            to.copy_from_slice(head.row(r));
            kernels::scale(problem.isa, to, problem.scaling::<T::Accum>().queries);
        }
    }
    all
}
