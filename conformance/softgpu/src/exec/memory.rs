//! Loads, stores and atomics, with their checks.

use super::{Block, Machine, Warp, fault, lanes};
use crate::decode::{FIRST_OFFSET, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Access, Address, Atom, AtomOp, Order};
use crate::memory::{Region, number};
use crate::ptx::Space;
use crate::race::{Conflict, Kind};

use crate::alu::L64;

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

/// One lane's access, resolved.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) slot: usize,
    pub(super) offset: usize,
}

impl Warp {
    pub(super) fn addresses(&self, a: Address) -> L64 {
        let offset = a.offset as u64;
        if a.wide {
            self.r64[a.base as usize].map(|x| x.wrapping_add(offset))
        } else {
            self.r32[a.base as usize].map(|x| u64::from(x.wrapping_add(offset as u32)))
        }
    }

    pub(super) fn load(&mut self, m: &mut Machine, b: &mut Block, access: &Access, active: u32) -> Outcome<()> {
        let n = (access.bytes * access.count) as usize;
        let addresses = self.addresses(access.addr);
        let kind = Kind { write: false, strong: access.order != Order::Weak };
        for l in lanes(active) {
            let (space, address) = place(access.space, addresses[l]);
            let mut bytes = [0u8; 16];
            match space {
                Space::Shared => {
                    let at = inside(&b.shared, "shared memory", address, n, l)?;
                    if let Some(kind) = b.shared.readable(at, n, m.checks) {
                        return fault(kind, 1 << l, format!("{n} bytes of shared memory at {address:#x}"));
                    }
                    self.ordered(m, &mut b.shared, at, n, l, kind, "shared memory")?;
                    bytes[..n].copy_from_slice(&b.shared.data[at..at + n]);
                }
                Space::Local => {
                    let region = &self.local[l];
                    let at = inside(region, "local memory", address, n, l)?;
                    if let Some(kind) = region.readable(at, n, m.checks) {
                        return fault(kind, 1 << l, format!("{n} bytes of local memory at {address:#x}"));
                    }
                    bytes[..n].copy_from_slice(&region.data[at..at + n]);
                }
                Space::Param => {
                    aligned(address, n, l)?;
                    let at = address as usize;
                    let Some(found) = m.params.get(at..at + n) else {
                        return fault(FaultKind::OutOfBounds, 1 << l, format!("{n} bytes of parameters at {at}"));
                    };
                    bytes[..n].copy_from_slice(found);
                }
                _ => {
                    let hit = self.global(m, address, n, l, kind)?;
                    if let Some(a) = m.global.get(hit.slot) {
                        bytes[..n].copy_from_slice(&a.region.data[hit.offset..hit.offset + n]);
                    }
                }
            }
            self.loaded(access, l, &bytes);
            if kind.strong {
                let key = key(space, b, address);
                self.clocks.observe(&m.places, key, access.order.acquires());
            }
        }
        if kind.strong {
            m.spins += 1;
        }
        Ok(())
    }

    #[inline]
    fn loaded(&mut self, access: &Access, l: usize, bytes: &[u8; 16]) {
        let size = access.bytes as usize;
        for i in 0..access.count as usize {
            let value = number(&bytes[i * size..(i + 1) * size]);
            let value = match (access.signed, size) {
                (true, 1) => i64::from(value as i8) as u64,
                (true, 2) => i64::from(value as i16) as u64,
                (true, 4) => i64::from(value as i32) as u64,
                _ => value,
            };
            let r = access.regs[i] as usize;
            if access.wide {
                self.r64[r][l] = value;
            } else {
                self.r32[r][l] = value as u32;
            }
        }
    }

    pub(super) fn store(&mut self, m: &mut Machine, b: &mut Block, access: &Access, active: u32) -> Outcome<()> {
        let size = access.bytes as usize;
        let n = size * access.count as usize;
        let addresses = self.addresses(access.addr);
        let kind = Kind { write: true, strong: access.order != Order::Weak };
        for l in lanes(active) {
            let (space, address) = place(access.space, addresses[l]);
            let mut bytes = [0u8; 16];
            for i in 0..access.count as usize {
                let r = access.regs[i] as usize;
                let value = if access.wide { self.r64[r][l] } else { self.r32[r][l].into() };
                bytes[i * size..(i + 1) * size].copy_from_slice(&value.to_le_bytes()[..size]);
            }
            self.put(m, b, space, address, &bytes[..n], l, kind)?;
            if kind.strong {
                self.clocks.publish(&mut m.places, key(space, b, address), access.order.releases(), false);
            }
        }
        m.spins = 0;
        Ok(())
    }

