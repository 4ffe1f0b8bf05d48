//! Features in files, problems streamed from them, cross-validation and saved answers.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tilewright_cpu::CpuGroupLasso;
use tilewright_cpu::grouplasso::crossval::{self, Part};
use tilewright_cpu::grouplasso::head::{SavedHead, SavedPath, logits};
use tilewright_cpu::grouplasso::source::{FeatureSource, Features, FileError, Orientation};
use tilewright_cpu::grouplasso::{Event, Memory, Streamed, StreamingGroupLasso};
use tilewright_grouplasso::features::{Layers, Normalise};
use tilewright_grouplasso::grid::{Choice, Grid, Lambdas};
use tilewright_grouplasso::head2toe::Settings;
use tilewright_grouplasso::sampling::stratified_folds;
use tilewright_grouplasso::{
    Columns, Data, GroupLassoError, GroupLassoSpec, Groups, Head, Head2Toe, Keep, Loss, Penalty, Problem, Standardise,
    Stopped, Stopping, Targets, Weights, bf16, certificate, f16, geometric_path,
};

const AMPLE: Memory = Memory { bytes: 64 << 20 };

fn on<E>(_: &E) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A directory that goes away with the test, and a path in it.
fn place(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

/// Small numbers that every format holds exactly.
fn exact(samples: usize, features: usize) -> Array2<f64> {
    Array2::from_shape_fn((samples, features), |(i, j)| ((i * 37 + j * 101 + i * j) % 61) as f64 / 4.0 - 7.0)
}

fn encode(kind: &str, big_endian: bool, x: f64) -> Vec<u8> {
    let mut bytes = match kind {
        "f2" => f16::from_f64(x).to_le_bytes().to_vec(),
        "f4" => (x as f32).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    if big_endian {
        bytes.reverse();
    }
    bytes
}

fn npy_with(header: &str, version: u8, numbers: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    let header = format!("{header}\n");
    if version == 1 {
        bytes.extend((header.len() as u16).to_le_bytes());
    } else {
        bytes.extend((header.len() as u32).to_le_bytes());
    }
    bytes.extend(header.bytes());
    bytes.extend(numbers);
    bytes
}

/// `array` as NumPy writes it.
fn npy(array: ArrayView2<'_, f64>, kind: &str, big_endian: bool, fortran: bool, version: u8) -> Vec<u8> {
    let (order, truth) = (if big_endian { '>' } else { '<' }, if fortran { "True" } else { "False" });
    let (rows, columns) = array.dim();
    let header = format!("{{'descr': '{order}{kind}', 'fortran_order': {truth}, 'shape': ({rows}, {columns}), }}");
    let in_order = if fortran { array.t() } else { array };
    let numbers: Vec<u8> = in_order.iter().flat_map(|x| encode(kind, big_endian, *x)).collect();
    npy_with(&header, version, &numbers)
}

fn columns(source: &dyn FeatureSource, features: Range<usize>) -> Vec<f64> {
    let mut columns = vec![f64::NAN; features.len() * source.samples()];
    source.read(features, &mut columns).unwrap();
    columns
}

fn expected(x: ArrayView2<'_, f64>, features: impl Iterator<Item = usize>) -> Vec<f64> {
    features.flat_map(|j| x.column(j).to_vec()).collect()
}

fn content(error: FileError) -> (String, String) {
    match error {
        FileError::Content { place, problem, .. } => (place, problem),
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn npy_files_of_every_kind_are_read_as_written(
        (samples, features) in (1usize..40, 1usize..90), kind in 0usize..3, big_endian: bool, fortran: bool,
        features_first: bool, version in 1u8..4, cuts in (0.0f64..1.0, 0.0f64..1.0), chosen in any::<u64>(),
    ) {
        let x = exact(samples, features);
        let array = if features_first { x.t() } else { x.view() };
        let (_directory, path) = place("x.npy");
        std::fs::write(&path, npy(array, ["f2", "f4", "f8"][kind], big_endian, fortran, version)).unwrap();
        let orientation = if features_first { Orientation::FeaturesFirst } else { Orientation::SamplesFirst };
        let source = Features::open(&path, orientation).unwrap();
        prop_assert_eq!((source.samples(), source.features()), (samples, features));
        prop_assert_eq!((&source.parts()[0].name[..], source.parts()[0].features.clone()), ("x", 0..features));
        let (a, b) = ((cuts.0 * features as f64) as usize, (cuts.1 * features as f64) as usize + 1);
        let range = a.min(b)..a.max(b);
        prop_assert_eq!(columns(&source, range.clone()), expected(x.view(), range));
        let some: Vec<usize> = (0..features).filter(|j| chosen >> (j % 64) & 1 == 1).collect();
        let mut gathered = vec![f64::NAN; some.len() * samples];
        source.gather(&some, &mut gathered).unwrap();
        prop_assert_eq!(gathered, expected(x.view(), some.into_iter()));
    }

    #[test]
    fn memory_is_a_source_whatever_its_strides((samples, features) in (1usize..20, 1usize..20), turned: bool) {
        let x = exact(samples, features);
        let narrow = if turned { x.t().mapv(f16::from_f64).reversed_axes() } else { x.mapv(f16::from_f64) };
        prop_assert_eq!(columns(&narrow.view(), 0..features), expected(x.view(), 0..features));
    }
}

#[test]
fn wide_rows_are_gathered_in_pieces() {
    let x = exact(17, 40_000);
    let (_directory, path) = place("x.npy");
    std::fs::write(&path, npy(x.view(), "f2", false, false, 1)).unwrap();
    let source = Features::open(&path, Orientation::Samples(17)).unwrap();
    for step in [1, 7, 900, 2049] {
        let some: Vec<usize> = (3..40_000).step_by(step).collect();
        let mut gathered = vec![f64::NAN; some.len() * 17];
        source.gather(&some, &mut gathered).unwrap();
        assert_eq!(gathered, expected(x.view(), some.into_iter()), "step {step}");
    }
}

#[test]
fn a_damaged_npy_file_says_where() {
    let numbers = [0; 24];
    let fine = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}";
    let cases = [
        (fine.replace("<f4", "<i4"), "array: header, character 10", "\"<i4\": expected f2, f4 or f8"),
        (fine.replace("<f4", "|V2"), "array: header, character 10", "\"|V2\": expected a byte order, < or >"),
        (fine.replace("<f4", "<V2"), "array: header, character 10", "bfloat16 is read from .safetensors"),
        (fine.replace("'<f4'", "[('a', '<f4')]"), "array: header, character 10", "records"),
        (fine.replace("False", "Maybe"), "array: header", "expected True or False"),
        (fine.replace("(2, 3)", "(2, -3)"), "array: header", "is no length of an axis"),
        (fine.replace("(2, 3)", "(2, 4)"), "array", "shape [2, 4] takes 32 bytes, there are 24"),
        (fine.replace("(2, 3)", "(1, 3)"), "array", "shape [1, 3] takes 12 bytes, there are 24"),
        (fine.replace("(2, 3)", "(4294967296, 4294967296)"), "array", "more numbers than can be counted"),
        (fine.replace("(2, 3)", "(99999999999999999999,)"), "array: header", "is no length of an axis"),
        (fine.replace("(2, 3)", "(3, 1, 2)"), "array", "shape [3, 1, 2]: no axis of 9 samples"),
        (fine.replace("'shape'", "'shapes'"), "array: header, character 41", "an unknown key, shapes"),
        (fine.replace(", 'shape': (2, 3)", ""), "array: header, character 40", "shape is missing"),
        (
            fine.replace("'shape'", "'descr': '<f4', 'shape'"),
            "array: header, character 41",
            "descr for the second time",
        ),
        (fine.replace('}', "} x"), "array: header", "more after the dictionary"),
        (fine.replace('}', ""), "array: header", "expected }"),
        ("{'desc".into(), "array: header", "a string without end"),
        (String::new(), "array: header, character 1", "expected {"),
        (fine.replace("(2, 3)", "()"), "array", "shape [] takes 4 bytes"),
    ];
    let (_directory, path) = place("x.npy");
    for (header, place, problem) in cases {
        std::fs::write(&path, npy_with(&header, 1, &numbers)).unwrap();
        let samples = if header.contains("(3, 1, 2)") { 9 } else { 2 };
        let (at, what) = content(Features::open(&path, Orientation::Samples(samples)).unwrap_err());
        assert!(at.starts_with(place) && what.contains(problem), "{header}: {at}: {what}");
    }
    std::fs::write(&path, npy_with(fine, 4, &numbers)).unwrap();
    assert_eq!(content(Features::open(&path, Orientation::SamplesFirst).unwrap_err()).1, "4, expected 1 to 3");
    let error = Features::open(&path.with_extension("none"), Orientation::SamplesFirst).unwrap_err();
    assert!(matches!(&error, FileError::Io { .. }) && error.to_string().contains("x.none"), "{error}");
    assert!(
        content(Features::open(path.parent().unwrap(), Orientation::SamplesFirst).unwrap_err()).1.contains("directory")
    );
}

/// Every prefix of a file, and every byte changed: an error, or numbers; never a panic.
fn survives(bytes: &[u8], path: &Path, prefix_may_be_read: bool) {
    let open = |bytes: &[u8]| {
        std::fs::write(path, bytes).unwrap();
        let source = Features::open(path, Orientation::Samples(3))?;
        columns(&source, 0..source.features());
        Ok::<_, FileError>(())
    };
    open(bytes).unwrap();
    for length in 0..bytes.len() {
        let outcome = open(&bytes[..length]);
        assert!(prefix_may_be_read || outcome.is_err(), "{length} bytes of {} were enough", bytes.len());
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= [0x01, 0x80, 0xff][at % 3];
        let _ = open(&changed);
    }
}

#[test]
fn hostile_files_are_errors() {
    let (_directory, path) = place("x");
    let x = exact(3, 5);
    survives(&npy(x.view(), "f2", false, false, 1), &path, false);
    survives(&npy(x.view(), "f4", true, true, 3), &path, false);
    survives(&tensors(&[("a", x.view(), Dtype::BF16), ("b", x.view(), Dtype::F64)], &[]), &path, false);
    for compressed in [false, true] {
        survives(&npz(&[("a", x.view()), ("b", x.view())], compressed), &path, false);
    }
}

#[test]
fn a_file_that_shrinks_is_an_error() {
    let (_directory, path) = place("x.npy");
    for first in [Orientation::SamplesFirst, Orientation::FeaturesFirst] {
        let bytes = npy(exact(50, 50).view(), "f4", false, false, 1);
        std::fs::write(&path, &bytes).unwrap();
        let source = Features::open(&path, first).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 - 8).unwrap();
        let mut columns = vec![0.0; 50 * 50];
        let error = source.read(0..50, &mut columns).unwrap_err();
        let GroupLassoError::Source { problem } = &error else { panic!("{error}") };
        assert!(problem.contains("x.npy: bytes") && problem.ends_with("the file ends before them"), "{error}");
        let wrong = source.read(49..51, &mut columns[..100]).unwrap_err();
        assert!(matches!(wrong, GroupLassoError::Shape { argument: "columns", .. }), "{wrong}");
    }
}

fn tensors(layers: &[(&str, ArrayView2<'_, f64>, Dtype)], metadata: &[(&str, &str)]) -> Vec<u8> {
    let number = |x: f64, dtype: Dtype| match dtype {
        Dtype::BF16 => bf16::from_f64(x).to_le_bytes().to_vec(),
        Dtype::F16 => encode("f2", false, x),
        Dtype::F32 => encode("f4", false, x),
        Dtype::F64 => encode("f8", false, x),
        _ => vec![x as u8],
    };
    let bytes: Vec<Vec<u8>> =
        layers.iter().map(|(_, x, dtype)| x.iter().flat_map(|x| number(*x, *dtype)).collect()).collect();
    let view = |((name, x, dtype), bytes): (&(&str, ArrayView2<'_, f64>, Dtype), &'_ Vec<u8>)| {
        let bytes: &'static [u8] = bytes.clone().leak();
        ((*name).to_owned(), TensorView::new(*dtype, x.shape().to_vec(), bytes).unwrap())
    };
    let views: Vec<_> = layers.iter().zip(&bytes).map(view).collect();
    let metadata = metadata.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    safetensors::serialize(views, Some(metadata)).unwrap()
}

fn npz(arrays: &[(&str, ArrayView2<'_, f64>)], compressed: bool) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let method = if compressed { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    for (name, array) in arrays {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(format!("{name}.npy"), options).unwrap();
        writer.write_all(&npy(*array, "f4", false, false, 1)).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_are_layers_side_by_side() {
    let (_directory, path) = place("x");
    let (a, b, c) = (exact(4, 3), exact(4, 5) * 2.0, exact(4, 2) / 2.0);
    let turned = b.t();
    let all = ndarray::concatenate(ndarray::Axis(1), &[a.view(), c.view(), b.view()]).unwrap();
    let layers = [("l9", a.view(), Dtype::F16), ("l11", turned, Dtype::F64), ("l10", c.view(), Dtype::F32)];
    let files = [
        tensors(&layers, &[("l11.orientation", "features first")]),
        tensors(&layers, &[]),
        npz(&[("l11", turned), ("l9", a.view()), ("l10", c.view())], false),
        npz(&[("l11", turned), ("l9", a.view()), ("l10", c.view())], true),
    ];
    for bytes in &files {
        std::fs::write(&path, bytes).unwrap();
        let source = Features::open(&path, Orientation::Samples(4)).unwrap();
        let names: Vec<_> = source.parts().iter().map(|part| (&part.name[..], part.features.clone())).collect();
        assert_eq!(names, [("l9", 0..3), ("l10", 3..5), ("l11", 5..10)]);
        assert_eq!(columns(&source, 2..9), expected(all.view(), 2..9));
        let mut gathered = vec![0.0; 4 * 4];
        source.gather(&[0, 4, 5, 9], &mut gathered).unwrap();
        assert_eq!(gathered, expected(all.view(), [0, 4, 5, 9].into_iter()));
        let some = Features::open_layers(&path, Some(&["l11", "l9"]), Orientation::Samples(4)).unwrap();
        assert_eq!(columns(&some, 4..6), [expected(b.view(), 4..5), expected(a.view(), 0..1)].concat());
        let error = Features::open_layers(&path, Some(&["l9", "l12"]), Orientation::Samples(4)).unwrap_err();
        assert_eq!(content(error), ("l12".into(), "there is no such array".into()));
        let error = Features::open(&path, Orientation::Samples(6)).unwrap_err();
        assert!(content(error).1.contains("no axis of 6 samples"));
        let both = some.and(&path, Orientation::Samples(4)).unwrap();
        assert_eq!(columns(&both, 8..18), expected(all.view(), 0..10));
    }
    std::fs::write(&path, tensors(&[("a", a.view(), Dtype::U8)], &[])).unwrap();
    let (at, problem) = content(Features::open(&path, Orientation::SamplesFirst).unwrap_err());
    assert_eq!((&at[..], &problem[..]), ("a", "numbers of type U8, expected F16, BF16, F32 or F64"));
    std::fs::write(&path, tensors(&[("a", a.view(), Dtype::F32)], &[("orientation", "up")])).unwrap();
    assert!(
        content(Features::open(&path, Orientation::SamplesFirst).unwrap_err()).1.starts_with("orientation: got up")
    );
    std::fs::write(&path, tensors(&[("a", a.view(), Dtype::F32), ("b", b.t(), Dtype::F32)], &[])).unwrap();
    let (at, problem) = content(Features::open(&path, Orientation::SamplesFirst).unwrap_err());
    assert_eq!((&at[..], &problem[..]), ("b", "5 samples, others have 4"));
    std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let (at, problem) = content(Features::open(&path, Orientation::SamplesFirst).unwrap_err());
    assert_eq!((&at[..], &problem[..]), ("its list of arrays", "there is none"));
}

/// Features that are correlated, off centre and of different sizes, and what they say about samples.
struct Made {
    x: Array2<f32>,
    y: Array2<f64>,
    labels: Vec<u32>,
}

fn made(samples: usize, features: usize, seed: usize) -> Made {
    let noise = |i: usize, j: usize| {
        let hash =
            (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (j as u64 + 7).wrapping_mul(0xd1b5_4a32_d192_ed03);
        let hash = (hash ^ (hash >> 29) ^ (seed as u64) << 17).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (hash >> 40) as f64 / f64::from(1u32 << 24) - 0.5
    };
    let factor = |i: usize, j: usize| noise(i, 100_000 + j % 5);
    let of = |(i, j): (usize, usize)| ((noise(i, j) + factor(i, j) + 0.3) * (1.0 + (j % 7) as f64)) as f32;
    let x = Array2::from_shape_fn((samples, features), of);
    let truth =
        |i: usize, k: usize| (0..6).map(|j| f64::from(x[[i, (j * 31 + k) % features]]) / (1 + j) as f64).sum::<f64>();
    let y = Array2::from_shape_fn((samples, 3), |(i, k)| truth(i, k) + noise(i, 200_000 + k));
    let largest = |i: usize| (0..3).max_by(|a, b| truth(i, *a).total_cmp(&truth(i, *b))).unwrap() as u32;
    let labels = (0..samples).map(|i| if i < 3 { i as u32 } else { largest(i) }).collect();
    Made { x, y, labels }
}

impl Made {
    fn targets(&self, loss: Loss) -> Targets<'_> {
        match loss {
            Loss::LeastSquares => Targets::Values(self.y.view()),
            Loss::Multinomial => Targets::Labels { labels: &self.labels, classes: 3 },
        }
    }

    fn data(&self, loss: Loss) -> Data<'_, f32> {
        Data { x: self.x.view(), targets: self.targets(loss), sample_weights: None }
    }
}

fn any_spec() -> impl Strategy<Value = GroupLassoSpec> {
    let groups = prop_oneof![Just(0usize), 1usize..9];
    let penalty = prop_oneof![
        Just(Penalty::GroupLasso),
        (0.0..=1.0).prop_map(|tau| Penalty::SparseGroup { tau }),
        (0.1..=1.0).prop_map(|alpha| Penalty::ElasticNet { alpha }),
    ];
    (any::<bool>(), groups, penalty, any::<[bool; 4]>()).prop_map(|(least_squares, size, penalty, flags)| {
        GroupLassoSpec {
            groups: if size == 0 { Groups::Rows } else { Groups::Sizes(vec![size]) },
            weights: if flags[3] { Weights::Ones } else { Weights::SqrtSize },
            penalty,
            intercept: flags[0],
            standardise: Standardise { centre: flags[1], scale: flags[2] },
            ..GroupLassoSpec::rows(if least_squares { Loss::LeastSquares } else { Loss::Multinomial }, 0.0)
        }
    })
}

/// Groups of at most so many, all features in them.
fn filled(spec: GroupLassoSpec, features: usize) -> GroupLassoSpec {
    let Groups::Sizes(sizes) = &spec.groups else { return spec };
    let starts: Vec<usize> = (0..features).step_by(sizes[0]).collect();
    let groups = Groups::Sizes(starts.iter().map(|start| sizes[0].min(features - start)).collect());
    GroupLassoSpec { groups, ..spec }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_streamed_answer_is_certified_by_the_judge(
        spec in any_spec(), seed in 0usize..1000, features in 300usize..700, share in 0.08f64..0.9, weigh: bool,
        narrow: bool,
    ) {
        let made = made(40, features, seed);
        let mut spec = filled(spec, features);
        let weights: Vec<f64> = (0..40).map(|i| f64::from(i % 4)).collect();
        let mut data = made.data(spec.loss);
        data.sample_weights = weigh.then_some(&weights[..]);
        let view = made.x.view();
        let problem = Streamed { x: &view, targets: data.targets, sample_weights: data.sample_weights };
        let gap = if narrow { 1e-4 } else { 1e-8 };
        let stopping = Stopping { gap, ..Stopping::default() };
        let solver = StreamingGroupLasso::<_, f64>::new(CpuGroupLasso, AMPLE);
        let most = solver.lambda_max(&spec, &problem).unwrap();
        let judged = Problem::new(&spec, &data).unwrap().lambda_max().unwrap();
        prop_assert!((most - judged).abs() <= 1e-12 * judged, "{} {}", most, judged);
        spec.lambda = share * most;
        let answer = if narrow {
            let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, AMPLE);
            solver.solve(&spec, &problem, &stopping, None, &mut on).unwrap()
        } else {
            solver.solve(&spec, &problem, &stopping, None, &mut on).unwrap()
        };
        prop_assert_eq!(answer.stopped, Stopped::Reached, "gap {}", answer.certificate.relative_gap());
        let judge = Problem::new(&spec, &data).unwrap();
        let found = certificate::certify(&judge, &answer.w, &answer.b).unwrap();
        let (own, unit) = (answer.certificate, found.null);
        prop_assert!(found.relative_gap() <= gap * (1.0 + 1e-6) + 1e-13, "{:?} {:?}", found, own);
        prop_assert!((found.objective - own.objective).abs() <= 1e-12 * unit, "{:?} {:?}", found, own);
        prop_assert!((found.gap() - own.gap()).abs() <= 1e-6 * gap * unit + 1e-12 * unit, "{:?} {:?}", found, own);
        prop_assert_eq!(found.active, own.active);
        for feature in 0..features {
            let (a, b) = (judge.columns(), &answer.columns);
            prop_assert!((a.mean[feature] - b.mean[feature]).abs() <= 1e-13 * (1.0 + a.mean[feature].abs()));
            prop_assert!((a.scale[feature] - b.scale[feature]).abs() <= 1e-13 * a.scale[feature]);
        }
    }
}

/// A file of features, the samples' labels, and the classes' problem.
fn on_disk(samples: usize, features: usize, by_feature: bool) -> (tempfile::TempDir, Features, Made) {
    let made = made(samples, features, 3);
    let (directory, path) = place("x.npy");
    let x = made.x.mapv(f64::from);
    std::fs::write(&path, npy(if by_feature { x.t() } else { x.view() }, "f4", false, false, 1)).unwrap();
    let features = Features::open(&path, Orientation::Samples(samples)).unwrap();
    (directory, features, made)
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (_directory, features, made) = on_disk(60, 5000, true);
    let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    spec.standardise = Standardise { centre: true, scale: true };
    let problem = Streamed { x: &features, targets: made.targets(spec.loss), sample_weights: None };
    let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, Memory { bytes: 6 << 20 });
    let folds = stratified_folds(&made.labels, 3, 0).unwrap();
    let data = made.data(spec.loss);
    let outcome = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let most = solver.lambda_max(&spec, &problem).unwrap();
            let lambdas = geometric_path(most, 0.1, 4);
            let stopping = Stopping { gap: 1e-5, ..Stopping::default() };
            let path = solver.solve_path(&spec, &problem, &lambdas, &stopping, &mut on).unwrap();
            let tried = crossval::path(&CpuGroupLasso, &spec, &data, &lambdas, &folds, &stopping, &mut on).unwrap();
            let bits = |x: &f64| x.to_bits();
            let answers: Vec<(Vec<usize>, Vec<u64>, u64)> = path
                .points
                .iter()
                .map(|point| {
                    let numbers = point.w.values().iter().chain(&point.b).map(bits).collect();
                    (point.w.indices().to_vec(), numbers, point.certificate.gap().to_bits())
                })
                .collect();
            let losses: Vec<u64> = tried.unwrap().by_fold.iter().flatten().map(bits).collect();
            (answers, losses)
        })
    };
    let one = outcome(1);
    assert!(one.0[3].0.len() > 10);
    for threads in [2, 3, 8] {
        assert!(outcome(threads) == one, "{threads} threads");
    }
}

#[test]
fn a_bound_that_cannot_be_kept_says_what_would_do() {
    let (_directory, features, made) = on_disk(300, 1500, false);
    let mut spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.0);
    let problem = Streamed { x: &features, targets: made.targets(spec.loss), sample_weights: None };
    let with = |bytes| StreamingGroupLasso::<_, f64>::new(CpuGroupLasso, Memory { bytes });
    let needed = |outcome: GroupLassoError| match outcome {
        GroupLassoError::OutOfMemory { bytes, .. } => bytes,
        other => panic!("{other}"),
    };
    let mut bytes = 1000;
    spec.lambda = loop {
        match with(bytes).lambda_max(&spec, &problem) {
            Ok(most) => break most / 40.0,
            Err(error) => {
                let more = needed(error);
                assert!(more > bytes && more < 10 << 20, "{more} after {bytes}");
                bytes = more;
            }
        }
    };
    // That is enough to look, but not to hold all that is active.
    let stopping = Stopping { gap: 1e-6, ..Stopping::default() };
    let mut tries = 0;
    let answer = loop {
        match with(bytes).solve(&spec, &problem, &stopping, None, &mut on) {
            Ok(answer) => break answer,
            Err(error) => {
                let more = needed(error);
                assert!(more > bytes && more < 10 << 20, "{more} after {bytes}");
                (bytes, tries) = (more, tries + 1);
            }
        }
    };
    assert_eq!((tries > 0, answer.stopped), (true, Stopped::Reached), "{} active", answer.w.indices().len());
    // With a weight of 0 everything would have to be in memory.
    let free = GroupLassoSpec { weights: Weights::Given(vec![0.0; 1500]), ..spec };
    let error = with(3 << 20).solve(&free, &problem, &stopping, None, &mut on).unwrap_err();
    assert!(matches!(error, GroupLassoError::OutOfMemory { bytes, .. } if bytes > 3 << 20), "{error}");
}

