//! The correct kernels: what a fair judge must not convict.

use crate::attention::{
    Accumulator, Addition, Exponential, KeyOrder, LseSource, Rescaling, Rounding, RowDot, Split, Stationary, SumOrder,
    Variant,
};
use tilewright_scalar::Format;

/// A correct kernel, different from its peers in arithmetic only.
///
/// ```
/// let names: Vec<_> = tilewright_mutants::attention::variants().iter().map(|variant| variant.name).collect();
/// assert!(names.len() >= 24 && names.contains(&"split-3"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CorrectVariant {
    /// Kebab-case name.
    pub name: &'static str,
    /// What it does differently.
    pub about: &'static str,
    /// Its arithmetic.
    pub variant: Variant,
}

/// More rows or keys than any case has: the whole row is one tile.
const WHOLE: usize = 1 << 16;

/// Every correct kernel.
pub fn variants() -> Vec<CorrectVariant> {
    let mut list = tilings();
    list.extend(elementary_functions());
    list.extend(summations());
    list.extend(roundings());
    list.extend(schedules());
    list.extend(lookalikes());
    list
}

fn control(name: &'static str, about: &'static str, variant: Variant) -> CorrectVariant {
    CorrectVariant { name, about, variant }
}

fn tiles(query_tile: usize, key_tile: usize) -> Variant {
    Variant { query_tile, key_tile, ..Variant::BASE }
}

fn tilings() -> Vec<CorrectVariant> {
    vec![
        control("base", "tiles of 16 × 16, natural exponentials, everything in the accumulator", Variant::BASE),
        control("tiles-1x1", "one row and one key at a time", tiles(1, 1)),
        control("tiles-7x5", "tiles no length is a multiple of", tiles(7, 5)),
        control("tiles-32x64", "larger tiles", tiles(32, 64)),
        control("tiles-64x128", "tiles of a GPU kernel", tiles(64, 128)),
        control(
            "masked-times-zero",
            "masked keys of a tile take part in P·V with weight 0",
            Variant { multiplies_masked: true, ..Variant::BASE },
        ),
        control("whole-row", "one tile holds everything", tiles(WHOLE, WHOLE)),
    ]
}

fn elementary_functions() -> Vec<CorrectVariant> {
    let exponential = |exponential| Variant { exponential, ..Variant::BASE };
    vec![
        control("exp2", "exponentials in base 2", exponential(Exponential::Base2)),
        control("exp2-folded", "base 2, log2 e folded into scores and maximum", exponential(Exponential::Base2Folded)),
        control("exp-polynomial", "a polynomial of degree 5", exponential(Exponential::Polynomial)),
    ]
}

fn summations() -> Vec<CorrectVariant> {
    let order = |sum_order| Variant { sum_order, ..Variant::BASE };
    let addition = |addition| Variant { addition, ..Variant::BASE };
    vec![
        control("pairwise-sums", "sums by halves", order(SumOrder::Pairwise)),
        control("blocked-sums", "sums in blocks of 8", order(SumOrder::Blocked(8))),
        control("shuffled-sums", "sums in a fixed random order", order(SumOrder::Shuffled)),
        control("fused", "fused multiply-add", addition(Addition::Fused)),
        control("truncating", "additions round toward zero", addition(Addition::TowardZero)),
        control("f64-sums", "f64 accumulators", Variant { accumulator: Accumulator::F64, ..Variant::BASE }),
    ]
}

fn roundings() -> Vec<CorrectVariant> {
    let p = |probabilities| Variant { probabilities, ..Variant::BASE };
    vec![
        control("p-f16", "P rounded to f16", p(Rounding::To(Format::F16))),
        control("p-bf16", "P rounded to bf16", p(Rounding::To(Format::BF16))),
        control(
            "l-from-rounded-p",
            "the denominator sums P as rounded to storage",
            Variant { sums_rounded_probabilities: true, ..p(Rounding::Storage) },
        ),
        control("ds-storage", "dS rounded to storage", Variant { score_gradients: Rounding::Storage, ..Variant::BASE }),
        control(
            "output-storage",
            "the running O rounded to storage after each tile",
            Variant { output: Rounding::Storage, ..Variant::BASE },
        ),
        control(
            "gradients-storage",
            "running gradients rounded to storage after each tile",
            Variant { gradients: Rounding::Storage, ..Variant::BASE },
        ),
        control("scores-storage", "scores rounded to storage", Variant { scores: Rounding::Storage, ..Variant::BASE }),
    ]
}

fn schedules() -> Vec<CorrectVariant> {
    let split = |split| Variant { split, ..Variant::BASE };
    let rescaling = |rescaling| Variant { rescaling, ..Variant::BASE };
    vec![
        control("descending", "key tiles last to first", Variant { key_order: KeyOrder::Descending, ..Variant::BASE }),
        control("split-2", "two key ranges, merged by LSE", split(Split::Parts(2))),
        control("split-3", "three key ranges, merged by LSE", split(Split::Parts(3))),
        control("split-every-32", "ranges of 32 keys, merged by LSE", split(Split::Every(32))),
        control("lazy-rescale", "rescales only past a factor of 2^8", rescaling(Rescaling::Lazy)),
        control("two-pass", "a first pass finds the maximum", rescaling(Rescaling::TwoPass)),
        control("normalised", "O normalised after every tile", rescaling(Rescaling::Normalised)),
        control("scaled-queries", "the scale applied to queries", Variant { scales_queries: true, ..Variant::BASE }),
        control("row-dot-from-p", "D = Σ P∘dP", Variant { row_dot: RowDot::Probabilities, ..Variant::BASE }),
        control(
            "lse-recomputed",
            "the backward pass computes LSE again",
            Variant { lse_source: LseSource::Recomputed, ..Variant::BASE },
        ),
        control(
            "key-stationary",
            "the backward pass's outer loop is over keys",
            Variant { stationary: Stationary::Keys, ..Variant::BASE },
        ),
    ]
}

/// Combinations as existing kernels have them.
fn lookalikes() -> Vec<CorrectVariant> {
    let matrix_unit = Variant {
        exponential: Exponential::Base2Folded,
        addition: Addition::TowardZero,
        probabilities: Rounding::Storage,
        score_gradients: Rounding::Storage,
        stationary: Stationary::Keys,
        ..tiles(64, 64)
    };
    let decode = Variant {
        exponential: Exponential::Base2,
        split: Split::Parts(4),
        sum_order: SumOrder::Blocked(8),
        scales_queries: true,
        ..tiles(1, 32)
    };
    vec![
        control("matrix-unit", "as on tensor cores: P and dS in storage, truncating sums, base 2", matrix_unit),
        control("decode", "as a decoding kernel: one row, four splits, base 2, scaled queries", decode),
    ]
}
