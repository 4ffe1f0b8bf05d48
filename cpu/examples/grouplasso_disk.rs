//! A million features of a thousand samples, 2 GB in half precision on disk, solved within 512 MiB of memory.
//!
//! `cargo run --release -p tilewright-cpu --example grouplasso_disk -- --dir /tmp`
//!
//! The features are of eight layers: rectified mixtures of 64 hidden factors and noise, as activations are. Ten classes depend
//! on fifty of them. The file is made if it is not there, and the same on every machine.

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tilewright_cpu::CpuGroupLasso;
use tilewright_cpu::grouplasso::source::{FeatureSource, Features, Orientation};
use tilewright_cpu::grouplasso::{Event, Memory, Streamed, StreamingGroupLasso};
use tilewright_grouplasso::{GroupLassoSpec, Loss, Standardise, Stopping, Targets, f16};

/// A group lasso whose features are larger than memory.
#[derive(Parser)]
struct Options {
    /// Where the file of features is, or is put.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[arg(long, default_value_t = 1_000_000)]
    features: usize,
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    #[arg(long, default_value_t = 10)]
    classes: usize,
    /// The least λ without any features, divided by this.
    #[arg(long, default_value_t = 10.0)]
    ratio: f64,
    /// The relative duality gap to reach.
    #[arg(long, default_value_t = 1e-4)]
    gap: f64,
    /// Of memory, at most, with the program itself and 64 MiB to spare.
    #[arg(long, default_value_t = 512)]
    mebibytes: u64,
    /// Threads; as many as there are cores by default.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Removes the file at the end.
    #[arg(long)]
    remove: bool,
}

/// Samples' hidden factors; the truth's features.
const FACTORS: usize = 64;
const TRUE_FEATURES: usize = 50;

/// What the program needs beside the solver, generously.
const PROGRAM: u64 = 64;

fn main() -> Result<()> {
    let options = Options::parse();
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let path = options.dir.join(format!("grouplasso_{}x{}.npy", options.features, options.samples));
    if !path.exists() {
        let begun = Instant::now();
        generate(&path, options.features, options.samples)?;
        println!("made {} in {:.1} s", path.display(), begun.elapsed().as_secs_f64());
    }
    let outcome = solve(&options, &path);
    if options.remove {
        fs::remove_file(&path)?;
    }
    outcome
}

