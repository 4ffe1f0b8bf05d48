//! The sums that become gradients, and writing them.

use crate::attention::backward::{Pair, RowData};
use crate::attention::layout::{Head, Problem, load};
use crate::attention::{Fault, Rounding};
use core::ops::Range;
use ndarray::ArrayViewMut4;
use tilewright_attention::tensors::{broadcast_index, row_mut};
use tilewright_attention::{Gradients, Keys};
use tilewright_scalar::{Element, Format, Real};

/// `dQ` of one query head, `dK` and `dV` of the key/value head it reads; all still without the scale.
#[derive(Clone, Debug)]
pub(crate) struct HeadSums<A> {
    q: Vec<A>,
    k: Vec<A>,
    v: Vec<A>,
}

/// What is summed over heads and sequences.
#[derive(Clone, Debug)]
pub(crate) struct Sums<A> {
    k: Vec<A>,
    v: Vec<A>,
    bias: Vec<A>,
    pub(crate) sink: Vec<A>,
}

impl<A: Real> HeadSums<A> {
    pub(crate) fn new<T: Element>(problem: &Problem<'_, '_, T>, b: usize) -> Self {
        let (keys, spec) = (problem.kv_len(b), problem.spec);
        let zeros = |length| vec![A::zero(); length];
        Self { q: Vec::new(), k: zeros(keys * spec.head_dim), v: zeros(keys * spec.value_dim) }
    }

    /// Makes ready for the next query head of the group.
    pub(crate) fn start_head<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        head: &Head<A>,
        gradients: &Gradients<'_, T>,
    ) {
        self.q.clear();
        self.q.resize(head.q_len * head.d, A::zero());
        if problem.is(Fault::QueryGradientNotZeroed) {
            for i in 0..head.q_len {
                let (qb, qi) = problem.spec.query_slot(head.b, i);
                for c in 0..head.d {
                    self.q[i * head.d + c] = load(gradients.d_q[[qb, head.h, qi, c]]);
                }
            }
        }
        if problem.is(Fault::GroupGradientOverwritten) {
            self.k.fill(A::zero());
            self.v.fill(A::zero());
        }
    }

    /// `dQ += dS K`, `dK += dSᵀ Q`, `dV += (Z∘P)ᵀ dO` for one tile.
    pub(crate) fn add_tile<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        head: &Head<A>,
        rows: &RowData<A>,
        queries: &Range<usize>,
        keys: &Range<usize>,
        pairs: &[Pair<A>],
    ) {
        let key_tile = problem.by.variant.key_tile;
        for i in queries.clone() {
            let lost = problem.is(Fault::QueryGradientUpdateLost) && (i + keys.start / key_tile) % 8 == 7;
            if !lost {
                self.add_query_row(problem, head, i, keys, &pairs[(i - queries.start) * keys.len()..][..keys.len()]);
            }
        }
        if problem.is(Fault::LastQueryTileSkipped) && queries.len() < problem.by.variant.query_tile {
            return;
        }
        for j in keys.clone() {
            let column = |i: usize| pairs[(i - queries.start) * keys.len() + j - keys.start];
            self.add_key_row(problem, head, queries, j, column);
            self.add_value_row(problem, rows, head.dv, queries, j, column);
        }
    }

    fn add_query_row<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        head: &Head<A>,
        i: usize,
        keys: &Range<usize>,
        pairs: &[Pair<A>],
    ) {
        for c in 0..head.d {
            let sum = &mut self.q[i * head.d + c];
            let seen = pairs.iter().zip(keys.clone()).filter(|(pair, _)| pair.d_s.is_some());
            let total = problem.by.sum(*sum, seen.map(|(pair, j)| (pair.d_raw, head.k[j * head.d + c])));
            *sum = problem.by.round(problem.by.variant.gradients, total);
        }
    }

    fn add_key_row<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        head: &Head<A>,
        queries: &Range<usize>,
        j: usize,
        column: impl Fn(usize) -> Pair<A>,
    ) {
        let group = problem.spec.q_heads / problem.spec.kv_heads;
        if problem.is(Fault::GroupLastHeadDropped) && group > 1 && head.h % group == group - 1 {
            return;
        }
        let rounding = match problem.by.fault {
            Some(Fault::KeyGradientInBf16) => Rounding::To(Format::BF16),
            _ => problem.by.variant.gradients,
        };
        for c in 0..head.d {
            let sum = &mut self.k[j * head.d + c];
            let seen = queries.clone().map(|i| (column(i), i)).filter(|(pair, _)| pair.d_s.is_some());
            let total = problem.by.sum(*sum, seen.map(|(pair, i)| (pair.d_raw, head.q_raw[i * head.d + c])));
            *sum = problem.by.round(rounding, total);
        }
    }

    fn add_value_row<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        rows: &RowData<A>,
        dv: usize,
        queries: &Range<usize>,
        j: usize,
        column: impl Fn(usize) -> Pair<A>,
    ) {
        for c in 0..dv {
            let sum = &mut self.v[j * dv + c];
            let terms = queries.clone().filter_map(|i| column(i).weight.map(|weight| (weight, rows.g[i * dv + c])));
            let total = problem.by.sum(*sum, terms);
            *sum = problem.by.round(problem.by.variant.gradients, total);
        }
    }
}