#[test]
fn interrupted_work_goes_on_where_it_was() {
    let (_directory, features, made) = on_disk(60, 5000, true);
    let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    let problem = Streamed { x: &features, targets: made.targets(spec.loss), sample_weights: None };
    let solver = StreamingGroupLasso::<_, f64>::new(CpuGroupLasso, AMPLE);
    spec.lambda = solver.lambda_max(&spec, &problem).unwrap() / 20.0;
    let stopping = Stopping { gap: 1e-7, ..Stopping::default() };
    let mut log = Vec::new();
    let whole = solver
        .solve(&spec, &problem, &stopping, None, &mut |event| {
            log.push(*event);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(whole.iterations > 2 && log.iter().any(|event| matches!(event, Event::Inner(_))));
    let seen = |pass| log.iter().filter(move |event| matches!(event, Event::Features { pass: p, .. } if *p == pass));
    let Some(Event::Features { done: 5000, of: 5000, .. }) = seen(1).next_back() else { panic!("{log:?}") };
    // Whenever it is interrupted, what comes back is worth as much as it says, and a start to go on from.
    let judge_data = made.data(spec.loss);
    let judge = Problem::new(&spec, &judge_data).unwrap();
    let mut passes = Vec::new();
    for after in 1..log.len() {
        let mut left = after;
        let mut watch = |_: &Event| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let part = solver.solve(&spec, &problem, &stopping, None, &mut watch).unwrap();
        assert_eq!(part.stopped, Stopped::Interrupted, "after {after} of {} reports", log.len());
        let found = certificate::certify(&judge, &part.w, &part.b).unwrap();
        assert!(part.certificate.dual <= found.objective && found.objective <= part.certificate.objective + 1e-12);
        if after % 5 == 0 {
            let rest = solver.solve(&spec, &problem, &stopping, Some(&part.start()), &mut on).unwrap();
            assert_eq!(rest.stopped, Stopped::Reached);
            passes.push(rest.iterations);
        }
    }
    assert!(*passes.last().unwrap() < whole.iterations, "{passes:?} of {}", whole.iterations);
    // A pass that only looks.
    let looked =
        solver.solve(&spec, &problem, &Stopping { iterations: 1, gap: 1e-12 }, Some(&whole.start()), &mut on).unwrap();
    assert_eq!((looked.stopped, looked.iterations), (Stopped::Iterations, 1));
    assert!((looked.certificate.gap() - whole.certificate.gap()).abs() <= 1e-13);
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let (_directory, features, mut made) = on_disk(20, 50, true);
    let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, AMPLE);
    let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.1);
    let refused = |spec: &GroupLassoSpec, problem: &Streamed<'_>| {
        solver.solve(spec, problem, &Stopping::default(), None, &mut on).unwrap_err().to_string()
    };
    let problem = Streamed { x: &features, targets: made.targets(spec.loss), sample_weights: None };
    let lists = GroupLassoSpec { groups: Groups::Lists(vec![(0..50).rev().collect()]), ..spec.clone() };
    assert_eq!(refused(&lists, &problem), "unsupported: streaming groups that are neither rows nor consecutive");
    let sizes = GroupLassoSpec { groups: Groups::Sizes(vec![49]), ..spec.clone() };
    assert_eq!(refused(&sizes, &problem), "groups: sizes cover 49 features, there are 50");
    assert!(refused(&GroupLassoSpec { lambda: -1.0, ..spec.clone() }, &problem).starts_with("lambda: got -1"));
    let few = Streamed { targets: Targets::Labels { labels: &made.labels[..19], classes: 3 }, ..problem };
    assert_eq!(refused(&spec, &few), "shape of labels: got 19, expected 20, one a sample");
    let wrong = Streamed { targets: Targets::Labels { labels: &made.labels, classes: 2 }, ..problem };
    assert!(refused(&spec, &wrong).starts_with("labels["));
    made.x[[7, 33]] = f32::NAN;
    let view = made.x.view();
    let problem = Streamed { x: &view, targets: made.targets(spec.loss), sample_weights: None };
    assert!(refused(&spec, &problem).starts_with("x[sample 7, feature 33]: got NaN"));
}

