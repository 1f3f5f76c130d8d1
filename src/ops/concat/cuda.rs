//! Launches of `kernels/concat.cu`.

use super::Concat;
use crate::backend::Array;
use crate::backend::cuda::units::{unit, unit_kernel};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};

impl Concat for Cuda {
    /// `x2` may be f32 where `x1` is bf16: the result is.
    fn concat_forward(&self, x1: &CudaTensor, x2: &CudaTensor) -> CudaTensor {
        let (s, c1, c2) = (x1.shape(), x1.shape().c, x2.shape().c);
        assert_eq!(s.with_c(c2), x2.shape(), "concatenation");
        let y = self.alloc_as(s.with_c(c1 + c2), x1.dtype());
        let size = x1.dtype().size();
        let (kernel, unit) = match (x1.dtype(), x2.dtype()) {
            (Dtype::Bf16, Dtype::F32) => ("concat_forward_bf16_f32", size),
            (dtype, other) => {
                assert_eq!(dtype, other, "concatenation");
                let unit = unit(&[c1, c2], dtype);
                (unit_kernel!("concat_forward", unit), unit)
            }
        };
        let [c1, c2, count] = [c1 * size, c2 * size, y.bytes()].map(|bytes| bytes / unit);
        let args = Args::new().ptr(&y).ptr(x1).ptr(x2).arg(c1 as u32).arg(c2 as u32).arg(count as u32);
        self.launch(Launch::per_item(kernel, count, args));
        y
    }

    fn concat_vjp(&self, dy: &CudaTensor, c1: usize) -> (CudaTensor, CudaTensor) {
        let (s, dtype) = (dy.shape(), dy.dtype());
        let c2 = s.c - c1;
        let (dx1, dx2) = (self.alloc_as(s.with_c(c1), dtype), self.alloc_as(s.with_c(c2), dtype));
        let unit = unit(&[c1, c2], dtype);
        let [c1, c2, count] = [c1 * dtype.size(), c2 * dtype.size(), dy.bytes()].map(|bytes| bytes / unit);
        let args = Args::new().ptr(&dx1).ptr(&dx2).ptr(dy).arg(c1 as u32).arg(c2 as u32).arg(count as u32);
        self.launch(Launch::per_item(unit_kernel!("concat_vjp", unit), count, args));
        (dx1, dx2)
    }
}
