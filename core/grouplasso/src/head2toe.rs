//! Head2Toe from features to a head (Evci et al. 2022, §3): score all features of all layers, keep the best, train a linear
//! head on those.
//!
//! What the paper's code does, and what is done here:
//!
//! | step | the paper's code | here |
//! |---|---|---|
//! | pool each layer to a target size | as in [`pooling`](crate::pooling) | the same |
//! | normalise each layer | each sample to unit length | the same, or not at all, or per feature: [`Normalise`] |
//! | standardise each feature | – | on request: [`Settings::standardise`]; without it narrow layers, whose features are larger, are preferred |
//! | score | softmax loss with `λ Σ ‖Wᵢ‖` as a loss term, by Adam for a fixed number of steps; it ends above the minimum and no row is ever zero | the same objective, *minimised*: exact zeros, a certified gap |
//! | rank | by `‖Wᵢ‖` | the same; features that are zero come after all others, in the order in which they are nearest to entering: by `‖xᵢᵀω̂R‖/λ − 1` |
//! | keep | the top `⌊F d⌋` of all layers together | the same, or a number: [`Keep`] |
//! | second head | the kept features normalised again; no penalty, but Adam is stopped after a fixed number of steps | normalised again, or left as they were; a ridge penalty, minimised: [`ridge`]. A small one in place of an early end |
//! | choose λ, `F`, `T` (and learning rate, steps) | 5 folds | [`Grid`](crate::grid::Grid), any number of stratified folds; ridge strengths in place of learning rates and steps |

use crate::features::{Layers, Normalise};
use crate::grid::Lambdas;
use crate::ranking::{Ranking, ranking};
use crate::select::{Keep, top};
use crate::{
    Certificate, Data, GroupLassoError, GroupLassoSolver, GroupLassoSpec, Head, Loss, Problem, Progress, Standardise,
    Stopping, Targets, ridge, sampling,
};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use ndarray::{Array2, ArrayView2, Axis};
use tilewright_scalar::Element;

/// What is not chosen by cross-validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// How layers are normalised. Scores see all features, so `Kept` and `Layer` differ in the second head only.
    pub normalise: Normalise,
    /// What is then done to each feature, by its training samples.
    pub standardise: Standardise,
    /// When a scoring problem is solved.
    pub selection: Stopping,
    /// When a head is trained.
    pub head: Stopping,
}

impl Default for Settings {
    /// Unit length by layer, mean 0 and variance 1 by feature; gaps of `10⁻⁴` to select by, and of `10⁻⁴` for heads.
    fn default() -> Self {
        let stopping = Stopping { gap: 1e-4, ..Stopping::default() };
        Self {
            normalise: Normalise::Layer,
            standardise: Standardise { centre: true, scale: true },
            selection: stopping,
            head: stopping,
        }
    }
}

/// A head, and how near to its minimum it is.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The head.
    pub head: Head,
    /// Of its ridge problem.
    pub certificate: Certificate,
    /// Iterations, as the solver counts them.
    pub iterations: usize,
}

