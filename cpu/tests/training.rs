//! The example's training, in small: real data, ranks that are threads.
#![allow(clippy::unwrap_used)]

#[path = "../examples/digits/data.rs"]
mod data;
#[path = "../examples/digits/engine.rs"]
#[allow(dead_code)]
mod engine;
#[path = "../examples/digits/model.rs"]
mod model;
#[path = "../examples/digits/settings.rs"]
#[allow(dead_code)]
mod settings;
#[path = "../examples/digits/train.rs"]
#[allow(dead_code)]
mod train;

use settings::{Index, Method, Settings, Value};
use std::sync::mpsc;
use std::time::Duration;
use tilewright_compression::bucket::Buckets;
use tilewright_compression::data_parallel::{Config, DataParallel, hash_of};
use tilewright_compression::reference::Reference;
use tilewright_compression::{Collective, CompressionSpec, Compressor, Count, Decompressor, IndexCoding, Wire};
use tilewright_cpu::CpuCompressor;
use tilewright_cpu::collective::Local;
use train::Outcome;

fn settings(method: Method) -> Settings {
    Settings {
        method,
        density: 0.01,
        error_feedback: true,
        value: Value::F32,
        index: Index::Plain,
        dense_below: 0,
        warm_up: true,
        steps: 24,
        batch: 8,
        seed: 3,
        save: None,
        save_at: None,
        resume: None,
        die: None,
        fail: None,
    }
}

/// Waiting for ever is a failure, not a hang.
fn train_on(settings: &Settings, ranks: usize) -> anyhow::Result<Outcome> {
    let (sender, receiver) = mpsc::channel();
    let settings = settings.clone();
    std::thread::spawn(move || sender.send(engine::threads(&settings, ranks)));
    receiver.recv_timeout(Duration::from_secs(60)).expect("a rank waits for ever")
}

fn hashes(outcome: &Outcome) -> Vec<u64> {
    outcome.records.iter().map(|record| record.hash).collect()
}

const METHODS: [Method; 5] = [Method::Dense, Method::TopK, Method::RandomK, Method::Dgc, Method::Dragonn];

/// All methods learn, on the same bits in every run: training compares the replicas after each step itself.
#[test]
fn every_method_learns_the_same_way_twice() {
    for method in METHODS {
        let settings = Settings { index: Index::Rice, value: Value::Bf16, dense_below: 600, ..settings(method) };
        let (first, second) = (train_on(&settings, 3).unwrap(), train_on(&settings, 3).unwrap());
        assert_eq!(hashes(&first), hashes(&second), "{settings}");
        let mut seen = hashes(&first);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), first.records.len(), "{settings}: the weights change in every step");
        assert!(first.records[23].loss < first.records[0].loss, "{settings}");
    }
}

#[test]
fn compression_learns_what_dense_does() {
    let long =
        |method, error_feedback| Settings { density: 0.001, steps: 400, batch: 32, error_feedback, ..settings(method) };
    let dense = train_on(&long(Method::Dense, true), 2).unwrap();
    assert!(dense.accuracy > 0.95, "{}", dense.accuracy);
    for method in [Method::TopK, Method::Dragonn] {
        let kept = train_on(&long(method, true), 2).unwrap();
        assert!(kept.accuracy > dense.accuracy - 0.02, "{method:?} {} {}", kept.accuracy, dense.accuracy);
        let forgotten = train_on(&long(method, false), 2).unwrap();
        assert!(forgotten.loss() > 3.0 * kept.loss(), "{method:?} {} {}", forgotten.loss(), kept.loss());
    }
}

/// A rank dies without a word, or fails and says why: all others stop in the same step and name it.
#[test]
fn a_dying_rank_is_named_by_all() {
    for method in [Method::Dense, Method::Dragonn] {
        let dying = Settings { die: Some("2@5".parse().unwrap()), ..settings(method) };
        let error = train_on(&dying, 4).err().unwrap().to_string();
        let lines: Vec<&str> = error.lines().collect();
        let lost = |rank| format!("rank {rank}: rank 2 is lost: its handle was dropped");
        assert_eq!(lines, ["training stopped", &lost(0), &lost(1), "rank 2: died, as asked", &lost(3)]);
        let failing = Settings { fail: Some("1@7".parse().unwrap()), ..settings(method) };
        let error = train_on(&failing, 3).err().unwrap().to_string();
        let lines: Vec<&str> = error.lines().collect();
        let lost = |rank| format!("rank {rank}: rank 1 is lost: failed in step 7, as asked");
        assert_eq!(lines, ["training stopped", &lost(0), "rank 1: failed in step 7, as asked", &lost(2)]);
    }
}

