//! What a whole warp does: `mma.sync`, `ldmatrix` and `movmatrix` on small integers, which every format holds exactly and whose
//! sums no order of rounding changes; so the expected results are those of any device.
//!
//! Fragments are laid out here as the manual tabulates them, element by element.

use std::fmt::Write as _;

/// Words of a lane, in and out.
pub(crate) const WORDS: usize = 12;

/// A kernel `k(out, in)` for one warp, whose lanes read and write [`WORDS`] words of eight bytes each.
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) ptx: String,
    pub(crate) words: Vec<u64>,
    /// What is in `out` afterwards, which is zero before.
    pub(crate) expected: Vec<u64>,
}

/// All of them.
pub(crate) fn trials() -> Vec<Trial> {
    let matrices = [1, 2, 4].into_iter().flat_map(|count| [false, true].map(|trans| distribution(count, trans)));
    forms().iter().map(product).chain(matrices).collect()
}

/// One form of `mma`.
struct Form {
    text: &'static str,
    m: usize,
    k: usize,
    /// Bytes of an element of A and B, and of the accumulator.
    bytes: usize,
    c_bytes: usize,
    encode: fn(i32) -> u64,
    encode_c: fn(i32) -> u64,
}

fn f16(x: i32) -> u64 {
    half::f16::from_f32(x as f32).to_bits().into()
}

fn bf16(x: i32) -> u64 {
    half::bf16::from_f32(x as f32).to_bits().into()
}

fn f32(x: i32) -> u64 {
    (x as f32).to_bits().into()
}

fn f64(x: i32) -> u64 {
    f64::from(x).to_bits()
}

fn s8(x: i32) -> u64 {
    u64::from(x as u8)
}

fn s32(x: i32) -> u64 {
    u64::from(x as u32)
}

