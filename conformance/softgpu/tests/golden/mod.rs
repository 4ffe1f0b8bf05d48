//! The golden file and the kernels that try its forms, for the software GPU's tests and for a program that asks a real one.

use std::fmt::Write as _;

/// For each form its text and lines of `inputs -> expected`, in hexadecimal.
pub(crate) const GOLDEN: &str = include_str!("instructions.txt");

/// A form of an instruction, `$0` its result and the others its inputs; their kinds; what it makes of some inputs.
pub(crate) struct Golden {
    pub(crate) form: &'static str,
    pub(crate) types: &'static str,
    pub(crate) rows: Vec<([u64; 3], u64)>,
}

/// What the file says.
pub(crate) fn golden() -> Vec<Golden> {
    let hex = |s: &str| u64::from_str_radix(s, 16).expect("a hexadecimal number");
    let row = |line: &'static str| {
        let (inputs, expected) = line.split_once(" -> ").expect("an arrow");
        let numbers: Vec<u64> = inputs.split(' ').map(hex).collect();
        (numbers.try_into().expect("three inputs"), hex(expected))
    };
    let one = |part: &'static str| {
        let (head, lines) = part.split_once('\n').expect("a head line");
        let (form, types) = head.split_once(" | ").expect("form and types");
        Golden { form, types, rows: lines.lines().map(row).collect() }
    };
    GOLDEN.split("@ ").skip(1).map(one).collect()
}

/// A kernel that applies the form to inputs of three 64-bit words a thread, and stores one word.
pub(crate) fn kernel(form: &str, types: &str) -> String {
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

/// An approximate function: its form, the function, and the bound of its relative error in units of 2⁻²³.
pub(crate) type Approximation = (&'static str, fn(f64) -> f64, f64);

/// The approximate functions, as the manual bounds them.
pub(crate) const APPROXIMATIONS: [Approximation; 7] = [
    ("ex2.approx.f32 $0, $1", f64::exp2, 2.0),
    ("ex2.approx.ftz.f32 $0, $1", f64::exp2, 2.0),
    ("rcp.approx.f32 $0, $1", |x| 1.0 / x, 1.0),
    ("sqrt.approx.f32 $0, $1", f64::sqrt, 2.0),
    ("rsqrt.approx.f32 $0, $1", |x| 1.0 / x.sqrt(), 2.0),
    ("tanh.approx.f32 $0, $1", f64::tanh, 4096.0),
    ("lg2.approx.f32 $0, $1", f64::log2, 8.0),
];

/// Where they are tried.
pub(crate) fn arguments() -> Vec<f32> {
    (0..1024).map(|i| 0.01 + i as f32 * 0.037).collect()
}

/// The error of an approximation of `exact`, in units of 2⁻²³ of the result or of 1/4, whichever is greater.
pub(crate) fn error(got: u64, exact: f64) -> f64 {
    (f64::from(f32::from_bits(got as u32)) - exact).abs() / exact.abs().max(0.25) * f64::from(1 << 23)
}
