//! What stands for V\[x | x_t\] in the measurement's system Σ_y + A V Aᵀ.

use super::linearization::per_sigma;
use super::solvers::{Solution, Solver, System};
use crate::backend::{Backend, Shape};
use crate::diffusion::gaussian::{DplrMatrix, Gaussian};
use crate::operators::Measurement;
use crate::ops::{Dplr, KrylovOps, Vector};

/// The covariance of x given x_t: Tweedie's or a heuristic, with Σ_t = σ² I.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Covariance<'a> {
    /// σ² J: exact for the exact denoiser; one VJP for every product.
    #[default]
    Tweedie,
    /// Σ_t.
    Sigma,
    /// (I + Σ_t⁻¹)⁻¹: that of a prior N(0, I).
    Unit,
    /// (Σ_x⁻¹ + Σ_t⁻¹)⁻¹: that of a Gaussian prior.
    Prior(&'a Gaussian),
    /// 0: x_t says all about x.
    Zero,
    /// Tweedie's below noise level `sigma`, that of a Gaussian prior from there on.
    ///
    /// Far above the spread of the data x_t hardly tells one x from another, and V\[x | x_t\] is about the prior's for any prior. A
    /// network's σ² J = σ² (1 + σ ∂net)/(1 + σ²) asks for a ∂net that is right to 1/σ there: where it is not, the system is not
    /// positive, and a solve breaks down or throws its sample far out.
    TweedieBelow {
        /// From where on it is the prior's.
        sigma: f64,
        /// The Gaussian prior.
        prior: &'a Gaussian,
    },
}

impl Covariance<'_> {
    /// V at σ, one value or one for each sample; `None` for Tweedie's, which takes VJPs. Tweedie's it is too where a limit lies
    /// between the samples' σ.
    pub(super) fn heuristic<B: Backend>(self, backend: &B, sigma: &[f64]) -> Option<Heuristic<B>> {
        match self {
            Self::Tweedie => None,
            Self::Sigma => Some(Heuristic::isotropic(backend, sigma, |sigma| sigma * sigma)),
            Self::Unit => Some(Heuristic::isotropic(backend, sigma, |sigma| sigma * sigma / (1.0 + sigma * sigma))),
            Self::Prior(gaussian) => Some(Heuristic::Dplr(gaussian.posterior_covariance(backend, sigma))),
            Self::TweedieBelow { sigma: limit, prior } if sigma.iter().all(|sigma| *sigma >= limit) => {
                Self::Prior(prior).heuristic(backend, sigma)
            }
            Self::TweedieBelow { .. } => None,
            Self::Zero => Some(Heuristic::isotropic(backend, sigma, |_| 0.0)),
        }
    }
}

/// A V that needs no VJP, at one noise level.
pub(super) enum Heuristic<B: Backend> {
    /// c I, c (R, 1, 1, 1).
    Isotropic(B::Tensor),
    /// Diagonal plus low rank.
    Dplr(DplrMatrix<B>),
}

impl<B: Backend> Heuristic<B> {
    /// V = f(σ) I.
    pub fn isotropic(backend: &B, sigma: &[f64], f: impl Fn(f64) -> f64) -> Self {
        Self::Isotropic(per_sigma(backend, sigma, f))
    }
    /// V u.
    fn apply(&self, backend: &B, u: &B::Tensor) -> B::Tensor
    where
        B: Dplr + Vector,
    {
        match self {
            Self::Isotropic(c) => backend.row_scale(u, c),
            Self::Dplr(v) => v.apply(backend, u),
        }
    }
    /// Aᵀ v for the v that solves (Σ_y + A V Aᵀ) v = `residual`, for images of extents `image`.
    pub fn solve(
        &self,
        backend: &B,
        solver: Solver,
        measurement: &Measurement<B>,
        residual: B::Tensor,
        image: Shape,
    ) -> Solution<B>
    where
        B: KrylovOps + Dplr,
    {
        let system = System {
            g: |p: &B::Tensor| measurement.operator.adjoint(backend, p),
            q: |p: &B::Tensor, u: &B::Tensor| measurement.covariance_product(backend, p, &self.apply(backend, u)),
            masked: match self {
                Self::Isotropic(c) => measurement.masked(c),
                Self::Dplr(_) => None,
            },
        };
        solver.solve(backend, residual, image, system)
    }
}
