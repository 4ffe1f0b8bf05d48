//! The arithmetic of tiles, and nothing else: one matrix product in two forms, the softmax of a strip, and a few
//! functions of a row.
//!
//! A product is `C ← f ∘ C + A·B` for a strip of [`ROWS`] rows. Its sum runs over the inner index in ascending order,
//! one multiply-add each, whatever the register tile; so its bits depend on operands and sizes alone, and are the same
//! on every instruction set that fuses multiply-adds. Row sums run in [`LANES`] interleaved sums.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::factor::Factor;
use super::float::{Float, Stored, Widen, exp2, exp2_below_one, exp2_of_product, mul_add};
use super::isa::{Machine, stamped};
use num_traits::Zero;

/// Rows of a strip, and of every register tile.
pub(crate) const ROWS: usize = 6;

/// Interleaved partial sums of a reduction; row strides are multiples of it.
pub(crate) const LANES: usize = 16;

/// Keys of the longest tile.
pub(crate) const MAX_KEYS: usize = 384;

/// The distance between a strip's rows of scores: an odd number of cache lines, so that the rows of a column don't fall on
/// one another in the cache, and a constant, so that one register addresses all six rows.
pub(crate) const STRIDE: usize = MAX_KEYS + LANES;

/// The left factor of a product for one strip.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a, L> {
    pub(crate) data: &'a [L],
    pub(crate) stride: usize,
}

/// The right factor: `columns` columns from column `first` on, of panels as [`super::panels`] packs them, one after the other,
/// of `depth` rows and `packed` columns altogether; the inner index begins at row `skip`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'a, F> {
    pub(crate) data: &'a [F],
    pub(crate) first: usize,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
    pub(crate) skip: usize,
    pub(crate) packed: usize,
}

/// What a strip of results holds before the product is added.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<A> {
    /// Nothing: it is overwritten.
    Zero,
    /// What was added before.
    Sum,
    /// The same, each row times a factor.
    Scaled([A; ROWS]),
}

/// How a product walks its left factor.
pub(super) trait Walk<F>: Copy {
    /// Whether there are elements at the first `k` inner indices.
    fn holds(&self, k: usize) -> bool;

    /// The strip's elements at inner index `kk`.
    ///
    /// # Safety
    /// It holds more than `kk` of them.
    unsafe fn at(&self, kk: usize) -> [F; ROWS];
}

/// Row `r` of the strip is a row of the factor, [`Factor::STRIDE`] from the next.
#[derive(Clone, Copy)]
pub(super) struct ByRows<'a, F>(pub(super) &'a [F]);

/// Row `r` of the strip is column `r` of the factor.
#[derive(Clone, Copy)]
pub(super) struct ByColumns<'a, F>(pub(super) Left<'a, F>);

impl<F: Factor> Walk<F> for ByRows<'_, F> {
    #[inline(always)]
    fn holds(&self, k: usize) -> bool {
        (ROWS - 1) * F::STRIDE + k <= self.0.len()
    }

    #[inline(always)]
    unsafe fn at(&self, kk: usize) -> [F; ROWS] {
        // SAFETY: the last row is longer than `kk`, as the caller has made sure.
        std::array::from_fn(|r| unsafe { *self.0.get_unchecked(r * F::STRIDE + kk) })
    }
}

impl<F: Factor> Walk<F> for ByColumns<'_, F> {
    #[inline(always)]
    fn holds(&self, k: usize) -> bool {
        k == 0 || (k - 1) * self.0.stride + ROWS <= self.0.data.len()
    }

    #[inline(always)]
    unsafe fn at(&self, kk: usize) -> [F; ROWS] {
        // SAFETY: the last of more than `kk` rows ends within the data, as the caller has made sure.
        std::array::from_fn(|r| unsafe { *self.0.data.get_unchecked(kk * self.0.stride + r) })
    }
}

