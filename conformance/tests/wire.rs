//! Problems survive the trip through JSON, cases the trip through files, and nothing hostile does any harm.
#![allow(clippy::unwrap_used, missing_docs)]

use ndarray::Array4;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Dropout, Format, Keys, Queries, Window};
use tilewright_conformance::Tensor;
use tilewright_conformance::attention::file::{self, FileProblem};
use tilewright_conformance::attention::wire::{Shapes, from_json, to_json};

const KEYS: [&str; 22] = [
    "scale",
    "causal",
    "causal_align",
    "window",
    "softcap",
    "alibi",
    "kv_lengths",
    "cu_seqlens_q",
    "cu_seqlens_k",
    "page_table",
    "page_size",
    "dropout",
    "block_mask",
    "batch",
    "q_heads",
    "kv_heads",
    "head_dim",
    "value_dim",
    "q_len",
    "kv_len",
    "source",
    "window ",
];

fn offsets(lengths: &[usize]) -> Vec<usize> {
    std::iter::once(0)
        .chain(lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        }))
        .collect()
}

fn finite() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |x| x.is_finite())
}

fn queries(lengths: Vec<usize>) -> impl Strategy<Value = Queries> {
    let padded = Queries::Padded { len: lengths.iter().copied().max().unwrap_or(3) };
    prop_oneof![Just(padded), Just(Queries::Packed { cu_seqlens: offsets(&lengths) })]
}

fn keys(lengths: Vec<usize>) -> impl Strategy<Value = Keys> {
    let len = lengths.iter().copied().max().unwrap_or(4);
    let (some, packed) = (Some(lengths.clone()), Keys::Packed { cu_seqlens: offsets(&lengths) });
    let paged = (1usize..5, 1usize..6).prop_flat_map(move |(page_size, pages)| {
        let lengths = lengths.clone();
        let rows: Vec<_> = lengths.iter().map(|length| vec(0..pages, length.div_ceil(page_size))).collect();
        rows.prop_map(move |table| Keys::Paged { pages, page_size, table, lengths: lengths.clone() })
    });
    prop_oneof![
        Just(Keys::Padded { len, lengths: None }),
        Just(Keys::Padded { len, lengths: some }),
        Just(packed),
        paged
    ]
}

fn features() -> impl Strategy<Value = AttentionSpec> {
    let heads = (1usize..4, 1usize..4, 1usize..9, 1usize..9);
    let numbers = (finite(), proptest::option::of(finite().prop_map(|c| c.abs().max(f64::MIN_POSITIVE))));
    let window = (proptest::option::of(any::<usize>()), proptest::option::of(0usize..20));
    let dropout = proptest::option::of((0.0..1.0, any::<u64>()));
    (heads, numbers, any::<bool>(), any::<bool>(), window, dropout).prop_map(
        |(heads, numbers, causal, top, window, drop)| AttentionSpec {
            q_heads: heads.0 * heads.1,
            head_dim: heads.2,
            value_dim: heads.3,
            scale: numbers.0,
            softcap: numbers.1,
            causal,
            align: if top { CausalAlign::TopLeft } else { CausalAlign::BottomRight },
            window: Window { left: window.0, right: window.1 },
            dropout: drop.map(|(p, seed)| Dropout { p, seed }),
            ..AttentionSpec::dense(0, heads.0, 0, 0, 1)
        },
    )
}

