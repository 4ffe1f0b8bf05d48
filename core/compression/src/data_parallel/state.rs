//! All that an optimiser remembers, as plain data.

use super::DataParallelError;
use crate::{CompressionError, Memory};
use alloc::string::ToString;
use alloc::vec::Vec;

/// What a rank remembers from one step to the next, besides the weights. With the weights it is all there is: the next
/// steps from here give the same bits whenever they are taken.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Stands for the settings and the packing; equal only for equal ones.
    pub fingerprint: u64,
    /// Whose state it is.
    pub rank: usize,
    /// Of how many ranks.
    pub ranks: usize,
    /// The number of the next step.
    pub step: u64,
    /// Those of the buckets, in order.
    pub buckets: Vec<BucketState>,
}

/// What a rank remembers of a bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketState {
    /// The compressor's memory, empty in a dense bucket.
    pub memory: Memory,
    /// Momentum after the reduction, empty where there is none.
    pub momentum: Vec<f32>,
}

impl State {
    /// Whether `other` can take the place of this state.
    pub(super) fn check(&self, other: &Self) -> Result<(), DataParallelError> {
        same("fingerprint", other.fingerprint, self.fingerprint)?;
        same("rank", other.rank as u64, self.rank as u64)?;
        same("number of ranks", other.ranks as u64, self.ranks as u64)?;
        if other.step == u64::MAX {
            let (got, expected) = (other.step.to_string(), "a step that has a next one".into());
            return Err(DataParallelError::State { field: "step", got, expected });
        }
        same("number of buckets", other.buckets.len() as u64, self.buckets.len() as u64)?;
        for (new, old) in other.buckets.iter().zip(&self.buckets) {
            length("velocity", &new.memory.velocity, &old.memory.velocity)?;
            length("momentum of the memory", &new.memory.momentum, &old.memory.momentum)?;
            length("momentum", &new.momentum, &old.momentum)?;
        }
        Ok(())
    }
}

fn same(field: &'static str, got: u64, expected: u64) -> Result<(), DataParallelError> {
    if got == expected {
        return Ok(());
    }
    Err(DataParallelError::State { field, got: got.to_string(), expected: expected.to_string() })
}

fn length(argument: &'static str, got: &[f32], expected: &[f32]) -> Result<(), CompressionError> {
    crate::memory::length(argument, got.len(), expected.len())
}
