//! From running states to `O` and LSE: merging key ranges by LSE, adding the sink, dividing.

use crate::attention::forward::Rows;
use crate::attention::layout::{Head, Problem};
use crate::attention::{Fault, Rescaling};
use core::f64::consts::LOG2_E;
use tilewright_scalar::{Element, Format, Real};

impl<T: Element> Problem<'_, '_, T> {
    /// Normalises row `r` of a query tile into `o` and returns its LSE.
    pub(crate) fn finish_row<A: Real>(&self, head: &Head<A>, partials: &[Rows<A>], r: usize, o: &mut Vec<A>) -> A {
        let (m, l) = match partials {
            [rows] => self.take_row(rows, r, head.dv, o),
            _ => self.merge(partials, r, head.dv, o),
        };
        let sink = self.sink::<A>(head.h);
        if l.is_zero() && !self.is(Fault::EmptyRowNan) {
            o.fill(A::zero());
            return self.empty_lse(m, sink);
        }
        let m_sink = m.maximum(sink);
        let beta = if m == m_sink { A::one() } else { self.by.exp(m, m_sink) };
        let tiles = partials.iter().map(|rows| rows.tiles[r]).sum();
        let l_sink = beta * l + self.sink_weight(sink, m_sink, tiles, partials.len());
        for (c, x) in o.iter_mut().enumerate() {
            let mut numerator = *x * beta;
            if self.is(Fault::SinkInNumerator) && sink != A::neg_infinity() && !head.v.is_empty() {
                numerator += self.by.exp(sink, m_sink) * head.v[c];
            }
            *x = self.divide(numerator, l_sink, tiles);
        }
        self.store_lse(if self.is(Fault::LseWithoutSink) { (m, l) } else { (m_sink, l_sink) })
    }

    fn divide<A: Real>(&self, numerator: A, l: A, tiles: usize) -> A {
        match self.by.fault {
            Some(Fault::SingleTileNotDivided) if tiles == 1 => numerator,
            Some(Fault::EpsilonInDenominator) => numerator / (l + A::from_f64(1e-3)),
            _ => numerator / l,
        }
    }

    /// LSE of a row that sees no key.
    fn empty_lse<A: Real>(&self, m: A, sink: A) -> A {
        match self.by.fault {
            Some(Fault::EmptyRowLosesSink | Fault::SinkIgnored) => A::neg_infinity(),
            Some(Fault::EmptyRowFiniteLse) if sink == A::neg_infinity() => A::zero(),
            Some(Fault::MaximumStartsFinite) => m.maximum(sink),
            _ => sink,
        }
    }

    /// `LSE = m + ln ℓ`.
    fn store_lse<A: Real>(&self, (m, l): (A, A)) -> A {
        let lse = m + l.ln();
        match self.by.fault {
            Some(Fault::LseBaseTwo) => lse * A::from_f64(LOG2_E),
            Some(Fault::LseWithoutMaximum) => l.ln(),
            Some(Fault::LseSign) => -lse,
            Some(Fault::LseInBf16) => A::from_f64(Format::BF16.round(lse.to_f64())),
            _ => lse,
        }
    }

    /// The sink of a head, −∞ without one.
    pub(crate) fn sink<A: Real>(&self, h: usize) -> A {
        let h = if self.is(Fault::SinkOfOtherHead) { self.spec.kv_head(h) } else { h };
        let sink = self.inputs.sink.filter(|_| !self.is(Fault::SinkIgnored));
        sink.map_or(A::neg_infinity(), |sink| A::from_f64(Real::to_f64(sink[h])))
    }

    fn sink_weight<A: Real>(&self, sink: A, m: A, tiles: usize, splits: usize) -> A {
        if sink == A::neg_infinity() {
            return A::zero();
        }
        let times = match self.by.fault {
            Some(Fault::SinkInMaximumOnly) => 0,
            Some(Fault::SinkOncePerTile) => tiles,
            Some(Fault::MergeSinkPerSplit) => splits,
            _ => 1,
        };
        A::from_f64(times as f64) * self.by.exp(sink, m)
    }

    /// `m`, `ℓ` and the unnormalised `O` of a row.
    fn take_row<A: Real>(&self, rows: &Rows<A>, r: usize, dv: usize, acc: &mut Vec<A>) -> (A, A) {
        let (m, l) = (rows.m[r], rows.l[r]);
        let normalised = self.by.variant.rescaling == Rescaling::Normalised;
        acc.clear();
        acc.extend(rows.acc[r * dv..(r + 1) * dv].iter().map(|&x| if normalised { x * l } else { x }));
        (m, l)
    }

    /// Merges key ranges: with `LSE_s`, `O_s` of each, `L = Σ e^{LSE_s − M}`, `O = Σ e^{LSE_s − M} O_s / L`.
    /// Returns `M`, `L` and leaves the unnormalised sum in `acc`.
    fn merge<A: Real>(&self, partials: &[Rows<A>], r: usize, dv: usize, acc: &mut Vec<A>) -> (A, A) {
        let dropped = usize::from(self.is(Fault::MergeLastSplitDropped));
        let partials = &partials[..partials.len() - dropped];
        let seen = |rows: &&Rows<A>| !rows.l[r].is_zero() || self.is(Fault::MergeEmptySplitNan);
        let key = |rows: &Rows<A>| match self.by.fault {
            Some(Fault::MergeByMaximum) => rows.m[r],
            _ => rows.m[r] + rows.l[r].ln(),
        };
        let m = match self.by.fault {
            Some(Fault::MergeWeightsNotShifted) => A::zero(),
            _ => partials.iter().filter(seen).map(key).fold(A::neg_infinity(), A::maximum),
        };
        acc.clear();
        acc.resize(dv, A::zero());
        let mut l = A::zero();
        for rows in partials.iter().filter(seen) {
            let weight = if self.is(Fault::MergeEqualWeights) { A::one() } else { self.by.exp(key(rows), m) };
            l += weight;
            let normalised = self.by.variant.rescaling == Rescaling::Normalised;
            for (x, &partial) in acc.iter_mut().zip(&rows.acc[r * dv..(r + 1) * dv]) {
                *x += weight * if normalised { partial } else { partial / rows.l[r] };
            }
        }
        if self.is(Fault::MergeLseMaximum) && !l.is_zero() {
            // O is right; only the sum under the logarithm is forgotten.
            for x in acc.iter_mut() {
                *x = *x / l;
            }
            l = A::one();
        }
        (m, l)
    }
}
