//! What the lanes of one warp do to each other, in every pattern of addresses: a warp's accesses are checked together where
//! they follow a pattern, and must find what checking lane by lane finds.

use FaultKind::{Misaligned, OutOfBounds, Race, Uninitialized};
use tilewright_softgpu::{FaultKind, Gpu, Launch, Module, Settings};

/// What a warp does with 512 bytes `s` of shared memory and an allocation `p` of 128 bytes, of which the host has written
/// 124. `%r1` is the lane; the 64-bit `%rd2` is `p + 4·lane`; `%r2` to `%r5` are the addresses `s + 4·lane`,
/// `s + 4·((lane + 1) mod 32)`, `s + 8·lane` and `s + lane`; `%r6` is `s + 16·lane`, `%r7` is
/// `s + 4·(lane mod 16)`, `%r8` is `s + 8·⌊lane / 2⌋`; `%p1` is true in lane 5 only,
/// `%p2` in lane 0.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{
          .reg .b32 %r<32>; .reg .b64 %rd<4>; .reg .pred %p<3>; .reg .b16 %h<4>;
          .shared .align 16 .b8 s[512];
          ld.param.u64 %rd1, [p]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2;
          mov.u32 %r10, s;
          shl.b32 %r11, %r1, 2; add.s32 %r2, %r10, %r11;
          add.s32 %r12, %r1, 1; and.b32 %r12, %r12, 31; shl.b32 %r12, %r12, 2; add.s32 %r3, %r10, %r12;
          shl.b32 %r13, %r1, 3; add.s32 %r4, %r10, %r13; add.s32 %r5, %r10, %r1;
          shl.b32 %r14, %r1, 4; add.s32 %r6, %r10, %r14;
          and.b32 %r15, %r11, 63; add.s32 %r7, %r10, %r15; and.b32 %r16, %r11, 120; add.s32 %r8, %r10, %r16;
          setp.eq.u32 %p1, %r1, 5; setp.eq.u32 %p2, %r1, 0; cvt.u16.u32 %h1, %r1;
          {body}
          ret;
        }}"
    )
}

