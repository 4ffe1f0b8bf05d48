//! Heads and paths in files, to the last bit, and heads on features that come from files.
//!
//! Files are in the safetensors format. A head's has `kept`, `weights`, `intercept`, `mean` and `scale`; a path's has `mean`,
//! `scale`, `certificates`, `outcomes` and, for each of its points, `P.rows`, `P.weights` and `P.intercept`. Whole numbers take
//! four bytes if all of a tensor fit, and fractions if all are exact in them; else eight. What is no array is JSON in the
//! metadata, and so is a digest of everything. A file is written beside its place and then renamed: a reader sees the old file
//! or the new one.

mod arrays;
mod json;

use crate::grouplasso::source::{FeatureSource, FileError};
use crate::grouplasso::streaming::{PathPoint, StreamedPath};
use arrays::{Reader, Writer};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::path::Path;
use tilewright_grouplasso::{
    Certificate, Columns, GroupLassoError, GroupLassoSpec, Head, Layout, Normalise, Solution, SparseRows, Stopped,
};

const HEAD: &str = "tilewright head 1";
const PATH: &str = "tilewright group-lasso path 1";

/// A head, and what its maker says of it.
///
/// ```
/// use ndarray::array;
/// use tilewright_cpu::grouplasso::head::SavedHead;
/// use tilewright_grouplasso::{Columns, Head, Layers, Normalise};
/// let head = Head {
///     layers: Layers::new([("first", 2), ("last", 2)])?,
///     normalise: Normalise::None,
///     kept: vec![1, 2],
///     columns: Columns { mean: vec![0.5, 0.0], scale: vec![0.1, 1.0] },
///     weights: array![[1.0, -1.0], [2.0, 0.0]],
///     intercept: vec![0.0, f64::NEG_INFINITY],
/// };
/// let about = [("lambda".to_owned(), "0.01".to_owned())].into();
/// let path = tempfile::tempdir()?.keep().join("head.safetensors");
/// SavedHead { head: head.clone(), about }.save(&path)?;
/// let saved = SavedHead::load(&path)?;
/// assert_eq!((saved.head, &saved.about["lambda"][..]), (head, "0.01"));
/// # std::fs::remove_dir_all(path.parent().unwrap())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SavedHead {
    /// The head.
    pub head: Head,
    /// Whatever else: λ, the certified gap, where the features are from.
    pub about: BTreeMap<String, String>,
}

impl SavedHead {
    /// Writes a file, replacing what is there.
    ///
    /// # Errors
    /// [`FileError`]; then what was there is there still. A head that is not valid is not written.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let head = &self.head;
        head.validate().map_err(|error| FileError::content(path, "head", error.to_string()))?;
        let mut writer = Writer::new(HEAD);
        writer.indices("kept", &head.kept);
        writer.numbers("weights", &[head.kept.len(), head.classes()], head.weights.iter().copied());
        writer.numbers("intercept", &[head.classes()], head.intercept.iter().copied());
        writer.numbers("mean", &[head.kept.len()], head.columns.mean.iter().copied());
        writer.numbers("scale", &[head.kept.len()], head.columns.scale.iter().copied());
        writer.json("layers", &json::of_layers(&head.layers));
        writer.json("normalise", &json::of_normalise(head.normalise));
        writer.json("about", &serde_json::json!(self.about));
        writer.save(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`FileError`], naming the field that is missing, damaged or does not fit the others.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let reader = Reader::open(path, HEAD)?;
        let kept = reader.indices("kept")?;
        let intercept = reader.numbers("intercept", &[None])?;
        let weights = reader.numbers("weights", &[Some(kept.len()), Some(intercept.len())])?;
        let weights = reader.matrix("weights", (kept.len(), intercept.len()), weights)?;
        let [mean, scale] = ["mean", "scale"].map(|name| reader.numbers(name, &[Some(kept.len())]));
        let head = Head {
            layers: reader.json("layers", json::layers)?,
            normalise: reader.json("normalise", json::normalise)?,
            kept,
            columns: Columns { mean: mean?, scale: scale? },
            weights,
            intercept,
        };
        head.validate().map_err(|error| FileError::content(path, "head", error.to_string()))?;
        Ok(Self { head, about: reader.json("about", json::texts)? })
    }
}

/// The answers of a path, the problem they are of, and the λ of each.
#[derive(Clone, Debug)]
pub struct SavedPath {
    /// The problem; its `lambda` is not looked at.
    pub spec: GroupLassoSpec,
    /// Features.
    pub features: usize,
    /// One for each answer.
    pub lambdas: Vec<f64>,
    /// The answers.
    pub path: StreamedPath,
}

