//! Features of many layers side by side, and what Head2Toe does to them before it looks at any
//! (Evci et al. 2022, §3: each layer's embedding normalised, then concatenated).

use crate::data::{check_features, in_range};
use crate::penalty::norm;
use crate::{Columns, GroupLassoError, Standardise};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use ndarray::{Array2, ArrayView2, Axis, ShapeBuilder};
use tilewright_scalar::Element;

/// What is added to a variance before the root is taken, in [`Normalise::PerFeature`].
pub const EPSILON: f64 = 1e-5;

/// The layers whose features stand side by side, in order: which features are whose.
///
/// ```
/// use tilewright_grouplasso::features::Layers;
/// let layers = Layers::new([("stem", 3), ("block", 5)])?;
/// assert_eq!((layers.len(), layers.features()), (2, 8));
/// assert_eq!(layers.place(4), (1, 1)); // the second feature of `block`
/// assert_eq!(layers.range(1), 3..8);
/// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    names: Vec<String>,
    /// Where each begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Layers {
    /// Layers of these names and widths.
    ///
    /// # Errors
    /// [`GroupLassoError::Spec`] for a name that occurs twice, or no features at all.
    pub fn new<N: Into<String>>(layers: impl IntoIterator<Item = (N, usize)>) -> Result<Self, GroupLassoError> {
        let (mut names, mut starts, mut end) = (Vec::<String>::new(), alloc::vec![0], 0usize);
        for (name, width) in layers {
            let name = name.into();
            if names.contains(&name) {
                return Err(crate::spec::spec("layers", format!("{name} twice"), "names that differ"));
            }
            end = end
                .checked_add(width)
                .ok_or_else(|| crate::spec::spec("layers", format!("{width} features of {name}"), "fewer"))?;
            names.push(name);
            starts.push(end);
        }
        if end == 0 {
            return Err(crate::spec::spec("layers", "no features".into(), "at least 1"));
        }
        Ok(Self { names, starts })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: there is at least one feature.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Features of all of them, `d`.
    pub fn features(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// A layer's name.
    pub fn name(&self, layer: usize) -> &str {
        &self.names[layer]
    }

    /// A layer's features.
    pub fn range(&self, layer: usize) -> Range<usize> {
        self.starts[layer]..self.starts[layer + 1]
    }

    /// A layer's number of features.
    pub fn width(&self, layer: usize) -> usize {
        self.range(layer).len()
    }

    /// The layer of a feature, and its place there.
    pub fn place(&self, feature: usize) -> (usize, usize) {
        // The last layer that begins here or before: one without features begins where the next does.
        let layer = self.starts.partition_point(|&start| start <= feature) - 1;
        (layer, feature - self.starts[layer])
    }

    /// How many of some features, ascending, each layer has.
    pub fn count(&self, features: &[usize]) -> Vec<usize> {
        let bounds: Vec<usize> = self.starts.iter().map(|start| features.partition_point(|f| f < start)).collect();
        bounds.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The same layers with nothing but these features, ascending.
    pub fn only(&self, features: &[usize]) -> Self {
        let starts = self.starts.iter().map(|start| features.partition_point(|f| f < start)).collect();
        Self { names: self.names.clone(), starts }
    }

    /// Whether features are ascending, and there are so many.
    ///
    /// # Errors
    /// [`GroupLassoError::Value`], naming the first that is not.
    pub fn check(&self, features: &[usize]) -> Result<(), GroupLassoError> {
        let wrong = |at: &usize| features[*at] >= self.features() || (*at > 0 && features[at - 1] >= features[*at]);
        match (0..features.len()).find(wrong) {
            Some(at) => Err(GroupLassoError::Value {
                argument: "kept",
                at: at.to_string(),
                got: features[at].to_string(),
                expected: "features of these layers, ascending",
            }),
            None => Ok(()),
        }
    }

    /// Whether `x` has as many columns as there are features, all of them numbers that can be worked with.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] or [`GroupLassoError::Value`].
    pub fn check_matrix<T: Element>(&self, x: ArrayView2<'_, T>) -> Result<(), GroupLassoError> {
        if x.ncols() == self.features() {
            return check_features(x);
        }
        Err(GroupLassoError::Shape {
            argument: "x",
            got: format!("{} × {}", x.nrows(), x.ncols()),
            expected: format!("n × {}, the features of {} layers", self.features(), self.len()),
        })
    }
}

/// How the features of a layer are made comparable to those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Normalise {
    /// Not at all.
    None,
    /// Each sample's features of a layer have length 1 together: those *kept* of it, as the paper's code does, so that the
    /// length is another one after selection. Zeros stay zeros.
    #[default]
    Kept,
    /// The same with the length of the whole layer, kept or not, so that selection changes no feature.
    Layer,
    /// Each feature has mean 0 and variance 1 among the training samples; [`EPSILON`] is added to the variance.
    PerFeature,
}

impl Normalise {
    /// The features `kept` (ascending) of `x`, normalised sample by sample, each column contiguous. [`PerFeature`](Self::PerFeature)
    /// is [`columns`](Self::columns)' to do.
    ///
    /// ```
    /// use ndarray::array;
    /// use tilewright_grouplasso::features::{Layers, Normalise};
    /// let (x, layers) = (array![[3.0, 4.0, 7.0]], Layers::new([("a", 2), ("b", 1)])?);
    /// assert_eq!(Normalise::Layer.apply::<_, f64>(x.view(), &layers, &[1, 2])?, array![[0.8, 1.0]]);
    /// assert_eq!(Normalise::Kept.apply::<_, f64>(x.view(), &layers, &[1, 2])?, array![[1.0, 1.0]]);
    /// # Ok::<(), tilewright_grouplasso::GroupLassoError>(())
    /// ```
    ///
    /// # Errors
    /// [`GroupLassoError`] if `x` or `kept` do not belong to these layers, or `x` is not finite.
    pub fn apply<T: Element, U: Element>(
        self,
        x: ArrayView2<'_, T>,
        layers: &Layers,
        kept: &[usize],
    ) -> Result<Array2<U>, GroupLassoError> {
        layers.check_matrix(x)?;
        layers.check(kept)?;
        let selected = layers.only(kept);
        let mut out = Array2::from_elem((x.nrows(), kept.len()).f(), U::from_f64(0.0));
        for layer in 0..layers.len() {
            let columns = &kept[selected.range(layer)];
            if columns.is_empty() {
                continue;
            }
            let whole: Vec<usize> = layers.range(layer).collect();
            for (i, row) in x.axis_iter(Axis(0)).enumerate() {
                let length = match self {
                    Self::None | Self::PerFeature => 1.0,
                    Self::Kept => length(columns.iter().map(|&j| row[j])),
                    Self::Layer => length(whole.iter().map(|&j| row[j])),
                };
                for (to, &from) in selected.range(layer).zip(columns) {
                    out[[i, to]] = U::from_f64(if length > 0.0 { row[from].to_f64() / length } else { 0.0 });
                }
            }
        }
        Ok(out)
    }

    /// What is then done to each column: `standardise`, or mean 0 and variance 1 with [`EPSILON`].
    pub fn columns<T: Element>(self, standardise: Standardise, x: ArrayView2<'_, T>) -> Columns {
        let omega = alloc::vec![1.0 / x.nrows().max(1) as f64; x.nrows()];
        if self != Self::PerFeature {
            return Columns::of(standardise, x, &omega);
        }
        let of_one = |column: ndarray::ArrayView1<'_, T>| {
            let mean: f64 = column.iter().zip(&omega).map(|(x, w)| w * x.to_f64()).sum();
            let away = |x: &T| (x.to_f64() - mean) * (x.to_f64() - mean);
            let variance: f64 = column.iter().zip(&omega).map(|(x, w)| w * away(x)).sum();
            (mean, libm::sqrt(variance + EPSILON))
        };
        let (mean, scale) = x.columns().into_iter().map(of_one).unzip();
        Columns { mean, scale }
    }
}

