//! Dropout whose mask is a function of seed, step and sample, and is never stored.

mod cuda;
mod host;

use super::noise::{Purpose, Stream};
use crate::backend::Backend;

/// x ← x keep/(1 - rate), keep = 1 where the uniform number of the element is at least `rate`, else 0.
///
/// It is its own VJP, under the same stream and samples. SiLU's value and derivative of a layer, masked alike, make the
/// layer's dropout, and leave its VJP as it was.
///
/// # Shapes
/// `x` (N, H, W, C); row i has the mask of sample `samples[i]`, whatever the others are.
///
/// # Reference
/// Srivastava et al., *Dropout*, JMLR 2014.
pub trait Dropout: Backend {
    /// Masks `x`; 0 ≤ rate < 1. The word of element e is word e mod 4 of counter block e/4: see [`super::Noise`].
    fn dropout(&self, x: &mut Self::Tensor, rate: f64, stream: Stream, samples: &[u32]);
}

/// What the layers of a network drop in one step of training.
#[derive(Clone, Copy, Debug)]
pub struct Masks<'a> {
    /// 0 or more, below 1.
    pub rate: f64,
    /// Seed and step of training; each layer has its own stream of [`Purpose::Dropout`].
    pub stream: Stream,
    /// Numbers of the batch's samples.
    pub samples: &'a [u32],
}

impl Masks<'_> {
    /// Those of the layer of this number.
    pub fn layer(self, number: usize) -> Self {
        let stream = Stream { purpose: Purpose::Dropout, ..self.stream };
        Self { stream: stream.at(stream.step as usize, number), ..self }
    }
    /// Masks `x`.
    pub fn apply<B: Dropout>(&self, backend: &B, x: &mut B::Tensor) {
        backend.dropout(x, self.rate, self.stream, self.samples);
    }
}

/// The smallest word of a random number that keeps its element.
fn threshold(rate: f64) -> u32 {
    assert!((0.0..1.0).contains(&rate), "a dropout rate of {rate}");
    (rate * 4_294_967_296.0) as u32
}
