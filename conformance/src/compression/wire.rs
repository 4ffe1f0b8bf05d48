//! A compression problem as JSON: what a request of the `--cmd` protocol carries and what a case file keeps for each of
//! its cases.
//!
//! One object. A key whose value is `null` counts as absent.
//!
//! | key | value | when absent |
//! |---|---|---|
//! | `len` | count | the gradient's length |
//! | `selector` | `{"kind": "top-k" or "random-k", COUNT}`, `{"kind": "sampled", COUNT, "ratio": number, "refine": {"lower", "upper", "iterations"} or null}`, `{"kind": "fixed", "threshold": number}`; COUNT is `"density": number` or `"entries": count` | an error |
//! | `placement` | `{"kind": "compact"}` or `{"kind": "hash-table", "slots_per_entry": number` or `"slots": count, "policy": "largest-magnitude" or "any"}` | compact |
//! | `feedback` | `{"kind": "none"}`, `{"kind": "residual"}` or `{"kind": "momentum", "factor": number, "nesterov": boolean, "masking": boolean}` | residual |
//! | `wire` | `{"value": "f32", "bf16" or "f16", "index": "plain" or "rice"}` | `f32`, plain |
//! | `non_finite` | `"propagate"` or `"reject"` | propagate |
//! | `seed` | 64-bit count | 0 |
//!
//! Other keys are nobody's business here: files keep notes in them.

use crate::compression::case::{index_from_name, index_name, value_from_name, value_name};
use crate::json::{KeyError, Reader, count, key_error, number};
use serde_json::{Value, json};
use std::fmt;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::{
    CompressionError, CompressionSpec, Count, Feedback, NonFinite, Placement, Policy, Refinement, Sampling, Selector,
    Slots, Wire,
};

/// Why some JSON is no compression problem.
///
/// ```
/// use serde_json::json;
/// use tilewright_conformance::compression::wire::from_json;
/// let error = from_json(&json!({"selector": {"kind": "top-k", "density": "low"}}), 10).unwrap_err();
/// assert_eq!(error.to_string(), "key selector.density: got \"low\", expected a number");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A key holds something else than it should.
    Key(KeyError),
    /// The keys make a problem that is ill-posed.
    Spec(CompressionError),
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

impl From<CompressionError> for WireError {
    fn from(error: CompressionError) -> Self {
        Self::Spec(error)
    }
}

/// Writes a problem, every key of it. A problem that validates reads back as itself.
///
/// ```
/// use tilewright_compression::{CompressionSpec, Count};
/// use tilewright_conformance::compression::wire::{from_json, to_json};
/// let spec = CompressionSpec { seed: u64::MAX, ..CompressionSpec::dragonn(1000, Count::Density(0.01), 0.9) };
/// assert_eq!(from_json(&to_json(&spec), 1000)?, spec);
/// # Ok::<(), tilewright_conformance::compression::wire::WireError>(())
/// ```
pub fn to_json(spec: &CompressionSpec) -> Value {
    json!({
        "len": spec.len,
        "selector": selector_json(&spec.selector),
        "placement": placement_json(&spec.placement),
        "feedback": match spec.feedback {
            Feedback::None => json!({"kind": "none"}),
            Feedback::Residual => json!({"kind": "residual"}),
            Feedback::Momentum { factor, nesterov, masking } => {
                json!({"kind": "momentum", "factor": factor, "nesterov": nesterov, "masking": masking})
            }
        },
        "wire": {"value": value_name(spec.wire.value), "index": index_name(spec.wire.index)},
        "non_finite": non_finite_name(spec.non_finite),
        "seed": spec.seed,
    })
}

/// What follows from a problem and a step, for programs that do not want to derive it: `k`, `slots`, and the step's
/// seeds of hash, sample and permutation.
pub fn derived(spec: &CompressionSpec, step: u64) -> Value {
    let seeds = StepSeeds::new(spec.seed, step);
    json!({
        "k": spec.selector.aim(spec.len),
        "slots": spec.slots().ok().flatten(),
        "hash_seed": seeds.hash,
        "sample_seed": seeds.sample,
        "permutation_keys": seeds.permutation,
    })
}

fn selector_json(selector: &Selector) -> Value {
    let counted = |kind: &str, count: &Count| match count {
        Count::Density(density) => json!({"kind": kind, "density": density}),
        Count::Entries(entries) => json!({"kind": kind, "entries": entries}),
    };
    match selector {
        Selector::ExactTopK(count) => counted("top-k", count),
        Selector::RandomK(count) => counted("random-k", count),
        Selector::FixedThreshold(threshold) => json!({"kind": "fixed", "threshold": threshold}),
        Selector::SampledThreshold(count, Sampling { ratio, refine }) => {
            let mut json = counted("sampled", count);
            json["ratio"] = json!(ratio);
            json["refine"] = refine.map_or(
                Value::Null,
                |Refinement { lower, upper, iterations }| json!({"lower": lower, "upper": upper, "iterations": iterations}),
            );
            json
        }
    }
}

fn placement_json(placement: &Placement) -> Value {
    let Placement::HashTable { slots, policy } = placement else { return json!({"kind": "compact"}) };
    let policy = policy_name(*policy);
    match slots {
        Slots::PerEntry(slots) => json!({"kind": "hash-table", "slots_per_entry": slots, "policy": policy}),
        Slots::Exactly(slots) => json!({"kind": "hash-table", "slots": slots, "policy": policy}),
    }
}

fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::LargestMagnitude => "largest-magnitude",
        Policy::Any => "any",
    }
}

