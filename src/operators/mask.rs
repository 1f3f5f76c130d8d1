//! The pixel mask.

use super::{Operator, check_rows, gather_or_share};
use crate::backend::{Array, Shape};
use crate::ops::{Mask, Vector};
use crate::{Error, Result};

/// A x = mask · x: all channels of a pixel are measured, or none. Its own adjoint.
pub struct PixelMask<T> {
    mask: T,      // (R, H, W, 1), R = 1 or N
    image: Shape, // of one sample
}

impl<T: Array> PixelMask<T> {
    /// The operator of `mask` (R, H, W, 1), of 0 and 1, for images with the extents of `image`, R = 1 or N.
    ///
    /// # Errors
    /// When the extents do not agree.
    pub fn new(mask: T, image: Shape) -> Result<Self> {
        let found = mask.shape();
        let expected = image.with_n(found.n).with_c(1);
        if found != expected {
            return Err(Error::mismatch("mask", format!("{expected:?}"), format!("{found:?}")));
        }
        Ok(Self { mask, image })
    }
}

impl<B: Mask + Vector> Operator<B> for PixelMask<B::Tensor> {
    fn pixel_mask(&self) -> Option<&B::Tensor> {
        Some(&self.mask)
    }
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.mask_apply(&self.mask, x)
    }
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor {
        backend.mask_apply(&self.mask, v)
    }
    fn measured(&self, n: usize) -> Result<Shape> {
        check_rows("mask", self.mask.shape().n, n)?;
        Ok(self.image.with_n(n))
    }
    fn restrict(&self, backend: &B, y: &B::Tensor) -> B::Tensor {
        backend.mask_apply(&self.mask, y)
    }
    fn gather(&self, backend: &B, index: &[usize]) -> Box<dyn Operator<B>> {
        Box::new(Self { mask: gather_or_share(backend, &self.mask, index), image: self.image })
    }
}
