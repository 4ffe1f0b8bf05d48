//! What is no array, as JSON, and back. A value that cannot be understood is `None`.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tilewright_grouplasso::{GroupLassoSpec, Groups, Layers, Loss, Normalise, Penalty, Standardise, Weights};

pub(super) fn of_layers(layers: &Layers) -> Value {
    (0..layers.len()).map(|layer| json!([layers.name(layer), layers.width(layer)])).collect()
}

pub(super) fn layers(value: &Value) -> Option<Layers> {
    let layer = |value: &Value| Some((value.get(0)?.as_str()?.to_owned(), number(value.get(1)?)?));
    let layers: Option<Vec<(String, usize)>> = value.as_array()?.iter().map(layer).collect();
    Layers::new(layers?).ok()
}

const NORMALISE: [(&str, Normalise); 4] = [
    ("none", Normalise::None),
    ("kept", Normalise::Kept),
    ("layer", Normalise::Layer),
    ("per feature", Normalise::PerFeature),
];

pub(super) fn of_normalise(normalise: Normalise) -> Value {
    name_in(&NORMALISE, normalise)
}

pub(super) fn normalise(value: &Value) -> Option<Normalise> {
    named_in(&NORMALISE, value)
}

pub(super) fn texts(value: &Value) -> Option<BTreeMap<String, String>> {
    value.as_object()?.iter().map(|(name, text)| Some((name.clone(), text.as_str()?.to_owned()))).collect()
}

const LOSSES: [(&str, Loss); 2] = [("least squares", Loss::LeastSquares), ("multinomial", Loss::Multinomial)];

pub(super) fn of_spec(spec: &GroupLassoSpec) -> Value {
    let groups = match &spec.groups {
        Groups::Rows => json!("rows"),
        Groups::Sizes(sizes) => json!({ "sizes": sizes }),
        Groups::Lists(lists) => json!({ "lists": lists }),
        Groups::Overlapping(lists) => json!({ "overlapping": lists }),
    };
    let weights = match &spec.weights {
        Weights::SqrtSize => json!("sqrt size"),
        Weights::Ones => json!("ones"),
        Weights::Given(weights) => json!(weights),
    };
    let penalty = match spec.penalty {
        Penalty::GroupLasso => json!("group lasso"),
        Penalty::SparseGroup { tau } => json!({ "tau": tau }),
        Penalty::ElasticNet { alpha } => json!({ "alpha": alpha }),
    };
    json!({
        "loss": name_in(&LOSSES, spec.loss),
        "groups": groups,
        "weights": weights,
        "penalty": penalty,
        "lambda": spec.lambda,
        "intercept": spec.intercept,
        "centre": spec.standardise.centre,
        "scale": spec.standardise.scale,
    })
}

pub(super) fn spec(value: &Value) -> Option<GroupLassoSpec> {
    let groups = match value.get("groups")? {
        Value::String(rows) => (rows == "rows").then_some(Groups::Rows)?,
        Value::Object(groups) => {
            let (kind, list) = groups.iter().next()?;
            match &kind[..] {
                "sizes" => Groups::Sizes(numbers(list)?),
                "lists" => Groups::Lists(lists(list)?),
                "overlapping" => Groups::Overlapping(lists(list)?),
                _ => return None,
            }
        }
        _ => return None,
    };
    let weights = match value.get("weights")? {
        Value::String(name) if name == "sqrt size" => Weights::SqrtSize,
        Value::String(name) if name == "ones" => Weights::Ones,
        given => Weights::Given(given.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?),
    };
    let penalty = match value.get("penalty")? {
        Value::String(name) => (name == "group lasso").then_some(Penalty::GroupLasso)?,
        other => match (other.get("tau"), other.get("alpha")) {
            (Some(tau), None) => Penalty::SparseGroup { tau: tau.as_f64()? },
            (None, Some(alpha)) => Penalty::ElasticNet { alpha: alpha.as_f64()? },
            _ => return None,
        },
    };
    let truth = |name: &str| value.get(name)?.as_bool();
    Some(GroupLassoSpec {
        loss: named_in(&LOSSES, value.get("loss")?)?,
        groups,
        weights,
        penalty,
        lambda: value.get("lambda")?.as_f64()?,
        intercept: truth("intercept")?,
        standardise: Standardise { centre: truth("centre")?, scale: truth("scale")? },
    })
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64()?.try_into().ok()
}

fn numbers(value: &Value) -> Option<Vec<usize>> {
    value.as_array()?.iter().map(number).collect()
}

fn lists(value: &Value) -> Option<Vec<Vec<usize>>> {
    value.as_array()?.iter().map(numbers).collect()
}

fn name_in<X: PartialEq>(names: &[(&str, X)], value: X) -> Value {
    names.iter().find(|(_, other)| *other == value).map_or(Value::Null, |(name, _)| json!(name))
}

fn named_in<X: Copy>(names: &[(&str, X)], value: &Value) -> Option<X> {
    let text = value.as_str()?;
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
}
