//! Launch of `kernels/denoising_loss.cu`.

use super::{DenoisingLoss, weights};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Backend, Shape};

impl DenoisingLoss for Cuda {
    fn denoising_loss(&self, d: &CudaTensor, x: &CudaTensor, sigma: &[f64]) -> (CudaTensor, CudaTensor) {
        let s = x.shape();
        assert_eq!((d.shape(), d.dtype(), x.dtype()), (s, Dtype::F32, Dtype::F32), "a denoiser's output beside {s:?}");
        let (loss, dd) = (self.alloc(Shape::rows(s.n, 1)), self.alloc(s));
        let weights = self.scalars(&weights(sigma, s.n));
        let args = Args::new().ptr(&loss).ptr(&dd).ptr(d).ptr(x).arg(weights.arg());
        let args = args.arg(2.0 / s.len() as f32).arg(s.row() as u32);
        self.launch(Launch::rows("denoising_loss_f32", s.n, args));
        (loss, dd)
    }
}
