//! Bad input is an error that names the argument, in one line, and nothing has been written by then. No input at all
//! makes the check itself panic.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{Case, Tensors, cases};
use ndarray::{Array1, Array3, Array4};
use proptest::prelude::*;
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, BlockMask, Contract, Dropout, Flash, Format,
    Gradients, Inputs, Keys, Outputs, Queries, Saved, Standard, bound, reference,
};

/// What an output holds before a call, and still holds after one that was refused.
const UNTOUCHED: f32 = 7.0;

/// Everything the operations take, by value, for a row of a table to spoil.
struct Call {
    spec: AttentionSpec,
    memory: usize,
    q: Array4<f32>,
    k: Array4<f32>,
    v: Array4<f32>,
    bias: Option<Array4<f32>>,
    sink: Option<Array1<f32>>,
    o: Array4<f32>,
    lse: Array3<f32>,
    d_o: Array4<f32>,
    d_lse: Array3<f32>,
    d_q: Array4<f32>,
    d_k: Array4<f32>,
    d_v: Array4<f32>,
    d_bias: Option<Array4<f32>>,
    d_sink: Option<Array1<f32>>,
}

type Spoil = Box<dyn Fn(&mut Call)>;

impl Call {
    /// Two sequences of 3 queries and 5 keys, four query heads on two, rows of 4 and of 6.
    fn sound() -> Self {
        let spec = AttentionSpec { kv_heads: 2, value_dim: 6, ..AttentionSpec::dense(2, 4, 3, 5, 4) };
        let filled = |shape| Array4::from_elem(shape, UNTOUCHED);
        let bias = filled([2, 4, 3, 5]);
        Self {
            memory: 96,
            q: filled(spec.q_shape()),
            k: filled(spec.k_shape()),
            v: filled(spec.v_shape()),
            d_bias: Some(bias.clone()),
            bias: Some(bias),
            sink: Some(Array1::zeros(4)),
            o: filled(spec.o_shape()),
            lse: Array3::from_elem(spec.lse_shape(), UNTOUCHED),
            d_o: filled(spec.o_shape()),
            d_lse: Array3::zeros(spec.lse_shape()),
            d_q: filled(spec.q_shape()),
            d_k: filled(spec.k_shape()),
            d_v: filled(spec.v_shape()),
            d_sink: Some(Array1::from_elem(4, UNTOUCHED)),
            spec,
        }
    }

    fn spoilt(spoil: &Spoil) -> Self {
        let mut call = Self::sound();
        spoil(&mut call);
        call
    }

    fn inputs(&self) -> Inputs<'_, f32> {
        Inputs {
            bias: self.bias.as_ref().map(|x| x.view()),
            sink: self.sink.as_ref().map(|x| x.view()),
            ..Inputs::new(self.q.view(), self.k.view(), self.v.view())
        }
    }

    /// The operations that look at the problem and the inputs alone.
    fn readers(&self) -> [Result<(), AttentionError>; 3] {
        let (inputs, contract) = (self.inputs(), Contract::strict(Format::F32));
        [
            inputs.check(&self.spec),
            reference::forward::<f32, f64>(&self.spec, &inputs).map(|_| ()),
            bound::forward(&self.spec, &inputs, &contract).map(|_| ()),
        ]
    }

    /// The operations that look at the gradients that flow in as well.
    fn differentiators(&self) -> [Result<(), AttentionError>; 2] {
        let (inputs, contract) = (self.inputs(), Contract::strict(Format::F32));
        let (d_o, d_lse) = (self.d_o.view(), Some(self.d_lse.view()));
        [
            reference::backward::<f32, f64>(&self.spec, &inputs, d_o, d_lse).map(|_| ()),
            bound::backward(&self.spec, &inputs, d_o, d_lse, &contract).map(|_| ()),
        ]
    }

    /// A forward pass. An error of its own must have left the outputs alone.
    fn forward(&self, method: &impl AttentionForward<f32>) -> Result<(), AttentionError> {
        let (mut o, mut lse) = (self.o.clone(), self.lse.clone());
        let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
        let outcome = method.forward(&self.spec, &self.inputs(), out);
        assert_eq!(outcome.is_err(), o == self.o && lse == self.lse);
        outcome
    }

    /// A backward pass, the same way.
    fn backward(&self) -> Result<(), AttentionError> {
        let (mut d_q, mut d_k, mut d_v) = (self.d_q.clone(), self.d_k.clone(), self.d_v.clone());
        let (mut d_bias, mut d_sink) = (self.d_bias.clone(), self.d_sink.clone());
        let saved =
            Saved { o: self.o.view(), lse: self.lse.view(), d_o: self.d_o.view(), d_lse: Some(self.d_lse.view()) };
        let gradients = Gradients {
            d_q: d_q.view_mut(),
            d_k: d_k.view_mut(),
            d_v: d_v.view_mut(),
            d_bias: d_bias.as_mut().map(|x| x.view_mut()),
            d_sink: d_sink.as_mut().map(|x| x.view_mut()),
        };
        let outcome = Flash { memory: self.memory }.backward(&self.spec, &self.inputs(), &saved, gradients);
        let alone = d_q == self.d_q && d_k == self.d_k && d_v == self.d_v;
        assert_eq!(outcome.is_err(), alone && d_bias == self.d_bias && d_sink == self.d_sink);
        outcome
    }

    /// Every operation there is.
    fn all(&self) -> Vec<Result<(), AttentionError>> {
        let passes = [self.forward(&Flash { memory: self.memory }), self.forward(&Standard), self.backward()];
        [&self.readers()[..], &self.differentiators(), &passes].concat()
    }
}

