//! The kernel on trial: one bug or none, one variant, and what persists between calls.

use crate::compression::{Fault, Race, Variant};
use std::sync::atomic::{AtomicU32, Ordering};
use tilewright_compression::hash::{StepSeeds, mix};
use tilewright_compression::reference::check;
use tilewright_compression::{
    CompressionError, CompressionSpec, Compressor, Decompressor, Memory, Message, NonFinite, Reduction, Step,
};

/// A scalar compressor and decompressor, correct or with one planted bug.
///
/// ```
/// use tilewright_mutants::compression::{Fault, Kernel, Variant};
/// assert_eq!(Kernel::correct(Variant::BASE).fault(), None);
/// assert_eq!(Kernel::faulty(Fault::WinnerKept).variant(), &Variant::BASE);
/// ```
#[derive(Debug)]
pub struct Kernel {
    fault: Option<Fault>,
    variant: Variant,
    /// Which kernel of this process it is, from 1.
    instance: u32,
    /// Calls so far.
    calls: u32,
    scratch: Scratch,
}

/// Memory that a correct kernel overwrites before it reads it.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// What accumulated in the last call.
    pub(crate) values: Vec<f32>,
    /// The last call's table.
    pub(crate) table: Vec<u64>,
}

static INSTANCES: AtomicU32 = AtomicU32::new(1);

impl Kernel {
    /// A kernel with one bug.
    pub fn faulty(fault: Fault) -> Self {
        Self::new(Some(fault), fault.variant())
    }

    /// A kernel without bugs.
    pub fn correct(variant: Variant) -> Self {
        Self::new(None, variant)
    }

    fn new(fault: Option<Fault>, variant: Variant) -> Self {
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Self { fault, variant, instance, calls: 0, scratch: Scratch::default() }
    }

    /// The bug, if there is one.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// How it works.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Whether it claims that the same input gives the same bits again.
    pub fn deterministic(&self) -> bool {
        self.variant.deterministic()
    }

    fn pass(&mut self) -> Result<Pass, CompressionError> {
        if !self.variant.is_sound() {
            return Err(CompressionError::Unsupported { what: "blocks, strides and parts of length 0" });
        }
        self.calls = self.calls.wrapping_add(1);
        Ok(Pass { fault: self.fault, variant: self.variant, instance: self.instance, call: self.calls })
    }
}

/// One call of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) fault: Option<Fault>,
    pub(crate) variant: Variant,
    pub(crate) instance: u32,
    pub(crate) call: u32,
}

impl Pass {
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Who wins where anyone may.
    pub(crate) fn race(&self) -> Race {
        if self.is(Fault::RaceUnderLargest) { Race::Random } else { self.variant.race }
    }

    /// A coin, tossed anew in each call.
    pub(crate) fn coin(&self, toss: u32) -> bool {
        mix(toss, mix(self.call, self.instance)) % 2 == 1
    }

    fn seeds(&self, spec: &CompressionSpec, step: Step) -> StepSeeds {
        let (seed, number) = (spec.seed, step.number);
        match self.fault {
            Some(Fault::SameSeedEveryStep) => StepSeeds::new(seed, 0),
            Some(Fault::SeedOfRank) => StepSeeds::new(seed ^ u64::from(self.instance) << 32, number),
            Some(Fault::StepTruncated) => StepSeeds::new(seed, number & 0xffff_ffff),
            Some(Fault::SeedTruncated) => StepSeeds::new(seed & 0xffff_ffff, number),
            _ => StepSeeds::new(seed, number),
        }
    }

    /// Refuses what must be refused, before anything has changed.
    fn admit(
        &self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        let lenient = CompressionSpec { non_finite: NonFinite::Propagate, ..*spec };
        let refuse = |judged: &[f32], bad: fn(f32) -> bool| {
            check(&lenient, step, gradient, memory)?;
            match judged.iter().position(|x| spec.non_finite == NonFinite::Reject && bad(*x)) {
                Some(index) => Err(CompressionError::NonFinite { index, bits: judged[index].to_bits() }),
                None => Ok(()),
            }
        };
        match self.fault {
            Some(Fault::EmptyBucketRefused) if gradient.is_empty() => {
                return Err(CompressionError::Length { argument: "gradient", got: 0, expected: 1 });
            }
            Some(Fault::ScaleUnchecked) => return check(spec, Step { scale: 1.0, ..step }, gradient, memory),
            Some(Fault::RejectIgnored) => return check(&lenient, step, gradient, memory),
            Some(Fault::RejectsNanOnly) => return refuse(gradient, f32::is_nan),
            Some(Fault::RejectsLargest) => return refuse(gradient, |x| x.is_nan() || x.abs() >= f32::MAX),
            Some(Fault::RejectsAccumulated) => {
                check(&lenient, step, gradient, memory)?;
                let values = self.accumulate(spec, step, gradient, &mut memory.clone(), &[]);
                return refuse(&values, |x| !x.is_finite());
            }
            _ => {}
        }
        let verdict = check(spec, step, gradient, memory);
        match verdict {
            Err(_) if self.is(Fault::RejectClearsMessage) => message.words.clear(),
            Err(CompressionError::NonFinite { index, .. }) if self.is(Fault::RejectHalfway) => {
                self.accumulate(spec, step, &gradient[..index], memory, &[]);
            }
            _ => {}
        }
        verdict
    }
}

impl Compressor for Kernel {
    fn compress(
        &mut self,
        spec: &CompressionSpec,
        step: Step,
        gradient: &[f32],
        memory: &mut Memory,
        message: &mut Message,
    ) -> Result<(), CompressionError> {
        let pass = self.pass()?;
        pass.admit(spec, step, gradient, memory, message)?;
        let slots = spec.slots()?;
        let stale = core::mem::take(&mut self.scratch.values);
        let seeds = pass.seeds(spec, step);
        let values = pass.accumulate(spec, step, gradient, memory, &stale);
        let judged = match pass.fault {
            Some(Fault::SelectedByGradient) => gradient,
            Some(Fault::StaleMagnitudes) if stale.len() == values.len() => &stale,
            _ => &values,
        };
        let candidates = pass.candidates(spec, step, seeds, judged);
        let placed = match slots {
            Some(slots) => pass.place(spec, seeds, slots, &values, candidates, &mut self.scratch.table),
            None => pass.order(spec, seeds, &values, candidates),
        };
        pass.send(spec, gradient, &values, &placed, memory, message);
        self.scratch.values = pass.after(spec, values, &placed);
        Ok(())
    }
}

impl Decompressor for Kernel {
    fn decompress(
        &mut self,
        messages: &[&[u64]],
        reduction: Reduction,
        out: &mut [f32],
    ) -> Result<(), CompressionError> {
        self.pass()?.decode(messages, reduction, out)
    }
}
