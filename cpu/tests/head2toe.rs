//! The Head2Toe example on sets of its own making: what it finds, and what it says of files that are not in order.
#![allow(clippy::unwrap_used)]

#[path = "../examples/shared/files.rs"]
mod files;
#[path = "../examples/head2toe/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "../examples/head2toe/methods.rs"]
#[allow(dead_code)]
mod methods;
#[path = "../examples/head2toe/plot.rs"]
mod plot;
#[path = "../examples/head2toe/report.rs"]
#[allow(dead_code)]
mod report;

use indicatif::ProgressBar;
use input::{FineTuned, Set};
use methods::{Outcome, Work};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tilewright_cpu::grouplasso::head::SavedHead;
use tilewright_grouplasso::Keep;
use tilewright_grouplasso::grid::{Grid, Lambdas};
use tilewright_grouplasso::head2toe::Settings;
use tilewright_scalar::philox4x32_10;

const TRAIN: usize = 60;
const TEST: usize = 40;

/// Noise; feature 3 of the layer `1.hidden` knows the class, no other does.
fn layer(name: &str, split: &str, samples: usize, width: usize) -> Vec<u8> {
    let noise = |i: usize, j: usize| {
        let counter = [i as u32, j as u32, name.len() as u32, split.len() as u32];
        f64::from(philox4x32_10(counter, [u32::from(name.as_bytes()[0]), 0])[0]) / f64::from(u32::MAX) - 0.5
    };
    let told = |i: usize, j: usize| if (name, j) == ("1.hidden", 3) { 4.0 * (i % 2) as f64 } else { 0.0 };
    let numbers = (0..samples).flat_map(|i| (0..width).map(move |j| noise(i, j) + told(i, j)));
    numbers.flat_map(|x| (x as f32).to_le_bytes()).collect()
}

fn write_layers(path: &Path, split: &str, samples: usize, layers: &[(&str, usize)], dtype: Dtype) {
    let bytes: Vec<_> = layers.iter().map(|(name, width)| layer(name, split, samples, *width)).collect();
    let views = layers
        .iter()
        .zip(&bytes)
        .map(|((name, width), bytes)| (*name, TensorView::new(dtype, vec![samples, *width], bytes).unwrap()));
    serialize_to_file(views.collect::<BTreeMap<_, _>>(), None, path).unwrap();
}

const LAYERS: [(&str, usize); 3] = [("0.stem", 6), ("1.hidden", 8), ("2.output", 5)];

/// A set in order.
fn set() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_layers(&folder.path().join("train.safetensors"), "train", TRAIN, &LAYERS, Dtype::F32);
    write_layers(&folder.path().join("test.safetensors"), "test", TEST, &LAYERS, Dtype::F32);
    let labels = |n: usize| (0..n).map(|i| i as u32 % 2).collect::<Vec<_>>();
    let tasks = serde_json::json!({ "parity": { "train": labels(TRAIN), "test": labels(TEST) } });
    let about = serde_json::json!({ "tasks": tasks, "seed": "0", "parameters": 1_000_000, "forward_flop": 2e6 });
    fs::write(folder.path().join("about.json"), about.to_string()).unwrap();
    folder
}

fn grid() -> Grid {
    let keep = vec![Keep::Features(1), Keep::Features(4)];
    Grid { lambdas: Lambdas::OfMax(vec![0.3, 0.1]), keep, ridge: vec![1.0, 0.1] }
}

fn outcome(folder: &Path, save: Option<&Path>) -> Outcome {
    let (set, grid, bar) = (Set::check(folder, &[]).unwrap(), grid(), ProgressBar::hidden());
    let work = Work { settings: Settings::default(), grid: &grid, folds: 3, seed: 0, bar: &bar, save };
    let outcome = work.run(&set, &set.read().unwrap(), "parity").unwrap();
    assert_eq!(bar.position(), methods::stages(&grid, 3) as u64);
    outcome
}