/// Saved after some steps, killed later, and restored: the weights after each step are those of an undisturbed run.
#[test]
fn killed_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    for method in METHODS {
        let path = directory.path().join(format!("{method:?}"));
        let whole = train_on(&settings(method), 3).unwrap();
        let killed = Settings {
            save: Some(path.clone()),
            save_at: Some(9),
            die: Some("1@15".parse().unwrap()),
            ..settings(method)
        };
        assert!(train_on(&killed, 3).is_err());
        let resumed = train_on(&Settings { resume: Some(path.clone()), ..settings(method) }, 3).unwrap();
        assert_eq!(hashes(&resumed), hashes(&whole)[9..], "{method:?}");
        assert_eq!(resumed.accuracy, whole.accuracy);

        // Neither fewer ranks nor other settings continue it.
        let fewer =
            train_on(&Settings { resume: Some(path.clone()), ..settings(method) }, 2).err().unwrap().to_string();
        assert!(fewer.contains("number of ranks of the state: got 3, expected 2"), "{fewer}");
        let other = if method == Method::TopK { Method::Dgc } else { Method::TopK };
        let other = train_on(&Settings { resume: Some(path), ..settings(other) }, 3).err().unwrap().to_string();
        assert!(other.contains("fingerprint of the state"), "{other}");
    }
}

/// Ranks whose states are of different steps do not train together.
#[test]
fn states_of_different_steps() {
    let directory = tempfile::tempdir().unwrap();
    let path = |step: u64| directory.path().join(format!("after{step}"));
    for step in [4, 6] {
        let saving = Settings { save: Some(path(step)), save_at: Some(step), ..settings(Method::Dgc) };
        train_on(&saving, 2).unwrap();
    }
    std::fs::copy(path(6).with_extension("rank1"), path(4).with_extension("rank1")).unwrap();
    let mixed = train_on(&Settings { resume: Some(path(4)), ..settings(Method::Dgc) }, 2).err().unwrap().to_string();
    assert!(mixed.contains("rank 0: rank 1 disagrees: it is at step 6, this one at step 4"), "{mixed}");
}

/// A model of odd lengths, without data: gradients that depend on rank, step and weights.
fn synthetic<B: Compressor + Decompressor>(config: &Config, backend: B, local: &Local) -> Vec<u64> {
    let lengths = [900, 7, 0, 2500, 64];
    let buckets = Buckets::pack(&lengths, 1000, |_, len| len > 50).unwrap();
    let mut optimiser = DataParallel::new(config.clone(), buckets, backend, local).unwrap();
    let mut weights: Vec<Vec<f32>> = lengths.iter().map(|len| vec![0.5; *len as usize]).collect();
    let mut hashes = Vec::new();
    for step in 0..12_u64 {
        let pull = |i: usize, w: &f32| ((i as u64 * 37 + step * 11 + local.rank() as u64 * 5) % 97) as f32 / 97.0 - w;
        let gradients: Vec<Vec<f32>> =
            weights.iter().map(|tensor| tensor.iter().enumerate().map(|(i, w)| pull(i, w)).collect()).collect();
        let gradients: Vec<&[f32]> = gradients.iter().map(|tensor| &tensor[..]).collect();
        let mut slices: Vec<&mut [f32]> = weights.iter_mut().map(|tensor| &mut tensor[..]).collect();
        optimiser.step(-0.1, &gradients, &mut slices).unwrap();
        hashes.push(hash_of(weights.iter().map(|tensor| &tensor[..])));
    }
    hashes
}

/// The fast compressor and the reference train the same weights, on every rank.
#[test]
fn backends_train_the_same_weights() {
    let count = Count::Density(0.02);
    let wire = Wire { index: IndexCoding::Rice, ..Wire::default() };
    for spec in [
        CompressionSpec::top_k(0, count),
        CompressionSpec::random_k(0, count),
        CompressionSpec::dgc(0, count, 0.9),
        CompressionSpec { wire, ..CompressionSpec::dragonn(0, count, 0.9) },
    ] {
        let config = Config { clip: Some(3.0), ..Config::compressed(spec) };
        let results: Vec<Vec<u64>> =
            [true, false].into_iter().flat_map(|reference| group(&config, reference)).collect();
        assert!(results.iter().all(|hashes| *hashes == results[0]), "{config:?}");
    }
}

fn group(config: &Config, reference: bool) -> Vec<Vec<u64>> {
    std::thread::scope(|scope| {
        let one = |local: Local| {
            if reference {
                synthetic(config, Reference, &local)
            } else {
                synthetic(config, CpuCompressor::default(), &local)
            }
        };
        let threads: Vec<_> = Local::group(3).into_iter().map(|local| scope.spawn(move || one(local))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
