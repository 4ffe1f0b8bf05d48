//! Head2Toe from taps to a head: pooling, normalisation, ranking, folds, heads, cross-validation.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, Array3, Array4, ArrayView2, Axis, array};
use proptest::prelude::*;
use std::ops::ControlFlow;
use tilewright_grouplasso::grid::{Choice, Grid, Lambdas};
use tilewright_grouplasso::head2toe::{Head2Toe, Settings};
use tilewright_grouplasso::pooling::{Tap, pool_maps, pool_tokens};
use tilewright_grouplasso::ranking::Ranking;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::ridge::{self, RowSpace};
use tilewright_grouplasso::sampling::{others, random_features, stratified_folds};
use tilewright_grouplasso::{
    Columns, Data, GroupLassoError, Head, Keep, Layers, Normalise, Problem, Standardise, Stopping, Targets, certificate,
};
use tilewright_scalar::philox4x32_10;

/// A number in [−1, 1] that belongs to its place.
fn noise(seed: u32, i: usize, j: usize) -> f64 {
    f64::from(philox4x32_10([i as u32, j as u32, 0, 0], [seed, 0])[0]) / f64::from(u32::MAX) * 2.0 - 1.0
}

fn matrix(seed: u32, n: usize, d: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, d), |(i, j)| noise(seed, i, j))
}

/// Noise of `d` features; the classes move the features that are given.
fn problem(seed: u32, n: usize, d: usize, classes: u32, telling: &[usize]) -> (Array2<f64>, Vec<u32>) {
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes).collect();
    let mut x = matrix(seed, n, d);
    for (i, &label) in labels.iter().enumerate() {
        for (at, &j) in telling.iter().enumerate() {
            x[[i, j]] += if at as u32 % classes == label { 1.5 } else { 0.0 };
        }
    }
    (x, labels)
}

