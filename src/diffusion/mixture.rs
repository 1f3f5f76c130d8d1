//! The exact denoiser of a mixture of isotropic Gaussians: a network without weights, whose posterior is known too.

use super::Denoiser;
use crate::backend::Keep;
use crate::backend::host::{HostBackend, HostTensor};
use crate::backend::{Array, Backend, Real};
use crate::linalg::Matrix;
use crate::{Error, Result};

/// Σ_k w_k N(μ_k, s² I).
///
/// With v = s² + σ² and the responsibilities w_k(x_t) ∝ w_k exp(-‖x_t - μ_k‖²/2v), whose mean of the μ_k is μ̄:
///
/// d(x_t, σ) = (s² x_t + σ² μ̄)/v, and J = s²/v I + σ²/v² Σ_k w_k(x_t) (μ_k - μ̄)(μ_k - μ̄)ᵀ, symmetric.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    means: Matrix,         // (K, D)
    log_weights: Vec<f64>, // (K)
    variance: f64,         // s²
}

/// The responsibilities of one sample, and the mean under them.
struct Responsibilities {
    weights: Vec<f64>, // (K)
    mean: Vec<f64>,    // (D) μ̄
}

impl Mixture {
    /// Components with the rows of `means` (K, D), `weights` (K) up to a factor, and the standard deviation `std`.
    ///
    /// # Errors
    /// When the lengths do not fit, or a weight or `std` is not positive and finite.
    pub fn new(means: Matrix, weights: &[f64], std: f64) -> Result<Self> {
        if weights.is_empty() || weights.len() != means.rows() {
            return Err(Error::mismatch(
                "weights of a mixture",
                format!("{}, at least 1", means.rows()),
                weights.len(),
            ));
        }
        if let Some(bad) = weights.iter().chain([&std]).find(|w| !(**w > 0.0 && w.is_finite())) {
            return Err(Error::mismatch("weights and std of a mixture", "positive numbers", bad));
        }
        Ok(Self { means, log_weights: weights.iter().map(|w| w.ln()).collect(), variance: std * std })
    }

    fn responsibilities(&self, x_t: &[f64], v: f64) -> Responsibilities {
        let mut weights: Vec<f64> = (self.log_weights.iter().enumerate())
            .map(|(k, log_weight)| {
                let distance: f64 = x_t.iter().zip(self.means.row(k)).map(|(x, mu)| (x - mu).powi(2)).sum();
                log_weight - 0.5 * distance / v
            })
            .collect();
        let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        weights.iter_mut().for_each(|w| *w = (*w - largest).exp());
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        let mean = (0..x_t.len()).map(|i| weights.iter().enumerate().map(|(k, w)| w * self.means[(k, i)]).sum());
        Responsibilities { mean: mean.collect(), weights }
    }
    /// J u.
    fn jacobian(&self, at: &Responsibilities, variance_t: f64, u: &[f64]) -> Vec<f64> {
        let v = self.variance + variance_t;
        let mut g: Vec<f64> = u.iter().map(|u| self.variance / v * u).collect();
        for (k, weight) in at.weights.iter().enumerate() {
            let delta = || self.means.row(k).iter().zip(&at.mean).map(|(mu, mean)| mu - mean);
            let projection: f64 = delta().zip(u).map(|(d, u)| d * u).sum();
            let scale = variance_t / (v * v) * weight * projection;
            g.iter_mut().zip(delta()).for_each(|(g, d)| *g += scale * d);
        }
        g
    }
}

/// What a forward keeps: the responsibilities of every sample.
pub struct MixtureSaved(Vec<Responsibilities>);

impl<B: HostBackend> Denoiser<B> for Mixture {
    type Condition = Vec<f64>; // (R) σ²
    type Saved = MixtureSaved;

    fn condition(&self, _: &B, sigma: &[f64], _: Keep) -> Vec<f64> {
        sigma.iter().map(|sigma| sigma * sigma).collect()
    }
    fn forward(
        &self,
        backend: &B,
        x_t: &HostTensor<B::Elem>,
        condition: &Vec<f64>,
        keep: Keep,
    ) -> (HostTensor<B::Elem>, Option<MixtureSaved>) {
        assert_eq!(x_t.shape().row(), self.means.cols(), "mixture denoiser of {:?}", x_t.shape());
        let mut x_hat = backend.alloc(x_t.shape());
        let mut saved = Vec::new();
        for n in 0..x_t.shape().n {
            let variance_t = condition[n % condition.len()];
            let v = self.variance + variance_t;
            let x: Vec<f64> = x_t.row(n).iter().map(|x| x.f64()).collect();
            let at = self.responsibilities(&x, v);
            for (x_hat, (x, mean)) in x_hat.row_mut(n).iter_mut().zip(x.iter().zip(&at.mean)) {
                *x_hat = B::Elem::of((self.variance * x + variance_t * mean) / v);
            }
            saved.push(at);
        }
        (x_hat, (keep != Keep::Nothing).then_some(MixtureSaved(saved)))
    }
    fn vjp(
        &self,
        backend: &B,
        condition: &Vec<f64>,
        saved: &MixtureSaved,
        u: &HostTensor<B::Elem>,
    ) -> HostTensor<B::Elem> {
        let mut g = backend.alloc(u.shape());
        for (n, at) in saved.0.iter().enumerate() {
            let u: Vec<f64> = u.row(n).iter().map(|u| u.f64()).collect();
            let product = self.jacobian(at, condition[n % condition.len()], &u);
            g.row_mut(n).iter_mut().zip(product).for_each(|(g, product)| *g = B::Elem::of(product));
        }
        g
    }
}
