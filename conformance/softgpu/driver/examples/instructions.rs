//! The golden results of the software GPU's instructions, asked of the device that the driver of this machine has: a real
//! one checks our reading of the manual; the software one, this program.
//!
//! ```text
//! instructions [REPORT.json]
//! ```
//!
//! Exit code 0: every result is the golden one; 1: some are not, and the first ones are listed; 2: there is no device, or it
//! broke off.

#[path = "../../tests/golden/mod.rs"]
mod golden;
#[path = "../../tests/golden/tensor.rs"]
mod warps;

use golden::{APPROXIMATIONS, Golden, arguments, error, golden, kernel};
use std::fmt;
use std::process::ExitCode;
use tilewright_cuda::{Buffer, Config, CudaError, CudaVersion, Device, Unit};

/// Differences listed at most.
const LISTED: usize = 40;

/// Why there is no verdict.
enum Broken {
    Device(CudaError),
    Form(String, CudaError),
    Report(String, std::io::Error),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Form(form, error) => write!(f, "{form}: {error}"),
            Self::Report(path, error) => write!(f, "{path}: {error}"),
        }
    }
}

/// What was found.
#[derive(Default)]
struct Tally {
    results: usize,
    wrong: usize,
    listed: Vec<String>,
}

impl Tally {
    fn count(&mut self, right: bool, text: impl FnOnce() -> String) {
        self.results += 1;
        self.wrong += usize::from(!right);
        if !right && self.listed.len() < LISTED {
            self.listed.push(text());
        }
    }
}

fn main() -> ExitCode {
    match try_all(std::env::args().nth(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(broken) => {
            eprintln!("instructions: {broken}");
            ExitCode::from(2)
        }
    }
}

fn try_all(report: Option<String>) -> Result<bool, Broken> {
    let device = Device::open(0).map_err(Broken::Device)?;
    let (forms, mut tally) = (golden(), Tally::default());
    for Golden { form, types, rows } in &forms {
        let inputs: Vec<[u64; 3]> = rows.iter().map(|row| row.0).collect();
        let got = apply(&device, form, types, &inputs).map_err(|error| Broken::Form((*form).to_owned(), error))?;
        for ((x, expected), got) in rows.iter().zip(got) {
            tally.count(got == *expected, || format!("{form} of {x:x?}: got {got:x}, expected {expected:x}"));
        }
    }
    let xs = arguments();
    let inputs: Vec<[u64; 3]> = xs.iter().map(|x| [x.to_bits().into(), 0, 0]).collect();
    for (form, exact, bound) in APPROXIMATIONS {
        let got = apply(&device, form, "32 32", &inputs).map_err(|error| Broken::Form((*form).to_owned(), error))?;
        for (x, got) in xs.iter().zip(got) {
            let error = error(got, exact(f64::from(*x)));
            tally.count(error <= bound, || {
                format!("{form} of {x}: got {error} units of error, expected at most {bound}")
            });
        }
    }
    let trials = warps::trials();
    for trial in &trials {
        let got = apply_to_warp(&device, trial).map_err(|error| Broken::Form(trial.name.clone(), error))?;
        for (at, (expected, got)) in trial.expected.iter().zip(got).enumerate() {
            let (lane, word) = (at / warps::WORDS, at % warps::WORDS);
            tally.count(got == *expected, || {
                format!("{}, lane {lane}, word {word}: got {got:x}, expected {expected:x}", trial.name)
            });
        }
    }
    for line in &tally.listed {
        println!("{line}");
    }
    let count = forms.len() + APPROXIMATIONS.len() + trials.len();
    println!("{}: {} results of {count} forms, {} wrong", device.name(), tally.results, tally.wrong);
    if let Some(path) = report {
        write(&path, &json(&device, count, &tally)).map_err(|error| Broken::Report(path, error))?;
    }
    Ok(tally.wrong == 0)
}

/// What the form makes of these inputs, a thread each.
fn apply(device: &Device, form: &str, types: &str, inputs: &[[u64; 3]]) -> Result<Vec<u64>, CudaError> {
    let text = kernel(form, types);
    run(device, form, text, inputs.as_flattened(), inputs.len(), inputs.len())
}

/// What a warp makes of its words.
fn apply_to_warp(device: &Device, trial: &warps::Trial) -> Result<Vec<u64>, CudaError> {
    run(device, &trial.name, trial.ptx.clone(), &trial.words, 32, trial.expected.len())
}

fn run(
    device: &Device,
    name: &str,
    ptx: String,
    inputs: &[u64],
    threads: usize,
    words: usize,
) -> Result<Vec<u64>, CudaError> {
    // A unit is for the life of the program, as all kernels that ship are.
    let name: &'static str = String::leak(name.to_owned());
    let unit: &'static Unit = Box::leak(Box::new(Unit { name, ptx: String::leak(ptx) }));
    let kernel = device.kernel(unit, "k")?;
    let from = Buffer::from_slice(device, "inputs", inputs)?;
    let mut to = Buffer::<u64>::zeros(device, "results", words)?;
    let launch = kernel.launch(Config::new(1, threads as u32)).write(&mut to).read(&from);
    // SAFETY: a thread reads and writes its own words, of which there are so many.
    unsafe { launch.run() }?;
    to.to_vec()
}

/// All of it or nothing.
fn write(path: &str, text: &str) -> std::io::Result<()> {
    let temporary = format!("{path}.part");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)
}

fn json(device: &Device, forms: usize, tally: &Tally) -> String {
    let (major, minor) = device.capability();
    let report = serde_json::json!({
        "device": device.name(),
        "capability": format!("{major}.{minor}"),
        "cuda": CudaVersion(device.driver_version()).to_string(),
        "forms": forms,
        "results": tally.results,
        "wrong": tally.wrong,
        "listed": tally.listed,
    });
    format!("{report:#}\n")
}
