//! The settings of an optimiser, and the fingerprint by which ranks and saved states recognise each other.

use super::replicas::Fingerprint;
use crate::bucket::Buckets;
use crate::schedule::Schedule;
use crate::spec::spec;
use crate::{CompressionError, CompressionSpec, Feedback};
use alloc::format;
use alloc::string::ToString;
use core::fmt::Write;

/// Momentum of the optimiser.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Momentum {
    /// `m`, at least 0 and less than 1.
    pub factor: f32,
    /// Nesterov's variant.
    pub nesterov: bool,
}

/// What a [`DataParallel`](super::DataParallel) does. The same on all ranks.
///
/// ```
/// use tilewright_compression::data_parallel::{Config, Momentum};
/// use tilewright_compression::{CompressionSpec, Count, schedule::Schedule};
/// let dgc = CompressionSpec::dgc(0, Count::Density(0.001), 0.9);
/// let config = Config { schedule: Schedule::paper(100), clip: Some(5.0), ..Config::compressed(dgc) };
/// assert_eq!(config.momentum, Momentum { factor: 0.9, nesterov: false });
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How compressed buckets travel, whatever its `len`; without it, all buckets are dense. A number of entries is that
    /// of each bucket.
    pub compression: Option<CompressionSpec>,
    /// Warm-up of the density.
    pub schedule: Schedule,
    /// Momentum. With [`Feedback::Momentum`] it is the same as there: compressed buckets have it before they are sent,
    /// dense ones after they are reduced.
    pub momentum: Momentum,
    /// λ of weight decay, finite and not negative. It enters after the mean, through momentum: the weights are the same
    /// on all ranks, so it need not travel.
    pub weight_decay: f32,
    /// Bound on the norm of the gradient of all tensors, more than 0; a rank's own gradient is clipped to this over √N
    /// before anything else happens to it (Lin et al. 2018, §3.2).
    pub clip: Option<f64>,
}

impl Config {
    /// Dense all-reduce.
    pub fn dense(momentum: f32) -> Self {
        Self {
            compression: None,
            schedule: Schedule::default(),
            momentum: Momentum { factor: momentum, nesterov: false },
            weight_decay: 0.0,
            clip: None,
        }
    }

    /// Compression, with the momentum its memory has, or none.
    pub fn compressed(compression: CompressionSpec) -> Self {
        let momentum = match compression.feedback {
            Feedback::Momentum { factor, nesterov, .. } => Momentum { factor, nesterov },
            _ => Momentum::default(),
        };
        Self { compression: Some(compression), momentum, ..Self::dense(0.0) }
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// [`CompressionError::Spec`].
    pub fn validate(&self) -> Result<(), CompressionError> {
        self.schedule.validate()?;
        if !(0.0..1.0).contains(&self.momentum.factor) {
            return Err(spec("momentum", self.momentum.factor.to_string(), "at least 0 and less than 1"));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(spec("weight decay", self.weight_decay.to_string(), "a finite number, at least 0"));
        }
        if let Some(clip) = self.clip
            && !(clip.is_finite() && clip > 0.0)
        {
            return Err(spec("clipping bound", clip.to_string(), "a finite number, more than 0"));
        }
        let Some(compression) = &self.compression else { return Ok(()) };
        if let Feedback::Momentum { factor, nesterov, .. } = compression.feedback
            && self.momentum != (Momentum { factor, nesterov })
        {
            let Momentum { factor, nesterov } = self.momentum;
            return Err(spec("momentum", format!("{factor}, nesterov {nesterov}"), "the momentum of the feedback"));
        }
        // The steady state too: a warm-up must not hide until it ends that nothing valid comes after it.
        compression.validate()?;
        self.schedule.apply(compression, compression.len, 0)?.validate()
    }

    /// Whether momentum is applied to a bucket's gradients before they are sent.
    pub(super) fn corrects(&self, compressed: bool) -> bool {
        compressed && self.compression.is_some_and(|spec| matches!(spec.feedback, Feedback::Momentum { .. }))
    }

    /// Whether a bucket needs momentum that is applied after the reduction.
    pub(super) fn has_momentum(&self, compressed: bool) -> bool {
        self.momentum.factor > 0.0 && (!self.corrects(compressed) || self.weight_decay > 0.0)
    }

    /// Equal for equal settings and buckets: a hash of everything they consist of, as it prints.
    pub(super) fn fingerprint(&self, buckets: &Buckets) -> u64 {
        let mut fingerprint = Fingerprint::default();
        // Formatting of plain data into a hash cannot fail.
        let _ = write!(fingerprint, "{self:?} {buckets:?}");
        fingerprint.finish()
    }
}
