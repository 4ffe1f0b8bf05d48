//! The problem as plain data. Every convention of this family is an enum variant or a sentence here.
//!
//! * A *bucket* is `len` gradients in a row: one tensor, or several packed together. Numbers are `f32`.
//! * Magnitudes are compared as integers, `bits & 0x7fff_ffff`: monotone in `|x|`, infinity above every finite number,
//!   all NaNs equal and above infinity. Of equal magnitudes the least index comes first. The sign never decides.
//! * A zero is never sent, whatever its sign and the threshold: it would tell the receiver nothing. (What is not zero may
//!   become so on a narrow wire; then all of it stays in the residual.)
//! * What is sent leaves the residual, and only that: an entry that loses its slot, or is cut, waits for a later step.
//! * A message of [`Placement::Compact`] is in ascending order of index, one of [`Placement::HashTable`] in that of its
//!   slots. No index occurs twice in a message; the same index in the messages of several ranks is *added*.
//! * Products and sums are rounded one by one, never fused, in the order the equations are written.

use crate::CompressionError;
use alloc::format;
use alloc::string::{String, ToString};
use tilewright_scalar::{Element, bf16, f16};

/// The longest bucket: an index must fit in 32 bits with one value to spare.
pub const LONGEST: usize = u32::MAX as usize;

/// How many entries a message is meant to hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// A share of the bucket, more than 0 and at most 1; the nearest whole number of entries, at least one.
    Density(f64),
    /// So many, but no more than there are.
    Entries(usize),
}

impl Count {
    /// `k` for a bucket of `len`.
    ///
    /// ```
    /// use tilewright_compression::Count;
    /// assert_eq!(Count::Density(0.001).of(301_066), 301);
    /// assert_eq!(Count::Density(0.001).of(10), 1);
    /// assert_eq!(Count::Entries(20).of(10), 10);
    /// ```
    pub fn of(self, len: usize) -> usize {
        match self {
            Self::Density(density) => (libm::round(density * len as f64) as usize).max(1).min(len),
            Self::Entries(entries) => entries.min(len),
        }
    }
}

/// DGC's hierarchical threshold (Lin et al. 2018, §3.1, and its official code): a strided sample's `k`-th magnitude,
/// refined until the number of entries that pass is near enough to `k`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Share of the bucket that is sampled, more than 0 and at most 1.
    pub ratio: f64,
    /// How the threshold is corrected; `None` takes it as it comes, as DRAGONN does.
    pub refine: Option<Refinement>,
}

impl Sampling {
    /// DGC's: 1 %, refined between 0.8 k and 1.3 k, ten times at most.
    pub const DGC: Self = Self { ratio: 0.01, refine: Some(Refinement { lower: 0.8, upper: 1.3, iterations: 10 }) };
    /// DRAGONN's: 1 %, not refined.
    pub const DRAGONN: Self = Self { ratio: 0.01, refine: None };
}

/// When a sampled threshold is good enough, and what happens if it is not. Counts are compared in `f64`: what passes with
/// `lower` and `upper`, which are `f32`, times `k`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refinement {
    /// While fewer than `lower · k` pass, the threshold is multiplied by `lower`. More than 0 and less than 1.
    pub lower: f32,
    /// If more than `upper · k` pass, the `k` greatest of them are taken, exactly. At least 1.
    pub upper: f32,
    /// Multiplications at most.
    pub iterations: u32,
}

/// Which entries are candidates for the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selector {
    /// The `k` greatest magnitudes.
    ExactTopK(Count),
    /// All at or above a sampled threshold that aims at `k`.
    SampledThreshold(Count, Sampling),
    /// All at or above this magnitude, which is finite and not negative.
    FixedThreshold(f32),
    /// `k` indices that depend on seed and step alone: the first `k` of a keyed permutation, so all ranks send the same.
    RandomK(Count),
}

impl Selector {
    /// The number of entries aimed at, for a bucket of `len`; none if that is left to the data.
    pub fn aim(&self, len: usize) -> Option<usize> {
        match self {
            Self::ExactTopK(count) | Self::SampledThreshold(count, _) | Self::RandomK(count) => Some(count.of(len)),
            Self::FixedThreshold(_) => None,
        }
    }
}

/// How large a hash table is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slots {
    /// So many for each entry aimed at (DRAGONN: 4); the nearest whole number, at least one.
    PerEntry(f64),
    /// So many, at least one.
    Exactly(u32),
}

