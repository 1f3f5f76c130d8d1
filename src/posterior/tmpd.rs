//! Tweedie moment projected diffusions (TMPD).

use super::counts::Counter;
use super::linearization::{Linearization, per_sigma};
use super::{Counts, Posterior};
use crate::Result;
use crate::backend::{Array, Backend};
use crate::diffusion::{Denoiser, Estimator};
use crate::operators::Measurement;
use crate::ops::KrylovOps;

/// x̂ + σ² Jᵀ Aᵀ v with v = (y - A x̂) / (Σ_y + σ² A Jᵀ Aᵀ 1), elementwise: the system's rows summed into a diagonal. Two VJPs.
///
/// A row's sum may fall below Σ_y, though no variance of y given x_t does; Σ_y is then taken.
///
/// # Reference
/// Boys et al., Tweedie Moment Projected Diffusions for Inverse Problems, 2023.
pub struct Tmpd<'a, B: Backend, D> {
    denoiser: &'a D,
    measurement: &'a Measurement<B>,
    counter: Counter<B>,
}

impl<'a, B: KrylovOps, D> Tmpd<'a, B, D> {
    /// The posterior of `measurement` under the prior of `denoiser`.
    pub fn new(backend: &B, denoiser: &'a D, measurement: &'a Measurement<B>) -> Self {
        let counter = Counter::new(backend, measurement.y.shape().n);
        Self { denoiser, measurement, counter }
    }
}

impl<B: KrylovOps, D: Denoiser<B>> Estimator<B> for Tmpd<'_, B, D> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let Measurement { y, variance: cov_y, operator } = self.measurement;
        let mut d = Linearization::new(backend, self.denoiser, x_t, sigma);
        let variance = per_sigma(backend, sigma, |sigma| sigma * sigma);
        let mut ones = backend.alloc(y.shape());
        backend.fill(&mut ones, 1.0);
        let g = d.vjp(&operator.adjoint(backend, &ones));
        let row_sums = self.measurement.covariance_product(backend, &ones, &backend.row_scale(&g, &variance));
        let residual = self.measurement.residual(backend, &d.x_hat);
        let v = backend.row_quotient(&residual, &row_sums, cov_y);
        let s = d.vjp(&operator.adjoint(backend, &v));
        self.counter.call(d.vjps);
        let mut x_hat = d.x_hat;
        backend.row_axpy(&mut x_hat, 1.0, &variance, &s);
        Ok(x_hat)
    }
}

impl<B: KrylovOps, D: Denoiser<B>> Posterior<B> for Tmpd<'_, B, D> {
    fn counts(&self, backend: &B) -> Result<Counts> {
        self.counter.read(backend)
    }
}
