//! The digits: 1797 images of 8 × 8 pixels, the test part of the UCI "Optical Recognition of Handwritten Digits" set
//! (E. Alpaydin and C. Kaynak, 1998; CC BY 4.0), as scikit-learn ships it.

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use tilewright_scalar::philox4x32_10;

pub(crate) const PIXELS: usize = 64;
pub(crate) const CLASSES: usize = 10;
/// Images held out.
const TEST: usize = 360;

/// What a random number is for: the third word of the generator's counter.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Split,
    Weights,
    Batches,
}

/// Four random words that belong to a seed, a purpose and two coordinates.
pub(crate) fn random(seed: u64, purpose: Purpose, a: u64, b: u32) -> [u32; 4] {
    philox4x32_10([a as u32, (a >> 32) as u32, b, purpose as u32], [seed as u32, (seed >> 32) as u32])
}

/// A number below `bound`.
fn below(word: u32, bound: usize) -> usize {
    ((u64::from(word) * bound as u64) >> 32) as usize
}

/// Some images, pixels between 0 and 1, and what they show.
#[derive(Default)]
pub(crate) struct Images {
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<usize>,
}

impl Images {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    fn push(&mut self, other: &Self, i: usize) {
        self.pixels.extend_from_slice(&other.pixels[i * PIXELS..][..PIXELS]);
        self.labels.push(other.labels[i]);
    }

    /// The batch of a rank in a step, drawn with replacement. It depends on nothing else, so a run that continues draws
    /// what an uninterrupted one would have.
    pub(crate) fn batch(&self, seed: u64, step: u64, rank: usize, size: usize) -> Self {
        let mut batch = Self::default();
        for i in 0..size {
            let [word, ..] = random(seed, Purpose::Batches, step, (rank * size + i) as u32);
            batch.push(self, below(word, self.len()));
        }
        batch
    }
}

/// The images for training and those held out, by a shuffle that depends on the seed.
pub(crate) fn load(seed: u64) -> Result<(Images, Images)> {
    let file = SafeTensors::deserialize(include_bytes!("digits.safetensors")).context("digits.safetensors")?;
    let (images, labels) = (file.tensor("images")?.data(), file.tensor("labels")?.data());
    ensure!(
        images.len() == labels.len() * PIXELS,
        "digits.safetensors: {} pixels of {} images",
        images.len(),
        labels.len()
    );
    let all = Images {
        pixels: images.iter().map(|pixel| f32::from(*pixel) / 16.0).collect(),
        labels: labels.iter().map(|label| usize::from(*label)).collect(),
    };
    ensure!(all.labels.iter().all(|label| *label < CLASSES), "digits.safetensors: a label is no digit");
    let mut order: Vec<usize> = (0..all.len()).collect();
    for i in (1..order.len()).rev() {
        let [word, ..] = random(seed, Purpose::Split, i as u64, 0);
        order.swap(i, below(word, i + 1));
    }
    let (mut train, mut test) = (Images::default(), Images::default());
    for (place, i) in order.into_iter().enumerate() {
        if place < TEST { test.push(&all, i) } else { train.push(&all, i) }
    }
    Ok((train, test))
}
