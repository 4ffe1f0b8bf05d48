//! Problems, matrices and scores: what the kernels are put to.

use ndarray::{Array2, ArrayView2};
use tilewright_grouplasso::{
    Data, Element, GroupLassoSpec, Groups, Keep, Loss, Penalty, Standardise, Start, Stopping, Targets, Weights,
};
use tilewright_scalar::philox4x32_10;

/// Random numbers from a seed.
pub struct Source {
    seed: u64,
    drawn: u32,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn word(&mut self) -> u32 {
        self.drawn += 1;
        philox4x32_10([self.drawn, 0, 0, 7], [self.seed as u32, (self.seed >> 32) as u32])[0]
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        f64::from(self.word()) / 4_294_967_296.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.share() * n as f64) as usize
    }

    pub fn normal(&mut self) -> f64 {
        ((0..4).map(|_| self.share()).sum::<f64>() - 2.0) * 3f64.sqrt()
    }

    pub fn one_of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.share() < p
    }
}

/// What samples should come to.
#[derive(Clone, Debug)]
pub enum Aim {
    Values(Array2<f64>),
    Labels(Vec<u32>, usize),
}

/// What a kernel is asked to do with a problem.
#[derive(Clone, Debug)]
pub enum Task {
    Solve,
    From(Start),
    Path(Vec<f64>),
    /// Interrupted at this certificate.
    Interrupted(usize),
    InterruptedPath(Vec<f64>, usize),
}

/// A problem and a task.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub spec: GroupLassoSpec,
    pub x: Array2<f64>,
    pub aim: Aim,
    pub weights: Option<Vec<f64>>,
    pub stopping: Stopping,
    pub task: Task,
}

