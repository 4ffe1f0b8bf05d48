//! The data-parallel optimiser step: dense all-reduce, top-k, random-k, DGC and DRAGONN behind one interface.
//!
//! | | compressed bucket | dense bucket |
//! |---|---|---|
//! | in | the rank's gradient, times the clipping factor | the same |
//! | before sending | [`Compressor`]: memory, selection, placement | |
//! | exchange | messages to everybody, [`Decompressor`] adds them in rank order | `all_reduce_sum`, in rank order |
//! | mean | divided by the number of ranks | the same |
//! | update | [`Feedback::Momentum`](crate::Feedback::Momentum): plain SGD. Otherwise momentum SGD | momentum SGD |
//!
//! All sums are in rank order, so all ranks hold the same weights, bit for bit, and any engine gives the same ones.

mod config;
mod error;
mod exchange;
mod replicas;
mod sgd;
mod state;

pub use config::{Config, Momentum};
pub use error::DataParallelError;
pub use replicas::{agree, hash_of};
pub use state::{BucketState, State};

use crate::bucket::{Bucket, Buckets};
use crate::memory::{clipping, length};
use crate::spec::spec;
use crate::{
    Collective, CollectiveError, CompressionError, CompressionSpec, Compressor, Decompressor, Memory, NonFinite, Step,
};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use exchange::Exchange;
use sgd::Sgd;

/// What a rank did in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Entries in its messages.
    pub entries: u64,
    /// Bytes of its messages, as they were gathered.
    pub message_bytes: u64,
    /// Bytes of the dense buckets, which were reduced.
    pub dense_bytes: u64,
    /// The clipping factor of its gradient.
    pub scale: f32,
}

/// Stochastic gradient descent on the mean of all ranks' gradients.
///
/// `B` compresses and decompresses. Every rank makes one with the same settings and takes the same steps; the weights,
/// equal at the start, stay equal.
///
/// ```
/// use tilewright_compression::bucket::Buckets;
/// use tilewright_compression::data_parallel::{Config, DataParallel};
/// use tilewright_compression::{CompressionSpec, Count, Solo, reference::Reference};
///
/// let config = Config::compressed(CompressionSpec::top_k(0, Count::Entries(1)));
/// let buckets = Buckets::pack(&[2, 1], 100, |_, _| true)?;
/// let mut optimiser = DataParallel::new(config, buckets, Reference, &Solo)?;
/// let (mut matrix, mut bias) = ([0.0; 2], [0.0]);
/// for _ in 0..2 {
///     optimiser.step(1.0, &[&[3.0, 1.0], &[2.0]], &mut [&mut matrix, &mut bias])?;
/// }
/// // One entry a step: first the 3; by then 2 + 2 are waiting at the bias.
/// assert_eq!((matrix, bias), ([-3.0, 0.0], [-4.0]));
/// # Ok::<(), tilewright_compression::data_parallel::DataParallelError>(())
/// ```
pub struct DataParallel<'a, B> {
    config: Config,
    buckets: Buckets,
    backend: B,
    collective: &'a dyn Collective,
    state: State,
    /// A step failed half way.
    broken: bool,
    /// The ranks were compared since the last change of state.
    agreed: bool,
    exchange: Exchange,
    gradient: Vec<f32>,
    update: Vec<f32>,
}

impl<'a, B: Compressor + Decompressor> DataParallel<'a, B> {
    /// An optimiser before its first step.
    ///
    /// # Errors
    /// [`DataParallelError::Compression`] if the settings are invalid or there is no memory for the state.
    pub fn new(
        config: Config,
        buckets: Buckets,
        backend: B,
        collective: &'a dyn Collective,
    ) -> Result<Self, DataParallelError> {
        config.validate()?;
        let list = buckets.list().iter().enumerate();
        let buckets_state = list.map(|(i, bucket)| first_state(&config, i, bucket)).collect::<Result<_, _>>()?;
        let state = State {
            fingerprint: config.fingerprint(&buckets),
            rank: collective.rank(),
            ranks: collective.size(),
            step: 0,
            buckets: buckets_state,
        };
        // A bucket of one piece is read where it is.
        let in_pieces = buckets.list().iter().filter(|bucket| bucket.pieces.len() > 1);
        let gradient = zeros("packed gradient", in_pieces.map(|bucket| bucket.len).max().unwrap_or(0) as usize)?;
        let update = zeros("mean gradient", buckets.longest() as usize)?;
        Ok(Self {
            config,
            buckets,
            backend,
            collective,
            state,
            broken: false,
            agreed: false,
            exchange: Exchange::default(),
            gradient,
            update,
        })
    }

