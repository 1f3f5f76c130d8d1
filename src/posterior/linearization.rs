//! The denoiser at one point, and its Jacobian there.

use crate::backend::{Backend, Keep, Shape};
use crate::diffusion::Denoiser;

/// x̂ = d(x_t, σ), and u ↦ Jᵀ u.
pub(super) struct Linearization<'a, B: Backend, D: Denoiser<B>> {
    backend: &'a B,
    denoiser: &'a D,
    condition: D::Condition,
    saved: D::Saved,
    /// (N, H, W, C) x̂.
    pub x_hat: B::Tensor,
    /// VJPs of the batch so far.
    pub vjps: usize,
}

impl<'a, B: Backend, D: Denoiser<B>> Linearization<'a, B, D> {
    pub fn new(backend: &'a B, denoiser: &'a D, x_t: &B::Tensor, sigma: &[f64]) -> Self {
        let condition = denoiser.condition(backend, sigma, Keep::Input);
        let (x_hat, saved) = denoiser.forward(backend, x_t, &condition, Keep::Input);
        let saved = saved.expect("Keep::Input keeps what the VJP needs");
        Self { backend, denoiser, condition, saved, x_hat, vjps: 0 }
    }
    /// Jᵀ u.
    pub fn vjp(&mut self, u: &B::Tensor) -> B::Tensor {
        self.vjps += 1;
        self.denoiser.vjp(self.backend, &self.condition, &self.saved, u)
    }
}

/// f(σ), (R, 1, 1, 1).
pub(super) fn per_sigma<B: Backend>(backend: &B, sigma: &[f64], f: impl Fn(f64) -> f64) -> B::Tensor {
    let values: Vec<f64> = sigma.iter().map(|sigma| f(*sigma)).collect();
    backend.upload(Shape::rows(values.len(), 1), &values)
}