/// Features of all layers and labels, made ready for scoring and for heads: `U` is what the solver scores in.
///
/// ```
/// use ndarray::Array2;
/// use tilewright_grouplasso::features::Layers;
/// use tilewright_grouplasso::grid::{Grid, Lambdas};
/// use tilewright_grouplasso::head2toe::{Head2Toe, Settings};
/// use tilewright_grouplasso::reference::Reference;
/// use tilewright_grouplasso::{Keep, sampling};
/// // Two layers; only feature 5, in the first of them, knows the class.
/// let labels: Vec<u32> = (0..24).map(|i| i % 2).collect();
/// let noise = |i: usize, j: usize| ((i * 71 + j * 37 + i * j * 13) % 29) as f32 / 29.0;
/// let x = Array2::from_shape_fn((24, 12), |(i, j)| if j == 5 { labels[i] as f32 * 3.0 } else { noise(i, j) });
/// let layers = Layers::new([("early", 6), ("last", 6)])?;
/// let task = Head2Toe::<f64>::new(Settings::default(), &layers, x.view(), &labels, 2)?;
///
/// let folds = sampling::stratified_folds(&labels, 3, 0)?;
/// let keep = vec![Keep::Features(1), Keep::Features(4)];
/// let grid = Grid { lambdas: Lambdas::OfMax(vec![0.3]), keep, ridge: vec![0.1] };
/// let (choice, lambdas) = task.cross_validate(&Reference, &grid, &folds)?;
/// assert_eq!((grid.keep[choice.keep], choice.right), (Keep::Features(1), 24));
///
/// let ranking = &task.rank(&Reference, &lambdas, &[], &mut |_| std::ops::ControlFlow::Continue(()))?[0];
/// let kept = task.top(ranking, Keep::Features(1))?;
/// let head = task.train(&Reference, &kept, 0.1)?.head;
/// assert_eq!((head.kept.clone(), head.accuracy(x.view(), &labels)?), (vec![5], 1.0));
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Head2Toe<'a, U> {
    pub(crate) settings: Settings,
    layers: &'a Layers,
    /// Normalised sample by sample.
    x: Array2<U>,
    pub(crate) labels: &'a [u32],
    pub(crate) classes: usize,
}

impl<'a, U: Element> Head2Toe<'a, U> {
    /// Checks and normalises `x`, whose columns are the features of `layers`.
    ///
    /// # Errors
    /// [`GroupLassoError`], naming what does not fit.
    pub fn new<T: Element>(
        settings: Settings,
        layers: &'a Layers,
        x: ArrayView2<'_, T>,
        labels: &'a [u32],
        classes: usize,
    ) -> Result<Self, GroupLassoError> {
        settings.selection.validate()?;
        settings.head.validate()?;
        let all: Vec<usize> = (0..layers.features()).collect();
        let x = settings.normalise.apply(x, layers, &all)?;
        crate::Response::new(Loss::Multinomial, x.nrows(), Targets::Labels { labels, classes }, None)?;
        Ok(Self { settings, layers, x, labels, classes })
    }

