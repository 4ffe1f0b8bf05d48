//! Instructions one by one: forms, inputs and expected results, ready to run on a real GPU as well.
//!
//! `golden/instructions.txt` holds for each form its text and lines of `inputs -> expected` in hexadecimal. The expected
//! values come from the oracles below, which compute in exact integers; `BLESS=1 cargo test` rewrites the file.

mod oracle;

use std::fmt::Write as _;

use oracle::{Form, forms};
use tilewright_softgpu::{Gpu, Launch, Module, Settings};

const GOLDEN: &str = include_str!("golden/instructions.txt");

/// A kernel that applies the form to inputs of three 64-bit words a thread, and stores one word.
fn kernel(form: &str, types: &str) -> String {
    let kinds: Vec<&str> = types.split(' ').collect();
    let mut text = String::from(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 in) {\n.reg .pred \
         %p<4>;\n.reg .b16 %h<5>;\n.reg .b32 %r<5>;\n.reg .b64 %d<5>;\n.reg .b32 %t;\n.reg .b64 %o, %i, %w;\nld.param.u64 \
         %o, [out];\nld.param.u64 %i, [in];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %w, %t, 8;\nadd.s64 %o, %o, \
         %w;\nmad.wide.u32 %i, %t, 24, %i;\nsetp.eq.u32 %p1, 0, 1;\n",
    );
    let register = |kind: &str, i: usize| match kind {
        "16" => format!("%h{i}"),
        "32" => format!("%r{i}"),
        "p" => format!("%p{i}"),
        _ => format!("%d{i}"),
    };
    for (i, kind) in kinds.iter().enumerate().skip(1) {
        let to = register(kind, i);
        let _ = writeln!(text, "ld.global.b{kind} {to}, [%i+{}];", 8 * (i - 1));
    }
    let mut applied = form.to_owned();
    for (i, kind) in kinds.iter().enumerate() {
        applied = applied.replace(&format!("${i}"), &register(kind, i));
    }
    let _ = writeln!(text, "{applied};");
    let result = match kinds[0] {
        "16" => "cvt.u64.u16 %w, %h0;",
        "32" => "cvt.u64.u32 %w, %r0;",
        "p" => "selp.u64 %w, 1, 0, %p0;",
        _ => "mov.u64 %w, %d0;",
    };
    let _ = writeln!(text, "{result}\nst.global.u64 [%o], %w;\nret;\n}}");
    text
}

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
    for part in GOLDEN.split("@ ").skip(1) {
        let (head, lines) = part.split_once('\n').expect("a head line");
        let (form, types) = head.split_once(" | ").expect("form and types");
        let hex = |s: &str| u64::from_str_radix(s, 16).expect("a hexadecimal number");
        let rows: Vec<([u64; 3], u64)> = lines
            .lines()
            .map(|line| {
                let (inputs, expected) = line.split_once(" -> ").expect("an arrow");
                let numbers: Vec<u64> = inputs.split(' ').map(hex).collect();
                (numbers.try_into().expect("three inputs"), hex(expected))
            })
            .collect();
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

/// Relative error of the approximate functions, in units of 2⁻²³, as the manual bounds it.
#[test]
fn approximations_are_within_their_bounds() {
    type Exact = fn(f64) -> f64;
    let cases: [(&str, Exact, f64); 7] = [
        ("ex2.approx.f32 $0, $1", f64::exp2, 2.0),
        ("ex2.approx.ftz.f32 $0, $1", f64::exp2, 2.0),
        ("rcp.approx.f32 $0, $1", |x| 1.0 / x, 1.0),
        ("sqrt.approx.f32 $0, $1", f64::sqrt, 2.0),
        ("rsqrt.approx.f32 $0, $1", |x| 1.0 / x.sqrt(), 2.0),
        ("tanh.approx.f32 $0, $1", f64::tanh, 4096.0),
        ("lg2.approx.f32 $0, $1", f64::log2, 8.0),
    ];
    let xs: Vec<f32> = (0..1024).map(|i| 0.01 + i as f32 * 0.037).collect();
    for (form, exact, bound) in cases {
        let inputs: Vec<[u64; 3]> = xs.iter().map(|x| [x.to_bits().into(), 0, 0]).collect();
        for (x, got) in xs.iter().zip(apply(form, "32 32", &inputs)) {
            let (got, want) = (f64::from(f32::from_bits(got as u32)), exact(f64::from(*x)));
            let error = (got - want).abs() / want.abs().max(0.25) * f64::from(1 << 23);
            assert!(error <= bound, "{form} of {x}: {got}, {want} within {bound} but {error}");
        }
    }
}
