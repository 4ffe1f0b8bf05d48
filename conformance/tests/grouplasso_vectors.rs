//! The reference, and the CPU backend, against minima found by an interior point method from the objective as the
//! specification words it (`vectors/make_grouplasso.py`).
#![allow(clippy::unwrap_used)]

use ndarray::{Array2, ArrayView2};
use safetensors::SafeTensors;
use serde_json::Value;
use std::ops::ControlFlow;
use tilewright_grouplasso::reference::Reference;
use tilewright_grouplasso::{
    Data, GroupLassoSolver, GroupLassoSpec, Groups, Loss, Penalty, Problem, SparseRows, Standardise, Stopped, Stopping,
    Targets, Weights, certificate,
};

const VECTORS: &[u8] = include_bytes!("../vectors/grouplasso_synthetic.safetensors");

fn f64s(file: &SafeTensors<'_>, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
    let tensor = file.tensor(name).ok()?;
    let values = tensor.data().chunks_exact(8).map(|raw| f64::from_le_bytes(raw.try_into().unwrap())).collect();
    Some((tensor.shape().to_vec(), values))
}

fn matrix(file: &SafeTensors<'_>, name: &str) -> Option<Array2<f64>> {
    let (shape, values) = f64s(file, name)?;
    Some(Array2::from_shape_vec((shape[0], shape[1]), values).unwrap())
}

fn labels(file: &SafeTensors<'_>, name: &str) -> Option<Vec<u32>> {
    let tensor = file.tensor(name).ok()?;
    Some(tensor.data().chunks_exact(4).map(|raw| u32::from_le_bytes(raw.try_into().unwrap())).collect())
}

fn numbers(json: &Value) -> Vec<f64> {
    json.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn indices(json: &Value) -> Vec<usize> {
    numbers(json).into_iter().map(|x| x as usize).collect()
}

fn lists(json: &Value) -> Vec<Vec<usize>> {
    json.as_array().unwrap().iter().map(indices).collect()
}

fn spec_of(json: &Value) -> GroupLassoSpec {
    let groups = match &json["groups"] {
        Value::String(_) => Groups::Rows,
        groups if groups.get("sizes").is_some() => Groups::Sizes(indices(&groups["sizes"])),
        groups if groups.get("lists").is_some() => Groups::Lists(lists(&groups["lists"])),
        groups => Groups::Overlapping(lists(&groups["overlapping"])),
    };
    let weights = match &json["weights"] {
        Value::String(name) if name == "ones" => Weights::Ones,
        Value::String(_) => Weights::SqrtSize,
        given => Weights::Given(numbers(&given["given"])),
    };
    let penalty = match &json["penalty"] {
        Value::String(_) => Penalty::GroupLasso,
        of if of.get("sparse_group").is_some() => {
            Penalty::SparseGroup { tau: of["sparse_group"]["tau"].as_f64().unwrap() }
        }
        of => Penalty::ElasticNet { alpha: of["elastic_net"]["alpha"].as_f64().unwrap() },
    };
    let flag = |name: &str| json["standardise"][name].as_bool().unwrap();
    GroupLassoSpec {
        loss: if json["loss"] == "multinomial" { Loss::Multinomial } else { Loss::LeastSquares },
        groups,
        weights,
        penalty,
        lambda: json["lambda"].as_f64().unwrap(),
        intercept: json["intercept"].as_bool().unwrap(),
        standardise: Standardise { centre: flag("centre"), scale: flag("scale") },
    }
}

/// The solver reaches the minimum, its certificate encloses it, and so does that of the interior point method's own answer.
fn agrees(solver: &dyn GroupLassoSolver<f64>, gap: f64) {
    let file = SafeTensors::deserialize(VECTORS).unwrap();
    let (_, header) = SafeTensors::read_metadata(VECTORS).unwrap();
    let cases = header.metadata().as_ref().unwrap();
    assert!(cases.len() >= 30);
    for (name, json) in cases {
        let json: Value = serde_json::from_str(json).unwrap();
        let (spec, tensor) = (spec_of(&json["spec"]), |what: &str| format!("{name}/{what}"));
        let x = matrix(&file, &tensor("x")).unwrap();
        let (y, classes) = (matrix(&file, &tensor("y")), labels(&file, &tensor("labels")));
        let weights = f64s(&file, &tensor("weights")).map(|(_, weights)| weights);
        let targets = match (&y, &classes) {
            (Some(y), _) => Targets::Values(y.view()),
            (_, labels) => Targets::Labels {
                labels: labels.as_ref().unwrap(),
                classes: json["classes"].as_u64().unwrap() as usize,
            },
        };
        let data = Data { x: x.view(), targets, sample_weights: weights.as_deref() };
        let stopping = Stopping { gap, ..Stopping::default() };
        let answer = solver.solve(&spec, &data, &stopping, None, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answer.stopped, Stopped::Reached, "{name}: {:?}", answer.certificate);
        let minimum = f64s(&file, &tensor("minimum")).unwrap().1[0];
        let problem = Problem::new(&spec, &data).unwrap();
        let certify =
            |w: ArrayView2<'_, f64>, b: &[f64]| certificate::certify(&problem, &SparseRows::from_dense(w), b).unwrap();
        let ours = certify(answer.w.to_dense().view(), &answer.b);
        // The interior point method is exact to some 1e-10.
        let slack = 1e-9 * ours.null;
        assert!(ours.dual <= minimum + slack && minimum <= ours.objective + slack, "{name}: {minimum} in {ours:?}");
        assert!(ours.relative_gap() <= gap * 1.001 + 1e-13, "{name}: {ours:?}");
        let (_, b) = f64s(&file, &tensor("b")).unwrap();
        let theirs = certify(matrix(&file, &tensor("w")).unwrap().view(), &b);
        assert!((theirs.objective - minimum).abs() <= slack, "{name}: {minimum}, {theirs:?}");
        // An objective exact to 1e-11 leaves gradients of 1e-6, which a free group is charged in full.
        assert!(theirs.relative_gap() <= 1e-4, "{name}: {theirs:?}");
    }
}

#[test]
fn reference() {
    agrees(&Reference, 1e-9);
}