fn length<T: Element>(values: impl Iterator<Item = T>) -> f64 {
    norm(&values.map(|x| x.to_f64()).collect::<Vec<_>>())
}

impl Columns {
    /// Columns `x`, less their means, over their scales.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] if there are more or fewer.
    pub fn apply<T: Element, U: Element>(&self, x: ArrayView2<'_, T>) -> Result<Array2<U>, GroupLassoError> {
        self.check(x.ncols())?;
        let of = |(i, j)| {
            let (x, mean, scale): (&T, f64, f64) = (&x[[i, j]], self.mean[j], self.scale[j]);
            U::from_f64((x.to_f64() - mean) / scale)
        };
        Ok(Array2::from_shape_fn(x.raw_dim().f(), of))
    }

    /// Whether these are the means and scales of so many columns, and can be computed with.
    ///
    /// # Errors
    /// [`GroupLassoError::Shape`] or [`GroupLassoError::Value`].
    pub fn check(&self, columns: usize) -> Result<(), GroupLassoError> {
        if (self.mean.len(), self.scale.len()) != (columns, columns) {
            return Err(GroupLassoError::Shape {
                argument: "columns",
                got: format!("{} means, {} scales", self.mean.len(), self.scale.len()),
                expected: format!("{columns} of both"),
            });
        }
        let wrong = |&at: &usize| !(in_range(self.mean[at]) && in_range(self.scale[at]) && self.scale[at] > 0.0);
        match (0..columns).find(wrong) {
            Some(at) => Err(GroupLassoError::Value {
                argument: "columns",
                at: at.to_string(),
                got: format!("mean {}, scale {}", self.mean[at], self.scale[at]),
                expected: "finite numbers, the scale more than 0",
            }),
            None => Ok(()),
        }
    }
}
