//! What makes conjugate gradients short: an approximate inverse of the Newton system in two parts.
//!
//! *Across* the groups' directions the penalty's curvature `D` dominates or regularises, and the outputs decouple once every
//! sample's Hessian is replaced by its mean curvature `h`: `P = X h Xᵀ + D`, one matrix of `m × m` for all `C` outputs. *Along*
//! them, `v̂_g`, the penalty of a group is linear and has no curvature, which `P` cannot know; there the system is
//! `E = Vᵀ (X h Xᵀ ⊗ I) V`, with a row and a column a group. The sum
//!
//! ```text
//! M⁻¹ = P⁻¹ ⊗ I + V E⁻¹ Vᵀ
//! ```
//!
//! is symmetric and positive definite, and leaves a handful of steps where `P` alone takes a hundred.
//!
//! With many more rows than samples `P` is inverted through an `n × n` matrix (Woodbury), and `E`, if its groups are few enough
//! to be worth it, is made of the images `Xᵀv̂_g`, with the loss's own Hessian.

use super::cholesky::Cholesky;
use super::gemm::{FromExact, Operand, product, symmetric, symmetric_transposed};
use super::newton::System;
use super::simd::multiply;
use rayon::prelude::*;
use tilewright_scalar::Accum;

/// Rows a sample from which on the small matrix is the one of samples.
const WIDE: usize = 2;

/// Added to diagonals, as a share of them, and more if that is not enough.
const RIDGES: [f64; 3] = [1e-6, 1e-4, 1e-2];

/// Steps of conjugate gradients that may be spent on `E`, each of which touches `m` rows twice.
const SWEEPS: usize = 60;

/// Samples of a piece of work.
const PIECE: usize = 256;

/// The approximate inverse.
#[derive(Debug)]
pub(super) enum Preconditioner<S> {
    /// `P` and, if there is any group with a direction, `E`.
    Rows { p: Option<Cholesky<S>>, e: Option<Cholesky<S>> },
    /// `P⁻¹ = D^−½ (I − Tᵀ K⁻¹ T) D^−½` with `T = √h Xᵀ D^−½`, kept as `Tᵀ`, and `K = I + T Tᵀ`.
    Samples { k: Option<Cholesky<S>>, t: Vec<S>, root: Vec<S>, e: Option<Cholesky<S>> },
}

impl<S: Accum> Preconditioner<S> {
    pub(super) fn new(system: &System<'_, S>, curvature: &[f64]) -> Self {
        let (m, _) = system.shape();
        let diagonal = diagonal(system);
        if m > WIDE * system.samples() {
            Self::samples(system, curvature, &diagonal)
        } else {
            Self::rows(system, curvature, &diagonal)
        }
    }

    fn rows(system: &System<'_, S>, curvature: &[f64], diagonal: &[f64]) -> Self {
        let ((m, _), n) = (system.shape(), system.samples());
        let h: Vec<S> = super::target::convert(curvature);
        let mut weighted = vec![S::zero(); m * n];
        weighted.par_chunks_mut(n).zip(system.x.par_chunks(n)).for_each(|(to, x)| multiply(&h, x, to));
        let gram = || symmetric(m, n, &weighted, &system.x);
        let first = gram();
        let e = radial(system, &first);
        Self::Rows { p: factor(m, first, gram, |i| diagonal[i]), e }
    }

    fn samples(system: &System<'_, S>, curvature: &[f64], diagonal: &[f64]) -> Self {
        let ((m, _), n) = (system.shape(), system.samples());
        let root: Vec<S> = diagonal.iter().map(|d| S::from_f64_exact(1.0 / d.max(RIDGES[1]).sqrt())).collect();
        let h: Vec<S> = curvature.iter().map(|h| S::from_f64_exact(h.sqrt())).collect();
        let mut t = vec![S::zero(); m * n];
        t.par_chunks_mut(n).zip(system.x.par_chunks(n)).zip(&root).for_each(|((t, x), root)| {
            multiply(&h, x, t);
            for t in t {
                *t *= *root;
            }
        });
        let k = || symmetric_transposed(n, m, &t);
        let k = factor(n, k(), k, |_| 1.0);
        Self::Samples { k, t, root, e: radial_of_images(system) }
    }

