//! One pass over all features.

use super::Setup;
use crate::grouplasso::gemm::{Operand, product};
use crate::grouplasso::simd::{dot, vectorised, weighted_square};
use crate::grouplasso::source::FeatureSource;
use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};
use tilewright_grouplasso::certificate::{Certificate, Fold};
use tilewright_grouplasso::data::{check_column, in_range};
use tilewright_grouplasso::penalty::norm_of_soft;
use tilewright_grouplasso::screening::safe_radius;
use tilewright_grouplasso::{Columns, GroupLassoError, GroupLassoSpec, Layout, SparseRows, Standardise};

/// Blocks between two reports.
const BATCH: usize = 64;

/// What is known of each feature and group.
pub(super) struct Sweep {
    blocks: Vec<Block>,
    pub(super) columns: Columns,
    /// `‖S(X_gᵀ ω̂ R, a)‖`, rounded up, of the last pass that looked.
    pub(super) excess: Vec<f32>,
    /// [`Problem::size`](tilewright_grouplasso::Problem::size), rounded up.
    size: Vec<f32>,
    /// Zero in every minimiser.
    pub(super) proven: Vec<bool>,
    /// Whether columns have been checked, and means, scales and sizes are known.
    checked: bool,
}

/// What a pass found.
pub(super) struct Swept {
    pub(super) certificate: Certificate,
    /// Whether no group was left out.
    pub(super) everything: bool,
    /// The greatest dual norm of a group.
    pub(super) dual_norm: f64,
}

/// Whole groups that are read together.
#[derive(Clone, Debug)]
struct Block {
    groups: Range<usize>,
    features: Range<usize>,
}

/// A block with its part of what is known.
struct Slot<'s> {
    at: usize,
    block: &'s Block,
    mean: &'s mut [f64],
    scale: &'s mut [f64],
    excess: &'s mut [f32],
    size: &'s mut [f32],
    proven: &'s [bool],
}

/// What the blocks of a pass have in common.
struct Common<'p> {
    setup: &'p Setup,
    spec: &'p GroupLassoSpec,
    x: &'p dyn FeatureSource,
    w: &'p SparseRows,
    /// `ω̂ R`, row-major.
    weighted: &'p [f64],
    checked: bool,
}

/// Memory for one block.
#[derive(Default)]
struct Buffer {
    columns: Vec<f64>,
    u: Vec<f64>,
    v: Vec<f64>,
}

impl Sweep {
    pub(super) fn new(setup: &Setup) -> Self {
        let (features, groups) = (setup.layout.features(), setup.layout.groups());
        Self {
            blocks: blocks(&setup.layout, setup.plan.together),
            columns: Columns { mean: vec![0.0; features], scale: vec![1.0; features] },
            excess: vec![0.0; groups],
            size: vec![0.0; groups],
            proven: vec![false; groups],
            checked: false,
        }
    }

