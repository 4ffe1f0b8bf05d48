//! Forty-odd problems that between them trigger every planted bug.

use super::Case;
use ndarray::{Array4, Axis, array};
use tilewright_attention::{AttentionSpec, BlockMask, CausalAlign, Dropout, Keys, Queries, Window};

/// Every case.
pub fn triggers() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(distributions());
    cases.extend(masks());
    cases.extend(modifications());
    cases.extend(layouts());
    for (case, seed) in cases.iter_mut().zip(100..) {
        if case.d_lse.is_none() && seed % 2 == 0 {
            *case = case.clone().with_lse_gradient(seed);
        }
    }
    cases
}

fn grouped(q_heads: usize, kv_heads: usize, spec: AttentionSpec) -> AttentionSpec {
    AttentionSpec { q_heads, kv_heads, ..spec }
}

fn lengths() -> Vec<Case> {
    let plain = |name: &str, batch, q, k| Case::new(name, AttentionSpec::dense(batch, 2, q, k, 8), 1);
    let dims = |head_dim, value_dim| AttentionSpec { head_dim, value_dim, ..AttentionSpec::dense(1, 2, 9, 21, 8) };
    vec![
        plain("plain", 2, 20, 40),
        plain("one partial key tile", 1, 5, 7),
        plain("one exact key tile", 1, 5, 16),
        plain("two exact key tiles", 1, 16, 32),
        plain("two and a bit", 1, 19, 33),
        plain("seven key tiles", 1, 3, 100),
        plain("one query", 1, 1, 50),
        plain("no keys", 1, 4, 0),
        Case::new("odd dims", dims(12, 13), 2),
        Case::new("one column", AttentionSpec { scale: 0.7, ..dims(1, 1) }, 3),
    ]
}

/// Queries of ones and keys of `score(j)` in their first column: `s_ij = score(j)` exactly, values random.
fn scored(name: &str, spec: AttentionSpec, score: impl Fn(usize) -> f64) -> Case {
    let mut case = Case::new(name, AttentionSpec { scale: 1.0, ..spec }, 7);
    case.q.fill(1.0);
    for ((_, _, j, c), x) in case.k.indexed_iter_mut() {
        *x = if c == 0 { score(j) } else { 0.0 };
    }
    case
}

fn distributions() -> Vec<Case> {
    let long = || AttentionSpec::dense(1, 1, 4, 60, 4);
    let causal = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 1, 20, 20, 4) };
    let mut offset = Case::new("constant offset V", long(), 8);
    offset.v.mapv_inplace(|v| v + 16.0);
    let mut peaky = Case::new("peaky", AttentionSpec { scale: 8.0, ..long() }, 9);
    peaky.q.mapv_inplace(|q| 2.0 * q);
    vec![
        scored("ascending scores", long(), |j| j as f64 / 2.0 - 15.0),
        scored("descending scores", long(), |j| 15.0 - j as f64 / 2.0),
        scored("scores falling by 100 a tile", long(), |j| 150.0 - 100.0 * (j / 16) as f64),
        scored("scores around -150", long(), |j| -150.0 - (j % 5) as f64),
        scored("scores around +150", long(), |j| 150.0 + (j % 5) as f64),
        scored("equal scores", long(), |_| 0.0),
        scored("one-hot", long(), |j| if j == 37 { 20.0 } else { -20.0 }),
        scored("one strong key a tile", long(), |j| if j % 16 == 3 { (j / 16) as f64 } else { -30.0 }),
        scored("a masked score on top", causal, |j| if j == 13 { 200.0 } else { (j % 3) as f64 }),
        offset,
        peaky,
    ]
}

