//! Products for few rows, over keys and values where they lie: the time should be that of reading them once, in the
//! order of their addresses. Memory is asked for ahead of its use, a few lines beside each step of the arithmetic: a
//! burst of requests would have to end before the next step could begin.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::{Float, Widen};
use super::isa::{Machine, stamped};
use super::kernels::{Left, ROWS, SECOND, STRIDE, Start, prefetch};
use super::line::Line;

/// Values that are added to a register tile before it is put away.
const DEPTH: usize = 16;

stamped! {
    /// `S[r, c] ← q_r · k_c` for the rows of `q`, of whole lanes, and `n` rows of `k`.
    pub(crate) fn dots<A: Float, B: Widen<A>>(q: &[&[A]], k: Left<'_, B>, n: usize, s: &mut [A]) = dots_body
}

#[inline(always)]
fn dots_body<A: Float, B: Widen<A>, M: Machine>(q: &[&[A]], k: Left<'_, B>, n: usize, s: &mut [A]) {
    // As many keys at a time as there are registers for their sums.
    #[cfg(target_arch = "x86_64")]
    if const { M::VECTOR == 64 } {
        return dots_of::<A, B, A::Line512, M, 8, 8, 4>(q, k, n, s);
    } else if const { M::VECTOR == 32 } {
        return dots_of::<A, B, A::Line256, M, 4, 2, 1>(q, k, n, s);
    }
    dots_of::<A, B, A::Line, M, 4, 2, 1>(q, k, n, s);
}

/// With so many keys at a time for one row, two, and more.
#[inline(always)]
fn dots_of<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const ONE: usize, const TWO: usize, const MORE: usize>(
    q: &[&[A]],
    k: Left<'_, B>,
    n: usize,
    s: &mut [A],
) {
    match *q {
        [a] => dots_by::<A, B, V, M, 1, ONE>([a], k, n, s),
        [a, b] => dots_by::<A, B, V, M, 2, TWO>([a, b], k, n, s),
        [a, b, c] => dots_by::<A, B, V, M, 3, MORE>([a, b, c], k, n, s),
        [a, b, c, d] => dots_by::<A, B, V, M, 4, MORE>([a, b, c, d], k, n, s),
        [a, b, c, d, e] => dots_by::<A, B, V, M, 5, MORE>([a, b, c, d, e], k, n, s),
        [a, b, c, d, e, f, ..] => dots_by::<A, B, V, M, 6, MORE>([a, b, c, d, e, f], k, n, s),
        [] => {}
    }
}

/// `R` rows against `K` keys at a time.
#[inline(always)]
fn dots_by<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const R: usize, const K: usize>(
    q: [&[A]; R],
    k: Left<'_, B>,
    n: usize,
    s: &mut [A],
) {
    let dim = q[0].len() - q[0].len() % V::LANES;
    let q = q.map(|q| &q[..dim]);
    let mut at = 0;
    while at + K <= n {
        dots_at::<A, B, V, M, R, K>(&q, k, at, s);
        at += K;
    }
    while at < n {
        dots_at::<A, B, V, M, R, 1>(&q, k, at, s);
        at += 1;
    }
}

/// The same for the keys from `at` on.
#[inline(always)]
fn dots_at<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const R: usize, const K: usize>(
    q: &[&[A]; R],
    k: Left<'_, B>,
    at: usize,
    s: &mut [A],
) {
    let dim = q[0].len();
    let keys: [&[B]; K] = std::array::from_fn(|key| &k.data[(at + key) * k.stride..][..dim]);
    assert!(
        q.iter().all(|q| q.len() == dim) && keys.iter().all(|key| key.len() == dim) && dim.is_multiple_of(V::LANES)
    );
    let mut sums = [[V::all(A::zero()); K]; R];
    for lane in (0..dim).step_by(V::LANES) {
        // In the order of addresses, whichever key a step is at.
        prefetch_ahead(keys[0].as_ptr().wrapping_add(lane * K), K * V::LANES);
        for key in 0..K {
            // SAFETY: rows have a whole number of lines.
            let k = unsafe { V::load::<B, M>(keys[key].as_ptr().add(lane)) };
            for r in 0..R {
                // SAFETY: likewise.
                let q = unsafe { V::load::<A, M>(q[r].as_ptr().add(lane)) };
                sums[r][key] = sums[r][key].add_product::<M>(q, k);
            }
        }
    }
    if const { K == 1 } {
        let dots = V::totals::<R>(std::array::from_fn(|r| sums[r][0]));
        for r in 0..R {
            s[r * STRIDE + at] = dots[r];
        }
        return;
    }
    for r in 0..R {
        s[r * STRIDE + at..][..K].copy_from_slice(&V::totals(sums[r]));
    }
}

stamped! {
    /// `O ← start + P·V` for `rows` rows of weights, [`STRIDE`] apart, and `n` rows of `v`, at least one. Rows up to the end of a strip
    /// may be overwritten too.
    pub(crate) fn weigh<A: Float, B: Widen<A>>(
        p: &[A],
        rows: usize,
        v: Left<'_, B>,
        n: usize,
        o: &mut [A],
        o_stride: usize,
        columns: usize,
        start: Start<A>,
    ) = weigh_body
}

#[inline(always)]
fn weigh_body<A: Float, B: Widen<A>, M: Machine>(
    p: &[A],
    rows: usize,
    v: Left<'_, B>,
    n: usize,
    o: &mut [A],
    o_stride: usize,
    columns: usize,
    start: Start<A>,
) {
    #[cfg(target_arch = "x86_64")]
    if const { M::VECTOR == 64 } {
        return weigh_of::<A, B, A::Line512, M, 4, 4, 4>(p, rows, v, n, (o, o_stride), columns, start);
    } else if const { M::VECTOR == 32 } {
        return weigh_of::<A, B, A::Line256, M, 4, 2, 1>(p, rows, v, n, (o, o_stride), columns, start);
    }
    weigh_of::<A, B, A::Line, M, 4, 2, 1>(p, rows, v, n, (o, o_stride), columns, start);
}

/// With so many lines of columns at a time for one row, two, and more.
#[inline(always)]
fn weigh_of<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const ONE: usize, const TWO: usize, const MORE: usize>(
    p: &[A],
    rows: usize,
    v: Left<'_, B>,
    n: usize,
    o: (&mut [A], usize),
    columns: usize,
    start: Start<A>,
) {
    match rows {
        0 => {}
        1 => weigh_by::<A, B, V, M, 1, ONE>(p, v, n, o, columns, start),
        2 => weigh_by::<A, B, V, M, 2, TWO>(p, v, n, o, columns, start),
        3 | 4 => weigh_by::<A, B, V, M, 4, MORE>(p, v, n, o, columns, start),
        _ => weigh_by::<A, B, V, M, ROWS, MORE>(p, v, n, o, columns, start),
    }
}

/// A few values at a time, so that memory is read in the order of its addresses, and `C` lines of their columns.
#[inline(always)]
fn weigh_by<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const R: usize, const C: usize>(
    p: &[A],
    v: Left<'_, B>,
    n: usize,
    (o, o_stride): (&mut [A], usize),
    columns: usize,
    start: Start<A>,
) {
    let mut start = start;
    for first in (0..n).step_by(DEPTH) {
        let values = Left { data: &v.data[first * v.stride..], stride: v.stride };
        let (p, count, mut column) = (&p[first..], DEPTH.min(n - first), 0);
        while column + C * V::LANES <= columns {
            weigh_at::<A, B, V, M, R, C>(p, values, count, (o, o_stride), column, start);
            column += C * V::LANES;
        }
        while column < columns {
            weigh_at::<A, B, V, M, R, 1>(p, values, count, (o, o_stride), column, start);
            column += V::LANES;
        }
        start = Start::Sum;
    }
}

/// `n` values in `C` lines of columns from `column` on.
#[inline(always)]
fn weigh_at<A: Float, B: Widen<A>, V: Line<A>, M: Machine, const R: usize, const C: usize>(
    p: &[A],
    v: Left<'_, B>,
    n: usize,
    (o, o_stride): (&mut [A], usize),
    column: usize,
    start: Start<A>,
) {
    let width = C * V::LANES;
    assert!((R - 1) * o_stride + column + width <= o.len(), "rows of results are shorter than their columns");
    assert!((n - 1) * v.stride + column + width <= v.data.len(), "values are fewer than their weights");
    assert!((R - 1) * STRIDE + n <= p.len(), "weights are fewer than values");
    let mut sums = [[V::all(A::zero()); C]; R];
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the first line above.
            let before = || unsafe { V::load::<A, M>(o.as_ptr().add(r * o_stride + column + c * V::LANES)) };
            sums[r][c] = match start {
                Start::Zero => V::all(A::zero()),
                Start::Sum => before(),
                Start::Scaled(factors) => V::product(V::all(factors[r]), before()),
            };
        }
    }
    let ahead = v.data.as_ptr().wrapping_add(column * n);
    for at in 0..n {
        prefetch_ahead(ahead.wrapping_add(at * width), width);
        // SAFETY: the second.
        let line = |c: usize| unsafe { V::load::<B, M>(v.data.as_ptr().add(at * v.stride + column + c * V::LANES)) };
        let values: [V; C] = std::array::from_fn(line);
        for r in 0..R {
            // SAFETY: the third.
            let weight = V::all(unsafe { *p.get_unchecked(r * STRIDE + at) });
            for c in 0..C {
                sums[r][c] = sums[r][c].add_product::<M>(weight, values[c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the first.
            unsafe { sums[r][c].store(o.as_mut_ptr().add(r * o_stride + column + c * V::LANES)) };
        }
    }
}

/// How far ahead of what is read memory is asked for, in bytes: two pages, as hardware prefetchers stop where a page ends.
const AHEAD: usize = 8192;

/// Asks for the `count` elements that lie [`AHEAD`] bytes on from `from`; into the second cache, as the first has few places for
/// lines under way, and what is computed needs them.
#[inline(always)]
fn prefetch_ahead<B>(from: *const B, count: usize) {
    prefetch::<B, SECOND>(from.wrapping_byte_add(AHEAD), count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::isa::Isa;
    use crate::attention::kernels::LANES;
    use proptest::prelude::*;

    /// Small integers: every order of summation is exact.
    fn matrix(rows: usize, stride: usize, salt: usize) -> Vec<f64> {
        (0..rows * stride).map(|at| ((at * 31 + salt * 17) % 23) as f64 - 11.0).collect()
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_definition(rows in 1..=ROWS, n in 1usize..70, lanes in 1usize..9, gap in 0usize..3) {
            let (dim, stride) = (lanes * LANES, (lanes + gap) * LANES);
            let (q, k, p) = (matrix(rows, dim, 1), matrix(n, stride, 2), matrix(ROWS, STRIDE, 3));
            let q: Vec<&[f64]> = q.chunks_exact(dim).collect();
            let right = Left { data: &k[..], stride };
            for isa in Isa::available() {
                let mut s = vec![0.0; ROWS * STRIDE];
                dots(isa, &q, right, n, &mut s);
                let mut o = matrix(ROWS, dim, 4);
                let before = o.clone();
                weigh(isa, &p, rows, right, n, &mut o, dim, dim, Start::Scaled([2.0; ROWS]));
                for r in 0..rows {
                    for j in 0..n {
                        let expected: f64 = q[r].iter().zip(&k[j * stride..]).map(|(q, k)| q * k).sum();
                        prop_assert_eq!(s[r * STRIDE + j], expected);
                    }
                    for c in 0..dim {
                        let added: f64 = (0..n).map(|j| p[r * STRIDE + j] * k[j * stride + c]).sum();
                        prop_assert_eq!(o[r * dim + c], 2.0 * before[r * dim + c] + added);
                    }
                }
            }
        }

        /// Rounded sums are the same on every instruction set that fuses multiply-adds, whatever runs at a time.
        #[test]
        fn instruction_sets_change_nothing(rows in 1..=ROWS, n in 1usize..40, lanes in 1usize..9) {
            let dim = lanes * LANES;
            let third = |x: Vec<f64>| -> Vec<f32> { x.into_iter().map(|x| x as f32 / 3.0).collect() };
            let (q, k, p) = (third(matrix(rows, dim, 1)), third(matrix(n, dim, 2)), third(matrix(ROWS, STRIDE, 3)));
            let q: Vec<&[f32]> = q.chunks_exact(dim).collect();
            let right = Left { data: &k[..], stride: dim };
            let mut all = Isa::available().into_iter().filter(|isa| isa.name() != "portable").map(|isa| {
                let (mut s, mut o) = (vec![0.0; ROWS * STRIDE], vec![0.0; ROWS * dim]);
                dots(isa, &q, right, n, &mut s);
                weigh(isa, &p, rows, right, n, &mut o, dim, dim, Start::Zero);
                o.truncate(rows * dim);
                (s, o)
            });
            if let Some(first) = all.next() {
                prop_assert!(all.all(|other| other == first));
            }
        }
    }
}