impl Case {
    /// Its data, with features in another element type.
    pub fn data<'a, T: Element>(&'a self, x: ArrayView2<'a, T>) -> Data<'a, T> {
        let targets = match &self.aim {
            Aim::Values(y) => Targets::Values(y.view()),
            Aim::Labels(labels, classes) => Targets::Labels { labels, classes: *classes },
        };
        Data { x, targets, sample_weights: self.weights.as_deref() }
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// Features that depend on their neighbours, a column that matters in each third; targets of them.
pub fn problem(seed: u64, loss: Loss, n: usize, d: usize, outputs: usize) -> Case {
    let mut source = Source::new(seed);
    let mut x = Array2::zeros((n, d));
    for i in 0..n {
        for j in 0..d {
            let before = if j > 0 { x[[i, j - 1]] } else { 0.0 };
            x[[i, j]] = 0.6 * before + source.normal();
        }
    }
    let w = Array2::from_shape_fn((d, outputs), |(j, _)| if j % 3 == 0 { source.normal() } else { 0.0 });
    let z = x.dot(&w) + Array2::from_shape_fn((n, outputs), |_| 0.5 * source.normal());
    let aim = match loss {
        Loss::LeastSquares => Aim::Values(z + 1.5),
        Loss::Multinomial => Aim::Labels(z.rows().into_iter().map(largest).collect(), outputs),
    };
    let stopping = Stopping { gap: 1e-8, iterations: 20_000 };
    let spec = GroupLassoSpec::rows(loss, 0.1);
    Case { name: format!("{loss:?} {seed}"), spec, x, aim, weights: None, stopping, task: Task::Solve }
}

fn largest(row: ndarray::ArrayView1<'_, f64>) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |best| best.0);
    best as u32
}

/// Any problem the specification can state that has a minimum.
pub fn any_problem(seed: u64) -> Case {
    let mut source = Source::new(seed ^ 0xabcd_0000);
    let loss = source.one_of(&[Loss::LeastSquares, Loss::Multinomial]);
    let least = if loss == Loss::Multinomial { 2 } else { 1 };
    let (n, d, outputs) = (8 + source.below(30), 2 + source.below(20), least + source.below(6 - least));
    let mut case = problem(seed, loss, n, d, outputs);
    case.spec.groups = groups(&mut source, d);
    let count = tilewright_grouplasso::Layout::new(&case.spec.groups, d).unwrap().groups();
    // A free group of the multinomial loss may separate the classes: then there is no minimum.
    let free = loss == Loss::LeastSquares && source.chance(0.3);
    case.spec.weights = match source.below(3) {
        0 => Weights::SqrtSize,
        1 => Weights::Ones,
        _ => Weights::Given((0..count).map(|g| if free && g % 4 == 1 { 0.0 } else { 0.5 + source.share() }).collect()),
    };
    case.spec.penalty = match source.below(5) {
        0 | 1 => Penalty::GroupLasso,
        2 => Penalty::SparseGroup { tau: source.one_of(&[0.0, 0.2, 0.7, 1.0]) },
        3 => Penalty::ElasticNet { alpha: source.one_of(&[0.0, 0.3, 0.9, 1.0]) },
        _ => Penalty::SparseGroup { tau: 0.4 },
    };
    case.spec.lambda = source.one_of(&[0.3, 0.1, 0.03, 0.01]);
    if loss == Loss::LeastSquares && source.chance(0.1) {
        case.spec.lambda = 0.0;
    }
    case.spec.intercept = source.chance(0.7);
    case.spec.standardise = Standardise { centre: source.chance(0.4), scale: source.chance(0.4) };
    dress(&mut case, &mut source);
    case
}

/// Means, scales, repeated and constant columns, sample weights, absent classes.
fn dress(case: &mut Case, source: &mut Source) {
    let (n, d) = case.x.dim();
    let mean = source.one_of(&[0.0, 0.0, 3.0, -20.0]);
    case.x.mapv_inplace(|x| x + mean);
    if source.chance(0.2) {
        let scale = source.one_of(&[1e-3, 100.0]);
        case.x.column_mut(source.below(d)).mapv_inplace(|x| x * scale);
    }
    if source.chance(0.2) {
        case.x.column_mut(source.below(d)).fill(0.1);
    }
    if source.chance(0.2) {
        let (from, to) = (source.below(d), source.below(d));
        let column = case.x.column(from).to_owned();
        case.x.column_mut(to).assign(&column);
    }
    if source.chance(0.4) {
        let mut weights: Vec<f64> = (0..n).map(|_| if source.chance(0.1) { 0.0 } else { source.share() }).collect();
        weights[0] = 1.0;
        case.weights = Some(weights);
    }
    if let (Aim::Labels(_, classes), true) = (&mut case.aim, source.chance(0.15)) {
        *classes += 1;
    }
}

pub fn groups(source: &mut Source, d: usize) -> Groups {
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < d {
        sizes.push((1 + source.below(5)).min(d - sizes.iter().sum::<usize>()));
    }
    let mut shuffled: Vec<usize> = (0..d).collect();
    shuffled.sort_by_key(|j| (j * 7919 + 13) % 101);
    let mut rest = shuffled.into_iter();
    let lists: Vec<Vec<usize>> = sizes.iter().map(|size| rest.by_ref().take(*size).collect()).collect();
    match source.below(5) {
        0 | 1 => Groups::Rows,
        2 => Groups::Sizes(sizes),
        3 => Groups::Lists(lists),
        _ => {
            let mut lists = lists;
            for g in 1..lists.len() {
                let shared = lists[g - 1][0];
                lists[g].push(shared);
            }
            Groups::Overlapping(lists)
        }
    }
}

/// A matrix for the proximal operator.
#[derive(Clone, Debug)]
pub struct Block {
    pub name: &'static str,
    pub spec: GroupLassoSpec,
    pub step: f64,
    pub w: Array2<f64>,
}

/// Every penalty and kind of group, blocks around their threshold; and the corners.
pub fn blocks() -> Vec<Block> {
    let mut source = Source::new(77);
    let plain = GroupLassoSpec::rows(Loss::LeastSquares, 0.5);
    let mut list = Vec::new();
    for at in 0..120 {
        let (d, outputs) = (1 + source.below(9), 1 + source.below(4));
        let groups = groups(&mut source, d);
        let layout = tilewright_grouplasso::Layout::new(&groups, d).unwrap();
        let penalty = source.one_of(&[
            Penalty::GroupLasso,
            Penalty::SparseGroup { tau: 0.3 },
            Penalty::ElasticNet { alpha: 0.4 },
        ]);
        let given =
            Weights::Given((0..layout.groups()).map(|g| if g % 3 == 2 { 0.0 } else { 0.5 + g as f64 }).collect());
        let weights = source.one_of(&[Weights::SqrtSize, Weights::Ones, given]);
        let w = Array2::from_shape_fn((layout.rows(), outputs), |_| source.normal());
        let step = source.one_of(&[1.0, 0.25, 3.0]);
        list.push(Block {
            name: "random",
            spec: GroupLassoSpec { groups, penalty, weights, lambda: [0.5, 0.1][at % 2], ..plain.clone() },
            step,
            w,
        });
    }
    let with = |name, w: Array2<f64>| Block { name, spec: plain.clone(), step: 2.0, w };
    list.push(with("tie", ndarray::array![[0.6, -0.8], [3.0, 4.0]]));
    list.push(with("NaN", ndarray::array![[f64::NAN, 1.0], [3.0, 4.0]]));
    list.push(with("huge", ndarray::array![[3e200, 4e200], [3e30, 4e30]]));
    let tiny = GroupLassoSpec { lambda: 1e-210, ..plain.clone() };
    list.push(Block { spec: tiny, ..with("tiny", ndarray::array![[3e-200, 4e-200], [0.0, 0.0]]) });
    let free = GroupLassoSpec { lambda: 0.0, ..plain.clone() };
    list.push(Block { spec: free, ..with("zero by zero", Array2::zeros((2, 2))) });
    for step in [-1.0, 0.0, f64::NAN] {
        list.push(Block { step, ..with("bad step", Array2::ones((2, 2))) });
    }
    let bad = GroupLassoSpec { lambda: -1.0, ..plain.clone() };
    list.push(Block { spec: bad, ..with("bad λ", Array2::ones((2, 2))) });
    list
}

/// Scores and shares for the selection.
pub fn selections() -> Vec<(Vec<f64>, Keep)> {
    let mut source = Source::new(5);
    let mut list = Vec::new();
    for n in [1, 2, 7, 10, 33, 100] {
        let scores: Vec<f64> = (0..n).map(|_| source.share()).collect();
        let ties: Vec<f64> = (0..n).map(|_| f64::from(source.word() % 4) - 0.0).collect();
        let close: Vec<f64> = (0..n).map(|i| 1.0 + f64::from(i as u32 * 37 % 11) * 1e-5).collect();
        let tiny: Vec<f64> = scores.iter().map(|s| s * 1e-9).collect();
        let nan: Vec<f64> = scores.iter().enumerate().map(|(i, s)| if i == n / 2 { f64::NAN } else { *s }).collect();
        for keep in [0.001, 0.07, 0.29, 0.35, 0.58, 1.0, 0.0, -0.5, f64::NAN, 1.5] {
            for scores in [&scores, &ties, &close, &tiny, &nan] {
                list.push((scores.clone(), Keep::Fraction(keep)));
            }
        }
        for keep in [0, 1, 5, 200] {
            list.push((ties.clone(), Keep::Features(keep)));
        }
    }
    list
}
