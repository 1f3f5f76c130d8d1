//! A matrix per sample, A x: random projections and other small linear measurements.

mod cuda;
mod host;

use crate::backend::{Backend, Shape};

/// # Shapes
/// `a` (R, 1, M, D), R = 1 or N; `x` N vectors of D = H W C; `y` (N, 1, 1, M).
pub trait Dense: Backend {
    /// y_n = A_n x_n.
    fn dense_forward(&self, a: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor;
    /// Aᵀ_n y_n, with extents `image` (D = H W C).
    fn dense_adjoint(&self, a: &Self::Tensor, y: &Self::Tensor, image: Shape) -> Self::Tensor;
}
