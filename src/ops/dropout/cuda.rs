//! Launch of `kernels/dropout.cu`.

use super::{Dropout, threshold};
use crate::backend::Array;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::kernel;
use crate::ops::noise::Stream;

impl Dropout for Cuda {
    fn dropout(&self, x: &mut CudaTensor, rate: f64, stream: Stream, samples: &[u32]) {
        let s = x.shape();
        assert_eq!(s.n, samples.len(), "dropout of {s:?} for {} samples", samples.len());
        let samples = self.sample_numbers(samples);
        let [step, purpose] = stream.counter_words();
        let args = Args::new().ptr(x).ptr(&samples).arg(stream.seed).arg(self.word(step)).arg(self.word(purpose));
        let args = args.arg(threshold(rate)).arg((1.0 / (1.0 - rate)) as f32).arg(s.row() as u32).arg(s.len() as u32);
        self.launch(Launch::per_item(kernel!("dropout", x.dtype()), s.n * s.row().div_ceil(4), args));
    }
}
