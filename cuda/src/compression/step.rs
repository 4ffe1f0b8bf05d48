//! The launches of one step, in order.

use super::guess::Guess;
use super::kernels::{
    BATCH, Emit, Entering, Goal, Permutation, Pool, REFINING, SPLIT, STAGE, Search, Strided, THREADS, TILE, Thresholds,
    Values, WARPS, format,
};
use super::resident::{ResidentCompressor, ResidentMemory, ResidentMessage, Room, states};
use crate::{Buffer, Config, CudaError};
use std::ops::Range;
use tilewright_compression::hash::StepSeeds;
use tilewright_compression::key::magnitude;
use tilewright_compression::select::{LEAST, Sample};
use tilewright_compression::{CompressionSpec, Feedback, Placement, Policy, Refinement, Sampling, Selector};

/// One step: what it works on.
pub(super) struct Job<'a> {
    pub(super) spec: &'a CompressionSpec,
    pub(super) scale: f32,
    pub(super) seeds: StepSeeds,
    pub(super) gradient: &'a Buffer<f32>,
    pub(super) memory: &'a mut ResidentMemory,
    pub(super) message: &'a mut ResidentMessage,
}

impl Job<'_> {
    /// The values after the gradient came in.
    fn values(&self) -> Values {
        let (at, scale) = if self.spec.feedback == Feedback::None {
            (self.gradient.address(), self.scale)
        } else {
            (self.memory.velocity.address(), 1.0)
        };
        Values { at, count: self.spec.len as u64, scale, pad: 0 }
    }
}

impl ResidentCompressor {
    /// Puts the step on the stream.
    pub(super) fn run(&mut self, job: &mut Job<'_>) -> Result<(), CudaError> {
        job.message.control.clear()?;
        let (len, spec) = (job.spec.len, job.spec);
        let aim = spec.selector.aim(len);
        if len == 0 {
            return Ok(());
        }
        if aim == Some(0) {
            return self.update(job);
        }
        let k = aim.unwrap_or(0) as u64;
        match spec.selector {
            Selector::FixedThreshold(threshold) => {
                self.cut(job, magnitude(threshold).max(LEAST))?;
                self.stage(job, None, false)?;
            }
            Selector::ExactTopK(_) => {
                self.guess(job, k)?;
                self.stage(job, None, false)?;
                let (values, pool) = (job.values(), self.pool(job));
                self.count(job, values, pool, Some((k as usize, Goal::Cut)), 0..SPLIT.len())?;
            }
            Selector::SampledThreshold(_, sampling) => {
                self.guess(job, k)?;
                self.sampled(job, k, sampling)?;
            }
            Selector::RandomK(_) => {
                self.cut(job, LEAST)?;
                self.permute(job, k as u32)?;
                self.stage(job, None, true)?;
            }
        }
        self.emit(job)
    }

    /// The gradient enters the memory.
    fn update(&mut self, job: &mut Job<'_>) -> Result<(), CudaError> {
        let n = job.spec.len as u64;
        let ResidentMemory { velocity, momentum } = &mut *job.memory;
        let launch = self.kernels.update.launch(self.many(n)).value(Entering::new(job.spec.feedback, job.scale));
        let launch = launch.read(job.gradient).write(momentum).write(velocity).value(n);
        // SAFETY: the arrays have the lengths that were checked.
        unsafe { launch.run() }
    }

    fn cut(&self, job: &mut Job<'_>, cut: u32) -> Result<(), CudaError> {
        let launch = self.kernels.cut.launch(Config::new(1, 1)).write(&mut job.message.control);
        // SAFETY: it writes the control block.
        unsafe { launch.value(cut).value(u32::MAX).run() }
    }

    /// A floor that is likely to have the `k` greatest above it, and not many more.
    fn guess(&mut self, job: &mut Job<'_>, k: u64) -> Result<(), CudaError> {
        let Some(Guess { count, stride, rank }) = Guess::new(job.spec.len, k as usize) else {
            return self.cut(job, LEAST);
        };
        let count = count as u64;
        let ResidentMemory { velocity, momentum } = &*job.memory;
        // Two digits are near enough.
        let search = Search::digit(Some((rank, Goal::Floor)), 0, 2);
        // A place for each thread: they are far from one another, and none should wait for another.
        let grid = Config::new(count.div_ceil(u64::from(THREADS)) as u32, THREADS);
        let launch = self.kernels.guess.launch(grid).value(search);
        let launch = launch.value(Entering::new(job.spec.feedback, job.scale)).read(job.gradient).read(momentum);
        let launch = launch.read(velocity).value(stride as u64).value(count).write(&mut self.room.sample);
        // SAFETY: a guess's places lie in the bucket, and there is room for all of them.
        unsafe { launch.write(&mut job.message.control).write(&mut self.room.histogram).run() }?;
        let values = self.gathered(count);
        self.count(job, values, Pool::NONE, None, 1..2)
    }

