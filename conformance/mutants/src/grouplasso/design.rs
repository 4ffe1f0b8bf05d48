//! A problem as the kernel works on it: standardised columns, one a row of `W`; targets by output; groups with their
//! curvatures.

use crate::grouplasso::arithmetic::greatest_curvature;
use crate::grouplasso::kernel::Pass;
use crate::grouplasso::layout::Members;
use crate::grouplasso::{Fault, Method};
use ndarray::ArrayView1;
use tilewright_grouplasso::{Columns, Data, Element, GroupLassoSpec, Loss, Penalty, Targets, Terms};

/// One column a list: of a matrix with a row a sample.
pub(crate) type Table = Vec<Vec<f64>>;

/// A group with all that the solver asks of it.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) members: Members,
    pub(crate) weight: f64,
    pub(crate) terms: Terms,
    /// The greatest eigenvalue of `X_gᵀ Ω X_g`, or a little more.
    pub(crate) curvature: f64,
    /// `√(Σ ω̂ ‖xᵢ‖²)` of the columns as the specification has them.
    pub(crate) size: f64,
}

/// The problem.
#[derive(Clone, Debug)]
pub(crate) struct Design {
    pub(crate) loss: Loss,
    pub(crate) penalty: Penalty,
    pub(crate) lambda: f64,
    pub(crate) intercept: bool,
    pub(crate) samples: usize,
    pub(crate) outputs: usize,
    pub(crate) rows: usize,
    pub(crate) omega: Vec<f64>,
    pub(crate) y: Table,
    pub(crate) absent: Vec<bool>,
    /// What was done to the columns, as the answer reports it.
    pub(crate) columns: Columns,
    /// Row by row of `W`: its column, from which `shift` was taken besides.
    pub(crate) x: Table,
    /// The same times `ω̂`.
    pub(crate) weighted: Table,
    pub(crate) shift: Vec<f64>,
    pub(crate) blocks: Vec<Block>,
    /// `P(0)`, and the intercept there.
    pub(crate) null: f64,
    pub(crate) null_intercept: Vec<f64>,
}

impl Pass {
    pub(crate) fn design<T: Element>(&self, spec: &GroupLassoSpec, data: &Data<'_, T>) -> Design {
        let (samples, features) = data.x.dim();
        let omega = self.omega(samples, data.sample_weights);
        let y = self.targets(data.targets);
        let outputs = y.len();
        let (columns, x) = self.standardised(spec, data, &omega);
        let (members, rows) = self.members(&spec.groups, features);
        let mut x = self.by_row(x, samples, &members, rows);
        let squares: Vec<f64> = x.iter().map(|x| self.dot(x, &times(x, &omega))).collect();
        let intercept = match self.fault {
            Some(Fault::InterceptDropped) => false,
            Some(Fault::InterceptAnyway) => true,
            _ => spec.intercept,
        };
        // With an intercept, centred columns have the same coefficients, and do not compete with it.
        let shift: Vec<f64> =
            x.iter().map(|x| if intercept && self.variant.centred { self.dot(x, &omega) } else { 0.0 }).collect();
        for (x, shift) in x.iter_mut().zip(&shift) {
            *x = x.iter().map(|x| x - shift).collect();
        }
        let weighted: Table = x.iter().map(|x| times(x, &omega)).collect();
        let lambda = self.lambda(spec, samples, outputs);
        let block = |(g, members): (usize, Members)| {
            let weight = self.weight(spec, g, members.rows.len());
            let size = members.rows.iter().map(|&row| squares[row]).sum::<f64>().sqrt();
            let curvature = match self.variant.method {
                Method::Descent => self.curvature(&members.rows, &x, &weighted, &omega),
                Method::Accelerated => 0.0,
            };
            Block { weight, terms: self.terms(spec.penalty, lambda, weight), curvature, size, members }
        };
        let blocks = members.into_iter().enumerate().map(block).collect();
        let absent = self.absent(spec.loss, &y, &omega);
        let (loss, penalty, null_intercept) = (spec.loss, spec.penalty, vec![0.0; outputs]);
        let mut design = Design {
            loss,
            penalty,
            lambda,
            intercept,
            samples,
            outputs,
            rows,
            omega,
            y,
            absent,
            columns,
            x,
            weighted,
            shift,
            blocks,
            null: 0.0,
            null_intercept,
        };
        self.set_null(&mut design);
        design
    }

