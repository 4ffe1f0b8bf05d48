//! Who runs when: which blocks are on the device, and which warp has its turn.

use std::collections::{HashMap, VecDeque};

use crate::decode::FIRST_OFFSET;
use crate::exec::{Block, Copies, Group, Machine, State, Stop, Warp, release};
use crate::fault::{Fault, FaultKind, Raised};
use crate::gpu::{Launch, Stats};
use crate::isa::{Kernel, Special, Value32};
use crate::memory::{Checks, Global, Region};
use crate::race::{Clocks, Places};

/// A launch, ready to go.
pub(crate) struct Plan<'a> {
    /// The module's number.
    pub(crate) module: u64,
    pub(crate) kernel: &'a Kernel,
    pub(crate) launch: &'a Launch,
    pub(crate) params: &'a [u8],
    /// 64-bit constant registers.
    pub(crate) constants: Vec<(u32, u64)>,
    pub(crate) checks: Checks,
    pub(crate) seed: u64,
    /// How many launches there were: the next one has another schedule.
    pub(crate) launches: u64,
    pub(crate) max_steps: u64,
    pub(crate) resident: u32,
}

/// Blocks that have left the device: their registers and their shared memory serve the next launch of the same kernel with as
/// many warps, for a launch of few instructions costs less than fresh memory does.
#[derive(Default)]
pub(crate) struct Spares(VecDeque<(Shape, Vec<Resident>)>);

/// Module, kernel and warps.
type Shape = (u64, String, u32);

impl std::fmt::Debug for Spares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spares of {} kernels", self.0.len())
    }
}

impl Spares {
    /// Kernels remembered, and blocks of each.
    const MOST: (usize, usize) = (24, 4);

    fn take(&mut self, shape: &Shape) -> Vec<Resident> {
        let at = self.0.iter().position(|(known, _)| known == shape);
        at.and_then(|at| self.0.remove(at)).map(|(_, blocks)| blocks).unwrap_or_default()
    }

    fn put(&mut self, shape: Shape, mut blocks: Vec<Resident>) {
        blocks.truncate(Self::MOST.1);
        self.0.push_back((shape, blocks));
        if self.0.len() > Self::MOST.0 {
            self.0.pop_front();
        }
    }
}

/// A block on the device.
struct Resident {
    block: Block,
    warps: Vec<Warp>,
    stops: Vec<Stop>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// Runs all blocks.
pub(crate) fn run(plan: &Plan, global: &mut Global, spares: &mut Spares) -> Result<Stats, Fault> {
    let machine = Machine {
        kernel: plan.kernel,
        params: plan.params,
        global,
        checks: plan.checks,
        places: Places::new(),
        arch: pulp::Arch::new(),
        steps: 0,
        lanes: 0,
        spins: 0,
    };
    let [gx, gy, gz] = plan.launch.grid;
    let mut order: Vec<u32> = (0..gx * gy * gz).rev().collect();
    let mut random = Random(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(plan.launches));
    let mut window = 1;
    if plan.seed != 0 {
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        window = 1 + random.below(plan.resident.clamp(1, 16) as usize);
    }
    if plan.launch.cooperative {
        window = order.len();
    }
    let warps = plan.launch.block.iter().product::<u32>().div_ceil(32);
    let shape = (plan.module, plan.kernel.name.clone(), warps);
    let spare = spares.take(&shape);
    let mut scheduler = Scheduler { plan, machine, order, random, window, resident: Vec::new(), spare, turn: 0 };
    let stats = scheduler.run()?;
    spares.put(shape, scheduler.spare);
    Ok(stats)
}

struct Scheduler<'a> {
    plan: &'a Plan<'a>,
    machine: Machine<'a>,
    /// Blocks to come, the next one last.
    order: Vec<u32>,
    random: Random,
    /// Blocks on the device at once.
    window: usize,
    resident: Vec<Resident>,
    spare: Vec<Resident>,
    turn: usize,
}

