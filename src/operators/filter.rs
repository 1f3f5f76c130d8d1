//! Blur and downsampling: a periodic convolution, of which every pixel or every few pixels were measured.

use super::Operator;
use crate::backend::{Array, Shape};
use crate::ops::filter::{FilterSpec, bicubic, square};
use crate::ops::{Filter, Vector};
use crate::{Error, Result};

/// A x = every s-th pixel of k * x, the periodic convolution of every channel with a kernel.
///
/// The boundary is periodic, as in deepinv's `BlurFFT` and `Downsampling`: A Aᵀ is then diagonal in the frequencies, and no pixel is
/// made up or left out. Where the true boundary is another, crop what it reaches.
pub struct PeriodicFilter<T> {
    kernel: T, // (1, A, B, 1)
    spec: FilterSpec,
    image: Shape, // of one sample
}

impl<T: Array> PeriodicFilter<T> {
    /// Blur by `kernel` (1, A, B, 1): the image of a point is the kernel, its element (⌊A/2⌋, ⌊B/2⌋) in the point's place.
    ///
    /// # Errors
    /// When `kernel` is of other extents.
    pub fn blur(kernel: T, image: Shape) -> Result<Self> {
        let found = kernel.shape();
        if found.n != 1 || found.c != 1 || found.is_empty() {
            return Err(Error::mismatch("kernel", "(1, h, w, 1)", format!("{found:?}")));
        }
        Ok(Self { kernel, spec: FilterSpec::blur(found.h, found.w), image })
    }
    /// Downsampling by `factor`, after the cubic convolution of [`bicubic`].
    ///
    /// # Errors
    /// When the image cannot be divided so.
    pub fn downsample<B: Filter<Tensor = T>>(backend: &B, factor: usize, image: Shape) -> Result<Self> {
        if factor == 0 || !image.h.is_multiple_of(factor) || !image.w.is_multiple_of(factor) {
            let expected = format!("a divisor of {} and {}, the sides of the images", image.h, image.w);
            return Err(Error::mismatch("factor", expected, factor));
        }
        let (kernel, spec) = bicubic(factor);
        Ok(Self { kernel: backend.upload(square(&kernel), &kernel), spec, image })
    }
}

impl<B: Filter + Vector> Operator<B> for PeriodicFilter<B::Tensor> {
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.filter_forward(&self.kernel, self.spec, x)
    }
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor {
        backend.filter_adjoint(&self.kernel, self.spec, v)
    }
    fn measured(&self, n: usize) -> Result<Shape> {
        Ok(self.spec.filtered(self.image.with_n(n)))
    }
    fn gather(&self, backend: &B, _: &[usize]) -> Box<dyn Operator<B>> {
        Box::new(Self { kernel: backend.copy(&self.kernel), ..*self })
    }
}
