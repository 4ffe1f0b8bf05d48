//! Attention on the CPU: the tiled method and the standard one it is compared with.
//!
//! | module | holds | paper |
//! |---|---|---|
//! | `forward` | a task's loop over packed key tiles; splits over keys and their merge | FlashAttention-2, Algorithm 1 |
//! | `decode` | the same for few queries, over keys where they lie | |
//! | `backward` | `D`, and chunks of keys that all queries pass | FlashAttention-2, Algorithm 2 |
//! | `meeting` | a query tile and a key tile: five products | Algorithm 2, lines 11 to 17 |
//! | `gather` | the sums of `dQ`, and where gradients go | |
//! | `bias` | the gradients of bias and sink | |
//! | `strip` | six query rows: which keys they compute, and what becomes of their scores | |
//! | `scores` | scale, softcap, bias, ALiBi, mask and dropout, by rows and by tiles | |
//! | `tile`, `panels`, `transpose` | rows of any layout and format as accumulators; packed factors of products | |
//! | `rows` | keys and values where they lie, page by page | |
//! | `split` | cutting outputs into disjoint pieces, one a task | |
//! | `kernels`, `few` | products and functions of rows; products for few rows, where keys and values lie | |
//! | `float`, `isa` | `2^x` and `tanh`; what kernels are compiled for | |
//! | [`ceiling`] | what the machine can do at best, for benches | |
//! | `standard` | `S` and `P` in full | FlashAttention, Algorithm 0 |

mod backward;
mod bias;
pub mod ceiling;
mod decode;
mod dropout;
mod factor;
mod few;
mod float;
mod forward;
mod gather;
mod isa;
mod kernels;
mod line;
mod meeting;
mod pairs;
mod panels;
mod rows;
mod scores;
mod spare;
mod split;
mod standard;
mod strip;
mod tile;
mod transpose;

pub use isa::{ISA_VARIABLE, Isa};
pub use standard::StandardAttention;

use factor::Factor;
use float::Stored;
use scores::Problem;
use tilewright_attention::tiling::Tiles;
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, Contract, Gradients, Inputs, Outputs, Saved,
};
use tilewright_scalar::{Element, Format, bf16, f16};

/// Whether the keys of one query tile are split among tasks whose results are merged by log-sum-exp. Splits lie at
/// absolute multiples of their length and are merged in ascending order, so the result is a function of the problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SplitKv {
    /// Sequences of few queries (decoding) are split; which, and where, follows from the sequence's own lengths alone.
    #[default]
    Auto,
    /// No sequence is split.
    Never,
    /// Every sequence is split at the multiples of this many keys, at least 1. While a task merges, it holds one output
    /// tile a split.
    Every(usize),
}

/// What the products of `bf16` tensors multiply. Sums, softmax and statistics are in `f32` either way, and so is everything
/// about the few query rows of decoding.
///
/// ```
/// use tilewright_attention::Format;
/// use tilewright_cpu::{Bf16Products, CpuAttention};
/// let paired = CpuAttention::default().with_bf16_products(Bf16Products::Paired);
/// assert_eq!(paired.contract(Format::BF16).probabilities, Format::BF16);
/// assert_eq!(paired.contract(Format::F32).probabilities, Format::F32);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bf16Products {
    /// Pairs where the machine has an instruction for them (AVX512_BF16), else accumulators. The only choice by which the
    /// machine has a say in the result.
    #[default]
    Auto,
    /// Accumulators: factors are widened, and `P` and `dS` are not rounded.
    Widened,
    /// Pairs of `bf16`, to which `P` and `dS` are rounded; subnormal numbers count as 0. Where no instruction multiplies
    /// pairs, the same is computed by others, several times more slowly than widened, to the same bits.
    Paired,
}