    /// Judges `(w, b)`, after `b` has been made the best there is; `None` if interrupted.
    pub(super) fn pass(
        &mut self,
        setup: &Setup,
        spec: &GroupLassoSpec,
        x: &dyn FeatureSource,
        w: &SparseRows,
        b: &mut Vec<f64>,
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Swept>, GroupLassoError> {
        let response = &setup.response;
        let z = self.times(setup, x, w)?;
        if spec.intercept {
            *b = response.best_intercept(z.view(), b);
        }
        let residual = response.residual(z.view(), b);
        let mut weighted = residual.clone();
        weighted.rows_mut().into_iter().zip(response.omega()).for_each(|(mut row, omega)| row *= *omega);
        let weighted = weighted.into_raw_vec_and_offset().0;
        let common = Common { setup, spec, x, w, weighted: &weighted, checked: self.checked };
        let Some((fold, dual_norm)) = self.sweep(&common, watch)? else { return Ok(None) };
        self.checked = true;
        let certificate = fold.finish(z.view(), b, residual.view());
        Ok(Some(Swept { certificate, everything: !self.proven.contains(&true), dual_norm }))
    }

    /// Streams the blocks.
    fn sweep<'p>(
        &mut self,
        common: &Common<'p>,
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<(Fold<'p>, f64)>, GroupLassoError> {
        let (mut fold, mut dual_norm) = (common.fold(), 0.0f64);
        let mut buffers: Vec<Buffer> = (0..common.setup.plan.workers).map(|_| Buffer::default()).collect();
        let (mut mean, mut scale) = (&mut self.columns.mean[..], &mut self.columns.scale[..]);
        let (mut excess, mut size, mut proven) = (&mut self.excess[..], &mut self.size[..], &self.proven[..]);
        for batch in self.blocks.chunks(BATCH) {
            let slots: Vec<Slot<'_>> = batch
                .iter()
                .enumerate()
                .map(|(at, block)| {
                    let (groups, features) = (block.groups.len(), block.features.len());
                    Slot {
                        at,
                        block,
                        mean: mean.split_off_mut(..features).unwrap_or_default(),
                        scale: scale.split_off_mut(..features).unwrap_or_default(),
                        excess: excess.split_off_mut(..groups).unwrap_or_default(),
                        size: size.split_off_mut(..groups).unwrap_or_default(),
                        proven: proven.split_off(..groups).unwrap_or_default(),
                    }
                })
                .collect();
            let queue = Mutex::new(slots.into_iter());
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let work = |buffer: &mut Buffer| {
                std::iter::from_fn(next).map(|slot| (slot.at, common.block(slot, buffer))).collect::<Vec<_>>()
            };
            let mut done: Vec<_> = buffers.par_iter_mut().with_max_len(1).flat_map_iter(work).collect();
            // In the order of the blocks, whoever did them.
            done.sort_unstable_by_key(|(at, _)| *at);
            for (_, outcome) in done {
                let (part, norm) = outcome?;
                fold.merge(&part);
                dual_norm = if norm > dual_norm || norm.is_nan() { norm } else { dual_norm };
            }
            if watch(batch.last().map_or(0, |block| block.features.end)).is_break() {
                return Ok(None);
            }
        }
        Ok(Some((fold, dual_norm)))
    }

    /// `Z = X W`, of the columns as stored.
    fn times(&self, setup: &Setup, x: &dyn FeatureSource, w: &SparseRows) -> Result<Array2<f64>, GroupLassoError> {
        let (samples, outputs) = (setup.response.samples(), setup.response.outputs());
        let mut z = vec![0.0; samples * outputs];
        let values: Vec<f64> = w.values().iter().copied().collect();
        let together = setup.plan.together;
        let mut columns = Vec::new();
        for (features, values) in w.indices().chunks(together).zip(values.chunks(together * outputs)) {
            columns.resize(features.len() * samples, 0.0);
            x.gather(features, &mut columns)?;
            for (&feature, column) in features.iter().zip(columns.chunks_exact_mut(samples)) {
                if !self.checked {
                    check_column(feature, ArrayView1::from(&*column))?;
                }
                let (mean, scale) = if self.checked {
                    (self.columns.mean[feature], self.columns.scale[feature])
                } else {
                    moments(setup.spec.standardise, column, setup.response.omega())
                };
                for x in column {
                    *x = (*x - mean) / scale;
                }
            }
            let shape = (samples, outputs, features.len());
            let (x, w) = (Operand::transposed(&columns, samples), Operand::by_rows(values, outputs));
            product(shape, 1.0, x, w, true, &mut z, outputs);
        }
        let z = ArrayView2::from_shape((samples, outputs), &z).map(|z| z.to_owned());
        z.map_err(|_| GroupLassoError::OutOfMemory { what: "Z", bytes: (samples * outputs * 8) as u64 })
    }

    /// Notes which groups are zero in every minimiser, by the gap-safe rule
    /// ([`is_safe_to_keep`](tilewright_grouplasso::screening::is_safe_to_keep)) with what is kept of the correlations:
    /// `‖S(su, a)‖ ≤ s ‖S(u, a)‖` for `s` from 0 to 1, and for any `s` if `a = 0`.
    pub(super) fn discard(&mut self, spec: &GroupLassoSpec, layout: &Layout, w: &SparseRows, proof: &Certificate) {
        let (radius, s) = (safe_radius(spec.loss, proof), proof.dual_scale);
        if radius.is_nan() {
            return;
        }
        let mut active = w.indices();
        for group in 0..layout.groups() {
            let rows = layout.rows_of(group);
            let end = rows.clone().last().map_or(0, |last| last + 1);
            let here = active.partition_point(|row| *row < end);
            active = &active[here..];
            let terms = layout.terms(spec, group);
            let known = terms.l1 == 0.0 || (0.0..=1.0).contains(&s);
            let farthest = s.abs() * f64::from(self.excess[group]) + radius * f64::from(self.size[group]);
            self.proven[group] |= here == 0 && known && !terms.is_free() && farthest < terms.l2;
        }
    }

    /// All groups are looked at again.
    pub(super) fn forget_proofs(&mut self) {
        self.proven.fill(false);
    }
}

impl<'p> Common<'p> {
    fn fold(&self) -> Fold<'p> {
        Fold::new(self.spec, &self.setup.layout, &self.setup.response, &self.setup.null)
    }

