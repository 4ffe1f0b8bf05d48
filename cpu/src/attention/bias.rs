//! The gradients of bias and sink: passes of their own, for what they need besides the scores of every pair is little,
//! and few problems ask for them.

use super::backward::Context;
use super::float::{Float, Stored};
use super::isa::Isa;
use super::kernels;
use super::scores::{Block, Scores};
use super::split::BiasTask;
use super::tile::{self, Tile};
use ndarray::ArrayViewMut2;
use num_traits::Zero;
use std::ops::Range;
use tilewright_attention::tiling::{key_range, tiles};
use tilewright_scalar::Real;

/// Side of the square tiles that `dBias` is cut into.
pub(super) const TILE: usize = 64;

/// One head's query tile: `Q`, `dO`, LSE and `D`.
#[derive(Debug, Default)]
struct QuerySide<A> {
    q: Tile<A>,
    d_o: Tile<A>,
    lse: Vec<A>,
    d: Vec<A>,
}

/// One key/value head's key tile: `K`, `V` and their transposes.
#[derive(Debug, Default)]
struct KeySide<A> {
    k: Tile<A>,
    k_t: Tile<A>,
    v: Tile<A>,
    v_t: Tile<A>,
}

/// What meets where a query tile meets a key tile.
#[derive(Debug, Default)]
struct Meeting<A> {
    /// Scores, turned into `P` in place.
    scores: Scores<A>,
    d_s: Tile<A>,
}

