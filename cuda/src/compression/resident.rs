//! Compression of gradients that are on the device already. Everything is put on the device's stream and nothing waits,
//! but where the documentation of [`ResidentCompressor::compress`] says so.

use super::guess::{self, Guess};
use super::kernels::{BATCH, CONTROL, DIGITS, FIRST_BAD, Kernels, THREADS, TILE, WORDS};
use super::step::Job;
use crate::{Buffer, Config, CudaError, Device};
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::select::Sample;
use tilewright_compression::{
    CompressionError, CompressionSpec, Memory, Message, NonFinite, Reduction, Sampling, Selector, Step,
};

/// [`Memory`] on a device.
#[derive(Debug)]
pub struct ResidentMemory {
    /// `v`: what is waiting to be sent.
    pub velocity: Buffer<f32>,
    /// `u`: momentum.
    pub momentum: Buffer<f32>,
}

impl ResidentMemory {
    /// Memory of a bucket that has seen no gradient.
    ///
    /// # Errors
    /// The specification is invalid, or the device has no room.
    pub fn new(device: &Device, spec: &CompressionSpec) -> Result<Self, CompressionError> {
        spec.validate()?;
        let (velocity, momentum) = Memory::lengths(spec);
        Ok(Self {
            velocity: Buffer::zeros(device, "velocity", velocity)?,
            momentum: Buffer::zeros(device, "momentum", momentum)?,
        })
    }
}

/// [`Message`] on a device, with room for the longest that its specification can make.
#[derive(Debug)]
pub struct ResidentMessage {
    pub(super) words: Buffer<u64>,
    pub(super) control: Buffer<u32>,
}

impl ResidentMessage {
    /// Room for a message: `k` words for the selectors that know it, as many as there are slots with a table, as many as
    /// the refinement tolerates; the whole bucket for a fixed threshold or one that is not refined.
    ///
    /// # Errors
    /// The specification is invalid, or the device has no room.
    pub fn new(device: &Device, spec: &CompressionSpec) -> Result<Self, CompressionError> {
        spec.validate()?;
        Ok(Self {
            words: Buffer::uninit(device, "message", longest(spec)?)?,
            control: Buffer::zeros(device, "control block", CONTROL)?,
        })
    }

    /// Its length. Waits for it.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn len(&self) -> Result<usize, CudaError> {
        let mut words = [0; 2];
        self.control.download_at(WORDS, &mut words)?;
        Ok(words[0] as usize | (words[1] as usize) << 32)
    }

    /// Whether nothing is sent. Waits.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn is_empty(&self) -> Result<bool, CudaError> {
        Ok(self.len()? == 0)
    }

    /// The words of the message, the first [`len`](Self::len) of this buffer.
    pub fn words(&self) -> &Buffer<u64> {
        &self.words
    }

    /// Copies it to the host. Waits for it.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn download(&self, message: &mut Message) -> Result<(), CudaError> {
        message.words.resize(self.len()?, 0);
        self.words.download(&mut message.words)
    }
}

/// The most words that a message can have.
fn longest(spec: &CompressionSpec) -> Result<usize, CompressionError> {
    let aim = spec.selector.aim(spec.len).unwrap_or(spec.len);
    let candidates = match spec.selector {
        Selector::ExactTopK(_) | Selector::RandomK(_) => aim,
        Selector::SampledThreshold(_, Sampling { refine: Some(refine), .. }) => {
            (f64::from(refine.upper) * aim as f64).min(spec.len as f64).ceil() as usize
        }
        Selector::SampledThreshold(..) | Selector::FixedThreshold(_) => spec.len,
    };
    let slots = spec.slots()?.map_or(usize::MAX, |slots| slots as usize);
    Ok(candidates.min(spec.len).min(slots))
}

/// DGC, DRAGONN and their relatives on a device, for data that stay there. It keeps its working memory; one serves any
/// number of buckets, one after the other.
pub struct ResidentCompressor {
    pub(super) device: Device,
    pub(super) kernels: Kernels,
    pub(super) room: Room,
}

/// Working memory.
pub(super) struct Room {
    pub(super) histogram: Buffer<u32>,
    pub(super) tallies: Buffer<u32>,
    pub(super) sample: Buffer<f32>,
    /// What was staged, and where each tile has its own.
    pub(super) pool: Buffer<u64>,
    pub(super) segments: Buffer<u64>,
    /// All zero between steps.
    pub(super) table: Buffer<u64>,
    pub(super) bitmap: Buffer<u32>,
    /// A counter of tiles, and what each tile has published.
    pub(super) states: Buffer<u64>,
    pub(super) squares: Buffer<f64>,
    pub(super) beyond: Buffer<u32>,
}