    /// Reads a block and takes in its groups.
    fn block(&self, slot: Slot<'_>, buffer: &mut Buffer) -> Result<(Fold<'p>, f64), GroupLassoError> {
        let (layout, response) = (&self.setup.layout, &self.setup.response);
        let (samples, outputs) = (response.samples(), response.outputs());
        let (mut fold, mut dual_norm) = (self.fold(), 0.0f64);
        if !slot.proven.contains(&false) {
            return Ok((fold, dual_norm));
        }
        let features = slot.block.features.clone();
        buffer.columns.resize(features.len() * samples, 0.0);
        self.x.read(features.clone(), &mut buffer.columns)?;
        let mut sizes = Vec::new();
        for (j, column) in buffer.columns.chunks_exact_mut(samples).enumerate() {
            if !self.checked {
                if !in_range(largest(column)) {
                    check_column(features.start + j, ArrayView1::from(&*column))?;
                }
                (slot.mean[j], slot.scale[j]) = moments(self.spec.standardise, column, response.omega());
            }
            if slot.mean[j] != 0.0 {
                subtract(slot.mean[j], column);
            }
            if !self.checked {
                sizes.push(weighted_square(response.omega(), column) / (slot.scale[j] * slot.scale[j]));
            }
        }
        buffer.u.resize(features.len() * outputs, 0.0);
        let shape = (features.len(), outputs, samples);
        let (x, r) = (Operand::by_rows(&buffer.columns, samples), Operand::by_rows(self.weighted, outputs));
        product(shape, 1.0, x, r, false, &mut buffer.u, outputs);
        for (u, scale) in buffer.u.chunks_exact_mut(outputs).zip(&*slot.scale).filter(|(_, scale)| **scale != 1.0) {
            for u in u {
                *u /= scale;
            }
        }
        let mut active = self.w.indices().partition_point(|row| *row < features.start);
        for (g, group) in slot.block.groups.clone().enumerate() {
            let rows = layout.rows_of(group);
            let first = rows.clone().next().unwrap_or(0) - features.start;
            let rows = first..first + rows.len();
            if !self.checked {
                slot.size[g] = up(sizes[rows.clone()].iter().sum::<f64>().sqrt());
            }
            active = self.values(active, rows.start + features.start..rows.end + features.start, &mut buffer.v);
            if slot.proven[g] {
                continue;
            }
            let u = &buffer.u[rows.start * outputs..rows.end * outputs];
            let terms = layout.terms(self.spec, group);
            slot.excess[g] = up(norm_of_soft(u, terms.l1));
            let norm = if terms.is_free() { 0.0 } else { terms.dual_norm(u) };
            dual_norm = if norm > dual_norm || norm.is_nan() { norm } else { dual_norm };
            fold.group(group, &buffer.v, u, slot.size[g].into());
        }
        Ok((fold, dual_norm))
    }