    /// What a sample has.
    fn gathered(&self, count: u64) -> Values {
        Values { at: self.room.sample.address(), count, scale: 1.0, pad: 0 }
    }

    fn pool(&self, job: &Job<'_>) -> Pool {
        let kind = Entering::new(job.spec.feedback, job.scale).kind;
        let tiles = job.spec.len.div_ceil(STAGE[kind as usize]) as u64;
        // Enough blocks to keep the device busy, not so many that they look back far.
        let share = tiles.div_ceil(u64::from(self.device.multiprocessors() * 4 * WARPS)).min(32);
        let Room { pool, segments, .. } = &self.room;
        Pool { words: pool.address(), segments: segments.address(), capacity: pool.len() as u64, tiles, share }
    }

    /// The gradient enters the memory; what is at or above the floor is staged, or of that what is `marked`; and a sample if there
    /// is one.
    fn stage(&mut self, job: &mut Job<'_>, sample: Option<Sample>, marked: bool) -> Result<(), CudaError> {
        let at = self.room.sample.address();
        let strided = sample.map_or(Strided::default(), |Sample { start, stride, count }| Strided {
            at,
            start: start as u32,
            stride: stride as u32,
            count: count as u32,
            pad: 0,
        });
        let (pool, entering) = (self.pool(job), Entering::new(job.spec.feedback, job.scale));
        let ResidentMemory { velocity, momentum } = &mut *job.memory;
        let kernel = &self.kernels.stage[entering.kind as usize];
        let launch = kernel.launch(Config::new(pool.tiles as u32, THREADS)).value(entering).read(job.gradient);
        let launch = launch.write(momentum).write(velocity).value(job.spec.len as u64);
        let launch = launch.read_if(marked.then_some(&self.room.bitmap)).value(strided).value(pool);
        // SAFETY: the arrays have the lengths that were checked; there is a segment for each tile, and room for the sample;
        // the pool is not written beyond its capacity.
        unsafe { launch.write(&mut job.message.control).run() }
    }

    /// Digit by digit, to the last of `places`: what is searched for, if anything is. With `begin`, a rank and a goal, the
    /// search begins here.
    fn count(
        &mut self,
        job: &mut Job<'_>,
        values: Values,
        pool: Pool,
        begin: Option<(usize, Goal)>,
        places: Range<usize>,
    ) -> Result<(), CudaError> {
        let grid = self.many(values.count);
        for place in places.clone() {
            let search = Search::digit(begin, place, places.end);
            let (control, histogram) = (&mut job.message.control, &mut self.room.histogram);
            let launch = self.kernels.count.launch(grid).value(search).value(values).value(pool).write(control);
            // SAFETY: it reads the values or the pool, and writes a histogram of digits and the control block.
            unsafe { launch.write(histogram).run() }?;
        }
        Ok(())
    }

    /// DGC's hierarchical selection.
    fn sampled(&mut self, job: &mut Job<'_>, k: u64, sampling: Sampling) -> Result<(), CudaError> {
        let sample = Sample::new(job.spec.len, k as usize, sampling.ratio, job.seeds.sample);
        self.stage(job, Some(sample), false)?;
        let begin = Some((sample.rank(k as usize, job.spec.len), Goal::Threshold));
        let values = self.gathered(sample.count as u64);
        self.count(job, values, Pool::NONE, begin, 0..SPLIT.len())?;
        let Some(refine) = sampling.refine else { return Ok(()) };
        self.refine(job, k, refine)?;
        // Too many: the exact top k.
        let (values, pool) = (job.values(), self.pool(job));
        self.count(job, values, pool, None, 0..SPLIT.len())
    }

