//! The command line.

use crate::softgpu;
use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tilewright_conformance::{Suite, attention, compression, grouplasso};

#[derive(Parser)]
#[command(
    name = "assay",
    version,
    about = "Puts attention kernels, gradient compressors and group-lasso solvers on trial: generated and recorded inputs; \
             derived error bounds, exact invariants or certificates; laws between runs."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Job>,
}

#[derive(Subcommand)]
pub(crate) enum Job {
    /// Try a backend, or a program of your own, on a suite of cases (this is also what happens without a command).
    Run(RunArgs),
    /// Try the suite: every planted bug must be caught, no correct variant rejected.
    Mutants(MutantsArgs),
    /// Answer the problems of a safetensors file.
    Oracle(OracleArgs),
    /// List the cases of a suite and what each is evidence for.
    List(ListArgs),
    /// Run a kernel of PTX on the software GPU and report races, stray accesses, unwritten memory, and the like.
    Softgpu(SoftgpuArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// Exact attention, forward and backward.
    Attention,
    /// Gradient compression: top-k, DGC, DRAGONN.
    Compression,
    /// Group lasso and Head2Toe: proximal operators, selections, solvers.
    Grouplasso,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    Quick,
    Full,
    Extensive,
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Quick => Self::Quick,
            SuiteName::Full => Self::Full,
            SuiteName::Extensive => Self::Extensive,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubjectName {
    /// The CPU backend.
    #[default]
    Cpu,
    /// The CPU backend's attention with products of pairs of bf16, whether or not the machine has an instruction for them.
    CpuPairs,
    /// The textbook's algorithm that everything else is held to.
    Reference,
    /// The CUDA backend on this machine's first GPU.
    Cuda,
    /// The CUDA backend on a software GPU, which also looks for races, stray accesses and unwritten memory.
    Softgpu,
}

/// The word of the command line for one of its choices.
pub(crate) fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
}

/// A case of any family.
#[derive(Clone)]
pub(crate) enum AnyCase {
    Attention(attention::case::Case),
    Compression(compression::case::Case),
    GroupLasso(grouplasso::case::Case),
}

impl FromStr for AnyCase {
    type Err = String;

    fn from_str(id: &str) -> Result<Self, String> {
        if id.trim().starts_with("compression/") {
            id.parse().map(Self::Compression).map_err(|error| format!("{error}"))
        } else if id.trim().starts_with("grouplasso/") {
            id.parse().map(Self::GroupLasso).map_err(|error| format!("{error}"))
        } else {
            id.parse().map(Self::Attention).map_err(|error| format!("{error}"))
        }
    }
}

impl fmt::Display for AnyCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attention(case) => case.fmt(f),
            Self::Compression(case) => case.fmt(f),
            Self::GroupLasso(case) => case.fmt(f),
        }
    }
}

impl AnyCase {
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Attention(_) => Family::Attention,
            Self::Compression(_) => Family::Compression,
            Self::GroupLasso(_) => Family::Grouplasso,
        }
    }
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// A backend of this build. Without it: the CPU's, and if no cases are named also CUDA's, on a GPU and on the software one.
    #[arg(long, value_enum, conflicts_with = "cmd")]
    pub(crate) subject: Option<SubjectName>,
    /// A program that speaks the line protocol (see the documentation, "Your kernel on trial").
    #[arg(long, value_name = "PROGRAM …")]
    pub(crate) cmd: Option<String>,
    /// Family of algorithms: without it that of the cases given; else all of a backend's, attention for a program.
    #[arg(long, value_enum)]
    pub(crate) family: Option<Family>,
    /// How many cases.
    #[arg(long, value_enum, default_value = "quick")]
    pub(crate) suite: SuiteName,
    /// Only this case; may be given several times.
    #[arg(long, value_name = "ID")]
    pub(crate) case: Vec<AnyCase>,
    /// Shifts all data and picks other random combinations.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    pub(crate) seed: u32,
    /// Schedule of the software GPU: 0 takes blocks and warps in order, any other number is a random one.
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    pub(crate) schedule: u64,
    /// Also write the verdicts as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Seconds a program may take over one request.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) time_limit: u64,
}

