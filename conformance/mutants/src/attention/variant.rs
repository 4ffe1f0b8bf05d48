//! Legitimate differences between correct kernels, and the contract each of them can honestly declare.

use tilewright_attention::Contract;
use tilewright_scalar::Format;

/// How `e^(x − y)` is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exponential {
    /// `exp(x − y)`.
    Natural,
    /// `2^((x − y) log2 e)`.
    Base2,
    /// `2^(x log2 e − y log2 e)`, the first product fused into the difference.
    Base2Folded,
    /// Cody–Waite reduction and a Taylor polynomial of degree 5: good to 64 unit roundoffs of `f32`.
    Polynomial,
}

/// In which order key tiles are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// First to last.
    Ascending,
    /// Last to first.
    Descending,
}

/// Whether keys are split into ranges whose partial results are merged by LSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// One range.
    Whole,
    /// As many ranges of equal length.
    Parts(usize),
    /// Ranges of as many keys, at absolute positions.
    Every(usize),
}

/// In which order the terms of a sum are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumOrder {
    /// One after the other.
    Sequential,
    /// By halves.
    Pairwise,
    /// Within blocks of this length, then the blocks.
    Blocked(usize),
    /// In a fixed random order, as atomics might.
    Shuffled,
}

/// How one term is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addition {
    /// Product rounded, sum rounded.
    Nearest,
    /// One rounding for both.
    Fused,
    /// One rounding for both, toward zero, as some matrix units do.
    TowardZero,
}

/// What sums are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accumulator {
    /// `Element::Accum`.
    Natural,
    /// `f64`, whatever the storage.
    F64,
}

/// What an intermediate result is rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Stays in the accumulator.
    Accumulator,
    /// Rounded to the storage format.
    Storage,
    /// Rounded to this format.
    To(Format),
}

/// When the running result is brought to a new maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescaling {
    /// Whenever the maximum grows.
    Eager,
    /// Only when it grew by more than a factor of 2^8.
    Lazy,
    /// Never: a first pass finds the maximum.
    TwoPass,
    /// Whenever the maximum grows, and `O` is normalised after every tile (the first FlashAttention).
    Normalised,
}

/// Where the backward pass takes `D` from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowDot {
    /// `D = Σ dO∘O` with `O` as stored.
    Output,
    /// `D = Σ P∘dP`.
    Probabilities,
}

/// Where the backward pass takes LSE from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LseSource {
    /// From the forward pass.
    Saved,
    /// Computed again.
    Recomputed,
}

/// Which tile the backward pass holds on to in its outer loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stationary {
    /// A query tile.
    Queries,
    /// A key tile.
    Keys,
}

/// The arithmetic of a correct kernel.
///
/// ```
/// use tilewright_attention::Format;
/// use tilewright_mutants::attention::{Rounding, Variant};
/// let variant = Variant { probabilities: Rounding::Storage, ..Variant::BASE };
/// assert!(variant.supports(Format::BF16) && !variant.supports(Format::F64));
/// assert_eq!(variant.contract(Format::BF16).probabilities, Format::BF16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    /// Query rows a tile.
    pub query_tile: usize,
    /// Keys a tile.
    pub key_tile: usize,
    /// How exponentials are evaluated.
    pub exponential: Exponential,
    /// In which order key tiles are visited.
    pub key_order: KeyOrder,
    /// Whether keys are split and merged.
    pub split: Split,
    /// In which order terms are added.
    pub sum_order: SumOrder,
    /// How one term is added.
    pub addition: Addition,
    /// What sums are kept in.
    pub accumulator: Accumulator,
    /// What scores are rounded to.
    pub scores: Rounding,
    /// What `P` is rounded to before it meets `V` and `dO`.
    pub probabilities: Rounding,
    /// Whether the denominator sums rounded `P`.
    pub sums_rounded_probabilities: bool,
    /// What `dS` is rounded to before it meets `K` and `Q`.
    pub score_gradients: Rounding,
    /// What the running `O` is rounded to after each key tile.
    pub output: Rounding,
    /// What the running `dQ`, `dK` and `dV` are rounded to after each tile.
    pub gradients: Rounding,
    /// When the running result is rescaled.
    pub rescaling: Rescaling,
    /// Whether the scale is applied to queries instead of scores.
    pub scales_queries: bool,
    /// Where `D` comes from.
    pub row_dot: RowDot,
    /// Where the backward pass takes LSE from.
    pub lse_source: LseSource,
    /// The outer loop of the backward pass.
    pub stationary: Stationary,
    /// Whether masked keys of a tile take part in `P·V` with weight 0, as they do in a GEMM.
    pub multiplies_masked: bool,
}

