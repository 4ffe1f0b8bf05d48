//! Few queries against many keys: a group of heads reads each key and value once, from where it lies. The time is that of
//! reading them.

use super::float::{Float, Stored};
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

/// What a thread needs for a task, kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Worker<A> {
    queries: Tile<A>,
    head: Tile<A>,
    columns: Columns,
    scores: Aligned<A>,
    slope: Aligned<A>,
    /// Keys and values that cannot be read as they lie.
    packed: [Tile<A>; 2],
}

impl<A: Float> Worker<A> {
    /// Lines 3 to 14 of Algorithm 1 for a task of few rows over one range of keys.
    pub(super) fn attend<T: Stored<Accum = A>>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        task: &QueryTask,
        keys: Range<usize>,
    ) -> Online<A> {
        let (spec, inputs, isa) = (problem.spec, problem.inputs, problem.isa);
        let (head, scaling) = ([task.b, spec.kv_head(task.heads.start)], problem.scaling::<A>());
        let mut online = Online::default();
        self.scale_queries(problem, task);
        self.scores.resize(ROWS * STRIDE);
        self.slope.resize(ROWS * STRIDE);
        online.start(problem, task, &keys, scaling.exponent);
        let (columns, scores, [k_packed, v_packed]) = (&mut self.columns, &mut self.scores, &mut self.packed);
        for chunk in tiles(keys, CHUNK) {
            let k = Rows::new(problem, inputs.k, head, &chunk, k_packed);
            let v = Rows::new(problem, inputs.v, head, &chunk, v_packed);
            for at in 0..online.strips.len() {
                let strip = online.strips[at];
                columns.find(spec, &strip, &chunk, chunk.start);
                if columns.runs.is_empty() {
                    continue;
                }
                let rows: Vec<_> = (0..strip.lanes().len()).map(|r| self.queries.padded_row(at * ROWS + r)).collect();
                for run in &columns.runs {
                    k.dots(isa, &rows, &run.keys, &mut scores[run.column..]);
                }
                problem.finish_scores(&scaling, &strip, columns, scores, &mut self.slope);
                let stride = online.o.stride();
                let weigh = |keys: &Range<usize>, p: &[A], o: &mut [A], start: Start<A>| {
                    v.weigh(isa, (p, rows.len()), keys, (o, stride), spec.value_dim, start);
                };
                let (finite, value) = (|| v.finite(isa), |j: usize, out: &mut [A]| v.value(j, out));
                online.update(problem, at, columns, scores, finite, weigh, value);
            }
        }
        online.finish();
        online
    }

    /// The rows of a task, head by head, times what queries are to be multiplied by.
    fn scale_queries<T: Stored<Accum = A>>(&mut self, problem: &Problem<'_, '_, T>, task: &QueryTask) {
        let spec = problem.spec;
        self.queries.reset(task.heads.len() * task.rows.len(), spec.head_dim);
        for (at, h) in task.heads.clone().enumerate() {
            tile::queries(spec, problem.inputs.q, [task.b, h], &task.rows).pack(problem.isa, &mut self.head);
            for r in 0..task.rows.len() {
                let to = self.queries.row_mut(at * task.rows.len() + r);
                to.copy_from_slice(self.head.row(r));
                kernels::scale(problem.isa, to, problem.scaling::<A>().queries);
            }
        }
    }
}