fn keep_on(_: &tilewright_grouplasso::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn rank(task: &Head2Toe<'_, f64>, lambdas: &[f64], held: &[usize]) -> Vec<Ranking> {
    task.rank(&Reference, lambdas, held, &mut keep_on).unwrap()
}

fn exact(gap: f64) -> Settings {
    let stopping = Stopping { gap, ..Stopping::default() };
    Settings { selection: stopping, head: stopping, ..Settings::default() }
}

fn variance_of(x: ndarray::ArrayView1<'_, f64>) -> f64 {
    let mean = x.mean().unwrap();
    x.mapv(|x| (x - mean) * (x - mean)).mean().unwrap()
}

// Taps of the paper's networks: what a block puts out in each of its convolutions, or parts.

fn resnet50() -> Vec<Tap> {
    let map = |side, channels| Tap::Map { height: side, width: side, channels };
    let mut taps = vec![Tap::Vector { features: 2048 }, Tap::Vector { features: 1000 }, map(120, 64), map(8, 2048)];
    for (units, side, channels) in [(3, 60, 64), (4, 30, 128), (6, 15, 256), (3, 8, 512)] {
        for unit in 0..units {
            // A stage's first convolution comes before its stride.
            let before = if unit == 0 && channels > 64 {
                [60, 30, 15][[128, 256, 512].iter().position(|c| *c == channels).unwrap()]
            } else {
                side
            };
            taps.extend([map(before, channels), map(side, channels), map(side, 4 * channels)]);
        }
    }
    taps
}

fn vit_b16() -> Vec<Tap> {
    let tokens = |channels| Tap::Tokens { tokens: 197, channels };
    let mut taps = vec![Tap::Vector { features: 768 }];
    taps.extend([tokens(768); 4]);
    for _ in 0..12 {
        taps.extend([tokens(768), tokens(768), tokens(3072), tokens(768)]);
    }
    taps
}

#[test]
fn pooled_sizes_of_the_papers_networks() {
    assert_eq!((resnet50().len(), vit_b16().len()), (52, 53));
    for (target, size) in [(512, 32_232), (2048, 80_808), (8192, 405_224)] {
        assert_eq!(Tap::pooled_sum(resnet50(), target).unwrap(), size);
    }
    for (target, size) in [(768, 68_352), (15_360, 830_208)] {
        assert_eq!(Tap::pooled_sum(vit_b16(), target).unwrap(), size);
    }
}

#[test]
fn pooling_by_hand() {
    // 5 places, aimed at 2 cells: p = 2, and the fifth place is left out.
    let x = Array4::from_shape_fn((2, 5, 5, 3), |(s, i, j, c)| (1000 * s + 100 * i + 10 * j + c) as f64);
    let pooled = pool_maps(x.view(), 12).unwrap();
    let cell = |s: f64, i: f64, j: f64| [0.0, 1.0, 2.0].map(|c| 1000.0 * s + 100.0 * i + 10.0 * j + c);
    let expected = |s| [cell(s, 0.5, 0.5), cell(s, 0.5, 2.5), cell(s, 2.5, 0.5), cell(s, 2.5, 2.5)].concat();
    assert_eq!(pooled.row(0).to_vec(), expected(0.0));
    assert_eq!(pooled.row(1).to_vec(), expected(1.0));
    // 5 tokens of 2, target 4: p = ⌊10/4⌋ = 2.
    let x = Array3::from_shape_fn((1, 5, 2), |(_, t, c)| (10 * t + c) as f64);
    assert_eq!(pool_tokens(x.view(), 4).unwrap(), array![[5.0, 6.0, 25.0, 26.0]]);
    assert!(matches!(Tap::Vector { features: 3 }.pooled(0), Err(GroupLassoError::Spec { .. })));
    for empty in [Tap::Vector { features: 0 }, Tap::Tokens { tokens: 0, channels: 3 }] {
        assert!(matches!(empty.pooled(4), Err(GroupLassoError::Shape { .. })));
    }
    assert!(pool_maps(Array4::<f64>::zeros((1, 0, 3, 2)).view(), 4).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Sizes are what pooling gives; a mean lies between the least and the greatest; few enough features are the mean of all.
    #[test]
    fn pooling_keeps_to_its_sizes(height in 1usize..9, width in 1usize..9, c in 1usize..5, target in 1usize..70, seed: u32) {
        let x = Array4::from_shape_fn((2, height, width, c), |(s, i, j, k)| noise(seed, 100 * s + 10 * i + j, k));
        let pooled = pool_maps(x.view(), target).unwrap();
        prop_assert_eq!(pooled.ncols(), Tap::Map { height, width, channels: c }.pooled(target).unwrap());
        prop_assert!(pooled.iter().all(|m| m.abs() <= 1.0));
        if c >= target {
            let mean = x.index_axis(Axis(0), 0).index_axis(Axis(2), 0).mean().unwrap();
            prop_assert!((pooled[[0, 0]] - mean).abs() < 1e-12);
        }
        let x = Array3::from_shape_fn((1, width, c), |(_, i, k)| noise(seed, i, k));
        let pooled = pool_tokens(x.view(), target).unwrap();
        prop_assert_eq!(pooled.ncols(), Tap::Tokens { tokens: width, channels: c }.pooled(target).unwrap());
        if target >= width * c {
            prop_assert_eq!(pooled.into_raw_vec_and_offset().0, x.into_raw_vec_and_offset().0);
        }
    }

    /// Lengths are 1 where they should be, and neither cares for a layer's unit.
    #[test]
    fn unit_lengths(seed: u32, widths in prop::collection::vec(0usize..5, 1..5), factor in 0.01f64..100.0, share in 0.2f64..1.0) {
        prop_assume!(widths.iter().sum::<usize>() > 0);
        let layers = Layers::new(widths.iter().enumerate().map(|(k, w)| (format!("{k}"), *w))).unwrap();
        let mut x = matrix(seed, 4, layers.features());
        x.row_mut(2).fill(0.0);
        let kept: Vec<usize> = (0..layers.features()).filter(|&j| noise(seed, 1000, j) < 2.0 * share - 1.0).collect();
        let ours: Array2<f64> = Normalise::Kept.apply(x.view(), &layers, &kept).unwrap();
        let whole: Array2<f64> = Normalise::Layer.apply(x.view(), &layers, &kept).unwrap();
        let all: Vec<usize> = (0..layers.features()).collect();
        let everything: Array2<f64> = Normalise::Layer.apply(x.view(), &layers, &all).unwrap();
        prop_assert_eq!(&whole, &everything.select(Axis(1), &kept)); // selection changes no feature
        let only = layers.only(&kept);
        for layer in 0..layers.len() {
            for i in 0..4 {
                let squares: f64 = only.range(layer).map(|j| ours[[i, j]] * ours[[i, j]]).sum();
                let expected = if i == 2 || only.width(layer) == 0 { 0.0 } else { 1.0 };
                prop_assert!((squares - expected).abs() < 1e-12);
            }
            let mut scaled = x.clone();
            layers.range(layer).for_each(|j| scaled.column_mut(j).mapv_inplace(|x| x * factor));
            for (normalise, before) in [(Normalise::Kept, &ours), (Normalise::Layer, &whole)] {
                let after: Array2<f64> = normalise.apply(scaled.view(), &layers, &kept).unwrap();
                prop_assert!((&after - before).iter().all(|apart| apart.abs() < 1e-12));
            }
        }
        let plain: Array2<f64> = Normalise::None.apply(x.view(), &layers, &kept).unwrap();
        prop_assert_eq!(plain, x.select(Axis(1), &kept));
    }

    /// Every feature has one place, and selections are counted where they are.
    #[test]
    fn layers_and_places(widths in prop::collection::vec(0usize..6, 1..7), seed: u32) {
        let total: usize = widths.iter().sum();
        prop_assume!(total > 0);
        let layers = Layers::new(widths.iter().enumerate().map(|(k, w)| (format!("{k}"), *w))).unwrap();
        for feature in 0..total {
            let (layer, at) = layers.place(feature);
            prop_assert!(layers.range(layer).contains(&feature) && layers.range(layer).start + at == feature);
        }
        let kept = random_features(total, total / 2 + 1, seed.into());
        let mut counts = vec![0; widths.len()];
        for &feature in &kept {
            counts[layers.place(feature).0] += 1;
        }
        prop_assert_eq!(layers.count(&kept), counts.clone());
        let only = layers.only(&kept);
        prop_assert_eq!((0..layers.len()).map(|k| only.width(k)).collect::<Vec<_>>(), counts);
    }

    /// Folds part the samples, evenly in all and in each class.
    #[test]
    fn folds_are_stratified(labels in prop::collection::vec(0u32..4, 2..60), k in 2usize..8, seed: u64) {
        prop_assume!(k <= labels.len());
        let folds = stratified_folds(&labels, k, seed).unwrap();
        let mut all = folds.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        let even = |counts: Vec<usize>| counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1;
        prop_assert!(even(folds.iter().map(Vec::len).collect()));
        for class in 0..4 {
            prop_assert!(even(folds.iter().map(|f| f.iter().filter(|&&i| labels[i] == class).count()).collect()));
        }
        prop_assert_eq!(&folds, &stratified_folds(&labels, k, seed).unwrap());
        for fold in &folds {
            prop_assert!(fold.is_sorted());
            let rest = others(labels.len(), fold);
            prop_assert_eq!(rest.len() + fold.len(), labels.len());
            prop_assert!(rest.iter().all(|i| !fold.contains(i)));
        }
    }

    /// Random features are different ones, and all are as likely.
    #[test]
    fn random_features_are_a_set(d in 1usize..200, count in 0usize..200, seed: u64) {
        let some = random_features(d, count, seed);
        prop_assert_eq!(some.len(), count.min(d));
        prop_assert!(some.windows(2).all(|pair| pair[0] < pair[1]) && some.iter().all(|&j| j < d));
    }

    /// Samples in the space they span: the same inner products, and a way back that keeps outcomes and norms.
    #[test]
    fn row_space(seed: u32, n in 1usize..8, d in 1usize..20, repeat: bool) {
        let mut z = matrix(seed, n, d);
        if repeat {
            let first = z.row(0).to_owned();
            z.row_mut(n - 1).assign(&(first * 2.0));
        }
        let space = RowSpace::of(z.view());
        let l = space.samples();
        prop_assert!((l.dot(&l.t()) - z.dot(&z.t())).iter().all(|apart| apart.abs() < 1e-11));
        let most = if repeat && n > 1 { n - 1 } else { n };
        prop_assert!(l.ncols() <= most.min(d));
        let v = matrix(seed ^ 1, l.ncols(), 3);
        let w = space.back(z.view(), v.clone());
        prop_assert!((z.dot(&w) - l.dot(&v)).iter().all(|apart| apart.abs() < 1e-6));
        prop_assert!(((&w * &w).sum() - (&v * &v).sum()).abs() < 1e-5);
    }
}

#[test]
fn seeds_differ() {
    let labels: Vec<u32> = (0..40).map(|i| i % 2).collect();
    assert_ne!(stratified_folds(&labels, 4, 1).unwrap(), stratified_folds(&labels, 4, 2).unwrap());
    assert_ne!(random_features(100, 10, 1), random_features(100, 10, 2));
    let mut hits = [0u32; 10];
    (0..4000).for_each(|seed| random_features(10, 2, seed).into_iter().for_each(|j| hits[j] += 1));
    assert!(hits.iter().all(|hits| (680..920).contains(hits)), "{hits:?}"); // 800 ± 25
    for folds in [0, 1, 41] {
        assert!(matches!(stratified_folds(&labels, folds, 0), Err(GroupLassoError::Spec { field: "folds", .. })));
    }
}

#[test]
fn per_feature_normalisation() {
    let mut x = matrix(3, 50, 2) * 0.01;
    x.column_mut(1).fill(4.0);
    let columns = Normalise::PerFeature.columns(Standardise::default(), x.view());
    let out: Array2<f64> = columns.apply(x.view()).unwrap();
    let variance = variance_of(x.column(0));
    assert!(out.column(0).mean().unwrap().abs() < 1e-12);
    assert!((variance_of(out.column(0)) - variance / (variance + 1e-5)).abs() < 1e-12);
    assert!(out.column(1).iter().all(|x| x.abs() < 1e-12));
}

/// Features that are not active come after those that are, and enter in the order in which they are ranked.
#[test]
fn rankings_are_complete() {
    let (x, labels) = problem(5, 40, 30, 3, &[2, 11, 12, 25]);
    let layers = Layers::new([("a", 10), ("b", 20)]).unwrap();
    let task = Head2Toe::<f64>::new(exact(1e-10), &layers, x.view(), &labels, 3).unwrap();
    let most = task.lambdas(&Lambdas::OfMax(vec![1.0])).unwrap()[0];
    let rankings = rank(&task, &[1.001 * most, 0.5 * most, 0.2 * most], &[]);
    assert_eq!(rankings[0].active, 0);
    // Just below λ_max, the feature that was nearest enters, alone.
    let first = task.top(&rankings[0], Keep::Features(1)).unwrap();
    assert_eq!(task.top(&rank(&task, &[0.999 * most], &[])[0], Keep::Features(1)).unwrap(), first);
    assert!((rankings[0].scores[first[0]] - (1.0 / 1.001 - 1.0)).abs() < 1e-9);
    for ranking in &rankings {
        assert!(ranking.certificate.relative_gap() <= 1e-10);
        assert_eq!(ranking.active, ranking.certificate.active);
        assert_eq!(ranking.scores.iter().filter(|s| **s > 0.0).count(), ranking.active);
        assert!(ranking.scores.iter().all(|s| *s >= -1.0 && s.is_finite()));
        // At the minimum, what is active has ‖u‖ = λ, what is not has less.
        let kept = task.top(ranking, Keep::Features(ranking.active.max(1))).unwrap();
        let all_active = kept.iter().all(|&feature| ranking.scores[feature] > 0.0);
        assert!(all_active || ranking.active == 0);
    }
    assert!(rankings[2].active > rankings[1].active);
}

/// Holding samples out is as good as not having them.
#[test]
fn held_samples_do_not_count() {
    let (x, labels) = problem(8, 30, 12, 2, &[1, 7]);
    let layers = Layers::new([("a", 5), ("b", 7)]).unwrap();
    let held = [0, 5, 6, 17, 29];
    let rest = others(30, &held);
    let (less, fewer) = (x.select(Axis(0), &rest), rest.iter().map(|&i| labels[i]).collect::<Vec<_>>());
    for normalise in [Normalise::None, Normalise::Kept, Normalise::Layer, Normalise::PerFeature] {
        let settings = Settings { normalise, ..exact(1e-10) };
        let task = Head2Toe::<f64>::new(settings, &layers, x.view(), &labels, 2).unwrap();
        let small = Head2Toe::<f64>::new(settings, &layers, less.view(), &fewer, 2).unwrap();
        let (a, b) = (&rank(&task, &[0.05], &held)[0], &rank(&small, &[0.05], &[])[0]);
        assert!(a.active > 0);
        assert!(a.scores.iter().zip(&b.scores).all(|(a, b)| (a - b).abs() < 1e-4), "{normalise:?}");
        // A head on the rest, tried on what was held out, by hand.
        let kept = small.top(b, Keep::Features(3)).unwrap();
        let head = small.train(&Reference, &kept, 0.1).unwrap().head;
        let outside = x.select(Axis(0), &held);
        let held_labels = held.map(|i| labels[i]);
        let right = task.right(&Reference, &kept, &[0.1], &held).unwrap();
        let accuracy = head.accuracy(outside.view(), &held_labels).unwrap();
        assert_eq!(f64::from(right[0]) / 5.0, accuracy, "{normalise:?}");
    }
}

/// A head is that of the ridge problem on standardised features, however many there are.
#[test]
fn heads_are_ridge_regression() {
    let (x, labels) = problem(9, 12, 40, 3, &[0, 20, 39]);
    for (kept, wide) in [((0..40).collect::<Vec<_>>(), true), (vec![0, 3, 20, 39], false)] {
        let layers = Layers::new([("a", 15), ("b", 25)]).unwrap();
        let task = Head2Toe::<f64>::new(exact(1e-9), &layers, x.view(), &labels, 3).unwrap();
        let trained = task.train(&Reference, &kept, 0.05).unwrap();
        let head = trained.head;
        assert!(trained.certificate.relative_gap() <= 1e-9);
        assert_eq!((kept.len() > labels.len(), head.weights.nrows()), (wide, kept.len()));
        let seen: Array2<f64> = Normalise::Layer.apply(x.view(), &layers, &kept).unwrap();
        let spec = tilewright_grouplasso::GroupLassoSpec {
            standardise: Standardise { centre: true, scale: true },
            ..ridge::problem(0.05)
        };
        let targets = Targets::Labels { labels: &labels, classes: 3 };
        let whole = Problem::new(&spec, &Data { x: seen.view(), targets, sample_weights: None }).unwrap();
        let w = tilewright_grouplasso::SparseRows::from_dense(head.weights.view());
        let proven = certificate::certify(&whole, &w, &head.intercept).unwrap();
        assert!(proven.relative_gap() <= 1.1e-9, "{}", proven.relative_gap());
        // Its logits are that problem's.
        let mut z = whole.times(&w);
        z.rows_mut().into_iter().for_each(|mut row| row += &ndarray::aview1(&head.intercept));
        let logits = head.logits(x.view()).unwrap();
        assert!((&logits - &z).iter().all(|apart| apart.abs() < 1e-9));
        // And a sample's scale, layer by layer, is nothing to it.
        let mut louder = x.clone();
        (0..15).for_each(|j| louder.column_mut(j).mapv_inplace(|x| 7.0 * x));
        assert!((&head.logits(louder.view()).unwrap() - &logits).iter().all(|apart| apart.abs() < 1e-9));
        assert_eq!(head.bytes(), 4 * (3 * kept.len() as u64 + 3 + 3 * kept.len() as u64));
        assert_eq!(head.kept_per_layer().iter().sum::<usize>(), kept.len());
    }
}

/// Constant features, all of them: a head that predicts the most frequent class.
#[test]
fn nothing_to_learn_from() {
    let (x, labels) = (Array2::from_elem((5, 9), 2.0), [1, 1, 0, 1, 0]);
    let layers = Layers::new([("a", 9)]).unwrap();
    let task = Head2Toe::<f64>::new(Settings::default(), &layers, x.view(), &labels, 2).unwrap();
    let head = task.train(&Reference, &task.last(), 1.0).unwrap().head;
    assert_eq!(head.predict(x.view()).unwrap(), [1; 5]);
    assert!((head.intercept[1] - head.intercept[0] - 1.5f64.ln()).abs() < 1e-3);
}

/// A class that a fold's other samples lack is never predicted there, and nothing else is wrong.
#[test]
fn a_class_may_be_missing() {
    let (x, mut labels) = problem(4, 20, 6, 2, &[0, 5]);
    labels[7] = 2;
    let layers = Layers::new([("a", 6)]).unwrap();
    let task = Head2Toe::<f64>::new(Settings::default(), &layers, x.view(), &labels, 3).unwrap();
    let ranking = &rank(&task, &[0.05], &[7, 8])[0];
    assert!(ranking.active > 0 && ranking.certificate.relative_gap() <= 1e-4);
    let right = task.right(&Reference, &[0, 5], &[0.1, 0.01], &[7]).unwrap();
    assert_eq!(right, [0, 0]);
}

#[test]
fn cross_validation_finds_the_telling_features() {
    // The last layer knows nothing; two features of the first do.
    let (x, labels) = problem(21, 60, 24, 2, &[3, 8]);
    let layers = Layers::new([("first", 12), ("last", 12)]).unwrap();
    let task = Head2Toe::<f64>::new(
        Settings { normalise: Normalise::None, ..Settings::default() },
        &layers,
        x.view(),
        &labels,
        2,
    )
    .unwrap();
    let grid = Grid {
        lambdas: Lambdas::OfMax(vec![0.5, 0.2]),
        keep: vec![Keep::Features(2), Keep::Features(24)],
        ridge: vec![1.0, 0.01],
    };
    let folds = stratified_folds(&labels, 4, 0).unwrap();
    let (choice, lambdas) = task.cross_validate(&Reference, &grid, &folds).unwrap();
    assert_eq!(grid.keep[choice.keep], Keep::Features(2));
    let tables: Vec<_> = folds.iter().map(|held| task.fold(&Reference, &grid, &lambdas, held).unwrap()).collect();
    assert_eq!(Choice::best(&tables).unwrap(), choice);
    let kept = task.top(&rank(&task, &lambdas, &[])[choice.lambda], grid.keep[choice.keep]).unwrap();
    assert_eq!(kept, [3, 8]);
    let (_, probe) = task.best_ridge(&Reference, &task.last(), &grid.ridge, &folds).unwrap();
    let (strength, ours) = task.best_ridge(&Reference, &kept, &grid.ridge, &folds).unwrap();
    assert!(ours > probe + 10, "{ours} {probe}");
    assert!(grid.ridge.contains(&strength));
}

#[test]
fn the_best_choice() {
    let table = |values: [u32; 8]| Array3::from_shape_vec((2, 2, 2), values.to_vec()).unwrap();
    let best = Choice::best(&[table([1, 2, 3, 4, 5, 6, 7, 0]), table([0, 0, 4, 3, 2, 1, 0, 6])]).unwrap();
    assert_eq!((best.lambda, best.keep, best.ridge, best.right), (0, 1, 0, 7)); // the first of four
    for wrong in [vec![], vec![Array3::zeros((0, 1, 1))], vec![Array3::zeros((1, 1, 1)), Array3::zeros((1, 1, 2))]] {
        assert!(matches!(Choice::best(&wrong), Err(GroupLassoError::Shape { argument: "tables", .. })));
    }
}

#[test]
fn an_interrupted_ranking_is_short() {
    let (x, labels) = problem(5, 40, 30, 3, &[2, 11, 12, 25]);
    let layers = Layers::new([("a", 30)]).unwrap();
    let task = Head2Toe::<f64>::new(exact(1e-12), &layers, x.view(), &labels, 3).unwrap();
    let rankings = task.rank(&Reference, &[0.05, 0.01], &[], &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(rankings.len(), 1);
    assert_eq!(rankings[0].stopped, tilewright_grouplasso::Stopped::Interrupted);
}

fn head() -> Head {
    Head {
        layers: Layers::new([("a", 2), ("b", 2)]).unwrap(),
        normalise: Normalise::Kept,
        kept: vec![1, 2],
        columns: Columns { mean: vec![0.0; 2], scale: vec![1.0; 2] },
        weights: array![[1.0, -1.0], [2.0, 0.0]],
        intercept: vec![0.0, f64::NEG_INFINITY],
    }
}

#[test]
fn heads_are_checked() {
    let x = matrix(1, 3, 4);
    assert!(head().validate().is_ok());
    assert_eq!(head().predict(x.view()).unwrap(), [0; 3]); // class 1 had no samples
    let spoil = |how: fn(&mut Head)| {
        let mut head = head();
        how(&mut head);
        head.logits(x.view()).unwrap_err().to_string()
    };
    assert_eq!(spoil(|h| h.kept = vec![2, 1]), "kept[1]: got 1, expected features of these layers, ascending");
    assert_eq!(spoil(|h| h.kept = vec![1, 4]), "kept[1]: got 4, expected features of these layers, ascending");
    assert!(spoil(|h| h.columns.scale[1] = 0.0).starts_with("columns[1]"));
    assert!(spoil(|h| h.columns.mean.truncate(1)).starts_with("shape of columns"));
    assert!(spoil(|h| h.intercept.push(0.0)).starts_with("shape of weights"));
    assert!(spoil(|h| h.weights[[1, 0]] = f64::NAN).starts_with("weights[1, 0]"));
    assert!(spoil(|h| h.intercept[0] = f64::INFINITY).starts_with("intercept[0]"));
    let logits = |x: ArrayView2<'_, f64>| head().logits(x).unwrap_err();
    assert!(matches!(logits(matrix(1, 3, 5).view()), GroupLassoError::Shape { argument: "x", .. }));
    let mut broken = x.clone();
    broken[[1, 3]] = f64::NAN;
    assert_eq!(logits(broken.view()).to_string().split(':').next(), Some("x[sample 1, feature 3]"));
    assert!(matches!(head().accuracy(x.view(), &[0]), Err(GroupLassoError::Shape { argument: "labels", .. })));
    assert_eq!(head().accuracy(x.view(), &[0, 1, 0]).unwrap(), 2.0 / 3.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let (x, labels) = problem(1, 10, 6, 2, &[0]);
    let layers = Layers::new([("a", 6)]).unwrap();
    let settings = Settings::default();
    let field = |error: GroupLassoError| error.to_string().split([':', '[']).next().unwrap().to_owned();
    assert_eq!(field(Layers::new([("a", 1), ("a", 2)]).unwrap_err()), "layers");
    assert_eq!(field(Layers::new([("a", 0)]).unwrap_err()), "layers");
    assert_eq!(field(Layers::new([("a", usize::MAX), ("b", 2)]).unwrap_err()), "layers");
    let task = |x: ArrayView2<'_, f64>, labels: &[u32], classes| {
        field(Head2Toe::<f64>::new(settings, &layers, x, labels, classes).unwrap_err())
    };
    assert_eq!(task(x.view(), &labels, 1), "classes");
    assert_eq!(task(x.view(), &[2; 10], 2), "labels");
    assert_eq!(task(x.view(), &labels[1..], 2), "shape of labels");
    assert_eq!(task(matrix(1, 10, 7).view(), &labels, 2), "shape of x");
    assert_eq!(task(Array2::from_elem((10, 6), f64::INFINITY).view(), &labels, 2), "x");
    let nowhere = Settings { head: Stopping { gap: 0.0, ..Stopping::default() }, ..settings };
    assert_eq!(field(Head2Toe::<f64>::new(nowhere, &layers, x.view(), &labels, 2).unwrap_err()), "gap");

    let good = Head2Toe::<f64>::new(settings, &layers, x.view(), &labels, 2).unwrap();
    let all: Vec<usize> = (0..10).collect();
    assert_eq!(field(good.right(&Reference, &[0], &[1.0], &all).unwrap_err()), "held");
    assert_eq!(field(good.right(&Reference, &[0], &[1.0], &[10]).unwrap_err()), "held");
    assert_eq!(field(good.right(&Reference, &[6], &[1.0], &[1]).unwrap_err()), "kept");
    assert_eq!(field(good.train(&Reference, &[0], 0.0).unwrap_err()), "ridge");
    assert_eq!(field(good.best_ridge(&Reference, &[0], &[], &[vec![1]]).unwrap_err()), "ridge");
    for (grid, name) in [
        (Grid { lambdas: Lambdas::Values(vec![0.1, -1.0]), ..Grid::default() }, "lambdas"),
        (Grid { keep: vec![], ..Grid::default() }, "keep"),
        (Grid { keep: vec![Keep::Fraction(0.0)], ..Grid::default() }, "fraction"),
        (Grid { ridge: vec![f64::NAN], ..Grid::paper() }, "ridge"),
    ] {
        assert_eq!(field(good.cross_validate(&Reference, &grid, &[vec![0]]).unwrap_err()), name);
    }
}
