//! Which cases make a suite.
//!
//! `quick` visits every feature, every distribution and every kind of boundary once in each format; `full` adds longer
//! sequences and random combinations; `extensive` many more of the latter. Sizes straddle the tile sizes
//! kernels use (16, 32, 64, 128), one below and one above, and are otherwise odd, so that no bug hides in symmetry.

use crate::attention::Layout;
use crate::attention::case::{Case, Distribution, Storage};
use crate::regressions::{self, RegressionError};
pub use crate::suite::Suite;
use crate::suite::{after_recorded, sample};
use proptest::prelude::*;
use tilewright_attention::CausalAlign;
use tilewright_scalar::Format;

/// The four storage formats.
pub const FORMATS: [Format; 4] = [Format::F32, Format::F64, Format::F16, Format::BF16];

/// Cases that once told right from wrong where nothing else did, with the reasons in the file itself.
const REGRESSIONS: &str = include_str!("../../vectors/regressions.txt");

/// The regressions, in the file's order: `(case, reason)`.
///
/// # Errors
/// What is wrong with the first line that is no case id with a reason.
pub fn regressions() -> Result<Vec<(Case, &'static str)>, RegressionError> {
    regressions::parse(REGRESSIONS)
}

/// The cases of a suite, in every format, regressions first. `seed` shifts all other data and picks the random
/// combinations.
///
/// # Panics
/// If a line of the embedded file of regressions is none, rather than try less than was asked for.
pub fn cases(suite: Suite, seed: u32) -> Vec<Case> {
    let recorded = regressions().unwrap_or_else(|error| panic!("{error}"));
    let mut all = Vec::new();
    for format in FORMATS {
        let mut of_format = listed(format);
        if suite != Suite::Quick {
            of_format.extend(long(format));
        }
        for case in &mut of_format {
            case.seed = case.seed.wrapping_add(seed);
        }
        let random = match suite {
            Suite::Quick => 16,
            Suite::Full => 200,
            Suite::Extensive => 4000,
        };
        of_format.extend(sample(&any_case(format), random, seed));
        all.extend(of_format);
    }
    after_recorded(recorded.into_iter().map(|(case, _)| case).collect(), all)
}

/// The hand-picked cases: one line a reason.
fn listed(format: Format) -> Vec<Case> {
    let mut list = Vec::new();
    distributions(format, &mut list);
    masks(format, &mut list);
    score_options(format, &mut list);
    layouts(format, &mut list);
    edges(format, &mut list);
    list
}

fn distributions(format: Format, list: &mut Vec<Case>) {
    let plain = Case::new(format, [1, 2, 2], [21, 70, 32, 32]);
    for distribution in Distribution::ALL {
        list.push(Case { distribution, ..plain.clone() });
        list.push(Case { distribution, causal: true, q_len: 37, kv_len: 53, ..plain.clone() });
    }
    // Enough elements for the population tier, and rows long enough for a running sum to lose bits.
    for distribution in [Distribution::Normal, Distribution::Uniform, Distribution::Offset] {
        list.push(Case { distribution, q_len: 40, kv_len: 200, head_dim: 16, value_dim: 16, ..plain.clone() });
    }
    list.push(Case { distribution: Distribution::OneHot, head_dim: 64, value_dim: 64, ..plain.clone() });
    list.push(Case {
        distribution: Distribution::HugeMasked,
        causal: true,
        align: CausalAlign::TopLeft,
        q_len: 19,
        ..plain
    });
}

fn masks(format: Format, list: &mut Vec<Case>) {
    let plain = Case::new(format, [1, 2, 2], [19, 35, 8, 8]);
    for align in [CausalAlign::TopLeft, CausalAlign::BottomRight] {
        for (q_len, kv_len) in [(19, 35), (35, 19), (33, 33), (1, 40), (64, 130), (130, 64)] {
            list.push(Case { causal: true, align, q_len, kv_len, ..plain.clone() });
        }
        for window in [[Some(3), Some(0)], [Some(0), Some(3)], [None, Some(2)], [Some(17), None], [Some(0), Some(0)]] {
            list.push(Case { align, window, ..plain.clone() });
            list.push(Case { align, window, q_len: 40, kv_len: 23, ..plain.clone() });
        }
        list.push(Case { window: [Some(5), None], causal: true, align, q_len: 50, kv_len: 37, ..plain.clone() });
        list.push(Case { window: [Some(20), None], causal: true, align, q_len: 30, kv_len: 70, ..plain.clone() });
        for blocks in [[16, 16], [8, 4], [5, 7]] {
            list.push(Case { blocks: Some(blocks), align, kv_len: 50, ..plain.clone() });
            list.push(Case { blocks: Some(blocks), causal: true, align, batch: 2, kv_len: 50, ..plain.clone() });
        }
    }
}

