//! Head2Toe's selection: a score a feature, and the best-scored share of all features of all layers together
//! (Evci et al. 2022, §3).

use crate::GroupLassoError;
use crate::penalty::norm;
use crate::spec::spec;
use alloc::string::ToString;
use alloc::vec::Vec;
use ndarray::ArrayView2;
use tilewright_scalar::Element;

/// How many features to keep.
///
/// ```
/// use tilewright_grouplasso::select::Keep;
/// assert_eq!(Keep::Fraction(0.01).of(405_224), 4052);
/// assert_eq!(Keep::Fraction(0.01).of(10), 1);
/// assert_eq!(Keep::Features(20).of(10), 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// A share `F` of all, more than 0 and at most 1: `⌊F · d⌋`, the product rounded to `f64` as the paper's code does, but at
    /// least one.
    Fraction(f64),
    /// So many, at least one, but no more than there are.
    Features(usize),
}

impl Keep {
    /// The number kept of `features`.
    pub fn of(self, features: usize) -> usize {
        match self {
            Self::Fraction(fraction) => ((fraction * features as f64) as usize).max(1).min(features),
            Self::Features(kept) => kept.min(features),
        }
    }

    /// Whether it is in its range.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`].
    pub fn validate(self) -> Result<(), GroupLassoError> {
        match self {
            Self::Fraction(f) if !(f > 0.0 && f <= 1.0) => {
                Err(spec("fraction", f.to_string(), "more than 0 and at most 1"))
            }
            Self::Features(0) => Err(spec("features", "0".into(), "at least 1")),
            _ => Ok(()),
        }
    }
}

/// The relevance scores `sᵢ = ‖Wᵢ‖` of the rows of `w`, in `f64`: exact to a few roundings, for huge and tiny entries too.
pub fn scores<T: Element>(w: ArrayView2<'_, T>) -> Vec<f64> {
    w.rows().into_iter().map(|row| norm(&row.iter().map(|x| x.to_f64()).collect::<Vec<_>>())).collect()
}

/// The features kept, ascending: those with the greatest scores, of equal ones the least indices first.
///
/// ```
/// use tilewright_grouplasso::select::{Keep, top};
/// assert_eq!(top(&[0.5, 2.0, 0.0, 2.0, 0.5], Keep::Features(3))?, [0, 1, 3]);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
///
/// # Errors
/// [`GroupLassoError::Spec`] if `keep` is out of its range, [`GroupLassoError::Value`] for a score that is NaN.
pub fn top(scores: &[f64], keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
    keep.validate()?;
    if let Some(at) = scores.iter().position(|s| s.is_nan()) {
        return Err(GroupLassoError::Value {
            argument: "scores",
            at: at.to_string(),
            got: "NaN".into(),
            expected: "a number",
        });
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // −0 and 0 are equal here; the sort is stable, so equal scores stay in order of index.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(core::cmp::Ordering::Equal));
    order.truncate(keep.of(scores.len()));
    order.sort_unstable();
    Ok(order)
}
