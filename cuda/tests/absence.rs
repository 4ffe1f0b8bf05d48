//! Machines where something is lacking, each a process of its own: an error with its text, never a panic.

mod common;

use std::process::Command;
use tilewright_cuda::{CudaError, Device};

const INNER: &str = "TILEWRIGHT_TEST_INNER";

/// Not a test of its own: what the others run in their processes.
#[test]
fn inner() {
    if std::env::var_os(INNER).is_none() {
        return;
    }
    common::software();
    match Device::open(0) {
        Err(error) => println!("\n{error}"),
        Ok(device) => println!("\nopened {}", device.name()),
    }
}

/// What opening a device says, with these variables set.
fn said(variables: &[(&str, &str)], without: &[&str]) -> String {
    let this = std::env::current_exe().expect("the name of this program");
    let mut command = Command::new(this);
    command.args(["inner", "--exact", "--nocapture"]).env(INNER, "1").envs(variables.iter().copied());
    for name in without {
        command.env_remove(name);
    }
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn without_a_driver() {
    // Where there is a real driver, it is that one which answers.
    let text = said(&[], &["TILEWRIGHT_SOFTGPU_LIB", "TILEWRIGHT_SOFTGPU"]);
    if tilewright_cuda::probe() == Err(CudaError::DriverMissing) {
        let line = "no NVIDIA driver: libcuda.so.1 could not be loaded; install the driver, or put its folder on \
                    LD_LIBRARY_PATH (in a container: start it with the NVIDIA runtime)";
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}

#[test]
fn with_a_driver_that_lacks_something() {
    if std::env::var_os("TILEWRIGHT_SOFTGPU_LIB").is_none() {
        return eprintln!("skipped 1: no software driver");
    }
    let lines = [
        ("seed=0,devices=0", "no CUDA device: the NVIDIA driver is there, but it reports no device"),
        ("seed=0,driver=12020", "NVIDIA driver: got one for CUDA 12.2, expected 12.4 or later"),
        ("seed=0,capability=7.5", "compute capability of device 0: got 7.5, expected 8.0 or later"),
    ];
    for (setting, line) in lines {
        let text = said(&[("TILEWRIGHT_SOFTGPU", setting)], &[]);
        assert!(text.lines().any(|found| found == line), "{setting}: {text}");
    }
    assert!(said(&[("TILEWRIGHT_SOFTGPU", "seed=0")], &[]).lines().any(|line| line.starts_with("opened ")));
}
