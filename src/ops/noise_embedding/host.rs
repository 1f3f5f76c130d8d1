//! noise_embedding: one generic form for the host backends; angles and sums are f64 in both.

use super::{NoiseEmbedding, frequencies};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};

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
        let features = de.shape().c;
        let row = |(n, log_sigma): (usize, &f64)| {
            let (dsin, dcos) = de.row(n).split_at(features / 2);
            let term = |((f, dsin), dcos): ((f64, &B::Elem), &B::Elem)| {
                f * ((f * log_sigma).cos() * dsin.f64() - (f * log_sigma).sin() * dcos.f64())
            };
            frequencies(features).zip(dsin).zip(dcos).map(term).sum()
        };
        Ok(log_sigma.iter().enumerate().map(row).collect())
    }
}
