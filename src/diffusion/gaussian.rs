//! The exact denoiser of a Gaussian prior with DPLR covariance: a network without weights.

use super::Denoiser;
use crate::backend::{Array, Backend, Keep, Shape};
use crate::linalg::{Cholesky, Matrix, dot};
use crate::ops::{Dplr, Vector};
use crate::{Error, Result};

/// N(μ, Σ_x) with Σ_x = D + U Uᵀ, D diagonal.
///
/// d(x_t, σ) = E\[x | x_t\] = μ + J (x_t - μ) with J = Σ_x (Σ_x + σ² I)⁻¹, which is symmetric and again diagonal plus low
/// rank. With M = D + σ² I and L Lᵀ = I + Uᵀ M⁻¹ U, Woodbury's identity gives
///
/// J = D M⁻¹ + W Wᵀ, W = σ M⁻¹ U L⁻ᵀ:
///
/// a sum of positive terms, in which nothing cancels however small D and σ are.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>, // (D)
    diag: Vec<f64>, // (D)
    factor: Matrix, // U (D, R)
}

/// A matrix diag(`d`) + `w`ᵀ `w` for all samples, or one for each: what [`Dplr::dplr_apply`] takes.
pub struct DplrMatrix<B: Backend> {
    /// (R, 1, 1, D).
    pub d: B::Tensor,
    /// (R, 1, K, D).
    pub w: B::Tensor,
}

impl<B: Dplr> DplrMatrix<B> {
    /// The product with the samples of `x`.
    pub fn apply(&self, backend: &B, x: &B::Tensor) -> B::Tensor {
        backend.dplr_apply(&self.d, &self.w, x)
    }
}

/// What σ determines of the denoiser.
pub struct GaussianCondition<B: Backend> {
    /// J.
    pub jacobian: DplrMatrix<B>,
    /// (R, 1, 1, D): μ - J μ.
    pub shift: B::Tensor,
}

impl Gaussian {
    /// `mean` and `diag` have D values, `factor` the D x R of U, row-major.
    ///
    /// # Errors
    /// When the lengths do not fit, a value is not finite, or one of `diag` is negative.
    pub fn new(mean: Vec<f64>, diag: Vec<f64>, factor: Vec<f64>) -> Result<Self> {
        let len = mean.len();
        if diag.len() != len || len == 0 || !factor.len().is_multiple_of(len) {
            let found = format!("{len}, {} and {}", diag.len(), factor.len());
            return Err(Error::mismatch("lengths of mean, diag and factor", "D, D and D x R", found));
        }
        for (name, values) in [("mean", &mean), ("diag", &diag), ("factor", &factor)] {
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::NonFinite { place: format!("Gaussian prior, {name}[{i}]") });
            }
        }
        if let Some(negative) = diag.iter().find(|&&v| v < 0.0) {
            return Err(Error::mismatch("Gaussian prior, diag", "values of 0 or above", negative));
        }
        let rank = factor.len() / len;
        let factor = Matrix::from_fn(len, rank, |i, r| factor[i * rank + r]);
        Ok(Self { mean, diag, factor })
    }
    /// μ.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }
    /// The diagonal of D.
    pub fn diag(&self) -> &[f64] {
        &self.diag
    }
    /// U (D, R).
    pub fn factor(&self) -> &Matrix {
        &self.factor
    }
    /// Σ_x as a dense matrix: for checks.
    pub fn covariance(&self) -> Matrix {
        let mut cov = self.factor.times(&self.factor.transpose());
        for (i, d) in self.diag.iter().enumerate() {
            cov[(i, i)] += d;
        }
        cov
    }
    /// σ² J = (Σ_x⁻¹ + σ⁻² I)⁻¹ = V\[x | x_t\], for one σ or one per sample.
    pub fn posterior_covariance<B: Backend>(&self, backend: &B, sigma: &[f64]) -> DplrMatrix<B> {
        let matrices: Vec<HostDplr> = distinct(sigma).iter().map(|&s| self.jacobian(s).scaled(s * s)).collect();
        upload(backend, &matrices)
    }

    /// J at σ.
    fn jacobian(&self, sigma: f64) -> HostDplr {
        let (len, rank) = (self.factor.rows(), self.factor.cols());
        let m: Vec<f64> = self.diag.iter().map(|d| d + sigma * sigma).collect();
        let mut gram = Matrix::zeros(rank, rank);
        for (i, m) in m.iter().enumerate() {
            let u = self.factor.row(i);
            for (r, a) in u.iter().enumerate() {
                let a = a / m;
                gram.row_mut(r)[..=r].iter_mut().zip(u).for_each(|(g, b)| *g += a * b);
            }
        }
        let cholesky = Cholesky::of_identity_plus(gram);
        let mut w = Matrix::from_fn(rank, len, |r, i| sigma / m[i] * self.factor[(i, r)]);
        cholesky.solve_lower(&mut w);
        HostDplr { d: self.diag.iter().zip(m).map(|(d, m)| d / m).collect(), w }
    }
}

