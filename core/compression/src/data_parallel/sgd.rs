//! The update of the weights once the mean gradient is known.

use super::config::Config;

/// Stochastic gradient descent on one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sgd {
    pub(super) learning_rate: f32,
    factor: f32,
    nesterov: bool,
    weight_decay: f32,
    /// Momentum came before the reduction.
    corrected: bool,
}

impl Sgd {
    pub(super) fn new(config: &Config, compressed: bool, learning_rate: f32) -> Self {
        Self {
            learning_rate,
            factor: config.momentum.factor,
            nesterov: config.momentum.nesterov,
            weight_decay: config.weight_decay,
            corrected: config.corrects(compressed),
        }
    }

    /// `w ← w − η·(m(ḡ) + m(λ·w))`, where `m` is momentum; with momentum correction `w ← w − η·(ḡ + m(λ·w))`, as in
    /// DGC's official optimiser. `momentum` is empty where there is none.
    pub(super) fn update(&self, mean: &[f32], momentum: &mut [f32], weights: &mut [f32]) {
        let mut slots = momentum.iter_mut();
        for (weight, mean) in weights.iter_mut().zip(mean) {
            let slot = slots.next();
            // λ = 0 takes no part, not even where a weight is infinite.
            let decay = if self.weight_decay > 0.0 { self.weight_decay * *weight } else { 0.0 };
            let update = match (self.corrected, self.weight_decay > 0.0) {
                (true, false) => *mean,
                (true, true) => *mean + self.through(slot, decay),
                (false, false) => self.through(slot, *mean),
                (false, true) => self.through(slot, *mean + decay),
            };
            *weight -= self.learning_rate * update;
        }
    }

    fn through(&self, slot: Option<&mut f32>, gradient: f32) -> f32 {
        let Some(u) = slot else { return gradient };
        if self.nesterov {
            // DGC's u ← m·(u + g), update u + g: plain momentum one step ahead.
            *u = self.factor * (*u + gradient);
            *u + gradient
        } else {
            *u = self.factor * *u + gradient;
            *u
        }
    }
}
