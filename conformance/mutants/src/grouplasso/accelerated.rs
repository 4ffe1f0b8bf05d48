//! The accelerated proximal gradient method with a fixed step and restarts, the intercept minimised out.

use crate::grouplasso::arithmetic::greatest_curvature;
use crate::grouplasso::certify::Point;
use crate::grouplasso::design::Design;
use crate::grouplasso::kernel::Pass;
use tilewright_grouplasso::Loss;

/// What the method remembers.
#[derive(Clone, Debug)]
pub(crate) struct Momentum {
    /// The extrapolated coefficients.
    v: Vec<f64>,
    t: f64,
    lipschitz: f64,
}

impl Momentum {
    pub(crate) fn new(pass: &Pass, design: &Design, w: &[f64]) -> Self {
        let smoothness = if design.loss == Loss::LeastSquares { 1.0 } else { 0.5 };
        let lipschitz = (smoothness * pass.whole_curvature(design)).max(f64::MIN_POSITIVE);
        Self { v: w.to_vec(), t: 1.0, lipschitz }
    }
}

impl Pass {
    /// The greatest eigenvalue of `Xᵀ Ω X`; of centred columns if the intercept is minimised out, because then there is no
    /// curvature along their means.
    fn whole_curvature(&self, design: &Design) -> f64 {
        let root: Vec<f64> = design.omega.iter().map(|omega| omega.sqrt()).collect();
        let column = |x: &Vec<f64>| {
            let mean = if design.intercept { self.dot(x, &design.omega) } else { 0.0 };
            x.iter().zip(&root).map(|(x, root)| (x - mean) * root).collect()
        };
        greatest_curvature(design.x.iter().map(column).collect())
    }

    /// One iteration.
    pub(crate) fn accelerate(&self, design: &Design, point: &mut Point, momentum: &mut Momentum) {
        let c = design.outputs;
        let z = design.times(&momentum.v);
        point.b = self.best_intercept(design, &z, &point.b);
        let r = self.residual(design, &z, &point.b);
        let mut next = momentum.v.clone();
        for (row, weighted) in design.weighted.iter().enumerate() {
            for k in 0..c {
                next[row * c + k] += self.dot(weighted, &r[k]) / momentum.lipschitz;
            }
        }
        for block in &design.blocks {
            let mut v = design.gather(block, &next);
            self.prox(block.terms, 1.0 / momentum.lipschitz, c, &mut v);
            for (&row, values) in block.members.rows.iter().zip(v.chunks(c)) {
                next[row * c..(row + 1) * c].copy_from_slice(values);
            }
        }
        // O'Donoghue and Candès: momentum that points uphill is thrown away.
        let uphill: f64 = (0..next.len()).map(|at| (momentum.v[at] - next[at]) * (next[at] - point.w[at])).sum();
        let t = if uphill > 0.0 { 1.0 } else { 0.5 * (1.0 + (1.0 + 4.0 * momentum.t * momentum.t).sqrt()) };
        let push = if uphill > 0.0 { 0.0 } else { (momentum.t - 1.0) / t };
        momentum.v = next.iter().zip(&point.w).map(|(next, w)| next + push * (next - w)).collect();
        momentum.t = t;
        point.w = next;
        point.z = design.times(&point.w);
    }
}
