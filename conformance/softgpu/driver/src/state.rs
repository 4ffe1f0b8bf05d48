//! The one device, behind a lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tilewright_softgpu::{Gpu, Module, Settings};

use crate::code::{Code, NOT_INITIALIZED};

/// The environment variable that switches the driver on.
pub const VARIABLE: &str = "TILEWRIGHT_SOFTGPU";

/// What the variable says.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) devices: i32,
    pub(crate) capability: (i32, i32),
    pub(crate) driver: i32,
    pub(crate) settings: Settings,
}

impl Config {
    /// From the environment; `None` if the variable isn't set.
    pub(crate) fn read() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        let mut config = Self { devices: 1, capability: (9, 0), driver: 12040, settings: Settings::default() };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let number = value.trim().parse::<u64>().ok();
            match (name.trim(), number) {
                ("seed", Some(n)) => config.settings.seed = n,
                ("devices", Some(n)) => config.devices = n.min(1) as i32,
                ("driver", Some(n)) => config.driver = n as i32,
                ("races", Some(n)) => config.settings.races = n != 0,
                ("uninitialized", Some(n)) => config.settings.uninitialized = n != 0,
                ("steps", Some(n)) => config.settings.max_steps = n,
                ("memory", Some(n)) => config.settings.memory_limit = n,
                ("capability", _) => {
                    let (major, minor) = value.split_once('.').unwrap_or((value, "0"));
                    if let (Ok(major), Ok(minor)) = (major.trim().parse(), minor.trim().parse()) {
                        config.capability = (major, minor);
                    }
                }
                _ => {}
            }
        }
        Some(config)
    }
}

/// A loaded kernel.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) module: Module,
    pub(crate) name: String,
    /// Most dynamic shared memory it may be given.
    pub(crate) dynamic: i32,
}

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) gpu: Gpu,
    pub(crate) modules: HashMap<usize, Module>,
    pub(crate) functions: HashMap<usize, Function>,
    pub(crate) events: HashMap<usize, Option<std::time::Instant>>,
    pub(crate) pinned: HashMap<usize, std::alloc::Layout>,
    pub(crate) fault: String,
    next: usize,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            gpu: Gpu::new(config.settings.clone()),
            config,
            modules: HashMap::new(),
            functions: HashMap::new(),
            events: HashMap::new(),
            pinned: HashMap::new(),
            fault: String::new(),
            next: 0x1_0000,
        }
    }

    /// A new opaque handle.
    pub(crate) fn handle(&mut self) -> usize {
        self.next += 16;
        self.next
    }
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

pub(crate) fn lock() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does something with the device, if there is one.
pub(crate) fn with(f: impl FnOnce(&mut State) -> Code) -> Code {
    lock().as_mut().map_or(NOT_INITIALIZED, f)
}
