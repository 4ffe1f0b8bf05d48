//! Generated data are what their names say, the same everywhere and for ever.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tilewright_attention::{AttentionSpec, CausalAlign, Keys, Queries};
use tilewright_conformance::attention::case::{Case, Distribution, Storage};
use tilewright_conformance::attention::file::read_cases;
use tilewright_conformance::attention::generate::{Problem, generate};
use tilewright_conformance::attention::suite::{FORMATS, Suite, any_case, cases, regressions};
use tilewright_conformance::attention::{Feature, Layout};
use tilewright_scalar::Format;

fn problem(id: &str) -> Problem {
    generate(&id.parse().unwrap()).unwrap()
}

fn of(case: &Case) -> Problem {
    generate(case).unwrap()
}

fn values(problem: &Problem, name: &str) -> Vec<f64> {
    problem.inputs[name].to_f64()
}

/// FNV-1a over names, shapes and bits of the tensors; every NaN counts as the same.
fn hash(problem: &Problem) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for (name, tensor) in &problem.inputs {
        name.bytes().for_each(&mut eat);
        tensor.shape().iter().flat_map(|axis| (*axis as u64).to_le_bytes()).for_each(&mut eat);
        for (bits, x) in tensor.bits().into_iter().zip(tensor.to_f64()) {
            let bits = if x.is_nan() { u64::MAX } else { bits };
            bits.to_le_bytes().into_iter().for_each(&mut eat);
        }
    }
    hash
}

/// Whoever changes the data changes what every case id in every report means: say so in the change log, and then here.
#[test]
fn ids_mean_the_same_data_for_ever() {
    let golden = [
        ("attention/f32/b1h2k2/n7s9d8v8/plain/normal/1", 0x3b1b_2a49_caf3_af8c),
        ("attention/f64/b1h2k1/n7s9d8v5/causal/peaky/2a", 0xadbe_64e6_4718_f75c),
        ("attention/bf16/b3h2k2/n7s9d8v8/packed/ascending/ffffffff", 0x7544_728a_53da_6cbb),
        ("attention/f16/b3h2k2/n7s19d8v8/lengths+top-left/descending/1", 0xad18_c08e_5fe0_0ca4),
        ("attention/f32/b3h4k2/n7s19d16v8/paged=4/one-hot/1", 0x9588_980f_a6a9_aaab),
        ("attention/f16/b1h1k1/n4s9d8v8/plain/one-hot/3", 0x3d73_6289_49ef_9aad),
        ("attention/f32/b1h2k2/n7s9d8v8/bias=1hq1+sink+dlse/equal/1", 0x97c3_f8c3_aee5_06df),
        ("attention/bf16/b1h2k2/n7s9d8v8/dropout=0.5/offset/1", 0x776e_2151_6a2f_ab7a),
        ("attention/f32/b1h2k2/n7s9d8v8/alibi/low/1", 0x369f_ec44_9820_61b0),
        ("attention/f64/b1h2k2/n7s9d8v8/softcap=2/high/1", 0x7dd7_f88b_74b6_ab6a),
        ("attention/f16/b1h2k2/n7s9d8v8/window=2,*/vast/1", 0x2aa1_8f75_15a9_08d1),
        ("attention/f64/b1h2k2/n7s9d8v8/gapped/subnormal/1", 0xd4e2_8ace_7963_59e3),
        ("attention/f32/b1h2k2/n7s9d8v8/blocks=2x3/uniform/1", 0x5a45_60f9_21de_8275),
        ("attention/f32/b1h2k2/n7s19d8v8/causal+top-left/huge-masked/1", 0x46fa_7f7e_4fa9_a87e),
        ("attention/bf16/b2h2k2/n7s9d32v32/plain/recorded/1", 0xe263_d9e0_2a27_bb23),
    ];
    let found: Vec<(&str, u64)> = golden.iter().map(|(id, _)| (*id, hash(&problem(id)))).collect();
    let lines: Vec<String> = found.iter().map(|(id, hash)| format!("        (\"{id}\", {hash:#018x}),")).collect();
    assert!(found == golden, "the data have changed; they are now\n{}", lines.join("\n"));
    // Not only the tensors: masks and tables are data too.
    let paged = problem(golden[4].0).spec;
    let Keys::Paged { table, lengths, .. } = &paged.keys else { panic!("not paged") };
    assert_eq!((table, lengths), (&vec![vec![7, 3, 8, 2, 5], vec![], vec![7, 0, 6]], &vec![19, 0, 10]));
    assert_eq!(problem(golden[7].0).spec.dropout.unwrap().seed, 0x10_5eed);
    let blocks = problem(golden[12].0).spec.block_mask.unwrap().blocks;
    let bits: String = blocks.iter().map(|on| if *on { '1' } else { '0' }).collect();
    assert_eq!(bits, "001101100010010110100001");
}

