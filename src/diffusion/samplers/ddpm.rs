//! Ancestral sampling: Ho, Jain and Abbeel, *Denoising diffusion probabilistic models*, 2020.

use super::Weights;

/// x_s = x_t - τ (x_t - x̂) + σ_s √τ ε, τ = 1 - (σ_s/σ_t)²: a draw of q(x_s | x_t, x = x̂).
pub(super) fn step(sigma_t: f64, sigma_s: f64) -> Weights {
    let keep = (sigma_s / sigma_t).powi(2);
    let tau = 1.0 - keep;
    Weights { x: keep, x_hat: tau, x_hat_prev: 0.0, noise: sigma_s * tau.sqrt() }
}
