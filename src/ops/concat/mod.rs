//! Concatenation of channels.

mod cuda;
mod host;

use crate::backend::Backend;

/// y = (x1, x2) along channels: (N, H, W, C1), (N, H, W, C2) to (N, H, W, C1 + C2).
pub trait Concat: Backend {
    /// y.
    fn concat_forward(&self, x1: &Self::Tensor, x2: &Self::Tensor) -> Self::Tensor;
    /// (dx1, dx2): the first `c1` channels of `dy`, and the others.
    fn concat_vjp(&self, dy: &Self::Tensor, c1: usize) -> (Self::Tensor, Self::Tensor);
}