    /// `M⁻¹ r`.
    pub(super) fn apply(&self, system: &System<'_, S>, r: &[S]) -> Vec<S> {
        let (m, c) = system.shape();
        let mut y = r.to_vec();
        match self {
            Self::Rows { p, e } => {
                if let Some(p) = p {
                    p.solve(&mut y, c);
                }
                add_radial(system, e.as_ref(), r, &mut y);
            }
            Self::Samples { k, t, root, e } => {
                let n = system.samples();
                let scale = |y: &mut [S]| {
                    y.chunks_mut(c).zip(root).for_each(|(y, root)| y.iter_mut().for_each(|y| *y *= *root));
                };
                scale(&mut y);
                let mut z = vec![S::zero(); n * c];
                z.par_chunks_mut(PIECE * c).enumerate().for_each(|(piece, z)| {
                    let t = Operand::transposed(&t[piece * PIECE..], n);
                    product((z.len() / c, c, m), 1.0, t, Operand::by_rows(&y, c), false, z, c);
                });
                if let Some(k) = k {
                    k.solve(&mut z, c);
                    y.par_chunks_mut(PIECE * c).enumerate().for_each(|(piece, y)| {
                        let t = Operand::by_rows(&t[piece * PIECE * n..], n);
                        product((y.len() / c, c, n), -1.0, t, Operand::by_rows(&z, c), true, y, c);
                    });
                }
                scale(&mut y);
                add_radial(system, e.as_ref(), r, &mut y);
            }
        }
        y
    }
}

/// `y := y + V E⁻¹ Vᵀ r`.
fn add_radial<S: Accum>(system: &System<'_, S>, e: Option<&Cholesky<S>>, r: &[S], y: &mut [S]) {
    let Some(e) = e else { return };
    let kinked = || system.groups.iter().filter(|group| group.kinked);
    let mut a: Vec<S> = kinked().map(|group| system.radial(group, r)).collect();
    e.solve(&mut a, 1);
    kinked().zip(a).for_each(|(group, a)| system.add_radial(group, a, y));
}

/// `D` for every row of the support.
fn diagonal<S: Accum>(system: &System<'_, S>) -> Vec<f64> {
    let of_group = |group: &super::newton::Active| std::iter::repeat_n(group.across + group.along, group.rows.len());
    system.groups.iter().flat_map(of_group).collect()
}

/// `E`, factored: sums over the blocks of `(X h Xᵀ) ∘ (V̂ V̂ᵀ)`, in which row `i` of `V̂` is row `i`'s part of its group's `v̂`.
fn radial<S: Accum>(system: &System<'_, S>, gram: &[S]) -> Option<Cholesky<S>> {
    let (m, c) = system.shape();
    let cosines = symmetric(m, c, &system.unit, &system.unit);
    let kinked: Vec<_> = system.groups.iter().filter(|group| group.kinked).collect();
    let q = kinked.len();
    if q == 0 {
        return None;
    }
    let e = || {
        let mut e = vec![S::zero(); q * q];
        e.par_chunks_mut(q).with_min_len(16).enumerate().for_each(|(at, e)| {
            for (e, other) in e.iter_mut().zip(&kinked[..=at]) {
                for i in kinked[at].rows.clone() {
                    for j in other.rows.clone() {
                        // Only the lower triangles are there.
                        let place = i.max(j) * m + i.min(j);
                        *e += gram[place] * cosines[place];
                    }
                }
            }
        });
        e
    };
    factor(q, e(), e, |group| kinked[group].along)
}

/// `E` by the images of the directions, if that costs no more than some steps of conjugate gradients.
fn radial_of_images<S: Accum>(system: &System<'_, S>) -> Option<Cholesky<S>> {
    let ((m, _), kinked) = (system.shape(), || system.groups.iter().filter(|group| group.kinked));
    let q = kinked().count();
    if q == 0 || q * q > SWEEPS * m {
        return None;
    }
    let (images, curved) = system.images();
    let along: Vec<f64> = kinked().map(|group| group.along).collect();
    let e = || symmetric(q, images.len() / q, &curved, &images);
    factor(q, e(), e, |group| along[group])
}

/// Factors `A + diag(d)`, made a little more definite, as much as it takes; `again` makes another `A`.
fn factor<S: Accum>(n: usize, a: Vec<S>, again: impl Fn() -> Vec<S>, d: impl Fn(usize) -> f64) -> Option<Cholesky<S>> {
    let mut first = Some(a);
    RIDGES.iter().find_map(|ridge| {
        let mut a = first.take().unwrap_or_else(&again);
        for i in 0..n {
            let old = a[i * n + i] + S::from_f64_exact(d(i));
            a[i * n + i] = old + old * S::from_f64_exact(*ridge) + S::from_f64_exact(1e-30);
        }
        Cholesky::new(n, a)
    })
}
