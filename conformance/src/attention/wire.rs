//! An attention problem as JSON: what a request of the `--cmd` protocol carries and what a case file keeps for each of
//! its cases.
//!
//! One object. Counts are non-negative integers; a key whose value is `null` counts as absent, except `scale`.
//!
//! | key | value | when absent |
//! |---|---|---|
//! | `scale` | finite number | `1/√head_dim` |
//! | `causal` | boolean | `false` |
//! | `causal_align` | `"bottom_right"` or `"top_left"` | `"bottom_right"` |
//! | `window` | `[left, right]`, each a count or `null` (unbounded) | no window |
//! | `softcap` | finite number above 0 | no softcap |
//! | `alibi` | one slope a query head | no ALiBi |
//! | `kv_lengths` | one count a sequence | every key row is in use |
//! | `cu_seqlens_q`, `cu_seqlens_k` | `batch + 1` row offsets from 0: queries, keys are packed | padded |
//! | `page_table`, `page_size` | page numbers, one list a sequence; needs `kv_lengths` | not paged |
//! | `dropout` | `{"p": probability, "seed": 64-bit count}` | no dropout |
//! | `block_mask` | `{"block_q": count, "block_k": count, "blocks": booleans nested [batch or 1][q_heads or 1][rows][columns]}` | no block mask |
//! | `batch`, `q_heads`, `kv_heads`, `head_dim`, `value_dim`, `q_len`, `kv_len` | what the tensors' shapes say, repeated | not checked |
//!
//! `q_len` and `kv_len` are the padded lengths, or the longest sequence where rows are packed or paged. Other keys are
//! nobody's business here: files keep notes such as `source` in them.
//!
//! Numbers survive exactly: `f64` is written with the digits that determine it, and `serde_json` is built to read them
//! back correctly rounded (`float_roundtrip`).

use crate::json::{KeyError, Reader, count, key_error, list_of, number, positive};
use ndarray::Array4;
use serde_json::{Value, json};
use std::fmt;
use tilewright_attention::{AttentionError, AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};

/// Shapes of the tensors a problem comes with: where its dimensions are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Shape of `q`.
    pub q: [usize; 4],
    /// Shape of `k`.
    pub k: [usize; 4],
    /// Shape of `v`.
    pub v: [usize; 4],
}

impl Shapes {
    /// The shapes that a problem asks for.
    pub fn of(spec: &AttentionSpec) -> Self {
        Self { q: spec.q_shape(), k: spec.k_shape(), v: spec.v_shape() }
    }
}

/// Why some JSON is no attention problem.
///
/// ```
/// use serde_json::json;
/// use tilewright_conformance::attention::wire::{Shapes, from_json};
/// let shapes = Shapes { q: [1, 2, 3, 4], k: [1, 2, 5, 4], v: [1, 2, 5, 4] };
/// let error = from_json(&json!({"window": [-1, 0]}), &shapes).unwrap_err();
/// assert_eq!(error.to_string(), "key window[0]: got -1, expected a count or null");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// A key holds something else than it should.
    Key(KeyError),
    /// A tensor's shape does not fit the problem.
    Shape {
        /// The tensor: `q`, `k` or `v`.
        tensor: &'static str,
        /// The shape it has.
        got: [usize; 4],
        /// The shape the problem asks for.
        expected: [usize; 4],
    },
    /// The keys make a problem that is ill-posed.
    Spec(AttentionError),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => error.fmt(f),
            Self::Shape { tensor, got, expected } => write!(f, "shape of {tensor}: got {got:?}, expected {expected:?}"),
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

impl From<AttentionError> for WireError {
    fn from(error: AttentionError) -> Self {
        Self::Spec(error)
    }
}

/// Writes a problem. Every dimension is spelled out; features that are off are left out. A problem that
/// [validates](AttentionSpec::validate) reads back as itself.
///
/// ```
/// use tilewright_attention::AttentionSpec;
/// use tilewright_conformance::attention::wire::{Shapes, from_json, to_json};
/// let spec = AttentionSpec { softcap: Some(30.0), causal: true, ..AttentionSpec::dense(2, 4, 7, 9, 16) };
/// assert_eq!(from_json(&to_json(&spec), &Shapes::of(&spec))?, spec);
/// # Ok::<(), tilewright_conformance::attention::wire::WireError>(())
/// ```
pub fn to_json(spec: &AttentionSpec) -> Value {
    let mut json = json!({
        "batch": spec.batch, "q_heads": spec.q_heads, "kv_heads": spec.kv_heads,
        "head_dim": spec.head_dim, "value_dim": spec.value_dim,
        "q_len": spec.max_q_len(), "kv_len": spec.max_kv_len(),
        "scale": spec.scale, "causal": spec.causal, "causal_align": align_name(spec.align),
    });
    if let Queries::Packed { cu_seqlens } = &spec.queries {
        json["cu_seqlens_q"] = json!(cu_seqlens);
    }
    match &spec.keys {
        Keys::Padded { lengths: None, .. } => {}
        Keys::Padded { lengths: Some(lengths), .. } => json["kv_lengths"] = json!(lengths),
        Keys::Packed { cu_seqlens } => json["cu_seqlens_k"] = json!(cu_seqlens),
        Keys::Paged { page_size, table, lengths, .. } => {
            json["kv_lengths"] = json!(lengths);
            json["page_table"] = json!(table);
            json["page_size"] = json!(page_size);
        }
    }
    if spec.window != Window::default() {
        json["window"] = json!([spec.window.left, spec.window.right]);
    }
    if let Some(softcap) = spec.softcap {
        json["softcap"] = json!(softcap);
    }
    if let Some(slopes) = &spec.alibi {
        json["alibi"] = json!(slopes);
    }
    if let Some(dropout) = spec.dropout {
        json["dropout"] = json!({"p": dropout.p, "seed": dropout.seed});
    }
    if let Some(mask) = &spec.block_mask {
        json["block_mask"] = json!({"block_q": mask.block_q, "block_k": mask.block_k, "blocks": nested(mask)});
    }
    json
}