impl SavedPath {
    /// One answer alone.
    pub fn of_one(spec: &GroupLassoSpec, features: usize, answer: Solution) -> Self {
        let Solution { w, b, certificate, iterations, stopped, columns } = answer;
        let points = vec![PathPoint { w, b, certificate, iterations, stopped }];
        Self { spec: spec.clone(), features, lambdas: vec![spec.lambda], path: StreamedPath { points, columns } }
    }

    /// Whether the parts fit each other; the rows of `W`, and the outputs.
    fn validate(&self) -> Result<(usize, usize), String> {
        let spec_problem = |error: GroupLassoError| error.to_string();
        let layout = Layout::new(&self.spec.groups, self.features).map_err(spec_problem)?;
        for lambda in &self.lambdas {
            GroupLassoSpec { lambda: *lambda, ..self.spec.clone() }.validate(self.features).map_err(spec_problem)?;
        }
        self.path.columns.check(self.features).map_err(spec_problem)?;
        let points = &self.path.points;
        if points.len() != self.lambdas.len() || points.is_empty() {
            return Err(format!("{} answers, {} values of λ", points.len(), self.lambdas.len()));
        }
        let outputs = points[0].b.len();
        for (at, point) in points.iter().enumerate() {
            let shape = (point.w.rows(), point.w.columns(), point.b.len());
            if shape != (layout.rows(), outputs, outputs) || outputs == 0 {
                return Err(format!("answer {at}: of shape {shape:?}, expected {} rows", layout.rows()));
            }
            if let Some(w) = point.w.values().iter().find(|w| !w.is_finite()) {
                return Err(format!("answer {at}: a coefficient of {w}"));
            }
            if let Some(b) = point.b.iter().find(|b| b.is_nan() || **b == f64::INFINITY) {
                return Err(format!("answer {at}: an intercept of {b}"));
            }
        }
        Ok((layout.rows(), outputs))
    }

    /// Writes a file, replacing what is there.
    ///
    /// # Errors
    /// As [`SavedHead::save`].
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        self.validate().map_err(|problem| FileError::content(path, "path", problem))?;
        let mut writer = Writer::new(PATH);
        let (points, columns) = (&self.path.points, &self.path.columns);
        writer.numbers("mean", &[self.features], columns.mean.iter().copied());
        writer.numbers("scale", &[self.features], columns.scale.iter().copied());
        writer.numbers("lambdas", &[points.len()], self.lambdas.iter().copied());
        writer.numbers(
            "certificates",
            &[points.len(), 5],
            points.iter().flat_map(|point| {
                let Certificate { objective, dual, null, kkt, dual_scale, .. } = point.certificate;
                [objective, dual, null, kkt, dual_scale]
            }),
        );
        let outcomes = |point: &PathPoint| [point.certificate.active, point.iterations, of_stopped(point.stopped)];
        writer.indices("outcomes", &points.iter().flat_map(outcomes).collect::<Vec<_>>());
        for (at, PathPoint { w, b, .. }) in points.iter().enumerate() {
            writer.indices(&format!("{at}.rows"), w.indices());
            writer.numbers(&format!("{at}.weights"), &[w.indices().len(), b.len()], w.values().iter().copied());
            writer.numbers(&format!("{at}.intercept"), &[b.len()], b.iter().copied());
        }
        writer.json("spec", &json::of_spec(&self.spec));
        writer.save(path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`SavedHead::load`].
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let reader = Reader::open(path, PATH)?;
        let [mean, scale, lambdas] = ["mean", "scale", "lambdas"].map(|name| reader.numbers(name, &[None]));
        let (columns, lambdas) = (Columns { mean: mean?, scale: scale? }, lambdas?);
        let (features, count) = (columns.mean.len(), lambdas.len());
        let spec = reader.json("spec", json::spec)?;
        let rows = Layout::new(&spec.groups, features).map(|layout| layout.rows());
        let rows = rows.map_err(|error| FileError::content(path, "spec", error.to_string()))?;
        let certificates = reader.numbers("certificates", &[Some(count), Some(5)])?;
        let outcomes = reader.indices("outcomes")?;
        if outcomes.len() != 3 * count {
            return Err(FileError::content(path, "outcomes", format!("{} numbers, expected 3 a λ", outcomes.len())));
        }
        let mut points = Vec::with_capacity(count);
        for (at, (numbers, outcome)) in certificates.chunks_exact(5).zip(outcomes.chunks_exact(3)).enumerate() {
            let (indices, name) = (reader.indices(&format!("{at}.rows"))?, format!("{at}.weights"));
            let b = reader.numbers(&format!("{at}.intercept"), &[None])?;
            let weights = reader.numbers(&name, &[Some(indices.len()), Some(b.len())])?;
            let weights = reader.matrix(&name, (indices.len(), b.len()), weights)?;
            let w = SparseRows::new(rows, indices, weights);
            let w = w.map_err(|error| FileError::content(path, format!("{at}.rows"), error.to_string()))?;
            let stopped = stopped(outcome[2]).ok_or_else(|| {
                FileError::content(path, "outcomes", format!("{} is no reason for stopping", outcome[2]))
            })?;
            let [objective, dual, null, kkt, dual_scale] = [0, 1, 2, 3, 4].map(|field| numbers[field]);
            let certificate = Certificate { objective, dual, null, kkt, active: outcome[0], dual_scale };
            points.push(PathPoint { w, b, certificate, iterations: outcome[1], stopped });
        }
        let saved = Self { spec, features, lambdas, path: StreamedPath { points, columns } };
        saved.validate().map_err(|problem| FileError::content(path, "path", problem))?;
        Ok(saved)
    }
}

