//! Pseudoinverse-guided diffusion (ΠGDM).

use super::solvers::Solver;
use super::{Covariance, Mmps};
use crate::backend::Backend;
use crate::diffusion::Denoiser;
use crate::operators::Measurement;
use crate::ops::{Dplr, KrylovOps};

/// x̂ + σ² Jᵀ Aᵀ (Σ_y + r² A Aᵀ)⁻¹ (y - A x̂) with r² = σ²/(1 + σ²): as a posterior denoiser, ΠGDM is MMPS with the
/// covariance of a standard normal prior.
///
/// # Reference
/// Song, Vahdat, Mardani and Kautz, Pseudoinverse-Guided Diffusion Models for Inverse Problems, ICLR 2023.
pub fn pgdm<'a, B: Backend + KrylovOps + Dplr, D: Denoiser<B>>(
    backend: &B,
    denoiser: &'a D,
    measurement: &'a Measurement<B>,
    solver: Solver,
) -> Mmps<'a, B, D> {
    Mmps::new(backend, denoiser, measurement, solver, Covariance::Unit)
}