/// Every kind of problem the specification has.
fn specs() -> impl Strategy<Value = AttentionSpec> {
    vec((0usize..9, 0usize..9), 0..4)
        .prop_flat_map(|lengths| {
            let (q, k): (Vec<_>, Vec<_>) = lengths.into_iter().unzip();
            (Just(q.len()), queries(q), keys(k), features())
        })
        .prop_map(|(batch, queries, keys, features)| AttentionSpec { batch, queries, keys, ..features })
        .prop_flat_map(|spec| {
            let alibi = proptest::option::of(vec(finite(), spec.q_heads));
            let axes = (any::<bool>(), any::<bool>(), 1usize..5, 1usize..5, any::<bool>(), vec(any::<bool>(), 64));
            (Just(spec), alibi, axes).prop_map(|(spec, alibi, (one_b, one_h, block_q, block_k, on, bits))| {
                let shape = [
                    if one_b { 1 } else { spec.batch },
                    // Under an empty list nothing tells a shared axis from a full one.
                    if one_h && (one_b || spec.batch > 0) { 1 } else { spec.q_heads },
                    spec.max_q_len().div_ceil(block_q),
                    spec.max_kv_len().div_ceil(block_k),
                ];
                let blocks = Array4::from_shape_fn(shape, |(b, h, i, j)| bits[(b * 31 + h * 17 + i * 5 + j) % 64]);
                AttentionSpec { alibi, block_mask: on.then_some(BlockMask { block_q, block_k, blocks }), ..spec }
            })
        })
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0u64..6).prop_map(Value::from),
        prop_oneof!["top_left", "bottom_right", "\\PC{0,90}"].prop_map(Value::from),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("p|seed|block_q|block_k|blocks", inner, 0..5)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn one_line(message: &str) {
    assert!(!message.contains('\n') && message.len() < 500, "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn problems_survive_text(spec in specs()) {
        prop_assert_eq!(spec.validate(), Ok(()));
        let text = to_json(&spec).to_string();
        let back = from_json(&serde_json::from_str(&text).unwrap(), &Shapes::of(&spec)).unwrap();
        prop_assert_eq!(back, spec);
    }

    #[test]
    fn any_json_is_read_or_refused(
        spec in specs(),
        edits in vec((proptest::sample::select(&KEYS[..]), anything()), 1..4),
        shapes in proptest::option::of(any::<[[usize; 4]; 3]>()),
        from_scratch: bool,
    ) {
        let mut json = if from_scratch { json!({}) } else { to_json(&spec) };
        for (key, value) in edits {
            json[key] = value;
        }
        let shapes = shapes.map_or(Shapes::of(&spec), |[q, k, v]| Shapes { q, k, v });
        match from_json(&json, &shapes) {
            Ok(spec) => prop_assert_eq!((spec.validate(), Shapes::of(&spec)), (Ok(()), shapes)),
            Err(error) => one_line(&error.to_string()),
        }
    }

    #[test]
    fn json_of_any_kind_is_no_problem(value in anything()) {
        let shapes = Shapes { q: [1; 4], k: [1; 4], v: [1; 4] };
        prop_assert_eq!(from_json(&value, &shapes).is_ok(), value.is_object());
    }

    #[test]
    fn tensors_survive_files(
        shape in vec(0usize..4, 0..5),
        format in proptest::sample::select(vec![Format::F64, Format::F32, Format::F16, Format::BF16]),
        seed in vec(any::<u8>(), 1..40),
        name in "[a-z/]{1,9}",
        note in "\\PC{0,9}",
    ) {
        let bytes = shape.iter().product::<usize>() * format_bytes(format);
        let data: Vec<u8> = seed.iter().copied().cycle().take(bytes).collect();
        let tensor = Tensor::from_le_bytes(format, &shape, &data).unwrap();
        let (tensors, notes) = (BTreeMap::from([(name.clone(), tensor)]), BTreeMap::from([("note".to_owned(), note)]));
        let (read, metadata) = file::from_bytes(&file::to_bytes(&tensors, notes.clone()).unwrap()).unwrap();
        prop_assert_eq!(metadata, notes);
        prop_assert_eq!((read[&name].shape(), read[&name].format(), read[&name].to_le_bytes()), (&shape[..], format, data));
    }

    #[test]
    fn random_bytes_are_no_file(length in 0u64..60, tail in vec(any::<u8>(), 0..60)) {
        let framed: Vec<u8> = length.to_le_bytes().into_iter().chain(tail.iter().copied()).collect();
        for bytes in [&framed[..], &tail] {
            match file::cases_from_bytes(bytes) {
                Ok(cases) => prop_assert!(cases.is_empty(), "{} cases out of thin air", cases.len()),
                Err(error) => one_line(&error.to_string()),
            }
        }
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        header_edits in vec((any::<prop::sample::Index>(), proptest::sample::select(&b"0123456789,:[]{}\"/qkv.-e"[..])), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sample();
        let header = 8 + usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for (at, byte) in header_edits {
            bytes[8 + at.index(header - 8)] = byte;
        }
        let whole = bytes.len();
        bytes.truncate(cut.map_or(whole, |cut| cut.index(whole)));
        match file::cases_from_bytes(&bytes) {
            Ok(cases) => {
                prop_assert_eq!(bytes.len(), whole);
                for case in &cases {
                    prop_assert_eq!(&Shapes::of(&case.spec).q[..], case.tensors["q"].shape());
                }
            }
            Err(error) => one_line(&error.to_string()),
        }
    }
}

fn format_bytes(format: Format) -> usize {
    if format == Format::F64 {
        8
    } else if format == Format::F32 {
        4
    } else {
        2
    }
}

fn zeros(format: Format, shape: &[usize]) -> Tensor {
    Tensor::from_f64(format, shape, &vec![0.0; shape.iter().product()]).unwrap()
}

/// Tensors of a case named `a`, and its metadata.
fn sample_parts() -> (BTreeMap<String, Tensor>, BTreeMap<String, String>) {
    let spec = AttentionSpec { causal: true, softcap: Some(2.0), ..AttentionSpec::dense(1, 2, 2, 3, 2) };
    let tensor = |role: &str, shape: &[usize]| (format!("a/{role}"), zeros(Format::F16, shape));
    let tensors = [
        tensor("q", &spec.q_shape()),
        tensor("k", &spec.k_shape()),
        tensor("v", &spec.v_shape()),
        tensor("bias", &[1, 2, 1, 3]),
    ];
    (BTreeMap::from(tensors), BTreeMap::from([("a".to_owned(), to_json(&spec).to_string())]))
}

fn sample() -> Vec<u8> {
    let (tensors, metadata) = sample_parts();
    file::to_bytes(&tensors, metadata).unwrap()
}

/// The message that a change to the sample file provokes.
fn refusal(change: impl FnOnce(&mut BTreeMap<String, Tensor>, &mut BTreeMap<String, String>)) -> String {
    let (mut tensors, mut metadata) = sample_parts();
    change(&mut tensors, &mut metadata);
    file::cases_from_bytes(&file::to_bytes(&tensors, metadata).unwrap()).unwrap_err().to_string()
}

fn framed(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn absent_keys_mean_their_defaults() {
    let shapes = Shapes { q: [2, 4, 3, 16], k: [2, 2, 5, 16], v: [2, 2, 5, 8] };
    let plain = AttentionSpec { kv_heads: 2, value_dim: 8, ..AttentionSpec::dense(2, 4, 3, 5, 16) };
    let nulls = json!({"softcap": null, "window": null, "kv_lengths": null, "causal": null, "q_len": null, "batch": 2});
    assert_eq!((plain.scale, plain.align), (0.25, CausalAlign::BottomRight));
    assert_eq!(from_json(&json!({"source": [1]}), &shapes), Ok(plain.clone()));
    assert_eq!(from_json(&nulls, &shapes), Ok(plain));
    let paged = from_json(&json!({"page_table": [[1], [0, 1]], "kv_lengths": [5, 6]}), &shapes).unwrap();
    assert_eq!(
        paged.keys,
        Keys::Paged { pages: 2, page_size: 5, table: vec![vec![1], vec![0, 1]], lengths: vec![5, 6] }
    );
}

#[test]
fn the_sample_is_sound() {
    let cases = file::cases_from_bytes(&sample()).unwrap();
    assert_eq!((cases.len(), cases[0].name.as_str(), cases[0].spec.softcap), (1, "a", Some(2.0)));
    let tagged = refusal(|tensors, metadata| {
        metadata.insert("format".into(), "pt".into());
        tensors.insert("b/q".into(), zeros(Format::F32, &[1]));
    });
    assert_eq!(tagged, "tensor \"b/q\": belongs to no case of the metadata");
}

#[test]
fn messages_name_the_tensor_and_the_key() {
    let metadata = |text: &str| {
        let text = text.to_owned();
        refusal(|_, metadata| {
            metadata.insert("a".into(), text);
        })
    };
    let tensor = |role: &str, tensor: Option<Tensor>| {
        refusal(|tensors, _| {
            let name = format!("a/{role}");
            match tensor {
                Some(tensor) => tensors.insert(name, tensor),
                None => tensors.remove(&name),
            };
        })
    };
    for (message, expected) in [
        (tensor("k", None), "tensor \"a/k\": missing"),
        (
            tensor("v", Some(zeros(Format::F32, &[1, 2, 3, 2]))),
            "tensor \"a/v\": got elements of F32, expected f16, as q has them",
        ),
        (
            tensor("q", Some(zeros(Format::F16, &[2, 2]))),
            "tensor \"a/q\": got shape [2, 2], expected [batch, heads, length, dim]",
        ),
        (
            tensor("d_o", Some(zeros(Format::F64, &[1, 2, 2, 3]))),
            "tensor \"a/d_o\": got shape [1, 2, 2, 3], expected [1, 2, 2, 2]",
        ),
        (
            tensor("bias", Some(zeros(Format::F16, &[2, 3]))),
            "tensor \"a/bias\": got shape [2, 3], expected [1, 2, 2, 3], each may be 1",
        ),
        (
            tensor("k", Some(zeros(Format::F16, &[1, 2, 4, 2]))),
            "metadata of case \"a\": shape of v: got [1, 2, 3, 2], expected [1, 2, 4, 2]",
        ),
        (metadata("causal"), "metadata of case \"a\": not JSON: expected value at line 1 column 1"),
        (metadata("3"), "metadata of case \"a\": key (problem): got 3, expected an object"),
        (metadata("{\"scale\": null}"), "metadata of case \"a\": key scale: got nothing, expected a number"),
        (metadata("{\"scale\": \"x\"}"), "metadata of case \"a\": key scale: got \"x\", expected a number"),
        (metadata("{\"softcap\": -1}"), "metadata of case \"a\": softcap: got -1, expected a finite positive number"),
        (metadata("{\"q_len\": 3}"), "metadata of case \"a\": key q_len: got 3, expected 2, as the tensors have it"),
        (
            metadata("{\"q_len\": 2.5}"),
            "metadata of case \"a\": key q_len: got 2.5, expected 2, as the tensors have it",
        ),
        (metadata("{\"causal\": 1}"), "metadata of case \"a\": key causal: got 1, expected a boolean"),
        (metadata("{\"window\": [1]}"), "metadata of case \"a\": key window: got [1], expected [left, right]"),
        (
            metadata("{\"dropout\": {\"p\": 0.5}}"),
            "metadata of case \"a\": key dropout.seed: got nothing, expected a count below 2^64",
        ),
        (metadata("{\"kv_lengths\": [4]}"), "metadata of case \"a\": keys.lengths: got 4, expected at most kv_len = 3"),
        (
            metadata("{\"cu_seqlens_q\": [0, 18446744073709551615]}"),
            "metadata of case \"a\": q_len: got 18446744073709551615, expected less than 2^32",
        ),
        (
            metadata("{\"page_table\": [[0]]}"),
            "metadata of case \"a\": key kv_lengths: got nothing, expected the number of keys of each sequence, for page_table",
        ),
        (
            metadata("{\"page_size\": 3}"),
            "metadata of case \"a\": key page_size: got 3, expected no such key without page_table",
        ),
        (
            metadata("{\"block_mask\": {\"block_q\": 1, \"block_k\": 3, \"blocks\": [[[[true], [1]]]]}}"),
            "metadata of case \"a\": key block_mask.blocks: got 1, expected a boolean",
        ),
        (
            metadata("{\"block_mask\": {\"block_q\": 0, \"block_k\": 3, \"blocks\": []}}"),
            "metadata of case \"a\": key block_mask.block_q: got 0, expected a count of at least 1",
        ),
    ] {
        assert_eq!(message, expected);
    }
}

#[test]
fn hostile_headers_are_refused() {
    let tensor = |name: &str, from: u64, to: u64, shape: &str| {
        format!("\"{name}\":{{\"dtype\":\"F64\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    // Nine tensors whose offsets add up to almost 2^64: header and data then overflow together.
    let size = 8 * (u64::MAX / 64);
    let mut overflow: Vec<_> =
        (0..8).map(|i| tensor(&format!("t{i}"), i * size, (i + 1) * size, &format!("[{}]", size / 8))).collect();
    overflow.push(tensor("t8", 8 * size, 8 * size + 56, "[7]"));
    let int = "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}";
    for (bytes, expected) in [
        (vec![1, 2, 3], "not a safetensors file: 3 bytes, expected 8 or more"),
        (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file: a header of 18446744073709551615 bytes"),
        (framed("{\"a\":", b""), "not a safetensors file: "),
        (framed(&format!("{{{}}}", tensor("a", 0, 8, "[2]")), &[0; 8]), "not a safetensors file: "),
        (framed(&format!("{{{}}}", tensor("a", 0, 8, "[1]")), &[0; 9]), "not a safetensors file: 9 bytes of data"),
        (framed(&format!("{{{}}}", tensor("a", 8, 0, "[1]")), &[0; 8]), "not a safetensors file: "),
        (
            framed(&format!("{{{}}}", tensor("a", 0, 0, "[0,18446744073709551615,9]")), b""),
            "tensor \"a\": shape [0, 18446744073709551615, 9] does not fit",
        ),
        (
            framed(&format!("{{{}}}", overflow.join(",")), &[0; 8]),
            "not a safetensors file: 8 bytes of data, expected 18446744073709551",
        ),
        (framed(int, &[0; 8]), "tensor \"a\": got elements of I64, expected F64, F32, F16 or BF16"),
    ] {
        let message = file::from_bytes(&bytes).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    assert!(matches!(file::cases_from_bytes(&framed("{}", b"")), Ok(cases) if cases.is_empty()));
}

#[test]
fn files_are_replaced_whole_and_errors_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cases.safetensors");
    let error = file::read_cases(&path).unwrap_err();
    assert!(matches!(*error.problem, FileProblem::Io(_)) && error.to_string().contains("cases.safetensors"));
    let (tensors, metadata) = sample_parts();
    std::fs::write(&path, "an older file, longer than nothing").unwrap();
    file::write(&path, &tensors, metadata.clone()).unwrap();
    assert_eq!(file::read(&path).unwrap(), (tensors.clone(), metadata.clone()));
    assert_eq!(file::read_cases(&path).unwrap()[0].tensors.len(), 4);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file stayed behind");
    let error = file::write(directory.path().join("no/such/place"), &tensors, metadata).unwrap_err();
    assert!(error.to_string().contains("no/such/place"), "{error}");
}