fn row(message: impl Into<String>, spoil: impl Fn(&mut Call) + 'static) -> (String, Spoil) {
    (message.into(), Box::new(spoil))
}

/// A row whose fault is a number of the specification.
fn number(message: &str, set: impl Fn(&mut AttentionSpec) + 'static) -> (String, Spoil) {
    row(message, move |call| set(&mut call.spec))
}

fn expect(message: &str, outcomes: &[Result<(), AttentionError>]) {
    for outcome in outcomes {
        assert_eq!(outcome.as_ref().unwrap_err().to_string(), message);
    }
    assert!(!message.contains('\n'));
}

#[test]
fn a_sound_call_passes() {
    for outcome in Call::sound().all() {
        outcome.unwrap();
    }
}

/// Every operation refuses each of these, and so does `validate`.
fn refused_by_all(table: Vec<(String, Spoil)>) {
    for (message, spoil) in table {
        let call = Call::spoilt(&spoil);
        expect(&message, &[call.spec.validate()]);
        expect(&message, &call.all());
    }
}

#[test]
fn dimensions() {
    refused_by_all(vec![
        number("q_heads: got 0, expected at least 1", |s| s.q_heads = 0),
        number("kv_heads: got 0, expected at least 1", |s| s.kv_heads = 0),
        number("head_dim: got 0, expected at least 1", |s| s.head_dim = 0),
        number("value_dim: got 0, expected at least 1", |s| s.value_dim = 0),
        number("kv_heads: got 3, expected a divisor of q_heads = 4", |s| s.kv_heads = 3),
        number("kv_heads: got 8, expected a divisor of q_heads = 4", |s| s.kv_heads = 8),
    ]);
}

#[test]
fn packed_offsets() {
    type Place = fn(&mut AttentionSpec, Vec<usize>);
    let places: [(&str, Place); 2] = [
        ("queries.cu_seqlens", |s, cu_seqlens| s.queries = Queries::Packed { cu_seqlens }),
        ("keys.cu_seqlens", |s, cu_seqlens| s.keys = Keys::Packed { cu_seqlens }),
    ];
    for (field, place) in places {
        let offsets = |problem: &str, cu_seqlens: Vec<usize>| {
            row(format!("{field}: got {problem}"), move |c| place(&mut c.spec, cu_seqlens.clone()))
        };
        refused_by_all(vec![
            offsets("0 entries, expected 3, batch + 1", vec![]),
            offsets("2 entries, expected 3, batch + 1", vec![0, 3]),
            offsets("4 entries, expected 3, batch + 1", vec![0, 1, 2, 3]),
            offsets("a first entry of 1, expected 0", vec![1, 3, 6]),
            offsets("3 after 4, expected offsets that never decrease", vec![0, 4, 3]),
            row(format!("{field}: got 3 entries, expected {}, batch + 1", u128::from(u64::MAX) + 1), move |c| {
                c.spec.batch = usize::MAX;
                place(&mut c.spec, vec![0, 3, 5]);
            }),
        ]);
    }
}