/// Who stays when two candidates hash to one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The greatest magnitude, of equal ones the least index: one answer whatever the order of execution.
    #[default]
    LargestMagnitude,
    /// Anyone: DRAGONN's own rule, where the last of racing writers stays. Many answers are right.
    Any,
}

/// Where candidates go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placement {
    /// All of them, in order of index.
    Compact,
    /// Each into the slot its index hashes to under the step's seed (DRAGONN, Wang et al. 2022, §3).
    HashTable {
        /// The number of slots.
        slots: Slots,
        /// Who stays in a collision.
        policy: Policy,
    },
}

/// What happens to what was not sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Feedback {
    /// It is forgotten: `v ← g`.
    None,
    /// Error feedback: `v ← v + g`.
    Residual,
    /// DGC's momentum correction (Lin et al. 2018, equations 4 and 5): `u ← m·u + g`, `v ← v + u`; or with Nesterov
    /// momentum `u ← m·(u + g)`, `v ← (v + u) + g`.
    Momentum {
        /// `m`, at least 0 and less than 1.
        factor: f32,
        /// Nesterov's variant.
        nesterov: bool,
        /// Momentum factor masking (§3.2): `u` is cleared with `v` where an entry was sent.
        masking: bool,
    },
}

/// What values travel as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueFormat {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bfloat16.
    Bf16,
    /// Rounded to half precision. A finite value too large for it travels as ±65504.
    F16,
}

impl ValueFormat {
    /// Bytes a value takes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The value as the receiver sees it: nearest, ties to even; finite stays finite, and NaN is always the same NaN.
    ///
    /// ```
    /// use tilewright_compression::ValueFormat;
    /// assert_eq!(ValueFormat::F16.round(1e6), 65504.0);
    /// assert_eq!(ValueFormat::Bf16.round(-f32::MAX), -3.3895314e38);
    /// ```
    #[inline]
    pub fn round(self, value: f32) -> f32 {
        if value.is_nan() {
            return f32::NAN;
        }
        let rounded = match self {
            Self::F32 => return value,
            Self::Bf16 => bf16::from_accum(value).to_accum(),
            Self::F16 => f16::from_accum(value).to_accum(),
        };
        if rounded.is_finite() || value.is_infinite() {
            return rounded;
        }
        let largest = match self {
            Self::F16 => f16::MAX.to_accum(),
            _ => bf16::MAX.to_accum(),
        };
        if value < 0.0 { -largest } else { largest }
    }
}

/// How the indices of a message are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IndexCoding {
    /// 32 bits each, in the message's order.
    #[default]
    Plain,
    /// Golomb–Rice codes of the gaps between sorted indices; the message arrives sorted.
    Rice,
}

/// How a message travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    /// Its values.
    pub value: ValueFormat,
    /// Its indices.
    pub index: IndexCoding,
}

/// What to do with NaN and infinities in a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NonFinite {
    /// They are greater than everything else, so a selector by magnitude sends them first, and all ranks see them in this
    /// step, unless more than `k` of them compete or one loses its slot to another. Their place in the velocity is
    /// cleared, and with masking that in the momentum; without masking the momentum stays what it is.
    #[default]
    Propagate,
    /// The step is refused before anything has changed. The gradient is looked at, not what accumulates: finite numbers
    /// that overflow in a sum or a product are still passed on.
    Reject,
}

/// A gradient compression problem.
///
/// ```
/// use tilewright_compression::{CompressionSpec, Count, Feedback};
/// let spec = CompressionSpec { seed: 7, ..CompressionSpec::dgc(1 << 20, Count::Density(0.001), 0.9) };
/// assert!(spec.validate().is_ok());
/// assert_eq!(spec.selector.aim(spec.len), Some(1049));
/// assert!(matches!(spec.feedback, Feedback::Momentum { masking: true, .. }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompressionSpec {
    /// Gradients in the bucket, at most [`LONGEST`].
    pub len: usize,
    /// Which entries are candidates.
    pub selector: Selector,
    /// Where candidates go.
    pub placement: Placement,
    /// What happens to the rest.
    pub feedback: Feedback,
    /// How messages travel.
    pub wire: Wire,
    /// What to do with NaN and infinities.
    pub non_finite: NonFinite,
    /// Seed of hash and sample; each step derives its own from it.
    pub seed: u64,
}

