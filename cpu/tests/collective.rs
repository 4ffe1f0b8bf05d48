//! Threads that talk, disagree, and die. Every test runs under a guard: waiting for ever is a failure, not a hang.
#![allow(clippy::unwrap_used)]

mod contract;

use contract::{dawdle, exercise, floats, random};
use proptest::prelude::*;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tilewright_compression::{Collective, CollectiveError};
use tilewright_cpu::collective::Local;

/// Runs a closure on every rank of a group; what each returned, or that it panicked.
fn ranks<T: Send + 'static>(size: usize, body: impl Fn(Local) -> T + Clone + Send + 'static) -> Vec<thread::Result<T>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let threads: Vec<_> = Local::group(size)
            .into_iter()
            .map(|local| {
                let body = body.clone();
                thread::spawn(move || body(local))
            })
            .collect();
        let _ = sender.send(threads.into_iter().map(|thread| thread.join()).collect());
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("a rank waits for ever")
}

fn all<T: Send + 'static>(size: usize, body: impl Fn(Local) -> T + Clone + Send + 'static) -> Vec<T> {
    ranks(size, body).into_iter().map(|result| result.unwrap()).collect()
}

#[test]
fn right_under_random_delays() {
    for size in 1..=5_usize {
        all(size, |local| exercise(&local, 150, 40));
    }
}

/// Order matters in a sum: 2⁶⁰ + 1 − 2⁶⁰ is 0 from the left and 1 otherwise. A single −0 stays one.
#[test]
fn sums_from_the_left() {
    let big = (1_u64 << 60) as f32;
    for (values, sum) in [([big, 1.0, -big], 0.0), ([big, -big, 1.0], 1.0), ([-0.0, -0.0, -0.0], -0.0_f32)] {
        let sums = all(3, move |local| {
            let mut data = [values[local.rank()]];
            local.all_reduce_sum(&mut data).map(|()| data[0].to_bits())
        });
        assert_eq!(sums, vec![Ok(sum.to_bits()); 3]);
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Return,
    Panic,
    Abort,
}

/// One rank goes away at a random step, in one of three ways; all others get an error in the very next operation, and it
/// names that rank, not one of those that stopped because of it. What they did before was complete.
#[test]
fn a_lost_rank_is_named() {
    std::panic::set_hook(Box::new(|_| ())); // the panics here are meant
    for round in 0..60 {
        let size = 2 + random(round, 1, 0) as usize % 4;
        let victim = random(round, 2, 0) as usize % size;
        let last = random(round, 3, 0) % 20;
        let end = [End::Return, End::Panic, End::Abort][round as usize % 3];
        let results = ranks(size, move |local| {
            for step in 0..30 {
                dawdle(local.rank() as u64 + 10 * round, step);
                if local.rank() == victim && step == last {
                    match end {
                        End::Return => return Ok(()),
                        End::Panic => panic!("as intended"),
                        End::Abort => {
                            local.abort("disk full");
                            return Ok(());
                        }
                    }
                }
                let mut data = [1.0];
                if let Err(error) = local.all_reduce_sum(&mut data) {
                    assert_eq!(step, last);
                    // It stays that way.
                    assert_eq!(local.all_reduce_sum(&mut data).as_ref(), Err(&error));
                    assert_eq!(local.all_gather(&[], &mut []).as_ref(), Err(&error));
                    return Err(error);
                }
                assert_eq!(data, [size as f32]);
            }
            Ok(())
        });
        let reason = match end {
            End::Return => "its handle was dropped",
            End::Panic => "its thread panicked",
            End::Abort => "disk full",
        };
        for (rank, result) in results.into_iter().enumerate() {
            if rank == victim {
                assert_eq!(result.is_err(), matches!(end, End::Panic));
            } else {
                let lost = CollectiveError::RankLost { rank: victim, reason: reason.to_owned() };
                assert_eq!(result.unwrap(), Err(lost), "round {round}");
            }
        }
    }
    let _ = std::panic::take_hook();
}

/// A rank that has done its part may leave while others still read it.
#[test]
fn leaving_after_the_last_operation_is_no_loss() {
    for round in 0..50 {
        let sums = all(4, move |local| {
            let mut data = floats(local.rank() as u64, 0, 1000);
            dawdle(local.rank() as u64, round);
            local.all_reduce_sum(&mut data)
        });
        assert_eq!(sums, vec![Ok(()); 4]);
    }
}

/// Ranks that call different things all get an error, and the one that differs is named by the others.
#[test]
fn disagreement_is_named() {
    type Call = fn(&Local) -> Result<(), CollectiveError>;
    let calls: [Call; 4] = [
        |local| local.all_gather(&[1, 2], &mut [0; 8]),
        |local| local.all_reduce_sum(&mut [0.0; 2]),
        |local| local.all_gather_v(&[1], &mut Vec::new(), &mut Vec::new()),
        |local| local.all_gather(&[1, 2], &mut [0; 7]),
    ];
    for odd in 1..4 {
        let results = all(4, move |local| {
            let result = calls[if local.rank() == 2 { odd } else { 0 }](&local);
            // It was an error of this operation; the next one is in order.
            local.all_reduce_sum(&mut [1.0]).unwrap();
            result
        });
        for (rank, result) in results.into_iter().enumerate() {
            let Err(CollectiveError::Mismatch { rank: named, problem }) = result else { panic!("{result:?}") };
            // It sees the first of the others differ, unless its own arguments contradict each other.
            let expected = if rank == 2 && odd < 3 { 0 } else { 2 };
            assert_eq!(named, expected, "{problem}");
        }
    }
    let lengths = all(2, |local| local.all_reduce_sum(&mut vec![0.0; 3 + local.rank()]));
    assert!(lengths.iter().all(|result| matches!(result, Err(CollectiveError::Mismatch { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The default of the trait, with its padding, and this engine's own gather are the same.
    #[test]
    fn native_gather_is_the_default_one(lengths in proptest::collection::vec(0_usize..30, 1..5)) {
        struct Plain(Local);
        impl Collective for Plain {
            fn rank(&self) -> usize { self.0.rank() }
            fn size(&self) -> usize { self.0.size() }
            fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> { self.0.all_gather(send, receive) }
            fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> { self.0.all_reduce_sum(data) }
        }
        let size = lengths.len();
        let equal = all(size, move |local| {
            let send: Vec<u64> = (0..lengths[local.rank()] as u64).map(|i| random(local.rank() as u64, 0, i)).collect();
            let (mut native, mut default) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
            local.all_gather_v(&send, &mut native.0, &mut native.1).unwrap();
            Plain(local).all_gather_v(&send, &mut default.0, &mut default.1).unwrap();
            native == default
        });
        prop_assert!(equal.into_iter().all(|equal| equal));
    }
}
