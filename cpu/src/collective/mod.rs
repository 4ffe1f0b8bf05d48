//! Engines behind [`Collective`](tilewright_compression::Collective): threads of one process, and MPI.
//!
//! | | [`Local`] | `Mpi`, with feature `mpi` |
//! |---|---|---|
//! | ranks | threads of one process | processes under `mpirun` |
//! | sums | in rank order | in rank order, by owners of ranges: the same bits |
//! | a rank is lost | every other gets `RankLost`, naming it | the job ends; `mpirun` names the rank |
//! | ranks disagree | every rank gets `Mismatch` | the same |
mod local;
#[cfg(feature = "mpi")]
mod mpi;

pub use local::Local;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;

use tilewright_compression::CollectiveError;

/// What a rank is about to do; the same on all ranks, or the operation fails on all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Operation {
    #[default]
    None,
    Gather(usize),
    GatherUnequal,
    Reduce(usize),
    /// The rank called with arguments that contradict each other: sent words, room to receive.
    Malformed(usize, usize),
}

impl Operation {
    /// A gather into a place of that size.
    fn gather(send: usize, receive: usize, ranks: usize) -> Self {
        if send.checked_mul(ranks) == Some(receive) { Self::Gather(send) } else { Self::Malformed(send, receive) }
    }

    /// Whether every rank does the same. `all` are those of the ranks, in order.
    fn check(self, rank: usize, all: impl Iterator<Item = Self>) -> Result<(), CollectiveError> {
        if let Self::Malformed(..) = self {
            return Err(CollectiveError::Mismatch { rank, problem: self.to_string() });
        }
        for (rank, other) in all.enumerate() {
            if other != self {
                let problem = format!("it is in {other}, this one in {self}");
                return Err(CollectiveError::Mismatch { rank, problem });
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => write!(f, "nothing"),
            Self::Gather(words) => write!(f, "a gather of {words} words each"),
            Self::GatherUnequal => write!(f, "a gather of unequal lengths"),
            Self::Reduce(elements) => write!(f, "a sum of {elements} elements"),
            Self::Malformed(send, receive) => write!(f, "a gather of {send} words each into room for {receive}"),
        }
    }
}
