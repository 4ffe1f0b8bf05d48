//! Merging attention over disjoint sets of keys: split-KV decoding, ring and context parallelism, shared prefixes.
//!
//! A part is a pair `(O, LSE)`, normalised over its own keys. With `L = ln(e^{L₁} + e^{L₂})`,
//! ```text
//! O = e^{L₁ − L} O₁ + e^{L₂ − L} O₂
//! ```
//! Parts form a commutative monoid with identity `(0, −∞)`: commutative to the bit, associative up to rounding. A part
//! whose LSE is −∞ saw nothing, and its `O` is not looked at. A sink belongs to exactly one of the parts.
//!
//! # Gradients
//!
//! Two recipes give the same gradients:
//!
//! * Run each part's backward pass with the *merged* `O` and LSE (and the merged `dO`, `dLSE`): `exp(S − LSE)` is then
//!   the part's share of the whole `P`, and `D = rowsum(dO ∘ O)` is that of the whole row. `dK` and `dV` are complete for
//!   the part's keys, and the parts' `dQ` add up. Passing a part's own `O` and LSE instead is the classic mistake.
//! * Differentiate the merge. With `w_p = e^{L_p − L}`, part `p` receives `dO_p = w_p dO` and
//!   `dLSE_p = w_p (dO · (O_p − O) + dLSE)`, and runs its backward pass with its own `O_p` and `L_p`.

use crate::AttentionError;
use alloc::format;
use ndarray::{ArrayView3, ArrayView4, ArrayViewMut3, ArrayViewMut4, Axis};
use tilewright_scalar::Accum;

/// Merges the row `(o2, lse2)` into `(o, lse)`. Both rows have the same length; what exceeds the shorter is left alone.
///
/// ```
/// use tilewright_attention::merge::merge_row;
/// let (mut o, mut lse) = ([1.0, 5.0], 0.0);
/// merge_row(&mut o, &mut lse, &[3.0, 5.0], 0.0);
/// assert_eq!((o, lse), ([2.0, 5.0], 2f64.ln()));
/// merge_row(&mut o, &mut lse, &[f64::NAN; 2], f64::NEG_INFINITY); // saw no key: changes nothing
/// assert_eq!((o, lse), ([2.0, 5.0], 2f64.ln()));
/// ```
pub fn merge_row<A: Accum>(o: &mut [A], lse: &mut A, o2: &[A], lse2: A) {
    merge_iter(o.iter_mut(), lse, o2.iter(), lse2);
}

/// Merges parts, in the order given, into `o` and `lse`, whose former contents do not matter. No parts give `(0, −∞)`.
///
/// ```
/// use ndarray::{Array3, Array4};
/// use tilewright_attention::merge::merge;
/// let (one, two) = (Array4::from_elem((1, 1, 1, 1), 1.0), Array4::from_elem((1, 1, 1, 1), 2.0));
/// let lse = Array3::zeros((1, 1, 1));
/// let (mut o, mut whole) = (Array4::zeros((1, 1, 1, 1)), Array3::zeros((1, 1, 1)));
/// merge(&[(one.view(), lse.view()), (two.view(), lse.view())], o.view_mut(), whole.view_mut())?;
/// assert_eq!((o[[0, 0, 0, 0]], whole[[0, 0, 0]]), (1.5, 2f64.ln()));
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
///
/// # Errors
/// [`AttentionError::Shape`] unless every `O` has the shape of `o` and every LSE that of its rows; nothing is written
/// then.
pub fn merge<A: Accum>(
    parts: &[(ArrayView4<'_, A>, ArrayView3<'_, A>)],
    mut o: ArrayViewMut4<'_, A>,
    mut lse: ArrayViewMut3<'_, A>,
) -> Result<(), AttentionError> {
    expect_shape("lse", lse.shape(), &o.shape()[..3])?;
    for (part_o, part_lse) in parts {
        expect_shape("o of a part", part_o.shape(), o.shape())?;
        expect_shape("lse of a part", part_lse.shape(), lse.shape())?;
    }
    o.fill(crate::io::constant(0.0));
    lse.fill(A::neg_infinity());
    for (part_o, part_lse) in parts {
        let rows = o.lanes_mut(Axis(3)).into_iter().zip(lse.iter_mut());
        for ((o, lse), (o2, lse2)) in rows.zip(part_o.lanes(Axis(3)).into_iter().zip(part_lse)) {
            merge_iter(o.into_iter(), lse, o2.into_iter(), *lse2);
        }
    }
    Ok(())
}

fn merge_iter<'a, A: Accum>(o: impl Iterator<Item = &'a mut A>, lse: &mut A, o2: impl Iterator<Item = &'a A>, lse2: A) {
    let nothing = A::neg_infinity();
    match (*lse == nothing, lse2 == nothing) {
        (false, true) => {}
        (true, true) => o.for_each(|o| *o = A::zero()),
        (true, false) => {
            o.zip(o2).for_each(|(o, o2)| *o = *o2);
            *lse = lse2;
        }
        (false, false) => {
            let m = lse.maximum(lse2);
            let (w, w2) = ((*lse - m).exp(), (lse2 - m).exp());
            o.zip(o2).for_each(|(o, o2)| *o = (w * *o + w2 * *o2) / (w + w2));
            *lse = m + (w + w2).ln();
        }
    }
}

fn expect_shape(tensor: &'static str, got: &[usize], expected: &[usize]) -> Result<(), AttentionError> {
    if got == expected {
        Ok(())
    } else {
        Err(AttentionError::Shape { tensor, got: format!("{got:?}"), expected: format!("{expected:?}") })
    }
}
