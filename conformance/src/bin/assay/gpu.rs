//! The CUDA backend: on a GPU, or on the software one.
//!
//! A process talks to one driver for as long as it lives, and cudarc finds it by its name. So the software GPU, which
//! goes by the same name, gets a process of its own: this program once more, with the variable set that its driver waits
//! for.

use crate::args::{Family, RunArgs, SubjectName};
use crate::output::progress;
use anyhow::{Context, anyhow, bail};
use rayon::prelude::*;
use serde_json::Value;
use std::process::Command;
use std::sync::OnceLock;
use tilewright_conformance::subject::Explain;
use tilewright_cuda::{CudaError, Device};

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
        if self.software { last_fault } else { String::new }
    }

    pub(crate) fn is_software(&self) -> bool {
        self.software
    }
}

fn last_fault() -> String {
    DRIVER.get().map_or_else(String::new, cuda::Driver::last_fault)
}

/// Whether there is a software GPU.
pub(crate) fn is_software_built() -> bool {
    cuda::find().is_some()
}

/// Whether this process was started for the software GPU.
pub(crate) fn is_for_software() -> bool {
    std::env::var_os(cuda::VARIABLE).is_some()
}

/// What a process of its own found.
pub(crate) struct Found {
    /// What it has to say.
    pub(crate) text: String,
    /// Whether all is well.
    pub(crate) holds: bool,
    /// Its report, if one is to be written.
    pub(crate) json: Option<Value>,
}

/// `assay run --subject softgpu`, each family in a process of its own: an interpreter has one thread.
pub(crate) fn in_own_processes(args: &RunArgs, families: &[Family]) -> anyhow::Result<Vec<Found>> {
    let bar = progress(families.len(), "software GPU");
    let found = families.par_iter().map(|family| in_own_process(args, *family)).inspect(|_| bar.inc(1)).collect();
    bar.finish_and_clear();
    found
}

fn in_own_process(args: &RunArgs, family: Family) -> anyhow::Result<Found> {
    let report = args.json.as_ref().map(|_| tempfile::NamedTempFile::new()).transpose()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(cuda::VARIABLE, format!("seed={}", args.schedule)).args(args.for_subject(SubjectName::Softgpu, family));
    if let Some(report) = &report {
        command.arg("--json").arg(report.path());
    }
    let output = command.output().context("the software GPU's process")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let holds = match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => bail!("the software GPU's process: {}: {}", output.status, said.trim()),
    };
    let read = |report: tempfile::NamedTempFile| -> anyhow::Result<Value> {
        Ok(serde_json::from_reader(std::fs::File::open(report.path())?)?)
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Found { text, holds, json: report.map(read).transpose()? })
}
