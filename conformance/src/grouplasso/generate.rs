//! From a case to its inputs.
//!
//! Every value is a function of the seed and the place, computed by integer arithmetic, exact scalings and, for targets,
//! sums in a fixed order: no platform changes a bit.

use crate::grouplasso::case::{
    Design, Grouping, Lambda, ProxCase, Sampling, SelectCase, SolveCase, Structure, Values, Weighting,
};
use crate::grouplasso::subject::{Instance, Target};
use ndarray::Array2;
use tilewright_grouplasso::{
    GroupLassoSpec, Groups, Layout, Loss, Penalty, Problem, SparseRows, Standardise, Start, Weights, geometric_path,
};
use tilewright_scalar::format::power_of_two;
use tilewright_scalar::{Format, philox4x32_10};

/// Random words: a function of the seed, of what they are for, and of two numbers.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    seed: u32,
    purpose: u32,
}

impl Source {
    pub(crate) fn new(seed: u32, purpose: u32) -> Self {
        Self { seed, purpose }
    }

    pub(crate) fn words(self, i: usize, j: usize) -> [u32; 4] {
        philox4x32_10([i as u32, j as u32, self.purpose, 3], [self.seed, 0x6c61_7373])
    }

    pub(crate) fn below(self, i: usize, bound: usize) -> usize {
        self.words(i, 0)[0] as usize % bound.max(1)
    }

    /// Roughly standard normal: the sum of four uniforms.
    fn normal(self, i: usize, j: usize) -> f64 {
        normal(self.words(i, j))
    }
}

fn normal([a, b, ..]: [u32; 4]) -> f64 {
    let halves = |word: u32| f64::from(word >> 16) + f64::from(word & 0xffff);
    (halves(a) + halves(b) - 131_070.0) * power_of_two(-15)
}

/// Roughly normal times a power of two with a binomial exponent.
fn heavy(words: [u32; 4]) -> f64 {
    normal(words) * power_of_two((words[2] & 0xff).count_ones() as i32 - 4)
}

const GROUPS: u32 = 0;
const WEIGHTS: u32 = 1;
const VALUES: u32 = 2;
const X: u32 = 3;
const FACTORS: u32 = 4;
const TRUTH: u32 = 5;
const NOISE: u32 = 6;
const SAMPLES: u32 = 7;
const FAR: u32 = 8;

/// The groups of so many features.
pub fn groups(grouping: Grouping, features: usize, seed: u32) -> Groups {
    let source = Source::new(seed, GROUPS);
    let chunks = |size: usize| {
        let full = std::iter::repeat_n(size, features / size);
        full.chain(Some(features % size).filter(|rest| *rest > 0)).collect()
    };
    match grouping {
        Grouping::Rows => Groups::Rows,
        Grouping::One => Groups::Sizes(vec![features]),
        Grouping::Equal(size) => Groups::Sizes(chunks(size.max(1))),
        Grouping::Ragged => {
            let (mut sizes, mut covered) = (Vec::new(), 0);
            while covered < features {
                let size = (1 + source.below(sizes.len(), 7)).min(features - covered);
                sizes.push(size);
                covered += size;
            }
            Groups::Sizes(sizes)
        }
        Grouping::Lists(count) => {
            let count = count.clamp(1, features.max(1));
            let mut lists = vec![Vec::new(); count];
            // From the last to the first, so that nobody's features ascend.
            for feature in (0..features).rev() {
                let group = if feature < count { feature } else { source.below(feature, count) };
                lists[group].push(feature);
            }
            Groups::Lists(lists)
        }
        Grouping::Overlap(size) => {
            let (mut lists, mut start) = (Vec::new(), 0);
            loop {
                let end = (start + size).min(features);
                lists.push((start..end).collect());
                if end == features {
                    return Groups::Overlapping(lists);
                }
                start += (size / 2).max(1);
            }
        }
    }
}

fn weights(weighting: Weighting, groups: usize, seed: u32) -> Weights {
    let source = Source::new(seed, WEIGHTS);
    let drawn = |group: usize| (2 + source.below(group, 16)) as f64 / 8.0;
    match weighting {
        Weighting::SqrtSize => Weights::SqrtSize,
        Weighting::Ones => Weights::Ones,
        Weighting::Drawn => Weights::Given((0..groups).map(drawn).collect()),
        Weighting::SomeFree => {
            Weights::Given((0..groups).map(|group| if group % 3 == 0 { 0.0 } else { drawn(group) }).collect())
        }
        Weighting::AllFree => Weights::Given(vec![0.0; groups]),
    }
}

