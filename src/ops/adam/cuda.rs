//! Launch of `kernels/adam.cu`.

use super::{Adam, AdamStep};
use crate::backend::Array;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};

/// `Rates` of the kernel.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Rates {
    beta1: f32,
    rest1: f32, // 1 - beta1, rounded from f64
    beta2: f32,
    rest2: f32,
    keep: f32, // 1 - lr weight_decay
    rate: f32, // lr / (1 - beta1^t)
    root: f32, // 1 / sqrt(1 - beta2^t)
    eps: f32,
    max_norm: f32,
}

impl Adam for Cuda {
    fn adam_step(
        &self,
        s: &AdamStep,
        p: &mut CudaTensor,
        m: &mut CudaTensor,
        v: &mut CudaTensor,
        g: &CudaTensor,
        norm: &CudaTensor,
    ) {
        let like = |x: &CudaTensor| x.shape() == p.shape() && x.dtype() == Dtype::F32;
        assert!(like(m) && like(v) && like(g), "Adam's arrays beside {:?}", p.shape());
        let (correction1, correction2) = s.bias_corrections();
        let rates = Rates {
            beta1: s.betas.0 as f32,
            rest1: (1.0 - s.betas.0) as f32,
            beta2: s.betas.1 as f32,
            rest2: (1.0 - s.betas.1) as f32,
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            rate: (s.lr / correction1) as f32,
            root: correction2.sqrt().recip() as f32,
            eps: s.eps as f32,
            max_norm: s.max_norm as f32,
        };
        let count = p.shape().len();
        let args = Args::new().ptr(p).ptr(m).ptr(v).ptr(g).ptr(norm).arg(rates).arg(count as u32);
        self.launch(Launch::per_item("adam_step_f32", count.div_ceil(4), args));
    }
}