impl<T: Stored> Context<'_, '_, '_, T> {
    fn load_queries(&self, side: &mut QuerySide<T::Accum>, b: usize, h: usize, rows: &Range<usize>) {
        let spec = self.problem.spec;
        tile::queries(spec, self.problem.inputs.q, [b, h], rows).pack(self.problem.isa, &mut side.q);
        tile::queries(spec, self.saved.d_o, [b, h], rows).pack(self.problem.isa, &mut side.d_o);
        let at = |i: usize| {
            let (slot, row) = spec.query_slot(b, i);
            [slot, h, row]
        };
        side.lse.clear();
        side.lse.extend(rows.clone().map(|i| self.saved.lse[at(i)]));
        side.d.clear();
        side.d.extend(rows.clone().map(|i| self.d[at(i)]));
    }

    fn load_keys(&self, side: &mut KeySide<T::Accum>, b: usize, hk: usize, keys: &Range<usize>) {
        let (spec, inputs) = (self.problem.spec, self.problem.inputs);
        tile::keys(spec, inputs.k, [b, hk], keys).pack(self.problem.isa, &mut side.k);
        tile::keys(spec, inputs.v, [b, hk], keys).pack(self.problem.isa, &mut side.v);
        side.k_t.transpose_of(&side.k);
        side.v_t.transpose_of(&side.v);
    }

    /// Lines 11, 13 and 14: `P = e^(S − LSE)`, `dP = Z ∘ dO·Vᵀ`, `dS = P ∘ (dP − D)`; `false` if nothing is visible.
    fn meet(
        &self,
        at: &Block,
        queries: &QuerySide<T::Accum>,
        keys: &KeySide<T::Accum>,
        out: &mut Meeting<T::Accum>,
    ) -> bool {
        if !self.problem.scores(at, &queries.q, &keys.k_t, &mut out.scores) {
            return false;
        }
        let zero = T::Accum::zero();
        let (p, d_s) = (&mut out.scores.s, &mut out.d_s);
        d_s.reset(at.rows.len(), at.keys.len());
        d_s.add_product(self.problem.isa, &queries.d_o, &keys.v_t);
        self.problem.drop(at, d_s);
        for r in 0..at.rows.len() {
            if queries.lse[r] == T::Accum::neg_infinity() {
                p.row_mut(r).fill(zero);
            } else {
                kernels::exp_row(self.problem.isa, p.row_mut(r), queries.lse[r]);
            }
            for (d_s, p) in d_s.row_mut(r).iter_mut().zip(p.row(r)) {
                *d_s = *p * (*d_s - queries.d[r]);
            }
        }
        out.scores.mask.select(p, zero);
        out.scores.mask.select(d_s, zero);
        true
    }

    /// `dBias = Σ dS` over the sequences, heads, rows and keys that share an element, in this order.
    pub(super) fn bias_gradient(&self, task: &BiasTask, mut d_bias: ArrayViewMut2<'_, T>) {
        let spec = self.problem.spec;
        let Some(shape) = self.problem.inputs.bias.map(|bias| bias.dim()) else { return };
        // A shared axis stands for everything along it.
        let along = |length: usize, own: Range<usize>, all: usize| if length == 1 { 0..all } else { own };
        let mut sums = Tile::zeros(task.rows.len(), task.columns.len());
        let (mut key_side, mut query_side, mut meeting) =
            (KeySide::default(), QuerySide::default(), Meeting::default());
        for b in along(shape.0, task.b..task.b + 1, spec.batch) {
            let own_rows = task.rows.start..task.rows.end.min(spec.q_len(b));
            for h in along(shape.1, task.h..task.h + 1, spec.q_heads) {
                for rows in tiles(along(shape.2, own_rows.clone(), spec.q_len(b)), TILE) {
                    self.load_queries(&mut query_side, b, h, &rows);
                    let seen = key_range(spec, b, rows.clone());
                    let own = task.columns.start.max(seen.start)..task.columns.end.min(seen.end);
                    for keys in tiles(if shape.3 == 1 { seen } else { own }, TILE) {
                        let block = Block { b, h, rows: rows.clone(), keys };
                        self.load_keys(&mut key_side, b, spec.kv_head(h), &block.keys);
                        if self.meet(&block, &query_side, &key_side, &mut meeting) {
                            let origin = [task.rows.start, task.columns.start];
                            add_broadcast(
                                self.problem.isa,
                                &mut sums,
                                &meeting.d_s,
                                &block,
                                origin,
                                [shape.2, shape.3],
                            );
                        }
                    }
                }
            }
        }
        for (r, mut row) in d_bias.outer_iter_mut().enumerate() {
            for (d_bias, sum) in row.iter_mut().zip(sums.row(r)) {
                *d_bias = T::from_accum(*sum);
            }
        }
    }

    /// `dSink = −Σ e^(sink − LSE) · D`, over sequences and rows in order.
    pub(super) fn sink_gradient(&self, h: usize) -> T::Accum {
        let spec = self.problem.spec;
        let mut sum = T::Accum::zero();
        let Some(sink) = self.problem.inputs.sink.map(|sink| sink[h]) else { return sum };
        for b in 0..spec.batch {
            for i in 0..spec.q_len(b) {
                let (slot, row) = spec.query_slot(b, i);
                let lse = self.saved.lse[[slot, h, row]];
                if lse != T::Accum::neg_infinity() {
                    sum -= kernels::exp_scalar(sink - lse) * self.d[[slot, h, row]];
                }
            }
        }
        sum
    }
}

/// Adds a block of `dS` to the elements of `dBias` it falls on; `origin` is where `sums` begins.
fn add_broadcast<A: Float>(
    isa: Isa,
    sums: &mut Tile<A>,
    d_s: &Tile<A>,
    at: &Block,
    origin: [usize; 2],
    [rows, columns]: [usize; 2],
) {
    for (r, i) in at.rows.clone().enumerate() {
        let into = sums.row_mut(if rows == 1 { 0 } else { i - origin[0] });
        if columns == 1 {
            into[0] += kernels::sum_row(isa, d_s.row(r));
        } else {
            for (sum, d_s) in into[at.keys.start - origin[1]..].iter_mut().zip(d_s.row(r)) {
                *sum += *d_s;
            }
        }
    }
}
