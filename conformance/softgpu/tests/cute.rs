//! A kernel whose tiles, layouts and fragments others laid out: CuTe's, from `ptx/cute_gemm.cu`, whose head says where its
//! PTX is from. Were our reading of ldmatrix, mma or cp.async wrong in a way that our own kernels share, it would show.

use half::f16;
use tilewright_softgpu::{FaultKind, Gpu, Launch, Module, Settings};

const TEXT: &str = include_str!("ptx/cute_gemm.ptx");

/// Numbers from 0 to 1 of ten bits, so that products are exact in single precision.
fn numbers(count: usize, seed: u64) -> Vec<f16> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i32 % 1024
    };
    (0..count).map(|_| f16::from_f32(next() as f32 / 1024.0)).collect()
}

/// `A Bᵀ` on the host, in double precision, row by row.
fn product(a: &[f16], b: &[f16], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let dot = |i: usize, j: usize| (0..k).map(|c| a[i * k + c].to_f64() * b[j * k + c].to_f64()).sum::<f64>();
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

fn run(module: &Module, a: &[f16], b: &[f16], shape: [usize; 3], seed: u64) -> Result<Vec<f32>, FaultKind> {
    let mut gpu = Gpu::new(Settings { seed, ..Settings::default() });
    let [m, n, k] = shape;
    let mut there = |numbers: &[f16]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let at = gpu.alloc(bytes.len() as u64).expect("memory");
        gpu.write(at, &bytes).expect("a write inside");
        at
    };
    let (a, b) = (there(a), there(b));
    let c = gpu.alloc((m * n * 4) as u64).expect("memory");
    let mut params: Vec<u8> = [a, b, c].iter().flat_map(|at| at.to_le_bytes()).collect();
    params.extend([m, n, k].iter().flat_map(|&x| (x as i32).to_le_bytes()));
    let launch = Launch::new([(m / 64) as u32, (n / 64) as u32, 1], [128, 1, 1]);
    gpu.launch(module, "cute_gemm", &launch, &params).map_err(|fault| {
        eprintln!("{fault}");
        fault.kind
    })?;
    let bytes = gpu.read(c, (m * n * 4) as u64).expect("a read inside");
    Ok(bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four bytes"))).collect())
}

#[test]
fn a_product_by_cute_is_the_product() {
    let module = Module::parse(TEXT).expect("PTX");
    for (shape, seeds) in [([64, 64, 32], 10), ([128, 64, 96], 3), ([64, 192, 160], 3)] {
        let [m, n, k] = shape;
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        let expected = product(&a, &b, shape);
        for seed in 0..seeds {
            let got = run(&module, &a, &b, shape, seed).expect("no fault");
            for (at, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                // The sum of up to k products below 1 is rounded k times, each time by at most k halves of 2⁻²³.
                let allowed = (k * k) as f64 * 2f64.powi(-24);
                assert!((f64::from(got) - expected).abs() <= allowed, "{shape:?}, {at}: {got}, expected {expected}");
            }
        }
    }
}

/// The same kernel without one of its waits or barriers is found out.
#[test]
fn a_product_by_cute_that_does_not_wait_is_a_fault() {
    let shape = [64, 64, 96];
    let (a, b) = (numbers(64 * 96, 1), numbers(64 * 96, 2));
    let bad = TEXT.replace("cp.async.wait_group 1;", "cp.async.wait_group 2;");
    assert_ne!(bad, TEXT);
    let module = Module::parse(&bad).expect("PTX");
    assert_eq!(run(&module, &a, &b, shape, 0), Err(FaultKind::MissingWait));
    let barriers = TEXT.match_indices("bar.sync \t0;").map(|(at, _)| at).collect::<Vec<_>>();
    assert_eq!(barriers.len(), 2);
    for at in barriers {
        let bad = format!("{}{}", &TEXT[..at], &TEXT[at + "bar.sync \t0;".len()..]);
        let module = Module::parse(&bad).expect("PTX");
        let outcome = run(&module, &a, &b, shape, 0);
        assert!(matches!(outcome, Err(FaultKind::Race | FaultKind::MissingWait)), "{outcome:?}");
    }
}