impl CompressionSpec {
    /// Exact top-k with error feedback.
    pub fn top_k(len: usize, count: Count) -> Self {
        Self {
            len,
            selector: Selector::ExactTopK(count),
            placement: Placement::Compact,
            feedback: Feedback::Residual,
            wire: Wire::default(),
            non_finite: NonFinite::default(),
            seed: 0,
        }
    }

    /// Random-k with error feedback.
    pub fn random_k(len: usize, count: Count) -> Self {
        Self { selector: Selector::RandomK(count), ..Self::top_k(len, count) }
    }

    /// Deep gradient compression: sampled threshold, momentum correction, masking.
    pub fn dgc(len: usize, count: Count, momentum: f32) -> Self {
        Self {
            selector: Selector::SampledThreshold(count, Sampling::DGC),
            feedback: Feedback::Momentum { factor: momentum, nesterov: false, masking: true },
            ..Self::top_k(len, count)
        }
    }

    /// DRAGONN: DGC's memory, DRAGONN's threshold, four slots an entry, and the deterministic rule for collisions.
    pub fn dragonn(len: usize, count: Count, momentum: f32) -> Self {
        Self {
            selector: Selector::SampledThreshold(count, Sampling::DRAGONN),
            placement: Placement::HashTable { slots: Slots::PerEntry(4.0), policy: Policy::LargestMagnitude },
            ..Self::dgc(len, count, momentum)
        }
    }

    /// The slots of the hash table; none without one.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if the table is too large, or sized by entries that nobody can foresee.
    pub fn slots(&self) -> Result<Option<u32>, CompressionError> {
        let Placement::HashTable { slots, .. } = self.placement else { return Ok(None) };
        match slots {
            Slots::Exactly(0) => Err(spec("slots", "0".into(), "at least 1")),
            Slots::Exactly(slots) => Ok(Some(slots)),
            Slots::PerEntry(per_entry) => {
                if !(per_entry.is_finite() && per_entry > 0.0) {
                    return Err(spec("slots per entry", per_entry.to_string(), "a positive number"));
                }
                let Some(aim) = self.selector.aim(self.len) else {
                    return Err(spec(
                        "slots",
                        format!("{per_entry} per entry"),
                        "a number of slots: the fixed threshold foresees no number of entries",
                    ));
                };
                let slots = libm::round(per_entry * aim as f64).max(1.0);
                if slots > f64::from(u32::MAX) {
                    return Err(spec("slots", slots.to_string(), "at most 4294967295"));
                }
                Ok(Some(slots as u32))
            }
        }
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// [`CompressionError::Spec`], naming the first field that is not.
    pub fn validate(&self) -> Result<(), CompressionError> {
        if self.len > LONGEST {
            return Err(spec("len", self.len.to_string(), "at most 4294967295: split the tensor into several buckets"));
        }
        self.selector.validate()?;
        if let Feedback::Momentum { factor, .. } = self.feedback
            && !(0.0..1.0).contains(&factor)
        {
            return Err(spec("momentum", factor.to_string(), "at least 0 and less than 1"));
        }
        self.slots().map(|_| ())
    }
}

impl Selector {
    fn validate(&self) -> Result<(), CompressionError> {
        if let Self::ExactTopK(count) | Self::SampledThreshold(count, _) | Self::RandomK(count) = self
            && let Count::Density(density) = count
            && !(*density > 0.0 && *density <= 1.0)
        {
            return Err(spec("density", density.to_string(), "more than 0 and at most 1"));
        }
        match self {
            Self::FixedThreshold(threshold) if !(threshold.is_finite() && *threshold >= 0.0) => {
                Err(spec("threshold", threshold.to_string(), "a finite number, at least 0"))
            }
            Self::SampledThreshold(_, sampling) => sampling.validate(),
            _ => Ok(()),
        }
    }
}

impl Sampling {
    fn validate(&self) -> Result<(), CompressionError> {
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            return Err(spec("sample ratio", self.ratio.to_string(), "more than 0 and at most 1"));
        }
        let Some(refine) = self.refine else { return Ok(()) };
        if !(refine.lower > 0.0 && refine.lower < 1.0) {
            return Err(spec("lower bound", refine.lower.to_string(), "more than 0 and less than 1"));
        }
        if !(refine.upper.is_finite() && refine.upper >= 1.0) {
            return Err(spec("upper bound", refine.upper.to_string(), "a finite number, at least 1"));
        }
        Ok(())
    }
}

pub(crate) fn spec(field: &'static str, got: String, expected: &'static str) -> CompressionError {
    CompressionError::Spec { field, got, expected }
}
