//! `cp.async`: copies that land when their thread waits for them, and not before.

use super::check::{Check, Of, inside};
use super::{Block, Machine, Warp, fault, lanes};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Address, R};
use crate::memory::Allocation;
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
        let mut reads = Check::new(m, &self.clocks, self.at, Kind { write: false, strong: false });
        let writes = Check::new(m, &self.clocks, self.at, Kind { write: true, strong: false });
        for l in lanes(active) {
            let asked = o.src_bytes.map_or(n, |r| self.r32[r as usize][l] as usize);
            if asked > n {
                return fault(FaultKind::Trap, 1 << l, format!("a copy of {n} bytes told to read {asked}"));
            }
            let read = if ignored >> l & 1 == 1 { 0 } else { asked };
            let at = inside(&b.shared, Of::Shared, to[l] & 0xffff_ffff, n, l)?;
            if !from[l].is_multiple_of(n as u64) {
                return fault(FaultKind::Misaligned, 1 << l, format!("a copy of {n} bytes from {:#x}", from[l]));
            }
            if read > 0 {
                let (Allocation { region, name, .. }, start) = reads.locate(m.global, from[l], read, l)?;
                reads.read(&self.clocks, region, start, read, l, Of::Global(name))?;
            }
            writes.ordered(&self.clocks, &mut b.shared, at, n, l, Of::Shared)?;
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

    /// The copy reads and writes now: what has changed since it was asked for, has changed.
    fn land(&mut self, m: &mut Machine, b: &mut Block, copy: &Copy) -> Outcome<()> {
        let mut check = Check::new(m, &self.clocks, copy.line, Kind { write: true, strong: false });
        let l = copy.lane as usize;
        let value = if copy.read > 0 {
            let (found, at) = check.locate(m.global, copy.from, copy.read, l)?;
            found.region.get(at, copy.read)
        } else {
            0
        };
        b.shared.land(copy.to, copy.bytes, value);
        check.ordered(&self.clocks, &mut b.shared, copy.to, copy.bytes, l, Of::Shared)
    }
}
