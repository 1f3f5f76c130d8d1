//! Launches of `kernels/noise_embedding.cu`.

use super::{NoiseEmbedding, log_sigma_gradient};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl NoiseEmbedding for Cuda {
    fn noise_embedding_forward(&self, log_sigma: &[f64], features: usize) -> CudaTensor {
        assert!(features.is_multiple_of(2), "an embedding of {features} features");
        let (rows, half) = (log_sigma.len(), features / 2);
        let e = self.alloc(Shape::rows(rows, features));
        let log_sigma = self.scalars(log_sigma);
        let args = Args::new().ptr(&e).arg(log_sigma.arg()).arg(rows as u32).arg(half as u32);
        self.launch(Launch::per_item("noise_embedding_forward_f32", rows * half, args));
        e
    }

    /// On the host, where the result goes.
    fn noise_embedding_vjp(&self, log_sigma: &[f64], de: &CudaTensor) -> crate::Result<Vec<f64>> {
        let host = self.to_vec(de)?;
        let rows = host.chunks_exact(de.shape().c);
        Ok(log_sigma.iter().zip(rows).map(|(log_sigma, de)| log_sigma_gradient(*log_sigma, de)).collect())
    }
}
