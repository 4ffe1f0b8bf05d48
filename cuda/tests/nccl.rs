//! NCCL, where there is one; and the error where there is none.
#![cfg(feature = "nccl")]

mod common;

use tilewright_compression::Collective;
use tilewright_cuda::nccl::{Nccl, NcclId};

#[test]
fn one_rank_hears_itself_or_learns_that_there_is_no_nccl() {
    let Some(turn) = common::device() else {
        if let Err(error) = NcclId::new() {
            assert!(error.to_string().starts_with("collective engine: "), "{error}");
        }
        return;
    };
    let id = match NcclId::new() {
        Ok(id) => id,
        Err(error) => return eprintln!("skipped 1: {error}"),
    };
    let rank = Nccl::new(&turn.device, id, 0, 1).expect("a group of one");
    let mut received = [0; 3];
    rank.all_gather(&[1, 2, u64::MAX], &mut received).expect("it hears itself");
    assert_eq!(received, [1, 2, u64::MAX]);
    let mut sum = [1.5, -2.0, 0.25];
    rank.all_reduce_sum(&mut sum).expect("it adds itself");
    assert_eq!(sum, [1.5, -2.0, 0.25]);
}
