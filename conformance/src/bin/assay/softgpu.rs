//! `assay softgpu`: a kernel of anybody's on the software GPU, under one schedule after the other.

use crate::args::SoftgpuArgs;
use crate::output::say;
use anyhow::{Context, anyhow, bail};
use half::{bf16, f16};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use tilewright_conformance::file::replace;
use tilewright_conformance::report::new_table;
use tilewright_softgpu::{Gpu, KernelInfo, Launch, Module, Settings, Stats};

/// What a kernel is given for a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Argument {
    /// The bytes themselves.
    Value(Vec<u8>),
    /// The address of a buffer of so many zeros.
    Zeros(u64),
    /// The address of a buffer that nothing was written to.
    New(u64),
    /// The address of a buffer with a file's contents.
    File(PathBuf),
}

impl FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("got `{text}`, expected TYPE=VALUE, zeros=BYTES, new=BYTES, file=PATH or hex=DIGITS");
        let (kind, value) = text.split_once('=').ok_or_else(expected)?;
        macro_rules! number {
            ($T:ty) => {
                value
                    .parse::<$T>()
                    .map(|x| Self::Value(x.to_le_bytes().to_vec()))
                    .map_err(|error| format!("`{value}` for {kind}: {error}"))
            };
        }
        match kind {
            "u8" => number!(u8),
            "i8" => number!(i8),
            "u16" => number!(u16),
            "i16" => number!(i16),
            "u32" => number!(u32),
            "i32" => number!(i32),
            "u64" => number!(u64),
            "i64" => number!(i64),
            "f16" => number!(f16),
            "bf16" => number!(bf16),
            "f32" => number!(f32),
            "f64" => number!(f64),
            "hex" => hexadecimal(value).map(Self::Value).ok_or_else(expected),
            "zeros" => value.parse().map(Self::Zeros).map_err(|_| expected()),
            "new" => value.parse().map(Self::New).map_err(|_| expected()),
            "file" => Ok(Self::File(value.into())),
            _ => Err(expected()),
        }
    }
}

/// Bytes from pairs of digits, the first byte first.
fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let whole = digits.len().is_multiple_of(2) && digits.is_ascii();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    whole.then(|| (0..digits.len()).step_by(2).map(byte).collect())?
}

/// Blocks or threads along x, y and z: `4`, `4,2` or `4,2,1`.
pub(crate) fn extent(text: &str) -> Result<[u32; 3], String> {
    let expected = || format!("got `{text}`, expected one to three positive numbers, like 8,4");
    let list: Vec<u32> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| expected())?;
    let extent = match list[..] {
        [x] => [x, 1, 1],
        [x, y] => [x, y, 1],
        [x, y, z] => [x, y, z],
        _ => return Err(expected()),
    };
    if extent.contains(&0) { Err(expected()) } else { Ok(extent) }
}

/// `INDEX=FILE`: where the buffer of an argument goes.
pub(crate) fn output(text: &str) -> Result<(usize, PathBuf), String> {
    let parts = text.split_once('=').and_then(|(index, file)| Some((index.parse().ok()?, file.into())));
    parts.ok_or_else(|| format!("got `{text}`, expected INDEX=FILE"))
}

/// Exit code 1 is for a kernel in which a fault was found.
pub(crate) fn softgpu(args: &SoftgpuArgs) -> anyhow::Result<bool> {
    let name = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| name.to_string())?;
    let module = Module::parse(&text).map_err(|error| anyhow!("{name}: {error}"))?;
    let Some(kernel) = &args.kernel else {
        say(&kernels(&module))?;
        return Ok(true);
    };
    let arguments = bytes_of_files(&args.arg)?;
    let info = checked(&module, kernel, args, &arguments)?;
    let mut text = String::new();
    let mut runs = Vec::new();
    for seed in 0..args.schedules {
        match run(&module, kernel, &info, args, &arguments, seed)? {
            Ok(run) => runs.push(run),
            Err(fault) => {
                let _ = writeln!(text, "schedule {seed}: {fault}");
            }
        }
    }
    let faults = args.schedules - runs.len() as u64;
    if let [first, others @ ..] = &runs[..] {
        let Stats { instructions, lane_instructions } = first.stats;
        let _ = writeln!(text, "{instructions} instructions of warps, {lane_instructions} of lanes");
        for (index, _) in first.buffers.iter().enumerate().filter(|(_, buffer)| buffer.is_some()) {
            let same = others.iter().all(|other| other.buffers[index] == first.buffers[index]);
            let bits = if same { "the same bits" } else { "OTHER BITS" };
            let _ = writeln!(text, "argument {index}: {bits} under every schedule");
        }
        for (index, file) in &args.out {
            let buffer = first.buffers.get(*index).and_then(Option::as_ref);
            let buffer = buffer.ok_or_else(|| anyhow!("--out {index}: argument {index} is no buffer"))?;
            replace(file, buffer).with_context(|| file.display().to_string())?;
        }
    }
    let _ = writeln!(text, "{kernel}: {} schedules, {faults} with a fault", args.schedules);
    say(&text)?;
    Ok(faults == 0)
}

