//! noise_embedding: one generic form for the host backends; angles and sums are f64 in both.

use super::{NoiseEmbedding, frequencies, log_sigma_gradient};
use crate::backend::host::HostBackend;
use crate::backend::{Backend, Real, Shape};

impl<B: HostBackend> NoiseEmbedding for B {
    fn noise_embedding_forward(&self, log_sigma: &[f64], features: usize) -> Self::Tensor {
        assert!(features.is_multiple_of(2), "an embedding of {features} features");
        let mut e = self.alloc(Shape::rows(log_sigma.len(), features));
        for (n, log_sigma) in log_sigma.iter().enumerate() {
            let (sin, cos) = e.row_mut(n).split_at_mut(features / 2);
            for ((f, sin), cos) in frequencies(features).zip(sin).zip(cos) {
                (*sin, *cos) = (B::Elem::of((f * log_sigma).sin()), B::Elem::of((f * log_sigma).cos()));
            }
        }
        e
    }
    fn noise_embedding_vjp(&self, log_sigma: &[f64], de: &Self::Tensor) -> crate::Result<Vec<f64>> {
        let row = |n| de.row(n).iter().map(|d| d.f64()).collect::<Vec<_>>();
        Ok(log_sigma.iter().enumerate().map(|(n, log_sigma)| log_sigma_gradient(*log_sigma, &row(n))).collect())
    }
}