/// diag(`d`) + `w`ᵀ `w` on the host.
struct HostDplr {
    d: Vec<f64>, // (D)
    w: Matrix,   // (R, D)
}

impl HostDplr {
    fn scaled(self, scale: f64) -> Self {
        let root = scale.sqrt();
        let w = Matrix::from_fn(self.w.rows(), self.w.cols(), |r, i| root * self.w[(r, i)]);
        Self { d: self.d.iter().map(|d| scale * d).collect(), w }
    }
    /// x minus the product with x.
    fn complement(&self, x: &[f64]) -> Vec<f64> {
        let mut y: Vec<f64> = x.iter().zip(&self.d).map(|(x, d)| x - d * x).collect();
        for r in 0..self.w.rows() {
            let w = self.w.row(r);
            let a = dot(w, x);
            y.iter_mut().zip(w).for_each(|(y, w)| *y -= a * w);
        }
        y
    }
}

/// One value where all are equal, else all.
fn distinct(sigma: &[f64]) -> &[f64] {
    if sigma.iter().all(|&s| s == sigma[0]) { &sigma[..1] } else { sigma }
}

fn upload<B: Backend>(backend: &B, matrices: &[HostDplr]) -> DplrMatrix<B> {
    let (rows, rank, len) = (matrices.len(), matrices[0].w.rows(), matrices[0].d.len());
    let d: Vec<f64> = matrices.iter().flat_map(|m| m.d.iter().copied()).collect();
    let w: Vec<f64> = matrices.iter().flat_map(|m| m.w.as_slice().iter().copied()).collect();
    DplrMatrix { d: backend.upload(Shape::rows(rows, len), &d), w: backend.upload(Shape::new(rows, 1, rank, len), &w) }
}

impl<B: Dplr + Vector> Denoiser<B> for Gaussian {
    type Condition = GaussianCondition<B>;
    type Saved = ();

    fn condition(&self, backend: &B, sigma: &[f64], _keep: Keep) -> Self::Condition {
        let matrices: Vec<HostDplr> = distinct(sigma).iter().map(|&s| self.jacobian(s)).collect();
        let shift: Vec<f64> = matrices.iter().flat_map(|j| j.complement(&self.mean)).collect();
        let shape = Shape::rows(matrices.len(), self.mean.len());
        GaussianCondition { jacobian: upload(backend, &matrices), shift: backend.upload(shape, &shift) }
    }

    fn forward(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        assert_eq!(x_t.shape().row(), self.mean.len(), "Gaussian denoiser of {:?}", x_t.shape());
        let mut x_hat = condition.jacobian.apply(backend, x_t);
        backend.add_assign(&mut x_hat, &condition.shift);
        (x_hat, (keep != Keep::Nothing).then_some(()))
    }

    fn vjp(&self, backend: &B, condition: &Self::Condition, _saved: &Self::Saved, u: &B::Tensor) -> B::Tensor {
        condition.jacobian.apply(backend, u) // J is symmetric
    }
}
