//! Which rows of `W` are a group's, and which feature each multiplies.

use crate::grouplasso::Fault;
use crate::grouplasso::kernel::Pass;
use tilewright_grouplasso::Groups;

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Members {
    /// Rows of `W`.
    pub(crate) rows: Vec<usize>,
    /// The feature that each of them multiplies.
    pub(crate) features: Vec<usize>,
}

impl Members {
    fn own(rows: Vec<usize>) -> Self {
        Self { features: rows.clone(), rows }
    }
}

impl Pass {
    /// The groups, and the number of rows of `W`.
    pub(crate) fn members(&self, groups: &Groups, features: usize) -> (Vec<Members>, usize) {
        match groups {
            Groups::Rows => ((0..features).map(|j| Members::own(vec![j])).collect(), features),
            Groups::Sizes(sizes) => (self.consecutive(sizes, features), features),
            Groups::Lists(lists) if self.is(Fault::ListsConsecutive) => {
                let sizes: Vec<usize> = lists.iter().map(Vec::len).collect();
                (self.consecutive(&sizes, features), features)
            }
            Groups::Lists(lists) if self.is(Fault::ListsUntilLast) => {
                let span = |list: &Vec<usize>| {
                    let (first, last) = (list.iter().min().copied(), list.iter().max().copied());
                    Members::own((first.unwrap_or(0)..last.map_or(0, |last| last + 1)).collect())
                };
                (lists.iter().map(span).collect(), features)
            }
            Groups::Lists(lists) => {
                let own = |list: &Vec<usize>| list.iter().copied().filter(|j| *j < features).collect();
                (lists.iter().map(|list| Members::own(own(list))).collect(), features)
            }
            Groups::Overlapping(lists) => self.copies(lists, features),
        }
    }

    fn consecutive(&self, sizes: &[usize], features: usize) -> Vec<Members> {
        let mut start = 0;
        let first = sizes.first().copied().unwrap_or(0);
        let group = |(g, &size): (usize, &usize)| {
            let (mut from, mut to) = (start, (start + size).min(features));
            start = to;
            match self.fault {
                Some(Fault::LastGroupFull) if g + 1 == sizes.len() && size < first => from = features - first,
                Some(Fault::EqualSizes) => {
                    (from, to) = (g * features / sizes.len(), (g + 1) * features / sizes.len());
                }
                Some(Fault::BoundaryShared) if g > 0 => from -= 1,
                _ => {}
            }
            Members::own((from..to).collect())
        };
        sizes.iter().enumerate().map(group).collect()
    }

    fn copies(&self, lists: &[Vec<usize>], features: usize) -> (Vec<Members>, usize) {
        let mut row = 0;
        let group = |list: &Vec<usize>| {
            let rows: Vec<usize> = (row..row + list.len()).collect();
            row += list.len();
            let features = match self.fault {
                Some(Fault::CopyIsFeature) => rows.iter().map(|row| row % features).collect(),
                _ => list.clone(),
            };
            Members { rows, features }
        };
        let all = lists.iter().map(group).collect();
        (all, row)
    }
}
