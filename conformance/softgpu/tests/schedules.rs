//! A seed names a schedule, whatever ran before it.

use tilewright_softgpu::{Gpu, Launch, Module, Settings};

/// Each block writes down which number it is the how-manieth to draw.
const TICKETS: &str = ".version 8.4
.target sm_80
.address_size 64
.visible .entry tickets(.param .u64 counter, .param .u64 out) {
  .reg .b32 %r<4>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [counter];
  ld.param.u64 %rd2, [out];
  atom.global.add.u32 %r1, [%rd1], 1;
  mov.u32 %r2, %ctaid.x;
  mul.wide.u32 %rd3, %r2, 4;
  add.s64 %rd2, %rd2, %rd3;
  st.global.u32 [%rd2], %r1;
  ret;
}";

const BLOCKS: u32 = 64;

fn tickets(gpu: &mut Gpu, module: &Module) -> Vec<u8> {
    let (counter, out) = (gpu.alloc(4).expect("memory"), gpu.alloc(u64::from(BLOCKS) * 4).expect("memory"));
    gpu.fill(counter, 0, 4).expect("a write inside");
    let params: Vec<u8> = [counter.to_le_bytes(), out.to_le_bytes()].concat();
    gpu.launch(module, "tickets", &Launch::new([BLOCKS, 1, 1], [1, 1, 1]), &params).expect("no fault");
    gpu.read(out, u64::from(BLOCKS) * 4).expect("a read inside")
}

#[test]
fn a_seed_names_a_schedule_whatever_was_launched_before() {
    let module = Module::parse(TICKETS).expect("PTX");
    let mut gpu = Gpu::new(Settings { seed: 5, ..Settings::default() });
    let (first, second) = (tickets(&mut gpu, &module), tickets(&mut gpu, &module));
    assert_ne!(first, second, "one launch after the other has another schedule");
    for launched in 0..3 {
        gpu.set_seed(7);
        for _ in 0..launched {
            tickets(&mut gpu, &module);
        }
        gpu.set_seed(5);
        assert_eq!(tickets(&mut gpu, &module), first, "after {launched} launches");
        assert_eq!(tickets(&mut gpu, &module), second, "after {launched} launches");
    }
}
