//! Vector instructions: the only place of this family that knows them, and the only one with `unsafe`.
//!
//! A [`Kernel`] is written once, in portable Rust over blocks of [`BLOCK`] numbers, and compiled once for each level. Rust
//! neither contracts nor reassociates floating-point arithmetic, so every compilation gives the same bits. Only one
//! operation is spelled out in intrinsics, because compilers miss it: [`Mask::bits_above`].

// What is inlined into a function compiled for AVX is compiled for AVX, and nothing else is.
#![allow(clippy::inline_always)]

use tilewright_compression::CompressionError;
use tilewright_compression::key::NAN;

/// Numbers in a block: as many as a mask has bits.
pub(super) const BLOCK: usize = 64;

/// Which vector instructions to use. All give the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Simd {
    /// The widest that the machine has.
    #[default]
    Detect,
    /// None but what the compiler's target guarantees.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX-512 (F).
    Avx512,
}

/// A level that this machine has: the tokens inside can only be had from [`Level::new`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Level {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Work on blocks, compiled for each level. `run` must be `#[inline(always)]`.
pub(super) trait Kernel {
    type Output;
    fn run<M: Mask>(self, mask: M) -> Self::Output;
}

/// The operation that differs between levels.
pub(super) trait Mask: Copy {
    /// Bit `j` says whether the [magnitude](tilewright_compression::key::magnitude) of `block[j]` is greater than `limit`.
    #[inline(always)]
    fn above(self, block: &[f32; BLOCK], limit: u32) -> u64 {
        self.bits_above(block, limit_of_bits(limit))
    }

    /// Bit `j` says whether the bits of `|block[j]|`, as an integer, are greater than `limit`.
    fn bits_above(self, block: &[f32; BLOCK], limit: i32) -> u64;
}

/// The limit that the bits of `|x|` exceed just where the magnitude of `x` exceeds `limit`. The two differ in NaNs only,
/// which all have one magnitude and many bits: those are told apart from infinity by every limit less than [`NAN`], and
/// by none above.
#[inline(always)]
fn limit_of_bits(limit: u32) -> i32 {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    let limit = if limit < NAN { limit.min(INFINITY) } else { MAGNITUDE };
    limit as i32
}

/// All bits of a number but its sign.
const MAGNITUDE: u32 = i32::MAX as u32;

impl Level {
    /// # Errors
    /// [`CompressionError::Unsupported`] if the machine lacks the level.
    pub(super) fn new(simd: Simd) -> Result<Self, CompressionError> {
        match simd {
            Simd::Detect => Ok(Self::detect()),
            Simd::Portable => Ok(Self::Portable(Portable)),
            Simd::Avx2 => Self::avx2().ok_or(CompressionError::Unsupported { what: "AVX2" }),
            Simd::Avx512 => Self::avx512().ok_or(CompressionError::Unsupported { what: "AVX-512" }),
        }
    }

    /// The widest that the machine has.
    pub(super) fn detect() -> Self {
        Self::avx512().or_else(Self::avx2).unwrap_or(Self::Portable(Portable))
    }

    #[cfg(target_arch = "x86_64")]
    fn avx2() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self::Avx2(Avx2(())))
    }

    #[cfg(target_arch = "x86_64")]
    fn avx512() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx512f").then_some(Self::Avx512(Avx512(())))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn avx2() -> Option<Self> {
        None
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn avx512() -> Option<Self> {
        None
    }

    /// The one dispatch.
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(token) => kernel.run(token),
            // SAFETY: the token was made where the feature was detected.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => unsafe { x86::with_avx2(kernel, token) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => unsafe { x86::with_avx512(kernel, token) },
        }
    }
}

/// Starts to fetch something into cache, where the machine lets one ask for that.
#[inline]
pub(super) fn prefetch<T>(place: Option<&T>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if let Some(place) = place {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is part of every x86-64, and what it does cannot be observed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = place;
}

/// No particular instructions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Mask for Portable {
    #[inline(always)]
    fn bits_above(self, block: &[f32; BLOCK], limit: i32) -> u64 {
        // Signed integers, since baseline x86-64 compares no others.
        let is_above = |x: f32| (x.to_bits() & MAGNITUDE) as i32 > limit;
        // This fold vectorises; most blocks end here.
        if !block.iter().fold(false, |any, x| any | is_above(*x)) {
            return 0;
        }
        block.iter().enumerate().fold(0, |bits, (j, x)| bits | u64::from(is_above(*x)) << j)
    }
}

