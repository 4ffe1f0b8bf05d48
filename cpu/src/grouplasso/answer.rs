//! From the solver's units to the specification's, and certificates there.

use super::pass::{Found, Pass};
use super::solver::Solver;
use super::working_set::INTERCEPT;
use ndarray::Array2;
use tilewright_grouplasso::certificate::Fold;
use tilewright_grouplasso::{Loss, Solution, SparseRows, Stopped};
use tilewright_scalar::Element;

/// A point in the specification's units.
struct Standard {
    w: SparseRows,
    b: Vec<f64>,
    /// `XW`, without the intercept.
    z: Array2<f64>,
    residual: Array2<f64>,
}

impl<T: Element> Solver<'_, T> {
    /// The point as an answer, certified; the reason why it is one is the caller's.
    pub(super) fn certified(&mut self) -> Solution {
        self.point.refresh(&self.target);
        self.point.settle_intercept(&self.target);
        let Standard { w, b, z, residual } = self.standard();
        let pass = Pass { features: &self.features, layout: &self.layout, response: &self.response, null: &self.null };
        let Found { certificate, need } = pass.certify(&self.spec, &w, &b, z.view(), residual.view());
        self.need = need;
        let columns = self.features.columns.clone();
        Solution { w, b, certificate, iterations: self.iterations, stopped: Stopped::Iterations, columns }
    }

    /// The relative gap of the problem that has the groups of the working set only.
    pub(super) fn local_gap(&self) -> f64 {
        let Standard { b, z, residual, .. } = self.standard();
        let (set, outputs, c) = (&self.point.set, self.response.outputs(), self.target.blocks.outputs);
        let correlations = set.correlations(&self.point.fit.rho);
        let mut fold = Fold::new(&self.spec, &self.layout, &self.response, &self.null);
        for member in set.members.iter().filter(|member| member.group != INTERCEPT) {
            let expand = |values: &[f64], factor: f64| {
                let mut all = vec![0.0; values.len() / c * outputs];
                for (values, all) in values.chunks(c).zip(all.chunks_mut(outputs)) {
                    self.target.outputs.iter().zip(values).for_each(|(&output, value)| all[output] = factor * value);
                }
                all
            };
            let u = &correlations[member.rows.start * c..member.rows.end * c];
            let v = expand(set.block(member), self.target.unit / member.size);
            fold.group(member.group, &v, &expand(u, self.target.unit * member.size), member.size);
        }
        fold.finish(z.view(), &b, residual.view()).relative_gap()
    }

    /// The point in the specification's units.
    fn standard(&self) -> Standard {
        let (w, shift) = self.coefficients();
        let (blocks, outputs) = (self.target.blocks, self.response.outputs());
        let multinomial = self.spec.loss == Loss::Multinomial && self.spec.intercept;
        let own = |k: usize| if multinomial { self.point.set.w[k] } else { 0.0 };
        let mut z = Array2::zeros((blocks.samples, outputs));
        for (k, &output) in self.target.outputs.iter().enumerate() {
            for i in 0..blocks.samples {
                z[[i, output]] = self.target.unit * (self.point.z[blocks.at(i, k)] - own(k)) + shift[output];
            }
        }
        let mut b = vec![0.0; outputs];
        if multinomial {
            b.fill(f64::NEG_INFINITY);
            self.target.outputs.iter().enumerate().for_each(|(k, &output)| b[output] = own(k) - shift[output]);
        } else if self.spec.intercept {
            b = self.response.best_intercept(z.view(), &b);
        }
        let residual = self.response.residual(z.view(), &b);
        Standard { w, b, z, residual }
    }

    /// Coefficients of standardised columns, and what their means add to every sample's margins.
    fn coefficients(&self) -> (SparseRows, Vec<f64>) {
        let (set, c, outputs) = (&self.point.set, self.target.blocks.outputs, self.response.outputs());
        let mut shift = vec![0.0; outputs];
        let mut rows: Vec<(usize, usize, f64)> = Vec::new();
        for member in set.members.iter().filter(|member| member.group != INTERCEPT && set.is_active(member)) {
            let factor = self.target.unit / member.size;
            rows.extend(member.rows.clone().zip(self.layout.rows_of(member.group)).map(|(at, row)| (row, at, factor)));
        }
        rows.retain(|(_, at, _)| set.w[at * c..(at + 1) * c].iter().any(|w| *w != 0.0));
        rows.sort_unstable_by_key(|(row, ..)| *row);
        let mut values = Array2::zeros((rows.len(), outputs));
        for (mut to, &(row, at, factor)) in values.rows_mut().into_iter().zip(&rows) {
            let offset = self.features.offset(self.layout.feature(row));
            for (k, &output) in self.target.outputs.iter().enumerate() {
                to[output] = factor * set.w[at * c + k];
                shift[output] += offset * to[output];
            }
        }
        let indices = rows.into_iter().map(|(row, ..)| row).collect();
        // Sorted rows of a layout ascend, and there are as many values.
        let w = SparseRows::new(self.layout.rows(), indices, values)
            .unwrap_or_else(|_| SparseRows::zeros(self.layout.rows(), outputs));
        (w, shift)
    }
}