#[test]
fn key_lengths_and_pages() {
    let lengths = |message: &str, lengths: Vec<usize>| number(message, move |s| s.keys = padded(Some(lengths.clone())));
    let paged = |message: &str, page_size: usize, table: Vec<Vec<usize>>, lengths: Vec<usize>| {
        number(message, move |s| {
            s.keys = Keys::Paged { pages: 4, page_size, table: table.clone(), lengths: lengths.clone() };
        })
    };
    refused_by_all(vec![
        lengths("keys.lengths: got 0 entries, expected 2, one a sequence", vec![]),
        lengths("keys.lengths: got 3 entries, expected 2, one a sequence", vec![1, 2, 3]),
        lengths("keys.lengths: got 6, expected at most kv_len = 5", vec![5, 6]),
        paged("keys.page_size: got 0, expected at least 1", 0, vec![vec![], vec![]], vec![0, 0]),
        paged("keys.table: got 1 entries, expected 2, one a sequence", 3, vec![vec![0, 1]], vec![5, 5]),
        paged("keys.lengths: got 1 entries, expected 2, one a sequence", 3, vec![vec![0, 1]; 2], vec![5]),
        paged("keys.table: got 1 pages, expected 2 pages for 5 keys", 3, vec![vec![0, 1], vec![2]], vec![5, 5]),
        paged("keys.table: got page 4, expected less than 4", 3, vec![vec![0, 1], vec![2, 4]], vec![5, 5]),
        paged("keys.table: got 2 pages, expected 3 pages for 7 keys", 3, vec![vec![0, 1]; 2], vec![5, 7]),
    ]);
}

fn padded(lengths: Option<Vec<usize>>) -> Keys {
    Keys::Padded { len: 5, lengths }
}

#[test]
fn a_page_beyond_a_sequence_is_not_looked_at() {
    let mut call = Call::sound();
    call.spec.keys =
        Keys::Paged { pages: 4, page_size: 3, table: vec![vec![0, 1, 99], vec![2, 3, 99]], lengths: vec![5, 5] };
    call.spec.validate().unwrap();
}

