//! Memory with a shadow: what was written, what a copy still owns, and who touched it last.

use crate::fault::FaultKind;
use crate::race::{Cell, Clocks, Conflict, Kind};

/// Nothing wrote this byte yet.
const UNWRITTEN: u8 = 0;
const WRITTEN: u8 = 1;
/// An asynchronous copy will write it.
const PENDING: u8 = 2;
/// What never-written bytes hold.
const POISON: u8 = 0xa5;

/// Cells of a page.
const PAGE: usize = 256;

/// A run of bytes with its shadow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    pub(crate) data: Vec<u8>,
    state: Vec<u8>,
    /// Pages of cells, made when somebody looks.
    cells: Vec<Option<Box<[Cell; PAGE]>>>,
    /// Bytes a cell stands for, as a power of two.
    shift: u32,
}

/// What to look at in an access, beside bounds and alignment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checks {
    pub(crate) races: bool,
    pub(crate) uninitialized: bool,
}

impl Region {
    pub(crate) fn new(size: usize) -> Self {
        Self { data: vec![POISON; size], state: vec![UNWRITTEN; size], ..Self::default() }
    }

    /// Like new, of that size.
    pub(crate) fn reset(&mut self, size: usize) {
        self.data.clear();
        self.data.resize(size, POISON);
        self.state.clear();
        self.state.resize(size, UNWRITTEN);
        self.cells.clear();
    }

    /// Forgets who accessed it: a launch is over.
    pub(crate) fn forget(&mut self) {
        self.cells.clear();
    }

    pub(crate) fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// A host's write.
    pub(crate) fn fill(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        self.state[at..at + bytes.len()].fill(WRITTEN);
    }

    /// As [`Self::fill`] with one value.
    pub(crate) fn set(&mut self, at: usize, length: usize, value: u8) {
        self.data[at..at + length].fill(value);
        self.state[at..at + length].fill(WRITTEN);
    }

    /// Copies bytes with what is known of them.
    pub(crate) fn extract(&self, at: usize, length: usize) -> (Vec<u8>, Vec<u8>) {
        (self.data[at..at + length].to_vec(), self.state[at..at + length].to_vec())
    }

    /// The other end of [`Self::extract`].
    pub(crate) fn implant(&mut self, at: usize, (data, state): &(Vec<u8>, Vec<u8>)) {
        self.data[at..at + data.len()].copy_from_slice(data);
        self.state[at..at + state.len()].copy_from_slice(state);
    }

    /// Whether bytes may be read.
    #[inline]
    pub(crate) fn readable(&self, at: usize, n: usize, checks: Checks) -> Option<FaultKind> {
        let state = &self.state[at..at + n];
        let good = match n {
            4 => state == [WRITTEN; 4],
            8 => state == [WRITTEN; 8],
            16 => state == [WRITTEN; 16],
            _ => state.iter().all(|&s| s == WRITTEN),
        };
        if good {
            return None;
        }
        if state.contains(&PENDING) {
            return Some(FaultKind::MissingWait);
        }
        checks.uninitialized.then_some(FaultKind::Uninitialized)
    }

    /// Whether bytes may be written; afterwards they have been.
    #[inline]
    pub(crate) fn written(&mut self, at: usize, n: usize) -> Option<FaultKind> {
        let state = &mut self.state[at..at + n];
        let pending = state.contains(&PENDING);
        state.fill(WRITTEN);
        pending.then_some(FaultKind::MissingWait)
    }

    /// A copy takes the bytes over; `false` if another one owns some already.
    pub(crate) fn pend(&mut self, at: usize, n: usize) -> bool {
        let state = &mut self.state[at..at + n];
        let free = !state.contains(&PENDING);
        state.fill(PENDING);
        free
    }

    /// A copy lands.
    pub(crate) fn land(&mut self, at: usize, bytes: &[u8]) {
        self.fill(at, bytes);
    }

