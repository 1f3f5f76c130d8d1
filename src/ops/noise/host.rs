//! The definition, for both host backends: f64 numbers, each rounded once.

use super::{Noise, Stream};
use crate::backend::host::HostBackend;
use crate::backend::{Backend, Real, Shape};

impl<B: HostBackend> Noise for B {
    fn noise_normal(&self, shape: Shape, stream: Stream, samples: &[u32]) -> Self::Tensor {
        assert_eq!(shape.n, samples.len(), "noise of {shape:?} for {} samples", samples.len());
        let mut noise = self.alloc(shape);
        for (n, &sample) in samples.iter().enumerate() {
            for (block, x) in noise.row_mut(n).chunks_mut(4).enumerate() {
                for (x, z) in x.iter_mut().zip(stream.normals(sample, block as u32)) {
                    *x = B::Elem::of(z);
                }
            }
        }
        noise
    }
}