    /// Which classes no sample counts for.
    fn absent(&self, loss: Loss, y: &Table, omega: &[f64]) -> Vec<bool> {
        let counts = |omega: f64| omega > 0.0 || self.is(Fault::AbsentByCount);
        let occurs = |y: &Vec<f64>| y.iter().zip(omega).any(|(y, omega)| *y > 0.0 && counts(*omega));
        y.iter().map(|y| loss == Loss::Multinomial && !occurs(y)).collect()
    }

    /// The columns of the features, one for each row of `W`.
    fn by_row(&self, mut x: Table, samples: usize, members: &[Members], rows: usize) -> Table {
        self.neglect(&mut x);
        let mut by_row = vec![vec![0.0; samples]; rows];
        let mut seen = vec![false; x.len()];
        for group in members {
            for (&row, &feature) in group.rows.iter().zip(&group.features) {
                let again = std::mem::replace(&mut seen[feature], true);
                if !(again && self.is(Fault::SecondCopyMissing)) {
                    by_row[row].clone_from(&x[feature]);
                }
            }
        }
        by_row
    }

    /// The model without features.
    fn set_null(&self, design: &mut Design) {
        if design.intercept {
            design.null_intercept = design.y.iter().map(|y| self.dot(y, &design.omega)).collect();
            if design.loss == Loss::Multinomial {
                design.null_intercept.iter_mut().for_each(|b| *b = b.ln());
                self.mark_absent(design);
            }
        }
        let zeros = vec![vec![0.0; design.samples]; design.outputs];
        design.null = match self.fault {
            Some(Fault::UnitWithoutIntercept) => self.value(design, &zeros, &vec![0.0; design.outputs]),
            Some(Fault::UnitIsSum) => self.value(design, &zeros, &design.null_intercept) * design.samples as f64,
            _ => self.value(design, &zeros, &design.null_intercept),
        };
    }

    fn mark_absent(&self, design: &mut Design) {
        for (b, absent) in design.null_intercept.iter_mut().zip(&design.absent) {
            *b = match (absent, self.fault) {
                (true, Some(Fault::AbsentFinite)) => -20.0,
                (true, Some(Fault::AbsentNan)) => *b + f64::INFINITY,
                (true, _) => f64::NEG_INFINITY,
                (false, _) if b.is_infinite() => -23.0, // ln 10⁻¹⁰
                (false, _) => *b,
            };
        }
    }

    fn omega(&self, samples: usize, weights: Option<&[f64]>) -> Vec<f64> {
        let mut omega = match (weights, self.fault) {
            (None, _) | (_, Some(Fault::SampleWeightsIgnored)) => vec![1.0; samples],
            (Some(weights), Some(Fault::SampleWeightsSquared)) => weights.iter().map(|w| w * w).collect(),
            (Some(weights), Some(Fault::ZeroWeightIsOne)) => {
                weights.iter().map(|w| if *w == 0.0 { 1.0 } else { *w }).collect()
            }
            (Some(weights), _) => weights.to_vec(),
        };
        if self.is(Fault::LastSampleDropped) && samples > 1 {
            omega[samples - 1] = 0.0;
        }
        if self.is(Fault::WeightSumOverflows) {
            let sum: f64 = omega.iter().sum();
            return omega.iter().map(|w| w / sum).collect();
        }
        // Divided twice, so that no sum overflows.
        let largest = omega.iter().fold(0.0f64, |most, w| most.max(*w));
        let sum: f64 = match self.fault {
            Some(Fault::WeightsNotNormalised) if weights.is_some() => samples as f64 / largest,
            _ => omega.iter().map(|w| w / largest).sum(),
        };
        omega.iter().map(|w| w / largest / sum).collect()
    }

    /// By output: the values, or 1 for the samples of the class.
    fn targets(&self, targets: Targets<'_>) -> Table {
        match targets {
            Targets::Values(values) => {
                let mut y: Table = values.columns().into_iter().map(|y| y.to_vec()).collect();
                match (self.fault, y.len()) {
                    (Some(Fault::OutputsSwapped), outputs) if outputs > 1 => y.swap(0, outputs - 1),
                    (Some(Fault::TargetsByOutput), outputs) if outputs > 1 => {
                        let flat: Vec<f64> = values.iter().copied().collect();
                        y = flat.chunks(values.nrows()).map(<[f64]>::to_vec).collect();
                    }
                    _ => {}
                }
                y
            }
            Targets::Labels { labels, classes } => {
                let mut y = vec![vec![0.0; labels.len()]; classes];
                for (i, &label) in labels.iter().enumerate() {
                    let class = match self.fault {
                        Some(Fault::LabelsFromOne) => (label as usize).saturating_sub(1),
                        _ => (label as usize).min(classes - 1),
                    };
                    y[class][i] = 1.0;
                }
                y
            }
        }
    }

