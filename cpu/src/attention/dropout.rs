//! Dropout's factors, many at a time: [`DropoutMask`] by vectors.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use super::float::{Float, constant};
use super::isa::{Machine, stamped};
use tilewright_attention::dropout::DropoutMask;

stamped! {
    /// `z_c ← Z_c` for one query of one head of a sequence, `[i, h, b]`, and keys from `first` on.
    pub(crate) fn factors<A: Float>(z: &mut [A], first: usize, at: [u32; 3], mask: DropoutMask) = factors_body
}

#[inline(always)]
fn factors_body<A: Float, M: Machine>(z: &mut [A], first: usize, at: [u32; 3], mask: DropoutMask) {
    const QUADS: usize = 16;
    let keep = constant(mask.keep_factor());
    // A word is compared as it is, not in 64 bits: one up to `last` drops its key.
    let Some(last) = mask.threshold().checked_sub(1) else { return z.fill(keep) };
    let (mut done, mut quad) = (0, first / 4);
    while done < z.len() {
        let words = philox::<QUADS>(quad as u32, at, mask.key());
        let words = &words.as_flattened()[if done == 0 { first % 4 } else { 0 }..];
        let count = words.len().min(z.len() - done);
        for (z, word) in z[done..done + count].iter_mut().zip(words) {
            *z = if *word > last as u32 { keep } else { A::zero() };
        }
        (done, quad) = (done + count, quad + QUADS);
    }
}

/// Philox4x32-10 for `N` consecutive first counters. Within, a word is the lower half of 64 bits, whose upper half means
/// nothing: that is how vectors multiply 32-bit numbers to 64 bits, and no word has to be moved to where it is multiplied.
/// The loop over counters is the outer one, or each round's words would pass through memory.
#[inline(always)]
fn philox<const N: usize>(first: u32, [i, h, b]: [u32; 3], key: [u32; 2]) -> [[u32; 4]; N] {
    const LOW: u64 = u32::MAX as u64;
    let mut keys = [key; 10];
    for round in 1..keys.len() {
        let [x, y] = keys[round - 1];
        keys[round] = [x.wrapping_add(0x9E37_79B9), y.wrapping_add(0xBB67_AE85)];
    }
    let mut words = [[0; 4]; N];
    for (n, words) in words.iter_mut().enumerate() {
        let mut counter = [u64::from(first.wrapping_add(n as u32)), i.into(), h.into(), b.into()];
        for key in keys {
            let (x, y) = ((counter[0] & LOW) * 0xD251_1F53, (counter[2] & LOW) * 0xCD9E_8D57);
            counter = [(y >> 32) ^ counter[1] ^ u64::from(key[0]), y, (x >> 32) ^ counter[3] ^ u64::from(key[1]), x];
        }
        *words = counter.map(|word| word as u32);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::isa::Isa;
    use proptest::prelude::*;
    use tilewright_attention::Dropout;
    use tilewright_scalar::philox4x32_10;

    proptest! {
        /// Factor by factor what the mask says, where a word is the last that is dropped or the first that is kept.
        #[test]
        fn factors_are_those_of_the_mask(
            seed in any::<u64>(),
            [i, h, b] in any::<[u32; 3]>(),
            first in 0usize..1000,
            length in 0usize..300,
            chosen in 0usize..300,
            above in 0u32..2,
        ) {
            let (j, key) = (first + chosen, [seed as u32, (seed >> 32) as u32]);
            let word = philox4x32_10([(j / 4) as u32, i, h, b], key)[j % 4];
            let p = f64::from(word.saturating_add(above)) / 2f64.powi(32);
            let mask = DropoutMask::new(Dropout { p, seed });
            let expected = (first..first + length).map(|j| mask.factor(b as usize, h as usize, i as usize, j));
            let expected: Vec<_> = expected.collect();
            for isa in Isa::available() {
                let mut z = vec![f64::NAN; length];
                factors(isa, &mut z, first, [i, h, b], mask);
                prop_assert_eq!(&z, &expected, "{}", isa.name());
            }
        }
    }
}