    /// All that is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Continues from a state, exactly. Every rank restores its own, all of the same step; the next step checks that.
    ///
    /// # Errors
    /// [`DataParallelError::State`] if it is that of other settings, another rank, or another number of ranks;
    /// [`DataParallelError::Compression`] if an array has the wrong length. Then nothing has changed.
    pub fn restore(&mut self, state: State) -> Result<(), DataParallelError> {
        self.state.check(&state)?;
        self.state = state;
        (self.broken, self.agreed) = (false, false);
        Ok(())
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The packing.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// One step: this rank's gradients in, every rank's weights updated. Both are lists of the model's tensors.
    ///
    /// # Errors
    /// [`DataParallelError`]. Wrong lengths change nothing on this rank.
    pub fn step(
        &mut self,
        learning_rate: f32,
        gradients: &[&[f32]],
        weights: &mut [&mut [f32]],
    ) -> Result<Report, DataParallelError> {
        if self.broken {
            return Err(DataParallelError::Broken);
        }
        self.check("gradients", gradients.iter().map(|tensor| tensor.len()))?;
        self.check("weights", weights.iter().map(|tensor| tensor.len()))?;
        self.compare_ranks()?;
        let scale = self.admit(gradients)?;
        self.broken = true;
        let mut report = Report { scale, ..Report::default() };
        for bucket in 0..self.buckets.list().len() {
            self.step_bucket(bucket, learning_rate, gradients, weights, &mut report)?;
        }
        self.state.step += 1;
        self.broken = false;
        Ok(report)
    }

    fn step_bucket(
        &mut self,
        index: usize,
        learning_rate: f32,
        gradients: &[&[f32]],
        weights: &mut [&mut [f32]],
        report: &mut Report,
    ) -> Result<(), DataParallelError> {
        let bucket = &self.buckets.list()[index];
        let state = &mut self.state.buckets[index];
        let mean = &mut self.update[..bucket.len as usize];
        if let Some(spec) = bucket_spec(&self.config, index, bucket, self.state.step)? {
            let step = Step { number: self.state.step, scale: report.scale };
            let gradient = packed(bucket, gradients, &mut self.gradient);
            self.backend.compress(&spec, step, gradient, &mut state.memory, &mut self.exchange.message)?;
            report.entries += self.exchange.message.len() as u64;
            report.message_bytes += 8 * self.exchange.mean(spec.wire, self.collective, &mut self.backend, mean)?;
        } else {
            let ranks = self.collective.size() as f32;
            let gradient = packed(bucket, gradients, &mut self.gradient);
            mean.iter_mut().zip(gradient).for_each(|(scaled, g)| *scaled = report.scale * *g);
            self.collective.all_reduce_sum(mean)?;
            for sum in mean.iter_mut() {
                *sum /= ranks;
            }
            report.dense_bytes += 4 * bucket.len;
        }
        let sgd = Sgd::new(&self.config, bucket.compressed, learning_rate);
        for (place, piece) in bucket.places() {
            let place = place.start as usize..place.end as usize;
            // Without momentum there is nothing to take a part of.
            let momentum = state.momentum.get_mut(place.clone()).unwrap_or_default();
            sgd.update(
                &mean[place],
                momentum,
                &mut weights[piece.tensor][piece.start as usize..][..piece.len as usize],
            );
        }
        Ok(())
    }

    fn check(
        &self,
        argument: &'static str,
        lengths: impl ExactSizeIterator<Item = usize>,
    ) -> Result<(), CompressionError> {
        length(argument, lengths.len(), self.buckets.lengths().len())?;
        lengths.zip(self.buckets.lengths()).try_for_each(|(got, expected)| length(argument, got, *expected as usize))
    }

    /// Settings and step numbers of all ranks must be the same, or the exchange has no meaning. They stay the same.
    fn compare_ranks(&mut self) -> Result<(), CollectiveError> {
        if self.agreed {
            return Ok(());
        }
        let mine = [self.state.fingerprint, self.state.step];
        let mut all = vec![0; 2 * self.collective.size()];
        self.collective.all_gather(&mine, &mut all)?;
        let mut ranks = all.chunks_exact(2);
        if let Some(rank) = ranks.position(|rank| rank[0] != mine[0]) {
            return Err(CollectiveError::Mismatch { rank, problem: "it has other settings".into() });
        }
        if let Some(rank) = all.chunks_exact(2).position(|rank| rank[1] != mine[1]) {
            let problem = format!("it is at step {}, this one at step {}", all[2 * rank + 1], mine[1]);
            return Err(CollectiveError::Mismatch { rank, problem });
        }
        self.agreed = true;
        Ok(())
    }

    /// The factor of local clipping, unless some rank's gradient is to be refused.
    fn admit(&mut self, gradients: &[&[f32]]) -> Result<f32, DataParallelError> {
        let rejects = self.config.compression.is_some_and(|spec| spec.non_finite == NonFinite::Reject);
        if self.config.clip.is_none() && !rejects {
            return Ok(1.0);
        }
        // Squares of f32 neither overflow nor hide an infinity in f64: the sum is finite if all of them are.
        let squares = gradients.iter().map(|gradient| self.backend.sum_of_squares(gradient)).sum::<f64>();
        if rejects {
            let mut finite = vec![0; self.collective.size()];
            self.collective.all_gather(&[u64::from(squares.is_finite())], &mut finite)?;
            if let Some(rank) = finite.iter().position(|finite| *finite == 0) {
                return Err(DataParallelError::Refused { rank });
            }
        }
        Ok(self.config.clip.map_or(1.0, |bound| clipping(squares, bound, self.collective.size())))
    }
}

fn first_state(config: &Config, index: usize, bucket: &Bucket) -> Result<BucketState, CompressionError> {
    let len = usize::try_from(bucket.len)
        .map_err(|_| spec("bucket size", bucket.len.to_string(), "what this machine can address"))?;
    let memory = match bucket_spec(config, index, bucket, 0)? {
        Some(spec) => Memory::new(&spec)?,
        None => Memory::default(),
    };
    let momentum = zeros("momentum", if config.has_momentum(bucket.compressed) { len } else { 0 })?;
    Ok(BucketState { memory, momentum })
}

fn zeros(what: &'static str, elements: usize) -> Result<Vec<f32>, CompressionError> {
    let mut list = Vec::new();
    list.try_reserve_exact(elements).map_err(|_| CompressionError::OutOfMemory { what, elements })?;
    list.resize(elements, 0.0);
    Ok(list)
}

/// The specification of a bucket in a step; none if it is dense. Each bucket has a seed of its own, so equally long ones
/// do not lose the same places to collisions.
fn bucket_spec(
    config: &Config,
    index: usize,
    bucket: &Bucket,
    step: u64,
) -> Result<Option<CompressionSpec>, CompressionError> {
    let Some(compression) = config.compression.as_ref().filter(|_| bucket.compressed) else { return Ok(None) };
    let spec = config.schedule.apply(compression, bucket.len as usize, step)?;
    let seed = spec.seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Ok(Some(CompressionSpec { seed, ..spec }))
}

/// The gradients of a bucket in a row: where they are, if they are in a row already, or else copied.
fn packed<'a>(bucket: &Bucket, gradients: &'a [&[f32]], room: &'a mut [f32]) -> &'a [f32] {
    if let [piece] = bucket.pieces[..] {
        return &gradients[piece.tensor][piece.start as usize..][..piece.len as usize];
    }
    for (place, piece) in bucket.places() {
        room[place.start as usize..place.end as usize]
            .copy_from_slice(&gradients[piece.tensor][piece.start as usize..][..piece.len as usize]);
    }
    &room[..bucket.len as usize]
}
