//! What a run of a posterior denoiser has cost, and how its solves ended.

use crate::Result;
use crate::backend::{Array, Backend, Shape};
use crate::ops::ConjugateGradient;
use crate::ops::cg::{BREAKDOWN, CONVERGED, STATUSES};

/// Counts over all calls of an estimator.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// VJPs of the batch, each for all of its samples.
    pub vjps: u64,
    /// For each sample, the solves that met the tolerance.
    pub converged: Vec<u64>,
    /// For each sample, the solves that broke down: the system was not positive, or not finite.
    pub breakdowns: Vec<u64>,
}

/// Counts that stay on the device until they are read.
pub(super) struct Counter<B: Backend> {
    calls: u64,
    vjps: u64,
    tally: B::Tensor, // (N, 1, 1, STATUSES)
}

impl<B: ConjugateGradient> Counter<B> {
    /// Nothing yet, for `n` samples.
    pub fn new(backend: &B, n: usize) -> Self {
        Self { calls: 0, vjps: 0, tally: backend.zeros(Shape::rows(n, STATUSES)) }
    }
    /// One more call, with its VJPs.
    pub fn call(&mut self, vjps: usize) {
        self.calls += 1;
        self.vjps += vjps as u64;
    }
    /// One more solve, by its status.
    pub fn solve(&mut self, backend: &B, status: &B::Tensor) {
        backend.cg_tally(&mut self.tally, status);
    }
    /// Waits for the device, and reads.
    pub fn read(&self, backend: &B) -> Result<Counts> {
        let tally = backend.to_vec(&self.tally)?;
        let column =
            |status: f64| (0..self.tally.shape().n).map(|n| tally[n * STATUSES + status as usize] as u64).collect();
        Ok(Counts { calls: self.calls, vjps: self.vjps, converged: column(CONVERGED), breakdowns: column(BREAKDOWN) })
    }
}
