//! Softmax in one pass over the scores (Milakov & Gimelshein), as FlashAttention's tiles use it.

use tilewright_scalar::Real;

/// The running maximum `m` and the running sum `l = Σ exp(s − m)` of one row of scores.
///
/// States over disjoint sets of keys form a commutative monoid under [`merge`](Self::merge), with
/// [`new`](Self::new) as its identity: that is what allows the keys of a row to come in tiles.
///
/// ```
/// use tilewright_attention::online_softmax::RowState;
/// let mut state = RowState::<f64>::new();
/// let mut first = [1.0, f64::NEG_INFINITY]; // the second key is masked
/// state.absorb(&mut first);
/// assert_eq!(first, [1.0, 0.0]);
/// let mut second = [3.0];
/// let shrink = state.absorb(&mut second);
/// assert_eq!(shrink, (1.0f64 - 3.0).exp()); // what was made of `first` shrinks by this
/// let (inverse, lse) = state.finish();
/// assert!((inverse * shrink - 1.0 / (1.0 + 2f64.exp())).abs() < 1e-15);
/// assert!((lse - (1f64.exp() + 3f64.exp()).ln()).abs() < 1e-15);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowState<A> {
    m: A,
    l: A,
}

impl<A: Real> RowState<A> {
    /// Nothing seen yet: `m = −∞`, `l = 0` (Algorithm 1, line 2).
    pub fn new() -> Self {
        Self { m: A::neg_infinity(), l: A::zero() }
    }

    /// A row whose denominator holds `exp(sink)` from the start. A sink of −∞ is none.
    pub fn with_sink(sink: A) -> Self {
        Self { m: sink, l: exp_relative(sink, sink) }
    }

    /// The running maximum.
    pub fn maximum(&self) -> A {
        self.m
    }

    /// The running sum of `exp(s − m)`.
    pub fn sum(&self) -> A {
        self.l
    }

    /// Takes in the scores of more keys, −∞ for a masked one, and turns each into `exp(s − m_new)`. Returns
    /// `exp(m_old − m_new)`, the factor by which anything made of earlier keys shrinks; 0 if there was nothing.
    ///
    /// Algorithm 1, lines 10–11, with the exponentials taken relative to `m_new` at once: line 10's `m̃` and the factor
    /// `exp(m̃ − m_new)` of lines 11 and 12 cancel.
    pub fn absorb(&mut self, scores: &mut [A]) -> A {
        let m_new = scores.iter().fold(self.m, |m, &s| m.maximum(s));
        let shrink = exp_relative(self.m, m_new);
        let mut l_tile = A::zero();
        for s in scores {
            *s = exp_relative(*s, m_new);
            l_tile += *s;
        }
        *self = Self { m: m_new, l: shrink * self.l + l_tile };
        shrink
    }

    /// The state of both sets of keys together. Commutative to the bit, associative up to rounding; merging with
    /// [`new`](Self::new) changes nothing.
    pub fn merge(self, other: Self) -> Self {
        let m = self.m.maximum(other.m);
        Self { m, l: exp_relative(self.m, m) * self.l + exp_relative(other.m, m) * other.l }
    }

    /// `(1/l, m + ln l)`: what normalises the row, and its log-sum-exp. `(0, −∞)` for a row that saw nothing.
    pub fn finish(&self) -> (A, A) {
        (self.inverse_sum(), if self.l == A::zero() { A::neg_infinity() } else { self.m + self.l.ln() })
    }

    /// `1/l`; 0 for a row that saw nothing.
    pub fn inverse_sum(&self) -> A {
        if self.l == A::zero() { A::zero() } else { A::one() / self.l }
    }
}

impl<A: Real> Default for RowState<A> {
    fn default() -> Self {
        Self::new()
    }
}

/// `exp(x − m)` for `x ≤ m`, where −∞ weighs nothing, even against a maximum of −∞: `−∞ − −∞` is not a number.
fn exp_relative<A: Real>(x: A, m: A) -> A {
    if x == A::neg_infinity() { A::zero() } else { (x - m).exp() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn state(scores: &[f64]) -> RowState<f64> {
        let mut state = RowState::new();
        state.absorb(&mut scores.to_vec());
        state
    }

    /// Scores as rows have them, a quarter of them masked.
    fn scores() -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(prop_oneof![3 => -50.0..50.0, 1 => Just(f64::NEG_INFINITY)], 0..9)
    }

    /// What the exponentials sum to, by their definition.
    fn direct(scores: &[f64]) -> f64 {
        scores.iter().map(|&s| Real::exp(s)).sum()
    }

    fn close(a: f64, b: f64) -> bool {
        // A dozen roundings of u = 2^-53, and an exponent of at most 50 which is itself rounded.
        a == b || (a - b).abs() <= 1e-13 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn rows_that_see_nothing() {
        let mut row = RowState::<f32>::new();
        let mut masked = [f32::NEG_INFINITY; 3];
        assert_eq!(row.absorb(&mut masked), 0.0);
        assert_eq!(masked, [0.0; 3]);
        assert_eq!(row.finish(), (0.0, f32::NEG_INFINITY));
        assert_eq!(RowState::with_sink(f32::NEG_INFINITY), RowState::new());
        assert_eq!(RowState::with_sink(2.5f32).finish(), (1.0, 2.5));
        assert_eq!(RowState::<f32>::new().merge(RowState::new()), RowState::new());
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut row = state(&[1.0]);
            row.absorb(&mut [bad]);
            row.absorb(&mut [2.0]);
            assert!(row.finish().0.is_nan() && row.finish().1.is_nan());
            assert!(RowState::with_sink(bad).finish().1.is_nan());
        }
    }

    proptest! {
        #[test]
        fn tiles_give_what_the_whole_row_gives(scores in scores(), sink in prop::option::of(-5.0..5.0f64), tile in 1usize..5) {
            let mut row = sink.map_or(RowState::new(), RowState::with_sink);
            let mut weights: Vec<f64> = Vec::new();
            for tile in scores.chunks(tile) {
                let mut tile = tile.to_vec();
                let shrink = row.absorb(&mut tile);
                for weight in &mut weights {
                    *weight *= shrink;
                }
                weights.extend(tile);
            }
            let (inverse, lse) = row.finish();
            let total = direct(&scores) + sink.map_or(0.0, Real::exp);
            prop_assert!(close(lse, Real::ln(total)), "{lse} {total}");
            for (weight, &s) in weights.iter().zip(&scores) {
                let p = if total == 0.0 { 0.0 } else { Real::exp(s) / total };
                prop_assert!(close(weight * inverse, p));
            }
        }

        #[test]
        fn merging_is_a_commutative_monoid(x in scores(), y in scores(), z in scores()) {
            let (a, b, c) = (state(&x), state(&y), state(&z));
            prop_assert_eq!(a.merge(RowState::new()), a);
            prop_assert_eq!(RowState::new().merge(a), a);
            prop_assert_eq!(a.merge(b), b.merge(a));
            let (left, right) = (a.merge(b).merge(c), a.merge(b.merge(c)));
            prop_assert_eq!(left.maximum(), right.maximum());
            prop_assert!(close(left.sum(), right.sum()));
            let whole = state(&[x, y, z].concat());
            prop_assert!(close(left.finish().1, whole.finish().1));
        }
    }
}
