//! Tensors whose element type is known at run time only: what case files hold and what subjects exchange.

use ndarray::{ArrayD, IxDyn};
use std::collections::BTreeMap;
use std::fmt;
use tilewright_scalar::{Element, Format, bf16, f16};

/// An owned tensor in C order, of one of the four storage formats.
///
/// ```
/// use tilewright_conformance::Tensor;
/// use tilewright_scalar::Format;
/// let t = Tensor::from_f64(Format::BF16, &[2], &[1.0, 0.1])?;
/// assert_eq!(t.to_f64()[1], Format::BF16.round(0.1));
/// # Ok::<(), tilewright_conformance::TensorError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Double precision.
    F64(ArrayD<f64>),
    /// Single precision.
    F32(ArrayD<f32>),
    /// Half precision.
    F16(ArrayD<f16>),
    /// bfloat16.
    Bf16(ArrayD<bf16>),
}

/// Named tensors.
pub type Tensors = BTreeMap<String, Tensor>;

/// Bytes that do not make a tensor of the shape they came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorError {
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// The number of elements (or bytes) offered, and of what.
    pub got: String,
}

impl fmt::Display for TensorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shape {:?} does not fit {}", self.shape, self.got)
    }
}

impl std::error::Error for TensorError {}

/// An element type that [`Tensor`] can hold.
pub trait Stored: Element {
    /// Wraps an array.
    fn wrap(array: ArrayD<Self>) -> Tensor;
    /// The array, if the tensor holds this type.
    fn unwrap(tensor: &Tensor) -> Option<&ArrayD<Self>>;
    /// From little-endian bytes, as many as the type has.
    fn from_le(bytes: &[u8]) -> Self;
    /// To little-endian bytes.
    fn push_le(self, out: &mut Vec<u8>);
}

macro_rules! stored {
    ($type:ident, $variant:ident) => {
        impl Stored for $type {
            fn wrap(array: ArrayD<Self>) -> Tensor {
                Tensor::$variant(array)
            }
            fn unwrap(tensor: &Tensor) -> Option<&ArrayD<Self>> {
                if let Tensor::$variant(array) = tensor { Some(array) } else { None }
            }
            fn from_le(bytes: &[u8]) -> Self {
                let mut raw = [0; size_of::<Self>()];
                raw.copy_from_slice(bytes);
                Self::from_le_bytes(raw)
            }
            fn push_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    };
}

stored!(f64, F64);
stored!(f32, F32);
stored!(f16, F16);
stored!(bf16, Bf16);

/// Evaluates an expression with `$array` bound to the tensor's array, whatever its element type.
macro_rules! on_array {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            $crate::Tensor::F64($array) => $body,
            $crate::Tensor::F32($array) => $body,
            $crate::Tensor::F16($array) => $body,
            $crate::Tensor::Bf16($array) => $body,
        }
    };
}
pub(crate) use on_array;

impl Tensor {
    /// The nearest elements of `format` to these values.
    ///
    /// # Errors
    /// If the number of values does not fit the shape, or the format is not one of the four.
    pub fn from_f64(format: Format, shape: &[usize], values: &[f64]) -> Result<Self, TensorError> {
        fn build<T: Stored>(shape: &[usize], values: &[f64]) -> Option<Tensor> {
            ArrayD::from_shape_vec(IxDyn(shape), values.iter().map(|&x| T::from_f64(x)).collect()).ok().map(T::wrap)
        }
        let built = match format {
            Format::F64 => build::<f64>(shape, values),
            Format::F32 => build::<f32>(shape, values),
            Format::F16 => build::<f16>(shape, values),
            Format::BF16 => build::<bf16>(shape, values),
            _ => None,
        };
        built.ok_or_else(|| TensorError {
            shape: shape.to_vec(),
            got: format!("{} values of {}", values.len(), format.name),
        })
    }

    /// Decodes little-endian bytes.
    ///
    /// # Errors
    /// If the number of bytes does not fit the shape, or the format is not one of the four.
    pub fn from_le_bytes(format: Format, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        fn build<T: Stored>(shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
            let count = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
            if count.checked_mul(size_of::<T>())? != bytes.len() {
                return None;
            }
            let elements = bytes.chunks_exact(size_of::<T>()).map(T::from_le).collect();
            ArrayD::from_shape_vec(IxDyn(shape), elements).ok().map(T::wrap)
        }
        let built = match format {
            Format::F64 => build::<f64>(shape, bytes),
            Format::F32 => build::<f32>(shape, bytes),
            Format::F16 => build::<f16>(shape, bytes),
            Format::BF16 => build::<bf16>(shape, bytes),
            _ => None,
        };
        built.ok_or_else(|| TensorError {
            shape: shape.to_vec(),
            got: format!("{} bytes of {}", bytes.len(), format.name),
        })
    }

    /// Little-endian bytes in C order.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        on_array!(self, array => {
            let mut out = Vec::new();
            array.iter().for_each(|x| x.push_le(&mut out));
            out
        })
    }

    /// The values, exactly, in C order.
    pub fn to_f64(&self) -> Vec<f64> {
        on_array!(self, array => array.iter().map(|x| x.to_f64()).collect())
    }

    /// The bits of every element, in C order.
    pub fn bits(&self) -> Vec<u64> {
        on_array!(self, array => array.iter().map(|x| x.to_bits64()).collect())
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        on_array!(self, array => array.shape())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        on_array!(self, array => array.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage format.
    pub fn format(&self) -> Format {
        match self {
            Self::F64(_) => Format::F64,
            Self::F32(_) => Format::F32,
            Self::F16(_) => Format::F16,
            Self::Bf16(_) => Format::BF16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_bad_shapes_are_refused() {
        for format in [Format::F64, Format::F32, Format::F16, Format::BF16] {
            let t = Tensor::from_f64(format, &[2, 3], &[0.1, -0.0, f64::INFINITY, 1e-8, 7.0, -3.5]).expect("fits");
            assert_eq!(Tensor::from_le_bytes(format, &[2, 3], &t.to_le_bytes()).as_ref(), Ok(&t));
            assert!(Tensor::from_le_bytes(format, &[2, 2], &t.to_le_bytes()).is_err());
            assert!(Tensor::from_le_bytes(format, &[usize::MAX, 3], &t.to_le_bytes()).is_err());
            assert!(Tensor::from_f64(format, &[5], &[1.0]).is_err());
        }
        assert!(Tensor::from_f64(Format::TF32, &[1], &[1.0]).is_err());
    }
}