/// Features that can be read so many times.
struct Failing<'a> {
    x: ArrayView2<'a, f32>,
    left: AtomicUsize,
}

impl FeatureSource for Failing<'_> {
    fn samples(&self) -> usize {
        self.x.nrows()
    }

    fn features(&self) -> usize {
        self.x.ncols()
    }

    fn read(&self, features: Range<usize>, columns: &mut [f64]) -> Result<(), GroupLassoError> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return Err(GroupLassoError::Source { problem: "the disk is gone".into() });
        }
        self.x.read(features, columns)
    }

    fn together(&self) -> usize {
        10
    }
}

#[test]
fn a_source_that_fails_ends_the_work() {
    let made = made(30, 200, 5);
    let spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.1);
    let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, AMPLE);
    let mut reads = 0;
    loop {
        let failing = Failing { x: made.x.view(), left: AtomicUsize::new(reads) };
        let problem = Streamed { x: &failing, targets: made.targets(spec.loss), sample_weights: None };
        match solver.solve(&spec, &problem, &Stopping::default(), None, &mut on) {
            Ok(answer) => break assert_eq!(answer.stopped, Stopped::Reached),
            Err(error) => assert_eq!(error.to_string(), "features: the disk is gone"),
        }
        reads += 1;
    }
    assert!(reads > 40, "{reads}");
}

