//! The cost model against the paper, against itself, and against the page that prints its numbers.
#![allow(clippy::unwrap_used, missing_docs)]

use proptest::prelude::*;
use tilewright_compression::cost::{Cluster, Cost, Device, Footprint, Link, Model, Overlap, Pairs, Published};
use tilewright_compression::{CompressionError, IndexCoding, LONGEST, ValueFormat, Wire};

const PAGE: &str = include_str!("../../../docs/src/compression-cost.md");

const MODELS: [Model; 3] = [
    Model { name: "ResNet-50", parameters: 25_600_000, compute: 0.09, tensors: 1 },
    Model { name: "GPT-2 small", parameters: 124_000_000, compute: 0.25, tensors: 1 },
    Model { name: "1.3 billion", parameters: 1_300_000_000, compute: 1.0, tensors: 1 },
];

const METHODS: [(&str, Footprint); 4] = [
    ("top-k, exact", Footprint::TOP_K),
    ("DGC", Footprint::DGC),
    ("DRAGONN", Footprint::DRAGONN),
    ("one fused pass", Footprint::FUSED),
];

fn fused(gigabits: f64, workers: usize, density: f64) -> Cost {
    let cluster = Cluster { link: Link::gigabits(gigabits), device: Device::A100, workers };
    Cost::new(cluster, Footprint::FUSED, Pairs::plain(density)).unwrap()
}

fn speedups(cost: Cost, model: &Model) -> [f64; 2] {
    [Overlap::None, Overlap::Full].map(|overlap| cost.speedup(model, overlap).unwrap())
}

/// The paper's gains over DGC, from constants none of which was fitted to them.
#[test]
fn the_papers_gains_are_predicted() {
    for (row, expected) in Published::ROWS.iter().zip([1.61, 1.58, 1.74, 3.31]) {
        let predicted = row.predict().unwrap();
        assert!((predicted - expected).abs() < 0.005, "{}: {predicted}", row.model.name);
        assert!((predicted / row.speedup - 1.0).abs() < 0.3, "{}: {predicted}", row.model.name);
    }
}

/// Speed-ups computed by another program from the same equations, without overlap and with.
#[test]
fn other_links_are_predicted_alike() {
    let table = [
        (0, 8, [[2.55, 1.57], [1.62, 0.99], [1.15, 0.99], [1.55, 0.94]]),
        (0, 64, [[2.48, 1.61], [1.64, 0.93], [1.18, 0.96], [1.18, 0.67]]),
        (1, 8, [[3.66, 2.69], [2.07, 1.09], [1.26, 0.99], [1.92, 1.01]]),
        (2, 8, [[7.65, 6.72], [3.73, 2.78], [1.68, 0.97], [3.11, 2.32]]),
        (2, 64, [[5.93, 5.29], [3.46, 2.65], [1.69, 0.93], [1.37, 1.05]]),
    ];
    for (model, workers, expected) in table {
        let columns = [(10.0, 0.001), (25.0, 0.001), (100.0, 0.001), (25.0, 0.01)];
        for ((gigabits, density), expected) in columns.into_iter().zip(expected) {
            let got = speedups(fused(gigabits, workers, density), &MODELS[model]);
            for (got, expected) in got.into_iter().zip(expected) {
                let name = MODELS[model].name;
                assert!(
                    (got / expected - 1.0_f64).abs() < 0.01,
                    "{name}, {workers}, {gigabits}: {got}, not {expected}"
                );
            }
        }
    }
}

/// What DRAGONN saves over DGC in bytes of device memory, and how little of that is the selection that hashing replaces.
#[test]
fn the_hash_is_the_smaller_part() {
    let workers = Published::CLUSTER.workers as f64;
    let decode = |f: Footprint| f.decode + f.decode_each * workers;
    let (dgc, dragonn) = (Footprint::DGC, Footprint::DRAGONN);
    let (selecting, decoding) = (dgc.select - dragonn.select, decode(dgc) - decode(dragonn));
    assert_eq!((selecting, decoding), (41.0, 252.0));
    assert!(selecting / (selecting + decoding) < 1.0 / 7.0);
}