    /// Cells exist once somebody looks.
    pub(crate) fn prepare(&mut self, granule: u32) {
        let shift = granule.trailing_zeros();
        if self.cells.is_empty() || self.shift != shift {
            self.shift = shift;
            self.cells.clear();
            self.cells.resize((self.data.len() >> shift) / PAGE + 1, None);
        }
    }

    /// Checks the order of an access against the earlier ones.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        at: usize,
        n: usize,
        clocks: &Clocks,
        lane: u32,
        line: u32,
        kind: Kind,
    ) -> Option<Conflict> {
        let (first, last) = (at >> self.shift, (at + n - 1) >> self.shift);
        let mut found = None;
        for index in first..=last {
            let page = self.cells[index / PAGE].get_or_insert_with(|| Box::new([Cell::default(); PAGE]));
            let conflict = page[index % PAGE].touch(clocks, lane, line, kind);
            found = found.or(conflict);
        }
        found
    }
}

/// Little-endian bytes as a number.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}

/// A device allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) region: Region,
    pub(crate) name: String,
    pub(crate) live: bool,
    pub(crate) read_only: bool,
    pub(crate) size: u64,
}

/// The device's memory. An allocation has 4 GiB of addresses (or several times that) to itself and they are never used
/// again, so whatever leaves it, or comes too late, is noticed.
#[derive(Debug, Default)]
pub(crate) struct Global {
    slots: Vec<Option<Allocation>>,
}

/// Slots below are the windows of other spaces.
const FIRST_SLOT: u64 = 16;
/// Where an allocation starts in its slot: 256-byte aligned, and not a byte more.
const START: u64 = (1 << 20) + 256;

/// What an address points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) slot: usize,
    pub(crate) offset: u64,
}

impl Global {
    pub(crate) fn alloc(&mut self, size: u64, name: String) -> u64 {
        let address = (FIRST_SLOT + self.slots.len() as u64) << 32 | START;
        let region = Region::new(usize::try_from(size).unwrap_or(0));
        self.slots.push(Some(Allocation { region, name, live: true, read_only: false, size }));
        for _ in 0..(size + START) >> 32 {
            self.slots.push(None);
        }
        address
    }

    /// Where an address lies, if it belongs to any allocation, live or not. Offsets below the start wrap.
    #[inline]
    pub(crate) fn spot(&self, address: u64) -> Option<Spot> {
        let mut slot = (address >> 32).checked_sub(FIRST_SLOT)? as usize;
        if slot >= self.slots.len() {
            return None;
        }
        while self.slots[slot].is_none() {
            slot = slot.checked_sub(1)?;
        }
        let base = (FIRST_SLOT + slot as u64) << 32 | START;
        Some(Spot { slot, offset: address.wrapping_sub(base) })
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Allocation> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Allocation> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The bytes from `address` on, if all of them are in one live allocation.
    pub(crate) fn range(&self, address: u64, length: u64) -> Result<Spot, (FaultKind, String)> {
        let outside = || (FaultKind::OutOfBounds, format!("address {address:#x} belongs to no allocation"));
        let spot = self.spot(address).ok_or_else(outside)?;
        let allocation = self.get(spot.slot).ok_or_else(outside)?;
        if !allocation.live {
            return Err((FaultKind::UseAfterFree, format!("address {address:#x} is in {}, freed", allocation.name)));
        }
        if spot.offset > allocation.size || length > allocation.size - spot.offset {
            let distance = spot.offset as i64;
            let place = format!("{length} bytes at byte {distance} of {}", allocation.name);
            return Err((FaultKind::OutOfBounds, format!("{place}, which has {} bytes", allocation.size)));
        }
        Ok(spot)
    }

    pub(crate) fn free(&mut self, address: u64) -> bool {
        let Some(spot) = self.spot(address) else { return false };
        match self.get_mut(spot.slot) {
            Some(allocation) if allocation.live && spot.offset == 0 => {
                allocation.live = false;
                allocation.region = Region::default();
                true
            }
            _ => false,
        }
    }

    pub(crate) fn live(&mut self) -> impl Iterator<Item = &mut Allocation> {
        self.slots.iter_mut().flatten().filter(|a| a.live)
    }
}
