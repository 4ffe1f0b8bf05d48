//! Which groups are zero at the minimum: proven so, or guessed and then checked.
//!
//! A group is zero at the minimum if and only if `X_gᵀu*`, at the best dual point `u*`, has no
//! [excess](Terms::excess) — strictly inside of `B` at least *if*. A rule that knows `u*` only roughly works with a margin.

use crate::penalty::norm_of_soft;
use crate::{Certificate, Loss, Penalty, Terms, losses};

/// How far the best dual point can be from one whose gap is `gap`: `‖√ω̂ (u/ω̂ − u*/ω̂)‖ ≤ √(2 L gap)`, because the dual
/// function is `1/L`-strongly concave in that norm (Ndiaye et al. 2017, with `L = ½` for softmax in place of their 1).
///
/// To the gap is added what rounding may have taken from it, [`RESOLUTION`] of the objective: otherwise a gap of 0 would discard
/// groups whose correlation lies on the boundary, as that of every active group does.
pub fn safe_radius(loss: Loss, certificate: &Certificate) -> f64 {
    let rounding = RESOLUTION * certificate.objective.abs();
    libm::sqrt(2.0 * losses::smoothness(loss) * (certificate.gap().max(0.0) + rounding))
}

/// How finely a gap is known, as a share of the objective: `2⁻⁴⁰`, four thousand roundings.
pub const RESOLUTION: f64 = 9.094_947_017_729_282e-13;

/// The gap-safe sphere rule: whether a group may be non-zero at the minimum. `u = X_gᵀ` times the dual point, which is
/// [`dual_scale`](crate::Certificate::dual_scale) times the correlation with the residual, and `size` is
/// [`Problem::size`](crate::Problem::size).
///
/// Once `false`, the group is zero in *every* minimiser, and may be dropped for good.
///
/// ```
/// use tilewright_grouplasso::{Penalty, Terms, screening};
/// let terms = Terms::new(Penalty::GroupLasso, 0.5, 1.0);
/// assert!(!screening::is_safe_to_keep(terms, &[0.3, 0.0], 1.0, 0.1)); // 0.3 + 0.1 < 0.5: proven zero
/// assert!(screening::is_safe_to_keep(terms, &[0.3, 0.0], 1.0, 0.3));
/// ```
pub fn is_safe_to_keep(terms: Terms, u: &[f64], size: f64, radius: f64) -> bool {
    if terms.is_free() {
        return true;
    }
    let reach = radius * size;
    let largest = u.iter().fold(0.0f64, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) });
    if terms.l2 == 0.0 {
        return largest + reach >= terms.l1;
    }
    // The farthest that S(u + e, a) can be from 0 for ‖e‖ ≤ reach: soft thresholding is 1-Lipschitz, and inside of the
    // cube the way to its face comes first.
    let farthest =
        if largest > terms.l1 { norm_of_soft(u, terms.l1) + reach } else { (largest + reach - terms.l1).max(0.0) };
    // Infinite correlations, and NaN, are kept.
    farthest >= terms.l2 || farthest.is_nan()
}

/// The sequential strong rule (Tibshirani et al. 2012): whether a group is likely non-zero at `lambda`, judged by `u`, its
/// correlation with the residual of the answer at `previous`, a larger λ. It may err: what it drops needs
/// [`is_violated`] afterwards.
pub fn is_strong(penalty: Penalty, weight: f64, lambda: f64, previous: f64, u: &[f64]) -> bool {
    let at = 2.0 * lambda - previous;
    // At 0 and below, nothing is unlikely.
    at <= 0.0 || weight == 0.0 || Terms::new(penalty, at, weight).excess(u) > 0.0
}

/// The check that makes an unsafe rule exact: whether a group left at zero must not be, by more than `tolerance` times its
/// threshold.
pub fn is_violated(terms: Terms, u: &[f64], tolerance: f64) -> bool {
    terms.excess(u) > tolerance * terms.l1.max(terms.l2)
}