#[derive(Args)]
pub(crate) struct MutantsArgs {
    /// Family of algorithms.
    #[arg(long, value_enum, default_value = "attention")]
    pub(crate) family: Family,
    /// `quick`: that suite alone. `full`: the full suite for the variants and for whatever quick did not kill.
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) suite: SuiteName,
    /// Put a planted bug that some cases have caught to no others: quicker, and the counts then say little. Group lasso's
    /// always are.
    #[arg(long)]
    pub(crate) once: bool,
    /// Shifts all data.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    pub(crate) seed: u32,
    /// Also write the kill matrix as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct OracleArgs {
    /// Family of algorithms.
    #[arg(value_enum)]
    pub(crate) family: Family,
    /// Problems and their tensors.
    #[arg(value_name = "IN.safetensors")]
    pub(crate) input: PathBuf,
    /// Where the answers go.
    #[arg(value_name = "OUT.safetensors")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Family of algorithms.
    #[arg(long, value_enum, default_value = "attention")]
    pub(crate) family: Family,
    /// Which suite.
    #[arg(long, value_enum, default_value = "quick")]
    pub(crate) suite: SuiteName,
    /// Shifts all data.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal, default_value = "0")]
    pub(crate) seed: u32,
}

#[derive(Args)]
pub(crate) struct SoftgpuArgs {
    /// What nvcc, NVRTC, Triton or a hand wrote.
    #[arg(value_name = "FILE.ptx")]
    pub(crate) file: PathBuf,
    /// Which kernel; without it the file's kernels are listed.
    #[arg(long, value_name = "NAME")]
    pub(crate) kernel: Option<String>,
    /// Blocks.
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = softgpu::extent, default_value = "1")]
    pub(crate) grid: [u32; 3],
    /// Threads a block.
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = softgpu::extent, default_value = "32")]
    pub(crate) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    #[arg(long, value_name = "BYTES", default_value = "0")]
    pub(crate) shared: u32,
    /// All blocks run at once and may wait for each other.
    #[arg(long)]
    pub(crate) cooperative: bool,
    /// A parameter, in the kernel's order: u32=7, f32=0.5 and so on, hex=0000803f for anything else; or the address of a
    /// buffer: zeros=BYTES, new=BYTES (nothing written to it), file=PATH.
    #[arg(long, value_name = "TYPE=VALUE", allow_hyphen_values = true)]
    pub(crate) arg: Vec<softgpu::Argument>,
    /// Where the buffer of the argument of this index, from 0, goes after the first run.
    #[arg(long, value_name = "INDEX=FILE", value_parser = softgpu::output)]
    pub(crate) out: Vec<(usize, PathBuf)>,
    /// Schedules tried: the first takes blocks and warps in order, each other one is random.
    #[arg(long, value_name = "NUMBER", default_value = "10", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) schedules: u64,
}

fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u32::from_str_radix(digits, 16).map_err(|_| format!("got `{text}`, expected up to eight hexadecimal digits"))
}

impl RunArgs {
    /// The defaults of `assay run`.
    pub(crate) fn defaults() -> anyhow::Result<Self> {
        match Cli::try_parse_from(["assay", "run"])?.command {
            Some(Job::Run(args)) => Ok(args),
            _ => bail!("no defaults"),
        }
    }

    /// The backends to try, in order.
    pub(crate) fn subjects(&self) -> Vec<SubjectName> {
        match self.subject {
            Some(name) => vec![name],
            None if !self.case.is_empty() => vec![SubjectName::Cpu],
            None => vec![SubjectName::Cpu, SubjectName::CpuPairs, SubjectName::Cuda, SubjectName::Softgpu],
        }
    }

    /// The arguments that ask the same of one backend and for one family, the JSON report left out.
    pub(crate) fn for_subject(&self, subject: SubjectName, family: Family) -> Vec<String> {
        let value = |option: &str, value: String| [format!("--{option}"), value];
        let mut list = vec!["run".into()];
        list.extend(value("subject", name(subject)));
        list.extend(value("suite", name(self.suite)));
        list.extend(value("seed", format!("{:x}", self.seed)));
        list.extend(value("schedule", self.schedule.to_string()));
        list.extend(value("family", name(family)));
        let cases = self.case.iter().filter(|case| case.family() == family);
        list.extend(cases.flat_map(|case| value("case", case.to_string())));
        list
    }

    /// The families to try, in order.
    pub(crate) fn families(&self) -> anyhow::Result<Vec<Family>> {
        let of_cases: Vec<Family> =
            Family::value_variants().iter().copied().filter(|f| self.case.iter().any(|c| c.family() == *f)).collect();
        match self.family {
            Some(family) if of_cases.iter().any(|other| *other != family) => {
                bail!("--case: got a case of another family than --family says")
            }
            Some(family) => Ok(vec![family]),
            None if !of_cases.is_empty() => Ok(of_cases),
            None if self.cmd.is_some() => Ok(vec![Family::Attention]),
            None => Ok(Family::value_variants().to_vec()),
        }
    }
}
