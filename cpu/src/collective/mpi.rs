//! Ranks as processes under `mpirun`.

use super::Operation;
use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::{Communicator, SimpleCommunicator};
use std::cell::RefCell;
use std::io::Write;
use tilewright_compression::{Collective, CollectiveError};

/// Elements in one MPI operation, over all ranks: MPI counts in 32 bits, and longer vectors go in several operations.
const MOST: usize = 1 << 26;

/// A rank among the processes that `mpirun` started.
///
/// Every operation begins with a word about what each rank is about to do. So ranks that disagree all get
/// [`CollectiveError::Mismatch`], and if a rank drops its handle while others still work, they get
/// [`CollectiveError::RankLost`] naming it. A rank that panics, or calls [`abort`](Self::abort), prints which it is and
/// why, and ends the job; one that is killed is noticed by `mpirun`, which ends the others and names it. Nobody waits for
/// a rank that is gone.
///
/// A process has one handle at most, and uses it on the thread that made it. A program started without `mpirun` is one
/// rank alone.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Elements of an operation at most.
    most: usize,
    /// Why nothing works any more.
    broken: RefCell<Option<CollectiveError>>,
    room: RefCell<Room>,
    /// Dropped last: it ends MPI in this process.
    _universe: Universe,
}

#[derive(Default)]
struct Room {
    headers: Vec<u64>,
    words: Vec<u64>,
    mine: Vec<f32>,
    theirs: Vec<f32>,
    sums: Vec<f32>,
}

/// What a rank announces: its operation, as three words, and the length of an unequal contribution.
type Header = [u64; 4];

impl Mpi {
    /// Joins the job.
    ///
    /// # Errors
    /// [`CollectiveError::Engine`] if this process has joined before, or MPI tolerates no other threads beside it.
    pub fn new() -> Result<Self, CollectiveError> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| CollectiveError::Engine("MPI is in use in this process already".into()))?;
        if threading < Threading::Funneled {
            return Err(CollectiveError::Engine("MPI supports no threads beside it".into()));
        }
        Ok(Self {
            world: universe.world(),
            most: MOST,
            broken: RefCell::default(),
            room: RefCell::default(),
            _universe: universe,
        })
    }

    /// The same with at most so many elements in one operation, at least one for each rank. The result of no operation
    /// depends on it, only the memory they need. The same on all ranks.
    pub fn with_most(mut self, elements: usize) -> Self {
        self.most = elements.clamp(self.size(), MOST);
        self
    }

    /// Prints which rank gives up and why, and ends all ranks, with a status that is not zero.
    pub fn abort(&self, reason: &str) -> ! {
        let mut stderr = std::io::stderr();
        // Nothing is left to be done about an error here.
        let _ = writeln!(stderr, "rank {} is lost: {reason}", self.rank()).and_then(|()| stderr.flush());
        self.world.abort(1)
    }

    /// Tells all ranks what this one is about to do. In `headers`, then, is what all are.
    fn announce(&self, operation: Operation, len: usize, headers: &mut Vec<u64>) -> Result<(), CollectiveError> {
        if let Some(error) = &*self.broken.borrow() {
            return Err(error.clone());
        }
        let [code, a, b] = encode(Some(operation));
        self.meet([code, a, b, len as u64], headers);
        let operations = headers.as_chunks::<4>().0.iter().map(|[code, a, b, _]| decode([*code, *a, *b]));
        if let Some(rank) = operations.clone().position(|operation| operation.is_none()) {
            let error = CollectiveError::RankLost { rank, reason: "its handle was dropped".into() };
            return Err(self.broken.borrow_mut().insert(error).clone());
        }
        operation.check(self.rank(), operations.flatten())
    }

    fn meet(&self, header: Header, headers: &mut Vec<u64>) {
        headers.clear();
        headers.resize(header.len() * self.size(), 0);
        self.world.all_gather_into(&header[..], &mut headers[..]);
    }

    /// Gathers contributions of these lengths in as many rounds as it takes.
    fn gather(&self, send: &[u64], lengths: &[usize], room: &mut Vec<u64>, mut take: impl FnMut(usize, usize, &[u64])) {
        let per_rank = self.most / self.size();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for start in (0..longest).step_by(per_rank) {
            let part = |len: usize| start.min(len)..(start + per_rank).min(len);
            let counts: Vec<i32> = lengths.iter().map(|len| part(*len).len() as i32).collect();
            let places = places(&counts);
            room.clear();
            room.resize(counts.iter().map(|count| *count as usize).sum(), 0);
            let mut partition = PartitionMut::new(&mut room[..], &counts[..], &places[..]);
            self.world.all_gather_varcount_into(&send[part(send.len())], &mut partition);
            for (rank, (place, count)) in places.iter().zip(&counts).enumerate() {
                take(rank, part(lengths[rank]).start, &room[*place as usize..][..*count as usize]);
            }
        }
    }
}

