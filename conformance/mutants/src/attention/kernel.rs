//! The kernel on trial: one bug or none, one variant, and the memory that persists between calls.

use crate::attention::arithmetic::Arithmetic;
use crate::attention::layout::{Pass, Problem};
use crate::attention::{Fault, Split, SumOrder, Variant};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tilewright_attention::{
    AttentionBackward, AttentionError, AttentionForward, AttentionSpec, Gradients, Inputs, Outputs, Saved,
};
use tilewright_scalar::Element;

/// A scalar attention kernel in the manner of FlashAttention-2, correct or with one planted bug.
///
/// ```
/// use tilewright_mutants::attention::{Fault, Kernel, Variant};
/// assert_eq!(Kernel::correct(Variant::BASE).fault(), None);
/// assert_eq!(Kernel::faulty(Fault::LseSign).variant(), &Variant::BASE);
/// ```
#[derive(Debug)]
pub struct Kernel {
    fault: Option<Fault>,
    variant: Variant,
    /// How many forward passes ran.
    calls: AtomicUsize,
    /// What the last forward pass left of its running output.
    scratch: Mutex<Vec<f64>>,
}

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
        Self { fault, variant, calls: AtomicUsize::new(0), scratch: Mutex::default() }
    }

    /// The bug, if there is one.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The arithmetic.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    fn arithmetic<T: Element>(&self) -> Result<Arithmetic, AttentionError> {
        if !self.variant.supports(T::FORMAT) {
            return Err(AttentionError::Unsupported { what: "this variant on this storage format" });
        }
        let block = match self.variant.sum_order {
            SumOrder::Blocked(length) => length,
            _ => 1,
        };
        let split = match self.variant.split {
            Split::Whole => 1,
            Split::Parts(count) | Split::Every(count) => count,
        };
        if [self.variant.query_tile, self.variant.key_tile, block, split].contains(&0) {
            return Err(AttentionError::Unsupported { what: "tiles, blocks and splits of length 0" });
        }
        Ok(Arithmetic::new(self.fault, self.variant, T::FORMAT))
    }
}

impl<T: Element> AttentionForward<T> for Kernel {
    fn forward(&self, spec: &AttentionSpec, inputs: &Inputs<'_, T>, out: Outputs<'_, T>) -> Result<(), AttentionError> {
        let by = self.arithmetic::<T>()?;
        inputs.check(spec)?;
        out.check(spec)?;
        let odd_call = self.calls.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        // A poisoned lock only means that another call panicked; its scratch is as good as any.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = core::mem::take(&mut *scratch);
        let problem = Problem::new(spec, inputs, &by, Pass::Forward);
        *scratch = if by.accum == strict_accum::<T>() {
            problem.forward::<T::Accum>(out, odd_call, stale)
        } else {
            problem.forward::<f64>(out, odd_call, stale)
        };
        Ok(())
    }
}

impl<T: Element> AttentionBackward<T> for Kernel {
    fn backward(
        &self,
        spec: &AttentionSpec,
        inputs: &Inputs<'_, T>,
        saved: &Saved<'_, T>,
        gradients: Gradients<'_, T>,
    ) -> Result<(), AttentionError> {
        let by = self.arithmetic::<T>()?;
        inputs.check(spec)?;
        saved.check(spec)?;
        gradients.check(spec, inputs)?;
        let problem = Problem::new(spec, inputs, &by, Pass::Backward);
        if by.accum == strict_accum::<T>() {
            problem.backward::<T::Accum>(saved, gradients);
        } else {
            problem.backward::<f64>(saved, gradients);
        }
        Ok(())
    }
}

fn strict_accum<T: Element>() -> tilewright_scalar::Format {
    <T::Accum as Element>::FORMAT
}