    /// Features the kernel loses sight of.
    fn neglect(&self, x: &mut Table) {
        match self.fault {
            Some(Fault::DuplicateIsOne) => {
                for j in 1..x.len() {
                    if x[..j].iter().any(|earlier| *earlier == x[j]) {
                        x[j].fill(0.0);
                    }
                }
            }
            Some(Fault::LastFeatureMissing) => {
                if let Some(last) = x.last_mut() {
                    last.fill(0.0);
                }
            }
            _ => {}
        }
    }

    fn curvature(&self, rows: &[usize], x: &Table, weighted: &Table, omega: &[f64]) -> f64 {
        let squares = || rows.iter().map(|&row| self.dot(&x[row], &weighted[row]));
        match self.fault {
            Some(Fault::CurvatureOfColumns) => return squares().fold(0.0, f64::max),
            Some(Fault::CurvatureMean) => return squares().sum::<f64>() / rows.len().max(1) as f64 / 2.0,
            _ => {}
        }
        if rows.len() == 1 {
            return squares().sum();
        }
        let root: Vec<f64> = omega.iter().map(|omega| omega.sqrt()).collect();
        greatest_curvature(rows.iter().map(|&row| times(&x[row], &root)).collect())
    }

    fn standardised<T: Element>(&self, spec: &GroupLassoSpec, data: &Data<'_, T>, omega: &[f64]) -> (Columns, Table) {
        let (mut columns, mut x) = (Columns::default(), Table::new());
        for column in data.x.columns() {
            let (mean, scale) = self.mean_and_scale(spec, column, omega);
            columns.mean.push(mean);
            columns.scale.push(scale);
            x.push(column.iter().map(|x| (x.to_f64() - mean) / scale).collect());
        }
        (columns, x)
    }

    fn mean_and_scale<T: Element>(
        &self,
        spec: &GroupLassoSpec,
        column: ArrayView1<'_, T>,
        omega: &[f64],
    ) -> (f64, f64) {
        let standardise = spec.standardise;
        let values: Vec<f64> = column.iter().map(|x| x.to_f64()).collect();
        let samples = values.len() as f64;
        let equal = vec![1.0 / samples; values.len()];
        let of_mean = if self.is(Fault::MeanUnweighted) { &equal } else { omega };
        let of_square = if self.is(Fault::DeviationUnweighted) { &equal } else { omega };
        let mean = self.dot(of_mean, &values);
        let around = if self.is(Fault::DeviationAroundZero) { 0.0 } else { mean };
        let squares: Vec<f64> = values.iter().map(|x| (x - around) * (x - around)).collect();
        let variance = match self.fault {
            Some(Fault::DivisorLessOne) => self.dot(of_square, &squares) * samples / (samples - 1.0).max(1.0),
            Some(Fault::VarianceCancels) => {
                let squares: Vec<f64> = values.iter().map(|x| x * x).collect();
                (self.dot(of_square, &squares) - mean * mean).max(0.0)
            }
            _ => self.dot(of_square, &squares),
        };
        let counted = || values.iter().zip(omega).filter(|(_, omega)| **omega > 0.0);
        let largest = counted().fold(0.0f64, |most, (x, _)| most.max(x.abs()));
        let deviation = variance.sqrt();
        let constant = match self.fault {
            Some(Fault::ConstantDivided) => deviation == 0.0,
            Some(Fault::SmallIsConstant) => deviation <= 1e-6,
            _ => deviation <= counted().count() as f64 * f64::EPSILON * largest,
        };
        let scale = match self.fault {
            _ if !standardise.scale || constant => 1.0,
            Some(Fault::DividedByVariance) => variance,
            _ => deviation,
        };
        let centre = standardise.centre || (standardise.scale && self.is(Fault::ScaleCentres));
        (if centre { mean } else { 0.0 }, scale)
    }
}

/// Entry by entry.
fn times(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}
