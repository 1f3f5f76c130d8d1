//! Sinusoidal embedding of the noise level.

mod cuda;
mod host;

use crate::backend::Backend;

/// e(ln σ) = (sin(f_k ln σ), cos(f_k ln σ)), f_k = 10⁴^(-k/(F/2 - 1)), k = 0 .. F/2 - 1: first all sines, then all cosines.
///
/// # Shapes
/// `log_sigma`, R values; the embedding (R, 1, 1, F), F even.
pub trait NoiseEmbedding: Backend {
    /// e.
    fn noise_embedding_forward(&self, log_sigma: &[f64], features: usize) -> Self::Tensor;
    /// d(ln σ), R values: Σ_k f_k (cos(f_k ln σ) de_k - sin(f_k ln σ) de_{F/2 + k}).
    ///
    /// # Errors
    /// As [`Backend::download`].
    fn noise_embedding_vjp(&self, log_sigma: &[f64], de: &Self::Tensor) -> crate::Result<Vec<f64>>;
}

/// f_k of `features / 2` frequencies.
pub fn frequencies(features: usize) -> impl Iterator<Item = f64> {
    let half = features / 2;
    (0..half).map(move |k| 1e-4f64.powf(k as f64 / (half.max(2) - 1) as f64))
}

/// d(ln σ) of one row, for `de` (F).
fn log_sigma_gradient(log_sigma: f64, de: &[f64]) -> f64 {
    let (dsin, dcos) = de.split_at(de.len() / 2);
    let term =
        |((f, dsin), dcos): ((f64, &f64), &f64)| f * ((f * log_sigma).cos() * dsin - (f * log_sigma).sin() * dcos);
    frequencies(de.len()).zip(dsin).zip(dcos).map(term).sum()
}