/// Name, body, the fault and the threads it names.
type Case = (&'static str, &'static str, Option<(FaultKind, &'static [u32])>);

const SYNC: &str = "bar.warp.sync 0xffffffff;";

const CASES: &[Case] = &[
    ("a run, own places", "st.shared.u32 [%r2], %r1; ld.shared.u32 %r20, [%r2];", None),
    ("a run, the neighbour's after a barrier", "st.shared.u32 [%r2], %r1; SYNC ld.shared.u32 %r20, [%r3];", None),
    ("a run, the neighbour's", "st.shared.u32 [%r2], %r1; ld.shared.u32 %r20, [%r3];", Some((Race, &[0]))),
    ("one writes, all read", "@%p1 st.shared.u32 [s], %r1; ld.shared.u32 %r20, [s];", Some((Race, &[0]))),
    ("the first writes, all read", "@%p2 st.shared.u32 [s], %r1; ld.shared.u32 %r20, [s];", Some((Race, &[1]))),
    ("one writes, all read later", "@%p1 st.shared.u32 [s], %r1; SYNC ld.shared.u32 %r20, [s];", None),
    ("one writes and reads", "@%p1 st.shared.u32 [s], %r1; @%p1 ld.shared.u32 %r20, [s];", None),
    ("all write one value to one place", "st.shared.u32 [s], 7;", None),
    ("all write different values to one place", "st.shared.u32 [s], %r1;", Some((Race, &[1]))),
    (
        "all read, one writes",
        "@%p1 st.shared.u32 [s], %r1; SYNC ld.shared.u32 %r20, [s]; @%p1 st.shared.u32 [s], %r1;",
        Some((Race, &[5])),
    ),
    (
        "all read, one writes later",
        "@%p1 st.shared.u32 [s], %r1; SYNC ld.shared.u32 %r20, [s]; SYNC @%p1 st.shared.u32 [s], %r1;",
        None,
    ),
    ("every other word", "st.shared.u32 [%r4], %r1; ld.shared.u32 %r20, [%r4];", None),
    (
        "a run over every other word",
        "st.shared.u32 [%r4], %r1; ld.shared.u32 %r20, [%r2];",
        Some((Uninitialized, &[1])),
    ),
    (
        "every other word, by others",
        "st.shared.v2.u32 [%r4], {%r1, %r1}; ld.shared.u32 %r20, [%r2];",
        Some((Race, &[1])),
    ),
    ("bytes of one word", "st.shared.u8 [%r5], %h1; ld.shared.u8 %h2, [%r5];", None),
    ("a word of four bytes", "st.shared.u8 [%r5], %h1; @%p1 ld.shared.u32 %r20, [s];", Some((Race, &[5]))),
    ("a word of four bytes later", "st.shared.u8 [%r5], %h1; SYNC @%p1 ld.shared.u32 %r20, [s];", None),
    (
        "sixteen bytes, then words of them",
        "st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1}; SYNC ld.shared.u32 %r20, [%r2];",
        None,
    ),
    (
        "sixteen bytes, then words of others",
        "st.shared.v4.u32 [%r6], {%r1, %r1, %r1, %r1}; ld.shared.u32 %r20, [%r2];",
        Some((Race, &[1])),
    ),
    ("both halves read the same", "st.shared.u32 [%r2], %r1; SYNC ld.shared.u32 %r20, [%r7];", None),
    ("both halves read what one wrote", "st.shared.u32 [%r2], %r1; ld.shared.u32 %r20, [%r7];", Some((Race, &[16]))),
    ("pairs read the same", "st.shared.u32 [%r2], %r1; SYNC ld.shared.u32 %r20, [%r8];", None),
    ("pairs read what one wrote", "st.shared.u32 [%r2], %r1; ld.shared.u32 %r20, [%r8];", Some((Race, &[1]))),
    (
        "pairs read, then one writes",
        "st.shared.u32 [%r2], %r1; SYNC ld.shared.u32 %r20, [%r8]; @%p2 st.shared.u32 [s], %r1;",
        Some((Race, &[0])),
    ),
    (
        "halves read, then one writes",
        "st.shared.u32 [%r2], %r1; SYNC ld.shared.u32 %r20, [%r7]; @%p2 st.shared.u32 [s], %r1;",
        Some((Race, &[0])),
    ),
    ("a run of global words", "st.global.u32 [%rd2], %r1; ld.global.u32 %r20, [%rd2];", None),
    ("a run past the end", "st.global.u32 [%rd2+4], %r1;", Some((OutOfBounds, &[31]))),
    ("a run before the start", "st.global.u32 [%rd2+-4], %r1;", Some((OutOfBounds, &[0]))),
    ("a load past the end", "st.global.u32 [%rd2], %r1; ld.global.u32 %r20, [%rd2+4];", Some((Race, &[0]))),
    ("a run nobody has written to its end", "ld.global.u32 %r20, [%rd2];", Some((Uninitialized, &[31]))),
    ("one word nobody has written", "ld.global.u32 %r20, [%rd1+124];", Some((Uninitialized, &[0]))),
    ("a run between two words", "st.global.u32 [%rd2+2], %r1;", Some((Misaligned, &[0]))),
    ("shared memory past the end", "st.shared.u32 [%r2+388], %r1;", Some((OutOfBounds, &[31]))),
    ("one place past the end", "ld.shared.u32 %r20, [s+512];", Some((OutOfBounds, &[0]))),
];

fn run(body: &str, seed: u64) -> Option<(FaultKind, Vec<u32>)> {
    let module = Module::parse(&kernel(&body.replace("SYNC", SYNC))).expect("PTX");
    let mut gpu = Gpu::new(Settings { seed, ..Settings::default() });
    let p = gpu.alloc(128).expect("memory");
    gpu.write(p, &[1; 124]).expect("inside");
    let launch = Launch::new([1, 1, 1], [32, 1, 1]);
    gpu.launch(&module, "k", &launch, &p.to_le_bytes()).err().map(|fault| (fault.kind, fault.threads))
}

#[test]
fn patterns_of_addresses_hide_nothing() {
    for (name, body, expected) in CASES {
        for seed in [0, 1, 2] {
            let expected = expected.map(|(kind, threads)| (kind, threads.to_vec()));
            assert_eq!(run(body, seed), expected, "{name}");
        }
    }
}