fn clusters() -> impl Strategy<Value = Cluster> {
    let link = (prop_oneof![Just(0.0), 1e-7_f64..1e-3], 1e8_f64..1e11)
        .prop_map(|(latency, bandwidth)| Link { latency, bandwidth });
    let device = (1e10_f64..5e12, 0_f64..1e-4).prop_map(|(bandwidth, launch)| Device { bandwidth, launch });
    (link, device, 1_usize..2000).prop_map(|(link, device, workers)| Cluster { link, device, workers })
}

proptest! {
    /// `2(N − 1)` rounds, in each of which every rank passes one `N`th of the vector on; `N − 1` rounds of one message.
    #[test]
    fn collectives_cost_what_their_rounds_cost(cluster in clusters(), elements in 0_usize..1 << 30, density in 1e-5_f64..1.0) {
        let cost = Cost::new(cluster, Footprint::DGC, Pairs { density, bytes: 6.0 }).unwrap();
        let Cluster { link, workers, .. } = cluster;
        let round = |bytes: f64| link.latency + bytes / link.bandwidth;
        let ring: f64 = (0..2 * (workers - 1)).map(|_| round(4.0 * elements as f64 / workers as f64)).sum();
        let gather: f64 = (1..workers).map(|_| round(6.0 * density * elements as f64)).sum();
        prop_assert!((cost.dense_ring(elements) - ring).abs() <= 1e-9 * ring);
        prop_assert!((cost.sparse_all_gather(elements) - gather).abs() <= 1e-9 * gather);
        // Fifteen kernels each that DRAGONN launches, and one read and one write.
        let cost = Cost::new(cluster, Footprint::DRAGONN, Pairs::plain(density)).unwrap();
        let compress = 8.0 * elements as f64 / cluster.device.bandwidth + 3.0 * 15.0 * cluster.device.launch;
        prop_assert!((cost.compress(elements, 3) - compress).abs() <= 1e-9 * compress);
    }

    /// The least size is worth it, one less is not; and it is where the two straight lines cross.
    #[test]
    fn the_break_even_is_one(cluster in clusters(), method in 0_usize..4, density in 1e-4_f64..0.1) {
        let cost = Cost::new(cluster, METHODS[method].1, Pairs::plain(density)).unwrap();
        let gain = |d: usize| cost.dense_ring(d) - cost.compress(d, 1) - cost.sparse_all_gather(d);
        let slope = (gain(LONGEST) - gain(0)) / LONGEST as f64;
        let crossing = -gain(0) / slope;
        if let Some(size) = cost.break_even_size() {
            prop_assert!(cost.worth_compressing(size));
            prop_assert!(size == 1 || !cost.worth_compressing(size - 1));
            prop_assert!(size == 1 || (size as f64 - crossing).abs() <= 1.0 + 1e-6 * crossing, "{} {}", size, crossing);
        } else {
            prop_assert!(!cost.worth_compressing(LONGEST));
            prop_assert!(slope <= 1e-15 || crossing > 0.999 * LONGEST as f64, "{} {}", slope, crossing);
        }
    }

    /// The bound on workers says where the gather overtakes the ring in time, if nothing but bytes takes time.
    #[test]
    fn the_worker_count_is_where_gather_and_ring_cross(density in 1e-3_f64..0.5, bytes in 2_f64..8.0) {
        let pairs = Pairs { density, bytes };
        let at = |workers: usize| {
            let link = Link { latency: 0.0, bandwidth: 1e9 };
            let cost = Cost::new(Cluster { link, device: Device::V100, workers }, Footprint::FUSED, pairs).unwrap();
            (cost.largest_worker_count(), cost.sparse_all_gather(1 << 30) / cost.dense_ring(1 << 30))
        };
        let (largest, _) = at(2);
        if largest >= 2 {
            prop_assert!(at(largest).1 < 1.0 + 1e-9);
        }
        prop_assert!(at(largest.max(1) + 1).1 > 1.0 - 1e-9);
    }
}

