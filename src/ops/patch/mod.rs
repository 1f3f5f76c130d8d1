//! Patch folding: patch x patch pixels become channels. A permutation, so VJP and inverse are one.

mod cuda;
mod host;

use crate::backend::Backend;

/// y\[n, i, j, (r p + s) C + c\] = x\[n, p i + r, p j + s, c\]: (N, H, W, C) to (N, H/p, W/p, p² C).
///
/// The channel order (row, column, channel) is that of the authors' code.
pub trait Patch: Backend {
    /// y.
    fn patch_fold(&self, x: &Self::Tensor, patch: usize) -> Self::Tensor;
    /// The inverse, which is also the VJP of the fold; the fold is the VJP of this.
    fn patch_unfold(&self, y: &Self::Tensor, patch: usize) -> Self::Tensor;
}
