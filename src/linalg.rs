//! Small dense matrices in f64, on the host: what is done once per noise level, or in an exact check.

use crate::{Error, Result};
use std::convert::Infallible;

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
        assert_eq!(self.cols, other.rows, "product of matrices");
        let mut product = Self::zeros(self.rows, other.cols);
        for i in 0..self.rows {
            for (k, &a) in self.row(i).iter().enumerate() {
                product.row_mut(i).iter_mut().zip(other.row(k)).for_each(|(c, b)| *c += a * b);
            }
        }
        product
    }
    /// A x.
    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(self.cols, x.len(), "matrix times vector");
        (0..self.rows).map(|i| dot(self.row(i), x)).collect()
    }
    /// A S Aᵀ.
    pub fn congruence(&self, s: &Self) -> Self {
        self.times(s).times(&self.transpose())
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

/// The factor L of a symmetric positive definite matrix, A = L Lᵀ.
pub struct Cholesky(Matrix);

impl Cholesky {
    /// Reads the lower triangle of `a`.
    ///
    /// # Errors
    /// When `a` is not positive definite.
    pub fn new(a: Matrix) -> Result<Self> {
        Self::factor(a, |j, pivot| {
            if pivot > 0.0 && pivot.is_finite() {
                return Ok(pivot);
            }
            Err(Error::mismatch(format!("pivot {j} of a Cholesky factor"), "positive, finite", pivot))
        })
    }
    /// The factor of I + G, `gram` the positive semidefinite G, whose pivots are at least 1: where rounding drowns the
    /// identity, they are set to it.
    pub fn of_identity_plus(gram: Matrix) -> Self {
        let n = gram.rows;
        let Ok(cholesky) =
            Self::factor(gram.plus(&Matrix::scaled_identity(n, 1.0)), |_, pivot| Ok::<_, Infallible>(pivot.max(1.0)));
        cholesky
    }
    fn factor<E>(
        mut a: Matrix,
        check: impl Fn(usize, f64) -> std::result::Result<f64, E>,
    ) -> std::result::Result<Self, E> {
        assert_eq!(a.rows, a.cols, "Cholesky factor of a square matrix");
        for j in 0..a.rows {
            a[(j, j)] = check(j, a[(j, j)] - dot(&a.row(j)[..j], &a.row(j)[..j]))?.sqrt();
            for i in j + 1..a.rows {
                a[(i, j)] = (a[(i, j)] - dot(&a.row(i)[..j], &a.row(j)[..j])) / a[(j, j)];
            }
        }
        Ok(Self(a))
    }
    /// L⁻¹ B, in place.
    pub fn solve_lower(&self, b: &mut Matrix) {
        assert_eq!(self.0.rows, b.rows, "triangular solve");
        let cols = b.cols;
        for i in 0..b.rows {
            let (above, row) = b.data.split_at_mut(i * cols);
            let row = &mut row[..cols];
            for (x, l) in above.chunks_exact(cols).zip(self.0.row(i)) {
                row.iter_mut().zip(x).for_each(|(b, x)| *b -= l * x);
            }
            row.iter_mut().for_each(|b| *b /= self.0[(i, i)]);
        }
    }
    /// A⁻¹ b, in place.
    pub fn solve(&self, b: &mut [f64]) {
        assert_eq!(self.0.rows, b.len(), "solve");
        for i in 0..b.len() {
            b[i] = (b[i] - dot(&self.0.row(i)[..i], &b[..i])) / self.0[(i, i)];
        }
        for i in (0..b.len()).rev() {
            b[i] /= self.0[(i, i)];
            let x = b[i];
            b[..i].iter_mut().zip(self.0.row(i)).for_each(|(b, l)| *b -= l * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::noise::{Purpose, Stream};

    fn random(rows: usize, cols: usize, sample: u32) -> Matrix {
        let values: Vec<f64> = Stream::new(11, Purpose::Test).uniforms(sample).take(rows * cols).collect();
        Matrix::from_fn(rows, cols, |i, j| values[i * cols + j] - 0.5)
    }

    #[test]
    fn cholesky_solves() {
        let factor = random(7, 9, 0);
        let a = factor.times(&factor.transpose()).plus(&Matrix::scaled_identity(7, 0.1));
        let x: Vec<f64> = random(1, 7, 1).row(0).to_vec();
        let mut b = a.apply(&x);
        let cholesky = Cholesky::new(a.clone()).unwrap();
        cholesky.solve(&mut b);
        for (found, expected) in b.iter().zip(x) {
            // rounding 1e-16 times a condition number below 100
            assert!((found - expected).abs() < 1e-13, "{found} {expected}");
        }
        // L⁻¹ A L⁻ᵀ = I
        let mut half = a;
        cholesky.solve_lower(&mut half);
        let mut whole = half.transpose();
        cholesky.solve_lower(&mut whole);
        let identity = Matrix::scaled_identity(7, 1.0);
        assert!(whole.as_slice().iter().zip(identity.as_slice()).all(|(a, b)| (a - b).abs() < 1e-13));
    }

    #[test]
    fn indefinite_matrices_have_no_factor() {
        assert!(Cholesky::new(Matrix::scaled_identity(3, -1.0)).is_err());
        assert!(Cholesky::new(Matrix::scaled_identity(3, f64::NAN)).is_err());
    }

    #[test]
    fn rounding_may_drown_the_identity() {
        let gram = Matrix::from_fn(5, 5, |_, _| 1e40); // rank 1
        let mut b = [1.0; 5];
        Cholesky::of_identity_plus(gram).solve(&mut b);
        assert!(b.iter().all(|b| b.abs() <= 1.0), "{b:?}"); // no eigenvalue below 1
    }

    #[test]
    fn products_associate() {
        let (a, b, x) = (random(5, 3, 2), random(3, 4, 3), random(1, 4, 4));
        let (left, right) = (a.times(&b).apply(x.row(0)), a.apply(&b.apply(x.row(0))));
        assert!(left.iter().zip(right).all(|(l, r)| (l - r).abs() < 1e-15));
    }
}
