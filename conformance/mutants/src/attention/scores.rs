//! A tile of scores: `s = τ q·k`, softcap, bias, ALiBi, mask.

use crate::attention::layout::{Head, Problem, load};
use crate::attention::{Fault, Rounding};
use core::ops::Range;
use tilewright_attention::tensors::broadcast_index;
use tilewright_scalar::{Element, Real};

/// The finite stand-in for −∞ of [`Fault::EmptyRowMeanOfValues`].
const FINITE_MASK: f64 = -1e9;

/// One entry of the score matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score<A> {
    /// The score; −∞ if masked.
    pub(crate) s: A,
    /// `∂s / ∂(τ q·k)`.
    pub(crate) slope: A,
    /// `Z_ij`.
    pub(crate) z: A,
    /// Whether the mask lets it through.
    pub(crate) visible: bool,
}

impl<T: Element> Problem<'_, '_, T> {
    /// Scores of `rows × cols`, row by row.
    pub(crate) fn score_tile<A: Real>(
        &self,
        head: &Head<A>,
        rows: &Range<usize>,
        cols: &Range<usize>,
        tile: &mut Vec<Score<A>>,
    ) {
        tile.clear();
        for i in rows.clone() {
            for j in cols.clone() {
                tile.push(self.score(head, i, j, (rows.start, cols.start)));
            }
        }
    }

    fn score<A: Real>(&self, head: &Head<A>, i: usize, j: usize, origin: (usize, usize)) -> Score<A> {
        let visible = self.visible(head.b, head.h, i, j);
        // Two faults look at scores behind the mask.
        let needed = visible || self.is(Fault::MaximumBeforeMask) || self.is(Fault::ValueGradientUnmasked);
        let (s, slope) = if needed { self.unmasked_score(head, i, j) } else { (A::neg_infinity(), A::zero()) };
        let (s, visible) = match self.by.fault {
            Some(Fault::EmptyRowMeanOfValues) if !visible => (A::from_f64(FINITE_MASK), true),
            Some(Fault::SoftcapAfterMask) if !visible => match self.spec.softcap {
                Some(cap) => (A::from_f64(-cap), true),
                None => (s, false),
            },
            _ => (s, visible),
        };
        let z = A::from_f64(self.dropout_factor(head.b, head.h, i, j, origin));
        Score { s, slope, z, visible }
    }

    fn unmasked_score<A: Real>(&self, head: &Head<A>, i: usize, j: usize) -> (A, A) {
        let (q, k) = (&head.q[i * head.d..(i + 1) * head.d], &head.k[j * head.d..(j + 1) * head.d]);
        let columns = if self.is(Fault::DotTailDropped) { head.d - head.d % 8 } else { head.d };
        let product = self.by.sum(A::zero(), q.iter().copied().zip(k.iter().copied()).take(columns));
        let bias = self.bias(head, i, j);
        let scaled = self.apply_scale(product);
        let (mut s, slope) = if self.is(Fault::SoftcapAfterBias) {
            self.apply_softcap(scaled + bias.unwrap_or_else(A::zero))
        } else if self.is(Fault::ScaleAfterSoftcap) && self.spec.softcap.is_some() {
            let (capped, slope) = self.apply_softcap(product);
            (self.apply_scale(capped), slope)
        } else {
            self.apply_softcap(scaled)
        };
        if let Some(bias) = bias.filter(|_| !self.is(Fault::SoftcapAfterBias)) {
            s += bias;
        }
        if self.spec.alibi.is_some() {
            let alibi = A::from_f64(self.alibi(head.b, head.h, i, j));
            s += if self.is(Fault::AlibiScaled) { self.apply_scale(alibi) } else { alibi };
        }
        (self.by.round(self.by.variant.scores, s), slope)
    }

    fn apply_scale<A: Real>(&self, x: A) -> A {
        let scale = A::from_f64(self.scale());
        if self.is(Fault::ScaleTwice) {
            return x * scale * scale;
        }
        if self.by.variant.scales_queries { x } else { x * scale }
    }

    /// `c tanh(s / c)` and its derivative.
    fn apply_softcap<A: Real>(&self, s: A) -> (A, A) {
        let Some(cap) = self.spec.softcap.map(A::from_f64) else { return (s, A::one()) };
        let t = if self.is(Fault::SoftcapNotDivided) { s.tanh() } else { (s / cap).tanh() };
        (cap * t, if self.is(Fault::SoftcapDerivativeMissing) { A::one() } else { A::one() - t * t })
    }

    fn bias<A: Real>(&self, head: &Head<A>, i: usize, j: usize) -> Option<A> {
        let bias = self.inputs.bias.filter(|_| !self.is(Fault::BiasIgnored))?;
        let b = if self.is(Fault::BiasOfFirstBatch) { 0 } else { head.b };
        let h = if self.is(Fault::BiasOfFirstHead) { 0 } else { head.h };
        let mut index = broadcast_index(bias.dim(), b, h, i, j);
        if self.is(Fault::BiasWrongAxis) && bias.dim().2 == 1 {
            index[3] = i % bias.dim().3;
        }
        // Outside the bias only under a fault that reads keys past the length.
        let value = bias.get(index).map_or(A::zero(), |&bias| load(bias));
        Some(match self.by.fault {
            Some(Fault::BiasInBaseTwoUnits) => value * A::from_f64(core::f64::consts::LN_2),
            Some(Fault::BiasScaled) => self.apply_scale(value),
            _ => value,
        })
    }

    /// What a running result is rounded to between tiles, declared or not.
    pub(crate) fn output_rounding(&self) -> Rounding {
        if self.is(Fault::OutputInStorage) { Rounding::Storage } else { self.by.variant.output }
    }
}
