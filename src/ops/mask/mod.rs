//! The pixel mask, A x = mask · x: only observed pixels were measured. Its own adjoint.

mod cuda;
mod host;

use crate::backend::Backend;

/// # Shapes
/// `x`, `y` (N, H, W, C), `mask` (R, H, W, 1) of 0 and 1, R = 1 or N: all channels of a pixel are measured together.
pub trait Mask: Backend {
    /// mask · x; 0 where the mask is 0, whatever `x` is there.
    fn mask_apply(&self, mask: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor;
}
