//! Networks: explicit forward, what it saves, and the VJP, generic over the backend.

use crate::backend::{Backend, Keep};

/// A noise-conditional network, R^D to R^D for images (N, H, W, C).
pub trait Network<B: Backend>: Send + Sync {
    /// What depends on the noise level only, computed once for all VJPs and all samples that share it.
    type Condition: Send + Sync;
    /// What a forward keeps for the VJPs.
    type Saved: Send + Sync;

    /// The condition of `log_sigma`: one value for all samples, or one for each. `Keep::All` for parameter gradients.
    fn condition(&self, backend: &B, log_sigma: &[f64], keep: Keep) -> Self::Condition;
    /// The value, and what was kept (`None` for `Keep::Nothing`).
    fn forward(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>);
    /// Jᵀ dy with respect to x.
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, dy: &B::Tensor) -> B::Tensor;
}
