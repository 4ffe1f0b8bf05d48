//! The same problem, said in another way, and the way back from its answers.

use crate::grouplasso::generate::Source;
use crate::grouplasso::subject::{Instance, Target};
use ndarray::{Array2, Axis, concatenate};
use tilewright_grouplasso::{Groups, Layout, SparseRows, Standardise, Start, Weights};
use tilewright_scalar::Format;

/// A problem that has the same solutions as another, once they are brought back.
pub(crate) struct Warped<'a> {
    pub(crate) instance: Instance,
    pub(crate) back: Box<dyn Fn(&Start) -> Start + 'a>,
}

fn order(len: usize, seed: u32, purpose: u32) -> Vec<usize> {
    let source = Source::new(seed, 200 + purpose);
    let mut order: Vec<usize> = (0..len).collect();
    (1..len).rev().for_each(|i| order.swap(i, source.below(i, i + 1)));
    order
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, from)| inverse[*from] = to);
    inverse
}

/// Samples, features and outputs in another order; features only if groups can follow them.
pub(crate) fn permuted(instance: &Instance, lists: bool, seed: u32) -> Warped<'static> {
    let mut other = instance.clone();
    let samples = order(instance.x.nrows(), seed, 0);
    let outputs = order(instance.target.outputs(), seed, 1);
    let mut features = order(instance.x.ncols(), seed, 2);
    let place = inverse(&features);
    let moved = |list: &Vec<usize>| list.iter().map(|feature| place[*feature]).collect::<Vec<_>>();
    let mut follows_features = true;
    match (&instance.spec.groups, &mut other.spec.weights) {
        (Groups::Rows, weights) => {
            if let Weights::Given(weights) = weights {
                let old = weights.clone();
                weights.iter_mut().zip(&features).for_each(|(weight, from)| *weight = old[*from]);
            }
        }
        (Groups::Sizes(sizes), _) if lists => {
            let mut start = 0;
            let list = |size: &usize| {
                start += size;
                moved(&(start - size..start).collect())
            };
            other.spec.groups = Groups::Lists(sizes.iter().map(list).collect());
        }
        (Groups::Sizes(_), _) => features = (0..instance.x.ncols()).collect(),
        (Groups::Lists(lists), _) => other.spec.groups = Groups::Lists(lists.iter().map(moved).collect()),
        (Groups::Overlapping(lists), _) => {
            other.spec.groups = Groups::Overlapping(lists.iter().map(moved).collect());
            // Rows are copies, in the groups' order, which has not changed.
            follows_features = false;
        }
    }
    other.x = instance.x.select(Axis(0), &samples).select(Axis(1), &features);
    other.sample_weights =
        instance.sample_weights.as_ref().map(|weights| samples.iter().map(|i| weights[*i]).collect());
    let class = inverse(&outputs);
    other.target = match &instance.target {
        Target::Values(y) => Target::Values(y.select(Axis(0), &samples).select(Axis(1), &outputs)),
        Target::Labels { labels, classes } => {
            let labels = samples.iter().map(|i| class[labels[*i] as usize] as u32).collect();
            Target::Labels { labels, classes: *classes }
        }
    };
    let rows = if follows_features { Some(inverse(&features)) } else { None };
    let back = move |start: &Start| {
        let mut w = start.w.to_dense().select(Axis(1), &class);
        if let Some(rows) = &rows {
            w = w.select(Axis(0), rows);
        }
        Start { w: SparseRows::from_dense(w.view()), b: class.iter().map(|k| start.b[*k]).collect() }
    };
    Warped { instance: other, back: Box::new(back) }
}

/// Features in other units, and λ with them; if columns are scaled, λ stays, and so do the columns that the specification does
/// not divide, since nothing would undo their change of units. `None` if the format has no room for them.
pub(crate) fn scaled(instance: &Instance) -> Option<Warped<'static>> {
    let format = instance.format;
    let exact = |unit: f64| {
        let x = instance.x.mapv(|x| format.round(x * unit));
        let right = x.iter().zip(&instance.x).all(|(scaled, x)| scaled.is_finite() && scaled / unit == *x);
        right.then_some((x, unit))
    };
    let (x, unit) = exact(8.0).or_else(|| exact(0.125))?;
    let mut other = Instance { x, ..instance.clone() };
    let same = instance.spec.standardise.scale;
    if same {
        let (before, after) =
            (instance.problem().ok()?.columns().scale.clone(), other.problem().ok()?.columns().scale.clone());
        for (j, (before, after)) in before.iter().zip(after).enumerate() {
            if after != unit * before {
                other.x.column_mut(j).assign(&instance.x.column(j));
            }
        }
    } else {
        other.spec.lambda *= unit;
    }
    let back = move |start: &Start| {
        let w = start.w.to_dense() * if same { 1.0 } else { unit };
        Start { w: SparseRows::from_dense(w.view()), b: start.b.clone() }
    };
    Some(Warped { instance: other, back: Box::new(back) })
}

