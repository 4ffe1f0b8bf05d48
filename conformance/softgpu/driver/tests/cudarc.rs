//! The stand-in through cudarc's own safe layer, unmodified.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use cuda::Driver;
use cudarc::driver::{CudaContext, CudaModule, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const GOOD: &str = include_str!("../../tests/ptx/faults_good.ptx");
const BAD: &str = include_str!("../../tests/ptx/faults_bad.ptx");

/// The driver, loaded once before the first call into cudarc; one test at a time.
fn driver() -> MutexGuard<'static, Driver> {
    static DRIVER: OnceLock<Mutex<Driver>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| {
        // SAFETY: no other thread reads the environment before this.
        unsafe { std::env::set_var("TILEWRIGHT_SOFTGPU", "seed=0,capability=8.6") };
        let path = cuda::find().expect("cargo builds the library beside the test");
        Mutex::new(cuda::open(&path).expect("the library loads"))
    });
    driver.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn context(text: &str) -> (Arc<CudaContext>, Arc<CudaModule>) {
    let context = CudaContext::new(0).expect("a context");
    let module = context.load_module(Ptx::from_src(text)).expect("a module");
    (context, module)
}

#[test]
fn the_device_says_who_it_is() {
    let _driver = driver();
    let (context, module) = context(GOOD);
    assert_eq!(CudaContext::device_count().expect("a count"), 1);
    assert_eq!(context.compute_capability().expect("a capability"), (8, 6));
    assert!(context.name().expect("a name").contains("software"));
    let function = module.load_function("missing_barrier").expect("a kernel");
    assert_eq!(function.occupancy_max_active_blocks_per_multiprocessor(128, 0, None).expect("occupancy"), 16);
    assert!(module.load_function("no_such_kernel").is_err());
    assert!(CudaContext::new(1).is_err());
}

#[test]
fn memory_launches_and_events_work() {
    let driver = driver();
    let (context, module) = context(GOOD);
    let stream = context.new_stream().expect("a stream");
    let input: Vec<u32> = (0..512).collect();
    let from = stream.clone_htod(&input).expect("an upload");
    let mut to = stream.alloc_zeros::<u32>(512).expect("memory");
    let function = module.load_function("missing_barrier").expect("a kernel");
    let config = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
    for seed in 0..3 {
        driver.set_seed(seed);
        let start = stream.record_event(Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)).expect("an event");
        // SAFETY: the arguments are those of the kernel.
        unsafe { stream.launch_builder(&function).arg(&mut to).arg(&from).arg(&512i32).launch(config) }
            .expect("a launch");
        let end = stream.record_event(Some(cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT)).expect("an event");
        assert!(start.elapsed_ms(&end).expect("a time") >= 0.0);
        stream.synchronize().expect("nothing under way");
        let out = stream.clone_dtoh(&to).expect("a download");
        assert!(out.iter().enumerate().all(|(i, &x)| x as usize == i / 128 * 128 + 127 - i % 128));
    }
    let copy = stream.clone_dtod(&from).expect("a copy");
    assert_eq!(stream.clone_dtoh(&copy).expect("a download"), input);
}

#[test]
fn a_fault_is_an_error_with_a_text() {
    let driver = driver();
    let (context, module) = context(BAD);
    let stream = context.default_stream();
    let from = stream.clone_htod(&vec![1u32; 512]).expect("an upload");
    let mut to = stream.alloc_zeros::<u32>(512).expect("memory");
    let config = LaunchConfig { grid_dim: (4, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
    for (kernel, code, text) in [
        ("out_of_bounds", "ILLEGAL_ADDRESS", "out of bounds in out_of_bounds, PTX line"),
        ("misaligned_vector", "MISALIGNED_ADDRESS", "misaligned address"),
        ("lost_atomic", "LAUNCH_FAILED", "race in lost_atomic"),
        ("deadlock", "LAUNCH_TIMEOUT", "deadlock"),
    ] {
        let function = module.load_function(kernel).expect("a kernel");
        // SAFETY: the arguments are those of the kernel.
        let launched = unsafe { stream.launch_builder(&function).arg(&mut to).arg(&from).arg(&512i32).launch(config) };
        let error = format!("{:?}", launched.expect_err(kernel));
        assert!(error.contains(code), "{kernel}: {error}");
        assert!(driver.last_fault().starts_with(text), "{}", driver.last_fault());
    }
}

#[test]
fn what_is_no_ptx_is_refused() {
    let driver = driver();
    let context = CudaContext::new(0).expect("a context");
    assert!(context.load_module(Ptx::from_src(".version 8.4\n.target sm_80\n.entry k() { nonsense.u32; }")).is_err());
    assert!(driver.last_fault().contains("PTX line 3"), "{}", driver.last_fault());
}