fn solve(options: &Options, path: &Path) -> Result<()> {
    let features = Features::open(path, Orientation::Samples(options.samples))?;
    let labels = labels(&features, options.classes)?;
    let targets = Targets::Labels { labels: &labels, classes: options.classes };
    let problem = Streamed { x: &features, targets, sample_weights: None };
    let memory = Memory { bytes: (options.mebibytes.saturating_sub(PROGRAM)) << 20 };
    let solver = StreamingGroupLasso::<_, f32>::new(CpuGroupLasso, memory);
    let mut spec = GroupLassoSpec::rows(Loss::Multinomial, 0.0);
    spec.standardise = Standardise { centre: true, scale: true };

    let begun = Instant::now();
    spec.lambda = solver.lambda_max(&spec, &problem)? / options.ratio;
    println!("λ = λ_max / {} = {:.4e}, found in {:.2} s", options.ratio, spec.lambda, begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let bar = ProgressBar::new(features.features() as u64);
    bar.set_style(ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} features · {msg}")?);
    let mut reports = Vec::new();
    let mut watch = |event: &Event| {
        match event {
            Event::Features { pass, done, .. } => {
                bar.set_prefix(format!("pass {pass}"));
                bar.set_position(*done as u64);
            }
            Event::Pass(progress) => {
                let line = format!("gap {:.2e}, {} active", progress.relative_gap, progress.active);
                reports.push(format!("{:6.2} s  pass {}: {line}", begun.elapsed().as_secs_f64(), progress.iterations));
                bar.set_message(line);
            }
            Event::Inner(progress) => bar.set_message(format!("working set: gap {:.2e}", progress.relative_gap)),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let answer =
        solver.solve(&spec, &problem, &Stopping { gap: options.gap, ..Stopping::default() }, None, &mut watch)?;
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", reports.join("\n"));
    let certificate = &answer.certificate;
    println!("{}: {} passes, {} features active", answer.stopped, answer.iterations, certificate.active);
    println!("certified relative gap {:.3e}, objective {:.6}", certificate.relative_gap(), certificate.objective);
    println!("{seconds:.2} s, {:.2} s a pass over {}", seconds / answer.iterations as f64, size(&fs::metadata(path)?));
    match peak_memory() {
        Some(bytes) => println!("peak memory {:.0} MiB of {} allowed", bytes / f64::from(1 << 20), options.mebibytes),
        None => println!("peak memory is not known on this system"),
    }
    Ok(())
}

fn size(file: &fs::Metadata) -> String {
    format!("{:.2} GB", file.len() as f64 / 1e9)
}

/// What Linux says was the most memory of this process at any time.
fn peak_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kib| 1024.0 * kib)
}

/// SplitMix64: a hash of a place.
fn hash(at: u64) -> u64 {
    let x = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A nearly normal number, the sum of four uniform ones, with standard deviation [`UNIT`].
fn normal(bits: u64) -> i32 {
    (0..4).map(|part| i32::from((bits >> (16 * part)) as u16)).sum::<i32>() - 2 * 0xffff
}

const UNIT: i32 = 37837;

/// Feature after feature, as NumPy would save an array of `d × n`.
fn generate(path: &Path, features: usize, samples: usize) -> Result<()> {
    let beside = path.with_extension("part");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&beside).context(beside.display().to_string())?);
    let header = format!("{{'descr': '<f2', 'fortran_order': False, 'shape': ({features}, {samples}), }}");
    file.write_all(b"\x93NUMPY\x01\x00\x76\x00")?;
    writeln!(file, "{header:<117}")?;
    let factors: Vec<i32> = (0..(FACTORS * samples) as u64).map(|at| normal(hash(at))).collect();
    let bar = ProgressBar::new(features as u64);
    bar.set_style(ProgressStyle::with_template("making {bar:40} {pos}/{len} features")?);
    let mut column = vec![0i32; samples];
    let mut bytes = Vec::new();
    for feature in 0..features {
        let layer = (8 * feature / features) as i32;
        let choice = hash(!(feature as u64));
        column.fill(-UNIT / 8 * (1 + layer % 3));
        for part in 0..4 {
            let bits = choice >> (16 * part);
            let factor = &factors[(bits as usize % FACTORS) * samples..][..samples];
            let sign = if bits >> 15 & 1 == 1 { 1 } else { -1 };
            column.iter_mut().zip(factor).for_each(|(x, z)| *x += sign * z / 2);
        }
        let first = ((feature + FACTORS) * samples) as u64;
        bytes.clear();
        for (i, x) in column.iter().enumerate() {
            // What a rectifier lets through.
            let x = (x + normal(hash(first + i as u64)) / 2).max(0);
            bytes.extend_from_slice(&f16::from_f32(x as f32 / UNIT as f32).to_le_bytes());
        }
        file.write_all(&bytes)?;
        if feature % 4096 == 0 {
            bar.set_position(feature as u64);
        }
    }
    bar.finish_and_clear();
    file.into_inner()?.sync_all()?;
    fs::rename(beside, path)?;
    Ok(())
}

/// Classes by the greatest of as many mixtures of the true features, disturbed by Gumbel noise.
fn labels(features: &Features, classes: usize) -> Result<Vec<u32>> {
    let (samples, all) = (features.samples(), features.features());
    let mut scores = vec![0.0; samples * classes];
    let mut column = vec![0.0; samples];
    for k in 0..TRUE_FEATURES {
        let feature = (2 * k + 1) * all / (2 * TRUE_FEATURES);
        features.read(feature..feature + 1, &mut column)?;
        for class in 0..classes {
            let weight = f64::from(normal(hash((1 << 60) + (k * classes + class) as u64))) / f64::from(UNIT);
            (0..samples).for_each(|i| scores[i * classes + class] += weight * column[i]);
        }
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let deviation = (scores.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / scores.len() as f64).sqrt();
    let class_of = |i: usize| {
        let score = |class: usize| {
            let uniform = (hash((1 << 61) + (i * classes + class) as u64) >> 11) as f64 * 2f64.powi(-53) + 1e-18;
            3.0 * scores[i * classes + class] / deviation - (-uniform.ln()).ln()
        };
        (0..classes).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap_or(0) as u32
    };
    Ok((0..samples).map(class_of).collect())
}
