//! A software GPU: it reads the PTX that CUDA's compiler emits and runs it on a CPU, 32 lanes at a time, with the semantics
//! the PTX manual gives. On the way it looks for what a real device hides: races, accesses out of bounds or to freed
//! memory, misalignment, reads of memory nothing wrote, barriers and shuffles that diverge, asynchronous copies nobody
//! waited for, deadlock. A [`Fault`] names the kernel, the PTX line and the threads.
//!
//! Schedules are reproducible: [`Settings::seed`] 0 runs blocks and warps in order, any other interleaves them at random.
//!
//! ```
//! use tilewright_softgpu::{Gpu, Launch, Module, Settings};
//! let module = Module::parse(
//!     ".version 8.4
//!      .target sm_80
//!      .address_size 64
//!      .visible .entry double(.param .u64 p) {
//!        .reg .b32 %r<3>; .reg .b64 %rd<3>;
//!        ld.param.u64 %rd1, [p];
//!        mov.u32 %r1, %tid.x;
//!        mul.wide.u32 %rd2, %r1, 4;
//!        add.s64 %rd1, %rd1, %rd2;
//!        ld.global.u32 %r2, [%rd1];
//!        add.u32 %r2, %r2, %r2;
//!        st.global.u32 [%rd1], %r2;
//!        ret;
//!      }",
//! )?;
//! let mut gpu = Gpu::new(Settings::default());
//! let buffer = gpu.alloc(8)?;
//! gpu.write(buffer, &[1, 0, 0, 0, 2, 0, 0, 0])?;
//! gpu.launch(&module, "double", &Launch::new([1, 1, 1], [2, 1, 1]), &buffer.to_le_bytes())?;
//! assert_eq!(gpu.read(buffer, 8)?, [2, 0, 0, 0, 4, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
// What is inlined into a function compiled for AVX is compiled for AVX, and nothing else is.
#![allow(clippy::inline_always)]

mod alu;
mod decode;
mod exec;
mod fault;
mod gpu;
mod isa;
mod memory;
mod module;
mod ptx;
mod race;
mod schedule;
mod tensor;

pub use fault::{Fault, FaultKind};
pub use gpu::{Gpu, Launch, MemoryError, Settings, Stats};
pub use module::{KernelInfo, Module};
pub use ptx::PtxError;
