//! Diffusion models for plug-and-play image restoration (DiffPIR).

use super::counts::Counter;
use super::covariance::Heuristic;
use super::linearization::per_sigma;
use super::solvers::{Solution, Solver};
use super::{Counts, Posterior};
use crate::Result;
use crate::backend::{Array, Backend};
use crate::diffusion::{Denoiser, Estimator, Prior};
use crate::operators::Measurement;
use crate::ops::{Dplr, KrylovOps};

/// argmin_x (y - A x)ᵀ Σ_y⁻¹ (y - A x) + λ/σ² ‖x - x̂‖², that is x̂ + c Aᵀ (Σ_y + c A Aᵀ)⁻¹ (y - A x̂) with c = σ²/λ: no VJP.
///
/// The system is solved in the space of the measurement, as those of the other methods are.
///
/// # Reference
/// Zhu et al., Denoising Diffusion Models for Plug-and-Play Image Restoration, CVPR Workshops 2023.
pub struct Diffpir<'a, B: Backend, D> {
    denoiser: &'a D,
    measurement: &'a Measurement<B>,
    solver: Solver,
    lambda: f64,
    counter: Counter<B>,
}

impl<'a, B: KrylovOps, D> Diffpir<'a, B, D> {
    /// λ weighs the prior against the measurement.
    pub fn new(backend: &B, denoiser: &'a D, measurement: &'a Measurement<B>, solver: Solver, lambda: f64) -> Self {
        let counter = Counter::new(backend, measurement.y.shape().n);
        Self { denoiser, measurement, solver, lambda, counter }
    }
}

impl<B: KrylovOps + Dplr, D: Denoiser<B>> Estimator<B> for Diffpir<'_, B, D> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let mut x_hat = Prior(self.denoiser).estimate(backend, x_t, sigma)?;
        let residual = self.measurement.residual(backend, &x_hat);
        let c = |sigma: f64| sigma * sigma / self.lambda;
        let v = Heuristic::isotropic(backend, sigma, c);
        let Solution { s, status } = v.solve(backend, self.solver, self.measurement, residual, x_t.shape());
        self.counter.call(0);
        self.counter.solve(backend, &status);
        backend.row_axpy(&mut x_hat, 1.0, &per_sigma(backend, sigma, c), &s);
        Ok(x_hat)
    }
}

impl<B: KrylovOps + Dplr, D: Denoiser<B>> Posterior<B> for Diffpir<'_, B, D> {
    fn counts(&self, backend: &B) -> Result<Counts> {
        self.counter.read(backend)
    }
}
