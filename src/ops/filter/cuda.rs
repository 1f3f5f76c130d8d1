//! Launches of `kernels/filter.cu`.

use super::{Filter, FilterSpec};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl Filter for Cuda {
    fn filter_forward(&self, kernel: &CudaTensor, spec: FilterSpec, x: &CudaTensor) -> CudaTensor {
        let y = self.alloc(spec.filtered(x.shape()));
        launch(self, "filter_forward_f32", kernel, spec, [&y, x], x.shape());
        y
    }

    fn filter_adjoint(&self, kernel: &CudaTensor, spec: FilterSpec, y: &CudaTensor) -> CudaTensor {
        let x = self.alloc(spec.image(y.shape()));
        launch(self, "filter_adjoint_f32", kernel, spec, [&x, y], x.shape());
        x
    }
}

/// A thread for each element of `out`; `s` are the extents of the image.
fn launch(
    backend: &Cuda,
    name: &'static str,
    kernel: &CudaTensor,
    spec: FilterSpec,
    [out, from]: [&CudaTensor; 2],
    s: Shape,
) {
    let taps = kernel.shape();
    assert_eq!((taps.n, taps.c), (1, 1), "one kernel for all");
    let args = Args::new().ptr_f32(out).ptr_f32(from).ptr_f32(kernel).arg(taps.h as u32).arg(taps.w as u32);
    let args = args.arg((spec.anchor.0 % s.h) as u32).arg((spec.anchor.1 % s.w) as u32).arg(spec.stride as u32);
    let args = args.arg(s.h as u32).arg(s.w as u32).arg(s.c as u32).arg(out.shape().len() as u32);
    backend.launch(Launch::per_item(name, out.shape().len(), args));
}