/// A penalty on so many features, as part of a problem.
///
/// # Errors
/// A line of text if the groups do not fit.
fn spec(structure: &Structure, lambda: f64, features: usize, seed: u32) -> Result<(GroupLassoSpec, Layout), String> {
    let groups = groups(structure.grouping, features, seed);
    let layout = Layout::new(&groups, features).map_err(|error| error.to_string())?;
    let weights = weights(structure.weighting, layout.groups(), seed);
    let rows = GroupLassoSpec::rows(Loss::LeastSquares, lambda);
    Ok((GroupLassoSpec { groups, weights, penalty: structure.penalty, ..rows }, layout))
}

/// A penalty and a matrix for its proximal operator.
///
/// # Errors
/// A line of text if the groups do not fit.
pub fn prox_inputs(case: &ProxCase) -> Result<(GroupLassoSpec, Array2<f64>), String> {
    let (spec, layout) = spec(&case.structure, case.lambda, case.features, case.seed)?;
    let mut w = matrix(case.values, case.format, layout.rows(), case.outputs, case.seed);
    if case.values == Values::Edge {
        (0..layout.groups()).for_each(|group| put_on_edge(case, &spec, &layout, group, &mut w));
    }
    Ok((spec, w))
}

/// Makes a group's norm after soft thresholding its threshold, give or take some units in the last place.
fn put_on_edge(case: &ProxCase, spec: &GroupLassoSpec, layout: &Layout, group: usize, w: &mut Array2<f64>) {
    let terms = layout.terms(spec, group);
    let off = (group % 9) as f64 - 4.0;
    let threshold = case.step * terms.l2 * (1.0 + off * 2.0 * case.format.unit_roundoff());
    let pattern: &[f64] = [&[1.0][..], &[0.6, -0.8], &[0.5, 0.5, -0.5, 0.5]][group / 9 % 3];
    let places: Vec<(usize, usize)> =
        layout.rows_of(group).flat_map(|row| (0..case.outputs).map(move |k| (row, k))).collect();
    // A pattern that does not fit would be cut short.
    let pattern = if pattern.len() <= places.len() { pattern } else { &[1.0] };
    let entry =
        |n: usize| pattern.get(n).map_or(0.0, |share| share * threshold + (case.step * terms.l1).copysign(*share));
    for (n, place) in places.into_iter().enumerate() {
        w[place] = case.format.round(entry(n));
    }
}

/// The matrix whose rows are scored and selected from.
pub fn select_inputs(case: &SelectCase) -> Array2<f64> {
    matrix(case.values, case.format, case.rows, case.outputs, case.seed)
}

/// A matrix, each entry a number of the format.
pub(crate) fn matrix(values: Values, format: Format, rows: usize, columns: usize, seed: u32) -> Array2<f64> {
    let source = Source::new(seed, VALUES);
    // Sums of squares of some dozens of these overflow, their norms do not; and the other way round.
    let huge = power_of_two(format.max_exponent - 8);
    let tiny = power_of_two(format.min_exponent + 4);
    let least = power_of_two(format.min_exponent - format.precision as i32 + 1);
    let value = |(i, k): (usize, usize)| {
        let words = source.words(i, k);
        let [a, b, c, d] = words;
        let sign = |x: f64| if d & 1 == 0 { x } else { -x };
        let x = match values {
            Values::Ties => sign([0.0, 1.0, 1.0, 2.0][source.words(i, 0)[0] as usize % 4]),
            Values::Zero => sign(0.0),
            Values::Huge => normal(words) * huge,
            Values::Tiny => normal(words) * tiny,
            Values::Subnormal => sign(f64::from(a % 100) * least),
            Values::Mixed => normal(words) * [huge, tiny, 1.0, 0.0][c as usize % 4],
            Values::Sparse if !source.words(i, 0)[3].is_multiple_of(4) => sign(0.0),
            Values::Descending => sign((rows - i) as f64 / 16.0),
            Values::Ascending => sign((i + 1) as f64 / 16.0),
            Values::Nan if b.is_multiple_of(24) => f64::NAN,
            Values::Infinite if b.is_multiple_of(24) => sign(f64::INFINITY),
            Values::Heavy | Values::Edge | Values::Sparse | Values::Nan | Values::Infinite => heavy(words),
        };
        format.round(x)
    };
    Array2::from_shape_fn((rows, columns), value)
}

