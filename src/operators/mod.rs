//! What was measured: y = A x + noise. One operator per file.

use crate::backend::Backend;

/// A linear map from images to measurements, and its exact adjoint, for the samples of one batch.
pub trait Operator<B: Backend>: Send + Sync {
    /// A x, for x (N, H, W, C).
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor;
    /// Aᵀ v.
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor;
}

/// The measurements of one batch: y = A x + noise of covariance σ_y² I.
pub struct Measurement<B: Backend> {
    /// (N, ..): what was measured; 0 where a mask is 0.
    pub y: B::Tensor,
    /// (R, 1, 1, 1), R = 1 or N: σ_y².
    pub variance: B::Tensor,
    /// A.
    pub operator: Box<dyn Operator<B>>,
}
