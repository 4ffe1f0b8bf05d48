//! What the device is capable of: copying memory, and `mma.sync` on registers alone.

use crate::{BenchError, Job, Size, Work};
use std::fmt::Write as _;
use std::rc::Rc;
use tilewright_cuda::{Buffer, Config, Device, Unit};

/// Names of the two jobs, which the report looks for.
pub(crate) const COPY: &str = "copy on the device";
pub(crate) const MMA: &str = "mma.sync m16n8k16 bf16";

/// Accumulators of a warp: products that do not wait for one another.
const CHAINS: usize = 12;
/// Warps of a block.
const WARPS: u32 = 8;

pub(crate) fn jobs(device: &Device, size: Size) -> Result<Vec<Job>, BenchError> {
    Ok(vec![copy(device, size)?, mma(device, size)?])
}

fn copy(device: &Device, size: Size) -> Result<Job, BenchError> {
    let n = size.of(1 << 12, 1 << 26, 1 << 28);
    let from = Buffer::<f32>::zeros(device, "the original", n)?;
    let mut to = Buffer::<f32>::zeros(device, "the copy", n)?;
    Ok(Job {
        family: "ceiling",
        name: COPY.into(),
        problem: format!("{n} f32"),
        work: Work::Bytes { moved: 8.0 * n as f64, vector: None },
        run: Box::new(move || Ok(to.copy_from(&from, n)?)),
    })
}

fn mma(device: &Device, size: Size) -> Result<Job, BenchError> {
    let turns = size.of(2, 1 << 12, 1 << 14);
    let blocks = size.of(1, 2 * device.multiprocessors(), 2 * device.multiprocessors());
    let unit: &'static Unit = Box::leak(Box::new(Unit { name: "ceiling", ptx: String::leak(kernel()) }));
    let kernel = Rc::new(device.kernel(unit, "products")?);
    let mut out = Buffer::<f32>::zeros(device, "sums", (blocks * WARPS * 32) as usize)?;
    // A product of 16x16 and 16x8 is 2 · 16 · 16 · 8 operations.
    let flops = 4096.0 * f64::from(turns) * CHAINS as f64 * f64::from(blocks * WARPS);
    Ok(Job {
        family: "ceiling",
        name: MMA.into(),
        problem: format!("{blocks} blocks of {WARPS} warps"),
        work: Work::Flops(flops),
        run: Box::new(move || {
            let launch = kernel.launch(Config::new(blocks, 32 * WARPS)).write(&mut out).value(turns);
            // SAFETY: each thread writes its own number.
            Ok(unsafe { launch.run() }?)
        }),
    })
}

/// A loop of independent products; their sum is stored, so that none of them can be left out.
fn kernel() -> String {
    let mut text = String::from(
        ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry products(.param .u64 out, .param .u32 turns) {\n\
         .reg .pred %p;\n.reg .b32 %a<4>, %b<2>, %n, %i, %j;\n.reg .b64 %o;\n.reg .f32 %s;\n",
    );
    let _ = writeln!(text, ".reg .f32 %c<{}>;", 4 * CHAINS);
    // Two bf16 ones each, of which the lanes' differ, lest a compiler foresee anything.
    text.push_str("mov.u32 %i, %tid.x;\nadd.u32 %i, %i, 1065369472;\n");
    for register in ["a0", "a1", "a2", "a3", "b0", "b1"] {
        let _ = writeln!(text, "mov.b32 %{register}, %i;");
    }
    for c in 0..4 * CHAINS {
        let _ = writeln!(text, "mov.f32 %c{c}, 0f00000000;");
    }
    text.push_str("ld.param.u32 %n, [turns];\nAGAIN:\n");
    for chain in 0..CHAINS {
        let [a, b, c, d] = std::array::from_fn(|i| 4 * chain + i);
        let _ = writeln!(
            text,
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{%c{a},%c{b},%c{c},%c{d}}}, {{%a0,%a1,%a2,%a3}}, \
             {{%b0,%b1}}, {{%c{a},%c{b},%c{c},%c{d}}};"
        );
    }
    text.push_str("sub.u32 %n, %n, 1;\nsetp.ne.u32 %p, %n, 0;\n@%p bra AGAIN;\nmov.f32 %s, 0f00000000;\n");
    for c in 0..4 * CHAINS {
        let _ = writeln!(text, "add.f32 %s, %s, %c{c};");
    }
    text.push_str(
        "mov.u32 %i, %ctaid.x;\nmov.u32 %j, %ntid.x;\nmul.lo.u32 %i, %i, %j;\nmov.u32 %j, %tid.x;\nadd.u32 %i, %i, %j;\n\
         ld.param.u64 %o, [out];\nmad.wide.u32 %o, %i, 4, %o;\nst.global.f32 [%o], %s;\nret;\n}\n",
    );
    text
}
