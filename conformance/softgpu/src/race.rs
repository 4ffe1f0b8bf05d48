//! Happens-before, by vector clocks of warps.
//!
//! A warp's own clock ticks at every synchronisation it takes part in. An access is remembered with the warp, the lane and
//! the clock; a later one by another warp is ordered after it if that warp has since learnt of that clock, through a
//! barrier or through a fence and an atomic. Within a warp, lanes are ordered by `__syncwarp` and barriers only: a
//! shuffle orders nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Clocks of all warps of some blocks.
pub(crate) type Snapshot = BTreeMap<u32, Vec<u32>>;

/// What a warp knows of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    /// Number in the grid, and of its block.
    pub(crate) warp: u32,
    block: u32,
    per_block: u32,
    /// Of the warps of its own block.
    local: Vec<u32>,
    foreign: Option<Box<Snapshot>>,
    /// What a fence covers and a later atomic will publish.
    fence: Option<Arc<Snapshot>>,
    /// What was read with relaxed loads, and a later fence will make known.
    pending: Vec<Arc<Snapshot>>,
}

const LANE_SHIFT: u32 = 57;
const WARP_SHIFT: u32 = 32;
const STRONG: u64 = 1 << 63;
/// Stands for several lanes.
const MANY: u64 = SEVERAL as u64;
/// As a lane's number.
pub(crate) const SEVERAL: u32 = 63;

/// Warp of an access, from its epoch.
fn warp_of(epoch: u64) -> u32 {
    (epoch >> WARP_SHIFT) as u32 & ((1 << (LANE_SHIFT - WARP_SHIFT)) - 1)
}

fn lane_of(epoch: u64) -> u64 {
    epoch >> LANE_SHIFT & MANY
}

/// Most warps in a grid that epochs have room for.
pub(crate) const MAX_WARPS: u64 = 1 << (LANE_SHIFT - WARP_SHIFT);

impl Clocks {
    pub(crate) fn new(block: u32, index: u32, per_block: u32) -> Self {
        let mut local = vec![0; per_block as usize];
        local[index as usize] = 1;
        Self { warp: block * per_block + index, block, per_block, local, ..Self::default() }
    }

    pub(crate) fn per_block(&self) -> u32 {
        self.per_block
    }

    /// Number of the warp in its block.
    pub(crate) fn index(&self) -> u32 {
        self.warp - self.block * self.per_block
    }

    fn own(&self) -> u32 {
        self.local[self.index() as usize]
    }

    /// A new interval begins.
    pub(crate) fn tick(&mut self) {
        let own = self.index() as usize;
        self.local[own] += 1;
    }

    /// What the accesses of one instruction, in the PTX line `line`, leave behind.
    #[inline]
    pub(crate) fn mark(&self, line: u32, kind: Kind) -> Mark {
        let strong = if kind.strong { STRONG } else { 0 };
        let epoch = strong | u64::from(self.warp) << WARP_SHIFT | u64::from(self.own());
        Mark { epoch, line, kind }
    }

    /// Whether every lane of this warp can know that an access is over.
    #[inline]
    fn knows(&self, epoch: u64) -> bool {
        let (warp, clock) = (warp_of(epoch), epoch as u32);
        // Of this block, most often.
        if let Some(&known) = self.local.get(warp.wrapping_sub(self.block * self.per_block) as usize) {
            return if warp == self.warp { clock < known } else { clock <= known };
        }
        let known = self.foreign.as_ref().and_then(|f| f.get(&(warp / self.per_block)));
        known.is_some_and(|clocks| clocks[(warp % self.per_block) as usize] >= clock)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut all = self.foreign.as_deref().cloned().unwrap_or_default();
        all.insert(self.block, self.local.clone());
        Arc::new(all)
    }

    fn join(&mut self, other: &Snapshot) {
        for (&block, clocks) in other {
            let mine = if block == self.block {
                &mut self.local
            } else {
                let zeros = || vec![0; clocks.len()];
                self.foreign.get_or_insert_default().entry(block).or_insert_with(zeros)
            };
            for (m, c) in mine.iter_mut().zip(clocks) {
                *m = (*m).max(*c);
            }
        }
    }

    /// A fence: what came before will be published, what was read before becomes known.
    pub(crate) fn fence(&mut self) {
        for seen in std::mem::take(&mut self.pending) {
            self.join(&seen);
        }
        self.fence = Some(self.snapshot());
        self.tick();
    }

