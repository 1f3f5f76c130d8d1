//! Cholesky's factor, and what is solved with it.

use super::{Matrix, dot};
use crate::{Error, Result};
use std::convert::Infallible;

/// The factor L of a symmetric positive definite matrix, A = L Lᵀ.
#[derive(Clone, Debug)]
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
        for i in 0..b.rows {
            let (above, row) = b.data.split_at_mut(i * b.cols);
            let row = &mut row[..b.cols];
            for (x, l) in above.chunks_exact(b.cols.max(1)).zip(self.0.row(i)) {
                row.iter_mut().zip(x).for_each(|(b, x)| *b -= l * x);
            }
            row.iter_mut().for_each(|b| *b /= self.0[(i, i)]);
        }
    }
    /// L⁻ᵀ B, in place.
    pub fn solve_upper(&self, b: &mut Matrix) {
        assert_eq!(self.0.rows, b.rows, "triangular solve");
        for i in (0..b.rows).rev() {
            let (above, row) = b.data.split_at_mut(i * b.cols);
            let row = &mut row[..b.cols];
            row.iter_mut().for_each(|b| *b /= self.0[(i, i)]);
            for (x, l) in above.chunks_exact_mut(b.cols.max(1)).zip(self.0.row(i)) {
                x.iter_mut().zip(&*row).for_each(|(x, b)| *x -= l * b);
            }
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
    /// A⁻¹.
    pub fn inverse(&self) -> Matrix {
        let mut inverse = Matrix::scaled_identity(self.0.rows, 1.0);
        self.solve_lower(&mut inverse);
        inverse.transpose_times(&inverse)
    }
    /// L, 0 above its diagonal.
    pub fn into_lower(self) -> Matrix {
        Matrix::from_fn(self.0.rows, self.0.rows, |i, j| if j <= i { self.0[(i, j)] } else { 0.0 })
    }
    /// ln det A.
    pub fn log_det(&self) -> f64 {
        2.0 * (0..self.0.rows).map(|i| self.0[(i, i)].ln()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random;

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
    fn inverse_and_determinant() {
        let factor = random(6, 8, 2);
        let a = factor.times_transpose(&factor).plus(&Matrix::scaled_identity(6, 0.1));
        let cholesky = Cholesky::new(a.clone()).unwrap();
        let identity = a.times(&cholesky.inverse());
        for (i, v) in identity.as_slice().iter().enumerate() {
            // rounding 1e-16 times a condition number below 100
            assert!((v - f64::from(u8::from(i % 7 == 0))).abs() < 1e-13, "{i}: {v}");
        }
        let eigen = crate::linalg::symmetric_eigen(a.clone());
        let expected: f64 = eigen.values.iter().map(|v| v.ln()).sum();
        assert!((cholesky.log_det() - expected).abs() < 1e-13, "{} {expected}", cholesky.log_det());
        let lower = cholesky.clone().into_lower();
        let product = lower.times_transpose(&lower);
        assert!(product.as_slice().iter().zip(a.as_slice()).all(|(p, a)| (p - a).abs() < 1e-14));
        let mut b = random(6, 3, 3);
        let rhs = b.clone();
        cholesky.solve_lower(&mut b);
        cholesky.solve_upper(&mut b);
        let back = a.times(&b);
        assert!(back.as_slice().iter().zip(rhs.as_slice()).all(|(a, b)| (a - b).abs() < 1e-13));
    }
}
