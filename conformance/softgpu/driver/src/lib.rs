//! A CUDA driver without a GPU: the entry points that `cudarc`'s safe layer calls, served by [`tilewright_softgpu`].
//!
//! It answers only if the environment variable `TILEWRIGHT_SOFTGPU` is set; otherwise `cuInit` reports that there is no
//! device. The variable's value is a list of settings, for example `seed=3,capability=8.0`:
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `seed=N` | the schedule: 0 in order, any other number a random one | 0 |
//! | `devices=N` | how many devices there are, 0 or 1 | 1 |
//! | `capability=M.m` | compute capability | 9.0 |
//! | `driver=N` | what `cuDriverGetVersion` says | 12040 |
//! | `races=0`, `uninitialized=0` | leaves that check out | 1 |
//! | `steps=N` | most instructions (by warp) in a launch | 4000000000 |
//! | `memory=N` | bytes of device memory | 8589934592 |
//!
//! Work is done when it is asked for, so a launch returns its own fault, and the exported C function
//! `softgpu_last_fault` gives its text. A fault doesn't spoil the context: the next launch starts afresh.
//!
//! `softgpu_set_seed` chooses the schedule of the launches to come, and `softgpu_load_instead` gives a module another text
//! than the one its owner loads: that is how faults are planted in kernels.
//!
//! The library is also a cuBLAS of one function, `cublasDgemm_v2`, for backends that leave matrix products to that.
//!
//! A test loads the library with [`open`] before its first call into cudarc, which then finds it by its name.

#![allow(non_snake_case)]
// The entry points are public to the loader, not to Rust.
#![allow(unreachable_pub)]

mod blas;
mod code;
mod context;
mod instead;
mod launch;
mod loader;
mod memory;
mod module;
mod state;
mod stream;

pub use loader::{Driver, LoadError, find, open};
pub use state::VARIABLE;
