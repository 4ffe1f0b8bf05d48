//! Devices, buffers, launches; and what becomes of all that without a device.
#![allow(clippy::unwrap_used)]

mod common;

use common::device;
use tilewright_cuda::{Buffer, Config, CudaError, Device, SMOKE, Unit, Value};

#[repr(C)]
#[derive(Clone, Copy)]
struct Line {
    slope: f32,
    offset: f32,
}

// SAFETY: two numbers, as `smoke.cu` has them.
unsafe impl Value for Line {}

fn line(device: &Device, x: &[f32], line: Line) -> Result<Vec<f32>, CudaError> {
    let kernel = device.kernel(&SMOKE, "smoke_line")?;
    let x = Buffer::from_slice(device, "x", x)?;
    let mut y = Buffer::uninit(device, "y", x.len())?;
    let launch = kernel.launch(Config::new(3, 64)).write(&mut y).read(&x).value(line).value(x.len() as u32);
    // SAFETY: the kernel reads and writes `x.len()` numbers.
    unsafe { launch.run() }?;
    y.to_vec()
}

#[test]
fn a_kernel_gets_its_arguments() {
    let Some(turn) = device() else { return };
    for n in [1, 31, 64, 1000] {
        let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.3).collect();
        let y = line(&turn.device, &x, Line { slope: 1.1, offset: -2.0 });
        let y = y.unwrap_or_else(|error| panic!("{error}\n{}", common::fault()));
        assert!(x.iter().zip(&y).all(|(x, y)| 1.1 * x - 2.0 == *y), "n = {n}");
    }
}

/// Products and sums of floating-point numbers that do not say how they round: the assembler is free to make one of two.
fn contractible(ptx: &str) -> Vec<&str> {
    let words = ptx.lines().flat_map(str::split_whitespace);
    let is_open = |word: &&str| {
        let mut parts = word.split('.');
        let operation = parts.next().is_some_and(|name| ["add", "sub", "mul", "mad"].contains(&name));
        operation && parts.clone().any(|part| part.starts_with('f')) && !parts.any(|part| part == "rn")
    };
    words.filter(is_open).collect()
}

#[test]
fn what_has_the_bits_of_the_cpu_is_rounded_one_by_one() {
    use tilewright_cuda::{compression, grouplasso};
    assert_eq!(
        contractible("mul.f64 \t%fd1, %fd2, %fd3;\n\tadd.rn.f64 %fd1; sub.ftz.f32; add.s64"),
        ["mul.f64", "sub.ftz.f32;"]
    );
    for unit in [&grouplasso::UNIT, &compression::UNIT] {
        assert!(unit.ptx.contains(".rn.f64") && contractible(unit.ptx).is_empty(), "{}", unit.name);
    }
}

#[test]
fn buffers_hold_what_is_put_in() -> Result<(), CudaError> {
    let Some(turn) = device() else { return Ok(()) };
    let device = &turn.device;
    let mut buffer = Buffer::from_slice(device, "numbers", &[1u64, 2, 3, u64::MAX])?;
    assert_eq!(buffer.to_vec()?, [1, 2, 3, u64::MAX]);
    buffer.upload(&[7, 8])?;
    assert_eq!(buffer.first(3)?, [7, 8, 3]);
    buffer.clear_first(1)?;
    let mut last = [0; 2];
    buffer.download_at(2, &mut last)?;
    assert_eq!((buffer.first(2)?, last), (vec![0, 8], [3, u64::MAX]));
    let mut copy = Buffer::zeros(device, "copy", 5)?;
    copy.copy_from(&buffer, 4)?;
    assert_eq!(copy.to_vec()?, [0, 8, 3, u64::MAX, 0]);
    assert_eq!(Buffer::<f32>::zeros(device, "nothing", 0)?.to_vec()?, [0.0; 0]);
    let error = buffer.upload(&[0; 5]).unwrap_err();
    assert_eq!(error.to_string(), "numbers to upload: got 5 from 0 on, expected at most the buffer's 4");
    Ok(())
}

#[test]
fn what_is_wrong_with_a_launch_is_said() -> Result<(), CudaError> {
    static NONSENSE: Unit =
        Unit { name: "nonsense", ptx: ".version 8.4\n.target sm_80\n.address_size 64\n.entry k()\n{ frobnicate; }\n" };
    let Some(turn) = device() else { return Ok(()) };
    let device = &turn.device;
    let kernel = device.kernel(&SMOKE, "smoke_line")?;
    // SAFETY: refused before it is launched.
    let error = unsafe { kernel.launch(Config::new(1, 32)).value(1u32).run() }.unwrap_err();
    assert_eq!(error.to_string(), "kernel arguments: got [4] bytes, expected [8, 8, 8, 4] bytes for smoke_line");
    let error = device.kernel(&SMOKE, "smoke_signal").err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("kernel: got smoke_signal, which smoke does not have"));

    let other = Device::open(0)?;
    let mut theirs = Buffer::<f32>::zeros(&other, "theirs", 4)?;
    let launch = kernel.launch(Config::new(1, 32)).write(&mut theirs);
    // SAFETY: refused before it is launched.
    let error = unsafe { launch.run() }.unwrap_err().to_string();
    assert_eq!(
        error,
        "buffer: got one of another device or stream, expected one of the kernel's own device and stream"
    );

    let (x, mut y) = (Buffer::zeros(device, "x", 4)?, Buffer::<f32>::zeros(device, "y", 4)?);
    let launch = kernel.launch(Config::new(1, 4096)).write(&mut y).read::<f32>(&x);
    // SAFETY: refused by the driver.
    let error = unsafe { launch.value(Line { slope: 1.0, offset: 0.0 }).value(4u32).run() }.unwrap_err().to_string();
    assert!(
        error.starts_with("launch of smoke_line (grid 1x1x1, block 4096x1x1, 0 bytes of shared memory): CUDA_ERROR_")
    );

    let error = device.kernel(&NONSENSE, "k").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with("loading kernels of nonsense: CUDA_ERROR_INVALID_PTX: "), "{error}");
    assert!(error.contains('5') && !error.contains('\n'), "{error}");
    Ok(())
}

#[test]
fn too_much_memory_is_an_error_that_names_the_bytes() {
    let Some(turn) = device() else { return };
    let error = Buffer::<f64>::uninit(&turn.device, "a matrix", 1 << 50).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("a matrix: no memory for 9007199254740992 bytes on the device"));
    let error = Buffer::<f64>::uninit(&turn.device, "a matrix", usize::MAX).err();
    assert!(matches!(error, Some(CudaError::OutOfMemory { .. })));
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let turn = device();
    match Device::open(99) {
        Err(CudaError::NoSuchDevice { ordinal: 99, found }) => assert!(turn.is_some() && found > 0),
        Err(error) => assert!(turn.is_none() && error.is_absence(), "{error}"),
        Ok(_) => panic!("a hundred devices?"),
    }
}
