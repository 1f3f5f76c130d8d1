//! SiLU, x sigmoid(x) (Hendrycks and Gimpel, 2016).

mod cpu;
mod cuda;
mod reference;

use crate::backend::{Backend, Keep};

/// y = x s, s = 1/(1 + e^-x); dy/dx = s + y (1 - s).
pub trait Silu: Backend {
    /// y, and dy/dx unless nothing is kept; same shape as `x`.
    fn silu_forward(&self, x: &Self::Tensor, keep: Keep) -> (Self::Tensor, Option<Self::Tensor>);
    /// dx = derivative · dy.
    fn silu_vjp(&self, derivative: &Self::Tensor, dy: &Self::Tensor) -> Self::Tensor;
}
