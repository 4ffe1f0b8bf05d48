//! Cases built from the triggers that mutants declare.

use crate::cases::{Aim, Case, Task, any_problem, problem};
use crate::judge::start;
use ndarray::Array2;
use tilewright_grouplasso::{Groups, Loss, Penalty, SparseRows, Standardise, Start, Stopping, Weights};

const LS: Loss = Loss::LeastSquares;
const MN: Loss = Loss::Multinomial;

/// Every problem that mutants are put to.
pub fn triggers() -> Vec<Case> {
    let mut list = refusals();
    list.extend(columns());
    list.extend(samples());
    list.extend(gaps());
    list.extend(tasks());
    list.extend((0..36).filter(|seed| ![5, 7, 9, 10].contains(seed)).map(any_problem));
    list
}

/// What must be refused.
fn refusals() -> Vec<Case> {
    let ls = || problem(1, LS, 12, 6, 2);
    let mn = || problem(2, MN, 12, 6, 3);
    let lists = |lists: Vec<Vec<usize>>| ls().with(|c| c.spec.groups = Groups::Lists(lists));
    let zeros = |rows: usize| Task::From(Start { w: SparseRows::zeros(rows, 2), b: vec![0.0; 2] });
    vec![
        ls().named("NaN in X").with(|c| c.x[[3, 4]] = f64::NAN),
        ls().named("infinity in X").with(|c| c.x[[3, 4]] = f64::INFINITY),
        ls().named("NaN in Y").with(|c| c.aim = Aim::Values(Array2::from_elem((12, 2), f64::NAN))),
        mn().named("label out of range").with(|c| c.aim = Aim::Labels(vec![0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 0, 1], 3)),
        ls().named("negative sample weight").with(|c| c.weights = Some((0..12).map(|i| f64::from(i) - 1.0).collect())),
        ls().named("no sample weight").with(|c| c.weights = Some(vec![0.0; 12])),
        ls().named("negative λ").with(|c| c.spec.lambda = -0.1),
        ls().named("τ above 1").with(|c| c.spec.penalty = Penalty::SparseGroup { tau: 1.5 }),
        ls().named("α below 0").with(|c| c.spec.penalty = Penalty::ElasticNet { alpha: -0.5 }),
        ls().named("negative weight").with(|c| c.spec.weights = Weights::Given(vec![1.0, 1.0, -1.0, 1.0, 1.0, 1.0])),
        lists(vec![vec![0, 1], vec![2, 3, 4]]).named("a feature in no group"),
        lists(vec![vec![0, 1, 2], vec![2, 3, 4, 5]]).named("a feature in two groups"),
        ls().named("a gap of 0").with(|c| c.stopping.gap = 0.0),
        ls().named("a gap of NaN").with(|c| c.stopping.gap = f64::NAN),
        ls().named("a start of another shape").with(|c| c.task = zeros(5)),
    ]
}

/// Columns that are constant, far from 0, tiny, repeated; starts, means and scales.
fn columns() -> Vec<Case> {
    let standard = |centre, scale| move |c: &mut Case| c.spec.standardise = Standardise { centre, scale };
    let shifted = |by: f64| move |c: &mut Case| c.x.mapv_inplace(|x| x + by);
    vec![
        problem(10, LS, 20, 6, 2).named("scaled").with(standard(false, true)).with(shifted(2.0)),
        problem(11, LS, 20, 6, 2).named("centred").with(standard(true, false)).with(shifted(2.0)),
        problem(12, MN, 20, 6, 3).named("centred and scaled").with(standard(true, true)).with(shifted(2.0)),
        problem(13, LS, 20, 6, 2).named("cancellation").with(standard(true, true)).with(shifted(1e5)),
        problem(14, LS, 23, 6, 2)
            .named("a constant column")
            .with(standard(true, true))
            .with(|c| c.x.column_mut(3).fill(0.1)),
        problem(15, LS, 20, 6, 2)
            .named("tiny columns")
            .with(standard(true, true))
            .with(|c| c.x.mapv_inplace(|x| x * 1e-9)),
        problem(16, LS, 20, 6, 1).named("a repeated column in a group").with(|c| {
            let first = c.x.column(0).to_owned();
            c.x.column_mut(1).assign(&first);
            c.spec.groups = Groups::Sizes(vec![2, 4]);
        }),
        problem(17, LS, 20, 8, 2).named("weighted means").with(standard(true, true)).with(|c| {
            c.weights = Some((0..20).map(|i| f64::from(i % 5) + 0.1).collect());
        }),
    ]
}

