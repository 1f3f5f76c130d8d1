//! Launches of `kernels/cg.cu`.

use super::{CgState, ConjugateGradient, STATUSES};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl ConjugateGradient for Cuda {
    fn cg_start(&self, r: CudaTensor, image: Shape) -> CgState<Self> {
        let n = r.shape().n;
        assert_eq!(n, image.n, "samples of the residual and of the image");
        let (p, s) = (self.alloc(r.shape()), self.alloc(image));
        let [rr, rr_start, status] = std::array::from_fn(|_| self.alloc(Shape::rows(n, 1)));
        let args = Args::new().ptr(&p).ptr(&s).ptr(&rr).ptr(&rr_start).ptr(&status).ptr(&r);
        let args = args.arg(r.shape().row() as u32).arg(image.row() as u32);
        self.launch(Launch::rows("cg_start_f32", n, args));
        CgState { r, p, s, rr, rr_start, status }
    }

    fn cg_update(&self, state: &mut CgState<Self>, g: &CudaTensor, q: &CudaTensor, rtol: f64) {
        let CgState { r, p, s, rr, rr_start, status } = state;
        assert_eq!((g.shape(), q.shape()), (s.shape(), r.shape()), "extents of g and q");
        let (measured, image) = (r.shape(), s.shape());
        let args = Args::new().ptr(r).ptr(p).ptr(s).ptr(rr).ptr(rr_start).ptr(status).ptr(g).ptr(q);
        let args = args.arg((rtol * rtol) as f32).arg(measured.row() as u32).arg(image.row() as u32);
        self.launch(Launch::rows("cg_update_f32", measured.n, args));
    }

    fn cg_tally(&self, tally: &mut CudaTensor, status: &CudaTensor) {
        let n = status.shape().n;
        assert_eq!(tally.shape(), Shape::rows(n, STATUSES), "extents of the tally");
        self.launch(Launch::per_item("cg_tally_f32", n, Args::new().ptr(tally).ptr(status).arg(n as u32)));
    }
}
