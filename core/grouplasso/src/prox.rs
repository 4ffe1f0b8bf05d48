//! Proximal operators: `prox_{t h}(v) = argmin_x ½ ‖x − v‖² + t h(x)`, in closed form for every penalty.
//!
//! For `h = a ‖·‖₁ + b ‖·‖ + c/2 ‖·‖²` it is soft thresholding of the entries by `ta`, then of the block by `tb`, then a
//! division by `1 + tc`; the order matters, and is exact (Friedman, Hastie and Tibshirani 2010; Yu 2013).

use crate::penalty::{norm, soft};
use crate::{GroupLassoError, GroupLassoSpec, Groups, Layout, Terms};
use alloc::format;
use alloc::string::ToString;
use ndarray::ArrayViewMut2;

/// Applies the proximal operator of one group, with step `t > 0`, to its block in place.
///
/// Zero stays zero, a norm that is not above the threshold becomes exactly zero, NaN stays NaN, and an infinity becomes it. `O(p)` for a block of `p`.
///
/// ```
/// use tilewright_grouplasso::{Penalty, Terms, prox};
/// let mut v = [3.0, 4.0];
/// prox::group(Terms::new(Penalty::GroupLasso, 0.5, 2.0), 1.0, &mut v); // the norm goes from 5 to 4
/// assert!((v[0] - 2.4).abs() < 1e-15 && (v[1] - 3.2).abs() < 1e-15);
/// ```
pub fn group(terms: Terms, t: f64, v: &mut [f64]) {
    if terms.l1 > 0.0 {
        for x in v.iter_mut() {
            *x = soft(*x, t * terms.l1);
        }
    }
    let size = norm(v);
    let threshold = t * terms.l2;
    if size <= threshold {
        v.fill(0.0);
        return;
    }
    let factor = (size - threshold) / size / (1.0 + t * terms.ridge);
    for x in v.iter_mut() {
        *x *= factor;
    }
}

/// Checks what [`Prox`](crate::Prox) is asked: the specification for `rows` rows of `W`, and the step.
///
/// # Errors
/// [`GroupLassoError`]. With overlapping groups `rows` counts copies.
pub fn check(spec: &GroupLassoSpec, step: f64, rows: usize) -> Result<Layout, GroupLassoError> {
    let features = match &spec.groups {
        Groups::Overlapping(lists) => lists.iter().flatten().max().map_or(0, |last| last + 1),
        _ => rows,
    };
    spec.validate(features)?;
    if !(step.is_finite() && step > 0.0) {
        return Err(crate::spec::spec("step", step.to_string(), "a finite number, more than 0"));
    }
    let layout = Layout::new(&spec.groups, features)?;
    if layout.rows() == rows {
        return Ok(layout);
    }
    Err(GroupLassoError::Shape {
        argument: "w",
        got: format!("{rows} rows"),
        expected: format!("{}, one a copy", layout.rows()),
    })
}

/// Applies the proximal operator of the whole penalty to `w`, of [`Layout::rows`] rows, in place.
pub fn all(spec: &GroupLassoSpec, layout: &Layout, t: f64, w: &mut ArrayViewMut2<'_, f64>) {
    let outputs = w.ncols();
    for g in 0..layout.groups() {
        let mut block = layout.gather(w.view(), g);
        group(layout.terms(spec, g), t, &mut block);
        for (row, values) in layout.rows_of(g).zip(block.chunks(outputs.max(1))) {
            w.row_mut(row).iter_mut().zip(values).for_each(|(w, x)| *w = *x);
        }
    }
}
