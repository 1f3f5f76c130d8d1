//! Carries out a plan on a batch.

use super::{Plan, Update};
use crate::Result;
use crate::backend::{Array, Backend, Shape, one_by_one};
use crate::diffusion::Estimator;
use crate::ops::noise::{Purpose, Stream};
use crate::ops::{Noise, Vector};

/// What came of a batch.
pub struct Draws<B: Backend> {
    /// (N, H, W, C): x_0, NaN in the rows of failed samples.
    pub x_0: B::Tensor,
    /// The samples that did not stay finite, each once.
    pub failures: Vec<Failure>,
}

/// A sample that became infinite or NaN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Its global number.
    pub sample: u32,
    /// The step after which it was seen; T for the last estimate.
    pub step: usize,
}

/// x_1 = μ_x + σ(1) z: where the reverse process begins.
///
/// # Shapes
/// `shape` (N, H, W, C) with N the number of `samples`; `mean` (1, H, W, C), zero when `None`.
pub fn start<B: Noise + Vector>(
    backend: &B,
    plan: &Plan,
    mean: Option<&B::Tensor>,
    shape: Shape,
    run: Stream,
    samples: &[u32],
) -> B::Tensor {
    let z = backend.noise_normal(shape, Stream { purpose: Purpose::Start, ..run }.at(0, 0), samples);
    let mut x = backend.linear_combination(&[(plan.sigma_start, &z)]);
    if let Some(mean) = mean {
        backend.add_assign(&mut x, mean);
    }
    x
}

/// From x_1 to x_0 = x̂ at σ(0), for the global sample numbers `samples`.
///
/// Noise comes from the seed, EM iteration and epoch of `run`. A sample depends on its number and on nothing else of the
/// batch. One that does not stay finite fails alone. `progress` is told how many estimator calls are done, out of
/// [`Plan::calls`].
///
/// # Errors
/// When the device has failed.
pub fn sample<B: Noise + Vector>(
    backend: &B,
    estimator: &mut dyn Estimator<B>,
    plan: &Plan,
    x_1: B::Tensor,
    run: Stream,
    samples: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Draws<B>> {
    let mut x = x_1;
    let mut failures = Failures::new(backend, samples.len());
    let multistep = plan.updates.iter().any(|update| update.weights.x_hat_prev != 0.0);
    let mut x_hat_prev = multistep.then(|| backend.zeros(x.shape()));
    let waits = estimator.waits();
    let mut update = |update: &Update| {
        let weights = update.weights;
        let x_hat = estimator.estimate(backend, &x, &[update.sigma])?;
        let noise = (weights.noise != 0.0).then(|| backend.noise_normal(x.shape(), update.stream(run), samples));
        let terms = [
            Some((weights.x_hat, &x_hat)),
            x_hat_prev.as_ref().filter(|_| weights.x_hat_prev != 0.0).map(|prev| (weights.x_hat_prev, prev)),
            noise.as_ref().map(|noise| (weights.noise, noise)),
        ];
        backend.linear_update(&mut x, weights.x, &terms.into_iter().flatten().collect::<Vec<_>>());
        if let Some(prev) = &mut x_hat_prev {
            backend.assign(prev, &x_hat);
        }
        failures.look(backend, &x, update.step);
        Ok(())
    };
    let mut step = |i: usize| backend.within(|| update(&plan.updates[i]));
    if waits {
        one_by_one(0..plan.updates.len(), &mut step, progress)?;
    } else {
        backend.steps(plan.updates.len(), &mut step, progress)?;
    }
    let x_0 = backend.within(|| estimator.estimate(backend, &x, &[plan.sigma_end]))?;
    failures.look(backend, &x_0, plan.steps);
    let draws = failures.draws(backend, x_0, samples)?;
    progress(plan.calls());
    Ok(draws)
}

/// The step after which each row of the batch was first seen not to be finite, kept on the device.
struct Failures<B: Backend> {
    first: B::Tensor, // (N, 1, 1, 1), -1 where all is finite
}

impl<B: Vector> Failures<B> {
    fn new(backend: &B, n: usize) -> Self {
        let mut first = backend.alloc(Shape::rows(n, 1));
        backend.fill(&mut first, -1.0);
        Self { first }
    }

    fn look(&mut self, backend: &B, x: &B::Tensor, step: usize) {
        backend.note_nonfinite(&mut self.first, step, x);
    }

    fn draws(&self, backend: &B, x_0: B::Tensor, samples: &[u32]) -> Result<Draws<B>> {
        let first = backend.to_vec(&self.first)?;
        let failed = first.iter().zip(samples).filter(|(step, _)| **step >= 0.0);
        let failures: Vec<_> = failed.map(|(step, &sample)| Failure { sample, step: *step as usize }).collect();
        if failures.is_empty() {
            return Ok(Draws { x_0, failures });
        }
        // an estimator may map what is not finite to what is: such a sample is no draw
        let factor: Vec<f64> = first.iter().map(|step| if *step >= 0.0 { f64::NAN } else { 1.0 }).collect();
        let factor = backend.upload(Shape::rows(factor.len(), 1), &factor);
        Ok(Draws { x_0: backend.row_scale(&x_0, &factor), failures })
    }
}
