//! The device: memory and launches.

use core::fmt;
use std::collections::HashMap;

use crate::decode::FIRST_OFFSET;
use crate::fault::{Fault, FaultKind};
use crate::isa::{Kernel, Value64};
use crate::memory::{Checks, Global};
use crate::module::{Inner, Module};
use crate::ptx::{Initial, Space};
use crate::schedule::{self, Plan, Spares};

/// How a device runs kernels and what it looks for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// 0 runs blocks and warps in order; any other number is a random schedule.
    pub seed: u64,
    /// Whether accesses that nothing orders are faults.
    pub races: bool,
    /// Whether reads of memory that nothing wrote are faults.
    pub uninitialized: bool,
    /// Most instructions, counted by warp, that a launch may execute.
    pub max_steps: u64,
    /// Most blocks that take turns, unless the launch is cooperative: then all do.
    pub resident_blocks: u32,
    /// Bytes of shared memory a block may have.
    pub shared_limit: u32,
    /// Bytes of all allocations together.
    pub memory_limit: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            races: true,
            uninitialized: true,
            max_steps: 4_000_000_000,
            resident_blocks: 16,
            shared_limit: 227 * 1024,
            memory_limit: 8 << 30,
        }
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// All blocks run at once and may wait for each other.
    pub cooperative: bool,
}

impl Launch {
    /// A plain launch without dynamic shared memory.
    pub fn new(grid: [u32; 3], block: [u32; 3]) -> Self {
        Self { grid, block, shared: 0, cooperative: false }
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions, each counted once for a warp.
    pub instructions: u64,
    /// Instructions, counted for each lane.
    pub lane_instructions: u64,
}

/// A host access to device memory that can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// [`FaultKind::OutOfBounds`], [`FaultKind::UseAfterFree`], or [`FaultKind::Launch`] when there is no memory left.
    pub kind: FaultKind,
    /// The particulars.
    pub detail: String,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

impl core::error::Error for MemoryError {}

impl From<(FaultKind, String)> for MemoryError {
    fn from((kind, detail): (FaultKind, String)) -> Self {
        Self { kind, detail }
    }
}

/// A software device.
#[derive(Debug)]
pub struct Gpu {
    settings: Settings,
    global: Global,
    used: u64,
    allocations: u64,
    launches: u64,
    /// Addresses of each loaded module's variables.
    variables: HashMap<u64, HashMap<String, (u64, u64)>>,
    spares: Spares,
}

impl Gpu {
    /// A device with empty memory.
    pub fn new(settings: Settings) -> Self {
        let (global, variables) = (Global::default(), HashMap::new());
        Self { settings, global, used: 0, allocations: 0, launches: 0, variables, spares: Spares::default() }
    }

