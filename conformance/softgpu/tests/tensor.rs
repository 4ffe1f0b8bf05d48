//! `mma.sync`, `ldmatrix` and `movmatrix` by the table of `golden/tensor.rs`, which a real GPU is asked too.

#[path = "golden/tensor.rs"]
mod trials;

use tilewright_softgpu::{FaultKind, Gpu, Launch, Module, Settings};
use trials::{Trial, WORDS, trials};

#[test]
fn whole_warps_do_what_the_tables_say() {
    for Trial { name, ptx, words, expected } in trials() {
        let module = Module::parse(&ptx).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut gpu = Gpu::new(Settings::default());
        let bytes = (32 * WORDS * 8) as u64;
        let (to, from) = (gpu.alloc(bytes).expect("memory"), gpu.alloc(bytes).expect("memory"));
        gpu.write(from, &words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>()).expect("inside");
        gpu.fill(to, 0, bytes).expect("inside");
        let params = [to.to_le_bytes(), from.to_le_bytes()].concat();
        gpu.launch(&module, "k", &Launch::new([1, 1, 1], [32, 1, 1]), &params)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let out = gpu.read(to, bytes).expect("inside");
        for (at, (got, expected)) in out.as_chunks().0.iter().zip(&expected).enumerate() {
            assert_eq!(u64::from_le_bytes(*got), *expected, "{name}, lane {}, word {}", at / WORDS, at % WORDS);
        }
        // Part of a warp can't do it.
        let fault = gpu.launch(&module, "k", &Launch::new([1, 1, 1], [31, 1, 1]), &params).expect_err("31 lanes");
        assert_eq!(fault.kind, FaultKind::DivergentWarp, "{name}");
    }
}
