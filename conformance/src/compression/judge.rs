//! Is this answer right? There is no tolerance: a step is verified place by place, by
//! [`invariants`], and laws compare bits.

use crate::SubjectError;
use crate::compression::subject::Reply;
use std::fmt;
use tilewright_compression::invariants::{self, Checked, Property};
use tilewright_compression::{CompressionSpec, Memory, NonFinite, Reduction, Step};

/// What kind of wrong an answer is, gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No answer for a valid problem.
    Failed,
    /// The process ended or the code panicked.
    Crashed,
    /// No answer in time.
    TimedOut,
    /// Wrote outside its outputs, changed its inputs, broke the protocol.
    Misbehaved,
    /// A list of another length than its role asks for.
    Length,
    /// A message with indices out of range, twice or out of order.
    Form,
    /// Sent what is no candidate, or did not send what is one.
    Selection,
    /// A slot without its candidate, or with the wrong one.
    Slots,
    /// Another value than was accumulated, as the wire rounds it.
    Value,
    /// A residual with sent mass in it, or without unsent.
    Residual,
    /// Another momentum than the equations give.
    Momentum,
    /// A sum over ranks that is none, or in another order.
    Decode,
    /// NaN or infinities accepted that were to be refused, finite gradients refused, foreign indices decoded.
    Refusal,
    /// A message that cannot be encoded, or is another one after it.
    Codec,
    /// Other bits for the same inputs.
    Nondeterministic,
    /// Law: the greatest `k` of `n` carry at least `k/n` of the energy.
    Contraction,
    /// Law: a higher threshold is the same as forgetting smaller winners.
    ThresholdCommutes,
    /// Law: neither threads nor zeros at the end change a message.
    OrderFreedom,
    /// Law: the table of a union is the merger of tables, and disjoint messages decode side by side.
    Semilattice,
    /// Law: what was decoded compresses to the same message.
    Idempotence,
    /// Law: powers of two and signs pass through.
    ScaleAndSign,
    /// Law: seeds and steps change who loses, and no index is special.
    Seeds,
    /// Law: as many slots are taken as chance allows.
    CollisionStatistics,
    /// Law: an entry survives as often as its rank says.
    RankSurvival,
    /// Law: whole numbers sent and kept back add up to those that came in.
    Telescoping,
    /// Law: at density 1 without masking, momentum SGD.
    MomentumSgd,
    /// Law: at density 1 with masking, plain SGD.
    PlainSgd,
    /// Law: order inside a message means nothing.
    MessageOrder,
    /// Law: all ranks decode the same bits.
    Replicas,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 29] = [
        Self::Failed,
        Self::Crashed,
        Self::TimedOut,
        Self::Misbehaved,
        Self::Length,
        Self::Form,
        Self::Selection,
        Self::Slots,
        Self::Value,
        Self::Residual,
        Self::Momentum,
        Self::Decode,
        Self::Refusal,
        Self::Codec,
        Self::Nondeterministic,
        Self::Contraction,
        Self::ThresholdCommutes,
        Self::OrderFreedom,
        Self::Semilattice,
        Self::Idempotence,
        Self::ScaleAndSign,
        Self::Seeds,
        Self::CollisionStatistics,
        Self::RankSurvival,
        Self::Telescoping,
        Self::MomentumSgd,
        Self::PlainSgd,
        Self::MessageOrder,
        Self::Replicas,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed-out",
            Self::Misbehaved => "misbehaved",
            Self::Length => "length",
            Self::Form => "form",
            Self::Selection => "selection",
            Self::Slots => "slots",
            Self::Value => "value",
            Self::Residual => "residual",
            Self::Momentum => "momentum",
            Self::Decode => "decode",
            Self::Refusal => "refusal",
            Self::Codec => "codec",
            Self::Nondeterministic => "nondeterministic",
            Self::Contraction => "contraction",
            Self::ThresholdCommutes => "threshold-commutes",
            Self::OrderFreedom => "order-freedom",
            Self::Semilattice => "semilattice",
            Self::Idempotence => "idempotence",
            Self::ScaleAndSign => "scale-and-sign",
            Self::Seeds => "seeds",
            Self::CollisionStatistics => "collision-statistics",
            Self::RankSurvival => "rank-survival",
            Self::Telescoping => "telescoping",
            Self::MomentumSgd => "momentum-sgd",
            Self::PlainSgd => "plain-sgd",
            Self::MessageOrder => "message-order",
            Self::Replicas => "replicas",
        }
    }

    fn of(property: Property) -> Self {
        match property {
            Property::Length => Self::Length,
            Property::Form => Self::Form,
            Property::Slots => Self::Slots,
            Property::Value => Self::Value,
            Property::Residual => Self::Residual,
            Property::Momentum => Self::Momentum,
            Property::Decode => Self::Decode,
            _ => Self::Selection,
        }
    }
}

/// One thing wrong with one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind.
    pub kind: Kind,
    /// In which step of which rank, or under which law.
    pub place: String,
    /// In words.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.kind.name(), self.place, self.detail)
    }
}

impl Violation {
    /// A violation.
    pub fn new(kind: Kind, place: &str, detail: impl Into<String>) -> Self {
        Self { kind, place: place.into(), detail: detail.into() }
    }

    /// What an invariant found, under its own kind.
    pub(crate) fn of(found: &invariants::Violation, place: &str) -> Self {
        Self::new(Kind::of(found.property), place, found.to_string())
    }

    /// What became of a call that gave no answer.
    pub(crate) fn of_error(error: &SubjectError, place: &str) -> Self {
        let kind = match error {
            SubjectError::Crashed(_) => Kind::Crashed,
            SubjectError::TimedOut(_) => Kind::TimedOut,
            SubjectError::Misbehaved(_) => Kind::Misbehaved,
            _ => Kind::Failed,
        };
        Self::new(kind, place, error.to_string())
    }
}

/// Judges one step; for a gradient that was rightly refused there is nothing more to know.
///
/// # Errors
/// The first [`Violation`] found.
pub fn judge_step(
    spec: &CompressionSpec,
    step: Step,
    gradient: &[f32],
    before: &Memory,
    reply: &Reply,
    place: &str,
) -> Result<Option<Checked>, Violation> {
    let refuse = spec.non_finite == NonFinite::Reject && gradient.iter().any(|g| !g.is_finite());
    match reply {
        Reply::Refused { index } if gradient.get(*index).is_none_or(|g| g.is_finite()) => {
            Err(Violation::new(Kind::Refusal, place, format!("gradient[{index}] was refused and is finite")))
        }
        Reply::Refused { index } if !refuse => {
            Err(Violation::new(Kind::Refusal, place, format!("gradient[{index}] was refused and nobody asked for it")))
        }
        Reply::Refused { .. } => Ok(None),
        Reply::Sent { .. } if refuse => {
            Err(Violation::new(Kind::Refusal, place, "the gradient is not finite and was accepted"))
        }
        Reply::Sent { words, memory } => invariants::verify_step(spec, step, gradient, before, memory, words)
            .map(Some)
            .map_err(|found| Violation::of(&found, place)),
    }
}

/// Judges a decoded vector.
///
/// # Errors
/// [`Violation`].
pub fn judge_decode(
    messages: &[&[u64]],
    reduction: Reduction,
    len: usize,
    out: &[f32],
    place: &str,
) -> Result<(), Violation> {
    if out.len() != len {
        return Err(Violation::new(Kind::Length, place, format!("got {} elements, expected {len}", out.len())));
    }
    invariants::verify_decode(messages, reduction, out).map_err(|found| Violation::of(&found, place))
}
