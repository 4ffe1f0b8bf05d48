//! One pass over all features: the certificate, and how near each group is to being needed.

use super::features::Features;
use super::gemm::{Operand, product};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use std::ops::Range;
use tilewright_grouplasso::certificate::Fold;
use tilewright_grouplasso::losses::Null;
use tilewright_grouplasso::{Certificate, GroupLassoSpec, Layout, Response, SparseRows, Terms};
use tilewright_scalar::Element;

/// What a pass is about, λ aside.
pub(super) struct Pass<'p, 'a, T> {
    pub(super) features: &'p Features<'a, T>,
    pub(super) layout: &'p Layout,
    pub(super) response: &'p Response,
    pub(super) null: &'p Null,
}

/// What it found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) certificate: Certificate,
    /// For every group the least λ at which it would be zero, were the residual to stay; ∞ if it is never penalised.
    pub(super) need: Vec<f64>,
}

/// A part of the groups.
struct Part<'f> {
    fold: Fold<'f>,
    need: Vec<f64>,
}

impl<T: Element> Pass<'_, '_, T> {
    /// Certifies `w` and `b` with `z = XW` and the residual at `z + 1bᵀ`.
    pub(super) fn certify(
        &self,
        spec: &GroupLassoSpec,
        w: &SparseRows,
        b: &[f64],
        z: ArrayView2<'_, f64>,
        residual: ArrayView2<'_, f64>,
    ) -> Found {
        let mut rho = residual.to_owned();
        for (mut rho, omega) in rho.rows_mut().into_iter().zip(self.response.omega()) {
            rho *= *omega;
        }
        let mut places = vec![usize::MAX; w.rows()];
        w.indices().iter().enumerate().for_each(|(place, &row)| places[row] = place);
        let sums = self.response.column_sums(residual);
        let part = |groups: Range<usize>| self.part(spec, groups, &rho, &sums, w, &places);
        let parts: Vec<Part<'_>> = self.pieces().into_par_iter().map(part).collect();
        let mut fold = Fold::new(spec, self.layout, self.response, self.null);
        let mut need = Vec::with_capacity(self.layout.groups());
        for part in parts {
            fold.merge(&part.fold);
            need.extend(part.need);
        }
        Found { certificate: fold.finish(z, b, residual), need }
    }

    /// Groups in pieces of about a tile.
    fn pieces(&self) -> Vec<Range<usize>> {
        let (tile, groups) = (self.features.tile(), self.layout.groups());
        if self.layout.is_rows() {
            return (0..groups).step_by(tile).map(|first| first..groups.min(first + tile)).collect();
        }
        let (mut pieces, mut first, mut rows) = (Vec::new(), 0, 0);
        for group in 0..groups {
            rows += self.layout.size(group);
            if rows >= tile || group + 1 == groups {
                pieces.push(first..group + 1);
                (first, rows) = (group + 1, 0);
            }
        }
        pieces
    }

    fn part<'f>(
        &'f self,
        spec: &'f GroupLassoSpec,
        groups: Range<usize>,
        rho: &Array2<f64>,
        sums: &[f64],
        w: &SparseRows,
        places: &[usize],
    ) -> Part<'f> {
        let c = sums.len();
        let rows: Vec<usize> = groups.clone().flat_map(|group| self.layout.rows_of(group)).collect();
        let features: Vec<usize> = rows.iter().map(|&row| self.layout.feature(row)).collect();
        let any_free = groups.clone().any(|group| self.layout.terms(spec, group).is_free());
        let (u, squares) = self.correlations(&features, rho, sums, any_free);
        let mut fold = Fold::new(spec, self.layout, self.response, self.null);
        let mut need = Vec::with_capacity(groups.len());
        let (mut v, mut first) = (Vec::new(), 0);
        for group in groups {
            let size = self.layout.size(group);
            let u = &u[first * c..(first + size) * c];
            v.clear();
            for &row in &rows[first..first + size] {
                match places[row] {
                    usize::MAX => v.resize(v.len() + c, 0.0),
                    place => v.extend(w.values().row(place)),
                }
            }
            let extent = squares.get(first..first + size).map_or(0.0, |squares| squares.iter().sum::<f64>().sqrt());
            fold.group(group, &v, u, extent);
            let terms = Terms::new(spec.penalty, 1.0, self.layout.weight(&spec.weights, group));
            need.push(if terms.is_free() || spec.lambda == 0.0 { f64::INFINITY } else { terms.dual_norm(u) });
            first += size;
        }
        Part { fold, need }
    }

    /// `Xᵀ ω̂ R` for standardised columns, and, if asked for, `Σ ω̂ x²`.
    fn correlations(&self, features: &[usize], rho: &Array2<f64>, sums: &[f64], sizes: bool) -> (Vec<f64>, Vec<f64>) {
        let (n, c, omega) = (self.response.samples(), sums.len(), self.response.omega());
        let (tile, mut u, mut squares) = (self.features.tile(), vec![0.0; features.len() * c], Vec::new());
        let mut buffer = vec![0.0; tile.min(features.len()) * n];
        let right = rho.as_slice().map(|rho| Operand::by_rows(rho, c));
        let Some(right) = right else { return (u, squares) };
        for (features, u) in features.chunks(tile).zip(u.chunks_mut(tile * c)) {
            let x = &mut buffer[..features.len() * n];
            self.features.read(features.iter().copied(), x);
            product((features.len(), c, n), 1.0, Operand::by_rows(x, n), right, false, u, c);
            for ((&feature, u), x) in features.iter().zip(u.chunks_mut(c)).zip(x.chunks(n)) {
                let (scale, offset) = (self.features.columns.scale[feature], self.features.offset(feature));
                u.iter_mut().zip(sums).for_each(|(u, sum)| *u = *u / scale + offset * sum);
                if sizes {
                    let size = super::features::deviation(x, omega) / scale;
                    squares.push(size * size + offset * offset);
                }
            }
        }
        (u, squares)
    }
}
