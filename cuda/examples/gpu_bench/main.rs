//! Times of the kernels on device 0, beside what the same device was measured to be capable of.
//!
//! ```text
//! gpu_bench [--size dry|small|full] [--rounds N] [--json FILE] [--markdown FILE]
//! gpu_bench --probe
//! ```
//!
//! Every round runs each job once, one after the other, so that what drifts drifts for all; the figure is the median of the
//! rounds. A job short enough is repeated until it takes some milliseconds. Exit code 2 without a device, or if anything fails.

mod attention;
mod ceiling;
mod compression;
mod grouplasso;
mod report;

use std::fmt;
use std::process::ExitCode;
use tilewright_compression::CompressionError;
use tilewright_cuda::{CudaError, Device};
use tilewright_grouplasso::GroupLassoError;

/// Milliseconds that a job is repeated for, and the most repetitions.
const ENOUGH: f32 = 10.0;
const REPEATS: f32 = 200.0;

/// Why there are no figures.
enum BenchError {
    Usage(String),
    Cuda(CudaError),
    Compression(CompressionError),
    GroupLasso(GroupLassoError),
    File(String, std::io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Cuda(error) => error.fmt(f),
            Self::Compression(error) => error.fmt(f),
            Self::GroupLasso(error) => error.fmt(f),
            Self::File(path, error) => write!(f, "{path}: {error}"),
        }
    }
}

impl From<CudaError> for BenchError {
    fn from(error: CudaError) -> Self {
        Self::Cuda(error)
    }
}

impl From<CompressionError> for BenchError {
    fn from(error: CompressionError) -> Self {
        Self::Compression(error)
    }
}

/// How large the problems are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Seconds on the software GPU, whose times mean nothing.
    Dry,
    Small,
    Full,
}

impl Size {
    /// One of three.
    fn of<T>(self, dry: T, small: T, full: T) -> T {
        match self {
            Self::Dry => dry,
            Self::Small => small,
            Self::Full => full,
        }
    }
}

/// What a job does, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    /// Floating point operations.
    Flops(f64),
    /// Bytes that have to be read and written, and those of the vector that the time of one reading is compared with.
    Bytes { moved: f64, vector: Option<f64> },
}

/// One thing to time.
struct Job {
    family: &'static str,
    name: String,
    problem: String,
    work: Work,
    run: Box<dyn FnMut() -> Result<(), BenchError>>,
}

/// What was asked for.
struct Args {
    size: Size,
    rounds: usize,
    json: Option<String>,
    markdown: Option<String>,
}

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("--probe") => probe(),
        _ => arguments(std::env::args().skip(1)).and_then(|args| bench(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gpu_bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether there is a device, and which.
fn probe() -> Result<(), BenchError> {
    println!("{}", Device::open(0)?.name());
    Ok(())
}

fn arguments(mut list: impl Iterator<Item = String>) -> Result<Args, BenchError> {
    let mut args = Args { size: Size::Small, rounds: 0, json: None, markdown: None };
    while let Some(option) = list.next() {
        let missing = || BenchError::Usage(format!("{option}: got nothing, expected a value"));
        let value = list.next().ok_or_else(missing)?;
        let wrong = |expected: &str| BenchError::Usage(format!("{option}: got {value}, expected {expected}"));
        match option.as_str() {
            "--size" => {
                args.size = match value.as_str() {
                    "dry" => Size::Dry,
                    "small" => Size::Small,
                    "full" => Size::Full,
                    _ => return Err(wrong("dry, small or full")),
                }
            }
            "--rounds" => {
                args.rounds =
                    value.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or_else(|| wrong("1 to 1000"))?;
            }
            "--json" => args.json = Some(value),
            "--markdown" => args.markdown = Some(value),
            _ => {
                return Err(BenchError::Usage(format!(
                    "option: got {option}, expected --probe, --size, --rounds, --json or --markdown"
                )));
            }
        }
    }
    if args.rounds == 0 {
        args.rounds = args.size.of(1, 9, 9);
    }
    Ok(args)
}

fn bench(args: &Args) -> Result<(), BenchError> {
    let device = Device::open(0)?;
    let mut jobs = ceiling::jobs(&device, args.size)?;
    jobs.extend(attention::jobs(&device, args.size)?);
    jobs.extend(compression::jobs(&device, args.size)?);
    jobs.extend(grouplasso::jobs(&device, args.size)?);
    let times = measure(&device, &mut jobs, args)?;
    let report = report::Report::new(&device, args, &jobs, &times);
    let markdown = report.markdown();
    print!("{markdown}");
    // All of it or nothing.
    let write = |path: &String, text: String| {
        let temporary = format!("{path}.part");
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, path))
            .map_err(|error| BenchError::File(path.clone(), error))
    };
    args.json.as_ref().map_or(Ok(()), |path| write(path, report.json()))?;
    args.markdown.as_ref().map_or(Ok(()), |path| write(path, markdown))
}

/// Milliseconds of each job in each round, ascending.
fn measure(device: &Device, jobs: &mut [Job], args: &Args) -> Result<Vec<Vec<f32>>, BenchError> {
    let mut repeats = Vec::new();
    for job in &mut *jobs {
        // The first run loads kernels and finds memory.
        (job.run)()?;
        let once = time(device, job, 1)?;
        repeats.push(if args.size == Size::Dry { 1 } else { (ENOUGH / once).clamp(1.0, REPEATS) as usize });
    }
    let mut times = vec![Vec::new(); jobs.len()];
    for _ in 0..args.rounds {
        for ((job, repeats), times) in jobs.iter_mut().zip(&repeats).zip(&mut times) {
            times.push(time(device, job, *repeats)?);
        }
    }
    for times in &mut times {
        times.sort_by(f32::total_cmp);
    }
    Ok(times)
}

/// Milliseconds of one run, on average.
fn time(device: &Device, job: &mut Job, repeats: usize) -> Result<f32, BenchError> {
    let (result, time) = device.time(|| Ok((0..repeats).try_for_each(|_| (job.run)())))?;
    result?;
    Ok(time / repeats as f32)
}

/// Numbers in [-1, 1), from a seed.
fn numbers(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    let mut state = seed | 1;
    (0..len).map(move |_| {
        // Xorshift, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}
