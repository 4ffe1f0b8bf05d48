//! What every access must pass: bounds, alignment, bytes that somebody wrote, and an order with the accesses before.

use std::fmt;

use super::{Machine, fault};
use crate::decode::{FIRST_OFFSET, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::fault::{FaultKind, Outcome};
use crate::memory::{Allocation, Checks, Global, Region, Spot};
use crate::ptx::Space;
use crate::race::{Clocks, Conflict, Kind, Mark};

/// An address without its window, and which memory it is in.
#[inline]
pub(super) fn place(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic => match address >> 32 << 32 {
            SHARED_WINDOW => (Space::Shared, address & 0xffff_ffff),
            LOCAL_WINDOW => (Space::Local, address & 0xffff_ffff),
            PARAM_WINDOW => (Space::Param, address & 0xffff_ffff),
            _ => (Space::Global, address),
        },
        Space::Const => (Space::Global, address),
        // Addresses within the other windows have 32 bits.
        Space::Shared | Space::Local | Space::Param => (space, address & 0xffff_ffff),
        Space::Global => (space, address),
    }
}

/// A place, for people to read.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    Shared,
    Local,
    Global(&'a str),
}

/// A byte of a place.
struct At<'a>(Of<'a>, usize);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            At(Of::Shared, at) => write!(f, "shared memory at {at:#x}"),
            At(Of::Local, at) => write!(f, "local memory at {at:#x}"),
            At(Of::Global(name), at) => write!(f, "byte {at} of {name}"),
        }
    }
}

/// The checks of one instruction's accesses.
pub(super) struct Check {
    mark: Mark,
    checks: Checks,
    granule: u32,
    /// The allocation that the last lane's address was in: mostly the next one's too.
    near: Option<Near>,
}

#[derive(Clone, Copy)]
struct Near {
    slot: usize,
    base: u64,
    size: u64,
}

impl Check {
    /// For the instruction in line `line`.
    pub(super) fn new(m: &Machine, clocks: &Clocks, line: u32, kind: Kind) -> Self {
        Self { mark: clocks.mark(line, kind), checks: m.checks, granule: m.kernel.granule, near: None }
    }

    /// The warp has synchronised with others between two lanes.
    pub(super) fn renew(&mut self, clocks: &Clocks) {
        self.mark = clocks.mark(self.mark.line, self.mark.kind);
    }

    /// A read of `n` bytes by lane `l`.
    #[inline]
    pub(super) fn read(
        &self,
        clocks: &Clocks,
        region: &mut Region,
        at: usize,
        n: usize,
        l: usize,
        of: Of,
    ) -> Outcome<()> {
        if let Some(kind) = region.readable(at, n, self.checks) {
            return fault(kind, 1 << l, format!("{n} bytes, {}", At(of, at)));
        }
        self.ordered(clocks, region, at, n, l, of)
    }

    /// A write of the lower `n` bytes of `value` by lane `l`.
    #[inline]
    pub(super) fn write(
        &self,
        clocks: &Clocks,
        region: &mut Region,
        (at, n): (usize, usize),
        value: u128,
        l: usize,
        of: Of,
    ) -> Outcome<()> {
        if let Some(c) = self.conflict(clocks, region, at, n, l as u32) {
            // Several lanes of one store may write the same value to one place.
            let (bits, before) = (8 * n as u32, region.get(at, n));
            let same = (before ^ value) << (128 - bits) == 0;
            if !(c.same_instruction && same) {
                return self.race(clocks, c, l, n, &At(of, at));
            }
        }
        if let Some(kind) = region.written(at, n) {
            return fault(kind, 1 << l, format!("a store of {n} bytes, {}", At(of, at)));
        }
        region.put(at, n, value);
        Ok(())
    }

    /// An access's order against those before.
    #[inline]
    pub(super) fn ordered(
        &self,
        clocks: &Clocks,
        region: &mut Region,
        at: usize,
        n: usize,
        l: usize,
        of: Of,
    ) -> Outcome<()> {
        match self.conflict(clocks, region, at, n, l as u32) {
            Some(conflict) => self.race(clocks, conflict, l, n, &At(of, at)),
            None => Ok(()),
        }
    }

