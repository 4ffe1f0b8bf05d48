//! Runs a warp: one instruction for up to 32 lanes at a time.
//!
//! Lanes that diverge form groups. The group that is furthest behind runs, and joins the next one when it catches up
//! with it. A group that spins is passed over after a while, so that the lanes it waits for get their turn.

mod asynchronous;
mod check;
mod coalesced;
mod collective;
mod compare;
mod compute;
mod groups;
mod memory;
mod step;
mod sync;

use std::collections::HashMap;

use crate::fault::{Outcome, Raised};
use crate::isa::{Kernel, R};
use crate::memory::{Checks, Global, Region};
use crate::race::{Clocks, Places};
pub(crate) use asynchronous::Copies;
pub(crate) use groups::{Group, State};
pub(crate) use sync::release;

use crate::alu::{L32, L64};

/// What all warps of a launch share.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) params: &'a [u8],
    pub(crate) global: &'a mut Global,
    pub(crate) checks: Checks,
    pub(crate) places: Places,
    pub(crate) arch: pulp::Arch,
    /// Instructions executed, and lanes in them.
    pub(crate) steps: u64,
    pub(crate) lanes: u64,
    /// Strong loads since anything last changed: a sign that everybody only spins.
    pub(crate) spins: u64,
}

/// What the warps of a block share.
pub(crate) struct Block {
    pub(crate) coordinates: [u32; 3],
    pub(crate) index: u32,
    pub(crate) shared: Region,
    /// Threads that have only announced themselves at a barrier, and what they knew.
    pub(crate) arrived: HashMap<u32, (u32, crate::race::Snapshot)>,
}

/// A warp's registers and where its lanes are.
pub(crate) struct Warp {
    pub(crate) index: u32,
    pub(crate) r32: Vec<L32>,
    pub(crate) r64: Vec<L64>,
    pub(crate) preds: Vec<u32>,
    pub(crate) carry: u32,
    pub(crate) groups: Vec<Group>,
    pub(crate) clocks: Clocks,
    pub(crate) copies: Copies,
    pub(crate) local: Vec<Region>,
    /// The instruction under way.
    pub(crate) at: u32,
}

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Done,
    /// Some lanes wait at a barrier and the others can't go on either.
    Blocked,
    /// It has had its share, or spins.
    Paused,
}

impl Warp {
    /// Lanes that haven't exited.
    pub(crate) fn live(&self) -> u32 {
        self.groups.iter().fold(0, |all, g| all | g.mask)
    }

    #[inline(always)]
    fn set32(&mut self, d: R, values: &L32, active: u32) {
        let to = &mut self.r32[d as usize];
        if active == u32::MAX {
            *to = *values;
            return;
        }
        for l in 0..32 {
            let keep = 0u32.wrapping_sub(active >> l & 1);
            to[l] = values[l] & keep | to[l] & !keep;
        }
    }

    #[inline(always)]
    fn set64(&mut self, d: R, values: &L64, active: u32) {
        let to = &mut self.r64[d as usize];
        if active == u32::MAX {
            *to = *values;
            return;
        }
        for l in 0..32 {
            let keep = 0u64.wrapping_sub(u64::from(active >> l & 1));
            to[l] = values[l] & keep | to[l] & !keep;
        }
    }

    fn set_pred(&mut self, d: R, bits: u32, active: u32) {
        let to = &mut self.preds[d as usize];
        *to = *to & !active | bits & active;
    }
}

/// The lanes in a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        (rest != 0).then(|| {
            rest &= rest - 1;
            lane as usize
        })
    })
}

fn fault<T>(kind: crate::fault::FaultKind, lanes: u32, detail: impl Into<String>) -> Outcome<T> {
    Err(Raised::new(kind, lanes, detail.into()))
}
