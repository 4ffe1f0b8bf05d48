//! Dropout keyed by coordinates: entry `(batch, head, i, j)` is kept or dropped by a word of
//! [Philox4x32-10](tilewright_scalar::philox4x32_10) under the counter `[j / 4, i, head, batch]` and the key `seed`, so
//! no tile shape, layout or order of evaluation changes the mask.

use crate::spec::Dropout;
use tilewright_scalar::philox4x32_10;

/// The generator of one [`Dropout`].
///
/// ```
/// use tilewright_attention::{Dropout, dropout::DropoutMask};
/// let mask = DropoutMask::new(Dropout { p: 0.25, seed: 7 });
/// let kept = (0..4000).filter(|&j| mask.factor(0, 0, 0, j) > 0.0).count();
/// assert!((2900..3100).contains(&kept));
/// assert_eq!(mask.keep_factor(), 4.0 / 3.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DropoutMask {
    key: [u32; 2],
    /// A word below this drops its entry: `round(p · 2^32)`, so `p` is honoured to within 2^-33.
    threshold: u64,
    keep_factor: f64,
}

impl DropoutMask {
    /// Prepares the generator.
    pub fn new(dropout: Dropout) -> Self {
        Self {
            key: [dropout.seed as u32, (dropout.seed >> 32) as u32],
            threshold: (dropout.p * 4_294_967_296.0 + 0.5) as u64,
            keep_factor: 1.0 / (1.0 - dropout.p),
        }
    }

    /// `1 / (1 − p)`, what a kept entry is multiplied by.
    pub fn keep_factor(&self) -> f64 {
        self.keep_factor
    }

    /// The generator's key.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// A word of the generator below this drops its entry.
    pub fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Whether the four entries of columns `4·quad .. 4·quad + 4` are kept.
    pub fn keep4(&self, b: usize, h: usize, i: usize, quad: usize) -> [bool; 4] {
        let words = philox4x32_10([quad as u32, i as u32, h as u32, b as u32], self.key);
        words.map(|word| u64::from(word) >= self.threshold)
    }

    /// `Z_ij` of the papers: `1 / (1 − p)` where the entry is kept, 0 where it is dropped.
    pub fn factor(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        if self.keep4(b, h, i, j / 4)[j % 4] { self.keep_factor } else { 0.0 }
    }
}
