//! Standard normal numbers that depend on what they are for, not on when or where they are drawn.

mod cuda;
mod host;
mod normal;
mod philox;

pub use philox::philox4x32;

use crate::backend::{Backend, Shape};

/// What a stream of random numbers is for. The numbers are part of the contract: they never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// The start of the reverse process, x_1.
    Start = 0,
    /// Noise of a sampler's step.
    Step = 1,
    /// Noise of a Langevin correction.
    Correction = 2,
    /// Which pixels are deleted, which directions are measured.
    Operator = 3,
    /// Noise of a measurement.
    Measurement = 4,
    /// Initial weights.
    Weights = 5,
    /// Draws of a Gaussian prior.
    Prior = 6,
    /// Inputs of self-tests and benchmarks.
    Test = 7,
    /// Which activations dropout keeps.
    Dropout = 8,
    /// t of a training sample.
    Time = 9,
    /// Noise of a training sample.
    TrainingNoise = 10,
    /// How a training image is changed.
    Augmentation = 11,
    /// The order of the training samples.
    Order = 12,
    /// Where the search for leading eigenvectors starts.
    Subspace = 13,
    /// A random manifold, and points on it.
    Manifold = 14,
    /// Random projections and reference points of metrics.
    Projection = 15,
}

/// Names one array of random numbers: the counter words of Philox4x32-10 (Salmon et al., 2011) beside the element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Key: the run's seed.
    pub seed: u64,
    /// What for.
    pub purpose: Purpose,
    /// Step of the sampler, below 2¹⁶.
    pub step: u32,
    /// Correction within the step, below 2¹⁶.
    pub correction: u32,
    /// EM iteration, below 2¹².
    pub iteration: u32,
    /// Epoch, below 2¹².
    pub epoch: u32,
}

impl Stream {
    /// The stream of `purpose` at step 0 of everything.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Self { seed, purpose, step: 0, correction: 0, iteration: 0, epoch: 0 }
    }
    /// The same for `step` and `correction`.
    pub fn at(self, step: usize, correction: usize) -> Self {
        assert!(step.max(correction) < 1 << 16, "step {step}, correction {correction}: 16 bits each");
        Self { step: step as u32, correction: correction as u32, ..self }
    }
}

/// Counter words (element / 4, sample, step | correction << 16, purpose | iteration << 8 | epoch << 20); the four output
/// words serve elements 4 e .. 4 e + 3 of the sample, Box-Muller on the pairs (0, 1) and (2, 3).
pub trait Noise: Backend {
    /// ε ~ N(0, I) of `shape`; row i is that of sample `samples[i]`, whatever the others are.
    fn noise_normal(&self, shape: Shape, stream: Stream, samples: &[u32]) -> Self::Tensor;
}