/// For each row of `K` storage, and each of `Q`: whether some sequence uses it.
fn used(spec: &AttentionSpec) -> [BTreeSet<(usize, usize)>; 2] {
    let all = |slot: &dyn Fn(usize, usize) -> (usize, usize), len: &dyn Fn(usize) -> usize| {
        (0..spec.batch).flat_map(|b| (0..len(b)).map(move |i| (b, i))).map(|(b, i)| slot(b, i)).collect()
    };
    [all(&|b, j| spec.key_slot(b, j), &|b| spec.kv_len(b)), all(&|b, i| spec.query_slot(b, i), &|b| spec.q_len(b))]
}

fn finite_exactly_where_used(problem: &Problem) {
    let [keys, queries] = used(&problem.spec);
    for (name, tensor) in &problem.inputs {
        let shape = tensor.shape();
        for (n, x) in tensor.to_f64().into_iter().enumerate() {
            let inside = match (name.as_str(), shape) {
                ("k" | "v", [_, heads, rows, dim]) => keys.contains(&(n / (heads * rows * dim), n / dim % rows)),
                ("q" | "d_o", [_, heads, rows, dim]) => queries.contains(&(n / (heads * rows * dim), n / dim % rows)),
                _ => true,
            };
            assert_eq!(x.is_finite(), inside, "{name}[{n}] of {shape:?} is {x}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn data_are_finite_where_used_and_nowhere_else(case in proptest::sample::select(FORMATS.to_vec()).prop_flat_map(any_case)) {
        let problem = of(&case);
        prop_assert_eq!(problem.spec.validate(), Ok(()));
        finite_exactly_where_used(&problem);
        for (name, shape) in [("q", problem.spec.q_shape()), ("k", problem.spec.k_shape()), ("v", problem.spec.v_shape())] {
            prop_assert_eq!(problem.inputs[name].shape(), &shape[..]);
            prop_assert_eq!(problem.inputs[name].format(), case.format);
        }
    }

    #[test]
    fn data_do_not_depend_on_the_layout(case in proptest::sample::select(FORMATS.to_vec()).prop_flat_map(any_case)) {
        let hashes: Vec<u64> = [Layout::Contiguous, Layout::HeadsInner, Layout::Gapped]
            .into_iter()
            .map(|layout| hash(&of(&Case { layout, ..case.clone() })))
            .collect();
        prop_assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    }

    #[test]
    fn another_seed_means_other_data(case in any_case(Format::F32), other: u32) {
        prop_assume!(other != case.seed && case.batch * case.q_len * case.kv_len > 0);
        let still = [Distribution::Recorded, Distribution::Equal];
        prop_assume!(!still.contains(&case.distribution) && case.head_dim * case.q_len > 4);
        prop_assert_ne!(hash(&of(&case)), hash(&of(&Case { seed: other, ..case.clone() })));
    }
}

/// Scaled scores of `(b, h)`, row by row, keys in order.
fn scores(problem: &Problem, b: usize, h: usize) -> Vec<Vec<f64>> {
    let (spec, q, k) = (&problem.spec, values(problem, "q"), values(problem, "k"));
    let row = |x: &[f64], [_, heads, rows, dim]: [usize; 4], [at, h, i]: [usize; 3]| -> Vec<f64> {
        let start = ((at * heads + h) * rows + i) * dim;
        x[start..start + dim].to_vec()
    };
    (0..spec.q_len(b))
        .map(|i| {
            let (qb, qi) = spec.query_slot(b, i);
            let q = row(&q, spec.q_shape(), [qb, h, qi]);
            (0..spec.kv_len(b))
                .map(|j| {
                    let (kb, kj) = spec.key_slot(b, j);
                    let k = row(&k, spec.k_shape(), [kb, spec.kv_head(h), kj]);
                    spec.scale * q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>()
                })
                .collect()
        })
        .collect()
}

/// The plain cases of the quick suite with a distribution.
fn plain(distribution: Distribution) -> impl Iterator<Item = Case> {
    let plain = |case: &Case| case.softcap.is_none() && !case.alibi && case.bias.is_none();
    cases(Suite::Quick, 0).into_iter().filter(move |case| case.distribution == distribution && plain(case))
}

fn each_row(distribution: Distribution, mut f: impl FnMut(&Case, &[f64])) {
    let mut rows = 0;
    for case in plain(distribution) {
        let problem = of(&case);
        for b in 0..problem.spec.batch {
            for h in 0..problem.spec.q_heads {
                for row in scores(&problem, b, h).into_iter().filter(|row| !row.is_empty()) {
                    f(&case, &row);
                    rows += 1;
                }
            }
        }
    }
    assert!(rows >= 100, "{}: {rows} rows", distribution.name());
}

fn largest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn one_hot_rows_have_one_key() {
    let (mut one, mut all) = (0, 0);
    each_row(Distribution::OneHot, |_, row| {
        let m = largest(row);
        let p = 1.0 / row.iter().map(|s| (s - m).exp()).sum::<f64>();
        one += usize::from(p >= 1.0 - 1e-15);
        all += 1;
    });
    println!("{one} of {all} rows are one-hot");
    assert!(one * 100 >= all * 99, "{one} of {all}");
    // Also without room for codes, and for every format's own accumulator. Two of many keys may have codes alike.
    for format in FORMATS {
        for [s, d] in [[70, 1], [70, 8], [200, 16], [129, 64]] {
            let problem =
                of(&Case { distribution: Distribution::OneHot, ..Case::new(format, [1, 2, 2], [20, s, d, 4]) });
            let gap = if format == Format::F64 { 745.0 } else { 104.0 };
            let alone = |row: &Vec<f64>| row.iter().filter(|s| largest(row) - **s < gap).count() == 1;
            let rows = scores(&problem, 0, 1).iter().filter(|row| alone(row)).count();
            assert!(rows >= if d == 16 { 16 } else { 20 }, "{} {s} keys, d = {d}: {rows} of 20", format.name);
        }
    }
}

#[test]
fn ascending_scores_raise_the_maximum_in_every_tile_and_descending_ones_never() {
    let tiles = |row: &[f64]| row.chunks(16).map(largest).collect::<Vec<f64>>();
    each_row(Distribution::Ascending, |case, row| {
        let maxima = tiles(row);
        let raised = maxima.windows(2).filter(|pair| pair[1] > pair[0]).count();
        // Where a thousand keys share the climb, noise may hide a step.
        let needed = if case.kv_len <= 200 { maxima.len() - 1 } else { (maxima.len() - 1) * 8 / 10 };
        let partial = usize::from(row.len() % 16 != 0 && row.len() % 16 < 4);
        assert!(raised + partial >= needed, "{case}: {maxima:?}");
    });
    each_row(Distribution::Descending, |case, row| {
        let maxima = tiles(row);
        assert!(maxima.iter().skip(1).all(|m| *m < maxima[0]), "{case}: {maxima:?}");
    });
}

#[test]
fn low_is_low_and_high_is_high() {
    for (distribution, level) in [(Distribution::Low, -150.0), (Distribution::High, 150.0)] {
        each_row(distribution, |case, row| {
            assert!(row.iter().all(|s| (s - level).abs() < 10.0), "{case}: {row:?}");
        });
    }
    let mut extreme = 0;
    each_row(Distribution::Vast, |_, row| extreme += usize::from(row.iter().any(|s| s.abs() > 9000.0)));
    assert!(extreme > 100, "{extreme} rows reach ±9000");
    each_row(Distribution::Equal, |case, row| assert!(row.iter().all(|s| *s == row[0]), "{case}"));
    each_row(Distribution::Peaky, |case, row| assert!(row.iter().all(|s| s.abs() < 60.0), "{case}"));
}

#[test]
fn normal_data_are_normal_enough() {
    for name in ["q", "k", "v", "d_o", "bias", "sink", "d_lse"] {
        let problem = problem("attention/f64/b2h32k32/n100s80d16v16/bias=bh1k+sink+dlse/normal/5");
        let x = values(&problem, name);
        let mean = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(*x)).sum::<f64>() / x.len() as f64;
        let room = 5.0 / (x.len() as f64).sqrt();
        assert!(mean(&|x| x).abs() < room, "{name}");
        assert!((mean(&|x| x * x) - 1.0).abs() < 2.0 * room, "{name}");
        assert!(x.iter().all(|x| x.abs() <= 6.0), "{name}");
    }
    let problem = problem("attention/f64/b1h4k4/n60s80d16v16/plain/normal/5");
    let (q, k) = (values(&problem, "q"), values(&problem, "k"));
    let correlation = q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / q.len() as f64;
    assert!(correlation.abs() < 0.1, "q and k are drawn from one stream: {correlation}");
}

#[test]
fn subnormal_values_are_subnormal() {
    for format in FORMATS {
        let problem =
            of(&Case { distribution: Distribution::Subnormal, ..Case::new(format, [1, 2, 2], [9, 30, 8, 8]) });
        let smallest = tilewright_scalar::format::power_of_two(format.min_exponent);
        for name in ["v", "d_o"] {
            let x = values(&problem, name);
            assert!(x.iter().all(|x| x.abs() < smallest), "{} {name}", format.name);
            let zeros = x.iter().filter(|x| **x == 0.0).count();
            assert!(zeros * 2 < x.len(), "{} {name}: {zeros} zeros of {}", format.name, x.len());
        }
        assert!(values(&problem, "q").iter().any(|x| x.abs() > 0.1));
    }
}

#[test]
fn huge_values_are_in_keys_that_no_query_sees() {
    let mut hidden = 0;
    for case in plain(Distribution::HugeMasked) {
        let problem = of(&case);
        let spec = &problem.spec;
        let group = spec.q_heads / spec.kv_heads;
        for (name, shape) in [("k", spec.k_shape()), ("v", spec.v_shape())] {
            let x = values(&problem, name);
            for b in 0..spec.batch {
                for h in 0..spec.kv_heads {
                    for j in 0..spec.kv_len(b) {
                        let seen = (h * group..(h + 1) * group)
                            .any(|head| (0..spec.q_len(b)).any(|i| spec.visible(b, head, i, j)));
                        let (kb, kj) = spec.key_slot(b, j);
                        let start = ((kb * shape[1] + h) * shape[2] + kj) * shape[3];
                        for x in &x[start..start + shape[3]] {
                            assert_eq!(x.abs() > 1000.0, !seen && !matches!(case.storage, Storage::Paged(_)), "{case}");
                        }
                        hidden += usize::from(!seen);
                    }
                }
            }
        }
        assert!(values(&problem, "q").iter().all(|x| x.abs() < 10.0));
    }
    assert!(hidden > 100, "{hidden} keys are hidden");
}

#[test]
fn recorded_data_come_from_the_recording() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/attention_minilm.safetensors");
    let recording = read_cases(file).unwrap();
    let problem = problem("attention/f32/b2h2k2/n20s30d32v32/plain/recorded/1");
    for (name, rows) in [("q", 20), ("k", 30), ("v", 30)] {
        let ours = values(&problem, name);
        for b in 0..2 {
            let theirs = &recording[b].tensors[name];
            let (shape, theirs) = (theirs.shape(), theirs.to_f64());
            for h in 0..2 {
                for i in 0..rows {
                    for c in 0..32 {
                        let mine = ours[((b * 2 + h) * rows + i) * 32 + c];
                        assert_eq!(mine, theirs[(h * shape[2] + i) * shape[3] + c], "{name} {b} {h} {i} {c}");
                    }
                }
            }
        }
    }
    let synthetic = of(&"attention/f32/b2h2k2/n20s30d32v32/plain/normal/1".parse().unwrap());
    assert_ne!(values(&problem, "q"), values(&synthetic, "q"));
    // Beyond what was recorded, the recording starts over: it is never NaN.
    finite_exactly_where_used(&of(&"attention/bf16/b3h9k9/n200s300d40v40/lengths/recorded/1".parse().unwrap()));
}

