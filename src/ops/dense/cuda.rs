//! Launches of `kernels/dense.cu`.

use super::Dense;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

/// Warps of a block, each for one element of A x.
const WARPS: usize = 8;

impl Dense for Cuda {
    fn dense_forward(&self, a: &CudaTensor, x: &CudaTensor) -> CudaTensor {
        let (n, d) = (x.shape().n, x.shape().row());
        let m = rows(a.shape(), n, d);
        let y = self.alloc(Shape::rows(n, m));
        let args = Args::new().ptr_f32(&y).ptr_f32(a).ptr_f32(x).arg(a.shape().n as u32);
        let args = args.arg(m as u32).arg(d as u32).arg(n as u32);
        self.launch(Launch::blocks("dense_forward_f32", (n * m).div_ceil(WARPS), 32 * WARPS, args));
        y
    }

    fn dense_adjoint(&self, a: &CudaTensor, y: &CudaTensor, image: Shape) -> CudaTensor {
        let m = rows(a.shape(), image.n, image.row());
        assert_eq!(y.shape(), Shape::rows(image.n, m), "extents for a matrix {:?}", a.shape());
        let x = self.alloc(image);
        let args = Args::new().ptr_f32(&x).ptr_f32(a).ptr_f32(y).arg(a.shape().n as u32);
        let args = args.arg(m as u32).arg(image.row() as u32).arg(image.n as u32);
        self.launch(Launch::per_item("dense_adjoint_f32", image.len(), args));
        x
    }
}

/// M of `a` (R, 1, M, D), R = 1 or `n`.
fn rows(a: Shape, n: usize, d: usize) -> usize {
    assert!(a.h == 1 && (a.n == 1 || a.n == n) && a.c == d, "a matrix {a:?} for {n} samples of {d} elements");
    a.w
}