/// Sample weights and classes.
fn samples() -> Vec<Case> {
    let mut far = problem(24, MN, 20, 4, 3);
    far.task = Task::From(Start {
        w: SparseRows::from_dense(Array2::from_elem((4, 3), 0.0).view()),
        b: vec![900.0, 0.0, -900.0],
    });
    let mut stretched = problem(25, MN, 20, 4, 3).named("a far start");
    stretched.task = Task::From(Start {
        w: SparseRows::from_dense(
            Array2::from_shape_fn((4, 3), |(j, k)| 240.0 * ((j * 3 + k) % 5) as f64 - 480.0).view(),
        ),
        b: vec![0.0; 3],
    });
    let absent = || {
        problem(26, MN, 20, 4, 3).with(|c| {
            if let Aim::Labels(_, classes) = &mut c.aim {
                *classes = 4;
            }
        })
    };
    vec![
        problem(20, LS, 20, 6, 2).named("huge weights").with(|c| c.weights = Some(vec![1e308; 20])),
        problem(21, MN, 20, 6, 3).named("weights and zeros").with(|c| {
            c.weights = Some((0..20).map(|i| f64::from(i % 4)).collect());
        }),
        problem(22, MN, 20, 6, 3).named("a class without weight").with(|c| {
            if let Aim::Labels(labels, _) = &c.aim {
                c.weights = Some(labels.iter().map(|label| f64::from(u8::from(*label != 1))).collect());
            }
        }),
        absent().named("an absent class"),
        absent().named("an absent class from a start").with(|c| {
            let w = SparseRows::from_dense(Array2::ones((4, 4)).view());
            c.task = Task::From(Start { w, b: vec![0.0; 4] });
        }),
        absent().named("an absent class, no intercept").with(|c| c.spec.intercept = false),
        far.named("a far intercept"),
        stretched,
    ]
}

/// What stopping early, or too early, is seen by.
fn gaps() -> Vec<Case> {
    let gap = |gap| move |c: &mut Case| c.stopping.gap = gap;
    let mut list = Vec::new();
    for seed in 0..6 {
        for loose in [1e-2, 1e-4] {
            list.push(problem(30 + seed, LS, 20, 30, 2).named("loose").with(gap(loose)).with(|c| c.spec.lambda = 0.02));
            list.push(problem(40 + seed, MN, 30, 20, 3).named("loose").with(gap(loose)).with(|c| c.spec.lambda = 0.01));
        }
    }
    list.push(problem(50, LS, 20, 6, 2).named("tiny targets").with(gap(1e-6)).with(|c| {
        c.spec.lambda = 1e-7;
        if let Aim::Values(y) = &mut c.aim {
            *y *= 1e-5;
        }
    }));
    list.push(problem(51, LS, 20, 6, 2).named("targets far from 0").with(gap(1e-5)).with(|c| {
        if let Aim::Values(y) = &mut c.aim {
            *y += 1e3;
        }
    }));
    list.push(problem(57, LS, 20, 6, 2).named("targets farther from 0 than numbers reach").with(|c| {
        if let Aim::Values(y) = &mut c.aim {
            *y += 1e9;
        }
    }));
    list.push(problem(52, LS, 20, 6, 2).named("all free").with(|c| c.spec.lambda = 0.0));
    list.push(problem(53, LS, 20, 6, 2).named("a tight gap").with(gap(1e-10)));
    list.push(problem(54, LS, 20, 6, 2).named("rounding").with(gap(1e-30)));
    list.push(problem(58, MN, 20, 6, 3).named("λ above the greatest useful").with(|c| c.spec.lambda = 2.0));
    list.push(problem(55, LS, 20, 12, 1).named("one group").with(|c| c.spec.groups = Groups::Sizes(vec![12])));
    list.push(problem(56, MN, 40, 1, 2).named("coins").with(|c| {
        c.spec.lambda = 1e-3;
        c.x = Array2::from_shape_fn((40, 1), |(i, _)| if i % 2 == 0 { 1.0 } else { -1.0 });
        c.aim = Aim::Labels((0..40).map(|i| u32::from(i % 2 == 0) ^ u32::from(i % 9 > 3)).collect(), 2);
    }));
    list
}

/// Starts, paths, interruptions.
fn tasks() -> Vec<Case> {
    let mut list = Vec::new();
    for (seed, loss, outputs) in [(60, LS, 2), (61, MN, 3)] {
        let whole = problem(seed, loss, 25, 20, outputs);
        let path = vec![0.3, 0.15, 0.08, 0.04, 0.02];
        let none = Stopping { iterations: 0, ..whole.stopping };
        let from = start(&whole, 1e-3);
        list.push(whole.clone().named("a path").with(|c| c.task = Task::Path(path.clone())));
        list.push(whole.clone().named("an interrupted path").with(|c| {
            c.spec.lambda = 0.01;
            c.task = Task::InterruptedPath(path.clone(), 3);
        }));
        list.push(whole.clone().named("interrupted").with(|c| c.task = Task::Interrupted(3)));
        for limit in [7, 12, 17, 26, 43] {
            list.push(whole.clone().named("a few iterations").with(|c| c.stopping.iterations = limit));
        }
        list.push(whole.clone().named("long columns").with(|c| {
            c.spec.lambda = 2.0;
            c.x.mapv_inplace(|x| 100.0 * x);
        }));
        list.push(whole.clone().named("as it is").with(|c| {
            c.stopping = none;
            c.task = Task::From(from.clone());
        }));
        list.push(whole.clone().named("as it is, another intercept").with(|c| {
            let mut from = from.clone();
            from.b[0] += 1.0;
            c.stopping = none;
            c.task = Task::From(from);
        }));
        list.push(whole.clone().named("nothing").with(|c| c.stopping = none));
        list.push(whole.clone().named("single precision"));
    }
    list
}

/// Matrices whose rows are scored.
pub fn matrices() -> Vec<Array2<f64>> {
    let plain = problem(70, LS, 6, 4, 1).x;
    let tiny = plain.map(|x| x * 1e-200);
    let huge = plain.map(|x| x * 1e200);
    vec![plain, tiny, huge, Array2::zeros((3, 2)), ndarray::array![[0.1], [-0.7]]]
}