const STOPPED: [Stopped; 4] = [Stopped::Reached, Stopped::Stalled, Stopped::Iterations, Stopped::Interrupted];

fn of_stopped(stopped: Stopped) -> usize {
    STOPPED.iter().position(|other| *other == stopped).unwrap_or(STOPPED.len())
}

fn stopped(number: usize) -> Option<Stopped> {
    STOPPED.get(number).copied()
}

/// [`Head::logits`] of features that come from a source: only the kept ones are held in memory, and only if the head normalises
/// whole layers are others read. (Lengths of layers are then sums in another order, the same but for roundings.)
///
/// # Errors
/// As [`Head::logits`], and as the source.
pub fn logits(head: &Head, source: &dyn FeatureSource) -> Result<Array2<f64>, GroupLassoError> {
    head.validate()?;
    let (samples, layers) = (source.samples(), &head.layers);
    if source.features() != layers.features() {
        return Err(GroupLassoError::Shape {
            argument: "x",
            got: format!("{samples} × {}", source.features()),
            expected: format!("n × {}, the features of {} layers", layers.features(), layers.len()),
        });
    }
    let mut columns = vec![0.0; head.kept.len() * samples];
    source.gather(&head.kept, &mut columns)?;
    let mut normalise = head.normalise;
    if normalise == Normalise::Layer {
        divide_by_lengths(head, source, &mut columns)?;
        normalise = Normalise::None;
    }
    // What is left is a head whose layers have nothing but the kept features.
    let rest = Head {
        layers: layers.only(&head.kept),
        normalise,
        kept: (0..head.kept.len()).collect(),
        columns: head.columns.clone(),
        weights: head.weights.clone(),
        intercept: head.intercept.clone(),
    };
    let x = Array2::from_shape_vec((head.kept.len(), samples), columns);
    let x = x.map_err(|error| GroupLassoError::Source { problem: error.to_string() })?;
    rest.logits(x.t())
}

/// Divides each sample's kept features by the length of its layer.
fn divide_by_lengths(head: &Head, source: &dyn FeatureSource, columns: &mut [f64]) -> Result<(), GroupLassoError> {
    let (samples, together, only) = (source.samples(), source.together(), head.layers.only(&head.kept));
    let mut block = Vec::new();
    for layer in (0..head.layers.len()).filter(|layer| only.width(*layer) > 0) {
        let range = head.layers.range(layer);
        let mut squares = vec![0.0; samples];
        for first in range.clone().step_by(together) {
            let features = first..range.end.min(first + together);
            block.resize(features.len() * samples, 0.0);
            source.read(features, &mut block)?;
            for column in block.chunks_exact(samples) {
                squares.iter_mut().zip(column).for_each(|(sum, x)| *sum += x * x);
            }
        }
        let kept = only.range(layer);
        for column in columns[kept.start * samples..kept.end * samples].chunks_exact_mut(samples) {
            for (x, square) in column.iter_mut().zip(&squares) {
                *x = if *square > 0.0 { *x / square.sqrt() } else { 0.0 };
            }
        }
    }
    Ok(())
}
