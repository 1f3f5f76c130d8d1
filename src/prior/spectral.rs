//! A periodic filter under a Gaussian prior: Woodbury's identity, in the frequencies in which A Aᵀ is diagonal.

use super::system::System;
use super::woodbury::Woodbury;
use crate::backend::Shape;
use crate::data::observations::FilterF64;
use crate::diffusion::Gaussian;
use crate::linalg::{Matrix, View, dot};
use crate::ops::fourier::Transform;

/// S = A Σ Aᵀ + σ_y² I with Σ = δ I + U Uᵀ, in the basis Q of y: Q S Qᵀ = E + V Vᵀ, E = δ λ + σ_y² I, V = Q A U.
///
/// Q is the 2-D Hartley transform of every channel, (cos + sin)(2π (p p'/H + q q'/W)), which is real, orthonormal and its own inverse;
/// λ are the eigenvalues of A Aᵀ, a periodic convolution. With K = I + Vᵀ E⁻¹ V and w = K⁻¹ Vᵀ E⁻¹ r, as for masks:
///
/// - Σ Aᵀ S⁻¹ r = U w + δ Aᵀ Qᵀ E⁻¹ (r - V w);
/// - V\[x | y\] = δ H + H U K⁻¹ Uᵀ H, H = I - δ Aᵀ Qᵀ E⁻¹ Q A.
pub(super) struct SpectralSystem<'a> {
    gaussian: &'a Gaussian,
    operator: FilterF64,
    transform: Transform<f64>,
    y: Shape,         // extents of an observation
    lambda: Vec<f64>, // (M)
    s: Woodbury,      // of E and V
    sigma_y: f64,
}

impl<'a> SpectralSystem<'a> {
    /// Of the one `operator` of all observations, which have the extents of `y`; D is one number times I.
    pub fn new(gaussian: &'a Gaussian, operator: FilterF64, y: Shape, sigma_y: f64) -> Self {
        let (transform, y) = (Transform::new(y.h, y.w), y.with_n(1));
        // A Aᵀ of a point in the middle, from which frequencies are counted: its transform has the eigenvalues
        let mut point = vec![0.0; y.row()];
        point[(y.h / 2 * y.w + y.w / 2) * y.c] = 1.0;
        let response = operator.forward(&operator.adjoint(&point));
        let scale = (y.pixels() as f64).sqrt();
        let spectrum = hartley(&transform, y, &response);
        let lambda: Vec<f64> = (0..y.row()).map(|i| (scale * spectrum[i / y.c * y.c]).max(0.0)).collect();
        let delta = gaussian.diag()[0];
        let e: Vec<f64> = lambda.iter().map(|l| delta * l + sigma_y * sigma_y).collect();
        let factor = gaussian.factor();
        let columns: Vec<Vec<f64>> =
            (0..factor.cols()).map(|r| hartley(&transform, y, &operator.forward(&column(factor, r)))).collect();
        let v = Matrix::from_fn(y.row(), factor.cols(), |m, r| columns[r][m]);
        Self { gaussian, operator, transform, y, lambda, s: Woodbury::new(e, v), sigma_y }
    }

    /// δ Aᵀ Qᵀ E⁻¹ z.
    fn back(&self, z: &[f64]) -> Vec<f64> {
        let delta = self.gaussian.diag()[0];
        let scaled: Vec<f64> = z.iter().zip(&self.s.e).map(|(z, e)| delta * z / e).collect();
        self.operator.adjoint(&hartley(&self.transform, self.y, &scaled))
    }

    /// H x.
    fn damped(&self, x: &[f64]) -> Vec<f64> {
        x.iter().zip(self.back(&self.forward(x))).map(|(x, known)| x - known).collect()
    }

    /// H U.
    fn damped_factor(&self) -> Matrix {
        let factor = self.gaussian.factor();
        let columns: Vec<Vec<f64>> = (0..factor.cols()).map(|r| self.damped(&column(factor, r))).collect();
        Matrix::from_fn(factor.rows(), factor.cols(), |i, r| columns[r][i])
    }
}

impl System for SpectralSystem<'_> {
    fn measured(&self, y: &[f64]) -> Vec<f64> {
        hartley(&self.transform, self.y, y)
    }
    fn sigma_y(&self, _: usize) -> f64 {
        self.sigma_y
    }
    fn forward(&self, x: &[f64]) -> Vec<f64> {
        hartley(&self.transform, self.y, &self.operator.forward(x))
    }
    fn gain(&self, r: &[f64]) -> Vec<f64> {
        let (w, left) = self.s.regression(r);
        let along = self.gaussian.factor().apply(&w);
        along.iter().zip(self.back(&left)).map(|(uw, x)| uw + x).collect()
    }
    fn log_density(&self, r: &[f64]) -> f64 {
        self.s.log_density(r)
    }
    fn add_covariance_product(&self, v: &Matrix, product: &mut Matrix) {
        let hu = self.damped_factor();
        let along = v.times(&hu).times(&self.s.k.inverse()); // (L, R)
        product.add_product(1.0, View::of(&along), View::of(&hu).transpose());
        let delta = self.gaussian.diag()[0];
        for l in 0..v.rows() {
            let damped = self.damped(v.row(l)); // H is symmetric
            product.row_mut(l).iter_mut().zip(damped).for_each(|(p, x)| *p += delta * x);
        }
    }
    fn variance(&self) -> f64 {
        let (hu, delta) = (self.damped_factor(), self.gaussian.diag()[0]);
        let known: f64 = self.lambda.iter().zip(&self.s.e).map(|(l, e)| delta * l / e).sum();
        let gram = hu.transpose_times(&hu);
        delta * (hu.rows() as f64 - known) + dot(self.s.k.inverse().as_slice(), gram.as_slice())
    }
}

/// Column `r`.
fn column(factor: &Matrix, r: usize) -> Vec<f64> {
    (0..factor.rows()).map(|i| factor[(i, r)]).collect()
}

/// The centred orthonormal 2-D Hartley transform of every channel of `x`, with the extents of `shape`.
fn hartley(transform: &Transform<f64>, shape: Shape, x: &[f64]) -> Vec<f64> {
    let c = shape.c;
    let (mut out, mut spectrum) = (vec![0.0; x.len()], vec![0.0; 2 * shape.pixels()]);
    for channel in 0..c {
        let plane: Vec<f64> = x.iter().skip(channel).step_by(c).copied().collect();
        transform.forward(|_| true, &plane, &mut spectrum);
        for (p, value) in spectrum.chunks_exact(2).enumerate() {
            out[p * c + channel] = value[0] - value[1]; // exp(-iθ) = cos θ - i sin θ
        }
    }
    out
}
