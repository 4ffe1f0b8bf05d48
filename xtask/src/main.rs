//! Chores of the workspace.
//!
//! ```text
//! cargo xtask ptx                    compiles those of cuda/kernels/*.cu whose PTX in cuda/ptx is not up to date
//! cargo xtask ptx --check            compiles all, and says whether the committed PTX is what the sources give, and
//!                                    whether any kernel spills registers or needs more of them than its file allows
//! cargo xtask ptx --check --digest   says it without a compiler, from what was recorded when the PTX was made
//! ```

mod digest;
mod nvrtc;
mod ptx;
mod record;
mod source;

use clap::{Parser, Subcommand};
use ptx::{Task, Which};
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
        /// Compare digests only: needs no compiler.
        #[arg(long, requires = "check")]
        digest: bool,
        /// Only files whose name begins so.
        #[arg(long, default_value = "")]
        only: String,
        /// The file of exactly this name, in this process.
        #[arg(long, hide = true)]
        one: bool,
    },
}

fn main() -> ExitCode {
    let Chore::Ptx { check, digest, only, one } = Arguments::parse().chore;
    let task = match (check, digest) {
        (_, true) => Task::Digest,
        (true, _) => Task::Check,
        _ => Task::Write,
    };
    match ptx::run(task, if one { Which::One(&only) } else { Which::Beginning(&only) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