#[test]
fn numbers() {
    let mut table = Vec::new();
    for (value, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
        table.push(number(&format!("scale: got {name}, expected a finite number"), move |s| s.scale = value));
        table.push(number(&format!("alibi: got {name}, expected finite slopes"), move |s| {
            s.alibi = Some(vec![0.5, 0.5, value, 0.5]);
        }));
    }
    for (value, name) in [(0.0, "0"), (-2.0, "-2"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = format!("softcap: got {name}, expected a finite positive number");
        table.push(number(&message, move |s| s.softcap = Some(value)));
    }
    for (p, name) in [(1.0, "1"), (1.5, "1.5"), (-0.25, "-0.25"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let message = format!("dropout.p: got {name}, expected a probability in [0, 1)");
        table.push(number(&message, move |s| s.dropout = Some(Dropout { p, seed: 1 })));
    }
    let slopes = |n: usize| {
        let message = format!("alibi: got {n} slopes, expected 4, one a query head");
        number(&message, move |s| s.alibi = Some(vec![0.5; n]))
    };
    table.extend([slopes(0), slopes(2), slopes(5)]);
    refused_by_all(table);
}

#[test]
fn block_masks() {
    let mask = |message: &str, block_q: usize, block_k: usize, shape: [usize; 4]| {
        number(message, move |s| {
            s.block_mask = Some(BlockMask { block_q, block_k, blocks: Array4::from_elem(shape, true) });
        })
    };
    let misfit = |shape: [usize; 4]| {
        let message = format!("block_mask.blocks: got {shape:?}, expected [2, 4, 2, 3], the first two may be 1");
        mask(&message, 2, 2, shape)
    };
    refused_by_all(vec![
        mask("block_mask.block_q: got 0, expected at least 1", 0, 2, [2, 4, 2, 3]),
        mask("block_mask.block_k: got 0, expected at least 1", 2, 0, [2, 4, 2, 3]),
        misfit([2, 4, 2, 2]),
        misfit([2, 4, 1, 3]),
        misfit([2, 4, 2, 1]),
        misfit([3, 4, 2, 3]),
        misfit([2, 2, 2, 3]),
        misfit([0, 0, 0, 0]),
    ]);
}

#[test]
fn sizes() {
    let one_page = |pages: usize, page_size: usize| {
        let (table, lengths) = (vec![vec![0]; 2], vec![1; 2]);
        Keys::Paged { pages, page_size, table, lengths }
    };
    let huge = usize::MAX;
    let wide = 1 << 57;
    refused_by_all(vec![
        number("batch: got 4294967297, expected at most 2^32", |s| s.batch = (1 << 32) + 1),
        number("q_heads: got 4294967298, expected at most 2^32", |s| s.q_heads = (1 << 32) + 2),
        number("q_len: got 4294967296, expected less than 2^32", |s| s.queries = Queries::Padded { len: 1 << 32 }),
        number("kv_len: got 4294967296, expected less than 2^32", |s| {
            s.keys = Keys::Padded { len: 1 << 32, lengths: Some(vec![1, 2]) };
        }),
        number("q_len: got 4294967297, expected less than 2^32", |s| {
            s.queries = Queries::Packed { cu_seqlens: vec![0, 2, (1 << 32) + 3] };
        }),
        number("kv_len: got 18446744073709551615, expected less than 2^32", move |s| {
            s.keys = Keys::Packed { cu_seqlens: vec![0, 0, huge] };
        }),
        number(&format!("q: [2, 4, 3, {huge}] overflows the address space"), move |s| s.head_dim = huge),
        number(&format!("k: [{huge}, 2, 1, 4] overflows the address space"), move |s| s.keys = one_page(huge, 1)),
        number(&format!("k: [1, 2, {huge}, 4] overflows the address space"), move |s| s.keys = one_page(1, huge)),
        number(&format!("v: [2, 2, 5, {huge}] overflows the address space"), move |s| s.value_dim = huge),
        number(&format!("o: [2, 4, 3, {wide}] overflows the address space"), move |s| {
            (s.keys, s.value_dim) = (one_page(1, 1), wide);
        }),
        // An axis of no elements hides no overflow: strides are products too.
        number(&format!("v: [2, 2, 0, {huge}] overflows the address space"), move |s| {
            (s.keys, s.value_dim) = (Keys::Padded { len: 0, lengths: None }, huge);
        }),
    ]);
}

/// Every operation refuses each of these, and so does `Inputs::check`; the specification itself is sound.
#[test]
fn shapes_of_inputs() {
    let bias = |shape: [usize; 4]| {
        let message = format!("shape of bias: got {shape:?}, expected [2, 4, 3, 5], each may be 1");
        row(message, move |c| c.bias = Some(Array4::zeros(shape)))
    };
    let table = vec![
        row("shape of q: got [2, 4, 3, 5], expected [2, 4, 3, 4]", |c| c.q = Array4::zeros([2, 4, 3, 5])),
        row("shape of q: got [1, 4, 3, 4], expected [2, 4, 3, 4]", |c| c.q = Array4::zeros([1, 4, 3, 4])),
        row("shape of k: got [2, 4, 5, 4], expected [2, 2, 5, 4]", |c| c.k = Array4::zeros([2, 4, 5, 4])),
        row("shape of v: got [2, 2, 5, 4], expected [2, 2, 5, 6]", |c| c.v = Array4::zeros([2, 2, 5, 4])),
        row("shape of v: got [2, 2, 6, 6], expected [2, 2, 5, 6]", |c| c.v = Array4::zeros([2, 2, 6, 6])),
        row("shape of sink: got [2], expected [4]", |c| c.sink = Some(Array1::zeros(2))),
        bias([2, 4, 2, 5]),
        bias([2, 4, 3, 4]),
        bias([2, 2, 3, 5]),
        bias([0, 4, 3, 5]),
        row("shape of q: got [2, 4, 3, 4], expected [1, 4, 6, 4]", |c| {
            c.spec.queries = Queries::Packed { cu_seqlens: vec![0, 2, 6] };
        }),
        row("shape of k: got [2, 2, 5, 4], expected [3, 2, 4, 4]", |c| {
            let table = vec![vec![0, 1], vec![0, 2]];
            c.spec.keys = Keys::Paged { pages: 3, page_size: 4, table, lengths: vec![5, 8] };
        }),
    ];
    for (message, spoil) in table {
        let call = Call::spoilt(&spoil);
        call.spec.validate().unwrap();
        expect(&message, &call.all());
    }
}

#[test]
fn shapes_of_what_a_forward_pass_writes() {
    let table = [
        row("shape of o: got [2, 4, 3, 4], expected [2, 4, 3, 6]", |c| c.o = Array4::from_elem([2, 4, 3, 4], 1.0)),
        row("shape of lse: got [2, 4, 4], expected [2, 4, 3]", |c| c.lse = Array3::from_elem([2, 4, 4], 1.0)),
        row("memory: got 23, expected at least 4·6 elements, one row of each of Q, K, V and O", |c| c.memory = 23),
    ];
    for (message, spoil) in table {
        let call = Call::spoilt(&spoil);
        expect(&message, &[call.forward(&Flash { memory: call.memory }), call.backward()]);
        if call.memory == Call::sound().memory {
            expect(&message, &[call.forward(&Standard)]);
        }
    }
}

#[test]
fn shapes_of_gradients_that_flow_in() {
    let table = [
        row("shape of d_o: got [2, 4, 3, 4], expected [2, 4, 3, 6]", |c| c.d_o = Array4::zeros([2, 4, 3, 4])),
        row("shape of d_lse: got [2, 4, 5], expected [2, 4, 3]", |c| c.d_lse = Array3::zeros([2, 4, 5])),
    ];
    for (message, spoil) in table {
        let call = Call::spoilt(&spoil);
        expect(&message, &call.differentiators());
        expect(&message, &[call.backward()]);
    }
}

#[test]
fn shapes_of_gradients() {
    let table = [
        row("shape of d_q: got [2, 4, 3, 6], expected [2, 4, 3, 4]", |c| c.d_q = Array4::zeros([2, 4, 3, 6])),
        row("shape of d_k: got [2, 4, 5, 4], expected [2, 2, 5, 4]", |c| c.d_k = Array4::zeros([2, 4, 5, 4])),
        row("shape of d_v: got [2, 2, 5, 4], expected [2, 2, 5, 6]", |c| c.d_v = Array4::zeros([2, 2, 5, 4])),
        row("shape of d_bias: got [1, 4, 3, 5], expected [2, 4, 3, 5]", |c| {
            c.d_bias = Some(Array4::zeros([1, 4, 3, 5]));
        }),
        row("shape of d_bias: got [2, 4, 3, 5], expected [1, 1, 3, 5]", |c| c.bias = Some(Array4::zeros([1, 1, 3, 5]))),
        row("shape of d_sink: got [2], expected [4]", |c| c.d_sink = Some(Array1::zeros(2))),
        row("tensor d_bias: asked for, but the inputs have no bias", |c| c.bias = None),
        row("tensor d_sink: asked for, but the inputs have no sink", |c| c.sink = None),
    ];
    for (message, spoil) in table {
        expect(&message, &[Call::spoilt(&spoil).backward()]);
    }
}

#[test]
fn errors_are_typed() {
    let error = |spoil: fn(&mut Call)| {
        let mut call = Call::sound();
        spoil(&mut call);
        call.backward().unwrap_err()
    };
    assert!(matches!(error(|c| c.spec.head_dim = 0), AttentionError::Spec { field: "head_dim", .. }));
    assert!(matches!(error(|c| c.spec.head_dim = usize::MAX), AttentionError::Overflow { what: "q", .. }));
    assert!(matches!(error(|c| c.q = Array4::zeros([0; 4])), AttentionError::Shape { tensor: "q", .. }));
    assert!(matches!(error(|c| c.sink = None), AttentionError::Presence { tensor: "d_sink", .. }));
    assert_eq!(AttentionError::Unsupported { what: "dropout" }.to_string(), "unsupported: dropout");
}

/// Sizes at which something may wrap, and small ones.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0usize..9,
        1 => prop::sample::select(vec![1 << 31, (1 << 32) - 1, 1 << 32, 1 << 61, usize::MAX / 2, usize::MAX - 1, usize::MAX]),
        1 => any::<usize>(),
    ]
}

