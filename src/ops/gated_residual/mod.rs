//! The end of a block: its branch is added with a gate, and the variance kept.

mod cpu;
mod cuda;
mod reference;

use super::channel_norm::Modulation;
use crate::backend::Backend;

/// y = (x + c branch) r, r = 1/√(1 + c²), c per channel from the modulation.
///
/// # Shapes
/// `x`, `branch`, `y` (N, H, W, C); `abc`, `dabc` (R, 1, 1, 3 C), R = 1 or N; gates (R, 1, 1, 2 C).
pub trait GatedResidual: Backend {
    /// (r, c r) of `abc`, for [`Modulation::gates`].
    fn gates(&self, abc: &Self::Tensor) -> Self::Tensor;
    /// y.
    fn gated_residual_forward(&self, x: &Self::Tensor, branch: &Self::Tensor, m: &Modulation<Self>) -> Self::Tensor;
    /// (dx, dbranch) = (r dy, c r dy).
    fn gated_residual_vjp(&self, m: &Modulation<Self>, dy: &Self::Tensor) -> (Self::Tensor, Self::Tensor);
    /// dc += Σ_pixels dy (branch r - (x + c branch) c r³): the last third of `dabc`, summed over the samples when R = 1.
    fn gated_residual_vjp_params(
        &self,
        x: &Self::Tensor,
        branch: &Self::Tensor,
        m: &Modulation<Self>,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    );
}
