//! Bad input is an error at the door, and nothing has been written by then.
#![allow(clippy::unwrap_used)]

mod common;

use ndarray::{Array1, Array3, Array4};
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, Gradients, Inputs, Keys, Outputs, Queries,
    Saved,
};
use tilewright_cpu::{CpuAttention, SplitKv, StandardAttention};

/// Everything a call takes, by value, for a table row to spoil.
struct Call {
    spec: AttentionSpec,
    method: CpuAttention,
    q: Array4<f32>,
    k: Array4<f32>,
    v: Array4<f32>,
    o: Array4<f32>,
    lse: Array3<f32>,
    d_o: Array4<f32>,
    d_lse: Array3<f32>,
    bias: Option<Array4<f32>>,
    sink: Option<Array1<f32>>,
    d_q: Array4<f32>,
    d_bias: Option<Array4<f32>>,
    d_sink: Option<Array1<f32>>,
}

const UNTOUCHED: f32 = 7.0;

impl Call {
    fn sound() -> Self {
        let spec = AttentionSpec { value_dim: 6, ..AttentionSpec::dense(2, 2, 3, 5, 4) };
        let filled = |shape| Array4::from_elem(shape, UNTOUCHED);
        Self {
            method: CpuAttention::default(),
            q: filled(spec.q_shape()),
            k: filled(spec.k_shape()),
            v: filled(spec.v_shape()),
            o: filled(spec.o_shape()),
            lse: Array3::from_elem(spec.lse_shape(), UNTOUCHED),
            d_o: filled(spec.o_shape()),
            d_lse: Array3::zeros(spec.lse_shape()),
            bias: None,
            sink: None,
            d_q: filled(spec.q_shape()),
            d_bias: None,
            d_sink: None,
            spec,
        }
    }

    fn forward(&mut self) -> Result<(), AttentionError> {
        let inputs = Inputs {
            bias: self.bias.as_ref().map(|x| x.view()),
            sink: self.sink.as_ref().map(|x| x.view()),
            ..Inputs::new(self.q.view(), self.k.view(), self.v.view())
        };
        self.method.forward(&self.spec, &inputs, Outputs { o: self.o.view_mut(), lse: self.lse.view_mut() })
    }

    fn backward(&mut self, method: &impl AttentionBackward<f32>) -> Result<(), AttentionError> {
        let inputs = Inputs {
            bias: self.bias.as_ref().map(|x| x.view()),
            sink: self.sink.as_ref().map(|x| x.view()),
            ..Inputs::new(self.q.view(), self.k.view(), self.v.view())
        };
        let saved =
            Saved { o: self.o.view(), lse: self.lse.view(), d_o: self.d_o.view(), d_lse: Some(self.d_lse.view()) };
        let (mut d_k, mut d_v) = (self.k.clone(), self.v.clone());
        let gradients = Gradients {
            d_q: self.d_q.view_mut(),
            d_k: d_k.view_mut(),
            d_v: d_v.view_mut(),
            d_bias: self.d_bias.as_mut().map(|x| x.view_mut()),
            d_sink: self.d_sink.as_mut().map(|x| x.view_mut()),
        };
        method.backward(&self.spec, &inputs, &saved, gradients)
    }
}

type Spoil = fn(&mut Call);

#[test]
fn a_sound_call_passes() {
    Call::sound().forward().unwrap();
    let mut call = Call::sound();
    let method = call.method;
    call.backward(&method).unwrap();
}

