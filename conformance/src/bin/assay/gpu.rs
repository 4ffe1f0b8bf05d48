//! The CUDA backend: on a GPU, or on the software one.
//!
//! A process talks to one driver for as long as it lives, and cudarc finds it by its name. So the software GPU, which
//! goes by the same name, gets a process of its own: this program once more, with the variable set that its driver waits
//! for.

use crate::args::{RunArgs, SubjectName};
use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use tilewright_conformance::subject::Explain;
use tilewright_cuda::{CudaError, Device};

/// Switches the software GPU's driver on, and chooses its schedule.
const VARIABLE: &str = "TILEWRIGHT_SOFTGPU";

/// Why there is no software GPU.
pub(crate) const NOT_BUILT: &str =
    "no libcuda.so beside this program: the software GPU's driver is built together with it, by cargo";

/// The software GPU's driver, in the process that has it.
static DRIVER: OnceLock<cuda::Driver> = OnceLock::new();

/// A device for the CUDA backend.
pub(crate) struct Gpu {
    device: Device,
    software: bool,
}

impl Gpu {
    /// The machine's first GPU.
    pub(crate) fn real() -> Result<Self, CudaError> {
        Ok(Self { device: Device::open(0)?, software: false })
    }

    /// The software GPU, in a process that was started for it.
    pub(crate) fn software() -> anyhow::Result<Self> {
        let file = cuda::find().ok_or_else(|| anyhow!(NOT_BUILT))?;
        let driver = cuda::open(&file)?;
        let _ = DRIVER.set(driver);
        Ok(Self { device: Device::open(0)?, software: true })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.software { "tilewright-cuda on the software GPU" } else { "tilewright-cuda" }
    }

    /// What is known of a fault beyond its code.
    pub(crate) fn explain(&self) -> Explain {
        || DRIVER.get().map_or_else(String::new, cuda::Driver::last_fault)
    }

    pub(crate) fn is_software(&self) -> bool {
        self.software
    }
}

/// Whether there is a software GPU.
pub(crate) fn is_software_built() -> bool {
    cuda::find().is_some()
}

/// Whether this process was started for the software GPU.
pub(crate) fn is_for_software() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Whether an error says that there is nothing to work with, rather than that something is broken.
pub(crate) fn is_absence(error: &CudaError) -> bool {
    matches!(
        error,
        CudaError::DriverMissing
            | CudaError::NoDevice
            | CudaError::DriverTooOld { .. }
            | CudaError::CapabilityTooLow { .. }
    )
}

/// `assay run --subject softgpu`, in a process of its own, which prints what it finds. Returns whether all is well, and
/// its JSON report if there is to be one.
pub(crate) fn in_own_process(args: &RunArgs) -> anyhow::Result<(bool, Option<Value>)> {
    let report = args.json.as_ref().map(|_| tempfile::NamedTempFile::new()).transpose()?;
    let mut command = for_software(args)?;
    command.args(args.for_subject(SubjectName::Softgpu));
    if let Some(report) = &report {
        command.arg("--json").arg(report.path());
    }
    let holds = verdict(command.status().context("the software GPU's process")?)?;
    let read = |report: tempfile::NamedTempFile| -> anyhow::Result<Value> {
        Ok(serde_json::from_reader(std::fs::File::open(report.path())?)?)
    };
    Ok((holds, report.map(read).transpose()?))
}

/// Turns this process, which has done nothing yet, into the software GPU's, to do what it was asked for.
#[cfg(unix)]
pub(crate) fn become_software(args: &RunArgs) -> anyhow::Result<bool> {
    use std::os::unix::process::CommandExt;
    let error = for_software(args)?.args(std::env::args_os().skip(1)).exec();
    Err(error).context("the software GPU's process")
}

/// Lets a process of its own do what this one was asked for.
#[cfg(not(unix))]
pub(crate) fn become_software(args: &RunArgs) -> anyhow::Result<bool> {
    verdict(for_software(args)?.args(std::env::args_os().skip(1)).status().context("the software GPU's process")?)
}

/// This program, for the software GPU.
fn for_software(args: &RunArgs) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(VARIABLE, format!("seed={}", args.schedule));
    Ok(command)
}

fn verdict(status: ExitStatus) -> anyhow::Result<bool> {
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("the software GPU's process: {status}"),
    }
}
