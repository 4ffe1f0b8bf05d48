//! Any implementation of the traits as a [`Subject`], with the hygiene that a process boundary cannot give: inputs of
//! every alignment, compared afterwards; guards around the output; a message full of somebody else's entries and an
//! output full of NaN and other numbers to begin with.

use crate::SubjectError;
use crate::compression::subject::{Compress, Decompress, Profile, Reply, Subject};
use crate::subject::{Explain, nothing};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tilewright_compression::message::word;
use tilewright_compression::{CompressionError, Compressor, Decompressor, Memory, Message, NonFinite};

/// A backend in this process, on trial.
#[derive(Debug)]
pub struct InProcess<B> {
    backend: B,
    profile: Profile,
    parallel: bool,
    explain: Explain,
}

impl<B: Compressor + Decompressor + Send> InProcess<B> {
    /// Puts a backend on trial under a profile.
    pub fn new(backend: B, profile: Profile) -> Self {
        Self { backend, profile, parallel: true, explain: nothing }
    }

    /// The same for a backend that uses no threads of rayon's, so that nothing is gained by trying several numbers of them.
    pub fn sequential(backend: B, profile: Profile) -> Self {
        Self { backend, profile, parallel: false, explain: nothing }
    }

    /// Asks `explain` whenever the backend reports an error, and adds what it says: a device may know more of a fault than
    /// its error code tells.
    #[must_use]
    pub fn explained_by(self, explain: Explain) -> Self {
        Self { explain, ..self }
    }

    /// Runs `job` on the backend, on so many threads if the backend uses rayon's, and survives its panics.
    fn call<T: Send>(
        &mut self,
        threads: Option<usize>,
        job: impl FnOnce(&mut B) -> Result<T, SubjectError> + Send,
    ) -> Result<T, SubjectError> {
        let threads = threads.filter(|_| self.parallel);
        let backend = AssertUnwindSafe(&mut self.backend);
        let outcome = catch_unwind(AssertUnwindSafe(move || {
            let backend = backend; // the wrapper as a whole
            match threads {
                Some(threads) => on_threads(threads, move || job(backend.0)),
                None => job(backend.0),
            }
        }));
        outcome
            .unwrap_or_else(|panic| Err(SubjectError::from_panic(panic)))
            .map_err(|error| error.explained(self.explain))
    }
}

/// Runs a job in a pool of its own number of threads.
fn on_threads<T: Send>(
    threads: usize,
    job: impl FnOnce() -> Result<T, SubjectError> + Send,
) -> Result<T, SubjectError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| SubjectError::Failed(error.to_string()))?;
    // Not from this thread: it may be of another pool, and would take up that one's work while it waits.
    let joined = std::thread::scope(|scope| scope.spawn(|| pool.install(job)).join());
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Elements around a list that nobody may touch.
const GUARD: usize = 64;
/// What they hold.
const GUARD_VALUE: f32 = -1536.0;
/// Alignments tried: of the 64 bytes of a cache line, and of the widest vectors.
const ALIGNMENTS: usize = 16;

/// A list with guards around it, at an alignment of choice.
struct Guarded {
    memory: Vec<f32>,
    start: usize,
    len: usize,
}

impl Guarded {
    fn new(len: usize, alignment: usize, fill: impl IntoIterator<Item = f32>) -> Self {
        let start = GUARD + alignment % ALIGNMENTS;
        let mut memory = vec![GUARD_VALUE; start + len + GUARD];
        memory[start..start + len].iter_mut().zip(fill).for_each(|(place, x)| *place = x);
        Self { memory, start, len }
    }

    fn list(&self) -> &[f32] {
        &self.memory[self.start..self.start + self.len]
    }

    fn list_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// Whether everything around the list is as it was.
    fn intact(&self) -> bool {
        let (before, rest) = self.memory.split_at(self.start);
        before.iter().chain(&rest[self.len..]).all(|x| x.to_bits() == GUARD_VALUE.to_bits())
    }
}

fn bits(list: &[f32]) -> impl Iterator<Item = u32> + '_ {
    list.iter().map(|x| x.to_bits())
}

fn same_memory(a: &Memory, b: &Memory) -> bool {
    bits(&a.velocity).eq(bits(&b.velocity)) && bits(&a.momentum).eq(bits(&b.momentum))
}

/// An alignment that differs from request to request and is the same for the same request.
fn alignment(id: &str, number: u64) -> usize {
    id.bytes().map(usize::from).sum::<usize>() + number as usize
}

/// What a message holds before it is written: entries of another bucket.
fn stale() -> Message {
    Message { words: (0..7).map(|i| word(u32::MAX - i, 0.25)).collect() }
}

fn misbehaved<T>(what: &str) -> Result<T, SubjectError> {
    Err(SubjectError::Misbehaved(what.into()))
}

fn failed(error: &CompressionError) -> SubjectError {
    match error {
        CompressionError::Unsupported { what } => SubjectError::Unsupported((*what).into()),
        other => SubjectError::Failed(other.to_string()),
    }
}

impl<B: Compressor + Decompressor + Send> Subject for InProcess<B> {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn compress(&mut self, request: &Compress<'_>) -> Result<Reply, SubjectError> {
        let (spec, step) = (request.spec, request.step);
        let alignment = alignment(request.id, step.number);
        let gradient = Guarded::new(request.gradient.len(), alignment, request.gradient.iter().copied());
        let (mut memory, mut message) = (request.memory.clone(), stale());
        self.call(request.threads, move |backend| {
            let outcome = backend.compress(spec, step, gradient.list(), &mut memory, &mut message);
            if !gradient.intact() || !bits(gradient.list()).eq(bits(request.gradient)) {
                return misbehaved("changed the gradient");
            }
            let Err(error) = outcome else { return Ok(Reply::Sent { words: message.words, memory }) };
            if !same_memory(&memory, request.memory) || message != stale() {
                return misbehaved("failed, but changed its memory or the message");
            }
            match error {
                CompressionError::NonFinite { index, bits } if spec.non_finite == NonFinite::Reject => {
                    if request.gradient.get(index).map(|g| g.to_bits()) != Some(bits) {
                        return misbehaved("refused a gradient for bits that it does not have");
                    }
                    Ok(Reply::Refused { index })
                }
                error => Err(failed(&error)),
            }
        })
    }

    fn decompress(&mut self, request: &Decompress<'_>) -> Result<Vec<f32>, SubjectError> {
        let copies: Vec<Vec<u64>> = request.messages.iter().map(|words| words.to_vec()).collect();
        // Neither alone would do: a NaN hides what is added to it, a number that it was never written.
        let poison = |i: usize| if i.is_multiple_of(2) { f32::NAN } else { GUARD_VALUE };
        let untouched = move |out: &[f32]| bits(out).eq((0..out.len()).map(|i| poison(i).to_bits()));
        let mut out = Guarded::new(request.len, alignment(request.id, 3), (0..request.len).map(poison));
        self.call(request.threads, move |backend| {
            let messages: Vec<&[u64]> = copies.iter().map(Vec::as_slice).collect();
            let outcome = backend.decompress(&messages, request.reduction, out.list_mut());
            if messages != request.messages {
                return misbehaved("changed the messages");
            }
            if !out.intact() {
                return misbehaved("wrote outside of the decoded vector");
            }
            match outcome {
                Ok(()) => Ok(out.list().to_vec()),
                Err(_) if !untouched(out.list()) => misbehaved("failed, but changed the decoded vector"),
                Err(error) => Err(failed(&error)),
            }
        })
    }
}
