//! What happens to a chunk while it is in cache: the gradient enters the accumulators, and what is large is noted.

// Kernels are inlined into one function for each level of SIMD.
#![allow(clippy::inline_always)]

use super::simd::{BLOCK, Kernel, Mask};
use tilewright_compression::Feedback;
use tilewright_compression::key::{key, magnitude};
use tilewright_compression::memory::accumulate;

/// A magnitude that nothing reaches.
pub(super) const NEVER: u32 = 1 << 31;
/// The magnitude of infinity.
const INFINITE: u32 = 0x7f80_0000;

/// What [`Sweep::found`] has to hold beyond a key for each element.
pub(super) const SPARE: usize = 2;

/// Part of a bucket. What the feedback has no use for is empty.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    /// Index of its first element.
    pub(super) base: u32,
    pub(super) gradient: &'a [f32],
    pub(super) momentum: &'a mut [f32],
    pub(super) velocity: &'a mut [f32],
}

/// The fused pass over a chunk, DGC's equations 4 and 5 and the threshold: returns how many magnitudes are at least
/// `threshold`, which is at least 1, and leaves their keys in `found`, in order of index.
#[derive(Debug)]
pub(super) struct Sweep<'a> {
    pub(super) feedback: Feedback,
    pub(super) scale: f32,
    pub(super) chunk: Chunk<'a>,
    pub(super) threshold: u32,
    /// Longer than the chunk by [`SPARE`], so that it never overflows.
    pub(super) found: &'a mut [u64],
}

impl Kernel for Sweep<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<M: Mask>(self, mask: M) -> usize {
        // With the variant known, `accumulate` is straight-line code.
        match self.feedback {
            Feedback::None => self.read(mask),
            Feedback::Residual => self.residual(mask),
            Feedback::Momentum { factor, nesterov: false, masking } => {
                self.momentum(mask, Feedback::Momentum { factor, nesterov: false, masking })
            }
            Feedback::Momentum { factor, nesterov: true, masking } => {
                self.momentum(mask, Feedback::Momentum { factor, nesterov: true, masking })
            }
        }
    }
}

impl Sweep<'_> {
    #[inline(always)]
    fn read<M: Mask>(self, mask: M) -> usize {
        let mut hits = Hits::new(self.chunk.base, self.threshold, self.found);
        let (blocks, rest) = self.chunk.gradient.as_chunks::<BLOCK>();
        // Multiplying by 1 changes nothing but the bits of a NaN, which only matter to a threshold that is one.
        if self.scale == 1.0 && self.threshold <= INFINITE {
            for g in blocks {
                hits.note(mask, g);
            }
        } else {
            for g in blocks {
                hits.note(mask, &g.map(|g| self.scale * g));
            }
        }
        hits.note(mask, &padded(rest).map(|g| self.scale * g));
        hits.count
    }

    #[inline(always)]
    fn residual<M: Mask>(self, mask: M) -> usize {
        let mut hits = Hits::new(self.chunk.base, self.threshold, self.found);
        let (g_blocks, g_rest) = self.chunk.gradient.as_chunks::<BLOCK>();
        let (v_blocks, v_rest) = self.chunk.velocity.as_chunks_mut::<BLOCK>();
        for (g, v) in g_blocks.iter().zip(v_blocks) {
            add(self.scale, g, v);
            hits.note(mask, v);
        }
        let mut v = padded(v_rest);
        add(self.scale, &padded(g_rest), &mut v);
        hits.note(mask, &v);
        v_rest.copy_from_slice(&v[..v_rest.len()]);
        hits.count
    }

    #[inline(always)]
    fn momentum<M: Mask>(self, mask: M, feedback: Feedback) -> usize {
        let mut hits = Hits::new(self.chunk.base, self.threshold, self.found);
        let (g_blocks, g_rest) = self.chunk.gradient.as_chunks::<BLOCK>();
        let (u_blocks, u_rest) = self.chunk.momentum.as_chunks_mut::<BLOCK>();
        let (v_blocks, v_rest) = self.chunk.velocity.as_chunks_mut::<BLOCK>();
        for ((g, u), v) in g_blocks.iter().zip(u_blocks).zip(v_blocks) {
            correct(feedback, self.scale, g, u, v);
            hits.note(mask, v);
        }
        let (mut u, mut v) = (padded(u_rest), padded(v_rest));
        correct(feedback, self.scale, &padded(g_rest), &mut u, &mut v);
        hits.note(mask, &v);
        u_rest.copy_from_slice(&u[..u_rest.len()]);
        v_rest.copy_from_slice(&v[..v_rest.len()]);
        hits.count
    }
}

/// The last elements with zeros behind them, which stay zero (factor and scale are finite) and which no threshold lets
/// pass.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[inline(always)]
fn add(scale: f32, g: &[f32; BLOCK], v: &mut [f32; BLOCK]) {
    for j in 0..BLOCK {
        v[j] = accumulate(Feedback::Residual, 0.0, v[j], scale * g[j]).1;
    }
}

