//! Loads, stores and atomics.

use super::check::{Check, Of, inside, parameter, place};
use super::{Block, Machine, Warp, fault, lanes};
use crate::fault::{FaultKind, Outcome};
use crate::isa::{Access, Address, Atom, AtomOp, Order};
use crate::memory::Allocation;
use crate::ptx::Space;
use crate::race::Kind;

use crate::alu::L64;

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
        let mut check = Check::new(m, &self.clocks, self.at, kind);
        if !kind.strong && self.load_together(m, b, access, &addresses, active, &mut check)? {
            return Ok(());
        }
        for l in lanes(active) {
            let (space, address) = place(access.space, addresses[l]);
            let value = match space {
                Space::Shared => {
                    let at = inside(&b.shared, Of::Shared, address, n, l)?;
                    check.read(&self.clocks, &mut b.shared, at, n, l, Of::Shared)?;
                    b.shared.get(at, n)
                }
                Space::Local => {
                    let region = &self.local[l];
                    let at = inside(region, Of::Local, address, n, l)?;
                    if let Some(kind) = region.readable(at, n, m.checks) {
                        return fault(kind, 1 << l, format!("{n} bytes, local memory at {address:#x}"));
                    }
                    region.get(at, n)
                }
                Space::Param => parameter(m, address, n, l)?,
                _ => {
                    let (Allocation { region, name, read_only, .. }, at) = check.find(m.global, address, n, l)?;
                    if *read_only {
                        // Nobody can write it, so nothing needs an order.
                        region.get(at, n)
                    } else {
                        check.read(&self.clocks, region, at, n, l, Of::Global(name))?;
                        region.get(at, n)
                    }
                }
            };
            self.loaded(access, l, value);
            if kind.strong {
                self.clocks.observe(&m.places, key(space, b, address), access.order.acquires());
                check.renew(&self.clocks);
            }
        }
        if kind.strong {
            m.spins += 1;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn loaded(&mut self, access: &Access, l: usize, value: u128) {
        for (i, &r) in access.regs[..access.count as usize].iter().enumerate() {
            let element = access.element(value, i);
            if access.wide {
                self.r64[r as usize][l] = element;
            } else {
                self.r32[r as usize][l] = element as u32;
            }
        }
    }

    pub(super) fn store(&mut self, m: &mut Machine, b: &mut Block, access: &Access, active: u32) -> Outcome<()> {
        let n = (access.bytes * access.count) as usize;
        let addresses = self.addresses(access.addr);
        let kind = Kind { write: true, strong: access.order != Order::Weak };
        let mut check = Check::new(m, &self.clocks, self.at, kind);
        if !kind.strong && self.store_together(m, b, access, &addresses, active, &mut check)? {
            m.spins = 0;
            return Ok(());
        }
        for l in lanes(active) {
            let (space, address) = place(access.space, addresses[l]);
            let value = self.stored(access, l);
            match space {
                Space::Shared => {
                    let at = inside(&b.shared, Of::Shared, address, n, l)?;
                    check.write(&self.clocks, &mut b.shared, (at, n), value, l, Of::Shared)?;
                }
                Space::Local => {
                    let region = &mut self.local[l];
                    let at = inside(region, Of::Local, address, n, l)?;
                    region.written(at, n);
                    region.put(at, n, value);
                }
                Space::Param => {
                    return fault(FaultKind::ReadOnly, 1 << l, format!("a store to the parameters at {address}"));
                }
                _ => {
                    let (Allocation { region, name, read_only, .. }, at) = check.find(m.global, address, n, l)?;
                    if *read_only {
                        return fault(FaultKind::ReadOnly, 1 << l, format!("a store to {name}"));
                    }
                    check.write(&self.clocks, region, (at, n), value, l, Of::Global(name))?;
                }
            }
            if kind.strong {
                self.clocks.publish(&mut m.places, key(space, b, address), access.order.releases(), false);
                check.renew(&self.clocks);
            }
        }
        m.spins = 0;
        Ok(())
    }

    #[inline]
    pub(super) fn stored(&self, access: &Access, l: usize) -> u128 {
        let bits = 8 * access.bytes;
        let mut value = 0;
        for (i, &r) in access.regs[..access.count as usize].iter().enumerate() {
            let element = if access.wide { self.r64[r as usize][l] } else { self.r32[r as usize][l].into() };
            let unused = 64 - bits;
            value |= u128::from(element << unused >> unused) << (bits * i as u32);
        }
        value
    }

    pub(super) fn atom(&mut self, m: &mut Machine, b: &mut Block, atom: &Atom, active: u32) -> Outcome<()> {
        let n = atom.ty.bytes() as usize;
        let addresses = self.addresses(atom.addr);
        let wide = n == 8;
        let mut check = Check::new(m, &self.clocks, self.at, Kind { write: true, strong: true });
        for l in lanes(active) {
            let (space, address) = place(atom.space, addresses[l]);
            let get = |r: u32| if wide { self.r64[r as usize][l] } else { self.r32[r as usize][l].into() };
            let (x, y) = (get(atom.a), get(atom.b));
            let update = |old: u64| crate::alu::atomic::apply(atom.op, atom.ty, old, x, y);
            let (region, at, of) = match space {
                Space::Shared => {
                    let at = inside(&b.shared, Of::Shared, address, n, l)?;
                    (&mut b.shared, at, Of::Shared)
                }
                Space::Global => {
                    let (Allocation { region, name, read_only, .. }, at) = check.find(m.global, address, n, l)?;
                    if *read_only {
                        return fault(FaultKind::ReadOnly, 1 << l, format!("an atomic on {name}"));
                    }
                    (region, at, Of::Global(name))
                }
                _ => return fault(FaultKind::OutOfBounds, 1 << l, format!("an atomic on {space:?} memory")),
            };
            check.read(&self.clocks, region, at, n, l, of)?;
            let old = region.get(at, n) as u64;
            region.put(at, n, update(old).into());
            let key = key(space, b, address);
            self.clocks.observe(&m.places, key, atom.order.acquires());
            let changed = update(old) != old;
            if changed || atom.op != AtomOp::Cas {
                self.clocks.publish(&mut m.places, key, atom.order.releases(), true);
            }
            check.renew(&self.clocks);
            m.spins = if changed { 0 } else { m.spins + 1 };
            match (atom.d, wide) {
                (Some(d), true) => self.r64[d as usize][l] = old,
                (Some(d), false) => self.r32[d as usize][l] = old as u32,
                (None, _) => {}
            }
        }
        Ok(())
    }
}

/// What identifies a place where threads synchronise.
fn key(space: Space, b: &Block, address: u64) -> u64 {
    if space == Space::Shared { 1 << 63 | u64::from(b.index) << 32 | address } else { address }
}
