//! A sweep of block coordinate descent: every group in turn takes proximal steps on a quadratic that is never below the
//! loss — the loss itself for least squares.

use crate::grouplasso::certify::{Judged, Point};
use crate::grouplasso::design::{Block, Design, Table};
use crate::grouplasso::kernel::Pass;
use crate::grouplasso::model::solve;
use crate::grouplasso::{Curvature, Fault, Gradient, Order};
use tilewright_grouplasso::Loss;

/// What a group knows of its gradient during a sweep.
enum Slope {
    /// `R`, kept up to date.
    Residual(Table),
    /// `X_gᵀ ω̂ R` of every row and output, kept up to date.
    Products(Vec<f64>),
}

impl Pass {
    /// One sweep over the groups that are `alive`. `sweep` numbers them.
    pub(crate) fn sweep(&self, design: &Design, point: &mut Point, alive: &[bool], last: &Judged, sweep: usize) {
        point.b = self.best_intercept(design, &point.z, &point.b);
        let r = self.residual(design, &point.z, &point.b);
        let (estimate, sure) = self.curvatures(design, &r);
        if estimate >= sure {
            return self.descend(design, point, r, sure, alive, last, sweep);
        }
        let before = point.clone();
        let objective = self.objective(design, &before);
        self.descend(design, point, r.clone(), estimate, alive, last, sweep);
        let rises = self.objective(design, point) > objective;
        if rises && !self.is(Fault::NewtonUnchecked) {
            *point = before;
            self.descend(design, point, r, sure, alive, last, sweep);
        }
    }

    /// The curvature to try, and the one that is never too little.
    fn curvatures(&self, design: &Design, r: &Table) -> (f64, f64) {
        if design.loss == Loss::LeastSquares {
            return (1.0, 1.0);
        }
        let sure = if self.is(Fault::CurvatureQuartered) { 0.125 } else { 0.5 };
        if self.variant.curvature == Curvature::Greatest {
            return (sure, sure);
        }
        let of = |i: usize| {
            let p = (0..design.outputs).map(|k| design.y[k][i] - r[k][i]);
            design.omega[i] * p.map(|p| 2.0 * p * (1.0 - p)).fold(0.0, f64::max)
        };
        let least = if self.is(Fault::NewtonUnchecked) { 1e-300 } else { 1e-3 };
        ((0..design.samples).map(of).sum::<f64>().clamp(least, sure), sure)
    }

    /// `P` with the intercept minimised out.
    pub(crate) fn objective(&self, design: &Design, point: &Point) -> f64 {
        let b = self.best_intercept(design, &point.z, &point.b);
        let penalty = |block: &Block| block.terms.value(&design.gather(block, &point.w));
        self.value(design, &point.z, &b) + design.blocks.iter().map(penalty).sum::<f64>()
    }

    fn order(&self, design: &Design, last: &Judged, sweep: usize) -> Vec<usize> {
        let groups = design.blocks.len();
        let mut order: Vec<usize> = (0..groups).collect();
        match self.variant.order {
            Order::Symmetric if sweep.is_multiple_of(2) => {}
            Order::Cyclic => {}
            Order::Reversed | Order::Symmetric => order.reverse(),
            Order::Shuffled => {
                // The iterates of one extrapolation are those of one map.
                let round = sweep.saturating_sub(1) / self.variant.anderson.max(1);
                order.sort_by_key(|g| mix(round as u64, *g as u64));
            }
            Order::Greedy => {
                let violation = |g: &usize| design.blocks[*g].terms.excess(&last.u[*g]);
                order.sort_by(|g, h| violation(h).total_cmp(&violation(g)));
            }
        }
        if self.is(Fault::LastGroupNeverVisited) {
            order.retain(|g| *g + 1 < groups);
        }
        order
    }

