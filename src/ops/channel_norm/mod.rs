//! Layer norm over the channels of each pixel, without parameters, after an optional modulation by the noise level.

mod cpu;
mod cuda;
mod reference;

use crate::backend::Backend;

/// ε of the variance.
pub const EPS: f64 = 1e-5;

/// A block's modulation, computed once per noise level.
pub struct Modulation<B: Backend> {
    /// (R, 1, 1, 3 C): a, b, c; R = 1 when all samples share the noise level, else N.
    pub abc: B::Tensor,
    /// (R, 1, 1, 2 C): r = 1/√(1 + c²), then c r, as [`crate::ops::GatedResidual::gates`] gives them.
    pub gates: B::Tensor,
}

/// z = (a + 1) x + b (z = x without modulation), y = (z - mean(z)) rstd, rstd = 1/√(var(z) + ε), mean and biased
/// variance over the C channels of one pixel.
///
/// # Shapes
/// `x`, `y`, `dy`, `dx` (N, H, W, C), `rstd` (N, H, W, 1), `m.abc`, `dabc` (R, 1, 1, 3 C), R = 1 or N.
pub trait ChannelNorm: Backend {
    /// (y, rstd); both are what the VJP needs.
    fn channel_norm_forward(&self, x: &Self::Tensor, m: Option<&Modulation<Self>>) -> (Self::Tensor, Self::Tensor);
    /// dz = rstd (dy - mean(dy) - y mean(dy y)); dx = (a + 1) dz.
    fn channel_norm_vjp(
        &self,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        m: Option<&Modulation<Self>>,
        dy: &Self::Tensor,
    ) -> Self::Tensor;
    /// da += Σ_pixels x dz, db += Σ_pixels dz: the first and second third of `dabc`, summed over the samples when R = 1.
    fn channel_norm_vjp_params(
        &self,
        x: &Self::Tensor,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    );
}