fn places(counts: &[i32]) -> Vec<i32> {
    let end = |end: &mut i32, count: &i32| {
        let place = *end;
        *end += count;
        Some(place)
    };
    counts.iter().scan(0, end).collect()
}

/// An operation as words; none stands for leaving.
fn encode(operation: Option<Operation>) -> [u64; 3] {
    match operation {
        None => [0; 3],
        Some(Operation::None) => [1, 0, 0],
        Some(Operation::Gather(words)) => [2, words as u64, 0],
        Some(Operation::GatherUnequal) => [3, 0, 0],
        Some(Operation::Reduce(elements)) => [4, elements as u64, 0],
        Some(Operation::Malformed(send, receive)) => [5, send as u64, receive as u64],
    }
}

fn decode([code, a, b]: [u64; 3]) -> Option<Operation> {
    Some(match code {
        0 => return None,
        2 => Operation::Gather(a as usize),
        3 => Operation::GatherUnequal,
        4 => Operation::Reduce(a as usize),
        5 => Operation::Malformed(a as usize, b as usize),
        _ => Operation::None,
    })
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        let room = &mut *self.room.borrow_mut();
        self.announce(Operation::gather(send.len(), receive.len(), self.size()), send.len(), &mut room.headers)?;
        if receive.len() <= self.most {
            self.world.all_gather_into(send, receive);
            return Ok(());
        }
        let lengths = vec![send.len(); self.size()];
        self.gather(send, &lengths, &mut room.words, |rank, start, part| {
            receive[rank * send.len() + start..][..part.len()].copy_from_slice(part);
        });
        Ok(())
    }

    fn all_gather_v(
        &self,
        send: &[u64],
        starts: &mut Vec<usize>,
        receive: &mut Vec<u64>,
    ) -> Result<(), CollectiveError> {
        let room = &mut *self.room.borrow_mut();
        self.announce(Operation::GatherUnequal, send.len(), &mut room.headers)?;
        let lengths: Vec<usize> = room.headers.as_chunks::<4>().0.iter().map(|header| header[3] as usize).collect();
        starts.clear();
        starts.push(0);
        starts.extend(lengths.iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        }));
        receive.clear();
        receive.resize(lengths.iter().sum(), 0);
        self.gather(send, &lengths, &mut room.words, |rank, start, part| {
            receive[starts[rank] + start..][..part.len()].copy_from_slice(part);
        });
        Ok(())
    }

    /// Each rank owns a range, adds up everybody's part of it in rank order, and hands the sums out: the traffic of a
    /// ring, but with an order. `MPI_Allreduce` may add in any.
    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
        let room = &mut *self.room.borrow_mut();
        self.announce(Operation::Reduce(data.len()), 0, &mut room.headers)?;
        for data in data.chunks_mut(self.most) {
            let range = data.len().div_ceil(self.size());
            let padded = range * self.size();
            room.mine.clear();
            room.mine.extend_from_slice(data);
            room.mine.resize(padded, 0.0);
            room.theirs.resize(padded, 0.0);
            self.world.all_to_all_into(&room.mine[..], &mut room.theirs[..]);
            let (first, others) = room.theirs.split_at(range);
            room.sums.clear();
            room.sums.extend_from_slice(first);
            for other in others.chunks_exact(range) {
                room.sums.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
            }
            self.world.all_gather_into(&room.sums[..], &mut room.mine[..]);
            data.copy_from_slice(&room.mine[..data.len()]);
        }
        Ok(())
    }
}

impl Drop for Mpi {
    /// Leaves. Those who are in an operation learn of it; a rank whose own thread panics takes all with it, for it cannot
    /// know what the others wait for.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort("it panicked");
        }
        if self.broken.borrow().is_none() {
            let [code, a, b] = encode(None);
            self.meet([code, a, b, 0], &mut Vec::new());
        }
    }
}