#[test]
fn what_is_proven_zero_is_not_read_again() {
    let made = made(50, 4000, 7);
    let mut spec = GroupLassoSpec::rows(Loss::LeastSquares, 0.0);
    let solver = StreamingGroupLasso::<_, f64>::new(CpuGroupLasso, AMPLE);
    let all = 1_000_000;
    let counting = Failing { x: made.x.view(), left: AtomicUsize::new(all) };
    let problem = Streamed { x: &counting, targets: made.targets(spec.loss), sample_weights: None };
    spec.lambda = solver.lambda_max(&spec, &problem).unwrap() / 2.0;
    assert_eq!(all - counting.left.load(Ordering::Relaxed), 400);
    let mut reads = Vec::new();
    let mut watch = |event: &Event| {
        if let Event::Features { pass, done, of, .. } = event {
            reads.resize(*pass, (0, 0));
            reads[pass - 1].1 = counting.left.load(Ordering::Relaxed);
            if *done < 2 * of / 6 {
                reads[pass - 1].0 = counting.left.load(Ordering::Relaxed);
            }
        }
        ControlFlow::Continue(())
    };
    let stopping = Stopping { gap: 1e-11, ..Stopping::default() };
    let answer = solver.solve(&spec, &problem, &stopping, None, &mut watch).unwrap();
    assert_eq!(answer.stopped, Stopped::Reached);
    // Reads of the greater part of each pass: all blocks at first and at last, fewer in between.
    let counts: Vec<usize> = reads.iter().map(|(first, last)| first - last).collect();
    let (first, last) = (counts[0], counts[counts.len() - 1]);
    assert!(first == last && counts.iter().any(|count| 2 * count < first), "{counts:?}");
}

