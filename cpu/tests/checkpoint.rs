//! Saved states: exact, whole, or refused.
#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tilewright_compression::Memory;
use tilewright_compression::data_parallel::{BucketState, State};
use tilewright_cpu::checkpoint::{Checkpoint, CheckpointError};

fn array() -> impl Strategy<Value = Vec<f32>> {
    vec(any::<u32>().prop_map(f32::from_bits), 0..12)
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let bucket = (array(), array(), array()).prop_map(|(velocity, correction, momentum)| BucketState {
        memory: Memory { velocity, momentum: correction },
        momentum,
    });
    let state = (any::<u64>(), 0_usize..9, 0_usize..9, any::<u64>(), vec(bucket, 0..12));
    let state =
        state.prop_map(|(fingerprint, rank, ranks, step, buckets)| State { fingerprint, rank, ranks, step, buckets });
    (state, vec(array(), 0..12)).prop_map(|(state, weights)| Checkpoint { state, weights })
}

/// Everything as integers: NaN equals NaN, 0 is not −0.
fn bits(checkpoint: &Checkpoint) -> Vec<Vec<u32>> {
    let buckets = checkpoint.state.buckets.iter();
    let arrays = buckets.flat_map(|bucket| [&bucket.memory.velocity, &bucket.memory.momentum, &bucket.momentum]);
    arrays.chain(&checkpoint.weights).map(|array| array.iter().map(|x| x.to_bits()).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_bit_comes_back(checkpoint in checkpoint()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.safetensors");
        checkpoint.save(&path).unwrap();
        let loaded = Checkpoint::load(&path).unwrap();
        prop_assert_eq!(bits(&loaded), bits(&checkpoint));
        let scalars = |c: &Checkpoint| (c.state.fingerprint, c.state.rank, c.state.ranks, c.state.step, c.weights.len());
        prop_assert_eq!(scalars(&loaded), scalars(&checkpoint));
    }

    /// A file with a changed byte, or cut short, is refused; or, where the byte says nothing, loads the same.
    #[test]
    fn damage_is_found(checkpoint in checkpoint(), at in any::<prop::sample::Index>(), flip in 1_u8..=255, cut in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.safetensors");
        checkpoint.save(&path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        fs::write(&path, &bytes).unwrap();
        match Checkpoint::load(&path) {
            Err(CheckpointError::Content { .. }) => {}
            Err(other) => prop_assert!(false, "{}", other),
            Ok(loaded) => {
                prop_assert!(!cut);
                prop_assert_eq!(bits(&loaded), bits(&checkpoint));
            }
        }
    }
}

fn small() -> Checkpoint {
    let state = State { fingerprint: 1, rank: 0, ranks: 1, step: 3, buckets: Vec::new() };
    Checkpoint { state, weights: vec![vec![1.0, f32::NAN]] }
}

/// What cannot be saved leaves the old file, and nothing else, behind.
#[test]
fn saving_is_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.safetensors");
    small().save(&path).unwrap();
    let mut later = small();
    later.state.step = 4;
    later.save(&path).unwrap();
    assert_eq!(Checkpoint::load(&path).unwrap().state.step, 4);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

    let occupied = directory.path().join("occupied");
    fs::create_dir_all(occupied.join("inner")).unwrap();
    let error = small().save(&occupied).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
    assert!(occupied.join("inner").is_dir());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn errors_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.safetensors");
    let text = |path: &Path| Checkpoint::load(path).unwrap_err().to_string();
    assert!(text(&missing).contains("missing.safetensors"));
    let other = directory.path().join("other.safetensors");
    safetensors::serialize_to_file(Vec::<(String, safetensors::tensor::TensorView)>::new(), None, &other).unwrap();
    assert!(text(&other).ends_with("not a tilewright data-parallel state 1"), "{}", text(&other));
}
