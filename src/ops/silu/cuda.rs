//! Launches of `kernels/silu.cu`.

use super::Silu;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Keep};
use crate::kernel;

/// Threads for all of `x`: one for 16 bytes.
fn accesses(x: &CudaTensor) -> usize {
    x.bytes().div_ceil(16)
}

impl Silu for Cuda {
    fn silu_forward(&self, x: &CudaTensor, keep: Keep) -> (CudaTensor, Option<CudaTensor>) {
        let y = self.alloc_like(x);
        let derivative = (keep != Keep::Nothing).then(|| self.alloc_like(x));
        let args = Args::new().ptr(&y).ptr_or_null(derivative.as_ref()).ptr(x).arg(x.shape().len() as u32);
        self.launch(Launch::per_item(kernel!("silu_forward", x.dtype()), accesses(x), args));
        (y, derivative)
    }

    fn silu_vjp(&self, derivative: &CudaTensor, dy: &CudaTensor) -> CudaTensor {
        assert_eq!((derivative.shape(), derivative.dtype()), (dy.shape(), dy.dtype()), "the VJP of SiLU");
        let dx = self.alloc_like(dy);
        let args = Args::new().ptr(&dx).ptr(derivative).ptr(dy).arg(dy.shape().len() as u32);
        self.launch(Launch::per_item(kernel!("silu_vjp", dy.dtype()), accesses(dy), args));
        dx
    }
}