fn forms() -> Vec<Form> {
    let form = |text, m, k, bytes, c_bytes, encode, encode_c| Form { text, m, k, bytes, c_bytes, encode, encode_c };
    vec![
        form("m16n8k16.row.col.f32.f16.f16.f32", 16, 16, 2, 4, f16, f32),
        form("m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, 2, 4, bf16, f32),
        form("m16n8k16.row.col.f16.f16.f16.f16", 16, 16, 2, 2, f16, f16),
        form("m16n8k8.row.col.f32.f16.f16.f32", 16, 8, 2, 4, f16, f32),
        form("m16n8k8.row.col.f32.bf16.bf16.f32", 16, 8, 2, 4, bf16, f32),
        form("m16n8k8.row.col.f16.f16.f16.f16", 16, 8, 2, 2, f16, f16),
        form("m16n8k8.row.col.f32.tf32.tf32.f32", 16, 8, 4, 4, f32, f32),
        form("m16n8k4.row.col.f32.tf32.tf32.f32", 16, 4, 4, 4, f32, f32),
        form("m8n8k4.row.col.f64.f64.f64.f64", 8, 4, 8, 8, f64, f64),
        form("m16n8k32.row.col.s32.s8.s8.s32", 16, 32, 1, 4, s8, s32),
        form("m16n8k16.row.col.s32.s8.s8.s32", 16, 16, 1, 4, s8, s32),
    ]
}

/// Row and column of element `i` of lane `l`'s part of A, by the manual's tables for each element size.
fn place_a(f: &Form, l: usize, i: usize) -> (usize, usize) {
    let (g, t) = (l / 4, l % 4);
    match f.bytes {
        8 => (g, t),
        4 => (if i & 1 == 0 { g } else { g + 8 }, if i < 2 { t } else { t + 4 }),
        2 => {
            let row = if i < 2 || (4..6).contains(&i) { g } else { g + 8 };
            (row, t * 2 + (i & 1) + if i >= 4 { 8 } else { 0 })
        }
        _ => {
            let row = if i < 4 || (8..12).contains(&i) { g } else { g + 8 };
            (row, t * 4 + (i & 3) + if i >= 8 { 16 } else { 0 })
        }
    }
}

/// Row (along k) and column of element `i` of lane `l`'s part of B.
fn place_b(f: &Form, l: usize, i: usize) -> (usize, usize) {
    let (g, t) = (l / 4, l % 4);
    let row = match f.bytes {
        8 => t,
        4 => t + 4 * i,
        2 => t * 2 + (i & 1) + if i >= 2 { 8 } else { 0 },
        _ => t * 4 + (i & 3) + if i >= 4 { 16 } else { 0 },
    };
    (row, g)
}

/// Row and column of element `i` of lane `l`'s part of C and D.
fn place_c(l: usize, i: usize) -> (usize, usize) {
    (if i < 2 { l / 4 } else { l / 4 + 8 }, l % 4 * 2 + (i & 1))
}

/// Elements, packed into registers of four bytes (eight for doubles), and each register into eight bytes.
fn pack(elements: &[u64], bytes: usize) -> Vec<u64> {
    let per = (4 / bytes).max(1);
    elements.chunks(per).map(|c| c.iter().enumerate().map(|(i, x)| x << (8 * bytes * i)).sum()).collect()
}

fn registers(prefix: &str, count: usize) -> String {
    let list: Vec<String> = (0..count).map(|i| format!("%{prefix}{i}")).collect();
    format!("{{{}}}", list.join(", "))
}

fn kernel(f: &Form, counts: [usize; 3]) -> String {
    let bits = if f.bytes == 8 { 64 } else { 32 };
    let mut text = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 in) {{\n.reg \
         .b{bits} %a<8>, %b<8>, %c<8>;\n.reg .b32 %t;\n.reg .b64 %o, %i;\nld.param.u64 %o, [out];\nld.param.u64 %i, \
         [in];\nmov.u32 %t, %tid.x;\nmad.wide.u32 %o, %t, 96, %o;\nmad.wide.u32 %i, %t, 96, %i;\n"
    );
    let mut at = 0;
    for (prefix, count) in ["a", "b", "c"].iter().zip(counts) {
        for i in 0..count {
            let _ = writeln!(text, "ld.global.b{bits} %{prefix}{i}, [%i+{at}];");
            at += 8;
        }
    }
    let [a, b, c] = [("a", counts[0]), ("b", counts[1]), ("c", counts[2])].map(|(p, n)| registers(p, n));
    let _ = writeln!(text, "mma.sync.aligned.{} {c}, {a}, {b}, {c};", f.text);
    for i in 0..counts[2] {
        let _ = writeln!(text, "st.global.b{bits} [%o+{}], %c{i};", 8 * i);
    }
    text + "ret;\n}\n"
}

/// A small number that depends on where it is.
fn small(i: usize, j: usize, salt: usize) -> i32 {
    ((i * 7 + j * 13 + salt * 5 + i * j * 3) % 9) as i32 - 4
}

fn product(f: &Form) -> Trial {
    let (a_count, b_count, c_count) = (f.m * f.k / 32, f.k * 8 / 32, f.m * 8 / 32);
    let (mut words, mut expected, mut counts) = (Vec::new(), Vec::new(), [0; 3]);
    for l in 0..32 {
        let part = |count: usize, encode: fn(i32) -> u64, number: &dyn Fn(usize) -> i32| -> Vec<u64> {
            (0..count).map(|i| encode(number(i))).collect()
        };
        let entry = |(row, column): (usize, usize), salt| small(row, column, salt);
        let a = part(a_count, f.encode, &|i| entry(place_a(f, l, i), 0));
        let b = part(b_count, f.encode, &|i| entry(place_b(f, l, i), 1));
        let c = part(c_count, f.encode_c, &|i| entry(place_c(l, i), 2));
        let d = part(c_count, f.encode_c, &|i| {
            let (row, column) = place_c(l, i);
            (0..f.k).map(|k| small(row, k, 0) * small(k, column, 1)).sum::<i32>() + small(row, column, 2)
        });
        let parts = [pack(&a, f.bytes), pack(&b, f.bytes), pack(&c, f.c_bytes)];
        counts = [parts[0].len(), parts[1].len(), parts[2].len()];
        words.extend(lane(parts.concat()));
        expected.extend(lane(pack(&d, f.c_bytes)));
    }
    Trial { name: format!("mma.sync.aligned.{}", f.text), ptx: kernel(f, counts), words, expected }
}

fn lane(mut words: Vec<u64>) -> Vec<u64> {
    words.resize(WORDS, 0);
    words
}

/// Matrices of 8 × 8 whose element (row, column) of number `j` is `64 j + 8 row + column`, to the lanes; and the first one
/// transposed within them.
fn distribution(count: usize, trans: bool) -> Trial {
    let (t, list) = (if trans { ".trans" } else { "" }, registers("r", count));
    let mut stores = String::new();
    for i in 0..count {
        let _ = writeln!(stores, "st.global.b32 [%o+{}], %r{i};", 8 * i);
    }
    let name = format!("ldmatrix.sync.aligned.m8n8.x{count}{t}.shared.b16");
    let ptx = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out, .param .u64 in) {{
.shared .align 16 .b8 tile[512];
.reg .b32 %r<4>, %t, %s, %v, %n;\n.reg .b16 %h;\n.reg .b64 %o;\n.reg .pred %p;
ld.param.u64 %o, [out];\nmov.u32 %t, %tid.x;\nmad.wide.u32 %o, %t, 96, %o;
mov.u32 %s, tile;\nmad.lo.u32 %s, %t, 16, %s;\nmov.u32 %n, 0;\nmul.lo.u32 %v, %t, 8;
L:\ncvt.u16.u32 %h, %v;\nst.shared.b16 [%s], %h;\nadd.u32 %s, %s, 2;\nadd.u32 %v, %v, 1;\nadd.u32 %n, %n, 1;
setp.lt.u32 %p, %n, 8;\n@%p bra L;\nsub.u32 %s, %s, 16;\nbar.warp.sync -1;
{name} {list}, [%s];\n{stores}movmatrix.sync.aligned.m8n8.trans.b16 %r0, %r0;\nst.global.b32 [%o+32], %r0;\nret;\n}}\n"
    );
    let pair = |j: usize, l: usize, swapped: bool| {
        let element = |c: usize| if swapped { 64 * j + 8 * c + l / 4 } else { 64 * j + 8 * (l / 4) + c };
        (element(l % 4 * 2) | element(l % 4 * 2 + 1) << 16) as u64
    };
    let mut expected = vec![0; 32 * WORDS];
    for l in 0..32 {
        for j in 0..count {
            expected[l * WORDS + j] = pair(j, l, trans);
        }
        expected[l * WORDS + 4] = pair(0, l, !trans);
    }
    Trial { name, ptx, words: vec![0; 32 * WORDS], expected }
}