fn non_finite_name(non_finite: NonFinite) -> &'static str {
    match non_finite {
        NonFinite::Propagate => "propagate",
        NonFinite::Reject => "reject",
    }
}

/// Reads a problem whose gradient has `len` elements, and validates it.
///
/// # Errors
/// [`WireError`], for the first key that is not understood or field that is ill-posed.
pub fn from_json(json: &Value, len: usize) -> Result<CompressionSpec, WireError> {
    let Some(map) = json.as_object() else {
        return Err(key_error("(problem)", json, "an object").into());
    };
    let keys = Reader::new(map);
    if let Some(value) = keys.raw("len").filter(|value| !value.is_null() && count(value) != Some(len)) {
        return Err(key_error("len", value, format!("{len}, as the gradient has it")).into());
    }
    let spec = CompressionSpec {
        len,
        selector: selector(keys)?,
        placement: placement(keys)?,
        feedback: feedback(keys)?,
        wire: wire(keys)?,
        non_finite: one_of(keys, "non_finite", &[NonFinite::Propagate, NonFinite::Reject], non_finite_name)?,
        seed: keys.optional("seed", Value::as_u64, "a count below 2^64")?.unwrap_or(0),
    };
    spec.validate()?;
    Ok(spec)
}

/// The value that a name stands for; the first if the key is absent.
fn one_of<T: Copy>(keys: Reader<'_>, key: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, KeyError> {
    let names: Vec<&str> = all.iter().map(|value| name(*value)).collect();
    let known = |value: &Value| all.iter().copied().find(|known| value == name(*known));
    Ok(keys.optional(key, known, &format!("one of {names:?}"))?.unwrap_or(all[0]))
}

fn kind<'a>(keys: Reader<'a>, known: &[&'static str]) -> Result<&'a str, KeyError> {
    let named = |value: &'a Value| value.as_str().filter(|kind| known.contains(kind));
    keys.required("kind", named, &format!("one of {known:?}"))
}

fn selector(keys: Reader<'_>) -> Result<Selector, KeyError> {
    let expected = "{\"kind\": .., ..}";
    let Some(keys) = keys.object("selector", "selector.", expected)? else {
        return Err(key_error("selector", &Value::Null, expected));
    };
    Ok(match kind(keys, &["top-k", "sampled", "fixed", "random-k"])? {
        "top-k" => Selector::ExactTopK(entries(keys)?),
        "random-k" => Selector::RandomK(entries(keys)?),
        "fixed" => Selector::FixedThreshold(keys.required("threshold", number, "a number")? as f32),
        _ => {
            let ratio = keys.required("ratio", number, "a number")?;
            let refine =
                keys.object("refine", "selector.refine.", "{\"lower\": .., ..}")?.map(refinement).transpose()?;
            Selector::SampledThreshold(entries(keys)?, Sampling { ratio, refine })
        }
    })
}

fn entries(keys: Reader<'_>) -> Result<Count, KeyError> {
    match keys.count("entries")? {
        Some(entries) => {
            keys.absent("density", "no such key beside entries")?;
            Ok(Count::Entries(entries))
        }
        None => Ok(Count::Density(keys.required("density", number, "a number")?)),
    }
}

fn refinement(keys: Reader<'_>) -> Result<Refinement, KeyError> {
    let iterations = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    Ok(Refinement {
        lower: keys.required("lower", number, "a number")? as f32,
        upper: keys.required("upper", number, "a number")? as f32,
        iterations: keys.required("iterations", iterations, "a count below 2^32")?,
    })
}

fn placement(keys: Reader<'_>) -> Result<Placement, KeyError> {
    let Some(keys) = keys.object("placement", "placement.", "{\"kind\": .., ..}")? else {
        return Ok(Placement::Compact);
    };
    if kind(keys, &["compact", "hash-table"])? == "compact" {
        return Ok(Placement::Compact);
    }
    let policy = one_of(keys, "policy", &[Policy::LargestMagnitude, Policy::Any], policy_name)?;
    let whole = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let slots = match keys.optional("slots", whole, "a count below 2^32")? {
        Some(slots) => {
            keys.absent("slots_per_entry", "no such key beside slots")?;
            Slots::Exactly(slots)
        }
        None => Slots::PerEntry(keys.required("slots_per_entry", number, "a number")?),
    };
    Ok(Placement::HashTable { slots, policy })
}

fn feedback(keys: Reader<'_>) -> Result<Feedback, KeyError> {
    let Some(keys) = keys.object("feedback", "feedback.", "{\"kind\": .., ..}")? else {
        return Ok(Feedback::Residual);
    };
    Ok(match kind(keys, &["none", "residual", "momentum"])? {
        "none" => Feedback::None,
        "residual" => Feedback::Residual,
        _ => Feedback::Momentum {
            factor: keys.required("factor", number, "a number")? as f32,
            nesterov: keys.boolean("nesterov")?.unwrap_or(false),
            masking: keys.boolean("masking")?.unwrap_or(false),
        },
    })
}

fn wire(keys: Reader<'_>) -> Result<Wire, KeyError> {
    let Some(keys) = keys.object("wire", "wire.", "{\"value\": .., \"index\": ..}")? else {
        return Ok(Wire::default());
    };
    let value = |value: &Value| value.as_str().and_then(value_from_name);
    let index = |value: &Value| value.as_str().and_then(index_from_name);
    Ok(Wire {
        value: keys.optional("value", value, "one of [\"f32\", \"bf16\", \"f16\"]")?.unwrap_or_default(),
        index: keys.optional("index", index, "one of [\"plain\", \"rice\"]")?.unwrap_or_default(),
    })
}
