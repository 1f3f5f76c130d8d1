//! Launches of `kernels/patch.cu`.

use super::Patch;
use crate::backend::cuda::units::{unit, unit_kernel};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Shape};

/// The arguments after the arrays, for `x` of extents `s` unfolded, and the number of units.
fn extents(args: Args, x: &CudaTensor, patch: usize, unit: usize) -> (Args, usize) {
    let (s, count) = (x.shape(), x.bytes() / unit);
    let run = patch * s.c * x.dtype().size() / unit;
    (args.arg(patch as u32).arg(run as u32).arg((s.w / patch) as u32).arg(count as u32), count)
}

impl Patch for Cuda {
    fn patch_fold(&self, x: &CudaTensor, patch: usize) -> CudaTensor {
        let s = x.shape();
        assert!(s.h.is_multiple_of(patch) && s.w.is_multiple_of(patch), "{s:?} in patches of {patch}");
        let y = self.alloc_as(Shape::new(s.n, s.h / patch, s.w / patch, s.c * patch * patch), x.dtype());
        let unit = unit(&[patch * s.c], x.dtype());
        let (args, count) = extents(Args::new().ptr(&y).ptr(x), x, patch, unit);
        self.launch(Launch::per_item(unit_kernel!("patch_fold", unit), count, args));
        y
    }

    fn patch_unfold(&self, y: &CudaTensor, patch: usize) -> CudaTensor {
        let s = y.shape();
        assert!(s.c.is_multiple_of(patch * patch), "unfolding {s:?} in patches of {patch}");
        let x = self.alloc_as(Shape::new(s.n, s.h * patch, s.w * patch, s.c / (patch * patch)), y.dtype());
        let unit = unit(&[patch * x.shape().c], y.dtype());
        let (args, count) = extents(Args::new().ptr(&x).ptr(y), &x, patch, unit);
        self.launch(Launch::per_item(unit_kernel!("patch_unfold", unit), count, args));
        x
    }
}
