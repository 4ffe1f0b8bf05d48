//! How ranks talk: ordered collectives over plain words, and a wrapper that counts bytes.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

/// Why a collective failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectiveError {
    /// A rank is gone, or gave up: the operation cannot complete on any rank.
    RankLost {
        /// Which.
        rank: usize,
        /// What it said last, if anything.
        reason: String,
    },
    /// Ranks disagree about the operation.
    Mismatch {
        /// The rank that differs from this one.
        rank: usize,
        /// How.
        problem: String,
    },
    /// The engine reports an error.
    Engine(String),
}

impl fmt::Display for CollectiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RankLost { rank, reason } if reason.is_empty() => write!(f, "rank {rank} is lost"),
            Self::RankLost { rank, reason } => write!(f, "rank {rank} is lost: {reason}"),
            Self::Mismatch { rank, problem } => write!(f, "rank {rank} disagrees: {problem}"),
            Self::Engine(problem) => write!(f, "collective engine: {problem}"),
        }
    }
}

impl core::error::Error for CollectiveError {}

/// Collectives among `size` ranks. Every rank calls the same operations in the same order; results are in rank order,
/// and sums are taken in rank order, so all ranks get the same bits.
pub trait Collective {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Equal lengths: `receive` has `size()` times the length of `send` and ends up with every rank's words, in order.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError>;

    /// Unequal lengths, empty ones among them: `receive` ends up with every rank's words, those of rank `r` at
    /// `starts[r]..starts[r + 1]`.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn all_gather_v(
        &self,
        send: &[u64],
        starts: &mut Vec<usize>,
        receive: &mut Vec<u64>,
    ) -> Result<(), CollectiveError> {
        // Lengths first, then everything padded to the longest.
        let mut lengths = vec![0; self.size()];
        self.all_gather(&[send.len() as u64], &mut lengths)?;
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut padded = vec![0; longest];
        padded[..send.len()].copy_from_slice(send);
        let mut all = vec![0; longest * self.size()];
        self.all_gather(&padded, &mut all)?;
        receive.clear();
        starts.clear();
        starts.push(0);
        for (rank, length) in lengths.iter().enumerate() {
            receive.extend_from_slice(&all[rank * longest..][..*length as usize]);
            starts.push(receive.len());
        }
        Ok(())
    }

    /// `data ← data₀ + data₁ + …`, in rank order, on every rank.
    ///
    /// # Errors
    /// [`CollectiveError`].
    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError>;
}

/// What went through a [`Counting`] collective on this rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of this rank's own contributions to gathers.
    pub gathered: u64,
    /// Bytes of the vectors this rank reduced.
    pub reduced: u64,
    /// Operations.
    pub operations: u64,
}

impl Traffic {
    /// Bytes this rank puts on the wire if gathers and reductions run as rings among `ranks`: a contribution travels
    /// `N − 1` hops, a reduced vector `2(N − 1)/N` of its length.
    pub fn ring_bytes(&self, ranks: usize) -> f64 {
        let n = ranks as f64;
        (n - 1.0) * self.gathered as f64 + 2.0 * (n - 1.0) / n * self.reduced as f64
    }
}

/// A collective that counts what passes through it.
///
/// ```
/// use tilewright_compression::collective::{Collective, Counting, Solo};
/// let counting = Counting::new(Solo);
/// counting.all_reduce_sum(&mut [1.0, 2.0])?;
/// assert_eq!(counting.traffic().reduced, 8);
/// # Ok::<(), tilewright_compression::CollectiveError>(())
/// ```
#[derive(Debug)]
pub struct Counting<C> {
    inner: C,
    traffic: Cell<Traffic>,
}

impl<C: Collective> Counting<C> {
    /// Nothing has passed yet.
    pub fn new(inner: C) -> Self {
        Self { inner, traffic: Cell::default() }
    }

    /// What has passed.
    pub fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    fn add(&self, gathered: usize, reduced: usize) {
        let t = self.traffic.get();
        self.traffic.set(Traffic {
            gathered: t.gathered + gathered as u64,
            reduced: t.reduced + reduced as u64,
            operations: t.operations + 1,
        });
    }
}

impl<C: Collective> Collective for Counting<C> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        self.inner.all_gather(send, receive)?;
        self.add(size_of_val(send), 0);
        Ok(())
    }

    fn all_gather_v(
        &self,
        send: &[u64],
        starts: &mut Vec<usize>,
        receive: &mut Vec<u64>,
    ) -> Result<(), CollectiveError> {
        self.inner.all_gather_v(send, starts, receive)?;
        self.add(size_of_val(send), 0);
        Ok(())
    }

    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
        self.inner.all_reduce_sum(data)?;
        self.add(0, size_of_val(data));
        Ok(())
    }
}

/// One rank alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        if receive.len() != send.len() {
            return Err(CollectiveError::Mismatch {
                rank: 0,
                problem: alloc::format!("receives {} words, sends {}", receive.len(), send.len()),
            });
        }
        receive.copy_from_slice(send);
        Ok(())
    }

    fn all_reduce_sum(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }
}
