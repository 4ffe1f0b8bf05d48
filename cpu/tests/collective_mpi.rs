//! What MPI owes, on as many processes as `mpirun` starts; under `cargo test` that is one. A single test, because a process
//! joins MPI once.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used)]

mod contract;

use contract::exercise;
use tilewright_compression::{Collective, CollectiveError};
use tilewright_cpu::collective::Mpi;

#[test]
fn keeps_the_contract() {
    let mpi = Mpi::new().unwrap();
    let (rank, size) = (mpi.rank(), mpi.size());
    assert!(matches!(Mpi::new(), Err(CollectiveError::Engine(_))), "a process joins once");
    exercise(&mpi, 150, 40);
    exercise(&mpi, 10, 100_000);
    // The same in many rounds.
    let mpi = mpi.with_most(13);
    exercise(&mpi, 150, 40);

    // A rank that differs is named by the others, and the next operation is in order.
    let odd = size - 1;
    let result = if rank == odd { mpi.all_reduce_sum(&mut [0.0; 2]) } else { mpi.all_gather(&[], &mut []) };
    if size > 1 {
        let Err(CollectiveError::Mismatch { rank: named, .. }) = result else { panic!("{result:?}") };
        assert_eq!(named, if rank == odd { 0 } else { odd });
    }
    let malformed = mpi.all_gather(&[1, 2], &mut [0]);
    assert!(matches!(malformed, Err(CollectiveError::Mismatch { rank: named, .. }) if named == rank));
    exercise(&mpi, 20, 40);

    // One leaves early; the others learn who, and can leave too.
    if rank != odd {
        let lost = mpi.all_reduce_sum(&mut [1.0]);
        assert_eq!(lost, Err(CollectiveError::RankLost { rank: odd, reason: "its handle was dropped".into() }));
        assert_eq!(mpi.all_gather(&[], &mut []), lost);
    }
    drop(mpi);
}
