//! The example that measures what attention costs, in small: its figures are there, and files appear.
#![allow(clippy::unwrap_used)]

mod counting;
#[path = "../examples/attention_cost/curves.rs"]
mod curves;
#[path = "../examples/shared/files.rs"]
mod files;
#[path = "../examples/attention_cost/options.rs"]
#[allow(dead_code)]
mod options;
#[path = "../examples/attention_cost/plot.rs"]
mod plot;
#[path = "../examples/attention_cost/problem.rs"]
mod problem;
#[path = "../examples/attention_cost/threads.rs"]
#[allow(dead_code)]
mod threads;

use curves::{Cost, Row};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// One test, so that nothing else is counted.
#[test]
fn a_dry_run() {
    let directory = tempfile::tempdir().unwrap();
    let (json, svg) = (directory.path().join("curves.json"), directory.path().join("curves.svg"));
    let lengths = vec![512, 1024];
    let settings = curves::Settings {
        lengths,
        heads: 1,
        dim: 16,
        causal: false,
        rounds: 1,
        json: Some(json.clone()),
        svg: Some(svg.clone()),
    };
    curves::run(&settings).unwrap();
    assert!(std::fs::read_to_string(svg).unwrap().trim_end().ends_with("</svg>"));
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let passes: Vec<_> = rows.iter().map(|row| (row["length"].as_u64(), row["backward"].as_bool())).collect();
    assert_eq!(passes, [(512, false), (512, true), (1024, false), (1024, true)].map(|(n, b)| (Some(n), Some(b))));
    for row in &rows {
        let matrix = row["length"].as_u64().unwrap().pow(2) * 4;
        assert!(row["standard"]["bytes"].as_u64().unwrap() >= matrix, "standard attention holds its scores: {row}");
        assert!(row["tilewright"]["seconds"].as_f64().unwrap() > 0.0, "{row}");
    }

    let ratios = threads::measure(&threads::Settings { rounds: 1, shorter: 64 }).unwrap();
    assert!(ratios.len() == 12 && ratios.iter().all(|(_, ratio)| *ratio > 0.0), "{ratios:?}");

    let rows = options::measure(&options::Settings { length: 512, heads: 1, dim: 16, rounds: 1 }).unwrap();
    assert!(rows.len() == 14 && rows.iter().flat_map(|row| row.times).all(|ratio| ratio > 0.0), "{rows:?}");
    assert!(rows[0].share == 1.0 && rows[0].times == [1.0; 2] && rows[1].share < 0.51, "{rows:?}");
    let shares: Vec<f64> = rows[11..].iter().map(|row| row.share).collect();
    assert!(shares.is_sorted_by(|more, fewer| more > fewer), "blocks: {shares:?}");
    assert!(options::table(&rows).lines().count() == 16);

    let cost = |seconds, bytes| Cost { seconds, bytes };
    let row = Row { length: 8, backward: true, tilewright: cost(0.5, 1 << 20), standard: Some(cost(1.0, 3 << 20)) };
    let table = curves::table(&[row.clone(), Row { standard: None, ..row }]);
    assert!(table.contains("| 8 | backward | 500.0 | 1000.0 | 2.0 | 1.0 | 3.0 | 3 |"), "{table}");
    assert!(table.contains("| 8 | backward | 500.0 | – | – | 1.0 | – | – |"), "{table}");
    assert!(problem::median(vec![3.0, 1.0, 2.0]) == 2.0 && problem::median(vec![4.0, 1.0]) == 2.5);
}
