//! Which element types there are kernels for, and where those are.

use crate::{Plain, Unit};
use tilewright_scalar::{Element, bf16, f16};

/// An element type that attention on CUDA takes: `f64`, `f32`, `f16`, `bf16`.
pub trait CudaElement: Element<Accum: Plain> + Plain {
    /// Kernels that do everything, by multiply-adds.
    #[doc(hidden)]
    const SIMT: &'static Unit;
    /// How kernels of this type are called.
    #[doc(hidden)]
    const SUFFIX: &'static str;
    /// Columns of `O` and `dQ`, and of `dK` and `dV`, that one block of those kernels makes.
    #[doc(hidden)]
    const WIDTHS: [usize; 2];
}

macro_rules! element {
    ($t:ty, $suffix:literal, $widths:expr) => {
        impl CudaElement for $t {
            const SIMT: &'static Unit = {
                static UNIT: Unit = Unit {
                    name: concat!("attention_simt_", $suffix),
                    ptx: include_str!(concat!("../../ptx/attention_simt_", $suffix, ".ptx")),
                };
                &UNIT
            };
            const SUFFIX: &'static str = $suffix;
            const WIDTHS: [usize; 2] = $widths;
        }
    };
}
element!(f64, "f64", [128, 32]);
element!(f32, "f32", [256, 128]);
element!(f16, "f16", [256, 128]);
element!(bf16, "bf16", [256, 128]);