#[test]
fn free_groups_are_streamed_too() {
    let made = made(60, 400, 13);
    let view = made.x.view();
    let solver = StreamingGroupLasso::<_, f64>::new(CpuGroupLasso, AMPLE);
    for (loss, lambda) in [(Loss::LeastSquares, 0.3), (Loss::Multinomial, 0.05)] {
        let weights = (0..400).map(|j| if j % 97 == 3 { 0.0 } else { 1.0 }).collect();
        let spec = GroupLassoSpec { weights: Weights::Given(weights), ..GroupLassoSpec::rows(loss, lambda) };
        let problem = Streamed { x: &view, targets: made.targets(loss), sample_weights: None };
        let stopping = Stopping { gap: 1e-7, ..Stopping::default() };
        let answer = solver.solve(&spec, &problem, &stopping, None, &mut on).unwrap();
        assert_eq!(answer.stopped, Stopped::Reached);
        let judge_data = made.data(loss);
        let judge = Problem::new(&spec, &judge_data).unwrap();
        let found = certificate::certify(&judge, &answer.w, &answer.b).unwrap();
        assert!(found.relative_gap() <= 1.001e-7, "{found:?} {:?}", answer.certificate);
        assert!([3, 100, 197, 294].iter().all(|j| answer.w.indices().contains(j)), "{:?}", answer.w.indices());
        let error = solver.lambda_max(&spec, &problem).unwrap_err();
        assert!(matches!(error, GroupLassoError::Unsupported { .. }));
    }
}

