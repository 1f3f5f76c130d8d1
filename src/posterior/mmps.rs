//! Moment matching posterior sampling.

use super::counts::Counter;
use super::linearization::{Linearization, per_sigma};
use super::solvers::{Solution, Solver, System};
use super::{Counts, Covariance, Posterior};
use crate::Result;
use crate::backend::{Array, Backend};
use crate::diffusion::{Denoiser, Estimator};
use crate::operators::Measurement;
use crate::ops::{Dplr, KrylovOps};

/// E\[x | x_t, y\] with q(y | x_t) matched in mean and covariance:
/// x̂ + σ² Jᵀ Aᵀ v, where (Σ_y + A V Aᵀ) v = y - A x̂ and V stands for V\[x | x_t\].
///
/// The solve is folded: with Tweedie's covariance each of its products yields Jᵀ Aᵀ p anyway, so k iterations cost one
/// forward and k VJPs; with a heuristic they cost one VJP in all.
///
/// # Reference
/// Rozet, Andry, Lanusse and Louppe, Learning Diffusion Priors from Observations by Expectation Maximization, NeurIPS 2024,
/// section 4.2.
pub struct Mmps<'a, B: Backend, D> {
    denoiser: &'a D,
    measurement: &'a Measurement<B>,
    solver: Solver,
    covariance: Covariance<'a>,
    counter: Counter<B>,
}

impl<'a, B: KrylovOps + Dplr, D: Denoiser<B>> Mmps<'a, B, D> {
    /// The posterior of `measurement` under the prior of `denoiser`.
    pub fn new(
        backend: &B,
        denoiser: &'a D,
        measurement: &'a Measurement<B>,
        solver: Solver,
        covariance: Covariance<'a>,
    ) -> Self {
        let counter = Counter::new(backend, measurement.y.shape().n);
        Self { denoiser, measurement, solver, covariance, counter }
    }
}

impl<B: KrylovOps + Dplr, D: Denoiser<B>> Estimator<B> for Mmps<'_, B, D> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let Self { denoiser, measurement, solver, covariance, counter } = self;
        let mut d = Linearization::new(backend, *denoiser, x_t, sigma);
        let residual = measurement.residual(backend, &d.x_hat);
        let variance = per_sigma(backend, sigma, |sigma| sigma * sigma);
        let image = x_t.shape();
        let Solution { s, status } = match covariance.heuristic(backend, sigma) {
            None => {
                let system = System {
                    g: |p: &B::Tensor| d.vjp(&measurement.operator.adjoint(backend, p)),
                    q: |p: &B::Tensor, g: &B::Tensor| {
                        measurement.covariance_product(backend, p, &backend.row_scale(g, &variance))
                    },
                    masked: measurement.masked(&variance),
                };
                solver.solve(backend, residual, image, system)
            }
            Some(v) => {
                let Solution { s, status } = v.solve(backend, *solver, measurement, residual, image);
                Solution { s: d.vjp(&s), status }
            }
        };
        counter.call(d.vjps);
        counter.solve(backend, &status);
        let mut x_hat = d.x_hat;
        backend.row_axpy(&mut x_hat, 1.0, &variance, &s);
        Ok(x_hat)
    }
}

impl<B: KrylovOps + Dplr, D: Denoiser<B>> Posterior<B> for Mmps<'_, B, D> {
    fn counts(&self, backend: &B) -> Result<Counts> {
        self.counter.read(backend)
    }
}
