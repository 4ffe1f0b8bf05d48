//! Products for few rows, over keys and values where they lie: the time should be that of reading them once, in the
//! order of their addresses. Memory is asked for ahead of its use, a few lines beside each step of the arithmetic: a
//! burst of requests would have to end before the next step could begin.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::{Float, Widen, mul_add};
use super::isa::{Machine, stamped};
use super::kernels::{ByRows, LANES, Layout, Left, ROWS, Right, STRIDE, Start, panels, prefetch};

/// Interleaved sums of an inner product, on every instruction set: what a vector of AVX2 holds, as 16 registers are few.
const SUMS: usize = LANES / 2;

/// Values that are added to a register tile before it is put away.
const DEPTH: usize = 8;

stamped! {
    /// `S[r, c] ← q_r · k_c` for the rows of `q`, of whole lanes, and `n` rows of `k`.
    pub(crate) fn dots<A: Float, B: Widen<A>>(q: &[&[A]], k: Left<'_, B>, n: usize, s: &mut [A]) = dots_body
}

#[inline(always)]
fn dots_body<A: Float, B: Widen<A>, M: Machine>(q: &[&[A]], k: Left<'_, B>, n: usize, s: &mut [A]) {
    match *q {
        [a] => dots_by::<A, B, M, 1, 8>([a], k, n, s),
        [a, b] => dots_by::<A, B, M, 2, 4>([a, b], k, n, s),
        [a, b, c] => dots_by::<A, B, M, 3, 2>([a, b, c], k, n, s),
        [a, b, c, d] => dots_by::<A, B, M, 4, 2>([a, b, c, d], k, n, s),
        [a, b, c, d, e] => dots_by::<A, B, M, 5, 2>([a, b, c, d, e], k, n, s),
        [a, b, c, d, e, f, ..] => dots_by::<A, B, M, 6, 2>([a, b, c, d, e, f], k, n, s),
        [] => {}
    }
}

/// `R` rows against `K` keys at a time: as many sums as registers hold.
#[inline(always)]
fn dots_by<A: Float, B: Widen<A>, M: Machine, const R: usize, const K: usize>(
    q: [&[A]; R],
    k: Left<'_, B>,
    n: usize,
    s: &mut [A],
) {
    let dim = q[0].len() - q[0].len() % LANES;
    let q = q.map(|q| &q[..dim]);
    let mut at = 0;
    while at + K <= n {
        let keys: [&[B]; K] = std::array::from_fn(|key| &k.data[(at + key) * k.stride..][..dim]);
        let sums = sums_of::<A, B, M, R, K>(&q, &keys);
        for r in 0..R {
            for key in 0..K {
                s[r * STRIDE + at + key] = total(sums[r][key]);
            }
        }
        at += K;
    }
    while at < n {
        let sums = sums_of::<A, B, M, R, 1>(&q, &[&k.data[at * k.stride..][..dim]]);
        for r in 0..R {
            s[r * STRIDE + at] = total(sums[r][0]);
        }
        at += 1;
    }
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn total<A: Float>(lanes: [A; SUMS]) -> A {
    let four: [A; 4] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Inner products of `R` rows and `K` keys, by lanes.
#[inline(always)]
fn sums_of<A: Float, B: Widen<A>, M: Machine, const R: usize, const K: usize>(
    q: &[&[A]; R],
    keys: &[&[B]; K],
) -> [[[A; SUMS]; K]; R] {
    let mut sums = [[[A::zero(); SUMS]; K]; R];
    let dim = q[0].len();
    assert!(q.iter().all(|q| q.len() == dim) && keys.iter().all(|key| key.len() == dim) && dim.is_multiple_of(LANES));
    for at in (0..dim).step_by(SUMS) {
        if at.is_multiple_of(LANES) {
            // In the order of addresses, whichever key a step is at.
            prefetch_ahead(keys[0].as_ptr().wrapping_add(at * K), K * LANES);
        }
        for key in 0..K {
            // SAFETY: rows have a whole number of lanes, so SUMS elements from `at` on.
            let k = B::widen_all::<M, SUMS>(unsafe { &*keys[key].as_ptr().add(at).cast() });
            for r in 0..R {
                for lane in 0..SUMS {
                    // SAFETY: likewise.
                    let q = unsafe { *q[r].get_unchecked(at + lane) };
                    sums[r][key][lane] = mul_add::<A, M>(q, k[lane], sums[r][key][lane]);
                }
            }
        }
    }
    // As a whole: what is reduced number by number would be computed number by number.
    std::hint::black_box(sums)
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
    match rows {
        0 => {}
        1 => weigh_by::<A, B, M, 1>(p, v, n, o, o_stride, columns, start),
        2 => weigh_by::<A, B, M, 2>(p, v, n, o, o_stride, columns, start),
        3 | 4 => weigh_by::<A, B, M, 4>(p, v, n, o, o_stride, columns, start),
        _ => weigh_by::<A, B, M, ROWS>(p, v, n, o, o_stride, columns, start),
    }
}

/// A few values at a time, so that memory is read in the order of its addresses.
#[inline(always)]
fn weigh_by<A: Float, B: Widen<A>, M: Machine, const R: usize>(
    p: &[A],
    v: Left<'_, B>,
    n: usize,
    o: &mut [A],
    o_stride: usize,
    columns: usize,
    start: Start<A>,
) {
    let (mut start, layout) = (start, Layout::Rows { stride: v.stride });
    for first in (0..n).step_by(DEPTH) {
        let count = DEPTH.min(n - first);
        let data = &v.data[first * v.stride..];
        let width = M::VECTOR / size_of::<A>() * M::VECTORS;
        for column in (0..columns).step_by(width) {
            prefetch_ahead(data.as_ptr().wrapping_add(column * count), width * count);
            let right = Right { data: &data[column..], columns: width.min(columns - column), layout };
            panels::<A, A, B, M, R>(ByRows(&p[first..]), right, count, &mut o[column..], o_stride, start);
        }
        start = Start::Sum;
    }
}

/// How far ahead of what is read memory is asked for, in bytes: a page, as hardware prefetchers stop where a page ends.
const AHEAD: usize = 4096;

/// Asks for the `count` elements that lie [`AHEAD`] bytes on from `from`.
#[inline(always)]
fn prefetch_ahead<B>(from: *const B, count: usize) {
    prefetch(from.wrapping_byte_add(AHEAD), count);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::isa::Isa;
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
    }
}
