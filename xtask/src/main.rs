//! Chores of the workspace.
//!
//! ```text
//! cargo xtask ptx           compiles cuda/kernels/*.cu to cuda/ptx/*.ptx
//! cargo xtask ptx --check   says whether the committed PTX is what the sources give, and whether any kernel spills
//!                           registers or needs more of them than its file allows
//! ```

mod nvrtc;
mod ptx;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Compiles the CUDA kernels to PTX with NVRTC 12.4 (`pip install nvidia-cuda-nvrtc-cu12==12.4.127`), which is looked
    /// for in the folder that TILEWRIGHT_NVRTC names, then in the active Python environment.
    Ptx {
        /// Write nothing: compare, and look at registers and spills.
        #[arg(long)]
        check: bool,
        /// Only files whose name begins so.
        #[arg(long, default_value = "")]
        only: String,
    },
}

fn main() -> ExitCode {
    let Chore::Ptx { check, only } = Arguments::parse().chore;
    match ptx::run(check, &only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
