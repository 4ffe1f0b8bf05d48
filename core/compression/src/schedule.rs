//! DGC's warm-up (Lin et al. 2018, §3.3): the first epochs send more, while gradients change fast.

use crate::spec::spec;
use crate::{CompressionError, CompressionSpec, Count, Selector};
use alloc::string::ToString;
use alloc::vec::Vec;

/// The densities of the epochs before the intended one is reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WarmUp {
    /// No warm-up.
    #[default]
    None,
    /// `E` epochs of densities that fall exponentially: in epoch `e`, from 0, it is `density^((e + 1)/(E + 1))`, as in
    /// DGC's official code.
    Exponential {
        /// `E`.
        epochs: u32,
    },
    /// These, an epoch each.
    Listed(Vec<f64>),
}

/// Which density applies in which step.
///
/// ```
/// use tilewright_compression::schedule::Schedule;
/// let schedule = Schedule::paper(100); // 100 steps an epoch
/// assert_eq!(schedule.density(0, 0.001), 0.25);
/// assert_eq!(schedule.density(399, 0.001), 0.004);
/// assert_eq!(schedule.density(500, 0.001), 0.001);
/// assert_eq!(schedule.density(200, 0.05), 0.05); // never below the intended one
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The epochs before.
    pub warm_up: WarmUp,
    /// Length of an epoch, at least 1.
    pub steps_per_epoch: u64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { warm_up: WarmUp::None, steps_per_epoch: 1 }
    }
}

impl Schedule {
    /// The paper's: 25 %, 6.25 %, 1.5625 %, 0.4 % and 0.1 %, then as intended.
    pub fn paper(steps_per_epoch: u64) -> Self {
        Self { warm_up: WarmUp::Listed([0.25, 0.0625, 0.015_625, 0.004, 0.001].to_vec()), steps_per_epoch }
    }

    /// The official code's default.
    pub fn exponential(epochs: u32, steps_per_epoch: u64) -> Self {
        Self { warm_up: WarmUp::Exponential { epochs }, steps_per_epoch }
    }

    /// Whether every field is in its range.
    ///
    /// # Errors
    /// [`CompressionError::Spec`].
    pub fn validate(&self) -> Result<(), CompressionError> {
        if self.steps_per_epoch == 0 {
            return Err(spec("steps per epoch", "0".into(), "at least 1"));
        }
        if let WarmUp::Listed(densities) = &self.warm_up
            && let Some(density) = densities.iter().find(|density| !(**density > 0.0 && **density <= 1.0))
        {
            return Err(spec("warm-up density", density.to_string(), "more than 0 and at most 1"));
        }
        Ok(())
    }

    /// The number of steps before the intended density applies.
    pub fn warm_up_steps(&self) -> u64 {
        let epochs = match &self.warm_up {
            WarmUp::None => 0,
            WarmUp::Exponential { epochs } => u64::from(*epochs),
            WarmUp::Listed(densities) => densities.len() as u64,
        };
        epochs.saturating_mul(self.steps_per_epoch)
    }

    /// The density of a step, where `intended` applies after the warm-up; never less than that.
    pub fn density(&self, step: u64, intended: f64) -> f64 {
        if step >= self.warm_up_steps() {
            return intended;
        }
        let epoch = step / self.steps_per_epoch;
        match &self.warm_up {
            WarmUp::None => intended,
            WarmUp::Exponential { epochs } => {
                libm::pow(intended, (epoch + 1) as f64 / (f64::from(*epochs) + 1.0)).max(intended)
            }
            WarmUp::Listed(densities) => densities[epoch as usize].max(intended),
        }
    }

    /// The specification as it applies to a bucket of `len` in a step.
    ///
    /// # Errors
    /// [`CompressionError::Spec`] if there is a warm-up, but no density that it could raise: a fixed threshold leaves the
    /// number of entries to the data.
    pub fn apply(&self, spec: &CompressionSpec, len: usize, step: u64) -> Result<CompressionSpec, CompressionError> {
        let mut spec = CompressionSpec { len, ..*spec };
        if step >= self.warm_up_steps() {
            return Ok(spec);
        }
        match &mut spec.selector {
            Selector::ExactTopK(count) | Selector::SampledThreshold(count, _) | Selector::RandomK(count) => {
                let intended = match *count {
                    Count::Entries(0) => return Ok(spec),
                    Count::Density(density) => density,
                    Count::Entries(entries) => (entries as f64 / len.max(1) as f64).min(1.0),
                };
                *count = Count::Density(self.density(step, intended));
            }
            Selector::FixedThreshold(_) => {
                return Err(crate::spec::spec(
                    "warm-up",
                    "a fixed threshold".into(),
                    "a selector that aims at a number",
                ));
            }
        }
        Ok(spec)
    }
}
