//! dropout: one generic form for the host backends.

use super::{Dropout, threshold};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Real};
use crate::ops::noise::Stream;

impl<B: HostBackend> Dropout for B {
    fn dropout(&self, x: &mut Self::Tensor, rate: f64, stream: Stream, samples: &[u32]) {
        assert_eq!(x.shape().n, samples.len(), "dropout of {:?} for {} samples", x.shape(), samples.len());
        let (threshold, scale) = (threshold(rate), B::Elem::of(1.0 / (1.0 - rate)));
        for (n, &sample) in samples.iter().enumerate() {
            for (block, x) in x.row_mut(n).chunks_mut(4).enumerate() {
                for (x, word) in x.iter_mut().zip(stream.words(sample, block as u32)) {
                    *x = if word >= threshold { *x * scale } else { B::Elem::of(0.0) };
                }
            }
        }
    }
}