    /// The features' layers.
    pub fn layers(&self) -> &'a Layers {
        self.layers
    }

    /// Labels of the samples.
    pub fn labels(&self) -> &'a [u32] {
        self.labels
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples and features.
    pub fn dim(&self) -> (usize, usize) {
        self.x.dim()
    }

    /// The scoring problem at λ.
    pub fn spec(&self, lambda: f64) -> GroupLassoSpec {
        // Deviations with an ε in them are not the specification's to compute: see `with_scores`.
        let per_feature = self.settings.normalise == Normalise::PerFeature;
        let standardise = if per_feature { Standardise::default() } else { self.settings.standardise };
        GroupLassoSpec { standardise, ..GroupLassoSpec::rows(Loss::Multinomial, lambda) }
    }

    /// The values of a grid's λ, from all samples.
    ///
    /// # Errors
    /// [`GroupLassoError`], as [`Problem::new`].
    pub fn lambdas(&self, of: &Lambdas) -> Result<Vec<f64>, GroupLassoError> {
        match of {
            Lambdas::Values(values) => Ok(values.clone()),
            Lambdas::OfMax(shares) => {
                let most = self.with_scores(&[], |x, weights| {
                    Problem::new(&self.spec(1.0), &self.data(x, weights))?.lambda_max()
                })?;
                Ok(shares.iter().map(|share| share * most).collect())
            }
        }
    }

    /// Scores all features at each λ in turn, without the samples `held`; fewer rankings if `watch` ends the work.
    ///
    /// # Errors
    /// [`GroupLassoError`], as the solver.
    pub fn rank<S: GroupLassoSolver<U>>(
        &self,
        solver: &S,
        lambdas: &[f64],
        held: &[usize],
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Ranking>, GroupLassoError> {
        self.with_scores(held, |x, weights| {
            let data = self.data(x, weights);
            let path = solver.solve_path(&self.spec(1.0), &data, lambdas, &self.settings.selection, watch)?;
            let problem = Problem::new(&self.spec(1.0), &data)?;
            let pairs = path.iter().zip(lambdas);
            Ok(pairs.map(|(answer, lambda)| ranking(&problem, answer, *lambda)).collect())
        })
    }

    /// The features a ranking keeps, ascending.
    ///
    /// # Errors
    /// As [`top`].
    pub fn top(&self, ranking: &Ranking, keep: Keep) -> Result<Vec<usize>, GroupLassoError> {
        top(&ranking.scores, keep)
    }

    /// A head on some features, ascending, of all samples.
    ///
    /// # Errors
    /// [`GroupLassoError`], as the solver.
    pub fn train<S: GroupLassoSolver<f64>>(
        &self,
        solver: &S,
        kept: &[usize],
        ridge: f64,
    ) -> Result<Trained, GroupLassoError> {
        let x = self.kept(kept)?;
        let columns = self.settings.normalise.columns(self.settings.standardise, x.view());
        let x: Array2<f64> = columns.apply(x.view())?;
        let stopping = &self.settings.head;
        let trained = ridge::classifiers(solver, x.view(), self.labels, self.classes, &[ridge], stopping)?.pop();
        let Some(ridge::Classifier { weights, intercept, certificate, iterations }) = trained else {
            return Err(GroupLassoError::Unsupported { what: "a path of one λ" });
        };
        let (layers, normalise) = (self.layers.clone(), self.settings.normalise);
        let head = Head { layers, normalise, kept: kept.to_vec(), columns, weights, intercept };
        Ok(Trained { head, certificate, iterations })
    }

    /// The features of a layer.
    pub fn layer(&self, layer: usize) -> Vec<usize> {
        self.layers.range(layer).collect()
    }

    /// Those of the last one: linear probing's.
    pub fn last(&self) -> Vec<usize> {
        self.layer(self.layers.len() - 1)
    }

    /// Some features, as a head sees them before it standardises them.
    pub(crate) fn kept(&self, kept: &[usize]) -> Result<Array2<f64>, GroupLassoError> {
        // Whole layers have been normalised already.
        let again = if self.settings.normalise == Normalise::Kept { Normalise::Kept } else { Normalise::None };
        again.apply(self.x.view(), self.layers, kept)
    }

    fn data<'d>(&'d self, x: ArrayView2<'d, U>, weights: Option<&'d [f64]>) -> Data<'d, U> {
        let targets = Targets::Labels { labels: self.labels, classes: self.classes };
        Data { x, targets, sample_weights: weights }
    }

    /// Features as they are scored, and sample weights that are 0 for `held`.
    fn with_scores<R>(
        &self,
        held: &[usize],
        then: impl FnOnce(ArrayView2<'_, U>, Option<&[f64]>) -> Result<R, GroupLassoError>,
    ) -> Result<R, GroupLassoError> {
        self.check_held(held)?;
        let mut weights = vec![1.0; self.labels.len()];
        for &sample in held {
            weights[sample] = 0.0;
        }
        let weights = (!held.is_empty()).then_some(&weights[..]);
        if self.settings.normalise != Normalise::PerFeature {
            return then(self.x.view(), weights);
        }
        let train = self.x.select(Axis(0), &sampling::others(self.labels.len(), held));
        let columns = self.settings.normalise.columns(self.settings.standardise, train.view());
        then(columns.apply::<U, U>(self.x.view())?.view(), weights)
    }

    pub(crate) fn check_held(&self, held: &[usize]) -> Result<(), GroupLassoError> {
        let samples = self.labels.len();
        if sampling::others(samples, held).is_empty() || held.iter().any(|&sample| sample >= samples) {
            return Err(GroupLassoError::Value {
                argument: "held",
                at: "..".into(),
                got: alloc::format!("{} samples", held.len()),
                expected: "some of the samples, but not all",
            });
        }
        Ok(())
    }
}