fn score_options(format: Format, list: &mut Vec<Case>) {
    let plain = Case::new(format, [2, 3, 3], [18, 41, 12, 12]);
    let peaky = Distribution::Peaky;
    list.push(Case { softcap: Some(2.5), distribution: peaky, ..plain.clone() });
    list.push(Case { softcap: Some(20.0), causal: true, distribution: peaky, ..plain.clone() });
    list.push(Case { softcap: Some(1.0), bias: Some([true; 4]), causal: true, ..plain.clone() });
    for align in [CausalAlign::TopLeft, CausalAlign::BottomRight] {
        list.push(Case { alibi: true, align, ..plain.clone() });
        list.push(Case { alibi: true, causal: true, align, q_len: 41, kv_len: 18, ..plain.clone() });
        list.push(Case { alibi: true, align, kv_heads: 1, ..plain.clone() });
    }
    for axes in [
        [true, true, true, true],
        [false, false, true, true],
        [false, true, false, true],
        [true, false, false, true],
        [true, false, true, false],
        [false, false, false, false],
    ] {
        list.push(Case { bias: Some(axes), ..plain.clone() });
        list.push(Case { bias: Some(axes), causal: true, q_len: 41, kv_len: 18, distribution: peaky, ..plain.clone() });
    }
    for distribution in [Distribution::Normal, Distribution::Low, Distribution::Descending] {
        list.push(Case { sink: true, distribution, ..plain.clone() });
    }
    list.push(Case { sink: true, window: [Some(2), Some(0)], q_len: 40, kv_len: 15, ..plain.clone() });
    list.push(Case { sink: true, d_lse: true, causal: true, ..plain.clone() });
    for p in [0.1, 0.5] {
        list.push(Case { dropout: Some(p), ..plain.clone() });
        list.push(Case { dropout: Some(p), causal: true, kv_heads: 1, kv_len: 70, ..plain.clone() });
    }
    for distribution in [Distribution::Normal, peaky, Distribution::Ascending] {
        list.push(Case { d_lse: true, distribution, ..plain.clone() });
    }
    list.push(Case { d_lse: true, softcap: Some(3.0), alibi: true, causal: true, ..plain.clone() });
    list.push(Case {
        causal: true,
        softcap: Some(5.0),
        window: [Some(12), None],
        bias: Some([false, true, true, true]),
        sink: true,
        d_lse: true,
        kv_heads: 1,
        value_dim: 20,
        ..plain
    });
}

fn layouts(format: Format, list: &mut Vec<Case>) {
    let plain = Case::new(format, [1, 2, 2], [20, 45, 16, 16]);
    for [q_heads, kv_heads] in [[6, 2], [5, 1], [4, 2]] {
        list.push(Case { q_heads, kv_heads, ..plain.clone() });
        list.push(Case { q_heads, kv_heads, causal: true, batch: 2, ..plain.clone() });
    }
    for [head_dim, value_dim] in [[8, 20], [24, 3], [1, 1], [13, 5], [7, 64]] {
        list.push(Case { head_dim, value_dim, ..plain.clone() });
    }
    let many = Case { batch: 4, ..plain.clone() };
    for storage in [Storage::Lengths, Storage::Packed, Storage::Paged(16), Storage::Paged(5)] {
        let stored = Case { storage, ..many.clone() };
        list.push(stored.clone());
        list.push(Case { causal: true, ..stored.clone() });
        list.push(Case { causal: true, align: CausalAlign::TopLeft, q_heads: 4, ..stored.clone() });
        list.push(Case { window: [Some(4), Some(1)], alibi: true, ..stored.clone() });
        list.push(Case { sink: true, d_lse: true, bias: Some([true, false, true, true]), ..stored.clone() });
        list.push(Case { dropout: Some(0.2), blocks: Some([8, 8]), batch: 3, ..stored });
    }
    for layout in [Layout::HeadsInner, Layout::Gapped] {
        list.push(Case { layout, ..plain.clone() });
        list.push(Case { layout, causal: true, q_heads: 4, batch: 2, value_dim: 10, ..plain.clone() });
        list.push(Case { layout, bias: Some([true; 4]), batch: 2, ..plain.clone() });
    }
    let decode = Case { q_len: 1, kv_len: 200, q_heads: 8, causal: true, batch: 2, ..plain };
    list.push(decode.clone());
    list.push(Case { kv_len: 1200, batch: 1, distribution: Distribution::Ascending, ..decode.clone() });
    list.push(Case { storage: Storage::Paged(16), ..decode.clone() });
    list.push(Case { storage: Storage::Lengths, sink: true, ..decode.clone() });
    list.push(Case { q_len: 3, window: [Some(70), None], ..decode.clone() });
    list.push(Case { q_len: 2, distribution: Distribution::Low, ..decode });
}