impl<A: Real> Sums<A> {
    pub(crate) fn new<T: Element>(problem: &Problem<'_, '_, T>) -> Self {
        let zeros = |length| vec![A::zero(); length];
        Self {
            k: zeros(problem.inputs.k.len()),
            v: zeros(problem.inputs.v.len()),
            bias: zeros(problem.inputs.bias.map_or(0, |bias| bias.len())),
            sink: zeros(problem.spec.q_heads),
        }
    }

    /// `dBias += dS` along broadcast axes.
    pub(crate) fn add_bias_tile<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        head: &Head<A>,
        queries: &Range<usize>,
        keys: &Range<usize>,
        pairs: &[Pair<A>],
    ) {
        let Some(bias) = problem.inputs.bias else { return };
        let scaled = problem.is(Fault::BiasGradientScaled);
        for (n, d_s) in pairs.iter().enumerate().filter_map(|(n, pair)| Some((n, pair.d_s?))) {
            let (i, j) = (queries.start + n / keys.len(), keys.start + n % keys.len());
            let index = broadcast_index(bias.dim(), head.b, head.h, i, j);
            // Outside the bias only under a fault that reads keys past the length.
            let Some(sum) = self.bias.get_mut(flat(bias.shape(), index)) else { continue };
            let term = if scaled { d_s * A::from_f64(problem.scale()) } else { d_s };
            *sum = if problem.is(Fault::BiasGradientOverwritten) { term } else { *sum + term };
        }
    }

    /// Adds `dK` and `dV` of one key/value head of sequence `b` where its keys are stored.
    pub(crate) fn add_head<T: Element>(
        &mut self,
        problem: &Problem<'_, '_, T>,
        b: usize,
        hk: usize,
        head_sums: &HeadSums<A>,
    ) {
        let (d, dv) = (problem.spec.head_dim, problem.spec.value_dim);
        let (k_shape, v_shape) = (problem.spec.k_shape(), problem.spec.v_shape());
        let overwrite = problem.is(Fault::SharedPageOverwritten);
        let add = |to: &mut [A], from: &[A]| {
            to.iter_mut().zip(from).for_each(|(x, &y)| *x = if overwrite { y } else { *x + y });
        };
        for j in 0..problem.kv_len(b) {
            let (kb, kj) = problem.spec.key_slot(b, j);
            add(&mut self.k[flat(&k_shape, [kb, hk, kj, 0])..][..d], &head_sums.k[j * d..(j + 1) * d]);
            add(&mut self.v[flat(&v_shape, [kb, hk, kj, 0])..][..dv], &head_sums.v[j * dv..(j + 1) * dv]);
        }
    }

    /// Writes everything that is summed over heads.
    pub(crate) fn write<T: Element>(&self, problem: &Problem<'_, '_, T>, gradients: &mut Gradients<'_, T>) {
        let scale = A::from_f64(match problem.by.fault {
            Some(Fault::KeyGradientNotScaled) => 1.0,
            Some(Fault::KeyGradientScaledTwice) => problem.scale() * problem.scale(),
            _ => problem.scale(),
        });
        problem.write_key_rows(&self.k, scale, gradients.d_k.view_mut());
        problem.write_key_rows(&self.v, A::one(), gradients.d_v.view_mut());
        if let Some(d_bias) = &mut gradients.d_bias {
            d_bias.iter_mut().zip(&self.bias).for_each(|(stored, x)| *stored = T::from_f64(x.to_f64()));
        }
        if let Some(d_sink) = &mut gradients.d_sink {
            for (stored, x) in d_sink.iter_mut().zip(&self.sink) {
                *stored = <T::Accum as Real>::from_f64(x.to_f64());
            }
        }
    }
}

impl<T: Element> Problem<'_, '_, T> {
    fn write_key_rows<A: Real>(&self, sums: &[A], scale: A, mut out: ArrayViewMut4<'_, T>) {
        let skips_padding = self.is(Fault::PaddingGradientUnwritten);
        let columns = out.dim().3;
        for (n, x) in out.iter_mut().enumerate() {
            let row = n / columns;
            if !(skips_padding && self.is_padding(row)) {
                *x = T::from_f64((sums[n] * scale).to_f64());
            }
        }
    }

    /// Whether a stored key row, counted over sequences and heads, is past its sequence's length.
    fn is_padding(&self, row: usize) -> bool {
        match &self.spec.keys {
            Keys::Padded { len, lengths: Some(lengths) } => row % len >= lengths[row / (len * self.spec.kv_heads)],
            _ => false,
        }
    }

    pub(crate) fn write_query_gradient<A: Real>(
        &self,
        head: &Head<A>,
        sums: &HeadSums<A>,
        gradients: &mut Gradients<'_, T>,
    ) {
        let scale = A::from_f64(if self.is(Fault::QueryGradientNotScaled) { 1.0 } else { self.scale() });
        for i in 0..head.q_len {
            let (qb, qi) = self.spec.query_slot(head.b, i);
            let stored = row_mut(gradients.d_q.view_mut(), [qb, head.h, qi]);
            for (x, &sum) in stored.into_iter().zip(&sums.q[i * head.d..(i + 1) * head.d]) {
                *x = T::from_f64((sum * scale).to_f64());
            }
        }
    }
}

/// Position of an index in standard layout.
fn flat(shape: &[usize], [a, b, c, d]: [usize; 4]) -> usize {
    ((a * shape[1] + b) * shape[2] + c) * shape[3] + d
}
