//! Divergence: the groups of a warp's lanes.

use super::Warp;

/// What a group of lanes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Waits for other lanes of its warp at the instruction it stands at.
    AtWarpSync,
    /// Waits at a barrier of the block.
    AtBarrier {
        id: u32,
    },
}

/// Lanes that are at the same place.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    pub(crate) state: State,
    /// Lanes that were alive when the group came to its barrier.
    pub(crate) expected: u32,
    /// Jumps backward while others waited for a turn.
    pub(crate) laps: u32,
}

/// After so many laps a spinning group lets the others by.
const LAPS: u32 = 1000;

impl Warp {
    /// Chooses the group to run: its index, and where it must stop to join another one.
    pub(super) fn choose(&mut self) -> Option<(usize, u32)> {
        if self.groups.len() == 1 {
            let ready = self.groups[0].state != State::AtWarpSync || self.retry(0);
            return (ready && self.groups[0].state == State::Ready).then_some((0, u32::MAX));
        }
        self.merge();
        let patient = self.groups.iter().filter(|g| g.state == State::Ready).all(|g| g.laps >= LAPS);
        if patient {
            for group in &mut self.groups {
                group.laps = 0;
            }
        }
        let candidates = self.groups.iter().enumerate().filter(|(_, g)| g.state == State::Ready && g.laps < LAPS);
        let (chosen, pc) = candidates.map(|(i, g)| (i, g.pc)).min_by_key(|&(_, pc)| pc)?;
        let others = self.groups.iter().enumerate().filter(|&(i, g)| i != chosen && g.pc > pc);
        Some((chosen, others.map(|(_, g)| g.pc).min().unwrap_or(u32::MAX)))
    }

    /// A lone group has nobody to wait for: what it waited for is gone.
    fn retry(&mut self, index: usize) -> bool {
        self.groups[index].state = State::Ready;
        true
    }

    /// Groups at the same place become one.
    fn merge(&mut self) {
        let mut i = 0;
        while i < self.groups.len() {
            let mut j = i + 1;
            while j < self.groups.len() {
                if self.groups[i].pc == self.groups[j].pc {
                    let other = self.groups.swap_remove(j);
                    let group = &mut self.groups[i];
                    group.mask |= other.mask;
                    group.expected |= other.expected;
                    group.laps = group.laps.max(other.laps);
                    // Whoever waited for lanes of its warp looks again.
                    group.state = match (group.state, other.state) {
                        (State::AtBarrier { id }, State::AtBarrier { .. }) => State::AtBarrier { id },
                        _ => State::Ready,
                    };
                } else {
                    j += 1;
                }
            }
            i += 1;
        }
    }

    /// Sends the lanes of `taken` from group `index` to `target`; the rest goes on behind the jump.
    pub(super) fn diverge(&mut self, index: usize, taken: u32, target: u32) {
        let laps = self.groups[index].laps;
        self.groups[index].mask &= !taken;
        self.groups.push(Group { pc: target, mask: taken, state: State::Ready, expected: 0, laps });
    }

    /// Lanes leave for good; whoever waited for them looks again.
    pub(super) fn exit(&mut self, index: usize, leaving: u32) {
        self.groups[index].mask &= !leaving;
        if self.groups[index].mask == 0 {
            self.groups.swap_remove(index);
        }
        for group in &mut self.groups {
            if group.state == State::AtWarpSync {
                group.state = State::Ready;
            }
        }
    }
}