    /// The access that one of `n` bytes has no order with, if there is one.
    #[inline]
    pub(super) fn conflict(
        &self,
        clocks: &Clocks,
        region: &mut Region,
        at: usize,
        n: usize,
        lane: u32,
    ) -> Option<Conflict> {
        if !self.checks.races {
            return None;
        }
        region.touch(at, n, self.granule, clocks, &self.mark, lane)
    }

    /// The order of 32 lanes' accesses, each `n` bytes behind the lane before.
    #[inline]
    pub(super) fn run(&self, clocks: &Clocks, region: &mut Region, at: usize, n: usize, of: Of) -> Outcome<()> {
        if !self.checks.races {
            return Ok(());
        }
        match region.touch_run(at, n, self.granule, clocks, &self.mark) {
            Some((l, conflict)) => self.race(clocks, conflict, l as usize, n, &At(of, at + l as usize * n)),
            None => Ok(()),
        }
    }

    /// The allocation that `n` bytes of global memory lie in, and where.
    #[inline]
    pub(super) fn find<'g>(
        &mut self,
        global: &'g mut Global,
        address: u64,
        n: usize,
        l: usize,
    ) -> Outcome<(&'g mut Allocation, usize)> {
        aligned(address, n, l)?;
        self.locate(global, address, n, l)
    }

    /// As [`Self::find`], whatever the alignment.
    #[inline]
    pub(super) fn locate<'g>(
        &mut self,
        global: &'g mut Global,
        address: u64,
        n: usize,
        l: usize,
    ) -> Outcome<(&'g mut Allocation, usize)> {
        let Spot { slot, offset } = match self.near {
            Some(Near { slot, base, size })
                if address >= base && address - base <= size && n as u64 <= size - (address - base) =>
            {
                Spot { slot, offset: address - base }
            }
            _ => match global.range(address, n as u64) {
                Ok(spot) => spot,
                Err((kind, detail)) => return fault(kind, 1 << l, detail),
            },
        };
        let Some(found) = global.get_mut(slot) else {
            return fault(FaultKind::OutOfBounds, 1 << l, format!("address {address:#x} belongs to no allocation"));
        };
        self.near = Some(Near { slot, base: address - offset, size: found.size });
        Ok((found, offset as usize))
    }

    /// Puts a race into words.
    #[cold]
    fn race<T>(&self, clocks: &Clocks, c: Conflict, l: usize, n: usize, at: &At) -> Outcome<T> {
        let verb = if self.mark.kind.write { "write" } else { "read" };
        let earlier = if c.write { "write" } else { "read" };
        let per_block = clocks.per_block();
        let who = match (c.same_warp, c.lane) {
            (true, Some(lane)) => format!("thread {}", clocks.index() * 32 + lane),
            (true, None) => "another lane of the warp".to_owned(),
            (false, _) => format!("warp {} of block {}", c.warp % per_block, c.warp / per_block),
        };
        let line = c.line;
        fault(
            FaultKind::Race,
            1 << l,
            format!("{n}-byte {verb} of {at} and a {earlier} by {who}, line {line}, unordered"),
        )
    }
}

/// A value of the kernel's parameters.
pub(super) fn parameter(m: &Machine, address: u64, n: usize, l: usize) -> Outcome<u128> {
    aligned(address, n, l)?;
    let at = address as usize;
    let Some(found) = m.params.get(at..at + n) else {
        return fault(FaultKind::OutOfBounds, 1 << l, format!("{n} bytes of parameters at {at}"));
    };
    let mut bytes = [0; 16];
    bytes[..n].copy_from_slice(found);
    Ok(u128::from_le_bytes(bytes))
}

#[inline]
fn aligned(address: u64, n: usize, l: usize) -> Outcome<()> {
    // Sizes are powers of two.
    if address & (n as u64 - 1) == 0 {
        return Ok(());
    }
    fault(FaultKind::Misaligned, 1 << l, format!("{n} bytes at {address:#x}"))
}

/// Bounds and alignment in a small memory.
#[inline]
pub(super) fn inside(region: &Region, of: Of, address: u64, n: usize, l: usize) -> Outcome<usize> {
    aligned(address, n, l)?;
    if address < u64::from(FIRST_OFFSET) || address + n as u64 > region.len() {
        let (at, end) = (At(of, address as usize), region.len());
        return fault(FaultKind::OutOfBounds, 1 << l, format!("{n} bytes, {at}, which ends at {end:#x}"));
    }
    Ok(address as usize)
}
