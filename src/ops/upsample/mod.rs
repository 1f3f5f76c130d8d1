//! Nearest upsampling by 2.

mod cpu;
mod cuda;
mod reference;

use crate::backend::Backend;

/// y\[n, i, j, c\] = x\[n, ⌊i/2⌋, ⌊j/2⌋, c\]: (N, H, W, C) to (N, 2 H, 2 W, C).
pub trait Upsample: Backend {
    /// y.
    fn upsample_forward(&self, x: &Self::Tensor) -> Self::Tensor;
    /// dx: the sum of `dy` over the 2 x 2 pixels of each.
    fn upsample_vjp(&self, dy: &Self::Tensor) -> Self::Tensor;
}
