//! Attention: planted bugs and correct-but-different kernels.
//!
//! One scalar attention kernel in the manner of FlashAttention-2 — tiles, online softmax, split keys merged by LSE,
//! a backward pass that recomputes `P` — supports everything an
//! [`AttentionSpec`](tilewright_attention::AttentionSpec) can say. A [`Fault`] plants one bug in it, at the line where
//! such a bug would live; a [`Variant`] changes its arithmetic without making it wrong. A suite that knows its trade
//! convicts every one of [`mutants`] and none of [`variants`].
//!
//! | module | holds |
//! |---|---|
//! | [`catalogue`] | [`Fault`] and the table of mutants: what is wrong, and which inputs show it |
//! | [`variant`], [`controls`] | [`Variant`], its honest [`Contract`], and the table of correct kernels |
//! | `arithmetic` | sums, products and exponentials as a variant evaluates them |
//! | `layout`, `mask`, `scores` | reading tensors, visibility, a tile of scores |
//! | `forward`, `merge` | online softmax; merging splits, the sink, normalisation |
//! | `backward`, `gradients` | `D`, `P`, `dS`; the sums that become gradients |
//!
//! ```
//! use ndarray::{Array3, Array4};
//! use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs};
//! use tilewright_mutants::attention::{Fault, Kernel, Variant};
//!
//! let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 4, 4, 2) };
//! let (q, k) = (Array4::<f32>::ones(spec.q_shape()), Array4::ones(spec.k_shape()));
//! let v = Array4::from_shape_fn(spec.v_shape(), |(.., j, _)| j as f32);
//! let run = |kernel: Kernel| {
//!     let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
//!     let outputs = Outputs { o: o.view_mut(), lse: lse.view_mut() };
//!     kernel.forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), outputs).map(|()| o[[0, 0, 2, 0]])
//! };
//! assert_eq!(run(Kernel::correct(Variant::BASE))?, 1.0); // the mean of 0, 1 and 2
//! assert_eq!(run(Kernel::faulty(Fault::StrictDiagonal))?, 0.5);
//! # Ok::<(), tilewright_attention::AttentionError>(())
//! ```

mod arithmetic;
mod backward;
pub mod catalogue;
pub mod controls;
mod forward;
mod gradients;
mod kernel;
mod layout;
mod mask;
mod merge;
mod scores;
pub mod variant;

pub use catalogue::{Fault, Group};
pub use controls::{CorrectVariant, variants};
pub use kernel::Kernel;
pub use variant::{
    Accumulator, Addition, Exponential, KeyOrder, LseSource, Rescaling, Rounding, RowDot, Split, Stationary, SumOrder,
    Variant,
};

use tilewright_attention::Contract;
use tilewright_scalar::Format;

/// A kernel with one bug.
///
/// ```
/// let mutant = tilewright_mutants::attention::mutants().iter().find(|mutant| mutant.id == 18).unwrap();
/// assert_eq!(mutant.name, "strict-diagonal");
/// assert_eq!(mutant.trigger, "causal");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Stable number.
    pub id: u16,
    /// Kebab-case name.
    pub name: &'static str,
    /// Where the bug lives.
    pub group: Group,
    /// The bug.
    pub fault: Fault,
    /// What is wrong.
    pub about: &'static str,
    /// Which inputs reveal it.
    pub trigger: &'static str,
}

/// Every planted bug, by number.
pub fn mutants() -> &'static [Mutant] {
    catalogue::MUTANTS
}

impl Mutant {
    /// The faulty kernel.
    pub fn kernel(&self) -> Kernel {
        Kernel::faulty(self.fault)
    }

    /// The arithmetic the bug is planted in.
    pub fn variant(&self) -> Variant {
        self.fault.variant()
    }

    /// Whether the bug can show on this storage format.
    pub fn supports(&self, storage: Format) -> bool {
        let narrow = storage.precision <= Format::F16.precision;
        match self.fault {
            Fault::OutputInStorage | Fault::DenominatorInStorage | Fault::ProbabilitiesTruncated => narrow,
            _ => true,
        }
    }

    /// What the kernel claims about its arithmetic: the contract it would keep without the bug.
    pub fn contract(&self, storage: Format) -> Contract {
        self.variant().contract(storage)
    }
}

impl Fault {
    /// The arithmetic the bug is planted in: [`Variant::BASE`], split where the bug is in the merge, with `P` rounded
    /// to storage where the bug is in that rounding.
    pub fn variant(self) -> Variant {
        match self {
            Self::MergeByMaximum
            | Self::MergeEmptySplitNan
            | Self::MergeEqualWeights
            | Self::MergeLseMaximum
            | Self::MergeLastSplitDropped
            | Self::MergeSinkPerSplit
            | Self::MergeWeightsNotShifted
            | Self::SplitBoundaryTwice
            | Self::SplitEndRoundedDown => Variant { split: Split::Parts(3), ..Variant::BASE },
            Self::ProbabilitiesTruncated => Variant { probabilities: Rounding::Storage, ..Variant::BASE },
            _ => Variant::BASE,
        }
    }
}
