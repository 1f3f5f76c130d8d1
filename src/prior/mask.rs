//! A mask under a Gaussian prior: Woodbury's identity, accurate however small D and σ_y are.

use super::system::System;
use super::woodbury::Woodbury;
use crate::diffusion::Gaussian;
use crate::linalg::{Matrix, View, dot};

/// S = E + U_o U_oᵀ with E = D_o + σ² I, of the observed elements o, whose noise has the variances σ² of their own.
///
/// With K = I + U_oᵀ E⁻¹ U_o, the precision of the prior's R factors given y, and w = K⁻¹ U_oᵀ E⁻¹ r their mean:
///
/// - Uᵀ Aᵀ S⁻¹ r = w, so that Σ Aᵀ S⁻¹ r = U w + D Aᵀ E⁻¹ (r - U_o w);
/// - rᵀ S⁻¹ r = |r - U_o w|² in the norm of E⁻¹, plus |w|²;
/// - ln det S = ln det E + ln det K;
/// - V\[x | y\] = H D + H U K⁻¹ Uᵀ H, H = σ² (D + σ² I)⁻¹ where x was observed, else I.
///
/// Each is a sum of positive terms or the mean of a regression: S⁻¹ r, of which most digits cancel at σ_y = 1e-3, is never
/// formed.
pub(super) struct MaskSystem<'a> {
    gaussian: &'a Gaussian,
    observed: Vec<usize>, // (M)
    sigma: Vec<f64>,      // (M)
    s: Woodbury,          // of E and the rows of U
    h: Vec<f64>,          // (D)
}

impl<'a> MaskSystem<'a> {
    /// Of the pixels where `mask` is not 0, with all their `channels`: their noise has the variance `mask` σ_y².
    pub fn new(gaussian: &'a Gaussian, mask: &[u8], channels: usize, sigma_y: f64) -> Self {
        let pixels = (0..mask.len()).filter(|&p| mask[p] > 0);
        let observed: Vec<usize> = pixels.flat_map(|p| p * channels..(p + 1) * channels).collect();
        let (diag, factor) = (gaussian.diag(), gaussian.factor());
        let sigma: Vec<f64> = observed.iter().map(|i| sigma_y * f64::from(mask[i / channels]).sqrt()).collect();
        let e: Vec<f64> = observed.iter().zip(&sigma).map(|(&i, sigma)| diag[i] + sigma * sigma).collect();
        let u = Matrix::from_fn(observed.len(), factor.cols(), |m, r| factor[(observed[m], r)]);
        let mut h = vec![1.0; diag.len()];
        observed.iter().zip(&sigma).zip(&e).for_each(|((&i, sigma), e)| h[i] = sigma * sigma / e);
        Self { gaussian, observed, sigma, s: Woodbury::new(e, u), h }
    }

    /// Mean w and covariance K⁻¹ of the factors given the residuals of all D elements, of which only those observed count.
    pub fn factors(&self, residual: &[f64]) -> (Vec<f64>, Matrix) {
        let r: Vec<f64> = self.observed.iter().map(|&i| residual[i]).collect();
        (self.s.regression(&r).0, self.s.k.inverse())
    }

    /// H U.
    fn damped(&self) -> Matrix {
        let factor = self.gaussian.factor();
        Matrix::from_fn(factor.rows(), factor.cols(), |i, r| self.h[i] * factor[(i, r)])
    }
}

impl System for MaskSystem<'_> {
    fn measured(&self, y: &[f64]) -> Vec<f64> {
        self.observed.iter().map(|&i| y[i]).collect()
    }
    fn sigma_y(&self, m: usize) -> f64 {
        self.sigma[m]
    }
    fn forward(&self, x: &[f64]) -> Vec<f64> {
        self.observed.iter().map(|&i| x[i]).collect()
    }
    fn gain(&self, r: &[f64]) -> Vec<f64> {
        let (w, left) = self.s.regression(r);
        let mut x = self.gaussian.factor().apply(&w);
        for ((&i, left), e) in self.observed.iter().zip(left).zip(&self.s.e) {
            x[i] += self.gaussian.diag()[i] / e * left;
        }
        x
    }
    fn log_density(&self, r: &[f64]) -> f64 {
        self.s.log_density(r)
    }
    fn add_covariance_product(&self, v: &Matrix, product: &mut Matrix) {
        let hu = self.damped();
        let along = v.times(&hu).times(&self.s.k.inverse()); // (L, R)
        product.add_product(1.0, View::of(&along), View::of(&hu).transpose());
        let d: Vec<f64> = self.gaussian.diag().iter().zip(&self.h).map(|(d, h)| d * h).collect();
        for l in 0..v.rows() {
            product.row_mut(l).iter_mut().zip(v.row(l)).zip(&d).for_each(|((p, v), d)| *p += d * v);
        }
    }
    fn variance(&self) -> f64 {
        let hu = self.damped();
        let gram = hu.transpose_times(&hu);
        dot(self.gaussian.diag(), &self.h) + dot(self.s.k.inverse().as_slice(), gram.as_slice())
    }
}