/// FlashAttention-2 on rayon: exact attention by tiles, with O(N) memory besides inputs and outputs.
///
/// All features of [`AttentionSpec`], for `f64`, `f32`, `f16` and `bf16` with arithmetic in
/// [`Element::Accum`], but for what [`Bf16Products`] says. Results are bitwise the same for any number of threads and any
/// strides of the views.
///
/// ```
/// use ndarray::{Array3, Array4};
/// use tilewright_attention::{AttentionForward, AttentionSpec, Inputs, Outputs};
/// use tilewright_cpu::CpuAttention;
///
/// let spec = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 100, 100, 16) };
/// let (q, k, v) = (Array4::<f32>::ones(spec.q_shape()), Array4::ones(spec.k_shape()), Array4::ones(spec.v_shape()));
/// let (mut o, mut lse) = (Array4::zeros(spec.o_shape()), Array3::zeros(spec.lse_shape()));
/// let out = Outputs { o: o.view_mut(), lse: lse.view_mut() };
/// CpuAttention::default().forward(&spec, &Inputs::new(q.view(), k.view(), v.view()), out)?;
/// assert!((lse[[0, 0, 99]] - (4.0 + 100f32.ln())).abs() < 1e-5); // 100 keys of score 16 / √16
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuAttention {
    tiles: Option<Tiles>,
    isa: Option<Isa>,
    /// Whether keys are split.
    pub split_kv: SplitKv,
    /// What products of `bf16` multiply.
    pub bf16_products: Bf16Products,
}

/// Bytes of a key tile's keys and values, about half of a small second-level cache.
const TILE_BYTES: usize = 200 << 10;

/// Largest tile side, so that a task's tiles stay small whatever is asked for.
const MAX_TILE: usize = kernels::MAX_KEYS;

/// The smallest tiles that are chosen where none are asked for.
const LEAST_TILE: usize = 96;

impl CpuAttention {
    /// Tiles of `q` query rows and `k` keys, each clamped to 1 ..= 384, instead of tiles that follow from the head
    /// dimensions.
    ///
    /// ```
    /// use tilewright_cpu::{CpuAttention, SplitKv};
    /// let method = CpuAttention::with_tiles(32, 128).with_split_kv(SplitKv::Never);
    /// assert_eq!(method.tiles(), Some((32, 128)));
    /// ```
    pub fn with_tiles(q: usize, k: usize) -> Self {
        let tiles = Tiles { q: q.clamp(1, MAX_TILE), k: k.clamp(1, MAX_TILE) };
        Self { tiles: Some(tiles), ..Self::default() }
    }

    /// The same method with keys split as said.
    pub fn with_split_kv(self, split_kv: SplitKv) -> Self {
        Self { split_kv, ..self }
    }

    /// The same method on this instruction set, whatever [`ISA_VARIABLE`] says.
    pub fn with_isa(self, isa: Isa) -> Self {
        Self { isa: Some(isa), ..self }
    }

    /// The same method with products of `bf16` as said.
    pub fn with_bf16_products(self, bf16_products: Bf16Products) -> Self {
        Self { bf16_products, ..self }
    }

    /// Query rows and keys a tile, if they were asked for.
    pub fn tiles(&self) -> Option<(usize, usize)> {
        self.tiles.map(|tiles| (tiles.q, tiles.k))
    }

    /// The instruction set it runs on.
    ///
    /// # Errors
    /// [`AttentionError::Spec`] if none was asked for and [`ISA_VARIABLE`] names none that this machine has.
    pub fn isa(&self) -> Result<Isa, AttentionError> {
        self.isa.map_or_else(Isa::from_environment, Ok)
    }

    /// Tiles of the forward pass: keys and values of a tile together, and the rows they meet, stay in a core's cache.
    fn forward_tiles<F: Factor>(&self, spec: &AttentionSpec) -> Tiles {
        self.tiles.unwrap_or(Tiles { q: 192, k: key_tile::<F>(spec) })
    }

    /// Tiles of the backward pass: so are one key tile and the queries that pass it, tile by tile.
    fn backward_tiles<F: Factor>(&self, spec: &AttentionSpec) -> Tiles {
        self.tiles.unwrap_or(Tiles { q: LEAST_TILE, k: key_tile::<F>(spec) })
    }

    /// Whether products of tensors in `format` multiply pairs.
    fn multiplies_pairs(&self, format: Format, isa: Isa) -> bool {
        let wanted = match self.bf16_products {
            Bf16Products::Auto => isa.multiplies_pairs(),
            Bf16Products::Widened => false,
            Bf16Products::Paired => true,
        };
        wanted && format == Format::BF16
    }

