//! The thing on trial.

use crate::{SubjectError, Tensors};
use std::collections::BTreeSet;
use tilewright_attention::{AttentionSpec, Contract};
use tilewright_scalar::Format;

/// What an attention problem may ask of an implementation, for capability declarations and for the report's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Several query heads share a key/value head.
    Gqa,
    /// Values and outputs of another length than queries and keys.
    ValueDim,
    /// Causal, diagonal into the top left corner.
    CausalTopLeft,
    /// Causal, diagonal into the bottom right corner.
    CausalBottomRight,
    /// Sliding window.
    Window,
    /// Softcap.
    Softcap,
    /// ALiBi.
    Alibi,
    /// Additive bias (and its gradient, for a backward pass).
    Bias,
    /// Attention sinks (and their gradient, for a backward pass).
    Sink,
    /// Dropout.
    Dropout,
    /// A key length for each sequence.
    Lengths,
    /// Packed sequences of various lengths.
    Packed,
    /// Keys and values by page table.
    Paged,
    /// Block-sparse mask.
    BlockMask,
    /// Rows that see no key.
    EmptyRows,
    /// A gradient flows into LSE.
    LseGradient,
    /// Few queries against many keys.
    Decode,
    /// Tensors that are not contiguous.
    Strided,
}

impl Feature {
    /// All of them, in the report's order.
    pub const ALL: [Self; 18] = [
        Self::Gqa,
        Self::ValueDim,
        Self::CausalTopLeft,
        Self::CausalBottomRight,
        Self::Window,
        Self::Softcap,
        Self::Alibi,
        Self::Bias,
        Self::Sink,
        Self::Dropout,
        Self::Lengths,
        Self::Packed,
        Self::Paged,
        Self::BlockMask,
        Self::EmptyRows,
        Self::LseGradient,
        Self::Decode,
        Self::Strided,
    ];

    /// The name in profiles and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gqa => "gqa",
            Self::ValueDim => "value-dim",
            Self::CausalTopLeft => "causal-top-left",
            Self::CausalBottomRight => "causal-bottom-right",
            Self::Window => "window",
            Self::Softcap => "softcap",
            Self::Alibi => "alibi",
            Self::Bias => "bias",
            Self::Sink => "sink",
            Self::Dropout => "dropout",
            Self::Lengths => "lengths",
            Self::Packed => "packed",
            Self::Paged => "paged",
            Self::BlockMask => "block-mask",
            Self::EmptyRows => "empty-rows",
            Self::LseGradient => "lse-gradient",
            Self::Decode => "decode",
            Self::Strided => "strided",
        }
    }

    /// The feature of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// Who is on trial, what it can do, and what it promises about its arithmetic.
///
/// ```
/// use tilewright_conformance::attention::Profile;
/// use tilewright_scalar::Format;
/// let profile = Profile::new("my kernel", "0.1", &[Format::F32]);
/// assert_eq!(profile.contract(Format::F32), tilewright_attention::Contract::strict(Format::F32));
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Storage formats it takes.
    pub formats: Vec<Format>,
    /// Features it declares; whatever else a case asks for is counted as unsupported and not run.
    pub supports: BTreeSet<Feature>,
    /// Whether it computes gradients.
    pub backward: bool,
    /// Whether the same inputs always give the same bits.
    pub deterministic: bool,
    /// Declared contracts; a format without one is held to [`Contract::strict`].
    pub contracts: Vec<Contract>,
}

impl Profile {
    /// A profile that claims everything and is held to the strict contract.
    pub fn new(name: &str, version: &str, formats: &[Format]) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            formats: formats.to_vec(),
            supports: Feature::ALL.into_iter().collect(),
            backward: true,
            deterministic: true,
            contracts: Vec::new(),
        }
    }

    /// The contract for a storage format.
    pub fn contract(&self, storage: Format) -> Contract {
        self.contracts.iter().copied().find(|c| c.storage == storage).unwrap_or_else(|| Contract::strict(storage))
    }
}

/// How the in-process views of a case's tensors are laid out in memory. Values are the same in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// C order.
    #[default]
    Contiguous,
    /// `[batch, length, heads, dim]` in memory, as many frameworks store it.
    HeadsInner,
    /// Every axis strided by two, the gaps filled with NaN.
    Gapped,
}

/// One problem for the subject.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The case id, for messages.
    pub id: &'a str,
    /// The problem.
    pub spec: &'a AttentionSpec,
    /// `q`, `k`, `v`, and where the case has them `bias`, `sink`, `d_o`, `d_lse`.
    pub inputs: &'a Tensors,
    /// Memory layout, where the subject can honour it.
    pub layout: Layout,
    /// Outputs asked for, among `o`, `lse`, `d_q`, `d_k`, `d_v`, `d_bias`, `d_sink`.
    pub want: &'a [&'static str],
}

/// The thing on trial. Implement this and give it to [`hold_trial`](crate::attention::report::hold_trial), or implement
/// the typed traits of `tilewright-attention` and wrap it in [`InProcess`](crate::attention::in_process::InProcess).
pub trait Subject {
    /// Who it is and what it claims.
    fn profile(&self) -> &Profile;

    /// Solves one problem. The answer holds the wanted outputs by name; one that is left out is counted as missing.
    ///
    /// # Errors
    /// [`SubjectError`] if there is no answer.
    fn run(&mut self, request: &Request<'_>) -> Result<Tensors, SubjectError>;
}