impl Scheduler<'_> {
    fn run(&mut self) -> Result<Stats, Fault> {
        loop {
            while self.resident.len() < self.window
                && let Some(index) = self.order.pop()
            {
                let block = self.admit(index);
                self.resident.push(block);
            }
            if self.resident.is_empty() {
                let (instructions, lane_instructions) = (self.machine.steps, self.machine.lanes);
                return Ok(Stats { instructions, lane_instructions });
            }
            match self.pick() {
                Some((b, w)) => self.turn(b, w)?,
                None => self.widen(FaultKind::Deadlock, "every warp waits at a barrier that others never reach")?,
            }
            let warps: usize = self.resident.iter().map(|r| r.warps.len()).sum();
            if self.machine.spins > 4000 + 400 * warps as u64 {
                self.machine.spins = 0;
                self.widen(FaultKind::Deadlock, "all threads only wait for a change of memory that nobody makes")?;
            }
            if self.machine.steps > self.plan.max_steps {
                let text = format!("more than {} instructions", self.plan.max_steps);
                return Err(self.stopped(FaultKind::StepLimit, text));
            }
        }
    }

    /// Another block may be what the others wait for; if there is none left, it's a fault.
    fn widen(&mut self, kind: FaultKind, text: &str) -> Result<(), Fault> {
        let most = (self.plan.resident as usize).max(1);
        if self.order.is_empty() || self.window >= most {
            return Err(self.stopped(kind, text.to_owned()));
        }
        self.window += 1;
        Ok(())
    }

    /// The block and warp to run next.
    fn pick(&mut self) -> Option<(usize, usize)> {
        if self.plan.seed == 0 {
            // Round and round, so that a warp that spins gives way.
            let total: usize = self.resident.iter().map(|r| r.warps.len()).sum();
            let per = total / self.resident.len().max(1);
            for i in 0..total {
                let at = (self.turn + i) % total;
                let (b, w) = (at / per, at % per);
                if self.resident[b].stops[w] == Stop::Paused {
                    self.turn = at;
                    return Some((b, w));
                }
            }
            return None;
        }
        let b = self.random.below(self.resident.len());
        for i in 0..self.resident.len() {
            let b = (b + i) % self.resident.len();
            let stops = &self.resident[b].stops;
            let ready = stops.iter().filter(|s| **s == Stop::Paused).count();
            if ready > 0 {
                let nth = self.random.below(ready);
                let found = stops.iter().enumerate().filter(|(_, s)| **s == Stop::Paused).nth(nth);
                return found.map(|(w, _)| (b, w));
            }
        }
        None
    }

    /// One warp's turn.
    fn turn(&mut self, b: usize, w: usize) -> Result<(), Fault> {
        let quantum = if self.plan.seed == 0 {
            1 << 20
        } else {
            // Often a few instructions, sometimes many.
            1u64 << self.random.below(11)
        };
        let resident = &mut self.resident[b];
        let outcome = resident.warps[w].run(&mut self.machine, &mut resident.block, quantum);
        match outcome {
            Ok(stop) => resident.stops[w] = stop,
            Err(raised) => return Err(self.fault(b, w, *raised)),
        }
        if resident.stops[w] == Stop::Paused {
            if self.plan.seed == 0 {
                self.turn += 1;
            }
            return Ok(());
        }
        match release(&mut self.machine, &mut resident.block, &mut resident.warps) {
            Ok(false) => {}
            Ok(true) => {
                self.machine.spins = 0;
                for (stop, warp) in resident.stops.iter_mut().zip(&resident.warps) {
                    if *stop == Stop::Blocked && warp.groups.iter().any(|g| g.state == State::Ready) {
                        *stop = Stop::Paused;
                    }
                }
            }
            Err((w, raised)) => return Err(self.fault(b, w, *raised)),
        }
        if resident.stops.iter().all(|s| *s == Stop::Done) {
            let done = self.resident.remove(b);
            self.spare.push(done);
            self.machine.spins = 0;
            self.turn = 0;
        }
        Ok(())
    }

    fn fault(&self, b: usize, w: usize, raised: Raised) -> Fault {
        let warp = &self.resident[b].warps[w];
        Fault {
            kind: raised.kind,
            kernel: self.plan.kernel.name.clone(),
            line: warp.at,
            block: self.resident[b].block.coordinates,
            threads: crate::exec::lanes(raised.lanes).map(|l| warp.index * 32 + l as u32).collect(),
            detail: raised.detail,
        }
    }

    /// A fault of the first warp that is still there.
    fn stopped(&self, kind: FaultKind, detail: String) -> Fault {
        let waiting = self.resident.iter().enumerate().find_map(|(b, r)| {
            let w = r.stops.iter().position(|s| *s != Stop::Done)?;
            Some((b, w))
        });
        let Some((b, w)) = waiting else {
            let kernel = self.plan.kernel.name.clone();
            return Fault { kind, kernel, line: 0, block: [0; 3], threads: Vec::new(), detail };
        };
        let lanes = self.resident[b].warps[w].live();
        self.fault(b, w, Raised { kind, lanes, detail })
    }

    /// A block enters the device.
    fn admit(&mut self, index: u32) -> Resident {
        let plan = self.plan;
        let [gx, gy, _] = plan.launch.grid;
        let coordinates = [index % gx, index / gx % gy, index / gx / gy];
        let threads: u32 = plan.launch.block.iter().product();
        let count = threads.div_ceil(32);
        let mut resident = self.spare.pop().unwrap_or_else(|| self.fresh(count));
        let size = plan.kernel.dynamic + plan.launch.shared;
        resident.block.shared.reset(size as usize);
        resident.block.arrived.clear();
        (resident.block.coordinates, resident.block.index) = (coordinates, index);
        for (w, warp) in resident.warps.iter_mut().enumerate() {
            let w = w as u32;
            let alive = (threads - w * 32).min(32);
            let mask = u32::MAX >> (32 - alive);
            warp.groups.clear();
            warp.groups.push(Group { pc: 0, mask, state: State::Ready, expected: 0, laps: 0 });
            warp.clocks = Clocks::new(index, w, count);
            warp.copies.reset();
            if plan.kernel.local > FIRST_OFFSET {
                for region in &mut warp.local {
                    region.reset(plan.kernel.local as usize);
                }
            }
            for &(r, value) in &plan.kernel.const32 {
                if let Value32::Special(special) = value {
                    warp.r32[r as usize] = std::array::from_fn(|l| self.special(special, coordinates, w, l as u32));
                }
            }
        }
        resident.stops.fill(Stop::Paused);
        resident
    }

    fn fresh(&self, count: u32) -> Resident {
        let kernel = self.plan.kernel;
        let warps = (0..count).map(|index| {
            let mut r32 = vec![[0xdead_beef; 32]; kernel.files[0].max(1)];
            let mut r64 = vec![[0xdead_beef_dead_beef; 32]; kernel.files[1].max(1)];
            let mut preds = vec![0; kernel.files[2]];
            preds[0] = u32::MAX;
            for &(r, value) in &kernel.const32 {
                match value {
                    Value32::Bits(bits) => r32[r as usize] = [bits; 32],
                    Value32::Dynamic => r32[r as usize] = [kernel.dynamic; 32],
                    Value32::Special(_) => {}
                }
            }
            for &(r, bits) in &self.plan.constants {
                r64[r as usize] = [bits; 32];
            }
            let local = vec![Region::default(); 32];
            Warp {
                index,
                r32,
                r64,
                preds,
                carry: 0,
                groups: Vec::new(),
                clocks: Clocks::default(),
                copies: Copies::default(),
                local,
                at: 0,
            }
        });
        let block = Block { coordinates: [0; 3], index: 0, shared: Region::default(), arrived: HashMap::new() };
        Resident { block, warps: warps.collect(), stops: vec![Stop::Paused; count as usize] }
    }

    fn special(&self, special: Special, block: [u32; 3], warp: u32, lane: u32) -> u32 {
        let [nx, ny, _] = self.plan.launch.block;
        let thread = warp * 32 + lane;
        let warps = self.plan.launch.block.iter().product::<u32>().div_ceil(32);
        match special {
            Special::Tid(0) => thread % nx,
            Special::Tid(1) => thread / nx % ny,
            Special::Tid(_) => thread / nx / ny,
            Special::Ntid(axis) => self.plan.launch.block[axis as usize],
            Special::Ctaid(axis) => block[axis as usize],
            Special::Nctaid(axis) => self.plan.launch.grid[axis as usize],
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NWarpId => warps,
            Special::SmId => 0,
            Special::NSmId => 1,
            Special::WarpSize => 32,
            Special::MaskEq => 1 << lane,
            Special::MaskLt => (1 << lane) - 1,
            Special::MaskLe => u32::MAX >> (31 - lane),
            Special::MaskGe => u32::MAX << lane,
            Special::MaskGt => u32::MAX << lane << 1,
            Special::DynamicShared => self.plan.launch.shared,
            Special::TotalShared => self.plan.kernel.dynamic - FIRST_OFFSET + self.plan.launch.shared,
        }
    }
}