    /// The numeric contract kept on tensors stored in `format`: sums, statistics and LSE in `f32`, or in `f64` where the
    /// storage is wider than that; elementary functions good to a few units; nothing rounded on the way, but for `P` and
    /// `dS` of `bf16` tensors where their products multiply pairs ([`Bf16Products`]).
    ///
    /// ```
    /// use tilewright_attention::Format;
    /// use tilewright_cpu::{Bf16Products, CpuAttention};
    /// let contract = CpuAttention::default().with_bf16_products(Bf16Products::Widened).contract(Format::BF16);
    /// assert_eq!((contract.accum, contract.probabilities), (Format::F32, Format::F32));
    /// ```
    pub fn contract(&self, format: Format) -> Contract {
        // Boundaries of tiles and of splits both cut the keys, and each split is one more rescaling when it is merged.
        let Tiles { q, k } = self.tiles.unwrap_or(Tiles { q: LEAST_TILE, k: LEAST_TILE });
        let k = k.min(decode::CHUNK);
        let k = match self.split_kv {
            SplitKv::Never => k,
            SplitKv::Auto => with_splits(k, forward::AUTO_SPLIT),
            SplitKv::Every(n) => with_splits(k, n.clamp(1, usize::MAX / MAX_TILE)),
        };
        let contract = Contract { tile: k.min(q), exp_error: float::EXP_ERROR, ..Contract::strict(format) };
        // A method that cannot run keeps any contract.
        if self.isa().is_ok_and(|isa| self.multiplies_pairs(format, isa)) {
            Contract { probabilities: format, score_gradients: format, flushes_subnormals: true, ..contract }
        } else {
            contract
        }
    }

    /// The instruction set to run on, if the method is one that can be run.
    fn checked(&self) -> Result<Isa, AttentionError> {
        if self.split_kv == SplitKv::Every(0) {
            let (got, expected) = ("every 0 keys".to_string(), "at least 1".to_string());
            return Err(AttentionError::Spec { field: "split_kv", got, expected });
        }
        self.isa()
    }
}

/// Keys of a tile where no tiles are asked for.
fn key_tile<F: Factor>(spec: &AttentionSpec) -> usize {
    let row = (spec.head_dim + spec.value_dim) * size_of::<F>() / F::DEPTH;
    (TILE_BYTES / row / LEAST_TILE * LEAST_TILE).clamp(LEAST_TILE, MAX_TILE)
}

/// The tile of which `S` keys hold as many as they hold tiles, splits and merges of splits.
fn with_splits(tile: usize, split: usize) -> usize {
    (tile * split / (split + 2 * tile)).max(1)
}

/// Implements what is written for all storage formats for each of them, here: a generic implementation would be compiled anew in
/// every crate that calls it.
macro_rules! attend_in {
    ($($format:ty),+) => {$(
        impl AttentionForward<$format> for CpuAttention {
            fn forward(
                &self,
                spec: &AttentionSpec,
                inputs: &Inputs<'_, $format>,
                out: Outputs<'_, $format>,
            ) -> Result<(), AttentionError> {
                let isa = self.checked()?;
                inputs.check(spec)?;
                out.check(spec)?;
                let problem = Problem::new(spec, inputs, isa);
                if self.multiplies_pairs(<$format as Element>::FORMAT, isa) {
                    forward::run::<$format, <$format as Stored>::Narrow>(self, &problem, out);
                } else {
                    forward::run::<$format, <$format as Element>::Accum>(self, &problem, out);
                }
                Ok(())
            }
        }

        impl AttentionBackward<$format> for CpuAttention {
            fn backward(
                &self,
                spec: &AttentionSpec,
                inputs: &Inputs<'_, $format>,
                saved: &Saved<'_, $format>,
                gradients: Gradients<'_, $format>,
            ) -> Result<(), AttentionError> {
                let isa = self.checked()?;
                inputs.check(spec)?;
                saved.check(spec)?;
                gradients.check(spec, inputs)?;
                let problem = Problem::new(spec, inputs, isa);
                if self.multiplies_pairs(<$format as Element>::FORMAT, isa) {
                    backward::run::<$format, <$format as Stored>::Narrow>(self, &problem, saved, gradients);
                } else {
                    backward::run::<$format, <$format as Element>::Accum>(self, &problem, saved, gradients);
                }
                Ok(())
            }
        }
    )+};
}

attend_in!(f64, f32, f16, bf16);