#[test]
fn sequences_differ_and_one_is_empty() {
    for storage in [Storage::Lengths, Storage::Packed, Storage::Paged(4)] {
        for batch in 1..6 {
            let case = Case { storage, ..Case::new(Format::F32, [batch, 1, 1], [9, 20, 4, 4]) };
            let spec = of(&case).spec;
            let lengths: Vec<usize> = (0..batch).map(|b| spec.kv_len(b)).collect();
            assert_eq!(lengths.iter().max(), Some(&20), "{case}");
            assert_eq!(lengths.contains(&0), batch >= 3, "{case}: {lengths:?}");
            if let Queries::Packed { .. } = spec.queries {
                let queries: Vec<usize> = (0..batch).map(|b| spec.q_len(b)).collect();
                assert_eq!(queries.iter().max(), Some(&9), "{case}");
                assert_eq!(queries.contains(&0), batch >= 3, "{case}: {queries:?}");
                let both = (0..batch).any(|b| spec.q_len(b) == 0 && spec.kv_len(b) == 0);
                assert!(!both, "{case}: queries without keys and keys without queries are two things");
            }
            if let Keys::Paged { table, pages, .. } = &spec.keys {
                let used: BTreeSet<usize> = table.iter().flatten().copied().collect();
                assert!(used.len() < *pages, "{case}: there is a page nobody owns");
                let shared = table.iter().map(Vec::len).sum::<usize>() > used.len();
                assert!(shared || batch < 2 || lengths.iter().filter(|n| **n >= 4).count() < 2, "{case}: {table:?}");
            }
        }
    }
}

