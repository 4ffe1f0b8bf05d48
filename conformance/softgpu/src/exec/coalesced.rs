//! Loads and stores of a warp whose lanes go to one region, checked together.
//!
//! Most accesses are such: all lanes to one address, or each behind the lane before. What is found here is what lane by
//! lane would be found; where a lane alone has to be named, the lanes are taken one by one instead.

use super::check::{Check, Of, parameter, place};
use super::{Block, Machine, Warp, lanes};
use crate::alu::L64;
use crate::decode::FIRST_OFFSET;
use crate::fault::Outcome;
use crate::isa::Access;
use crate::memory::{Allocation, Global, Region};
use crate::ptx::Space;
use crate::race::{Clocks, SEVERAL};

/// The addresses of the active lanes.
struct Reach {
    space: Space,
    /// Without the window.
    low: u64,
    high: u64,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One address.
    Uniform,
    /// All 32 lanes, each `n` bytes behind the one before.
    Run,
    /// Aligned, and in one window.
    Scattered,
}

impl Reach {
    /// `None` if the lanes have to be looked at one by one.
    #[inline(always)]
    fn of(access: &Access, n: u64, addresses: &L64, active: u32) -> Option<Self> {
        let first = addresses[active.trailing_zeros() as usize & 31];
        let (mut low, mut high, mut all, mut run) = (first, first, first, 0);
        for l in 0..32 {
            let x = if active >> l & 1 == 1 { addresses[l] } else { first };
            (low, high, all) = (low.min(x), high.max(x), all | x);
            run |= x ^ first.wrapping_add(l as u64 * n);
        }
        if all & (n - 1) != 0 || low >> 32 != high >> 32 {
            return None;
        }
        let shape = match (low == high, run == 0 && active == u32::MAX) {
            (true, _) => Shape::Uniform,
            (false, true) => Shape::Run,
            (false, false) => Shape::Scattered,
        };
        let (space, start) = place(access.space, low);
        Some(Self { space, low: start, high: start + (high - low), shape })
    }
}

/// The region that lanes reach, as far as they do.
struct Site<'r> {
    region: &'r mut Region,
    start: usize,
    of: Of<'r>,
    read_only: bool,
}

impl<'r> Site<'r> {
    /// `None` if it is neither shared nor global memory, or not all of it is there.
    #[inline(always)]
    fn of(
        reach: &Reach,
        length: usize,
        global: &'r mut Global,
        shared: &'r mut Region,
        check: &mut Check,
    ) -> Option<Self> {
        match reach.space {
            Space::Shared => {
                let inside = reach.low >= u64::from(FIRST_OFFSET) && reach.low + length as u64 <= shared.len();
                let start = reach.low as usize;
                inside.then_some(Self { region: shared, start, of: Of::Shared, read_only: false })
            }
            Space::Global => {
                let (Allocation { region, name, read_only, .. }, start) =
                    check.locate(global, reach.low, length, 0).ok()?;
                Some(Self { region, start, of: Of::Global(name), read_only: *read_only })
            }
            _ => None,
        }
    }
}

/// The order of a warp's reads where neighbouring lanes, or both halves of the warp, read the same; `false` if lanes have to be
/// taken one by one, because there is a fault.
#[inline(always)]
fn shared_by_lanes(
    clocks: &Clocks,
    check: &Check,
    region: &mut Region,
    (addresses, active): (&L64, u32),
    n: usize,
    at: impl Fn(usize) -> usize,
) -> bool {
    let halves = active == u32::MAX && addresses[..16] == addresses[16..];
    let end = if halves { 16 } else { 32 };
    let mut rest = if halves { active & 0xffff } else { active };
    while rest != 0 {
        let l = rest.trailing_zeros() as usize;
        let mut next = l + 1;
        while next < end && rest >> next & 1 == 1 && addresses[next] == addresses[l] {
            next += 1;
        }
        let lane = if halves || next > l + 1 { SEVERAL } else { l as u32 };
        if check.conflict(clocks, region, at(l), n, lane).is_some() {
            return false;
        }
        rest = if next == 32 { 0 } else { rest >> next << next };
    }
    true
}

