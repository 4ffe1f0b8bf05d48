//! What a case expects: the reference's answer and the limits of error around it.

use crate::attention::generate::Problem;
use crate::attention::typed::{self, with_element};
use crate::tensor::Stored;
use ndarray::{Array, Dimension};
use std::collections::BTreeMap;
use tilewright_attention::bound::{self, Limit};
use tilewright_attention::{Contract, reference};
use tilewright_scalar::{DoubleDouble, Format, Real};

/// The outputs of a forward pass.
pub const FORWARD: [&str; 2] = ["o", "lse"];
/// The outputs of a backward pass; the last two exist only with a bias and with sinks.
pub const BACKWARD: [&str; 5] = ["d_q", "d_k", "d_v", "d_bias", "d_sink"];

/// The true value of one tensor, in C order, and how far from it an answer may lie.
#[derive(Clone, Debug)]
pub struct ExpectedTensor {
    /// Shape.
    pub shape: Vec<usize>,
    /// What it is stored in.
    pub format: Format,
    /// The values, to about 106 bits for `f64` storage and to 53 otherwise.
    pub value: Vec<DoubleDouble>,
    /// Certain bound on the error.
    pub worst: Vec<f64>,
    /// Systematic part of the error of a correct kernel.
    pub coherent: Vec<f64>,
    /// Standard deviation of the rest.
    pub sigma: Vec<f64>,
}

/// The true values of a problem's outputs, by name.
pub type Expected = BTreeMap<&'static str, ExpectedTensor>;

/// The names of the outputs a problem has.
pub fn outputs(problem: &Problem, backward: bool) -> Vec<&'static str> {
    let mut names = FORWARD.to_vec();
    if backward {
        let has = |name: &str| match name {
            "d_bias" => problem.inputs.contains_key("bias"),
            "d_sink" => problem.inputs.contains_key("sink"),
            _ => true,
        };
        names.extend(BACKWARD.iter().filter(|name| has(name)));
    }
    names
}

/// Computes the reference's answer and its limits. `f64` problems are solved in double-double.
///
/// # Errors
/// A line of text if the tensors do not fit the problem.
pub fn expect(problem: &Problem, contract: &Contract, backward: bool) -> Result<Expected, String> {
    with_element!(contract.storage, T => if contract.storage == Format::F64 {
        typed_expect::<T, DoubleDouble>(problem, contract, backward)
    } else {
        typed_expect::<T, f64>(problem, contract, backward)
    })
}

fn typed_expect<T: Stored, A: Real + Into<Wide>>(
    problem: &Problem,
    contract: &Contract,
    backward: bool,
) -> Result<Expected, String>
where
    T::Accum: Stored,
{
    let spec = &problem.spec;
    let inputs = typed::inputs::<T>(&problem.inputs)?;
    let text = |error: tilewright_attention::AttentionError| error.to_string();
    let mut expected = Expected::new();
    let result = reference::forward::<T, A>(spec, &inputs).map_err(text)?;
    let limits = bound::forward(spec, &inputs, contract).map_err(text)?;
    expected.insert("o", tensor(contract.storage, result.o, limits.o));
    expected.insert("lse", tensor(contract.lse, result.lse, limits.lse));
    if backward {
        let d_o = typed::view(&problem.inputs, "d_o")?;
        let d_lse = typed::view_if_present(&problem.inputs, "d_lse")?;
        let result = reference::backward::<T, A>(spec, &inputs, d_o, d_lse).map_err(text)?;
        let limits = bound::backward(spec, &inputs, d_o, d_lse, contract).map_err(text)?;
        expected.insert("d_q", tensor(contract.storage, result.d_q, limits.d_q));
        expected.insert("d_k", tensor(contract.storage, result.d_k, limits.d_k));
        expected.insert("d_v", tensor(contract.storage, result.d_v, limits.d_v));
        if let (Some(value), Some(limit)) = (result.d_bias, limits.d_bias) {
            expected.insert("d_bias", tensor(contract.storage, value, limit));
        }
        if let (Some(value), Some(limit)) = (result.d_sink, limits.d_sink) {
            expected.insert("d_sink", tensor(contract.accum, value, limit));
        }
    }
    Ok(expected)
}

/// A reference's value, widened.
#[derive(Clone, Copy)]
struct Wide(DoubleDouble);

impl From<f64> for Wide {
    fn from(x: f64) -> Self {
        Self(DoubleDouble::from_f64(x))
    }
}

impl From<DoubleDouble> for Wide {
    fn from(x: DoubleDouble) -> Self {
        Self(x)
    }
}

fn tensor<A: Into<Wide>, D: Dimension>(format: Format, value: Array<A, D>, limit: Limit<D>) -> ExpectedTensor {
    let flat = |array: Array<f64, D>| array.into_iter().collect();
    ExpectedTensor {
        shape: value.shape().to_vec(),
        format,
        value: value.into_iter().map(|x| x.into().0).collect(),
        worst: flat(limit.worst),
        coherent: flat(limit.coherent),
        sigma: flat(limit.sigma),
    }
}
