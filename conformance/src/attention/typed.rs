//! From tensors known at run time to the typed views of `tilewright-attention`.

use crate::Tensors;
use crate::tensor::Stored;
use ndarray::{ArrayView, Dimension};
use tilewright_attention::Inputs;

/// Evaluates `$body` with `$T` standing for the element type of a storage format.
macro_rules! with_element {
    ($format:expr, $T:ident => $body:expr) => {
        match $format {
            tilewright_scalar::Format::F64 => {
                type $T = f64;
                $body
            }
            tilewright_scalar::Format::F16 => {
                type $T = tilewright_scalar::f16;
                $body
            }
            tilewright_scalar::Format::BF16 => {
                type $T = tilewright_scalar::bf16;
                $body
            }
            _ => {
                type $T = f32;
                $body
            }
        }
    };
}
pub(crate) use with_element;

/// A tensor as a view of the right type and rank, or what is wrong with it.
pub(crate) fn view<'a, T: Stored, D: Dimension>(
    tensors: &'a Tensors,
    name: &str,
) -> Result<ArrayView<'a, T, D>, String> {
    let tensor = tensors.get(name).ok_or_else(|| format!("tensor {name}: missing"))?;
    let wrong = || {
        let (format, shape) = (tensor.format().name, tensor.shape());
        let rank = D::NDIM.map_or(String::new(), |rank| format!(" of rank {rank}"));
        format!("tensor {name}: got {format} {shape:?}, expected {}{rank}", T::FORMAT.name)
    };
    let array = T::unwrap(tensor).ok_or_else(wrong)?;
    array.view().into_dimensionality::<D>().map_err(|_| wrong())
}

/// The same for a tensor that may be absent.
pub(crate) fn view_if_present<'a, T: Stored, D: Dimension>(
    tensors: &'a Tensors,
    name: &str,
) -> Result<Option<ArrayView<'a, T, D>>, String> {
    if tensors.contains_key(name) { view(tensors, name).map(Some) } else { Ok(None) }
}

/// The forward pass's inputs among named tensors.
pub(crate) fn inputs<T: Stored>(tensors: &Tensors) -> Result<Inputs<'_, T>, String>
where
    T::Accum: Stored,
{
    Ok(Inputs {
        q: view(tensors, "q")?,
        k: view(tensors, "k")?,
        v: view(tensors, "v")?,
        bias: view_if_present(tensors, "bias")?,
        sink: view_if_present(tensors, "sink")?,
    })
}
