//! A machine without a driver: a process of its own, whose loader finds none, gets an error and not a panic.

use std::process::Command;
use tilewright_cuda::{CudaError, Device};

const INNER: &str = "TILEWRIGHT_TEST_INNER";

#[test]
fn without_a_driver_there_is_an_error_that_says_so() {
    if std::env::var_os(INNER).is_some() {
        match Device::open(0) {
            Err(error) => println!("{error}"),
            Ok(device) => println!("{}", device.name()),
        }
        return;
    }
    let this = std::env::current_exe().expect("the name of this program");
    let test = "without_a_driver_there_is_an_error_that_says_so";
    let output = Command::new(this).args([test, "--exact", "--nocapture"]).env(INNER, "1").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // Where there is a driver, it is that one which answers.
    if matches!(tilewright_cuda::probe(), Err(CudaError::DriverMissing)) {
        let line = "no NVIDIA driver: libcuda.so.1 could not be loaded; install the driver, or put its folder on \
                    LD_LIBRARY_PATH (in a container: start it with the NVIDIA runtime)";
        assert!(text.lines().any(|found| found.ends_with(line)), "{text}");
    }
}
