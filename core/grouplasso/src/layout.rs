//! Groups, resolved: which rows of `W` belong together, and which feature each row multiplies.

use crate::{GroupLassoError, GroupLassoSpec, Groups, Terms, Weights};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use ndarray::{Array2, ArrayView2};

/// [`Groups`] checked against a number of features.
///
/// `W` has one row a feature, in the features' order; only if groups overlap does it have one row a *copy*, group after group
/// as listed.
///
/// ```
/// use tilewright_grouplasso::{Groups, Layout};
/// let layout = Layout::new(&Groups::Overlapping(vec![vec![0, 1], vec![1, 2]]), 3)?;
/// assert_eq!((layout.rows(), layout.groups()), (4, 2));
/// assert_eq!(layout.rows_of(1).collect::<Vec<_>>(), [2, 3]);
/// assert_eq!(layout.feature(2), 1); // the second copy of feature 1
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    features: usize,
    /// Where in the concatenation of all groups each begins, and where the last one ends; none if every row is a group.
    starts: Option<Vec<usize>>,
    /// The row at each place of that concatenation; none if it is the place itself.
    members: Option<Vec<usize>>,
    /// The feature of each row; none if it is the row itself.
    copies: Option<Vec<usize>>,
}

impl Layout {
    /// Resolves `groups` over `features` features.
    ///
    /// # Errors
    /// [`GroupLassoError::Groups`] if they overlap though they must not, miss a feature, name one that is not there, or are
    /// empty.
    pub fn new(groups: &Groups, features: usize) -> Result<Self, GroupLassoError> {
        let plain = Self { features, starts: None, members: None, copies: None };
        match groups {
            Groups::Rows => Ok(plain),
            Groups::Sizes(sizes) => {
                let starts = starts(sizes.iter().copied())?;
                match starts.last() {
                    Some(&covered) if covered == features => Ok(Self { starts: Some(starts), ..plain }),
                    covered => Err(problem(format!(
                        "sizes cover {} features, there are {features}",
                        covered.copied().unwrap_or(0)
                    ))),
                }
            }
            Groups::Lists(lists) => {
                check_lists(lists, features, false)?;
                let starts = starts(lists.iter().map(Vec::len))?;
                Ok(Self { starts: Some(starts), members: Some(lists.concat()), ..plain })
            }
            Groups::Overlapping(lists) => {
                check_lists(lists, features, true)?;
                let starts = starts(lists.iter().map(Vec::len))?;
                Ok(Self { starts: Some(starts), copies: Some(lists.concat()), ..plain })
            }
        }
    }

    /// Features of the problem, `d`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Rows of `W`: `d`, or the number of copies.
    pub fn rows(&self) -> usize {
        self.copies.as_ref().map_or(self.features, Vec::len)
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.starts.as_ref().map_or(self.features, |starts| starts.len() - 1)
    }

    /// Features in a group.
    pub fn size(&self, group: usize) -> usize {
        self.starts.as_ref().map_or(1, |starts| starts[group + 1] - starts[group])
    }

    /// The rows of a group.
    pub fn rows_of(&self, group: usize) -> impl ExactSizeIterator<Item = usize> + Clone + '_ {
        let places = match &self.starts {
            None => group..group + 1,
            Some(starts) => starts[group]..starts[group + 1],
        };
        places.map(|place| self.members.as_ref().map_or(place, |members| members[place]))
    }

    /// The feature a row multiplies.
    pub fn feature(&self, row: usize) -> usize {
        self.copies.as_ref().map_or(row, |copies| copies[row])
    }

    /// Whether every row is a group of its own.
    pub fn is_rows(&self) -> bool {
        self.starts.is_none()
    }

    /// Whether rows are copies of features.
    pub fn has_copies(&self) -> bool {
        self.copies.is_some()
    }

    /// The weight of each group under `weights`, which must have been validated.
    pub fn weight(&self, weights: &Weights, group: usize) -> f64 {
        match weights {
            Weights::SqrtSize => libm::sqrt(self.size(group) as f64),
            Weights::Ones => 1.0,
            Weights::Given(given) => given[group],
        }
    }

    /// What a group pays in a validated problem.
    pub fn terms(&self, spec: &GroupLassoSpec, group: usize) -> Terms {
        Terms::new(spec.penalty, spec.lambda, self.weight(&spec.weights, group))
    }

    /// A group's rows of `w`, all outputs, end to end.
    pub fn gather(&self, w: ArrayView2<'_, f64>, group: usize) -> Vec<f64> {
        self.rows_of(group).flat_map(|row| w.row(row).iter().copied().collect::<Vec<_>>()).collect()
    }

    /// `d × C` coefficients of the features: `w` itself, or the sums of the copies.
    pub fn by_feature(&self, w: ArrayView2<'_, f64>) -> Array2<f64> {
        let mut sums = Array2::zeros((self.features, w.ncols()));
        for row in 0..self.rows() {
            let mut sum = sums.row_mut(self.feature(row));
            sum += &w.row(row);
        }
        sums
    }
}

fn starts(sizes: impl Iterator<Item = usize>) -> Result<Vec<usize>, GroupLassoError> {
    let mut starts = vec![0];
    let mut end = 0usize;
    for (group, size) in sizes.enumerate() {
        if size == 0 {
            return Err(problem(format!("group {group} is empty")));
        }
        end = end.checked_add(size).ok_or_else(|| problem(format!("sizes overflow at group {group}")))?;
        starts.push(end);
    }
    Ok(starts)
}

fn check_lists(lists: &[Vec<usize>], features: usize, overlap: bool) -> Result<(), GroupLassoError> {
    let mut last_group = vec![usize::MAX; features];
    for (group, list) in lists.iter().enumerate() {
        for &feature in list {
            let Some(last) = last_group.get_mut(feature) else {
                return Err(problem(format!("group {group} has feature {feature}, there are {features}")));
            };
            if *last == group {
                return Err(problem(format!("feature {feature} is in group {group} twice")));
            }
            if *last != usize::MAX && !overlap {
                return Err(problem(format!("feature {feature} is in groups {last} and {group}")));
            }
            *last = group;
        }
    }
    match last_group.iter().position(|&last| last == usize::MAX) {
        Some(feature) => Err(problem(format!("feature {feature} is in no group"))),
        None => Ok(()),
    }
}

fn problem(problem: String) -> GroupLassoError {
    GroupLassoError::Groups { problem }
}
