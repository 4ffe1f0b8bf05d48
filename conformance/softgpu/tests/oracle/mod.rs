//! What each instruction form must give, in exact integer arithmetic.

use std::cmp::Ordering::{self, Equal, Greater, Less};

/// A form: `$0` is the result, `$1` to `$3` the inputs; `types` are the registers' bits (or `p`).
pub(crate) struct Form {
    pub(crate) text: String,
    pub(crate) types: &'static str,
    pub(crate) inputs: Vec<[u64; 3]>,
    pub(crate) oracle: Box<dyn Fn([u64; 3]) -> u64>,
}

/// SplitMix64 of a counter.
fn random(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Random words and corner cases, cut to `bits`.
fn words(bits: u32) -> Vec<[u64; 3]> {
    let keep = u64::MAX >> (64 - bits);
    let corners = [0, 1, 2, 31, 32, 33, 63, 64, keep >> 1, (keep >> 1) + 1, keep, keep - 1, 0x8899_aabb];
    let mut out = Vec::new();
    for (i, a) in corners.iter().enumerate() {
        out.push([a & keep, corners[(i * 5 + 3) % corners.len()] & keep, random(i as u64) & keep]);
        out.push([random(90 + i as u64) & keep, a & keep, corners[(i * 7 + 1) % corners.len()] & keep]);
    }
    for i in 0..30 {
        out.push([0, 1, 2].map(|j| random(1000 + 3 * i + j) & keep >> (random(i * 17 + j) % u64::from(bits))));
    }
    out
}

/// Singles with exponents near zero, so that sums and products are exact in 2⁻⁸⁰ths of a 128-bit integer.
fn singles() -> Vec<[u64; 3]> {
    let one = |i: u64| {
        let r = random(i);
        let exponent = 127 - 14 + r % 28;
        u64::from(r as u32 >> 9 & if r >> 60 & 1 == 1 { 0x7f_0000 } else { 0x7f_ffff })
            | exponent << 23
            | (r >> 63) << 31
    };
    let special = [0, 0x8000_0000, 0x3f80_0000, 0xbf80_0000, 0x3f80_0001, 0x4780_0000];
    let mut out: Vec<[u64; 3]> = (0..60).map(|i| [one(3 * i), one(3 * i + 1), one(3 * i + 2)]).collect();
    for (i, a) in special.iter().enumerate() {
        out.push([*a, special[(i + 1) % 6], special[(i * 3 + 2) % 6]]);
        out.push([*a, *a ^ 0x8000_0000, one(700 + i as u64)]);
    }
    out
}

/// 16-bit numbers, finite ones.
fn halves(exponent_bits: u32) -> Vec<[u64; 3]> {
    let mantissa = 15 - exponent_bits;
    let top = (1u64 << exponent_bits) - 1;
    let one = |i: u64| {
        let r = random(i);
        let exponent = if exponent_bits == 5 { r >> 20 & 31 } else { 127 - 12 + (r >> 20) % 24 };
        let exponent = if exponent == top { 15 } else { exponent };
        r & ((1 << mantissa) - 1) | exponent << mantissa | (r >> 63) << 15
    };
    (0..80).map(|i| [one(5000 + 3 * i), one(5001 + 3 * i), one(5002 + 3 * i)]).collect()
}

const SCALE: i32 = 80;

/// The value of a number in 2⁻⁸⁰ths; formats are given by the bits of their significand and exponent.
fn fixed(bits: u64, mantissa: u32, exponent: u32) -> i128 {
    let e = (bits >> mantissa & ((1 << exponent) - 1)) as i32;
    let m = i128::from(bits & ((1 << mantissa) - 1));
    let bias = (1 << (exponent - 1)) - 1;
    let (m, e) = if e == 0 { (m, 1) } else { (m | 1 << mantissa, e) };
    let shift = e - bias - mantissa as i32 + SCALE;
    let value = if shift >= 0 { m << shift } else { m >> -shift };
    if bits >> (mantissa + exponent) & 1 == 1 { -value } else { value }
}

/// Rounds a number of 2⁻⁸⁰ths: walks to the multiple of the last place below, then decides.
fn rounded(value: i128, mantissa: u32, exponent: u32, mode: char, minus_zero: bool) -> u64 {
    let sign = u64::from(value < 0) << (mantissa + exponent);
    let size = value.unsigned_abs();
    if size == 0 {
        return u64::from(minus_zero) << (mantissa + exponent);
    }
    let bias = (1 << (exponent - 1)) - 1;
    let top = 127 - size.leading_zeros() as i32 - SCALE;
    let place = (top.max(1 - bias) - mantissa as i32 + SCALE).max(0) as u32;
    let (mut count, rest, unit) = (size >> place, size & ((1 << place) - 1), 1u128 << place);
    let up = match mode {
        'n' => 2 * rest > unit || 2 * rest == unit && count % 2 == 1,
        'a' => 2 * rest >= unit,
        'p' => rest != 0 && value > 0,
        'm' => rest != 0 && value < 0,
        _ => false,
    };
    count += u128::from(up);
    let mut e = top.max(1 - bias);
    if count >> (mantissa + 1) != 0 {
        (count, e) = (count >> 1, e + 1);
    }
    if e > bias {
        let infinity = ((1u64 << exponent) - 1) << mantissa;
        let finite = mode == 'z' || mode == 'p' && value < 0 || mode == 'm' && value > 0;
        return sign | if finite { infinity - 1 } else { infinity };
    }
    let normal = count >> mantissa != 0;
    sign | if normal { ((e + bias) as u64) << mantissa | count as u64 & ((1 << mantissa) - 1) } else { count as u64 }
}

fn signed(x: u64, bits: u32) -> i128 {
    i128::from((x << (64 - bits)) as i64 >> (64 - bits))
}

type Integer = fn(i128, i128, i128, u32) -> i128;

fn integers(out: &mut Vec<Form>) {
    let ops: [(&str, usize, Integer); 13] = [
        ("add", 2, |a, b, _, _| a + b),
        ("sub", 2, |a, b, _, _| a - b),
        ("mul.lo", 2, |a, b, _, _| a.wrapping_mul(b)),
        ("mul.hi", 2, |a, b, _, n| a.wrapping_mul(b) >> n),
        ("mad.lo", 3, |a, b, c, _| a.wrapping_mul(b).wrapping_add(c)),
        ("mad.hi", 3, |a, b, c, n| (a.wrapping_mul(b) >> n) + c),
        ("div", 2, |a, b, _, _| if b == 0 { -1 } else { a / b }),
        ("rem", 2, |a, b, _, _| if b == 0 { a } else { a % b }),
        ("min", 2, |a, b, _, _| a.min(b)),
        ("max", 2, |a, b, _, _| a.max(b)),
        ("sad", 3, |a, b, c, _| c + (a - b).abs()),
        ("abs", 1, |a, _, _, _| a.abs()),
        ("neg", 1, |a, _, _, _| -a),
    ];
    for (bits, types) in [(16, "16 16 16 16"), (32, "32 32 32 32"), (64, "64 64 64 64")] {
        for sign in ['u', 's'] {
            for (name, arity, f) in ops {
                // The product of two unsigned 64-bit numbers doesn't fit the oracle's integers when shifted as signed.
                let unsigned_high = bits == 64 && sign == 'u' && name.ends_with("hi");
                if sign == 'u' && matches!(name, "abs" | "neg") || unsigned_high {
                    continue;
                }
                let operands = ["$0, $1", "$0, $1, $2", "$0, $1, $2, $3"][arity - 1];
                let keep = u64::MAX >> (64 - bits);
                let value = move |x: u64| if sign == 's' { signed(x, bits) } else { i128::from(x) };
                // Division by zero has no defined result.
                let defined = |x: &[u64; 3]| !matches!(name, "div" | "rem") || x[1] != 0;
                out.push(Form {
                    text: format!("{name}.{sign}{bits} {operands}"),
                    types: if arity == 1 { &types[..5] } else { types },
                    inputs: words(bits).into_iter().filter(defined).collect(),
                    oracle: Box::new(move |x| f(value(x[0]), value(x[1]), value(x[2]), bits) as u64 & keep),
                });
            }
        }
    }
}

fn push(out: &mut Vec<Form>, text: &str, types: &'static str, inputs: Vec<[u64; 3]>, oracle: fn([u64; 3]) -> u64) {
    out.push(Form { text: text.to_owned(), types, inputs, oracle: Box::new(oracle) });
}

fn bits(out: &mut Vec<Form>) {
    let three = "32 32 32 32";
    push(out, "popc.b32 $0, $1", "32 32", words(32), |x| (0..32).map(|i| x[0] >> i & 1).sum());
    push(out, "popc.b64 $0, $1", "32 64", words(64), |x| (0..64).map(|i| x[0] >> i & 1).sum());
    push(out, "clz.b32 $0, $1", "32 32", words(32), |x| {
        (0..32).take_while(|i| x[0] >> (31 - i) & 1 == 0).count() as u64
    });
    push(out, "clz.b64 $0, $1", "32 64", words(64), |x| {
        (0..64).take_while(|i| x[0] >> (63 - i) & 1 == 0).count() as u64
    });
    push(out, "brev.b32 $0, $1", "32 32", words(32), |x| (0..32).map(|i| (x[0] >> i & 1) << (31 - i)).sum());
    push(out, "brev.b64 $0, $1", "64 64", words(64), |x| (0..64).map(|i| (x[0] >> i & 1) << (63 - i)).sum());
    push(out, "not.b16 $0, $1", "16 16", words(16), |x| 0xffff - x[0]);
    push(out, "cnot.b32 $0, $1", "32 32", words(32), |x| u64::from(x[0] == 0));
    push(out, "xor.b16 $0, $1, $2", "16 16 16", words(16), |x| x[0] ^ x[1]);
    push(out, "bfind.u32 $0, $1", "32 32", words(32), |x| {
        (0..32).rev().find(|i| x[0] >> i & 1 == 1).unwrap_or(0xffff_ffff)
    });
    push(out, "bfind.shiftamt.u32 $0, $1", "32 32", words(32), |x| {
        (0..32).find(|i| x[0] >> (31 - i) & 1 == 1).unwrap_or(0xffff_ffff)
    });
    push(out, "shl.b32 $0, $1, $2", "32 32 32", words(32), |x| if x[1] > 31 { 0 } else { x[0] << x[1] & 0xffff_ffff });
    push(out, "shr.u32 $0, $1, $2", "32 32 32", words(32), |x| if x[1] > 31 { 0 } else { x[0] >> x[1] });
    push(out, "shr.s32 $0, $1, $2", "32 32 32", words(32), |x| (signed(x[0], 32) >> x[1].min(31)) as u64 & 0xffff_ffff);
    push(out, "shl.b64 $0, $1, $2", "64 64 32", words(64), |x| {
        let n = x[1] & 0xffff_ffff;
        if n > 63 { 0 } else { x[0] << n }
    });
    push(out, "shr.s64 $0, $1, $2", "64 64 32", words(64), |x| {
        (signed(x[0], 64) >> (x[1] & 0xffff_ffff).min(63)) as u64
    });
    push(out, "bfe.u32 $0, $1, $2, $3", three, words(32), |x| {
        let (p, n) = (x[1] & 255, x[2] & 255);
        (0..n).filter(|i| p + i < 32).map(|i| (x[0] >> (p + i) & 1) << i).fold(0, |a, b| a | b)
    });
    push(out, "bfe.s32 $0, $1, $2, $3", three, words(32), |x| {
        let (p, n) = (x[1] & 255, x[2] & 255);
        let sign = if n == 0 { 0 } else { x[0] >> (p + n - 1).min(31) & 1 };
        (0..32).map(|i| if i < n && p + i < 32 { x[0] >> (p + i) & 1 } else { sign } << i).fold(0, |a, b| a | b)
    });
    push(out, "bfi.b32 $0, $1, $2, $3, 11", three, words(32), |x| {
        let p = x[2] & 255;
        (0..32).map(|i| if i >= p && i < p + 11 { x[0] >> (i - p) & 1 } else { x[1] >> i & 1 } << i).sum()
    });
    push(out, "prmt.b32 $0, $1, $2, $3", three, words(32), |x| {
        let bytes = x[1] << 32 | x[0];
        (0..4)
            .map(|i| {
                let s = x[2] >> (4 * i) & 15;
                let byte = bytes >> (8 * (s & 7)) & 255;
                let chosen = if s > 7 { 255 * (byte >> 7) } else { byte };
                chosen << (8 * i)
            })
            .sum()
    });
    push(out, "shf.l.wrap.b32 $0, $1, $2, $3", three, words(32), |x| (x[1] << 32 | x[0]) << (x[2] & 31) >> 32);
    push(out, "shf.r.clamp.b32 $0, $1, $2, $3", three, words(32), |x| {
        (x[1] << 32 | x[0]) >> x[2].min(32) & 0xffff_ffff
    });
    push(out, "lop3.b32 $0, $1, $2, $3, 0xe8", three, words(32), |x| x[0] & x[1] | x[0] & x[2] | x[1] & x[2]);
    push(out, "lop3.b32 $0, $1, $2, $3, 0x1b", three, words(32), |x| {
        (0..32).map(|i| (0x1b >> ((x[0] >> i & 1) * 4 + (x[1] >> i & 1) * 2 + (x[2] >> i & 1)) & 1) << i).sum()
    });
    push(out, "dp4a.s32.u32 $0, $1, $2, $3", three, words(32), |x| {
        let dot: i128 = (0..4).map(|i| signed(x[0] >> (8 * i) & 255, 8) * i128::from(x[1] >> (8 * i) & 255)).sum();
        (dot + i128::from(x[2])) as u64 & 0xffff_ffff
    });
    push(out, "mul.wide.u32 $0, $1, $2", "64 32 32", words(32), |x| x[0] * x[1]);
    push(out, "mul.wide.s32 $0, $1, $2", "64 32 32", words(32), |x| (signed(x[0], 32) * signed(x[1], 32)) as u64);
    push(out, "mad.wide.s32 $0, $1, $2, $3", "64 32 32 64", words(32), |x| {
        (signed(x[0], 32) * signed(x[1], 32) + i128::from(x[2])) as u64
    });
    push(out, "mul.wide.s16 $0, $1, $2", "32 16 16", words(16), |x| {
        (signed(x[0], 16) * signed(x[1], 16)) as u64 & 0xffff_ffff
    });
}

fn floats(out: &mut Vec<Form>) {
    for (mode, word) in [('n', "rn"), ('z', "rz"), ('m', "rm"), ('p', "rp")] {
        let zero = move |a: u64, b: u64| if a >> 31 & b >> 31 == 1 { true } else { a >> 31 != b >> 31 && mode == 'm' };
        let f = |x: u64| fixed(x, 23, 8);
        let add = move |x: [u64; 3]| rounded(f(x[0]) + f(x[1]), 23, 8, mode, zero(x[0], x[1]));
        let product = move |x: [u64; 3]| (f(x[0]) >> 40) * (f(x[1]) >> 40);
        let mul = move |x: [u64; 3]| rounded(product(x), 23, 8, mode, (x[0] ^ x[1]) >> 31 == 1);
        let fma = move |x: [u64; 3]| rounded(product(x) + f(x[2]), 23, 8, mode, zero((x[0] ^ x[1]) & 1 << 31, x[2]));
        let push = |out: &mut Vec<Form>, text: String, types, oracle| {
            out.push(Form { text, types, inputs: singles(), oracle });
        };
        push(out, format!("add.{word}.f32 $0, $1, $2"), "32 32 32", Box::new(add) as Box<dyn Fn([u64; 3]) -> u64>);
        push(out, format!("mul.{word}.f32 $0, $1, $2"), "32 32 32", Box::new(mul));
        push(out, format!("fma.{word}.f32 $0, $1, $2, $3"), "32 32 32 32", Box::new(fma));
        let to_half = move |x: [u64; 3]| rounded(f(x[0]), 10, 5, mode, x[0] >> 31 == 1);
        let to_bf16 = move |x: [u64; 3]| rounded(f(x[0]), 7, 8, mode, x[0] >> 31 == 1);
        let integer = move |x: [u64; 3]| rounded(signed(x[0], 32) << SCALE, 23, 8, mode, false);
        if matches!(mode, 'n' | 'z') {
            push(out, format!("cvt.{word}.f16.f32 $0, $1"), "16 32", Box::new(to_half));
            push(out, format!("cvt.{word}.bf16.f32 $0, $1"), "16 32", Box::new(to_bf16));
        }
        let text = format!("cvt.{word}.f32.s32 $0, $1");
        out.push(Form { text, types: "32 32", inputs: words(32), oracle: Box::new(integer) });
        let to_int = move |x: [u64; 3]| {
            let (value, one) = (f(x[0]), 1i128 << SCALE);
            let (below, rest) = (value.div_euclid(one), value.rem_euclid(one));
            let up = match mode {
                'n' => 2 * rest > one || 2 * rest == one && below % 2 != 0,
                'z' => value < 0 && rest != 0,
                'p' => rest != 0,
                _ => false,
            };
            (below + i128::from(up)) as u64 & 0xffff_ffff
        };
        push(out, format!("cvt.{word}i.s32.f32 $0, $1"), "32 32", Box::new(to_int));
    }
    let tf32 = |x: [u64; 3]| rounded(fixed(x[0], 23, 8), 10, 8, 'a', x[0] >> 31 == 1) << 13;
    push(out, "cvt.rna.tf32.f32 $0, $1", "32 32", singles(), tf32);
    for (name, mantissa, exponent) in [("f16", 10, 5), ("bf16", 7, 8)] {
        let f = move |x: u64| fixed(x, mantissa, exponent);
        let product = move |x: [u64; 3]| (f(x[0]) >> 40) * (f(x[1]) >> 40);
        let both = |a: u64, b: u64| a >> 15 & b >> 15 == 1;
        let fma = move |x: [u64; 3]| {
            rounded(product(x) + f(x[2]), mantissa, exponent, 'n', both((x[0] ^ x[1]) & 0x8000, x[2]))
        };
        let inputs = halves(exponent);
        let types = "16 16 16 16";
        out.push(Form {
            text: format!("fma.rn.{name} $0, $1, $2, $3"),
            types,
            inputs: inputs.clone(),
            oracle: Box::new(fma),
        });
        let wide = move |x: [u64; 3]| {
            let pick =
                |i: usize| fma([x[0] >> (16 * i) & 0xffff, x[1] >> (16 * i) & 0xffff, x[2] >> (16 * i) & 0xffff]);
            pick(1) << 16 | pick(0)
        };
        let pairs = inputs.windows(2).map(|w| [0, 1, 2].map(|i| w[0][i] << 16 | w[1][i])).collect();
        let text = format!("fma.rn.{name}x2 $0, $1, $2, $3");
        out.push(Form { text, types: "32 32 32 32", inputs: pairs, oracle: Box::new(wide) });
        let up = move |x: [u64; 3]| rounded(f(x[0]), 23, 8, 'z', x[0] >> 15 == 1);
        out.push(Form {
            text: format!("cvt.f32.{name} $0, $1"),
            types: "32 16",
            inputs: inputs.clone(),
            oracle: Box::new(up),
        });
        if name == "f16" {
            let add = move |x: [u64; 3]| rounded(f(x[0]) + f(x[1]), 10, 5, 'n', both(x[0], x[1]));
            out.push(Form { text: "add.f16 $0, $1, $2".into(), types: "16 16 16", inputs, oracle: Box::new(add) });
        }
    }
}

type Holds = fn(Option<Ordering>) -> bool;

fn comparisons(out: &mut Vec<Form>) {
    let nan = 0x7fc0_0000;
    let mut inputs = singles();
    inputs.extend([[nan, 0x3f80_0000, 0], [0x3f80_0000, nan, 0], [nan, nan, 0], [0, 0x8000_0000, 0], [7, 7, 0]]);
    let order = |x: [u64; 3]| {
        let value = |b: u64| if b & 0x7fff_ffff > 0x7f80_0000 { None } else { Some(signed_magnitude(b)) };
        Some(value(x[0])?.cmp(&value(x[1])?))
    };
    let tests: [(&str, Holds); 14] = [
        ("eq", |o| o == Some(Equal)),
        ("ne", |o| o.is_some_and(|o| o != Equal)),
        ("lt", |o| o == Some(Less)),
        ("le", |o| o.is_some_and(|o| o != Greater)),
        ("gt", |o| o == Some(Greater)),
        ("ge", |o| o.is_some_and(|o| o != Less)),
        ("equ", |o| o.is_none_or(|o| o == Equal)),
        ("neu", |o| o.is_none_or(|o| o != Equal)),
        ("ltu", |o| o.is_none_or(|o| o == Less)),
        ("leu", |o| o.is_none_or(|o| o != Greater)),
        ("gtu", |o| o.is_none_or(|o| o == Greater)),
        ("geu", |o| o.is_none_or(|o| o != Less)),
        ("num", |o| o.is_some()),
        ("nan", |o| o.is_none()),
    ];
    for (name, holds) in tests {
        let oracle = Box::new(move |x| u64::from(holds(order(x))));
        let text = format!("setp.{name}.f32 $0, $1, $2");
        out.push(Form { text, types: "p 32 32", inputs: inputs.clone(), oracle });
    }
    for (name, max) in [("min", false), ("max", true)] {
        let oracle = move |x: [u64; 3]| match order(x) {
            None if x[0] & 0x7fff_ffff <= 0x7f80_0000 => x[0],
            None if x[1] & 0x7fff_ffff <= 0x7f80_0000 => x[1],
            None => 0x7fff_ffff,
            // Of two zeros, the minus one is less.
            Some(Equal) if max => x[0] & x[1],
            Some(Equal) => x[0] | x[1],
            Some(o) => x[usize::from((o == Less) == max)],
        };
        let text = format!("{name}.f32 $0, $1, $2");
        out.push(Form { text, types: "32 32 32", inputs: inputs.clone(), oracle: Box::new(oracle) });
    }
    push(out, "setp.lt.s16 $0, $1, $2", "p 16 16", words(16), |x| u64::from(signed(x[0], 16) < signed(x[1], 16)));
    push(out, "setp.hs.u64 $0, $1, $2", "p 64 64", words(64), |x| u64::from(x[0] >= x[1]));
    push(out, "selp.b32 $0, $1, $2, %p1", "32 32 32", words(32), |x| x[1]);
    push(out, "cvt.sat.u8.s32 $0, $1", "32 32", words(32), |x| signed(x[0], 32).clamp(0, 255) as u64);
    push(out, "cvt.s64.s32 $0, $1", "64 32", words(32), |x| signed(x[0], 32) as u64);
    push(out, "cvt.s32.s8 $0, $1", "32 32", words(32), |x| signed(x[0] & 255, 8) as u64 & 0xffff_ffff);
    push(out, "cvt.rn.f32.u64 $0, $1", "32 64", words(46), |x| rounded(i128::from(x[0]) << SCALE, 23, 8, 'n', false));
}

fn signed_magnitude(bits: u64) -> i64 {
    let size = (bits & 0x7fff_ffff) as i64;
    if bits >> 31 == 1 { -size } else { size }
}

/// All forms.
pub(crate) fn forms() -> Vec<Form> {
    let mut out = Vec::new();
    integers(&mut out);
    bits(&mut out);
    floats(&mut out);
    comparisons(&mut out);
    out
}
