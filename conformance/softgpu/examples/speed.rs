//! How fast the interpreter runs, checks on: `cargo run --release -p tilewright-softgpu --example speed`.

use std::time::Instant;

use tilewright_softgpu::{Gpu, Launch, Module, Settings};

/// A loop of 12 instructions that only compute, integer and floating point.
const ARITHMETIC: &str = "
.version 8.4
.target sm_80
.address_size 64
.visible .entry arithmetic(.param .u64 p, .param .u32 n) {
  .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<4>; .reg .pred %p<2>;
  ld.param.u64 %rd1, [p];
  ld.param.u32 %r8, [n];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, 0;
  cvt.rn.f32.u32 %f1, %r1;
  mov.f32 %f2, 0f3F800000;
L:
  fma.rn.f32 %f2, %f2, 0f3F7FFFFF, %f1;
  add.f32 %f3, %f2, %f1;
  mul.f32 %f4, %f3, 0f3F000000;
  max.f32 %f1, %f4, 0f00000000;
  mad.lo.s32 %r1, %r1, 1664525, 1013904223;
  shl.b32 %r3, %r1, 5;
  xor.b32 %r4, %r3, %r1;
  add.s32 %r1, %r4, %r2;
  selp.b32 %r5, %r1, %r4, %p1;
  add.s32 %r2, %r2, 1;
  setp.lt.u32 %p1, %r2, %r8;
  @%p1 bra L;
  mov.u32 %r6, %tid.x;
  mul.wide.u32 %rd2, %r6, 4;
  add.s64 %rd1, %rd1, %rd2;
  st.global.f32 [%rd1], %f2;
  ret;
}";

/// A loop of four products of the tensor cores.
const TENSOR: &str = "
.version 8.4
.target sm_80
.address_size 64
.visible .entry tensor(.param .u64 p, .param .u32 n) {
  .reg .b32 %a<5>; .reg .b32 %b<3>; .reg .f32 %f<17>; .reg .b32 %r<3>; .reg .pred %p<2>;
  ld.param.u32 %r2, [n];
  mov.u32 %r1, 0;
  mov.b32 %a1, 0x3f803f80; mov.b32 %a2, 0x3f803f80; mov.b32 %a3, 0x3f803f80; mov.b32 %a4, 0x3f803f80;
  mov.b32 %b1, 0x3f803f80; mov.b32 %b2, 0x3f803f80;
L:
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4},{%a1,%a2,%a3,%a4},{%b1,%b2},{%f1,%f2,%f3,%f4};
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f5,%f6,%f7,%f8},{%a1,%a2,%a3,%a4},{%b1,%b2},{%f5,%f6,%f7,%f8};
  mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f9,%f10,%f11,%f12},{%a1,%a2,%a3,%a4},{%b1,%b2},{%f9,%f10,%f11,%f12};
  mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f13,%f14,%f15,%f16},{%a1,%a2,%a3,%a4},{%b1,%b2},{%f13,%f14,%f15,%f16};
  add.s32 %r1, %r1, 1;
  setp.lt.u32 %p1, %r1, %r2;
  @%p1 bra L;
  ret;
}";

/// Tensor-core matrix product with asynchronous copies into two shared buffers.
const PIPELINE: &str = include_str!("../tests/ptx/pipe.ptx");

fn report(name: &str, lanes: u64, seconds: f64, more: &str) {
    println!("{name:<28} {:>6.2} G lane-instructions/s{more}", lanes as f64 / seconds / 1e9);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut gpu = Gpu::new(Settings::default());
    let module = Module::parse(ARITHMETIC)?;
    let out = gpu.alloc(1024)?;
    let params = [&out.to_le_bytes()[..], &200_000u32.to_le_bytes()].concat();
    let start = Instant::now();
    let stats = gpu.launch(&module, "arithmetic", &Launch::new([1, 1, 1], [256, 1, 1]), &params)?;
    report("arithmetic", stats.lane_instructions, start.elapsed().as_secs_f64(), "");

    let (module, loops) = (Module::parse(TENSOR)?, 50_000u32);
    let params = [&out.to_le_bytes()[..], &loops.to_le_bytes()].concat();
    let start = Instant::now();
    let stats = gpu.launch(&module, "tensor", &Launch::new([1, 1, 1], [32, 1, 1]), &params)?;
    let seconds = start.elapsed().as_secs_f64();
    let flops = f64::from(loops) * 4.0 * 4096.0 / seconds / 1e9;
    report("tensor cores", stats.lane_instructions, seconds, &format!(", {flops:.2} GFLOP/s"));

    let module = Module::parse(PIPELINE)?;
    let n = 256u64;
    let (a, b, c) = (gpu.alloc(n * n * 2)?, gpu.alloc(n * n * 2)?, gpu.alloc(n * n * 4)?);
    let sums = gpu.alloc(n * 4)?;
    for matrix in [a, b, c, sums] {
        gpu.fill(matrix, 0, if matrix == c { n * n * 4 } else { n * 4 })?;
    }
    gpu.fill(a, 0, n * n * 2)?;
    gpu.fill(b, 0, n * n * 2)?;
    let mut params: Vec<u8> = [a, b, c, sums].iter().flat_map(|p| p.to_le_bytes()).collect();
    params.extend([n as u32; 3].iter().flat_map(|x| x.to_le_bytes()));
    let (start, rounds) = (Instant::now(), 20);
    let mut lanes = 0;
    for _ in 0..rounds {
        lanes += gpu.launch(&module, "gemm", &Launch::new([4, 4, 1], [128, 1, 1]), &params)?.lane_instructions;
    }
    let seconds = start.elapsed().as_secs_f64();
    let flops = f64::from(rounds) * 2.0 * (n as f64).powi(3) / seconds / 1e9;
    report("matrix product of 256³", lanes, seconds, &format!(", {flops:.2} GFLOP/s"));
    Ok(())
}
