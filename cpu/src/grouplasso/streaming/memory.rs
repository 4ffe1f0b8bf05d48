//! How memory that was allowed is shared out.

use tilewright_grouplasso::{GroupLassoError, Layout};

/// What a solver may allocate.
///
/// It covers blocks of features, working sets and the inner solver on them, and what there is of each sample and feature. The
/// features and targets of the caller, the program, the threads' stacks and the half megabyte that each thread keeps for matrix
/// products are not counted; nor are the answers of a path, which are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes at most.
    pub bytes: u64,
}

impl Default for Memory {
    /// 512 MiB.
    fn default() -> Self {
        Self { bytes: 512 << 20 }
    }
}

/// Numbers of `f64` for each sample and output: the targets, `Z` and the residual, and what losses, certificates and inner
/// solvers make of them in passing.
const PER_OUTPUT: u64 = 32;

/// Bytes for each feature: its mean and scale.
const PER_FEATURE: u64 = 16;

/// Bytes for each group: excess, size and proof, its place in a ranking, and ends of groups and their copies.
const PER_GROUP: u64 = 48;

/// Bytes for each number of a working set besides the number itself: the inner solver keeps it standardised, copies what is in
/// the support, and has a weighted copy of that; all in `f64` when single precision gets it no further.
const INNER: u64 = 24;

/// Bytes for each pair of features of a working set, as far as there are not more features than samples: an inner solver's
/// matrix of second derivatives, that of the groups' directions, and what the latter is made of, in `f64`.
const PAIRS: u64 = 24;

/// With more features than so many a sample the inner solver may keep the images of the groups' directions instead, of no more
/// groups than the root of so many times the features.
const IMAGES: (u64, u64) = (2, 60);

/// Features of the least working set worth beginning with.
const LEAST: u64 = 16;

/// The plan. It does not depend on the number of threads, except for how many work at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Features of a block, unless a group has more.
    pub(super) together: usize,
    /// Blocks in memory at once.
    pub(super) workers: usize,
    /// Bytes for everything but working sets.
    base: u64,
    limit: u64,
    samples: u64,
    outputs: u64,
    /// Bytes of a number of the working set.
    number: u64,
}

impl Plan {
    /// # Errors
    /// [`GroupLassoError::OutOfMemory`] with the least that would do.
    pub(super) fn new(
        memory: Memory,
        (samples, outputs): (usize, usize),
        layout: &Layout,
        together: usize,
        number: usize,
    ) -> Result<Self, GroupLassoError> {
        let [samples, outputs, number] = [samples, outputs, number].map(|x| x as u64);
        let widest = (0..if layout.is_rows() { 0 } else { layout.groups() }).map(|g| layout.size(g)).max().unwrap_or(1);
        let together = together.clamp(1, layout.features().max(1));
        // Columns and their correlations, and what a reader turns rows into columns with.
        let block = |features: usize| {
            let columns = (features as u64).saturating_mul(8).saturating_mul(samples.saturating_add(outputs));
            columns.saturating_add(features as u64 * 160).saturating_add(1 << 18)
        };
        let fixed = samples
            .saturating_mul(outputs)
            .saturating_mul(8 * PER_OUTPUT)
            .saturating_add(PER_FEATURE * layout.features() as u64)
            .saturating_add(PER_GROUP * layout.groups() as u64);
        // A quarter is for blocks, or what one takes.
        let share = memory.bytes / 4;
        let together = (0..=together.ilog2()).map(|half| together >> half).find(|features| block(*features) <= share);
        let together = together.unwrap_or(1);
        let block = block(together.max(widest));
        let workers = (share / block).clamp(1, rayon::current_num_threads() as u64) as usize;
        let base = fixed.saturating_add(block.max(share.min(64 * block)));
        let mut plan = Self { together, workers, base, limit: memory.bytes, samples, outputs, number };
        let least = LEAST.max(widest as u64).min(layout.rows() as u64);
        if plan.with(least) > memory.bytes {
            plan.base = fixed.saturating_add(block);
            let bytes = plan.with(least);
            // What is a quarter of more is more as well.
            let bytes = bytes.max(block.saturating_mul(4)).max((plan.with(least) - block) / 3 * 4 + 64);
            return Err(GroupLassoError::OutOfMemory { what: "a least working set, within the bound", bytes });
        }
        Ok(plan)
    }

    /// Features that a working set can have.
    pub(super) fn most(&self, features: usize) -> usize {
        let (mut fits, mut too_many) = (0, features as u64 + 1);
        while fits + 1 < too_many {
            let middle = fits + (too_many - fits) / 2;
            if self.with(middle) <= self.limit { fits = middle } else { too_many = middle }
        }
        fits as usize
    }

    /// Bytes for a working set of so many features, and all the rest.
    pub(super) fn with(&self, features: u64) -> u64 {
        let columns = features.saturating_mul(self.samples.saturating_mul(self.number + INNER));
        let coefficients = features.saturating_mul(self.outputs.saturating_mul(64));
        let square = features.min(self.samples);
        let pairs = square.saturating_mul(square).saturating_mul(PAIRS);
        let directions = if features > IMAGES.0.saturating_mul(self.samples) {
            IMAGES.1.saturating_mul(features).isqrt()
        } else {
            0
        };
        let images = directions.saturating_mul(16).saturating_mul(self.samples.saturating_mul(self.outputs));
        self.base.saturating_add(columns).saturating_add(coefficients).saturating_add(pairs).saturating_add(images)
    }
}
