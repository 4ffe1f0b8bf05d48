//! What a group pays, and everything convex analysis knows about it.
//!
//! All penalties of [`Penalty`] are one function of a group's block `v`,
//!
//! ```text
//! h(v) = a ‖v‖₁ + b ‖v‖ + c/2 ‖v‖²
//! ```
//!
//! Its first two terms are the support function of the set `B = {u : ‖S(u, a)‖ ≤ b}`, where `S(u, a)` shrinks each entry
//! towards 0 by `a`: the sum of a cube of half-width `a` and a ball of radius `b`. From this follow the conjugate, the dual
//! norm and the subdifferential.

use crate::Penalty;
use alloc::vec::Vec;

/// The coefficients `a`, `b`, `c` of one group's penalty, λ and weight included.
///
/// ```
/// use tilewright_grouplasso::{Penalty, Terms};
/// let terms = Terms::new(Penalty::ElasticNet { alpha: 0.5 }, 0.2, 3.0);
/// assert!((terms.l2 - 0.3).abs() < 1e-15 && (terms.ridge - 0.3).abs() < 1e-15 && terms.l1 == 0.0);
/// assert!((terms.value(&[3.0, 4.0]) - (0.3 * 5.0 + 0.15 * 25.0)).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// `a`, of the sum of magnitudes.
    pub l1: f64,
    /// `b`, of the norm.
    pub l2: f64,
    /// `c`, of half the squared norm.
    pub ridge: f64,
}

impl Terms {
    /// The terms of a group of weight `weight`.
    pub fn new(penalty: Penalty, lambda: f64, weight: f64) -> Self {
        if lambda == 0.0 || weight == 0.0 {
            return Self { l1: 0.0, l2: 0.0, ridge: 0.0 };
        }
        match penalty {
            Penalty::GroupLasso => Self { l1: 0.0, l2: lambda * weight, ridge: 0.0 },
            Penalty::SparseGroup { tau } => Self { l1: lambda * tau, l2: lambda * (1.0 - tau) * weight, ridge: 0.0 },
            Penalty::ElasticNet { alpha } => {
                Self { l1: 0.0, l2: lambda * alpha * weight, ridge: lambda * (1.0 - alpha) * weight }
            }
        }
    }

    /// Whether the group pays nothing.
    pub fn is_free(self) -> bool {
        self.l1 == 0.0 && self.l2 == 0.0 && self.ridge == 0.0
    }

    /// `h(v)`.
    pub fn value(self, v: &[f64]) -> f64 {
        let (norm, sum) = (norm(v), v.iter().map(|x| x.abs()).sum::<f64>());
        self.l1 * sum + self.l2 * norm + 0.5 * self.ridge * norm * norm
    }

    /// The distance of `u` from `B`: `(‖S(u, a)‖ − b)₊`. Zero if and only if `v = 0` minimises `h(v) − ⟨u, v⟩`.
    pub fn excess(self, u: &[f64]) -> f64 {
        (norm_of_soft(u, self.l1) - self.l2).max(0.0)
    }

    /// The conjugate `h*(u) = excess² / (2c)`; without a ridge 0 in `B`, and ∞ outside.
    pub fn conjugate(self, u: &[f64]) -> f64 {
        let excess = self.excess(u);
        match (excess == 0.0, self.ridge == 0.0) {
            (true, _) => 0.0,
            (false, true) => f64::INFINITY,
            (false, false) => excess * excess / (2.0 * self.ridge),
        }
    }

    /// The least `ν ≥ 0` for which `u` lies in `ν B`: ∞ if `B` is only the origin and `u` is not.
    pub fn dual_norm(self, u: &[f64]) -> f64 {
        if self.l1 == 0.0 {
            let norm = norm(u);
            return if norm == 0.0 { 0.0 } else { norm / self.l2 };
        }
        self.sparse_dual_norm(u)
    }

