//! A matrix per sample.

use super::{Operator, check_rows, gather_or_share};
use crate::backend::{Array, Shape};
use crate::ops::{Dense, Vector};
use crate::{Error, Result};

/// A x with a matrix of M rows for each sample, or one for all; x is flattened row-major, HWC.
pub struct DenseMatrix<T> {
    a: T,         // (R, 1, M, D), R = 1 or N
    image: Shape, // of one sample
}

impl<T: Array> DenseMatrix<T> {
    /// The operator of `a` (R, 1, M, D) for images with the extents of `image`, D = H W C, R = 1 or N.
    ///
    /// # Errors
    /// When the extents do not agree.
    pub fn new(a: T, image: Shape) -> Result<Self> {
        let found = a.shape();
        if found.h != 1 || found.c != image.row() || found.w == 0 {
            let expected = format!("(1 or N, M, {}) for images {:?}", image.row(), image.with_n(1));
            return Err(Error::mismatch("A", expected, format!("{found:?}")));
        }
        Ok(Self { a, image })
    }
}

impl<B: Dense + Vector> Operator<B> for DenseMatrix<B::Tensor> {
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.dense_forward(&self.a, x)
    }
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor {
        backend.dense_adjoint(&self.a, v, self.image.with_n(v.shape().n))
    }
    fn measured(&self, n: usize) -> Result<Shape> {
        check_rows("A", self.a.shape().n, n)?;
        Ok(Shape::rows(n, self.a.shape().w))
    }
    fn gather(&self, backend: &B, index: &[usize]) -> Box<dyn Operator<B>> {
        Box::new(Self { a: gather_or_share(backend, &self.a, index), image: self.image })
    }
}
