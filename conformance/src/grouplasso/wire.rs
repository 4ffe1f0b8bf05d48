//! A group-lasso problem as JSON: what a request of the `--cmd` protocol carries and what a case file keeps for each of its
//! cases.
//!
//! One object. A key whose value is `null` counts as absent.
//!
//! | key | value | when absent |
//! |---|---|---|
//! | `loss` | `"least-squares"` or `"multinomial"` | an error |
//! | `groups` | `{"kind": "rows"}`, `{"kind": "sizes", "sizes": counts}`, `{"kind": "lists", "lists": lists of features}`, `{"kind": "overlapping", "lists": lists of features}` | rows |
//! | `weights` | `"sqrt-size"`, `"ones"`, or a number a group | the root of the size |
//! | `penalty` | `{"kind": "group-lasso"}`, `{"kind": "sparse-group", "tau": number}`, `{"kind": "elastic-net", "alpha": number}` | group lasso |
//! | `lambda` | number | an error |
//! | `intercept` | boolean | `true` |
//! | `standardise` | `{"centre": boolean, "scale": boolean}` | neither |
//!
//! A number that is not finite, in a problem that is to be refused, stands there as text: `"NaN"`, `"inf"`, `"-inf"`. Other keys
//! are nobody's business here: files keep notes in them.

use crate::json::{KeyError, Reader, count, key_error, list_of};
use serde_json::{Value, json};
use std::fmt;
use tilewright_grouplasso::{GroupLassoError, GroupLassoSpec, Groups, Layout, Loss, Penalty, Standardise, Weights};

/// Why some JSON is no group-lasso problem.
///
/// ```
/// use serde_json::json;
/// use tilewright_conformance::grouplasso::wire::from_json;
/// let error = from_json(&json!({"loss": "multinomial", "lambda": "low"}), 10).unwrap_err();
/// assert_eq!(error.to_string(), "key lambda: got \"low\", expected a number");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A key holds something else than it should.
    Key(KeyError),
    /// The keys make a problem that is ill-posed.
    Spec(GroupLassoError),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Spec(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}

impl From<KeyError> for WireError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<GroupLassoError> for WireError {
    fn from(error: GroupLassoError) -> Self {
        Self::Spec(error)
    }
}

/// A number, or what JSON has no number for.
pub(crate) fn number_json(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { json!(x.to_string()) }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) if ["NaN", "inf", "-inf"].contains(&text.as_str()) => text.parse().ok(),
        other => other.as_f64(),
    }
}

/// The name of a loss.
pub fn loss_name(loss: Loss) -> &'static str {
    match loss {
        Loss::LeastSquares => "least-squares",
        Loss::Multinomial => "multinomial",
    }
}

/// Writes a problem, every key of it. A problem that validates reads back as itself.
///
/// ```
/// use tilewright_conformance::grouplasso::wire::{from_json, to_json};
/// use tilewright_grouplasso::{GroupLassoSpec, Groups, Loss, Penalty};
/// let rows = GroupLassoSpec::rows(Loss::Multinomial, 0.1);
/// let spec = GroupLassoSpec { groups: Groups::Sizes(vec![2, 3]), penalty: Penalty::SparseGroup { tau: 0.3 }, ..rows };
/// assert_eq!(from_json(&to_json(&spec), 5)?, spec);
/// # Ok::<(), tilewright_conformance::grouplasso::wire::WireError>(())
/// ```
pub fn to_json(spec: &GroupLassoSpec) -> Value {
    json!({
        "loss": loss_name(spec.loss),
        "groups": match &spec.groups {
            Groups::Rows => json!({"kind": "rows"}),
            Groups::Sizes(sizes) => json!({"kind": "sizes", "sizes": sizes}),
            Groups::Lists(lists) => json!({"kind": "lists", "lists": lists}),
            Groups::Overlapping(lists) => json!({"kind": "overlapping", "lists": lists}),
        },
        "weights": match &spec.weights {
            Weights::SqrtSize => json!("sqrt-size"),
            Weights::Ones => json!("ones"),
            Weights::Given(given) => given.iter().copied().map(number_json).collect(),
        },
        "penalty": match spec.penalty {
            Penalty::GroupLasso => json!({"kind": "group-lasso"}),
            Penalty::SparseGroup { tau } => json!({"kind": "sparse-group", "tau": number_json(tau)}),
            Penalty::ElasticNet { alpha } => json!({"kind": "elastic-net", "alpha": number_json(alpha)}),
        },
        "lambda": number_json(spec.lambda),
        "intercept": spec.intercept,
        "standardise": {"centre": spec.standardise.centre, "scale": spec.standardise.scale},
    })
}

