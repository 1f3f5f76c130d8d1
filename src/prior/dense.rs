//! A matrix of M rows under a Gaussian prior: Cholesky's factor of the M x M system.

use super::system::System;
use crate::Result;
use crate::diffusion::Gaussian;
use crate::linalg::{Cholesky, Matrix, View, dot};
use std::f64::consts::TAU;

/// S = A Σ Aᵀ + σ_y² I = L Lᵀ.
///
/// Its condition number may be 1e8 at σ_y = 1e-3. The factor errs as if S had been rounded, which moves Σ Aᵀ S⁻¹ r and
/// V\[x | y\] by roundings of Σ times the square of the gain Σ Aᵀ S⁻¹, whatever the condition is.
pub(super) struct DenseSystem<'a> {
    gaussian: &'a Gaussian,
    a: Matrix,     // (M, D)
    cross: Matrix, // A Σ (M, D)
    s: Cholesky,   // of (M, M)
    sigma_y: f64,
}

impl<'a> DenseSystem<'a> {
    /// Of the matrix `a` (M, D).
    ///
    /// # Errors
    /// When S is not positive definite in f64.
    pub fn new(gaussian: &'a Gaussian, a: &[f32], sigma_y: f64) -> Result<Self> {
        let d = gaussian.mean().len();
        let a = Matrix::from_fn(a.len() / d, d, |m, i| f64::from(a[m * d + i]));
        let mut cross = Matrix::from_fn(a.rows(), d, |m, i| a[(m, i)] * gaussian.diag()[i]);
        let factors = a.times(gaussian.factor());
        cross.add_product(1.0, View::of(&factors), View::of(gaussian.factor()).transpose());
        let s = cross.times_transpose(&a).plus(&Matrix::scaled_identity(a.rows(), sigma_y * sigma_y));
        Ok(Self { gaussian, a, cross, s: Cholesky::new(s)?, sigma_y })
    }

    /// L⁻¹ A Σ, (M, D): V\[x | y\] = Σ less its square.
    fn explained(&self) -> Matrix {
        let mut explained = self.cross.clone();
        self.s.solve_lower(&mut explained);
        explained
    }
}

impl System for DenseSystem<'_> {
    fn measured(&self, y: &[f64]) -> Vec<f64> {
        y.to_vec()
    }
    fn sigma_y(&self, _: usize) -> f64 {
        self.sigma_y
    }
    fn forward(&self, x: &[f64]) -> Vec<f64> {
        self.a.apply(x)
    }
    fn gain(&self, r: &[f64]) -> Vec<f64> {
        let mut v = r.to_vec();
        self.s.solve(&mut v);
        self.cross.apply_transpose(&v)
    }
    fn log_density(&self, r: &[f64]) -> f64 {
        let mut v = r.to_vec();
        self.s.solve(&mut v);
        -0.5 * (dot(r, &v) + self.s.log_det() + r.len() as f64 * TAU.ln())
    }
    fn add_covariance_product(&self, v: &Matrix, product: &mut Matrix) {
        let (factor, explained) = (self.gaussian.factor(), self.explained());
        let along = v.times(factor);
        product.add_product(1.0, View::of(&along), View::of(factor).transpose());
        let along = v.times_transpose(&explained);
        product.add_product(-1.0, View::of(&along), View::of(&explained));
        for l in 0..v.rows() {
            let row = product.row_mut(l).iter_mut().zip(v.row(l)).zip(self.gaussian.diag());
            row.for_each(|((p, v), d)| *p += d * v);
        }
    }
    fn variance(&self) -> f64 {
        let diag: f64 = self.gaussian.diag().iter().sum();
        diag + self.gaussian.factor().squared_norm() - self.explained().squared_norm()
    }
}
