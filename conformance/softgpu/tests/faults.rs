//! Planted faults: every kernel of `ptx/faults.cu` right and wrong, over ten schedules.

use tilewright_softgpu::{Fault, FaultKind, Gpu, Launch, Module, Settings};

const GOOD: &str = include_str!("ptx/faults_good.ptx");
const BAD: &str = include_str!("ptx/faults_bad.ptx");
const BLOCKS: usize = 4;
const N: usize = BLOCKS * 128;

/// Input element `i`.
fn input(i: usize) -> u32 {
    3 * i as u32 + 1
}

/// How a wrong kernel shows.
enum Sign {
    /// By one of these faults, in every schedule.
    Fault(&'static [FaultKind]),
    /// By its result.
    Result,
}

struct Case {
    kernel: &'static str,
    sign: Sign,
    /// Words of the output.
    words: usize,
    shared: u32,
    cooperative: bool,
    /// What the right kernel leaves at that word; `None` where it says nothing.
    expected: fn(usize) -> Option<u32>,
}

fn case(kernel: &'static str, kinds: &'static [FaultKind], expected: fn(usize) -> Option<u32>) -> Case {
    Case { kernel, sign: Sign::Fault(kinds), words: 1024, shared: 0, cooperative: false, expected }
}

/// Sum over all tiles of what thread `i` of a block reads.
fn neighbours(i: usize) -> Option<u32> {
    (i < N).then(|| (0..BLOCKS).map(|tile| input(tile * 128 + (i + 33) % 128)).sum())
}

fn reversed(i: usize) -> Option<u32> {
    (i < N).then(|| input(i / 128 * 128 + 127 - i % 128))
}

fn pairs(i: usize) -> Option<u32> {
    (i < N).then(|| input(i ^ 1))
}

fn cases() -> Vec<Case> {
    use FaultKind::{
        Deadlock, DivergentBarrier, InactiveLane, Misaligned, MissingWait, OutOfBounds, Race, Uninitialized,
    };
    let copied = |i: usize| (i < N).then(|| input(i));
    vec![
        case("missing_barrier", &[Race, Uninitialized], reversed),
        case("write_after_read", &[Race], neighbours),
        case("wrong_wait_group", &[MissingWait], neighbours),
        case("missing_wait", &[MissingWait], reversed),
        case("stale_tail", &[Uninitialized], |i| (i < N).then(|| (0..100).map(input).sum())),
        Case {
            sign: Sign::Result,
            ..case("half_warp_reduction", &[], |i| (i < N).then(|| (0..32).map(|l| input(i / 32 * 32 + l)).sum()))
        },
        case("inactive_lane", &[InactiveLane], |i| {
            (i < N).then(|| if i % 32 < 16 { input(i) + input(i + 16) } else { input(i) })
        }),
        case("misaligned_vector", &[Misaligned], |i| (i < N && i % 128 < 124).then(|| input(i))),
        Case { words: N, ..case("out_of_bounds", &[OutOfBounds], copied) },
        Case { shared: 512, ..case("shared_out_of_bounds", &[OutOfBounds], copied) },
        case("uninitialized_scratch", &[Uninitialized], |i| (i < N && i % 128 < 4).then_some(32)),
        case("lost_atomic", &[Race], |i| (i == 0).then(|| (0..BLOCKS).map(input).sum())),
        case(
            "divergent_barrier",
            &[DivergentBarrier],
            |i| {
                if i % 32 < 20 { pairs(i) } else { (i < N).then(|| input(i)) }
            },
        ),
        case("missing_syncwarp", &[Race], pairs),
        case("deadlock", &[Deadlock], |i| (i < N).then_some(1)),
        case("missing_fence", &[Race], |i| (i == 100).then(|| (0..BLOCKS).map(input).sum())),
        Case {
            cooperative: true,
            ..case("grid_barrier", &[Race], |i| (i == 1000).then(|| (0..BLOCKS).map(|b| input(b * 128)).sum()))
        },
        case("local_array", &[Uninitialized], |i| {
            let sum = |t: usize| (0..8).map(|j| input((t + (j * N + t) % 8) % 128)).sum();
            (i < N).then(|| sum(i % 128))
        }),
    ]
}

fn run(module: &Module, case: &Case, seed: u64) -> Result<Vec<u32>, Fault> {
    let mut gpu = Gpu::new(Settings { seed, ..Settings::default() });
    let bytes: Vec<u8> = (0..N).flat_map(|i| input(i).to_le_bytes()).collect();
    let from = gpu.alloc(bytes.len() as u64).expect("memory");
    let to = gpu.alloc(case.words as u64 * 4).expect("memory");
    gpu.write(from, &bytes).expect("a write inside");
    gpu.fill(to, 0, case.words as u64 * 4).expect("a write inside");
    let mut params = Vec::new();
    params.extend(to.to_le_bytes());
    params.extend(from.to_le_bytes());
    params.extend((N as u32).to_le_bytes());
    let launch = Launch {
        shared: case.shared,
        cooperative: case.cooperative,
        ..Launch::new([BLOCKS as u32, 1, 1], [128, 1, 1])
    };
    gpu.launch(module, case.kernel, &launch, &params)?;
    let out = gpu.read(to, case.words as u64 * 4).expect("a read inside");
    Ok(out.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes"))).collect())
}

/// The first word that isn't what the right kernel leaves.
fn wrong(case: &Case, out: &[u32]) -> Option<usize> {
    out.iter().enumerate().find(|&(i, &x)| (case.expected)(i).is_some_and(|e| e != x)).map(|(i, _)| i)
}

#[test]
fn right_kernels_raise_nothing_in_any_schedule() {
    let module = Module::parse(GOOD).expect("PTX");
    for case in cases() {
        for seed in 0..10 {
            match run(&module, &case, seed) {
                Ok(out) => assert_eq!(wrong(&case, &out), None, "{} with seed {seed}", case.kernel),
                Err(fault) => panic!("seed {seed}: {fault}"),
            }
        }
    }
}

#[test]
fn every_planted_fault_is_found_in_every_schedule() {
    let module = Module::parse(BAD).expect("PTX");
    for case in cases() {
        for seed in 0..10 {
            let outcome = run(&module, &case, seed);
            match (&case.sign, outcome) {
                (Sign::Fault(kinds), Err(fault)) => {
                    assert!(kinds.contains(&fault.kind), "seed {seed}: {fault}");
                    assert!(fault.line > 0 && !fault.threads.is_empty(), "{fault}");
                    let text = BAD.lines().nth(fault.line as usize - 1).unwrap_or("");
                    assert!(text.contains(';'), "line {} is no instruction: {text}", fault.line);
                }
                (Sign::Result, Ok(out)) => assert!(wrong(&case, &out).is_some(), "{} went unnoticed", case.kernel),
                (_, outcome) => panic!("{} with seed {seed}: {outcome:?}", case.kernel),
            }
        }
    }
}

#[test]
fn all_kernels_of_the_file_are_cases() {
    let module = Module::parse(GOOD).expect("PTX");
    let mut names: Vec<&str> = cases().iter().map(|c| c.kernel).collect();
    names.sort_unstable();
    assert_eq!(module.kernels(), names);
}

#[test]
fn freed_memory_is_not_reused() {
    let module = Module::parse(GOOD).expect("PTX");
    let mut gpu = Gpu::new(Settings::default());
    let (a, b) = (gpu.alloc(2048).expect("memory"), gpu.alloc(2048).expect("memory"));
    gpu.fill(a, 1, 2048).expect("inside");
    gpu.free(a).expect("live");
    assert_eq!(gpu.free(a).expect_err("freed twice").kind, FaultKind::UseAfterFree);
    let params = [&b.to_le_bytes()[..], &a.to_le_bytes(), &512u32.to_le_bytes()].concat();
    let launch = Launch::new([1, 1, 1], [128, 1, 1]);
    let fault = gpu.launch(&module, "out_of_bounds", &launch, &params).expect_err("a use after free");
    assert_eq!(fault.kind, FaultKind::UseAfterFree);
    // Arguments in the wrong order: what was to be written is read, and nothing wrote it.
    let c = gpu.alloc(2048).expect("memory");
    let params = [&c.to_le_bytes()[..], &b.to_le_bytes(), &512u32.to_le_bytes()].concat();
    let fault = gpu.launch(&module, "out_of_bounds", &launch, &params).expect_err("an unwritten input");
    assert_eq!(fault.kind, FaultKind::Uninitialized);
}

#[test]
fn bad_launches_are_faults_without_a_line() {
    let module = Module::parse(GOOD).expect("PTX");
    let mut gpu = Gpu::new(Settings::default());
    let good = Launch::new([1, 1, 1], [128, 1, 1]);
    let shapes = [
        Launch { block: [2048, 1, 1], ..good },
        Launch { block: [0, 1, 1], ..good },
        Launch { block: [129, 1, 1], ..good },
        Launch { grid: [0, 1, 1], ..good },
        Launch { grid: [1, 65536, 1], ..good },
        Launch { shared: 300 << 10, ..good },
    ];
    for shape in shapes {
        let fault = gpu.launch(&module, "deadlock", &shape, &[0; 20]).expect_err("a bad shape");
        assert_eq!((fault.kind, fault.line), (FaultKind::Launch, 0), "{fault}");
    }
    for (kernel, params) in [("nothing", 20), ("deadlock", 19)] {
        let fault = gpu.launch(&module, kernel, &good, &vec![0; params]).expect_err("a bad launch");
        assert_eq!(fault.kind, FaultKind::Launch, "{fault}");
    }
}

#[test]
fn what_is_not_understood_is_an_error_with_its_line() {
    let text = |body: &str| format!(".version 8.4\n.target sm_80\n.address_size 64\n.entry k()\n{{\n{body}\n}}\n");
    for (body, line, part) in [
        ("\n not.an.instruction %r1;", 7, "not.an.instruction"),
        ("add.u32 %r1, 2, 3;", 6, "%r1"),
        (".reg .b32 %r<2>;\nadd.u32 %r2, 2, 3;", 7, "%r2"),
        ("bra nowhere;", 6, "nowhere"),
        (".reg .b64 %d<2>;\nadd.u32 %d1, 2, 3;", 7, "%d1"),
        ("call missing;", 6, "missing"),
        ("/* open", 6, "comment"),
    ] {
        let error = Module::parse(&text(body)).expect_err(body);
        assert_eq!(error.line, line, "{error}");
        assert!(error.message.contains(part), "{error}");
    }
}

/// Words dropped, doubled, swapped or replaced by others: an error or a module, never a panic.
#[test]
fn damaged_texts_never_panic() {
    let words: Vec<&str> = GOOD.split_inclusive([' ', '\t', '\n', ',', ';']).collect();
    let odd =
        ["{", "}", "[", "]", "(", ")", ";", ":", "-", "4294967295", ".reg", ".b64", "\"", "/*", "%r1", "bra", "é"];
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut refused = 0;
    for _ in 0..400 {
        let mut text: Vec<&str> = words.clone();
        for _ in 0..=below(3) {
            let at = below(text.len());
            match below(4) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, words[below(words.len())]),
                2 => text[at] = odd[below(odd.len())],
                _ => text.insert(at, odd[below(odd.len())]),
            }
        }
        refused += usize::from(Module::parse(&text.concat()).is_err());
    }
    assert!(refused > 200, "only {refused} refused");
}
