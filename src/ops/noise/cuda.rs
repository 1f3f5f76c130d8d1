//! Launch of `kernels/noise.cu`.

use super::{Noise, Stream};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Backend, Shape};

impl Noise for Cuda {
    fn noise_normal(&self, shape: Shape, stream: Stream, samples: &[u32]) -> CudaTensor {
        assert_eq!(shape.n, samples.len(), "noise of {shape:?} for {} samples", samples.len());
        let (y, samples) = (self.alloc(shape), self.sample_numbers(samples));
        let [step, purpose] = stream.counter_words();
        let args = Args::new().ptr(&y).ptr(&samples).arg(stream.seed).arg(self.word(step)).arg(self.word(purpose));
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::per_item("noise_normal_f32", shape.n * shape.row().div_ceil(4), args));
        y
    }
}