    /// Begins with a schedule: what follows does not depend on what was launched before.
    pub fn set_seed(&mut self, seed: u64) {
        self.settings.seed = seed;
        self.launches = 0;
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Allocates memory that nothing has written yet.
    ///
    /// # Errors
    /// If the device has less memory left.
    pub fn alloc(&mut self, size: u64) -> Result<u64, MemoryError> {
        self.allocations += 1;
        let name = format!("allocation {} ({size} bytes)", self.allocations);
        self.named(size, name)
    }

    fn named(&mut self, size: u64, name: String) -> Result<u64, MemoryError> {
        if size > self.settings.memory_limit.saturating_sub(self.used) {
            let detail = format!("{size} bytes asked for, {} of {} in use", self.used, self.settings.memory_limit);
            return Err(MemoryError { kind: FaultKind::Launch, detail });
        }
        self.used += size;
        Ok(self.global.alloc(size, name))
    }

    /// Frees an allocation; its addresses are never used again.
    ///
    /// # Errors
    /// If `address` isn't the start of a live allocation.
    pub fn free(&mut self, address: u64) -> Result<(), MemoryError> {
        let size = self.global.range(address, 0).ok().and_then(|s| self.global.get(s.slot)).map_or(0, |a| a.size);
        if self.global.free(address) {
            self.used -= size;
            return Ok(());
        }
        let detail = format!("{address:#x} is not the start of a live allocation");
        Err(MemoryError { kind: FaultKind::UseAfterFree, detail })
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// If the bytes aren't all in one live allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let spot = self.global.range(address, bytes.len() as u64)?;
        if let Some(a) = self.global.get_mut(spot.slot) {
            a.region.fill(spot.offset as usize, bytes);
        }
        Ok(())
    }

    /// Sets bytes on the device.
    ///
    /// # Errors
    /// If the bytes aren't all in one live allocation.
    pub fn fill(&mut self, address: u64, value: u8, length: u64) -> Result<(), MemoryError> {
        let spot = self.global.range(address, length)?;
        if let Some(a) = self.global.get_mut(spot.slot) {
            a.region.set(spot.offset as usize, length as usize, value);
        }
        Ok(())
    }

    /// Copies from the device, never-written bytes included.
    ///
    /// # Errors
    /// If the bytes aren't all in one live allocation.
    pub fn read(&self, address: u64, length: u64) -> Result<Vec<u8>, MemoryError> {
        let spot = self.global.range(address, length)?;
        let from = spot.offset as usize;
        Ok(self.global.get(spot.slot).map_or_else(Vec::new, |a| a.region.data[from..from + length as usize].to_vec()))
    }

    /// Copies within the device; what nothing wrote stays that way.
    ///
    /// # Errors
    /// If either end isn't in one live allocation.
    pub fn copy(&mut self, to: u64, from: u64, length: u64) -> Result<(), MemoryError> {
        let source = self.global.range(from, length)?;
        let target = self.global.range(to, length)?;
        let Some(a) = self.global.get(source.slot) else { return Ok(()) };
        let bytes = a.region.extract(source.offset as usize, length as usize);
        if let Some(a) = self.global.get_mut(target.slot) {
            a.region.implant(target.offset as usize, &bytes);
        }
        Ok(())
    }

    /// Address and size of a module's variable.
    ///
    /// # Errors
    /// If the device has no memory left for the module's variables.
    pub fn variable(&mut self, module: &Module, name: &str) -> Result<Option<(u64, u64)>, MemoryError> {
        self.load(module.inner())?;
        Ok(self.variables.get(&module.inner().id).and_then(|v| v.get(name)).copied())
    }

    /// Gives a module's variables their place, once.
    fn load(&mut self, module: &Inner) -> Result<(), MemoryError> {
        if self.variables.contains_key(&module.id) {
            return Ok(());
        }
        let mut places = HashMap::new();
        for variable in &module.variables {
            let address = self.named(variable.size, format!("variable {}", variable.name))?;
            // What has no initial value is zero.
            self.fill(address, 0, variable.size)?;
            places.insert(variable.name.clone(), (address, variable.size));
        }
        for variable in &module.variables {
            let Some(&(address, _)) = places.get(&variable.name) else { continue };
            for initial in &variable.initial {
                match initial {
                    Initial::Bytes(at, bytes) => self.write(address + at, bytes)?,
                    Initial::Address(at, name, offset) => {
                        let target = places.get(name).map_or(0, |p| p.0).wrapping_add(*offset as u64);
                        self.write(address + at, &target.to_le_bytes())?;
                    }
                }
            }
            if variable.space == Space::Const
                && let Ok(spot) = self.global.range(address, 0)
                && let Some(a) = self.global.get_mut(spot.slot)
            {
                a.read_only = true;
            }
        }
        self.variables.insert(module.id, places);
        Ok(())
    }

    /// Runs a kernel to its end. `params` is the parameter buffer, laid out as [`crate::KernelInfo::params`] says.
    ///
    /// # Errors
    /// The first fault, in the order of the schedule.
    pub fn launch(&mut self, module: &Module, kernel: &str, launch: &Launch, params: &[u8]) -> Result<Stats, Fault> {
        let wrong = |detail: String| Fault {
            kind: FaultKind::Launch,
            kernel: kernel.to_owned(),
            line: 0,
            block: [0; 3],
            threads: Vec::new(),
            detail,
        };
        let inner = module.inner();
        let decoded = inner.kernels.get(kernel).ok_or_else(|| wrong("the module has no such kernel".into()))?;
        self.check(decoded, launch, params).map_err(wrong)?;
        self.load(inner).map_err(|e| wrong(e.to_string()))?;
        let places = self.variables.get(&inner.id);
        let address = |name: &str| places.and_then(|p| p.get(name)).map_or(0, |p| p.0);
        let constants = decoded.const64.iter().map(|(r, value)| match value {
            Value64::Bits(bits) => (*r, *bits),
            Value64::Symbol(name) => (*r, address(name)),
            Value64::Dynamic => (*r, decoded.dynamic.into()),
        });
        let constants = constants.collect();
        let checks = Checks { races: self.settings.races, uninitialized: self.settings.uninitialized };
        self.launches += 1;
        let plan = Plan {
            module: inner.id,
            kernel: decoded,
            launch,
            params,
            constants,
            checks,
            seed: self.settings.seed,
            launches: self.launches,
            max_steps: self.settings.max_steps,
            resident: self.settings.resident_blocks,
        };
        let result = schedule::run(&plan, &mut self.global, &mut self.spares);
        for allocation in self.global.live() {
            allocation.region.forget();
        }
        result
    }

    fn check(&self, kernel: &Kernel, launch: &Launch, params: &[u8]) -> Result<(), String> {
        let Launch { grid, block, shared, .. } = *launch;
        let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
        let blocks = grid.iter().map(|&n| u128::from(n)).product::<u128>();
        if threads == 0 || threads > 1024 || block[2] > 64 {
            return Err(format!("a block of {block:?} threads; 1 to 1024, and at most 64 along z, are possible"));
        }
        if blocks == 0 || grid[1] > 65535 || grid[2] > 65535 {
            return Err(format!("a grid of {grid:?} blocks"));
        }
        if blocks * u128::from(threads.div_ceil(32)) > u128::from(crate::race::MAX_WARPS) {
            return Err(format!("a grid of {grid:?} blocks has more warps than this device can tell apart"));
        }
        if let Some(most) = kernel.max_threads {
            if kernel.required && most != block {
                return Err(format!("a block of {block:?} threads, but the kernel requires {most:?}"));
            }
            let most: u32 = most.iter().product();
            if threads > u64::from(most) {
                return Err(format!("a block of {threads} threads, but the kernel was compiled for at most {most}"));
            }
        }
        if params.len() != kernel.param_bytes as usize {
            return Err(format!("{} bytes of parameters, but the kernel takes {}", params.len(), kernel.param_bytes));
        }
        let total = kernel.dynamic - FIRST_OFFSET + shared;
        if shared > self.settings.shared_limit || total > self.settings.shared_limit + 1024 {
            return Err(format!("{total} bytes of shared memory, of {} possible", self.settings.shared_limit));
        }
        Ok(())
    }
}
