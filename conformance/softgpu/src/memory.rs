//! Memory with a shadow: what was written, what a copy still owns, and who touched it last.

use crate::fault::FaultKind;
use crate::race::{Cell, Clocks, Conflict, Mark};

/// Nothing wrote this byte yet.
const UNWRITTEN: u8 = 0;
const WRITTEN: u8 = 1;
/// An asynchronous copy will write it.
const PENDING: u8 = 2;
/// What never-written bytes hold.
const POISON: u8 = 0xa5;

/// Bytes of a page of cells, as a power of two.
const PAGE: u32 = 10;
/// Bytes of the coarsest cell, as a power of two: the widest access.
const LINE: u32 = 4;
/// Pages that are kept when what they hold is forgotten.
const KEPT: usize = 512;

/// A run of bytes with its shadow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    pub(crate) data: Vec<u8>,
    state: Vec<u8>,
    /// Who accessed what, made when somebody looks.
    pages: Vec<Page>,
    /// Pages of another age are as good as empty.
    age: u32,
}

/// Cells of 1024 bytes. Each stands for 16 bytes while all accesses are that wide, which is what kernels do where they
/// move much; the first narrower one makes them finer.
#[derive(Clone, Debug, Default)]
struct Page {
    cells: Vec<Cell>,
    /// Bytes a cell stands for, as a power of two.
    shift: u32,
    age: u32,
}

impl Page {
    fn renew(&mut self, age: u32) {
        self.cells.clear();
        self.cells.resize(1 << (PAGE - LINE), Cell::default());
        (self.shift, self.age) = (LINE, age);
    }

    /// Each of the finer cells saw what the coarser one saw.
    fn refine(&mut self, shift: u32) {
        let times = 1 << (self.shift - shift);
        self.cells = self.cells.iter().flat_map(|cell| std::iter::repeat_n(*cell, times)).collect();
        self.shift = shift;
    }
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
        self.forget();
    }

    /// Forgets who accessed it: a launch is over.
    pub(crate) fn forget(&mut self) {
        self.age = self.age.wrapping_add(1);
        if self.pages.len() > KEPT || self.age == 0 {
            self.pages.clear();
        }
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
        if all(state, WRITTEN) {
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
        if all(state, WRITTEN) {
            return None;
        }
        let pending = state.contains(&PENDING);
        state.fill(WRITTEN);
        pending.then_some(FaultKind::MissingWait)
    }

    /// Whether a copy owns some of the bytes.
    #[inline]
    pub(crate) fn pending(&self, at: usize, n: usize) -> bool {
        self.state[at..at + n].contains(&PENDING)
    }

    /// The `n` bytes that begin at `at`, little-endian.
    #[inline]
    pub(crate) fn get(&self, at: usize, n: usize) -> u128 {
        number(&self.data[at..at + n])
    }

    /// Changes `n` bytes.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, n: usize, value: u128) {
        let bytes = value.to_le_bytes();
        let to = &mut self.data[at..at + n];
        match n {
            // Copies of a known length are single instructions.
            4 => to.copy_from_slice(&bytes[..4]),
            8 => to.copy_from_slice(&bytes[..8]),
            16 => to.copy_from_slice(&bytes),
            _ => to.copy_from_slice(&bytes[..n]),
        }
    }

    /// A copy takes the bytes over; `false` if another one owns some already.
    pub(crate) fn pend(&mut self, at: usize, n: usize) -> bool {
        let state = &mut self.state[at..at + n];
        let free = !state.contains(&PENDING);
        state.fill(PENDING);
        free
    }

    /// A copy lands.
    pub(crate) fn land(&mut self, at: usize, n: usize, value: u128) {
        self.state[at..at + n].fill(WRITTEN);
        self.put(at, n, value);
    }

    /// Checks the order of a lane's access to `n` bytes against the earlier ones. `granule` is the size of the smallest
    /// access that may matter.
    #[inline]
    pub(crate) fn touch(
        &mut self,
        at: usize,
        n: usize,
        granule: u32,
        clocks: &Clocks,
        mark: &Mark,
        lane: u32,
    ) -> Option<Conflict> {
        let page = self.page(at, n, granule);
        let inside = at & ((1 << PAGE) - 1);
        let (first, last) = (inside >> page.shift, (inside + n - 1) >> page.shift);
        let mut found = None;
        for cell in &mut page.cells[first..=last] {
            let conflict = cell.touch(clocks, mark, lane);
            found = found.or(conflict);
        }
        found
    }

    /// As [`Self::touch`] for 32 lanes, each with the `n` bytes behind those of the lane before; with the lane of a conflict.
    #[inline]
    pub(crate) fn touch_run(
        &mut self,
        mut at: usize,
        n: usize,
        granule: u32,
        clocks: &Clocks,
        mark: &Mark,
    ) -> Option<(u32, Conflict)> {
        let (mut lane, mut found) = (0, None);
        while lane < 32 {
            let page = self.page(at, n, granule);
            let inside = at & ((1 << PAGE) - 1);
            let lanes = (((1 << PAGE) - inside) / n).min(32 - lane as usize);
            // A cell never stands for more than one lane's bytes, unless that is finer than what may matter.
            let (per, first) = ((n >> page.shift).max(1), inside >> page.shift);
            if n >> page.shift == 0 {
                return self.touch_each(at, n, granule, clocks, mark, lane);
            }
            for (cells, l) in page.cells[first..first + lanes * per].chunks_exact_mut(per).zip(lane..) {
                for cell in cells {
                    let conflict = cell.touch(clocks, mark, l);
                    found = found.or(conflict.map(|c| (l, c)));
                }
            }
            lane += lanes as u32;
            at += lanes * n;
        }
        found
    }

    fn touch_each(
        &mut self,
        at: usize,
        n: usize,
        granule: u32,
        clocks: &Clocks,
        mark: &Mark,
        from: u32,
    ) -> Option<(u32, Conflict)> {
        let mut found = None;
        for l in from..32 {
            let conflict = self.touch(at + (l - from) as usize * n, n, granule, clocks, mark, l);
            found = found.or(conflict.map(|c| (l, c)));
        }
        found
    }

    /// The cells of an access.
    #[inline]
    fn page(&mut self, at: usize, n: usize, granule: u32) -> &mut Page {
        let number = at >> PAGE;
        if number >= self.pages.len() {
            self.pages.resize((self.data.len() >> PAGE) + 1, Page::default());
        }
        let page = &mut self.pages[number];
        if page.age != self.age || page.cells.is_empty() {
            page.renew(self.age);
        }
        if n < 1 << LINE && page.shift == LINE {
            page.refine(granule.trailing_zeros());
        }
        page
    }
}

/// Whether all bytes have one state.
#[inline]
fn all(state: &[u8], value: u8) -> bool {
    match state.len() {
        4 => state == [value; 4],
        8 => state == [value; 8],
        16 => state == [value; 16],
        n if n % 32 == 0 => state.chunks_exact(32).all(|s| s == [value; 32]),
        _ => state.iter().all(|&s| s == value),
    }
}

/// Little-endian bytes as a number.
#[inline]
fn number(bytes: &[u8]) -> u128 {
    match *bytes {
        [a] => u128::from(a),
        [a, b] => u128::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u128::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
        _ => {
            let mut all = [0; 16];
            all[..bytes.len()].copy_from_slice(bytes);
            u128::from_le_bytes(all)
        }
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
