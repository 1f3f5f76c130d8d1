//! Arithmetic on batches of vectors: what samplers and solvers are made of.

mod cuda;
pub(crate) mod host;

use crate::backend::Backend;

/// Rows are samples: an array (N, H, W, C) is N vectors of D = H W C. Dots accumulate in f64 in one fixed order that depends
/// on D alone. A scalar array is (R, 1, 1, 1), R = 1 (shared) or N.
pub trait Vector: Backend {
    /// Σ_i a_i x_i, all of one shape, summed from left to right.
    fn linear_combination(&self, terms: &[(f64, &Self::Tensor)]) -> Self::Tensor;
    /// y ← a y + Σ_i a_i x_i, all of one shape, summed from left to right.
    fn linear_update(&self, y: &mut Self::Tensor, a: f64, terms: &[(f64, &Self::Tensor)]);
    /// y += x; x may have one row for all.
    fn add_assign(&self, y: &mut Self::Tensor, x: &Self::Tensor);
    /// y_n += scale a_n x_n; where a_n = 0 the row keeps its bits, whatever x_n is.
    fn row_axpy(&self, y: &mut Self::Tensor, scale: f64, a: &Self::Tensor, x: &Self::Tensor);
    /// a_n x_n.
    fn row_scale(&self, x: &Self::Tensor, a: &Self::Tensor) -> Self::Tensor;
    /// x_n / √square_n, for `square` (N, 1, 1, 1); 0 where that is 0 or not finite.
    fn row_normalize(&self, x: &Self::Tensor, square: &Self::Tensor) -> Self::Tensor;
    /// x / max(y, floor_n), elementwise, for x and y of one shape.
    fn row_quotient(&self, x: &Self::Tensor, y: &Self::Tensor, floor: &Self::Tensor) -> Self::Tensor;
    /// x y, elementwise; y may have one row, one channel or both for all.
    fn multiply(&self, x: &Self::Tensor, y: &Self::Tensor) -> Self::Tensor;
    /// <x_n, y_n>, (N, 1, 1, 1).
    fn row_dot(&self, x: &Self::Tensor, y: &Self::Tensor) -> Self::Tensor;
    /// For every sample, whether all its elements are finite.
    ///
    /// # Errors
    /// As [`Backend::download`].
    fn rows_finite(&self, x: &Self::Tensor) -> crate::Result<Vec<bool>>;
    /// first_n = `step` for every sample whose elements are not all finite, unless first_n says an earlier step already.
    /// `first` (N, 1, 1, 1) holds -1 in the beginning. Nobody waits for the device.
    fn note_nonfinite(&self, first: &mut Self::Tensor, step: usize, x: &Self::Tensor);
    /// Rows `index` of `x`: (index.len(), H, W, C).
    fn gather_rows(&self, x: &Self::Tensor, index: &[usize]) -> Self::Tensor;
    /// Row `n` of each array, (1, H, W, C).
    fn pick_rows(&self, arrays: &[&Self::Tensor], n: usize) -> Vec<Self::Tensor> {
        arrays.iter().map(|x| self.gather_rows(x, &[n])).collect()
    }
}
