//! What the options of the specification cost: CPU time of a visible pair of query and key, over that of a pair without options.

use crate::problem::{Pass, Problem, cpu_seconds, median, seconds};
use anyhow::{Result, ensure};
use ndarray::Array4;
use rayon::ThreadPoolBuilder;
use tilewright_attention::{AttentionSpec, BlockMask, Dropout, Keys, Queries, Window};
use tilewright_cpu::CpuAttention;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Settings {
    /// Queries and keys.
    #[arg(long, default_value_t = 2048)]
    pub(crate) length: usize,
    /// Heads.
    #[arg(long, default_value_t = 4)]
    pub(crate) heads: usize,
    /// Features of a head.
    #[arg(long, default_value_t = 64)]
    pub(crate) dim: usize,
    /// Times that each option has its turn.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

/// An option, the share of pairs it leaves visible, and the times of its passes in each round, a visible pair.
struct Trial {
    name: String,
    problem: Problem,
    share: f64,
    times: [Vec<f64>; 2],
}

impl Trial {
    fn new(name: impl Into<String>, problem: Problem) -> Self {
        let share = visible(&problem.spec);
        Self { name: name.into(), problem, share, times: [Vec::new(), Vec::new()] }
    }

    fn round(&mut self, method: &CpuAttention) -> Result<()> {
        for (pass, times) in [Pass::Forward, Pass::Backward].into_iter().zip(&mut self.times) {
            times.push(seconds(cpu_seconds, || self.problem.run(method, pass))? / self.share);
        }
        Ok(())
    }
}

/// An option's name, the share of pairs that it leaves visible, and what a visible pair costs forward and backward as a multiple of
/// one without options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) share: f64,
    pub(crate) times: [f64; 2],
}

pub(crate) fn run(settings: &Settings) -> Result<()> {
    println!("{}", table(&measure(settings)?));
    Ok(())
}

pub(crate) fn measure(settings: &Settings) -> Result<Vec<Row>> {
    let Settings { length, heads, dim, rounds } = *settings;
    ensure!(length >= 8 && heads > 0 && dim > 0 && rounds > 0, "at least eight keys, a head, a feature and a round");
    let (method, mut trials) = (CpuAttention::default(), trials(heads, length, dim));
    let one_thread = ThreadPoolBuilder::new().num_threads(1).build()?;
    one_thread
        .install(|| (0..rounds).try_for_each(|_| trials.iter_mut().try_for_each(|trial| trial.round(&method))))?;
    let plain = trials[0].times.clone();
    let ratio = |trial: &Trial, pass: usize| {
        median(trial.times[pass].iter().zip(&plain[pass]).map(|(time, plain)| time / plain).collect())
    };
    let row =
        |trial: &Trial| Row { name: trial.name.clone(), share: trial.share, times: [0, 1].map(|p| ratio(trial, p)) };
    Ok(trials.iter().map(row).collect())
}

/// The first without any option.
fn trials(heads: usize, n: usize, dim: usize) -> Vec<Trial> {
    let plain = AttentionSpec::dense(1, heads, n, n, dim);
    let of = |spec: AttentionSpec| Problem::new(spec);
    let with = |bias: Option<[usize; 4]>, sink: bool| Problem::new(plain.clone()).with(bias, sink);
    let mut trials = vec![
        Trial::new("no option", of(plain.clone())),
        Trial::new("causal", of(AttentionSpec { causal: true, ..plain.clone() })),
        Trial::new("window of an eighth", of(AttentionSpec { causal: true, window: left(n / 8), ..plain.clone() })),
        Trial::new("softcap", of(AttentionSpec { softcap: Some(20.0), ..plain.clone() })),
        Trial::new("ALiBi", of(AttentionSpec { alibi: Some(vec![0.01; heads]), ..plain.clone() })),
        Trial::new("bias, a number a pair", with(Some([1, heads, n, n]), false)),
        Trial::new("bias, a number a key", with(Some([1, 1, 1, n]), false)),
        Trial::new("sink", with(None, true)),
        Trial::new("dropout", of(AttentionSpec { dropout: Some(Dropout { p: 0.1, seed: 1 }), ..plain.clone() })),
        Trial::new("four sequences, packed", of(packed(&plain, n))),
        Trial::new("keys in pages of 16", of(paged(&plain, n))),
    ];
    for (name, one_in) in [("half", 2), ("a quarter", 4), ("an eighth", 8)] {
        let block_mask = Some(blocks(n, one_in));
        let spec = AttentionSpec { block_mask, ..plain.clone() };
        trials.push(Trial::new(format!("{name} of the blocks of 64 by 64"), of(spec)));
    }
    trials
}

fn left(keys: usize) -> Window {
    Window { left: Some(keys), right: None }
}

/// Four sequences, a quarter of the length each, end to end.
fn packed(plain: &AttentionSpec, n: usize) -> AttentionSpec {
    let cu_seqlens: Vec<usize> = (0..=4).map(|quarter| n * quarter / 4).collect();
    let queries = Queries::Packed { cu_seqlens: cu_seqlens.clone() };
    AttentionSpec { batch: 4, queries, keys: Keys::Packed { cu_seqlens }, ..plain.clone() }
}

/// Pages in reverse order.
fn paged(plain: &AttentionSpec, n: usize) -> AttentionSpec {
    let pages = n.div_ceil(16);
    let table = vec![(0..pages).rev().collect()];
    AttentionSpec { keys: Keys::Paged { pages, page_size: 16, table, lengths: vec![n] }, ..plain.clone() }
}

/// Blocks of 64 by 64, scattered, of which one in so many is set.
fn blocks(n: usize, one_in: u64) -> BlockMask {
    let side = n.div_ceil(64);
    let hash = |i: usize, j: usize| ((i * side + j + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let set = |(_, _, i, j): (usize, usize, usize, usize)| hash(i, j).is_multiple_of(one_in);
    BlockMask { block_q: 64, block_k: 64, blocks: Array4::from_shape_fn([1, 1, side, side], set) }
}

/// The share of the pairs of the longest sequences' rectangle that is visible, all sequences together.
fn visible(spec: &AttentionSpec) -> f64 {
    let of = |b: usize| {
        let rows = 0..spec.q_len(b);
        rows.map(|i| (0..spec.kv_len(b)).filter(|&j| spec.visible(b, 0, i, j)).count()).sum::<usize>()
    };
    let pairs: usize = (0..spec.batch).map(of).sum();
    let all = (0..spec.batch).map(|b| spec.q_len(b)).sum::<usize>().pow(2);
    pairs as f64 / all as f64
}

/// As Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let line = |Row { name, share, times: [forward, backward] }: &Row| {
        format!("| {name} | {:.0} % | {forward:.2} | {backward:.2} |", 100.0 * share)
    };
    let head = ["| | visible | forward | backward |".into(), "|---|---:|---:|---:|".into()];
    head.into_iter().chain(rows.iter().map(line)).collect::<Vec<String>>().join("\n")
}
