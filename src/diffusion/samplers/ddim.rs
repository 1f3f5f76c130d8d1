//! Implicit sampling: Song, Meng and Ermon, *Denoising diffusion implicit models*, 2021.

use super::Weights;

/// With η = 0 nothing of the start is forgotten: x_1 is drawn around μ_x, not around E\[x | y\], and of that difference up to
/// |E\[x | y\] - μ_x|/σ(1) posterior standard deviations are left in the samples' mean.
///
/// x_s = x̂ + σ_s √(1 - η² τ) (x_t - x̂)/σ_t + η σ_s √τ ε, τ = 1 - (σ_s/σ_t)².
pub(super) fn step(sigma_t: f64, sigma_s: f64, eta: f64) -> Weights {
    let ratio = sigma_s / sigma_t;
    let tau = 1.0 - ratio.powi(2);
    // 1 - η² τ, so written that η = 1 has the bits of DDPM
    let x = ratio * (ratio.powi(2) + (1.0 - eta.powi(2)) * tau).sqrt();
    Weights { x, x_hat: 1.0 - x, x_hat_prev: 0.0, noise: eta * sigma_s * tau.sqrt() }
}