impl ResidentCompressor {
    /// Loads the kernels.
    ///
    /// # Errors
    /// [`CudaError::Load`], [`CudaError::OutOfMemory`].
    pub fn new(device: &Device) -> Result<Self, CudaError> {
        let room = Room {
            histogram: Buffer::zeros(device, "histogram", DIGITS)?,
            tallies: Buffer::zeros(device, "tallies", BATCH as usize)?,
            sample: Buffer::uninit(device, "sample", 0)?,
            pool: Buffer::uninit(device, "pool", 0)?,
            segments: Buffer::uninit(device, "segments", 0)?,
            table: Buffer::uninit(device, "hash table", 0)?,
            bitmap: Buffer::uninit(device, "bitmap", 0)?,
            states: Buffer::uninit(device, "tile states", 0)?,
            squares: Buffer::uninit(device, "sums of squares", 0)?,
            beyond: Buffer::zeros(device, "flag", 1)?,
        };
        Ok(Self { device: device.clone(), kernels: Kernels::new(device)?, room })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// One step of one bucket: [`Compressor::compress`](tilewright_compression::Compressor::compress) on the device, with
    /// the same bits ([`Policy::Any`](tilewright_compression::Policy::Any) aside). Nothing waits, except that
    ///
    /// * working memory grows when a bucket is larger than all before it;
    /// * [`NonFinite::Reject`] has to know before anything changes;
    /// * a refinement of more than 31 iterations asks after each 31 whether it is done.
    ///
    /// # Errors
    /// The specification is invalid, or an array has the wrong length; then nothing has changed. Or the device failed.
    pub fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &Buffer<f32>,
        memory: &mut ResidentMemory,
        message: &mut ResidentMessage,
    ) -> Result<(), CompressionError> {
        self.check(spec, step, gradient, memory, message)?;
        self.reserve(spec)?;
        let seeds = StepSeeds::new(spec.seed, step.number);
        let mut job = Job { spec, scale: step.scale, seeds, gradient, memory, message };
        if spec.non_finite == NonFinite::Reject {
            self.refuse_non_finite(&mut job)?;
        }
        self.run(&mut job)?;
        Ok(())
    }

    fn check(
        &self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &Buffer<f32>,
        memory: &ResidentMemory,
        message: &ResidentMessage,
    ) -> Result<(), CompressionError> {
        spec.validate()?;
        if !step.scale.is_finite() {
            let got = step.scale.to_string();
            return Err(CompressionError::Spec { field: "scale", got, expected: "a finite number" });
        }
        let (velocity, momentum) = Memory::lengths(spec);
        length("gradient", gradient.len(), spec.len)?;
        length("velocity", memory.velocity.len(), velocity)?;
        length("momentum", memory.momentum.len(), momentum)?;
        length("control block", message.control.len(), CONTROL)?;
        if message.words.len() < longest(spec)? {
            length("message", message.words.len(), longest(spec)?)?;
        }
        for device in [gradient.device(), memory.velocity.device(), memory.momentum.device(), message.words.device()] {
            if !device.is(&self.device) {
                let expected = "one of the compressor's";
                return Err(CudaError::argument("buffer", "one of another device or stream", expected).into());
            }
        }
        Ok(())
    }

    /// Working memory for such a bucket.
    fn reserve(&mut self, spec: &CompressionSpec) -> Result<(), CompressionError> {
        let (device, room) = (&self.device, &mut self.room);
        if let Some(slots) = spec.slots()?
            && room.table.len() < slots as usize
        {
            // The old one goes first: both may not fit.
            room.table = Buffer::uninit(device, "hash table", 0)?;
            room.table = Buffer::zeros(device, "hash table", slots as usize)?;
        }
        let slots = spec.slots()?.unwrap_or(0) as usize;
        let tiles = |n: usize| states(n.div_ceil(TILE) as u64);
        // There are no more groups than tiles.
        grow(&mut room.states, device, "tile states", (2 * tiles(spec.len)).max(tiles(slots)))?;
        if let Selector::RandomK(_) = spec.selector {
            grow(&mut room.bitmap, device, "bitmap", spec.len.div_ceil(32))?;
        }
        grow(&mut room.pool, device, "pool", guess::room(spec))?;
        grow(&mut room.segments, device, "segments", spec.len.div_ceil(TILE))?;
        let guess = Guess::new(spec.len, spec.selector.aim(spec.len).unwrap_or(0));
        grow(&mut room.sample, device, "sample", guess.map_or(0, |guess| guess.count))?;
        if let Selector::SampledThreshold(count, sampling) = spec.selector {
            let sample = Sample::new(spec.len, count.of(spec.len), sampling.ratio, 0);
            grow(&mut room.sample, device, "sample", sample.count)?;
        }
        Ok(())
    }

