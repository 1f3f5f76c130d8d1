//! Masked k-space, as in MRI.

use super::{Operator, check_rows, gather_or_share};
use crate::backend::{Array, Shape};
use crate::ops::fourier::LARGEST;
use crate::ops::{Fourier, Mask, Vector};
use crate::{Error, Result};

/// A x = mask · F x, F the centred orthonormal 2-D Fourier transform: a column of k-space is measured, or not. The image is real,
/// and Aᵀ takes the real part.
pub struct FourierMask<T> {
    mask: T,      // (R, 1, W, 1), R = 1 or N
    image: Shape, // of one sample
}

impl<T: Array> FourierMask<T> {
    /// The operator of `mask` (R, 1, W, 1), of 0 and 1, for images with the extents of `image`, R = 1 or N.
    ///
    /// # Errors
    /// When the extents do not agree, or the images have several channels or more than 4096 pixels a side.
    pub fn new(mask: T, image: Shape) -> Result<Self> {
        let found = mask.shape();
        if image.c != 1 || image.h.max(image.w) > LARGEST {
            let expected = format!("one channel, at most {LARGEST} x {LARGEST} pixels");
            return Err(Error::mismatch("images of k-space", expected, format!("{:?}", image.with_n(1))));
        }
        let expected = Shape::new(found.n, 1, image.w, 1);
        if found != expected {
            return Err(Error::mismatch("mask", format!("{expected:?}"), format!("{found:?}")));
        }
        Ok(Self { mask, image })
    }
}

impl<B: Fourier + Mask + Vector> Operator<B> for FourierMask<B::Tensor> {
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.fourier_forward(&self.mask, x)
    }
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor {
        backend.fourier_adjoint(&self.mask, v)
    }
    fn measured(&self, n: usize) -> Result<Shape> {
        check_rows("mask", self.mask.shape().n, n)?;
        Ok(self.image.with_n(n).with_c(2))
    }
    fn restrict(&self, backend: &B, y: &B::Tensor) -> B::Tensor {
        let (s, masks) = (y.shape(), self.mask.shape().n);
        let of_each_row: Vec<usize> = (0..s.n * s.h).map(|row| row / s.h % masks).collect();
        let rows = backend.copy(y).reshape(Shape { n: s.n * s.h, h: 1, ..s });
        backend.mask_apply(&backend.gather_rows(&self.mask, &of_each_row), &rows).reshape(s)
    }
    fn gather(&self, backend: &B, index: &[usize]) -> Box<dyn Operator<B>> {
        Box::new(Self { mask: gather_or_share(backend, &self.mask, index), image: self.image })
    }
}