/// Reads a problem, whose dimensions are those of the tensors it comes with, and validates it.
///
/// # Errors
/// [`WireError`], for the first key that is not understood, shape that does not fit or field that is ill-posed.
pub fn from_json(json: &Value, shapes: &Shapes) -> Result<AttentionSpec, WireError> {
    let Some(map) = json.as_object() else {
        return Err(key_error("(problem)", json, "an object").into());
    };
    let keys = Reader::new(map);
    let mut spec = AttentionSpec {
        queries: queries(keys, shapes)?,
        keys: stored_keys(keys, shapes)?,
        scale: scale(keys, shapes)?,
        softcap: keys.number("softcap")?,
        causal: keys.boolean("causal")?.unwrap_or(false),
        align: align(keys)?,
        window: window(keys)?,
        alibi: keys.list("alibi", number, "a list of slopes")?,
        dropout: dropout(keys)?,
        ..AttentionSpec::dense(0, shapes.q[1], 0, 0, shapes.q[3])
    };
    spec.batch = match &spec.queries {
        Queries::Padded { .. } => shapes.q[0],
        Queries::Packed { cu_seqlens } => cu_seqlens.len().saturating_sub(1),
    };
    (spec.kv_heads, spec.value_dim) = (shapes.k[1], shapes.v[3]);
    // The lengths may be asked for only once the lists they come from are known to be sound.
    spec.validate()?;
    check_shapes(&spec, shapes)?;
    check_dimensions(keys, &spec)?;
    spec.block_mask = block_mask(keys, &spec)?;
    spec.validate()?;
    Ok(spec)
}

fn queries(keys: Reader<'_>, shapes: &Shapes) -> Result<Queries, KeyError> {
    Ok(match keys.counts("cu_seqlens_q")? {
        Some(cu_seqlens) => Queries::Packed { cu_seqlens },
        None => Queries::Padded { len: shapes.q[2] },
    })
}

fn stored_keys(keys: Reader<'_>, shapes: &Shapes) -> Result<Keys, KeyError> {
    let lengths = keys.counts("kv_lengths")?;
    let table = keys.list("page_table", |value| list_of(value, count), "a list of lists of page numbers")?;
    let page_size = keys.count("page_size")?;
    if let Some(cu_seqlens) = keys.counts("cu_seqlens_k")? {
        for rival in ["kv_lengths", "page_table", "page_size"] {
            keys.absent(rival, "no such key beside cu_seqlens_k")?;
        }
        return Ok(Keys::Packed { cu_seqlens });
    }
    let Some(table) = table else {
        keys.absent("page_size", "no such key without page_table")?;
        return Ok(Keys::Padded { len: shapes.k[2], lengths });
    };
    let Some(lengths) = lengths else {
        return Err(key_error("kv_lengths", &Value::Null, "the number of keys of each sequence, for page_table"));
    };
    let page_size = page_size.unwrap_or(shapes.k[2]);
    Ok(Keys::Paged { pages: shapes.k[0], page_size, table, lengths })
}

fn scale(keys: Reader<'_>, shapes: &Shapes) -> Result<f64, KeyError> {
    match keys.raw("scale") {
        // JSON has no NaN: writers put null, and that must not turn into the default.
        Some(value) => number(value).ok_or_else(|| key_error("scale", value, "a number")),
        None => Ok(AttentionSpec::dense(0, 1, 0, 0, shapes.q[3]).scale),
    }
}

fn align(keys: Reader<'_>) -> Result<CausalAlign, KeyError> {
    let Some(value) = keys.get("causal_align") else {
        return Ok(CausalAlign::default());
    };
    [CausalAlign::BottomRight, CausalAlign::TopLeft]
        .into_iter()
        .find(|&align| value == align_name(align))
        .ok_or_else(|| key_error("causal_align", value, "\"bottom_right\" or \"top_left\""))
}

