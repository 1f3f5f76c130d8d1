//! Launches of `kernels/upsample.cu`.

use super::Upsample;
use crate::backend::cuda::units::{unit, unit_kernel};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Shape};
use crate::kernel;

impl Upsample for Cuda {
    fn upsample_forward(&self, x: &CudaTensor) -> CudaTensor {
        let s = x.shape();
        let y = self.alloc_as(Shape { h: 2 * s.h, w: 2 * s.w, ..s }, x.dtype());
        let unit = unit(&[s.c], x.dtype());
        let (c, count) = (s.c * x.dtype().size() / unit, x.bytes() / unit);
        let args = Args::new().ptr(&y).ptr(x).arg(s.w as u32).arg(c as u32).arg(count as u32);
        self.launch(Launch::per_item(unit_kernel!("upsample_forward", unit), count, args));
        y
    }

    fn upsample_vjp(&self, dy: &CudaTensor) -> CudaTensor {
        let s = dy.shape();
        assert!(s.h.is_multiple_of(2) && s.w.is_multiple_of(2), "{s:?} is no upsampled array");
        let dx = self.alloc_as(Shape { h: s.h / 2, w: s.w / 2, ..s }, dy.dtype());
        let x = dx.shape();
        let args = Args::new().ptr(&dx).ptr(dy).arg(x.w as u32).arg(x.c as u32).arg(x.len() as u32);
        self.launch(Launch::elements(kernel!("upsample_vjp", dy.dtype()), x.c, x.len(), dy.dtype(), args));
        dx
    }
}
