//! Waiting for other lanes, and for other warps.

use super::{Block, Machine, State, Warp, fault, lanes};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Bar, Barrier, R};
use crate::race::Snapshot;

/// Whether an instruction that lanes execute together can go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gather {
    Go,
    /// Some lanes it names aren't here yet.
    Wait,
}

impl Warp {
    /// For instructions with a mask of members: waits until all of them that are alive are here.
    pub(super) fn gather(&mut self, group: usize, members: R, active: u32) -> Outcome<Gather> {
        let members = self.r32[members as usize];
        let live = self.live();
        for l in lanes(active) {
            if members[l] >> l & 1 == 0 {
                let text = format!("the mask {:#x} doesn't name the lane that executes it", members[l]);
                return fault(FaultKind::DivergentWarp, 1 << l, text);
            }
            if members[l] & live & !active != 0 {
                self.groups[group].state = State::AtWarpSync;
                return Ok(Gather::Wait);
            }
        }
        Ok(Gather::Go)
    }

    /// For `.aligned` instructions: all 32 lanes, or none.
    pub(super) fn whole(&mut self, group: usize, active: u32, what: &str) -> Outcome<Gather> {
        if active == u32::MAX {
            return Ok(Gather::Go);
        }
        if self.groups.len() > 1 {
            self.groups[group].state = State::AtWarpSync;
            return Ok(Gather::Wait);
        }
        fault(FaultKind::DivergentWarp, active, format!("{what} needs all 32 lanes of the warp"))
    }

    /// No lane can go on; somebody waits for lanes that never come.
    pub(super) fn stuck(&self) -> Outcome<()> {
        let Some(group) = self.groups.iter().find(|g| g.state == State::AtWarpSync) else { return Ok(()) };
        let others: u32 = self.live() & !group.mask;
        let where_ = self.groups.iter().find(|g| g.mask & others != 0).map_or(0, |g| g.pc);
        let text = format!("it waits for lanes {others:#010x}, which are at instruction {where_} and don't come");
        fault(FaultKind::DivergentWarp, group.mask, text)
    }

    /// `bar` and `barrier`: announces the group; the block lets it go when all are there. `true` if it has to wait.
    pub(super) fn bar(
        &mut self,
        m: &mut Machine,
        b: &mut Block,
        group: usize,
        bar: &Bar,
        active: u32,
    ) -> Outcome<bool> {
        let first = active.trailing_zeros() as usize;
        let id = self.r32[bar.id as usize][first];
        if lanes(active).any(|l| self.r32[bar.id as usize][l] != id) || id > 15 {
            return fault(
                FaultKind::Trap,
                active,
                format!("barrier {id}: it must be one of 16, the same for all lanes"),
            );
        }
        m.spins = 0;
        if bar.kind == Barrier::Arrive {
            let (threads, known) = b.arrived.entry(id).or_default();
            *threads += 32;
            self.clocks.gather(known);
            self.clocks.tick();
            return Ok(false);
        }
        let live = self.live();
        let state = &mut self.groups[group];
        state.state = State::AtBarrier { id };
        if state.expected == 0 {
            state.expected = live;
        }
        Ok(true)
    }
}

/// Lets threads go from every barrier of the block that is complete. `true` if any was.
pub(crate) fn release(
    m: &mut Machine,
    b: &mut Block,
    warps: &mut [Warp],
) -> Result<bool, (usize, Box<crate::fault::Raised>)> {
    let mut waiting: Vec<(usize, usize, u32)> = Vec::new();
    for (w, warp) in warps.iter().enumerate() {
        for (g, group) in warp.groups.iter().enumerate() {
            if let State::AtBarrier { id } = group.state {
                waiting.push((w, g, id));
            }
        }
    }
    let mut any = false;
    while let Some(&(w, g, id)) = waiting.first() {
        let (here, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|&(_, _, other)| other == id);
        waiting = rest;
        let pc = warps[w].groups[g].pc;
        let crate::isa::Op::Bar(bar) = &m.kernel.code[pc as usize].op else { continue };
        let lane = warps[w].groups[g].mask.trailing_zeros() as usize;
        let wanted = match bar.count {
            Some(r) => warps[w].r32[r as usize][lane],
            None => warps.iter().map(|w| w.live().count_ones()).sum(),
        };
        // With a count, whole warps are counted, as the hardware does.
        let size = |mask: u32| if bar.count.is_some() { 32 } else { mask.count_ones() };
        let arrived = b.arrived.get(&id).map_or(0, |a| a.0);
        let present: u32 = here.iter().map(|&(w, g, _)| size(warps[w].groups[g].mask)).sum();
        if present + arrived >= wanted {
            check_whole(&here, warps, bar.aligned)?;
            open(m, b, warps, &here, id);
            any = true;
        }
    }
    Ok(any)
}

/// A warp comes to an aligned barrier as a whole.
fn check_whole(
    here: &[(usize, usize, u32)],
    warps: &[Warp],
    aligned: bool,
) -> Result<(), (usize, Box<crate::fault::Raised>)> {
    for &(w, g, _) in here.iter().filter(|_| aligned) {
        let group = &warps[w].groups[g];
        let missing = group.expected & !group.mask;
        if missing != 0 {
            let text = format!("lanes {missing:#010x} of the warp were alive and didn't come to it");
            return Err((w, crate::fault::Raised::new(FaultKind::DivergentBarrier, group.mask, text)));
        }
    }
    Ok(())
}

fn open(m: &Machine, b: &mut Block, warps: &mut [Warp], here: &[(usize, usize, u32)], id: u32) {
    let mut known = b.arrived.remove(&id).map_or_else(Snapshot::new, |a| a.1);
    let (mut count, mut all, mut some) = (0, true, false);
    for &(w, g, _) in here {
        let warp = &warps[w];
        warp.clocks.gather(&mut known);
        let group = &warp.groups[g];
        if let crate::isa::Op::Bar(bar) = &m.kernel.code[group.pc as usize].op
            && let Some((p, negated)) = bar.pred
        {
            let p = (warp.preds[p as usize] ^ if negated { u32::MAX } else { 0 }) & group.mask;
            count += p.count_ones();
            all &= p == group.mask;
            some |= p != 0;
        }
    }
    for &(w, g, _) in here {
        let warp = &mut warps[w];
        warp.clocks.scatter(&known);
        let (pc, mask) = (warp.groups[g].pc, warp.groups[g].mask);
        if let crate::isa::Op::Bar(bar) = &m.kernel.code[pc as usize].op {
            match bar.kind {
                Barrier::Popc => warp.set32(bar.d, &[count; 32], mask),
                Barrier::And => warp.set_pred(bar.d, if all { u32::MAX } else { 0 }, mask),
                Barrier::Or => warp.set_pred(bar.d, if some { u32::MAX } else { 0 }, mask),
                Barrier::Sync | Barrier::Arrive => {}
            }
        }
        let group = &mut warp.groups[g];
        (group.state, group.expected, group.pc) = (State::Ready, 0, pc + 1);
    }
}
