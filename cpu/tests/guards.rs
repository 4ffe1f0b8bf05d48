//! Nothing beside a buffer is read or written: inputs, outputs and gradients inside larger allocations, and everything the
//! implementation allocates, on all its threads, between guard bands and pages that fault.
//!
//! Cases are few, for bands take time; every run has others. A violation ends the process, by a signal or with a line that begins with `guard bands:`.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;
mod guarded;

use common::placed::Placement;
use common::{Case, cases, config};
use guarded::{FENCED, Guarded, Side};
use proptest::prelude::*;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::Mutex;
use tilewright_attention::{AttentionBackward, AttentionForward, bf16, f16};
use tilewright_cpu::{Bf16Products, CpuAttention, StandardAttention};
use tilewright_scalar::Element;

#[global_allocator]
static ALLOCATOR: Guarded = Guarded::new();

/// Held while a side is in force, which is one for the whole process.
static SIDE: Mutex<()> = Mutex::new(());

/// The same bits with an inaccessible page behind every buffer, with one before it, and with margins of NaN around every tensor.
fn keeps_to_its_buffers<T: Element>(
    case: &Case,
    method: &(impl AttentionForward<T> + AttentionBackward<T>),
) -> Result<(), TestCaseError> {
    let _side = SIDE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let expected = case.tensors::<T>().run(method).bits();
    for side in [Side::Behind, Side::Before] {
        ALLOCATOR.set_side(side);
        let tensors = case.tensors::<T>();
        prop_assert!(tensors.run(method).bits() == expected, "{:?}", side);
        let framed = tensors.run_placed(method, Placement::Framed, case.seed);
        prop_assert!(framed.bits() == expected, "framed, {:?}", side);
    }
    Ok(())
}

/// In every format.
fn keep_to_their_buffers(case: &Case, method: &CpuAttention) -> Result<(), TestCaseError> {
    keeps_to_its_buffers::<f64>(case, method)?;
    keeps_to_its_buffers::<f32>(case, method)?;
    keeps_to_its_buffers::<f16>(case, method)?;
    keeps_to_its_buffers::<bf16>(case, method)
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn every_feature_keeps_to_its_buffers(case in cases()) {
        keep_to_their_buffers(&case, &case.method())?;
    }

    /// Few queries against keys that end before, at and behind the edges of chunks and splits.
    #[test]
    fn decoding_keeps_to_its_buffers(mut case in cases(), keys in 250usize..1300, dims in (0usize..5, 0usize..5)) {
        let dims = [dims.0, dims.1].map(|dim| [16, 17, 32, 63, 64][dim]);
        (case.lens, case.dims, case.batch) = ((1 + case.lens.0 % 4, keys), (dims[0], dims[1]), case.batch.min(1));
        case.page_size *= 8;
        keep_to_their_buffers(&case, &case.method())?;
    }
}

proptest! {
    #![proptest_config(config(10))]

    #[test]
    fn several_tiles_keep_to_their_buffers(case in cases()) {
        let case = case.longer();
        keeps_to_its_buffers::<f32>(&case, &case.method())?;
        keeps_to_its_buffers::<f64>(&case, &case.method())?;
        keeps_to_its_buffers::<bf16>(&case, &case.method())?;
    }

    /// With the tiles that are chosen where none are asked for, a little over or under whole ones.
    #[test]
    fn chosen_tiles_keep_to_their_buffers(mut case in cases(), dim in 60usize..68, more in (0usize..3, 0usize..3)) {
        (case.lens, case.batch) = ((191 + more.0, 383 + more.1), 1);
        case.dims.0 = dim;
        keeps_to_its_buffers::<f32>(&case, &CpuAttention::default())?;
        let pairs = CpuAttention::default().with_bf16_products(Bf16Products::Paired);
        keeps_to_its_buffers::<bf16>(&case, &pairs)?;
    }

    #[test]
    fn the_standard_method_keeps_to_its_buffers(mut case in cases()) {
        (case.keys, case.bias) = (case.keys % 3, None);
        keeps_to_its_buffers::<f32>(&case, &StandardAttention)?;
    }
}

/// The fault that `planted` is to commit.
const PLANTED: &str = "TILEWRIGHT_PLANTED_FAULT";

/// Reads or writes the byte at an offset from an allocation of `len` bytes, as [`PLANTED`] says: `SIDE LEN OFFSET read|write`. It
/// ends the process, so the next test runs it in one of its own; without the variable there is nothing to do.
#[test]
fn planted() {
    let Ok(fault) = std::env::var(PLANTED) else { return };
    let words: Vec<&str> = fault.split(' ').collect();
    ALLOCATOR.set_side(if words[0] == "before" { Side::Before } else { Side::Behind });
    let (len, offset): (usize, isize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut buffer = vec![0u8; len];
    let beside = buffer.as_mut_ptr().wrapping_offset(offset);
    // SAFETY: none. That is what is tested, in a process that ends with it.
    unsafe {
        if words[3] == "read" {
            std::hint::black_box(beside.read_volatile());
        } else {
            beside.write_volatile(1);
        }
    }
    drop(buffer);
}

fn plant(fault: &str) -> Output {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "planted", "--nocapture"]).env(PLANTED, fault).output().unwrap()
}

/// The instrument works.
#[test]
fn a_step_too_far_is_noticed() {
    let large = FENCED + 44;
    for fault in [("behind", large as isize), ("before", -1)] {
        for access in ["read", "write"] {
            let ended = plant(&format!("{} {large} {} {access}", fault.0, fault.1));
            assert!(matches!(ended.status.signal(), Some(7 | 11)), "{fault:?}: {}", ended.status); // SIGBUS or SIGSEGV
        }
    }
    for fault in
        [format!("before {large} {large}"), format!("behind {large} -1"), "behind 10 10".into(), "behind 10 -1".into()]
    {
        let ended = plant(&format!("{fault} write"));
        assert_eq!(ended.status.signal(), Some(6), "{fault}: {}", ended.status); // SIGABRT
        assert!(String::from_utf8_lossy(&ended.stderr).contains("guard bands: something was written"), "{fault}");
    }
    let sound = plant(&format!("behind {large} 0 write"));
    assert!(sound.status.success(), "{}", sound.status);
}
