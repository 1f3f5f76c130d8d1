//! Woodbury's identity for a diagonal plus low rank.

use crate::linalg::{Cholesky, Matrix, dot};
use std::f64::consts::TAU;

/// S = E + U Uᵀ, E diagonal, with K = I + Uᵀ E⁻¹ U: the precision of the R factors z of r = U z + N(0, E) given r.
pub(super) struct Woodbury {
    pub e: Vec<f64>, // (M)
    u: Matrix,       // (M, R)
    pub k: Cholesky, // of (R, R)
}

impl Woodbury {
    /// # Shapes
    /// `e` (M), `u` (M, R).
    pub fn new(e: Vec<f64>, u: Matrix) -> Self {
        let scaled = Matrix::from_fn(u.rows(), u.cols(), |m, r| u[(m, r)] / e[m]);
        let k = Cholesky::of_identity_plus(u.transpose_times(&scaled));
        Self { e, u, k }
    }

    /// The factors' mean w = K⁻¹ Uᵀ E⁻¹ r, and r - U w.
    pub fn regression(&self, r: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let scaled: Vec<f64> = r.iter().zip(&self.e).map(|(r, e)| r / e).collect();
        let mut w = self.u.apply_transpose(&scaled);
        self.k.solve(&mut w);
        let left = r.iter().zip(self.u.apply(&w)).map(|(r, uw)| r - uw).collect();
        (w, left)
    }

    /// ln N(r; 0, S): rᵀ S⁻¹ r is |r - U w|² in the norm of E⁻¹, plus |w|²; ln det S = ln det E + ln det K.
    pub fn log_density(&self, r: &[f64]) -> f64 {
        let (w, left) = self.regression(r);
        let distance: f64 = left.iter().zip(&self.e).map(|(left, e)| left * left / e).sum();
        let log_det = self.e.iter().map(|e| (TAU * e).ln()).sum::<f64>() + self.k.log_det();
        -0.5 * (distance + dot(&w, &w) + log_det)
    }
}