/// The problem and its data.
///
/// ```
/// use tilewright_conformance::grouplasso::case::Case;
/// use tilewright_conformance::grouplasso::generate::instance;
/// let id = "grouplasso/solve/f32/n20d10c3/ls/equal=4/gl/lambda@0.5/gap=1e-6+intercept/once/gaussian/1";
/// let Case::Solve(case) = id.parse()? else { unreachable!("a solve case") };
/// let instance = instance(&case)?;
/// assert_eq!((instance.x.dim(), instance.spec.validate(10)), ((20, 10), Ok(())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A line of text if the case's options cannot go together.
pub fn instance(case: &SolveCase) -> Result<Instance, String> {
    let base = base(case);
    let target = target(case, &base);
    let x = stored(case, base);
    let (mut spec, _) = spec(&case.structure, 0.0, case.features, case.seed)?;
    spec.loss = case.loss;
    spec.intercept = case.intercept;
    spec.standardise = Standardise { centre: case.centre, scale: case.scale };
    let sample_weights = case.sampling.map(|sampling| sample_weights(sampling, &target, case));
    let mut instance = Instance { spec, format: case.format, x, target, sample_weights };
    instance.spec.lambda = match case.lambda {
        Lambda::Exactly(lambda) => lambda,
        Lambda::Share(share) => share * largest_lambda(&instance)?,
    };
    Ok(instance)
}

/// The least λ at which everything is zero, with free groups at weight 1; 1 if there is none, or it is 0 but for rounding.
fn largest_lambda(instance: &Instance) -> Result<f64, String> {
    let mut spec = GroupLassoSpec { lambda: 1.0, ..instance.spec.clone() };
    if matches!(&spec.weights, Weights::Given(weights) if weights.contains(&0.0)) {
        spec.weights = Weights::Ones;
    }
    let problem = Problem::new(&spec, &instance.data()).map_err(|error| error.to_string())?;
    let largest = problem.lambda_max().map_err(|error| error.to_string())?;
    let sizes = (0..problem.layout().groups()).map(|group| problem.size(group)).fold(0.0, f64::max);
    let counts = largest.is_finite() && largest > 1e-12 * sizes;
    Ok(if counts { largest } else { 1.0 })
}

/// The λs of a path that ends at a problem's own.
pub(crate) fn path(lambda: f64, points: usize) -> Vec<f64> {
    let ratio = 3f64.powi(1 - points as i32);
    geometric_path(lambda / ratio, ratio, points)
}

/// Features before they are scaled and stored.
fn base(case: &SolveCase) -> Array2<f64> {
    let (n, d) = (case.samples, case.features);
    let source = Source::new(case.seed, X);
    let mut x = Array2::from_shape_fn((n, d), |(i, j)| source.normal(i, j));
    let factors = Source::new(case.seed, FACTORS);
    let block = d.div_ceil(4).max(1);
    for i in 0..n {
        for j in 0..d {
            x[[i, j]] = match case.design {
                Design::Correlated if j > 0 => 0.875 * x[[i, j - 1]] + 0.5 * x[[i, j]],
                Design::Layered => {
                    let factor = |f: usize| factors.normal(i, 3 * (j / block) + f) * factors.normal(n + f, j);
                    (0..3).map(factor).sum::<f64>() + 0.25 * x[[i, j]]
                }
                Design::Duplicate => x[[i, j - j % 2]],
                Design::Collinear if j % 3 == 2 => x[[i, j - 1]] + x[[i, j - 2]],
                Design::ZeroColumns if j % 3 == 2 => 0.0,
                Design::ConstantColumns if j % 3 == 2 => 3.7,
                Design::Offset => x[[i, j]] + 20.0 * (1 + j % 3) as f64,
                Design::Integer => f64::from(source.words(i, j)[0] % 7) - 3.0,
                _ => x[[i, j]],
            };
        }
    }
    x
}

/// Features as the format has them.
fn stored(case: &SolveCase, mut x: Array2<f64>) -> Array2<f64> {
    let format = case.format;
    let (huge, tiny, step) = match format {
        Format::F64 => (265, -265, 10),
        Format::F16 => (12, -10, 3),
        _ => (50, -50, 10),
    };
    for ((_, j), x) in x.indexed_iter_mut() {
        let exponent = match case.design {
            Design::Huge => huge,
            Design::Tiny => tiny,
            Design::Mixed => step * ((j % 5) as i32 - 2),
            Design::Subnormal if j % 2 == 1 => format.min_exponent - 3,
            _ => 0,
        };
        // Not before targets are made of them: those would be all offset.
        let offset = if case.design == Design::Remote { power_of_two(20 + (j % 3) as i32) } else { 0.0 };
        *x = format.round(*x * power_of_two(exponent) + offset);
    }
    x
}