    /// A strong write to the place `key`; `rmw` keeps what others published there.
    pub(crate) fn publish(&mut self, places: &mut Places, key: u64, release: bool, rmw: bool) {
        if release {
            self.fence();
        }
        match (&self.fence, rmw) {
            (Some(mine), false) => drop(places.insert(key, Arc::clone(mine))),
            (None, false) => drop(places.remove(&key)),
            (Some(mine), true) => {
                let place = places.entry(key).or_insert_with(|| Arc::clone(mine));
                if !Arc::ptr_eq(place, mine) {
                    let mut all = (**place).clone();
                    for (&block, clocks) in mine.iter() {
                        let known = all.entry(block).or_insert_with(|| vec![0; clocks.len()]);
                        for (k, c) in known.iter_mut().zip(clocks) {
                            *k = (*k).max(*c);
                        }
                    }
                    *place = Arc::new(all);
                }
            }
            (None, true) => {}
        }
    }

    /// A strong read of the place `key`.
    pub(crate) fn observe(&mut self, places: &Places, key: u64, acquire: bool) {
        let Some(seen) = places.get(&key) else { return };
        let seen = Arc::clone(seen);
        if acquire {
            self.join(&seen);
            self.tick();
        } else if !self.pending.iter().any(|p| Arc::ptr_eq(p, &seen)) {
            self.pending.push(seen);
        }
    }

    /// What a barrier hands on.
    pub(crate) fn gather(&self, into: &mut Snapshot) {
        let mut add = |block: u32, clocks: &Vec<u32>| {
            let all = into.entry(block).or_insert_with(|| vec![0; clocks.len()]);
            for (a, c) in all.iter_mut().zip(clocks) {
                *a = (*a).max(*c);
            }
        };
        add(self.block, &self.local);
        for (&block, clocks) in self.foreign.iter().flat_map(|f| f.iter()) {
            add(block, clocks);
        }
    }

    /// After a barrier: everything the others knew, and a new interval.
    pub(crate) fn scatter(&mut self, all: &Snapshot) {
        self.join(all);
        self.tick();
    }
}

/// What was last published at each synchronising place.
pub(crate) type Places = HashMap<u64, Arc<Snapshot>>;

/// The last accesses of a few bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    write: u64,
    read: u64,
    /// The last read by another warp than `read`'s.
    older: u64,
    write_line: u32,
    read_line: u32,
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) write: bool,
    /// Atomic, or relaxed at least: such accesses don't race with each other.
    pub(crate) strong: bool,
}

/// The earlier access of a race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) warp: u32,
    pub(crate) lane: Option<u32>,
    pub(crate) line: u32,
    pub(crate) write: bool,
    /// Both are lanes of one warp.
    pub(crate) same_warp: bool,
    /// Both are lanes of one store, as far as its line tells.
    pub(crate) same_instruction: bool,
}

/// The accesses of one instruction, as cells remember them: all but the lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    epoch: u64,
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

impl Mark {
    /// Whether `lane` can't know that the access of `previous` is over, and must.
    #[inline(always)]
    fn clashes(&self, clocks: &Clocks, previous: u64, lane: u32) -> bool {
        if previous == 0 || clocks.knows(previous) {
            return false;
        }
        let own = warp_of(previous) == clocks.warp && lane_of(previous) == u64::from(lane);
        !(own || self.kind.strong && previous & STRONG != 0)
    }

    #[cold]
    fn conflict(&self, previous: u64, line: u32, write: bool) -> Conflict {
        let same_warp = warp_of(previous) == warp_of(self.epoch);
        Conflict {
            warp: warp_of(previous),
            lane: Some(lane_of(previous) as u32).filter(|&l| l < 32),
            line,
            write,
            same_warp,
            same_instruction: same_warp && line == self.line && write && self.kind.write,
        }
    }
}

impl Cell {
    /// Checks an access by `lane` against those before, then remembers it.
    #[inline(always)]
    pub(crate) fn touch(&mut self, clocks: &Clocks, mark: &Mark, lane: u32) -> Option<Conflict> {
        let epoch = mark.epoch | u64::from(lane) << LANE_SHIFT;
        let mut found = None;
        if mark.clashes(clocks, self.write, lane) {
            found = Some(mark.conflict(self.write, self.write_line, true));
        }
        if mark.kind.write {
            for previous in [self.read, self.older] {
                if found.is_none() && mark.clashes(clocks, previous, lane) {
                    found = Some(mark.conflict(previous, self.read_line, false));
                }
            }
            (self.write, self.write_line) = (epoch, mark.line);
        } else if self.read != epoch {
            self.read_by(epoch, mark.line);
        }
        found
    }

    #[inline]
    fn read_by(&mut self, epoch: u64, line: u32) {
        if warp_of(self.read) == warp_of(epoch) {
            let same = self.read as u32 == epoch as u32 && self.read != 0;
            let several = same && lane_of(self.read) != lane_of(epoch);
            self.read = if several { epoch | MANY << LANE_SHIFT } else { epoch };
        } else {
            (self.older, self.read) = (self.read, epoch);
        }
        self.read_line = line;
    }
}
