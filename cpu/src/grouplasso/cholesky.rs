//! Cholesky's factorisation, blocked: everything of cubic cost is a matrix product.

use super::gemm::{FromExact, Operand, product};
use rayon::prelude::*;
use tilewright_scalar::Accum;

/// Columns eliminated at a time.
const PANEL: usize = 64;

/// Rows of the rest updated at a time.
const ROWS: usize = 128;

/// `A = L Lᵀ`.
#[derive(Clone, Debug)]
pub(super) struct Cholesky<S> {
    n: usize,
    /// Row-major; what is above the diagonal means nothing.
    l: Vec<S>,
    /// The inverses of the diagonal blocks of `L`, so that solving is products too.
    inverses: Vec<Vec<S>>,
}

impl<S: Accum> Cholesky<S> {
    /// Factors the matrix whose lower triangle is given, row-major; none if it is not positive definite in this precision.
    pub(super) fn new(n: usize, mut a: Vec<S>) -> Option<Self> {
        let mut inverses = Vec::with_capacity(n.div_ceil(PANEL));
        let mut panel = Vec::new();
        for first in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - first);
            factor_block(&mut a, n, first, width)?;
            let inverse = invert_block(&a, n, first, width);
            let next = first + width;
            panel.resize((n - next) * width, S::from_f64_exact(0.0));
            let shape = (n - next, width, width);
            if next < n {
                let below = Operand::by_rows(&a[next * n + first..], n);
                product(shape, 1.0, below, Operand::transposed(&inverse, width), false, &mut panel, width);
            }
            a[next * n..].par_chunks_mut(ROWS * n).enumerate().for_each(|(piece, rows)| {
                let (above, count) = (piece * ROWS, rows.len() / n);
                let own = &panel[above * width..];
                for (row, values) in rows.chunks_mut(n).zip(own.chunks(width)) {
                    row[first..next].copy_from_slice(values);
                }
                let (own, all) = (Operand::by_rows(own, width), Operand::transposed(&panel, width));
                product((count, above + count, width), -1.0, own, all, true, &mut rows[next..], n);
            });
            inverses.push(inverse);
        }
        Some(Self { n, l: a, inverses })
    }

    /// `B := A⁻¹ B` for `B` of `n × columns`, row-major.
    pub(super) fn solve(&self, b: &mut [S], columns: usize) {
        let n = self.n;
        let mut solved = vec![S::from_f64_exact(0.0); PANEL * columns];
        for (block, inverse) in self.inverses.iter().enumerate() {
            let first = block * PANEL;
            let width = PANEL.min(n - first);
            let (done, rest) = b.split_at_mut(first * columns);
            let left = Operand::by_rows(&self.l[first * n..], n);
            if first > 0 {
                product((width, columns, first), -1.0, left, Operand::by_rows(done, columns), true, rest, columns);
            }
            let (inverse, right) = (Operand::by_rows(inverse, width), Operand::by_rows(rest, columns));
            product((width, columns, width), 1.0, inverse, right, false, &mut solved, columns);
            rest[..width * columns].copy_from_slice(&solved[..width * columns]);
        }
        for (block, inverse) in self.inverses.iter().enumerate().rev() {
            let first = block * PANEL;
            let width = PANEL.min(n - first);
            let next = first + width;
            let (rest, done) = b.split_at_mut(next * columns);
            let rest = &mut rest[first * columns..];
            if next < n {
                let below = Operand::transposed(&self.l[next * n + first..], n);
                let shape = (width, columns, n - next);
                product(shape, -1.0, below, Operand::by_rows(done, columns), true, rest, columns);
            }
            let (inverse, right) = (Operand::transposed(inverse, width), Operand::by_rows(rest, columns));
            product((width, columns, width), 1.0, inverse, right, false, &mut solved, columns);
            rest.copy_from_slice(&solved[..width * columns]);
        }
    }
}

/// The textbook's loops on a diagonal block, whose earlier columns have been eliminated.
fn factor_block<S: Accum>(a: &mut [S], n: usize, first: usize, width: usize) -> Option<()> {
    for j in first..first + width {
        for i in j..first + width {
            let mut sum = a[i * n + j];
            for k in first..j {
                sum -= a[i * n + k] * a[j * n + k];
            }
            if i > j {
                a[i * n + j] = sum / a[j * n + j];
                continue;
            }
            // Also false for NaN.
            if !(sum > S::from_f64_exact(0.0) && sum < S::from_f64_exact(f64::INFINITY)) {
                return None;
            }
            a[j * n + j] = S::from_f64_exact(tilewright_scalar::Real::to_f64(sum).sqrt());
        }
    }
    Some(())
}

/// The inverse of a lower triangular diagonal block.
fn invert_block<S: Accum>(l: &[S], n: usize, first: usize, width: usize) -> Vec<S> {
    let at = |i: usize, j: usize| l[(first + i) * n + first + j];
    let mut inverse = vec![S::from_f64_exact(0.0); width * width];
    for j in 0..width {
        inverse[j * width + j] = S::from_f64_exact(1.0) / at(j, j);
        for i in j + 1..width {
            let mut sum = S::from_f64_exact(0.0);
            for k in j..i {
                sum -= at(i, k) * inverse[k * width + j];
            }
            inverse[i * width + j] = sum / at(i, i);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn solves(n in 1usize..300, columns in 1usize..5, seed in 0usize..1000) {
            let noise = |i: usize| (((i + seed) * 7919) % 1013) as f64 / 1013.0 - 0.5;
            let mut a = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..i {
                    (a[i * n + j], a[j * n + i]) = (noise(i * n + j), noise(i * n + j));
                }
                a[i * n + i] = n as f64;
            }
            let x: Vec<f64> = (0..n * columns).map(noise).collect();
            let mut b = vec![0.0; n * columns];
            product((n, columns, n), 1.0, Operand::by_rows(&a, n), Operand::by_rows(&x, columns), false, &mut b, columns);
            Cholesky::new(n, a).unwrap().solve(&mut b, columns);
            prop_assert!(b.iter().zip(&x).all(|(b, x)| (b - x).abs() < 1e-10));
        }

        #[test]
        fn refuses_what_is_not_positive_definite(n in 1usize..200, spoiled in 0usize..200) {
            let spoiled = spoiled % n;
            let mut a = vec![0.0f32; n * n];
            (0..n).for_each(|i| a[i * n + i] = if i == spoiled { -1.0 } else { 1.0 });
            prop_assert!(Cholesky::new(n, a).is_none());
        }
    }
}