    /// Blocks of 256 threads for a loop over `n`.
    pub(super) fn many(&self, n: u64) -> Config {
        let most = u64::from(self.device.multiprocessors()) * 8;
        Config::new(n.div_ceil(4 * u64::from(THREADS)).clamp(1, most) as u32, THREADS)
    }

    fn refuse_non_finite(&self, job: &mut Job<'_>) -> Result<(), CompressionError> {
        let n = job.spec.len as u64;
        let mut control = Buffer::from_slice(&self.device, "control block", &[u32::MAX; CONTROL])?;
        let launch = self.kernels.first_bad.launch(self.many(n)).read(job.gradient).value(n).write(&mut control);
        // SAFETY: the gradient has `n` numbers, the control block its own.
        unsafe { launch.run() }?;
        let mut index = [0];
        control.download_at(FIRST_BAD, &mut index)?;
        let index = index[0] as usize;
        if index >= job.spec.len {
            return Ok(());
        }
        let mut value = [0.0];
        job.gradient.download_at(index, &mut value)?;
        Err(CompressionError::NonFinite { index, bits: value[0].to_bits() })
    }

    /// Overwrites `out` with the sum, or the mean, of messages that are on the device, in their order. Nothing waits. In
    /// none of them may an index occur twice: two threads would race for it.
    ///
    /// # Errors
    /// There are no messages. Or the device failed.
    pub fn decompress(
        &mut self,
        messages: &[&ResidentMessage],
        reduction: Reduction,
        out: &mut Buffer<f32>,
    ) -> Result<(), CompressionError> {
        if messages.is_empty() {
            let got = "none".into();
            return Err(CompressionError::Spec { field: "messages", got, expected: "one of each rank" });
        }
        out.clear()?;
        for message in messages {
            self.add(&message.words, Some(&message.control), 0, out)?;
        }
        self.mean(reduction, messages.len(), out)?;
        Ok(())
    }

    /// Adds one message of `count` words, or as many as its control block says.
    pub(super) fn add(
        &mut self,
        words: &Buffer<u64>,
        control: Option<&Buffer<u32>>,
        count: usize,
        out: &mut Buffer<f32>,
    ) -> Result<(), CudaError> {
        let most = if control.is_some() { words.len() } else { count };
        if most == 0 {
            return Ok(());
        }
        let len = out.len() as u64;
        let launch = self.kernels.add.launch(self.many(most as u64)).read(words).read_if(control);
        let launch = launch.value(count as u64).write(out).value(len).write(&mut self.room.beyond);
        // SAFETY: it reads as many words as there are, and writes below `len`.
        unsafe { launch.run() }
    }

    pub(super) fn mean(&self, reduction: Reduction, ranks: usize, out: &mut Buffer<f32>) -> Result<(), CudaError> {
        if reduction == Reduction::Sum || out.is_empty() {
            return Ok(());
        }
        let len = out.len() as u64;
        let launch = self.kernels.mean.launch(self.many(len)).write(out).value(len).value(ranks as f32);
        // SAFETY: it reads and writes `len` numbers.
        unsafe { launch.run() }
    }

    /// [`sum_of_squares`](tilewright_compression::memory::sum_of_squares) of a gradient on the device. Waits for it.
    ///
    /// # Errors
    /// The device failed.
    pub fn sum_of_squares(&mut self, gradient: &Buffer<f32>) -> Result<f64, CudaError> {
        let blocks = gradient.len().div_ceil(1 << 16);
        if blocks == 0 {
            return Ok(0.0);
        }
        grow(&mut self.room.squares, &self.device, "sums of squares", blocks)?;
        let launch = self.kernels.squares.launch(Config::new(blocks.div_ceil(8) as u32, 128)).read(gradient);
        // SAFETY: it reads the gradient, and writes a sum for each block of 2¹⁶.
        unsafe { launch.value(gradient.len() as u64).write(&mut self.room.squares).run() }?;
        Ok(self.room.squares.first(blocks)?.iter().fold(0.0, |sum, block| sum + block))
    }
}

/// Words of a compaction's last argument: a counter of tiles, and two for each of them.
pub(super) fn states(tiles: u64) -> usize {
    2 + 2 * tiles as usize
}

/// Room for at least `len`; what was there is gone if there was less.
pub(super) fn grow<T: crate::Plain>(
    buffer: &mut Buffer<T>,
    device: &Device,
    what: &str,
    len: usize,
) -> Result<(), CudaError> {
    if buffer.len() < len {
        *buffer = Buffer::uninit(device, what, len)?;
    }
    Ok(())
}

fn length(argument: &'static str, got: usize, expected: usize) -> Result<(), CompressionError> {
    if got == expected { Ok(()) } else { Err(CompressionError::Length { argument, got, expected }) }
}
