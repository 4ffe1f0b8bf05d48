//! Shuffles, votes, matches, reductions, and matrices in registers.

use super::check::{Check, Of, inside, place};
use super::{Block, Machine, Warp, fault, lanes};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Address, AtomOp, Op, R, Shuffle, Vote};
use crate::ptx::Space;
use crate::race::Kind;

impl Warp {
    /// The instructions with a mask of members, once all of them are here.
    pub(super) fn collective(&mut self, op: &Op, active: u32) -> Outcome<()> {
        match *op {
            Op::Shfl { mode, d, p, a, b, c, members } => self.shuffle(mode, d, p, [a, b, c, members], active),
            Op::Vote { kind, d, p, negate, members } => {
                self.vote(kind, d, p, negate, members, active);
                Ok(())
            }
            Op::Match { all, wide, d, p, a, members } => {
                self.matching(all, wide, d, p, a, members, active);
                Ok(())
            }
            Op::Redux(op, signed, d, a, members) => {
                self.redux(op, signed, d, a, members, active);
                Ok(())
            }
            Op::Elect { d, p, members } => {
                let members = self.r32[members as usize];
                let leader = |l: usize| (members[l] & active).trailing_zeros();
                let bits = lanes(active).fold(0, |all, l| all | u32::from(leader(l) == l as u32) << l);
                if let Some(d) = d {
                    let mut out = [0; 32];
                    for l in lanes(active) {
                        out[l] = leader(l);
                    }
                    self.set32(d, &out, active);
                }
                self.set_pred(p, bits, active);
                Ok(())
            }
            Op::SyncWarp(_) => {
                self.clocks.tick();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn shuffle(&mut self, mode: Shuffle, d: R, p: Option<R>, sources: [R; 4], active: u32) -> Outcome<()> {
        let [a, b, c, members] = sources.map(|r| self.r32[r as usize]);
        let (mut out, mut valid) = (a, 0);
        for l in lanes(active) {
            let (clamp, segment) = ((c[l] & 31) as i32, (c[l] >> 8 & 31) as i32);
            let (lane, b) = (l as i32, (b[l] & 31) as i32);
            let last = lane & segment | clamp & !segment;
            let first = lane & segment;
            let (j, inside) = match mode {
                Shuffle::Up => (lane - b, lane - b >= last),
                Shuffle::Down => (lane + b, lane + b <= last),
                Shuffle::Bfly => (lane ^ b, (lane ^ b) <= last),
                Shuffle::Idx => (first | b & !segment, (first | b & !segment) <= last),
            };
            if !inside {
                continue;
            }
            let j = j as usize & 31;
            if (active & members[l]) >> j & 1 == 0 {
                return fault(FaultKind::InactiveLane, 1 << l, format!("it reads lane {j}, which doesn't take part"));
            }
            out[l] = a[j];
            valid |= 1 << l;
        }
        self.set32(d, &out, active);
        if let Some(p) = p {
            self.set_pred(p, valid, active);
        }
        Ok(())
    }

    fn vote(&mut self, kind: Vote, d: R, p: R, negate: bool, members: R, active: u32) {
        let members = self.r32[members as usize];
        let p = self.preds[p as usize] ^ if negate { u32::MAX } else { 0 };
        let (mut bits, mut out) = (0, [0; 32]);
        for l in lanes(active) {
            let these = members[l] & active;
            let yes = p & these;
            out[l] = yes;
            let holds = match kind {
                Vote::All => yes == these,
                Vote::Any => yes != 0,
                Vote::Uni => yes == these || yes == 0,
                Vote::Ballot => false,
            };
            bits |= u32::from(holds) << l;
        }
        if kind == Vote::Ballot {
            self.set32(d, &out, active);
        } else {
            self.set_pred(d, bits, active);
        }
    }

    fn matching(&mut self, all: bool, wide: bool, d: R, p: Option<R>, a: R, members: R, active: u32) {
        let members = self.r32[members as usize];
        let value = |l: usize| if wide { self.r64[a as usize][l] } else { self.r32[a as usize][l].into() };
        let (mut out, mut same) = ([0; 32], 0);
        for l in lanes(active) {
            let these = members[l] & active;
            let equal = lanes(these).filter(|&j| value(j) == value(l)).fold(0, |m, j| m | 1 << j);
            if !all || equal == these {
                out[l] = equal;
                same |= u32::from(equal == these) << l;
            }
        }
        self.set32(d, &out, active);
        if let Some(p) = p {
            self.set_pred(p, same, active);
        }
    }

    fn redux(&mut self, op: AtomOp, signed: bool, d: R, a: R, members: R, active: u32) {
        let (members, a) = (self.r32[members as usize], self.r32[a as usize]);
        let mut out = [0; 32];
        for l in lanes(active) {
            let values = lanes(members[l] & active).map(|j| a[j]);
            let merge = |x: u32, y: u32| match op {
                AtomOp::Add => x.wrapping_add(y),
                AtomOp::Min if signed => (x as i32).min(y as i32) as u32,
                AtomOp::Max if signed => (x as i32).max(y as i32) as u32,
                AtomOp::Min => x.min(y),
                AtomOp::Max => x.max(y),
                AtomOp::And => x & y,
                AtomOp::Or => x | y,
                _ => x ^ y,
            };
            out[l] = values.reduce(merge).unwrap_or(0);
        }
        self.set32(d, &out, active);
    }

    /// Loads 8×8 matrices of 16-bit elements: lane `8j + r` gives the address of row `r` of matrix `j`.
    pub(super) fn ldmatrix(
        &mut self,
        m: &mut Machine,
        b: &mut Block,
        count: usize,
        trans: bool,
        regs: [R; 4],
        addr: Address,
        space: Space,
    ) -> Outcome<()> {
        let addresses = self.addresses(addr);
        let check = Check::new(m, &self.clocks, self.at, Kind { write: false, strong: false });
        for (j, &d) in regs[..count].iter().enumerate() {
            let mut rows = [0u128; 8];
            for (r, row) in rows.iter_mut().enumerate() {
                let l = 8 * j + r;
                let (space, address) = place(space, addresses[l]);
                if space != Space::Shared {
                    let text = format!("`ldmatrix` of {address:#x}, not shared memory");
                    return fault(FaultKind::OutOfBounds, 1 << l, text);
                }
                let at = inside(&b.shared, Of::Shared, address, 16, l)?;
                check.read(&self.clocks, &mut b.shared, at, 16, l, Of::Shared)?;
                *row = b.shared.get(at, 16);
            }
            let element = |r: usize, c: usize| (rows[r] >> (16 * c)) as u32 & 0xffff;
            for (l, value) in self.r32[d as usize].iter_mut().enumerate() {
                let (r, c) = (l / 4, l % 4 * 2);
                *value = if trans { element(c + 1, r) << 16 | element(c, r) } else { (rows[r] >> (16 * c)) as u32 };
            }
        }
        Ok(())
    }

    /// Transposes an 8×8 matrix that lies in one register of the warp.
    pub(super) fn movmatrix(&mut self, d: R, a: R) {
        let a = self.r32[a as usize];
        let element = |r: usize, c: usize| a[4 * r + c / 2] >> (16 * (c & 1)) & 0xffff;
        for (l, value) in self.r32[d as usize].iter_mut().enumerate() {
            let (r, c) = (l / 4, l % 4 * 2);
            *value = element(c, r) | element(c + 1, r) << 16;
        }
    }
}
