//! The columns of `X`: checked once, and read in tiles, standardised as they are read.

use super::simd::{greatest, shift, weighted_square};
use ndarray::ArrayView2;
use rayon::prelude::*;
use tilewright_grouplasso::data::check_column;
use tilewright_grouplasso::spec::LARGEST;
use tilewright_grouplasso::{Columns, GroupLassoError, Standardise};
use tilewright_scalar::Element;

/// Numbers of a tile, so that it stays in the second-level cache.
const TILE: usize = 1 << 15;

/// `X`, and what is done to its columns.
///
/// A column is *centred* when it is read if there is an intercept, asked for or not: that changes nothing but the intercept,
/// and the problem without the means is the better conditioned one.
#[derive(Clone, Debug)]
pub(super) struct Features<'a, T> {
    x: ArrayView2<'a, T>,
    /// Means and scales as the specification has them.
    pub(super) columns: Columns,
    /// What is subtracted on reading; the mean, or 0.
    shifts: Vec<f64>,
}

impl<'a, T: Element> Features<'a, T> {
    /// Checks all numbers, and finds means and scales of the columns under the sample weights `omega`.
    pub(super) fn new(
        x: ArrayView2<'a, T>,
        standardise: Standardise,
        intercept: bool,
        omega: &[f64],
    ) -> Result<Self, GroupLassoError> {
        let (samples, features) = x.dim();
        let tile = tile_rows(samples);
        let centred = standardise.centre || intercept;
        let mut found = vec![(0.0, 1.0); features];
        let survey = |(piece, found): (usize, &mut [(f64, f64)])| {
            let first = piece * tile;
            let mut buffer = vec![0.0; found.len() * samples];
            read(x, first..first + found.len(), &mut buffer);
            for (within, (found, column)) in found.iter_mut().zip(buffer.chunks_exact_mut(samples.max(1))).enumerate() {
                let largest = greatest(column);
                if largest > LARGEST || largest.is_nan() {
                    check_column(first + within, x.column(first + within))?;
                }
                *found = mean_and_scale(column, largest, centred, standardise.scale, omega);
            }
            Ok(())
        };
        // The first error in order of features, whoever found one first.
        let errors: Vec<Result<(), GroupLassoError>> = found.par_chunks_mut(tile).enumerate().map(survey).collect();
        errors.into_iter().collect::<Result<(), _>>()?;
        let (shifts, scale): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
        let mean = if standardise.centre { shifts.clone() } else { vec![0.0; features] };
        Ok(Self { x, columns: Columns { mean, scale }, shifts })
    }

    /// Features in a tile.
    pub(super) fn tile(&self) -> usize {
        tile_rows(self.x.nrows())
    }

    /// What the mean of a standardised column is, the intercept aside: what [`read`](Self::read) takes away though the
    /// specification does not.
    pub(super) fn offset(&self, feature: usize) -> f64 {
        (self.shifts[feature] - self.columns.mean[feature]) / self.columns.scale[feature]
    }

    /// Reads columns into rows of `out`: shifted, not yet scaled.
    pub(super) fn read(&self, features: impl ExactSizeIterator<Item = usize> + Clone, out: &mut [f64]) {
        read(self.x, features.clone(), out);
        for (feature, column) in features.zip(out.chunks_exact_mut(self.x.nrows().max(1))) {
            if self.shifts[feature] != 0.0 {
                shift(column, self.shifts[feature]);
            }
        }
    }
}

fn tile_rows(samples: usize) -> usize {
    (TILE / samples.max(1)).clamp(8, 256)
}

/// Converts columns into rows of `out`.
fn read<T: Element>(x: ArrayView2<'_, T>, features: impl ExactSizeIterator<Item = usize> + Clone, out: &mut [f64]) {
    let samples = x.nrows().max(1);
    let contiguous = x.strides()[0] == 1;
    if contiguous {
        for (feature, out) in features.zip(out.chunks_exact_mut(samples)) {
            let column = x.column(feature);
            match column.as_slice() {
                Some(column) => out.iter_mut().zip(column).for_each(|(out, x)| *out = x.to_f64()),
                None => out.iter_mut().zip(column).for_each(|(out, x)| *out = x.to_f64()),
            }
        }
        return;
    }
    // Sample by sample, so that what lies side by side in memory is read side by side.
    for (i, row) in x.rows().into_iter().enumerate() {
        for (at, feature) in features.clone().enumerate() {
            out[at * samples + i] = row[feature].to_f64();
        }
    }
}

/// The mean (0 unless `centred`) and the scale of a column, as [`Columns::of_one`] defines them. The column is shifted.
fn mean_and_scale(column: &mut [f64], largest: f64, centred: bool, scale: bool, omega: &[f64]) -> (f64, f64) {
    if !centred && !scale || largest == 0.0 {
        return (0.0, 1.0);
    }
    let mean = super::simd::dot(omega, column);
    if !scale {
        return (mean, 1.0);
    }
    shift(column, mean);
    let deviation = deviation(column, omega);
    // Few columns are near enough for a second look.
    let constant = deviation <= column.len() as f64 * f64::EPSILON * largest
        && Columns::is_constant(column.iter().map(|x| x + mean), omega, deviation);
    (if centred { mean } else { 0.0 }, if constant { 1.0 } else { deviation })
}

/// `√(Σ ω̂ x²)`, safe where squares vanish.
pub(super) fn deviation(column: &[f64], omega: &[f64]) -> f64 {
    let squares = weighted_square(omega, column);
    if squares > 1e-280 {
        return squares.sqrt();
    }
    let largest = greatest(column);
    if largest == 0.0 {
        return 0.0;
    }
    column.iter().zip(omega).map(|(x, omega)| omega * (x / largest) * (x / largest)).sum::<f64>().sqrt() * largest
}
