//! Small dense matrices in f64, on the host: what is done once per noise level or observation, or in an exact check.

mod cholesky;
mod eigen;
mod subspace;

pub use cholesky::Cholesky;
pub use eigen::{Eigen, symmetric_eigen};
pub use subspace::{leading_eigenpairs, orthonormalise};

use std::ops::Range;

/// A matrix, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }
    /// Element (i, j) is `f(i, j)`.
    pub fn from_fn(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        let data = (0..rows * cols).map(|k| f(k / cols, k % cols)).collect();
        Self { rows, cols, data }
    }
    /// The identity times `scale`.
    pub fn scaled_identity(n: usize, scale: f64) -> Self {
        Self::from_fn(n, n, |i, j| if i == j { scale } else { 0.0 })
    }
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// All elements, row by row.
    pub fn as_slice(&self) -> &[f64] {
        &self.data
    }
    /// All elements, row by row.
    pub fn as_mut_slice(&mut self) -> &mut [f64] {
        &mut self.data
    }
    /// Row i.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.cols..][..self.cols]
    }
    /// Row i.
    pub fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.cols..][..self.cols]
    }
    /// Aᵀ.
    pub fn transpose(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self[(j, i)])
    }
    /// A + B.
    pub fn plus(mut self, other: &Self) -> Self {
        assert_eq!((self.rows, self.cols), (other.rows, other.cols), "sum of matrices");
        self.data.iter_mut().zip(&other.data).for_each(|(a, b)| *a += b);
        self
    }
    /// A B.
    pub fn times(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.rows, other.cols);
        product.add_product(1.0, View::of(self), View::of(other));
        product
    }
    /// Aᵀ B.
    pub fn transpose_times(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.cols, other.cols);
        product.add_product(1.0, View::of(self).transpose(), View::of(other));
        product
    }
    /// A Bᵀ.
    pub fn times_transpose(&self, other: &Self) -> Self {
        let mut product = Self::zeros(self.rows, other.rows);
        product.add_product(1.0, View::of(self), View::of(other).transpose());
        product
    }
    /// C += α A B.
    pub fn add_product(&mut self, alpha: f64, a: View<'_>, b: View<'_>) {
        assert_eq!((a.rows, a.cols, b.cols), (self.rows, b.rows, self.cols), "product of matrices");
        let ((rsa, csa), (rsb, csb)) = (a.strides, b.strides);
        // SAFETY: the views are of whole slices whose lengths their strides cover, and C is borrowed exclusively.
        unsafe {
            matrixmultiply::dgemm(
                a.rows,
                a.cols,
                b.cols,
                alpha,
                a.data.as_ptr(),
                rsa,
                csa,
                b.data.as_ptr(),
                rsb,
                csb,
                1.0,
                self.data.as_mut_ptr(),
                self.cols as isize,
                1,
            );
        }
    }
    /// A x.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(self.cols, x.len(), "matrix times vector");
        (0..self.rows).map(|i| dot(self.row(i), x)).collect()
    }
    /// Aᵀ x.
    pub fn apply_transpose(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(self.rows, x.len(), "transposed matrix times vector");
        let mut y = vec![0.0; self.cols];
        for (i, x) in x.iter().enumerate() {
            y.iter_mut().zip(self.row(i)).for_each(|(y, a)| *y += a * x);
        }
        y
    }
    /// A S Aᵀ.
    pub fn congruence(&self, s: &Self) -> Self {
        self.times(s).times_transpose(self)
    }
    /// Σ a².
    pub fn squared_norm(&self) -> f64 {
        dot(&self.data, &self.data)
    }
}

/// A matrix or its transpose, as a factor of a product.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: &'a [f64],
    rows: usize,
    cols: usize,
    strides: (isize, isize),
}

impl<'a> View<'a> {
    /// `matrix` itself.
    pub fn of(matrix: &'a Matrix) -> Self {
        Self::rows_of(matrix, 0..matrix.rows)
    }
    /// Some rows of `matrix`.
    pub fn rows_of(matrix: &'a Matrix, rows: Range<usize>) -> Self {
        let data = &matrix.data[rows.start * matrix.cols..rows.end * matrix.cols];
        Self { data, rows: rows.len(), cols: matrix.cols, strides: (matrix.cols as isize, 1) }
    }
    /// The transpose.
    pub fn transpose(self) -> Self {
        Self { rows: self.cols, cols: self.rows, strides: (self.strides.1, self.strides.0), ..self }
    }
}

impl std::ops::Index<(usize, usize)> for Matrix {
    type Output = f64;
    fn index(&self, (i, j): (usize, usize)) -> &f64 {
        &self.row(i)[j]
    }
}

impl std::ops::IndexMut<(usize, usize)> for Matrix {
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut f64 {
        &mut self.row_mut(i)[j]
    }
}

/// <x, y>.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Uniform numbers in [-½, ½), for tests.
#[cfg(test)]
fn random(rows: usize, cols: usize, sample: u32) -> Matrix {
    use crate::ops::noise::{Purpose, Stream};
    let values: Vec<f64> = Stream::new(11, Purpose::Test).uniforms(sample).take(rows * cols).collect();
    Matrix::from_fn(rows, cols, |i, j| values[i * cols + j] - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_associate() {
        let (a, b, x) = (random(5, 3, 2), random(3, 4, 3), random(1, 4, 4));
        let (left, right) = (a.times(&b).apply(x.row(0)), a.apply(&b.apply(x.row(0))));
        assert!(left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-15));
    }

    #[test]
    fn products_are_sums() {
        let (a, b) = (random(5, 7, 5), random(7, 3, 6));
        let sum = |i: usize, j: usize| (0..7).map(|k| a[(i, k)] * b[(k, j)]).sum::<f64>();
        let expected = Matrix::from_fn(5, 3, sum);
        let mut twice = a.times(&b);
        twice.add_product(1.0, View::rows_of(&a, 0..5), View::of(&b));
        let half = Matrix::from_fn(5, 3, |i, j| twice[(i, j)] / 2.0);
        for found in [a.times(&b), a.transpose().transpose_times(&b), a.times_transpose(&b.transpose()), half] {
            // seven products below ¼, in any order
            assert!(found.as_slice().iter().zip(expected.as_slice()).all(|(f, e)| (f - e).abs() < 1e-15));
        }
        let (x, y) = (a.apply(b.transpose().row(0)), a.transpose().apply_transpose(b.transpose().row(0)));
        assert!(x.iter().zip(y).enumerate().all(|(i, (x, y))| (x - y).abs() < 1e-15 && (x - sum(i, 0)).abs() < 1e-15));
    }
}