impl Warp {
    /// Loads for all lanes; `false` if nothing was done.
    #[inline(always)]
    pub(super) fn load_together(
        &mut self,
        m: &mut Machine,
        b: &mut Block,
        access: &Access,
        addresses: &L64,
        active: u32,
        check: &mut Check,
    ) -> Outcome<bool> {
        let n = access.bytes as usize * access.count as usize;
        let Some(reach) = Reach::of(access, n as u64, addresses, active) else { return Ok(false) };
        let length = (reach.high - reach.low) as usize + n;
        if reach.space == Space::Param && reach.shape == Shape::Uniform {
            let Ok(value) = parameter(m, reach.low, n, 0) else { return Ok(false) };
            self.loaded_by_all(access, value, active);
            return Ok(true);
        }
        let Some(site) = Site::of(&reach, length, m.global, &mut b.shared, check) else { return Ok(false) };
        let Site { region, start, of, read_only } = site;
        let ordered = !read_only;
        let at = |l: usize| start + (addresses[l] as u32).wrapping_sub(reach.low as u32) as usize;
        let all_written = match reach.shape {
            Shape::Uniform => region.readable(start, n, m.checks).is_none(),
            Shape::Run => region.readable(start, length, m.checks).is_none(),
            Shape::Scattered => lanes(active).all(|l| region.readable(at(l), n, m.checks).is_none()),
        };
        if !all_written {
            return Ok(false);
        }
        if reach.shape == Shape::Uniform {
            let one = active.is_power_of_two();
            let lane = if one { active.trailing_zeros() } else { SEVERAL };
            if ordered && check.conflict(&self.clocks, region, start, n, lane).is_some() {
                return Ok(false);
            }
            let value = region.get(start, n);
            self.loaded_by_all(access, value, active);
            return Ok(true);
        }
        if ordered && reach.shape == Shape::Run {
            check.run(&self.clocks, region, start, n, of)?;
        } else if ordered && !shared_by_lanes(&self.clocks, check, region, (addresses, active), n, at) {
            for l in lanes(active) {
                check.ordered(&self.clocks, region, at(l), n, l, of)?;
            }
        }
        self.spread(access, region, at, active);
        Ok(true)
    }

    /// What all lanes read at one address.
    #[inline(always)]
    fn loaded_by_all(&mut self, access: &Access, value: u128, active: u32) {
        for (i, &r) in access.regs[..access.count as usize].iter().enumerate() {
            let element = access.element(value, i);
            if access.wide {
                self.set64(r, &[element; 32], active);
            } else {
                self.set32(r, &[element as u32; 32], active);
            }
        }
    }

    /// To each lane what lies at its address.
    #[inline(always)]
    fn spread(&mut self, access: &Access, region: &Region, at: impl Fn(usize) -> usize, active: u32) {
        let n = access.bytes as usize * access.count as usize;
        if access.bytes == 4 && access.count == 1 && !access.wide {
            let to = &mut self.r32[access.regs[0] as usize];
            for l in lanes(active) {
                to[l] = region.get(at(l), 4) as u32;
            }
            return;
        }
        for l in lanes(active) {
            self.loaded(access, l, region.get(at(l), n));
        }
    }

    /// Stores for all lanes, if each has its own place; `false` if nothing was done.
    #[inline(always)]
    pub(super) fn store_together(
        &mut self,
        m: &mut Machine,
        b: &mut Block,
        access: &Access,
        addresses: &L64,
        active: u32,
        check: &mut Check,
    ) -> Outcome<bool> {
        let n = access.bytes as usize * access.count as usize;
        let Some(reach) = Reach::of(access, n as u64, addresses, active) else { return Ok(false) };
        if reach.shape != Shape::Run {
            return Ok(false);
        }
        let length = 32 * n;
        let site = Site::of(&reach, length, m.global, &mut b.shared, check).filter(|site| !site.read_only);
        let Some(Site { region, start: at, of, .. }) = site else { return Ok(false) };
        if region.pending(at, length) {
            return Ok(false);
        }
        check.run(&self.clocks, region, at, n, of)?;
        region.written(at, length);
        for l in 0..32 {
            region.put(at + l * n, n, self.stored(access, l));
        }
        Ok(true)
    }
}
