//! Loops over contiguous numbers, compiled for the vectors this machine has.
//!
//! Rust neither contracts nor reassociates floating-point arithmetic: sums are spread over as many partial sums as the code
//! says, and every level gives the same bits.

// A function compiled for a level lends it to what is inlined into it, and only to that.
#![allow(clippy::inline_always)]

use tilewright_scalar::Accum;

/// Partial sums of a reduction.
const LANES: usize = 32;

/// Declares a function that runs its body compiled for the widest vectors this machine has.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$S:ident: $bound:ident>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name $(<$S: $bound>)? ($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable $(<$S: $bound>)? ($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2")]
                fn avx512 $(<$S: $bound>)? ($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$S: $bound>)? ($($arg: $type),*) $(-> $ret)? {
                    portable($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the only requirement of `avx512` are the features, which were just detected.
                    return unsafe { avx512($($arg),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the only requirement of `avx2` is the feature, which was just detected.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(super) use vectorised;

/// The sum of partial sums, by halves.
#[inline(always)]
fn fold<S: Accum, const WIDTH: usize>(mut sums: [S; WIDTH]) -> S {
    let mut width = WIDTH / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

vectorised! {
    /// `⟨x, y⟩`.
    pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
        let mut sums = [0.0f64; LANES];
        let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
        for (x, y) in xs.zip(ys) {
            for i in 0..LANES {
                sums[i] += x[i] * y[i];
            }
        }
        fold(sums) + rest
    }
}

vectorised! {
    /// `sums[k] += ⟨x, y_k⟩` for the rows `y_k` of a block, four at a time so that `x` is read once for them.
    pub(super) fn add_dots<S: Accum>(x: &[S], y: &[S], sums: &mut [S]) {
        const STEP: usize = 32;
        let n = x.len();
        for (y, sums) in y.chunks(4 * n).zip(sums.chunks_mut(4)) {
            if sums.len() < 4 {
                y.chunks(n).zip(sums).for_each(|(y, sum)| *sum += dot_accum(x, y));
                continue;
            }
            let ((a, b), (c, d)) = (y[..2 * n].split_at(n), y[2 * n..].split_at(n));
            let mut partial = [[S::zero(); STEP]; 4];
            let rows = [a.chunks_exact(STEP), b.chunks_exact(STEP), c.chunks_exact(STEP), d.chunks_exact(STEP)];
            let rest = rows.clone().map(|row| row.remainder());
            let [a, b, c, d] = rows;
            let xs = x.chunks_exact(STEP);
            let x_rest = xs.remainder();
            for ((((x, a), b), c), d) in xs.zip(a).zip(b).zip(c).zip(d) {
                for i in 0..STEP {
                    partial[0][i] += x[i] * a[i];
                    partial[1][i] += x[i] * b[i];
                    partial[2][i] += x[i] * c[i];
                    partial[3][i] += x[i] * d[i];
                }
            }
            for ((sum, partial), rest) in sums.iter_mut().zip(partial).zip(rest) {
let mut last = S::zero();
                for (x, y) in x_rest.iter().zip(rest) {
                    last += *x * *y;
                }
                *sum += fold(partial) + last;
            }
        }
    }
}

vectorised! {
    /// `Σ h x²`.
    pub(super) fn weighted_square(h: &[f64], x: &[f64]) -> f64 {
        let mut sums = [0.0f64; LANES];
        let (hs, xs) = (h.chunks_exact(LANES), x.chunks_exact(LANES));
        let rest: f64 = hs.remainder().iter().zip(xs.remainder()).map(|(h, x)| h * x * x).sum();
        for (h, x) in hs.zip(xs) {
            for i in 0..LANES {
                sums[i] += h[i] * x[i] * x[i];
            }
        }
        fold(sums) + rest
    }
}

vectorised! {
    /// `y := y + a x`.
    pub(super) fn add_scaled<S: Accum>(a: S, x: &[S], y: &mut [S]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += a * *x;
        }
    }
}

vectorised! {
    /// `y := h x`, entry by entry.
    pub(super) fn multiply<S: Accum>(h: &[S], x: &[S], y: &mut [S]) {
        for ((y, h), x) in y.iter_mut().zip(h).zip(x) {
            *y = *h * *x;
        }
    }
}

vectorised! {
    /// `⟨x, y⟩` in the precision of a Newton step.
    pub(super) fn dot_accum<S: Accum>(x: &[S], y: &[S]) -> S {
        let mut sums = [S::zero(); LANES];
        let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
        let mut sum = S::zero();
        for (x, y) in xs.remainder().iter().zip(ys.remainder()) {
            sum += *x * *y;
        }
        for (x, y) in xs.zip(ys) {
            for i in 0..LANES {
                sums[i] += x[i] * y[i];
            }
        }
        sum + fold(sums)
    }
}

vectorised! {
    /// `x := x − shift`; the greatest magnitude before that goes to the caller.
    pub(super) fn shift(x: &mut [f64], shift: f64) {
        for x in x.iter_mut() {
            *x -= shift;
        }
    }
}

vectorised! {
    /// The greatest magnitude, and whether none is NaN.
    pub(super) fn greatest(x: &[f64]) -> f64 {
        let mut most = [0.0f64; LANES];
        for x in x.chunks(LANES) {
            for (most, x) in most.iter_mut().zip(x) {
                // A NaN gets in, and nothing is greater than it.
                *most = if x.abs() > *most || x.is_nan() { x.abs() } else { *most };
            }
        }
        let mut greatest = 0.0f64;
        for most in most {
            greatest = if most > greatest || most.is_nan() { most } else { greatest };
        }
        greatest
    }
}

/// `e^x` for `x ≤ 0`, to two units in the last place; 0 below −708.
#[inline(always)]
pub(super) fn exp_of_negative(x: f64) -> f64 {
    /// Its addition rounds to an integer, whose bits are then the lowest of the sum.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    /// The bits of ln 2 that leave products with small integers exact, and the others.
    const LN_2: (f64, f64) = (6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10);
    /// `1/k!`, downwards from 13.
    const TAYLOR: [f64; 13] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let clamped = if x < -708.0 { -708.0 } else { x };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    let r = (clamped - k * LN_2.0) - k * LN_2.1;
    let mut sum = 1.0 / 6_227_020_800.0;
    for coefficient in TAYLOR {
        sum = sum * r + coefficient;
    }
    let scaled = f64::from_bits(sum.to_bits().wrapping_add(shifted.to_bits() << 52));
    if x < -708.0 { 0.0 } else { scaled }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_good_to_two_units(x in -708.0..=0.0f64) {
            prop_assert!((exp_of_negative(x) - x.exp()).abs() <= 3.0 * f64::EPSILON * x.exp());
        }

        #[test]
        fn reductions(x in proptest::collection::vec(-8i32..8, 0..200)) {
            let x: Vec<f64> = x.into_iter().map(f64::from).collect();
            let squares: f64 = x.iter().map(|x| x * x).sum();
            prop_assert_eq!((dot(&x, &x), weighted_square(&vec![2.0; x.len()], &x)), (squares, 2.0 * squares));
            prop_assert_eq!(greatest(&x), x.iter().fold(0.0, |most, x| x.abs().max(most)));
            let (both, mut sums) = ([&x[..], &x, &x, &x, &x, &x].concat(), [1.0; 6]);
            if !x.is_empty() {
                add_dots(&x, &both, &mut sums);
                prop_assert!(sums.iter().all(|sum| *sum == 1.0 + squares));
            }
            for spoiled in 0..x.len() {
                let mut y = x.clone();
                y[spoiled] = f64::NAN;
                prop_assert!(greatest(&y).is_nan());
            }
        }
    }

    #[test]
    fn edges_of_exp() {
        assert_eq!((exp_of_negative(0.0), exp_of_negative(-1e9), exp_of_negative(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp_of_negative(f64::NAN).is_nan());
    }
}
