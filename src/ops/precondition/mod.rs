//! EDM preconditioning with σ_data = 1 (Karras et al., 2022, table 1).

mod cuda;
mod host;

use crate::backend::Backend;

/// c_in = c_skip^½ = 1/√(σ² + 1), c_out = σ/√(σ² + 1).
#[derive(Clone, Copy, Debug)]
pub struct Coefficients {
    /// What the network's input is multiplied by.
    pub c_in: f64,
    /// What the noisy input adds to the estimate.
    pub c_skip: f64,
    /// What the network's output is multiplied by.
    pub c_out: f64,
}

impl Coefficients {
    /// The coefficients at σ.
    pub fn at(sigma: f64) -> Self {
        let c_in = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { c_in, c_skip: c_in * c_in, c_out: sigma * c_in }
    }
}

/// d(x, σ) = c_skip x + c_out net(c_in x).
///
/// # Shapes
/// All arrays (N, H, W, C). `sigma` has R values, R = 1 (shared) or N.
pub trait Precondition: Backend {
    /// c_in x; also the VJP of itself.
    fn precondition_input(&self, x: &Self::Tensor, sigma: &[f64]) -> Self::Tensor;
    /// d = c_skip x + c_out f, with f the network's output.
    fn precondition_output(&self, x: &Self::Tensor, f: &Self::Tensor, sigma: &[f64]) -> Self::Tensor;
    /// df = c_out dd: what the network's VJP is applied to.
    fn precondition_output_vjp(&self, dd: &Self::Tensor, sigma: &[f64]) -> Self::Tensor;
    /// dx = c_skip dd + c_in dg, with dg the network's VJP of `df`.
    fn precondition_vjp(&self, dd: &Self::Tensor, dg: &Self::Tensor, sigma: &[f64]) -> Self::Tensor;
}