/// The kernels of a module, as a table.
fn kernels(module: &Module) -> String {
    let mut table = new_table();
    table.set_header(["kernel", "parameters, bytes", "shared", "local", "threads, at most", "instructions"]);
    for name in module.kernels() {
        let Some(info) = module.kernel(name) else { continue };
        let sizes: Vec<String> = info.params.iter().map(|(_, size)| size.to_string()).collect();
        let numbers = [info.shared_bytes, info.local_bytes, info.max_threads].map(|n| n.to_string());
        let [shared, local, threads] = numbers;
        table.add_row([name.into(), sizes.join(" "), shared, local, threads, info.instructions.to_string()]);
    }
    format!("{table}\n")
}

/// Files are read once, for all schedules.
fn bytes_of_files(arguments: &[Argument]) -> anyhow::Result<Vec<(Argument, Vec<u8>)>> {
    let read = |argument: &Argument| {
        let bytes = match argument {
            Argument::File(path) => std::fs::read(path).with_context(|| path.display().to_string())?,
            _ => Vec::new(),
        };
        Ok((argument.clone(), bytes))
    };
    arguments.iter().map(read).collect()
}

/// The kernel, if there is one and the arguments are what it takes.
fn checked(
    module: &Module,
    kernel: &str,
    args: &SoftgpuArgs,
    arguments: &[(Argument, Vec<u8>)],
) -> anyhow::Result<KernelInfo> {
    let Some(info) = module.kernel(kernel) else {
        bail!("--kernel: got {kernel}, expected one of {}", module.kernels().join(", "));
    };
    if info.params.len() != arguments.len() {
        bail!("--arg: got {}, expected {}, one a parameter of {kernel}", arguments.len(), info.params.len());
    }
    for (index, ((argument, _), (_, size))) in arguments.iter().zip(&info.params).enumerate() {
        let got = if let Argument::Value(bytes) = argument { bytes.len() } else { 8 };
        if got != *size as usize {
            bail!("--arg: argument {index} has {got} bytes, expected {size}");
        }
    }
    if let Some((index, _)) = args.out.iter().find(|(index, _)| *index >= arguments.len()) {
        bail!("--out: got argument {index}, expected less than {}", arguments.len());
    }
    Ok(info)
}

/// One run without a fault.
struct Run {
    stats: Stats,
    /// What the buffers hold afterwards, argument by argument.
    buffers: Vec<Option<Vec<u8>>>,
}

/// Runs a kernel once on a fresh device; the inner error is the kernel's fault.
fn run(
    module: &Module,
    kernel: &str,
    info: &KernelInfo,
    args: &SoftgpuArgs,
    arguments: &[(Argument, Vec<u8>)],
    seed: u64,
) -> anyhow::Result<Result<Run, tilewright_softgpu::Fault>> {
    let mut gpu = Gpu::new(Settings { seed, ..Settings::default() });
    let mut bytes = vec![0; info.param_bytes as usize];
    let mut buffers = Vec::new();
    for ((argument, contents), (offset, size)) in arguments.iter().zip(&info.params) {
        let (value, buffer) = place(&mut gpu, argument, contents)?;
        bytes[*offset as usize..][..*size as usize].copy_from_slice(&value);
        buffers.push(buffer);
    }
    let launch = Launch { grid: args.grid, block: args.block, shared: args.shared, cooperative: args.cooperative };
    let stats = match gpu.launch(module, kernel, &launch, &bytes) {
        Ok(stats) => stats,
        Err(fault) => return Ok(Err(fault)),
    };
    let read = |place: Option<(u64, u64)>| place.map(|(address, length)| gpu.read(address, length)).transpose();
    Ok(Ok(Run { stats, buffers: buffers.into_iter().map(read).collect::<Result<_, _>>()? }))
}

/// An argument's bytes, and where its buffer is and how long.
type Placed = (Vec<u8>, Option<(u64, u64)>);

fn place(gpu: &mut Gpu, argument: &Argument, contents: &[u8]) -> anyhow::Result<Placed> {
    let length = match argument {
        Argument::Value(bytes) => return Ok((bytes.clone(), None)),
        Argument::Zeros(length) | Argument::New(length) => *length,
        Argument::File(_) => contents.len() as u64,
    };
    let address = gpu.alloc(length)?;
    match argument {
        Argument::Zeros(_) => gpu.fill(address, 0, length)?,
        Argument::File(_) => gpu.write(address, contents)?,
        _ => {}
    }
    Ok((address.to_le_bytes().to_vec(), Some((address, length))))
}
