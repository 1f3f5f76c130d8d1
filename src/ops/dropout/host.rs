//! dropout: one generic form for the host backends.

use super::{Dropout, threshold};
use crate::backend::host::{HostBackend, PART};
use crate::backend::{Array, Real};
use crate::ops::noise::Stream;

impl<B: HostBackend> Dropout for B {
    fn dropout(&self, x: &mut Self::Tensor, rate: f64, stream: Stream, samples: &[u32]) {
        assert_eq!(x.shape().n, samples.len(), "dropout of {:?} for {} samples", x.shape(), samples.len());
        let (threshold, scale) = (threshold(rate), B::Elem::of(1.0 / (1.0 - rate)));
        let row = x.shape().row();
        let rows = x.chunks_mut(row).zip(samples);
        let parts =
            rows.flat_map(|(x, &sample)| (0..).step_by(PART / 4).zip(x.chunks_mut(PART)).map(move |x| (sample, x)));
        self.each(parts.collect(), |(sample, (first, x))| {
            for (block, x) in (first..).zip(x.chunks_mut(4)) {
                for (x, word) in x.iter_mut().zip(stream.words(sample, block)) {
                    *x = if word >= threshold { *x * scale } else { B::Elem::of(0.0) };
                }
            }
        });
    }
}