#[test]
fn both_passes_check_problem_and_inputs() {
    let table: [(&str, Spoil); 13] = [
        ("head_dim: got 0", |c| c.spec.head_dim = 0),
        ("kv_heads: got 3", |c| c.spec.kv_heads = 3),
        ("scale: got NaN", |c| c.spec.scale = f64::NAN),
        ("softcap: got -1", |c| c.spec.softcap = Some(-1.0)),
        ("alibi: got 1 slopes", |c| c.spec.alibi = Some(vec![0.5])),
        ("queries.cu_seqlens: got 0 entries", |c| c.spec.queries = Queries::Packed { cu_seqlens: vec![] }),
        ("keys.lengths: got 9", |c| c.spec.keys = Keys::Padded { len: 5, lengths: Some(vec![5, 9]) }),
        ("keys.table: got page 4", |c| {
            let table = vec![vec![0, 4], vec![1, 1]];
            c.spec.keys = Keys::Paged { pages: 2, page_size: 3, table, lengths: vec![5, 5] };
        }),
        ("split_kv: got every 0 keys", |c| c.method = c.method.with_split_kv(SplitKv::Every(0))),
        ("shape of q: got [2, 2, 3, 5]", |c| c.q = Array4::zeros((2, 2, 3, 5))),
        ("shape of v: got [2, 2, 5, 4]", |c| c.v = Array4::zeros((2, 2, 5, 4))),
        ("shape of bias: got [2, 2, 2, 5]", |c| c.bias = Some(Array4::zeros((2, 2, 2, 5)))),
        ("shape of sink: got [3]", |c| c.sink = Some(Array1::zeros(3))),
    ];
    for (expected, spoil) in table {
        let mut call = Call::sound();
        spoil(&mut call);
        let error = call.forward().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} for {expected}");
        assert!(call.o.iter().chain(&call.lse).all(|x| *x == UNTOUCHED), "{expected}: written");
        let method = call.method;
        let error = call.backward(&method).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} for {expected}");
        assert!(call.d_q.iter().all(|x| *x == UNTOUCHED), "{expected}: written");
    }
}

#[test]
fn each_pass_checks_its_outputs() {
    let table: [(&str, Spoil); 2] = [
        ("shape of o: got [2, 2, 3, 4]", |c| c.o = Array4::from_elem((2, 2, 3, 4), UNTOUCHED)),
        ("shape of lse: got [2, 2, 4]", |c| c.lse = Array3::from_elem((2, 2, 4), UNTOUCHED)),
    ];
    for (expected, spoil) in table {
        let mut call = Call::sound();
        spoil(&mut call);
        let error = call.forward().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} for {expected}");
        assert!(call.o.iter().chain(&call.lse).all(|x| *x == UNTOUCHED), "{expected}: written");
    }
    let table: [(&str, Spoil); 7] = [
        ("shape of o: got [2, 2, 3, 4]", |c| c.o = Array4::zeros((2, 2, 3, 4))),
        ("shape of d_o: got [2, 2, 3, 4]", |c| c.d_o = Array4::zeros((2, 2, 3, 4))),
        ("shape of d_lse: got [2, 2, 5]", |c| c.d_lse = Array3::zeros((2, 2, 5))),
        ("shape of d_q: got [2, 2, 3, 6]", |c| c.d_q = Array4::from_elem((2, 2, 3, 6), UNTOUCHED)),
        ("tensor d_bias: asked for", |c| c.d_bias = Some(Array4::zeros((1, 1, 1, 1)))),
        ("tensor d_sink: asked for", |c| c.d_sink = Some(Array1::zeros(2))),
        ("shape of d_bias: got [1, 1, 1, 1]", |c| {
            (c.bias, c.d_bias) = (Some(Array4::zeros((1, 1, 3, 1))), Some(Array4::zeros((1, 1, 1, 1))));
        }),
    ];
    for (expected, spoil) in table {
        let mut call = Call::sound();
        spoil(&mut call);
        let method = call.method;
        let error = call.backward(&method).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} for {expected}");
        assert!(call.d_q.iter().all(|x| *x == UNTOUCHED), "{expected}: written");
    }
}

#[test]
fn the_standard_method_names_what_it_lacks() {
    let mut call = Call::sound();
    (call.bias, call.d_bias) = (Some(Array4::zeros((1, 1, 1, 1))), Some(Array4::zeros((1, 1, 1, 1))));
    let error = call.backward(&StandardAttention).unwrap_err().to_string();
    assert_eq!(error, "unsupported: d_bias in the standard backward pass");
    let mut call = Call::sound();
    call.spec.keys = Keys::Paged { pages: 2, page_size: 5, table: vec![vec![0], vec![1]], lengths: vec![5, 5] };
    let error = call.backward(&StandardAttention).unwrap_err().to_string();
    assert_eq!(error, "unsupported: paged keys in the standard backward pass");
    assert!(call.d_q.iter().all(|x| *x == UNTOUCHED));
}