/// Proof that the machine has AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Mask for Avx2 {
    #[inline(always)]
    fn bits_above(self, block: &[f32; BLOCK], limit: i32) -> u64 {
        // SAFETY: the token was made where the feature was detected.
        unsafe { x86::bits_above_avx2(block, limit) }
    }
}

/// Proof that the machine has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Mask for Avx512 {
    #[inline(always)]
    fn bits_above(self, block: &[f32; BLOCK], limit: i32) -> u64 {
        // SAFETY: the token was made where the feature was detected.
        unsafe { x86::bits_above_avx512(block, limit) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Avx2, Avx512, BLOCK, Kernel, MAGNITUDE};
    use std::arch::x86_64::{
        _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_movemask_ps,
        _mm256_set1_epi32, _mm512_and_si512, _mm512_cmpgt_epi32_mask, _mm512_loadu_si512, _mm512_set1_epi32,
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn with_avx2<K: Kernel>(kernel: K, token: Avx2) -> K::Output {
        kernel.run(token)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn with_avx512<K: Kernel>(kernel: K, token: Avx512) -> K::Output {
        kernel.run(token)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn bits_above_avx2(block: &[f32; BLOCK], limit: i32) -> u64 {
        let (magnitude, limit) = (_mm256_set1_epi32(MAGNITUDE as i32), _mm256_set1_epi32(limit));
        let mut bits = 0;
        for (r, lanes) in block.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: `lanes` is 32 readable bytes, and the load asks for no alignment.
            let x = unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) };
            let hits = _mm256_cmpgt_epi32(_mm256_and_si256(x, magnitude), limit);
            bits |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(hits)) as u32) << (8 * r);
        }
        bits
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn bits_above_avx512(block: &[f32; BLOCK], limit: i32) -> u64 {
        let (magnitude, limit) = (_mm512_set1_epi32(MAGNITUDE as i32), _mm512_set1_epi32(limit));
        let mut bits = 0;
        for (r, lanes) in block.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: `lanes` is 64 readable bytes, and the load asks for no alignment.
            let x = unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) };
            bits |= u64::from(_mm512_cmpgt_epi32_mask(_mm512_and_si512(x, magnitude), limit)) << (16 * r);
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tilewright_compression::key::magnitude;

    struct Above<'a>(&'a [f32; BLOCK], u32);

    impl Kernel for Above<'_> {
        type Output = u64;

        #[inline(always)]
        fn run<M: Mask>(self, mask: M) -> u64 {
            mask.above(self.0, self.1)
        }
    }

    proptest! {
        /// Any bits at all: NaNs, infinities, both zeros, subnormals; limits that nothing and everything is above, and
        /// some among the bits of NaNs.
        #[test]
        fn masks_are_comparisons(
            bits in prop::collection::vec(prop_oneof![any::<u32>(), 0x7f7f_fff0..=u32::MAX >> 1], BLOCK),
            shift in 0u32..32,
            limit in prop_oneof![
                0..=MAGNITUDE, 0x7f80_0000..=MAGNITUDE, NAN - 1..=NAN, Just(0), Just(MAGNITUDE), Just(0x7f80_0000)
            ],
        ) {
            let block: [f32; BLOCK] = std::array::from_fn(|j| f32::from_bits(bits[j] >> (shift * (j as u32 % 2))));
            let expected = (0..BLOCK).fold(0, |all, j| all | u64::from(magnitude(block[j]) > limit) << j);
            for simd in [Simd::Portable, Simd::Avx2, Simd::Avx512, Simd::Detect] {
                if let Ok(level) = Level::new(simd) {
                    prop_assert_eq!(level.run(Above(&block, limit)), expected, "{:?}", level);
                }
            }
        }
    }
}
