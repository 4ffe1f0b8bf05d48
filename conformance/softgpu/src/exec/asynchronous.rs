//! `cp.async`: copies that land when their thread waits for them, and not before.

use super::memory::place;
use super::{Block, Machine, Warp, fault, lanes};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Address, R};
use crate::ptx::Space;
use crate::race::Kind;

/// One lane's copy under way.
#[derive(Clone, Debug)]
struct Copy {
    lane: u32,
    /// The group it was committed to; `None` before that.
    group: Option<u32>,
    from: u64,
    to: usize,
    /// Bytes read, and bytes written: the difference is zeros.
    read: usize,
    bytes: usize,
    line: u32,
}

/// A warp's copies under way, and how many groups each lane has committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    open: Vec<Copy>,
    committed: [u32; 32],
}

impl Copies {
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The operands of one `cp.async`.
pub(super) struct Order {
    pub(super) dst: Address,
    pub(super) src: Address,
    pub(super) bytes: u32,
    pub(super) src_bytes: Option<R>,
    pub(super) ignore: Option<(R, bool)>,
}

impl Warp {
    pub(super) fn copy_async(&mut self, m: &mut Machine, b: &mut Block, o: &Order, active: u32) -> Outcome<()> {
        let (to, from) = (self.addresses(o.dst), self.addresses(o.src));
        let n = o.bytes as usize;
        let ignored = o.ignore.map_or(0, |(p, negated)| self.preds[p as usize] ^ if negated { u32::MAX } else { 0 });
        for l in lanes(active) {
            let asked = o.src_bytes.map_or(n, |r| self.r32[r as usize][l] as usize);
            if asked > n {
                return fault(FaultKind::Trap, 1 << l, format!("a copy of {n} bytes told to read {asked}"));
            }
            let read = if ignored >> l & 1 == 1 { 0 } else { asked };
            let (_, address) = place(Space::Shared, to[l] & 0xffff_ffff);
            let at = super::memory::inside(&b.shared, "shared memory", address, n, l)?;
            if !from[l].is_multiple_of(n as u64) {
                return fault(FaultKind::Misaligned, 1 << l, format!("a copy of {n} bytes from {:#x}", from[l]));
            }
            if read > 0 {
                self.source_ready(m, from[l], read, l)?;
            }
            let kind = Kind { write: true, strong: false };
            self.ordered(m, &mut b.shared, at, n, l, kind, "shared memory")?;
            if !b.shared.pend(at, n) {
                return fault(FaultKind::MissingWait, 1 << l, format!("two copies to shared memory at {at:#x}"));
            }
            self.copies.open.push(Copy {
                lane: l as u32,
                group: None,
                from: from[l],
                to: at,
                read,
                bytes: n,
                line: self.at,
            });
        }
        Ok(())
    }

    fn source_ready(&mut self, m: &mut Machine, from: u64, read: usize, l: usize) -> Outcome<()> {
        let (checks, granule) = (m.checks, m.kernel.granule);
        let spot = match m.global.range(from, read as u64) {
            Ok(spot) => spot,
            Err((kind, detail)) => return fault(kind, 1 << l, detail),
        };
        let Some(a) = m.global.get_mut(spot.slot) else { return Ok(()) };
        if let Some(kind) = a.region.readable(spot.offset as usize, read, checks) {
            return fault(kind, 1 << l, format!("{read} bytes at byte {} of {}", spot.offset, a.name));
        }
        let name = std::mem::take(&mut a.name);
        let mut region = std::mem::take(&mut a.region);
        let kind = Kind { write: false, strong: false };
        let ordered = if checks.races {
            region.prepare(granule);
            self.ordered(m, &mut region, spot.offset as usize, read, l, kind, &name)
        } else {
            Ok(())
        };
        if let Some(a) = m.global.get_mut(spot.slot) {
            (a.name, a.region) = (name, region);
        }
        ordered
    }

    /// `commit_group`
    pub(super) fn commit(&mut self, active: u32) {
        for copy in &mut self.copies.open {
            if copy.group.is_none() && active >> copy.lane & 1 == 1 {
                copy.group = Some(self.copies.committed[copy.lane as usize]);
            }
        }
        for l in lanes(active) {
            self.copies.committed[l] += 1;
        }
    }

    /// `wait_group` with the groups that may stay under way, or `wait_all`.
    pub(super) fn wait(&mut self, m: &mut Machine, b: &mut Block, pending: Option<u32>, active: u32) -> Outcome<()> {
        let committed = self.copies.committed;
        let ends = |copy: &Copy| {
            let mine = active >> copy.lane & 1 == 1;
            mine && match (pending, copy.group) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(n), Some(group)) => u64::from(group) + u64::from(n) < u64::from(committed[copy.lane as usize]),
            }
        };
        let open = std::mem::take(&mut self.copies.open);
        let (done, open): (Vec<Copy>, Vec<Copy>) = open.into_iter().partition(ends);
        self.copies.open = open;
        for copy in done {
            self.land(m, b, &copy)?;
        }
        Ok(())
    }

    fn land(&mut self, m: &mut Machine, b: &mut Block, copy: &Copy) -> Outcome<()> {
        let mut bytes = [0u8; 16];
        if copy.read > 0 {
            match m.global.range(copy.from, copy.read as u64) {
                Ok(spot) => {
                    if let Some(a) = m.global.get(spot.slot) {
                        let at = spot.offset as usize;
                        bytes[..copy.read].copy_from_slice(&a.region.data[at..at + copy.read]);
                    }
                }
                Err((kind, detail)) => return fault(kind, 1 << copy.lane, detail),
            }
        }
        b.shared.land(copy.to, &bytes[..copy.bytes]);
        let kind = Kind { write: true, strong: false };
        let here = std::mem::replace(&mut self.at, copy.line);
        let ordered = self.ordered(m, &mut b.shared, copy.to, copy.bytes, copy.lane as usize, kind, "shared memory");
        self.at = here;
        ordered
    }
}