    /// The distance of `u` from the subdifferential of `h` at `v`: 0 at a minimum of `h(v) − ⟨u, v⟩`.
    pub fn distance(self, v: &[f64], u: &[f64]) -> f64 {
        let size = norm(v);
        if size == 0.0 {
            return self.excess(u);
        }
        let apart = |(&v, &u): (&f64, &f64)| {
            if v == 0.0 {
                return (u.abs() - self.l1).max(0.0);
            }
            u - self.l1.copysign(v) - self.l2 * (v / size) - self.ridge * v
        };
        norm(&v.iter().zip(u).map(apart).collect::<Vec<_>>())
    }

    /// The root of `φ(ν) = ‖S(u, νa)‖ − νb`, which falls and is convex: with the `k` greatest magnitudes above `νa`, it is
    /// that of `(k a² − b²) ν² − 2 a s ν + q`, where `s` and `q` are their sum and sum of squares.
    fn sparse_dual_norm(self, u: &[f64]) -> f64 {
        let mut sizes: Vec<f64> = u.iter().map(|x| x.abs()).collect();
        sizes.sort_by(|x, y| y.total_cmp(x));
        let largest = sizes.first().copied().unwrap_or(0.0);
        if largest == 0.0 || !largest.is_finite() {
            return largest; // 0, ∞ or NaN
        }
        // The scale goes out of the squares.
        for x in &mut sizes {
            *x /= largest;
        }
        let phi = |nu: f64| norm_of_soft(&sizes, nu * self.l1) - nu * self.l2;
        // Where φ is not yet positive at the next smaller magnitude, that one is below νa.
        let k = 1 + sizes[1..].partition_point(|x| phi(x / self.l1) < 0.0);
        let (s, q) = sizes[..k].iter().fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
        let (a, b) = (k as f64 * self.l1 * self.l1 - self.l2 * self.l2, self.l1 * s);
        let mut nu = q / (b + libm::sqrt((b * b - a * q).max(0.0)));
        // Near a double root the square root has only half of its digits: Newton's steps return the others.
        for _ in 0..2 {
            let soft: Vec<f64> = sizes[..k].iter().map(|x| (x - nu * self.l1).max(0.0)).collect();
            let size = norm(&soft);
            let slope = if size > 0.0 { -self.l1 * soft.iter().sum::<f64>() / size } else { 0.0 } - self.l2;
            if slope < 0.0 {
                nu -= (size - nu * self.l2) / slope;
            }
        }
        nu * largest
    }
}

/// The Euclidean norm, safe where squares overflow or vanish.
///
/// ```
/// use tilewright_grouplasso::penalty::norm;
/// assert_eq!(norm(&[3e-200, 4e-200]), 5e-200);
/// assert_eq!(norm(&[]), 0.0);
/// ```
pub fn norm(v: &[f64]) -> f64 {
    let squares: f64 = v.iter().map(|x| x * x).sum();
    if (1e-280..1e280).contains(&squares) {
        return libm::sqrt(squares);
    }
    let largest = v.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if squares.is_nan() || largest == 0.0 || largest == f64::INFINITY {
        return if squares.is_nan() { squares } else { largest };
    }
    // A power of two, so that the division is exact.
    let unit = libm::ldexp(1.0, libm::ilogb(largest).clamp(-1000, 1000));
    unit * libm::sqrt(v.iter().map(|x| (x / unit) * (x / unit)).sum::<f64>())
}

/// `‖S(u, t)‖`.
pub fn norm_of_soft(u: &[f64], t: f64) -> f64 {
    if t == 0.0 {
        return norm(u);
    }
    norm(&u.iter().map(|x| soft(*x, t)).collect::<Vec<_>>())
}

/// `S(x, t)`: `x` moved towards 0 by `t`, at most to 0. NaN stays NaN.
pub fn soft(x: f64, t: f64) -> f64 {
    if x.abs() <= t { 0.0 } else { x - t.copysign(x) }
}