fn sizes_list() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(size(), 0..5)
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(0.0), Just(1.0)]
}

fn any_keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        (size(), prop::option::of(sizes_list())).prop_map(|(len, lengths)| Keys::Padded { len, lengths }),
        sizes_list().prop_map(|cu_seqlens| Keys::Packed { cu_seqlens }),
        (size(), size(), prop::collection::vec(sizes_list(), 0..4), sizes_list())
            .prop_map(|(pages, page_size, table, lengths)| Keys::Paged { pages, page_size, table, lengths }),
    ]
}

fn any_queries() -> impl Strategy<Value = Queries> {
    prop_oneof![
        size().prop_map(|len| Queries::Padded { len }),
        sizes_list().prop_map(|cu_seqlens| Queries::Packed { cu_seqlens }),
    ]
}

fn any_block_mask() -> impl Strategy<Value = BlockMask> {
    (size(), size(), any::<[bool; 4]>(), [0usize..4, 0usize..4, 0usize..4, 0usize..4]).prop_map(
        |(block_q, block_k, shared, mut shape)| {
            shape.iter_mut().zip(shared).filter(|(_, shared)| *shared).for_each(|(axis, _)| *axis = 1);
            BlockMask { block_q, block_k, blocks: Array4::from_elem(shape, true) }
        },
    )
}