    fn put(
        &mut self,
        m: &mut Machine,
        b: &mut Block,
        space: Space,
        address: u64,
        bytes: &[u8],
        l: usize,
        kind: Kind,
    ) -> Outcome<()> {
        let n = bytes.len();
        match space {
            Space::Shared => {
                let at = inside(&b.shared, "shared memory", address, n, l)?;
                self.write_ordered(m, &mut b.shared, at, bytes, l, kind, "shared memory")?;
                if let Some(kind) = b.shared.written(at, n) {
                    return fault(kind, 1 << l, format!("a store to {n} bytes of shared memory at {address:#x}"));
                }
                b.shared.data[at..at + n].copy_from_slice(bytes);
            }
            Space::Local => {
                let region = &mut self.local[l];
                let at = inside(region, "local memory", address, n, l)?;
                region.fill(at, bytes);
            }
            Space::Param => {
                return fault(FaultKind::ReadOnly, 1 << l, format!("a store to the parameters at {address}"));
            }
            _ => {
                let hit = find(m, address, n, l)?;
                let Some(a) = m.global.get_mut(hit.slot) else { return Ok(()) };
                if a.read_only {
                    return fault(FaultKind::ReadOnly, 1 << l, format!("a store to {}", a.name));
                }
                let name = std::mem::take(&mut a.name);
                let region = &mut a.region;
                let ordered =
                    write_ordered(self, m.checks.races, m.kernel.granule, region, hit.offset, bytes, l, kind, &name);
                region.written(hit.offset, n);
                region.data[hit.offset..hit.offset + n].copy_from_slice(bytes);
                a.name = name;
                return ordered;
            }
        }
        Ok(())
    }

    /// Resolves and checks a read of global memory.
    fn global(&mut self, m: &mut Machine, address: u64, n: usize, l: usize, kind: Kind) -> Outcome<Hit> {
        let hit = find(m, address, n, l)?;
        let (checks, granule) = (m.checks, m.kernel.granule);
        let Some(a) = m.global.get_mut(hit.slot) else { return Ok(hit) };
        if let Some(kind) = a.region.readable(hit.offset, n, checks) {
            return fault(kind, 1 << l, format!("{n} bytes at byte {} of {}", hit.offset, a.name));
        }
        if checks.races && !a.read_only {
            a.region.prepare(granule);
            if let Some(conflict) = a.region.touch(hit.offset, n, &self.clocks, l as u32, self.at, kind) {
                let what = format!("byte {} of {}", hit.offset, a.name);
                return self.race(conflict, l, kind, n, &what);
            }
        }
        Ok(hit)
    }

    pub(super) fn ordered(
        &self,
        m: &Machine,
        region: &mut Region,
        at: usize,
        n: usize,
        l: usize,
        kind: Kind,
        name: &str,
    ) -> Outcome<()> {
        if !m.checks.races {
            return Ok(());
        }
        region.prepare(m.kernel.granule);
        match region.touch(at, n, &self.clocks, l as u32, self.at, kind) {
            Some(conflict) => self.race(conflict, l, kind, n, &format!("{name} at {at:#x}")),
            None => Ok(()),
        }
    }

    fn write_ordered(
        &self,
        m: &Machine,
        region: &mut Region,
        at: usize,
        bytes: &[u8],
        l: usize,
        kind: Kind,
        name: &str,
    ) -> Outcome<()> {
        write_ordered(self, m.checks.races, m.kernel.granule, region, at, bytes, l, kind, name)
    }

    /// Puts a race into words.
    fn race<T>(&self, c: Conflict, l: usize, kind: Kind, n: usize, what: &str) -> Outcome<T> {
        let verb = if kind.write { "write" } else { "read" };
        let earlier = if c.write { "write" } else { "read" };
        let who = match (c.same_warp, c.lane) {
            (true, Some(lane)) => format!("thread {}", self.index * 32 + lane),
            (true, None) => "another lane of the warp".to_owned(),
            (false, _) => format!("warp {} of block {}", c.warp % self.per_block(), c.warp / self.per_block()),
        };
        let line = c.line;
        fault(
            FaultKind::Race,
            1 << l,
            format!("{n}-byte {verb} of {what} and a {earlier} by {who}, line {line}, unordered"),
        )
    }