#[test]
fn alone_there_is_nothing_to_gain() {
    let cost = fused(1.0, 1, 0.001);
    assert_eq!((cost.dense_ring(1000), cost.sparse_all_gather(1000)), (0.0, 0.0));
    assert_eq!(cost.break_even_size(), None);
}

#[test]
fn round_densities_have_round_worker_counts() {
    for (density, most) in [(1e-4, 9999), (1e-3, 999), (0.01, 99), (0.1, 9), (0.5, 1), (1.0, 0)] {
        assert_eq!(fused(10.0, 8, density).largest_worker_count(), most);
    }
}

/// Every number in turn replaced by what it must not be.
#[test]
fn nonsense_is_refused_by_name() {
    let cluster = Published::CLUSTER;
    let spoil = |field: usize, x: f64| {
        let (mut cluster, mut footprint, mut pairs) = (cluster, Footprint::DGC, Pairs::plain(0.001));
        *[
            &mut cluster.link.latency,
            &mut cluster.link.bandwidth,
            &mut cluster.device.bandwidth,
            &mut cluster.device.launch,
            &mut footprint.select,
            &mut footprint.decode,
            &mut footprint.decode_each,
            &mut footprint.kernels,
            &mut footprint.kernels_each,
            &mut pairs.bytes,
            &mut pairs.density,
        ][field] = x;
        Cost::new(cluster, footprint, pairs)
    };
    let names = [
        ("link latency", true),
        ("link bandwidth", false),
        ("device bandwidth", false),
        ("kernel launch", true),
        ("bytes to select", true),
        ("bytes to decode", true),
        ("bytes to decode per worker", true),
        ("kernels", true),
        ("kernels per worker", true),
        ("bytes of a pair", false),
        ("density", false),
    ];
    for (at, (name, zero)) in names.into_iter().enumerate() {
        assert!(spoil(at, 0.5).is_ok());
        assert_eq!(spoil(at, 0.0).is_ok(), zero, "{name}: 0");
        for x in [-1.0, f64::NAN, f64::INFINITY] {
            match spoil(at, x) {
                Err(CompressionError::Spec { field, .. }) => assert_eq!(field, name),
                other => panic!("{name}: {x}: {other:?}"),
            }
        }
    }
    assert!(spoil(10, 1.5).is_err());
    let nobody = Cluster { workers: 0, ..cluster };
    let error = Cost::new(nobody, Footprint::DGC, Pairs::plain(0.001)).unwrap_err();
    assert_eq!(error.to_string(), "workers: got 0, expected at least 1");
    for compute in [-1.0, f64::NAN, f64::INFINITY] {
        let model = Model { compute, ..MODELS[0] };
        let cost = fused(10.0, 8, 0.001);
        assert!(cost.dense_step(&model, Overlap::None).is_err() && cost.sparse_step(&model).is_err());
        assert!(cost.speedup(&model, Overlap::Full).is_err());
    }
}

/// The rows below the table head that begins with these cells.
fn table_of_the_page(head: &str) -> Vec<String> {
    let mut lines = PAGE.lines().skip_while(|line| !line.starts_with(head));
    assert!(lines.next().is_some(), "no table '{head}'");
    lines.skip(1).take_while(|line| line.starts_with('|')).map(String::from).collect()
}

fn assert_page_prints(head: &str, rows: &[String]) {
    assert_eq!(table_of_the_page(head), rows, "the page should print:\n{}", rows.join("\n"));
}

#[test]
fn the_page_prints_the_footprints() {
    let rows = METHODS.map(|(name, f)| {
        format!("| {name} | {} | {} + {} N | {} + {} N |", f.select, f.decode, f.decode_each, f.kernels, f.kernels_each)
    });
    assert_page_prints("| method | bytes to select", &rows);
}