/// Whether some row of some sequence sees no key: what the id does not say.
fn has_empty_rows(spec: &AttentionSpec) -> bool {
    (0..spec.batch).any(|b| {
        (0..spec.q_heads).any(|h| (0..spec.q_len(b)).any(|i| !(0..spec.kv_len(b)).any(|j| spec.visible(b, h, i, j))))
    })
}

#[test]
fn suites_are_sound_and_cover_every_feature_in_every_format() {
    for (suite, least) in [(Suite::Quick, 3), (Suite::Full, 8)] {
        let all = cases(suite, 0);
        let mut counts: BTreeMap<(Feature, &str), usize> = BTreeMap::new();
        let mut data: BTreeSet<(Distribution, &str)> = BTreeSet::new();
        for case in &all {
            let problem = generate(case).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(problem.spec.validate(), Ok(()), "{case}");
            assert_eq!(case.to_string().parse::<Case>().as_ref(), Ok(case));
            let empty = has_empty_rows(&problem.spec).then_some(Feature::EmptyRows);
            for feature in case.features().into_iter().chain(empty) {
                *counts.entry((feature, case.format.name)).or_default() += 1;
            }
            data.insert((case.distribution, case.format.name));
        }
        for format in FORMATS {
            for feature in Feature::ALL {
                let n = counts.get(&(feature, format.name)).copied().unwrap_or(0);
                assert!(n >= least, "{suite:?}: {n} cases of {} in {}", feature.name(), format.name);
            }
            for distribution in Distribution::ALL {
                assert!(data.contains(&(distribution, format.name)), "{suite:?}: {}", distribution.name());
            }
        }
        let ids: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert!(ids.len() * 100 >= all.len() * 98, "{suite:?}: {} of {} ids are distinct", ids.len(), all.len());
        let aligned = all.iter().filter(|case| case.causal && case.align == CausalAlign::TopLeft).count();
        assert!(aligned * 20 > all.len(), "{suite:?}: {aligned} of {}", all.len());
        println!("{suite:?}: {} cases", all.len());
    }
}

#[test]
fn a_seed_shifts_all_data() {
    let known: Vec<Case> = regressions().unwrap().into_iter().map(|(case, _)| case).collect();
    let [here, there] = [0, 9]
        .map(|seed| cases(Suite::Quick, seed).into_iter().filter(|case| !known.contains(case)).collect::<Vec<Case>>());
    assert!(here.len() > 500 && here.iter().all(|case| !there.contains(case)));
}

/// A line of the file that is no id would take the whole file with it.
#[test]
fn regressions_are_cases_with_reasons() {
    let all = regressions().unwrap();
    assert!(!all.is_empty());
    let suite = cases(Suite::Quick, 0);
    for (case, reason) in &all {
        assert!(reason.len() > 10, "{case}: `{reason}`");
        assert!(suite.contains(case), "{case}");
    }
}
