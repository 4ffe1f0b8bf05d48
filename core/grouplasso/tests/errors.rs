//! Bad input of every kind is refused with one line that names it.
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, array};
use std::ops::ControlFlow;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    Data, GroupLassoSolver, GroupLassoSpec, Groups, Keep, Loss, Penalty, Prox, SparseRows, Start, Stopping, Targets,
    Weights, select,
};

fn refused(spec: &GroupLassoSpec, data: &Data<'_, f64>, start: Option<&Start>) -> String {
    let error =
        Reference.solve(spec, data, &Stopping::default(), start, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(!error.to_string().contains('\n'));
    error.to_string()
}

fn ls() -> GroupLassoSpec {
    GroupLassoSpec::rows(Loss::LeastSquares, 0.1)
}

#[test]
fn data() {
    let (x, y) = (array![[1.0, 2.0], [3.0, 4.0]], array![[1.0], [2.0]]);
    let with = |x: &Array2<f64>, y: &Array2<f64>, weights: Option<&[f64]>| {
        refused(&ls(), &Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: weights }, None)
    };
    let expected = "expected a finite number of magnitude at most 2^300";
    let nan = array![[1.0, 2.0], [f64::NAN, 4.0]];
    assert_eq!(with(&nan, &y, None), format!("x[sample 1, feature 0]: got NaN, {expected}"));
    assert_eq!(with(&x, &array![[1.0], [f64::INFINITY]], None), format!("y[1, 0]: got inf, {expected}"));
    assert!(with(&array![[1e300, 0.0], [0.0, 0.0]], &y, None).starts_with("x[sample 0, feature 0]: got 1000"));
    assert_eq!(with(&x, &array![[1.0]], None), "shape of y: got 1 × 1, expected 2 × at least 1");
    assert_eq!(with(&x, &Array2::zeros((2, 0)), None), "shape of y: got 2 × 0, expected 2 × at least 1");
    assert_eq!(with(&Array2::zeros((0, 2)), &y, None), "shape of x: got no samples, expected at least 1");
    assert_eq!(with(&x, &y, Some(&[1.0])), "shape of sample_weights: got 1, expected 2, one a sample");
    assert_eq!(with(&x, &y, Some(&[1.0, -1.0])), "sample_weights[1]: got -1, expected a finite number, at least 0");
    assert_eq!(with(&x, &y, Some(&[0.0, 0.0])), "sample_weights[..]: got 0, expected at least one that is positive");
}

#[test]
fn labels() {
    let x = array![[1.0, 2.0], [3.0, 4.0]];
    let with = |loss, targets| {
        refused(&GroupLassoSpec { loss, ..ls() }, &Data { x: x.view(), targets, sample_weights: None }, None)
    };
    let labels = |labels, classes| Targets::Labels { labels, classes };
    let mn = Loss::Multinomial;
    assert_eq!(with(mn, labels(&[0, 3], 3)), "labels[1]: got 3, expected less than the number of classes");
    assert_eq!(with(mn, labels(&[0], 3)), "shape of labels: got 1, expected 2, one a sample");
    assert_eq!(with(mn, labels(&[0, 0], 1)), "classes: got 1, expected at least 2");
    assert_eq!(with(Loss::LeastSquares, labels(&[0, 1], 2)), "targets: got labels, expected values, for least squares");
}

#[test]
fn specification() {
    let y = array![[1.0], [2.0]];
    let x = array![[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]];
    let data = Data { x: x.view(), targets: Targets::Values(y.view()), sample_weights: None };
    let with = |spec: GroupLassoSpec| refused(&spec, &data, None);
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(with(GroupLassoSpec { lambda, ..ls() }).ends_with("expected a finite number, at least 0"));
    }
    assert_eq!(
        with(GroupLassoSpec { penalty: Penalty::SparseGroup { tau: 1.5 }, ..ls() }),
        "tau: got 1.5, expected from 0 to 1"
    );
    assert_eq!(
        with(GroupLassoSpec { penalty: Penalty::ElasticNet { alpha: -0.5 }, ..ls() }),
        "alpha: got -0.5, expected from 0 to 1"
    );
    let groups = |groups| with(GroupLassoSpec { groups, ..ls() });
    assert_eq!(groups(Groups::Sizes(vec![1, 1])), "groups: sizes cover 2 features, there are 3");
    assert_eq!(groups(Groups::Sizes(vec![3, 0])), "groups: group 1 is empty");
    assert_eq!(groups(Groups::Sizes(vec![usize::MAX, 4])), "groups: sizes overflow at group 1");
    assert_eq!(groups(Groups::Lists(vec![vec![0, 1], vec![1, 2]])), "groups: feature 1 is in groups 0 and 1");
    assert_eq!(groups(Groups::Lists(vec![vec![0, 2]])), "groups: feature 1 is in no group");
    assert_eq!(groups(Groups::Lists(vec![vec![0, 1, 3]])), "groups: group 0 has feature 3, there are 3");
    assert_eq!(groups(Groups::Overlapping(vec![vec![0, 1, 0, 2]])), "groups: feature 0 is in group 0 twice");
    let weights = |weights| with(GroupLassoSpec { weights: Weights::Given(weights), ..ls() });
    assert_eq!(weights(vec![1.0]), "weights: got 1 of them, expected 3 weights, one a group");
    assert_eq!(weights(vec![1.0, -2.0, 1.0]), "weights[1]: got -2, expected a finite number, at least 0");
    for gap in [0.0, -1.0, f64::NAN] {
        let stopping = Stopping { gap, ..Stopping::default() };
        assert!(Reference.solve(&ls(), &data, &stopping, None, &mut |_| ControlFlow::Continue(())).is_err());
    }
    let start = Start { w: SparseRows::zeros(2, 1), b: vec![0.0] };
    assert_eq!(refused(&ls(), &data, Some(&start)), "shape of start: got w 2 × 1, b 1, expected w 3 × 1, b 1");
    let w = SparseRows::from_dense(array![[0.0], [f64::NAN], [0.0]].view());
    let at = "start.w[1, 0]: got NaN, expected a finite number of magnitude at most 2^300";
    assert_eq!(refused(&ls(), &data, Some(&Start { w, b: vec![0.0] })), at);
}

#[test]
fn operations() {
    let mut w = array![[1.0f64], [2.0]];
    for step in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Reference.prox(&ls(), step, w.view_mut()).unwrap_err().to_string().starts_with("step: got "));
    }
    let spec = GroupLassoSpec { groups: Groups::Overlapping(vec![vec![0, 1], vec![1]]), ..ls() };
    let error = Reference.prox(&spec, 1.0, w.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "shape of w: got 2 rows, expected 3, one a copy");
    assert_eq!(w, array![[1.0], [2.0]]);
    assert_eq!(
        select::top(&[1.0, f64::NAN], Keep::Features(1)).unwrap_err().to_string(),
        "scores[1]: got NaN, expected a number"
    );
    for fraction in [0.0, -0.5, 1.5, f64::NAN] {
        assert!(select::top(&[1.0], Keep::Fraction(fraction)).is_err());
    }
    assert!(select::top(&[1.0], Keep::Features(0)).is_err());
    assert!(SparseRows::new(3, vec![2, 1], Array2::zeros((2, 1))).is_err());
    assert!(SparseRows::new(3, vec![3], Array2::zeros((1, 1))).is_err());
    assert!(SparseRows::new(3, vec![1], Array2::zeros((2, 1))).is_err());
}
