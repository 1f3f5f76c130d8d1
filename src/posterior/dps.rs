//! Diffusion posterior sampling (DPS).

use super::counts::Counter;
use super::linearization::{Linearization, per_sigma};
use super::{Counts, Posterior};
use crate::Result;
use crate::backend::{Array, Backend};
use crate::diffusion::samplers::Plan;
use crate::diffusion::{Denoiser, Estimator};
use crate::operators::Measurement;
use crate::ops::KrylovOps;

/// Every step of the sampler moves x_s by -ζ ∇‖y - A x̂‖ = ζ Jᵀ Aᵀ (y - A x̂) / ‖y - A x̂‖ more.
///
/// As a posterior denoiser: x̂ plus that over b, when a step takes x̂ with the weight b. The last estimate, after which
/// there is no step, is x̂.
///
/// # Reference
/// Chung et al., Diffusion Posterior Sampling for General Noisy Inverse Problems, ICLR 2023, algorithm 1.
pub struct Dps<'a, B: Backend, D> {
    denoiser: &'a D,
    measurement: &'a Measurement<B>,
    strength: f64, // ζ / b
    sigma_end: f64,
    counter: Counter<B>,
}

impl<'a, B: KrylovOps, D> Dps<'a, B, D> {
    /// ζ is the length of the move that a step of `plan` makes where J is the identity.
    pub fn new(backend: &B, denoiser: &'a D, measurement: &'a Measurement<B>, zeta: f64, plan: &Plan) -> Self {
        // on a grid uniform in ln σ all steps have the weights of the first
        let strength = plan.updates.first().map_or(0.0, |update| zeta / update.weights.x_hat);
        let counter = Counter::new(backend, measurement.y.shape().n);
        Self { denoiser, measurement, strength, sigma_end: plan.sigma_end, counter }
    }
}

impl<B: KrylovOps, D: Denoiser<B>> Estimator<B> for Dps<'_, B, D> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let mut d = Linearization::new(backend, self.denoiser, x_t, sigma);
        let residual = self.measurement.residual(backend, &d.x_hat);
        let direction = backend.row_normalize(&residual, &backend.row_dot(&residual, &residual));
        let s = d.vjp(&self.measurement.operator.adjoint(backend, &direction));
        let strength = per_sigma(backend, sigma, |sigma| if sigma > self.sigma_end { self.strength } else { 0.0 });
        self.counter.call(d.vjps);
        let mut x_hat = d.x_hat;
        backend.row_axpy(&mut x_hat, 1.0, &strength, &s);
        Ok(x_hat)
    }
}

impl<B: KrylovOps, D: Denoiser<B>> Posterior<B> for Dps<'_, B, D> {
    fn counts(&self, backend: &B) -> Result<Counts> {
        self.counter.read(backend)
    }
}
