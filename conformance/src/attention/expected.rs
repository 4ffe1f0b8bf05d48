//! What a case expects: the reference's answer and the limits of error around it.

use crate::attention::generate::Problem;
use crate::attention::typed::{self, with_element};
use crate::tensor::Stored;
use ndarray::{Array, Dimension};
use std::collections::BTreeMap;
use tilewright_attention::bound::{self, Limit};
use tilewright_attention::{Contract, reference};
use tilewright_scalar::{DoubleDouble, Element, Format, Real};

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
    /// The same, without subnormals if the contract says so: what its last rounding is to.
    pub rounding: Format,
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
    let values = with_element!(contract.storage, T => if contract.storage == Format::F64 {
        values::<T, DoubleDouble>(problem, backward, |x| x)
    } else {
        values::<T, f64>(problem, backward, DoubleDouble::from_f64)
    })?;
    let mut expected: Expected = values
        .into_iter()
        .map(|(name, (shape, value))| {
            let (worst, coherent, sigma) = (Vec::new(), Vec::new(), Vec::new());
            (
                name,
                ExpectedTensor {
                    shape,
                    format: contract.storage,
                    rounding: contract.storage,
                    value,
                    worst,
                    coherent,
                    sigma,
                },
            )
        })
        .collect();
    set_limits(&mut expected, problem, contract, backward)?;
    Ok(expected)
}

/// The same truth with the limits of another contract.
///
/// # Errors
/// A line of text if the tensors do not fit the problem.
pub fn under_contract(
    expected: &Expected,
    problem: &Problem,
    contract: &Contract,
    backward: bool,
) -> Result<Expected, String> {
    let mut expected = expected.clone();
    set_limits(&mut expected, problem, contract, backward)?;
    Ok(expected)
}

type Values = BTreeMap<&'static str, (Vec<usize>, Vec<DoubleDouble>)>;

fn values<T: Stored, A: Real>(
    problem: &Problem,
    backward: bool,
    widen: impl Fn(A) -> DoubleDouble + Copy,
) -> Result<Values, String>
where
    T::Accum: Stored,
{
    fn flat<A: Copy, D: Dimension>(
        array: &Array<A, D>,
        widen: impl Fn(A) -> DoubleDouble,
    ) -> (Vec<usize>, Vec<DoubleDouble>) {
        (array.shape().to_vec(), array.iter().map(|x| widen(*x)).collect())
    }
    let inputs = typed::inputs::<T>(&problem.inputs)?;
    let result = reference::forward::<T, A>(&problem.spec, &inputs).map_err(|error| error.to_string())?;
    let mut values = Values::from([("o", flat(&result.o, widen)), ("lse", flat(&result.lse, widen))]);
    if backward {
        let (d_o, d_lse) = (typed::view(&problem.inputs, "d_o")?, typed::view_if_present(&problem.inputs, "d_lse")?);
        let result =
            reference::backward::<T, A>(&problem.spec, &inputs, d_o, d_lse).map_err(|error| error.to_string())?;
        values.extend([
            ("d_q", flat(&result.d_q, widen)),
            ("d_k", flat(&result.d_k, widen)),
            ("d_v", flat(&result.d_v, widen)),
        ]);
        values.extend(result.d_bias.map(|d_bias| ("d_bias", flat(&d_bias, widen))));
        values.extend(result.d_sink.map(|d_sink| ("d_sink", flat(&d_sink, widen))));
    }
    Ok(values)
}

fn set_limits(expected: &mut Expected, problem: &Problem, contract: &Contract, backward: bool) -> Result<(), String> {
    with_element!(contract.storage, T => typed_limits::<T>(expected, problem, contract, backward))
}

fn typed_limits<T: Stored>(
    expected: &mut Expected,
    problem: &Problem,
    contract: &Contract,
    backward: bool,
) -> Result<(), String>
where
    T::Accum: Stored,
{
    fn set<D: Dimension>(expected: &mut Expected, name: &str, (format, flushes): (Format, bool), limit: Limit<D>) {
        if let Some(tensor) = expected.get_mut(name) {
            tensor.format = format;
            tensor.rounding = Format { subnormals: !flushes, ..format };
            tensor.worst = limit.worst.into_iter().collect();
            tensor.coherent = limit.coherent.into_iter().collect();
            tensor.sigma = limit.sigma.into_iter().collect();
        }
    }
    let inputs = typed::inputs::<T>(&problem.inputs)?;
    let limits = bound::forward(&problem.spec, &inputs, contract).map_err(|error| error.to_string())?;
    let storage = (contract.storage, contract.flushes_subnormals);
    let accum = (T::Accum::FORMAT, false);
    set(expected, "o", storage, limits.o);
    set(expected, "lse", accum, limits.lse);
    if backward {
        let (d_o, d_lse) = (typed::view(&problem.inputs, "d_o")?, typed::view_if_present(&problem.inputs, "d_lse")?);
        let limits =
            bound::backward(&problem.spec, &inputs, d_o, d_lse, contract).map_err(|error| error.to_string())?;
        set(expected, "d_q", storage, limits.d_q);
        set(expected, "d_k", storage, limits.d_k);
        set(expected, "d_v", storage, limits.d_v);
        if let Some(limit) = limits.d_bias {
            set(expected, "d_bias", storage, limit);
        }
        if let Some(limit) = limits.d_sink {
            set(expected, "d_sink", accum, limit);
        }
    }
    Ok(())
}