fn any_head() -> impl Strategy<Value = SavedHead> {
    let normalise =
        prop_oneof![Just(Normalise::None), Just(Normalise::Kept), Just(Normalise::Layer), Just(Normalise::PerFeature)];
    let layers = prop::collection::vec(1usize..6, 1..4);
    (layers, normalise, 1usize..4, any::<u64>(), any::<bool>()).prop_map(
        |(widths, normalise, classes, bits, narrow)| {
            let layers = Layers::new(widths.iter().enumerate().map(|(l, width)| (format!("\"{l}\n"), *width))).unwrap();
            let kept: Vec<usize> = (0..layers.features()).filter(|j| bits >> (j % 64) & 1 == 1).collect();
            let number = |at: usize| {
                let x = ((at as u64 * 77 + bits) % 1009) as f64 / 31.0 - 9.0;
                if narrow { f64::from(x as f32) } else { x }
            };
            let columns = Columns {
                mean: (0..kept.len()).map(number).collect(),
                scale: (0..kept.len()).map(|at| number(at).abs() + 0.25).collect(),
            };
            let weights = Array2::from_shape_fn((kept.len(), classes), |(i, k)| number(i * 7 + k));
            let intercept = (0..classes).map(|k| if k == 2 { f64::NEG_INFINITY } else { number(k) }).collect();
            let head = Head { layers, normalise, kept, columns, weights, intercept };
            SavedHead { head, about: [("λ".to_owned(), "0.1 \"x\"".to_owned())].into() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn heads_come_back_to_the_last_bit(saved in any_head()) {
        let (_directory, path) = place("head.safetensors");
        saved.save(&path).unwrap();
        prop_assert_eq!(&SavedHead::load(&path).unwrap(), &saved);
    }

    #[test]
    fn a_head_says_the_same_of_a_source(saved in any_head()) {
        let x = exact(9, saved.head.layers.features());
        let (found, wanted) = (logits(&saved.head, &x.view()).unwrap(), saved.head.logits(x.view()).unwrap());
        for (a, b) in found.iter().zip(&wanted) {
            prop_assert!(a == b || (a - b).abs() <= 1e-10 * (1.0 + b.abs()), "{} {}", a, b);
        }
    }
}

fn a_head() -> SavedHead {
    let layers = Layers::new([("first", 2), ("last", 2)]).unwrap();
    let head = Head {
        layers,
        normalise: Normalise::Layer,
        kept: vec![1, 2],
        columns: Columns { mean: vec![0.5, 0.1], scale: vec![0.1, 1.0] },
        weights: ndarray::array![[1.0, -1.0], [2.0, 0.0]],
        intercept: vec![0.0, 1.0],
    };
    SavedHead { head, about: [("gap".to_owned(), "1e-6".to_owned())].into() }
}

#[test]
fn a_damaged_head_is_an_error() {
    let (_directory, path) = place("head.safetensors");
    let saved = a_head();
    saved.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        SavedHead::load(&path).unwrap_err();
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= [0x01, 0x04, 0x80][at % 3];
        std::fs::write(&path, &changed).unwrap();
        // The header is padded: a changed space changes nothing.
        let outcome = SavedHead::load(&path);
        assert!(outcome.as_ref().is_err() || outcome.is_ok_and(|loaded| loaded == saved), "byte {at}");
        SavedPath::load(&path).unwrap_err();
    }
    std::fs::write(&path, tensors(&[("a", exact(2, 2).view(), Dtype::F32)], &[])).unwrap();
    assert_eq!(content(SavedHead::load(&path).unwrap_err()).0, "format");
}

#[test]
fn what_is_not_valid_is_not_written() {
    let (_directory, path) = place("head.safetensors");
    let saved = a_head();
    saved.save(&path).unwrap();
    let mut wrong = saved.clone();
    wrong.head.weights[[0, 0]] = f64::NAN;
    assert_eq!(content(wrong.save(&path).unwrap_err()).0, "head");
    assert_eq!(SavedHead::load(&path).unwrap(), saved);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    let error = saved.save(&path.join("below")).unwrap_err();
    assert!(matches!(error, FileError::Io { .. }), "{error}");
}

#[test]
fn paths_come_back_to_the_last_bit() {
    let (_directory, path) = place("path.safetensors");
    let made = made(40, 120, 9);
    let view = made.x.view();
    let specs = [
        GroupLassoSpec { intercept: false, ..GroupLassoSpec::rows(Loss::LeastSquares, 0.0) },
        GroupLassoSpec {
            groups: Groups::Sizes(vec![40, 1, 79]),
            weights: Weights::Given(vec![0.1, 1.0 / 3.0, 2.0]),
            penalty: Penalty::SparseGroup { tau: 0.1 },
            standardise: Standardise { centre: true, scale: true },
            ..GroupLassoSpec::rows(Loss::Multinomial, 0.0)
        },
        GroupLassoSpec { penalty: Penalty::ElasticNet { alpha: 0.3 }, ..GroupLassoSpec::rows(Loss::Multinomial, 0.0) },
    ];
    for spec in specs {
        let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, AMPLE);
        let problem = Streamed { x: &view, targets: made.targets(spec.loss), sample_weights: None };
        let lambdas = geometric_path(solver.lambda_max(&spec, &problem).unwrap(), 0.2, 3);
        let answers = solver.solve_path(&spec, &problem, &lambdas, &Stopping::default(), &mut on).unwrap();
        for (point, lambda) in answers.points.iter().zip(&lambdas) {
            let spec = GroupLassoSpec { lambda: *lambda, ..spec.clone() };
            let judge_data = made.data(spec.loss);
            let judge = Problem::new(&spec, &judge_data).unwrap();
            let found = certificate::certify(&judge, &point.w, &point.b).unwrap();
            assert!(point.stopped == Stopped::Reached && found.relative_gap() <= 1.001e-6, "{found:?}");
        }
        let saved = SavedPath { spec: spec.clone(), features: 120, lambdas: lambdas.clone(), path: answers };
        saved.save(&path).unwrap();
        let loaded = SavedPath::load(&path).unwrap();
        assert_eq!((&loaded.spec, loaded.features, &loaded.lambdas), (&spec, 120, &lambdas));
        assert_eq!(loaded.path.columns, saved.path.columns);
        for (a, b) in loaded.path.points.iter().zip(&saved.path.points) {
            assert_eq!((&a.w, &a.b, a.certificate, a.iterations), (&b.w, &b.b, b.certificate, b.iterations));
            assert_eq!(a.stopped, b.stopped);
        }
        let mut short = saved.clone();
        short.lambdas.pop();
        assert_eq!(content(short.save(&path).unwrap_err()).1, "3 answers, 2 values of λ");
        let one = SavedPath::of_one(&spec, 120, saved.path.solution(2).unwrap());
        one.save(&path).unwrap();
        assert_eq!(SavedPath::load(&path).unwrap().path.points[0].w, saved.path.points[2].w);
    }
}

#[test]
fn folds_side_by_side_choose_as_folds_in_turn() {
    let made = made(45, 60, 11);
    let layers = Layers::new([("a", 20), ("b", 30), ("c", 10)]).unwrap();
    let task = Head2Toe::<f32>::new(Settings::default(), &layers, made.x.view(), &made.labels, 3).unwrap();
    let folds = stratified_folds(&made.labels, 3, 1).unwrap();
    let keep = [1, 3, 10, 40].map(Keep::Features).to_vec();
    let grid = Grid { lambdas: Lambdas::OfMax(vec![0.5, 0.1]), keep, ridge: vec![1.0, 0.01] };
    let mut parts = Vec::new();
    let tried = crossval::head2toe(&task, &CpuGroupLasso, &grid, &folds, &mut |part: &Part| {
        parts.push(*part);
        ControlFlow::Continue(())
    });
    let tried = tried.unwrap().unwrap();
    let (best, lambdas) = task.cross_validate(&CpuGroupLasso, &grid, &folds).unwrap();
    assert_eq!((tried.best, &tried.lambdas), (best, &lambdas));
    assert_eq!(parts.iter().map(|part| part.done).collect::<Vec<_>>(), (1..=3 * 9).collect::<Vec<_>>());
    assert!(parts.iter().all(|part| part.of == 3 * 9 && part.fold < 3));
    for (fold, held) in folds.iter().enumerate() {
        assert_eq!(tried.fold(fold), task.fold(&CpuGroupLasso, &grid, &lambdas, held).unwrap());
    }
    let estimate = tried.accuracy(best.lambda, best.keep, best.ridge);
    let shares: Vec<f64> = (0..3)
        .map(|f| f64::from(tried.right[[f, best.lambda, best.keep, best.ridge]]) / folds[f].len() as f64)
        .collect();
    assert!((estimate.mean - shares.iter().sum::<f64>() / 3.0).abs() < 1e-15);
    let sparse: Choice = tried.one_standard_error();
    assert!(tried.accuracy(sparse.lambda, sparse.keep, sparse.ridge).mean >= estimate.mean - estimate.error);
    assert!(sparse.keep <= best.keep);
    assert!(tried.best_ridge(best.lambda, best.keep).1.mean >= estimate.mean);
    for after in [1, 3, parts.len() - 1] {
        let mut left = after;
        let mut watch = |_: &Part| {
            left -= usize::from(left > 0);
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(crossval::head2toe(&task, &CpuGroupLasso, &grid, &folds, &mut watch).unwrap().is_none());
    }
    let spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    let refused = crossval::path(
        &CpuGroupLasso,
        &spec,
        &made.data(spec.loss),
        &[0.1],
        &[vec![1], vec![45]],
        &Stopping::default(),
        &mut on,
    );
    assert!(refused.unwrap_err().to_string().starts_with("folds[1]: got 1 samples"));
}
