//! Launches of `kernels/bicgstab.cu`.

use super::{Bicgstab, BicgstabState, NUMBERS};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl Bicgstab for Cuda {
    fn bicgstab_start(&self, r: CudaTensor, image: Shape) -> BicgstabState<Self> {
        let n = r.shape().n;
        assert_eq!(n, image.n, "samples of the residual and of the image");
        let (numbers, status) = (self.alloc(Shape::rows(n, NUMBERS)), self.alloc(Shape::rows(n, 1)));
        let args = Args::new().ptr_f32(&numbers).ptr_f32(&status).ptr_f32(&r).arg(r.shape().row() as u32);
        self.launch(Launch::rows("bicgstab_start_f32", n, args));
        BicgstabState { p: self.copy(&r), shadow: self.copy(&r), r, s: self.zeros(image), numbers, status }
    }

    fn bicgstab_bi(&self, state: &mut BicgstabState<Self>, g: &CudaTensor, v: &CudaTensor, rtol: f64) {
        assert_eq!((g.shape(), v.shape()), (state.s.shape(), state.r.shape()), "extents of g and v");
        let args = iteration(state, rtol).ptr_f32(g).ptr_f32(v);
        self.launch(Launch::rows("bicgstab_bi_f32", v.shape().n, args));
    }

    fn bicgstab_stab(
        &self,
        state: &mut BicgstabState<Self>,
        v: &CudaTensor,
        g: &CudaTensor,
        t: &CudaTensor,
        rtol: f64,
    ) {
        let BicgstabState { r, p, s, .. } = state;
        assert_eq!((v.shape(), g.shape(), t.shape()), (p.shape(), s.shape(), r.shape()), "extents of v, g and t");
        let args = iteration(state, rtol).ptr_f32(&state.p).ptr_f32(v).ptr_f32(g).ptr_f32(t);
        self.launch(Launch::rows("bicgstab_stab_f32", t.shape().n, args));
    }
}

/// What both halves of an iteration take.
fn iteration(state: &BicgstabState<Cuda>, rtol: f64) -> Args {
    let BicgstabState { r, shadow, s, numbers, status, .. } = state;
    let args = Args::new().ptr_f32(r).ptr_f32(s).ptr_f32(numbers).ptr_f32(status).ptr_f32(shadow);
    args.arg((rtol * rtol) as f32).arg(r.shape().row() as u32).arg(s.shape().row() as u32)
}
