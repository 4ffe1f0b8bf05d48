//! What transfer costs, counted: floating-point operations (an addition or a multiplication is one) and bytes of storage.
//!
//! A forward pass of the source network over one sample costs `f`, a step of training three times that: the gradients of
//! activations and of weights are as much work again, each. Head2Toe passes forward once over all samples; fine-tuning passes
//! forward and back in every step.

/// A source network, as far as its cost goes.
///
/// ```
/// use tilewright_grouplasso::cost::Network;
/// // The paper's setting: 1000 images once, or 500 steps of batches of 128, whatever the network.
/// let network = Network { parameters: 23_500_000, forward: 8.2e9 };
/// assert_eq!(network.fine_tune(500, 128) / network.embed(1000), 192.0);
/// assert_eq!(network.bytes(), 94_000_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// Weights.
    pub parameters: u64,
    /// `f`, operations of a forward pass over one sample.
    pub forward: f64,
}

impl Network {
    /// Bytes of a copy, as a fine-tuned network is: four a weight.
    pub fn bytes(self) -> u64 {
        4 * self.parameters
    }

    /// Activations of so many samples: `n f`.
    pub fn embed(self, samples: usize) -> f64 {
        samples as f64 * self.forward
    }

    /// Steps of training all weights, with batches of so many samples: `3 S B f`.
    pub fn fine_tune(self, steps: usize, batch: usize) -> f64 {
        3.0 * steps as f64 * batch as f64 * self.forward
    }
}

/// A matrix product of `n × d` by `d × C`, or of `d × n` by `n × C`: `2 n d C`.
pub fn product(n: usize, d: usize, classes: usize) -> f64 {
    2.0 * n as f64 * d as f64 * classes as f64
}

/// A linear head on `d` features trained by steps of gradient descent: each is a product forward, one back and the update,
/// `6 S B d C` to within the update.
pub fn gradient_head(steps: usize, batch: usize, d: usize, classes: usize) -> f64 {
    3.0 * steps as f64 * product(batch, d, classes)
}

/// A problem solved with working sets.
///
/// A certificate is one product with all `d` features. An iteration — sweeps of coordinate descent on a working set of `m`, and
/// a Newton step on the `a` of these that are not zero, by preconditioned conjugate gradients — is taken to be twelve products
/// with the working set, and two Gram matrices `2 n a²` with a Cholesky factor of each, `a³/3`, all generously.
///
/// ```
/// use tilewright_grouplasso::cost::{Solve, product};
/// let solve = Solve { samples: 300, features: 14_208, classes: 5, working: 200, support: 40, certificates: 6, iterations: 0 };
/// assert_eq!(solve.operations(), 6.0 * product(300, 14_208, 5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solve {
    /// `n`.
    pub samples: usize,
    /// `d`.
    pub features: usize,
    /// `C`.
    pub classes: usize,
    /// `m`.
    pub working: usize,
    /// `a`.
    pub support: usize,
    /// Certificates computed.
    pub certificates: usize,
    /// Iterations made.
    pub iterations: usize,
}

impl Solve {
    /// All of it.
    pub fn operations(self) -> f64 {
        let (n, a) = (self.samples as f64, self.support.min(self.features) as f64);
        let working = self.working.min(self.features);
        let iteration = 12.0 * product(self.samples, working, self.classes) + 4.0 * n * a * a + 2.0 / 3.0 * a * a * a;
        self.certificates as f64 * product(self.samples, self.features, self.classes)
            + self.iterations as f64 * iteration
    }
}