    /// The rows of `W`, and the place in its indices that comes after them, `active` being at the first of them.
    fn values(&self, mut active: usize, rows: Range<usize>, v: &mut Vec<f64>) -> usize {
        let outputs = self.w.columns();
        v.clear();
        v.resize(rows.len() * outputs, 0.0);
        while let Some(&row) = self.w.indices().get(active).filter(|row| **row < rows.end) {
            let to = &mut v[(row - rows.start) * outputs..][..outputs];
            to.iter_mut().zip(self.w.values().row(active)).for_each(|(to, from)| *to = *from);
            active += 1;
        }
        active
    }
}

/// Whole groups, as many together as have at most `together` features, or else one.
fn blocks(layout: &Layout, together: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut feature = 0;
    for group in 0..layout.groups() {
        let end = feature + layout.size(group);
        match blocks.last_mut() {
            Some(last) if end - last.features.start <= together => {
                (last.groups.end, last.features.end) = (group + 1, end);
            }
            _ => blocks.push(Block { groups: group..group + 1, features: feature..end }),
        }
        feature = end;
    }
    blocks
}

/// The `f32` above.
fn up(x: f64) -> f32 {
    (x as f32).next_up()
}

/// A column's mean and scale: [`Columns::of_one`], a few numbers at a time.
pub(super) fn moments(standardise: Standardise, column: &[f64], omega: &[f64]) -> (f64, f64) {
    if standardise == Standardise::default() {
        return (0.0, 1.0);
    }
    let mean = dot(omega, column);
    let mut scale = 1.0;
    if standardise.scale {
        let deviation = spread(mean, omega, column).sqrt();
        let constant = deviation <= column.len() as f64 * f64::EPSILON * largest(column)
            && Columns::is_constant(column.iter().copied(), omega, deviation);
        scale = if constant { 1.0 } else { deviation };
    }
    (if standardise.centre { mean } else { 0.0 }, scale)
}

vectorised! {
    /// The greatest magnitude, NaN if there is one.
    fn largest(x: &[f64]) -> f64 {
        const LANES: usize = 16;
        let greater = |most: f64, x: f64| if x.abs() > most || x.is_nan() { x.abs() } else { most };
        let mut most = [0.0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder().iter().fold(0.0, |most, x| greater(most, *x));
        for x in chunks {
            for i in 0..LANES {
                most[i] = greater(most[i], x[i]);
            }
        }
        most.into_iter().fold(rest, greater)
    }
}

vectorised! {
    /// `Σ ω (x − mean)²`.
    fn spread(mean: f64, omega: &[f64], x: &[f64]) -> f64 {
        const LANES: usize = 16;
        let term = |omega: f64, x: f64| omega * (x - mean) * (x - mean);
        let mut sums = [0.0f64; LANES];
        let (omegas, xs) = (omega.chunks_exact(LANES), x.chunks_exact(LANES));
        let rest: f64 = omegas.remainder().iter().zip(xs.remainder()).map(|(omega, x)| term(*omega, *x)).sum();
        for (omega, x) in omegas.zip(xs) {
            for i in 0..LANES {
                sums[i] += term(omega[i], x[i]);
            }
        }
        sums.iter().sum::<f64>() + rest
    }
}

vectorised! {
    /// `x − mean`, in place.
    fn subtract(mean: f64, x: &mut [f64]) {
        for x in x {
            *x -= mean;
        }
    }
}
