//! Langevin corrections after a predictor's step: Song et al., *Score-based generative modeling through stochastic
//! differential equations*, 2021.

use super::Weights;

/// x ← x - δ (x - x̂) + σ_s √(2 δ) ε: one step of Langevin dynamics on p(x_s), whose score is (x̂ - x)/σ_s².
pub(super) fn correction(sigma_s: f64, delta: f64) -> Weights {
    Weights { x: 1.0 - delta, x_hat: delta, x_hat_prev: 0.0, noise: sigma_s * (2.0 * delta).sqrt() }
}
