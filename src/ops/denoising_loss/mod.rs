//! The loss of denoising score matching, and its gradient.

mod cuda;
mod host;

use crate::backend::Backend;

/// loss_n = w_n/D Σ_i (d_ni - x_ni)², w = 1/σ² + 1; dd = 2 w_n/(N D) (d - x) is the gradient of the mean of the losses.
///
/// With this weight the network's own error counts alike at every noise level: d - x = σ/√(σ² + 1) times that.
///
/// # Shapes
/// `d`, `x`, `dd` (N, H, W, C) with D = H W C; `sigma` 1 or N values; the losses (N, 1, 1, 1).
///
/// # Reference
/// Karras et al., *Elucidating the design space of diffusion-based generative models*, NeurIPS 2022, equation 2 and table 1.
pub trait DenoisingLoss: Backend {
    /// (losses, dd).
    fn denoising_loss(&self, d: &Self::Tensor, x: &Self::Tensor, sigma: &[f64]) -> (Self::Tensor, Self::Tensor);
}

/// 1/σ² + 1, for all of `n` samples or for each.
fn weights(sigma: &[f64], n: usize) -> Vec<f64> {
    assert!(sigma.len() == 1 || sigma.len() == n, "{} noise levels for {n} samples", sigma.len());
    sigma.iter().map(|sigma| sigma.powi(-2) + 1.0).collect()
}
