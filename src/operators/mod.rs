//! What was measured: y = A x + noise. One operator per file.

mod dense;
mod filter;
mod fourier;
mod mask;

pub use dense::DenseMatrix;
pub use filter::PeriodicFilter;
pub use fourier::FourierMask;
pub use mask::PixelMask;

use crate::backend::{Array, Backend, Shape};
use crate::ops::Vector;
use crate::ops::cg::MaskedSystem;
use crate::{Error, Result};
use std::sync::Arc;

/// A linear map from images to measurements, and its exact adjoint, for the samples of one batch.
pub trait Operator<B: Backend>: Send + Sync {
    /// A x, for x (N, H, W, C).
    fn forward(&self, backend: &B, x: &B::Tensor) -> B::Tensor;
    /// Aᵀ v.
    fn adjoint(&self, backend: &B, v: &B::Tensor) -> B::Tensor;
    /// The extents of A x for `n` samples.
    ///
    /// # Errors
    /// When its own arrays are neither for one sample, which then stands for all, nor for `n`.
    fn measured(&self, n: usize) -> Result<Shape>;
    /// The mask, where A is nothing but one: some solvers do without A then.
    fn pixel_mask(&self) -> Option<&B::Tensor> {
        None
    }
    /// `y` with 0 wherever A measures nothing, whatever `y` is there.
    fn restrict(&self, backend: &B, y: &B::Tensor) -> B::Tensor {
        backend.copy(y)
    }
    /// The operator of samples `index`, in that order.
    fn gather(&self, backend: &B, index: &[usize]) -> Box<dyn Operator<B>>;
}

/// The measurements of one batch: y = A x + noise of covariance σ_y² I.
pub struct Measurement<B: Backend> {
    /// (N, ..): what was measured; 0 where a mask is 0.
    pub y: B::Tensor,
    /// (R, 1, 1, 1), R = 1 or N: σ_y².
    pub variance: B::Tensor,
    /// A; batches share it where it is one for all samples.
    pub operator: Arc<dyn Operator<B>>,
}

impl<B: Vector> Measurement<B> {
    /// The measurements `y` of `operator` with noise of standard deviation `sigma_y`: one value for all, or one for each.
    ///
    /// # Errors
    /// When the extents do not agree, when a noise is not positive and finite, or when `y` is not finite where it counts.
    pub fn new(backend: &B, y: &B::Tensor, sigma_y: &[f64], operator: Box<dyn Operator<B>>) -> Result<Self> {
        Self::of_shared(backend, y, sigma_y, operator.into())
    }
    /// As [`Measurement::new`], of an operator that other batches use too.
    ///
    /// # Errors
    /// As [`Measurement::new`].
    pub fn of_shared(backend: &B, y: &B::Tensor, sigma_y: &[f64], operator: Arc<dyn Operator<B>>) -> Result<Self> {
        let n = y.shape().n;
        let expected = operator.measured(n)?;
        if y.shape() != expected {
            return Err(Error::mismatch("y", format!("{expected:?}"), format!("{:?}", y.shape())));
        }
        if sigma_y.len() != 1 && sigma_y.len() != n {
            return Err(Error::mismatch("noise", format!("one value, or one for each of {n} samples"), sigma_y.len()));
        }
        if let Some(bad) = sigma_y.iter().find(|s| !(**s > 0.0 && s.is_finite())) {
            return Err(Error::mismatch("noise", "a positive standard deviation", bad));
        }
        let y = operator.restrict(backend, y);
        if let Some(sample) = backend.rows_finite(&y)?.iter().position(|finite| !finite) {
            return Err(Error::NonFinite { place: format!("y, sample {sample}") });
        }
        let variance: Vec<f64> = sigma_y.iter().map(|s| s * s).collect();
        let variance = backend.upload(Shape::new(sigma_y.len(), 1, 1, 1), &variance);
        Ok(Self { y, variance, operator })
    }
    /// The measurements of samples `index`, in that order; an index may repeat (several draws of one observation).
    pub fn gather(&self, backend: &B, index: &[usize]) -> Self {
        Self {
            y: backend.gather_rows(&self.y, index),
            variance: gather_or_share(backend, &self.variance, index),
            operator: self.operator.gather(backend, index).into(),
        }
    }
    /// The system (Σ_y + A V Aᵀ) v where A is a pixel mask and V a matrix times `variance`.
    pub fn masked<'a>(&'a self, variance: &'a B::Tensor) -> Option<MaskedSystem<'a, B>> {
        let mask = self.operator.pixel_mask()?;
        Some(MaskedSystem { mask, cov_y: &self.variance, variance })
    }
    /// (Σ_y + A V Aᵀ) p, given w = V Aᵀ p.
    pub fn covariance_product(&self, backend: &B, p: &B::Tensor, w: &B::Tensor) -> B::Tensor {
        let mut q = backend.row_scale(p, &self.variance);
        backend.add_assign(&mut q, &self.operator.forward(backend, w));
        q
    }
    /// y - A x.
    pub fn residual(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.linear_combination(&[(1.0, &self.y), (-1.0, &self.operator.forward(backend, x))])
    }
}

/// Rows `index` of `x`, or the one row that stands for all.
fn gather_or_share<B: Vector>(backend: &B, x: &B::Tensor, index: &[usize]) -> B::Tensor {
    if x.shape().n == 1 { backend.copy(x) } else { backend.gather_rows(x, index) }
}

/// Checks that `rows`, the leading extent of `array`, is 1 or `n`.
fn check_rows(array: &str, rows: usize, n: usize) -> Result<()> {
    if rows == 1 || rows == n {
        return Ok(());
    }
    Err(Error::mismatch(array, format!("leading extent 1 or {n}, as y has"), rows))
}