#[inline(always)]
fn correct(feedback: Feedback, scale: f32, g: &[f32; BLOCK], u: &mut [f32; BLOCK], v: &mut [f32; BLOCK]) {
    for j in 0..BLOCK {
        (u[j], v[j]) = accumulate(feedback, u[j], v[j], scale * g[j]);
    }
}

/// The keys found so far in a chunk.
struct Hits<'a> {
    base: u32,
    limit: u32,
    found: &'a mut [u64],
    count: usize,
}

impl<'a> Hits<'a> {
    #[inline(always)]
    fn new(base: u32, threshold: u32, found: &'a mut [u64]) -> Self {
        Self { base, limit: threshold - 1, found, count: 0 }
    }

    /// Looks at the next block.
    #[inline(always)]
    fn note<M: Mask>(&mut self, mask: M, block: &[f32; BLOCK]) {
        let mut bits = mask.above(block, self.limit);
        let base = self.base;
        self.base = base.wrapping_add(BLOCK as u32);
        if bits == 0 {
            return;
        }
        // One hit or two is hard to foresee, and a branch not foreseen costs more than a key that is not counted.
        let rest = bits & (bits - 1);
        let two = [hit(base, block, bits), hit(base, block, rest)];
        if let Some(places) = self.found.get_mut(self.count..self.count + 2) {
            places.copy_from_slice(&two);
        }
        self.count += 1 + usize::from(rest != 0);
        bits = rest & rest.wrapping_sub(1);
        while bits != 0 {
            if let Some(place) = self.found.get_mut(self.count) {
                *place = hit(base, block, bits);
            }
            self.count += 1;
            bits &= bits - 1;
        }
    }
}

/// The key of the first hit; of the last number, if there is none.
#[inline(always)]
fn hit(base: u32, block: &[f32; BLOCK], bits: u64) -> u64 {
    let j = (bits | 1 << (BLOCK - 1)).trailing_zeros();
    // The product is the number itself, and a quiet NaN for any NaN, as after every other operation.
    key(base.wrapping_add(j), 1.0 * block[j as usize % BLOCK])
}

/// Whether all of these are finite.
pub(super) struct AllFinite<'a>(pub(super) &'a [f32]);

impl Kernel for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<M: Mask>(self, mask: M) -> bool {
        let (blocks, rest) = self.0.as_chunks::<BLOCK>();
        blocks.iter().all(|block| mask.above(block, INFINITE - 1) == 0) && rest.iter().all(|x| magnitude(*x) < INFINITE)
    }
}

/// [`tilewright_compression::memory::block_of_squares`], compiled for wide vectors.
pub(super) struct BlockOfSquares<'a>(pub(super) &'a [f32]);

impl Kernel for BlockOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<M: Mask>(self, _: M) -> f64 {
        const LANES: usize = 16;
        let mut sums = [0.0; LANES];
        let (rows, rest) = self.0.as_chunks::<LANES>();
        for row in rows {
            for j in 0..LANES {
                sums[j] += f64::from(row[j]) * f64::from(row[j]);
            }
        }
        for (sum, g) in sums.iter_mut().zip(rest) {
            *sum += f64::from(*g) * f64::from(*g);
        }
        sums.iter().fold(0.0, |total, sum| total + sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Level, Simd};
    use super::*;

    /// How many hits a block has, and where, decides how many places are written: never more than those counted and the
    /// spare ones, and what was counted is right.
    #[test]
    fn hits_are_written_in_order_and_no_further() {
        const CANARY: u64 = 0xdead_beef;
        for simd in [Simd::Portable, Simd::Avx2, Simd::Avx512] {
            let Ok(level) = Level::new(simd) else { continue };
            for len in [0, 1, 5, 63, 64, 65, 130] {
                for every in [1, 2, 3, 30, 64, 200] {
                    let is_hit = |i: usize| i % every == every - 1;
                    let gradient: Vec<f32> = (0..len).map(|i| if is_hit(i) { -2.0 } else { 1.0 }).collect();
                    let expected: Vec<u64> = (0..len).filter(|i| is_hit(*i)).map(|i| key(7 + i as u32, -2.0)).collect();
                    let mut found = vec![CANARY; expected.len() + SPARE + 3];
                    let chunk = Chunk { base: 7, gradient: &gradient, momentum: &mut [], velocity: &mut [] };
                    let threshold = magnitude(1.5);
                    let sweep = Sweep { feedback: Feedback::None, scale: 1.0, chunk, threshold, found: &mut found };
                    assert_eq!(level.run(sweep), expected.len());
                    assert_eq!(found[..expected.len()], expected);
                    assert_eq!(found[expected.len() + SPARE..], [CANARY; 3]);
                }
            }
        }
    }
}