    pub(super) fn atom(&mut self, m: &mut Machine, b: &mut Block, atom: &Atom, active: u32) -> Outcome<()> {
        let n = atom.ty.bytes() as usize;
        let addresses = self.addresses(atom.addr);
        let kind = Kind { write: true, strong: true };
        let wide = n == 8;
        for l in lanes(active) {
            let (space, address) = place(atom.space, addresses[l]);
            let get = |r: u32| if wide { self.r64[r as usize][l] } else { self.r32[r as usize][l].into() };
            let (x, y) = (get(atom.a), get(atom.b));
            let key = key(space, b, address);
            let update = |old: u64| crate::alu::atomic::apply(atom.op, atom.ty, old, x, y);
            let old = match space {
                Space::Shared => {
                    let at = inside(&b.shared, "shared memory", address, n, l)?;
                    if let Some(kind) = b.shared.readable(at, n, m.checks) {
                        return fault(kind, 1 << l, format!("an atomic on shared memory at {address:#x}"));
                    }
                    self.ordered(m, &mut b.shared, at, n, l, kind, "shared memory")?;
                    let old = number(&b.shared.data[at..at + n]);
                    b.shared.data[at..at + n].copy_from_slice(&update(old).to_le_bytes()[..n]);
                    old
                }
                Space::Global => {
                    let hit = self.global(m, address, n, l, kind)?;
                    let Some(a) = m.global.get_mut(hit.slot) else { continue };
                    if a.read_only {
                        return fault(FaultKind::ReadOnly, 1 << l, format!("an atomic on {}", a.name));
                    }
                    let bytes = &mut a.region.data[hit.offset..hit.offset + n];
                    let old = number(bytes);
                    bytes.copy_from_slice(&update(old).to_le_bytes()[..n]);
                    old
                }
                _ => return fault(FaultKind::OutOfBounds, 1 << l, format!("an atomic on {space:?} memory")),
            };
            self.clocks.observe(&m.places, key, atom.order.acquires());
            let changed = update(old) != old;
            if changed || atom.op != AtomOp::Cas {
                self.clocks.publish(&mut m.places, key, atom.order.releases(), true);
            }
            m.spins = if changed { 0 } else { m.spins + 1 };
            match (atom.d, wide) {
                (Some(d), true) => self.r64[d as usize][l] = old,
                (Some(d), false) => self.r32[d as usize][l] = old as u32,
                (None, _) => {}
            }
        }
        Ok(())
    }

    fn per_block(&self) -> u32 {
        self.clocks.per_block()
    }
}

/// Several lanes of one store may write the same value to one place.
fn write_ordered(
    warp: &Warp,
    races: bool,
    granule: u32,
    region: &mut Region,
    at: usize,
    bytes: &[u8],
    l: usize,
    kind: Kind,
    name: &str,
) -> Outcome<()> {
    if !races {
        return Ok(());
    }
    region.prepare(granule);
    let n = bytes.len();
    match region.touch(at, n, &warp.clocks, l as u32, warp.at, kind) {
        Some(c) if c.same_warp && c.same_line && region.data[at..at + n] == *bytes => Ok(()),
        Some(c) => warp.race(c, l, kind, n, &format!("{name} at byte {at:#x}")),
        None => Ok(()),
    }
}

/// The place of bytes in global memory.
fn find(m: &Machine, address: u64, n: usize, l: usize) -> Outcome<Hit> {
    aligned(address, n, l)?;
    match m.global.range(address, n as u64) {
        Ok(spot) => Ok(Hit { slot: spot.slot, offset: spot.offset as usize }),
        Err((kind, detail)) => fault(kind, 1 << l, detail),
    }
}

fn aligned(address: u64, n: usize, l: usize) -> Outcome<()> {
    if address.is_multiple_of(n as u64) {
        return Ok(());
    }
    fault(FaultKind::Misaligned, 1 << l, format!("{n} bytes at {address:#x}"))
}

/// Bounds and alignment in a small memory.
#[inline]
pub(super) fn inside(region: &Region, name: &str, address: u64, n: usize, l: usize) -> Outcome<usize> {
    aligned(address, n, l)?;
    if address < u64::from(FIRST_OFFSET) || address + n as u64 > region.len() {
        let end = region.len();
        return fault(
            FaultKind::OutOfBounds,
            1 << l,
            format!("{n} bytes of {name} at {address:#x}, which ends at {end:#x}"),
        );
    }
    Ok(address as usize)
}

/// What identifies a place where threads synchronise.
pub(super) fn key(space: Space, b: &Block, address: u64) -> u64 {
    if space == Space::Shared { 1 << 63 | u64::from(b.index) << 32 | address } else { address }
}