fn align_name(align: CausalAlign) -> &'static str {
    match align {
        CausalAlign::BottomRight => "bottom_right",
        CausalAlign::TopLeft => "top_left",
    }
}

fn window(keys: Reader<'_>) -> Result<Window, KeyError> {
    let Some(value) = keys.get("window") else {
        return Ok(Window::default());
    };
    let Some([left, right]) = value.as_array().map(Vec::as_slice) else {
        return Err(key_error("window", value, "[left, right]"));
    };
    let side = |value: &Value, key: &str| match value {
        Value::Null => Ok(None),
        value => count(value).map(Some).ok_or_else(|| key_error(key, value, "a count or null")),
    };
    Ok(Window { left: side(left, "window[0]")?, right: side(right, "window[1]")? })
}

fn dropout(keys: Reader<'_>) -> Result<Option<Dropout>, KeyError> {
    keys.object("dropout", "dropout.", "{\"p\": .., \"seed\": ..}")?
        .map(|inner| {
            let seed = inner.required("seed", Value::as_u64, "a count below 2^64")?;
            Ok(Dropout { p: inner.required("p", number, "a probability")?, seed })
        })
        .transpose()
}

fn block_mask(keys: Reader<'_>, spec: &AttentionSpec) -> Result<Option<BlockMask>, KeyError> {
    let expected = "{\"block_q\": .., \"block_k\": .., \"blocks\": ..}";
    let Some(inner) = keys.object("block_mask", "block_mask.", expected)? else {
        return Ok(None);
    };
    let block_q = inner.required("block_q", positive, "a count of at least 1")?;
    let block_k = inner.required("block_k", positive, "a count of at least 1")?;
    // Lists that are empty say nothing of the axes inside them: those are as long as the problem has them.
    let mut shape = [spec.batch, spec.q_heads, spec.max_q_len().div_ceil(block_q), spec.max_kv_len().div_ceil(block_k)];
    let value = inner.raw("blocks").unwrap_or(&Value::Null);
    measure(value, &mut shape);
    let mut entries = Vec::new();
    flatten(value, &shape, "block_mask.blocks", &mut entries)?;
    let blocks = Array4::from_shape_vec(shape, entries)
        .map_err(|_| key_error("block_mask.blocks", value, format!("booleans of shape {shape:?}")))?;
    Ok(Some(BlockMask { block_q, block_k, blocks }))
}

/// Axis lengths of nested lists, read off the first list of each level.
fn measure(value: &Value, shape: &mut [usize]) {
    if let (Some(list), [axis, inner @ ..]) = (value.as_array(), shape) {
        *axis = list.len();
        if let Some(first) = list.first() {
            measure(first, inner);
        }
    }
}

/// The entries of nested lists, which must have exactly this shape.
fn flatten(value: &Value, shape: &[usize], key: &str, entries: &mut Vec<bool>) -> Result<(), KeyError> {
    let [axis, inner @ ..] = shape else {
        entries.push(value.as_bool().ok_or_else(|| key_error(key, value, "a boolean"))?);
        return Ok(());
    };
    match value.as_array() {
        Some(list) if list.len() == *axis => list.iter().try_for_each(|value| flatten(value, inner, key, entries)),
        _ => Err(key_error(key, value, format!("a list of {axis}"))),
    }
}

fn nested(mask: &BlockMask) -> Value {
    let level = |view: ndarray::ArrayView2<'_, bool>| view.outer_iter().map(|row| row.to_vec()).collect::<Vec<_>>();
    mask.blocks.outer_iter().map(|head| head.outer_iter().map(level).collect::<Vec<_>>()).map(|b| json!(b)).collect()
}

fn check_shapes(spec: &AttentionSpec, shapes: &Shapes) -> Result<(), WireError> {
    let fit = Shapes::of(spec);
    for (tensor, got, expected) in [("q", shapes.q, fit.q), ("k", shapes.k, fit.k), ("v", shapes.v, fit.v)] {
        if got != expected {
            return Err(WireError::Shape { tensor, got, expected });
        }
    }
    Ok(())
}

fn check_dimensions(keys: Reader<'_>, spec: &AttentionSpec) -> Result<(), KeyError> {
    for (key, actual) in [
        ("batch", spec.batch),
        ("q_heads", spec.q_heads),
        ("kv_heads", spec.kv_heads),
        ("head_dim", spec.head_dim),
        ("value_dim", spec.value_dim),
        ("q_len", spec.max_q_len()),
        ("kv_len", spec.max_kv_len()),
    ] {
        if let Some(value) = keys.get(key).filter(|value| count(value) != Some(actual)) {
            return Err(key_error(key, value, format!("{actual}, as the tensors have it")));
        }
    }
    Ok(())
}
