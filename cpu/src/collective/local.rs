//! Ranks as threads of one process.

use super::Operation;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tilewright_compression::{Collective, CollectiveError};

/// A rank among threads of this process.
///
/// If a handle is dropped, by a panic or because its thread returned early, the operation the other ranks wait in, and
/// every later one, fails with [`CollectiveError::RankLost`] naming the first rank that was lost. Operations that it
/// took part in still complete.
///
/// ```
/// use tilewright_compression::Collective;
/// use tilewright_cpu::collective::Local;
///
/// let sums = std::thread::scope(|scope| {
///     let threads: Vec<_> = Local::group(3)
///         .into_iter()
///         .map(|rank| {
///             scope.spawn(move || {
///                 let mut data = [rank.rank() as f32, 1.0];
///                 rank.all_reduce_sum(&mut data).map(|()| data)
///             })
///         })
///         .collect();
///     threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
/// })?;
/// assert_eq!(sums, [[3.0, 3.0]; 3]);
/// # Ok::<(), tilewright_compression::CollectiveError>(())
/// ```
#[derive(Debug)]
pub struct Local {
    rank: usize,
    group: Arc<Group>,
}

#[derive(Debug)]
struct Group {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Two places for each rank, used in turn. Who contributes to operation `t + 2` has seen everybody arrive at `t + 1`,
    /// so everybody has read what was contributed to `t`: one wait an operation is enough.
    contributions: Vec<[RwLock<Contribution>; 2]>,
}

#[derive(Debug)]
struct Progress {
    /// How many operations each rank has contributed to.
    arrived: Vec<u64>,
    /// Ranks that are gone, the first first.
    lost: Vec<(usize, String)>,
}

impl Progress {
    /// Whether every rank has taken part in this operation, or still may.
    fn check(&self, number: u64) -> Result<(), CollectiveError> {
        match self.lost.iter().find(|(rank, _)| self.arrived[*rank] < number) {
            None => Ok(()),
            Some((rank, reason)) => Err(CollectiveError::RankLost { rank: *rank, reason: reason.clone() }),
        }
    }
}

#[derive(Debug, Default)]
struct Contribution {
    operation: Operation,
    words: Vec<u64>,
    numbers: Vec<f32>,
}

impl Local {
    /// The handles of `ranks` ranks, in order. Each goes to a thread of its own.
    pub fn group(ranks: usize) -> Vec<Self> {
        let group = Arc::new(Group {
            progress: Mutex::new(Progress { arrived: vec![0; ranks], lost: Vec::new() }),
            changed: Condvar::new(),
            contributions: (0..ranks).map(|_| Default::default()).collect(),
        });
        (0..ranks).map(|rank| Self { rank, group: Arc::clone(&group) }).collect()
    }

    /// Gives up, and tells the others why: the operation they wait in, or come to, fails with this reason.
    pub fn abort(self, reason: impl Into<String>) {
        self.leave(reason.into());
    }

    fn leave(&self, reason: String) {
        let mut progress = self.progress();
        if progress.lost.iter().all(|(rank, _)| *rank != self.rank) {
            progress.lost.push((self.rank, reason));
        }
        drop(progress);
        self.group.changed.notify_all();
    }

    /// Nothing panics while it holds the lock, so a poisoned one holds good data.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.group.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Contributes to this rank's next operation, waits until everybody has, and returns the operation's parity.
    fn exchange(&self, operation: Operation, fill: impl FnOnce(&mut Contribution)) -> Result<usize, CollectiveError> {
        let number = {
            let progress = self.progress();
            let number = progress.arrived[self.rank] + 1;
            // After a failed wait nobody knows what the others have read: nothing may be written any more.
            progress.check(number)?;
            number
        };
        let parity = (number % 2) as usize;
        {
            let place = &self.group.contributions[self.rank][parity];
            let mut mine = place.write().unwrap_or_else(PoisonError::into_inner);
            mine.operation = operation;
            fill(&mut mine);
        }
        self.arrive(number)?;
        operation.check(self.rank, (0..self.size()).map(|rank| self.read(rank, parity).operation))?;
        Ok(parity)
    }

    fn arrive(&self, number: u64) -> Result<(), CollectiveError> {
        let mut progress = self.progress();
        progress.arrived[self.rank] = number;
        self.group.changed.notify_all();
        loop {
            progress.check(number)?;
            if progress.arrived.iter().all(|arrived| *arrived >= number) {
                return Ok(());
            }
            progress = self.group.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, rank: usize, parity: usize) -> RwLockReadGuard<'_, Contribution> {
        self.group.contributions[rank][parity].read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collective for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.group.contributions.len()
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        let operation = Operation::gather(send.len(), receive.len(), self.size());
        let parity = self.exchange(operation, |mine| replace(&mut mine.words, send))?;
        if !send.is_empty() {
            for (rank, part) in receive.chunks_exact_mut(send.len()).enumerate() {
                part.copy_from_slice(&self.read(rank, parity).words);
            }
        }
        Ok(())
    }

    fn all_gather_v(
        &self,
        send: &[u64],
        starts: &mut Vec<usize>,
        receive: &mut Vec<u64>,
    ) -> Result<(), CollectiveError> {
        let parity = self.exchange(Operation::GatherUnequal, |mine| replace(&mut mine.words, send))?;
        receive.clear();
        starts.clear();
        starts.push(0);
        for rank in 0..self.size() {
            receive.extend_from_slice(&self.read(rank, parity).words);
            starts.push(receive.len());
        }
        Ok(())
    }

    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
        let parity = self.exchange(Operation::Reduce(data.len()), |mine| replace(&mut mine.numbers, data))?;
        data.copy_from_slice(&self.read(0, parity).numbers);
        for rank in 1..self.size() {
            data.iter_mut().zip(&self.read(rank, parity).numbers).for_each(|(sum, x)| *sum += x);
        }
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() { "its thread panicked" } else { "its handle was dropped" };
        self.leave(reason.to_owned());
    }
}

fn replace<T: Copy>(place: &mut Vec<T>, data: &[T]) {
    place.clear();
    place.extend_from_slice(data);
}
