//! A module: PTX text, its kernels decoded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decode;
use crate::decode::FIRST_OFFSET;
use crate::isa::Kernel;
use crate::ptx::{self, PtxError, Space, Variable};

/// PTX, parsed and decoded, ready for any number of launches.
#[derive(Clone, Debug)]
pub struct Module(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    /// Tells modules apart: each has its own variables on a device.
    pub(crate) id: u64,
    pub(crate) kernels: HashMap<String, Kernel>,
    pub(crate) variables: Vec<Variable>,
}

/// What is known of a kernel without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Offset and size of each parameter in the parameter buffer.
    pub params: Vec<(u32, u32)>,
    /// Bytes of the parameter buffer.
    pub param_bytes: u32,
    /// Bytes of shared memory with a fixed size.
    pub shared_bytes: u32,
    /// Bytes of local memory a thread.
    pub local_bytes: u32,
    /// Registers a thread, counted as the text names them: an upper bound, not what a compiler would use.
    pub registers: u32,
    /// Most threads in a block that the kernel was compiled for.
    pub max_threads: u32,
    /// Decoded instructions.
    pub instructions: usize,
}

impl Module {
    /// Parses and decodes a whole text.
    ///
    /// # Errors
    /// The first line that isn't understood, an unknown instruction included.
    pub fn parse(text: &str) -> Result<Self, PtxError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let unit = ptx::parse(text)?;
        let mut kernels = HashMap::new();
        for function in unit.functions.iter().filter(|f| f.kernel) {
            kernels.insert(function.name.clone(), decode::kernel(&unit, function)?);
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let variables =
            unit.variables.into_iter().filter(|v| matches!(v.space, Space::Global | Space::Const)).collect();
        Ok(Self(Arc::new(Inner { id, kernels, variables })))
    }

    /// Names of the kernels, sorted.
    pub fn kernels(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.kernels.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// A kernel's shape; `None` if there is no such kernel.
    pub fn kernel(&self, name: &str) -> Option<KernelInfo> {
        let kernel = self.0.kernels.get(name)?;
        Some(KernelInfo {
            params: kernel.params.iter().map(|p| (p.offset, p.size)).collect(),
            param_bytes: kernel.param_bytes,
            shared_bytes: kernel.shared - FIRST_OFFSET,
            local_bytes: kernel.local - FIRST_OFFSET,
            registers: (kernel.files[0] + 2 * kernel.files[1]).min(255) as u32,
            max_threads: kernel.max_threads.map_or(1024, |s| s.iter().product()),
            instructions: kernel.code.len(),
        })
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}
