//! Instructions one by one: forms, inputs and expected results. `driver/examples/instructions.rs` runs the same on a real GPU.
//!
//! `golden/instructions.txt` holds for each form its text and lines of `inputs -> expected` in hexadecimal. The expected
//! values come from the oracles below, which compute in exact integers; `BLESS=1 cargo test` rewrites the file.

mod golden;
mod oracle;

use std::fmt::Write as _;

use golden::{APPROXIMATIONS, GOLDEN, arguments, error, golden, kernel};
use oracle::{Form, forms};
use tilewright_softgpu::{Gpu, Launch, Module, Settings};

fn apply(form: &str, types: &str, inputs: &[[u64; 3]]) -> Vec<u64> {
    let module = Module::parse(&kernel(form, types)).unwrap_or_else(|e| panic!("{form}: {e}"));
    let mut gpu = Gpu::new(Settings::default());
    let (from, to) =
        (gpu.alloc(24 * inputs.len() as u64).expect("memory"), gpu.alloc(8 * inputs.len() as u64).expect("memory"));
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    gpu.write(from, &bytes).expect("inside");
    let params = [to.to_le_bytes(), from.to_le_bytes()].concat();
    let launch = Launch::new([1, 1, 1], [inputs.len() as u32, 1, 1]);
    gpu.launch(&module, "k", &launch, &params).unwrap_or_else(|e| panic!("{form}: {e}"));
    let out = gpu.read(to, 8 * inputs.len() as u64).expect("inside");
    out.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes"))).collect()
}

/// The file's text, from the oracles.
fn from_oracles() -> String {
    let mut text = String::new();
    for Form { text: form, types, inputs, oracle } in forms() {
        let _ = writeln!(text, "@ {form} | {types}");
        for x in inputs {
            let _ = writeln!(text, "{:x} {:x} {:x} -> {:x}", x[0], x[1], x[2], oracle(x));
        }
    }
    text
}

#[test]
fn the_file_is_what_the_oracles_say() {
    let text = from_oracles();
    if std::env::var_os("BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/instructions.txt");
        std::fs::write(path, &text).expect("the file is writable");
        return;
    }
    for (i, (a, b)) in text.lines().zip(GOLDEN.lines()).enumerate() {
        assert_eq!(a, b, "line {} of golden/instructions.txt", i + 1);
    }
    assert_eq!(text.lines().count(), GOLDEN.lines().count());
}

#[test]
fn every_form_gives_its_golden_results() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for golden::Golden { form, types, rows } in golden() {
        let inputs: Vec<[u64; 3]> = rows.iter().map(|r| r.0).collect();
        for ((x, expected), got) in rows.iter().zip(apply(form, types, &inputs)) {
            if *expected != got && wrong.len() < 40 {
                wrong.push(format!("{form} of {x:x?}: {got:x}, expected {expected:x}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 5000, "only {count} results");
}

#[test]
fn approximations_are_within_their_bounds() {
    let xs = arguments();
    let inputs: Vec<[u64; 3]> = xs.iter().map(|x| [x.to_bits().into(), 0, 0]).collect();
    for (form, exact, bound) in APPROXIMATIONS {
        for (x, got) in xs.iter().zip(apply(form, "32 32", &inputs)) {
            let error = error(got, exact(f64::from(*x)));
            assert!(error <= bound, "{form} of {x}: within {bound} but {error}");
        }
    }
}
