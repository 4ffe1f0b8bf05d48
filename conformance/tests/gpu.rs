//! The CUDA backend as `assay` tries it, and kernels of anybody's on the software GPU.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

const BAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/softgpu/tests/ptx/faults_bad.ptx");

/// Doubles the numbers of a buffer: its address, how many there are, and a factor of a half word.
const SCALE: &str = "
.version 8.4
.target sm_80
.address_size 64
.visible .entry scale(.param .u64 p, .param .u32 n, .param .f32 factor) {
  .reg .pred %q; .reg .b32 %r<4>; .reg .f32 %f<3>; .reg .b64 %d<3>;
  ld.param.u64 %d1, [p];
  ld.param.u32 %r2, [n];
  ld.param.f32 %f2, [factor];
  mov.u32 %r1, %tid.x;
  setp.ge.u32 %q, %r1, %r2;
  @%q bra DONE;
  mul.wide.u32 %d2, %r1, 4;
  add.s64 %d1, %d1, %d2;
  ld.global.f32 %f1, [%d1];
  mul.f32 %f1, %f1, %f2;
  st.global.f32 [%d1], %f1;
DONE:
  ret;
}";

fn assay(arguments: &[&str]) -> (Option<i32>, String, String) {
    let run = |command: &mut Command| -> Output { command.output().unwrap() };
    let output = run(Command::new(env!("CARGO_BIN_EXE_assay")).args(arguments).env_remove("TILEWRIGHT_SOFTGPU"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code(), out, err)
}

fn refused(arguments: &[&str], words: &[&str]) {
    let (code, out, err) = assay(arguments);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}: {err}");
    assert!(words.iter().all(|word| err.contains(word)), "{arguments:?}: {err}");
}

#[test]
fn the_cuda_backend_conforms_on_the_software_gpu() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json").to_str().unwrap().to_string();
    let cases = [
        "attention/f32/b1h2k1/n3s5d4v4/causal/normal/1",
        "attention/bf16/b1h1k1/n9s17d8v8/plain/normal/1",
        "compression/n300/topk@0.1/hash@2/momentum=0.9,masked/wire=f32,plain/heavy/steps=2/ranks=1/7",
        "grouplasso/prox/f64/r17c3/ragged/sg=0.3/lambda=1/step=0.5+weights=drawn/heavy/1",
        "grouplasso/select/f32/r90c3/keep@0.1/descending/1",
    ];
    for schedule in ["0", "5"] {
        let mut arguments = vec!["run", "--subject", "softgpu", "--schedule", schedule, "--json", &report];
        arguments.extend(cases.iter().flat_map(|case| ["--case", case]));
        let (code, out, err) = assay(&arguments);
        assert_eq!(code, Some(0), "{out}{err}");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let subjects = json["subjects"].as_array().unwrap();
        let conform: u64 = subjects.iter().map(|subject| subject["conforms"].as_u64().unwrap()).sum();
        assert_eq!((subjects.len(), conform), (3, 5), "{json}");
        assert_eq!(json["violations"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn a_gpu_that_is_not_there_is_said_so() {
    if tilewright_cuda::Device::open(0).is_ok() {
        return;
    }
    let (code, out, err) = assay(&["run", "--subject", "cuda", "--family", "compression"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("assay: ") && (err.contains("driver") || err.contains("device")), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_kernel_of_anybodys() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (file, input, output) = (path("scale.ptx"), path("in.bin"), path("out.bin"));
    std::fs::write(&file, SCALE).unwrap();
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    std::fs::write(&input, bytes(&[1.0, -3.0, 0.5])).unwrap();

    let (code, out, _) = assay(&["softgpu", &file]);
    assert!(code == Some(0) && out.contains("scale") && out.contains("8 4 4"), "{out}");

    let (buffer, target) = (format!("file={input}"), format!("0={output}"));
    let run = |count: &str, more: &[&str]| {
        let mut arguments = vec!["softgpu", &file, "--kernel", "scale", "--arg", &buffer, "--arg", count];
        arguments.extend(["--arg", "f32=-2", "--schedules", "3"]);
        arguments.extend(more);
        assay(&arguments)
    };
    let (code, out, err) = run("u32=3", &["--out", &target]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("the same bits") && out.contains("3 schedules, 0 with a fault"), "{out}");
    assert_eq!(std::fs::read(&output).unwrap(), bytes(&[-2.0, 6.0, -1.0]));

    // One too many: a fault under every schedule, and where.
    let (code, out, _) = run("u32=4", &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("out of bounds in scale, PTX line 15") && out.contains("3 with a fault"), "{out}");

    // Nothing was written to it.
    let (code, out, _) =
        assay(&["softgpu", &file, "--kernel", "scale", "--arg", "new=12", "--arg", "u32=3", "--arg", "f32=1"]);
    assert!(code == Some(1) && out.contains("uninitialized"), "{out}");

    refused(&["softgpu", &file, "--kernel", "scald"], &["--kernel", "scald", "scale"]);
    refused(&["softgpu", &file, "--kernel", "scale"], &["--arg: got 0, expected 3"]);
    let short = ["softgpu", &file, "--kernel", "scale", "--arg", "u32=1", "--arg", "u32=1", "--arg", "f32=1"];
    refused(&short, &["argument 0 has 4 bytes, expected 8"]);
    refused(&["softgpu", &file, "--kernel", "scale", "--arg", "f8=1"], &["f8=1", "TYPE=VALUE"]);
    refused(&["softgpu", &file, "--kernel", "scale", "--arg", "u32=x"], &["`x` for u32"]);
    refused(&["softgpu", &file, "--kernel", "scale", "--grid", "1,0"], &["1,0", "positive"]);
    refused(&["softgpu", &path("no.ptx")], &["no.ptx"]);
    std::fs::write(path("bad.ptx"), SCALE.replace("mul.f32", "mull.f32")).unwrap();
    refused(&["softgpu", &path("bad.ptx")], &["bad.ptx", "line 16", "mull.f32"]);
}

#[test]
fn the_list_of_a_larger_file() {
    assert!(Path::new(BAD).is_file());
    let (code, out, _) = assay(&["softgpu", BAD]);
    assert!(code == Some(0) && out.lines().count() > 10, "{out}");
}