impl Rounding {
    /// The format, for a kernel on `storage` that accumulates in `accum`.
    pub fn format(self, storage: Format, accum: Format) -> Format {
        match self {
            Self::Accumulator => accum,
            Self::Storage => storage,
            Self::To(format) => format,
        }
    }

    /// A rounding is a variant of its own only where it discards something.
    fn means_something(self, storage: Format) -> bool {
        self == Self::Accumulator || storage.precision <= Format::F16.precision
    }
}

impl Variant {
    /// Tiles of 16 by 16, natural exponentials, everything in the accumulator: what the faulty kernels are built on.
    /// The tiles are small so that short cases cross them.
    pub const BASE: Self = Self {
        query_tile: 16,
        key_tile: 16,
        exponential: Exponential::Natural,
        key_order: KeyOrder::Ascending,
        split: Split::Whole,
        sum_order: SumOrder::Sequential,
        addition: Addition::Nearest,
        accumulator: Accumulator::Natural,
        scores: Rounding::Accumulator,
        probabilities: Rounding::Accumulator,
        sums_rounded_probabilities: false,
        score_gradients: Rounding::Accumulator,
        output: Rounding::Accumulator,
        gradients: Rounding::Accumulator,
        rescaling: Rescaling::Eager,
        scales_queries: false,
        row_dot: RowDot::Output,
        lse_source: LseSource::Saved,
        stationary: Stationary::Queries,
        multiplies_masked: false,
    };

    /// Whether the variant makes sense on this storage format: it must differ from what another variant already does.
    pub fn supports(&self, storage: Format) -> bool {
        let roundings = [self.scores, self.probabilities, self.score_gradients, self.output, self.gradients];
        let single = storage.precision <= Format::F32.precision;
        roundings.iter().all(|rounding| rounding.means_something(storage))
            && (single || self.accumulator == Accumulator::Natural)
            && (single || self.addition != Addition::TowardZero)
            && (single || self.exponential != Exponential::Polynomial)
    }

    /// The contract a kernel of this arithmetic keeps on `storage`.
    pub fn contract(&self, storage: Format) -> Contract {
        let strict = Contract::strict(storage);
        let accum = self.accum(storage);
        Contract {
            accum,
            truncates: self.addition == Addition::TowardZero,
            scores: self.scores.format(storage, accum),
            probabilities: self.probabilities.format(storage, accum),
            sums_rounded_probabilities: self.sums_rounded_probabilities,
            score_gradients: self.score_gradients.format(storage, accum),
            output_accum: self.output.format(storage, accum),
            gradient_accum: self.gradients.format(storage, accum),
            tile: self.query_tile.min(self.key_tile),
            exp_error: match self.exponential {
                Exponential::Natural => strict.exp_error,
                // The argument's product with log2 e rounds too: near the maximum, where it counts, a few roundoffs.
                Exponential::Base2 | Exponential::Base2Folded => 8.0,
                Exponential::Polynomial => 64.0,
            },
            // LSE is stored in `Element::Accum`, whatever it was computed in.
            lse: strict.accum,
            ..strict
        }
    }

    /// The format sums are kept in.
    pub(crate) fn accum(&self, storage: Format) -> Format {
        match self.accumulator {
            Accumulator::Natural => Contract::strict(storage).accum,
            Accumulator::F64 => Format::F64,
        }
    }
}
