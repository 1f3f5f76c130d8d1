//! Launches of `kernels/cg.cu`.

use super::{CgState, ConjugateGradient, MaskedSystem, STATUSES};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl ConjugateGradient for Cuda {
    fn cg_start(&self, r: CudaTensor, image: Shape) -> CgState<Self> {
        let n = r.shape().n;
        assert_eq!(n, image.n, "samples of the residual and of the image");
        let (p, s) = (self.alloc(r.shape()), self.alloc(image));
        let [rr, rr_start, status] = std::array::from_fn(|_| self.alloc(Shape::rows(n, 1)));
        let args = Args::new().ptr_f32(&p).ptr_f32(&s).ptr_f32(&rr).ptr_f32(&rr_start).ptr_f32(&status).ptr_f32(&r);
        let args = args.arg(r.shape().row() as u32).arg(image.row() as u32);
        self.launch(Launch::rows("cg_start_f32", n, args));
        CgState { r, p, s, rr, rr_start, status }
    }

    fn cg_update(&self, state: &mut CgState<Self>, g: &CudaTensor, q: &CudaTensor, rtol: f64) {
        assert_eq!(q.shape(), state.r.shape(), "extents of q");
        let args = iteration(state, g, rtol).ptr_f32(q);
        self.launch(Launch::rows("cg_update_f32", q.shape().n, args));
    }

    fn cg_update_masked(&self, state: &mut CgState<Self>, g: &CudaTensor, system: &MaskedSystem<Self>, rtol: f64) {
        let MaskedSystem { mask, cov_y, variance } = system;
        let shape = g.shape();
        assert_eq!(state.r.shape(), shape, "a masked image is an image");
        for rows in [mask, cov_y, variance].map(|x| x.shape().n) {
            assert!(rows == 1 || rows == shape.n, "{rows} rows for {} samples", shape.n);
        }
        assert_eq!(mask.shape(), Shape { n: mask.shape().n, c: 1, ..shape }, "extents of the mask");
        let args = iteration(state, g, rtol).ptr_f32(mask).arg(mask.shape().n as u32).arg(shape.c as u32);
        let args = args.ptr_f32(cov_y).arg(cov_y.shape().n as u32).ptr_f32(variance).arg(variance.shape().n as u32);
        self.launch(Launch::rows("cg_update_masked_f32", shape.n, args));
    }

    fn cg_tally(&self, tally: &mut CudaTensor, status: &CudaTensor) {
        let n = status.shape().n;
        assert_eq!(tally.shape(), Shape::rows(n, STATUSES), "extents of the tally");
        self.launch(Launch::per_item("cg_tally_f32", n, Args::new().ptr_f32(tally).ptr_f32(status).arg(n as u32)));
    }
}

/// What every kind of iteration takes.
fn iteration(state: &CgState<Cuda>, g: &CudaTensor, rtol: f64) -> Args {
    let CgState { r, p, s, rr, rr_start, status } = state;
    assert_eq!(g.shape(), s.shape(), "extents of g");
    let args = Args::new().ptr_f32(r).ptr_f32(p).ptr_f32(s).ptr_f32(rr).ptr_f32(rr_start).ptr_f32(status).ptr_f32(g);
    args.arg((rtol * rtol) as f32).arg(r.shape().row() as u32).arg(s.shape().row() as u32)
}
