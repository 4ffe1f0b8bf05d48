//! Arithmetic on the 32 lanes of a warp at once.
//!
//! The loops are written so that the compiler makes vector code of them; [`pulp`] compiles them for what the machine has.

pub(crate) mod atomic;
pub(crate) mod bits;
pub(crate) mod convert;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod int;
pub(crate) mod round;

/// Lanes of a 32-bit register.
pub(crate) type L32 = [u32; 32];
/// Lanes of a 64-bit register.
pub(crate) type L64 = [u64; 32];

/// `f` of each lane of one register.
#[inline(always)]
pub(crate) fn map1<T: Copy, U>(a: &[T; 32], out: &mut [U; 32], f: impl Fn(T) -> U) {
    for l in 0..32 {
        out[l] = f(a[l]);
    }
}

/// `f` of each lane of two registers.
#[inline(always)]
pub(crate) fn map2<T: Copy, V: Copy, U>(a: &[T; 32], b: &[V; 32], out: &mut [U; 32], f: impl Fn(T, V) -> U) {
    for l in 0..32 {
        out[l] = f(a[l], b[l]);
    }
}

/// `f` of each lane of three registers.
#[inline(always)]
pub(crate) fn map3<T: Copy, V: Copy, U>(
    a: &[T; 32],
    b: &[T; 32],
    c: &[V; 32],
    out: &mut [U; 32],
    f: impl Fn(T, T, V) -> U,
) {
    for l in 0..32 {
        out[l] = f(a[l], b[l], c[l]);
    }
}