fn masks() -> Vec<Case> {
    let causal = |q, k, align| AttentionSpec { causal: true, align, ..AttentionSpec::dense(2, 2, q, k, 8) };
    let window =
        |left, right, q, k| AttentionSpec { window: Window { left, right }, ..AttentionSpec::dense(1, 2, q, k, 8) };
    let (top, bottom) = (CausalAlign::TopLeft, CausalAlign::BottomRight);
    let blocks = |batch, heads, rows, columns| {
        Array4::from_shape_fn((batch, heads, rows, columns), |(b, h, i, j)| (3 * b + 2 * h + i + 2 * j) % 4 != 0)
    };
    let block_masked = |blocks, block_q, block_k| AttentionSpec {
        block_mask: Some(BlockMask { block_q, block_k, blocks }),
        ..AttentionSpec::dense(2, 2, 24, 24, 8)
    };
    // Keys 4 to 7 are hidden from every query, amid keys that are not.
    let gap = Array4::from_shape_fn((1, 1, 3, 6), |(.., j)| j != 1);
    let mut hidden = Case::new("NaN behind the mask", block_masked(gap, 8, 4), 20);
    hidden.v.slice_axis_mut(Axis(2), (4..8).into()).fill(f64::NAN);
    vec![
        Case::new("causal square", causal(20, 20, top), 10),
        Case::new("causal top-left", causal(20, 40, top), 11),
        Case::new("causal bottom-right", causal(20, 40, bottom), 12),
        Case::new("causal with empty rows", causal(40, 20, bottom), 13),
        Case::new("causal decode", causal(1, 40, bottom), 14),
        Case::new("window", window(Some(5), Some(3), 30, 30), 15),
        Case::new("window off the diagonal", window(Some(20), Some(1), 20, 50), 16),
        Case::new("block mask", block_masked(blocks(1, 1, 3, 6), 8, 4), 17),
        Case::new("block mask per batch and head", block_masked(blocks(2, 2, 3, 3), 8, 8), 18),
        hidden,
    ]
}

fn modifications() -> Vec<Case> {
    let base = || AttentionSpec::dense(2, 4, 20, 37, 8);
    let causal = || AttentionSpec { causal: true, ..base() };
    let capped = |spec| AttentionSpec { softcap: Some(1.5), scale: 0.8, ..spec };
    let slopes = Some(vec![0.5, 0.25, 0.125, 0.0625]);
    let dropout = Some(Dropout { p: 0.3, seed: 99 });
    let empty_rows = AttentionSpec { causal: true, ..AttentionSpec::dense(1, 2, 30, 18, 8) };
    vec![
        Case::new("softcap", capped(base()), 30),
        Case::new("softcap, causal, bias", capped(causal()), 31).with_bias(31, [false; 4]),
        Case::new("full bias", base(), 32).with_bias(32, [false; 4]),
        Case::new("bias shared by rows", base(), 33).with_bias(33, [true, true, true, false]),
        Case::new("bias shared by batch and columns", base(), 34).with_bias(34, [true, false, false, true]),
        Case::new("sinks", grouped(4, 2, base()), 35).with_sink(35),
        Case::new("sinks and empty rows", empty_rows, 36).with_sink(36),
        Case::new("ALiBi", AttentionSpec { alibi: slopes.clone(), ..grouped(4, 2, base()) }, 37),
        Case::new("ALiBi, causal", AttentionSpec { alibi: slopes, ..causal() }, 38),
        Case::new("dropout", AttentionSpec { dropout, ..base() }, 39),
        Case::new("dropout, causal", AttentionSpec { dropout, ..causal() }, 40),
    ]
}

fn layouts() -> Vec<Case> {
    let base = || AttentionSpec::dense(3, 2, 20, 30, 8);
    let lengths = Keys::Padded { len: 30, lengths: Some(vec![30, 17, 0]) };
    let paged = Keys::Paged {
        pages: 7,
        page_size: 8,
        table: vec![vec![3, 1, 6], vec![3, 0], vec![3, 5]],
        lengths: vec![21, 16, 11],
    };
    let packed = |queries: &[usize], keys: &[usize]| AttentionSpec {
        queries: Queries::Packed { cu_seqlens: queries.into() },
        keys: Keys::Packed { cu_seqlens: keys.into() },
        ..base()
    };
    let transposed = |case: Case| Case { transposed: true, ..case };
    let causal = |spec| AttentionSpec { causal: true, ..spec };
    let wide_values = AttentionSpec { value_dim: 12, ..grouped(4, 2, base()) };
    let mut zero_sink = Case::new("grouped queries, two sinks", grouped(2, 1, base()), 58);
    zero_sink.sink = Some(array![0.0, 2.0]);
    vec![
        Case::new("grouped queries", grouped(4, 2, base()), 50),
        Case::new("grouped queries, wide values", wide_values, 51),
        Case::new("key lengths", AttentionSpec { keys: lengths.clone(), ..base() }, 52),
        Case::new("key lengths, causal", causal(AttentionSpec { keys: lengths, ..base() }), 53),
        Case::new("pages", AttentionSpec { keys: paged, ..base() }, 54),
        Case::new("packed", packed(&[0, 7, 20, 24], &[0, 9, 30, 48]), 55),
        Case::new("packed, causal", causal(packed(&[0, 7, 20, 24], &[0, 20, 25, 25])), 56),
        transposed(Case::new("transposed", grouped(4, 2, base()), 57)),
        zero_sink,
    ]
}