    /// Minimises the quadratic of curvature `s` by one round of the groups.
    fn descend(
        &self,
        design: &Design,
        point: &mut Point,
        r: Table,
        s: f64,
        alive: &[bool],
        last: &Judged,
        sweep: usize,
    ) {
        let mut slope = match self.variant.gradient {
            Gradient::Residual => Slope::Residual(r),
            Gradient::Gram => {
                let row = |x: &Vec<f64>| r.iter().map(|r| self.dot(x, r)).collect::<Vec<_>>();
                Slope::Products(design.weighted.iter().flat_map(row).collect())
            }
        };
        for g in self.order(design, last, sweep) {
            if alive[g] {
                for _ in 0..self.variant.steps {
                    self.step(design, &design.blocks[g], point, &mut slope, s);
                }
            }
        }
    }

    /// A group's proximal step.
    fn step(&self, design: &Design, block: &Block, point: &mut Point, slope: &mut Slope, s: f64) {
        let c = design.outputs;
        let v = design.gather(block, &point.w);
        let curvature = s * block.curvature;
        let mut next = v.clone();
        if curvature > 0.0 {
            for (at, next) in next.iter_mut().enumerate() {
                let (row, k) = (block.members.rows[at / c], at % c);
                let u = match slope {
                    Slope::Residual(r) => self.dot(&design.weighted[row], &r[k]),
                    Slope::Products(u) => u[row * c + k],
                };
                *next += u / curvature;
            }
            self.prox(block.terms, 1.0 / curvature, c, &mut next);
        } else if !block.terms.is_free() {
            next.fill(0.0);
        }
        if self.is(Fault::FirstRowNeverUpdated) && block.members.rows.len() > 1 {
            next[..c].copy_from_slice(&v[..c]);
        }
        for (at, (next, v)) in next.iter().zip(&v).enumerate() {
            if next != v {
                let (row, k) = (block.members.rows[at / c], at % c);
                point.w[row * c + k] = *next;
                self.move_along(design, row, k, next - v, s, point, slope);
            }
        }
    }

    /// Adds `delta` times a column to an output.
    fn move_along(
        &self,
        design: &Design,
        row: usize,
        k: usize,
        delta: f64,
        s: f64,
        point: &mut Point,
        slope: &mut Slope,
    ) {
        let x = &design.x[row];
        point.z[k].iter_mut().zip(x).for_each(|(z, x)| *z += delta * x);
        match slope {
            Slope::Residual(r) => {
                let sign = if self.is(Fault::ResidualGrows) { 1.0 } else { -1.0 };
                r[k].iter_mut().zip(x).for_each(|(r, x)| *r += sign * s * delta * x);
            }
            Slope::Products(u) => {
                for (other, weighted) in design.weighted.iter().enumerate() {
                    u[other * design.outputs + k] -= s * delta * self.dot(x, weighted);
                }
            }
        }
    }

    /// Anderson's extrapolation of the iterates in `history`, taken if the objective falls by it.
    pub(crate) fn extrapolate(&self, design: &Design, history: &[Vec<f64>], point: &mut Point) {
        let steps: Vec<Vec<f64>> =
            history.windows(2).map(|pair| pair[1].iter().zip(&pair[0]).map(|(to, from)| to - from).collect()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut gram: Table = steps.iter().map(|a| steps.iter().map(|b| dot(a, b)).collect()).collect();
        let ridge = 1e-12 * (0..gram.len()).map(|i| gram[i][i]).sum::<f64>();
        (0..gram.len()).for_each(|i| gram[i][i] += ridge);
        let weights = solve(gram, vec![1.0; steps.len()]);
        let sum: f64 = weights.iter().sum();
        let mut w = vec![0.0; point.w.len()];
        for (weight, iterate) in weights.iter().zip(&history[1..]) {
            w.iter_mut().zip(iterate).for_each(|(w, x)| *w += weight / sum * x);
        }
        let z = design.times(&w);
        let other = Point { w, b: point.b.clone(), z };
        let taken =
            self.is(Fault::ExtrapolationUnchecked) || self.objective(design, &other) < self.objective(design, point);
        if taken {
            *point = other;
            if self.is(Fault::ExtrapolatedLogitsStale) {
                point.z = design.times(&history[0]);
            }
        }
    }
}

fn mix(a: u64, b: u64) -> usize {
    let x = (a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 31) as usize
}
