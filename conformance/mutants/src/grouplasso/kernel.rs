//! The kernel on trial: one bug or none, and one variant.

use crate::grouplasso::arithmetic::bf16;
use crate::grouplasso::solver::Before;
use crate::grouplasso::{Fault, Variant};
use ndarray::{ArrayView2, ArrayViewMut2};
use std::ops::ControlFlow;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Groups, Keep, Progress, Prox, Selection,
    Solution, Start, Stopped, Stopping, prox,
};

/// A scalar solver, proximal operator and selection, correct or with one planted bug.
///
/// ```
/// use tilewright_mutants::grouplasso::{Fault, Kernel, Variant};
/// assert_eq!(Kernel::correct(Variant::BASE).fault(), None);
/// assert_eq!(Kernel::faulty(Fault::ProxTwice).variant(), &Variant::BASE);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    fault: Option<Fault>,
    variant: Variant,
}

impl Kernel {
    /// A kernel with one bug.
    pub fn faulty(fault: Fault) -> Self {
        Self { fault: Some(fault), variant: fault.variant() }
    }

    /// A kernel without bugs.
    pub fn correct(variant: Variant) -> Self {
        Self { fault: None, variant }
    }

    /// The bug, if there is one.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// How it works.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    fn pass<T: Element>(&self) -> Result<Pass, GroupLassoError> {
        if !self.variant.is_sound() {
            return Err(GroupLassoError::Unsupported { what: "no steps, or no iterations between certificates" });
        }
        let double = T::FORMAT.precision >= 53;
        let narrow = if double { |x: f64| f64::from(x as f32) } else { bf16 };
        let store = |x: f64| T::from_f64(x).to_f64();
        Ok(Pass { fault: self.fault, variant: self.variant, narrow, store })
    }
}

/// One call of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) fault: Option<Fault>,
    pub(crate) variant: Variant,
    /// Rounds to a format narrower than that of the data.
    pub(crate) narrow: fn(f64) -> f64,
    /// Rounds to the format of the data.
    pub(crate) store: fn(f64) -> f64,
}

impl Pass {
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl<T: Element> GroupLassoSolver<T> for Kernel {
    fn solve(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
        start: Option<&Start>,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Solution, GroupLassoError> {
        Ok(self.pass::<T>()?.solve(spec, data, stopping, start, None, watch)?.0)
    }

    fn solve_path(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        lambdas: &[f64],
        stopping: &Stopping,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Solution>, GroupLassoError> {
        let pass = self.pass::<T>()?;
        let mut path: Vec<Solution> = Vec::with_capacity(lambdas.len());
        let mut before: Option<Before> = None;
        for (point, &lambda) in lambdas.iter().enumerate() {
            let lambda = match pass.fault {
                Some(Fault::PathLambdaLate) if point > 0 => lambdas[point - 1],
                Some(Fault::PathUsesOwnLambda) => spec.lambda,
                _ => lambda,
            };
            let spec = GroupLassoSpec { lambda, ..spec.clone() };
            let reported = if pass.is(Fault::PointNotReported) { 0 } else { point };
            let mut watch = |progress: &Progress| watch(&Progress { point: reported, ..*progress });
            let start = before.as_ref().filter(|_| pass.variant.warm).map(|before| &before.start);
            let (solution, z) = pass.solve(&spec, data, stopping, start, before.as_ref(), &mut watch)?;
            let interrupted = solution.stopped == Stopped::Interrupted;
            if interrupted && pass.is(Fault::InterruptedPointLost) {
                break;
            }
            before = Some(Before { start: solution.start(), lambda, z });
            path.push(solution);
            if interrupted && !pass.is(Fault::PathGoesOn) {
                break;
            }
        }
        Ok(path)
    }
}

impl<T: Element> Prox<T> for Kernel {
    fn prox(&self, spec: &GroupLassoSpec, step: f64, mut w: ArrayViewMut2<'_, T>) -> Result<(), GroupLassoError> {
        let pass = self.pass::<T>()?;
        let (rows, outputs) = w.dim();
        let checked_step = if pass.is(Fault::StepUnchecked) { 1.0 } else { step };
        let verdict = prox::check(&pass.judged(spec), checked_step, rows);
        if verdict.is_err() && pass.is(Fault::RefusedTooLate) {
            w.fill(T::default());
        }
        let layout = verdict?;
        let by_columns = pass.is(Fault::ColumnsAreGroups) && spec.groups == Groups::Rows;
        if by_columns {
            let terms = pass.terms(spec.penalty, spec.lambda, 1.0);
            for mut column in w.columns_mut() {
                let mut v: Vec<f64> = column.iter().map(|x| x.to_f64()).collect();
                pass.prox(terms, step, 1, &mut v);
                column.iter_mut().zip(v).for_each(|(to, x)| *to = T::from_f64(x));
            }
            return Ok(());
        }
        let (groups, _) = pass.members(&spec.groups, layout.features());
        for (g, members) in groups.iter().enumerate() {
            let terms = pass.terms(spec.penalty, spec.lambda, pass.weight(spec, g, members.rows.len()));
            let mut v: Vec<f64> = members
                .rows
                .iter()
                .flat_map(|&row| w.row(row).iter().map(|x| x.to_f64()).collect::<Vec<_>>())
                .collect();
            pass.prox(terms, step, outputs, &mut v);
            for (&row, values) in members.rows.iter().zip(v.chunks(outputs.max(1))) {
                w.row_mut(row).iter_mut().zip(values).for_each(|(to, x)| *to = T::from_f64(*x));
            }
        }
        Ok(())
    }
}

impl<T: Element> Selection<T> for Kernel {
    fn scores(&self, w: ArrayView2<'_, T>) -> Result<Vec<T::Accum>, GroupLassoError> {
        let pass = self.pass::<T>()?;
        let score = |row: Vec<f64>| <T::Accum as Element>::from_f64(pass.score(&row));
        Ok(w.rows().into_iter().map(|row| score(row.iter().map(|x| x.to_f64()).collect())).collect())
    }

    fn select(&self, scores: &[T::Accum], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        let scores: Vec<f64> = scores.iter().map(|s| Element::to_f64(*s)).collect();
        self.pass::<T>()?.top(&scores, keep)
    }
}
