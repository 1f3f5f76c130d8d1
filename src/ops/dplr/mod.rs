//! A symmetric matrix, diagonal plus low rank (DPLR), applied to vectors.

mod cuda;
mod host;

use crate::backend::Backend;

/// y = d · x + Wᵀ (W x).
///
/// # Shapes
/// `x`, `y` N vectors of D = H W C; `d` (R, 1, 1, D); `w` (R, 1, K, D), its K rows the factor's columns; R = 1 or N.
pub trait Dplr: Backend {
    /// y, with the extents of `x`.
    fn dplr_apply(&self, d: &Self::Tensor, w: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor;
}
