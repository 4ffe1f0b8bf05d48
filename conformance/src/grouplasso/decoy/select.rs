//! Scores and selections gone wrong.

use super::{Decoy, Wrong, decoy};
use crate::grouplasso::judge::kept;
use crate::grouplasso::subject::Feature;
use ndarray::ArrayView2;
use tilewright_grouplasso::Keep;
use tilewright_scalar::Format;

/// A selection with its right answer.
#[derive(Clone, Copy, Debug)]
pub struct SelectMoment<'a> {
    /// What the matrix is stored in.
    pub format: Format,
    /// The matrix.
    pub w: ArrayView2<'a, f64>,
    /// Scores to select by, none of them NaN.
    pub scores: &'a [f64],
    /// How many are kept.
    pub keep: Keep,
}

// Some mistakes cannot always be made, so all of them are optional.
#[allow(clippy::unnecessary_wraps)]
impl SelectMoment<'_> {
    fn each(&self, score: impl Fn(&[f64]) -> f64) -> Option<Vec<f64>> {
        Some(self.w.rows().into_iter().map(|row| score(&row.to_vec())).collect())
    }

    fn right(&self) -> Vec<usize> {
        kept(self.scores, self.keep)
    }

    /// As many, but the best of other scores.
    fn best_of(&self, scores: &[f64]) -> Option<Vec<usize>> {
        Some(kept(scores, Keep::Features(self.right().len())))
    }

    fn accum(&self) -> Format {
        if self.format == Format::F64 { Format::F64 } else { Format::F32 }
    }
}

const fn scores(
    feature: Option<Feature>,
    name: &'static str,
    wrong: fn(&SelectMoment<'_>) -> Option<Vec<f64>>,
) -> Decoy {
    decoy(name, feature, Wrong::Scores(wrong))
}

const fn select(
    feature: Option<Feature>,
    name: &'static str,
    wrong: fn(&SelectMoment<'_>) -> Option<Vec<usize>>,
) -> Decoy {
    decoy(name, feature, Wrong::Select(wrong))
}

pub(super) static DECOYS: &[Decoy] = &[
    scores(None, "sums of magnitudes for norms", |m| m.each(|row| row.iter().map(|x| x.abs()).sum())),
    scores(None, "squared norms", |m| m.each(|row| row.iter().map(|x| x * x).sum())),
    scores(None, "greatest magnitudes for norms", |m| m.each(|row| row.iter().fold(0.0, |most, x| most.max(x.abs())))),
    scores(Some(Feature::NonFinite), "NaN and infinities taken for zero", |m| {
        m.each(|row| row.iter().filter(|x| x.is_finite()).map(|x| x * x).sum::<f64>().sqrt())
    }),
    scores(Some(Feature::Extremes), "squares overflow or vanish", |m| {
        let accum = m.accum();
        m.each(|row| accum.round(row.iter().map(|x| accum.round(x * x)).sum::<f64>()).sqrt())
    }),
    select(None, "in order of score", |m| {
        let mut list = m.right();
        list.sort_by(|a, b| m.scores[*b].total_cmp(&m.scores[*a]));
        Some(list)
    }),
    select(None, "the worst", |m| m.best_of(&m.scores.iter().map(|s| -s).collect::<Vec<_>>())),
    select(None, "of equal ones the last", |m| {
        let last = |i: &usize| m.scores.len() - 1 - i;
        let reversed: Vec<f64> = m.scores.iter().rev().copied().collect();
        Some(kept(&reversed, Keep::Features(m.right().len())).iter().rev().map(last).collect())
    }),
    select(Some(Feature::KeepFraction), "one too many", |m| Some(kept(m.scores, Keep::Features(m.right().len() + 1)))),
    select(Some(Feature::KeepFraction), "none, where it is less than one", |m| match m.keep {
        Keep::Fraction(share) if share * (m.scores.len() as f64) < 1.0 => Some(Vec::new()),
        _ => None,
    }),
    select(Some(Feature::KeepCount), "one too few", |m| Some(kept(m.scores, Keep::Features(m.right().len() - 1)))),
    select(Some(Feature::KeepCount), "the first", |m| Some((0..m.right().len()).collect())),
];
