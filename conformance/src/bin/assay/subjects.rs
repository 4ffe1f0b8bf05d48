//! The backends of this build, dressed for each family's trial.

use crate::args::{self, Family, SubjectName};
use crate::gpu::Gpu;
use tilewright_attention::Format;
use tilewright_conformance::{attention, compression, grouplasso};
use tilewright_cpu::{Bf16Products, CpuAttention, CpuCompressor, CpuGroupLasso};
use tilewright_cuda::{CudaAttention, CudaCompressor, CudaGroupLasso};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A backend, ready to be tried.
pub(crate) enum Backend {
    Cpu,
    /// With products of pairs of `bf16`.
    CpuPairs,
    Reference,
    Gpu(Gpu),
}

impl Backend {
    /// The backend of a name; a GPU is opened.
    pub(crate) fn open(name: SubjectName) -> anyhow::Result<Self> {
        Ok(match name {
            SubjectName::Cpu => Self::Cpu,
            SubjectName::CpuPairs => Self::CpuPairs,
            SubjectName::Reference => Self::Reference,
            SubjectName::Cuda => Self::Gpu(Gpu::real()?),
            SubjectName::Softgpu => Self::Gpu(Gpu::software()?),
        })
    }

    /// What a backend of this name does of some families that were `asked` for, or of all.
    pub(crate) fn families(name: SubjectName, families: &[Family], asked: bool) -> anyhow::Result<Vec<Family>> {
        let own = |family: &Family| name != SubjectName::CpuPairs || *family == Family::Attention;
        match families.iter().find(|family| !own(family)) {
            Some(other) if asked => {
                let (name, other) = (args::name(name), args::name(*other));
                anyhow::bail!("--subject {name}: got family {other}, expected attention")
            }
            _ => Ok(families.iter().copied().filter(own).collect()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Cpu => "tilewright-cpu",
            Self::CpuPairs => "tilewright-cpu-pairs",
            Self::Reference => "reference",
            Self::Gpu(gpu) => gpu.name(),
        }
    }

    pub(crate) fn attention(&self) -> Box<dyn attention::Subject> {
        use attention::in_process::InProcess;
        let formats = match self {
            Self::CpuPairs => vec![Format::BF16],
            _ => attention::suite::FORMATS.to_vec(),
        };
        let mut profile = attention::Profile::new(self.name(), VERSION, &formats);
        match self {
            Self::Cpu | Self::CpuPairs => {
                let paired = matches!(self, Self::CpuPairs);
                let products = if paired { Bf16Products::Paired } else { Bf16Products::default() };
                let backend = CpuAttention::default().with_bf16_products(products);
                profile.contracts = formats.iter().map(|format| backend.contract(*format)).collect();
                Box::new(InProcess::new(backend, profile))
            }
            Self::Reference => Box::new(InProcess::new(tilewright_attention::Flash { memory: 4096 }, profile)),
            Self::Gpu(gpu) => {
                let backend = CudaAttention::new(gpu.device().clone());
                profile.contracts = formats.iter().map(|format| backend.contract(*format)).collect();
                Box::new(InProcess::new(backend, profile).explained_by(gpu.explain()))
            }
        }
    }

    pub(crate) fn compression(&self) -> anyhow::Result<Box<dyn compression::Subject>> {
        use compression::in_process::InProcess;
        let profile = compression::Profile::new(self.name(), VERSION);
        // Which candidate stays where any may is up to threads.
        let racing = compression::Profile { deterministic: false, ..profile.clone() };
        Ok(match self {
            Self::Cpu | Self::CpuPairs => Box::new(InProcess::new(CpuCompressor::default(), racing)),
            Self::Reference => Box::new(InProcess::sequential(tilewright_compression::reference::Reference, profile)),
            Self::Gpu(gpu) => {
                let backend = CudaCompressor::new(gpu.device())?;
                Box::new(InProcess::sequential(backend, racing).explained_by(gpu.explain()))
            }
        })
    }

    pub(crate) fn grouplasso(&self) -> anyhow::Result<Box<dyn grouplasso::Subject>> {
        use grouplasso::in_process::InProcess;
        let profile = grouplasso::Profile::new(self.name(), VERSION);
        Ok(match self {
            Self::Cpu | Self::CpuPairs => Box::new(InProcess::new(CpuGroupLasso, profile)),
            Self::Reference => Box::new(InProcess::sequential(tilewright_grouplasso::reference::Reference, profile)),
            Self::Gpu(gpu) => {
                let backend = CudaGroupLasso::new(gpu.device())?;
                Box::new(InProcess::sequential(backend, profile).explained_by(gpu.explain()))
            }
        })
    }

    /// Whether cases take a thousand times as long as on anything else.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self, Self::Gpu(gpu) if gpu.is_software())
    }
}