fn edges(format: Format, list: &mut Vec<Case>) {
    let plain = Case::new(format, [1, 1, 1], [5, 9, 8, 8]);
    for kv_len in [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        list.push(Case { kv_len, distribution: Distribution::Offset, ..plain.clone() });
        list.push(Case { kv_len, distribution: Distribution::Equal, ..plain.clone() });
    }
    for q_len in [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129] {
        list.push(Case { q_len, distribution: Distribution::Peaky, causal: true, ..plain.clone() });
    }
    for [q_len, kv_len] in [[0, 9], [5, 0], [0, 0], [1, 1]] {
        list.push(Case { q_len, kv_len, batch: 2, ..plain.clone() });
        list.push(Case { q_len, kv_len, causal: true, sink: true, d_lse: true, ..plain.clone() });
    }
    list.push(Case { batch: 0, ..plain });
}

/// Longer sequences, for what only shows when rounding errors add up.
fn long(format: Format) -> Vec<Case> {
    let plain = Case::new(format, [1, 2, 1], [70, 400, 32, 32]);
    [Distribution::Normal, Distribution::Ascending, Distribution::Uniform, Distribution::Recorded]
        .into_iter()
        .flat_map(|distribution| {
            let case = Case { distribution, ..plain.clone() };
            [Case { causal: true, ..case.clone() }, case]
        })
        .collect()
}

/// Any case of a format, simpler ones first: what proptest shrinks towards.
pub fn any_case(format: Format) -> impl Strategy<Value = Case> {
    let heads = (1usize..=3, prop_oneof![Just([1, 1]), Just([2, 2]), Just([4, 2]), Just([3, 1])]);
    let sizes = (0usize..=70, 0usize..=140, 1usize..=24, 1usize..=24);
    let mask = (
        any::<bool>(),
        any::<bool>(),
        prop::option::weighted(0.3, 0usize..20),
        prop::option::weighted(0.2, 0usize..20),
        prop::option::weighted(0.2, (1usize..20, 1usize..20)),
    );
    let scores = (
        prop::option::weighted(0.2, prop_oneof![Just(1.5), Just(8.0), Just(30.0)]),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.2, any::<[bool; 4]>()),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.15, prop_oneof![Just(0.1), Just(0.3), Just(0.7)]),
        prop::bool::weighted(0.3),
    );
    let storage = prop_oneof![
        4 => Just(Storage::Padded),
        1 => Just(Storage::Lengths),
        1 => Just(Storage::Packed),
        1 => (1usize..20).prop_map(Storage::Paged),
    ];
    let layout = prop_oneof![3 => Just(Layout::Contiguous), 1 => Just(Layout::HeadsInner), 1 => Just(Layout::Gapped)];
    let data = (prop::sample::select(Distribution::ALL.to_vec()), any::<u32>());
    (heads, sizes, mask, scores, storage, layout, data).prop_map(
        move |((batch, [q_heads, kv_heads]), (n, s, d, v), mask, scores, storage, layout, (distribution, seed))| {
            let (causal, top_left, left, right, blocks) = mask;
            let (softcap, alibi, bias, sink, dropout, d_lse) = scores;
            Case {
                causal,
                align: if top_left { CausalAlign::TopLeft } else { CausalAlign::BottomRight },
                window: [left, right],
                blocks: blocks.map(|(q, k)| [q, k]),
                softcap,
                alibi,
                bias,
                sink,
                dropout,
                d_lse,
                storage,
                layout,
                distribution,
                seed,
                ..Case::new(format, [batch, q_heads, kv_heads], [n, s, d, v])
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn an_id_says_everything(case in prop::sample::select(FORMATS.to_vec()).prop_flat_map(any_case)) {
            prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = text.parse::<Case>();
        }

        #[test]
        fn nor_does_a_damaged_id(case in any_case(Format::F32), at in 0usize..60, byte in 32u8..127) {
            let mut id = case.to_string().into_bytes();
            if let Some(place) = id.get_mut(at) {
                *place = byte;
            }
            let _ = String::from_utf8(id).expect("ASCII").parse::<Case>();
        }
    }

    #[test]
    fn every_regression_is_a_case_with_a_reason() {
        let regressions = regressions().expect("case ids");
        assert!(regressions.len() >= 9);
        assert!(regressions.iter().all(|(_, reason)| !reason.is_empty()));
        assert_eq!(cases(Suite::Quick, 5)[0], regressions[0].0);
    }

    #[test]
    fn suites_are_the_same_every_time_and_have_no_doubles() {
        let quick = cases(Suite::Quick, 0);
        assert_eq!(quick, cases(Suite::Quick, 0));
        let ids: std::collections::BTreeSet<String> = quick.iter().map(ToString::to_string).collect();
        assert!(ids.len() * 100 >= quick.len() * 99, "{} of {} ids are distinct", ids.len(), quick.len());
    }
}
