//! Which element types there are kernels for, and where those are.

use crate::{Plain, Unit};
use tilewright_scalar::{Element, bf16, f16};

/// An element type that attention on CUDA takes: `f64`, `f32`, `f16`, `bf16`.
pub trait CudaElement: Element<Accum: Plain> + Plain {
    /// Kernels that do everything, by multiply-adds.
    #[doc(hidden)]
    const SIMT: &'static Unit;
    /// Kernels by tensor cores, where there are any: forward, backward and decoding.
    #[doc(hidden)]
    const MMA: Option<[&'static Unit; 3]>;
    /// How kernels of this type are called.
    #[doc(hidden)]
    const SUFFIX: &'static str;
    /// Columns of `O` and `dQ`, and of `dK` and `dV`, that one block of those kernels makes.
    #[doc(hidden)]
    const WIDTHS: [usize; 2];
}

/// The unit of this file of kernels.
macro_rules! unit {
    ($name:expr) => {{
        static UNIT: Unit = Unit { name: $name, ptx: include_str!(concat!("../../ptx/", $name, ".ptx")) };
        &UNIT
    }};
}

macro_rules! element {
    ($t:ty, $suffix:literal, $mma:expr, $widths:expr) => {
        impl CudaElement for $t {
            const SIMT: &'static Unit = unit!(concat!("attention_simt_", $suffix));
            const MMA: Option<[&'static Unit; 3]> = $mma;
            const SUFFIX: &'static str = $suffix;
            const WIDTHS: [usize; 2] = $widths;
        }
    };
}
element!(f64, "f64", None, [128, 32]);
element!(f32, "f32", None, [256, 128]);
element!(
    f16,
    "f16",
    Some([unit!("attention_mma_f16"), unit!("attention_mma_backward_f16"), unit!("attention_mma_decode_f16")]),
    [256, 128]
);
element!(
    bf16,
    "bf16",
    Some([unit!("attention_mma_bf16"), unit!("attention_mma_backward_bf16"), unit!("attention_mma_decode_bf16")]),
    [256, 128]
);
