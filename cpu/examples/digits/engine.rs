//! The same training on threads and on processes.

use crate::settings::{Death, Settings};
use crate::train::{Outcome, train};
use anyhow::{Error, Result, anyhow, bail};
use tilewright_compression::CollectiveError;
use tilewright_cpu::collective::Local;

/// Trains with ranks as threads; what came of it, or what every rank that stopped has to say.
pub(crate) fn threads(settings: &Settings, ranks: usize) -> Result<Outcome> {
    let results: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            Local::group(ranks).into_iter().map(|local| scope.spawn(move || one_thread(settings, local))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("panicked")))).collect()
    });
    if results.iter().all(|result| result.is_ok()) {
        return results.into_iter().next().unwrap_or_else(|| bail!("no ranks"));
    }
    let said = |(rank, result): (usize, &Result<_>)| Some(format!("\nrank {rank}: {:#}", result.as_ref().err()?));
    bail!("training stopped{}", results.iter().enumerate().filter_map(said).collect::<String>())
}

fn one_thread(settings: &Settings, local: Local) -> Result<Outcome> {
    let result = train(settings, &local);
    if let Err(error) = &result
        && !error.is::<Death>()
        && !is_consequence(error)
    {
        local.abort(format!("{error:#}"));
    }
    result
}

/// Whether a rank stopped because another did.
fn is_consequence(error: &Error) -> bool {
    use tilewright_compression::data_parallel::DataParallelError;
    let lost = |error: &CollectiveError| matches!(error, CollectiveError::RankLost { .. });
    error.chain().any(|cause| {
        cause.downcast_ref::<CollectiveError>().is_some_and(lost)
            || matches!(cause.downcast_ref(), Some(DataParallelError::Collective(error)) if lost(error))
    })
}

/// Trains as one rank of a job under `mpirun`; only the first returns what came of it.
#[cfg(feature = "mpi")]
pub(crate) fn mpi(settings: &Settings) -> Result<Option<Outcome>> {
    use tilewright_compression::Collective;
    use tilewright_cpu::collective::Mpi;

    let mpi = Mpi::new()?;
    match train(settings, &mpi) {
        Ok(outcome) => Ok((mpi.rank() == 0).then_some(outcome)),
        // As if killed: no goodbye to the others, nor to MPI.
        Err(error) if error.is::<Death>() => std::process::abort(),
        Err(error) if is_consequence(&error) => Err(error.context(format!("rank {}", mpi.rank()))),
        Err(error) => mpi.abort(&format!("{error:#}")),
    }
}

#[cfg(not(feature = "mpi"))]
pub(crate) fn mpi(_: &Settings) -> Result<Option<Outcome>> {
    bail!("built without MPI: build with --features mpi")
}
