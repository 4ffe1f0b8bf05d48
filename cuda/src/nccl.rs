//! Collectives over NCCL, for ranks with a GPU each. The library is opened when it is first asked for: its absence is an
//! error.

use crate::{Buffer, CudaError, Device};
use libloading::{Library, Symbol};
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::sync::Arc;
use tilewright_compression::{Collective, CollectiveError};

/// The names of the library.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// NCCL's number for unsigned integers of 64 bits.
const UINT64: c_int = 5;

type Handle = *mut c_void;
/// `ncclAllGather`: from, to, how many, of what, among whom, on which stream.
type Gather = unsafe extern "C" fn(u64, u64, usize, c_int, Handle, *mut c_void) -> c_int;

/// What the ranks of one group agree on: made by one of them, and told to the others by other means.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NcclId([u8; 128]);

impl NcclId {
    /// A new one.
    ///
    /// # Errors
    /// [`CollectiveError::Engine`]: there is no NCCL.
    pub fn new() -> Result<Self, CollectiveError> {
        let library = open()?;
        let get: Symbol<'_, unsafe extern "C" fn(*mut Self) -> c_int> = symbol(&library, "ncclGetUniqueId")?;
        let mut id = Self([0; 128]);
        // SAFETY: it fills 128 bytes.
        check(&library, unsafe { get(&raw mut id) })?;
        Ok(id)
    }

    /// Its bytes, to be told to the other ranks.
    pub fn to_bytes(self) -> [u8; 128] {
        self.0
    }

    /// The one that another rank told.
    pub fn from_bytes(bytes: [u8; 128]) -> Self {
        Self(bytes)
    }
}

/// A rank that talks to the others over NCCL, on its device's stream.
///
/// Words are gathered by NCCL. Sums are taken here, in the order of the ranks, from everybody's numbers: NCCL's own
/// reductions have an order of their own, and all ranks are promised the bits of this one. That moves `N/2` times the bytes
/// of a ring.
pub struct Nccl {
    library: Arc<Library>,
    handle: Handle,
    device: Device,
    rank: usize,
    size: usize,
    room: RefCell<Option<(Buffer<u64>, Buffer<u64>)>>,
}

impl Nccl {
    /// Rank `rank` of `size`; returns once all of them have called this with the same `id`.
    ///
    /// # Errors
    /// [`CollectiveError::Engine`]: there is no NCCL, or it says so.
    pub fn new(device: &Device, id: NcclId, rank: usize, size: usize) -> Result<Self, CollectiveError> {
        if rank >= size {
            return Err(CollectiveError::Engine(format!("rank: got {rank}, expected less than {size}")));
        }
        let library = Arc::new(open()?);
        device.bind().map_err(engine)?;
        let mut handle = std::ptr::null_mut();
        let init: Symbol<'_, unsafe extern "C" fn(*mut Handle, c_int, NcclId, c_int) -> c_int> =
            symbol(&library, "ncclCommInitRank")?;
        // SAFETY: the device is bound; the handle is written once all ranks are there.
        let status = unsafe { init(&raw mut handle, size as c_int, id, rank as c_int) };
        check(&library, status)?;
        Ok(Self { library: Arc::clone(&library), handle, device: device.clone(), rank, size, room: RefCell::default() })
    }

    /// Gathers words that are on the device: `receive` has `size` times the length of `send`. Does not wait.
    ///
    /// # Errors
    /// [`CollectiveError`].
    pub fn all_gather_on_device(
        &self,
        send: &Buffer<u64>,
        receive: &mut Buffer<u64>,
        words: usize,
    ) -> Result<(), CollectiveError> {
        if send.len() < words || receive.len() < words * self.size {
            let problem = format!("receives {} words, sends {words} of {}", receive.len(), send.len());
            return Err(CollectiveError::Mismatch { rank: self.rank, problem });
        }
        self.device.bind().map_err(engine)?;
        let gather: Symbol<'_, Gather> = symbol(&self.library, "ncclAllGather")?;
        let stream = self.device.stream().cast::<c_void>();
        // SAFETY: both buffers have room for as many words, and work on the device's stream is done in order.
        let status = unsafe { gather(send.address(), receive.address(), words, UINT64, self.handle, stream) };
        check(&self.library, status)
    }

    fn gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        if receive.len() != send.len() * self.size {
            let problem = format!("receives {} words, sends {}", receive.len(), send.len());
            return Err(CollectiveError::Mismatch { rank: self.rank, problem });
        }
        let mut room = self.room.borrow_mut();
        if room.as_ref().is_none_or(|(own, _)| own.len() < send.len()) {
            let buffer = |len| Buffer::uninit(&self.device, "words to gather", len).map_err(engine);
            *room = Some((buffer(send.len())?, buffer(receive.len())?));
        }
        let Some((own, all)) = &mut *room else { return Ok(()) };
        own.upload(send).map_err(engine)?;
        self.all_gather_on_device(own, all, send.len())?;
        all.download(receive).map_err(engine)
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, send: &[u64], receive: &mut [u64]) -> Result<(), CollectiveError> {
        self.gather(send, receive)
    }

    fn all_reduce_sum(&self, data: &mut [f32]) -> Result<(), CollectiveError> {
        let bits = |pair: &[f32]| pair.iter().rev().fold(0u64, |word, x| word << 32 | u64::from(x.to_bits()));
        let words: Vec<u64> = data.chunks(2).map(bits).collect();
        let mut all = vec![0; words.len() * self.size];
        self.gather(&words, &mut all)?;
        for (i, x) in data.iter_mut().enumerate() {
            let of = |rank: usize| f32::from_bits((all[rank * words.len() + i / 2] >> (32 * (i % 2))) as u32);
            *x = (1..self.size).fold(of(0), |sum, rank| sum + of(rank));
        }
        Ok(())
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if self.device.bind().is_err() {
            return;
        }
        let destroy = symbol::<unsafe extern "C" fn(Handle) -> c_int>(&self.library, "ncclCommDestroy");
        if let Ok(destroy) = destroy {
            // SAFETY: nobody uses the handle any more. If NCCL objects there is nothing to do.
            unsafe { destroy(self.handle) };
        }
    }
}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nccl(rank {} of {})", self.rank, self.size)
    }
}

fn engine(error: CudaError) -> CollectiveError {
    CollectiveError::Engine(error.to_string())
}

fn open() -> Result<Library, CollectiveError> {
    // SAFETY: a library of collectives; loading it runs nothing of note.
    let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    library.ok_or_else(|| {
        let text = "no NCCL: libnccl.so.2 could not be loaded; install it, or put its folder on LD_LIBRARY_PATH";
        CollectiveError::Engine(text.into())
    })
}

fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>, CollectiveError> {
    // SAFETY: the types given by the callers are those of NCCL's header.
    let symbol = unsafe { library.get(name.as_bytes()) };
    symbol.map_err(|_| CollectiveError::Engine(format!("NCCL lacks {name}")))
}

fn check(library: &Library, status: c_int) -> Result<(), CollectiveError> {
    if status == 0 {
        return Ok(());
    }
    let get = symbol::<unsafe extern "C" fn(c_int) -> *const c_char>(library, "ncclGetErrorString")?;
    // SAFETY: it returns a constant text for any status.
    let text = unsafe { CStr::from_ptr(get(status)) }.to_string_lossy().into_owned();
    Err(CollectiveError::Engine(format!("NCCL: {text}")))
}
