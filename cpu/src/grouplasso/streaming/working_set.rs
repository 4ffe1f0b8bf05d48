//! The groups that a solver in memory works on.

use super::Setup;
use super::pass::Sweep;
use crate::grouplasso::source::FeatureSource;
use ndarray::{ArrayView2, Axis};
use tilewright_grouplasso::{Element, GroupLassoError, GroupLassoSpec, Groups, SparseRows, Start, Weights};

/// Groups of the first working set, as a multiple of the samples, and at least.
const FIRST: (usize, usize) = (2, 256);

/// A set of groups, as a problem of its own.
pub(super) struct WorkingSet<'s> {
    setup: &'s Setup,
    /// Ascending.
    groups: Vec<usize>,
    /// Their features, ascending.
    features: Vec<usize>,
}

impl<'s> WorkingSet<'s> {
    /// The groups that are not zero or free, and of the others those with the greatest excess over their thresholds: as many as
    /// reach `likely` of it, but in all not more than twice as many as are not zero or were in the set before, and not fewer than a
    /// first set has.
    pub(super) fn choose(
        setup: &'s Setup,
        spec: &GroupLassoSpec,
        sweep: &Sweep,
        w: &SparseRows,
        (likely, before): (f64, usize),
    ) -> Result<Self, GroupLassoError> {
        let layout = &setup.layout;
        let (mut groups, mut others) = (Vec::new(), Vec::<(f32, u32)>::new());
        let (mut active, mut violating, mut features) = (w.indices(), 0, 0);
        for group in 0..layout.groups() {
            let end = layout.rows_of(group).last().map_or(0, |last| last + 1);
            let here = active.partition_point(|row| *row < end);
            active = &active[here..];
            let terms = layout.terms(spec, group);
            if here > 0 || terms.is_free() {
                groups.push(group);
                features += layout.size(group);
            } else if !sweep.proven[group] {
                // A bound of 0 is that of an `a` alone, which the excess is above already.
                let bound = if terms.l2 > 0.0 { terms.l2 } else { terms.l1.max(terms.ridge) };
                let share = f64::from(sweep.excess[group]) / bound;
                violating += usize::from(share > likely);
                others.push((share as f32, group as u32));
            }
        }
        let room = setup.plan.most(layout.rows());
        let kept = groups.len();
        let least = FIRST.1.max(FIRST.0 * setup.response.samples());
        let wanted = (kept + violating).min(2 * kept.max(before)).max(least) - kept.min(least);
        let wanted = wanted.min(others.len());
        if wanted > 0 && wanted < others.len() {
            // Of equal ones the first.
            others.select_nth_unstable_by(wanted - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        }
        others.truncate(wanted);
        others.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut added = 0;
        for (_, group) in others {
            let more = layout.size(group as usize);
            if features + more > room {
                if added == 0 && violating > 0 {
                    // How many more there will be nobody knows: twice as many is a guess.
                    return Err(out_of_memory(setup, 2 * (features + more)));
                }
                break;
            }
            groups.push(group as usize);
            (features, added) = (features + more, added + 1);
        }
        if features > room {
            return Err(out_of_memory(setup, features));
        }
        groups.sort_unstable();
        let features = groups.iter().flat_map(|group| layout.rows_of(*group)).collect();
        Ok(Self { setup, groups, features })
    }

    /// How many groups.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The columns, one after the other.
    pub(super) fn gather<T: Element>(&self, x: &dyn FeatureSource) -> Result<Vec<T>, GroupLassoError> {
        let (samples, together) = (self.setup.response.samples(), self.setup.plan.together);
        let mut columns = Vec::with_capacity(self.features.len() * samples);
        let mut wide = Vec::new();
        for features in self.features.chunks(together) {
            wide.resize(features.len() * samples, 0.0);
            x.gather(features, &mut wide)?;
            columns.extend(wide.iter().map(|x| T::from_f64(*x)));
        }
        Ok(columns)
    }

    /// The set's features.
    pub(super) fn matrix<'x, T: Element>(&self, columns: &'x [T]) -> Result<ArrayView2<'x, T>, GroupLassoError> {
        let shape = (self.features.len(), self.setup.response.samples());
        let x = ArrayView2::from_shape(shape, columns).map_err(|error| GroupLassoError::Shape {
            argument: "working set",
            got: error.to_string(),
            expected: format!("{shape:?}"),
        })?;
        Ok(x.reversed_axes())
    }

    pub(super) fn spec(&self, spec: &GroupLassoSpec) -> GroupLassoSpec {
        let layout = &self.setup.layout;
        let groups = match spec.groups {
            Groups::Rows => Groups::Rows,
            _ => Groups::Sizes(self.groups.iter().map(|group| layout.size(*group)).collect()),
        };
        let weights = match &spec.weights {
            Weights::Given(given) => Weights::Given(self.groups.iter().map(|group| given[*group]).collect()),
            same => same.clone(),
        };
        GroupLassoSpec { groups, weights, ..spec.clone() }
    }

    /// The answer at hand; all its rows are in the set.
    pub(super) fn start(&self, w: &SparseRows, b: &[f64]) -> Start {
        let places: Vec<usize> = w.indices().iter().map(|row| self.features.partition_point(|f| f < row)).collect();
        let w = SparseRows::new(self.features.len(), places, w.values().to_owned());
        Start { w: w.unwrap_or_else(|_| SparseRows::zeros(self.features.len(), b.len())), b: b.to_vec() }
    }

    /// An answer of the set's problem, as one of the whole problem.
    pub(super) fn spread(&self, w: &SparseRows) -> Result<SparseRows, GroupLassoError> {
        // Rows of a group that is not zero may be zero, and need not be kept.
        let nonzero: Vec<usize> =
            (0..w.indices().len()).filter(|at| w.values().row(*at).iter().any(|w| *w != 0.0)).collect();
        let rows = nonzero.iter().map(|at| self.features[w.indices()[*at]]).collect();
        SparseRows::new(self.setup.layout.rows(), rows, w.values().select(Axis(0), &nonzero))
    }
}

fn out_of_memory(setup: &Setup, features: usize) -> GroupLassoError {
    GroupLassoError::OutOfMemory { what: "the working set, within the bound", bytes: setup.plan.with(features as u64) }
}