prop_compose! {
    /// A sound specification some of whose fields are replaced by others that know nothing of the rest.
    fn any_spec()
        (
            case in cases(),
            dimensions in prop::array::uniform5(prop::option::weighted(0.2, size())),
            queries in prop::option::weighted(0.3, any_queries()),
            keys in prop::option::weighted(0.3, any_keys()),
            scale in prop::option::weighted(0.1, any_number()),
            softcap in prop::option::weighted(0.1, any_number()),
            dropout in prop::option::weighted(0.1, (any_number(), any::<u64>())),
            alibi in prop::option::weighted(0.1, prop::collection::vec(any_number(), 0..8)),
            block_mask in prop::option::weighted(0.2, any_block_mask()),
        )
    -> AttentionSpec {
        let mut spec = case.spec;
        let fields =
            [&mut spec.batch, &mut spec.q_heads, &mut spec.kv_heads, &mut spec.head_dim, &mut spec.value_dim];
        fields.into_iter().zip(dimensions).for_each(|(field, other)| *field = other.unwrap_or(*field));
        spec.queries = queries.unwrap_or(spec.queries);
        spec.keys = keys.unwrap_or(spec.keys);
        spec.scale = scale.unwrap_or(spec.scale);
        spec.softcap = softcap.or(spec.softcap);
        spec.dropout = dropout.map(|(p, seed)| Dropout { p, seed }).or(spec.dropout);
        spec.alibi = alibi.or(spec.alibi);
        spec.block_mask = block_mask.or(spec.block_mask);
        spec
    }
}

/// A tensor shape; `near` with at most one axis changed, most of the time.
fn shape_near(near: [usize; 4]) -> impl Strategy<Value = [usize; 4]> {
    (0usize..8, 0usize..5).prop_map(move |(axis, size)| {
        let mut shape = near;
        shape.iter_mut().skip(axis).take(1).for_each(|axis| *axis = size);
        shape
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever the fields hold, the answer is `Ok` or one line.
    #[test]
    fn no_specification_makes_validation_panic(spec in any_spec()) {
        if let Err(error) = spec.validate() {
            let message = error.to_string();
            prop_assert!(!message.is_empty() && !message.contains('\n'), "{message}");
        }
    }
}

proptest! {
    /// A sound problem with tensors of nearly the right shapes: an operation succeeds exactly if the check does.
    #[test]
    fn what_the_check_passes_can_be_computed(
        (case, q, k, v, bias) in cases().prop_flat_map(|case| {
            let spec = &case.spec;
            let (q, k, v, bias) = (spec.q_shape(), spec.k_shape(), spec.v_shape(), spec.full_bias_shape());
            (Just(case), shape_near(q), shape_near(k), shape_near(v), shape_near(bias))
        })
    ) {
        let Case { spec, memory, .. } = &case;
        let zeros = |shape: [usize; 4]| Array4::<f32>::zeros(shape);
        let (q, k, v, bias) = (zeros(q), zeros(k), zeros(v), zeros(bias));
        let inputs = Inputs { bias: Some(bias.view()), ..Inputs::new(q.view(), k.view(), v.view()) };
        let sound = inputs.check(spec);
        let mut out = common::Forward::<f32>::new(spec);
        prop_assert_eq!(&reference::forward::<f32, f64>(spec, &inputs).map(|_| ()), &sound);
        prop_assert_eq!(&Flash { memory: *memory }.forward(spec, &inputs, out.outputs()), &sound);
        prop_assert_eq!(&Standard.forward(spec, &inputs, out.outputs()), &sound);
        prop_assert_eq!(&bound::forward(spec, &inputs, &Contract::strict(Format::F32)).map(|_| ()), &sound);
    }

    /// The generator of sound problems is sound, so the test above has something to pass.
    #[test]
    fn cases_are_sound(case in cases()) {
        Tensors::<f32>::new(&case).inputs().check(&case.spec).unwrap();
    }
}