/// What follows from a problem, for programs that do not want to derive it: the rows of each group, the feature of each
/// row, and each group's weight. `null` for a problem that is none.
pub fn derived(spec: &GroupLassoSpec, features: usize) -> Value {
    let (Ok(()), Ok(layout)) = (spec.validate(features), Layout::new(&spec.groups, features)) else {
        return Value::Null;
    };
    let groups = 0..layout.groups();
    json!({
        "rows": layout.rows(),
        "features": (0..layout.rows()).map(|row| layout.feature(row)).collect::<Vec<_>>(),
        "groups": groups.clone().map(|group| layout.rows_of(group).collect()).collect::<Vec<Vec<usize>>>(),
        "weights": groups.map(|group| layout.weight(&spec.weights, group)).collect::<Vec<_>>(),
    })
}

/// Reads a problem over so many features, and validates it.
///
/// # Errors
/// [`WireError`], for the first key that is not understood or field that is ill-posed.
pub fn from_json(json: &Value, features: usize) -> Result<GroupLassoSpec, WireError> {
    let Some(map) = json.as_object() else {
        return Err(key_error("(problem)", json, "an object").into());
    };
    let keys = Reader::new(map);
    let named =
        |value: &Value| [Loss::LeastSquares, Loss::Multinomial].into_iter().find(|loss| value == loss_name(*loss));
    let spec = GroupLassoSpec {
        loss: keys.required("loss", named, "least-squares or multinomial")?,
        groups: groups(keys)?,
        weights: keys
            .optional("weights", weights, "\"sqrt-size\", \"ones\", or a list of numbers")?
            .unwrap_or_default(),
        penalty: penalty(keys)?,
        lambda: keys.required("lambda", number, "a number")?,
        intercept: keys.boolean("intercept")?.unwrap_or(true),
        standardise: standardise(keys)?,
    };
    spec.validate(features)?;
    Ok(spec)
}

fn kind<'a>(keys: Reader<'a>, known: &[&'static str]) -> Result<&'a str, KeyError> {
    let named = |value: &'a Value| value.as_str().filter(|kind| known.contains(kind));
    keys.required("kind", named, &format!("one of {known:?}"))
}

fn groups(keys: Reader<'_>) -> Result<Groups, KeyError> {
    let Some(keys) = keys.object("groups", "groups.", "{\"kind\": .., ..}")? else { return Ok(Groups::Rows) };
    let list = |value: &Value| list_of(value, count);
    let lists = || keys.required("lists", |value| list_of(value, list), "a list of lists of counts");
    Ok(match kind(keys, &["rows", "sizes", "lists", "overlapping"])? {
        "rows" => Groups::Rows,
        "sizes" => Groups::Sizes(keys.required("sizes", list, "a list of counts")?),
        "lists" => Groups::Lists(lists()?),
        _ => Groups::Overlapping(lists()?),
    })
}

fn weights(value: &Value) -> Option<Weights> {
    match value.as_str() {
        Some("sqrt-size") => Some(Weights::SqrtSize),
        Some("ones") => Some(Weights::Ones),
        Some(_) => None,
        None => list_of(value, number).map(Weights::Given),
    }
}

fn penalty(keys: Reader<'_>) -> Result<Penalty, KeyError> {
    let Some(keys) = keys.object("penalty", "penalty.", "{\"kind\": .., ..}")? else { return Ok(Penalty::GroupLasso) };
    Ok(match kind(keys, &["group-lasso", "sparse-group", "elastic-net"])? {
        "group-lasso" => Penalty::GroupLasso,
        "sparse-group" => Penalty::SparseGroup { tau: keys.required("tau", number, "a number")? },
        _ => Penalty::ElasticNet { alpha: keys.required("alpha", number, "a number")? },
    })
}

fn standardise(keys: Reader<'_>) -> Result<Standardise, KeyError> {
    let Some(keys) = keys.object("standardise", "standardise.", "{\"centre\": .., \"scale\": ..}")? else {
        return Ok(Standardise::default());
    };
    Ok(Standardise { centre: keys.boolean("centre")?.unwrap_or(false), scale: keys.boolean("scale")?.unwrap_or(false) })
}