#[test]
fn it_finds_the_layer_that_knows() {
    let (folder, heads) = (set(), tempfile::tempdir().unwrap());
    let outcome = outcome(folder.path(), Some(heads.path()));
    assert!(outcome.linear_probe < 0.8 && outcome.head2toe > 0.9, "{outcome:?}");
    assert_eq!((outcome.best_layer_name.as_str(), outcome.oracle_layer_name.as_str()), ("1.hidden", "1.hidden"));
    let s = &outcome.selection;
    assert_eq!((s.kept, outcome.features), (1, 19));
    assert_eq!(s.layers.iter().map(|(_, kept)| *kept).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(s.gap <= 1e-4 && s.head_gap <= 1e-4);
    assert_eq!((s.bytes, s.copy_bytes), (28, Some(4_000_000))); // 2 weights, 2 intercepts, index, mean and scale
    assert_eq!(s.embedding_operations, Some(1.2e8));

    let saved = SavedHead::load(&heads.path().join("parity-0.safetensors")).unwrap();
    assert_eq!(saved.head.kept, [9]);
    let set = Set::check(folder.path(), &[]).unwrap();
    let accuracy = saved.head.accuracy(set.read().unwrap().test.view(), &set.labels("parity").test).unwrap();
    assert_eq!(accuracy, outcome.head2toe);
}

#[test]
fn what_it_writes_is_whole() {
    let (folder, out) = (set(), tempfile::tempdir().unwrap());
    let outcomes = [outcome(folder.path(), None)];
    report::write_json(&out.path().join("all.json"), &outcomes).unwrap();
    let text = fs::read_to_string(out.path().join("all.json")).unwrap();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read[0]["selection"]["kept"], 1);
    let again = report::read_json(&[out.path().join("all.json")]).unwrap();
    assert_eq!(format!("{again:?}"), format!("{outcomes:?}"));
    plot::draw(&out.path().join("bars.svg"), &outcomes).unwrap();
    let text = fs::read_to_string(out.path().join("bars.svg")).unwrap();
    assert!(text.trim_end().ends_with("</svg>") && text.contains("1.hidden") && text.contains("parity"));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2);
    // A place that is none: an error, and nothing is left behind.
    assert!(report::write_json(&out.path().join("nowhere/all.json"), &outcomes).is_err());
    assert!(plot::draw(&out.path().join("nowhere/bars.svg"), &outcomes).is_err());
}

#[test]
fn the_committed_set_is_in_order() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/head2toe/small");
    let set = Set::check(&path, &[]).unwrap();
    assert_eq!(set.tasks(), ["length", "origin", "paren", "shift"]);
    assert_eq!((set.layers().len(), set.layers().features()), (19, 1776));
    assert!(set.network().is_some());
    assert!(FineTuned::read(None).unwrap().of("length", "0", 300).is_some());
}

fn wrong(how: impl FnOnce(&Path)) -> String {
    let folder = set();
    how(folder.path());
    let error = Set::check(folder.path(), &[]).unwrap_err().to_string();
    error.replace(folder.path().to_str().unwrap(), "DIR")
}

#[test]
fn files_out_of_order_are_named() {
    let train = |folder: &Path| folder.join("train.safetensors");
    let cut = wrong(|folder| {
        let bytes = fs::read(train(folder)).unwrap();
        fs::write(train(folder), &bytes[..bytes.len() - 7]).unwrap();
    });
    assert!(cut.starts_with("DIR/train.safetensors: ") && cut.contains("bytes"), "{cut}");
    let kind = wrong(|folder| write_layers(&train(folder), "train", TRAIN, &LAYERS, Dtype::I32));
    assert!(kind.starts_with("DIR/train.safetensors: 0.stem: ") && kind.contains("I32"), "{kind}");
    let fewer = wrong(|folder| write_layers(&train(folder), "train", TRAIN, &LAYERS[..2], Dtype::F32));
    assert_eq!(fewer, "DIR: train has 2 layers, test 3");
    let wide = [LAYERS[0], ("1.hidden", 9), LAYERS[2]];
    let wider = wrong(|folder| write_layers(&train(folder), "train", TRAIN, &wide, Dtype::F32));
    assert_eq!(wider, "DIR: train has 1.hidden of 9 features where test has 1.hidden of 8");
    let short = wrong(|folder| write_layers(&train(folder), "train", TRAIN - 1, &LAYERS, Dtype::F32));
    assert_eq!(short, "DIR: train has 59 samples, 60 labels of parity");
    let gone = wrong(|folder| fs::remove_file(train(folder)).unwrap());
    assert_eq!(gone, "DIR: no train.safetensors, train.npz or train.npy");
    let about = |text: &'static str| wrong(|folder| fs::write(folder.join("about.json"), text).unwrap());
    assert!(about("{").starts_with("DIR/about.json: "));
    assert!(about(r#"{"tasks": {"parity": {"train": [-1], "test": []}}}"#).contains("-1"));
    assert!(wrong(|folder| fs::remove_file(folder.join("about.json")).unwrap()).starts_with("DIR/about.json: "));
    let labels = wrong(|folder| {
        let text = fs::read_to_string(folder.join("about.json")).unwrap();
        fs::write(folder.join("about.json"), text.replacen("[0,1,", "[0,4000000000,", 1)).unwrap();
    });
    assert_eq!(labels, "DIR: labels of parity reach 4000000000, with 60 samples");
}