stamped! {
    /// `C ← start + A·B[..k]`, where the rows of the strip are those of `a`, [`STRIDE`] apart.
    pub(crate) fn product<A: Float>(a: &[A], b: Right<'_, A>, k: usize, c: &mut [A], c_stride: usize, start: Start<A>) = by_rows
}

stamped! {
    /// `C ← start + Aᵀ·B[..k]`: row `r` of the strip is column `r` of `a`.
    pub(crate) fn product_transposed<A: Float>(
        a: Left<'_, A>,
        b: Right<'_, A>,
        k: usize,
        c: &mut [A],
        c_stride: usize,
        start: Start<A>,
    ) = by_columns
}

#[inline(always)]
fn by_rows<A: Float, M: Machine>(a: &[A], b: Right<'_, A>, k: usize, c: &mut [A], c_stride: usize, start: Start<A>) {
    panels::<A, M>(ByRows(a), b, k, c, c_stride, start);
}

#[inline(always)]
fn by_columns<A: Float, M: Machine>(
    a: Left<'_, A>,
    b: Right<'_, A>,
    k: usize,
    c: &mut [A],
    c_stride: usize,
    start: Start<A>,
) {
    panels::<A, M>(ByColumns(a), b, k, c, c_stride, start);
}

/// Register tile after register tile along the columns, one to a panel; the first and the last as narrow as whole vectors allow.
#[inline(always)]
pub(super) fn panels<F: Factor, M: Machine>(
    a: impl Walk<F>,
    b: Right<'_, F>,
    k: usize,
    c: &mut [F::Sum],
    c_stride: usize,
    start: Start<F::Sum>,
) {
    let unit = M::VECTOR / size_of::<F>();
    let panel = unit * M::VECTORS;
    let (mut column, mut within) = (0, b.first % panel);
    while column < b.columns {
        let vectors = (b.columns - column).div_ceil(unit).min(M::VECTORS - within / unit);
        let begin = b.first + column - within;
        let stride = (b.packed - begin).div_ceil(unit).min(M::VECTORS) * unit;
        let data = &b.data[begin * b.depth + b.skip * stride + within..];
        let c = &mut c[column..];
        // Constants, so that of the outer branches only the machine's own is compiled.
        if const { M::VECTOR / size_of::<F>() == 16 } {
            match vectors {
                1 => tile::<F, M, 16>(a, data, stride, k, c, c_stride, start),
                2 => tile::<F, M, 32>(a, data, stride, k, c, c_stride, start),
                3 => tile::<F, M, 48>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 64>(a, data, stride, k, c, c_stride, start),
            }
        } else if const { M::VECTOR / size_of::<F>() * M::VECTORS == 32 } {
            match vectors {
                1 => tile::<F, M, 8>(a, data, stride, k, c, c_stride, start),
                2 => tile::<F, M, 16>(a, data, stride, k, c, c_stride, start),
                3 => tile::<F, M, 24>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 32>(a, data, stride, k, c, c_stride, start),
            }
        } else if const { M::VECTORS == 4 } {
            let unit = const { M::VECTOR / size_of::<F>() };
            match vectors * unit {
                2 => tile::<F, M, 2>(a, data, stride, k, c, c_stride, start),
                4 => tile::<F, M, 4>(a, data, stride, k, c, c_stride, start),
                6 => tile::<F, M, 6>(a, data, stride, k, c, c_stride, start),
                8 => tile::<F, M, 8>(a, data, stride, k, c, c_stride, start),
                12 => tile::<F, M, 12>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 16>(a, data, stride, k, c, c_stride, start),
            }
        } else if const { M::VECTOR / size_of::<F>() == 8 } {
            match vectors {
                1 => tile::<F, M, 8>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 16>(a, data, stride, k, c, c_stride, start),
            }
        } else if const { M::VECTOR / size_of::<F>() == 4 } {
            match vectors {
                1 => tile::<F, M, 4>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 8>(a, data, stride, k, c, c_stride, start),
            }
        } else {
            match vectors {
                1 => tile::<F, M, 2>(a, data, stride, k, c, c_stride, start),
                _ => tile::<F, M, 4>(a, data, stride, k, c, c_stride, start),
            }
        }
        (column, within) = (column + panel - within, 0);
    }
}

/// `ROWS × C` results, held in registers over the whole sum.
#[inline(always)]
fn tile<F: Factor, M: Machine, const C: usize>(
    a: impl Walk<F>,
    b: &[F],
    stride: usize,
    k: usize,
    c: &mut [F::Sum],
    c_stride: usize,
    start: Start<F::Sum>,
) {
    let mut sums = [[F::Sum::zero(); C]; ROWS];
    match start {
        Start::Zero => {}
        Start::Sum => {
            for r in 0..ROWS {
                sums[r].copy_from_slice(&c[r * c_stride..][..C]);
            }
        }
        Start::Scaled(factors) => {
            for r in 0..ROWS {
                let before = &c[r * c_stride..][..C];
                for lane in 0..C {
                    sums[r][lane] = factors[r] * before[lane];
                }
            }
        }
    }
    assert!(k == 0 || ((k - 1) * stride + C <= b.len() && a.holds(k)), "a product's operands are shorter than it");
    // SAFETY: the last row of `B` ends within it, says the line above, and its elements follow one another.
    let row = |kk: usize| unsafe { &*b.as_ptr().add(kk * stride).cast::<[F; C]>() };
    // By fours: the branch at the end of so short a loop is then foreseen, and the next tile begins before this one ends.
    let whole = k - k % 4;
    for kk in (0..whole).step_by(4) {
        for kk in kk..kk + 4 {
            // SAFETY: `a` holds more than `kk` elements.
            F::add_outer::<M, C>(unsafe { a.at(kk) }, row(kk), &mut sums);
        }
    }
    for kk in whole..k {
        // SAFETY: likewise.
        F::add_outer::<M, C>(unsafe { a.at(kk) }, row(kk), &mut sums);
    }
    for r in 0..ROWS {
        c[r * c_stride..][..C].copy_from_slice(&sums[r]);
    }
}

/// Copies a row into one that may be longer, and fills that up with zeros. One of [`LANES`] has a case of its own: calling
/// the library for so little costs more than the copy.
pub(super) fn copy_row<A: Float>(from: &[A], to: &mut [A]) {
    if let (Ok(from), Ok(to)) = (<&[A; LANES]>::try_from(from), <&mut [A; LANES]>::try_from(&mut *to)) {
        *to = *from;
        return;
    }
    let (copied, padding) = to.split_at_mut(from.len());
    copied.copy_from_slice(from);
    padding.fill(A::zero());
}

/// The nearest cache, for [`prefetch`], as x86 numbers it.
pub(super) const FIRST: i32 = 3;

/// The next nearest.
pub(super) const SECOND: i32 = 2;

/// Asks for the lines of `count` elements from `from` on, into one of the caches. A hint: it changes nothing but time.
#[inline(always)]
pub(super) fn prefetch<B, const CACHE: i32>(from: *const B, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for byte in (0..count * size_of::<B>()).step_by(64) {
        // SAFETY: a prefetch reads nothing and faults on no address.
        unsafe { std::arch::x86_64::_mm_prefetch::<CACHE>(from.wrapping_byte_add(byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, count);
}

/// The running statistics of a strip's rows, whose scores times a positive `c` are exponents of 2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<A> {
    /// Maxima of the scores so far, `m`.
    pub(crate) m: [A; ROWS],
    /// Sums of `2^(c (s − m))` so far: `ℓ`.
    pub(crate) l: [A; ROWS],
}

stamped! {
    /// Turns the first `n` scores of `rows` rows into `2^(c (s − m))`, and returns what the rows' outputs so far are to be
    /// multiplied by. Columns from `n` to the next multiple of [`LANES`] become 0.
    pub(crate) fn online_softmax<A: Float>(
        s: &mut [A],
        n: usize,
        rows: usize,
        c: A,
        running: &mut Running<A>,
    ) -> [A; ROWS] = online_softmax_body
}

#[inline(always)]
fn online_softmax_body<A: Float, M: Machine>(
    s: &mut [A],
    n: usize,
    rows: usize,
    c: A,
    running: &mut Running<A>,
) -> [A; ROWS] {
    let (padded, lowest) = (n.next_multiple_of(LANES), A::LOWEST / c);
    let rows = rows.min(ROWS);
    // Passes over all rows, one after the other: what follows on a maximum is short, and would keep each row waiting.
    let mut m = running.m;
    for r in 0..rows {
        let row = &mut s[r * STRIDE..][..padded];
        row[n..].fill(A::neg_infinity());
        let largest = max_of(row);
        m[r] = if largest > m[r] { largest } else { m[r] };
    }
    let mut factors = [A::one(); ROWS];
    for r in 0..ROWS {
        // 0 for the first keys a row sees, when its maximum was −∞; and −∞ − −∞ is not to be asked for.
        let factor = exp2_of_product::<A, M>(running.m[r] - m[r], c, lowest);
        factors[r] = if m[r] > running.m[r] { factor } else { A::one() };
        running.l[r] *= factors[r];
    }
    running.m = m;
    for r in 0..rows {
        // Without a finite score so far there is nothing to subtract, and 2^−∞ = 0.
        let shift = if m[r] == A::neg_infinity() { A::zero() } else { m[r] };
        let row = &mut s[r * STRIDE..][..padded];
        // Two loops, for the one without a factor needs no register for it.
        let sums = if c == A::one() {
            exponentials(row, |s| exp2_below_one::<A, M>(s - shift))
        } else {
            exponentials(row, |s| exp2_of_product::<A, M>(s - shift, c, lowest))
        };
        running.l[r] += total(sums);
    }
    factors
}

/// `s ← p(s)` for whole chunks, and the sums of the lanes.
#[inline(always)]
fn exponentials<A: Float>(row: &mut [A], p: impl Fn(A) -> A) -> [A; LANES] {
    let mut sums = [A::zero(); LANES];
    for chunk in row.chunks_exact_mut(LANES) {
        for lane in 0..LANES {
            let p = p(chunk[lane]);
            chunk[lane] = p;
            sums[lane] += p;
        }
    }
    sums
}

/// The largest element of whole chunks. A NaN is passed over: the exponentials that follow will show it.
#[inline(always)]
fn max_of<A: Float>(row: &[A]) -> A {
    let mut lanes = [A::neg_infinity(); LANES];
    for chunk in row.chunks_exact(LANES) {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    let larger = |x: A, y: A| if x > y { x } else { y };
    let eight: [A; 8] = std::array::from_fn(|lane| larger(lanes[lane], lanes[lane + 8]));
    let four: [A; 4] = std::array::from_fn(|lane| larger(eight[lane], eight[lane + 4]));
    larger(larger(four[0], four[2]), larger(four[1], four[3]))
}

/// The sum of the lanes, by halves.
#[inline(always)]
pub(super) fn total<A: Float>(lanes: [A; LANES]) -> A {
    let eight: [A; 8] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [A; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

stamped! {
    /// For one row: `s ← P = 2^(c s − lse)` and `dp ← dS = P ∘ (dP − D)`.
    pub(crate) fn score_gradients<A: Float>(s: &mut [A], dp: &mut [A], c: A, lse: A, d: A) = score_gradients_body
}

#[inline(always)]
fn score_gradients_body<A: Float, M: Machine>(s: &mut [A], dp: &mut [A], c: A, lse: A, d: A) {
    for (s, dp) in s.iter_mut().zip(dp) {
        let p = exp2::<A, M>(mul_add::<A, M>(*s, c, -lse));
        *s = p;
        *dp = p * (*dp - d);
    }
}

stamped! {
    /// `x ← x ∘ y`.
    pub(crate) fn multiply<A: Float>(x: &mut [A], y: &[A]) = multiply_body
}

#[inline(always)]
fn multiply_body<A: Float, M: Machine>(x: &mut [A], y: &[A]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= *y;
    }
}

stamped! {
    /// `x ← factor · x`.
    pub(crate) fn scale<A: Float>(x: &mut [A], factor: A) = scale_body
}

#[inline(always)]
fn scale_body<A: Float, M: Machine>(x: &mut [A], factor: A) {
    for x in x {
        *x *= factor;
    }
}

stamped! {
    /// `s ← c · tanh(s / c)`, and `slope ← 1 − tanh²`.
    pub(crate) fn softcap<A: Float>(s: &mut [A], slope: &mut [A], cap: A) = softcap_body
}

#[inline(always)]
fn softcap_body<A: Float, M: Machine>(s: &mut [A], slope: &mut [A], cap: A) {
    let inverse = A::one() / cap;
    for (s, slope) in s.iter_mut().zip(slope) {
        // A cap that vanishes in the accumulator leaves s = 0 as it is.
        let x = if *s == A::zero() { A::zero() } else { *s * inverse };
        let t = x.hyperbolic_tangent::<M>();
        (*s, *slope) = (cap * t, A::one() - t * t);
    }
}

stamped! {
    /// `s ← s − slope · |distance − c|` for column `c`.
    pub(crate) fn add_distances<A: Float>(s: &mut [A], slope: A, distance: A) = add_distances_body
}

#[inline(always)]
fn add_distances_body<A: Float, M: Machine>(s: &mut [A], slope: A, distance: A) {
    let minus = A::zero() - slope;
    let mut ahead: [A; LANES] = std::array::from_fn(|lane| distance - super::float::constant(lane as f64));
    let step: A = super::float::constant(LANES as f64);
    for chunk in s.chunks_mut(LANES) {
        for (s, ahead) in chunk.iter_mut().zip(&mut ahead) {
            *s = mul_add::<A, M>(minus, tilewright_scalar::Real::abs(*ahead), *s);
            *ahead -= step;
        }
    }
}

stamped! {
    /// `to ← from`, as accumulators.
    pub(crate) fn widen<T: Stored>(from: &[T], to: &mut [T::Accum]) = widen_body
}

#[inline(always)]
fn widen_body<T: Stored, M: Machine>(from: &[T], to: &mut [T::Accum]) {
    let (whole, rest) = from.as_chunks::<LANES>();
    let (to_whole, to_rest) = to.as_chunks_mut::<LANES>();
    for (to, from) in to_whole.iter_mut().zip(whole) {
        *to = T::widen_all::<M, LANES>(from);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = from.widen();
    }
}

stamped! {
    /// Whether every element is finite: `0 · x` is 0 then, and NaN otherwise.
    pub(crate) fn all_finite<A: Float, B: Widen<A>>(x: &[B]) -> bool = all_finite_body
}

#[inline(always)]
fn all_finite_body<A: Float, B: Widen<A>, M: Machine>(x: &[B]) -> bool {
    sum_of(x, |x: B| x.widen() * A::zero()) == A::zero()
}

/// The sum of what `f` makes of the elements, by lanes: the same order for the same length.
#[inline(always)]
fn sum_of<A: Float, B: Copy>(x: &[B], f: impl Fn(B) -> A) -> A {
    let mut lanes = [A::zero(); LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += f(chunk[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        lanes[lane] += f(*x);
    }
    total(lanes)
}

/// `2^x` outside of any loop.
pub(crate) fn exp2_scalar<A: Float>(x: A) -> A {
    exp2::<A, super::isa::Portable>(x)
}

/// `e^x` outside of any loop.
pub(crate) fn exp_scalar<A: Float>(x: A) -> A {
    exp2_scalar(x * A::LOG2_E)
}

stamped! {
    /// `x ← e^(x − shift)`.
    pub(crate) fn exp_row<A: Float>(x: &mut [A], shift: A) = exp_row_body
}

#[inline(always)]
fn exp_row_body<A: Float, M: Machine>(x: &mut [A], shift: A) {
    for x in x {
        *x = exp2::<A, M>((*x - shift) * A::LOG2_E);
    }
}

stamped! {
    /// The largest element, −∞ if there is none; a NaN is passed over.
    pub(crate) fn max_row<A: Float>(x: &[A]) -> A = max_row_body
}

#[inline(always)]
fn max_row_body<A: Float, M: Machine>(x: &[A]) -> A {
    let rest = x.chunks_exact(LANES).remainder();
    rest.iter().fold(max_of(x), |m, x| if *x > m { *x } else { m })
}

stamped! {
    /// The sum of a row.
    pub(crate) fn sum_row<A: Float>(x: &[A]) -> A = sum_row_body
}

#[inline(always)]
fn sum_row_body<A: Float, M: Machine>(x: &[A]) -> A {
    sum_of(x, |x| x)
}