#[test]
fn the_page_prints_the_paper() {
    let rows = Published::ROWS.map(|row| {
        let predicted = row.predict().unwrap();
        let off = 100.0 * (predicted / row.speedup - 1.0);
        let dragonn = Cost::new(Published::CLUSTER, Footprint::DRAGONN, Pairs::plain(Published::DENSITY)).unwrap();
        let [dense, _] = speedups(dragonn, &Model { tensors: row.selected, ..row.model });
        format!("| {} | {predicted:.2} | {} | {off:+.0} % | {dense:.1} |", row.model.name, row.speedup)
    });
    assert_page_prints("| model | predicted | paper", &rows);
}

#[test]
fn the_page_prints_the_predictions() {
    let mut rows = Vec::new();
    for model in &MODELS {
        for workers in [8, 64] {
            for gigabits in [10.0, 25.0, 100.0] {
                let cells = [0.001, 0.01].map(|density| {
                    let [plain, overlapped] = speedups(fused(gigabits, workers, density), model);
                    format!("{plain:.2} / {overlapped:.2}")
                });
                rows.push(format!("| {} | {workers} | {gigabits} | {} | {} |", model.name, cells[0], cells[1]));
            }
        }
    }
    assert_page_prints("| model | workers | Gbit/s", &rows);
}

#[test]
fn the_page_prints_the_break_even_sizes() {
    let mut rows = Vec::new();
    for (name, footprint) in &METHODS[..3] {
        for workers in [16, 64, 256] {
            let cells = [10.0, 25.0, 100.0].map(|gigabits| {
                let link = Link { latency: 0.0, ..Link::gigabits(gigabits) };
                let cluster = Cluster { link, device: Device::V100, workers };
                let size = Cost::new(cluster, *footprint, Pairs::plain(0.001)).unwrap().break_even_size();
                size.map_or("never".into(), |size| size.to_string())
            });
            rows.push(format!("| {name} | {workers} | {} |", cells.join(" | ")));
        }
    }
    assert_page_prints("| method | workers | 10 Gbit/s", &rows);
}

#[test]
fn the_page_prints_the_wires() {
    let mut rows = Vec::new();
    for (name, index) in [("plain", IndexCoding::Plain), ("Rice", IndexCoding::Rice)] {
        for value in [ValueFormat::F32, ValueFormat::Bf16] {
            let cells = [1e-4, 1e-3, 0.01, 0.1].map(|density| {
                let pairs = Pairs::encoded(Wire { value, index }, density);
                let cost = Cost::new(Published::CLUSTER, Footprint::FUSED, pairs).unwrap();
                format!("{:.2}; {}", pairs.bytes, cost.largest_worker_count())
            });
            rows.push(format!(
                "| {name}, {} | {} |",
                if value == ValueFormat::F32 { "f32" } else { "bf16" },
                cells.join(" | ")
            ));
        }
    }
    assert_page_prints("| wire | 0.01 %", &rows);
}

/// The two figures in the text on processors: what a gradient costs in a fused pass at 60 GB/s, and in a fast ring.
#[test]
fn the_page_prints_what_a_processor_takes() {
    let device = Device { bandwidth: 60e9, launch: 0.0 };
    let cluster = Cluster { device, link: Link::gigabits(100.0), workers: LONGEST };
    let cost = Cost::new(cluster, Footprint::FUSED, Pairs::plain(0.001)).unwrap();
    let ring = (cost.dense_ring(1 << 30) - cost.dense_ring(0)) / f64::from(1 << 30);
    for seconds in [cost.compress(1 << 30, 1) / f64::from(1 << 30), ring] {
        let figure = format!("{:.2} ns", 1e9 * seconds);
        assert!(PAGE.contains(&figure), "the page should print {figure}");
    }
}