/// What samples come to: three features matter, and noise.
fn target(case: &SolveCase, base: &Array2<f64>) -> Target {
    let (truth, noise) = (Source::new(case.seed, TRUTH), Source::new(case.seed, NOISE));
    let chosen: Vec<usize> = (0..3).map(|n| truth.below(n, case.features)).collect();
    // The unit of P(0), which gaps are relative to, is nobody's business either.
    let unit = match (case.loss, case.design) {
        (Loss::LeastSquares, Design::Huge) => power_of_two(30),
        (Loss::LeastSquares, Design::Tiny) => power_of_two(-30),
        _ => 1.0,
    };
    let score = |i: usize, k: usize| {
        let signal: f64 = chosen.iter().enumerate().map(|(n, j)| base[[i, *j]] * truth.normal(n, k + 1)).sum();
        // Offsets so that intercepts matter, and classes are of different sizes.
        signal + 0.75 * (k + 1) as f64 + noise.normal(i, k) * if case.loss == Loss::LeastSquares { 0.25 } else { 1.0 }
    };
    if case.loss == Loss::LeastSquares {
        let constant = case.design == Design::ConstantTargets;
        let value = |(i, k)| unit * if constant { 0.75 * (k + 1) as f64 } else { score(i, k) };
        return Target::Values(Array2::from_shape_fn((case.samples, case.outputs), value));
    }
    let present = if case.design == Design::MissingClass { case.outputs - 1 } else { case.outputs };
    let label = |i: usize| {
        let better = |best: usize, k: usize| if score(i, k) > score(i, best) { k } else { best };
        (1..present).fold(0, better) as u32
    };
    let labels = (0..case.samples).map(|i| if case.design == Design::ConstantTargets { 0 } else { label(i) });
    Target::Labels { labels: labels.collect(), classes: case.outputs }
}

fn sample_weights(sampling: Sampling, target: &Target, case: &SolveCase) -> Vec<f64> {
    let source = Source::new(case.seed, SAMPLES);
    let drawn = |i: usize| (1 + source.below(case.samples + i, 64)) as f64 / 16.0;
    let is_last = |i: usize| match target {
        Target::Labels { labels, classes } => labels[i] as usize + 1 == *classes,
        Target::Values(_) => source.below(i, 4) == 0,
    };
    let weight = |i: usize| match sampling {
        Sampling::Huge => drawn(i) * power_of_two(1020),
        Sampling::Counts => (1 + source.below(i, 3)) as f64,
        Sampling::SomeZero if source.below(i, 4) == 0 => 0.0,
        Sampling::WithoutLast if is_last(i) => 0.0,
        Sampling::Drawn | Sampling::SomeZero | Sampling::WithoutLast => drawn(i),
    };
    let mut weights: Vec<f64> = (0..case.samples).map(weight).collect();
    // Not all of them.
    if weights.iter().all(|weight| *weight == 0.0) {
        weights[0] = 1.0;
    }
    weights
}

/// Coefficients that have nothing to do with a problem, and logits in the hundreds.
pub(crate) fn far_start(instance: &Instance, rows: usize, feature: impl Fn(usize) -> usize, seed: u32) -> Start {
    let source = Source::new(seed, FAR);
    let largest = |j: usize| instance.x.column(j).iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let unit = |row: usize| {
        let largest = largest(feature(row));
        if largest > 1e-100 { 300.0 / largest } else { 0.0 }
    };
    let outputs = instance.target.outputs();
    let w = Array2::from_shape_fn((rows, outputs), |(row, k)| unit(row) * source.normal(row, k));
    let b = (0..outputs).map(|k| if instance.spec.intercept { 10.0 * source.normal(rows, k) } else { 0.0 }).collect();
    Start { w: SparseRows::from_dense(w.view()), b }
}

/// Whether scaling by a power of two says the same problem in other units: nothing with a ridge does.
pub(crate) fn is_homogeneous(penalty: Penalty) -> bool {
    !matches!(penalty, Penalty::ElasticNet { alpha } if alpha < 1.0)
}