    /// Batch after batch of thresholds; most refinements end in the first, among what was staged.
    fn refine(&mut self, job: &mut Job<'_>, k: u64, refine: Refinement) -> Result<(), CudaError> {
        let Refinement { lower, upper, iterations } = refine;
        let batch = |steps: u32, trying: u32| {
            let more = steps.min(BATCH - 1);
            Thresholds { lower, upper, k, most: more + 1, last: u32::from(more == steps), trying, pad: 0 }
        };
        self.thresholds(job, batch(iterations, 1))?;
        let mut steps = iterations;
        loop {
            let thresholds = batch(steps, 0);
            self.thresholds(job, thresholds)?;
            if thresholds.last == 1 {
                return Ok(());
            }
            steps -= thresholds.most - 1;
            let mut refining = [0];
            job.message.control.download_at(REFINING, &mut refining)?;
            if refining == [0] {
                return Ok(());
            }
        }
    }

    fn thresholds(&mut self, job: &mut Job<'_>, thresholds: Thresholds) -> Result<(), CudaError> {
        let (values, pool) = (job.values(), self.pool(job));
        let launch = self.kernels.refine.launch(self.many(values.count)).value(thresholds).value(values).value(pool);
        // SAFETY: it reads the values or the pool, and writes at most a batch of tallies, and the control block.
        unsafe { launch.write(&mut job.message.control).write(&mut self.room.tallies).run() }
    }

    fn permute(&mut self, job: &Job<'_>, k: u32) -> Result<(), CudaError> {
        let len = job.spec.len;
        self.room.bitmap.clear_first(len.div_ceil(32))?;
        let permutation = Permutation::new(len as u32, job.seeds.permutation);
        let launch = self.kernels.permute.launch(self.many(u64::from(k))).value(permutation).value(k);
        // SAFETY: the permutation's values are less than `len`, and the bitmap has as many bits.
        unsafe { launch.write(&mut self.room.bitmap).run() }
    }

    /// Candidates to the message, by way of the table if there is one.
    fn emit(&mut self, job: &mut Job<'_>) -> Result<(), CudaError> {
        let spec = job.spec;
        let (racing, slots) = match (spec.placement, spec.slots()) {
            (Placement::HashTable { policy, .. }, Ok(Some(slots))) => (policy == Policy::Any, slots),
            _ => (false, 0),
        };
        let values = job.values();
        let emit = Emit {
            entering: Entering::new(spec.feedback, values.scale),
            values: values.at,
            momentum: job.memory.momentum.address(),
            velocity: job.memory.velocity.address(),
            words: job.message.words.address(),
            table: if slots > 0 { self.room.table.address() } else { 0 },
            n: spec.len as u64,
            capacity: job.message.words.len() as u64,
            format: format(spec.wire.value),
            slots,
            seed: job.seeds.hash,
            racing: u32::from(racing),
        };
        let pool = self.pool(job);
        let blocks = |tiles: u64, most: u32| tiles.min(u64::from(most)) as u32;
        let (groups, tiles) = (pool.tiles.div_ceil(u64::from(WARPS) * pool.share), spec.len.div_ceil(TILE) as u64);
        // What groups publish comes before what tiles publish.
        let first = states(groups);
        self.room.states.clear_first(first + states(tiles))?;
        let grid = Config::new(blocks(groups, u32::MAX), THREADS);
        let launch = self.kernels.order.launch(grid).value(emit).value(pool).write(&mut job.message.control);
        // SAFETY: the addresses are those of buffers that the job and this compressor hold, with the lengths that were
        // checked and reserved; a message is not written beyond its capacity.
        unsafe { launch.write(&mut self.room.states).run() }?;
        let grid = Config::new(blocks(tiles, self.device.multiprocessors() * 8), THREADS);
        let launch = self.kernels.emit.launch(grid).value(emit).value(pool).write(&mut job.message.control);
        // SAFETY: as above.
        unsafe { launch.write_at(&mut self.room.states, first).run() }?;
        if slots == 0 {
            return Ok(());
        }
        let tiles = u64::from(slots).div_ceil(TILE as u64);
        self.room.states.clear_first(states(tiles))?;
        let grid = Config::new(blocks(tiles, u32::MAX), THREADS);
        let launch = self.kernels.slots.launch(grid).value(emit).write(&mut job.message.control);
        // SAFETY: as above.
        unsafe { launch.write(&mut self.room.states).run() }
    }
}