/// The first half of the samples twice; and the same problem by weights.
pub(crate) fn doubled(instance: &Instance) -> (Instance, Warped<'static>) {
    let n = instance.x.nrows();
    let twice: Vec<usize> = (0..n).chain(0..n.div_ceil(2)).collect();
    let mut other = instance.clone();
    other.x = instance.x.select(Axis(0), &twice);
    other.sample_weights = instance.sample_weights.as_ref().map(|list| twice.iter().map(|i| list[*i]).collect());
    other.target = match &instance.target {
        Target::Values(y) => Target::Values(y.select(Axis(0), &twice)),
        Target::Labels { labels, classes } => {
            Target::Labels { labels: twice.iter().map(|i| labels[*i]).collect(), classes: *classes }
        }
    };
    let one = instance.sample_weights.clone().unwrap_or_else(|| vec![1.0; n]);
    let weight = |(i, w): (usize, f64)| if i < n.div_ceil(2) { 2.0 * w } else { w };
    let sample_weights = Some(one.into_iter().enumerate().map(weight).collect());
    let weighted = Instance { sample_weights, ..instance.clone() };
    (weighted, Warped { instance: other, back: Box::new(Start::clone) })
}

/// Samples of weight 0 among the others, unlike all of them.
pub(crate) fn haunted(instance: &Instance, seed: u32) -> Warped<'static> {
    let (n, d) = instance.x.dim();
    let ghosts = n.div_ceil(4).max(2);
    let source = Source::new(seed, 210);
    let like = |i: usize, j: usize| instance.x[[source.below(i, n), j]];
    // Within the format, and no column's greatest by far.
    let far = |x: f64| instance.format.round(if instance.format == Format::F64 { -3.0 * x } else { -x });
    let x = Array2::from_shape_fn((ghosts, d), |(i, j)| far(like(i, j)));
    let mut other = instance.clone();
    other.x = concatenate(Axis(0), &[x.view(), instance.x.view()]).unwrap_or_else(|_| instance.x.clone());
    let weights = instance.sample_weights.clone().unwrap_or_else(|| vec![1.0; n]);
    other.sample_weights = Some(std::iter::repeat_n(0.0, ghosts).chain(weights).collect());
    other.target = match &instance.target {
        Target::Values(y) => {
            let unlike = Array2::from_shape_fn((ghosts, y.ncols()), |(i, k)| -5.0 * y[[i % n, k]] - 1.0);
            Target::Values(concatenate(Axis(0), &[unlike.view(), y.view()]).unwrap_or_else(|_| y.clone()))
        }
        Target::Labels { labels, classes } => {
            let unlike = (0..ghosts).map(|i| (i % classes) as u32);
            Target::Labels { labels: unlike.chain(labels.iter().copied()).collect(), classes: *classes }
        }
    };
    Warped { instance: other, back: Box::new(Start::clone) }
}

/// Columns centred where they were not, or the reverse.
pub(crate) fn recentred<'a>(instance: &Instance, mean: &'a [f64], scale: &'a [f64], layout: &'a Layout) -> Warped<'a> {
    let Standardise { centre, .. } = instance.spec.standardise;
    let mut other = instance.clone();
    other.spec.standardise.centre = !centre;
    let sign = if centre { 1.0 } else { -1.0 };
    let back = move |start: &Start| {
        let mut b = start.b.clone();
        for (row, w) in start.w.indices().iter().zip(start.w.values().rows()) {
            let feature = layout.feature(*row);
            b.iter_mut().zip(w).for_each(|(b, w)| *b += sign * mean[feature] / scale[feature] * w);
        }
        Start { w: start.w.clone(), b }
    };
    Warped { instance: other, back: Box::new(back) }
}
